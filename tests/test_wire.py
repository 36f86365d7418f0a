"""The encoder against an independent parser, and against published bytes."""

from __future__ import annotations

import math
import struct
from string import ascii_letters, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from ecoflow_push.metrics.record import Record, record_of
from ecoflow_push.sinks.wire import ENCODERS, NAN, STALE, split
from tests.receiver import MESSAGES, Sample, decode

AT_MS = 1_700_000_000_000
UP = Record(AT_MS, [(("job", "j"),)], (("gauge", "h"),), ("up",), (0,), (0,), [1.0], [])
# Made with the protobuf runtime (protocol/remote-write.md#messages).
GOLDEN = {
    "1": (
        "0a2c0a0e0a085f5f6e616d655f5f120275700a080a036a6f6212016a"
        "121009000000000000f03f1080d095ffbc31"
    ),
    "2": (
        "220022085f5f6e616d655f5f2202757022036a6f6222016a220168"
        "2a1e0a0401020304121009000000000000f03f1080d095ffbc312a0408021805"
    ),
}


class Given(Collector):
    """A collector of what a test says."""

    def __init__(self, *metrics: Metric) -> None:
        self._metrics = metrics

    def collect(self):
        return iter(self._metrics)


def registry(*metrics: Metric) -> CollectorRegistry:
    found = CollectorRegistry()
    found.register(Given(*metrics))
    return found


def gauge(name: str, *samples: tuple[dict[str, str], float]) -> Metric:
    metric = Metric(name, "A quota.", "gauge")
    for labels, value in samples:
        metric.add_sample(name, labels, value)
    return metric


def from_text(text: str) -> CollectorRegistry:
    return registry(*text_string_to_metric_families(text))


def samples(record: Record, version: str, most: int = 2000) -> list[Sample]:
    """Return what the independent parser finds in all messages of a record."""
    messages = [ENCODERS[version]([part]) for part in split(record, most)]
    return [sample for message in messages for sample in decode(version, message)[0]]


versions = pytest.mark.parametrize("version", ["1", "2"])


@versions
def test_the_golden_bytes(version):
    """One gauge with one label is encoded as in the published example."""
    message = ENCODERS[version]([UP])

    assert message.hex() == GOLDEN[version]


def test_the_runtime_makes_the_same_bytes():
    """Generated code makes byte for byte what we make of a whole snapshot (1.0)."""
    record = record_of(
        registry(
            gauge("ecoflow_a", ({"device": "x", "name": "Gäräge"}, 1.5)),
            gauge(
                "ecoflow_b", *(({"i": str(n), "Site": "s"}, n + 1) for n in range(9))
            ),
        ),
        {"job": "ecoflow"},
        AT_MS,
    )
    theirs = MESSAGES["V1Request"]()
    for metric, place, value in zip(
        record.names, record.places, record.values, strict=True
    ):
        series = theirs.timeseries.add()
        for name, text in sorted([("__name__", metric), *record.label_sets[place]]):
            series.labels.add(name=name, value=text)
        (bits,) = struct.unpack("<Q", struct.pack("<d", value))
        series.samples.add(value=bits, timestamp=AT_MS)

    ours = ENCODERS["1"]([record])

    assert ours == theirs.SerializeToString()


@versions
def test_labels_are_sorted_around_the_name(version):
    """Labels are in the order of their bytes: upper case, `__name__`, lower case."""
    labels = {"z": "1", "Site": "2", "a": "3", "_x": "4"}
    (sample,) = samples(
        record_of(registry(gauge("g", (labels, 1))), {}, AT_MS), version
    )

    names = [name for name, _ in sample.labels]
    assert names == ["Site", "__name__", "_x", "a", "z"]


@versions
def test_empty_labels_are_left_out(version):
    """A label without a value is dropped, its series is kept."""
    metric = gauge("g", ({"a": "", "b": "x"}, 1))
    (sample,) = samples(record_of(registry(metric), {"c": ""}, AT_MS), version)

    assert sample.labels == (("__name__", "g"), ("b", "x"))


def test_the_configured_job_wins():
    """A sample's own `job` gives way to that of the job, as on a Pushgateway."""
    metric = gauge("g", ({"job": "own", "instance": "i"}, 1))
    (sample,) = samples(record_of(registry(metric), {"job": "ecoflow"}, AT_MS), "1")

    assert dict(sample.labels) == {"__name__": "g", "job": "ecoflow", "instance": "i"}


@pytest.mark.parametrize(
    "doubled",
    [
        [({"a": "1"}, 1), ({"a": "1"}, 2)],
        [({"a": "1", "b": ""}, 1), ({"a": "1"}, 2)],
        [({"a": "1", "b": "2"}, 1), ({"b": "2", "a": "1"}, 1)],
        [({"job": "x"}, 1), ({"job": "y"}, 2)],
    ],
)
def test_a_series_that_occurs_twice_is_refused(doubled):
    """Two samples of one series in a snapshot are a bug, and never sent."""
    with pytest.raises(ValueError, match="twice"):
        record_of(registry(gauge("g", *doubled)), {"job": "j"}, AT_MS)


@pytest.mark.case("W13")
@versions
def test_markers_keep_their_bits(version):
    """A staleness marker arrives with its own bits, an ordinary NaN with others."""
    record = record_of(registry(gauge("g", ({}, math.nan))), {"job": "j"}, AT_MS)
    ended = record.ending([("old", (("job", "j"),)), ("g", (("job", "j"),))])
    again = Record.from_bytes(ended.to_bytes())

    nan, stale = samples(again, version)

    assert (nan.name, nan.bits) == ("g", NAN)
    assert (stale.name, stale.bits) == ("old", STALE)
    assert stale.bits.hex() == "020000000000f07f"
    assert stale.is_stale
    assert not nan.is_stale


@versions
@pytest.mark.parametrize("count", [0, 1, 1999, 2000, 2001, 4000])
def test_large_snapshots_are_split_between_series(version, count):
    """No request has more than 2,000 samples, and every series is in one alone."""
    metric = gauge("g", *(({"n": str(n)}, n) for n in range(count)))
    record = record_of(registry(metric), {}, AT_MS)

    messages = [ENCODERS[version]([part]) for part in split(record, 2000)]
    found = [decode(version, message) for message in messages]

    assert [len(part[0]) for part in found] == [
        min(2000, count - start) for start in range(0, count, 2000)
    ] or not count
    values = [sample.value for part in found for sample in part[0]]
    assert values == list(range(count))


@versions
def test_several_records_are_one_request(version):
    """Each series is there once, its samples oldest first, its last type with it."""
    first = record_of(
        registry(gauge("g", ({"d": "1"}, 1)), gauge("old", ({}, 5))), {}, 7
    )
    second = record_of(registry(gauge("g", ({"d": "1"}, 2), ({"d": "2"}, 3))), {}, 8)
    second = second.ending(first.keys())

    found, series, _ = decode(version, ENCODERS[version]([first, second]))

    assert series == 3
    assert [(s.name, s.label("d"), s.timestamp_ms) for s in found] == [
        ("g", "1", 7),
        ("g", "1", 8),
        ("old", "", 7),
        ("old", "", 8),
        ("g", "2", 8),
    ]
    assert [s.is_stale for s in found] == [False, False, False, True, False]
    assert {s.type for s in found} == ({2} if version == "2" else {0})


@versions
@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_markers_are_split_like_values(most, version):
    """However small the parts, each series is in exactly one of them."""
    record = record_of(registry(gauge("g", ({"d": "1"}, 1), ({"d": "2"}, 3))), {}, 7)
    record = record.ending([("a", ()), ("b", ()), ("c", ())])

    found = samples(record, version, most)

    assert [(s.name, s.is_stale) for s in found] == [
        *[("g", False)] * 2,
        ("a", True),
        ("b", True),
        ("c", True),
    ]


def test_types_and_help_go_along_in_version_2():
    """In 2.0 each series has the type and help of its family, however it is called."""
    text = (
        "# HELP c_total Counts.\n# TYPE c_total counter\nc_total 1\n"
        '# HELP h How "long".\\nTwo lines.\n# TYPE h histogram\n'
        'h_bucket{le="1"} 1\nh_bucket{le="+Inf"} 2\nh_sum 3\nh_count 2\n'
        '# TYPE s summary\ns{quantile="0.5"} 1\ns_sum 1\ns_count 1\n'
        "u 4\n"
    )
    found = samples(record_of(from_text(text), {"job": "j"}, AT_MS), "2")

    assert {(s.name, s.type, s.help) for s in found} == {
        ("c_total", 1, "Counts."),
        ("h_bucket", 3, 'How "long".\nTwo lines.'),
        ("h_sum", 3, 'How "long".\nTwo lines.'),
        ("h_count", 3, 'How "long".\nTwo lines.'),
        ("s", 5, ""),
        ("s_sum", 5, ""),
        ("s_count", 5, ""),
        ("u", 0, ""),
    }
    assert all(s.start_timestamp == 0 for s in found)


def words(first: str, later: str, most: int) -> st.SearchStrategy[str]:
    """Return what has such letters; a regular expression is made letter by letter."""
    rest = st.text(first + later, max_size=most - 1)
    return st.builds(str.__add__, st.sampled_from(first), rest)


names = words(ascii_letters + "_:", digits, 31)
label_names = words(ascii_letters, digits + "_", 21)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
label_sets = st.dictionaries(label_names, texts, max_size=6)
families = st.dictionaries(
    names,
    st.lists(st.tuples(label_sets, st.floats()), min_size=1, max_size=5),
    max_size=8,
)


@versions
@pytest.mark.drill("fuzz")
@given(given_families=families, grouping=label_sets, at=st.integers(0, 2**62))
def test_whatever_goes_in_comes_out(version, given_families, grouping, at):
    """Any names, labels and values arrive as they were given, and in order."""
    expected = {}
    metrics = []
    for name, given_samples in given_families.items():
        metric = Metric(name.replace(":", "_"), "h", "gauge")
        for labels, value in given_samples:
            whole = {k: v for k, v in {**labels, **grouping}.items() if v}
            key = (name, *sorted(whole.items()))
            if key not in expected:
                expected[key] = value
                metric.add_sample(name, labels, value)
        metrics.append(metric)
    record = record_of(registry(*metrics), grouping, at)

    found = samples(Record.from_bytes(record.to_bytes()), version, most=3)

    for sample in found:
        label_order = [name for name, _ in sample.labels]
        assert label_order == sorted(set(label_order))
        assert all(value for _, value in sample.labels)
        assert sample.timestamp_ms == at
    arrived = {
        (s.name, *sorted(set(s.labels) - {("__name__", s.name)})): s.bits for s in found
    }
    assert len(arrived) == len(found)
    assert arrived == {
        key: NAN if math.isnan(value) else struct.pack("<d", value)
        for key, value in expected.items()
    }
