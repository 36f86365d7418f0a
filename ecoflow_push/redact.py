"""The redactor: every secret that the process has met, masked in all its spellings.

Whoever reads a secret, from the environment or from a server, says so here at once.
Of what was made to be random (a token, a key) any part is masked, too: servers quote
them cut. A part of a password may be a word that our own lines need. Nothing heavy is
imported before there is something to mask.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Iterator

# Masking less would garble every line, and hide nothing that is worth it.
SHORTEST_SECRET = 4
# Of a token; a run of zeros tells nothing of one.
SHORTEST_PART, FEWEST_KINDS = 8, 4
# What a server calls its token may be as long as it likes; none of ours is.
LONGEST_TOKEN = 4096
# A part is looked for by a piece of it. Of a token each STRIDE-th piece is known, so
# that every part has one.
PIECE = 4
STRIDE = SHORTEST_PART - PIECE + 1

_forms: set[str] = set()
_sorted: list[str] = []
_tokens: set[str] = set()
#: Their spellings, and pieces of these.
_token_forms: set[str] = set()
_pieces: set[tuple[str, ...]] = set()


def learn(*secrets: str) -> None:
    """Mask these texts, in whatever spelling, in all that is said from now on."""
    _learn(secrets, _forms)


def learn_tokens(*tokens: str) -> None:
    """Mask these texts, and any part of them that tells something."""
    _learn(tuple(token[:LONGEST_TOKEN] for token in tokens), _tokens)


def _learn(secrets: tuple[str, ...], known: set[str]) -> None:
    new = [s for s in secrets if len(s) >= SHORTEST_SECRET and s not in known]
    for secret in new:
        known.add(secret)
        forms = _spellings(secret)
        _forms.update(filter(None, forms))
        if known is _tokens:
            forms.update(_within_base64(secret))
            _token_forms.update(forms)
            for form in forms:
                _pieces.update(
                    zip(*[form[n::STRIDE] for n in range(PIECE)], strict=False)
                )


def redact(text: str) -> str:
    """Return `text` without any secret."""
    for form in _in_order():
        text = text.replace(form, "***")
    return text if _pieces.isdisjoint(_windows(text)) else _without_parts(text)


def _in_order() -> tuple[str, ...]:
    """Return all forms, longest first: a secret may contain another one.

    They are put in order when a line is to be said, not for each secret of a thousand
    accounts; copies are made in one go, whatever other threads learn or say.
    """
    if len(_sorted) != len(_forms):
        _sorted[:] = sorted(_forms.copy(), key=len, reverse=True)
    return tuple(_sorted)


def _windows(text: str) -> Iterator[tuple[str, ...]]:
    """Yield each PIECE letters, as fast as it goes: every line is looked through."""
    return zip(*[text[n:] for n in range(PIECE)], strict=False)


def _without_parts(text: str) -> str:
    """Mask what is part of a token; in time that grows with the text, and no more.

    What a server says, and calls a token, may be one letter a thousand times.
    """
    size = SHORTEST_PART
    parts = {
        form[n : n + size]
        for form in list(_token_forms)
        for n in range(len(form) - size + 1)
    }
    spans: list[tuple[int, int]] = []
    for at in range(len(text) - size + 1):
        if text[at : at + size] in parts:
            begin = spans.pop()[0] if spans and at <= spans[-1][1] else at
            spans.append((begin, at + size))
    kept, kept_to = [], 0
    for begin, end in spans:
        if len(set(text[begin:end])) >= FEWEST_KINDS:
            kept.append(text[kept_to:begin])
            kept_to = end
    return "***".join([*kept, text[kept_to:]])


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
        # An error within an error is quoted twice.
        found.update(*map(_quoted_again, found))
    if not secret.isascii():
        found.update(*map(_misread, found))
    return found


def _quoted_again(text: str) -> tuple[str, ...]:
    if text.isascii() and "\\" not in text and '"' not in text:
        return ()
    import json

    return tuple(json.dumps(text, ensure_ascii=each)[1:-1] for each in (True, False))


def _misread(text: str) -> tuple[str, ...]:
    """Return a text as who takes UTF-8 for Latin-1 reads it, and the other way round.

    All headers are read so, and bodies in another encoding than they say.
    """
    return (
        text.encode("utf-8", "surrogatepass").decode("latin-1"),
        text.encode("latin-1", "replace").decode("utf-8", "replace"),
        text.encode("ascii", "replace").decode(),
    )


def _within_base64(secret: str) -> Iterator[str]:
    """Yield it as it stands within something longer that is in base64."""
    import base64

    raw = secret.encode("utf-8", "surrogatepass")
    # At the beginning it stands there as it does alone.
    for before, of_others in ((1, 2), (2, 3)):
        text = base64.b64encode(b"\0" * before + raw).decode()
        # What stands beside it is in the letters next to it.
        inner = text[of_others : len(text) - (0, 3, 2)[(before + len(raw)) % 3]]
        yield from (inner, inner.replace("+", "-").replace("/", "_"))


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
