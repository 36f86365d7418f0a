"""One run at a time: the folder of an account and job, and the lock on it.

The lock is the kernel's (flock): a killed holder leaves none behind. It is on the
folder itself, so that removing or replacing a file in it frees nothing; and on a file
in it where no folder can be locked, and against versions that know no other. Imports
stay light: a run that finds the lock taken has paid for little more.
"""

from __future__ import annotations

import fcntl
import hashlib
import os

from ecoflow_push.errors import LockedError
from ecoflow_push.memory.files import make_private, open_regular, release, sync_folder

HELD = "another run is still at work; this one leaves"
NAME = "lock"
DIGITS = 12
OPEN = "can be written to by others"


def state_folder(state_dir: str, *identity: str) -> str:
    """Return the folder of one account and job: 12 hex of a hash, so no name leaks."""
    return os.path.join(state_dir, fingerprint(*identity)[:DIGITS])


def is_state_folder(name: str) -> bool:
    """Return whether a folder of one account and job may be called so."""
    return len(name) == DIGITS and set(name) <= set("0123456789abcdef")


def fingerprint(*texts: str) -> str:
    """Return a hash that tells texts apart without holding them.

    A path among them may have bytes that are no UTF-8.
    """
    text = "\0".join(texts).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()


def hold(folder: str) -> list[int]:
    """Return the locks of `folder`, which is made (0700): closing them frees it.

    Raises LockedError when another run holds it, OSError when there can be none.
    """
    if not os.path.isdir(folder):
        _make(folder)
    path = os.path.join(folder, NAME)
    try:
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
    except OSError:
        # A read-only file system still locks.
        descriptor = open_regular(path, os.O_RDONLY)
    _lock(descriptor)
    try:
        own = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return [descriptor, _lock(own)]
    except OSError:
        return [descriptor]
    except BaseException:  # passed on; nobody else could free it
        release(descriptor)
        raise


def _lock(descriptor: int) -> int:
    """Take a lock, or close the descriptor; raises LockedError or OSError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        release(descriptor)
        if isinstance(exc, BlockingIOError):
            raise LockedError(HELD) from exc
        raise
    return descriptor


def _make(folder: str) -> None:
    """Make a folder, and those above it, so that it outlasts a power cut."""
    for each in make_private(folder):
        try:
            sync_folder(os.path.dirname(each) or ".")
        except OSError:
            # Others' folders may be closed to us: what is in there can still be used.
            continue


def is_held(folder: str) -> bool:
    """Return whether another run holds the lock of `folder`; makes nothing.

    In the order of who takes it: of several at once, one finds it free.
    """
    held = []
    try:
        for part, opened in ((NAME, open_regular), ("", os.open)):
            flags = os.O_RDONLY | os.O_CLOEXEC
            try:
                held.append(_lock(opened(os.path.join(folder, part), flags)))
            except OSError:
                # Not there, no file, or on a system that locks no folders.
                continue
    except LockedError:
        return True
    finally:
        for descriptor in held:
            release(descriptor)
    return False


def close_to_others(folder: str) -> str:
    """Make a folder private (0700) that others can write to.

    Returns what is to be said of it, "" of one that was private.
    """
    found = os.stat(folder)
    if not found.st_mode & 0o022:
        return ""
    if found.st_uid == os.geteuid():
        try:
            os.chmod(folder, 0o700)
        except OSError:
            return f"{OPEN}: make it private, chmod 700"
        if not os.stat(folder).st_mode & 0o022:
            return "could be written to by others, and is private (0700) from now on"
    return f"{OPEN}: let STATE_DIR name a folder of the job alone"
