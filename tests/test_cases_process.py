"""Cases of the catalogue about the process: locks, limits, streams, and two of it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from ecoflow_push.errors import LockedError
from ecoflow_push.memory.files import release
from ecoflow_push.memory.lock import hold, is_held
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import Answer
from tests.conftest import DELTA
from tests.remote_write import of_devices
from tests.support import LATE, PUSH, ROOT, ended_by, eventually, push, values

LIST = "device/list"
DATE = "Sat, 31 Dec 2016 {} GMT"


@pytest.fixture
def at_work(environ, cloud):
    """A run that waits for EcoFlow's list until it is let go: the process, and how."""
    gone_on = Event()

    def fault(handler) -> None:
        gone_on.wait(60)
        handler.send(cloud.answer(handler.current))

    cloud.fail(LIST, fault, times=1)
    process = subprocess.Popen(
        [sys.executable, PUSH], env=environ, stderr=subprocess.PIPE, text=True
    )
    assert eventually(lambda: cloud.received)
    yield process, gone_on
    gone_on.set()
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)


def state_folder_of(environ: dict[str, str]) -> Path:
    (folder,) = Path(environ["STATE_DIR"]).iterdir()
    return folder


@pytest.mark.case("L3")
def test_a_run_that_is_stopped_keeps_the_lock(at_work, environ, cloud, pushgateway):
    """Of a stopped run the lock is not broken; it goes on and delivers."""
    process, gone_on = at_work
    process.send_signal(signal.SIGSTOP)

    others = [push(environ) for _ in range(3)]

    assert [run.status for run in others] == [75] * 3
    assert all("another run is still at work" in run.stderr for run in others)
    assert len(cloud.received) == 1
    assert not pushgateway.groups()
    gone_on.set()
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=60) == 0
    assert values(pushgateway.device(DELTA.sn))
    assert push(environ).status == 0


def put_another(path: Path) -> None:
    path.unlink()
    path.touch(0o600)


REPLACEMENTS: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "another file": put_another,
    "moved away": lambda path: path.rename(path.with_name("lock.old")),
}


@pytest.mark.case("L4")
@pytest.mark.parametrize("how", REPLACEMENTS)
def test_no_lock_is_broken_by_its_file(how, at_work, environ, cloud):
    """Whoever removes or replaces the lock's file lets no second run work."""
    process, gone_on = at_work
    REPLACEMENTS[how](state_folder_of(environ) / "lock")

    run = push(environ)

    assert run.status == 75
    assert "another run is still at work" in run.stderr
    assert len(cloud.received) == 1
    gone_on.set()
    assert process.wait(timeout=60) == 0
    assert push(environ).status == 0


@pytest.mark.case("L4")
def test_the_folder_is_the_lock(tmp_path):
    """Who holds it has the folder, and the file, which is all that earlier ones ask."""
    before = len(os.listdir("/proc/self/fd"))
    for path in (tmp_path, tmp_path / "lock"):
        held = hold(str(tmp_path))
        with pytest.raises(BlockingIOError):
            _lock(path)
        for descriptor in held:
            release(descriptor)
        descriptor = _lock(path)

        assert is_held(str(tmp_path))
        with pytest.raises(LockedError, match="another run"):
            hold(str(tmp_path))

        os.close(descriptor)
        assert not is_held(str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == before


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@pytest.mark.case("L5")
@pytest.mark.parametrize("args", [[], ["--check"]])
def test_a_run_has_no_child(args, environ, tmp_path):
    """A run starts no other process that could outlive it, and keep its lock."""
    program = shutil.which("strace")
    assert program, "strace is missing: install it"
    log = tmp_path / "log"
    calls = "trace=fork,vfork,clone,clone3,execve"
    done = subprocess.run(
        [program, "-f", "-o", log, "-e", calls, sys.executable, PUSH, *args],
        env=environ,
        capture_output=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    said = log.read_text()
    assert len(re.findall(r"\bexecve\(.*= 0", said)) == 1, said
    begun = re.findall(r"\b(v?fork|clone3?)\((.*)", said)
    assert begun
    assert all("CLONE_THREAD" in flags for _, flags in begun), said


@pytest.mark.case("L6")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_first_process(number, environ, cloud):
    """As the first process, which hears no signal by itself, it ends within 2 s."""
    cloud.fail(LIST, faults.hang())
    space = ["unshare", *([] if os.geteuid() == 0 else ["-r"]), "--pid", "--fork"]
    if subprocess.run([*space, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this system lets nobody make a namespace of processes")
    outer = subprocess.Popen(
        [*space, sys.executable, PUSH], env=environ, stderr=subprocess.PIPE, text=True
    )
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    try:
        assert eventually(lambda: cloud.received)
        (inner,) = children.read_text().split()
        assert "\t1\n" in Path(f"/proc/{inner}/status").read_text()
        said, seconds = ended_by(number, outer, int(inner))
    finally:
        outer.kill()

    assert outer.returncode == 128 + number
    assert f"stopped by signal {number:d}" in said
    assert seconds < 2


@pytest.mark.case("L7")
@pytest.mark.parametrize(
    ("number", "ends"),
    [(signal.SIGHUP, True), (signal.SIGPIPE, False), (signal.SIGUSR1, True)],
)
def test_signals_that_nobody_hears(number, ends, at_work, environ, pushgateway):
    """A run has no word for them: it is killed, or goes on; the next one is whole."""
    process, gone_on = at_work
    for _ in range(20):
        process.send_signal(number)
    if not ends:
        gone_on.set()

    assert process.wait(timeout=60) == (-number if ends else 0)

    gone_on.set()
    run = push(environ)
    assert run.status == 0
    assert len(run.stderr.splitlines()) == 1
    assert values(pushgateway.device(DELTA.sn))
    assert not [*Path(environ["STATE_DIR"]).rglob("*.tmp*")]


STREAMS = {
    "full": ">/dev/full 2>/dev/full",
    "closed": ">&- 2>&- <&-",
    "full, and nobody listens": ">/dev/full 2>&1",
    "read only": "2</dev/null",
}


@pytest.mark.case("L8")
@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("streams", STREAMS)
def test_streams_that_take_nothing(streams, style, environ, cloud, pushgateway):
    """Where no word can be said, all is delivered, and the status is what it was."""
    environ |= {"LOG_FORMAT": style, "LOG_LEVEL": "DEBUG"}
    line = f'exec "{sys.executable}" "{PUSH}" {STREAMS[streams]}'

    def run() -> int:
        done = subprocess.run(["sh", "-c", line], env=environ, timeout=60, check=False)
        return done.returncode

    assert run() == 0
    assert values(pushgateway.device(DELTA.sn))
    cloud.fail(LIST, faults.status(404))
    assert run() == 69
    assert pushgateway.run()["ecoflow_push_exit_status"] == 69


@pytest.mark.case("L7", "L8")
def test_a_reader_who_left(environ, pushgateway):
    """A log whose reader is gone kills no run."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, PUSH],
        env=environ | {"LOG_LEVEL": "DEBUG"},
        stdout=write,
        stderr=write,
        timeout=60,
        check=False,
    )
    os.close(write)

    assert done.returncode == 0
    assert values(pushgateway.device(DELTA.sn))


@pytest.mark.case("L10")
def test_what_no_thread_survives_is_ended_by_the_kernel():
    """A hang that lets no other thread run ends 10 s behind the deadline, silently."""
    code = (
        "import ctypes\n"
        "from ecoflow_push.net.deadline import alarm\n"
        "from ecoflow_push.start.exit import leave_hung\n"
        "with alarm(0.1, stays=False, end=leave_hung): ctypes.PyDLL(None).sleep(60)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == -signal.SIGALRM
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.drill("kills")
@pytest.mark.case("L10", "L14")
@pytest.mark.parametrize(
    ("stays", "seconds"), [(False, 5), pytest.param(True, 60, marks=pytest.mark.late)]
)
def test_a_hang_is_ended_so_long_behind_the_deadline(stays, seconds):
    """The watchdog waits 5 s for a run, 60 s for a process that stays: 75."""
    code = (
        "import time\n"
        "from ecoflow_push.net.deadline import alarm\n"
        "from ecoflow_push.start.exit import leave_hung\n"
        "print(time.monotonic(), flush=True)\n"
        f"with alarm(1, stays={stays}, end=leave_hung): time.sleep(200)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        timeout=180,
        check=False,
    )
    # Since it began to work, not since the interpreter did.
    lasted = time.monotonic() - float(done.stdout)

    assert done.returncode == 75
    assert done.stderr.count(b"hung beyond RUN_DEADLINE") == 1
    assert seconds < lasted < 1 + seconds + LATE


# -- two of them ----------------------------------------------------------------------


@pytest.mark.case("L15")
def test_two_pods_without_a_common_folder(environ, cloud, receiver, pushgateway):
    """Each delivers; the gateway has one group, the server each sample once."""
    environ["REMOTE_WRITE_URL"] = receiver.write_url
    pods = [environ | {"STATE_DIR": f"{environ['STATE_DIR']}-{n}"} for n in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, PUSH], env=pod, stderr=subprocess.PIPE, text=True
        )
        for pod in pods
    ]
    said = [process.communicate(timeout=60)[1] for process in processes]

    statuses = [process.returncode for process in processes]
    # Older than what the other one wrote, a snapshot is refused (docs/truth.md).
    assert statuses[0] in (0, 1), said
    assert statuses[1] in (0, 1), said
    assert 0 in statuses, said
    assert set(pushgateway.groups()) == {DELTA.sn, "ecoflow_push"}
    for points in receiver.stored.values():
        times = [at for at, _ in points]
        assert times == sorted(set(times))
    assert of_devices(receiver)


@pytest.mark.case("L15")
def test_two_pods_with_a_common_folder(at_work, environ, cloud, receiver):
    """While one works the other one leaves with 75, and asks nobody anything."""
    run = push(environ | {"REMOTE_WRITE_URL": receiver.write_url})

    assert run.status == 75
    assert len(cloud.received) == 1
    assert receiver.received == []


# -- odd words on the time ------------------------------------------------------------


@pytest.mark.case("T9", "T10")
@pytest.mark.parametrize(
    "date",
    [
        DATE.format("23:59:59"),
        DATE.format("23:59:60"),
        DATE.format("23:59:61"),
        "yesterday",
        "",
        "Thu, 99 Foo 2026 25:61:61 GMT",
        "Sat, 31 Dec 99999999999 23:59:59 GMT",
        "0",
        "-1",
        "Sat, 31 Dec 2016",
        "\xff\xfe",
    ],
    ids=repr,
)
def test_a_date_that_is_none(date, environ, cloud, receiver, pushgateway):
    """A leap second, and whatever else is no time, ends no run: with or without it."""
    environ["REMOTE_WRITE_URL"] = receiver.write_url
    receiver.date_offset = None

    def odd(handler) -> None:
        answer: Answer = cloud.answer(handler.current)
        head = f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(answer.body)}\r\n\r\n"
        handler.wfile.write(head.encode("latin-1") + answer.body)
        handler.close_connection = True

    cloud.fail("", odd)

    run = push(environ)

    assert "Traceback" not in run.stderr
    assert values(pushgateway.device(DELTA.sn))
    if date.endswith(":59 GMT") and "9999" not in date:
        # A time it is, though of years ago: nothing is stamped.
        assert run.status == 75, run.stderr
        assert of_devices(receiver) == []
    else:
        assert run.status == 0, run.stderr
        assert len(of_devices(receiver)) == 1
