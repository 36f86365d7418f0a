"""Record: the series of one device at one moment, ready for a timestamped sink.

It is what remote-write sends, and what the spool keeps of it, neutral to the version
of the protocol. Values that are alike in labels share one label set, since a device's
series mostly differ in nothing but the name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

LabelSet = tuple[tuple[str, str], ...]
#: What tells a series from all others: its name and its sorted labels.
SeriesKey = tuple[str, LabelSet]


class Family(NamedTuple):
    """All samples of one name; `places` are their label sets' places in the record.

    `type` and `help` are those of the metric, which go along in remote-write 2.0.
    """

    name: str
    type: str
    help: str
    places: list[int]
    values: list[float]


class Record(NamedTuple):
    """One moment of one device; `time_ms` in milliseconds since 1970.

    `label_sets` are sorted by label name, hold no empty value and no `__name__`.
    `ended` are series that end here, each with a staleness marker: as names and places,
    since no float can carry the marker's bits through arithmetic or JSON unharmed
    (push-protocols.md 3.5).
    """

    time_ms: int
    label_sets: list[LabelSet]
    families: list[Family]
    ended: list[tuple[str, int]]

    @property
    def samples(self) -> int:
        """The number of values, staleness markers left out."""
        return sum(len(family.places) for family in self.families)

    def keys(self) -> set[SeriesKey]:
        """Return the series that have a value here."""
        sets = self.label_sets
        return {(f.name, sets[place]) for f in self.families for place in f.places}

    def ended_keys(self) -> set[SeriesKey]:
        """Return the series that end here."""
        return {(name, self.label_sets[place]) for name, place in self.ended}

    def ending(self, keys: Iterable[SeriesKey]) -> Record:
        """Return this record with markers for all of `keys` that have no value in it.

        Labels keep the order in which they came, so that equal runs make equal bytes.
        """
        gone = sorted(set(keys) - self.keys())
        if not gone:
            return self
        places = {labels: place for place, labels in enumerate(self.label_sets)}
        ended = [(n, places.setdefault(labels, len(places))) for n, labels in gone]
        return self._replace(label_sets=list(places), ended=ended)

    def to_bytes(self) -> bytes:
        """Return what `from_bytes` takes: compact JSON."""
        helps = {family.help: None for family in self.families}
        numbers = {text: number for number, text in enumerate(helps)}
        families = [(n, t, numbers[h], p, v) for n, t, h, p, v in self.families]
        fields = (self.time_ms, self.label_sets, list(helps), families, self.ended)
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Record:
        """Return the record that `to_bytes` wrote; raises ValueError for another."""
        try:
            time_ms, label_sets, helps, families, ended = json.loads(content)
            record = cls(
                _whole(time_ms),
                [
                    tuple((_text(name), _text(value)) for name, value in labels)
                    for labels in label_sets
                ],
                [
                    Family(
                        _text(name),
                        _text(kind),
                        _text(helps[_whole(number)]),
                        [_whole(place) for place in places],
                        [float(value) for value in values],
                    )
                    for name, kind, number, places, values in families
                ],
                [(_text(name), _whole(place)) for name, place in ended],
            )
            # Every place is there, and every sample has its value.
            record.keys(), record.ended_keys()
            if any(len(f.places) != len(f.values) for f in record.families):
                raise ValueError("a sample without value")
        except (TypeError, LookupError, OverflowError, RecursionError) as exc:
            raise ValueError("not a record") from exc
        return record


def record_of(
    registry: CollectorRegistry, grouping: Mapping[str, str], time_ms: int
) -> Record:
    """Return all samples of `registry` as they are at `time_ms`.

    Labels of `grouping` go to every series and win over a sample's own, as those of a
    Pushgateway's group do. Raises ValueError if a series occurs twice.
    """
    places: dict[LabelSet, int] = {}
    seen: dict[tuple[tuple[str, str], ...], int] = {}
    families: dict[str, Family] = {}
    labels: dict[str, str] | None = None
    place = 0
    for metric in registry.collect():
        for sample in metric.samples:
            # Neighbours mostly have the same labels: comparing is cheaper than hashing.
            if sample.labels != labels:
                labels = sample.labels
                place = _place(labels, grouping, places, seen)
            family = families.get(sample.name)
            if family is None:
                family = families[sample.name] = Family(
                    sample.name, metric.type, metric.documentation, [], []
                )
            family.places.append(place)
            family.values.append(sample.value)
    if any(len(set(f.places)) < len(f.places) for f in families.values()):
        raise ValueError("a series occurs twice")
    return Record(time_ms, list(places), list(families.values()), [])


def _place(
    labels: Mapping[str, str],
    grouping: Mapping[str, str],
    places: dict[LabelSet, int],
    seen: dict[tuple[tuple[str, str], ...], int],
) -> int:
    as_given = tuple(labels.items())
    place = seen.get(as_given)
    if place is None:
        whole = {**labels, **grouping}
        key = tuple(sorted((name, value) for name, value in whole.items() if value))
        place = seen[as_given] = places.setdefault(key, len(places))
    return place


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError
    return value
