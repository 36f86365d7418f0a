"""What tests of delivery do: runs against a receiver that judges what it is sent."""

from __future__ import annotations

from collections.abc import Callable

import cramjam

from ecoflow_push.memory.entry import Entry
from ecoflow_push.memory.spool import Spool
from ecoflow_push.metrics.record import Record
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import Fault
from ecoflow_push.sinks.base import Sink, Update
from tests.receiver import PATH, Sample, decode
from tests.sinks import SOC, RemoteWriteKit, run_registry, say

A, B = "R331ZFAKE0000001", "BK11ZFAKE0000002"
MANY = [f"R331ZFAKE00000{n:02}" for n in range(12)]
DOWN = faults.status(503)


def run(
    kit: RemoteWriteKit,
    *updates: Update,
    seconds: float = 10,
    offset: float | None = 0.0,
) -> Sink:
    """Do a run as a worker does, which has so many seconds for devices."""
    sink = kit.sink()
    kit.begin(sink, *updates, offset=offset)
    sink.deliver(Deadline(seconds))
    sink.settle(Deadline(10))
    sink.deliver_run(run_registry(), Deadline(10))
    sink.close()
    kit.state.runs += 1
    return sink


Rule = tuple[Callable[[list[Sample]], bool], Fault]


def judge(kit: RemoteWriteKit, is_bad: Callable[..., bool], fault: Fault, *more: Rule):
    """Let the receiver answer requests of certain samples by a fault."""

    def answer(handler) -> None:
        message = bytes(cramjam.snappy.decompress_raw(handler.current.body))
        samples = decode("1", message)[0]
        for is_due, what in ((is_bad, fault), *more):
            if is_due(samples):
                what(handler)
                return
        handler.send(kit.server.answer(handler.current))

    kit.server.heal()
    kit.server.fail(PATH, answer)


def has_device(sn: str) -> Callable[[list[Sample]], bool]:
    return lambda samples: any(s.label("device") == sn for s in samples)


def stored(kit: RemoteWriteKit, sn: str, name: str = SOC) -> list[int]:
    """Return the times of what arrived of a series."""
    return [
        at
        for labels, points in kit.server.stored.items()
        if dict(labels)["__name__"] == name and dict(labels).get("device", "") == sn
        for at, _ in points
    ]


def wait_in_spool(kit: RemoteWriteKit, count: int, *devices: str) -> None:
    """Let so many runs find the receiver down."""
    kit.server.fail(PATH, DOWN)
    for _ in range(count):
        assert run(kit, *map(say, devices)).delivery.stored == len(devices)
    kit.server.heal()


def waiting(kit: RemoteWriteKit) -> list[Entry]:
    spool = Spool(kit.spool)
    spool.open()
    return spool.entries


def make_old(kit: RemoteWriteKit, sn: str, times: list[float]) -> None:
    """Let snapshots of a device wait from these times."""
    one = next(entry for entry in waiting(kit) if entry.device == sn)
    spool = Spool(kit.spool)
    spool.open()
    record = Record.from_bytes(spool.read(one))
    for at in times:
        older = record._replace(time_ms=round(at * 1000))
        spool.write(Entry(older.time_ms, one.samples, sn, older.to_bytes()))
    spool.commit()


def shut_after_an_hour() -> Rule:
    """Return how a Prometheus without a window refuses: an hour behind its newest."""
    newest = [0]

    def is_shut(samples: list[Sample]) -> bool:
        times = [s.timestamp_ms for s in samples]
        if min(times) < newest[0] - 3_600_000:
            return True
        newest[0] = max(newest[0], *times)
        return False

    return is_shut, faults.status(400, b"out of bounds")
