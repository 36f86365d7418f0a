"""The redactor: every secret that the process has met, masked in all its spellings.

Whoever reads a secret, from the environment or from a server, says so here at once.
Nothing heavy is imported before there is something to mask.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Iterator

# Masking less would garble every line, and hide nothing that is worth it.
SHORTEST_SECRET = 4

_forms: set[str] = set()
_sorted: list[str] = []


def learn(*secrets: str) -> None:
    """Mask these texts, in whatever spelling, in all that is said from now on."""
    new = [each for each in secrets if len(each) >= SHORTEST_SECRET]
    if not _forms.issuperset(new):
        for secret in new:
            _forms.update(_spellings(secret))
        # Longest first: a secret may contain another one.
        _sorted[:] = sorted(filter(None, _forms), key=len, reverse=True)


def redact(text: str) -> str:
    """Return `text` without any secret."""
    for form in _sorted:
        text = text.replace(form, "***")
    return text


def _spellings(secret: str) -> set[str]:
    """Return how a server, a library or a log may write a secret."""
    import base64

    raw = secret.encode("utf-8", "surrogatepass")
    # Without the padding, which others leave out.
    in_base64 = base64.b64encode(raw).decode().rstrip("=")
    found = {
        secret,
        in_base64,
        in_base64.replace("+", "-").replace("/", "_"),
        in_base64.replace("+", "%2B").replace("/", "%2F"),
        in_base64.replace("+", "%2b").replace("/", "%2f"),
        raw.hex(),
        raw.hex().upper(),
    }
    # Most are letters, digits and these, which all others write as they are.
    plain = secret.replace("-", "").replace(".", "").replace("_", "")
    if not (plain.isalnum() and secret.isascii()):
        found.update(_escaped(secret), _in_percent(raw), _in_html(secret))
        found |= {repr(secret)[1:-1], repr(raw)[2:-1]}
    return found


def _escaped(secret: str) -> Iterator[str]:
    """Yield it as a string of JSON: also as PHP and Go write one."""
    import json

    for is_ascii in (True, False):
        text = json.dumps(secret, ensure_ascii=is_ascii)[1:-1]
        yield text
        yield text.replace("/", "\\/")
        for mark in "&<>":
            text = text.replace(mark, f"\\u{ord(mark):04x}")
        yield text


def _in_percent(raw: bytes) -> Iterator[str]:
    """Yield it as in a URL: in a path, a query or a form, with either case of hex."""
    from urllib.parse import quote

    for slash in ("", "/"):
        text = quote(raw, safe=slash)
        # Cheaper than compiling a pattern for it.
        first, *rest = text.split("%")
        lower = "%".join((first, *(each[:2].lower() + each[2:] for each in rest)))
        yield from (text, lower)
        yield from (text.replace("%20", "+"), lower.replace("%20", "+"))


def _in_html(secret: str) -> Iterator[str]:
    """Yield it as in a web page; importing `html` costs more than this."""
    for mark, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        secret = secret.replace(mark, name)
    yield secret
    for double in ("&quot;", "&#34;"):
        text = secret.replace('"', double)
        yield text
        for single in ("&#39;", "&#x27;"):
            yield text.replace("'", single)
