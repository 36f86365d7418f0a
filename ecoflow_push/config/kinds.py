"""What a value is: the declared variable, the secret, and what a text can be.

Imports stay light on purpose: a run that finds the lock taken pays for this module
and for little else.
"""

from __future__ import annotations

from itertools import pairwise

from ecoflow_push.redact import learn, learn_tokens

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
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
SHORTEST_TOKEN = 8
# No route of a receiver is called so that has letters and digits and is as long.
SHORTEST_PATH_TOKEN = 10
# They name whose data it is; they open nothing.
TENANT_HEADERS = ("x-scope-orgid", "thanos-tenant")
#: What engines call the index of a task, and how many there are where they say so:
#: Kubernetes' Indexed Jobs, Slurm's arrays, Cloud Run Jobs, AWS Batch's arrays.
ENGINES = (
    ("JOB_COMPLETION_INDEX", ""),
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    ("CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"),
    ("AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
)
ESCAPE_CURE = "in a password write %2F for /, %3F for ?, %23 for # and %40 for @"


class Variable:
    """A variable as docs/settings.md lists it, by whoever reads it.

    `default` in plain words. One that `is_path` itself has no _FILE form.
    """

    __slots__ = ("default", "is_path", "name", "words")

    def __init__(
        self,
        name: str,
        words: str,
        default: str = "–",  # noqa: RUF001 - the dash that the tables show for none
        *,
        is_path: bool = False,
    ) -> None:
        self.name = name
        self.words = words
        self.default = default
        self.is_path = is_path


class Secret:
    """A text that does not print, and that nothing else prints from now on.

    `reveal()` returns it.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        learn(text)
        self._text = text

    def __repr__(self) -> str:
        return "***"

    def reveal(self) -> str:
        """Return the text itself, for the one place that sends it."""
        return self._text


def duration(text: str) -> float:
    """Return seconds: a number, or one with s, m or h behind; raises ValueError."""
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    return float(text[:-1]) * unit if unit else float(text)


def is_serial(text: str) -> bool:
    """Return whether `text` can be a serial number (16 letters and digits, or so)."""
    return is_made_of(text, "_-") and len(text) <= 64


def is_name(text: str) -> bool:
    """Return whether a metric or label may be called so."""
    return text.isidentifier() and text.isascii()


def is_made_of(text: str, marks: str) -> bool:
    """Return whether `text` is ASCII letters, digits and some of these marks alone."""
    # Compiling a regular expression costs more than this, once a minute.
    return (
        text.isascii() and all(c.isalnum() or c in marks for c in text) and text != ""
    )


def _is_printable(text: str) -> bool:
    """Return whether `text` can stand in a request line as it is."""
    return text.isascii() and text.isprintable() and " " not in text


def split_url(url: str, *, query: bool = False) -> SplitResult | None:
    """Return the parts of an http(s) URL that can name a server, else None.

    Raises HostError where it could, but for the name of its host.
    """
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        usable = (
            parts.scheme in ("http", "https")
            and (is_made_of(host, "._:-") or not host.isascii())
            and parts.port != 0
            and (not parts.query or (query and _is_printable(parts.query)))
            and not parts.fragment
            and not _ends_early(parts)
        )
    except ValueError:
        return None
    if not usable:
        return None
    if not host.isascii():
        user, at, _ = parts.netloc.rpartition("@")
        port = "" if parts.port is None else f":{parts.port}"
        parts = parts._replace(netloc=f"{user}{at}{_encoded(host)}{port}")
    elif ":" not in host:
        _check_labels(host)
    return parts


def _ends_early(url: SplitResult) -> bool:
    """Return whether a mark in a password may have ended the host before its time.

    A group's own @base64 has a fault of its own.
    """
    behind = url.path.replace("@base64/", "/")
    return "@" in (behind if behind.strip("/") else url.query)


class HostError(Exception):
    """A host has a name that no host can have; the text says why."""


def _encoded(host: str) -> str:
    """Return a host's name as DNS has it (RFC 5891)."""
    import idna

    try:
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError as exc:
        raise HostError(f"no host can be called {host}") from exc


def _check_labels(host: str) -> None:
    # The resolver's own words for it speak of codecs.
    longest = max(map(len, host.split(".")))
    if "" in host.removesuffix(".").split(".") or longest > 63 or len(host) > 253:
        raise HostError(f"no host can be called {host}")


def learn_parts(url: SplitResult) -> None:
    """Mask what opens something in a URL: its password, the values of its query.

    A user without a password is a token, and so is what no route is called.
    """
    from urllib.parse import unquote, unquote_plus

    user, password = unquote(url.username or ""), unquote(url.password or "")
    learn_pair(user, password)
    learn(password, url.query)
    if not password:
        _learn_value(user)
    for part in url.query.split("&"):
        _, _, value = part.partition("=")
        for form in (value, unquote(value), unquote_plus(value)):
            _learn_value(form)
    for name in url.path.split("/"):
        kinds = {c.isdecimal() for c in unquote(name) if c.isalnum()}
        is_long = len(name) >= 2 * SHORTEST_PATH_TOKEN
        if is_long or (len(kinds) == 2 and len(name) >= SHORTEST_PATH_TOKEN):
            _learn_value(name)
            _learn_value(unquote(name))


def _learn_value(text: str) -> None:
    learn(text)
    if _is_random(text):
        learn_tokens(text)


def _is_random(text: str) -> bool:
    """Return whether a part of a URL is more likely a token than words.

    Of words, with numbers behind them perhaps (pushgateway1, prometheus-remote-write),
    no part is masked: our own lines need them.
    """
    pieces = "".join(c if c.isalnum() else " " for c in text).split()
    return any(
        len(piece) >= 2 * SHORTEST_PATH_TOKEN or _changes(piece) > 1 for piece in pieces
    )


def _changes(text: str) -> int:
    """Return how often a digit stands beside a letter."""
    kinds = [c.isdecimal() for c in text]
    return sum(a != b for a, b in pairwise(kinds))


def learn_pair(user: str, password: str) -> None:
    """Mask what basic authentication sends: both, in one piece."""
    if user or password:
        learn(f"{user}:{password}")


def learn_path(path: str) -> None:
    """Mask a path that opens something: whole, and what in it is no plain word.

    A redirect may put that behind another path.
    """
    pieces = [piece for piece in path.split("/") if len(piece) >= SHORTEST_TOKEN]
    learn(path, *(each for each in pieces if not (each.isalpha() and each.islower())))
