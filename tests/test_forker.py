"""A run in a child of the forker is the run that a new interpreter would be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.forker import BARE, forker, is_enough
from tests.support import Run, forked, push, push_anew

# What a program finds around it as it begins.
PROBE = """
import os, resource, signal, sys, threading
def handler(number):
    found = signal.getsignal(number)
    return getattr(found, "__qualname__", str(found))
def stream(name):
    found = getattr(sys, name)
    how = (found.encoding, found.errors, found.line_buffering, found.isatty())
    return found.fileno(), how
umask = os.umask(0)
os.umask(umask)
status = open("/proc/self/status").read().splitlines()
found = {
    "argv": sys.argv,
    "environ": dict(os.environ),
    "flags": str(sys.flags),
    "folder": os.getcwd(),
    "handlers": {n: handler(n) for n in sorted(signal.valid_signals())},
    "limits": [resource.getrlimit(n) for n in range(16)],
    "main": [__name__, __file__, sys.modules["__main__"].__name__],
    # Not SigQ, which counts what is queued for all processes of this user.
    "masks": [line for line in status if line.startswith(("SigI", "SigB", "SigC"))],
    "ours": [name for name in sys.modules if name.startswith("ecoflow_push")],
    "path": sys.path[1:],
    "session": [os.getpgrp() == os.getpgid(os.getppid()), os.getsid(0)],
    "streams": [stream(name) for name in ("stdin", "stdout", "stderr")],
    "open": [d for d in os.listdir("/proc/self/fd") if os.path.exists("/dev/fd/" + d)],
    "threads": threading.active_count(),
    "umask": umask,
}
import json
print(json.dumps(found))
"""
# Times of day, durations, and what a metric says of them.
UNEQUAL = re.compile(
    r"\S+Z\b|after \d+\.\d s|[+-]?\d+ s from|(?<=seconds)({.*})? \S+$", re.MULTILINE
)


@pytest.fixture
def program(tmp_path: Path):
    """Write a program, and return its file."""

    def write(text: str) -> Path:
        file = tmp_path / "program.py"
        file.write_text(text)
        return file

    return write


pytestmark = pytest.mark.skipif(not is_enough(BARE), reason="nothing is forked here")


def anew(file: Path, *argv: str, environ: Mapping[str, str] = BARE) -> Run:
    done = subprocess.run(
        [sys.executable, file, *argv],
        env=environ,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)


def test_a_program_finds_what_it_would_find(program):
    """Arguments, environment, streams, signals, limits and modules are the same."""
    file, argv, environ = program(PROBE), ("a", "ü"), {"PATH": "/bin", "X": "ü"}

    there, here = forked(file, argv, environ), anew(file, *argv, environ=environ)

    assert there.stderr == here.stderr == ""
    assert json.loads(there.stdout) == json.loads(here.stdout)
    assert json.loads(there.stdout)["ours"] == []


ENDS = {
    "the end": "",
    "a status": "import sys; sys.exit(7)",
    "a word": "import sys; sys.exit('a word')",
    "an exception": "{}['x']",
    "at once": "import os; print('lost'); os._exit(9)",
    "a signal": "import os; os.kill(os.getpid(), 15)",
    "a crash": "import os; os.abort()",
    "what is done at the end": "import atexit; atexit.register(print, 'done')",
    "much": "import sys; print('x' * 200_000); sys.stderr.write('y' * 200_000)",
    "closed streams": "import sys; sys.stdout.close(); sys.exit(3)",
}


@pytest.mark.parametrize("end", ENDS)
def test_a_program_ends_as_it_would_end(end, program):
    """Its status, its signal, and all that it prints are the same."""
    file = program(ENDS[end])

    there, here = forked(file, (), BARE), anew(file)

    assert (there.status, there.stdout) == (here.status, here.stdout)
    # A traceback has a frame more, of the forker.
    assert there.stderr[-100:].splitlines()[-1:] == here.stderr.splitlines()[-1:] or (
        there.stderr == here.stderr
    )


def test_one_run_leaves_nothing_to_the_next(program):
    """What a program changes in its process is gone with it."""
    before = forked(program(PROBE), (), BARE)
    change = "import os, sys, json; os.umask(0o777); os.chdir('/tmp'); json.x = 1"
    forked(program(f"{change}; os.environ['X'] = '1'"), (), BARE)

    assert forked(program(PROBE), (), BARE) == before


RUNS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "well": ({}, ()),
    "faulty settings": ({"STALE_AFTER": "soon", "PUSH_JOBS": "x"}, ()),
    "a wrong option": ({}, ("--chekc",)),
    "help": ({}, ("--help",)),
    "a dry run": ({"LOG_LEVEL": "DEBUG"}, ("--dry-run",)),
    "a check": ({}, ("--check",)),
    "a demo": ({}, ("--demo",)),
    "nobody there": ({"ECOFLOW_API_HOST": "http://127.0.0.1:1"}, ()),
    "JSON": ({"LOG_FORMAT": "json", "ECOFLOW_SECRET_KEY": "x"}, ()),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_run_is_the_same(run, environ):
    """A run says what it says in a new interpreter, and ends with that status."""
    given, argv = RUNS[run]
    said = []
    for each in (push, push_anew):
        status, out, err = each({**environ, **given}, *argv)
        said.append((status, UNEQUAL.sub("", out), UNEQUAL.sub("", err)))

    there, here = said
    assert there == here


def test_a_run_that_takes_too_long_is_killed(program):
    """The time that a run may take bounds it, and the next one finds a forker."""
    file = program("import time; print('began', flush=True); time.sleep(600)")

    with pytest.raises(subprocess.TimeoutExpired) as late:
        forked(file, (), BARE, timeout=0.5)

    assert late.value.stdout == b"began\n"
    assert forked(program("print(1)"), (), BARE).stdout == "1\n"


def test_runs_at_the_same_time(program, tmp_path):
    """Two runs are at work together: each waits for what the other one does."""
    wait = """
import os, sys, time
mine, other = sys.argv[1:]
open(mine, "x")
until = time.monotonic() + 30
while not os.path.exists(other):
    assert time.monotonic() < until
    time.sleep(0.01)
"""
    file, names = program(wait), [str(tmp_path / "a"), str(tmp_path / "b")]
    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(lambda n: forked(file, n, BARE), (names, names[::-1]))

    assert [run.status for run in runs] == [0, 0]


@pytest.mark.parametrize("name", ["LC_ALL", "PYTHONWARNINGS", "TZ", "LANG"])
def test_what_an_interpreter_reads_needs_a_new_one(name):
    """With a variable that is read at the start of it, no child is forked."""
    assert not is_enough({**BARE, name: "x"})


def test_hardships_are_the_childs_alone(tmp_path, program):
    """A limit holds for one run, and not for the next."""
    file = program("import resource; print(resource.getrlimit(resource.RLIMIT_FSIZE))")

    limited = forked(file, (), BARE, hardships=[("small_files", "16")])

    assert limited.stdout == "(16, 16)\n"
    assert forked(file, (), BARE).stdout != "(16, 16)\n"


def test_a_forker_is_used_again():
    """Runs after one another are children of one process."""
    with forker() as first:
        pass
    with forker() as second:
        assert first is second
