"""The connection to EcoFlow is dialled while a run imports, where it may be."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ecoflow_push.config.environ import Reader
from ecoflow_push.errors import Unreachable
from ecoflow_push.memory.state import State
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.net.plain import PlainExchange
from ecoflow_push.net.retry import Request, Transport
from ecoflow_push.net.trust import Trust
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedDevice
from ecoflow_push.simulator.server import RecordingServer
from ecoflow_push.start.lock_probe import _folder
from tests.conftest import DELTA
from tests.proxy import Proxy
from tests.support import ROOT, eventually, free_port, push, push_anew
from tests.wired import Cloud, Gateway


@pytest.fixture
def cloud(server_tls):
    with Cloud([DELTA], tls=server_tls) as running:
        yield running


@pytest.fixture
def environ(environ, ca_file):
    return environ | {"ECOFLOW_CA_FILE": ca_file, "ESTABLISH_ATTEMPTS": "1"}


# A run that waits for a line before it imports prometheus_client.
WAITS = """
import os, sys

class Waits:
    def find_spec(name, path=None, target=None):
        if name == "prometheus_client":
            sys.meta_path.remove(Waits)
            sys.stdin.readline()

sys.meta_path.insert(0, Waits)
import push
sys.exit(push.main([], os.environ))
"""


def test_it_connects_while_others_are_imported(environ, cloud):
    """TLS is spoken before the dear imports have begun, and used once they are done."""
    with subprocess.Popen(
        [sys.executable, "-c", WAITS],
        env={
            "PATH": os.defpath,
            "HOME": "/nonexistent",
            **environ,
            "PYTHONPATH": str(ROOT),
        },
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        is_early = eventually(lambda: cloud.handshakes == 1, 20)
        assert cloud.received == []
        _, said = run.communicate("go on\n", timeout=60)

    assert is_early
    assert run.returncode == 0, said
    assert cloud.handshakes == 1
    assert len(cloud.received) == 2


def test_lanes_are_dialled_together(environ, cloud):
    """Who read in lanes in the last run has them all dialled before the list is there.

    A first run, which knows of no device, dials one.
    """
    cloud.devices[:] = [SimulatedDevice(f"R331ZLANE{n:07}", {"a": n}) for n in range(9)]
    assert push_anew(environ).status == 0
    cloud.wires.clear()
    cloud.fail("list", faults.hang())

    for expected in (4, 1):
        cloud.wires.clear()
        assert push_anew(environ | {"RUN_DEADLINE": "3"}).status == 75
        assert len(cloud.wires) == expected
        for each in Path(environ["STATE_DIR"]).glob("*/state.json"):
            each.unlink()


def assert_not_dialled(cloud, environ, status: int) -> None:
    assert push_anew(environ).status == status
    assert cloud.wires == cloud.received == []
    assert cloud.handshakes == 0


def test_who_is_locked_out_dials_nobody(environ, cloud):
    """A run that finds another one at work opens no connection."""
    with State.open(_folder(Reader(environ))):
        assert_not_dialled(cloud, environ, 75)


@pytest.mark.parametrize(
    "wrong",
    [
        {"STALE_AFTER": "never"},
        {"PUSHGATEWAY_URL": "https://localhost", "PUSHGATEWAY_CA_FILE": __file__},
    ],
    ids=["a value", "a file"],
)
def test_wrong_settings_dial_nobody(wrong, environ, cloud):
    """Nor does one whose settings are wrong, in whatever they speak of."""
    assert_not_dialled(cloud, environ | wrong, 78)


def test_who_was_asked_to_wait_dials_nobody(environ, cloud):
    """Nor does one that EcoFlow has asked to wait."""
    cloud.fail("", faults.status(429, Retry_After="300"))
    assert push(environ).status == 75
    cloud.heal()
    cloud.wires.clear()
    cloud.received.clear()
    cloud.handshakes = 0

    assert_not_dialled(cloud, environ, 75)


def test_refused_keys_dial_nobody(environ, cloud):
    """Nor does one whose keys were refused so often that they rest."""
    cloud.fail("", faults.code("8513"))
    for _ in range(3):
        assert push(environ).status == 77
    cloud.heal()
    cloud.wires.clear()
    cloud.received.clear()
    cloud.handshakes = 0

    assert_not_dialled(cloud, environ, 77)


def test_nobody_is_dialled_past_a_proxy(environ, cloud):
    """With a proxy, the proxy alone is connected to."""
    with Proxy() as proxy:
        run = push_anew(environ | {"HTTPS_PROXY": proxy.url})

        assert run.status == 0, run.stderr
        assert len(proxy.received) == len(cloud.wires) == 1


def test_a_host_that_is_down_is_dialled_as_often_as_ever(environ, ca_file):
    """What went wrong ahead is the first request's own fault: it is not tried twice."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://localhost:{server.getsockname()[1]}"
        hosts: list[object] = []

        def hang_up() -> None:
            with suppress(OSError):
                while True:
                    wire, who = server.accept()
                    hosts.append(who)
                    wire.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        run = push_anew(environ | {"ECOFLOW_API_HOST": url})
        server.shutdown(socket.SHUT_RDWR)
        thread.join()

    assert run.status == 69
    assert len(hosts) == 1
    refused = f"https://localhost:{free_port()}"
    run = push_anew(environ | {"ECOFLOW_API_HOST": refused})
    assert run.status == 69
    assert "refused" in run.stderr


def sender(url: str, ca_file: str) -> tuple[PlainExchange, Transport]:
    exchange = PlainExchange(url, trust=Trust(ca_file))
    variables = ("THE_URL", "THE_CA_FILE")
    return exchange, Transport(
        exchange, attempts=1, longest_wait=0, longest_try=1, variables=variables
    )


def test_what_was_dialled_ahead_is_used_once(server_tls, ca_file):
    """A connection that is there before the request serves it, and those behind it."""
    with RecordingServer(server_tls) as server:
        exchange, transport = sender(server.url, ca_file)
        transport.dial_ahead(1, 10)
        assert eventually(lambda: server.handshakes == 1)
        # TLS 1.3 has more to say behind its handshake: that is no answer to nothing.
        time.sleep(0.1)

        for _ in range(3):
            request = Request("GET", server.url + "/", {})
            assert transport.send(lambda: request, Deadline(5)).status == 200  # noqa: B023

        assert server.handshakes == 1
        exchange.close()


def test_a_handshake_that_hangs_gains_no_time(ca_file):
    """Who waits for what was dialled ahead leaves in time, as if he had dialled."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"https://localhost:{deaf.getsockname()[1]}"
        exchange, transport = sender(url, ca_file)
        transport.dial_ahead(1, 10)
        began = time.monotonic()

        with pytest.raises(Unreachable):
            transport.send(lambda: Request("GET", url, {}), Deadline(1))

        assert time.monotonic() - began < 3
        exchange.close()


def test_what_was_closed_before_its_use_is_no_fault(server_tls, ca_file):
    """Servers hang up on who is silent: a request that meets that is sent again."""
    with Gateway(server_tls) as server:
        exchange, transport = sender(server.url, ca_file)
        transport.dial_ahead(2, 10)
        assert eventually(lambda: server.handshakes == 2)
        server.hang_up()

        for _ in range(2):
            request = Request("PUT", server.url + "/", {})
            assert transport.send(lambda: request, Deadline(5)).status == 200  # noqa: B023

        assert server.handshakes == 3
        assert server.pushed == 2
        exchange.close()


def test_a_connection_that_comes_too_late_is_closed():
    """What is dialled while the exchange closes does not stay open."""
    with Gateway() as server:
        for _ in range(20):
            exchange = PlainExchange(server.url)
            exchange.dial_ahead(1, 10)
            exchange.close()

        def are_over() -> bool:
            return len(server.wires) == 20 and all(map(server.is_over, range(20)))

        assert eventually(are_over, 10)
