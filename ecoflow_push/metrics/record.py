"""Record: the series of one device at one moment, ready for a timestamped sink.

It is what remote-write sends, and what the spool keeps of it, neutral to the version
of the protocol. It is kept in columns, and series that are alike in labels share one
label set: a device's mostly differ in nothing but the name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Sized
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ecoflow_push.metrics.frame import Kind

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.metrics.frame import Frame

# More than a message can carry (int64).
MOST_MS = 2**63
# How many shapes are remembered, and how many names one of them may have.
MOST_SHAPES = 32
MOST_NAMES = 1_500
# Behind the values of a record without markers.
ENDS_NOTHING = b"],[]]"

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
    label_sets: Sequence[LabelSet]
    kinds: tuple[Kind, ...]
    names: tuple[str, ...]
    places: tuple[int, ...]
    metas: tuple[int, ...]
    values: Sequence[float]
    ended: Sequence[tuple[str, int]]

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

    def fingerprint(self) -> int:
        """Return a number (48 bits, never 0) that tells which series have a value here.

        It is the same in every process, and of records with equal ones the one can
        follow the other without a marker.
        """
        # Imported for a signature already, if at all.
        from hashlib import sha256

        said = self._shape()[1] + _json(self.label_sets)
        return int.from_bytes(sha256(said).digest()[:6], "big") or 1

    def after(self, before: Record) -> Record:
        """Return this record with markers for what `before` says, or ends, and it not.

        Mostly that is nothing, which is seen without looking at each series.
        """
        is_alike = self.names == before.names and self.places == before.places
        if is_alike and not before.ended and self.label_sets == before.label_sets:
            return self
        return self.ending(before.keys() | before.ended_keys())

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
            names=(name,) * len(kept),
            places=tuple(self.places[n] for n in kept),
            metas=tuple(self.metas[n] for n in kept),
            values=[self.values[n] for n in kept],
        )

    def to_bytes(self) -> bytes:
        """Return what `from_bytes` takes: compact JSON."""
        return b"".join(self.pieces())

    def pieces(self) -> tuple[bytes, bytes, bytes]:
        """Return the same in three, the second one that of all records of its shape."""
        begin = _json((self.time_ms, self.label_sets))[:-1]
        values = "[" + ",".join(map(repr, self.values)) + "]"
        if "n" in values:
            # JSON has other words for an infinity, and for what is no number.
            values = _to_json(self.values)
        end = f",{values},{_to_json(self.ended)}]".encode()
        return begin + b",", self._shape()[0], end

    def _shape(self) -> tuple[bytes, bytes]:
        text_of = _remembered if len(self.names) <= MOST_NAMES else _shape_of
        return text_of(self[2:6])

    @classmethod
    def from_bytes(cls, content: bytes, *, is_valued: bool = True) -> Record:
        """Return the record that `to_bytes` wrote; raises ValueError for another.

        Where it need not be valued, its values may be left out.
        """
        try:
            (time_ms, sets), shape, (values, ended) = _parsed(
                content, is_valued=is_valued
            )
            record = cls(
                time_ms,
                [tuple([(name, value) for name, value in labels]) for labels in sets],
                *shape,
                list(map(float, values)),
                [(name, place) for name, place in ended],
            )
            strings = {
                type(text)
                for labels in record.label_sets
                for pair in labels
                for text in pair
            }
            strings |= {type(name) for name, _ in record.ended}
            sound = (
                type(time_ms) is int
                and 0 <= time_ms < MOST_MS
                and strings <= {str}
                and (len(values) == len(record.names) or not is_valued)
                and max(record.places, default=-1) < len(sets)
                and _are_places([place for _, place in ended], sets)
            )
        except (TypeError, LookupError, OverflowError, RecursionError) as exc:
            raise ValueError("not a record") from exc
        if not sound:
            raise ValueError("not a record")
        return record


_to_json = json.JSONEncoder(separators=(",", ":")).encode


def _json(value: object) -> bytes:
    return _to_json(value).encode()


def _shape_of(shape: _Shape) -> tuple[bytes, bytes]:
    """Return the text of a shape, and what tells it from others."""
    from hashlib import sha256

    text = _json(shape)[1:-1]
    if 0 < len(shape[1]) <= MOST_NAMES:
        between = b",%b," % text
        _known.pop(between, None)
        # Copies, and more than one: other accounts' threads add shapes meanwhile.
        for oldest in [*_known][: 1 - MOST_SHAPES]:
            _known.pop(oldest, None)
        _known[between] = shape
    return text, sha256(text).digest()


_remembered = lru_cache(maxsize=MOST_SHAPES)(_shape_of)


_Shape = tuple[tuple[Kind, ...], tuple[str, ...], tuple[int, ...], tuple[int, ...]]
#: A device's records differ in their times, labels and values alone: the rest, which is
#: most of them, is read once. By the bytes that say it; no text of a record can hold
#: these, since a quote in it has a backslash before it.
_known: dict[bytes, _Shape] = {}


def _parsed(
    content: bytes, *, is_valued: bool
) -> tuple[list[Any], _Shape, Sequence[Any]]:
    """Return what is before a record's shape, the shape, and what is behind it."""
    # A copy: a thread that was given up may still be in here.
    for between, shape in reversed([*_known.items()]):
        at = _found(between, content)
        if at >= 0:
            before, behind = content[:at], content[at + len(between) :]
            has_values = is_valued or not behind.endswith(ENDS_NOTHING)
            last = json.loads(b"[" + behind) if has_values else ((), ())
            return json.loads(before + b"]"), shape, last
    time_ms, sets, given, names, places, metas, values, ended = json.loads(content)
    kinds = tuple((kind, text) for kind, text in given)
    sound = (
        {type(text) for pair in kinds for text in pair} <= {str}
        and set(map(type, names)) <= {str}
        and len(names) == len(places) == len(metas)
        and set(map(type, places)) <= {int}
        and min(places, default=0) >= 0
        and _are_places(metas, kinds)
    )
    if not sound:
        raise ValueError("not a record")
    shape = kinds, tuple(names), tuple(places), tuple(metas)
    _shape_of(shape)
    return [time_ms, sets], shape, [values, ended]


def _found(between: bytes, content: bytes) -> int:
    """Return where that stands, -1 if nowhere.

    A search for all of it would first look for what repeats in it.
    """
    at = content.find(between[:50])
    while at >= 0 and not content.startswith(between, at):
        at = content.find(between[:50], at + 1)
    return at


def _are_places(column: Sequence[int], table: Sized) -> bool:
    return set(map(type, column)) <= {int} and (
        not column or (min(column) >= 0 and max(column) < len(table))
    )


def empty_record(time_ms: int) -> Record:
    """Return a record without any series."""
    return Record(time_ms, (), (), (), (), (), (), ())


def record_of(
    registry: CollectorRegistry, grouping: Mapping[str, str], time_ms: int
) -> Record:
    """Return all samples of `registry` as they are at `time_ms`.

    Labels of `grouping` go to every series and win over a sample's own, as those of a
    Pushgateway's group do. Raises ValueError if a series occurs twice.
    """
    from ecoflow_push.metrics.sheet import sheet_of

    sheet = sheet_of(registry)
    place_of: dict[LabelSet, int] = {}
    frames: list[Frame] = []
    wheres: list[tuple[int, ...]] = []
    values: list[float] = []
    for frame, own in sheet.parts:
        given = [{**sheet.labels, **extra, **grouping} for extra in frame.extras]
        where = [place_of.setdefault(_set(each), len(place_of)) for each in given]
        frames.append(frame)
        wheres.append(tuple(where))
        values += own
    shape = _joined(tuple(frames), tuple(wheres))
    return Record(time_ms, list(place_of), *shape, values, ())


@lru_cache(maxsize=MOST_SHAPES)
def _joined(frames: tuple[Frame, ...], wheres: tuple[tuple[int, ...], ...]) -> _Shape:
    """Return the columns of frames, given which of all label sets theirs are."""
    meta_of: dict[Kind, int] = {}
    names: list[str] = []
    places: list[int] = []
    metas: list[int] = []
    for frame, where in zip(frames, wheres, strict=True):
        kinds = [meta_of.setdefault(kind, len(meta_of)) for kind in frame.kinds]
        names += frame.names
        places += [where[place] for place in frame.places]
        metas += [kinds[meta] for meta in frame.metas]
    if len(set(zip(names, places, strict=True))) < len(names):
        # Labels that differ in what is empty, or in what the group decides.
        raise ValueError("a series occurs twice")
    return tuple(meta_of), tuple(names), tuple(places), tuple(metas)


def _set(labels: Mapping[str, str]) -> LabelSet:
    return tuple(sorted((name, value) for name, value in labels.items() if value))
