"""One monotonic deadline per run, its shares, and the rings that hold it.

Threads are begun here, so it is also told here when the host has none, or less.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # of signal, without its enums
import threading
import time
from _contextvars import copy_context
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ecoflow_push.errors import HostLimit


class Deadline:
    """An instant on the monotonic clock that work must not outlast."""

    __slots__ = ("_until",)

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that remain, never below 0."""
        return max(0.0, self._until - time.monotonic())

    def share(self, part: float) -> Deadline:
        """Return a deadline after `part` (0 to 1) of the time that remains."""
        return Deadline(self.left() * part)


def limit_of(exc: BaseException) -> HostLimit | None:
    """Return the limit of the host that an error comes from, None if from none."""
    if isinstance(exc, HostLimit):
        return exc
    try:
        from ecoflow_push.limits import words_of
    except Exception as again:  # noqa: BLE001 - whatever keeps it from being imported
        # Where a limit is met, perhaps nothing more can be imported.
        text = getattr(again, "strerror", None) or "out of memory"
        return HostLimit(text, "allow more: ulimit -v, ulimit -n")
    words = words_of(exc)
    return HostLimit(*words) if words else None


def start(work: Callable[[], object]) -> threading.Thread:
    """Return a thread that does `work`; raises HostLimit if there can be none.

    What it logs is told of whom its starter's lines are (logs.of_whom).
    """
    run = copy_context().run
    thread = threading.Thread(target=run, args=(work,), daemon=True)
    try:
        thread.start()
    except RuntimeError as exc:
        raise no_thread() from exc
    return thread


def no_thread() -> HostLimit:
    """Return why a thread cannot be started, which is all that Python says of it."""
    from ecoflow_push.limits import words_of_no_thread

    return HostLimit(*words_of_no_thread())


def within(deadline: Deadline, work: Callable[[], object]) -> bool:
    """Do `work` in a thread; return False if it had to be abandoned.

    The waiting thread can leave whatever the work hangs in (name resolution knows no
    timeout) and hears signals at once. What `work` raises is raised here,
    and HostLimit where there can be no thread.
    """
    raised: list[BaseException] = []
    done = threading.Event()

    def task() -> None:
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 - a bug, carried to who waits
            raised.append(exc)
        finally:
            done.set()

    start(task)
    # A little longer than the work's own bounds, so that its words are the better ones.
    patience = Deadline(deadline.left() + 0.25)
    # In slices: of several signals at once, none may reach a thread that waits.
    while not done.wait(min(0.5, patience.left())) and patience.left() > 0:
        pass
    if raised:
        raise raised[0]
    return done.is_set()


@contextmanager
def alarm(seconds: float, *, stays: bool, end: Callable[[], object]) -> Iterator[None]:
    """Let a block that outlives its deadline be the end of the process.

    The watchdog's thread calls `end`, which says why; the kernel's alarm is for a hang
    that not even a thread survives. Neither outlives the block. A process that `stays`
    has the first one alone, and more patience: it is to outlive a disk that stalls.
    """
    if stays:
        with Watchdog(seconds + 60, end):
            yield
        return
    _signal.setitimer(_signal.ITIMER_REAL, seconds + 10)
    try:
        with Watchdog(seconds + 5, end):
            yield
    finally:
        _signal.setitimer(_signal.ITIMER_REAL, 0)


class Watchdog:
    """The last ring: calls `end`, in a thread, when a block outlives its deadline."""

    def __init__(self, seconds: float, end: Callable[[], object]) -> None:
        self._seconds = seconds
        self._end = end
        self._over = threading.Event()

    def __enter__(self) -> None:
        start(self._watch)

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        left = self._seconds
        while left > 0:
            # Slice by slice: a process that was stopped for an hour did not hang.
            if self._over.wait(min(left, 1.0)):
                return
            left -= 1.0
        if not self._over.is_set():
            self._end()
