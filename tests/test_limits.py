"""The host's limits: each is 71 or 75 with one line and the cure, and never our bug."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ecoflow_push.memory.files import read_regular
from ecoflow_push.memory.notes import Notes
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import RecordingServer
from tests.support import PUSH, ROOT, Run, free_port, push

#: Instead of a limit of one user's processes, which root has none of: a real user id
#: that nobody else has, while the effective one still reads every file.
AS_A_USER = (
    *("setpriv", f"--ruid={20_000 + os.getpid() % 10_000}"),
    "--bounding-set=-sys_resource,-sys_admin",
)


def limited(environ: dict[str, str], before: Sequence[str], *args: str) -> Run:
    """Run push.py behind a program that limits it."""
    program = shutil.which(before[0])
    # Never skipped: a suite that ran without would prove nothing.
    assert program, f"{before[0]} is missing: install it"
    done = subprocess.run(
        [program, *before[1:], sys.executable, PUSH, *args],
        env={"PATH": os.defpath, **environ},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def everything(environ, receiver, tmp_path):
    """A job with every kind of sink, and somebody who watches it."""
    with RecordingServer() as watcher:
        yield environ | {
            "REMOTE_WRITE_URL": receiver.write_url,
            "TEXTFILE_PATH": str(tmp_path / "text.prom"),
            "HEALTHCHECK_URL": f"{watcher.url}/ping",
            "ESTABLISH_ATTEMPTS": "2",
            "RUN_DEADLINE": "15",
        }


def assert_told(run: Run, receiver, *, others: Sequence[int] = ()) -> None:
    """One line says how it went, truly: nothing is ok that was not sent."""
    assert run.status in (0, 71, 75, *others), run.stderr
    # Python's own words, before there is a log: it does without that hash.
    codes = r"ERROR:root:code for hash .*?hash type \w+\n"
    said = re.sub(codes, "", run.stderr, count=0, flags=re.DOTALL)
    exits = [line for line in run.stderr.splitlines() if " exit " in f" {line}"]
    assert len(exits) == 1, run.stderr
    assert "bug" not in said
    assert "Traceback" not in said
    assert f"exit {run.status} " in exits[0]
    if run.status == 71:
        assert re.search("allow more|make room|look ", exits[0]), exits
    if "remote-write: ok" in run.stderr:
        # The device's, and the run's own.
        assert len(receiver.requests) >= 2
    receiver.requests.clear()


@pytest.mark.case("L9")
@pytest.mark.parametrize("files", range(5, 11))
def test_few_open_files(files, everything, receiver):
    """With no descriptor left a run is 71, whatever it was about to open."""
    run = limited(everything, ["prlimit", f"--nofile={files}:{files}"])

    assert_told(run, receiver)
    assert (run.status == 71) == (files < 9)
    if run.status:
        assert re.search("open (no more )?files: allow more: ulimit", run.stderr)


@pytest.mark.case("L9")
@pytest.mark.parametrize("threads", range(1, 5))
def test_few_threads(threads, everything, receiver):
    """Without a thread to be had a run is 71, and says what to raise."""
    is_root = os.geteuid() == 0
    user = AS_A_USER if is_root else ()
    # Of a user who has other processes, nobody knows how many there may be.
    most = threads if is_root else 1

    run = limited(everything, [*user, "prlimit", f"--nproc={most}:{most}"])

    assert_told(run, receiver)
    if most < 3:
        assert run.status == 71
        assert "no thread can be started: allow more: ulimit -u" in run.stderr


def test_a_process_that_stays_needs_threads(environ):
    """With --every, what cannot even begin is 71, and what can is tried again."""
    is_root = os.geteuid() == 0
    before = [*(AS_A_USER if is_root else ()), "prlimit", "--nproc=1:1"]
    listening = environ | {"EXPORTER_PORT": str(free_port())}

    run = limited(listening, before, "--every")
    tried = limited(environ, ["timeout", "3", *before], "--every=1")

    assert run.status == 71
    assert "no thread can be started" in run.stderr
    assert tried.stderr.count("exit 71 OSERR: no thread can be started") >= 2
    assert "bug" not in run.stderr + tried.stderr


@pytest.mark.case("L9")
def test_a_lock_does_not_outlast_who_could_not_go_on(tmp_path):
    """Where no file is left for the state, the lock is free again for the next run."""
    code = (
        "import os, resource, sys\n"
        "from ecoflow_push.errors import HostLimit\n"
        "from ecoflow_push.memory.state import State\n"
        "import ecoflow_push.limits, ecoflow_push.net.deadline\n"
        "folder = sys.argv[1]\n"
        "State.open(folder).close()\n"
        "most = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "lowest = os.dup(2)\n"
        "os.close(lowest)\n"
        # Two of them for the lock.
        "resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 2, most[1]))\n"
        "try:\n"
        "    State.open(folder)\n"
        "except HostLimit as exc:\n"
        "    print(exc)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, most)\n"
        "with State.open(folder) as state:\n"
        "    print(repr(state.trouble))\n"
    )
    (tmp_path / "state.json").write_text("{}")

    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr.count("LockedError") == 0
    said = done.stdout.splitlines()
    assert said[0].startswith("the process may open no more files"), done.stderr
    assert said[1:] == ["''"]


@pytest.fixture(scope="module")
def least() -> int:
    """Return the MiB of address space with which the program can say its version."""
    # With less the interpreter itself, without a program, may try again for ever.
    sizes = range(16, 200, 2)
    for size in sizes:
        if not limited({}, ["prlimit", f"--as={size << 20}"], "--version").status:
            return size
    raise AssertionError


@pytest.mark.case("L9")
@pytest.mark.parametrize("more", [*range(0, 48, 3), 200])
def test_little_memory(more, least, everything, receiver):
    """With too little memory a run is 71, with a little more it delivers."""
    run = limited(everything, ["prlimit", f"--as={(least + more) << 20}"])

    assert_told(run, receiver)
    if run.status == 71:
        assert "memory" in run.stderr
    if more == 0:
        assert run.status
    if more == 200:
        assert run.status == 0


def test_what_waits_is_read_with_little_memory(written, receiver):
    """To deliver small records from the spool, a small memory is enough."""
    receiver.fail("/", faults.status(503))
    stored = [push(written) for _ in range(3)]
    assert [run.status for run in stored] == [75] * 3
    receiver.heal()
    receiver.requests.clear()

    run = limited(written, ["prlimit", f"--as={160 << 20}"])

    assert run.status == 0, run.stderr
    assert "3 snapshots from the spool" in run.stderr


@pytest.mark.parametrize("files", range(5, 8))
def test_what_waits_stays_where_no_file_can_be_opened(files, written, receiver):
    """A run that can open nothing is 71, and what waited waits, and is delivered."""
    receiver.fail("/", faults.status(503))
    assert [push(written).status for _ in range(2)] == [75] * 2
    receiver.heal()
    receiver.requests.clear()

    run = limited(written, ["prlimit", f"--nofile={files}:{files}"])

    assert_told(run, receiver)
    after = push(written)
    assert after.status == 0
    assert run.status == 0 or " snapshots from the spool" in after.stderr


def test_a_small_file_needs_little(tmp_path):
    """Reading a file asks for as much memory as it is long, whatever is allowed."""
    small = tmp_path / "small"
    small.write_bytes(bytes(2000))
    code = (
        "import resource\n"
        "from ecoflow_push.memory.files import read_regular\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), -1))\n"
        f"print(len(read_regular({str(small)!r}, 64 << 20)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=PUSH.parent,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("2000\n", "")
    assert read_regular(str(small), 100) == bytes(101)


# What the kernel may refuse, and with what; what else it may lead to than 71 and 75,
# where only the text file, or the memory, is lost.
REFUSALS = {
    # A library that could not be loaded may be a damaged one (78).
    ("close", "EIO"): (1, 69, 74, 78),
    ("openat", "EMFILE"): (1,),
    ("openat", "EIO"): (1,),
    ("clone3", "EAGAIN"): (),
    ("mmap", "ENOMEM"): (1, 78),
    ("rename", "EROFS"): (1,),
    ("fsync", "EIO"): (1,),
    ("write", "ENOSPC"): (1,),
    ("write", "EDQUOT"): (1,),
    ("socket", "EMFILE"): (),
}


# Of other calls the kernel does not even tell it.
STRACE = ("strace", "-f", "--seccomp-bpf")


@pytest.mark.case("S2", "S3")
@pytest.mark.parametrize(("call", "error"), REFUSALS)
def test_one_call_that_the_kernel_refuses(call, error, everything, receiver, tmp_path):
    """Whichever call fails, once, a run tells it once, and not as our bug."""
    log = tmp_path / "log"
    traced = [*STRACE, "-o", str(log), "-e", f"trace={call},openat"]
    assert_told(limited(everything, traced), receiver)
    lines = log.read_text().splitlines()
    ours = next(n for n, line in enumerate(lines) if "ecoflow_push/start" in line)
    places = [
        sum(f" {call}(" in line for line in lines[: n + 1])
        for n, line in enumerate(lines)
        if f" {call}(" in line and n > ours
    ]
    assert places

    # The first, the last, and one between.
    for place in sorted({places[0], places[len(places) // 2], places[-1]}):
        inject = f"inject={call}:error={error}:when={place}"
        traced = [*STRACE, "-o", str(log), "-e", f"trace={call}", "-e", inject]
        run = limited(everything, traced)
        assert_told(run, receiver, others=REFUSALS[call, error])


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, Path.hardlink_to])
def test_notes_are_of_our_own(make, tmp_path):
    """What is under the name of the notes and is not ours goes, and is not written."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "state" / "notes"
    path.parent.mkdir()
    make(path, victim) if make is Path.hardlink_to else make(path)

    notes = Notes(str(path.parent))
    notes.open()
    notes.lost({"age": 3})
    again = Notes(str(path.parent))
    again.open()

    assert victim.read_text() == "precious"
    assert again.dropped == ({} if make is Path.mkdir else {"age": 3})
