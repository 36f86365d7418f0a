"""The bar that a terminal shows while many devices are read."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import termios
from contextlib import closing, suppress
from pathlib import Path

import pytest

from ecoflow_push.run.progress import FEW
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedCloud, SimulatedDevice
from tests.forker import BARE
from tests.support import PUSH, ROOT, eventually, push
from tests.test_layers import imported_by

MANY = FEW + 1
DEAF_TO_HANGING_UP = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, sys.argv[1]])
"""
BAR = re.compile(r"\d+%\|.*/\d+ \[")


@pytest.fixture
def many(tmp_path):
    """A cloud of as many devices as are shown, and the settings of who reads it."""
    devices = [SimulatedDevice(f"R331MANY{n:08}", {"pd.soc": n}) for n in range(MANY)]
    with SimulatedCloud(devices) as cloud:
        yield (
            cloud,
            {
                **cloud.environ(),
                "TEXTFILE_PATH": str(tmp_path / "out.prom"),
                "STATE_DIR": str(tmp_path / "state"),
            },
        )


class Terminal:
    """A pseudo-terminal that a program has as its standard error."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        termios.tcsetwinsize(self.theirs, (24, 80))
        self.said = ""

    def start(self, argv, environ):
        """Start a program, and be the only one left with our end."""
        process = subprocess.Popen(
            [sys.executable, *map(str, argv)],
            env={**BARE, **environ},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.theirs,
        )
        os.close(self.theirs)
        return process

    def hear(self):
        """Take what is said next; return whether anything was."""
        with suppress(OSError):  # the other end is closed
            more = os.read(self.ours, 65536)
            self.said += more.decode()
            return bool(more)
        return False

    def close(self):
        """Hang up."""
        os.close(self.ours)


def on_a_terminal(argv, environ):
    """Return the status of a program, and all that its terminal was told."""
    with closing(Terminal()) as terminal:
        process = terminal.start(argv, environ)
        while terminal.hear():
            pass
        return process.wait(60), terminal.said


def shown_at_last(said):
    """Return the lines that a terminal shows when all was told."""
    lines = []
    for line in said.split("\r\n"):
        row = ""
        for part in line.split("\r"):
            row = part + row[len(part) :]
        lines.append(row.rstrip())
    return lines


def test_a_terminal_shows_how_far_many_devices_are(many):
    """Of many devices the number that was read is shown, and gone at the end."""
    _, environ = many

    status, said = on_a_terminal([PUSH], environ)

    assert status == 0
    assert BAR.search(said)
    assert f"/{MANY} [" in said
    (line, nothing) = shown_at_last(said)
    assert re.search(rf"^\S+ INFO exit 0 OK after .*devices: {MANY} ok", line)
    assert nothing == ""


@pytest.mark.parametrize(
    ("devices", "settings", "args"),
    [
        (FEW, {}, ()),
        (MANY, {"LOG_FORMAT": "json"}, ()),
        (MANY, {"LOG_LEVEL": "WARNING"}, ()),
        (MANY, {}, ("--every=60",)),
    ],
    ids=["few devices", "a log in JSON", "a quiet log", "a run of many"],
)
def test_no_bar_where_none_is_of_use(many, devices, settings, args):
    """Nothing but the log is written where it would be in the way, or too late."""
    cloud, environ = many
    del cloud.devices[devices:]
    place = environ["TEXTFILE_PATH"]
    with closing(Terminal()) as terminal:
        process = terminal.start([PUSH, *args], environ | settings)
        if args:
            assert eventually(lambda: os.path.exists(place))
            process.send_signal(signal.SIGTERM)
        while terminal.hear():
            pass

        assert process.wait(60) == 0
    assert os.path.exists(place)
    assert not BAR.search(terminal.said)
    assert "\r" not in terminal.said.replace("\r\n", "")


def test_a_log_that_is_no_terminal_has_no_bar(many):
    """A standard error that is a file or a pipe has the line of the run alone."""
    _, environ = many

    run = push(environ)

    assert run.status == 0
    assert len(run.stderr.splitlines()) == 1
    assert "|" not in run.stderr


def test_what_draws_is_imported_for_a_terminal_only(many):
    """A run that nobody watches does not import tqdm."""
    _, environ = many

    code = "import os, sys, push; assert push.main([], os.environ) == 0"

    assert not {"tqdm", "tqdm.std"} & imported_by(code, environ)


def test_a_line_of_the_log_has_a_line_of_its_own():
    """What is logged while the bar is shown stands whole on the screen, above it."""
    script = """
import logging
from ecoflow_push import logs
from ecoflow_push.run.progress import is_watched, shown

class Source:
    wanted = [None] * 30

logs.configure("INFO", "")
assert is_watched()
for n in shown(range(30), Source()):
    if n % 10 == 5:
        logging.getLogger("ecoflow_push").warning("line %d", n)
logging.getLogger("ecoflow_push").warning("the end")
"""
    status, said = on_a_terminal(["-c", script], {})

    assert status == 0, said
    lines = shown_at_last(said)
    assert [line.split("Z ")[-1] for line in lines] == [
        *("WARNING line 5", "WARNING line 15", "WARNING line 25"),
        *("WARNING the end", ""),
    ]


def test_a_terminal_that_goes_away_costs_no_run(many):
    """A run goes on when its terminal hangs up in the middle of the bar."""
    cloud, environ = many
    gone = faults.hang()
    cloud.fail(cloud.devices[-1].sn, gone, times=1)
    with closing(Terminal()) as terminal:
        # As a program that outlives its terminal on purpose.
        process = terminal.start(
            ["-c", DEAF_TO_HANGING_UP, PUSH],
            environ | {"RUN_DEADLINE": "10"},
        )
        while not BAR.search(terminal.said) and terminal.hear():
            pass
    assert process.wait(60) == 1
    text = Path(environ["TEXTFILE_PATH"]).read_text()
    assert text.count("ecoflow_pd_soc{") == MANY - 1


def test_a_signal_ends_a_watched_run(many):
    """A run under the bar ends on SIGTERM as any other does, with 143."""
    cloud, environ = many
    cloud.fail(cloud.devices[-1].sn, faults.hang())
    with closing(Terminal()) as terminal:
        process = terminal.start([PUSH], environ)
        while not BAR.search(terminal.said) and terminal.hear():
            pass
        process.send_signal(signal.SIGTERM)
        while terminal.hear():
            pass

        assert process.wait(60) == 143
    assert shown_at_last(terminal.said)[-1] == ""
