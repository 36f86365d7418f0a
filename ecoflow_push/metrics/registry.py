"""Snapshots to a fresh CollectorRegistry, one family per name.

# HELP ecoflow_pd_soc Quota as EcoFlow reports it, not rescaled.
# TYPE ecoflow_pd_soc gauge
ecoflow_pd_soc{device="R331ZFAKE0000001",device_name="Garage",product_name="…"} 87.0
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from prometheus_client.core import CollectorRegistry, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from ecoflow_push.devices.normalized import METRICS, REASONS, NormalizedSample
from ecoflow_push.metrics.names import SKIP_REASONS, RawSample

# Type and HELP are functions of the name alone: a Pushgateway refuses a push whose
# family contradicts another group's.
RAW_HELP = "Quota as EcoFlow reports it, not rescaled."
DEVICE_METRICS = {
    "online": "Whether EcoFlow says that the device is online.",
    "device_info": "A device of the account and how it was read; always 1.",
    "snapshot_timestamp_seconds": "When the device's values were collected.",
    "data_last_change_timestamp_seconds": (
        "When the device's values last differed from those collected before."
    ),
}
RUN_METRICS = {
    "push_success": "Whether the run had succeeded when it pushed this.",
    "push_exit_status": "The exit status of the run, as known when it pushed this.",
    "push_duration_seconds": "How long a phase of the run took.",
    "push_last_success_timestamp_seconds": "When a run last succeeded.",
    "push_devices": "Devices of this run by state.",
    "push_samples": "Quota samples that this run collected.",
    "push_skipped_values": (
        "Values of this run's quota maps that became no raw or no normalized sample."
    ),
    "push_runs_total": "Runs since the state folder was made.",
    "push_failures_total": "Runs since then in which a stage failed.",
    "push_spool_samples": "Samples that wait in the spool for remote-write.",
    "push_spool_oldest_timestamp_seconds": (
        "When the oldest of the samples in the spool were collected."
    ),
    "push_dropped_samples_total": "Samples that remote-write will never get.",
    "push_build_info": "The version of ecoflow_push; always 1.",
}
_OWN_NAMES = (*DEVICE_METRICS, *RUN_METRICS, *METRICS)
# A counter's family is called without the suffix, and must not be a gauge's too.
RESERVED_NAMES = frozenset(
    (*_OWN_NAMES, *(name.removesuffix("_total") for name in _OWN_NAMES))
)
NONE: Mapping[str, float] = MappingProxyType({})


class EcoflowMetric:
    """One metric family: its name, its help and its samples."""

    __slots__ = ("family", "name")

    def __init__(self, name: str, documentation: str, kind: str = "gauge") -> None:
        self.name = name
        # A counter's family is called without the suffix that its samples have.
        family = name.removesuffix("_total") if kind == "counter" else name
        self.family = Metric(family, documentation, kind)

    def add(self, labels: Mapping[str, str], value: float) -> None:
        """Add one sample; its labels must differ from those already there."""
        self.family.samples.append(Sample(self.name, dict(labels), value))


class DeviceFacts(NamedTuple):
    """What goes on the wire about one device; None means unknown, hence absent."""

    sn: str
    name: str
    product_name: str
    source: str
    online: bool | None = None
    snapshot_at: float | None = None
    changed_at: float | None = None
    samples: Sequence[RawSample | NormalizedSample] = ()
    family: str = ""
    firmware: str = ""


class RunFacts(NamedTuple):
    """What a run says of itself; times in Unix seconds, durations in seconds."""

    version: str
    exit_status: int = 0
    durations: Mapping[str, float] = NONE
    last_success_at: float | None = None
    devices: Mapping[str, float] = NONE
    samples: int = 0
    skipped: Mapping[str, float] = NONE
    totals: Totals | None = None
    spool: SpoolFacts | None = None


class Totals(NamedTuple):
    """Counts over all runs that the state remembers, this one included."""

    runs: int
    failures: Mapping[str, int]


class SpoolFacts(NamedTuple):
    """What waits for remote-write, and what is lost to it, by reason.

    `oldest_at` in Unix seconds, None if nothing waits.
    """

    samples: int
    oldest_at: float | None
    dropped: Mapping[str, float]


class _Families(Collector):
    """The one collector of a fresh registry."""

    def __init__(self, metrics: Iterable[EcoflowMetric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterator[Metric]:
        return (metric.family for metric in self._metrics)


class RegistryBuilder:
    """Gathers facts into families; `registry()` hands them out once."""

    def __init__(self, prefix: str, extra_labels: Mapping[str, str]) -> None:
        self._prefix = prefix
        self._extra_labels = extra_labels
        self._metrics: dict[str, EcoflowMetric] = {}

    def add_device(self, facts: DeviceFacts) -> None:
        """Add everything that is known of one device."""
        labels = {
            **self._extra_labels,
            "device": facts.sn,
            "device_name": facts.name,
            "product_name": facts.product_name,
        }
        if facts.online is not None:
            self._own("online", labels, facts.online)
        info = {"source": facts.source, "family": facts.family}
        info["firmware"] = facts.firmware
        known = {name: value for name, value in info.items() if value}
        self._own("device_info", {**labels, **known}, 1)
        if facts.snapshot_at is not None:
            self._own("snapshot_timestamp_seconds", labels, facts.snapshot_at)
        if facts.changed_at is not None:
            self._own("data_last_change_timestamp_seconds", labels, facts.changed_at)
        for name, places, value in facts.samples:
            metric = self._metrics.get(name) or self._quota_metric(name)
            if isinstance(places, dict):
                metric.add({**labels, **places}, value)
            elif places:
                indices = {f"index_{n}": str(index) for n, index in enumerate(places)}
                metric.add({**labels, **indices}, value)
            else:
                metric.add(labels, value)

    def add_run(self, facts: RunFacts) -> None:
        """Add the run's own series; they carry no device labels."""
        labels = self._extra_labels
        self._own("push_success", labels, facts.exit_status == 0)
        self._own("push_exit_status", labels, facts.exit_status)
        for phase, seconds in facts.durations.items():
            self._own("push_duration_seconds", {**labels, "phase": phase}, seconds)
        if facts.last_success_at is not None:
            self._own(
                "push_last_success_timestamp_seconds", labels, facts.last_success_at
            )
        for state, count in facts.devices.items():
            self._own("push_devices", {**labels, "state": state}, count)
        self._own("push_samples", labels, facts.samples)
        for reason in (*SKIP_REASONS, *REASONS):
            count = facts.skipped.get(reason, 0)
            self._own("push_skipped_values", {**labels, "reason": reason}, count)
        if facts.totals:
            self._own("push_runs_total", labels, facts.totals.runs)
            for stage, count in facts.totals.failures.items():
                self._own("push_failures_total", {**labels, "stage": stage}, count)
        if facts.spool:
            self._own("push_spool_samples", labels, facts.spool.samples)
            if facts.spool.oldest_at is not None:
                self._own(
                    "push_spool_oldest_timestamp_seconds", labels, facts.spool.oldest_at
                )
            for reason, count in facts.spool.dropped.items():
                self._own(
                    "push_dropped_samples_total", {**labels, "reason": reason}, count
                )
        self._own("push_build_info", {**labels, "version": facts.version}, 1)

    def registry(self) -> CollectorRegistry:
        """Return a fresh registry with all that was added."""
        registry = CollectorRegistry()
        registry.register(_Families(self._metrics.values()))
        return registry

    def _quota_metric(self, name: str) -> EcoflowMetric:
        normalized = METRICS.get(name.removeprefix(f"{self._prefix}_"))
        kind = "counter" if normalized and name.endswith("_total") else "gauge"
        text = normalized.help if normalized else RAW_HELP
        metric = self._metrics[name] = EcoflowMetric(name, text, kind)
        return metric

    def _own(self, suffix: str, labels: Mapping[str, str], value: float) -> None:
        name = f"{self._prefix}_{suffix}"
        metric = self._metrics.get(name)
        if metric is None:
            text = DEVICE_METRICS.get(suffix) or RUN_METRICS[suffix]
            kind = "counter" if suffix.endswith("_total") else "gauge"
            metric = self._metrics[name] = EcoflowMetric(name, text, kind)
        metric.add(labels, float(value))
