"""What encoding 1,000 snapshots costs beside the text format and generated code.

    python -m benchmarks.encode [--rounds N]

All walk the same registries, built as a run builds them, in every round one after the
other; what is compared is CPU time of this process. Memory is the peak of two
processes that hold the same snapshots, of which one also takes each the whole road to
compressed bytes. Exits 1 if a goal is missed.
"""

import argparse
import gc
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import cramjam
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message_factory import GetMessages
from prometheus_client import generate_latest
from prometheus_client.core import CollectorRegistry

from benchmarks.goals import Goals, quantile
from benchmarks.process import ROOT, Command, start
from benchmarks.servers import fleet
from ecoflow_push.metrics.labels import Labels
from ecoflow_push.metrics.names import raw_samples
from ecoflow_push.metrics.own import RESERVED_NAMES
from ecoflow_push.metrics.record import Record, record_of
from ecoflow_push.metrics.registry import DeviceFacts, device_registry
from ecoflow_push.simulator.cloud import SimulatedDevice
from ecoflow_push.sinks.wire import encode_v1, encode_v2, split
from tests.receiver import Sample, decode

DEVICES, SERIES = 1000, 300
QUOTAS = SERIES - 4  # The others are online, info and two times.
JOB, TIME_MS = "ecoflow", 1_764_057_600_123
MOST_GROWTH = 10  # MiB
OURS, TEXT, GENERATED = "ours, 1.0", "generate_latest", "generated code, 1.0"

# prometheus.WriteRequest: of each message the fields, a capital names a message.
SCHEMA = {
    "WriteRequest": {"timeseries": "TimeSeries"},
    "TimeSeries": {"labels": "Label", "samples": "Sample"},
    "Label": {"name": "string", "value": "string"},
    "Sample": {"value": "double", "timestamp": "int64"},
}


def snapshots() -> list[SimulatedDevice]:
    """Return the fleet, its quotas as a client reads them: each has its own strings."""
    devices = fleet(DEVICES)
    for device in devices:
        device.quotas = json.loads(json.dumps(device.quotas))
    return devices


def registry_of(device: SimulatedDevice) -> CollectorRegistry:
    """Return what a worker would push of a device."""
    samples, _ = raw_samples(device.quotas, "ecoflow", RESERVED_NAMES)
    facts = DeviceFacts(device.sn, device.name, device.product_name, "rest")
    at = TIME_MS / 1000
    facts = facts._replace(online=True, snapshot_at=at, changed_at=at)
    labels = Labels(JOB, "test", "ecoflow", {})
    return device_registry(labels, facts, samples[:QUOTAS])


def ours(
    registry: CollectorRegistry, encode: Callable[[list[Record]], bytes] = encode_v1
) -> Iterator[bytes]:
    """Yield a registry's messages as remote-write sends them."""
    record = record_of(registry, {"job": JOB}, TIME_MS)
    return (encode([part]) for part in split(record, 2000))


def generated(registry: CollectorRegistry) -> Iterator[bytes]:
    """Yield a registry's one message as protoc's classes make it."""
    request = WriteRequest()
    for metric in registry.collect():
        for sample in metric.samples:
            labels = {**sample.labels, "job": JOB, "__name__": sample.name}
            series = request.timeseries.add()
            for name, value in sorted(labels.items()):
                label = series.labels.add()
                label.name, label.value = name, value
            one = series.samples.add()
            one.value, one.timestamp = sample.value, TIME_MS
    yield request.SerializeToString()


def message_class(wanted: str) -> type:
    """Return the class of a message, made as a generated module makes it."""
    file = FileDescriptorProto(name="write.proto", package="bench", syntax="proto3")
    for message, fields in SCHEMA.items():
        made = file.message_type.add(name=message)
        for number, (name, kind) in enumerate(fields.items(), 1):
            own = {"type": f"TYPE_{kind.upper()}", "label": "LABEL_OPTIONAL"}
            if kind in SCHEMA:
                own = {"type_name": f".bench.{kind}", "label": "LABEL_REPEATED"}
            made.field.add(name=name, number=number, **own)
    return GetMessages([file])[f"bench.{wanted}"]


WriteRequest = message_class("WriteRequest")


def compress(messages: Iterator[bytes]) -> None:
    """Take messages to what goes on the wire, one at a time, and drop it."""
    for message in messages:
        cramjam.snappy.compress_raw(message)


def measure(registries: list[CollectorRegistry], rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each way, round by round."""
    ways = {
        OURS: lambda registry: compress(ours(registry)),
        TEXT: generate_latest,
        GENERATED: lambda registry: compress(generated(registry)),
        "ours, 2.0": lambda registry: compress(ours(registry, encode_v2)),
    }
    costs = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            began = time.process_time()
            for registry in registries:
                work(registry)
            costs[name].append(time.process_time() - began)
    return costs


def decoded(messages: Iterator[bytes]) -> list[Sample]:
    """Return what a receiver reads, in an order of its own."""
    return sorted(sample for message in messages for sample in decode("1", message)[0])


def peak(folder: str, child: str) -> float:
    """Return the peak memory of a process that is `child`, in bytes."""
    argv = [sys.executable, "-m", "benchmarks.encode", f"--child={child}"]
    command = Command(argv, {**os.environ, "PYTHONPATH": ROOT})
    return start(command, os.path.join(folder, "stderr")).peak


def be_child(child: str) -> None:
    """Hold the snapshots; on the `road` take each to its bytes, and drop those."""
    held = snapshots()
    for device in held if child == "road" else ():
        record = record_of(registry_of(device), {"job": JOB}, TIME_MS)
        record.to_bytes()
        compress(encode_v1([part]) for part in split(record, 2000))


def check_same(goals: Goals, registries: list[CollectorRegistry]) -> None:
    """Check that a receiver reads the same from both encodings, and all of it."""
    count = 0
    for registry in registries:
        samples = decoded(ours(registry))
        count += len(samples) if samples == decoded(generated(registry)) else 0
    goal = f"the same {DEVICES * SERIES:,} samples in both encodings"
    goals.say(goal, f"{count:,}", met=count == DEVICES * SERIES)


def compare(rounds: int, folder: str) -> bool:
    """Print everything and return whether all goals are met."""
    # First, while this process is small: see run.py.
    peaks = [(peak(folder, "hold"), peak(folder, "road")) for _ in range(rounds)]
    registries = [registry_of(device) for device in snapshots()]
    costs = measure(registries, rounds)
    print(f"Python {platform.python_version()}, {rounds} rounds, medians of CPU time.")
    for name, own in costs.items():
        print(f"{name:44}{quantile(own, 0.5) * 1e3:8.0f} ms")
    print()
    goals = Goals()
    for name, most in ((TEXT, 0.5), (GENERATED, 0.3)):
        found = [a / b for a, b in zip(costs[OURS], costs[name], strict=True)]
        goals.most(f"{OURS} / {name}", found, most)
    check_same(goals, registries)
    growth = quantile([road - hold for hold, road in peaks], 0.5) / 2**20
    goal = f"memory beside the snapshots: at most {MOST_GROWTH} MiB"
    goals.say(goal, f"{growth:.1f} MiB", met=growth <= MOST_GROWTH)
    return not goals.missed


def main() -> int:
    """Compare, or be one of the processes whose memory is compared."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--child", choices=("hold", "road"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    gc.disable()  # as push.py does
    if options.child:
        be_child(options.child)
        return 0
    with tempfile.TemporaryDirectory(prefix="ecoflow-push-bench-") as folder:
        return 0 if compare(max(1, options.rounds), folder) else 1


if __name__ == "__main__":
    sys.exit(main())
