"""The log: one event, one line, no secret."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
import threading
from _contextvars import ContextVar
from collections import deque
from collections.abc import Iterable
from typing import ClassVar

from ecoflow_push.errors import HostLimit
from ecoflow_push.lines import line
from ecoflow_push.redact import redact

#: Of whom a line tells, where a run is for many: it begins every line of the thread
#: that sets it, and of those that this one starts.
of_whom: ContextVar[str] = ContextVar("of_whom", default="")


class Alike:
    """Warnings that many accounts of a run have alike: one is told, more are counted.

    For several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        #: What is told of the run itself, later, and so of no account.
        self.known = ""

    def is_first(self, kind: str) -> bool:
        """Return whether nobody else had a warning of this kind, and count it."""
        with self._lock:
            if kind == self.known:
                return False
            self._counts[kind] = self._counts.get(kind, 0) + 1
            return self._counts[kind] == 1

    def tell(self) -> None:
        """Say how many more there were of each kind."""
        for kind, count in self._counts.items():
            if count > 1:
                logging.getLogger(__name__).warning(
                    "%s: so for %d more; LOG_LEVEL=DEBUG names them", kind, count - 1
                )


#: Where warnings are counted that would be told of a thousand accounts; as `of_whom`.
alike: ContextVar[Alike | None] = ContextVar("alike", default=None)


class _Formatter(logging.Formatter):
    """Redacts message and traceback alike, after both are rendered."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        said = line(
            record.levelname,
            of_whom.get() + redact(record.getMessage()),
            record.created,
            as_json=self._as_json,
            traceback=redact(trace),
        )
        _Current.lines.append(said)
        return said


class _Current:
    """What `configure` set last; the log of a process is one."""

    formatter = _Formatter(as_json=False)
    lines: ClassVar[deque[str]] = deque(maxlen=10)


def configure(level: str, style: str) -> None:
    """Send the log to stderr; libraries keep quiet below an error, always.

    They would log URLs with serials, and headers.
    """
    logging.raiseExceptions = False  # a closed stderr must not change a run
    _Current.formatter = _Formatter(as_json=style == "json")
    handler = logging.StreamHandler(sys.stderr)
    handler.handleError = _say_in_short  # type: ignore[method-assign]
    handler.setFormatter(_Current.formatter)
    threading.excepthook = _tell_bug
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.ERROR)
    logging.getLogger("ecoflow_push").setLevel(level)


def _say_in_short(record: logging.LogRecord) -> None:
    """Write what there is no memory to put well, past the log."""
    if not isinstance(sys.exc_info()[1], (MemoryError, ImportError)):
        return
    with contextlib.suppress(MemoryError, OSError):
        said = redact(record.getMessage())
        said = said if said.isprintable() else "out of memory"
        os.write(2, f"{record.levelname} {said}\n".encode("ascii", "replace"))


def _tell_bug(args: threading.ExceptHookArgs) -> None:
    """Say what ended a thread that nobody waits for: Python would mask nothing."""
    if isinstance(args.exc_value, (MemoryError, HostLimit)):
        # Who waits for it in vain says so.
        logging.getLogger(__name__).debug("a thread has ended early")
        return
    logging.getLogger(__name__).error(
        "a bug in ecoflow_push, please report it", exc_info=args.exc_value
    )


def warn_of(notes: Iterable[object]) -> None:
    """Write a warning of each."""
    for note in notes:
        logging.getLogger(__name__).warning("%s", note)


def warn_once(log: logging.Logger, kind: str, text: str, *args: object) -> None:
    """Write a warning, of many accounts only the first one that is of this kind."""
    among = alike.get()
    is_told = among is None or among.is_first(kind)
    log.log(logging.WARNING if is_told else logging.DEBUG, text, *args)


def recent() -> str:
    """Return the last lines of the log, secrets masked."""
    return redact("\n".join(_Current.lines))


def last_words(text: str, level: str = "ERROR") -> None:
    """Write one line past the log, which may be what hangs, unless that would hang."""
    number = logging.getLevelNamesMapping()[level]
    record = logging.LogRecord("ecoflow_push", number, "", 0, text, None, None)
    said = _Current.formatter.format(record) + "\n"
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, said.encode("utf-8", "backslashreplace"))
