"""Records to remote-write requests, 1.0 and 2.0, written by hand; pure.

Generated code would cost its import at every start and nine times the time
(performance.md 4). The fields, from the published schemas:

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
from collections.abc import Callable, Iterator
from functools import lru_cache

from ecoflow_push.sinks.record import LabelSet, Record

NAME = "__name__"
# What Prometheus itself sends at most in one request.
MOST_SAMPLES = 2000
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


def encode_v1(record: Record, most_samples: int = MOST_SAMPLES) -> Iterator[bytes]:
    """Yield the messages of prometheus.WriteRequest that hold `record`."""
    tail = b"\x10" + _varint(record.time_ms)
    middle = b"\x12" + _varint(9 + len(tail)) + b"\x09"
    around = []
    for labels in record.label_sets:
        before = b"".join(_label(*pair) for pair in labels if pair[0] < NAME)
        after = b"".join(_label(*pair) for pair in labels if pair[0] > NAME) + middle
        around.append((before, after, len(before) + len(after) + 8 + len(tail)))
    out: list[bytes] = []
    for name, places, values in _series(record):
        label = _name_label(name)
        size = len(label)
        for place, value in zip(places, values, strict=True):
            before, after, rest = around[place]
            out += (b"\x0a", _varint(size + rest), before, label, after, value, tail)
            if len(out) == 7 * most_samples:
                yield b"".join(out)
                out.clear()
    if out:
        yield b"".join(out)


def encode_v2(record: Record, most_samples: int = MOST_SAMPLES) -> Iterator[bytes]:
    """Yield the messages of io.prometheus.write.v2.Request that hold `record`."""
    tail = b"\x10" + _varint(record.time_ms)
    middle = b"\x12" + _varint(9 + len(tail)) + b"\x09"
    meta = {f.name: (TYPES.get(f.type, 0), f.help) for f in record.families}
    symbols = _Symbols(record)
    out: list[bytes] = []
    for name, places, values in _series(record):
        kind, text = meta.get(name, (0, ""))
        for place, value in zip(places, values, strict=True):
            refs = symbols.labels(name, place)
            metadata = b"\x08" + _varint(kind) if kind else b""
            if text:
                metadata += b"\x18" + _varint(symbols.number(text))
            series = b"\x0a%b%b%b%b%b" % (_varint(len(refs)), refs, middle, value, tail)
            if metadata:
                series += b"\x2a" + _varint(len(metadata)) + metadata
            out.append(b"\x2a" + _varint(len(series)) + series)
            if len(out) == most_samples:
                yield symbols.message() + b"".join(out)
                symbols = _Symbols(record)
                out.clear()
    if out:
        yield symbols.message() + b"".join(out)


class _Symbols:
    """The string table of one message, which starts with the empty string."""

    def __init__(self, record: Record) -> None:
        self._label_sets = record.label_sets
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


def _series(record: Record) -> Iterator[tuple[str, list[int], list[bytes]]]:
    """Yield each name with its places and their values' bytes, the markers last."""
    for name, _, _, places, values in record.families:
        # Only a NaN differs from itself.
        yield name, places, [_double(v) if v == v else NAN for v in values]  # noqa: PLR0124
    for name, place in record.ended:
        yield name, [place], [STALE]


@lru_cache(maxsize=16_384)
def _name_label(name: str) -> bytes:
    return _label(NAME, name)


def _label(name: str, value: str) -> bytes:
    first, second = name.encode(), value.encode("utf-8", "replace")
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
ENCODERS: dict[str, Callable[[Record], Iterator[bytes]]] = {
    "1": encode_v1,
    "2": encode_v2,
}
