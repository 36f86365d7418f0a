"""A device's samples to a fresh CollectorRegistry, one family per name.

# HELP ecoflow_pd_soc Quota as EcoFlow reports it, not rescaled.
# TYPE ecoflow_pd_soc gauge
ecoflow_pd_soc{device="R331ZFAKE0000001",device_name="Garage",product_name="…"} 87.0
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.core import CollectorRegistry, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from ecoflow_push.devices.metrics import metrics
from ecoflow_push.metrics.own import DEVICE_METRICS, RUN_METRICS

if TYPE_CHECKING:
    from ecoflow_push.devices.normalized import NormalizedSample
    from ecoflow_push.metrics.labels import Labels
    from ecoflow_push.metrics.names import RawSample

RAW_HELP = "Quota as EcoFlow reports it, not rescaled."


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


class _Families(Collector):
    """The one collector of a fresh registry."""

    def __init__(self, metrics: Iterable[EcoflowMetric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterator[Metric]:
        return (metric.family for metric in self._metrics)


class RegistryBuilder:
    """Gathers samples into families; `registry()` hands them out once."""

    def __init__(self, prefix: str, labels: Mapping[str, str]) -> None:
        """Store what every name begins with, and the labels of every sample."""
        self._prefix = prefix
        self._labels = labels
        self._metrics: dict[str, EcoflowMetric] = {}

    def own(self, suffix: str, value: float, **labels: str) -> None:
        """Add a sample of one of our own metrics, named without the prefix."""
        name = f"{self._prefix}_{suffix}"
        metric = self._metrics.get(name)
        if metric is None:
            text = DEVICE_METRICS.get(suffix) or RUN_METRICS[suffix]
            kind = "counter" if suffix.endswith("_total") else "gauge"
            metric = self._metrics[name] = EcoflowMetric(name, text, kind)
        metric.add({**self._labels, **labels}, float(value))

    def add(self, samples: Iterable[RawSample | NormalizedSample]) -> None:
        """Add samples whose names have the prefix already."""
        labels = self._labels
        for name, places, value in samples:
            metric = self._metrics.get(name) or self._quota_metric(name)
            if isinstance(places, dict):
                metric.add({**labels, **places}, value)
            elif places:
                indices = {f"index_{n}": str(index) for n, index in enumerate(places)}
                metric.add({**labels, **indices}, value)
            else:
                metric.add(labels, value)

    def registry(self) -> CollectorRegistry:
        """Return a fresh registry with all that was added."""
        registry = CollectorRegistry()
        registry.register(_Families(self._metrics.values()))
        return registry

    def _quota_metric(self, name: str) -> EcoflowMetric:
        normalized = metrics().get(name.removeprefix(f"{self._prefix}_"))
        kind = "counter" if normalized and name.endswith("_total") else "gauge"
        text = normalized.help if normalized else RAW_HELP
        metric = self._metrics[name] = EcoflowMetric(name, text, kind)
        return metric


class DeviceFacts(NamedTuple):
    """What goes on the wire about one device; None means unknown, hence absent.

    `snapshot_at` and `changed_at` in Unix seconds: when its values were collected, and
    when they last differed.
    """

    sn: str
    name: str
    product_name: str
    source: str = ""
    family: str = ""
    firmware: str = ""
    online: bool | None = None
    snapshot_at: float | None = None
    changed_at: float | None = None


def device_registry(
    labels: Labels,
    facts: DeviceFacts,
    samples: Sequence[RawSample | NormalizedSample] = (),
) -> CollectorRegistry:
    """Return a fresh registry with everything that is said of one device."""
    builder = RegistryBuilder(
        labels.prefix,
        {
            **labels.extra,
            "device": facts.sn,
            "device_name": facts.name,
            "product_name": facts.product_name,
        },
    )
    if facts.online is not None:
        builder.own("online", facts.online)
    info = {"source": facts.source, "family": facts.family, "firmware": facts.firmware}
    builder.own("device_info", 1, **{k: text for k, text in info.items() if text})
    if facts.snapshot_at is not None:
        builder.own("snapshot_timestamp_seconds", facts.snapshot_at)
    if facts.changed_at is not None:
        builder.own("data_last_change_timestamp_seconds", facts.changed_at)
    builder.add(samples)
    return builder.registry()
