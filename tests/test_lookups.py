"""A resolver that does not answer, and certificates that no authority can mend."""

from __future__ import annotations

import datetime as dt
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ecoflow_push.errors import Unreachable
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.net.plain import PlainExchange
from ecoflow_push.net.requests_exchange import RequestsExchange
from ecoflow_push.net.retry import Request, Transport
from ecoflow_push.net.sockets import looking_up
from ecoflow_push.net.trust import Trust
from ecoflow_push.simulator.cloud import SimulatedBroker
from ecoflow_push.simulator.server import RecordingServer
from tests.broker import BROKER_PASSWORD, BROKER_USER
from tests.support import PUSH, push

DAY = dt.timedelta(days=1)
NOW = dt.datetime.now(dt.UTC)
DEAD, ANSWERS = "127.0.0.77", "127.0.0.78"
SECONDS = 12


def sent(exchange, url: str, seconds: float = 0.3):
    sender = Transport(
        exchange, attempts=1, longest_wait=0, variables=("THE_URL", "THE_CA_FILE")
    )
    try:
        return sender.send(lambda: Request("GET", f"{url}/", {}), Deadline(seconds))
    finally:
        sender.close()


@pytest.mark.case("N11")
@pytest.mark.parametrize("exchange", [PlainExchange, RequestsExchange])
def test_nobody_joins_a_look_up_that_hangs(exchange):
    """While one thread hangs in a name, others give it up in time, and say so."""
    hangs, is_over = threading.Event(), threading.Event()

    def hang() -> None:
        with looking_up("localhost", 1):
            hangs.set()
            is_over.wait(60)

    thread = threading.Thread(target=hang)
    thread.start()
    assert hangs.wait(60)
    with RecordingServer() as server:
        url = server.url.replace("127.0.0.1", "localhost")
        try:
            with pytest.raises(Unreachable, match="could not be resolved") as raised:
                sent(exchange(url), url)
            assert "DNS" in raised.value.cure
            # Of another name nobody is kept.
            assert sent(exchange(server.url), server.url, 10).status == 200
        finally:
            is_over.set()
            thread.join()

        assert sent(exchange(url), url, 10).status == 200


ASKS_AT_ONCE = """
import socket, threading
from ecoflow_push.net.sockets import dial

with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
    ask = lambda: print(dial("a.host.test", port, 20).getpeername()[0] + "\\n", end="")
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    ask()
"""


@pytest.mark.case("N11")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set another resolver")
def test_a_slow_look_up_is_waited_for_once(tmp_path):
    """Who asks for a name that is being looked up takes that answer; later ones ask."""
    (tmp_path / "resolv.conf").write_text(
        f"nameserver {DEAD}\nnameserver {ANSWERS}\noptions timeout:1\n"
    )
    command = f"mount --bind {tmp_path}/resolv.conf /etc/resolv.conf && exec "
    asked: list[bool] = []

    def answer() -> None:
        while (said := resolver.recvfrom(512))[0]:
            question, who = said
            # An address of IPv4 for who wants one, else nothing.
            wants = question[12:].partition(b"\0")[2][1] == 1
            asked.append(wants)
            end = question.index(b"\0", 12) + 5
            head = question[:2] + b"\x81\x80\0\1" + bytes([0, wants]) + bytes(4)
            record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1"
            resolver.sendto(head + question[12:end] + record * wants, who)

    kind = (socket.AF_INET, socket.SOCK_DGRAM)
    with socket.socket(*kind) as silent, socket.socket(*kind) as resolver:
        silent.bind((DEAD, 53))
        resolver.bind((ANSWERS, 53))
        thread = threading.Thread(target=answer)
        thread.start()
        run = subprocess.run(
            [
                *("unshare", "-m", "sh", "-c", command + '"$0" -c "$1"'),
                *(sys.executable, ASKS_AT_ONCE),
            ],
            cwd=PUSH.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        silent.sendto(b"", (ANSWERS, 53))
        thread.join()

    assert run.stdout.split() == ["127.0.0.1"] * 5, run.stderr
    assert asked.count(True) == 2


@pytest.mark.case("N11", "L14")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set another resolver")
def test_a_dead_resolver_gathers_no_threads(tmp_path):
    """In a process that stays, a resolver that is silent costs a thread per name."""
    (tmp_path / "resolv.conf").write_text(f"nameserver {DEAD}\n")
    mount = f"mount --bind {tmp_path}/resolv.conf /etc/resolv.conf"
    alone = ("unshare", "-m", "sh", "-c")
    # Root within a container may be allowed neither.
    if subprocess.run([*alone, mount], check=False, capture_output=True).returncode:
        pytest.skip("another resolver needs a mount, which is not allowed")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((DEAD, 53))
        process = subprocess.Popen(
            [*alone, f"{mount} && exec {sys.executable} {PUSH} --every"],
            env={
                "PATH": os.defpath,
                "STATE_DIR": str(tmp_path / "state"),
                "ECOFLOW_ACCESS_KEY": "a-key-of-some-length",
                "ECOFLOW_SECRET_KEY": "another-of-some-length",
                "PUSHGATEWAY_URL": "http://gateway.nowhere.test:9091",
                "REMOTE_WRITE_URL": "http://receiver.nowhere.test/api/v1/write",
                "HEALTHCHECK_URL": "http://watcher.nowhere.test/ping",
                "RUN_DEADLINE": "1",
                "COLLECTING_INTERVAL": "1",
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        status = Path(f"/proc/{process.pid}/status")
        most, until = 0, time.monotonic() + SECONDS
        while process.poll() is None and time.monotonic() < until:
            threads = re.search(r"Threads:\s+(\d+)", status.read_text())
            most = max(most, int(threads[1]) if threads else 0)
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)

    assert said.count("exit 75 TEMPFAIL") >= 4, said
    # Four names, what a run has of its own, and pings that wait 5 s for their name.
    assert 4 <= most <= 16


CERTIFICATES = {
    "expired": ({"not_after": NOW - DAY}, "localhost", "certificate is too old"),
    "not yet valid": (
        {"not_before": NOW + DAY, "not_after": NOW + 2 * DAY},
        "localhost",
        "set this machine's clock",
    ),
    "another name": ({}, "other.example", "check the host in THE_URL"),
}


@pytest.mark.case("N18")
@pytest.mark.parametrize("exchange", [PlainExchange, RequestsExchange])
@pytest.mark.parametrize("kind", CERTIFICATES)
def test_what_no_authority_can_mend(kind, exchange, authority, ca_file):
    """Of a certificate that is itself wrong, the cure is no CA file."""
    dates, name, cure = CERTIFICATES[kind]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **dates).configure_cert(context)
    with (
        RecordingServer(tls=context) as server,
        pytest.raises(Unreachable, match="certificate was refused") as raised,
    ):
        sent(exchange(server.url, trust=Trust(ca_file)), server.url, 10)

    assert cure in raised.value.cure
    assert "CA_FILE" not in raised.value.cure


def test_an_unknown_authority_is_one_to_be_set(server_tls):
    """Of a certificate whose authority is not known, the cure is still the CA file."""
    with (
        RecordingServer(tls=server_tls) as server,
        pytest.raises(Unreachable) as raised,
    ):
        sent(PlainExchange(server.url), server.url, 10)

    assert "THE_CA_FILE" in raised.value.cure


def test_a_broker_whose_certificate_has_expired(account, cloud, authority):
    """Over MQTT the same is said, by a run and by --check."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", not_after=NOW - DAY).configure_cert(context)
    with RecordingServer(tls=context) as expired:
        port = expired.server_address[1]
        cloud.broker = SimulatedBroker("localhost", port, BROKER_USER, BROKER_PASSWORD)

        runs = [push(account), push(account, "--check")]

    for run in runs:
        assert run.status == 69
        assert "if that is right, the server's certificate is too old" in (
            run.stderr + run.stdout
        )
        assert "set ECOFLOW_CA_FILE" not in run.stderr + run.stdout
