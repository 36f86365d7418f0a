"""The spool: what remote-write has not taken yet, one immutable file per snapshot.

    spool-0f3a51c2b7d9/                           one folder per endpoint
        001764057600123.312.R331ZFAKE0000001      milliseconds, samples, device
        last/R331ZFAKE0000001                     what was delivered last
        bad/001764057540088.312.R331ZFAKE0000001  set aside

A file is written beside its name, flushed, renamed, and counts as stored once the
folder is flushed too: less lost the last record in every simulated power cut
(reliability.md 4.3). Nothing is ever appended to, so damage costs one record.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ecoflow_push.memory.files import TEMPORARY, replace_file, sync_folder

if TYPE_CHECKING:
    from ecoflow_push.net.deadline import Deadline

MAGIC = b"ecoflow-push spool 1\n"
# Of the compressed content behind it: its length, its CRC-32.
HEADER = struct.Struct(">II")
# No snapshot comes near; what is larger was not written by us.
MOST_BYTES = 64 * 1024 * 1024
BAD, LAST = "bad", "last"


class Entry:
    """One record, on its way: in memory, in the spool, or in both."""

    __slots__ = (
        *("body", "device", "has_file", "is_fresh", "is_stored"),
        *("samples", "size", "time_ms"),
    )

    def __init__(
        self,
        time_ms: int,
        samples: int,
        device: str,
        body: bytes | None = None,
        size: int = 0,
    ) -> None:
        self.time_ms = time_ms
        self.samples = samples
        self.device = device
        #: The record; None where it is only in the file.
        self.body = body
        #: Bytes of the file.
        self.size = size
        self.has_file = body is None
        #: The file will outlast a power cut.
        self.is_stored = body is None
        #: Of this run.
        self.is_fresh = body is not None

    @property
    def name(self) -> str:
        """The file's name, in whose order records go out."""
        return f"{self.time_ms:015d}.{self.samples}.{self.device}"


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

    def open(self) -> None:
        """Make the folders (0700), clear what a killed run left, list what waits."""
        try:
            self._make_folders()
            self.entries = self._listed()
            self._is_open = True
        except OSError as exc:
            self.trouble = f"cannot use the spool {self.folder}: {exc.strerror}"

    def store(self, entries: Iterable[Entry], deadline: Deadline) -> None:
        """Store entries durably, each whole or not at all; `trouble` says if not.

        A slow disk may not use up what the network needs: after the deadline nothing
        more is stored.
        """
        written = []
        for entry in entries if not self.trouble else ():
            if deadline.left() <= 0:
                self.trouble = f"the disk of {self.folder} is too slow to store all"
                break
            content = _framed(entry.body or b"")
            try:
                replace_file(self._path(entry), content, 0o600)
            except OSError as exc:
                self._note(exc)
                continue
            entry.size = len(content)
            entry.has_file = True
            written.append(entry)
        if written and self._sync():
            for entry in written:
                entry.is_stored = True
                # Of a thousand devices they need not all be in memory.
                entry.body = None
        self.entries = sorted({*self.entries, *written}, key=lambda e: e.name)

    def read(self, entry: Entry) -> bytes:
        """Return the record of an entry; raises ValueError if the file is damaged."""
        if entry.body is not None:
            return entry.body
        return self._read(self._path(entry))

    def delivered(self, entry: Entry) -> None:
        """Take an entry out; its record is the device's last one from now on."""
        last = self._path_of_last(entry.device)
        self._forget(entry)
        try:
            if entry.has_file:
                os.replace(self._path(entry), last)
            else:
                self.remember(entry.device, entry.body or b"")
        except OSError as exc:
            self._note(exc)
            if entry.has_file:
                self._unlink(self._path(entry))

    def remember(self, device: str, body: bytes) -> None:
        """Make a record that was never stored the device's last one.

        It need not outlast a power cut: what it is for is a courtesy.
        """
        if not self._is_open:
            return
        with contextlib.suppress(OSError):
            last = self._path_of_last(device)
            replace_file(last, _framed(body), 0o600, synced=False)

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

    def too_old(self, oldest_ms: int) -> list[Entry]:
        """Return the entries from before `oldest_ms`."""
        return [entry for entry in self.entries if entry.time_ms < oldest_ms]

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
        return [entry for entry in reversed(self.entries) if entry.device == device]

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
                elif entry := _named(file.name):
                    entry.size = file.stat(follow_symlinks=False).st_size
                    found.append(entry)
        return sorted(found, key=lambda entry: entry.name)

    def _read(self, path: str) -> bytes:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        with open(os.open(path, flags), "rb") as file:
            return _unframed(file.read(MOST_BYTES))

    def _path(self, entry: Entry) -> str:
        return os.path.join(self.folder, entry.name)

    def _path_of_last(self, device: str) -> str:
        return os.path.join(self.folder, LAST, device)

    def _forget(self, entry: Entry) -> None:
        self._touched = True
        if entry in self.entries:
            self.entries.remove(entry)

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


def endpoint_folder(state_folder: str, *endpoint: str) -> str:
    """Return the folder of one endpoint's spool: a hash, since a URL may tell much."""
    digest = hashlib.sha256("\0".join(endpoint).encode()).hexdigest()[:12]
    return os.path.join(state_folder, f"spool-{digest}")


def other_spools(own_folder: str) -> list[Spool]:
    """Return the spools of endpoints that were once set and are not now."""
    parent, own = os.path.split(own_folder)
    found = []
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(parent)):
            is_link = os.path.islink(os.path.join(parent, name))
            if name.startswith("spool-") and name != own and not is_link:
                spool = Spool(os.path.join(parent, name))
                spool.open()
                found.append(spool)
    return found


def _named(name: str) -> Entry | None:
    """Return the entry that a file's name tells of, None for a foreign file."""
    time_ms, samples, device = [*name.split(".", 2), "", ""][:3]
    numbers = time_ms + samples
    is_ours = numbers.isdecimal() and device.replace("_", "").replace("-", "").isalnum()
    if not (is_ours and name.isascii() and len(numbers) < 25):
        return None
    entry = Entry(int(time_ms or 0), int(samples or 0), device)
    return entry if entry.name == name else None


def _framed(body: bytes) -> bytes:
    content = zlib.compress(body, 1)
    return MAGIC + HEADER.pack(len(content), zlib.crc32(content)) + content


def _unframed(data: bytes) -> bytes:
    """Return what `_framed` was given; raises ValueError for anything else."""
    start = len(MAGIC) + HEADER.size
    content = data[start:]
    if data[: len(MAGIC)] != MAGIC or len(data) < start:
        raise ValueError("not a record of this version")
    if (len(content), zlib.crc32(content)) != HEADER.unpack(data[len(MAGIC) : start]):
        raise ValueError("damaged")
    decompressor = zlib.decompressobj()
    try:
        body = decompressor.decompress(content, MOST_BYTES)
    except zlib.error as exc:
        raise ValueError("damaged") from exc
    if not decompressor.eof:
        raise ValueError("larger than any record")
    return body
