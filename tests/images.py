"""File systems of their own: a copy of one, at any instant, is what a power cut leaves.

What a copy is read from is the file behind a loop device. There is in it what the
device was told to write, and nothing else: what the file system above it has not
written back yet lies in pages of its own, and is lost with them. A copy counts when two
in a row are the same, so that it is of one instant.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest

from tests.support import PUSH, ROOT, Run, eventually

PATIENCE = 10
BYTES = 12 << 20
BLOCK = 4096
CALL = re.compile(r"\d+ +\w+\(|\d+ +<\.\.\. \w+ resumed>")
# No commit of the journal but those that somebody asks for, within a test's time.
OPTIONS = "loop,noatime,commit=600"
#: What changes a folder or makes it last; the program is stopped behind each.
CALLS = "fsync,fdatasync,fchmod,rename,renameat,renameat2,unlink,unlinkat,pwrite64"


class Image:
    """An ext4 in a file, mounted at `folder` while it is open."""

    def __init__(self, file: Path, folder: Path) -> None:
        self.file = file
        self.folder = folder

    def make(self) -> None:
        """Make the file system."""
        with open(self.file, "wb") as file:
            file.truncate(BYTES)
        wrong = _do("mkfs.ext4", "-q", "-F", "-b", str(BLOCK), str(self.file))
        assert not wrong, wrong

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """Mount it; what its journal holds is played first."""
        self.folder.mkdir(exist_ok=True)
        where = (str(self.file), str(self.folder))
        wrong = _do("mount", "-t", "ext4", "-o", OPTIONS, *where)
        assert not wrong, wrong
        try:
            yield self.folder
        finally:
            # Nothing may be left of a test, not even of one that fails.
            if not eventually(lambda: not _do("umount", str(self.folder)), 5):
                _do("umount", "-l", str(self.folder))

    def copy(self, to: Path) -> Path:
        """Copy the file as it is at this instant."""
        content = self.file.read_bytes()
        while content != (again := self.file.read_bytes()):
            content = again
        with open(to, "wb") as file:
            for at in range(0, len(content), 16 * BLOCK):
                if any(piece := content[at : at + 16 * BLOCK]):
                    file.seek(at)
                    file.write(piece)
            file.truncate(len(content))
        return to


def images_or_skip() -> None:
    """Skip the test where no image can be mounted, saying what lacks."""
    lacking = [name for name in ("mkfs.ext4", "mount", "umount") if not _which(name)]
    reason = f"{', '.join(lacking)} is not installed" if lacking else _why_not()
    if reason:
        pytest.skip(f"no image of a file system can be mounted: {reason}")


@contextmanager
def place_in_memory(folder: Path) -> Iterator[Path]:
    """Return a folder in memory, if it can be, for what is flushed often."""
    memory = Path("/dev/shm")
    base = memory if os.access(memory, os.W_OK) else folder
    with tempfile.TemporaryDirectory(dir=base, prefix="images-") as made:
        yield Path(made)


def trace_or_skip() -> None:
    """Skip the test where no call can be traced, saying what lacks."""
    if reason := why_no_trace():
        pytest.skip(reason)


@cache
def why_no_trace() -> str:
    """Return why no call of the program can be traced, "" if it can."""
    if not shutil.which("strace"):
        return "strace is not installed"
    try_it = ["strace", "-f", "-qq", "-o", os.devnull, "true"]
    done = subprocess.run(try_it, capture_output=True, text=True, check=False)
    return f"strace: {done.stderr.strip()}" if done.returncode else ""


@cache
def _why_not() -> str:
    if os.geteuid() != 0:
        return "it needs root"
    with place_in_memory(Path(tempfile.gettempdir())) as place:
        image = Image(place / "try", place / "mnt")
        image.make()
        try:
            with image.mounted():
                return ""
        except AssertionError as exc:
            return str(exc)


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _do(name: str, *args: str) -> str:
    """Return what went wrong, "" if nothing did."""
    done = subprocess.run(
        [_which(name) or name, *args], capture_output=True, text=True, check=False
    )
    # What follows the first line is advice.
    said = done.stderr.strip().splitlines() or ["it failed"]
    return said[0] if done.returncode else ""


class Job:
    """A run of push.py of some tree, that can be stopped at any instant."""

    def __init__(
        self,
        environ: Mapping[str, str],
        said: Path,
        *,
        tree: Path = ROOT,
        log: Path | None = None,
    ) -> None:
        """Start it; with a `log` it is traced, and stops behind each of CALLS."""
        self.said = said
        self._log = log
        self._read = 0
        traced = ["strace", "-f", "-qq", "-y", "-o", str(log), "-e", f"trace={CALLS}"]
        traced += ["-e", f"inject={CALLS}:signal=SIGSTOP"]
        with said.open("wb") as file:
            self._process = subprocess.Popen(
                [*(traced if log else ()), sys.executable, tree / PUSH.name],
                env={"PATH": os.defpath, "HOME": "/nonexistent", **environ},
                cwd="/",
                stdout=subprocess.DEVNULL,
                stderr=file,
            )
        self.pid = 0 if log else self._process.pid

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> bool:
        """Let all of its threads stand still; return False if it is over."""
        if self.is_over:
            return False
        os.kill(self.pid, signal.SIGSTOP)
        return self._stands_still()

    def go_on(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def steps(self) -> Iterator[str]:
        """Yield each call that it stopped behind; it goes on when the next is wanted.

        The last one is where it ended, "".
        """
        until = time.monotonic() + PATIENCE
        while not self.is_over:
            lines = self._lines()
            # Each thread that stands still has said so.
            still = sum("--- stopped by SIGSTOP ---" in line for line in lines)
            if not still or still < len(self._tasks()):
                assert time.monotonic() < until, "\n".join(lines[-20:])
                time.sleep(0.001)
                continue
            until = time.monotonic() + PATIENCE
            yield next(line for line in lines if CALL.match(line))
            self._read += len(lines)
            self.go_on()
        yield ""

    def ended(self) -> Run:
        """Wait for its end, and return what it said."""
        status = self._process.wait(timeout=120)
        return Run(status, "", self.said.read_text())

    def kill(self) -> None:
        """End it, if it is not over."""
        if not self.is_over:
            with suppress(ProcessLookupError):
                os.kill(self.pid or self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=30)

    def _lines(self) -> list[str]:
        assert self._log
        with suppress(FileNotFoundError):
            lines = self._log.read_text().splitlines()
            if lines and not self.pid:
                # The first to be traced may be a thread, and end before the others.
                status = Path(f"/proc/{lines[0].split()[0]}/status").read_text()
                self.pid = int(status.partition("Tgid:")[2].split()[0])
            return lines[self._read :]
        return []

    def _tasks(self) -> list[Path]:
        return list(Path(f"/proc/{self.pid}/task").glob("*/stat"))

    def _stands_still(self) -> bool:
        """Wait until each thread is stopped; return False if it has ended instead."""

        def stopped() -> bool:
            with suppress(OSError):
                texts = [task.read_text() for task in self._tasks()]
                states = [text.rpartition(")")[2].split()[0] for text in texts]
                return self.is_over or all(state in "TZX" for state in states)
            return False

        return eventually(stopped, 30) and not self.is_over


def clone(folder: Path, module: str, old: str, new: str) -> Path:
    """Return a copy of the program in which one place reads otherwise."""
    shutil.copytree(ROOT / "ecoflow_push", folder / "ecoflow_push")
    shutil.copy2(PUSH, folder)
    path = folder / module
    text = path.read_text()
    assert text.count(old) == 1, f"{module} has changed: {old}"
    path.write_text(text.replace(old, new))
    return folder
