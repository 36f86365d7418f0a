"""How a variable is read: its forms, its checks, and the faults that it has.

Imports stay light on purpose: a run that finds the lock taken pays for this module
and for little else.
"""

from __future__ import annotations

import os

from ecoflow_push.config.kinds import (
    ESCAPE_CURE,
    LOOPBACK,
    RESERVED_HEADERS,
    RESERVED_LABELS,
    TENANT_HEADERS,
    HostError,
    Secret,
    duration,
    is_made_of,
    is_name,
    is_serial,
    learn_pair,
    learn_parts,
    learn_path,
    split_url,
)
from ecoflow_push.config.texts import Texts, is_quoted
from ecoflow_push.redact import learn, learn_tokens

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from urllib.parse import SplitResult


class Reader(Texts):
    """Reads variables of all kinds and collects what is wrong with them."""

    def secret(self, name: str) -> Secret | None:
        """Return a text that must not print."""
        value = self.text(name)
        self.secrets.add(name)
        return Secret(value) if value else None

    def password(self, name: str) -> Secret | None:
        """Return a secret that may hold any character but controls."""
        self.text(name, is_password=True)
        return self.secret(name)

    def header_secret(self, name: str) -> Secret | None:
        """Return a secret that an HTTP header can carry."""
        value = self.secret(name)
        text = value.reveal() if value else ""
        if is_quoted(text):
            # From a file: quotes around another secret may be its own.
            self.fault(name, "quotes around it", "leave them out of the file")
            return None
        if " " in text or not text.isascii():
            self.expected(name, "ASCII characters without spaces", text, is_ascii=True)
            return None
        learn_tokens(text)
        return value

    def pair(self, first: str, second: str) -> bool:
        """Return whether both variables are set; one alone is a fault.

        Both in one piece, as basic authentication sends them, are a secret too.
        """
        is_set = [self.wants(name) for name in (first, second)]
        if is_set == [True, False]:
            self.fault(second, f"missing, {first} is set")
        if is_set == [False, True]:
            self.fault(first, f"missing, {second} is set")
        if all(is_set):
            learn_pair(self.text(first) or "", self.text(second) or "")
        return all(is_set)

    def choice(self, name: str, choices: tuple[str, ...], **also: str) -> str | None:
        """Return one of `choices` in their own spelling, None if unset.

        `also` is what some of them are called elsewhere, in lower case.
        """
        value = self.text(name)
        value = also.get(value.lower(), value) if value else None
        for choice in choices:
            if value and value.lower() == choice.lower():
                return choice
        if value:
            self.expected(name, f"one of {', '.join(choices)}", value)
        return None

    def choices(self, name: str, choices: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of `choices` that a list names, in their order; all if unset."""
        text = self.text(name) or ""
        named = {part.strip().lower() for part in text.split(",")}
        found = tuple(choice for choice in choices if choice in named)
        if named - {"", *choices}:
            self.expected(name, f"{' or '.join(choices)}, or both with a comma", text)
        return found or choices

    def seconds(self, name: str, default: float, least: float) -> float:
        """Return a duration in seconds, fractions allowed."""
        # 1e6 s: longer than any wait that makes sense, short enough for any timer.
        value = self._number(name, duration, least, 1e6, "seconds")
        return float(default) if value is None else value

    def count(
        self, name: str, default: int | None, least: int, most: int
    ) -> int | None:
        """Return a whole number."""
        value = self._number(name, int, least, most, "a whole number")
        return default if value is None else int(value)

    def existing_file(self, name: str) -> str | None:
        """Return the path of a file that is there."""
        path = self.path(name)
        if path and not os.path.isfile(path):
            is_there = os.path.exists(path)
            text = "expected a file, not a folder" if is_there else "no such file"
            self.fault(name, text)
        return path

    def url(self, name: str, *, query: bool = False) -> SplitResult | None:
        """Return the parts of an http(s) URL, which may have a `query` or not."""
        form = "path][?query" if query else "prefix"
        value = self.text(name) or ""
        parts = self._split(name, value, f"http(s)://host[:port][/{form}]", query=query)
        if parts:
            learn_parts(parts)
        if parts and (parts.username or parts.query):
            self.secrets.add(name)
        return parts

    def whole_url(self, name: str) -> Secret | None:
        """Return an http(s) URL as it stands; whoever knows it may use it."""
        parts = self.url(name, query=True)
        if parts:
            learn_path(parts.path)
            self.secrets.add(name)
        return Secret(parts.geturl()) if parts else None

    def headers(self, name: str) -> dict[str, str]:
        """Return HTTP headers, written as lines or with semicolons between them.

        What they say is secret, but for whose data it is.
        """
        found: dict[str, str] = {}
        text = (self.text(name, lines=True) or "").replace("\n", ";")
        for part in filter(None, map(str.strip, text.split(";"))):
            header, colon, value = (piece.strip() for piece in part.partition(":"))
            if not (colon and value and value.isascii() and is_made_of(header, "-_")):
                self.expected(name, "Name: value, in ASCII", part)
                return {}
            if header.lower() in RESERVED_HEADERS:
                self.fault(name, f"the program itself sets the header {header}")
            found[header] = value
            if header.lower() not in TENANT_HEADERS:
                self.secrets.add(name)
                learn(value)
                learn_tokens(value.rpartition(" ")[2])  # of what "Bearer" says
        return found

    def api_url(self, name: str, default: str) -> str:
        """Return the base URL of a host, host:port or URL; http for loopback only."""
        value = self.text(name) or default
        form = "a host, host:port or https://host[:port]"
        value = value if "://" in value else "https://" + value
        parts = self._split(name, value, form)
        if parts and (parts.path.strip("/") or parts.username is not None):
            self.expected(name, form, value)
            parts = None
        if not parts:
            return ""
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            self.fault(name, "expected https (http is for loopback only)")
        return f"{parts.scheme}://{parts.netloc}"

    def serials(self, name: str) -> tuple[str, ...]:
        """Return serial numbers separated by commas, each once."""
        text = self.text(name) or ""
        serials = [part.strip() for part in text.split(",")]
        serials = list(dict.fromkeys(serial for serial in serials if serial))
        if not all(is_serial(serial) for serial in serials):
            self.expected(name, "serial numbers, separated by commas", text)
        return tuple(serials)

    def names(self, name: str, serials: tuple[str, ...]) -> dict[str, str]:
        """Return names by serial; a plain name is for the one serial that is set."""
        value = self.text(name)
        if not value:
            return {}
        if "=" not in value:
            if self.is_faulty("ECOFLOW_DEVICE_SN"):
                return {}
            if len(serials) != 1:
                self.fault(
                    name,
                    "a plain name needs exactly one serial in ECOFLOW_DEVICE_SN;"
                    " else give SN=name,SN=name",
                )
                return {}
            return {serials[0]: value}
        return self._pairs(name, value, "SN=name,SN=name", is_serial)

    def labels(self, name: str) -> dict[str, str]:
        """Return labels that are free to be set."""
        text = self.text(name) or ""
        labels = self._pairs(name, text, "name=value,name=value", is_name)
        for label in labels:
            if label in RESERVED_LABELS or label.startswith(("__", "index_")):
                self.fault(name, f"the label {label} is used by the program itself")
        return labels

    def prefix(self, name: str, default: str) -> str:
        """Return what a metric name may begin with."""
        value = self.text(name) or default
        if not is_name(value):
            self.expected(name, "letters, digits and _, no digit first", value)
        return value

    def instance(self, job: str) -> str:
        """Return the host's name; in a container, whose name changes, the job's."""
        contained = self.raw("KUBERNETES_SERVICE_HOST") or any(
            map(os.path.exists, ("/.dockerenv", "/run/.containerenv"))
        )
        return job if contained else os.uname().nodename or job

    def proxies(self) -> dict[str, str]:
        """Return what is set by http, https and no; `http from` is a name as set."""
        found: dict[str, str] = {}
        for kind in ("http", "https", "no"):
            name = f"{kind}_proxy"
            name = name if self.raw(name) else name.upper()
            if kind == "no":
                # Without a proxy it says nothing, right or wrong.
                value = self.hosts(name) if self.raw(name) and found else None
            elif value := self.shaped(name):
                value = value if "://" in value else "http://" + value
                if parts := self._split(name, value, "http(s)://host:port"):
                    learn_parts(parts)
                    value = parts.geturl()
                    found[f"{kind} from"] = name
            if value:
                found[kind] = value
        return found

    def _split(
        self, name: str, value: str, form: str, *, query: bool = False
    ) -> SplitResult | None:
        """Return the parts of a URL; what is wrong with it is a fault."""
        try:
            parts = None if self.is_odd(value) else split_url(value, query=query)
        except HostError as exc:
            self.fault(name, str(exc))
            return None
        if value and not parts:
            self.expected(name, form, value, ESCAPE_CURE if "@" in value else "")
        return parts

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
            what = f"{what} from {least:.0f} to {most:.0f}"
            what += ", like 90, 90s, 5m or 1h" if convert is duration else ""
            self.expected(name, what, text)
            return None
        return value

    def _pairs(
        self, name: str, value: str, form: str, is_key: Callable[[str], bool]
    ) -> dict[str, str]:
        pairs: dict[str, str] = {}
        for part in filter(None, map(str.strip, value.split(","))):
            key, _, text = (piece.strip() for piece in part.partition("="))
            if not is_key(key) or not text or key in pairs:
                self.expected(name, form, key)
                return {}
            pairs[key] = text
        return pairs
