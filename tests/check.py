"""What the tests of --check share: a world to ask, and one question."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence

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
from tests.forker import BARE, OTHERS, Hardship
from tests.support import MODULES, PUSH, ROOT, Run, forked

LIST = "device/list"
PASSWORD = "s3cret-of-the-gateway"
SECRETS = (ACCESS_KEY, SECRET_KEY, ACCOUNT_PASSWORD, ACCOUNT_USER, TOKEN, PASSWORD)
INSTANCE = "a-host-with-a-name"
LINE = re.compile(r"(ok|warning|wrong|unknown|set|default) +[\w -]+: .+")
DRIVER = ROOT / "tests" / "check_run.py"
#: Brings a finding about, and returns the settings that it needs; None takes one away.
Setup = Callable[[World], Mapping[str, str | None]]


def check(
    environ: Mapping[str, str], *arguments: str, hardships: Sequence[Hardship] = ()
) -> Run:
    """Run the check as push.py would, with all that can be logged.

    One that outlasts its deadline is ended by the watchdog, and says no status.
    """
    return forked(
        *(DRIVER, arguments, {**BARE, **environ}), modules=MODULES, hardships=hardships
    )


def push_in(environ: Mapping[str, str], hardships: Sequence[Hardship]) -> int:
    """Return the status of a run under hardships."""
    # What is hard may be so for what is imported.
    modules = OTHERS if hardships else MODULES
    environ = {**BARE, **environ}
    return forked(PUSH, (), environ, modules=modules, hardships=hardships).status


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
