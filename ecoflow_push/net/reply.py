"""A request, and what came back: its words, its clock, and whether it is a web page."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from http.client import HTTPMessage, IncompleteRead

from ecoflow_push import __version__
from ecoflow_push.errors import Unreachable
from ecoflow_push.redact import redact

CHUNK_BYTES = 64 * 1024
# Of a body, unless its request says otherwise: a list of 10,000 devices has 2 MiB.
MOST_BYTES = 4 * 1024 * 1024
# Of a body, for its words and its kind: enough for any of either.
LOOK_BYTES = 64 * 1024
MOST_WORDS = 600
TAIL_WORDS = 200
# Of an address, for people.
MOST_PLACE = 200
OWN_HEADERS = {
    "User-Agent": f"ecoflow-push/{__version__}",
    # A compressed body could inflate to anything; ours are small.
    "Accept-Encoding": "identity",
}
# What RFC 1951 names, with zlib's frame or, as some servers have it, without.
INFLATED = {"gzip": (31,), "x-gzip": (31,), "deflate": (15, -15)}
GZIP = b"\x1f\x8b"
HTML = ("text/html", "application/xhtml")
HTML_BEGINS = (
    *("<!doctype", "<!--", "<html", "<head", "<body", "<script", "<noscript"),
    *("<style", "<title", "<meta", "<link", "<base", "<frameset", "<iframe", "<form"),
    *("<center", "<div", "<table", "<font", "<h1", "<h2", "<p>", "<p ", "<br"),
)


class Request:
    """One request, built anew for each try; its answer has at most `most_bytes`."""

    __slots__ = ("body", "headers", "method", "most_bytes", "url")

    # No NamedTuple, here and below: making the class is dear.
    def __init__(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.most_bytes = most_bytes


def seconds_of(date: str) -> float:
    """Return the Unix seconds of a date as HTTP has it; raises ValueError or so."""
    found = email.utils.parsedate_to_datetime(date)
    # All of HTTP's dates are UTC (RFC 9110, 5.6.7), also those that do not say so.
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


class Reply:
    """An answer; `headers` are case-insensitive, the body is as it came."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self, status: int, headers: Mapping[str, str] | HTTPMessage, body: bytes
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def retry_after(self) -> float | None:
        """Return the seconds that the server asked us to wait, None if it did not."""
        text = self.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"\d+", text):
            return float(text[:12])
        try:
            return max(0.0, seconds_of(text) - time.time())
        except (ValueError, OverflowError):
            return None

    def clock_offset(self, at: float) -> float | None:
        """Return how far a clock that showed `at` was ahead of the server's.

        In seconds; None if the server did not say what time it is. What a cache kept
        for a while says with `Age` how old its `Date` is.
        """
        age = self.headers.get("Age", "").strip()
        try:
            date = seconds_of(self.headers.get("Date", ""))
            kept = int(age[:9]) if age.isascii() and age.isdecimal() else 0
            return at - (date + kept)
        except (ValueError, OverflowError):
            return None

    def leads_to(self) -> str:
        """Return " to" and where a redirect leads, "" if it does not say.

        Scheme, host and path: a query may hold anything, a user is somebody's secret,
        and behind a semicolon stands a session.
        """
        from urllib.parse import urlsplit

        try:
            # Masked before it is split and cut: half a secret is one too.
            parts = urlsplit(redact(self.headers.get("Location", "").strip()))
        except ValueError:
            return ""
        host, path = parts.netloc.rpartition("@")[2], parts.path.partition(";")[0]
        if parts.scheme and not host:
            # No address: what looks like a path may be a user.
            return ""
        scheme = f"{parts.scheme}:" if parts.scheme else ""
        place = f"{scheme}//{host}{path}" if host else path
        place = re.sub(r"[^!-~]", "?", place)[:MOST_PLACE]
        return f" to {place}" if place else ""

    def content(self, most_bytes: int = LOOK_BYTES) -> bytes:
        """Return the body without its compression, the first `most_bytes` of it.

        Nothing of it where that cannot be undone; as it came where it only says that
        it is compressed.
        """
        data = self.body
        named = self.headers.get("Content-Encoding", "").lower().split(",")
        encodings = [each.strip() for each in reversed(named)]
        if data.startswith(GZIP) and encodings == [""]:
            encodings = ["gzip"]
        for encoding in encodings:
            if encoding in INFLATED:
                data = _inflated(data, most_bytes, INFLATED[encoding])
            elif encoding not in ("", "identity"):
                return b""
        return data[:most_bytes]

    def words(self) -> str:
        """Return the server's explanation as one line, its middle left out if long."""
        content = self.content()
        # Masked before it is cut: half a secret is one too.
        text = re.sub(r"[^ -~]", "?", " ".join(redact(_text(content)).split()))
        if len(text) > MOST_WORDS:
            # Where the end is not the end, half a secret may stand there.
            tail = "" if len(content) == LOOK_BYTES else text[-TAIL_WORDS:]
            text = f"{text[: MOST_WORDS - 5 - len(tail)]} ... {tail}".rstrip()
        return text or "no explanation"

    def is_page(self) -> bool:
        """Return whether something else answered, a login portal perhaps."""
        if self.headers.get("Content-Type", "").strip().lower().startswith(HTML):
            return True
        if not self.body:
            return False
        text = _text(self.content()).lstrip("\ufeff \t\r\n").lower()
        if text.startswith("<?xml"):
            text = text.partition("?>")[2].lstrip()
        return text.startswith(HTML_BEGINS)


def read_body(
    read: Callable[[int], bytes], chunks: list[bytes], most_bytes: int
) -> None:
    """Append a whole body, piece by piece, to `chunks`.

    Raises Unreachable if it is too long, else what `read` raises; `chunks` then has
    what came.
    """
    size = 0
    while chunk := read(CHUNK_BYTES):
        chunks.append(chunk)
        size += len(chunk)
        if size > most_bytes:
            text = f"answered with more than {most_bytes / 2**20:g} MiB"
            cure = "look for another server or a proxy that answers instead"
            raise Unreachable(text, cure, lasting=True)


def cut_short(exc: BaseException) -> bytes:
    """Return what came of a chunk that was cut short; the innermost error has it."""
    came = b""
    link: BaseException | None = exc
    while link:
        if isinstance(link, IncompleteRead) and isinstance(link.partial, bytes):
            came = link.partial
        link = link.__cause__
    return came


def _inflated(data: bytes, most_bytes: int, frames: tuple[int, ...]) -> bytes:
    import zlib

    for frame in frames:
        inflater, found = zlib.decompressobj(frame), b""
        try:
            # In pieces: what stands before damage is not lost with it.
            for at in range(0, len(data), 512):
                found += inflater.decompress(
                    data[at : at + 512], most_bytes - len(found) or 1
                )
                if len(found) >= most_bytes or inflater.eof:
                    break
        except zlib.error:
            if not found:
                continue
        return found[:most_bytes]
    return data


def _text(content: bytes) -> str:
    encoding = "utf-8"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif content[1:2] == b"\0":
        encoding = "utf-16-le"
    elif content[:1] == b"\0":
        encoding = "utf-16-be"
    return content.decode(encoding, "replace")
