"""The end of the process: the only place that ends it past the interpreter.

Imports stay light: the first signal handler is set before anything that takes time.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # of signal, without its enums
import os

# For the type checker alone; `typing` takes longer than all of this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from sys import UnraisableHookArgs
    from types import TracebackType
    from typing import NoReturn

# Whoever reads our output may have stopped; what was to be done is done by now.
LONGEST_FLUSH_SECONDS = 5.0


def leave(status: int, patience: float = LONGEST_FLUSH_SECONDS) -> NoReturn:
    """End the process when what was printed is out, or `patience` (s) is at its end.

    Taking the interpreter apart would be a sixth of a run's cost. For the main thread:
    only there a signal interrupts a write that hangs.
    """
    import sys

    for number in (_signal.SIGTERM, _signal.SIGINT):
        _signal.signal(number, _signal.SIG_IGN)
    _signal.signal(_signal.SIGALRM, lambda *_: leave_at_once(status))
    _signal.setitimer(_signal.ITIMER_REAL, patience)
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


def pass_over(what: UnraisableHookArgs) -> None:
    """Be told of what nobody can catch: a close that fails has closed all the same."""
    import sys

    if not isinstance(what.exc_value, OSError):
        sys.__unraisablehook__(what)


def tell_uncaught(
    environ: Mapping[str, str],
    kind: type[BaseException],
    exc: BaseException,
    trace: TracebackType | None,
) -> None:
    """Be told of what nobody catches: imports, mostly, that meet a limit.

    What the host (71) or the installation (78) lacks is one line, all else what it
    always was.
    """
    import sys

    try:
        from ecoflow_push.net.deadline import limit_of
        from ecoflow_push.start.installation import fault_of

        fault = limit_of(exc) or (isinstance(exc, Exception) and fault_of(exc))
        said = f"exit {fault.status:d} {fault.status.name}: {fault}" if fault else ""
        status = int(fault.status) if fault else 0
    except Exception:  # noqa: BLE001 - not even that can be looked up any more
        text = "the host lacks memory or open files: allow more: ulimit -v, ulimit -n"
        said, status = f"exit 71 OSERR: {text}", 71
    if not said:
        sys.__excepthook__(kind, exc, trace)
        return
    try:
        import time

        from ecoflow_push.lines import line

        as_json = environ.get("LOG_FORMAT", "").strip().lower() == "json"
        said = line("ERROR", said, time.time(), as_json=as_json)
    except Exception:  # noqa: BLE001 - as above
        said = f"ERROR {said}"
    try:
        os.write(2, said.encode() + b"\n")
    finally:
        leave_at_once(status)
