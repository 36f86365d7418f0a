"""Folder: the files of one spool.

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
from collections.abc import Container

from ecoflow_push.memory.entry import MOST_BYTES, Entry, entry_named, framed, unframed
from ecoflow_push.memory.files import (
    TEMPORARY,
    make_private,
    read_regular,
    replace_file,
    sync_folder,
)

BAD, LAST = "bad", "last"


class Folder:
    """The files of one endpoint; `trouble` says why none can be written, "" if so."""

    def __init__(self, path: str) -> None:
        """Name the folder; `make` makes it."""
        self.path = path
        self.trouble = ""
        self.is_made = False
        #: How long (s) the disk may still take: the network needs time, too.
        self.seconds = float("inf")
        self._touched = False
        #: A file stayed that was to go: who trusts what is known would never find it.
        self._has_left_over = False

    def make(self) -> None:
        """Make the folders (0700); raises OSError when they cannot be used."""
        for name in ("", BAD, LAST):
            # What it points to is not ours to write to.
            if os.path.islink(os.path.join(self.path, name).rstrip("/")):
                raise PermissionError(0, "it is a symbolic link")
        is_new = not os.path.isdir(self.path)
        for name in (BAD, LAST):
            make_private(os.path.join(self.path, name))
        if is_new:
            sync_folder(os.path.dirname(self.path))
        if not os.access(self.path, os.W_OK):
            # What cannot be taken out would be sent again by every run.
            raise PermissionError(0, "it cannot be written")
        self.is_made = True

    def stamp(self) -> str:
        """Return what changes whenever a name comes or goes, "" if nothing does.

        Neither does it where a file should have gone, and did not.
        """
        if self._has_left_over:
            return ""
        try:
            paths = (self.path, os.path.join(self.path, BAD))
            times = [os.stat(path).st_mtime_ns for path in paths]
        except OSError:
            return ""
        # Where whole seconds are all that is kept, two changes may look like one.
        is_coarse = all(at % 1_000_000_000 == 0 for at in times)
        return "" if is_coarse else " ".join(map(str, times))

    def listed(self, inside: str = "") -> list[Entry]:
        """Return what is there, by name; clears what a killed run left."""
        found = []
        with os.scandir(os.path.join(self.path, inside)) as files:
            for file in files:
                # The folder tells what a file is; nothing is asked of the file itself.
                is_file = file.is_file(follow_symlinks=False)
                if file.name.endswith(TEMPORARY):
                    if not file.is_dir(follow_symlinks=False):
                        self._unlink(file.path)
                elif is_file and (entry := entry_named(file.name)):
                    found.append(entry)
        return sorted(found, key=by_name)

    def size_of(self, entry: Entry, inside: str = "") -> int:
        """Return the bytes of a file, 0 if it is gone."""
        if not entry.size:
            with contextlib.suppress(OSError):
                path = os.path.join(self.path, inside, entry.name)
                entry.size = os.lstat(path).st_size
        return entry.size

    def write(self, entry: Entry) -> bool:
        """Write the file of an entry, whole or not at all; return whether it is there.

        What is in it is let go of: of a thousand devices not all need be in memory.
        """
        if not self.is_made or entry.content is None:
            return False
        if self.seconds <= 0:
            self.trouble = f"the disk of {self.path} is too slow to store all"
            return False
        began = time.monotonic()
        try:
            replace_file(self._of(entry), entry.content, 0o600)
        except OSError as exc:
            self.note(exc)
            return False
        finally:
            self.seconds -= time.monotonic() - began
        entry.size = len(entry.content)
        entry.has_file = True
        entry.content = None
        return True

    def read(self, entry: Entry) -> bytes:
        """Return the record of an entry; raises ValueError for damage, OSError."""
        if entry.content is not None:
            return unframed(entry.content)
        content = read_regular(self._of(entry), MOST_BYTES)
        entry.size = len(content)
        return unframed(content)

    def delivered(self, entry: Entry) -> bool:
        """Make an entry's file the device's last one; return whether it is that now."""
        last = os.path.join(self.path, LAST, entry.device)
        try:
            if entry.has_file:
                self._touched = True
                os.replace(self._of(entry), last)
                return True
            if self.is_made and entry.content is not None:
                # Else nothing in the stamp would tell that something was said since.
                with contextlib.suppress(OSError):
                    os.utime(self.path)
                self._remember(entry.device, entry.content)
        except OSError as exc:
            self.note(exc)
            if entry.has_file:
                self._unlink(self._of(entry))
        return False

    def remove(self, entry: Entry, inside: str = "") -> None:
        """Remove an entry's file."""
        self._touched = True
        self._unlink(os.path.join(self.path, inside, entry.name))

    def set_aside(self, entry: Entry) -> bool:
        """Keep an entry's file out of the way; return False if that cannot be done."""
        self._touched = True
        with contextlib.suppress(OSError):
            os.replace(self._of(entry), os.path.join(self.path, BAD, entry.name))
            return True
        return False

    def remember(self, device: str, body: bytes) -> None:
        """Make a record that was never stored the device's last one.

        It need not outlast a power cut: what it is for is a courtesy.
        """
        self._remember(device, framed(body))

    def last(self, device: str) -> bytes | None:
        """Return the record of a device that was delivered last, None if unknown."""
        if not self.is_made:
            return None
        try:
            last = os.path.join(self.path, LAST, device)
            return unframed(read_regular(last, MOST_BYTES))
        except (OSError, ValueError):
            return None

    def forget(self, kept: Container[str]) -> None:
        """Forget the last records of all devices but these."""
        if not self.is_made:
            return
        with contextlib.suppress(OSError):
            with os.scandir(os.path.join(self.path, LAST)) as files:
                gone = [file.path for file in files if file.name not in kept]
            for path in gone:
                self._unlink(path)

    def is_idle(self, since: float) -> bool:
        """Return whether nothing was delivered since (Unix s)."""
        with contextlib.suppress(OSError):
            return os.stat(os.path.join(self.path, LAST)).st_mtime <= since
        return False

    def destroy(self) -> None:
        """Remove it all."""
        with contextlib.suppress(OSError):
            for folder in (LAST, BAD):
                inside = os.path.join(self.path, folder)
                for name in os.listdir(inside):
                    os.unlink(os.path.join(inside, name))
                os.rmdir(inside)
            os.rmdir(self.path)

    def sync(self) -> bool:
        """Make it durable which files are there; `trouble` says if not."""
        try:
            sync_folder(self.path)
        except OSError as exc:
            self.note(exc)
            return False
        self._touched = False
        return True

    def sync_removals(self) -> None:
        """Make it durable that entries are out: else they would be sent again."""
        if self._touched and self.is_made:
            self.sync()

    def note(self, exc: OSError) -> None:
        """Say why nothing can be written."""
        self.trouble = f"cannot write the spool {self.path}: {exc.strerror}"

    def _remember(self, device: str, content: bytes) -> None:
        if self.is_made:
            with contextlib.suppress(OSError):
                last = os.path.join(self.path, LAST, device)
                replace_file(last, content, 0o600, synced=False)

    def _of(self, entry: Entry) -> str:
        return os.path.join(self.path, entry.name)

    def _unlink(self, path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as exc:
            self._has_left_over = True
            self.note(exc)


def by_name(entry: Entry) -> str:
    """Return what entries are sorted by."""
    return entry.name
