"""The environment as texts: variables, the files that they name, and their faults."""

from __future__ import annotations

import os
import stat

from ecoflow_push.errors import CredentialsConflictError, Fault, SettingsError

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Mapping

# A secret is a line, not a document; a wrong path must not fill the memory.
MAX_FILE_BYTES = 64 * 1024
HOMES = ("~/", "$HOME/")
# What the names of config/strangers.py begin with, and few others.
STRANGE = (
    *("ECOFLOW_", "PUSHGATEWAY_", "REMOTE_WRITE_", "PUSH_", "SPOOL_", "METRICS_"),
    *("ecoflow_", "Ecoflow", "EcoFlow", "pushgateway_", "METRIC_", "DEVICE_", "MQTT_"),
    *("EXPORTER_", "HTTP_", "DEBUG_", "SCRAPING_", "EXPIRATION_", "PROMETHEUS_"),
    *("IDLE_", "MAX_RECONNECT_", "QUOTA_", "offlineT", "offgridT"),
)


def is_quoted(text: str) -> bool:
    """Return whether quotes stand around a text."""
    return len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"


class Texts:
    """Reads variables and collects what is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._texts: dict[str, str | None] = {}
        self._faults: list[Fault] = []
        self._error: type[SettingsError] = SettingsError
        #: Every name that was looked for.
        self.asked: set[str] = set()
        #: Names whose value must not be seen.
        self.secrets: set[str] = set()
        #: What is no fault, and yet not as it should be.
        self.notes: list[Fault] = []

    def fault(self, variable: str, text: str, cure: str = "") -> None:
        """Note what is wrong, with a variable or with all; `raise_faults` raises it."""
        self._faults.append(Fault(variable, text, cure))

    def conflict(self, text: str, cure: str) -> None:
        """Note a fault that makes the whole a CredentialsConflictError."""
        self.fault("", text, cure)
        self._error = CredentialsConflictError

    @property
    def has_faults(self) -> bool:
        """Whether anything was wrong so far."""
        return bool(self._faults)

    def is_faulty(self, *names: str) -> bool:
        """Return whether a fault of one of these variables, or its _FILE, is known."""
        faulty = {fault.variable.removesuffix("_FILE") for fault in self._faults}
        return not faulty.isdisjoint(name.removesuffix("_FILE") for name in names)

    def raise_faults(self) -> None:
        """Raise SettingsError, or CredentialsConflictError, if there was any fault."""
        if self._faults:
            raise self._error(self._faults, self.notes)

    def look_around(self) -> None:
        """Note what else is set; for the end, when all that counts was asked for."""
        strange = [
            name
            for name in self._environ
            if name.startswith(STRANGE) and name not in self.asked
        ]
        if strange:
            from ecoflow_push.config.strangers import notes

            self.notes += notes(strange, self._environ)
        exposed: Mapping[str, str] = getattr(self._environ, "exposed", {})
        for path in sorted({exposed[x] for x in self.secrets if x in exposed}):
            text = f"{path} holds a secret, and others can read it"
            self.notes.append(Fault("", text, f"chmod 600 {path}"))

    def wants(self, *names: str) -> bool:
        """Return whether any of these variables is set, or its _FILE."""
        return any(self.raw(name) or self.raw(f"{name}_FILE") for name in names)

    def raw(self, name: str) -> str | None:
        """Return a variable that has no _FILE form, as it stands."""
        self.asked.add(name)
        return self._environ.get(name, "").strip() or None

    def shaped(self, name: str) -> str | None:
        """Return the same; what a loader should have taken off it is a fault."""
        value = self.raw(name)
        return self._bare(name, value) if value else None

    def home(self) -> str:
        """Return the home folder."""
        return self.raw("HOME") or os.path.expanduser("~")

    def path(self, name: str) -> str | None:
        """Return an absolute path; `~/` and `$HOME/` are the home folder."""
        path = self.shaped(name)
        if path and path.startswith(HOMES):
            path = os.path.join(self.home(), path.partition("/")[2])
        if path and not path.startswith("/"):
            cure = "it begins with /, ~/ or $HOME/"
            self.fault(name, "expected an absolute path", cure)
            return None
        return path

    def text(self, name: str, *, lines: bool = False) -> str | None:
        """Return a variable or the content of its _FILE, None if neither is set.

        With `lines` it may have several of them.
        """
        if name not in self._texts:
            self._texts[name] = self._text(name, lines=lines)
        return self._texts[name]

    def _text(self, name: str, *, lines: bool) -> str | None:
        value = self.raw(name)
        file = name + "_FILE"
        if not self.raw(file):
            value = self._bare(name, value) if value else None
        elif value:
            self.fault(f"{name} and {file}", "set only one of them")
        elif path := self.path(file):
            value = self._content(file, path)
            if value and f"{name}=" in value:
                self.fault(file, f"{name}= in it", "let it hold the value alone")
                return None
        one_line = (value or "").replace("\n", "") if lines else value or ""
        if not one_line.isprintable():
            self.fault(name, "expected one line of printable text")
            return None
        return value

    def _bare(self, name: str, value: str) -> str | None:
        if is_quoted(value):
            cure = "the loader kept them as part of the value, leave them out"
            self.fault(name, "quotes around it", cure)
            return None
        if f"{name}=" in value:
            cure = "the loader kept it as part of the value, leave it out"
            self.fault(name, f"{name}= in it", cure)
            return None
        return value

    def _content(self, name: str, path: str) -> str | None:
        try:
            # Non-blocking: opening a FIFO that nobody writes to must not hang.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    self.fault(name, "expected a regular file")
                    return None
                raw = file.read(MAX_FILE_BYTES + 1)
            text = raw.decode("utf-8-sig").strip()
        except OSError as exc:
            self.fault(name, f"cannot be read ({exc.strerror})")
            return None
        except UnicodeDecodeError:
            self.fault(name, "expected UTF-8 text")
            return None
        if len(raw) > MAX_FILE_BYTES:
            self.fault(name, f"longer than {MAX_FILE_BYTES} bytes")
            return None
        if not text:
            self.fault(name, "the file is empty")
        return text or None
