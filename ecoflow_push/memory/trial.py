"""What --check does to a folder: a file is written, flushed, read back and removed."""

from __future__ import annotations

import contextlib
import errno
import os

from ecoflow_push.memory.files import read_regular, replace_file, sync_folder

NAME = ".ecoflow-push-check"
#: What is said of a folder that is as it should be.
TRIED = "a file was written, read back and removed"
# More than one run writes into any of its files, for all but a large fleet.
CONTENT = b"a test, gone in a moment\n" * 2_600

#: By what went wrong, what to do; `{name}` is what the folder belongs to.
_CURES = {
    errno.ENOSPC: "make room on the disk of {name}",
    errno.EDQUOT: "make room on the disk of {name}, or raise the quota there",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f, LimitFSIZE=)",
    errno.EIO: "look for a failing disk",
}


def try_folder(folder: str, *, makes: bool = True) -> OSError | None:
    """Write into a folder as a run does, and return what went wrong.

    One that is not there is made, and removed again, if that is what a run `makes`.
    """
    path = os.path.join(folder, NAME)
    is_new = makes and not os.path.isdir(folder)
    try:
        if is_new:
            os.makedirs(folder, 0o700)
        try:
            replace_file(path, CONTENT, 0o600)
            sync_folder(folder)
            if read_regular(path, len(CONTENT)) != CONTENT:
                return OSError(errno.EIO, "what was written reads otherwise")
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            if is_new:
                os.rmdir(folder)
    except OSError as exc:
        return exc
    return None


def cure_of(error: OSError, name: str, otherwise: str) -> str:
    """Return what to do about an error in the folder of `name`."""
    return _CURES.get(error.errno or 0, otherwise).format(name=name)
