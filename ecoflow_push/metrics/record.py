"""Record: the series of one device at one moment, ready for a timestamped sink.

It is what remote-write sends, and what the spool keeps of it, neutral to the version
of the protocol. It is kept in columns, and series that are alike in labels share one
label set: a device's mostly differ in nothing but the name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ecoflow_push.metrics.sheet import sheet_of

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

# More than a message can carry (int64).
MOST_MS = 2**63

LabelSet = tuple[tuple[str, str], ...]
#: What tells a series from all others: its name and its sorted labels.
SeriesKey = tuple[str, LabelSet]


class Record(NamedTuple):
    """One moment of one device; `time_ms` in milliseconds since 1970.

    Sample n is called `names[n]`, has the labels `label_sets[places[n]]`, the value
    `values[n]`, and the type and help text `kinds[metas[n]]`. Label sets are sorted by
    label name, and hold no empty value and no `__name__`.

    `ended` are names and places of series that end here, each with a staleness marker.
    They have no value, since no float could carry the marker's bits through arithmetic
    or JSON unharmed (protocol/remote-write.md#staleness).
    """

    time_ms: int
    label_sets: list[LabelSet]
    kinds: list[tuple[str, str]]
    names: list[str]
    places: list[int]
    metas: list[int]
    values: list[float]
    ended: list[tuple[str, int]]

    @property
    def size(self) -> int:
        """How many samples it has, markers among them."""
        return len(self.names) + len(self.ended)

    def keys(self) -> set[SeriesKey]:
        """Return the series that have a value here."""
        sets = [self.label_sets[place] for place in self.places]
        return set(zip(self.names, sets, strict=True))

    def ended_keys(self) -> set[SeriesKey]:
        """Return the series that end here."""
        return {(name, self.label_sets[place]) for name, place in self.ended}

    def ending(self, keys: Iterable[SeriesKey]) -> Record:
        """Return this record with markers for all of `keys` that have no value in it.

        They are sorted, so that equal runs make equal bytes.
        """
        gone = sorted(set(keys) - self.keys())
        if not gone:
            return self
        places = {labels: place for place, labels in enumerate(self.label_sets)}
        ended = [(n, places.setdefault(labels, len(places))) for n, labels in gone]
        return self._replace(label_sets=list(places), ended=ended)

    def only(self, name: str) -> Record:
        """Return this record with nothing but the series of one name."""
        kept = [n for n, each in enumerate(self.names) if each == name]
        return self._replace(
            names=[name] * len(kept),
            places=[self.places[n] for n in kept],
            metas=[self.metas[n] for n in kept],
            values=[self.values[n] for n in kept],
        )

    def to_bytes(self) -> bytes:
        """Return what `from_bytes` takes: compact JSON."""
        return json.dumps(self, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Record:
        """Return the record that `to_bytes` wrote; raises ValueError for another."""
        try:
            time_ms, sets, kinds, names, places, metas, values, ended = json.loads(
                content
            )
            record = cls(
                time_ms,
                [tuple((name, value) for name, value in labels) for labels in sets],
                [(kind, text) for kind, text in kinds],
                names,
                places,
                metas,
                [float(value) for value in values],
                [(name, place) for name, place in ended],
            )
            strings = {type(text) for pair in record.kinds for text in pair}
            strings |= {
                type(text)
                for labels in record.label_sets
                for pair in labels
                for text in pair
            }
            strings |= set(map(type, names)) | {type(name) for name, _ in record.ended}
            bounds = [(places, sets), (metas, kinds), ([p for _, p in ended], sets)]
            sound = (
                type(time_ms) is int
                and 0 <= time_ms < MOST_MS
                and strings <= {str}
                and len(names) == len(places) == len(metas) == len(values)
                and all(
                    set(map(type, column)) <= {int}
                    and min(column, default=0) >= 0
                    and max(column, default=-1) < len(table)
                    for column, table in bounds
                )
            )
        except (TypeError, LookupError, OverflowError, RecursionError) as exc:
            raise ValueError("not a record") from exc
        if not sound:
            raise ValueError("not a record")
        return record


def empty_record(time_ms: int) -> Record:
    """Return a record without any series."""
    return Record(time_ms, [], [], [], [], [], [], [])


def record_of(
    registry: CollectorRegistry, grouping: Mapping[str, str], time_ms: int
) -> Record:
    """Return all samples of `registry` as they are at `time_ms`.

    Labels of `grouping` go to every series and win over a sample's own, as those of a
    Pushgateway's group do. Raises ValueError if a series occurs twice.
    """
    sheet = sheet_of(registry)
    place_of: dict[LabelSet, int] = {}
    meta_of: dict[tuple[str, str], int] = {}
    names: list[str] = []
    places: list[int] = []
    metas: list[int] = []
    values: list[float] = []
    has_equals = False
    for frame, own in sheet.parts:
        given = [{**sheet.labels, **extra, **grouping} for extra in frame.extras]
        where = [place_of.setdefault(_set(each), len(place_of)) for each in given]
        # Labels that differ in what is empty, or in what the group decides.
        has_equals |= len(set(where)) < len(where)
        kinds = [meta_of.setdefault(kind, len(meta_of)) for kind in frame.kinds]
        names += frame.names
        places += [where[place] for place in frame.places]
        metas += [kinds[meta] for meta in frame.metas]
        values += own
    if has_equals and len(set(zip(names, places, strict=True))) < len(names):
        raise ValueError("a series occurs twice")
    sets, kinds_there = list(place_of), list(meta_of)
    return Record(time_ms, sets, kinds_there, names, places, metas, values, [])


def _set(labels: Mapping[str, str]) -> LabelSet:
    return tuple(sorted((name, value) for name, value in labels.items() if value))
