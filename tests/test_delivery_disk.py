"""Delivery beside a disk that is slow, full, or holds a long outage; and its clock."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ecoflow_push.memory.spool import Spool
from ecoflow_push.metrics.record import Record
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedDevice
from tests.conftest import DELTA
from tests.remote_write import of_devices, of_run, say_later, spool_files, state
from tests.support import PUSH, ROOT, push, push_anew

# Run push.py, with a pause before each listing of a spool, and before each file that is
# moved when it was taken; say how many listings there were, and how many of a spool's
# files were opened.
SLOW = """
import os, runpy, sys, time
listed = opened = 0
def hook(event, args):
    global listed, opened
    opened += event == "open" and "spool-" in str(args[0])
    if event in ("os.listdir", "os.scandir") and "spool-" in str(args[0]):
        if not str(args[0]).endswith(("last", "bad")):
            listed += 1
            time.sleep(float(os.environ["SLOW"]))
    if event == "os.rename" and os.path.basename(os.path.dirname(args[1])) == "last":
        time.sleep(float(os.environ["SLOW_MOVE"]))
sys.addaudithook(hook)
end = os._exit
def leave(status):
    print("listed", listed, "opened", opened, flush=True)
    end(status)
os._exit = leave
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(
    environ: dict[str, str],
    *,
    slow: float = 0.0,
    slow_move: float = 0.0,
    limit: int = 1 << 30,
    lacks: str = "lack",
):
    """Run push.py; `limit` is the largest file (bytes) that it may write.

    `lacks` is a module that its Python does not have.
    """
    lack = f"import sys; sys.modules[{lacks!r}] = None"
    return subprocess.run(
        [sys.executable, "-B", "-c", lack + SLOW, PUSH],
        env={
            "PATH": os.defpath,
            "HOME": "/nonexistent",
            "SLOW": str(slow),
            "SLOW_MOVE": str(slow_move),
            "PYTHONPATH": str(ROOT),
            **environ,
        },
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


def listings(done: subprocess.CompletedProcess[str]) -> int:
    return int(done.stdout.split()[1])


def opened(done: subprocess.CompletedProcess[str]) -> int:
    return int(done.stdout.split()[3])


def multiply(environ: dict[str, str], count: int) -> None:
    """Make of what waits an outage of so many snapshots, a second apart."""
    (one,) = spool_files(environ)
    spool = Spool(str(one.parent))
    spool.open()
    (entry,) = spool.entries
    record = Record.from_bytes(spool.read(entry))
    from ecoflow_push.memory.entry import Entry

    for number in range(1, count):
        at = record.time_ms - number * 1000
        older = record._replace(time_ms=at)
        made = Entry(at, entry.samples, entry.device, older.to_bytes())
        (one.parent / made.name).write_bytes(made.content or b"")


@pytest.mark.case("W9")
def test_a_slow_disk_is_no_set_clock(written, receiver):
    """A day, in a folder that takes 2 s to list, by a slow line: all in one run.

    Each answer takes 200 ms.
    """
    receiver.fail("", faults.status(503))
    assert push_anew(written).status == 75
    multiply(written, 1440)
    receiver.heal()

    def far(handler) -> None:
        time.sleep(0.2)
        handler.send(receiver.answer(handler.current))

    receiver.fail("", far)

    done = run(written, slow=2.0)

    assert done.returncode == 0, done.stderr
    assert "(1440 snapshots from the spool)" in done.stderr
    of_soc = [p for k, p in receiver.stored.items() if "pd_soc" in dict(k)["__name__"]]
    assert [len(points) for points in of_soc] == [1441]
    assert spool_files(written) == []


def test_a_run_given_up_among_its_files_loses_nothing(written, receiver):
    """What was taken, and could not be moved in time, is no loss in the next run."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    multiply(written, 400)
    receiver.heal()
    receiver.proofs.clear()

    done = run({**written, "RUN_DEADLINE": "3"}, slow_move=0.02)

    assert done.returncode == 75, done.stderr
    assert spool_files(written)
    assert push(written).status == 0
    assert state(written)["dropped"] == {}
    of_soc = [p for k, p in receiver.stored.items() if "pd_soc" in dict(k)["__name__"]]
    assert [len(points) for points in of_soc] == [402]


def test_a_connection_for_each_answer_costs_no_try(written, receiver):
    """300 wait, and the server hangs up behind every answer: one run, one try each."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    multiply(written, 300)
    receiver.heal()

    def answer(handler) -> None:
        handler.send(receiver.answer(handler.current))
        handler.close_connection = True

    receiver.fail("", answer)
    one_try = {"ESTABLISH_ATTEMPTS": "1", "REMOTE_WRITE_MAX_SAMPLES": "20"}

    done = push({**written, **one_try})

    assert done.status == 0, done.stderr
    of_soc = [p for k, p in receiver.stored.items() if "pd_soc" in dict(k)["__name__"]]
    assert [len(points) for points in of_soc] == [301]


@pytest.mark.case("S12")
def test_an_outage_costs_the_same_however_long(written, receiver):
    """While the server is down nobody lists what waits, nor opens more of it."""
    receiver.fail("", faults.status(503))
    written["ESTABLISH_ATTEMPTS"] = "1"
    assert push(written).status == 75
    few = opened(run(written))
    assert few > 0
    for path in spool_files(written)[1:]:
        path.unlink()
    multiply(written, 5_000)
    # What was changed by hand is looked at once.
    assert listings(run(written)) == 1

    for _ in range(3):
        done = run(written)
        assert done.returncode == 75, done.stderr
        assert (listings(done), opened(done)) == (0, few)
    assert len(spool_files(written)) >= 5_000


def test_what_a_run_did_not_expect_is_found(written, receiver):
    """A file that somebody else put there is sent, and counted in the run's series."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    multiply(written, 3)

    run(written)
    receiver.heal()
    done = run(written)

    assert done.returncode == 0, done.stderr
    assert "(4 snapshots from the spool)" in done.stderr
    assert of_run(receiver)[-1]["ecoflow_push_spool_samples"] == 0


def test_what_was_said_last_is_looked_at_only_where_it_may_differ(written, cloud):
    """A run of a device that says the same series opens no file of what it said last.

    Where somebody changed the folder, and where a series came, it does.
    """
    assert push(written).status == 0
    same = opened(run(written))
    (last,) = spool_files(written, "spool-*/last")
    os.utime(last.parent)
    assert opened(run(written)) == same + 1
    assert opened(run(written)) == same
    more = {**(DELTA.quotas or {}), "pd.oneMore": 1}
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, more, "Garage", "DELTA 2")]
    assert opened(run(written)) == same + 1
    assert opened(run(written)) == same


def test_what_an_older_version_saved_is_all_it_takes(written):
    """It knows no fingerprints, and drops them; all else of a queue both understand."""
    assert push(written).status == 0
    same = opened(run(written))
    (path,) = Path(written["STATE_DIR"]).glob("*/state.json")
    fields = json.loads(path.read_text())
    del fields["crc"]
    (endpoint,) = fields["endpoints"]
    assert set(map(len, endpoint["queues"].values())) == {9}
    assert set(endpoint.pop("series")) == {DELTA.sn}
    path.write_text(json.dumps(fields))

    assert opened(run(written)) == same + 1
    assert opened(run(written)) == same


def test_a_host_without_blake2_is_enough(written, receiver):
    """Hardened ones (FIPS 140) have it not: nothing of ours needs it."""
    done = run(written, lacks="_blake2")

    assert done.returncode == 0, done.stderr
    assert len(of_devices(receiver)) == 1


@pytest.mark.case("S2")
def test_what_a_full_disk_costs_is_counted(written, receiver):
    """Though the state cannot be saved: at once in the run's series, and for good."""
    assert push(written).status == 0
    receiver.fail("", faults.status(503))

    assert run(written, limit=100).returncode == 74
    assert run(written, limit=100).returncode == 74
    receiver.heal()

    assert push(written).status == 0
    assert of_run(receiver)[-1]["ecoflow_push_dropped_samples_total disk"] == 14
    assert state(written)["dropped"] == {"disk": 14}
    assert push(written).status == 0
    assert state(written)["dropped"] == {"disk": 14}


@pytest.mark.case("T3")
@pytest.mark.parametrize(("first", "second", "seconds"), [(-299, 299, 598)])
def test_a_clock_that_goes_back_within_bounds(
    first, second, seconds, written, cloud, receiver
):
    """299 s ahead, then 299 s behind: by the clock, not refused, and 75."""
    cloud.date_offset = receiver.date_offset = first
    assert push(written).status == 0
    cloud.date_offset = receiver.date_offset = second
    say_later(written, DELTA.sn, seconds)

    done = push(written)

    assert done.status == 75, done.stderr
    assert "the clock went back" in done.stderr
    assert len(of_devices(receiver)) == 1
    assert state(written)["dropped"] == {"clock": 7}


@pytest.mark.case("T7")
def test_a_process_that_was_stopped_goes_on(written, cloud, receiver):
    """A run that is stopped for seconds has no wrong clock."""
    import signal

    def stop(handler) -> None:
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        handler.send(cloud.answer(handler.current))

    cloud.fail("quota/all", stop)
    process = subprocess.Popen(
        [sys.executable, PUSH],
        env={"PATH": os.defpath, **written},
        stderr=subprocess.PIPE,
        text=True,
    )
    _, said = process.communicate(timeout=60)

    assert process.returncode == 0, said
    assert len(of_devices(receiver)) == 1
