"""What is said of a replay: in a run's line, and of what rests."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from ecoflow_push.errors import ExitStatus, SinkError, WriteError
from ecoflow_push.logs import warn_once
from ecoflow_push.memory.records import LONGEST_PAUSE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ecoflow_push.memory.records import EndpointRecord
    from ecoflow_push.memory.spool import Spool
    from ecoflow_push.memory.state import State
    from ecoflow_push.sinks.base import Delivery, TimestampedSink
    from ecoflow_push.sinks.clock import Clock
    from ecoflow_push.sinks.replay import Replay

log = logging.getLogger(__name__)

TELL_SECONDS = 86_400.0


def pause_of(name: str, state: State) -> SinkError | None:
    """Return that the server once asked for a rest, as long as it lasts."""
    wait = state.endpoint.pause_for(time.time())
    if not wait:
        return None
    text = f"{name}: asked to wait {wait:.0f} s more"
    cure = "wait, it has too much to do"
    return SinkError(text, cure, status=ExitStatus.TEMPFAIL)


def note_endpoint(
    sink: TimestampedSink, state: State, stopped: SinkError | None
) -> None:
    """Remember what was found out of the server, and how long it wants to rest."""
    state.endpoint.version = sink.learnt
    asked = stopped.retry_after if isinstance(stopped, WriteError) else 0.0
    until = time.time() + min(asked, LONGEST_PAUSE_SECONDS)
    state.endpoint.pause_until = until if asked else None


def tell(
    delivery: Delivery, state: State, spool: Spool, replay: Replay, *, stored: bool
) -> None:
    """Note what was not taken, and why; `stored` says that nothing of it is lost."""
    delivery.errors += in_part(replay.name, state, spool, replay)
    if replayed := sum(not entry.is_fresh for entry in replay.delivered):
        delivery.note = f" ({replayed} snapshots from the spool)"
    if stop := _stop_of(replay, spool, stored=stored):
        delivery.errors.append(stop)
    elif not stored:
        why = spool.trouble or "SPOOL_MAX_BYTES is too small"
        delivery.errors.append(SinkError(f"{replay.name}: not stored either: {why}"))


def tell_of_the_disk(name: str, spool: Spool, state: State) -> None:
    """Say why nothing can be stored, if that is not what is wrong with the state."""
    if spool.trouble and spool.trouble != state.trouble:
        warn_once(log, f"{name}: no spool can be written", "%s", spool.trouble)


def in_part(
    name: str, state: State, spool: Spool, replay: Replay
) -> Iterator[SinkError]:
    """Yield one error for each kind of what was not taken, but for why it stopped."""
    if rejected := replay.suspects.rejected:
        first, others = rejected[0], len(rejected) - 1
        more = f" (and {others} more)" if others else ""
        yield WriteError(f"{first.text}{more}: dropped", first.cure, bad="content")
    refusals = replay.suspects.entries.values()
    if refusals and not replay.stopped:
        refusal = next(iter(refusals))
        text = f"{refusal.text}; kept until another one is taken"
        yield deferred_later(text, refusal.cure)
    if replay.failed and not replay.stopped:
        error = next(iter(replay.failed.values()))
        text = f"{error.text}; {len(replay.failed)} devices rest until the next run"
        yield deferred_later(f"{text}, {spool.samples} samples wait", error.cure)
        tell_who_rests(name, state)


def deferred_later(text: str, cure: str) -> SinkError:
    """Return an error of what waits."""
    return SinkError(text, cure, status=ExitStatus.TEMPFAIL, is_stored=True)


def _stop_of(replay: Replay, spool: Spool, *, stored: bool) -> SinkError | None:
    """Return what it means that the rest was not written, None if all was."""
    error = replay.stopped
    if error is None:
        return None
    if not stored:
        why = spool.trouble or "SPOOL_MAX_BYTES is too small"
        text = f"{error.text}; not stored either: {why}"
        bad = error.bad if isinstance(error, WriteError) else "server"
        return WriteError(text, error.cure, bad=bad)
    keeps = f"{spool.samples} samples wait in the spool"
    if count := len(replay.delivered):
        keeps = f"{count} snapshots were delivered, {keeps}"
    return deferred(error, f"{error.text}; {keeps}", is_stored=True)


def deferred(error: SinkError, text: str, *, is_stored: bool) -> SinkError:
    """Return an error that only puts off; one of the settings stays what it is."""
    if isinstance(error, WriteError) and error.refuses_us:
        kept: SinkError = WriteError(text, error.cure, bad=error.bad)
        kept.is_stored = is_stored
        return kept
    return SinkError(text, error.cure, status=ExitStatus.TEMPFAIL, is_stored=is_stored)


def of_run(error: WriteError) -> WriteError:
    """Return an error of the run's own series."""
    error.text = f"the run's own series: {error.text}"
    return error


def as_in_a_run(
    error: WriteError, state: State, spool: Spool, *, has_news: bool
) -> SinkError:
    """Return what a run would make of an error: it stores what is new, if it can."""
    has_memory = not (state.trouble or spool.trouble)
    if error.bad == "server" and not (has_memory and has_news):
        return error
    if error.bad == "content":
        # Nothing shows that the content is at fault.
        error = WriteError(error.text, error.cure, bad="address")
    return deferred(error, error.text, is_stored=has_memory)


def distrusted(name: str, clock: Clock, more: str = "") -> SinkError:
    """Return why nothing was sent by a clock that is not to be trusted."""
    cure = "set the clock, and keep it with NTP"
    status = ExitStatus.TEMPFAIL
    return SinkError(f"{name}: {clock.distrust}{more}", cure, status=status)


def resting(endpoint: EndpointRecord) -> list[str]:
    """Return what is to be said of each device whose queue fails on its own."""
    return [
        f"{device[:4]}...{device[-4:]} in {queue.rested} runs: {queue.why}"
        for device, queue in endpoint.queues.items()
        if queue.rested
    ]


def tell_who_rests(name: str, state: State) -> None:
    """Say once a day which devices fail where others do not, and with what."""
    now, told_at = time.time(), state.endpoint.rest_told_at
    if told_at is not None and 0 <= now - told_at < TELL_SECONDS:
        return
    if said := resting(state.endpoint):
        state.endpoint.rest_told_at = now
        more = f" and {len(said) - 3} more" if len(said) > 3 else ""
        log.warning(
            "%s: takes some devices and not others; these rest, and are tried once a"
            " run: %s%s",
            name,
            "; ".join(said[:3]),
            more,
        )
