"""Whose fault it is, where the easy signs mislead: told by what else is taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from threading import Event, Thread

import pytest

from ecoflow_push.memory.state import State
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.simulator import faults
from ecoflow_push.sinks.failing import MOST_FAILING_RUNS
from ecoflow_push.sinks.turns import MOST_RUNS_HELD
from tests.delivery import (
    DOWN,
    MANY,
    A,
    B,
    has_device,
    judge,
    make_old,
    run,
    stored,
    wait_in_spool,
    waiting,
)
from tests.receiver import Receiver, Sample
from tests.sinks import ONLINE, RUN, SOC, RemoteWriteKit, kit_of, say

HOUR = 3600.0


@pytest.fixture
def job(tmp_path) -> Iterator[RemoteWriteKit]:
    with kit_of("remote-write", tmp_path) as kit:
        assert isinstance(kit, RemoteWriteKit)
        yield kit
        assert kit.server.outrages == []


def is_older(seconds: float) -> Callable[[list[Sample]], bool]:
    """Return what a server refuses that is ahead of all that waits."""
    since_ms = round((time.time() - seconds) * 1000)
    return lambda samples: any(s.timestamp_ms < since_ms for s in samples)


# -- a server that is ahead of what waits ------------------------------------------


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("devices", [[A], [A, B]], ids=["one waits", "both wait"])
def test_what_is_too_old_keeps_nobody_away(status, devices, job):
    """Prometheus 2.42 with a window answers 500 to it: it goes, all else arrives."""
    wait_in_spool(job, 1, *devices)
    for sn in devices:
        make_old(job, sn, [time.time() - 3 * HOUR + 60 * n for n in range(10)])
    judge(job, is_older(HOUR), faults.status(status, b"too old sample"))

    # A 500 may be anything, at first.
    runs = 2 if status == 400 else MOST_RUNS_HELD + 1
    for _ in range(runs):
        run(job, say(A), say(B))

    assert job.state.dropped == {"refused": 10 * 3 * len(devices)}
    assert len(stored(job, A)) == runs + 1
    assert len(stored(job, B)) == runs + (B in devices)
    assert waiting(job) == []


def test_what_is_too_old_keeps_a_lone_device_10_runs(job):
    """Of one device alone nobody can tell sooner that it is not the server."""
    wait_in_spool(job, 1, A)
    make_old(job, A, [time.time() - 3 * HOUR + 60 * n for n in range(10)])
    judge(job, is_older(HOUR), faults.status(500, b"too old sample"))
    # It was down once before.
    for _ in range(MOST_FAILING_RUNS - 2):
        assert run(job, say(A)).delivery.stored == 1

    run(job, say(A))

    assert job.state.dropped == {"refused": 10 * 3}
    assert len(stored(job, A)) == MOST_FAILING_RUNS


def test_who_fails_behind_a_server_s_time_keeps_nobody_away(job):
    """Its queue is too old for a try of its time, and its line breaks: others go on."""
    wait_in_spool(job, 1, A)
    make_old(job, A, [time.time() - 2 * HOUR])
    shut = faults.status(400, b"out of bounds")
    judge(job, has_device(A), DOWN, (is_older(HOUR), shut))

    for _ in range(3):
        run(job, say(A), say(B))

    assert len(stored(job, B)) == len(stored(job, "", RUN)) == 3
    assert job.state.endpoint.queue(A).rested == 3


# -- several that fail, and more than 8 devices ------------------------------------


@pytest.mark.parametrize("most_samples", [2000, 9], ids=["one request", "in flight"])
@pytest.mark.parametrize("old", [0.0, 50 * 60.0], ids=["new", "50 minutes old"])
def test_two_that_fail_for_good_cost_the_others_nothing(most_samples, old, job):
    """Wherever they are in one request or in several: the others arrive every run.

    Behind what is so old that it would be shut out they do from the eleventh run on.
    """
    bad = {MANY[1], MANY[8]}
    if old:
        wait_in_spool(job, 1, *bad)
        for sn in bad:
            make_old(job, sn, [time.time() - old])
    job.most_samples = most_samples
    judge(
        job,
        lambda samples: any(s.label("device") in bad for s in samples),
        faults.status(500),
    )

    runs = MOST_RUNS_HELD + 1 if old else 3
    for _ in range(runs):
        run(job, *map(say, MANY))

    assert {sn: len(stored(job, sn)) for sn in MANY} == {
        sn: 0 if sn in bad else runs for sn in MANY
    }
    assert job.state.endpoint.resting == 2


def test_one_that_hangs_among_many_costs_the_others_one_run(job):
    """From the second run on each that was in its request goes alone, before it."""
    judge(job, has_device(MANY[5]), faults.hang())

    for _ in range(3):
        run(job, *map(say, MANY), seconds=2)

    for sn in MANY:
        assert len(stored(job, sn)) == 3 * (sn != MANY[5])
    assert job.state.dropped == {}


def test_a_fleet_finds_out_soon_that_a_server_is_down(job):
    """A request is halved as far as one device, not for each of them."""
    judge(job, lambda _: True, DOWN)

    sink = run(job, *map(say, MANY))

    # All twice; 6, 3, 1; 2, 1; then something that is nobody's.
    assert job.heard() == 8
    assert sink.delivery.stored == len(MANY)


# -- what is counted ----------------------------------------------------------------


class Picky(Receiver):
    """Takes everything but some values."""

    bad: float = 0.0

    def _is_good(self, sample: Sample) -> bool:
        is_bad = sample.name == SOC and sample.value == self.bad
        return not is_bad and super()._is_good(sample)


def test_several_taken_in_part_lose_what_was_refused(tmp_path):
    """In 2.0 a receiver stores the rest: nothing of it is sent again, or counted."""
    with Picky() as server, kit_of("remote-write", tmp_path, server) as kit:
        assert isinstance(kit, RemoteWriteKit)
        kit.version, server.bad = "2", 4.0
        server.fail("", DOWN)
        for soc in range(1, 9):
            run(kit, say(A, soc=float(soc)))
        server.heal()

        run(kit, say(A, soc=9.0))

        assert kit.state.dropped == {"partial": 1}
        assert (len(stored(kit, A)), len(stored(kit, A, ONLINE))) == (8, 9)
        assert waiting(kit) == []


def test_a_part_that_was_taken_is_not_counted_as_refused(job):
    """Of a snapshot in two requests the second is refused: what that held is lost."""
    job.most_samples = 2
    judge(
        job,
        lambda samples: any(s.name == SOC and s.label("device") == A for s in samples),
        faults.status(400, b"bad value"),
    )

    # In this order, whatever the millisecond.
    run(job, say(A, at=time.time() - 0.1), say(B))

    assert job.state.dropped == {"refused": 1}
    assert len(stored(job, A, ONLINE)) == 1


@pytest.mark.parametrize("first", [DOWN, faults.status(500)], ids=["503", "500"])
def test_what_the_server_declined_was_not_taken(first, job):
    """A whole answer leaves nothing open: a bad snapshot of that request is counted."""
    wait_in_spool(job, 5, A)
    bad = sorted(entry.time_ms for entry in waiting(job))[3]
    job.server.script = [None, *[first] * 9]
    run(job, say(A))
    job.server.script = []
    judge(
        job,
        lambda samples: any(s.name == SOC and s.timestamp_ms == bad for s in samples),
        faults.status(400, b"bad value"),
    )

    run(job, say(A))

    assert job.state.dropped == {"refused": 3}
    assert len(stored(job, A)) == 6


def test_a_kill_excuses_no_more_than_was_sent(tmp_path):
    """What was never on its way, and is refused for good later, is counted."""
    with kit_of("remote-write", tmp_path) as kit:
        assert isinstance(kit, RemoteWriteKit)
        wait_in_spool(kit, 1, A)
        make_old(kit, A, [time.time() - 2 * HOUR + 60 * n for n in range(60)])
        kit.state.save()
        killed_in_its_second_request(kit, say(A))
        left = len(waiting(kit))
        receiver, folder = kit.server, kit.folder
        with State.open(str(folder / "copy")) as state:
            state.runs = kit.state.runs
            again = RemoteWriteKit(folder, state, receiver)
            judge(again, is_older(HOUR), faults.status(400, b"out of bounds"))
            run(again, say(A))
            # 1 and 4 were on their way, and as much time again may have been.
            assert state.dropped["refused"] >= (left - 2 - 10) * 3


def killed_in_its_second_request(kit: RemoteWriteKit, update) -> None:
    """Leave what a run leaves that is killed while it waits for an answer."""
    came, may_answer = Event(), Event()

    def hang(handler) -> None:
        came.set()
        may_answer.wait(20)
        faults.reset()(handler)

    kit.server.script = [None, hang]
    sink = kit.sink()
    kit.begin(sink, update)
    thread = Thread(target=sink.deliver, args=(Deadline(30),))
    thread.start()
    assert came.wait(10)
    sink.abandon()
    may_answer.set()
    thread.join()
    kit.server.script = []


def test_a_clock_that_was_ahead_excuses_nothing(job):
    """What it had delivered says nothing of what is collected at the right time."""
    job.server.date_offset = None
    job.ahead_by = HOUR
    run(job, say(A, at=time.time() + HOUR), offset=None)
    assert len(stored(job, A)) == 1
    for ahead in (0.0, 60.0, 120.0):
        job.ahead_by = ahead
        run(job, say(A, at=time.time() + ahead))
        assert job.state.dropped == {}
    job.ahead_by = HOUR + 60

    run(job, say(A, at=time.time() + HOUR + 60))

    assert job.state.dropped == {"refused": 3 * 3}
    assert len(stored(job, A)) == 2


@pytest.mark.parametrize("row", [[1, 2, 3], [], None])
def test_a_state_that_says_less_is_looked_behind(row, tmp_path):
    """What another version knew of the queues hides no file that waits."""
    with kit_of("remote-write", tmp_path) as kit:
        assert isinstance(kit, RemoteWriteKit)
        wait_in_spool(kit, 2, A)
        known = kit.state.endpoint
        fields = known.fields()
        queues = {} if row is None else {A: row}
        kit.state.endpoint.__init__({**fields, "queues": queues})  # type: ignore[misc]

        assert run(kit, say(A)).delivery.errors == []

        assert len(stored(kit, A)) == 3
