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
# Of names, patterns and networks, and what stands between them.
HOST_MARKS = "._-:*[]/%, "
HOMES = ("~/", "$HOME/")
# What STATE_DIR says instead of a folder; a folder of that name has a path.
NOWHERE = "none"
# What the names of config/strangers.py begin with, and few others.
STRANGE = (
    *("ECOFLOW_", "PUSHGATEWAY_", "REMOTE_WRITE_", "PUSH_", "SPOOL_", "METRICS_"),
    *("ecoflow_", "Ecoflow", "EcoFlow", "pushgateway_", "METRIC_", "DEVICE_", "MQTT_"),
    *("EXPORTER_", "HTTP_", "DEBUG_", "SCRAPING_", "EXPIRATION_", "PROMETHEUS_"),
    *("IDLE_", "MAX_RECONNECT_", "QUOTA_", "offlineT", "offgridT"),
)
# What our own names begin with, beside those above, and end with: of a slip, one of
# both is left.
HEADS = (
    *("ECO", "EST", "RET", "RUN", "STA", "COL", "HEA", "LOG", "EXT", "MQT", "TEX"),
    *("EXP", "PUS", "REM", "SPO", "MET", "ACC", "SHA"),
)
TAILS = (
    *("ABELS", "ADERS", "AFTER", "AMING", "BYTES", "CE_SN", "DLINE", "EMPTS", "ERVAL"),
    *("E_DIR", "E_URL", "_JOB", "K_URL", "LEVEL", "MEOUT", "MPLES", "ORMAT", "OURCE"),
    *("REFIX", "RNAME", "RSION", "SWORD", "S_KEY", "S_SET", "TANCE", "TOKEN", "T_KEY"),
    *("X_AGE", "Y_URL", "_FILE", "I_HOST", "L_MODE", "E_NAME", "E_PATH", "R_PORT"),
    *("T_USER", "COUNTS", "_ONCE", "_COUNT", "_INDEX"),
)
# The shortest name of ours that may lack a letter has as many.
SHORTEST_NAME = 8


def are_hosts(text: str) -> bool:
    """Return whether a text may be names of hosts, and no address with a password."""
    return "//" not in text and all(c.isalnum() or c in HOST_MARKS for c in text)


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

    def expected(
        self,
        variable: str,
        what: str,
        value: str,
        cure: str = "",
        *,
        is_ascii: bool = False,
    ) -> None:
        """Note that `what` was expected instead of `value`, which is never shown.

        But for a character of it that nobody sees, or takes for another, or that does
        not belong where all others are ASCII: its name is the better word.
        """
        odd = ""
        if not (value.isascii() and value.isprintable()):
            from ecoflow_push.config.hidden import CURE, first_foreign, hidden

            odd = first_foreign(value) if is_ascii else hidden(value)
            cure = CURE if odd else cure
        self.fault(variable, odd or f"expected {what}", cure)

    def is_odd(self, value: str) -> bool:
        """Return whether such a character is in a URL; a password may have it."""
        if value.isascii():
            return False
        from ecoflow_push.config.hidden import hidden

        return hidden(value.rpartition("@")[2]) != ""

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
            error = self._error(self._faults, self.notes)
            error.reader = self
            raise error

    def look_around(self) -> None:
        """Note what else is set; for the end, when all that counts was asked for."""
        asked = self.asked
        others = [name for name in self._environ if name not in asked]
        strange = {name for name in others if name.startswith(STRANGE)}
        near = [
            name
            for name in others
            if len(name) >= SHORTEST_NAME
            and ((upper := name.upper()).startswith(HEADS) or upper.endswith(TAILS))
        ]
        if near:
            from ecoflow_push.config.slips import meant_by

            strange.update(filter(meant_by, near))
        if strange:
            from ecoflow_push.config.strangers import notes

            self.notes += notes(strange, self._environ)
        exposed: Mapping[str, str] = getattr(self._environ, "exposed", {})
        for path in sorted({exposed[x] for x in self.secrets if x in exposed}):
            from ecoflow_push.config.exposed import note_on

            self.notes.append(Fault("", *note_on(path)))

    def wants(self, *names: str) -> bool:
        """Return whether any of these variables is set, or its _FILE."""
        return any(self.raw(name) or self.raw(f"{name}_FILE") for name in names)

    def raw(self, name: str) -> str | None:
        """Return a variable that has no _FILE form, as it stands."""
        self.asked.add(name)
        return self._environ.get(name, "").strip() or None

    def origin(self, name: str) -> str:
        """Return where a variable stands, as "file:line", or in the environment."""
        origins: Mapping[str, str] = getattr(self._environ, "origins", {})
        return origins.get(name, "environment")

    def shaped(self, name: str) -> str | None:
        """Return the same; what a loader should have taken off it is a fault.

        So is what nobody sees, but for a byte that is no UTF-8: names have some.
        """
        value = self.raw(name)
        seen = (value or "").encode("utf-8", "replace").decode()
        if not seen.isprintable():
            self.expected(name, "one line of printable text", seen)
            return None
        return self._bare(name, value) if value else None

    def home(self) -> str:
        """Return the home folder."""
        home = self.shaped("HOME") or ""
        if home and not home.startswith("/") and not self.is_faulty("HOME"):
            self.expected("HOME", "an absolute path", home)
        return home or os.path.expanduser("~")

    def hosts(self, name: str) -> str | None:
        """Return names of hosts with commas between them, as NO_PROXY has them."""
        value = self.shaped(name) or ""
        if not are_hosts(value):
            self.expected(name, "hosts, separated by commas", value)
            return None
        return ",".join(value.replace(",", " ").split())

    def path(self, name: str) -> str | None:
        """Return an absolute path; `~/` and `$HOME/` are the home folder."""
        path = self.shaped(name)
        if path and path.startswith(HOMES):
            path = os.path.join(self.home(), path.partition("/")[2])
        if path and not path.startswith("/"):
            cure = "it begins with /, ~/ or $HOME/"
            self.expected(name, "an absolute path", path, cure)
            return None
        return path

    def state_dir(self, name: str) -> str | None:
        """Return where to remember things, or XDG's place for it; None for nowhere."""
        if (self.raw(name) or "").lower() == NOWHERE:
            return None
        own, state_home = self.path(name), self.path("XDG_STATE_HOME")
        state_home = own or state_home or os.path.join(self.home(), ".local/state")
        return own or os.path.join(state_home, "ecoflow-push")

    def text(
        self, name: str, *, lines: bool = False, is_password: bool = False
    ) -> str | None:
        """Return a variable or the content of its _FILE, None if neither is set.

        With `lines` it may have several of them. What nobody sees is a fault, but of a
        password, whose own it may be, a note.
        """
        if name not in self._texts:
            value = self._text(name)
            line = (value or "").replace("\n", "") if lines else value or ""
            if not line.isprintable():
                value = self._odd(name, line, is_password=is_password)
            self._texts[name] = value
        return self._texts[name]

    def _odd(self, name: str, value: str, *, is_password: bool) -> str | None:
        from ecoflow_push.config.hidden import has_controls, hidden

        if is_password and not has_controls(value):
            cure = "if that is not the password's own, paste it as plain text"
            self.notes.append(Fault(name, hidden(value, is_plain=False), cure))
            return value
        self.expected(name, "one line of printable text", value)
        return None

    def _text(self, name: str) -> str | None:
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
