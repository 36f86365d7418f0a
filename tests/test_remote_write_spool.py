"""Remote-write: what waits on the disk, and what damages it."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedDevice
from ecoflow_push.simulator.server import Answer
from ecoflow_push.sinks.failing import MOST_FAILING_RUNS
from tests.conftest import DELTA, STREAM
from tests.receiver import Receiver
from tests.remote_write import ended, of_devices, of_run, spool_files, state
from tests.support import PUSH, push, push_anew


@pytest.mark.case("W10")
def test_what_is_too_old_is_dropped(written, receiver):
    """What waited longer than SPOOL_MAX_AGE is dropped and counted, not sent."""
    receiver.fail("", faults.status(503))
    assert push_anew(written).status == 75
    receiver.heal()
    receiver.requests.clear()
    time.sleep(0.3)

    run = push({**written, "SPOOL_MAX_AGE": "0.25"})

    assert run.status == 1, run.stderr
    assert "7 samples that waited are lost" in run.stderr
    assert "7 samples dropped: they waited longer than SPOOL_MAX_AGE" in run.stderr
    assert len(of_devices(receiver)) == 1
    (own,) = of_run(receiver)
    assert own["ecoflow_push_dropped_samples_total age"] == 7


@pytest.mark.case("W10", "S12")
def test_what_does_not_fit_is_dropped_oldest_first(written, receiver):
    """Beyond SPOOL_MAX_BYTES the oldest are dropped, after all was tried."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    (first,) = spool_files(written)
    size = first.stat().st_size

    run = push({**written, "SPOOL_MAX_BYTES": str(size + 20)})

    assert run.status == 75
    assert "7 samples dropped: the spool is larger than SPOOL_MAX_BYTES" in run.stderr
    (second,) = spool_files(written)
    assert second.name > first.name
    assert state(written)["dropped"] == {"size": 7}


def test_a_snapshot_that_does_not_fit_is_lost(written, receiver):
    """If not even the fresh snapshot may wait, the status says so: 74."""
    receiver.fail("", faults.status(503))

    run = push({**written, "SPOOL_MAX_BYTES": "0"})

    assert run.status == 74
    assert "not stored either: SPOOL_MAX_BYTES is too small" in run.stderr
    assert spool_files(written) == []
    assert state(written)["dropped"] == {"size": 7}


def test_the_demo_stores_nothing(receiver):
    """A demo writes to the receiver; what that refuses is lost, and said to be."""
    environ = {"REMOTE_WRITE_URL": receiver.write_url}
    assert push(environ, "--demo").status == 0
    jobs = {s.label("job") for r in receiver.requests for s in r.samples}
    assert jobs == {"ecoflow_demo", "ecoflow_demo_push"}
    receiver.fail("", faults.status(503))

    assert push({**environ, "RETRY_TIMEOUT": "0.05"}, "--demo").status == 74


@pytest.mark.case("S9")
def test_damage_costs_itself_alone(written, receiver):
    """A damaged file is set aside, reported and counted; the others arrive."""
    receiver.fail("", faults.status(503))
    for _ in range(3):
        assert push(written).status == 75
    second = spool_files(written)[1]
    content = bytearray(second.read_bytes())
    content[-1] ^= 1
    second.write_bytes(content)
    receiver.heal()

    run = push(written)

    assert run.status == 1, run.stderr
    assert "7 samples dropped: their file in the spool was damaged" in run.stderr
    assert [p.name for p in spool_files(written, "spool-*/bad/*")] == [second.name]
    assert spool_files(written) == []
    of_soc = [p for k, p in receiver.stored.items() if "pd_soc" in dict(k)["__name__"]]
    assert [len(points) for points in of_soc] == [3]


def test_another_address_gets_its_own_spool(written, receiver):
    """What waits for one address is not sent to another one, and is not lost."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    with Receiver() as other:
        run = push({**written, "REMOTE_WRITE_URL": other.write_url})

        assert run.status == 0, run.stderr
        assert "7 samples wait for another address" in run.stderr
        assert len(of_devices(other)) == 1
        old = push(
            {**written, "REMOTE_WRITE_URL": other.write_url, "SPOOL_MAX_AGE": "0"}
        )
        assert "7 samples dropped: they waited for another endpoint" in old.stderr
        # Said once a day, and no fault of this endpoint.
        assert old.status == 0
        assert "wait for another address" not in old.stderr
    assert spool_files(written) == []


@pytest.mark.case("S1")
@pytest.mark.parametrize("is_up", [True, False])
def test_without_a_state_folder(is_up, written, receiver, tmp_path):
    """Where nothing can be stored, what can be delivered is; else it is lost: 74."""
    (tmp_path / "file").write_text("")
    written["STATE_DIR"] = str(tmp_path / "file" / "state")
    if not is_up:
        receiver.fail("", faults.status(503))

    run = push(written)

    assert run.status == (0 if is_up else 74), run.stderr
    assert "cannot use the state folder" in run.stderr, run.stderr
    assert ("7 samples dropped: they could be neither" in run.stderr) == (not is_up)
    assert len(of_devices(receiver)) == is_up
    assert "Traceback" not in run.stderr


@pytest.mark.case("S2", "S5")
def test_a_full_disk_still_delivers(written, receiver):
    """On a full disk the snapshot is sent unstored; what waited is sent before it."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    receiver.heal()

    done = subprocess.run(
        # -B, or an import leaves a module of 100 bytes.
        [sys.executable, "-B", PUSH],
        env={"PATH": os.defpath, **written},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )

    assert done.returncode == 0, done.stderr
    assert "cannot write the spool" in done.stderr
    times = [samples[0].timestamp_ms for samples in of_devices(receiver)]
    assert len(times) == 2
    assert times == sorted(times)
    assert spool_files(written) == []


def test_only_the_owner_can_read_what_waits(written, receiver):
    """Folders are 0700, files 0600, and a name tells the serial but no secret."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75

    for path in Path(written["STATE_DIR"]).rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_a_state_from_elsewhere_is_no_crash(written, receiver):
    """A version that nobody knows is as good as none."""
    written["REMOTE_WRITE_VERSION"] = "auto"
    assert push(written).status == 0
    (path,) = Path(written["STATE_DIR"]).glob("*/state.json")
    found = json.loads(path.read_text())
    found["endpoints"][0]["version"] = "3"
    path.write_text(json.dumps(found))

    assert push(written).status == 0


def test_10_runs_means_in_a_row(written, receiver):
    """Any other trouble between them starts the count of 5xx anew."""
    written["ESTABLISH_ATTEMPTS"] = "1"
    for fault in [faults.status(500)] * 9 + [faults.reset()] + [faults.status(500)] * 2:
        receiver.heal()
        receiver.fail("", fault)
        assert push(written).status == 75
    receiver.heal()
    receiver.script = [Answer(500)]

    assert push(written).status == 75

    assert state(written)["dropped"] == {}


def test_a_server_that_comes_back_costs_nobody_a_record(written, cloud, receiver):
    """However long it was down: a device that it fails on once has its turn later."""
    written["ESTABLISH_ATTEMPTS"] = "1"
    cloud.devices[:] = [DELTA, STREAM]
    receiver.fail("", faults.status(503))
    for _ in range(MOST_FAILING_RUNS - 1):
        assert push(written).status == 75
    receiver.heal()
    receiver.script = [Answer(503)]

    assert push(written).status == 75
    assert push(written).status == 0

    assert state(written)["dropped"] == {}
    of_soc = [p for k, p in receiver.stored.items() if "pd_soc" in dict(k)["__name__"]]
    assert [len(points) for points in of_soc] == [MOST_FAILING_RUNS + 1]


def test_a_damaged_record_hides_no_series(written, cloud, receiver):
    """A key first seen in an outage ends, though the newest record is damaged."""
    assert push(written).status == 0
    receiver.fail("", faults.status(503))
    more = {**(DELTA.quotas or {}), "pd.newKey": 1}
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, more, "Garage", "DELTA 2")]
    for _ in range(2):
        assert push(written).status == 75
    newest = spool_files(written)[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    receiver.heal()
    cloud.devices[:] = [DELTA]

    assert push(written).status == 1

    assert "ecoflow_pd_new_key" in ended(of_devices(receiver)[-1])


@pytest.mark.case("S10")
def test_junk_from_the_future_blocks_nothing(written, receiver):
    """A junk file with a name from the future is dropped; the rest goes on."""
    assert push(written).status == 0
    folder = spool_files(written, "spool-*")[0]
    (folder / f"999999999999999.1.{DELTA.sn}").write_text("junk")

    assert push(written).status == 0
    assert push(written).status == 0

    assert spool_files(written, "spool-*/9*") == []
    assert state(written)["dropped"] == {"clock": 1}


@pytest.mark.case("S13")
def test_the_bound_holds_for_all_endpoints_together(written, receiver):
    """What waits for other addresses counts, goes first, and leaves no folder."""
    receiver.fail("", faults.status(503))
    for number in range(4):
        url = f"{receiver.write_url}?n={number}"
        assert push({**written, "REMOTE_WRITE_URL": url}).status == 75
    size = max(path.stat().st_size for path in spool_files(written))

    run = push({**written, "SPOOL_MAX_BYTES": str(5 * size // 2)})

    assert run.status == 75, run.stderr
    assert sum(path.stat().st_size for path in spool_files(written)) <= 5 * size // 2
    assert state(written)["dropped"] == {"elsewhere": 21}
    receiver.heal()
    assert push({**written, "SPOOL_MAX_AGE": "0"}).status == 1
    assert len(spool_files(written, "spool-*")) == 1


@pytest.mark.case("S10")
def test_symbolic_links_are_not_followed(written, receiver, tmp_path):
    """A link in the state folder is left alone, and so is what it points to."""
    assert push(written).status == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious.tmp").write_text("x")
    (last,) = spool_files(written, "spool-*/last")
    shutil.rmtree(last)
    last.symlink_to(elsewhere)
    (last.parent.parent / "spool-other").symlink_to(elsewhere)

    run = push(written)

    assert run.status == 0
    assert "it is a symbolic link" in run.stderr
    assert [path.name for path in elsewhere.iterdir()] == ["precious.tmp"]


@pytest.mark.case("S10")
@pytest.mark.parametrize("mode", ["write-ahead", "on-failure"])
def test_a_linked_spool_leaves_alone_what_it_points_to(
    mode, written, receiver, tmp_path
):
    """Not even the folder's time changes; what is new is delivered without it."""
    assert push(written).status == 0
    folder = spool_files(written, "spool-*/last")[0].parent
    elsewhere = folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(elsewhere)
    os.utime(elsewhere, (1, 1))

    run = push({**written, "SPOOL_MODE": mode})

    assert run.status == 0, run.stderr
    assert "it is a symbolic link" in run.stderr
    assert len(of_devices(receiver)) == 2
    assert elsewhere.stat().st_mtime == 1


def test_a_dry_run_says_nothing_of_the_spool(written, receiver):
    """What waits is not looked at by --dry-run, and so not spoken of."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75

    run = push(written, "--dry-run")

    assert run.status == 0
    assert "push_spool_samples" not in run.stdout
    assert len(spool_files(written)) == 1


def push_read_only(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run push.py where the disk of the state's folder cannot be written."""
    folder = environ["STATE_DIR"]
    there = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
    # The mount is in a namespace of its own, and over with it.
    done = subprocess.run(
        [
            "unshare",
            "-m",
            "sh",
            "-c",
            f"{there} || exit 99; exec {sys.executable} {PUSH}",
        ],
        env={"PATH": os.defpath, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode == 99 or "unshare failed" in done.stderr:
        pytest.skip("this user may mount nothing: a disk cannot be made read-only")
    return done


@pytest.mark.case("S4")
def test_a_disk_that_became_read_only(written, receiver):
    """A run delivers, says so, and heeds the lock; what waits waits for the disk."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    receiver.heal()
    (waiting,) = spool_files(written)

    done = push_read_only(written)

    assert done.returncode == 0, done.stderr
    for trouble in ("cannot use the spool", "cannot write the state folder"):
        assert done.stderr.count(f" WARNING {trouble}") == 1
    assert "Traceback" not in done.stderr
    assert len(of_devices(receiver)) == 1
    assert spool_files(written) == [waiting]

    heard = len(receiver.received)
    with open(waiting.parent.parent / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert push_read_only(written).returncode == 75
    assert len(receiver.received) == heard

    # Where the disk is whole again it is sent, to a server that is ahead by now.
    run = push(written)
    assert run.status == 1
    assert "out of order" in run.stderr
    assert state(written)["dropped"] == {"refused": 7}
    assert spool_files(written) == []


def test_what_waits_needs_no_memory(written, receiver):
    """A run that cannot read the state still writes what waits before what is new."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    receiver.heal()
    receiver.requests.clear()
    (path,) = Path(written["STATE_DIR"]).glob("*/state.json")
    aside = path.rename(path.with_name("aside"))
    path.mkdir()

    run = push(written)

    assert run.status == 0, run.stderr
    assert "(1 snapshots from the spool)" in run.stderr
    assert "cannot read the state folder" in run.stderr
    assert len(of_devices(receiver)) == 2
    assert spool_files(written) == []
    path.rmdir()
    aside.rename(path)
    assert push(written).status == 0
    assert not state(written)["dropped"]


def test_what_could_not_be_written_first_is_not_taken_for_written(written, receiver):
    """What waited while the spool could not be opened, and is refused, is counted."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    receiver.heal()
    (bad,) = Path(written["STATE_DIR"]).glob("*/spool-*/bad")
    bad.rmdir()
    bad.touch()
    shut = push(written)
    assert shut.status == 0, shut.stderr
    assert "cannot use the spool" in shut.stderr
    bad.unlink()

    run = push(written)

    assert run.status == 1, run.stderr
    assert "7 samples dropped: the server refused their snapshot" in run.stderr
    assert state(written)["dropped"] == {"refused": 7}
