"""Remote-write: a clock that is wrong, or was."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import RecordingServer
from tests.conftest import DELTA, STREAM
from tests.remote_write import ended, of_devices, say_later, spool_files, state
from tests.support import ROOT, push, push_anew

LIST = "device/list"


@pytest.mark.case("T1", "T2")
@pytest.mark.parametrize("offset", [400, -400])
def test_a_wrong_clock_writes_nothing(offset, environ, cloud, receiver, pushgateway):
    """More than 5 minutes from EcoFlow's time: nothing sent, nothing stored, 75."""
    environ["REMOTE_WRITE_URL"] = receiver.write_url
    cloud.date_offset = -offset

    run = push(environ)

    assert run.status == 75, run.stderr
    way = "ahead of" if offset > 0 else "behind"
    assert re.search(rf"the clock is (399|400|401) s {way}", run.stderr), run.stderr
    assert receiver.received == []
    assert spool_files(environ) == []
    assert state(environ)["dropped"] == {"clock": 7}
    # The Pushgateway goes on.
    assert pushgateway.device(DELTA.sn)
    assert pushgateway.run()["ecoflow_push_dropped_samples_total clock"] == 7


@pytest.mark.case("T10")
@pytest.mark.parametrize("offset", [0, 400])
def test_the_receiver_tells_the_time_if_nobody_did(offset, receiver, tmp_path):
    """Where no answer told the time, the receiver is asked before the first write."""
    environ = {
        "ECOFLOW_ACCESS_KEY": "AK",
        "ECOFLOW_SECRET_KEY": "SK",
        "REMOTE_WRITE_URL": receiver.write_url,
        "STATE_DIR": str(tmp_path),
        "DRILL_START": str(time.time() - 60),
    }
    receiver.date_offset = -offset

    done = subprocess.run(
        [sys.executable, "-m", "tests.one_run", "1"],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == (75 if offset else 0), done.stderr
    assert receiver.received[0].method == "GET"
    assert len(of_devices(receiver)) == (0 if offset else 3)
    assert spool_files(environ) == []


@pytest.mark.parametrize("offset", [400, -400])
def test_a_gateway_s_wrong_clock_is_its_own(offset, environ, receiver):
    """EcoFlow's time counts before that of a gateway, whose clock may be wrong."""
    with RecordingServer() as gateway:
        gateway.date_offset = offset
        environ |= {
            "PUSHGATEWAY_URL": gateway.url,
            "REMOTE_WRITE_URL": receiver.write_url,
        }

        assert push(environ).status == 0


def test_a_wrong_clock_leaves_what_waits_alone(written, cloud, receiver):
    """While the clock is wrong nothing in the spool grows old or is sent."""
    receiver.fail("", faults.status(503))
    assert push_anew(written).status == 75
    before = spool_files(written)
    receiver.heal()
    cloud.date_offset = -400

    assert push({**written, "SPOOL_MAX_AGE": "0"}).status == 75

    assert spool_files(written) == before


@pytest.mark.case("T3")
@pytest.mark.parametrize("is_changed", [False, True])
def test_a_clock_that_went_back_writes_nothing(is_changed, written, cloud, receiver):
    """A snapshot not after the last one, which nobody confirms, is not written: 75.

    Also where somebody changed the spool, so that the last one's file must tell.
    """
    cloud.date_offset = receiver.date_offset = None
    assert push(written).status == 0
    say_later(written, DELTA.sn, 3600)
    if is_changed:
        (last,) = spool_files(written, "spool-*/last")
        os.utime(last.parent)

    run = push(written)

    assert run.status == 75
    assert "the clock went back: the last snapshot is 3" in run.stderr
    assert len(of_devices(receiver)) == 1
    assert spool_files(written) == []
    assert state(written)["dropped"] == {"clock": 7}


@pytest.mark.case("T4")
def test_a_clock_that_was_put_right_goes_on(written, receiver):
    """Once a server confirms the clock, what it once stamped wrong stands in no way."""
    assert push(written).status == 0
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    say_later(written, DELTA.sn, 3600)
    (waiting,) = spool_files(written)
    at, rest = waiting.name.split(".", 1)
    future = waiting.with_name(f"{int(at) + 3_600_000:015d}.{rest}")
    waiting.rename(future)
    receiver.heal()

    run = push(written)

    assert run.status == 0, run.stderr
    assert len(of_devices(receiver)) == 2
    assert state(written)["dropped"] == {"clock": 7}
    assert spool_files(written) == []


@pytest.mark.case("T5", "T10")
def test_a_clock_that_nobody_confirms_ages_nothing(written, cloud, receiver):
    """As long as no server tells the time, nothing that waits is too old."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    before = spool_files(written)
    receiver.date_offset = None
    cloud.fail(LIST, faults.reset())

    assert push({**written, "SPOOL_MAX_AGE": "0", "STALE_AFTER": "0"}).status == 69

    assert spool_files(written) == before


@pytest.mark.case("T5")
@pytest.mark.parametrize("seconds", [-7200, 7200])
def test_a_clock_that_is_set_during_a_run_writes_nothing(seconds, receiver, tmp_path):
    """A snapshot from outside of the run's own time is neither sent nor stored."""
    environ = {
        "PATH": os.defpath,
        "PYTHONPATH": str(ROOT),
        "ECOFLOW_ACCESS_KEY": "AK",
        "ECOFLOW_SECRET_KEY": "SK",
        "REMOTE_WRITE_URL": receiver.write_url,
        "STATE_DIR": str(tmp_path),
        "DRILL_START": str(time.time() - 60),
        "DRILL_STEP": str(seconds),
    }

    done = subprocess.run(
        [sys.executable, "-m", "tests.one_run", "1"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 75, done.stderr
    assert "the clock was set while the run was at work" in done.stderr
    assert of_devices(receiver) == []
    assert spool_files(environ) == []


def test_a_device_that_left_under_a_wrong_clock_still_ends(written, cloud, receiver):
    """Markers that could not be written are owed until they can be."""
    cloud.devices[:] = [DELTA, STREAM]
    assert push(written).status == 0
    cloud.devices[:] = [DELTA]
    assert push(written).status == 0
    cloud.date_offset = 4000.0
    assert push(written).status == 75
    cloud.date_offset = 0.0

    assert push(written).status == 0

    of_stream = [s for s in of_devices(receiver) if s[0].label("device") == STREAM.sn]
    assert ended(of_stream[-1]) == {s.name for s in of_stream[0]}
