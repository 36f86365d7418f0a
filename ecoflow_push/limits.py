"""The host's limits, told as what they are: no threads, memory, descriptors or disk.

Imported where one may have been met (`errors.limit_of`), which a good run never does.
"""

from __future__ import annotations

import errno
import os
import sys

# By the number of an OSError: what it means, and what to do. Other numbers are about
# one address or one file, and whoever met them has a better word.
LIMITS = {
    errno.ENOMEM: (
        "out of memory",
        "allow more: ulimit -v, MemoryMax= of its unit, or the container's limit",
    ),
    errno.EMFILE: (
        "the process may open no more files",
        "allow more: ulimit -n, or LimitNOFILE= of its unit",
    ),
    errno.ENFILE: (
        "the host has no more open files to give",
        "look for who keeps them open, or raise fs.file-max",
    ),
    errno.EAGAIN: (
        "no thread can be started",
        "allow more: ulimit -u, TasksMax= of its unit, or the container's limit",
    ),
    errno.ENOSPC: ("the disk is full", "make room on it"),
    errno.EDQUOT: ("the disk quota is used up", "make room in it"),
    errno.EROFS: ("the disk cannot be written", "look why it is mounted read-only"),
    errno.EIO: ("the disk failed", "look for a failing disk"),
}
# Of a library nobody is told why it could not be loaded.
UNLOADED = (
    "out of memory or open files, or the disk failed",
    "allow more: ulimit -v, ulimit -n, or look for a failing disk",
)
# Of address space: more than a library that is loaded, or a thread's stack.
SPARE_BYTES = 16 * 1024 * 1024


def words_of(exc: BaseException) -> tuple[str, str] | None:
    """Return which limit an error comes from and the cure, None if from none."""
    chain = links(exc)
    for link in chain:
        if isinstance(link, MemoryError):
            return LIMITS[errno.ENOMEM]
        # Others' numbers, of ssl's errors say, have meanings of their own.
        if type(link) is OSError and link.errno in LIMITS:
            return LIMITS[link.errno]
        if isinstance(link, ImportError) and _is_pythons_own(link):
            return UNLOADED
    if any(map(_may_hide_one, chain)) and (number := met_now()):
        return LIMITS[number]
    return None


def links(exc: BaseException) -> list[BaseException]:
    """Return an error and what it was made of, outermost first."""
    chain: list[BaseException] = []
    link: BaseException | None = exc
    while link is not None and link not in chain:
        chain.append(link)
        inner = getattr(link, "reason", None)
        inner = inner if isinstance(inner, BaseException) else None
        inner = inner or next(
            (a for a in link.args if isinstance(a, BaseException)), None
        )
        before = None if link.__suppress_context__ else link.__context__
        link = inner or link.__cause__ or before
    return chain


def _is_pythons_own(link: ImportError) -> bool:
    """Return whether a library of the interpreter is there, and was not loaded."""
    is_there = link.path is not None and os.path.isfile(link.path)
    return is_there and link.name in sys.stdlib_module_names


def _may_hide_one(link: BaseException) -> bool:
    """Return whether an error may come of a limit without saying so.

    A library that is there and cannot be loaded, a codec, a name, a file of
    certificates, an interpreter that lost its own error.
    """
    if isinstance(link, ImportError):
        return link.path is not None
    if type(link) in (LookupError, SystemError):
        return True
    return type(link).__module__ in ("ssl", "socket")


def met_now() -> int:
    """Return the number of a limit that is met at this moment, 0 for none."""
    try:
        os.close(os.open(os.sep, os.O_RDONLY | os.O_CLOEXEC))
        bytearray(SPARE_BYTES)
    except MemoryError:
        return errno.ENOMEM
    except OSError as exc:
        return exc.errno if exc.errno in LIMITS else 0
    return 0


def words_of_no_thread() -> tuple[str, str]:
    """Return why a thread cannot be started: its stack is memory, too."""
    return LIMITS[met_now() or errno.EAGAIN]
