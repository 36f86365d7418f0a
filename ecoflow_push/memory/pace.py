"""How often all accounts of one STATE_DIR log in: a file with the times of a minute.

A service that sees many logins from one address takes it for an attack. No limit is
published (protocol/account.md#refusals); who has many accounts has many logins when
they are new, or moved.
"""

from __future__ import annotations

import fcntl
import os
import time

from ecoflow_push.errors import AskedToWait
from ecoflow_push.memory.files import open_regular, release

NAME = "logins"
MOST = 20
SECONDS = 60.0
# Whoever holds the lock is done at once.
PATIENCE_SECONDS = 1.0


def check_pace(state_dir: str) -> None:
    """Count a login that is about to be made.

    Raises AskedToWait, and counts nothing, where it would be one too many. Where the
    file cannot be used nothing is counted.
    """
    path, now = os.path.join(state_dir, NAME), time.time()
    try:
        file = open_regular(path, os.O_RDWR | os.O_CREAT)
    except OSError:
        return
    try:
        _lock(file)
        # Others, who began later, may have been here first.
        times = [each for each in _times(file) if abs(now - each) < SECONDS]
        if len(times) >= MOST:
            wait = SECONDS - (now - min(times))
            raise AskedToWait(
                f"no login now, {MOST} a minute are the most of one STATE_DIR",
                f"a run in {wait:.0f} s may log in",
                seconds=0.0,
            )
        text = "".join(f"{each:.3f}\n" for each in (*times, now))
        os.ftruncate(file, 0)
        os.pwrite(file, text.encode(), 0)
    except OSError:
        return
    finally:
        release(file)


def _lock(file: int) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def _times(file: int) -> list[float]:
    """Return the times in the file; what is no time is left out."""
    found = []
    for line in os.pread(file, 64 * MOST, 0).split():
        try:
            found.append(float(line))
        except ValueError:
            continue
    return found
