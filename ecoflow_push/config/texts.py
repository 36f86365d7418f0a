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


class Texts:
    """Reads variables and collects what is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._texts: dict[str, str | None] = {}
        self._faults: list[Fault] = []
        self._error: type[SettingsError] = SettingsError

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
        return not faulty.isdisjoint(names)

    def raise_faults(self) -> None:
        """Raise SettingsError, or CredentialsConflictError, if there was any fault."""
        if self._faults:
            raise self._error(self._faults)

    def wants(self, *names: str) -> bool:
        """Return whether any of these variables is set, or its _FILE."""
        return any(self.raw(name) or self.raw(f"{name}_FILE") for name in names)

    def raw(self, name: str) -> str | None:
        """Return a variable that has no _FILE form: a path itself, say."""
        return self._environ.get(name, "").strip() or None

    def text(self, name: str, *, lines: bool = False) -> str | None:
        """Return a variable or the content of its _FILE, None if neither is set.

        With `lines` it may have several of them.
        """
        if name not in self._texts:
            self._texts[name] = self._text(name, lines=lines)
        return self._texts[name]

    def _text(self, name: str, *, lines: bool) -> str | None:
        value = self.raw(name)
        file = self.raw(name + "_FILE")
        if file and value:
            self.fault(f"{name} and {name}_FILE", "set only one of them")
        elif file:
            value = self._content(name + "_FILE", file)
        one_line = (value or "").replace("\n", "") if lines else value or ""
        if not one_line.isprintable():
            self.fault(name, "expected one line of printable text")
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
