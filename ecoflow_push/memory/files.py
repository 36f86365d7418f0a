"""Files that are there whole or not at all, and are not believed when they are read."""

from __future__ import annotations

import errno
import os
import stat
import zlib

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TEMPORARY = ".tmp"
# Longer names (bytes) are those of text files alone: no system wants shorter ones.
LONG_NAME = 100
DAMAGED = ".damaged"
MAX_FILE_BYTES = 32 * 1024 * 1024
# The last member of an object: what the rest of it sums up to, by zlib's crc32. It
# stands in no text of ours, where quotes are escaped.
_SUM = b', "crc": '


class NewerFile(Exception):
    """A file that a newer version of this program wrote: it must not be written."""


def replace_file(
    path: str,
    content: bytes | Iterable[bytes | bytearray],
    mode: int,
    *,
    synced: bool = True,
) -> None:
    """Write `path` whole or not at all; raises OSError, and leaves no litter then.

    The temporary name is fixed: the run holds the lock, and a killed run's leftover is
    overwritten by the next. With `synced` false a power cut may take the content; the
    new name is durable only after `sync_folder`.
    """
    if os.path.lexists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "not a regular file")
    temporary = _beside(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    # Opening a FIFO that somebody left under this name must not hang.
    flags |= os.O_NONBLOCK
    try:
        with open(os.open(temporary, flags, mode), "wb") as file:
            # Against the umask, which is the caller's and not this file's matter.
            os.fchmod(file.fileno(), mode)
            file.writelines((content,) if isinstance(content, bytes) else content)
            file.flush()
            if synced:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        # It is still there if anything failed, what makes the content included.
        if os.path.lexists(temporary):
            os.unlink(temporary)


def _beside(path: str) -> str:
    """Return the temporary name, which every system takes that takes the file's own."""
    folder, name = os.path.split(path)
    is_long = len(os.fsencode(name)) > LONG_NAME
    name = name[: -len(TEMPORARY)] if is_long else f".{name}"
    return os.path.join(folder, name + TEMPORARY)


def sync_folder(path: str) -> None:
    """Make the names in a folder outlast a power cut; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str, version: int, fields: Mapping[str, object]) -> None:
    """Write a file that `read_json` can tell from a damaged one (0600).

    Raises OSError.
    """
    import json

    text = json.dumps({"version": version, **fields}).encode()
    summed = b"%s%s%d}" % (text[:-1], _SUM, zlib.crc32(text))
    replace_file(path, summed, 0o600)


def read_json(
    path: str, version: int, holds: str, *, looks: bool = False
) -> dict[str, object] | None:
    """Return the object that a file of this version holds, None if there is none.

    A damaged file is kept aside as `path`.damaged, with one warning that says what is
    lost: `holds`, in the words of a list; who only `looks` leaves it where it is.
    Raises NewerFile for a newer version's file, which must then never be written;
    OSError for what cannot be read, or not be kept.
    """
    try:
        content = _content(path)
    except FileNotFoundError:
        return None
    found = _parsed(content)
    written_by = found.get("version") if found else None
    if type(written_by) is int and written_by > version:
        raise NewerFile
    if found is None or type(written_by) is not int or written_by != version:
        if not looks:
            os.replace(path, path + DAMAGED)
        import logging

        logging.getLogger(__name__).warning(
            "%s is damaged and %s kept as %s: %s begin anew; nothing needs to be done",
            path,
            "will be" if looks else "was",
            os.path.basename(path) + DAMAGED,
            holds,
        )
        return None
    found.pop("crc", None)
    return found


def _content(path: str) -> bytes:
    # Opening a FIFO that somebody left under this name must not hang.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with open(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return file.read(MAX_FILE_BYTES + 1)


def _parsed(content: bytes) -> dict[str, object] | None:
    """Return the object, None if it is none, or not what was written."""
    import json

    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    text, mark, _ = content.rpartition(_SUM)
    # Older files have no sum, and are believed without.
    if mark and found.get("crc") != zlib.crc32(text + b"}"):
        return None
    return found
