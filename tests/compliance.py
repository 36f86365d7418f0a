"""The cases of the sender compliance suites, asserted strictly.

The suites (prometheus/compliance) scrape a target and look at what arrives; here the
target's metrics are a registry, two scrapes are two runs, and what a suite lets pass is
held to what the specification says. compliance.md is this table.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from ecoflow_push.metrics.record import record_of
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.sinks.endpoint import RemoteWriteSink
from ecoflow_push.sinks.server import Server
from tests.receiver import Receiver, Request, Sample
from tests.support import Run, push
from tests.test_wire import registry

PB = "application/x-protobuf"
VERSION_HEADER = "x-prometheus-remote-write-version"
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
        server = Server("REMOTE_WRITE", self.receiver.write_url)
        return RemoteWriteSink(
            server, version=version, attempts=attempts, longest_wait=2
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
            sink.prove(Deadline(10))
            sink.write([record], Deadline(10))
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


class Cases(dict[str, Case]):
    """The cases of one suite or a part of it, in the document's order."""

    def case(self, *names: str, says: str):
        """Make a function the check of these cases."""

        def register(check: Callable[[Bench], None]) -> Callable[[Bench], None]:
            for name in names:
                assert name not in self
                self[name] = Case(says, check)
            return check

        return register

    def checks(self) -> list[str]:
        """Return each check once, under the first of its names."""
        first = {each.check: name for name, each in reversed(self.items())}
        return sorted(first.values())


def named(samples: list[Sample], name: str) -> list[Sample]:
    return [sample for sample in samples if sample.name == name]


def only(samples: list[Sample], name: str) -> Sample:
    (sample,) = named(samples, name)
    return sample
