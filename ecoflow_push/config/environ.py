"""How a variable is read: its forms, its checks, and the faults that it has.

Imports stay light on purpose: a run that finds the lock taken pays for this module
and for little else.
"""

from __future__ import annotations

import os
import stat

from ecoflow_push.errors import CredentialsConflictError, SettingsError

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from urllib.parse import SplitResult

RESERVED_LABELS = (
    *("job", "instance", "device", "device_name", "product_name", "source", "pack"),
    *("phase", "state", "reason", "stage", "version", "le", "quantile"),
    *("family", "firmware"),
)
# What remote-write demands, and what HTTP does by itself.
RESERVED_HEADERS = (
    *("content-encoding", "content-type", "user-agent", "retry-attempt"),
    "x-prometheus-remote-write-version",
    *("accept-encoding", "connection", "content-length", "expect", "host"),
    *("proxy-authorization", "te", "transfer-encoding", "upgrade"),
)
# The service routes it by the caller's location.
DEFAULT_API_HOST = "api.ecoflow.com"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# A secret is a line, not a document; a wrong path must not fill the memory.
MAX_FILE_BYTES = 64 * 1024


class Secret:
    """A text that does not print; `reveal()` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "***"

    def reveal(self) -> str:
        """Return the text itself, for the one place that sends it."""
        return self._text


class Reader:
    """Reads variables and collects what is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._faults: list[str] = []
        self._error: type[SettingsError] = SettingsError

    def fault(self, text: str) -> None:
        """Note a fault; `raise_faults` raises them all."""
        self._faults.append(text)

    def conflict(self, text: str) -> None:
        """Note a fault that makes the whole a CredentialsConflictError."""
        self.fault(text)
        self._error = CredentialsConflictError

    @property
    def has_faults(self) -> bool:
        """Whether anything was wrong so far."""
        return bool(self._faults)

    def raise_faults(self) -> None:
        """Raise SettingsError if there was any fault."""
        if self._faults:
            raise self._error("settings: " + "; ".join(self._faults))

    def raw(self, name: str) -> str | None:
        """Return a variable that has no _FILE form: a path itself, say."""
        return self._environ.get(name, "").strip() or None

    def text(self, name: str, *, lines: bool = False) -> str | None:
        """Return a variable or the content of its _FILE, None if neither is set.

        With `lines` it may have several of them.
        """
        value = self.raw(name)
        file = self.raw(name + "_FILE")
        if file and value:
            self.fault(f"{name} and {name}_FILE: set only one of them")
        elif file:
            value = self._content(name + "_FILE", file)
        one_line = (value or "").replace("\n", "") if lines else value or ""
        if not one_line.isprintable():
            self.fault(f"{name}: expected one line of printable text")
            return None
        return value

    def secret(self, name: str) -> Secret | None:
        """Return a text that must not print."""
        value = self.text(name)
        return Secret(value) if value else None

    def header_secret(self, name: str) -> Secret | None:
        """Return a secret that an HTTP header can carry."""
        value = self.secret(name)
        if value and (" " in value.reveal() or not value.reveal().isascii()):
            self.fault(f"{name}: expected ASCII characters without spaces")
            return None
        return value

    def pair(self, first: str, second: str) -> bool:
        """Return whether both variables are set; one alone is a fault."""
        is_set = [
            bool(self.raw(name) or self.raw(name + "_FILE")) for name in (first, second)
        ]
        if is_set == [True, False]:
            self.fault(f"{second}: missing, {first} is set")
        if is_set == [False, True]:
            self.fault(f"{first}: missing, {second} is set")
        return all(is_set)

    def choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        """Return one of `choices` in their own spelling, None if unset."""
        value = self.text(name)
        for choice in choices:
            if value and value.lower() == choice.lower():
                return choice
        if value:
            self.fault(f"{name}: expected one of {', '.join(choices)}")
        return None

    def choices(self, name: str, choices: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of `choices` that a list names, in their order; all if unset."""
        named = {part.strip().lower() for part in (self.text(name) or "").split(",")}
        found = tuple(choice for choice in choices if choice in named)
        if named - {"", *choices}:
            self.fault(f"{name}: expected {' or '.join(choices)}, or both with a comma")
        return found or choices

    def seconds(self, name: str, default: float, least: float) -> float:
        """Return a duration in seconds, fractions allowed."""
        # 1e6 s: longer than any wait that makes sense, short enough for any timer.
        value = self._number(name, float, least, 1e6, "seconds")
        return float(default) if value is None else value

    def count(
        self, name: str, default: int | None, least: int, most: int
    ) -> int | None:
        """Return a whole number."""
        value = self._number(name, int, least, most, "a whole number")
        return default if value is None else int(value)

    def existing_file(self, name: str) -> str | None:
        """Return the path of a file that is there."""
        path = self.raw(name)
        if path and not os.path.isfile(path):
            self.fault(f"{name}: no such file")
        return path

    def url(self, name: str, *, query: bool = False) -> SplitResult | None:
        """Return the parts of an http(s) URL, which may have a `query` or not."""
        value = self.text(name)
        parts = _split(value or "", query=query)
        if value and not parts:
            form = "path][?query" if query else "prefix"
            self.fault(f"{name}: expected http(s)://host[:port][/{form}]")
        return parts

    def whole_url(self, name: str) -> Secret | None:
        """Return an http(s) URL as it stands; whoever knows it may use it."""
        parts = self.url(name, query=True)
        return Secret(parts.geturl()) if parts else None

    def headers(self, name: str) -> dict[str, str]:
        """Return HTTP headers, written as lines or with semicolons between them."""
        found: dict[str, str] = {}
        text = (self.text(name, lines=True) or "").replace("\n", ";")
        for part in filter(None, map(str.strip, text.split(";"))):
            header, colon, value = (piece.strip() for piece in part.partition(":"))
            if not (colon and value and value.isascii() and _is_made_of(header, "-_")):
                self.fault(f"{name}: expected Name: value, in ASCII")
                return {}
            if header.lower() in RESERVED_HEADERS:
                self.fault(f"{name}: the program itself sets the header {header}")
            found[header] = value
        return found

    def api_url(self, name: str, default: str) -> str:
        """Return the base URL of a host, host:port or URL; http for loopback only."""
        value = self.text(name) or default
        parts = _split(value if "://" in value else "https://" + value)
        if not parts or parts.path.strip("/") or parts.username is not None:
            self.fault(f"{name}: expected a host, host:port or https://host[:port]")
            return ""
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            self.fault(f"{name}: expected https (http is for loopback only)")
        return f"{parts.scheme}://{parts.netloc}"

    def serials(self, name: str) -> tuple[str, ...]:
        """Return serial numbers separated by commas, each once."""
        serials = [part.strip() for part in (self.text(name) or "").split(",")]
        serials = list(dict.fromkeys(serial for serial in serials if serial))
        if not all(is_serial(serial) for serial in serials):
            self.fault(f"{name}: expected serial numbers, separated by commas")
        return tuple(serials)

    def names(self, name: str, serials: tuple[str, ...]) -> dict[str, str]:
        """Return names by serial; a plain name is for the one serial that is set."""
        value = self.text(name)
        if not value:
            return {}
        if "=" not in value:
            if len(serials) != 1:
                self.fault(
                    f"{name}: a plain name needs exactly one serial in"
                    " ECOFLOW_DEVICE_SN; else give SN=name,SN=name"
                )
                return {}
            return {serials[0]: value}
        return self._pairs(name, value, "SN=name,SN=name", is_serial)

    def labels(self, name: str) -> dict[str, str]:
        """Return labels that are free to be set."""
        labels = self._pairs(
            name,
            self.text(name) or "",
            "name=value,name=value",
            _is_name,
        )
        for label in labels:
            if label in RESERVED_LABELS or label.startswith(("__", "index_")):
                self.fault(f"{name}: the label {label} is used by the program itself")
        return labels

    def prefix(self, name: str, default: str) -> str:
        """Return what a metric name may begin with."""
        value = self.text(name) or default
        if not _is_name(value):
            self.fault(f"{name}: expected letters, digits and _, no digit first")
        return value

    def instance(self, job: str) -> str:
        """Return the host's name; in a container, whose name changes, the job's."""
        contained = self.raw("KUBERNETES_SERVICE_HOST") or any(
            map(os.path.exists, ("/.dockerenv", "/run/.containerenv"))
        )
        return job if contained else os.uname().nodename or job

    def state_dir(self, name: str) -> str:
        """Return where to remember things: the variable, else XDG's place for it."""
        home = self.raw("HOME") or os.path.expanduser("~")
        state_home = self.raw("XDG_STATE_HOME") or os.path.join(home, ".local/state")
        return self.raw(name) or os.path.join(state_home, "ecoflow-push")

    def proxies(self) -> dict[str, str]:
        """Return what the usual variables say, with the keys http, https and no."""
        found = {}
        for kind in ("http", "https", "no"):
            name = f"{kind}_proxy"
            value = self.raw(name) or self.raw(name.upper())
            if value and kind != "no":
                value = value if "://" in value else "http://" + value
                if not _split(value):
                    self.fault(f"{name.upper()}: expected http(s)://host:port")
            if value:
                found[kind] = value
        return found

    def _number(
        self,
        name: str,
        convert: Callable[[str], float],
        least: float,
        most: float,
        what: str,
    ) -> float | None:
        text = self.text(name)
        if text is None:
            return None
        try:
            value = convert(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            self.fault(f"{name}: expected {what} from {least:g} to {most:g}")
            return None
        return value

    def _pairs(
        self, name: str, value: str, form: str, is_key: Callable[[str], bool]
    ) -> dict[str, str]:
        pairs: dict[str, str] = {}
        for part in filter(None, map(str.strip, value.split(","))):
            key, _, text = (piece.strip() for piece in part.partition("="))
            if not is_key(key) or not text or key in pairs:
                self.fault(f"{name}: expected {form}")
                return {}
            pairs[key] = text
        return pairs

    def _content(self, name: str, path: str) -> str | None:
        try:
            # Non-blocking: opening a FIFO that nobody writes to must not hang.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    self.fault(f"{name}: expected a regular file")
                    return None
                raw = file.read(MAX_FILE_BYTES + 1)
            text = raw.decode("utf-8-sig").strip()
        except OSError as exc:
            self.fault(f"{name}: cannot be read ({exc.strerror})")
            return None
        except UnicodeDecodeError:
            self.fault(f"{name}: expected UTF-8 text")
            return None
        if len(raw) > MAX_FILE_BYTES:
            self.fault(f"{name}: longer than {MAX_FILE_BYTES} bytes")
            return None
        if not text:
            self.fault(f"{name}: the file is empty")
        return text or None


def is_serial(text: str) -> bool:
    """Return whether `text` can be a serial number (16 letters and digits, or so)."""
    return _is_made_of(text, "_-") and len(text) <= 64


def _is_name(text: str) -> bool:
    """Return whether a metric or label may be called so."""
    return text.isidentifier() and text.isascii()


def _is_made_of(text: str, marks: str) -> bool:
    """Return whether `text` is ASCII letters, digits and some of these marks alone."""
    # Compiling a regular expression costs more than this, once a minute.
    return (
        text.isascii() and all(c.isalnum() or c in marks for c in text) and text != ""
    )


def _is_printable(text: str) -> bool:
    """Return whether `text` can stand in a request line as it is."""
    return text.isascii() and text.isprintable() and " " not in text


def _split(url: str, *, query: bool = False) -> SplitResult | None:
    """Return the parts of an http(s) URL that can name a server, else None."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        usable = (
            parts.scheme in ("http", "https")
            and _is_made_of(parts.hostname or "", "._:-")
            and parts.port != 0
            and (not parts.query or (query and _is_printable(parts.query)))
            and not parts.fragment
        )
    except ValueError:
        return None
    return parts if usable else None
