"""The cheap way out: a run that finds another one at work has paid for little more.

It stands before the road, and before its imports, which are most of a run's cost. What
it lets pass takes the lock in earnest later (`State.open`).
"""

from __future__ import annotations

import sys
import time

from ecoflow_push.config.environ import Reader
from ecoflow_push.config.kinds import DEFAULT_API_HOST
from ecoflow_push.config.plugs import SOURCES
from ecoflow_push.errors import ExitStatus, SettingsError
from ecoflow_push.lines import line
from ecoflow_push.memory.lock import HELD, is_held, state_folder
from ecoflow_push.start.exit import leave_at_once

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def leave_if_held(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """End the process with 75 if another one holds this job's lock.

    Arguments are left to who knows them: with any but files of settings, this does
    nothing. Nor does it with settings that are faulty at first sight: that is the
    better word.
    """
    if argv:
        from ecoflow_push.config.env_file import files_alone, over_files

        files = files_alone(argv)
        if not files:
            return
        try:
            environ = over_files(files, environ)
        except SettingsError:
            return
    read = Reader(environ)
    folder = _folder(read)
    if folder is None or not is_held(folder):
        return
    competing = len(_accounts(read)) > 1 and not read.text("ECOFLOW_SOURCE")
    if read.has_faults or competing:
        return
    _say(read)
    leave_at_once(ExitStatus.TEMPFAIL)


def _folder(read: Reader) -> str | None:
    """Return the state's folder, as far as the settings need no second look."""
    host = read.text("ECOFLOW_API_HOST") or DEFAULT_API_HOST
    url = (host if "://" in host else f"https://{host}").rstrip("/")
    account = [*_accounts(read), ""][0]
    job = read.text("PUSH_JOB") or "ecoflow"
    state_dir = read.state_dir("STATE_DIR")
    return state_dir and state_folder(state_dir, url, account, job)


def _accounts(read: Reader) -> list[str]:
    """Return whose data it can be: what the first variable of each source says."""
    said = [read.text(variables[0]) for variables in SOURCES.values()]
    return [account for account in said if account]


def _say(read: Reader) -> None:
    """Write the line that the log would."""
    if (read.text("LOG_LEVEL") or "").upper() == "CRITICAL":
        return
    as_json = (read.text("LOG_FORMAT") or "").lower() == "json"
    text = f"exit 75 TEMPFAIL: {HELD}"
    try:
        sys.stderr.write(line("ERROR", text, time.time(), as_json=as_json) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # None if closed at the start
        return
