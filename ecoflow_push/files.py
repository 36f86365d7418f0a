"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os


def replace_file(path: str, content: bytes, mode: int) -> None:
    """Write `path` whole or not at all; raises OSError, and leaves no litter then.

    The temporary name is fixed: the run holds the lock, and a killed run's leftover is
    overwritten by the next.
    """
    if os.path.lexists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "not a regular file")
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    # Opening a FIFO that somebody left under this name must not hang.
    flags |= os.O_NONBLOCK
    try:
        with open(os.open(temporary, flags, mode), "wb") as file:
            # Against the umask, which is the caller's and not this file's matter.
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
