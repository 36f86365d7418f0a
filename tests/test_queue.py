"""The queue around a timestamped sink: stored first, sent in order, ended in time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecoflow_push.errors import ExitStatus
from ecoflow_push.memory.spool import Spool
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.simulator.server import Answer
from tests.sinks import (
    INFO,
    ONLINE,
    SOC,
    RemoteWriteKit,
    end,
    kit_of,
    offline,
    say,
    unread,
)

A, B = "R331ZFAKE0000001", "BK11ZFAKE0000002"
ALL = {ONLINE: 1.0, INFO: 1.0, SOC: 87.0}


@pytest.fixture
def queue(tmp_path) -> Iterator[RemoteWriteKit]:
    with kit_of("remote-write", tmp_path) as kit:
        assert isinstance(kit, RemoteWriteKit)
        yield kit


def waiting(kit: RemoteWriteKit) -> int:
    spool = Spool(kit.spool)
    spool.open()
    return len(spool.entries)


@pytest.mark.parametrize("ahead", [True, False])
def test_what_was_taken_is_stored_before_it_is_sent(ahead, queue):
    """With write-ahead another process finds all of it once `prepare` is done."""
    queue.ahead = ahead
    sink = queue.sink()

    queue.begin(sink, say(A), say(B))

    assert waiting(queue) == (2 if ahead else 0)
    assert sink.backlog().samples == (6 if ahead else 0)
    sink.deliver(Deadline(5))
    sink.settle(Deadline(5))
    assert waiting(queue) == 0
    sink.close()


@pytest.mark.case("W7")
@pytest.mark.parametrize("ahead", [True, False])
def test_what_could_not_be_sent_waits_for_the_next_run(ahead, queue):
    """A failing server costs nothing: the next run writes both, oldest first."""
    queue.ahead = ahead
    queue.server.script = [Answer(503)] * 2
    first = queue.run(say(A, soc=1.0))
    (error,) = first.delivery.errors
    assert error.text.endswith("3 samples wait in the spool")
    assert first.backlog().samples == 3
    assert first.backlog().oldest_at == pytest.approx(time.time(), abs=60)

    second = queue.run(say(A, soc=2.0))

    assert second.delivery.errors == []
    assert second.delivery.note == " (1 snapshots from the spool)"
    points = next(
        points
        for labels, points in queue.server.stored.items()
        if dict(labels)["__name__"] == SOC
    )
    assert len(points) == 2
    assert queue.values()[A][SOC] == 2.0


def test_a_key_that_vanished_ends(queue):
    """What a device says no more gets a staleness marker with its next snapshot."""
    queue.run(say(A))

    queue.run(offline(A))

    assert queue.values()[A] == {ONLINE: 0.0}


@pytest.mark.parametrize(
    "offsets",
    [(400.0, 400.0), (None, 400.0), (None, None)],
    ids=["before", "between", "after"],
)
def test_a_wrong_clock_sends_and_keeps_nothing(offsets, queue):
    """However late it is found out, what it stamped is counted and gone."""
    sink = queue.sink()
    for update, offset in zip((say(A), say(B)), offsets, strict=True):
        sink.hear(offset)
        sink.take(update, Deadline(5))
    sink.prepare(Deadline(5))
    sink.hear(400.0)

    sink.deliver(Deadline(5))
    queue.end(sink)

    (error,) = sink.delivery.errors
    assert error.text.endswith("ahead of the servers'; nothing sent or stored")
    assert (error.status, error.cure) == (
        ExitStatus.TEMPFAIL,
        "set the clock, and keep it with NTP",
    )
    assert (queue.heard(), waiting(queue)) == (0, 0)
    assert queue.state.dropped == {"clock": 6}


@pytest.mark.parametrize("seconds", [-30.0, 30.0])
def test_a_clock_that_was_set_is_found_out(seconds, queue):
    """A snapshot from before the run, or from after now, is no snapshot of it."""
    sink = queue.run(say(A, at=time.time() + seconds))

    (error,) = sink.delivery.errors
    assert "the clock was set while the run was at work" in error.text
    assert queue.server.received == []


def test_without_a_memory_the_spool_is_left_alone(queue):
    """What cannot be remembered is sent all the same, and nothing is stored."""
    queue.state.trouble, queue.state.is_ours = "no state", False
    queue.server.script = [Answer(503)] * 2

    failed = queue.run(say(A))
    done = queue.run(say(B))

    (error,) = failed.delivery.errors
    assert error.text.endswith("not stored either: no state")
    assert done.delivery.errors == []
    assert queue.values()[B] == ALL
    assert not os.path.exists(queue.spool)


def test_a_pause_that_was_asked_for_is_kept(queue):
    """Runs and checks leave a server alone as long as it asked for."""
    queue.server.script = [Answer(429, b"", (("Retry-After", "60"),))]
    queue.run(say(A))

    sink = queue.run(say(A))
    finding, waits, _ = queue.sink().probe(Deadline(5))

    assert queue.heard() == 1
    assert waits.text == "6 samples wait in the spool"
    for error in (sink.delivery.errors[0], finding.error):
        assert "asked to wait" in error.text
        assert error.status == ExitStatus.TEMPFAIL
    assert sink.backlog().samples == 6


def test_a_probe_sends_nothing_by_a_wrong_clock(queue):
    """A check that knows of a wrong clock stamps nothing with it."""
    sink = queue.sink()
    sink.hear(-400.0)

    finding, _ = sink.probe(Deadline(5))

    assert finding.text == "nothing sent by a wrong clock"
    assert finding.cure == "set it, see above"
    assert queue.heard() == 0


def test_a_silent_device_ends_only_by_a_confirmed_clock(queue):
    """Where nobody tells the time, a device's silence ends nothing."""
    queue.run(say(A))
    queue.stale_after = 0.0
    queue.server.date_offset = None

    queue.run(unread(A), offset=None)

    assert queue.values()[A] == ALL
    queue.run(unread(A))
    assert A not in queue.values()


def test_the_memory_of_who_is_gone_goes(queue):
    """Of a device that ended the spool keeps no last record."""
    queue.run(say(A), say(B))
    last = Path(queue.spool, "last")
    assert {A, B} < {each.name for each in last.iterdir()}

    queue.run(end(A), say(B))

    assert A not in {each.name for each in last.iterdir()}
