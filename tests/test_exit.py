"""The end of the process: what it says, and that nothing keeps it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from tests.support import ROOT


@pytest.fixture
def python():
    """A function that starts a process which runs some code."""
    with contextlib.ExitStack() as stack:

        def start(code, stdout=subprocess.PIPE):
            child = subprocess.Popen(
                [sys.executable, "-E", "-c", code],
                cwd=ROOT,
                stdout=stdout,
                stderr=subprocess.PIPE,
            )
            stack.enter_context(child)
            stack.callback(child.kill)
            return child

        yield start


def test_what_was_printed_is_out(python):
    """Leaving flushes what was printed, and runs nothing of the interpreter's end."""
    child = python(
        "import atexit\n"
        "from ecoflow_push.start.exit import leave\n"
        "atexit.register(print, 'never')\n"
        "print('the last word', end='')\n"
        "leave(74)"
    )
    stdout, stderr = child.communicate(timeout=60)

    assert (child.returncode, stdout, stderr) == (74, b"the last word", b"")


def test_a_reader_who_stopped_keeps_nothing_up(python):
    """Where nobody reads what was printed, the process ends with its status."""
    ours, theirs = os.pipe()
    child = python(
        "import os\n"
        "from ecoflow_push.start.exit import leave\n"
        "os.set_blocking(1, False)\n"
        "try:\n"
        "    while True: os.write(1, bytes(4096))\n"
        "except BlockingIOError:\n"
        "    os.set_blocking(1, True)\n"
        "print('never read', end='')\n"
        "leave(75, 0.1)",
        stdout=theirs,
    )
    os.close(theirs)
    try:
        _, stderr = child.communicate(timeout=60)
    finally:
        os.close(ours)

    assert (child.returncode, stderr) == (75, b"")


def test_a_closed_output_changes_no_status(python):
    """With stdout closed, and gone, the status stays what it is."""
    code = (
        "import sys\n"
        "from ecoflow_push.start.exit import leave\n"
        "sys.stdout.close(); sys.stderr = None\n"
        "leave(1)"
    )

    assert python(code).wait(timeout=60) == 1


@pytest.mark.case("L10")
def test_the_watchdog_ends_what_hangs(python):
    """A block that outlives its deadline is the end of the process, with 75."""
    child = python(
        "import time\n"
        "from ecoflow_push.net.deadline import Watchdog\n"
        "from ecoflow_push.start.exit import leave_hung\n"
        "with Watchdog(0.1, leave_hung): time.sleep(60)"
    )
    _, stderr = child.communicate(timeout=60)

    assert child.returncode == 75
    assert stderr.endswith(b" ERROR exit 75 TEMPFAIL: hung beyond RUN_DEADLINE\n")
    assert stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("number", "stays", "status", "words"),
    [
        (signal.SIGTERM, False, 143, "ERROR exit 143 TERMINATED: stopped by signal 15"),
        (signal.SIGINT, False, 130, "ERROR exit 130 INTERRUPTED: stopped by signal 2"),
        (
            signal.SIGTERM,
            True,
            0,
            "INFO exit 0 OK: the schedule was stopped by signal 15",
        ),
    ],
)
def test_a_signal_is_the_end_with_one_line(python, number, stays, status, words):
    """SIGTERM and SIGINT end a run with their status, and a schedule with 0."""
    child = python(
        "import time\n"
        "from ecoflow_push.start.signals import leave_with_a_word\n"
        f"leave_with_a_word(stays={stays})\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(number)
    _, stderr = child.communicate(timeout=60)

    assert child.returncode == status
    assert stderr.decode().partition(" ")[2] == f"{words}\n"


@pytest.mark.parametrize(("option", "status"), [("", 143), ("--every=5", 0)])
def test_the_first_handler_is_silent(python, option, status):
    """Before there is a log, a signal ends the process with its status alone."""
    child = python(
        "import time\n"
        "from ecoflow_push.start.signals import leave_on_signals\n"
        f"leave_on_signals([{option!r}])\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGTERM)
    _, stderr = child.communicate(timeout=60)

    assert (child.returncode, stderr) == (status, b"")


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_locked_out_run_says_what_the_log_would(python, style, tmp_path):
    """The line of a run that finds the lock taken has the log's form, to the letter."""
    child = python(
        "import sys\n"
        "from ecoflow_push.memory.lock import state_folder\n"
        "from ecoflow_push.memory.state import State\n"
        "from ecoflow_push.start import lock_probe\n"
        f"environ = dict(STATE_DIR={str(tmp_path)!r}, LOG_FORMAT={style!r})\n"
        "folder = state_folder(environ['STATE_DIR'], 'https://api.ecoflow.com',"
        " '', 'ecoflow')\n"
        "held = State.open(folder)\n"
        "from ecoflow_push import logs\n"
        f"logs.configure('INFO', {style!r})\n"
        "logs.last_words('exit 75 TEMPFAIL: ' + lock_probe.HELD)\n"
        "lock_probe.leave_if_held([], environ)\n"
        "raise SystemExit('it was let pass')"
    )
    _, stderr = child.communicate(timeout=60)
    logged, said = stderr.decode().splitlines()

    assert child.returncode == 75
    # All but the digits of the time.
    assert [c for c in said if not c.isdigit()] == [
        c for c in logged if not c.isdigit()
    ]
    assert len(said) == len(logged)


@pytest.mark.parametrize(("error", "is_told"), [("OSError(5)", 0), ("KeyError(5)", 1)])
def test_a_close_that_fails_where_nobody_can_catch_it(error, is_told):
    """What a finalizer meets in the host is passed over; a bug is told."""
    program = f"""
import sys
from ecoflow_push.start.exit import pass_over
sys.unraisablehook = pass_over
class Left:
    def __del__(self):
        raise {error}
Left()
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert run.stderr.count("Traceback") == is_told
