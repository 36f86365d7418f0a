"""A device's samples to a fresh CollectorRegistry, one family per name.

# HELP ecoflow_pd_soc Quota as EcoFlow reports it, not rescaled.
# TYPE ecoflow_pd_soc gauge
ecoflow_pd_soc{device="R331ZFAKE0000001",device_name="Garage",product_name="…"} 87.0
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ecoflow_push.devices.metrics import metrics
from ecoflow_push.metrics.frame import Frame
from ecoflow_push.metrics.own import DEVICE_METRICS, RUN_METRICS
from ecoflow_push.metrics.sheet import Sheet, SnapshotRegistry

if TYPE_CHECKING:
    from ecoflow_push.metrics.frame import Part, Row
    from ecoflow_push.metrics.labels import Labels

RAW_KIND = ("gauge", "Quota as EcoFlow reports it, not rescaled.")


class RegistryBuilder:
    """Gathers samples; `registry()` hands them out once."""

    def __init__(self, prefix: str, labels: Mapping[str, str]) -> None:
        """Store what every name begins with, and the labels of every sample."""
        self._prefix = prefix
        self._labels = labels
        self._own: dict[str, list[tuple[dict[str, str], float]]] = {}
        self._parts: list[Part] = []

    def own(self, suffix: str, value: float, **labels: str) -> None:
        """Add a sample of one of our own metrics, named without the prefix."""
        self._own.setdefault(suffix, []).append((labels, float(value)))

    def add(self, parts: Iterable[Part]) -> None:
        """Add samples whose names have the prefix already, and are none of our own."""
        self._parts += parts

    def registry(self) -> SnapshotRegistry:
        """Return a fresh registry with all that was added."""
        rows, values = [], []
        for suffix, samples in self._own.items():
            text = DEVICE_METRICS.get(suffix) or RUN_METRICS[suffix]
            kind = "counter" if suffix.endswith("_total") else "gauge"
            name = f"{self._prefix}_{suffix}"
            rows += [(name, labels, (kind, text)) for labels, _ in samples]
            values += [value for _, value in samples]
        own = Frame(rows), values
        return SnapshotRegistry(Sheet(self._labels, [own, *self._parts]))


def part_of(samples: Iterable[Row], prefix: str) -> Part:
    """Return samples in columns, each with the type and help that its name has.

    They are sorted by name, and `prefix` is what each of them begins with.
    """
    rows, values = [], []
    start = len(prefix) + 1
    for name, own, value in samples:
        extra = (
            {f"index_{n}": str(index) for n, index in enumerate(own)}
            if isinstance(own, tuple)
            else own
        )
        normalized = metrics().get(name[start:])
        kind = RAW_KIND
        if normalized:
            is_counter = name.endswith("_total")
            kind = "counter" if is_counter else "gauge", normalized.help
        rows.append((name, extra, kind))
        values.append(value)
    return Frame(rows), values


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
    labels: Labels, facts: DeviceFacts, parts: Iterable[Part] = ()
) -> SnapshotRegistry:
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
    builder.add(parts)
    return builder.registry()
