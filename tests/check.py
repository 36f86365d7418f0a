"""What the tests of --check share: a world to ask, and one question."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

from ecoflow_push import __version__
from ecoflow_push.simulator.cloud import (
    ACCESS_KEY,
    ACCOUNT_PASSWORD,
    ACCOUNT_USER,
    SECRET_KEY,
    TOKEN,
    SimulatedCloud,
)
from tests.conftest import DELTA, OFFLINE, STREAM, World
from tests.hardship import Hardship, endure
from tests.support import PUSH, ROOT, Run

LIST = "device/list"
PASSWORD = "s3cret-of-the-gateway"
SECRETS = (ACCESS_KEY, SECRET_KEY, ACCOUNT_PASSWORD, ACCOUNT_USER, TOKEN, PASSWORD)
INSTANCE = "a-host-with-a-name"
LINE = re.compile(r"(ok|warning|wrong|unknown|set|default) +[\w -]+: .+")
# What push.py does with the option; the arguments are regions, and files of settings.
DRIVER = """
import os, sys
from ecoflow_push import logs
from ecoflow_push.run.check import create_check, show_faults
from ecoflow_push.errors import EcoflowPushError, SettingsError
from ecoflow_push.config.env_file import over_files
from ecoflow_push.config.settings import Settings
from ecoflow_push.memory.lock import state_folder
from ecoflow_push.memory.state import State
from ecoflow_push.net.deadline import alarm
from ecoflow_push.start.exit import leave_hung
files = [each for each in sys.argv[1:] if each.startswith("/")]
regions = [each for each in sys.argv[1:] if each not in files]
logs.configure("DEBUG", "text")
try:
    environ = over_files(files, os.environ) if files else os.environ
    settings = Settings.from_environ(environ, needs_sink=False)
    folder = state_folder(settings.state_dir, settings.api_url, "x", settings.job)
    ring = alarm(settings.run_deadline, stays=False, end=leave_hung)
    with ring, State.open(folder) as state:
        check = create_check(settings, state, folder, [])
        for source in check.sources if regions else ():
            source.regions = regions
        status = check.run()
except SettingsError as exc:
    status = show_faults(exc)
except EcoflowPushError as exc:
    sys.stderr.write(f"{exc}\\n")
    status = exc.status
sys.stderr.flush()
os._exit(status)
"""


# Holds what a check imports, and forks one for each line: its environment, arguments,
# hardships, and where stdout and stderr go. It answers with the exit status.
FORKER = """
import json, os, sys
from tests.hardship import endure
import ecoflow_push.api.mqtt, ecoflow_push.api.rest, ecoflow_push.api.probe
import ecoflow_push.config.strangers, ecoflow_push.metrics.exposition
import ecoflow_push.net.plain, ecoflow_push.net.requests_exchange
import ecoflow_push.run.check, ecoflow_push.sinks.trial
import ecoflow_push.sinks.pushgateway, ecoflow_push.sinks.remote_write
import ecoflow_push.sinks.textfile
for line in sys.stdin:
    environ, arguments, hardships, *files = json.loads(line)
    child = os.fork()
    if not child:
        for number, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), number)
        os.environ.clear()
        os.environ.update(environ)
        sys.argv[1:] = arguments
        try:
            endure(hardships)
        except OSError as exc:
            sys.stderr.write(f"no such hardship here: {exc}")
            sys.stderr.flush()
            os._exit(99)
        exec(sys.stdin_driver)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""
IMPOSSIBLE = 99

#: Brings a finding about, and returns the settings that it needs; None takes one away.
Setup = Callable[[World], Mapping[str, str | None]]


@cache
def forker() -> subprocess.Popen[str]:
    """Return the process that forks the checks of this one; it ends with it."""
    code = FORKER.replace("sys.stdin_driver", repr(DRIVER))
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT)},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def check(
    environ: Mapping[str, str], *arguments: str, hardships: Sequence[Hardship] = ()
) -> Run:
    """Run the check as push.py would, with all that can be logged.

    One that outlasts its deadline is ended by the watchdog, and says no status.
    """
    process = forker()
    assert process.stdin
    assert process.stdout
    environ = {"PATH": os.defpath, "HOME": "/nonexistent", **environ}
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name) for name in ("stdout", "stderr")]
        line = json.dumps([environ, arguments, hardships, *files])
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        status = int(process.stdout.readline())
        said = [Path(file).read_text() for file in files]
    if status == IMPOSSIBLE:
        pytest.skip(said[1])
    return Run(status, *said)


def push_in(environ: Mapping[str, str], hardships: Sequence[Hardship]) -> int:
    """Return the status of a run under hardships."""
    done = subprocess.run(
        [sys.executable, PUSH],
        env={"PATH": os.defpath, "HOME": "/nonexistent", **environ},
        cwd="/",
        capture_output=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: endure(hardships),
    )
    return done.returncode


def status_of_a_run(run: Run) -> int:
    """Return the status that a check says a run would have."""
    found = re.match(r"a run would exit (\d+) [A-Z]+", run.stdout.splitlines()[-1])
    assert found, run.stdout
    return int(found[1])


def assert_decent(run: Run, *serials: str) -> None:
    """Every line has its form, and nothing says what nobody may know."""
    head, *lines = run.stdout.splitlines()
    assert head.startswith(f"ecoflow-push {__version__}, Python 3.")
    last = lines.pop()
    is_well = not any(line.startswith("wrong ") for line in lines)
    if status_of_a_run(run) != run.status:
        assert (
            last == "a run would exit 0 OK; the check exits 1 PARTIAL for what is wrong"
        )
        assert not is_well
    assert is_well or run.status
    assert lines
    for line in lines:
        assert LINE.fullmatch(line), line
    said = run.stdout + run.stderr
    assert "Traceback" not in said
    private = (*SECRETS, DELTA.sn, STREAM.sn, OFFLINE.sn, *serials, INSTANCE)
    for secret in (*private, os.uname().nodename):
        assert secret not in said, secret


def another_region(world: World) -> Mapping[str, str | None]:
    other = SimulatedCloud([DELTA], access_key="AKother0000000000000000000000009")
    url = world.stack.enter_context(other).url
    return {"ECOFLOW_API_HOST": url, "regions": f"{url} {world.cloud.url}"}


def textfile(*path: str) -> Setup:
    def setup(world: World) -> Mapping[str, str | None]:
        return {
            "TEXTFILE_PATH": str(world.folder.joinpath(*path)),
            "PUSHGATEWAY_URL": None,
        }

    return setup


NOWHERE = "http://127.0.0.1:1"
