"""A registry's samples in columns: what text, gateway and remote-write are made of.

Of one device's samples all but the values comes again in each snapshot, and in those of
its model: that is a frame, which may be shared. As objects of prometheus_client they
would cost ten times as much; `collect` makes these for whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import CollectorRegistry, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from ecoflow_push.metrics.frame import Frame, Part


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


class Sheet(Collector):
    """Samples of one device, or of the run; `labels` are on all of them.

    No name stands in two parts.
    """

    def __init__(self, labels: Mapping[str, str], parts: Sequence[Part]) -> None:
        self.labels = labels
        self.parts = parts

    def collect(self) -> Iterator[Metric]:
        """Yield the families as prometheus_client has them."""
        for frame, values in self.parts:
            metric = None
            columns = zip(frame.names, frame.places, frame.metas, values, strict=True)
            for name, place, meta, value in columns:
                if metric is None or metric.name != name:
                    if metric:
                        yield metric.family
                    kind, text = frame.kinds[meta]
                    metric = EcoflowMetric(name, text, kind)
                metric.add({**self.labels, **frame.extras[place]}, value)
            if metric:
                yield metric.family


class SnapshotRegistry(CollectorRegistry):
    """A fresh registry with one collector, which stays known as a sheet."""

    def __init__(self, sheet: Sheet) -> None:
        super().__init__()
        self.sheet = sheet
        self.register(sheet)


def sheet_of(registry: CollectorRegistry) -> Sheet:
    """Return all samples of a registry, whoever made it, in columns."""
    if isinstance(registry, SnapshotRegistry):
        return registry.sheet
    rows, values = [], []
    for metric in registry.collect():
        kind = metric.type, metric.documentation
        for sample in metric.samples:
            rows.append((sample.name, sample.labels, kind))
            values.append(sample.value)
    return Sheet({}, [(Frame(rows), values)])
