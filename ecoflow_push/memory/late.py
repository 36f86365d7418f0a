"""Who used up his time: the accounts that the next run works last.

A small file in the run's state folder, a line for each, written only when it changes.
Losing it costs some politeness.
"""

from __future__ import annotations

import contextlib
import os

from ecoflow_push.errors import HostLimit
from ecoflow_push.memory.files import read_regular, replace_file

NAME = "late"
MOST_BYTES = 1 << 20


class Late:
    """Names of folders; a file that cannot be read or written is no fault here."""

    def __init__(self, folder: str | None) -> None:
        """Read the file in `folder`, None for no memory."""
        self._path = folder and os.path.join(folder, NAME)
        self.names: frozenset[str] = frozenset()
        if self._path is None:
            return
        with contextlib.suppress(OSError, HostLimit, ValueError):
            content = read_regular(self._path, MOST_BYTES)
            self.names = frozenset(content.decode().split())

    def save(self, names: frozenset[str]) -> None:
        """Let these be the late ones."""
        if names == self.names or self._path is None:
            return
        content = "".join(f"{name}\n" for name in sorted(names)).encode()
        with contextlib.suppress(OSError):
            replace_file(self._path, content, 0o600, synced=False)
