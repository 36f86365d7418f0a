"""What the tests of --check share: a world to ask, and one question."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping

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
from tests.support import ROOT, Run

LIST = "device/list"
PASSWORD = "s3cret-of-the-gateway"
SECRETS = (ACCESS_KEY, SECRET_KEY, ACCOUNT_PASSWORD, ACCOUNT_USER, TOKEN, PASSWORD)
INSTANCE = "a-host-with-a-name"
LINE = re.compile(r"(ok|wrong|unknown) +[\w -]+: .+")
# What push.py does with the option, the regions being the arguments.
DRIVER = """
import os, sys
from ecoflow_push import logs
from ecoflow_push.run.check import create_check, show_faults
from ecoflow_push.errors import EcoflowPushError, SettingsError
from ecoflow_push.config.settings import Settings
from ecoflow_push.memory.lock import state_folder
from ecoflow_push.memory.state import State
from ecoflow_push.net.deadline import alarm
from ecoflow_push.start.exit import leave_hung
regions = sys.argv[1:]
logs.configure("DEBUG", "text")
try:
    settings = Settings.from_environ(os.environ, needs_sink=False)
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


#: Brings a finding about, and returns the settings that it needs; None takes one away.
Setup = Callable[[World], Mapping[str, str | None]]


def check(environ: Mapping[str, str], *regions: str) -> Run:
    """Run the check as push.py would, with all that can be logged.

    One that outlasts its deadline is ended by the watchdog, and says no status.
    """
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *regions],
        env={
            "PATH": os.defpath,
            "HOME": "/nonexistent",
            "PYTHONPATH": str(ROOT),
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)


def assert_decent(run: Run, *serials: str) -> None:
    """Every line has its form, and nothing says what nobody may know."""
    head, *lines = run.stdout.splitlines()
    assert head.startswith(f"ecoflow-push {__version__}, Python 3.")
    assert re.fullmatch(rf"a run would exit {run.status} [A-Z]+", lines.pop())
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
