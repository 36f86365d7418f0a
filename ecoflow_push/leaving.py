"""The way out of a process that is told to end while it has something to take back.

What --check and --init put somewhere for a moment is taken back by the block that did,
in whatever thread. A signal lets it: it ends the process behind the block. But not
after long, and not for who says it again after having been told what is waited for.
Imports stay light: signals are heard before anything that takes time.
"""

from __future__ import annotations

import _thread
import time

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Callable

# For an answer that is due and for one more; who stops a container waits for 10 s.
MOST_SECONDS = 5.0
# Who waits for longer is told what for.
SILENT_SECONDS = 0.5
WORDS = "told to end: what was tried is taken back first; the next signal ends at once"

#: What is done before the process ends on a signal, the last one first.
before: list[Callable[[], object]] = []
_open: list[undisturbed] = []
#: What ends the process, none as long as nobody wants that.
_wanted: list[Callable[[], object]] = []
_ender = _thread.allocate_lock()
#: Held from when it was told what is waited for. What comes before is no impatience: a
#: terminal that goes away sends more than one signal.
_told = _thread.allocate_lock()


class undisturbed:  # noqa: N801 - a word of the with statement
    """A block that signals wait for; if it is cut short, `what` is left behind."""

    def __init__(self, what: str) -> None:
        """Name what the block takes back, or makes whole."""
        self.what = what

    def __enter__(self) -> None:
        _open.append(self)

    def __exit__(self, *exc_info: object) -> None:
        _open.remove(self)
        if _wanted and not _open:
            _end()


def leave(end: Callable[[], object]) -> None:
    """Let `end` end the process as soon as it may; for the handler of a signal.

    It is called in whatever thread is the last to be done, and only once.
    """
    # In this order: a block that ends meanwhile sees it.
    _wanted.append(end)
    if not _open or _told.locked():
        _end()
    elif len(_wanted) == 1:
        # threading's own could wait for a lock that the handler's thread holds.
        _thread.start_new_thread(_wait, ())


def is_wanted() -> bool:
    """Return whether nothing should be done any more but taking back."""
    return bool(_wanted)


def left_behind() -> str:
    """Return what is still there, "" if nothing is."""
    return ", ".join(block.what for block in [*_open])


def _wait() -> None:
    time.sleep(SILENT_SECONDS)
    if not _ender.locked():
        from ecoflow_push.logs import last_words

        _told.acquire()
        last_words(WORDS, "WARNING")
    time.sleep(MOST_SECONDS - SILENT_SECONDS)
    _end()


def _end() -> None:
    if not _ender.acquire(blocking=False):
        # Once more, by who is impatient: what is undone now takes no time.
        return
    while before:
        before.pop()()
    _wanted[0]()
