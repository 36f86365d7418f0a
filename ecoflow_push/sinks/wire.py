"""Records to remote-write requests, 1.0 and 2.0, written by hand; pure.

Generated code would cost its import at every start and nine times the time
(protocol/remote-write.md#encoder). The fields, from the published schemas:

    prometheus.WriteRequest           io.prometheus.write.v2.Request
      1 timeseries: TimeSeries          4 symbols: string
                                        5 timeseries: TimeSeries
    TimeSeries                        TimeSeries
      1 labels: Label                   1 labels_refs: packed uint32
      2 samples: Sample                 2 samples: Sample
    Label                               5 metadata: Metadata
      1 name: string                  Metadata
      2 value: string                   1 type: enum
    Sample, in both                     3 help_ref: uint32
      1 value: double
      2 timestamp: int64, milliseconds
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache

from ecoflow_push.metrics.record import LabelSet, Record

NAME = "__name__"
# Not a float on its way here: any arithmetic would turn it into an ordinary NaN.
STALE = struct.pack("<Q", 0x7FF0000000000002)
# What Prometheus writes for a NaN that is a value, whatever bits ours has.
NAN = struct.pack("<Q", 0x7FF8000000000001)
TYPES = {
    "counter": 1,
    "gauge": 2,
    "histogram": 3,
    "gaugehistogram": 4,
    "summary": 5,
    "info": 6,
    "stateset": 7,
}

_double = struct.Struct("<d").pack


def encode_v1(records: Sequence[Record]) -> bytes:
    """Return the prometheus.WriteRequest that holds `records`.

    Of one series they are given oldest first.
    """
    if len(records) > 1:
        sets = [labels for record in records for labels in record.label_sets]
        if len(set(sets)) < len(sets):
            return _encode_several_v1(records)
        # No series is in two of them, and messages that are joined are one.
        return b"".join([encode_v1([record]) for record in records])
    (record,) = records
    tail = b"\x10" + _varint(record.time_ms)
    middle = b"\x12" + _varint(9 + len(tail)) + b"\x09"
    befores: list[tuple[bytes, int]] = []
    afters: list[bytes] = []
    for labels in record.label_sets:
        before, after = _around(labels)
        after += middle
        befores.append((before, len(before) + len(after) + 8 + len(tail)))
        afters.append(after)
    names, places, values = _columns(record)
    # Column by column, which costs half of a loop over the samples.
    out = [tail] * (4 * len(places))
    out[0::4] = _heads(names, places, tuple(befores))
    out[1::4] = [afters[p] for p in places]
    out[2::4] = values
    return b"".join(out)


def _encode_several_v1(records: Sequence[Record]) -> bytes:
    table = _Table(records)
    around = [_around(labels) for labels in table.label_sets]
    out = []
    for (name, place), samples in table.samples.items():
        before, after = around[place]
        series = b"".join((before, _label(NAME, name), after, *samples))
        out.append(b"\x0a" + _varint(len(series)) + series)
    return b"".join(out)


def encode_v2(records: Sequence[Record]) -> bytes:
    """Return the io.prometheus.write.v2.Request that holds `records`, likewise."""
    table = _Table(records)
    symbols = _Symbols(table.label_sets)
    out = []
    for (name, place), samples in table.samples.items():
        kind, text = table.kinds[name, place]
        refs = symbols.labels(name, place)
        metadata = b"\x08" + _varint(TYPES[kind]) if kind in TYPES else b""
        if text:
            metadata += b"\x18" + _varint(symbols.number(text))
        series = b"".join((b"\x0a", _varint(len(refs)), refs, *samples))
        if metadata:
            series += b"\x2a" + _varint(len(metadata)) + metadata
        out.append(b"\x2a" + _varint(len(series)) + series)
    return symbols.message() + b"".join(out)


def split(record: Record, most_samples: int) -> list[Record]:
    """Return `record` in parts of at most so many samples, no series in two."""
    if record.size <= most_samples:
        return [record]
    names, places, metas, values, ended = record[3:]
    count = len(names)
    parts = []
    for begin in range(0, record.size, most_samples):
        own = slice(begin, begin + most_samples)
        behind = slice(max(0, begin - count), max(0, begin + most_samples - count))
        parts.append(
            record._replace(
                names=names[own],
                places=places[own],
                metas=metas[own],
                values=values[own],
                ended=ended[behind],
            )
        )
    return parts


class _Table:
    """The samples of records by series, in the order in which these first occur."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.samples: dict[tuple[str, int], list[bytes]] = {}
        self.kinds: dict[tuple[str, int], tuple[str, str]] = {}
        numbers: dict[LabelSet, int] = {}
        for record in records:
            where = [numbers.setdefault(each, len(numbers)) for each in record[1]]
            tail = b"\x10" + _varint(record.time_ms)
            middle = b"\x12" + _varint(9 + len(tail)) + b"\x09"
            names, places, values = _columns(record)
            keys = [(n, where[p]) for n, p in zip(names, places, strict=True)]
            for key, value in zip(keys, values, strict=True):
                self.samples.setdefault(key, []).append(middle + value + tail)
            # What has ended is of no type any more.
            metas = [record.kinds[n] for n in record.metas]
            self.kinds.update(zip(keys, metas, strict=False))
            for key in keys[len(metas) :]:
                self.kinds.setdefault(key, ("", ""))
        self.label_sets = list(numbers)


class _Symbols:
    """The string table of one message, which starts with the empty string."""

    def __init__(self, label_sets: Sequence[LabelSet]) -> None:
        self._label_sets = label_sets
        self._numbers = {"": 0}
        self._around: dict[int, tuple[bytes, bytes]] = {}

    def number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    def labels(self, name: str, place: int) -> bytes:
        """Return the packed references of one series' labels."""
        labels = self._label_sets[place]
        found = self._around.get(place)
        if found is None:
            # In wire order, so that the table is in the order of its first use.
            before = self._packed(tuple(pair for pair in labels if pair[0] < NAME))
            own = self._packed(((NAME, name),))
            after = self._packed(tuple(pair for pair in labels if pair[0] > NAME))
            self._around[place] = before, after
            return before + own + after
        before, after = found
        return before + self._packed(((NAME, name),)) + after

    def message(self) -> bytes:
        """Return the table's part of the message."""
        texts = (text.encode("utf-8", "replace") for text in self._numbers)
        return b"".join(b"\x22" + _varint(len(text)) + text for text in texts)

    def _packed(self, labels: LabelSet) -> bytes:
        return b"".join(_varint(self.number(text)) for pair in labels for text in pair)


def _columns(
    record: Record,
) -> tuple[tuple[str, ...], tuple[int, ...], list[bytes]]:
    """Return each sample's name, place and value as bytes, the markers last."""
    ended_names = tuple([name for name, _ in record.ended])
    ended_places = tuple([place for _, place in record.ended])
    # Only a NaN differs from itself.
    values = [_double(v) if v == v else NAN for v in record.values]  # noqa: PLR0124
    return (
        record.names + ended_names,
        record.places + ended_places,
        values + [STALE] * len(record.ended),
    )


def _around(labels: LabelSet) -> tuple[bytes, bytes]:
    """Return the labels that stand before and behind a series' name."""
    before = b"".join(_label(*pair) for pair in labels if pair[0] < NAME)
    return before, b"".join(_label(*pair) for pair in labels if pair[0] > NAME)


# Mostly the same for all devices of a model.
@lru_cache(maxsize=16)
def _heads(
    names: tuple[str, ...],
    places: tuple[int, ...],
    befores: tuple[tuple[bytes, int], ...],
) -> list[bytes]:
    """Return how each series begins, its name included.

    `befores` are, of each label set, the labels before the name, and the size of all
    but the name's label.
    """
    heads = []
    for name, place in zip(names, places, strict=True):
        before, size = befores[place]
        label = _label(NAME, name)
        heads.append(b"\x0a" + _varint(size + len(label)) + before + label)
    return heads


# Names and devices' labels come again in every record.
@lru_cache(maxsize=1_024)
def _label(name: str, value: str) -> bytes:
    # Half a surrogate pair may come from a file that somebody else wrote.
    first, second = (text.encode("utf-8", "replace") for text in (name, value))
    size, second_size = _varint(len(first)), _varint(len(second))
    pair = b"\x0a" + size + first + b"\x12" + second_size + second
    return b"\x0a" + _varint(len(pair)) + pair


def _varint(number: int) -> bytes:
    if number < len(_SMALL):
        return _SMALL[number]
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


# Nearly all lengths and references are below this.
_SMALL = [
    bytes((n,)) if n < 0x80 else bytes((n & 0x7F | 0x80, n >> 7)) for n in range(1024)
]

#: How to encode, by the version of the protocol.
ENCODERS: dict[str, Callable[[Sequence[Record]], bytes]] = {
    "1": encode_v1,
    "2": encode_v2,
}
