"""What --check does to a folder: a file is written, flushed, read back and removed."""

from __future__ import annotations

import contextlib
import errno
import os

from ecoflow_push import leaving
from ecoflow_push.memory.files import read_regular, replace_file, sync_folder

# Neither node_exporter reads it, nor does a spool.
ENDING = ".try"
#: What is said of a folder that is as it should be.
TRIED = "a file was written, read back and removed"
# More than one run writes into any of its files, for all but a large fleet.
CONTENT = b"a test, gone in a moment\n" * 2_600

#: By what went wrong, what to do; `{name}` is what the folder belongs to.
_CURES = {
    errno.ENOSPC: "make room on the disk of {name}",
    errno.EDQUOT: "make room on the disk of {name}, or raise the quota there",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f, LimitFSIZE=)",
    errno.ENAMETOOLONG: "let {name} be shorter",
    errno.EIO: "look for a failing disk",
}


def try_file(path: str, *, makes: bool = True) -> OSError | None:
    """Write beside `path` as a run writes that file, and return what went wrong.

    A folder that is not there is made, and removed again, if that is what a run
    `makes`. The file itself is not touched.
    """
    folder = os.path.dirname(path)
    with leaving.undisturbed(f"a test in {folder}"):
        is_new = makes and not os.path.isdir(folder)
        try:
            if is_new:
                os.makedirs(folder, 0o700)
            try:
                return _try(beside(path))
            finally:
                if is_new:
                    os.rmdir(folder)
        except OSError as exc:
            return exc


def beside(path: str) -> str:
    """Return the path of a trial: as long as the file's own, of the same letters.

    What a system does not take of the one it does not take of the other.
    """
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name[: -1 - len(ENDING)]}{ENDING}")


def _try(path: str) -> OSError | None:
    try:
        replace_file(path, CONTENT, 0o600)
        sync_folder(os.path.dirname(path))
        if read_regular(path, len(CONTENT)) != CONTENT:
            return OSError(errno.EIO, "what was written reads otherwise")
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    return None


def cure_of(error: OSError, name: str, otherwise: str) -> str:
    """Return what to do about an error in the folder of `name`."""
    return _CURES.get(error.errno or 0, otherwise).format(name=name)
