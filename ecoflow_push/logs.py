"""The log: one event, one line, no secret."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import re
import select
import sys
import time
from collections import deque
from collections.abc import Iterable
from typing import ClassVar
from urllib.parse import quote

# Masking less would garble every line, and hide nothing that is worth it.
SHORTEST_SECRET = 4
LINE = "%(asctime)s %(levelname)s %(message)s"


class Redactor:
    """Replaces secrets by *** in whatever spelling they come."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = set()
        for secret in secrets:
            if len(secret) < SHORTEST_SECRET:
                continue
            raw = secret.encode()
            forms |= {
                secret,
                quote(secret, safe=""),
                json.dumps(secret)[1:-1],
                repr(secret)[1:-1],
                base64.b64encode(raw).decode().rstrip("="),
                base64.urlsafe_b64encode(raw).decode().rstrip("="),
                raw.hex(),
                raw.hex().upper(),
            }
            # Percent signs may be written with small letters, too.
            forms.add(re.sub("%..", lambda m: m[0].lower(), quote(secret, safe="")))
        # Longest first: a secret may contain another one.
        self._forms = sorted(filter(None, forms), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return `text` without any secret."""
        for form in self._forms:
            text = text.replace(form, "***")
        return text


class _Formatter(logging.Formatter):
    """Redacts message and traceback alike, after both are rendered."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, redact: Redactor, *, as_json: bool) -> None:
        super().__init__(LINE)
        self._redact = redact
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        line = self._line(record)
        _Current.lines.append(line)
        return line

    def _line(self, record: logging.LogRecord) -> str:
        if self._as_json:
            event = {
                "time": self.formatTime(record),
                "level": record.levelname.lower(),
                "message": self._redact(record.getMessage()),
            }
            if record.exc_info:
                event["traceback"] = self._redact(self.formatException(record.exc_info))
            return json.dumps(event)
        return self._redact(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's
        line = self._redact(super().formatMessage(record))
        if line.isprintable():
            return line
        # Device names and server texts are other people's: one event stays one line.
        return re.sub(
            r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]",
            lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(),
            line,
        )


class _Current:
    """What `configure` set last; the log of a process is one."""

    redactor = Redactor(())
    formatter = _Formatter(redactor, as_json=False)
    lines: ClassVar[deque[str]] = deque(maxlen=10)


def configure(level: str, style: str, secrets: Iterable[str]) -> None:
    """Send the log to stderr; libraries keep quiet below an error, always.

    They would log URLs with serials, and headers.
    """
    logging.raiseExceptions = False  # a closed stderr must not change a run
    _Current.redactor = Redactor(secrets)
    _Current.formatter = _Formatter(_Current.redactor, as_json=style == "json")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Current.formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.ERROR)
    logging.getLogger("ecoflow_push").setLevel(level)


def recent() -> str:
    """Return the last lines of the log, secrets masked."""
    return "\n".join(_Current.lines)


def redact(text: object) -> object:
    """Return other people's text without our secrets, before it is cut."""
    return _Current.redactor(text) if isinstance(text, str) else text


def last_words(text: str, level: str = "ERROR") -> None:
    """Write one line past the log, which may be what hangs, unless that would hang."""
    number = logging.getLevelNamesMapping()[level]
    record = logging.LogRecord("ecoflow_push", number, "", 0, text, None, None)
    line = _Current.formatter.format(record) + "\n"
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, line.encode("utf-8", "backslashreplace"))
