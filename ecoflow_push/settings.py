"""The settings: the environment, read once, all faults in one message.

Imports stay light on purpose: a run that finds the lock taken pays for this module
and for little else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ecoflow_push.errors import CredentialsConflictError, SettingsError

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
RESERVED_LABELS = (
    *("job", "instance", "device", "device_name", "product_name", "source", "pack"),
    *("phase", "state", "reason", "stage", "version", "le", "quantile"),
)
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


class Settings:
    """Everything the environment decides, checked; durations are seconds."""

    #: Which ways to read, in their order: rest, mqtt or both.
    sources: tuple[str, ...]
    access_key: Secret | None
    secret_key: Secret | None
    account_user: Secret | None
    account_password: Secret | None
    api_url: str
    api_ca_file: str | None
    device_sns: tuple[str, ...]
    device_names: dict[str, str]
    attempts: int
    longest_wait: float
    mqtt_timeout: float
    interval: float
    exporter_port: int | None
    run_deadline: float
    stale_after: float
    pushgateway_url: str | None
    pushgateway_username: str | None
    pushgateway_password: Secret | None
    pushgateway_bearer_token: Secret | None
    pushgateway_ca_file: str | None
    pushgateway_cert_file: str | None
    pushgateway_key_file: str | None
    textfile_path: str | None
    job: str
    instance: str
    prefix: str
    extra_labels: dict[str, str]
    state_dir: str
    log_level: str
    log_format: str
    proxies: dict[str, str]

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str], *, needs_sink: bool = True
    ) -> Settings:
        """Return the settings that `environ` describes.

        Raises SettingsError that names every fault, or its subclass
        CredentialsConflictError when both credential pairs compete.
        """
        read = _Reader(environ)
        self = cls()
        self._read_ecoflow(read)
        self._read_run(read)
        self._read_pushgateway(read)
        self.textfile_path = read.path("TEXTFILE_PATH")
        if self.textfile_path and os.path.isdir(self.textfile_path):
            read.fault("TEXTFILE_PATH: expected a file, not a folder")
        self.proxies = read.proxies()
        if needs_sink and not (self.pushgateway_url or self.textfile_path):
            read.fault(
                "no sink: set PUSHGATEWAY_URL or TEXTFILE_PATH, or use --dry-run"
            )
        read.raise_faults()
        return self

    def secrets(self) -> list[str]:
        """Return every text that must not appear in any output."""
        held = [
            self.access_key,
            self.secret_key,
            self.account_user,
            self.account_password,
            self.pushgateway_password,
            self.pushgateway_bearer_token,
        ]
        texts = [secret.reveal() for secret in held if secret]
        for proxy in self.proxies.values():
            password = urlsplit(proxy).password
            texts += [unquote(password)] if password else []
        return texts

    def _read_ecoflow(self, read: _Reader) -> None:
        self.access_key = read.header_secret("ECOFLOW_ACCESS_KEY")
        self.secret_key = read.header_secret("ECOFLOW_SECRET_KEY")
        self.account_user = read.secret("ECOFLOW_ACCOUNT_USER")
        self.account_password = read.secret("ECOFLOW_ACCOUNT_PASSWORD")
        keys = read.pair("ECOFLOW_ACCESS_KEY", "ECOFLOW_SECRET_KEY")
        account = read.pair("ECOFLOW_ACCOUNT_USER", "ECOFLOW_ACCOUNT_PASSWORD")
        source = read.choice("ECOFLOW_SOURCE", ("rest", "mqtt", "auto"))
        if not source:
            if keys and account:
                read.conflict(
                    "both developer keys and an app account are set:"
                    " remove one pair, or set ECOFLOW_SOURCE to rest, mqtt or auto"
                )
            elif not keys and not account:
                read.fault(
                    "no credentials: set ECOFLOW_ACCESS_KEY and ECOFLOW_SECRET_KEY"
                )
        elif source in ("rest", "auto") and not keys:
            read.fault(
                f"ECOFLOW_SOURCE={source} needs ECOFLOW_ACCESS_KEY and _SECRET_KEY"
            )
        elif source in ("mqtt", "auto") and not account:
            read.fault(
                f"ECOFLOW_SOURCE={source} needs ECOFLOW_ACCOUNT_USER and _PASSWORD"
            )
        source = source or ("rest" if keys else "mqtt")
        self.sources = ("rest", "mqtt") if source == "auto" else (source,)
        self.api_url = read.api_url("ECOFLOW_API_HOST", "api.ecoflow.com")
        self.api_ca_file = read.existing_file("ECOFLOW_CA_FILE")
        self.device_sns = read.serials("ECOFLOW_DEVICE_SN")
        self.device_names = read.names("ECOFLOW_DEVICE_NAME", self.device_sns)
        self.attempts = read.count("ESTABLISH_ATTEMPTS", 5, 1, 100) or 5
        self.longest_wait = read.seconds("RETRY_TIMEOUT", 30, 0)
        self.mqtt_timeout = read.seconds("MQTT_TIMEOUT", 60, 1)

    def _read_run(self, read: _Reader) -> None:
        self.interval = read.seconds("COLLECTING_INTERVAL", 10, 1)
        self.exporter_port = read.count("EXPORTER_PORT", None, 1, 65535)
        self.run_deadline = read.seconds("RUN_DEADLINE", 50, 1)
        self.stale_after = read.seconds("STALE_AFTER", 300, 0)
        self.job = read.text("PUSH_JOB") or "ecoflow"
        self.instance = read.text("PUSH_INSTANCE") or read.instance(self.job)
        self.prefix = read.prefix("METRICS_PREFIX", "ecoflow")
        self.extra_labels = read.labels("EXTRA_LABELS")
        self.state_dir = read.state_dir("STATE_DIR")
        self.log_level = read.choice("LOG_LEVEL", LOG_LEVELS) or "INFO"
        self.log_format = read.choice("LOG_FORMAT", ("text", "json")) or "text"

    def _read_pushgateway(self, read: _Reader) -> None:
        url = read.url("PUSHGATEWAY_URL")
        self.pushgateway_url = url and _without_userinfo(url)
        self.pushgateway_username = read.text("PUSHGATEWAY_USERNAME")
        self.pushgateway_password = read.secret("PUSHGATEWAY_PASSWORD")
        self.pushgateway_bearer_token = read.header_secret("PUSHGATEWAY_BEARER_TOKEN")
        basic = read.pair("PUSHGATEWAY_USERNAME", "PUSHGATEWAY_PASSWORD")
        if basic and self.pushgateway_bearer_token:
            read.fault(
                "PUSHGATEWAY_BEARER_TOKEN: not together with PUSHGATEWAY_USERNAME"
            )
        if url and url.username is not None:
            if basic or self.pushgateway_bearer_token:
                read.fault(
                    "PUSHGATEWAY_URL: has credentials, and so have other variables"
                )
            self.pushgateway_username = unquote(url.username)
            self.pushgateway_password = Secret(unquote(url.password or ""))
        self.pushgateway_ca_file = read.existing_file("PUSHGATEWAY_CA_FILE")
        self.pushgateway_cert_file = read.existing_file("PUSHGATEWAY_CERT_FILE")
        self.pushgateway_key_file = read.existing_file("PUSHGATEWAY_KEY_FILE")
        if self.pushgateway_key_file and not self.pushgateway_cert_file:
            read.fault("PUSHGATEWAY_KEY_FILE: needs PUSHGATEWAY_CERT_FILE")


class _Reader:
    """Reads variables and collects what is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._faults: list[str] = []
        self._error: type[SettingsError] = SettingsError

    def fault(self, text: str) -> None:
        self._faults.append(text)

    def conflict(self, text: str) -> None:
        self.fault(text)
        self._error = CredentialsConflictError

    def raise_faults(self) -> None:
        if self._faults:
            raise self._error("settings: " + "; ".join(self._faults))

    def path(self, name: str) -> str | None:
        """Return a variable that is a path itself and so has no _FILE form."""
        return self._environ.get(name, "").strip() or None

    def text(self, name: str) -> str | None:
        value = self.path(name)
        file = self.path(name + "_FILE")
        if file and value:
            self.fault(f"{name} and {name}_FILE: set only one of them")
        elif file:
            value = self._content(name + "_FILE", file)
        if value and not value.isprintable():
            self.fault(f"{name}: expected one line of printable text")
            return None
        return value

    def secret(self, name: str) -> Secret | None:
        value = self.text(name)
        return Secret(value) if value else None

    def header_secret(self, name: str) -> Secret | None:
        value = self.secret(name)
        if value and (" " in value.reveal() or not value.reveal().isascii()):
            self.fault(f"{name}: expected ASCII characters without spaces")
            return None
        return value

    def pair(self, first: str, second: str) -> bool:
        """Return whether both variables are set; one alone is a fault."""
        is_set = [
            bool(self.path(name) or self.path(name + "_FILE"))
            for name in (first, second)
        ]
        if is_set == [True, False]:
            self.fault(f"{second}: missing, {first} is set")
        if is_set == [False, True]:
            self.fault(f"{first}: missing, {second} is set")
        return all(is_set)

    def choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        value = self.text(name)
        for choice in choices:
            if value and value.lower() == choice.lower():
                return choice
        if value:
            self.fault(f"{name}: expected one of {', '.join(choices)}")
        return None

    def seconds(self, name: str, default: float, least: float) -> float:
        # 1e6 s: longer than any wait that makes sense, short enough for any timer.
        value = self._number(name, float, least, 1e6, "seconds")
        return float(default) if value is None else value

    def count(
        self, name: str, default: int | None, least: int, most: int
    ) -> int | None:
        value = self._number(name, int, least, most, "a whole number")
        return default if value is None else int(value)

    def existing_file(self, name: str) -> str | None:
        path = self.path(name)
        if path and not os.path.isfile(path):
            self.fault(f"{name}: no such file")
        return path

    def url(self, name: str) -> SplitResult | None:
        value = self.text(name)
        parts = _split(value or "")
        if value and not parts:
            self.fault(f"{name}: expected http(s)://host[:port][/prefix]")
        return parts

    def api_url(self, name: str, default: str) -> str:
        value = self.text(name) or default
        parts = _split(value if "://" in value else "https://" + value)
        if not parts or parts.path.strip("/") or parts.username is not None:
            self.fault(f"{name}: expected a host, host:port or https://host[:port]")
            return ""
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            self.fault(f"{name}: expected https (http is for loopback only)")
        return f"{parts.scheme}://{parts.netloc}"

    def serials(self, name: str) -> tuple[str, ...]:
        serials = [part.strip() for part in (self.text(name) or "").split(",")]
        serials = list(dict.fromkeys(serial for serial in serials if serial))
        if not all(is_serial(serial) for serial in serials):
            self.fault(f"{name}: expected serial numbers, separated by commas")
        return tuple(serials)

    def names(self, name: str, serials: tuple[str, ...]) -> dict[str, str]:
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
        value = self.text(name) or default
        if not _is_name(value):
            self.fault(f"{name}: expected letters, digits and _, no digit first")
        return value

    def instance(self, job: str) -> str:
        """Return the host's name; in a container, whose name changes, the job's."""
        contained = self.path("KUBERNETES_SERVICE_HOST") or any(
            map(os.path.exists, ("/.dockerenv", "/run/.containerenv"))
        )
        return job if contained else os.uname().nodename or job

    def state_dir(self, name: str) -> str:
        home = self.path("HOME") or os.path.expanduser("~")
        state_home = self.path("XDG_STATE_HOME") or os.path.join(home, ".local/state")
        return self.path(name) or os.path.join(state_home, "ecoflow-push")

    def proxies(self) -> dict[str, str]:
        """Return what the usual variables say, with the keys http, https and no."""
        found = {}
        for kind in ("http", "https", "no"):
            name = f"{kind}_proxy"
            value = self.path(name) or self.path(name.upper())
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


def _split(url: str) -> SplitResult | None:
    """Return the parts of an http(s) URL that can name a server, else None."""
    try:
        parts = urlsplit(url)
        usable = (
            parts.scheme in ("http", "https")
            and _is_made_of(parts.hostname or "", "._:-")
            and parts.port != 0
            and not parts.query
            and not parts.fragment
        )
    except ValueError:
        return None
    return parts if usable else None


def _without_userinfo(url: SplitResult) -> str:
    """Return the gateway's base URL; a trailing /metrics is what people paste."""
    path = url.path.rstrip("/").removesuffix("/metrics")
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{quote(path, safe='/%')}"
