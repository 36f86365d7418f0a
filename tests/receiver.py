"""A remote-write receiver that records, decodes by itself, and can misbehave.

The messages are decoded by the protobuf runtime from a schema that is written here from
the published field tables, so that our encoder is checked by something else than its
own idea of them.
"""

from __future__ import annotations

import struct
import time
from typing import Any, NamedTuple

import cramjam
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import (
    Answer,
    Fault,
    Handler,
    Received,
    RecordingServer,
)

FRAMED = bytes.fromhex("ff060000734e61507059")
STALE = struct.pack("<Q", 0x7FF0000000000002)
# What Prometheus writes for a NaN that is a value.
NAN_BITS = struct.pack("<Q", 0x7FF8000000000001)
WRITTEN = "X-Prometheus-Remote-Write-{}-Written"
CONTENT_TYPES = {
    "application/x-protobuf": "1",
    "application/x-protobuf;proto=prometheus.WriteRequest": "1",
    "application/x-protobuf;proto=io.prometheus.write.v2.Request": "2",
}
# Message, fields as (name, number, type, repeated). A value is declared as fixed64,
# which is the same on the wire as double and keeps every bit of a NaN.
SCHEMA: dict[str, list[tuple[str, int, str, bool]]] = {
    "V1Request": [("timeseries", 1, "V1Series", True), ("metadata", 3, "V1Meta", True)],
    "V1Series": [("labels", 1, "V1Label", True), ("samples", 2, "V1Sample", True)],
    "V1Label": [("name", 1, "string", False), ("value", 2, "string", False)],
    "V1Sample": [("value", 1, "fixed64", False), ("timestamp", 2, "int64", False)],
    "V1Meta": [
        ("type", 1, "uint32", False),
        ("metric_family_name", 2, "string", False),
        ("help", 4, "string", False),
        ("unit", 5, "string", False),
    ],
    "V2Request": [("symbols", 4, "string", True), ("timeseries", 5, "V2Series", True)],
    "V2Series": [
        ("labels_refs", 1, "uint32", True),
        ("samples", 2, "V2Sample", True),
        ("metadata", 5, "V2Meta", False),
    ],
    "V2Sample": [
        ("value", 1, "fixed64", False),
        ("timestamp", 2, "int64", False),
        ("start_timestamp", 3, "int64", False),
    ],
    "V2Meta": [
        ("type", 1, "uint32", False),
        ("help_ref", 3, "uint32", False),
        ("unit_ref", 4, "uint32", False),
    ],
}


def _messages() -> dict[str, Any]:
    proto = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/remote_write.proto", package="tests", syntax="proto3"
    )
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            label = proto.LABEL_REPEATED if repeated else proto.LABEL_OPTIONAL
            own = kind in SCHEMA
            what = proto.TYPE_MESSAGE if own else getattr(proto, f"TYPE_{kind.upper()}")
            message.field.add(
                name=field,
                number=number,
                type=what,
                label=label,
                type_name=f".tests.{kind}" if own else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"tests.{name}")
        )
        for name in SCHEMA
    }


MESSAGES = _messages()


class Sample(NamedTuple):
    """One sample; labels in wire order, with `__name__` among them."""

    labels: tuple[tuple[str, str], ...]
    bits: bytes
    timestamp_ms: int
    type: int = 0
    help: str = ""
    start_timestamp: int = 0

    @property
    def name(self) -> str:
        return self.label("__name__")

    @property
    def value(self) -> float:
        return float(struct.unpack("<d", self.bits)[0])

    @property
    def is_stale(self) -> bool:
        return self.bits == STALE

    def label(self, name: str) -> str:
        return dict(self.labels).get(name, "")


class Request(NamedTuple):
    """One decoded request."""

    version: str
    headers: dict[str, str]
    message: bytes
    samples: list[Sample]
    series: int
    symbols: list[str]
    at: float


def decode(version: str, message: bytes) -> tuple[list[Sample], int, list[str]]:
    """Return samples, the number of series, and the symbols of a message.

    Raises AssertionError for what no sender may send, DecodeError for no message.
    """
    request = MESSAGES[f"V{version}Request"]()
    request.ParseFromString(message)
    _know_all(request)
    samples = []
    symbols = list(request.symbols) if version == "2" else []
    assert version == "1" or symbols[0] == ""
    assert len(set(symbols)) == len(symbols)
    for series in request.timeseries:
        if version == "1":
            labels = tuple((label.name, label.value) for label in series.labels)
            extra: tuple[Any, ...] = ()
        else:
            assert len(series.labels_refs) % 2 == 0
            texts = [symbols[ref] for ref in series.labels_refs]
            labels = tuple(zip(texts[::2], texts[1::2], strict=True))
            extra = (series.metadata.type, symbols[series.metadata.help_ref])
        assert series.samples
        for one in series.samples:
            bits = struct.pack("<Q", one.value)
            start = one.start_timestamp if version == "2" else 0
            more = (*extra, start) if extra else ()
            samples.append(Sample(labels, bits, one.timestamp, *more))
    return samples, len(request.timeseries), symbols


def _know_all(message: Any) -> None:
    assert not len(UnknownFieldSet(message))
    for field, value in message.ListFields():
        if field.message_type:
            for inner in value if field.is_repeated else [value]:
                _know_all(inner)


class Receiver(RecordingServer):
    """Takes what a Prometheus without an out-of-order window would take.

    `speaks` are the versions that it knows; the others get 415. With `old`, 2.0 gets
    what Prometheus 2.42 and VictoriaMetrics answer: 204, and nothing is stored. With
    `refuses`, 2.0 gets 400. `script` holds what the next requests get instead of a
    healthy answer; None is a healthy one.
    """

    def __init__(
        self, *, speaks: str = "12", old: bool = False, refuses: bool = False
    ) -> None:
        super().__init__()
        self.speaks = speaks
        self.old = old
        self.refuses = refuses
        self.script: list[Answer | Fault | None] = []
        self.requests: list[Request] = []
        #: What is stored, by labels: milliseconds and bits, oldest first.
        self.stored: dict[tuple[tuple[str, str], ...], list[tuple[int, bytes]]] = {}
        #: Anything that no sender may do.
        self.outrages: list[str] = []

    @property
    def write_url(self) -> str:
        return f"{self.url}/api/v1/write"

    def next_fault(self, path: str) -> Fault | None:
        """Return what the script says, else what the faults of the base class say."""
        if self.received[-1].method == "POST" and self.script:
            due = self.script.pop(0)
            if isinstance(due, Answer):
                answer = due

                def fault(handler: Handler) -> None:
                    self.answer(handler.current, keep=False)
                    handler.send(answer)

                return fault
            return due
        return super().next_fault(path)

    def answer(self, received: Received, *, keep: bool = True) -> Answer:
        """Decode, store, and say so; with `keep` false only decode."""
        if received.method != "POST":
            return Answer(405)
        try:
            request = self._decode(received)
        except (AssertionError, DecodeError, cramjam.DecompressionError) as exc:
            with self.lock:
                self.outrages.append(repr(exc))
            return Answer(400, b"cannot be decoded")
        with self.lock:
            self.requests.append(request)
            return self._take(request) if keep else Answer(500)

    def store_then_lose(self) -> Fault:
        """Return a fault: take the request, then reset the connection."""

        def fault(handler: Handler) -> None:
            self.answer(handler.current)
            faults.reset()(handler)

        return fault

    def _decode(self, received: Received) -> Request:
        headers, body = received.headers, received.body
        assert headers["content-encoding"] == "snappy"
        version = CONTENT_TYPES[headers["content-type"]]
        expected = {"1": "0.1.0", "2": "2.0.0"}[version]
        assert headers["x-prometheus-remote-write-version"] == expected
        assert headers["user-agent"].startswith("ecoflow-push/")
        assert not body.startswith(FRAMED)
        message = bytes(cramjam.snappy.decompress_raw(body))
        samples, series, symbols = decode(version, message)
        return Request(
            version, headers, message, samples, series, symbols, time.monotonic()
        )

    def _take(self, request: Request) -> Answer:
        if request.version not in self.speaks:
            return Answer(415, b"unsupported proto")
        if request.version == "2" and self.refuses:
            return Answer(400, b"unexpected EOF")
        if request.version == "2" and self.old:
            return Answer(204)
        bad = [sample for sample in request.samples if not self._is_good(sample)]
        good = [] if bad and request.version == "1" else request.samples
        for sample in good:
            if sample not in bad:
                held = self.stored.setdefault(tuple(sorted(sample.labels)), [])
                point = (sample.timestamp_ms, sample.bits)
                held += [point] if point not in held[-1:] else []
        headers: tuple[tuple[str, str], ...] = ()
        if request.version == "2":
            counts = {"Samples": len(request.samples) - len(bad)}
            counts |= {"Histograms": 0, "Exemplars": 0}
            headers = tuple((WRITTEN.format(k), str(v)) for k, v in counts.items())
        return Answer(400 if bad else 204, b"out of order sample" * bool(bad), headers)

    def _is_good(self, sample: Sample) -> bool:
        held = self.stored.get(tuple(sorted(sample.labels)), [])
        if not held or sample.timestamp_ms > held[-1][0]:
            return True
        return (sample.timestamp_ms, sample.bits) == held[-1]
