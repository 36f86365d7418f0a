"""What was told today: a trouble that lasts is a line a day, not one a run.

A small file in the state folder, written only when something changes.
"""

from __future__ import annotations

import contextlib
import os

from ecoflow_push.errors import HostLimit
from ecoflow_push.memory.files import read_regular, replace_file
from ecoflow_push.memory.records import TELL_SECONDS

MOST_BYTES = 256
LASTS, IS_OVER = "lasts", "over"


class Told:
    """The file `name` of a state folder, about `what`: of anything else it is silent.

    A folder that cannot be read or written is no fault here; then each run tells, as it
    does where there is to be none (None).
    """

    def __init__(self, folder: str | None, name: str, what: str) -> None:
        """Store what is needed; `what` is one word."""
        self._path = folder and os.path.join(folder, name)
        self._what = what

    def is_to_be_told(self, now: float) -> bool:
        """Return whether the log is to tell of the trouble, and note that it does."""
        told_at, state = self._read()
        if told_at is not None and 0 <= now - told_at < TELL_SECONDS:
            if state != LASTS:
                self._write(told_at, LASTS)
            return False
        self._write(now, LASTS)
        return True

    def is_over(self) -> bool:
        """Return whether the trouble that lasted is over now, and note it.

        When it was told is kept: what comes and goes is a line a day, too.
        """
        told_at, state = self._read()
        if told_at is None or state != LASTS:
            return False
        self._write(told_at, IS_OVER)
        return True

    def _read(self) -> tuple[float | None, str]:
        if not self._path:
            return None, ""
        with contextlib.suppress(OSError, HostLimit, ValueError):
            content = read_regular(self._path, MOST_BYTES)
            what, told_at, state = content.decode().split()
            if what == self._what:
                return float(told_at), state
        return None, ""

    def _write(self, told_at: float, state: str) -> None:
        if not self._path:
            return
        content = f"{self._what} {told_at:.3f} {state}\n".encode()
        with contextlib.suppress(OSError):
            replace_file(self._path, content, 0o600, synced=False)
