"""What a run tells of itself: its own series, and what is remembered of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ecoflow_push import __version__
from ecoflow_push.errors import ExitStatus
from ecoflow_push.logs import warn_once
from ecoflow_push.net.deadline import Deadline, within
from ecoflow_push.run.outcome import STAGES, worst

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.memory.state import State
    from ecoflow_push.run.outcome import Faults
    from ecoflow_push.sinks.base import Sink

log = logging.getLogger(__name__)


class Fared:
    """How a sink fared in a run."""

    __slots__ = ("is_well", "may_tell")

    def __init__(self, sink: Sink) -> None:
        delivery, backlog = sink.delivery, sink.backlog()
        errors = delivery.errors or delivery.run_errors
        self.is_well = not (errors or delivery.is_broken)
        #: It took something, or nothing waits for it.
        self.may_tell = bool(delivery.delivered or not (backlog and backlog.samples))


def sinks_status(sinks: Sequence[Sink]) -> ExitStatus:
    """Return what sinks that are one for many mean for a run that had something."""
    failed = [sink.delivery.errors for sink in sinks if sink.delivery.errors]
    if failed and len(failed) == len(sinks):
        return worst({error.status for errors in failed for error in errors})
    is_partial = failed or any(sink.delivery.run_errors for sink in sinks)
    return ExitStatus.PARTIAL if is_partial else ExitStatus.OK


def level_of(status: ExitStatus) -> int:
    """Return the log's level for the line that tells how a run ended."""
    level = {ExitStatus.OK: logging.INFO, ExitStatus.PARTIAL: logging.WARNING}
    return level.get(status, logging.ERROR)


def tell_end(
    status: ExitStatus, started: float, said: str, level: int | None = None
) -> None:
    """Log the one line at the end of what `started` then, on the monotonic clock.

    `level` is the log's, where that is not the status's own.
    """
    log.log(
        level_of(status) if level is None else level,
        "exit %d %s after %.1f s; %s",
        *(status, status.name, time.monotonic() - started, said),
    )


def send(sink: Sink, work: Callable[[Deadline], object], deadline: Deadline) -> None:
    """Let a sink work until its deadline, and then give up what it is still at."""
    if not within(deadline, partial(work, deadline)):
        sink.abandon()


def deliver_run(
    sinks: Sequence[Sink],
    deadline: Deadline,
    outcome: Faults,
    registry: Callable[[], CollectorRegistry],
    bound: Callable[[Sink, Deadline], Deadline] = lambda _, deadline: deadline,
) -> None:
    """Give each sink the run's own series, which say what is known by then.

    `bound` may give a sink less time than its share.
    """
    # Who was down may cost the others nothing; who hangs only now, not everything.
    in_order = sorted(sinks, key=lambda sink: sink.delivery.is_closed)
    told, said = None, None
    for place, sink in enumerate(in_order):
        part = bound(sink, deadline.share(1 / (len(in_order) - place)))
        status = outcome.status()
        if said is None or status != told:
            told, said = status, registry()
        work = partial(sink.deliver_run, said)
        outcome.survives(partial(send, sink, work, part), sink)


def lasting(state: State, status: ExitStatus, stages: set[str]) -> dict[str, Any]:
    """Return what the run's own series tell of this run, and of those before it."""
    is_good = status == ExitStatus.OK
    # Without a memory they would count from 0 in every run.
    runs, failures = (None, {}) if state.trouble else totals(state, stages)
    return {
        "version": __version__,
        "exit_status": status,
        "last_success_at": time.time() if is_good else state.last_success_at,
        "runs": runs,
        "failures": failures,
    }


def totals(state: State, stages: set[str]) -> tuple[int, dict[str, int]]:
    """Return runs and failures, by stage, with a run that failed in these stages."""
    failures = state.failures
    return state.runs + 1, {
        stage: failures.get(stage, 0) + (stage in stages) for stage in STAGES
    }


def remember(state: State, status: ExitStatus, stages: set[str]) -> None:
    """Save what the next run is to know, or log that nothing is remembered."""
    if status == ExitStatus.OK:
        state.last_success_at = time.time()
    state.runs, state.failures = totals(state, stages)
    state.save()
    if kind := no_memory(state):
        text = "%s; nothing is remembered for the next run: %s"
        warn_once(log, kind, text, state.trouble, state.cure)


def no_memory(state: State) -> str:
    """Return what it amounts to that nothing is remembered, "" if anything is."""
    is_told = state.trouble and state.is_wanted
    return f"no memory of this run, {state.reason}" if is_told else ""
