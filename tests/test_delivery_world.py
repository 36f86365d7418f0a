"""Remote-write to real servers by a line that garbles, loses or delays; and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from ecoflow_push.errors import ExitStatus
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import RecordingServer
from ecoflow_push.sinks.failing import MOST_FAILING_RUNS
from tests.delivery import A, B, make_old, run, waiting
from tests.fetch_servers import NEWER
from tests.receiver import NAN_BITS, PATH, STALE
from tests.relay import Relay
from tests.remote_write import spool_files, state
from tests.sinks import SOC, RemoteWriteKit, kit_of, say
from tests.support import (
    LATE,
    Database,
    eventually,
    prometheus,
    push,
    victoria_metrics,
)
from tests.test_faults import ODD_NUMBERS, QUOTA

HOUR = 3600.0
WINDOW = "storage: {{tsdb: {{out_of_order_time_window: {}}}}}\n"


class Line(NamedTuple):
    """A job, the line to its server, and the server."""

    job: RemoteWriteKit
    relay: Relay
    server: Database

    def times(self, sn: str) -> list[int]:
        """Return the times at which the server has a value of a device."""
        found = self.server.points(f'{{__name__="{SOC}",device="{sn}"}}')
        return [at for points in found.values() for at, _ in points]

    def is_there(self, sn: str, count: int) -> bool:
        """Return whether the server has so many values, each once and in order."""

        def times() -> list[int]:
            found = self.times(sn)
            return found if len(found) >= count else []

        held = eventually(times, 10) or self.times(sn)
        assert held == sorted(set(held))
        return len(held) == count


def with_window(
    window: str, suite: str = ""
) -> Callable[..., AbstractContextManager[Database]]:
    return partial(prometheus, config=WINDOW.format(window), suite=suite)


KINDS = {
    "Prometheus": prometheus,
    "Prometheus, half an hour": with_window("30m"),
    "Prometheus 3, half an hour": with_window("30m", NEWER),
    "Prometheus, a day": with_window("1d"),
    "VictoriaMetrics": victoria_metrics,
}
#: What takes all that is a few hours old.
PATIENT = ("Prometheus, a day", "VictoriaMetrics")


@pytest.fixture(scope="module", params=KINDS)
def server(request, tmp_path_factory) -> Iterator[tuple[str, Database]]:
    """A real server for the tests of this module, each with a device of its own."""
    folder: Path = tmp_path_factory.mktemp("server")
    with KINDS[request.param](folder) as database:
        yield request.param, database


@pytest.fixture
def line(server, tmp_path) -> Iterator[Line]:
    _, database = server
    with ExitStack() as stack:
        relay = stack.enter_context(Relay(database.url))
        kit = stack.enter_context(kit_of("remote-write", tmp_path, Written(relay)))
        assert isinstance(kit, RemoteWriteKit)
        yield Line(kit, relay, database)


class Written:
    """What a kit asks of a receiver, of a relay to one."""

    def __init__(self, relay: Relay) -> None:
        self.write_url = relay.url + PATH
        self.received = relay.received


def serial(number: int) -> str:
    return f"R331ZFAKE{number:07}"


@pytest.mark.case("W12")
def test_what_was_garbled_is_sent_anew(line):
    """A request that arrives damaged costs nothing: it waits, and arrives later."""
    sn = serial(1)
    run(line.job, say(sn))
    line.relay.fail(PATH, line.relay.garble(lambda body: b"\xff" * 9 + body[9:]))

    sink = run(line.job, say(sn))

    (error,) = sink.delivery.errors
    assert error.status == ExitStatus.PROTOCOL
    assert (sink.delivery.stored, sink.delivery.lost) == (1, 0)
    assert line.relay.statuses[-1] == 400
    line.relay.heal()
    assert run(line.job, say(sn)).delivery.errors == []
    assert line.job.state.dropped == {}
    assert waiting(line.job) == []
    assert line.is_there(sn, 3)


@pytest.mark.case("W14")
def test_an_answer_that_comes_too_late(line):
    """What was stored without our hearing of it is sent again, and is there once."""
    sn = serial(2)
    run(line.job, say(sn))
    line.relay.fail(PATH, line.relay.answer_too_late(), times=1)

    sink = run(line.job, say(sn), seconds=0.5)

    (error,) = sink.delivery.errors
    assert error.status == ExitStatus.TEMPFAIL
    assert sink.delivery.stored == 1
    assert run(line.job, say(sn)).delivery.errors == []
    assert line.job.state.dropped == {}
    assert line.is_there(sn, 3)


@pytest.mark.case("W1")
def test_answers_that_are_lost(line):
    """Every answer to what waits is lost, run by run: all of it is there once."""
    sn = serial(3)
    run(line.job, say(sn))
    line.relay.fail(PATH, faults.status(503))
    for _ in range(4):
        run(line.job, say(sn))
    line.relay.heal()
    line.relay.fail(PATH, line.relay.lose_the_answer(), times=7)

    for _ in range(4):
        sink = run(line.job, say(sn))

    assert sink.delivery.errors == []
    assert line.job.state.dropped == {}
    assert waiting(line.job) == []
    assert line.is_there(sn, 9)


@pytest.mark.case("W3", "W6")
def test_what_is_too_old_for_the_server(server, line):
    """What it refuses for its age is counted, whatever its status; the rest arrives.

    Prometheus 2.42 with a window answers 500 to it, for ever.
    """
    name, _ = server
    sn, other = serial(4), serial(5)
    # Of what waits nothing is older than what the server is known to have.
    run(line.job, say(other))
    line.relay.fail(PATH, faults.status(503))
    run(line.job, say(sn))
    line.relay.heal()
    make_old(line.job, sn, [time.time() - 3 * HOUR, time.time() - 2.5 * HOUR])

    runs = 0
    while not runs or waiting(line.job):
        run(line.job, say(sn), say(other))
        runs += 1
        assert line.is_there(other, 1 + runs), "another device had to wait"
        # Then one record a run.
        assert runs <= MOST_FAILING_RUNS + 2

    is_patient = name in PATIENT
    reason = "failing" if 500 in line.relay.statuses else "refused"
    assert line.job.state.dropped == ({} if is_patient else {reason: 2 * 3})
    assert line.is_there(sn, 1 + runs + 2 * is_patient)


@pytest.mark.case("W13", "D3", "D4")
def test_no_number_that_is_none_is_written(written, cloud, receiver):
    """NaN and infinities do not leave; the only NaN is the marker of what ended."""
    assert push(written).status == 0
    cloud.fail(QUOTA, faults.body(ODD_NUMBERS))

    assert push(written).status == 0

    bits = [b for points in receiver.stored.values() for _, b in points]
    odd = {b for b in bits if b[6:] in (b"\xf0\x7f", b"\xf0\xff") or b == NAN_BITS}
    assert odd == {STALE}


@pytest.mark.case("K11")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status, tmp_path):
    """No sample and no credentials go where a receiver points to; all of it waits."""
    with kit_of("remote-write", tmp_path) as kit, RecordingServer() as other:
        assert isinstance(kit, RemoteWriteKit)
        kit.server.fail("", faults.redirect(other.url + PATH, status))

        (error,) = run(kit, say(A)).delivery.errors

        assert (error.status, error.is_stored) == (ExitStatus.PROTOCOL, True)
        assert other.received == []
        kit.server.heal()
        assert run(kit, say(A)).delivery.delivered == 2


@pytest.mark.case("W8")
def test_refused_credentials_wait(written, receiver):
    """Run by run one request and 77; all of it arrives when they are right again."""
    receiver.fail(PATH, faults.status(401))
    for count in range(1, 4):
        receiver.received.clear()
        assert push(written).status == 77
        assert len(receiver.received) == 1
        assert len(spool_files(written)) == count
    receiver.heal()

    assert push(written).status == 0

    of_soc = [p for k, p in receiver.stored.items() if dict(k)["__name__"] == SOC]
    assert [len(points) for points in of_soc] == [4]
    assert state(written)["dropped"] == {}


@pytest.mark.case("W7", "W2")
def test_what_fails_for_ever_is_ended_in_time(tmp_path):
    """Bursts of 503 and 429: of a device nothing overtakes, and none is lost."""
    with kit_of("remote-write", tmp_path) as kit:
        assert isinstance(kit, RemoteWriteKit)
        bursts = [faults.status(503), faults.status(429), None, faults.status(429)]
        for number in range(8):
            kit.server.script = bursts[number % 4 :] + bursts
            began = time.monotonic()
            sink = run(kit, say(A), say(B), seconds=3)
            assert time.monotonic() - began < 3 + LATE
            assert all(e.status == ExitStatus.TEMPFAIL for e in sink.delivery.errors)
        kit.server.script = []

        assert run(kit, say(A), say(B)).delivery.errors == []

        # The receiver refuses what is not newer than what it has.
        assert kit.server.outrages == []
        assert kit.state.dropped == {}
        for sn in (A, B):
            of_soc = [
                points
                for labels, points in kit.server.stored.items()
                if dict(labels) == dict(labels) | {"__name__": SOC, "device": sn}
            ]
            assert [len(points) for points in of_soc] == [9]
