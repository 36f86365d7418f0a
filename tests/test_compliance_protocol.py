"""Compliance: the first suite (remote-write 1.0), and the protocol of the main one."""

from __future__ import annotations

import random
import re
import struct
import time
from collections.abc import Callable

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedDevice
from ecoflow_push.simulator.server import Answer
from tests.compliance import (
    COUNTER,
    GAUGE,
    HISTOGRAM,
    MIXED,
    PB,
    SUMMARY,
    VERSION_HEADER,
    Bench,
    Cases,
    named,
    only,
)
from tests.conftest import DELTA
from tests.receiver import FRAMED

CASES = Cases()
case = CASES.case


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
    says="after a 400 a snapshot waits; refused again before another is taken, it goes",
)
def _(bench):
    bench.receiver.script = [Answer(400), Answer(400)]
    assert bench.run().status == 76
    assert bench.run().status == 1
    assert bench.run().status == 0
    refused = bench.receiver.requests[0].samples[0].timestamp_ms
    later = [r.samples[0].timestamp_ms for r in bench.receiver.requests]
    assert later.count(refused) == 2
    assert [len(points) for points in bench.soc()] == [2]


# -- main: protocol -----------------------------------------------------------------


def header(name: str, values: tuple[str, str]) -> Callable[[Bench], None]:
    def check(bench: Bench) -> None:
        for version, value in zip("12", values, strict=True):
            (request,) = bench.send(GAUGE, version)
            assert re.fullmatch(value, request.headers[name])

    return check


V2 = r"application/x-protobuf;proto=io\.prometheus\.write\.v2\.Request"
SNAPPY = ("snappy", "snappy")
AGENT = (r"ecoflow-push/\d+\.\d+\.\d+",) * 2
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


@pytest.mark.parametrize("name", CASES.checks())
def test_sender_compliance(name, bench):
    """The cases of this check are met as compliance.md says."""
    CASES[name].check(bench)
