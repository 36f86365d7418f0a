"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os

TEMPORARY = ".tmp"


def replace_file(path: str, content: bytes, mode: int, *, synced: bool = True) -> None:
    """Write `path` whole or not at all; raises OSError, and leaves no litter then.

    The temporary name is fixed: the run holds the lock, and a killed run's leftover is
    overwritten by the next. With `synced` false a power cut may take the content; the
    new name is durable only after `sync_folder`.
    """
    if os.path.lexists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "not a regular file")
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}{TEMPORARY}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    # Opening a FIFO that somebody left under this name must not hang.
    flags |= os.O_NONBLOCK
    try:
        with open(os.open(temporary, flags, mode), "wb") as file:
            # Against the umask, which is the caller's and not this file's matter.
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            if synced:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise


def sync_folder(path: str) -> None:
    """Make the names in a folder outlast a power cut; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
