"""STATE_DIR=none: a job that remembers nothing, on purpose, and writes nowhere."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from ecoflow_push.config.environ import Reader
from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import SettingsError
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import RecordingServer
from ecoflow_push.start.lock_probe import _folder
from tests.conftest import DELTA
from tests.images import trace_or_skip
from tests.receiver import Receiver
from tests.remote_write import of_devices, of_run
from tests.support import PUSH, eventually, push, values
from tests.test_settings import ACCOUNT, BASE

LIST, QUOTA = "list", "quota"
#: What makes a name in the file system, takes one away, or changes what one stands for.
MAKING = (
    *("creat", "mkdir", "mkdirat", "mknod", "mknodat", "rename", "renameat"),
    *("renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat"),
    *("rmdir", "truncate", "ftruncate", "chmod", "fchmod", "fchmodat", "flock"),
)
PLAIN = (
    "STATE_DIR is none: nothing is remembered, and what no sink takes is lost at once;"
    " that is meant for developer keys where there is no disk"
)
OPENED = re.compile(r'open(?:at)?\(.*"(.*)", (\S*O_(?:WRONLY|RDWR|CREAT)\S*)')


@pytest.fixture
def forgetful(written, pushgateway) -> dict[str, str]:
    """The settings of a job with both sinks and no memory, nor a home."""
    return {
        **written,
        "PUSHGATEWAY_URL": pushgateway.url,
        "STATE_DIR": "none",
        "HOME": "/dev/null/home",
    }


def names(receiver: Receiver) -> set[str]:
    return {sample.name for request in receiver.requests for sample in request.samples}


@pytest.mark.parametrize("spelling", ["none", "None", " NONE "])
def test_a_run_says_nothing_of_a_memory(spelling, forgetful, receiver, pushgateway):
    """Run after run it delivers, warns of nothing, and says no series of a memory."""
    for _ in range(2):
        run = push({**forgetful, "STATE_DIR": spelling})

        assert run.status == 0, run.stderr
        (line,) = run.stderr.splitlines()
        assert " INFO exit 0 OK after " in line

    assert len(of_devices(receiver)) == len(of_run(receiver)) == 2
    said = {name for name, _ in pushgateway.series()} | names(receiver)
    assert {"ecoflow_push_success", "ecoflow_push_exit_status"} <= said
    assert "ecoflow_snapshot_timestamp_seconds" in said
    of_memory = ("runs_total", "failures_total", "spool_", "dropped_samples")
    assert not {name for name in said if any(each in name for each in of_memory)}
    assert "ecoflow_data_last_change_timestamp_seconds" not in said


def test_what_is_not_taken_is_lost(forgetful, receiver):
    """What remote-write does not take, nobody keeps: 74, and the line says why."""
    del forgetful["PUSHGATEWAY_URL"]
    receiver.fail("", faults.status(503))

    run = push(forgetful)

    assert run.status == 74, run.stderr
    assert "not stored either: STATE_DIR is none" in run.stderr
    assert "7 samples dropped: they could be neither delivered nor stored" in run.stderr
    receiver.heal()
    assert push(forgetful).status == 0
    assert len(of_devices(receiver)) == 1


@pytest.mark.parametrize(
    ("fault", "status"), [(faults.status(401), 77), (faults.status(404), 76)]
)
def test_who_refuses_is_named(fault, status, forgetful, receiver):
    """A receiver that refuses us ends with its own status, as it does with a memory."""
    del forgetful["PUSHGATEWAY_URL"]
    receiver.fail("", fault)

    assert push(forgetful).status == status


def test_two_runs_at_once_do_not_wait(forgetful, cloud, receiver):
    """There is no lock: beside a run that hangs another one does its work."""
    cloud.fail(QUOTA, faults.hang())
    command = [sys.executable, str(PUSH)]
    hanging = subprocess.Popen(command, env=forgetful, stderr=subprocess.DEVNULL)
    try:
        assert eventually(lambda: any(QUOTA in r.path for r in cloud.received))
        cloud.heal()

        assert push(forgetful).status == 0
    finally:
        hanging.kill()
        hanging.wait()


def test_an_unread_device_loses_its_values_at_once(forgetful, cloud, pushgateway):
    """Nobody knows how old the values on the gateway are, so they go."""
    assert push(forgetful).status == 0
    assert values(pushgateway.device(DELTA.sn))
    cloud.fail(QUOTA, faults.status(500))

    assert push(forgetful).status == 69

    assert not values(pushgateway.device(DELTA.sn))


AUTO = {**BASE, **ACCOUNT, "ECOFLOW_SOURCE": "auto"}


@pytest.mark.parametrize("given", [ACCOUNT, AUTO, {**AUTO, "ECOFLOW_SOURCE": "mqtt"}])
@pytest.mark.parametrize("args", [[], ["--check"], ["--list-devices"]])
def test_the_app_account_needs_a_memory(given, args):
    """It would log in at every run, so it is refused with 78, and told what to do."""
    run = push(
        {**given, "PUSHGATEWAY_URL": "http://127.0.0.1:9", "STATE_DIR": "none"}, *args
    )

    assert run.status == 78
    assert (
        "STATE_DIR: none, and without a memory every run would log in: let it name a"
        " folder that lasts, or use developer keys alone"
    ) in run.stdout + run.stderr


def test_an_account_that_is_not_read_needs_none():
    """With ECOFLOW_SOURCE=rest the app account's variables may be there."""
    given = {**AUTO, "ECOFLOW_SOURCE": "rest", "STATE_DIR": "none"}

    assert Settings.from_environ(given).state_dir is None


def test_what_is_no_path_is_still_a_fault():
    """Only the word itself is it; what looks like it is no absolute path."""
    for other in ("nowhere", "none/", "./none"):
        with pytest.raises(SettingsError, match="expected an absolute path"):
            Settings.from_environ({**BASE, "STATE_DIR": other})


def test_a_folder_of_that_name_has_a_path(forgetful, tmp_path):
    """A folder that is called none is given by its path, and used as any other."""
    folder = tmp_path / "none"

    assert push({**forgetful, "STATE_DIR": str(folder)}).status == 0

    assert list(folder.glob("*/state.json"))


def test_the_look_at_the_lock_looks_nowhere():
    """Before the road nothing is asked for a folder either."""
    assert _folder(Reader({**BASE, "STATE_DIR": "none"})) is None


def test_a_check_says_so(forgetful, pushgateway):
    """--check finds it in order, in plain words, and tries no folder."""
    run = push(forgetful, "--check")

    assert run.status == 0, run.stdout
    said = [line for line in run.stdout.splitlines() if "STATE_DIR" in line]
    assert said == [
        "set      STATE_DIR: none (environment)",
        f"ok       state: {PLAIN}",
    ]
    assert "spool" not in run.stdout


@pytest.mark.parametrize("option", ["--list-devices", "--dry-run"])
def test_what_prints_prints(option, forgetful):
    """The device is there, and there is no word of a memory."""
    run = push(forgetful, option)

    assert run.status == 0
    assert DELTA.sn in run.stdout
    assert "runs_total" not in run.stdout
    assert len(run.stderr.splitlines()) == 1


def test_a_healthcheck_that_fails_is_told_each_run(forgetful):
    """Where nothing is remembered, neither is that it was told."""
    with RecordingServer() as pings:
        pings.fail("", faults.status(404))
        for _ in range(2):
            run = push({**forgetful, "HEALTHCHECK_URL": f"{pings.url}/x"})

            assert run.status == 0
            assert run.stderr.count(" WARNING healthcheck ") == 1


def test_it_stays(forgetful, receiver, tmp_path):
    """--every runs on its beats, warns of nothing, and ends with 0."""
    log = tmp_path / "log"
    with open(log, "w", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(PUSH), "--every", "1"],
            env={**forgetful, "RUN_DEADLINE": "50"},
            stderr=stderr,
        )
        try:
            assert eventually(lambda: len(of_devices(receiver)) >= 3)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert "WARNING" not in log.read_text()
    assert log.read_text().count(" exit 0 OK after ") >= 2


@pytest.mark.parametrize(
    ("args", "is_up", "status"),
    [
        ([], True, 0),
        ([], False, 1),
        (["--check"], True, 0),
        (["--check"], False, 1),
        (["--list-devices"], False, 0),
        (["--dry-run"], False, 0),
    ],
)
def test_nothing_is_written_anywhere(
    args, is_up, status, forgetful, receiver, tmp_path
):
    """No file is opened for writing, no name is made, no folder of a state asked for.

    Whether all is well, or what was collected is lost and the monitor fails as well.
    """
    trace_or_skip()
    log, here = tmp_path / "log", tmp_path / "here"
    here.mkdir()
    traced = [shutil.which("strace") or "", "-f", "-qq", "-o", str(log), "-e"]
    traced += ["trace=%file,flock,ftruncate,fchmod", sys.executable, "-B", str(PUSH)]
    with RecordingServer() as pings:
        for server in () if is_up else (receiver, pings):
            server.fail("", faults.status(503))
        forgetful["HEALTHCHECK_URL"] = f"{pings.url}/x"
        done = subprocess.run(
            [*traced, *args],
            env={"PATH": os.defpath, **forgetful},
            cwd=here,
            capture_output=True,
            check=False,
            timeout=120,
        )

    assert done.returncode == status, done.stderr
    said = log.read_text()
    opened = {path for path, _ in OPENED.findall(said)}
    assert opened <= {os.devnull}, opened
    assert re.findall(rf"\b(?:{'|'.join(MAKING)})\(.*", said) == []
    # A folder of that name, the home that there is none, and what would be in it.
    places = r'"none|"[^"]*(/none["/]|/dev/null/|\.local/state|spool-)'
    places += r'|"/dev/null", \S*O_DIRECTORY'
    asked = [line for line in said.splitlines() if re.search(places, line)]
    assert asked == []
    assert list(here.iterdir()) == []
