"""--init that is left too early, or that nobody can answer: nothing stays behind."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ecoflow_push.errors import ExitStatus
from ecoflow_push.simulator import faults
from tests.support import PUSH, ROOT, eventually, push_anew
from tests.typist import (
    KEYS,
    PASSWORD,
    SECRET,
    TO_GATEWAY,
    Typist,
    by_gateway,
    left,
    typing,
)

PROMPTS = [*KEYS, *TO_GATEWAY]


def assert_left(typist: Typist, home: Mapping[str, str], status: int) -> None:
    """Fail if anything is otherwise than before, but for the last word."""
    assert typist.end() == status, typist.screen
    assert f"exit {status} {ExitStatus(status).name}: " in typist.screen
    assert typist.modes == typist.before
    assert left(home) == []


@pytest.mark.parametrize("where", ["environment", "file"])
def test_a_folder_of_accounts_is_not_asked_for(where, home):
    """Where one is set no question could be answered: what to do is said, and 78."""
    file = Path(home["HOME"], "..", "fleet.env").resolve()
    if where == "file":
        file.write_text("ECOFLOW_ACCOUNTS=/accounts\n")
    else:
        home = {**home, "ECOFLOW_ACCOUNTS": "/accounts"}

    with typing(home, "--env-file", str(file)) as typist:
        if where == "file":
            typist.answer("[no]: ", "y")
        assert_left(typist, home, 78)

    assert "ECOFLOW_ACCOUNTS: set, and --init asks for one account" in typist.screen
    assert file.exists() == (where == "file")


@pytest.mark.parametrize("place", range(len(PROMPTS)))
def test_ctrl_c_leaves_nothing_behind(place, home, pushgateway):
    """At every prompt it is 130, with no file, and with a terminal that echoes."""
    with typing(home) as typist:
        for prompt, answer in by_gateway(pushgateway.url)[:place]:
            typist.answer(prompt, answer)
        # Something is typed already, and somebody may be impatient.
        typist.answer(PROMPTS[place][0], PASSWORD if place in (1, 2) else "x", end="")
        typist.type("\x03\x03")
        assert_left(typist, home, 130)


WAYS_OUT = {
    "end of input": (lambda typist: typist.type("\x04"), 130),
    "ctrl-backslash": (lambda typist: typist.type("\x1c"), 130),
    "SIGTERM": (lambda typist: typist.process.terminate(), 143),
}


@pytest.mark.parametrize("way", WAYS_OUT)
@pytest.mark.parametrize("place", [0, 2])
def test_other_ways_to_leave(way, place, home):
    """Whatever ends the questions leaves nothing, and a terminal that echoes."""
    leave, status = WAYS_OUT[way]
    with typing(home) as typist:
        for prompt, answer in KEYS[:place]:
            typist.answer(prompt, answer)
        typist.answer(KEYS[place][0], end="")
        leave(typist)
        assert_left(typist, home, status)


def test_a_terminal_that_goes_away(home):
    """Who hangs up leaves nothing."""
    with typing(home) as typist:
        for prompt, answer in KEYS[:2]:
            typist.answer(prompt, answer)
        typist.wait_for(SECRET)
        typist.hang_up()
        assert typist.process.wait(60) == 143
        assert left(home) == []


def test_ctrl_c_while_something_is_tried(home, cloud):
    """A server that never answers is not waited for; what was typed ahead is unseen."""
    cloud.fail("device/list", faults.hang())
    with typing(home) as typist:
        for prompt, answer in KEYS:
            typist.answer(prompt, answer)
        assert eventually(lambda: cloud.received)
        typist.type(f"{PASSWORD}\n{PASSWORD}\x03")
        assert_left(typist, home, 130)


def test_what_was_typed_ahead_does_not_reach_the_shell(home, cloud):
    """A secret that nobody asked for yet is gone with the program."""
    cloud.fail("device/list", faults.hang())

    def waiting() -> int:
        found = bytearray(4)
        fcntl.ioctl(typist.slave, termios.FIONREAD, found)
        return int.from_bytes(found, sys.byteorder)

    with typing(home) as typist:
        for prompt, answer in KEYS:
            typist.answer(prompt, answer)
        assert eventually(lambda: cloud.received)
        typist.type(f"{PASSWORD}\n")
        assert eventually(waiting)
        typist.process.terminate()
        assert_left(typist, home, 143)
        assert not waiting()


WRITING = """
import os, signal
from ecoflow_push.init.terminal import Terminal
from ecoflow_push.leaving import undisturbed
from ecoflow_push.start.signals import leave_with_a_word
leave_with_a_word(stays=False)
with Terminal():
    with undisturbed("a half"):
        os.kill(os.getpid(), signal.SIGTERM)
        print("it is whole", flush=True)
    print("it went on", flush=True)
"""


def test_what_is_written_is_written_whole(home, tmp_path):
    """A signal while files are written waits until they are."""
    script = tmp_path / "writing.py"
    script.write_text(WRITING)
    environ = {**home, "PYTHONPATH": str(ROOT)}
    with typing(environ, program=script) as typist:
        assert typist.end() == ExitStatus.TERMINATED
        assert typist.modes == typist.before
    assert "it is whole" in typist.screen
    assert "it went on" not in typist.screen


NO_FOLDER = """
import sys, tempfile
tempfile._candidate_tempdir_list = lambda: ["/dev/null/x"]
import push
sys.argv[1:] = ["--init"]
push.entry()
"""


def test_without_room_for_temporary_files(home, tmp_path):
    """A full disk is no bug of ours."""
    script = tmp_path / "full.py"
    script.write_text(NO_FOLDER)
    with typing({**home, "PYTHONPATH": str(ROOT)}, program=script) as typist:
        assert_left(typist, home, 74)
    assert "let TMPDIR name a folder to write in" in typist.screen


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_without_a_terminal_it_is_64(stream, home):
    """Where nobody can be asked it says so in one line, and asks nothing."""
    master, terminal = os.openpty()
    streams: dict[str, Any] = {
        "stdin": terminal,
        "stdout": terminal,
        stream: subprocess.PIPE,
    }
    done = subprocess.run(
        [sys.executable, PUSH, "--init"],
        env=home,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        **streams,
    )
    os.close(master)
    os.close(terminal)

    assert done.returncode == ExitStatus.USAGE
    assert not done.stdout
    [line] = done.stderr.splitlines()
    assert line.endswith("exit 64 USAGE: --init asks questions: start it on a terminal")


@pytest.mark.parametrize(
    "others",
    ["--check", "--dry-run", "--demo", "--every=60", "--device=X", "--env-file=a"],
)
def test_nothing_is_done_besides(others, home):
    """Together with what makes no sense beside it, it is 64."""
    run = push_anew(home, "--init", others, "--env-file=b")

    assert run.status == ExitStatus.USAGE
    assert run.stderr.startswith(
        "ecoflow-push: --init is wrong; it goes with one --env-file "
    )
