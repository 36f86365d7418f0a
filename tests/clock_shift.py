"""A wall's clock that a test may set, for one process and no other.

Only a shared object before the C library's does that to Python and to OpenSSL alike,
and leaves waiting alone: tests/clock_shift.c, compiled by the test.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")
NS = 10**9


def compiled(folder: Path) -> Path:
    """Return the shared object, made in a folder; skips where nothing can make it."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        # Where CI is set nothing may be missing.
        assert not os.environ.get("CI"), "a C compiler is missing"
        pytest.skip("it needs a C compiler")
    made = folder / "clock_shift.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(made)]
    command += [str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made


class WallClock:
    """The clock of whoever is started with `environ`."""

    def __init__(self, made: Path, folder: Path) -> None:
        self._file = folder / "clock"
        self.environ = {"LD_PRELOAD": str(made), "CLOCK_SHIFT": str(self._file)}
        self._file.write_bytes(bytes(16))
        self.offset = 0.0

    def shift(self, seconds: float) -> None:
        """Let it be so far ahead of the true time."""
        self.offset = seconds
        self._write(round(seconds * NS), 0)

    def set(self, at: float) -> None:
        """Let it be that late now (Unix, s), and go on."""
        self.shift(at - time.time())

    def freeze(self, at: float) -> None:
        """Let it stand still at a time (Unix, s)."""
        self._write(0, round(at * NS))

    def _write(self, *numbers: int) -> None:
        # In place: it is mapped by who runs.
        with open(self._file, "r+b") as file:
            file.write(struct.pack("=qq", *numbers))
