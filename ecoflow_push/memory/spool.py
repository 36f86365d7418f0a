"""The spool: what remote-write has not taken yet, one immutable file per snapshot.

    spool-0f3a51c2b7d9/                           one folder per endpoint
        001764057600123.312.R331ZFAKE0000001      milliseconds, samples, device
        last/R331ZFAKE0000001                     what was delivered last
        bad/001764057540088.312.R331ZFAKE0000001  set aside

A file is written beside its name, flushed, renamed, and counts as stored once the
folder is flushed too: less lost the last record in every simulated power cut
(protocol/host.md#power-cuts). Nothing is ever appended to, so damage costs one record.
"""

from __future__ import annotations

import contextlib
import os
import time
from bisect import insort
from collections.abc import Iterable

from ecoflow_push.memory.entry import (
    MOST_BYTES,
    Entry,
    entry_named,
    framed,
    unframed,
)
from ecoflow_push.memory.files import TEMPORARY, replace_file, sync_folder

BAD, LAST = "bad", "last"


class Spool:
    """The files of one endpoint; whoever uses it holds the state's lock.

    `trouble` says why nothing can be stored, "" if it can.
    """

    def __init__(self, folder: str) -> None:
        """Name the folder; `open` makes it."""
        self.folder = folder
        self._set_aside: list[tuple[str, int]] = []
        self._touched = False
        self._is_open = False
        self.trouble = ""
        #: What waits, oldest first.
        self.entries: list[Entry] = []
        #: How long (s) the disk may still take: the network needs time, too.
        self.seconds = float("inf")
        self._of: dict[str, list[Entry]] = {}
        self._uncommitted: list[Entry] = []

    def open(self) -> None:
        """Make the folders (0700), clear what a killed run left, list what waits."""
        try:
            self._make_folders()
            self.entries = self._listed()
            for entry in self.entries:
                self._of.setdefault(entry.device, []).append(entry)
            self._is_open = True
        except OSError as exc:
            self.trouble = f"cannot use the spool {self.folder}: {exc.strerror}"

    def write(self, entry: Entry) -> None:
        """Write the file of an entry, whole or not at all; `trouble` says if not.

        `commit` makes it last. What is in its file is let go of.
        """
        if not self._is_open or entry.content is None:
            return
        if self.seconds <= 0:
            self.trouble = f"the disk of {self.folder} is too slow to store all"
            return
        began = time.monotonic()
        try:
            replace_file(self._path(entry), entry.content, 0o600)
        except OSError as exc:
            self._note(exc)
            return
        finally:
            self.seconds -= time.monotonic() - began
        entry.size = len(entry.content)
        entry.has_file = True
        # Of a thousand devices they need not all be in memory.
        entry.content = None
        self._uncommitted.append(entry)
        insort(self.entries, entry, key=_by_name)
        insort(self._of.setdefault(entry.device, []), entry, key=_by_name)

    def commit(self) -> None:
        """Make durable what was written; `trouble` says if not."""
        if self._uncommitted and self._sync():
            for entry in self._uncommitted:
                entry.is_stored = True
            self._uncommitted.clear()

    def read(self, entry: Entry) -> bytes:
        """Return the record of an entry; raises ValueError if the file is damaged."""
        if entry.content is not None:
            return unframed(entry.content)
        return self._read(self._path(entry))

    def delivered(self, entry: Entry) -> None:
        """Take an entry out; its record is the device's last one from now on."""
        last = self._path_of_last(entry.device)
        self._forget(entry)
        try:
            if entry.has_file:
                os.replace(self._path(entry), last)
            elif entry.content is not None:
                self._remember(entry.device, entry.content)
        except OSError as exc:
            self._note(exc)
            if entry.has_file:
                self._unlink(self._path(entry))

    def remember(self, device: str, body: bytes) -> None:
        """Make a record that was never stored the device's last one.

        It need not outlast a power cut: what it is for is a courtesy.
        """
        self._remember(device, framed(body))

    def discard(self, entry: Entry, *, keep: bool = False) -> None:
        """Take an entry out for good; with `keep` its file is set aside."""
        self._forget(entry)
        if not entry.has_file:
            return
        if keep:
            aside = os.path.join(self.folder, BAD, entry.name)
            with contextlib.suppress(OSError):
                os.replace(self._path(entry), aside)
                self._set_aside.append((entry.name, entry.size))
                return
        self._unlink(self._path(entry))

    def too_many(self, most_bytes: int) -> list[Entry]:
        """Return the oldest entries that must go for the rest to fit.

        What was set aside goes before them, by this call.
        """
        waiting = sum(entry.size for entry in self.entries)
        aside = sum(size for _, size in self._set_aside)
        while self._set_aside and waiting + aside > most_bytes:
            name, size = self._set_aside.pop(0)
            aside -= size
            self._unlink(os.path.join(self.folder, BAD, name))
        over = []
        for entry in self.entries:
            if waiting <= most_bytes:
                break
            waiting -= entry.size
            over.append(entry)
        return over

    def last(self, device: str) -> bytes | None:
        """Return the record of a device that was delivered last, None if unknown."""
        if not self._is_open:
            return None
        try:
            return self._read(self._path_of_last(device))
        except (OSError, ValueError):
            return None

    def waiting(self, device: str) -> list[Entry]:
        """Return the entries of a device that wait, newest first."""
        return self._of.get(device, [])[::-1]

    @property
    def samples(self) -> int:
        """How many samples wait."""
        return sum(entry.samples for entry in self.entries)

    @property
    def size(self) -> int:
        """The bytes of all that waits and of what was set aside."""
        aside = sum(size for _, size in self._set_aside)
        return sum(entry.size for entry in self.entries) + aside

    def remove_if_unused(self, since: float) -> None:
        """Remove the folders if nothing waits, and nothing was done since (Unix s)."""
        last = os.path.join(self.folder, LAST)
        with contextlib.suppress(OSError):
            if not self._is_open or self.entries or os.stat(last).st_mtime > since:
                return
            for folder in (last, os.path.join(self.folder, BAD)):
                for name in os.listdir(folder):
                    os.unlink(os.path.join(folder, name))
                os.rmdir(folder)
            os.rmdir(self.folder)

    def forget(self, kept: Iterable[str]) -> None:
        """Forget the last records of all devices but these."""
        if not self._is_open:
            return
        folder, kept = os.path.join(self.folder, LAST), set(kept)
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                if name not in kept:
                    self._unlink(os.path.join(folder, name))

    def sync(self) -> None:
        """Make it durable that entries are out: else they would be sent again."""
        if self._touched and self._is_open:
            self._sync()
            self._touched = False

    # -- files ----------------------------------------------------------------------

    def _make_folders(self) -> None:
        for name in ("", BAD, LAST):
            # What it points to is not ours to write to.
            if os.path.islink(os.path.join(self.folder, name).rstrip("/")):
                raise PermissionError(0, "it is a symbolic link")
        is_new = not os.path.isdir(self.folder)
        umask = os.umask(0o077)
        try:
            for name in (BAD, LAST):
                os.makedirs(os.path.join(self.folder, name), exist_ok=True)
        finally:
            os.umask(umask)
        if is_new:
            sync_folder(os.path.dirname(self.folder))
        if not os.access(self.folder, os.W_OK):
            # What cannot be taken out would be sent again by every run.
            raise PermissionError(0, "it cannot be written")

    def _remember(self, device: str, content: bytes) -> None:
        if self._is_open:
            with contextlib.suppress(OSError):
                last = self._path_of_last(device)
                replace_file(last, content, 0o600, synced=False)

    def _listed(self) -> list[Entry]:
        entries = self._scan(self.folder)
        self._set_aside = [
            (entry.name, entry.size)
            for entry in self._scan(os.path.join(self.folder, BAD))
        ]
        self._scan(os.path.join(self.folder, LAST))
        return entries

    def _scan(self, folder: str) -> list[Entry]:
        found = []
        with os.scandir(folder) as files:
            for file in files:
                if not file.is_file(follow_symlinks=False):
                    continue
                if file.name.endswith(TEMPORARY):
                    self._unlink(file.path)
                elif entry := entry_named(file.name):
                    entry.size = file.stat(follow_symlinks=False).st_size
                    found.append(entry)
        return sorted(found, key=_by_name)

    def _read(self, path: str) -> bytes:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        with open(os.open(path, flags), "rb") as file:
            return unframed(file.read(MOST_BYTES))

    def _path(self, entry: Entry) -> str:
        return os.path.join(self.folder, entry.name)

    def _path_of_last(self, device: str) -> str:
        return os.path.join(self.folder, LAST, device)

    def _forget(self, entry: Entry) -> None:
        self._touched = True
        for waiting in (self.entries, self._of.get(entry.device, [])):
            if entry in waiting:
                waiting.remove(entry)

    def _unlink(self, path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as exc:
            self._note(exc)

    def _sync(self) -> bool:
        try:
            sync_folder(self.folder)
        except OSError as exc:
            self._note(exc)
            return False
        return True

    def _note(self, exc: OSError) -> None:
        self.trouble = f"cannot write the spool {self.folder}: {exc.strerror}"


def _by_name(entry: Entry) -> str:
    return entry.name
