"""A remote-write receiver that records, decodes by itself, and can misbehave.

The messages are decoded by the protobuf runtime from a schema that is written here from
the published field tables, so that our encoder is checked by something else than its
own idea of them.
"""

from __future__ import annotations

import ssl
import struct
import time
from collections.abc import Collection
from typing import Any, NamedTuple

import cramjam
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import (
    Answer,
    Fault,
    Handler,
    Received,
    RecordingServer,
)

PATH = "/api/v1/write"
NO_MESSAGE = b"\x10\x3c" + b"\xff" * 9
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
# which is the same on the wire as double and keeps every bit of a NaN. What we never
# send (histograms, exemplars) is left out, so that it is unknown.
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
    unit: str = ""
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
    """One decoded request; `status` is 0 where a fault of the script answered."""

    version: str
    received: Received
    message: bytes
    samples: list[Sample]
    series: int
    symbols: list[str]
    at: float
    status: int = 0

    @property
    def headers(self) -> dict[str, str]:
        return self.received.headers

    @property
    def body(self) -> bytes:
        return self.received.body


def decode(version: str, message: bytes) -> tuple[list[Sample], int, list[str]]:
    """Return samples, the number of series, and the symbols of a message.

    Raises AssertionError for what no sender may send, DecodeError for no message.
    """
    request = MESSAGES[f"V{version}Request"]()
    request.ParseFromString(message)
    _know_all(request)
    samples = []
    symbols = list(request.symbols) if version == "2" else []
    assert version == "1" or symbols[:1] == [""], "the first symbol is not empty"
    assert len(set(symbols)) == len(symbols), "a symbol is there twice"
    for series in request.timeseries:
        assert series.samples, "a series without samples"
        more: tuple[Any, ...] = ()
        if version == "1":
            labels = tuple((label.name, label.value) for label in series.labels)
        else:
            meta, refs = series.metadata, series.labels_refs
            assert refs, "a series without labels"
            assert len(refs) % 2 == 0, "labels are pairs"
            assert max(*refs, meta.help_ref, meta.unit_ref) < len(symbols), "no symbol"
            texts = [symbols[ref] for ref in refs]
            labels = tuple(zip(texts[::2], texts[1::2], strict=True))
            more = (meta.type, symbols[meta.help_ref], symbols[meta.unit_ref])
        for one in series.samples:
            bits = struct.pack("<Q", one.value)
            start = (one.start_timestamp,) if more else ()
            samples.append(Sample(labels, bits, one.timestamp, *more, *start))
    return samples, len(request.timeseries), symbols


def _know_all(message: Message) -> None:
    assert not len(UnknownFieldSet(message)), "an unknown field"
    for field, value in message.ListFields():
        if field.message_type:
            for inner in [value] if isinstance(value, Message) else value:
                _know_all(inner)


class Receiver(RecordingServer):
    """Takes what a Prometheus without an out-of-order window would take.

    `speaks` are the versions that it knows; the others get 415. With `old`, 2.0 gets
    what Prometheus 2.42 and VictoriaMetrics answer: 204, and nothing is stored. With
    `refuses`, 2.0 gets 400. `script` holds what the next requests get instead of a
    healthy answer; None is a healthy one. What the script answers is decoded and kept
    too, but not stored; what a fault of `fail` answers is only in `received`.
    """

    def __init__(
        self,
        *,
        speaks: Collection[str] = "12",
        old: bool = False,
        refuses: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls)
        self.speaks = speaks
        self.old = old
        self.refuses = refuses
        self.script: list[Answer | Fault | None] = []
        self.requests: list[Request] = []
        #: What was sent to prove the address.
        self.proofs: list[Received] = []
        #: What is stored, by labels: milliseconds and bits, oldest first.
        self.stored: dict[tuple[tuple[str, str], ...], list[tuple[int, bytes]]] = {}
        #: Anything that no sender may do.
        self.outrages: list[str] = []

    @property
    def write_url(self) -> str:
        return self.url + PATH

    def next_fault(self, path: str) -> Fault | None:
        """Return what the script says, else what the faults of the base class say.

        What proves the address is refused as any receiver does, and kept elsewhere.
        """
        last = self.received[-1]
        if _is_write(last) and last.body.startswith(NO_MESSAGE):
            self.proofs.append(self.received.pop())
            return faults.status(400, b"proto: illegal tag")
        if self.script and _is_write(self.received[-1]):
            due = self.script.pop(0)
            return None if due is None else self._scripted(due)
        return super().next_fault(path)

    def answer(self, received: Received) -> Answer:
        """Decode, store, and say so."""
        if not _is_write(received):
            return Answer(405 if _path(received) == PATH else 404)
        request = self._decode(received)
        if request is None:
            return Answer(400, b"cannot be decoded")
        with self.lock:
            answer = self._take(request)
            self._keep(request._replace(status=answer.status))
        return answer

    def store_then_lose(self) -> Fault:
        """Return a fault: take the request, then reset the connection."""

        def fault(handler: Handler) -> None:
            self.answer(handler.current)
            faults.reset()(handler)

        return fault

    def _scripted(self, due: Answer | Fault) -> Fault:
        def fault(handler: Handler) -> None:
            status = due.status if isinstance(due, Answer) else 0
            if request := self._decode(handler.current, status):
                with self.lock:
                    self._keep(request)
            if isinstance(due, Answer):
                handler.send(due)
            else:
                due(handler)

        return fault

    def _keep(self, request: Request) -> None:
        # A fault of the script may have asked for the healthy answer as well.
        self.requests[:] = [
            one for one in self.requests if one.received is not request.received
        ]
        self.requests.append(request)

    def _decode(self, received: Received, status: int = 0) -> Request | None:
        headers, body = received.headers, received.body
        try:
            assert headers.get("content-encoding") == "snappy", headers
            version = CONTENT_TYPES.get(headers.get("content-type", ""), "")
            expected = {"1": "0.1.0", "2": "2.0.0"}.get(version)
            assert expected, headers
            assert headers.get("x-prometheus-remote-write-version") == expected, headers
            assert headers.get("user-agent", "").startswith("ecoflow-push/"), headers
            assert not body.startswith(FRAMED), "framed"
            message = bytes(cramjam.snappy.decompress_raw(body))
            samples, series, symbols = decode(version, message)
            assert _is_in_order(samples), "a series goes back in time"
        except (AssertionError, DecodeError, cramjam.DecompressionError) as exc:
            with self.lock:
                self.outrages.append(repr(exc))
            return None
        at = time.monotonic()
        return Request(version, received, message, samples, series, symbols, at, status)

    def _take(self, request: Request) -> Answer:
        if request.version not in self.speaks:
            return Answer(415, b"unsupported proto")
        if request.version == "2" and self.refuses:
            return Answer(400, b"unexpected EOF")
        if request.version == "2" and self.old:
            return Answer(204)
        good = [sample for sample in request.samples if self._is_good(sample)]
        is_bad = len(good) < len(request.samples)
        headers: tuple[tuple[str, str], ...] = ()
        if request.version == "2":
            counts = {"Samples": len(good), "Histograms": 0, "Exemplars": 0}
            headers = tuple((WRITTEN.format(k), str(v)) for k, v in counts.items())
        elif is_bad:
            good = []
        for sample in good:
            held = self.stored.setdefault(_key(sample), [])
            point = (sample.timestamp_ms, sample.bits)
            held += [point] if point not in held[-1:] else []
        return Answer(400 if is_bad else 204, b"out of order" * is_bad, headers)

    def _is_good(self, sample: Sample) -> bool:
        held = self.stored.get(_key(sample), [])
        if not held or sample.timestamp_ms > held[-1][0]:
            return True
        return (sample.timestamp_ms, sample.bits) == held[-1]


def _is_in_order(samples: list[Sample]) -> bool:
    newest: dict[tuple[tuple[str, str], ...], int] = {}
    for sample in samples:
        key = _key(sample)
        if key in newest and sample.timestamp_ms <= newest[key]:
            return False
        newest[key] = sample.timestamp_ms
    return True


def _key(sample: Sample) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(sample.labels))


def _path(received: Received) -> str:
    return received.path.partition("?")[0]


def _is_write(received: Received) -> bool:
    return received.method == "POST" and _path(received) == PATH
