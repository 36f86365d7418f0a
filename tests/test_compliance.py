"""The cases of the sender compliance suites, asserted strictly.

The suites (prometheus/compliance) scrape a target and look at what arrives; here the
target's metrics are a registry, two scrapes are two runs, and what a suite lets pass is
held to what the specification says. docs/compliance.md is this table.
"""

from __future__ import annotations

import math
import random
import re
import struct
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from prometheus_client.core import Exemplar, Metric
from prometheus_client.parser import text_string_to_metric_families

from ecoflow_push.errors import SinkError, SinkRejected
from ecoflow_push.metrics.record import record_of
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedDevice
from ecoflow_push.simulator.server import Answer
from ecoflow_push.sinks.remote_write import RemoteWriteSink
from tests.conftest import DELTA
from tests.receiver import FRAMED, NAN_BITS, Receiver, Request, Sample
from tests.support import Run, push
from tests.test_docs import table_rows
from tests.test_wire import registry

WRITTEN = "X-Prometheus-Remote-Write-Samples-Written"
HISTOGRAM = (
    "# HELP t_seconds How long it took.\n# TYPE t_seconds histogram\n"
    't_seconds_bucket{le="1"} 40\nt_seconds_bucket{le="2"} 90\n'
    't_seconds_bucket{le="+Inf"} 100\nt_seconds_sum 250.5\nt_seconds_count 100\n'
)
SUMMARY = (
    "# HELP s How much.\n# TYPE s summary\n"
    's{quantile="0.5"} 1\ns{quantile="0.9"} 2\ns_sum 12.5\ns_count 9\n'
)
COUNTER = "# HELP c_total How many.\n# TYPE c_total counter\nc_total 7\n"
GAUGE = "# HELP g How warm.\n# TYPE g gauge\ng 21.5\n"
MIXED = COUNTER + GAUGE + HISTOGRAM + SUMMARY


class Bench:
    """What a case works with: a receiver, the sink before it, and whole runs."""

    def __init__(self, receiver: Receiver, environ: dict[str, str], cloud) -> None:
        self.receiver = receiver
        self.environ = environ
        self.cloud = cloud

    def sink(self, version: str, *, attempts: int = 2) -> RemoteWriteSink:
        return RemoteWriteSink(
            self.receiver.write_url, version=version, attempts=attempts, longest_wait=2
        )

    def send(
        self, given: str | Metric, version: str = "1", **options: int
    ) -> list[Request]:
        """Send what is given as one snapshot; return the requests that arrived."""
        metrics = (
            text_string_to_metric_families(given) if isinstance(given, str) else [given]
        )
        grouping = {"job": "test", "instance": "here"}
        record = record_of(registry(*metrics), grouping, round(time.time() * 1000))
        self.receiver.requests.clear()
        sink = self.sink(version, **options)
        try:
            sink.write(record, Deadline(10))
        finally:
            sink.close()
        return self.receiver.requests[:]

    def both(self, given: str | Metric) -> Iterator[list[Sample]]:
        """Send it with either version; yield what arrived, each in one request."""
        for version in "12":
            (request,) = self.send(given, version)
            assert request.version == version
            yield request.samples

    def run(self, **settings: str) -> Run:
        """Do a whole run of push.py that writes to the receiver."""
        return push({**self.environ, **settings})

    def soc(self) -> list[list[tuple[int, float]]]:
        """Return the stored points of each series called ecoflow_pd_soc."""
        return [
            [(at, struct.unpack("<d", bits)[0]) for at, bits in points]
            for labels, points in self.receiver.stored.items()
            if dict(labels)["__name__"] == "ecoflow_pd_soc"
        ]


class Case(NamedTuple):
    """What is asserted, as the document says it, and how."""

    says: str
    check: Callable[[Bench], None]


CASES: dict[str, Case] = {}


def case(*names: str, says: str):
    """Make a function the check of these cases."""

    def register(check: Callable[[Bench], None]) -> Callable[[Bench], None]:
        for name in names:
            assert name not in CASES
            CASES[name] = Case(says, check)
        return check

    return register


def named(samples: list[Sample], name: str) -> list[Sample]:
    return [sample for sample in samples if sample.name == name]


def only(samples: list[Sample], name: str) -> Sample:
    (sample,) = named(samples, name)
    return sample


@pytest.fixture
def bench(cloud, tmp_path):
    with Receiver() as receiver:
        environ = {
            **cloud.environ(),
            "REMOTE_WRITE_URL": receiver.write_url,
            "STATE_DIR": str(tmp_path),
            "PUSH_INSTANCE": "test",
            "ESTABLISH_ATTEMPTS": "2",
            "RETRY_TIMEOUT": "0.05",
        }
        yield Bench(receiver, environ, cloud)
        assert receiver.outrages == []


# -- the first suite, remote-write 1.0 ----------------------------------------------


@case("first/Counter", says="the value arrives bit for bit")
def _(bench):
    (request,) = bench.send(COUNTER)
    assert only(request.samples, "c_total").value == 7


@case("first/Gauge", says="the value arrives bit for bit, at the snapshot's own time")
def _(bench):
    (request,) = bench.send(GAUGE)
    sample = only(request.samples, "g")
    assert sample.value == 21.5
    assert abs(sample.timestamp_ms / 1000 - time.time()) < 5


@case("first/Histogram", says="buckets, sum and count, each once, exact")
def _(bench):
    (request,) = bench.send(HISTOGRAM)
    buckets = named(request.samples, "t_seconds_bucket")
    assert [(b.label("le"), b.value) for b in buckets] == [
        ("1", 40),
        ("2", 90),
        ("+Inf", 100),
    ]
    assert only(request.samples, "t_seconds_sum").value == 250.5
    assert only(request.samples, "t_seconds_count").value == 100


@case("first/Summary", says="quantiles, sum and count, each once, exact")
def _(bench):
    (request,) = bench.send(SUMMARY)
    quantiles = [(s.label("quantile"), s.value) for s in named(request.samples, "s")]
    assert quantiles == [("0.5", 1), ("0.9", 2)]
    assert only(request.samples, "s_sum").value == 12.5
    assert only(request.samples, "s_count").value == 9


@case(
    "first/Up", says="`ecoflow_online` is 1 and the run's `ecoflow_push_success` is 1"
)
def _(bench):
    assert bench.run().status == 0
    samples = [s for request in bench.receiver.requests for s in request.samples]
    assert only(samples, "ecoflow_online").value == 1
    assert only(samples, "ecoflow_push_success").value == 1


@case(
    "first/Invalid", says="a device that cannot be read: success is 0, the rest is sent"
)
def _(bench):
    bench.cloud.devices.append(SimulatedDevice("R331ZFAKE0000009", {"pd.soc": 1}))
    bench.cloud.fail("quota/all?sn=R331ZFAKE0000009", faults.page())
    assert bench.run().status == 1
    samples = [s for request in bench.receiver.requests for s in request.samples]
    assert only(samples, "ecoflow_push_success").value == 0
    assert only(samples, "ecoflow_pd_soc").value == 87


@case("first/JobLabel", says="`job` is PUSH_JOB on every series")
def _(bench):
    assert bench.run(PUSH_JOB="home").status == 0
    devices, run = bench.receiver.requests
    assert {s.label("job") for s in devices.samples} == {"home"}
    assert {s.label("job") for s in run.samples} == {"home_push"}


@case("first/InstanceLabel", says="`instance` is PUSH_INSTANCE on the run's own series")
def _(bench):
    assert bench.run(PUSH_INSTANCE="pi").status == 0
    _, run = bench.receiver.requests
    assert {s.label("instance") for s in run.samples} == {"pi"}


@case(
    "first/SortedLabels",
    says="given as b, a, Z: sent as Z, __name__, a, b, instance, job",
)
def _(bench):
    for samples in bench.both('g{b="2",a="1",Z="3"} 1\n'):
        names = [name for name, _ in only(samples, "g").labels]
        assert names == ["Z", "__name__", "a", "b", "instance", "job"]


@case(
    "first/RepeatedLabels",
    says="EXTRA_LABELS with a label of ours is a fault; nothing is sent",
)
def _(bench):
    for label in ("job", "device", "__name__"):
        assert bench.run(EXTRA_LABELS=f"{label}=x").status == 78
    assert bench.receiver.received == []


@case("first/EmptyLabels", says="the empty label is left out, the series stays")
def _(bench):
    for samples in bench.both('g{a="",b="x"} 1\n'):
        assert dict(only(samples, "g").labels).keys() == {
            "__name__",
            "b",
            "instance",
            "job",
        }


@case("first/NameLabel", says="no series without `__name__`, with either version")
def _(bench):
    for samples in bench.both(MIXED):
        assert all(sample.name for sample in samples)


@case(
    "first/HonorLabels",
    says="a sample's own `job` gives way to PUSH_JOB, as on a Pushgateway",
)
def _(bench):
    for samples in bench.both('g{job="own",instance="own",x="y"} 1\n'):
        assert only(samples, "g").label("job") == "test"
        assert only(samples, "g").label("x") == "y"


@case(
    "first/Staleness",
    says="a series that is gone in the next run gets one marker, 7ff0000000000002",
)
def _(bench):
    assert bench.run().status == 0
    bench.cloud.devices[:] = [SimulatedDevice(DELTA.sn, {"x": 1}, "Garage", "DELTA 2")]
    assert bench.run().status == 0
    assert bench.run().status == 0
    points = next(
        points
        for labels, points in bench.receiver.stored.items()
        if dict(labels)["__name__"] == "ecoflow_pd_soc"
    )
    assert [bits.hex() for _, bits in points] == [
        struct.pack("<d", 87).hex(),
        "020000000000f07f",
    ]


@case("first/Timestamp", says="between start and end of the run; grows from run to run")
def _(bench):
    bounds = [time.time() * 1000]
    for _ in range(2):
        assert bench.run().status == 0
        bounds.append(time.time() * 1000)
    ((first, _), (second, _)) = bench.soc()[0]
    assert bounds[0] - 1 <= first <= bounds[1] <= second + 1 <= bounds[2] + 1
    assert first < second


@case("first/Headers", says="exactly `snappy`, `application/x-protobuf`, `0.1.0`")
def _(bench):
    (request,) = bench.send(GAUGE)
    assert request.headers["content-encoding"] == "snappy"
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers["x-prometheus-remote-write-version"] == "0.1.0"


@case(
    "first/Ordering",
    says="300 series, 4 snapshots, late answers: oldest first, none interleaved",
)
def _(bench):
    chance = random.Random(5)
    quotas = {f"k{n}": n for n in range(300)}
    bench.cloud.devices[:] = [SimulatedDevice(DELTA.sn, quotas)]
    bench.receiver.fail("", faults.status(503))
    for _ in range(3):
        assert bench.run().status == 75
    bench.receiver.heal()

    def late(handler):
        time.sleep(chance.uniform(0, 0.2))
        handler.send(bench.receiver.answer(handler.current))

    bench.receiver.script = [late] * 4
    assert bench.run().status == 0
    times = [r.samples[0].timestamp_ms for r in bench.receiver.requests[:4]]
    assert times == sorted(set(times))
    assert all(len(points) in (1, 4) for points in bench.receiver.stored.values())


@case(
    "first/Retries500",
    says="the same bytes arrive again after a 500, and are stored once",
)
def _(bench):
    bench.receiver.script = [Answer(500)]
    first, second = bench.send(GAUGE)
    assert first.message == second.message
    assert all(len(points) == 1 for points in bench.receiver.stored.values())


@case(
    "first/Retries400",
    says="after a 400 that snapshot never arrives again, neither from the spool",
)
def _(bench):
    bench.receiver.script = [Answer(400)]
    assert bench.run().status == 76
    refused = bench.receiver.requests[0].samples[0].timestamp_ms
    assert bench.run().status == 0
    later = [r.samples[0].timestamp_ms for r in bench.receiver.requests[1:]]
    assert refused not in later


# -- main: protocol -----------------------------------------------------------------


def header(name: str, values: tuple[str, str]) -> Callable[[Bench], None]:
    def check(bench: Bench) -> None:
        for version, value in zip("12", values, strict=True):
            (request,) = bench.send(GAUGE, version)
            assert re.fullmatch(value, request.headers[name])

    return check


V2 = r"application/x-protobuf;proto=io\.prometheus\.write\.v2\.Request"
PB = "application/x-protobuf"
SNAPPY = ("snappy", "snappy")
AGENT = (r"ecoflow-push/\d+\.\d+\.\d+",) * 2
VERSION_HEADER = "x-prometheus-remote-write-version"
HEADER_CASES = {
    "content_type_protobuf": (
        "content-type",
        (PB, V2),
        "the type of its version, exactly",
    ),
    "content_type_with_proto_param": (
        "content-type",
        (PB, V2),
        "2.0 names its message, 1.0 none",
    ),
    "content_encoding_snappy": ("content-encoding", SNAPPY, "exactly `snappy`"),
    "version_header_present": (
        VERSION_HEADER,
        (".+", ".+"),
        "present with either version",
    ),
    "version_header_value": (
        VERSION_HEADER,
        (r"0\.1\.0", r"2\.0\.0"),
        "`0.1.0` or `2.0.0`",
    ),
    "user_agent_present": ("user-agent", AGENT, "`ecoflow-push/` and the version"),
}
for _name, (_header, _values, _says) in HEADER_CASES.items():
    case(f"protocol/{_name}", says=_says)(header(_header, _values))


@case("protocol/snappy_block_format", says="a block, never the framed format")
def _(bench):
    for version in "12":
        bench.send(GAUGE, version)
    assert not any(r.body.startswith(FRAMED) for r in bench.receiver.received)


@case(
    "protocol/protobuf_parseable",
    says="the protobuf runtime parses it and knows every field",
)
def _(bench):
    for samples in bench.both(MIXED):
        assert len(samples) == 11


@case("protocol/HTTPMethod", says="POST")
def _(bench):
    bench.send(GAUGE)
    assert {r.method for r in bench.receiver.received} == {"POST"}


# -- main: samples ------------------------------------------------------------------

VALUES = {
    "float_value_encoding": ("123.45", 123.45),
    "integer_value_encoding": ("42", 42.0),
    "zero_value_encoding": ("0", 0.0),
    "negative_value_encoding": ("-15.5", -15.5),
    "positive_infinity_encoding": ("+Inf", math.inf),
    "negative_infinity_encoding": ("-Inf", -math.inf),
    "nan_encoding": ("NaN", None),
    "large_float_values": ("1.7976931348623157e+308", 1.7976931348623157e308),
    "small_float_values": ("2.2250738585072014e-308", 2.2250738585072014e-308),
    "scientific_notation": ("1.23e-4", 0.000123),
    "precision_preservation": ("0.123456789012345", 0.123456789012345),
}


def value(text: str, expected: float | None) -> Callable[[Bench], None]:
    bits = NAN_BITS if expected is None else struct.pack("<d", expected)

    def check(bench: Bench) -> None:
        for samples in bench.both(f"g {text}\n"):
            assert only(samples, "g").bits == bits

    return check


for _name, (_text, _value) in VALUES.items():
    _says = "an ordinary NaN, 7ff8000000000001" if _value is None else "bit for bit"
    case(f"samples/{_name}", f"new/encoding_cases {_name}", says=_says)(
        value(_text, _value)
    )


def milliseconds(bench: Bench) -> None:
    for samples in bench.both(MIXED):
        (at,) = {sample.timestamp_ms for sample in samples}
        assert abs(at - time.time() * 1000) < 5000


case(
    "samples/timestamp_milliseconds_format",
    "samples/timestamp_recent",
    "timestamps/timestamp_int64_milliseconds",
    "timestamps/timestamp_precision",
    "timestamps/timestamp_future_values",
    "new/samples timestamp",
    says="milliseconds, within 5 s of now, the same for the whole snapshot",
)(milliseconds)


@case(
    "samples/multiple_samples_same_series",
    "samples/SampleOrdering",
    "timestamps/timestamp_ordering_within_series",
    "new/samples sorted",
    says="one sample a request; over three runs the times of a series grow strictly",
)
def _(bench):
    for _ in range(3):
        assert bench.run().status == 0
    for request in bench.receiver.requests:
        assert len(request.samples) == request.series
    (points,) = bench.soc()
    times = [at for at, _ in points]
    assert times == sorted(set(times))
    assert len(times) == 3


@case(
    "samples/job_instance_labels_present",
    says="both on every series of a snapshot with them",
)
def _(bench):
    for samples in bench.both(MIXED):
        assert {(s.label("job"), s.label("instance")) for s in samples} == {
            ("test", "here")
        }


# -- main: labels -------------------------------------------------------------------


def well_formed(bench: Bench) -> None:
    text = 'a_b:c{Zone="z",_x="1",a1="v"} 1\n' + MIXED
    for samples in bench.both(text):
        for sample in samples:
            names = [name for name, _ in sample.labels]
            assert names == sorted(set(names))
            assert all(re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name) for name in names)
            assert all(text for _, text in sample.labels)
            assert re.fullmatch("[a-zA-Z_:][a-zA-Z0-9_:]*", sample.name)
            assert [n for n in names if n.startswith("__")] == ["__name__"]


case(
    "labels/label_lexicographic_ordering",
    "labels/metric_name_label_present",
    "labels/metric_name_format_valid",
    "labels/label_name_format_valid",
    "labels/no_duplicate_label_names",
    "labels/label_names_not_empty",
    "labels/label_values_may_be_empty",
    "labels/reserved_label_prefix",
    says="names valid, sorted, none twice, no value empty, none other with `__`",
)(well_formed)

TEXTS = {
    "labels/unicode_in_label_values": {"emoji": "🚀", "chinese": "测试"},
    "edge_cases/unicode_in_labels": {"arabic": "مرحبا", "vietnamese": "tôi yêu"},
    "labels/special_chars_in_label_values": {"path": '/a?b=c&d="e"\\\n'},
    "labels/very_long_label_names": {"x" * 200: "v"},
    "labels/very_long_label_values": {"text": "long " * 100},
    "edge_cases/huge_label_values": {"text": "x" * 10_000},
    "labels/many_labels_per_series": {f"l{n}": f"v{n}" for n in range(30)},
}


def texts(labels: dict[str, str]) -> Callable[[Bench], None]:
    def check(bench: Bench) -> None:
        metric = Metric("g", "h", "gauge")
        metric.add_sample("g", labels, 1)
        for samples in bench.both(metric):
            found = dict(only(samples, "g").labels)
            assert found.items() >= labels.items()
            assert len(found) == len(labels) + 3

    return check


for _name, _labels in TEXTS.items():
    case(_name, says="every letter arrives")(texts(_labels))


# -- main: symbols ------------------------------------------------------------------


@case(
    "symbols/empty_string_at_index_zero",
    "symbols/string_deduplication",
    "symbols/labels_refs_valid_indices",
    "symbols/labels_refs_even_length",
    "batching/efficient_symbol_reuse",
    says="the empty string first, each string once, references inside, in pairs",
)
def _(bench):
    # The receiver's decoder refuses what is not so.
    (request,) = bench.send(MIXED, "2")
    assert request.symbols[0] == ""
    assert len(request.symbols) == len(set(request.symbols))
    assert bench.receiver.outrages == []


@case(
    "symbols/SymbolTableEfficiency",
    "combined/high_cardinality_labels",
    "batching/handles_varying_cardinality",
    says="8 series of 5 labels: as many symbols as there are different strings",
)
def _(bench):
    lines = [f'r{{m="{n % 2}",p="{n}",s="ok"}} {n}\n' for n in range(8)]
    (request,) = bench.send("".join(lines), "2")
    strings = {text for s in request.samples for pair in s.labels for text in pair}
    assert set(request.symbols) == strings | {""}


# -- main: timestamps ---------------------------------------------------------------


@case(
    "timestamps/start_timestamp_for_counters",
    "timestamps/start_timestamp_for_histograms",
    "timestamps/start_timestamp_zero_handling",
    "timestamps/start_timestamp_before_sample_timestamp",
    "new/samples start_timestamp for counters",
    "new/samples start_timestamp for histograms",
    says="unset: a quota has no known start (optional in the specification)",
)
def _(bench):
    (request,) = bench.send(COUNTER + HISTOGRAM, "2")
    assert {sample.start_timestamp for sample in request.samples} == {0}


# -- main: metadata, histograms, combined -------------------------------------------

KINDS = {"counter": ("c_total", 1), "gauge": ("g", 2)}
KINDS |= {"histogram": ("t_seconds_bucket", 3), "summary": ("s", 5)}


def kind(name: str, number: int) -> Callable[[Bench], None]:
    def check(bench: Bench) -> None:
        (request,) = bench.send(MIXED, "2")
        assert {sample.type for sample in named(request.samples, name)} == {number}

    return check


for _name, (_metric, _number) in KINDS.items():
    case(
        f"metadata/metadata_type_{_name}", says=f"type {_number} on each of its series"
    )(kind(_metric, _number))


@case("metadata/metadata_help_text", says="the HELP text, whole")
def _(bench):
    (request,) = bench.send(MIXED, "2")
    assert only(request.samples, "c_total").help == "How many."


@case(
    "metadata/metadata_unit",
    says="not sent: our metrics have their unit in the name (optional)",
)
def _(bench):
    (request,) = bench.send(MIXED, "2")
    assert len(request.samples) == 11


@case(
    "metadata/metadata_help_with_newlines",
    "metadata/metadata_help_with_special_chars",
    says="quotes, backslashes and newlines arrive as they are",
)
def _(bench):
    metric = Metric("g", 'A "quota"\\\nin two lines. 🚀', "gauge")
    metric.add_sample("g", {}, 1)
    (request,) = bench.send(metric, "2")
    assert only(request.samples, "g").help == metric.documentation


@case(
    "metadata/metadata_help_refs_valid",
    "metadata/metadata_consistent_across_series",
    "combined/samples_with_metadata",
    "combined/mixed_labels_and_metadata",
    "batching/metadata_batching",
    says="all series of a family have the same type and text",
)
def _(bench):
    lines = [f'c_total{{m="{n}",r="eu"}} {n}\n' for n in range(3)]
    (request,) = bench.send(COUNTER.replace("c_total 7\n", "".join(lines)), "2")
    found = named(request.samples, "c_total")
    assert {(s.type, s.help) for s in found} == {(1, "How many.")}
    assert [s.value for s in found] == [0, 1, 2]


@case("metadata/metadata_empty_help_allowed", says="without HELP the reference is 0")
def _(bench):
    (request,) = bench.send("# TYPE g gauge\ng 1\n", "2")
    assert only(request.samples, "g").help == ""


def classic(bench: Bench) -> None:
    for samples in bench.both(HISTOGRAM):
        assert [(s.name, s.label("le"), s.value) for s in samples] == [
            ("t_seconds_bucket", "1", 40),
            ("t_seconds_bucket", "2", 90),
            ("t_seconds_bucket", "+Inf", 100),
            ("t_seconds_sum", "", 250.5),
            ("t_seconds_count", "", 100),
        ]
        assert len({s.timestamp_ms for s in samples}) == 1


case(
    "histograms/native_histogram_structure",
    "histograms/histogram_count_present",
    "histograms/histogram_sum_present",
    "histograms/histogram_buckets_ordered",
    "histograms/histogram_timestamp",
    "histograms/histogram_no_mixed_with_samples",
    "combined/complete_metric_family",
    "rw1_compat/rw1_no_native_histograms",
    says="as a classic one: buckets in order, sum and count, one time",
)(classic)
case(
    "histograms/histogram_positive_buckets",
    "histograms/histogram_negative_buckets",
    "histograms/histogram_zero_bucket",
    "histograms/histogram_schema",
    says="not sent: no native histograms; the classic one arrives whole",
)(classic)


def counts(count: float, total: float) -> Callable[[Bench], None]:
    def check(bench: Bench) -> None:
        text = HISTOGRAM.replace("100", str(count)).replace("250.5", str(total))
        for samples in bench.both(text):
            assert only(samples, "t_seconds_count").value == count
            assert only(samples, "t_seconds_sum").value == total

    return check


case("histograms/histogram_empty_buckets", says="0 and 0 arrive")(counts(0, 0))
case("histograms/histogram_large_counts", says="bit for bit")(counts(10**9, 5e9))


@case(
    "combined/multiple_metric_types",
    "combined/real_world_scenario",
    "edge_cases/mixed_sample_and_histogram_families",
    "batching/multiple_series_per_request",
    says="counter, gauge, histogram and summary in one request, all 11 series",
)
def _(bench):
    for samples in bench.both(MIXED):
        assert len({s.labels for s in samples}) == len(samples) == 11


@case(
    "exemplars/exemplar_with_trace_id",
    "exemplars/exemplar_with_span_id",
    "exemplars/exemplar_value_valid",
    "exemplars/exemplar_timestamp_valid",
    "exemplars/exemplar_labels_valid_refs",
    "exemplars/exemplar_custom_labels",
    "exemplars/exemplar_on_histogram",
    "exemplars/exemplar_labels_even_length",
    "exemplars/multiple_exemplars_per_series",
    "combined/samples_with_exemplars",
    "combined/histogram_with_metadata_and_exemplars",
    says="not sent (optional); its sample arrives",
)
def _(bench):
    metric = Metric("t_seconds", "h", "histogram")
    exemplar = Exemplar({"trace_id": "abc", "span_id": "d"}, 0.5, 1234567890.0)
    metric.add_sample("t_seconds_bucket", {"le": "1"}, 5, exemplar=exemplar)
    for samples in bench.both(metric):
        # The receiver's decoder knows no such field, and refuses what it does not know.
        assert only(samples, "t_seconds_bucket").value == 5


# -- main: batching, edge cases -----------------------------------------------------


@case(
    "batching/batch_size_reasonable",
    says="12,000 series: 6 requests of 2,000, no series in two",
)
def _(bench):
    text = "".join(f'g{{n="{n}"}} {n}\n' for n in range(12_000))
    for version in "12":
        requests = bench.send(text, version)
        assert [len(r.samples) for r in requests] == [2000] * 6
        assert len({s.labels for r in requests for s in r.samples}) == 12_000


@case(
    "batching/ConcurrentRequests", says="none: one request at a time, on one connection"
)
def _(bench):
    busy = []

    def slow(handler):
        busy.append(1)
        time.sleep(0.05)
        assert busy.pop() == 1
        assert busy == []
        handler.send(bench.receiver.answer(handler.current))

    bench.receiver.script = [slow] * 3
    text = "".join(f'g{{n="{n}"}} {n}\n' for n in range(6000))
    assert len(bench.send(text)) == 3


@case("edge_cases/empty_scrape", says="nothing to say, nothing sent")
def _(bench):
    assert bench.send("# nothing\n") == []
    assert bench.send("# nothing\n", "2") == []


@case(
    "edge_cases/many_timeseries",
    "edge_cases/high_cardinality",
    "edge_cases/RobustnessUnderLoad",
    says="200 series in one request, each value with its labels",
)
def _(bench):
    text = "".join(f'g{{n="{n}"}} {n}\n' for n in range(200))
    for samples in bench.both(text):
        assert [(s.label("n"), s.value) for s in samples] == [
            (str(n), n) for n in range(200)
        ]


@case("edge_cases/very_long_metric_name", says="757 letters arrive")
def _(bench):
    name = "metric_" + "very_long_name_" * 50
    for samples in bench.both(f"{name} 42\n"):
        assert only(samples, name).value == 42


@case(
    "edge_cases/special_float_combinations",
    says="NaN, both infinities, 0 and -123.45 side by side, bit for bit",
)
def _(bench):
    given = {"nan": "NaN", "inf": "+Inf", "ninf": "-Inf", "zero": "0", "neg": "-123.45"}
    text = "".join(f'g{{t="{k}"}} {v}\n' for k, v in given.items())
    for samples in bench.both(text):
        found = {s.label("t"): s.bits for s in samples}
        expected = {k: struct.pack("<d", float(v)) for k, v in given.items()}
        assert found == expected | {"nan": NAN_BITS}


@case(
    "edge_cases/zero_timestamp",
    "edge_cases/future_timestamp",
    says="a sample's own time is not used: all get the snapshot's",
)
def _(bench):
    for at in ("0", str(round(time.time() + 86_400))):
        for samples in bench.both(f"g 42 {at}000\n"):
            assert abs(only(samples, "g").timestamp_ms - time.time() * 1000) < 5000


@case("edge_cases/metric_name_with_colons", says="arrives as it is")
def _(bench):
    for samples in bench.both("http:request:duration 0.5\n"):
        assert only(samples, "http:request:duration").value == 0.5


@case(
    "edge_cases/stale_marker",
    says="its bits in a value become an ordinary NaN",
)
def _(bench):
    (stale,) = struct.unpack("<d", bytes.fromhex("020000000000f07f"))
    metric = Metric("g", "h", "gauge")
    metric.add_sample("g", {}, stale)
    for samples in bench.both(metric):
        assert only(samples, "g").bits == NAN_BITS


# -- main: retry, back-off ----------------------------------------------------------


def once(status: int, *, kept: bool) -> Callable[[Bench], None]:
    def check(bench: Bench) -> None:
        bench.receiver.script = [Answer(status)] * 5
        with pytest.raises(SinkError) as caught:
            bench.send(GAUGE, attempts=5)
        assert len(bench.receiver.received) == 1
        assert isinstance(caught.value, SinkRejected) != kept

    return check


for _status, _kept in ((400, False), (401, True), (404, True), (413, False)):
    _what = "waits in the spool: not the content is refused" if _kept else "dropped"
    case(f"retry/no_retry_on_{_status}", says=f"exactly 1 request; {_what}")(
        once(_status, kept=_kept)
    )


def again(status: int) -> Callable[[Bench], None]:
    def check(bench: Bench) -> None:
        bench.receiver.script = [Answer(status)]
        first, second = bench.send(GAUGE)
        assert first.message == second.message
        assert second.headers["retry-attempt"] == "1"

    return check


for _status in (500, 502, 503, 504):
    case(f"retry/retry_on_{_status}", says="sent again, the same bytes")(again(_status))


@case(
    "retry/may_retry_on_429",
    says="sent again, not before the Retry-After of 1 s is over",
)
def _(bench):
    bench.receiver.script = [Answer(429, b"", (("Retry-After", "1"),))]
    first, second = bench.send(GAUGE)
    assert second.at - first.at >= 1


def backed_off(bench: Bench) -> list[float]:
    bench.receiver.script = [Answer(503)] * 2
    requests = bench.send(GAUGE, attempts=3)
    assert len(requests) == 3
    pairs = zip(requests[1:], requests[:-1], strict=True)
    return [later.at - earlier.at for later, earlier in pairs]


@case(
    "backoff/exponential_backoff_on_retries",
    "backoff/backoff_required",
    "backoff/backoff_max_delay",
    "backoff/backoff_with_jitter",
    says="0.25 to 0.5 s, then 0.5 to 1 s, jittered, never beyond RETRY_TIMEOUT",
)
def _(bench):
    first, second = backed_off(bench)
    assert 0.25 <= first < 0.75
    assert 0.5 <= second < 1.25


# -- main: responses, fallback, errors ----------------------------------------------


def taken(answer: Answer, version: str = "1") -> Callable[[Bench], None]:
    def check(bench: Bench) -> None:
        bench.receiver.script = [answer]
        assert len(bench.send(GAUGE, version)) == 1

    return check


WROTE = ((WRITTEN, "1"),)
case(
    "response/ignore_response_body_on_success", says="success, whatever the body says"
)(taken(Answer(200, b"error: this body should be ignored")))
case("response/handle_204_no_content", says="success")(
    taken(Answer(204, b"", WROTE), "2")
)
case("response/handle_200_ok", says="success")(taken(Answer(200, b"OK", WROTE), "2"))
case(
    "response/process_written_count_headers",
    "response/ContentTypeNegotiation",
    "fallback/NoFallbackOn2xx",
    says="with a Written header 2.0 stays 2.0; 1.0 never looks at it",
)(taken(Answer(204, b"", WROTE), "auto"))


@case(
    "response/handle_partial_write_response",
    says="counted as written, the rest dropped, never sent again",
)
def _(bench):
    bench.receiver.script = [Answer(400, b"Rejected", ((WRITTEN, "2"),))] * 3
    with pytest.raises(SinkRejected) as caught:
        bench.send(MIXED, "2")
    assert caught.value.written == 2
    assert len(bench.receiver.received) == 1


@case(
    "response/handle_missing_written_headers",
    says="a refusal without them means that nothing was written",
)
def _(bench):
    bench.receiver.script = [Answer(400, b"Bad")]
    with pytest.raises(SinkRejected) as caught:
        bench.send(GAUGE, "2")
    assert caught.value.written == 0


@case("response/log_error_messages_verbatim", says="the log has the server's words")
def _(bench):
    bench.receiver.script = [Answer(400, b"Error: Invalid label name '__x__'")]
    assert "Error: Invalid label name '__x__'" in bench.run().stderr


@case(
    "response/handle_large_error_body",
    "error_handling/handle_large_error_response",
    says="1 MiB of error: one line, cut after 200 letters",
)
def _(bench):
    bench.receiver.script = [Answer(400, b"x" * (1 << 20))]
    run = bench.run()
    assert run.status == 76
    assert max(len(line) for line in run.stderr.splitlines()) < 600
    assert "x" * 200 in run.stderr


@case(
    "fallback/fallback_on_415_unsupported_media_type",
    "fallback/retry_with_different_version",
    "fallback/fallback_header_changes",
    "fallback/accept_success_after_fallback",
    "fallback/persistent_fallback_choice",
    says="`auto`: after a 415 it goes out as 1.0, and so does the next run",
)
def _(bench):
    bench.receiver.speaks = "1"
    assert bench.run(REMOTE_WRITE_VERSION="auto").status == 0
    assert bench.run(REMOTE_WRITE_VERSION="auto").status == 0
    assert [r.version for r in bench.receiver.requests] == ["2", "1", "1", "1", "1"]
    assert bench.receiver.requests[1].headers["content-type"] == PB


@case(
    "error_handling/handle_connection_refused",
    says="stored, 75, one line; the next run delivers it",
)
def _(bench):
    bench.receiver.fail("", faults.reset())
    run = bench.run(REMOTE_WRITE_URL="http://127.0.0.1:1/api/v1/write")
    assert run.status == 75
    assert "connection refused" in run.stderr
    assert len(run.stderr.splitlines()) == 1


@case(
    "error_handling/handle_timeout",
    says="a hang ends with the run's deadline; stored, 75",
)
def _(bench):
    bench.receiver.fail("", faults.hang())
    run = bench.run(RUN_DEADLINE="2")
    assert run.status == 75
    assert run.took < 3


@case(
    "error_handling/handle_partial_write",
    "error_handling/handle_empty_response",
    says="200 is success, whatever body follows or not",
)
def _(bench):
    bench.receiver.script = [Answer(200, b"partial"), Answer(200)]
    assert bench.run().status == 0


@case(
    "error_handling/handle_malformed_response",
    says="no HTTP: tried again, then stored, 75",
)
def _(bench):
    bench.receiver.fail("", faults.raw(b"Not valid response headers\r\n\r\n"))
    run = bench.run()
    assert run.status == 75
    assert "Traceback" not in run.stderr


@case(
    "error_handling/sender_continues_after_errors",
    says="stored while it fails, delivered by the run after it",
)
def _(bench):
    bench.receiver.fail("", faults.status(500))
    assert bench.run().status == 75
    bench.receiver.heal()
    assert bench.run().status == 0
    assert [len(points) for points in bench.soc()] == [2]


@case("error_handling/handle_invalid_status_code", says="999: stored, 75")
def _(bench):
    bench.receiver.script = [Answer(999)]
    assert bench.run().status == 75


@case(
    "error_handling/dns_resolution_failure",
    says="stored, 75, one line, within the deadline",
)
def _(bench):
    url = "http://nonexistent.invalid:9999/api/v1/write"
    run = bench.run(REMOTE_WRITE_URL=url, RUN_DEADLINE="5")
    assert run.status == 75
    assert run.took < 6


@case(
    "error_handling/invalid_url_scheme",
    says="a fault of the settings: 78, nothing is contacted",
)
def _(bench):
    assert bench.run(REMOTE_WRITE_URL="invalid://localhost:9999").status == 78


# -- main: 1.0 beside 2.0; the new library ------------------------------------------


@case(
    "rw1_compat/rw1_version_header",
    "rw1_compat/rw1_content_type",
    "rw1_compat/Configuration",
    says="the default: `0.1.0`, the type without parameter",
)
def _(bench):
    assert bench.run().status == 0
    for request in bench.receiver.requests:
        assert request.headers[VERSION_HEADER] == "0.1.0"
        assert request.headers["content-type"] == PB


@case(
    "rw1_compat/rw1_samples_encoding",
    "rw1_compat/rw1_labels_encoding",
    "rw1_compat/rw1_no_start_timestamp",
    "rw1_compat/rw1_metadata_handling",
    "rw1_compat/rw1_symbol_table_not_used",
    says="the 1.0 schema knows every field: labels inline, value and time, no metadata",
)
def _(bench):
    (request,) = bench.send(MIXED)
    assert request.symbols == []
    assert len(request.samples) == request.series == 11
    assert {(s.type, s.help, s.start_timestamp) for s in request.samples} == {
        (0, "", 0)
    }


@case(
    "new/samples value",
    says="101.13 arrives bit for bit, each series with exactly one sample",
)
def _(bench):
    for samples in bench.both(COUNTER.replace("7", "101.13") + HISTOGRAM):
        assert only(samples, "c_total").value == 101.13
        assert len({s.labels for s in samples}) == len(samples)


# -- the tests ----------------------------------------------------------------------


# Each check once, under the first of its names.
FIRST = {each.check: name for name, each in reversed(CASES.items())}


@pytest.mark.parametrize("name", sorted(FIRST.values()))
def test_sender_compliance(name, bench):
    """The cases of this check are met as docs/compliance.md says."""
    CASES[name].check(bench)


def test_the_document_lists_every_case():
    """docs/compliance.md has each case once, with what is asserted."""
    rows = [row for row in table_rows("compliance.md") if row[0].startswith("`")]
    assert rows == [[f"`{name}`", case.says] for name, case in CASES.items()]
