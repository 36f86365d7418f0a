"""Networks that fail: each in a namespace of the test's own, with TLS as in the world.

Whatever the road does, a run ends in time with a documented status, what was stored
arrives in the end, and keys are shown to nobody else.
"""

from __future__ import annotations

import os
import random
import re
import signal
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from ecoflow_push.errors import ExitStatus
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import (
    ACCESS_KEY,
    SECRET_KEY,
    SimulatedBroker,
    SimulatedCloud,
)
from ecoflow_push.simulator.devices import SimulatedDevices
from ecoflow_push.simulator.server import RecordingServer
from tests.broker import BROKER_PASSWORD, BROKER_USER, mosquitto
from tests.conftest import DELTA
from tests.namespace import ACK, FAR_V6, RESOLVER, SYN, TCP, Packet, Road, Zone, lacks
from tests.proxy import Proxy
from tests.receiver import Receiver
from tests.remote_write import of_devices, spool_files
from tests.support import Run

pytestmark = [
    pytest.mark.drill("networks"),
    pytest.mark.skipif(bool(lacks()), reason=lacks()),
]

API, RECEIVER, BROKER, DEAD, EMPTY, OTHER = (f"10.9.0.{n}" for n in (1, 2, 3, 4, 5, 6))
NAMES = ("api.test", "receiver.test", "mqtt.ecoflow.com", "localhost", FAR_V6)
TOKEN = "a-token-for-the-receiver"
SECRETS = (ACCESS_KEY, SECRET_KEY, TOKEN)
late = pytest.mark.late


class Town(NamedTuple):
    """Who lives at both ends of a road."""

    road: Road
    zone: Zone
    cloud: SimulatedCloud
    receiver: Receiver
    environ: dict[str, str]

    def push(self, *args: str, **more: str) -> Run:
        """Do a run, and see that it kept what every run is to keep."""
        environ = {**self.environ, **more}
        run = self.road.push(environ, *args)
        assert_kept(run, float(environ["RUN_DEADLINE"]))
        return run

    def stored(self) -> set[int]:
        """Return the times (ms) of what waits."""
        return {int(each.name.partition(".")[0]) for each in spool_files(self.environ)}

    def arrived(self) -> set[int]:
        """Return the times (ms) of the snapshots that the receiver has."""
        return {
            at
            for labels, points in self.receiver.stored.items()
            if dict(labels)["__name__"] == "ecoflow_pd_soc"
            for at, _ in points
        }


def assert_kept(run: Run, deadline: float) -> None:
    assert "Traceback" not in run.stderr, run.stderr
    said = re.findall(r"exit (\d+) ([A-Z]+) after (\d+\.\d) s", run.stderr)
    assert len(said) == 1, run.stderr
    status, name, seconds = said[0]
    assert ExitStatus(int(status)).name == name
    assert int(status) == run.status
    assert float(seconds) <= deadline + 5
    assert not any(secret in run.stderr + run.stdout for secret in SECRETS)


@contextmanager
def town(folder: Path, authority, seed: int = 1) -> Iterator[Town]:
    folder.mkdir(exist_ok=True)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*NAMES).configure_cert(tls)
    with (
        SimulatedCloud([DELTA], tls=tls) as cloud,
        Receiver(tls=tls) as receiver,
        Road(folder, seed) as road,
    ):
        zone = Zone({"api.test": [API], "receiver.test": [RECEIVER]})
        road.resolver(zone)
        road.door(API, 443, cloud.server_address[1])
        road.door(RECEIVER, 443, receiver.server_address[1])
        environ = {
            **cloud.environ(),
            "ECOFLOW_API_HOST": "https://api.test",
            "ECOFLOW_CA_FILE": str(folder / "ca.pem"),
            "REMOTE_WRITE_URL": "https://receiver.test/api/v1/write",
            "REMOTE_WRITE_CA_FILE": str(folder / "ca.pem"),
            "REMOTE_WRITE_BEARER_TOKEN": TOKEN,
            "STATE_DIR": str(folder / "state"),
            "PUSH_INSTANCE": "test",
            "METRICS_SET": "raw",
            "RUN_DEADLINE": "3",
        }
        yield Town(road, zone, cloud, receiver, environ)
        assert receiver.outrages == []


@pytest.fixture
def here(tmp_path, authority) -> Iterator[Town]:
    with town(tmp_path / "town", authority) as found:
        yield found


def told(road: Road) -> set[str]:
    """Return to whom the program sent anything but questions for names."""
    return {address for address, port in road.sent if port != 53}


# Not reached, or not in time.
LOST = {69, 75}
# What the resolver does, what a run may end with, and whom it may then talk to.
NAMING: dict[str, tuple[Callable[[Town], object], set[int], set[str]]] = {
    "is silent": (lambda t: setattr(t.zone, "instead", ""), LOST, set()),
    "three are silent": (
        lambda t: t.road.resolvers("10.9.0.50", "10.9.0.51", "10.9.0.52"),
        LOST,
        set(),
    ),
    "the first of two is silent": (
        lambda t: t.road.resolvers("10.9.0.50", RESOLVER),
        {0},
        {API, RECEIVER},
    ),
    "knows no such name": (lambda t: t.zone.names.clear(), LOST, set()),
    "fails": (lambda t: setattr(t.zone, "instead", 2), LOST, set()),
    "refuses": (lambda t: setattr(t.zone, "instead", 5), LOST, set()),
    "has no address": (lambda t: t.zone.names.update({"api.test": []}), LOST, set()),
    "says rubbish": (lambda t: setattr(t.zone, "instead", b"\xff" * 40), LOST, None),
    "is cut short": (lambda t: setattr(t.zone, "instead", b"\x83\x80"), LOST, None),
    "is late": (lambda t: setattr(t.zone, "delay", 1.0), {0}, {API, RECEIVER}),
    "names nobody": (
        lambda t: t.zone.names.update({"api.test": [EMPTY]}),
        LOST,
        {EMPTY},
    ),
    "names this host": (
        lambda t: t.zone.names.update({"api.test": ["127.0.0.1"]}),
        LOST,
        set(),
    ),
    "names no host": (
        lambda t: t.zone.names.update({"api.test": ["0.0.0.0", "::"]}),  # noqa: S104
        LOST,
        set(),
    ),
    "names the receiver": (
        lambda t: t.zone.names.update({"api.test": [OTHER]}),
        LOST,
        {OTHER},
    ),
}
SOON = ("is silent", "names the receiver")


@pytest.mark.case("N11")
@pytest.mark.parametrize(
    "kind", [each if each in SOON else pytest.param(each, marks=late) for each in NAMING]
)
def test_a_resolver_that_fails(kind, here, authority):
    """A dead, wrong or lying resolver costs no more than the deadline, and no key."""
    spoil, statuses, addresses = NAMING[kind]
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.test").configure_cert(tls)
    with RecordingServer(tls=tls) as other:
        here.road.door(OTHER, 443, other.server_address[1])
        spoil(here)

        run = here.push(RUN_DEADLINE="30" if "first of two" in kind else "3")

        assert run.status in statuses, run.stderr
        assert other.received == []
    if addresses is not None:
        assert told(here.road) <= addresses | {RECEIVER}
    assert len(of_devices(here.receiver)) == (run.status == 0)
