"""Notes: a few bytes that can be written even where a disk is full.

Their file is made while there is room, and only ever overwritten in its place. It holds
what must not be forgotten although the state cannot be saved, or not yet.
"""

from __future__ import annotations

import contextlib
import errno
import os
import zlib

from ecoflow_push.memory.files import open_regular, read_regular
from ecoflow_push.memory.records import counts_of, number_of

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "notes"
ROOM_BYTES = 512
# What opening says of what is no file, a link, or a socket.
FOREIGN = (errno.EINVAL, errno.ELOOP, errno.ENXIO)


class Notes:
    """The file `notes` of a state folder, whose lock the caller holds."""

    def __init__(self, folder: str) -> None:
        """Name the folder; `open` reads what is there."""
        self._path = os.path.join(folder, NAME)
        #: Totals of samples that were lost, by reason, of which the state may not know.
        self.dropped: dict[str, int] = {}
        #: The last replay: the endpoint's name, up to which time (ms), in which run.
        self.replaying: tuple[str, int, int] = ("", 0, 0)

    def open(self) -> None:
        """Read the file, or make it."""
        import json

        with contextlib.suppress(OSError, ValueError, TypeError):
            if not self._is_there():
                self._write(b"\n" * ROOM_BYTES, os.O_CREAT | os.O_EXCL)
                return
            text = read_regular(self._path, ROOM_BYTES).partition(b"\n")[0]
            crc, _, text = text.partition(b" ")
            if int(crc or b"0", 16) == zlib.crc32(text):
                dropped, name, *numbers = json.loads(text)
                self.dropped = counts_of(dropped)
                until_ms, run = (int(number_of(value) or 0) for value in numbers)
                self.replaying = (str(name), until_ms, run)

    def begin_replay(self, name: str, until_ms: int, run: int) -> None:
        """Note that records up to a time are being written, before they are.

        A run that is killed, or a power cut, leaves or brings back the files of some
        that were taken. `run` is how many runs came to their end before.
        """
        self.replaying = (name, max(until_ms, self.replayed_until(name, run)), run)
        self._save()

    def end_replay(self, name: str) -> None:
        """Note that one came to its end, where no count of runs will say so."""
        if self.replaying[0] == name:
            self.replaying = ("", 0, 0)
            self._save()

    def replayed_until(self, name: str, runs: int) -> int:
        """Return up to which time (ms) a replay came that did not come to its end.

        0 if there is none: `runs`, what the state knows of, would be more.
        """
        place, until_ms, run = self.replaying
        return until_ms if place == name and run >= runs else 0

    def lost(self, dropped: Mapping[str, int]) -> None:
        """Note the totals of what was lost."""
        self.dropped = {reason: n for reason, n in dropped.items() if n}
        self._save()

    def _is_there(self) -> bool:
        """Return whether there is a file of ours; anything else goes."""
        if not os.path.lexists(self._path):
            return False
        try:
            os.close(open_regular(self._path, os.O_RDONLY, alone=True))
        except OSError as exc:
            if exc.errno not in FOREIGN:
                raise
            os.unlink(self._path)
            return False
        return True

    def _save(self) -> None:
        import json

        content = [self.dropped, *self.replaying]
        text = json.dumps(content, separators=(",", ":")).encode()
        with contextlib.suppress(OSError):
            self._write(b"%08x %b\n" % (zlib.crc32(text), text), 0)

    def _write(self, content: bytes, flags: int) -> None:
        # In place: what has another name somewhere is not ours alone.
        descriptor = open_regular(self._path, flags | os.O_WRONLY, alone=True)
        try:
            os.pwrite(descriptor, content, 0)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
