"""The cheap way out: a run that finds another one at work has paid for little more.

It stands before the road, and before its imports, which are most of a run's cost. What
it lets pass takes the lock in earnest later (`State.open`).
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

from ecoflow_push.config.environ import DEFAULT_API_HOST, Reader
from ecoflow_push.errors import ExitStatus
from ecoflow_push.memory.state import state_folder

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WORDS = "another run is still at work; this one leaves"


def leave_if_held(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """End the process with 75 if another one holds this job's lock.

    Arguments are left to who knows them: with any, this does nothing. Nor does it with
    settings that are faulty at first sight: that is the better word.
    """
    read = Reader(environ)
    if argv or not _is_held(os.path.join(_folder(read), "lock")):
        return
    both = read.text("ECOFLOW_ACCESS_KEY") and read.text("ECOFLOW_ACCOUNT_USER")
    if read.has_faults or (both and not read.text("ECOFLOW_SOURCE")):
        return
    _say(read)
    os._exit(ExitStatus.TEMPFAIL)


def _folder(read: Reader) -> str:
    """Return the state's folder, as far as the settings need no second look."""
    host = read.text("ECOFLOW_API_HOST") or DEFAULT_API_HOST
    url = (host if "://" in host else f"https://{host}").rstrip("/")
    keys = ("ECOFLOW_ACCESS_KEY", "ECOFLOW_ACCOUNT_USER")
    account = next(filter(None, map(read.text, keys)), "")
    job = read.text("PUSH_JOB") or "ecoflow"
    return state_folder(read.state_dir("STATE_DIR"), url, account, job)


def _is_held(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _say(read: Reader) -> None:
    """Write the line that logging would, in its two forms."""
    if (read.text("LOG_LEVEL") or "").upper() == "CRITICAL":
        return
    now = time.time()
    at = (
        time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        + f".{now % 1 * 1e3:03.0f}Z"
    )
    line = f"exit 75 TEMPFAIL: {WORDS}"
    if (read.text("LOG_FORMAT") or "").lower() == "json":
        text = f'{{"time": "{at}", "level": "error", "message": "{line}"}}\n'
    else:
        text = f"{at} ERROR {line}\n"
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # None if closed at the start
        return
