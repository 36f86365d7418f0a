"""--drain: what waits in all folders is delivered, and nothing else is done."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from ecoflow_push.memory.spools import endpoint_folder
from ecoflow_push.memory.state import FILE_VERSION
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import Answer, RecordingServer
from tests.conftest import DELTA
from tests.drained import (
    JOBS,
    bare,
    draining,
    folder_of,
    said,
    spoil,
    states,
    stored,
    time_of,
    waiting,
)
from tests.receiver import Receiver
from tests.remote_write import ended, of_devices, of_run, spool_files
from tests.support import (
    eventually,
    free_port,
    push,
    push_anew,
)

CURE = "let it name the folder that the job keeps"


def test_everything_that_waits_is_delivered(written, receiver, cloud):
    """Of all folders, each sample once and in order; then nothing waits: 0.

    Nothing of a run is sent, no series ends, nothing is forgotten, and EcoFlow is not
    asked.
    """
    names = spoil(written, receiver)
    assert len(names) == 6
    before, asked = states(written), len(cloud.received)

    run = push(written, "--drain")

    assert run.status == 0, run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert len(cloud.received) == asked
    assert said(run).startswith("0 OK after ")
    assert said(run).endswith(
        "folders: 3 drained; 42 samples of 6 snapshots delivered; none waits"
    )
    assert waiting(written) == []
    there = [at for ats in stored(receiver).values() for at in ats]
    assert sorted(there) == sorted(map(time_of, names))
    assert all(ats == sorted(ats) for ats in stored(receiver).values())
    samples = [sample for request in of_devices(receiver) for sample in request]
    assert len(samples) == 42
    assert ended(samples) == set()
    assert of_run(receiver) == []
    assert len(receiver.requests) == len(of_devices(receiver))
    assert states(written) == before


def test_nothing_waits(written, receiver):
    """A drain of what is empty says so, asks nobody, and ends with 0."""
    assert push(written).status == 0
    before = len(receiver.received)
    (path,) = Path(written["STATE_DIR"]).glob("*/state.json")
    content = path.read_bytes()

    run = push(bare(written), "--drain")

    assert run.status == 0
    assert said(run).endswith(
        "folders: 1 empty; 0 samples of 0 snapshots delivered; none waits"
    )
    assert len(receiver.received) == before
    assert path.read_bytes() == content


def test_a_folder_without_any_account_is_empty_too(receiver, tmp_path):
    """A STATE_DIR in which nothing was kept yet, or nothing of ours, holds nothing."""
    (tmp_path / "lost+found" / "spool-0123456789ab").mkdir(parents=True)
    environ = {"REMOTE_WRITE_URL": receiver.write_url, "STATE_DIR": str(tmp_path)}

    run = push(environ, "--drain")

    assert run.status == 0
    assert "folders: none; 0 samples" in run.stderr


@pytest.mark.parametrize(
    "given",
    [
        {"ECOFLOW_ACCESS_KEY": "half a pair"},
        {"ECOFLOW_SOURCE": "mqtt", "ECOFLOW_DEVICE_SN": "!"},
        {"PUSHGATEWAY_URL": "nonsense", "ECOFLOW_API_HOST": "http://far"},
    ],
)
def test_no_account_is_looked_at(given, written, receiver):
    """Whatever the settings say of EcoFlow and of other sinks is not read."""
    spoil(written, receiver, JOBS[:1], 1)

    assert push({**bare(written), **given}, "--drain").status == 0

    assert waiting(written) == []


def test_settings_may_come_from_a_file(written, receiver, tmp_path):
    """--env-file goes with it."""
    spoil(written, receiver, JOBS[:1], 1)
    file = tmp_path / "env"
    file.write_text("".join(f"{k}={v}\n" for k, v in bare(written).items()))

    assert push({}, "--env-file", str(file), "--drain").status == 0

    assert waiting(written) == []


def test_nobody_is_told_but_the_receiver(written, receiver, tmp_path):
    """The dead man's switch is the runs' own, and so is a text file."""
    spoil(written, receiver, JOBS[:1], 1)
    with RecordingServer() as pings:
        environ = {
            **bare(written),
            "HEALTHCHECK_URL": pings.url,
            "TEXTFILE_PATH": str(tmp_path / "text.prom"),
        }
        assert push(environ, "--drain").status == 0
        assert pings.received == []
    assert not (tmp_path / "text.prom").exists()


# -- what keeps it from being delivered ---------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "most", "words"),
    [
        (faults.status(503), 75, 6, "HTTP 503"),
        (faults.status(503, Retry_After="300"), 75, 1, "HTTP 503"),
        (faults.reset(), 75, 2, "connection"),
        (faults.status(401), 77, 1, "HTTP 401"),
        (faults.status(404), 76, 2, "HTTP 404"),
        (faults.page(), 76, 2, "not the answer of a remote-write receiver"),
        # Both records of a folder, one after the other, and two harmless ones.
        (faults.status(400), 76, 8, "HTTP 400"),
    ],
    ids=["503", "pause", "reset", "401", "404", "page", "400"],
)
def test_a_receiver_that_takes_nothing(fault, status, most, words, written, receiver):
    """All stays as it is, the status is a run's, and few folders are tried.

    After two in vain it is known not to be them; after some answers, after one.
    """
    names = spoil(written, receiver)
    receiver.fail("", fault)
    before = states(written)
    heard = len(receiver.received)

    run = push({**bare(written), "ESTABLISH_ATTEMPTS": "1"}, "--drain")

    assert run.status == status, run.stderr
    assert words in said(run)
    assert "0 samples of 0 snapshots delivered; 42 of 6 wait; " in said(run)
    assert waiting(written) == names
    assert states(written) == before
    writes = [each for each in receiver.received[heard:] if each.method == "POST"]
    assert len(writes) <= most


def test_a_receiver_that_is_not_there(written, receiver):
    """Nobody listens: 75, after one folder, and the next drain delivers."""
    names = spoil(written, receiver)
    away = {**bare(written), "REMOTE_WRITE_URL": f"http://127.0.0.1:{free_port()}/"}
    folders = [Path(written["STATE_DIR"]) / name.partition("/")[0] for name in names]
    for folder in set(folders):
        (spool,) = folder.glob("spool-*")
        # As if that had been its address when they were stored.
        spool.rename(folder / _spool_of(away["REMOTE_WRITE_URL"]))

    run = push(away, "--drain")

    assert run.status == 75, run.stderr
    assert "folders: 2 not reached, 1 waiting; " in said(run)
    assert waiting(written) == names


def _spool_of(url: str) -> str:
    return os.path.basename(endpoint_folder("", url, ""))


def test_what_tells_content_from_a_door_is_no_series_of_a_run(written, receiver):
    """Refusals are held against the end of a series that never was, old and new."""
    spoil(written, receiver, JOBS[:1], 4)
    receiver.script += [Answer(400)] * 40

    run = push(bare(written), "--drain")

    assert run.status == 76, run.stderr
    probes = [r.samples for r in receiver.requests if not r.samples[0].label("device")]
    assert len(probes) == 2
    assert all(sample.is_stale for samples in probes for sample in samples)
    old, new = (samples[0].timestamp_ms for samples in probes)
    assert old < new
    assert len(waiting(written)) == 4


@pytest.mark.parametrize("answers", ["x-", "xx-", "xxx-x-"])
def test_what_is_refused_alone_is_set_aside(answers, written, receiver):
    """Nothing new is to come that tells whose fault it is: something harmless does.

    It is counted, kept beside the spool, and the next drain has nothing to do.
    """
    # Something harmless is tried after three, and behind all.
    records = answers.count("x")
    names = spoil(written, receiver, JOBS[:1], records)
    receiver.script += [Answer(400) if each == "x" else None for each in answers]

    run = push(bare(written), "--drain")

    assert run.status == 1, run.stderr
    assert "folders: 1 drained; 0 samples of 0 snapshots delivered; none" in said(run)
    lost = 7 * records
    assert f"{lost} samples dropped: the server fails on them alone" in run.stderr
    (fields,) = states(written).values()
    assert fields["dropped"] == {"failing": lost}
    aside = Path(written["STATE_DIR"]).glob("*/spool-*/bad/*")
    assert len(list(aside)) == len(names)
    assert push(bare(written), "--drain").status == 0


def test_what_is_too_old_for_the_server_waits(written, receiver):
    """A server that takes only what is new may be told to take the old: 76 until then.

    Then the next drain delivers it.
    """
    names = spoil(written, receiver, JOBS[:1], 1)
    receiver.script += [Answer(400), Answer(400), None]

    assert push(bare(written), "--drain").status == 76

    assert waiting(written) == names
    assert push(bare(written), "--drain").status == 0
    assert len(of_devices(receiver)) == 2


def test_the_lock_of_a_run_is_heeded(written, receiver):
    """A folder with a run at work is left to it and told: 1 beside others, else 75."""
    names = spoil(written, receiver, JOBS[:2])
    attic = folder_of(written, "attic")
    with open(attic / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        run = push(bare(written), "--drain")

        assert run.status == 1, run.stderr
        assert f" WARNING {attic}: a run is at work there; 14 samples" in run.stderr
        assert "folders: 1 drained, 1 locked; 14 samples of 2 snapshots" in said(run)
        left = [name for name in names if name.startswith(attic.name)]
        assert waiting(written) == left
        heard = len(receiver.received)

        again = push(bare(written), "--drain")

        assert again.status == 75
        assert "folders: 1 empty, 1 locked; 0 samples" in said(again)
        assert len(receiver.received) == heard
        assert waiting(written) == left

    assert push(bare(written), "--drain").status == 0
    assert waiting(written) == []


def test_a_run_heeds_the_lock_of_a_drain(written, receiver):
    """While a folder is drained, its job's run leaves with 75; others' runs go on."""
    spoil(written, receiver, JOBS[:1])
    receiver.fail("", faults.hang())
    with draining(bare(written)) as process:
        lock = folder_of(written, "attic") / "lock"
        assert eventually(lambda: _is_locked(lock))

        assert push({**written, "PUSH_JOB": "attic"}).status == 75
        receiver.heal()
        assert push({**written, "PUSH_JOB": "other"}).status == 0
        process.kill()


def _is_locked(path: Path) -> bool:
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def test_what_waits_for_another_address_stays(written, receiver):
    """It is told, and left alone to the last file; that it waits is no fault here."""
    spoil(written, receiver, JOBS[:2])
    before = _files(written)
    with Receiver() as other:
        environ = {**bare(written), "REMOTE_WRITE_URL": other.write_url}

        run = push({**environ, "SPOOL_MAX_AGE": "0", "SPOOL_MAX_BYTES": "0"}, "--drain")

        assert run.status == 0, run.stderr
        assert (
            " WARNING remote-write: 28 samples in 2 folders wait for another address,"
            " user or tenant than is set now, and stay: drain them with that one"
        ) in run.stderr
        assert "folders: 2 empty; 0 samples" in said(run)
        assert other.received == []
    assert _files(written) == before


def test_only_the_spool_of_this_address_is_touched(written, receiver):
    """In a folder with spools of two addresses the other one stays as it is."""
    spoil(written, receiver, JOBS[:1])
    with Receiver() as other:
        elsewhere = {**written, "REMOTE_WRITE_URL": other.write_url}
        other.fail("", faults.status(503))
        assert push({**elsewhere, "PUSH_JOB": "attic"}).status == 75
        (own,) = {p.parent for p in spool_files(written)} - {
            p.parent for p in spool_files(written) if len(list(p.parent.glob("0*"))) > 1
        }
        before = {p: p.read_bytes() for p in own.rglob("*") if p.is_file()}

        run = push({**bare(written), "SPOOL_MAX_BYTES": "0"}, "--drain")

        assert run.status == 0, run.stderr
        assert "7 samples in 1 folders wait for another address" in run.stderr
        assert {p: p.read_bytes() for p in own.rglob("*") if p.is_file()} == before
        other.heal()
        assert push(bare(elsewhere), "--drain").status == 0
        assert len(of_devices(other)) == 1
    assert waiting(written) == []


def _files(written: dict[str, str]) -> dict[str, bytes]:
    paths = Path(written["STATE_DIR"]).rglob("*")
    return {str(path): path.read_bytes() for path in paths if path.is_file()}


def test_a_newer_versions_folder_is_left_alone(written, receiver):
    """It is told, with the way out; others are drained: 1, and alone it is 78."""
    spoil(written, receiver, JOBS[:2])
    attic = folder_of(written, "attic")
    path = attic / "state.json"
    path.write_text(json.dumps({"version": FILE_VERSION + 1}))
    before = {p: p.read_bytes() for p in attic.rglob("*") if p.is_file()}

    run = push(bare(written), "--drain")

    assert run.status == 1, run.stderr
    assert "folders: 1 drained, 1 left alone; 14 samples of 2 snapshots" in said(run)
    assert "14 of 2 wait" in said(run)
    assert "newer version of this program: update this program" in said(run)
    assert {p: p.read_bytes() for p in attic.rglob("*") if p.is_file()} == before
    assert push(bare(written), "--drain").status == 78


def test_a_spool_that_cannot_be_used_is_not_called_drained(written, receiver):
    """What cannot be looked at waits on, and the line says so: 78."""
    spoil(written, receiver, JOBS[:1])
    (bad,) = Path(written["STATE_DIR"]).glob("*/spool-*/bad")
    bad.rmdir()
    bad.symlink_to("/tmp")

    run = push(bare(written), "--drain")

    assert run.status == 78, run.stderr
    assert "folders: 1 waiting; 0 samples of 0 snapshots" in said(run)
    assert "it is a symbolic link: let STATE_DIR name a folder" in said(run)
    assert len(waiting(written)) == 2


def test_damage_is_told_and_costs_itself_alone(written, receiver):
    """A damaged file is set aside, counted in its folder's totals, and it is 1."""
    spoil(written, receiver, JOBS[:1], 3)
    damaged = spool_files(written)[1]
    damaged.write_bytes(damaged.read_bytes()[:-1])

    run = push(bare(written), "--drain")

    assert run.status == 1, run.stderr
    assert "folders: 1 drained; 14 samples of 2 snapshots delivered; none" in said(run)
    assert "7 samples dropped: their file in the spool was damaged" in run.stderr
    (fields,) = states(written).values()
    assert fields["dropped"] == {"damaged": 7}
    assert push(bare(written), "--drain").status == 0


def test_nothing_is_too_old_for_a_drain(written, receiver):
    """The bounds of the spool are the job's: a drain drops nothing for age or size."""
    spoil(written, receiver, JOBS[:1])
    time.sleep(0.2)
    strict = {"SPOOL_MAX_AGE": "0.1", "SPOOL_MAX_BYTES": "10"}

    run = push({**bare(written), **strict}, "--drain")

    assert run.status == 0, run.stderr
    assert "14 samples of 2 snapshots delivered" in run.stderr


def test_a_wrong_clock_delivers_nothing(written, receiver):
    """Where the receiver's clock contradicts ours, all waits: 75."""
    names = spoil(written, receiver)
    receiver.date_offset = 36_000

    run = push(bare(written), "--drain")

    assert run.status == 75
    assert "s behind the servers': set the clock, and keep it with NTP" in said(run)
    # Of the third nobody needs to know more.
    assert "folders: 1 not reached, 2 waiting; " in said(run)
    assert waiting(written) == names
    assert receiver.requests == []


# -- what it is not -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"REMOTE_WRITE_URL": ""},
            "REMOTE_WRITE_URL: missing: it says where to deliver what waits",
        ),
        (
            {"STATE_DIR": "none"},
            f"STATE_DIR: none, where nothing can wait: {CURE}",
        ),
        (
            {"STATE_DIR": "/nonexistent/state"},
            f"STATE_DIR: no folder /nonexistent/state: {CURE}",
        ),
        ({"STATE_DIR": "", "HOME": "/nonexistent"}, "no folder /nonexistent/.local"),
        ({"REMOTE_WRITE_URL": "nonsense"}, "REMOTE_WRITE_URL: expected http(s)://"),
        ({"RUN_DEADLINE": "x"}, "RUN_DEADLINE: expected seconds"),
    ],
    ids=["no address", "none", "missing", "default", "malformed", "deadline"],
)
def test_a_drain_that_cannot_begin(given, words, written):
    """It is 78, in one line that says what to do, and nothing is made."""
    run = push({**bare(written), "STATE_DIR": "/tmp", **given}, "--drain")

    assert run.status == 78
    (line,) = run.stderr.splitlines()
    assert words in line
    assert not Path("/nonexistent").exists()


@pytest.mark.parametrize(
    "other",
    [
        ["--every"],
        ["--every", "60"],
        ["--dry-run"],
        ["--list-devices"],
        ["--check"],
        ["--demo"],
        ["--init"],
        ["--device", DELTA.sn],
    ],
    ids=" ".join,
)
def test_it_goes_with_nothing_else(other, written):
    """Beside what is of a run it is a wrong option: 64."""
    run = push_anew(bare(written), "--drain", *other)

    assert run.status == 64
    assert "is wrong" in run.stderr


def test_a_copy_is_as_good(written, receiver, tmp_path):
    """A volume that moved to another machine is drained there."""
    spoil(written, receiver)
    moved = tmp_path / "moved"
    shutil.move(written["STATE_DIR"], moved)

    assert push({**bare(written), "STATE_DIR": str(moved)}, "--drain").status == 0

    assert len(of_devices(receiver)) >= 3
