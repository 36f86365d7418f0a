"""What --check sends and takes back, and what is said of it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ecoflow_push.errors import Finding, SinkError, WriteError

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.metrics.labels import Labels
    from ecoflow_push.net.deadline import Deadline
    from ecoflow_push.sinks.base import TimestampedSink


def trial(prefix: str) -> CollectorRegistry:
    """Return what is sent, for a moment; `prefix` is that of all metrics."""
    from prometheus_client import CollectorRegistry, Gauge

    registry = CollectorRegistry()
    text = "A test, gone in a moment"
    Gauge(f"{prefix}_push_check", text, registry=registry).set(1)
    return registry


def write_trial(
    sink: TimestampedSink, labels: Labels, now_ms: int, deadline: Deadline
) -> None:
    """Write one sample, and its end a millisecond later; raises WriteError."""
    from ecoflow_push.metrics.record import empty_record, record_of

    record = record_of(trial(labels.prefix), labels.check_group, now_ms)
    end = empty_record(now_ms + 1).ending(record.keys())
    try:
        sink.write(record, deadline.share(0.7))
    except WriteError as exc:
        if exc.bad == "server":
            # It may have been taken without our hearing of it.
            with suppress(WriteError):
                sink.write(end, deadline, 1)
        raise
    sink.write(end, deadline)


def wrong(name: str, error: SinkError) -> Finding:
    """Return the finding that a sink's error is, without the name of its step."""
    text = error.text.removeprefix(name).lstrip(": ")
    return Finding("wrong", name, text, error.cure, error)


def taken(name: str) -> Finding:
    """Return the finding of a probe that went well."""
    return Finding("ok", name, "took the test, gone again")
