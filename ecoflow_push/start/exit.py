"""The end of the process: the only place that ends it past the interpreter.

Imports stay light: the first signal handler is set before anything that takes time.
"""

from __future__ import annotations

import os

# For the type checker alone; `typing` takes longer than all of this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# Whoever reads our output may have stopped; what was to be done is done by now.
LONGEST_FLUSH_SECONDS = 5.0


def leave(status: int, patience: float = LONGEST_FLUSH_SECONDS) -> NoReturn:
    """End the process when what was printed is out, or `patience` (s) is at its end.

    Taking the interpreter apart would be a sixth of a run's cost. For the main thread:
    only there a signal interrupts a write that hangs.
    """
    import signal
    import sys

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda *_: leave_at_once(status))
    signal.setitimer(signal.ITIMER_REAL, patience)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # None if closed at the start
            continue
    leave_at_once(status)


def leave_at_once(status: int) -> NoReturn:
    """End the process: the kernel closes connections and frees the lock."""
    os._exit(status)


def leave_hung() -> NoReturn:
    """End the process that outlived its deadline; for the watchdog's thread."""
    from ecoflow_push.errors import ExitStatus
    from ecoflow_push.logs import last_words

    last_words("exit 75 TEMPFAIL: hung beyond RUN_DEADLINE")
    leave_at_once(ExitStatus.TEMPFAIL)
