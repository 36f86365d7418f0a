"""Several requests at once: as many as may be, no device in two, verdicts as ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from threading import Barrier, BrokenBarrierError, Lock

import cramjam
import pytest

from ecoflow_push.errors import ExitStatus
from ecoflow_push.simulator import faults
from tests.delivery import has_device, judge, run, stored, wait_in_spool
from tests.receiver import PATH, decode
from tests.sinks import RUN, RemoteWriteKit, kit_of, say

# Of 3 samples each; three go into one request.
FLEET = [f"R331ZFAKE00000{n:02}" for n in range(15)]
MOST_SAMPLES = 9


@pytest.fixture
def job(tmp_path) -> Iterator[RemoteWriteKit]:
    with kit_of("remote-write", tmp_path) as kit:
        assert isinstance(kit, RemoteWriteKit)
        kit.most_samples = MOST_SAMPLES
        yield kit
        assert kit.server.outrages == []


class Gate:
    """A receiver that answers its second request when three more are there."""

    def __init__(self, kit: RemoteWriteKit) -> None:
        self._kit = kit
        self._barrier = Barrier(4, timeout=10)
        self._lock = Lock()
        self._there: list[set[str]] = []
        self._requests = 0
        self.was_full = False
        #: How many requests were there at once, at most, and who was in two of them.
        self.most = 0
        self.doubled: set[str] = set()

    def __call__(self, handler) -> None:
        message = bytes(cramjam.snappy.decompress_raw(handler.current.body))
        devices = {sample.label("device") for sample in decode("1", message)[0]}
        with self._lock:
            self._requests += 1
            is_first = self._requests == 1
            self.doubled.update(*(devices & others for others in self._there))
            self._there.append(devices)
            self.most = max(self.most, len(self._there))
        if not (is_first or self.was_full):
            with suppress(BrokenBarrierError):
                self._barrier.wait()
                self.was_full = True
        with self._lock:
            self._there.remove(devices)
        handler.send(self._kit.server.answer(handler.current))


def test_many_devices_fill_four_requests_at_once(job):
    """The first goes alone; then there are four, and no device is in two of them."""
    wait_in_spool(job, 3, *FLEET)
    gate = Gate(job)
    job.server.fail(PATH, gate)

    assert run(job, *map(say, FLEET)).delivery.errors == []

    assert (gate.was_full, gate.most, gate.doubled) == (True, 4, set())
    for sn in FLEET:
        times = stored(job, sn)
        assert (len(times), times) == (4, sorted(times))
    assert len(stored(job, "", RUN)) == 1


def test_few_devices_write_one_request_at_a_time(job):
    """Up to 8 devices nothing is in flight beside another."""
    wait_in_spool(job, 3, *FLEET[:8])
    gate = Gate(job)
    gate.was_full = True
    job.server.fail(PATH, gate)

    assert run(job, *map(say, FLEET[:8])).delivery.errors == []

    assert gate.most == 1


@pytest.mark.parametrize("status", [400, 500])
def test_one_bad_device_costs_itself_in_flight(status, job):
    """All others are there after one run, in order, whatever was beside them."""
    bad = FLEET[7]
    wait_in_spool(job, 3, *FLEET)
    judge(job, has_device(bad), faults.status(status, b"no"))

    sink = run(job, *map(say, FLEET))

    for sn in FLEET:
        times = stored(job, sn)
        assert (len(times), times) == (4 * (sn != bad), sorted(times))
    dropped = sum(job.state.dropped.values())
    backlog = sink.backlog()
    assert backlog
    assert backlog.samples + dropped == 4 * 3
    assert (dropped > 0) == (status == 400)
    assert ExitStatus.TEMPFAIL in [error.status for error in sink.delivery.errors]


def test_a_server_that_is_down_in_flight_takes_nothing_away(job):
    """What was in flight as well stays, and all of it arrives when it is up again."""
    wait_in_spool(job, 3, *FLEET)
    job.server.script = [None, None, *[faults.reset()] * 20]

    (error,) = run(job, *map(say, FLEET)).delivery.errors
    assert error.status == ExitStatus.TEMPFAIL
    job.server.script = []

    assert run(job, *map(say, FLEET)).delivery.errors == []
    assert job.state.dropped == {}
    for sn in FLEET:
        times = stored(job, sn)
        assert (len(times), times) == (5, sorted(times))
