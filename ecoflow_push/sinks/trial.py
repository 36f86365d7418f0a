"""What --check sends and takes back, and what is said of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from ecoflow_push import leaving
from ecoflow_push.errors import ExitStatus, Finding, SinkError, WriteError
from ecoflow_push.memory.state import FOLDER_CURE
from ecoflow_push.sinks.groups import Gateway, body_of
from ecoflow_push.sinks.reports import as_in_a_run, pause_of, resting

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.memory.records import EndpointRecord
    from ecoflow_push.memory.spool import Spool
    from ecoflow_push.memory.state import State
    from ecoflow_push.metrics.labels import Labels
    from ecoflow_push.metrics.record import Record
    from ecoflow_push.net.deadline import Deadline
    from ecoflow_push.sinks.base import TimestampedSink
    from ecoflow_push.sinks.clock import Clock

# How long a serial number is, and how many samples a snapshot may have.
SERIAL = 16
MANY_SAMPLES = 9_999


def trial(prefix: str) -> CollectorRegistry:
    """Return what is sent, for a moment; `prefix` is that of all metrics."""
    from prometheus_client import CollectorRegistry, Gauge

    registry = CollectorRegistry()
    text = "A test, gone in a moment"
    Gauge(f"{prefix}_push_check", text, registry=registry).set(1)
    return registry


def probe_spool(spool: Spool) -> Finding:
    """Write into each folder of a spool, and return what came of it."""
    from ecoflow_push.memory.entry import Entry
    from ecoflow_push.memory.folder import BAD, LAST
    from ecoflow_push.memory.trial import TRIED, cure_of, try_file

    files = spool.files
    device = "X" * SERIAL
    name = Entry(0, MANY_SAMPLES, device).name
    error: OSError | None = None
    with leaving.undisturbed(files.path):
        is_new = not os.path.isdir(files.path)
        try:
            files.make()
            for inside in ((name,), (BAD, name), (LAST, device)):
                error = error or try_file(os.path.join(files.path, *inside))
        except OSError as exc:
            error = exc
        if is_new:
            files.destroy()
            files.is_made = False
    if error is None:
        return Finding("ok", "spool", TRIED)
    # What a run would say of it.
    files.note(error)
    text = f"nothing can be stored for remote-write, {error.strerror}"
    return Finding("wrong", "spool", text, cure_of(error, "STATE_DIR", FOLDER_CURE))


def probe_gateway(
    name: str, gateway: Gateway, labels: Labels, deadline: Deadline
) -> Finding:
    """Push a group of its own, read it back, delete it; return what came of it."""
    group, body = labels.check_group, body_of(trial(labels.prefix))
    early = deadline.share(0.7)
    with leaving.undisturbed(f"the job {group['job']} at the Pushgateway"):
        try:
            gateway.push(body, group, early)
        except WriteError as exc:
            if not exc.refuses_us:
                # It may have been taken without our hearing of it.
                with suppress(WriteError):
                    gateway.delete(group, deadline, 1)
            return wrong(name, exc)
        found = taken(name)
        if not (leaving.is_wanted() or _is_held(gateway, group, early)):
            text = "took the test, which cannot be read back"
            cure = "check that GET reaches the same gateway as PUT"
            found = Finding("unknown", name, text, cure)
        try:
            gateway.delete(group, deadline)
        except WriteError as exc:
            text = f"took the test and keeps it ({exc.text})"
            cure = f"let DELETE through, and delete the job {group['job']}"
            found = Finding("wrong", name, text, cure)
    return found


def _is_held(gateway: Gateway, group: Mapping[str, str], deadline: Deadline) -> bool:
    try:
        return gateway.has_group(group, deadline)
    except WriteError:
        return False


def write_trial(
    sink: TimestampedSink, labels: Labels, now_ms: int, deadline: Deadline
) -> None:
    """Write one sample, and its end a millisecond later; raises WriteError."""
    from ecoflow_push.metrics.record import empty_record, record_of

    record = record_of(trial(labels.prefix), labels.check_group, now_ms)
    end = empty_record(now_ms + 1).ending(record.keys())
    with leaving.undisturbed(f"{labels.prefix}_push_check at remote-write"):
        try:
            sink.write([record], deadline.share(0.7))
        except WriteError as exc:
            if exc.bad == "server":
                # It may have been taken without our hearing of it.
                with suppress(WriteError):
                    sink.write([end], deadline, 1)
            raise
        sink.write([end], deadline)


def probe(
    sink: TimestampedSink,
    state: State,
    spool: Spool,
    labels: Labels,
    *,
    clock: Clock,
    deadline: Deadline,
    has_news: bool,
) -> Iterator[Finding]:
    """Yield what becomes of a trial of the spool and of the sink, and what waits.

    `has_news` says that a run would have something new to write.
    """
    spooled = [] if state.trouble else [probe_spool(spool)]
    error = pause_of(sink.name, state)
    if error and has_news and spool.trouble:
        error = WriteError(error.text, error.cure)
    if error is None and clock.distrust:
        text, cure = "nothing sent by a wrong clock", "set it, see above"
        error = SinkError(text, cure, status=ExitStatus.TEMPFAIL)
    if error is None:
        try:
            # However often it was proven: what is behind it may be another server.
            sink.is_proven = False
            sink.prove(deadline.share(0.4))
            write_trial(sink, labels, clock.now_ms(), deadline)
        except WriteError as exc:
            error = as_in_a_run(exc, state, spool, has_news=has_news)
    yield wrong(sink.name, error) if error else taken(sink.name)
    yield from waiting(sink.name, state.endpoint)
    yield from spooled


def contrast(labels: Labels, now_ms: int, at_ms: int | None, newest_ms: int) -> Record:
    """Return something harmless of a time (ms) as old as `at_ms`; None for now.

    But not older than `newest_ms`, the newest that was taken: that may be too old.
    """
    if at_ms is None:
        return _harmless(labels, now_ms)
    return _unseen(labels, min(now_ms, max(at_ms, newest_ms)))


def _harmless(labels: Labels, now_ms: int) -> Record:
    """Return a series that every run writes: it disturbs no device's order."""
    from ecoflow_push import __version__
    from ecoflow_push.metrics.record import record_of
    from ecoflow_push.metrics.registry import RegistryBuilder

    builder = RegistryBuilder(labels.prefix, labels.extra)
    builder.own("push_build_info", 1, version=__version__)
    return record_of(builder.registry(), labels.run_group, now_ms)


def _unseen(labels: Labels, at_ms: int) -> Record:
    """Return the end of a series that never was: no query shows it.

    There is one for each time: were it older than what is there, its refusal would say
    nothing of other series.
    """
    from ecoflow_push.metrics.record import empty_record

    ((name, known),) = _harmless(labels, at_ms).keys()
    key = name, tuple(sorted((*known, ("probe", str(at_ms)))))
    return empty_record(at_ms).ending([key])


def wrong(name: str, error: SinkError) -> Finding:
    """Return the finding that a sink's error is, without the name of its step."""
    text = error.text.removeprefix(name).lstrip(": ")
    return Finding("wrong", name, text, error.cure, error)


def taken(name: str) -> Finding:
    """Return the finding of a probe that went well."""
    return Finding("ok", name, "took the test, gone again")


def waiting(name: str, endpoint: EndpointRecord) -> Iterator[Finding]:
    """Yield what the last run left in the spool, and why it rests."""
    if endpoint.samples:
        text = f"{endpoint.samples} samples wait in the spool"
        yield Finding("warning", name, text, "the next runs write them")
    for said in resting(endpoint)[:3]:
        text = f"takes nothing of {said}"
        yield Finding("warning", name, text, "it is tried once a run")
