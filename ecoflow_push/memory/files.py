"""Files that are there whole or not at all, and are not believed when they are read.

Under any name somebody may have put what is no file of ours: none of it may hang a run,
lead it elsewhere, or be written to. Imports stay light, the look at the lock pays for
them.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

TEMPORARY = ".tmp"
# Longer names (bytes) are those of text files alone: no system wants shorter ones.
LONG_NAME = 100
# As much of a name as is recognized, and fits beside more.
SHORT_NAME = 24
DAMAGED = ".damaged"
SPENT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# What 12,000 devices need, and what a run can hold in little memory: a value of JSON
# has a comma or a bracket before it, and takes some 120 bytes at most.
MAX_FILE_BYTES = 16 * 1024 * 1024
MOST_VALUES = 500_000
# The last member of an object: what the rest of it sums up to, by zlib's crc32. It
# stands in no text of ours, where quotes are escaped.
_SUM = b', "crc": '


class NewerFile(Exception):
    """A file that a newer version of this program wrote: it must not be written."""


def open_regular(path: str, flags: int, *, alone: bool = False) -> int:
    """Return a descriptor of a regular file; raises OSError for anything else.

    Opening a FIFO must not hang, nor may a symbolic link lead elsewhere. Whoever writes
    in place asks for a file that is `alone`, without another name somewhere. Raises
    HostLimit where no file at all can be opened: that says nothing of this one.
    """
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as exc:
        if exc.errno not in SPENT:
            raise
        from ecoflow_push.net.deadline import limit_of

        raise limit_of(exc) or exc from exc
    try:
        found = os.fstat(descriptor)
    except OSError:
        release(descriptor)
        raise
    if stat.S_ISREG(found.st_mode) and not (alone and found.st_nlink > 1):
        return descriptor
    release(descriptor)
    raise OSError(errno.EINVAL, "not a regular file")


def release(descriptor: int) -> None:
    """Close what was not written to; a close that fails has closed all the same."""
    try:
        os.close(descriptor)
    except OSError:
        return


def read_regular(path: str, most_bytes: int) -> bytes:
    """Return what is in a regular file, of a longer one so much and a byte.

    Raises OSError. Only as much memory is asked for as the file needs.
    """
    descriptor = open_regular(path, os.O_RDONLY)
    try:
        content, most = b"", min(os.fstat(descriptor).st_size, most_bytes) + 1
        while more := os.read(descriptor, most - len(content)):
            content += more
        return content
    finally:
        release(descriptor)


def replace_file(
    path: str,
    content: bytes | Iterable[bytes | bytearray],
    mode: int,
    *,
    synced: bool = True,
) -> None:
    """Write `path` whole or not at all; raises OSError, and leaves no litter then.

    A killed run's leftover goes with the next one's. With `synced` false a power cut
    may take the content; the new name is durable only after `sync_folder`.
    """
    # A link goes, and what it points to stays; a device or a FIFO is there on purpose.
    if not _is_replaceable(path):
        raise OSError(errno.EINVAL, "not a regular file")
    temporary, descriptor = _new_beside(path, mode)
    try:
        # With a size nobody asks whether this is a terminal.
        with open(descriptor, "wb", 8192) as file:
            # Against the umask, which is the caller's and not this file's matter.
            os.fchmod(file.fileno(), mode)
            file.writelines((content,) if isinstance(content, bytes) else content)
            file.flush()
            if synced:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # passed on; what makes the content may have failed, too
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise


def _is_replaceable(path: str) -> bool:
    """Return whether nothing is there, a file, or a link to whatever it may be."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return True
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _new_beside(path: str, mode: int) -> tuple[str, int]:
    """Make a temporary file that nobody else has made; return its path too."""
    temporary = _beside(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return temporary, os.open(temporary, flags, mode)
    except FileExistsError:
        pass
    try:
        # A killed run's, or what somebody planted there.
        os.unlink(temporary)
        return temporary, os.open(temporary, flags, mode)
    except OSError:
        # Of somebody else, in a folder that is not ours alone.
        folder, name = os.path.split(path)
        own = f".{name[:SHORT_NAME]}.{os.urandom(4).hex()}{TEMPORARY}"
        temporary = os.path.join(folder, own)
        return temporary, os.open(temporary, flags, mode)


def _beside(path: str) -> str:
    """Return the temporary name, which every system takes that takes the file's own."""
    folder, name = os.path.split(path)
    is_long = len(os.fsencode(name)) > LONG_NAME
    name = name[: -len(TEMPORARY)] if is_long else f".{name}"
    return os.path.join(folder, name + TEMPORARY)


def make_private(path: str) -> list[str]:
    """Make a folder, and those above it, closed to others (0700); raises OSError.

    Returns those that are new, the innermost first. Whatever the umask, which is not
    touched: it is that of all threads.
    """
    new = []
    while path and not os.path.isdir(path):
        new.append(path)
        path = os.path.dirname(path)
    for each in reversed(new):
        try:
            os.mkdir(each, 0o700)
            os.chmod(each, 0o700)
        except FileExistsError as exc:
            # Somebody else's, just now, or no folder.
            if not os.path.isdir(each):
                text = os.strerror(errno.ENOTDIR)
                raise NotADirectoryError(errno.ENOTDIR, text) from exc
    return new


def sync_folder(path: str) -> None:
    """Make the names in a folder outlast a power cut; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def values_in(content: bytes) -> int:
    """Return how many values a text in JSON holds at most."""
    return len(content) - len(content.translate(None, b",[{"))


def write_json(path: str, version: int, fields: Mapping[str, object]) -> None:
    """Write a file that `read_json` can tell from a damaged one (0600).

    Pairs from a generator become one object, and mappings in a tuple a list of objects,
    each written as it comes: of thousands not all need be in memory. Raises OSError.
    """
    replace_file(path, _summed({"version": version, **fields}), 0o600)


def _summed(fields: Mapping[str, object]) -> Iterator[bytes]:
    """Yield an object piece by piece, with its sum as the last member."""
    import zlib

    so_far = 0
    for piece in _members(fields.items()):
        so_far = zlib.crc32(piece, so_far)
        yield piece
    yield b"%s%d}" % (_SUM, zlib.crc32(b"}", so_far))


def _members(pairs: Iterable[tuple[str, object]]) -> Iterator[bytes]:
    """Yield an object piece by piece, all but its last brace."""
    from json import dumps
    from types import GeneratorType

    between = "{"
    for name, value in pairs:
        head = f"{between}{dumps(name)}: "
        between = ", "
        if isinstance(value, GeneratorType):
            yield head.encode()
            yield from _members(value)
            yield b"}"
        elif isinstance(value, tuple):
            yield f"{head}[".encode()
            for number, each in enumerate(value):
                yield b", " if number else b""
                yield from _members(each.items())
                yield b"}"
            yield b"]"
        else:
            yield f"{head}{dumps(value)}".encode()
    if between == "{":
        yield b"{"


def read_json(
    path: str,
    version: int,
    holds: str,
    *,
    looks: bool = False,
    hook: Callable[[dict[str, object]], object] | None = None,
) -> dict[str, object] | None:
    """Return the object that a file of this version holds, None if there is none.

    A damaged file is kept aside as `path`.damaged, with one warning that says what is
    lost: `holds`, in the words of a list; who only `looks` leaves it where it is.
    `hook` gives what stands for each object in it, as soon as that is read.
    Raises NewerFile for a newer version's file, which must then never be written;
    OSError for what cannot be read, or not be kept.
    """
    try:
        content = read_regular(path, MAX_FILE_BYTES)
    except FileNotFoundError:
        return None
    found = _parsed(content, hook)
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


def _parsed(
    content: bytes, hook: Callable[[dict[str, object]], object] | None
) -> dict[str, object] | None:
    """Return the object, None if it is none, or not what was written."""
    import json
    import zlib

    if len(content) > MAX_FILE_BYTES or values_in(content) > MOST_VALUES:
        return None
    try:
        found = json.loads(content, object_hook=hook)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    # Older files have no sum, and are believed without.
    end = content.rfind(_SUM)
    text = memoryview(content)[: max(0, end)]
    if end >= 0 and found.get("crc") != zlib.crc32(b"}", zlib.crc32(text)):
        return None
    return found
