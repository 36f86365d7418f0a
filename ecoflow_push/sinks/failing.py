"""Failing: what did not work in a run, held against what did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecoflow_push.errors import WriteError
from ecoflow_push.sinks.base import as_door
from ecoflow_push.sinks.endings import RUN

if TYPE_CHECKING:
    from ecoflow_push.memory.entry import Entry
    from ecoflow_push.memory.state import State
    from ecoflow_push.net.deadline import Deadline
    from ecoflow_push.sinks.losses import Losses
    from ecoflow_push.sinks.replay import Replay

# Some servers fail on one record for good (protocol/remote-write.md#retries): after so
# many runs in a row it is set aside.
MOST_FAILING_RUNS = 10


def run(replay: Replay, state: State, losses: Losses, deadline: Deadline) -> None:
    """Write what waits, and tell whose fault it is where something failed."""
    if replay.run(deadline):
        if not replay.stopped:
            _explain(replay, state, deadline)
        _tell_apart(replay, state, losses, deadline)


def _explain(replay: Replay, state: State, deadline: Deadline) -> None:
    """Find out what refusals mean after which nothing was taken."""
    suspects = replay.suspects
    back = suspects.last_back()
    if back and replay.takes_others(back, suspects.entries[back], deadline):
        suspects.forgive()
    refusal = suspects.last()
    if not refusal or replay.delivered:
        return
    if suspects.are_last:
        oldest = min(suspects.entries, key=lambda entry: entry.time_ms)
        is_taken = replay.takes_others(oldest, refusal, deadline)
        # A server that takes new ones alone may still be told to take these.
        if is_taken and not replay.too_old_is:
            suspects.set_aside()
            return
    # Nothing shows that it was the content's fault.
    replay.stop(as_door(refusal, state))


def _tell_apart(
    replay: Replay, state: State, losses: Losses, deadline: Deadline
) -> None:
    """Count whose own fault it is that devices failed; the oldest of one may go."""
    for device, error in list(replay.failed.items()):
        if not isinstance(error, WriteError):
            continue
        oldest = replay.turns.head(device)
        if not replay.taken - {device}:
            replay.stop(error)
            del replay.failed[device]
            continue
        queue = state.endpoint.queue(device)
        # In trouble or haste nobody can tell, and it rests without being counted.
        is_told = not (replay.flight.is_troubled or device in replay.hurried)
        queue.rested += 1
        queue.failing += is_told
        queue.why = error.text
        if oldest and is_told and queue.failing >= MOST_FAILING_RUNS:
            if _is_taken(oldest, replay, deadline):
                del replay.failed[device]
            elif not replay.is_abandoned:
                losses.lose(oldest, "failing")
    _count_stuck(replay, state, losses, deadline)


def _count_stuck(
    replay: Replay, state: State, losses: Losses, deadline: Deadline
) -> None:
    """Where there is one device alone, hold its oldest record against the run's own."""
    endpoint, error = state.endpoint, replay.stopped
    is_failing = isinstance(error, WriteError) and 500 <= error.answered < 600
    if not is_failing or replay.taken:
        # One was set aside in this run, or anything else may be the matter.
        if RUN not in replay.taken:
            endpoint.failing_runs = 0
        return
    endpoint.failing_runs += 1
    stuck = replay.turns.only_head()
    if stuck is None or endpoint.failing_runs < MOST_FAILING_RUNS:
        return
    assert isinstance(error, WriteError)
    if not replay.takes_others(stuck, error, deadline):
        return
    is_told = replay.too_old_is == error.answered
    if not (is_told or _is_taken(stuck, replay, deadline) or replay.is_abandoned):
        losses.lose(stuck, "failing")
    replay.stopped = None
    replay.turns.reopen(stuck.device)
    run(replay, state, losses, deadline)


def _is_taken(entry: Entry, replay: Replay, deadline: Deadline) -> bool:
    turns, records = replay.hand.load([(entry.device, [entry])])
    if not turns or replay.flight.write(records, deadline) or replay.is_abandoned:
        return False
    replay.take(turns)
    return True
