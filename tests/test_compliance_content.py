"""Compliance: samples, labels, symbols, timestamps, metadata, batching."""

from __future__ import annotations

import math
import re
import struct
import time
from collections.abc import Callable

import pytest
from prometheus_client.core import Exemplar, Metric

from tests.compliance import COUNTER, HISTOGRAM, MIXED, Bench, Cases, named, only
from tests.receiver import NAN_BITS

CASES = Cases()
case = CASES.case

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


@pytest.mark.parametrize("name", CASES.checks())
def test_sender_compliance(name, bench):
    """The cases of this check are met as compliance.md says."""
    CASES[name].check(bench)
