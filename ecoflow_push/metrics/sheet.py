"""A registry's samples in columns: what text, gateway and remote-write are made of.

Of one device's samples all but the values comes again in each snapshot, and in those of
its model: that is a frame, which may be shared. As objects of prometheus_client they
would cost ten times as much; `collect` makes these for whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from prometheus_client.core import CollectorRegistry, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

if TYPE_CHECKING:
    from hashlib import _Hash

#: A metric's type and its help.
Kind = tuple[str, str]


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


class Frame:
    """What stays of samples when their values change; never altered.

    Sample n is called `names[n]`, has the labels `extras[places[n]]` beside those of
    its sheet, and is of kind `kinds[metas[n]]`. Those of one name stand together, and
    no series stands twice. Frames are equal where all of that is.
    """

    __slots__ = (
        *("_digest", "_hash", "_heads", "_key"),
        *("extras", "kinds", "metas", "names", "places"),
    )

    def __init__(self, rows: Iterable[tuple[str, Mapping[str, str], Kind]]) -> None:
        """Take each sample's name, further labels and kind.

        Raises ValueError if a series occurs twice.
        """
        names: list[str] = []
        places: list[int] = []
        metas: list[int] = []
        place_of: dict[tuple[tuple[str, str], ...], int] = {}
        meta_of: dict[Kind, int] = {}
        for name, extra, kind in rows:
            names.append(name)
            places.append(place_of.setdefault(tuple(extra.items()), len(place_of)))
            metas.append(meta_of.setdefault(kind, len(meta_of)))
        if len(set(zip(names, places, strict=True))) < len(names):
            raise ValueError("a series occurs twice")
        self.names = tuple(names)
        self.places = tuple(places)
        self.metas = tuple(metas)
        self.extras = [dict(items) for items in place_of]
        self.kinds = list(meta_of)
        self._key = (self.names, self.places, tuple(place_of), tuple(meta_of))
        self._hash = hash(self._key)
        self._heads: list[str] | None = None
        self._digest: _Hash | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    @property
    def heads(self) -> list[str]:
        """What stands before each sample's labels in a text, the line before ended."""
        if self._heads is None:
            before, heads = "", []
            for name, meta in zip(self.names, self.metas, strict=True):
                head = f"\n{name}"
                if name != before:
                    head = f"\n{family_head(name, self.kinds[meta])}{name}"
                before = name
                heads.append(head)
            self._heads = heads
        return self._heads

    def digest(self, values: Sequence[float]) -> str:
        """Return what differs wherever a name, a label or a value does."""
        if self._digest is None:
            # Imported for a signature already, if at all.
            import hashlib

            self._digest = hashlib.sha256(repr(self._key[:3]).encode())
        found = self._digest.copy()
        found.update(_packed(values))
        return found.hexdigest()[:16]


#: Samples: what stays, and the values.
Part = tuple[Frame, Sequence[float]]
#: One sample: its name, its places in lists or further labels, and its value.
Row = tuple[str, "tuple[int, ...] | Mapping[str, str]", float]


def _packed(values: Sequence[float]) -> bytes:
    import struct

    return struct.pack(f"<{len(values)}d", *values)


def family_head(name: str, kind: Kind) -> str:
    """Return the lines that begin a family of gauges or counters, and no others."""
    text = kind[1].replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {text}\n# TYPE {name} {kind[0]}\n"


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
