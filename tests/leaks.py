"""Who looks for secrets: every spelling in which a server may quote one, and its parts.

Written without the redactor: nothing of ecoflow_push is imported.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable
from functools import cache
from urllib.parse import quote, quote_plus

# A part of a token that is as long tells something of it, if it is no run of zeros.
PART, KINDS = 8, 4


@cache
def whole(secret: str) -> tuple[str, ...]:
    """Return the ways in which a server may quote all of a secret."""
    raw, percent = secret.encode(), quote(secret, safe="")
    in_base64 = base64.b64encode(raw).decode()
    in_json = json.dumps(secret)[1:-1]
    head, *rest = percent.split("%")
    lower = "%".join([head, *(each[:2].lower() + each[2:] for each in rest)])
    found = (
        *(secret, percent, lower, quote(secret), quote_plus(secret)),
        *(in_base64, in_base64.rstrip("="), quote(in_base64, safe="")),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
        *(in_json, in_json.replace("/", "\\/")),
        json.dumps(secret, ensure_ascii=False)[1:-1],
        *(raw.hex(), raw.hex().upper()),
        *(html.escape(secret), repr(secret)[1:-1], repr(raw)[2:-1]),
    )
    return tuple(dict.fromkeys(found))


@cache
def spellings(token: str) -> tuple[str, ...]:
    """Return the ways in which a server may quote a token, cut and wrapped too."""
    half = len(token) // 2
    in_json = json.dumps(token)[1:-1]
    return (
        *whole(token),
        f"Bearer {token}",
        f"{token[:half]}...",
        f"...{token[half:]}",
        f"{token[:9]} {token[9:]}",
        base64.b64encode(f"Bearer {token}".encode()).decode(),
        base64.b64encode(json.dumps({"token": token}).encode()).decode(),
        json.dumps(in_json)[1:-1],
    )


@cache
def parts(token: str) -> frozenset[str]:
    """Return every part of a token, in every spelling, that tells something of it."""
    wrapped = base64.b64encode(b"Bearer ..").decode()[:-4]
    forms = [each.removeprefix("Bearer ") for each in spellings(token)]
    # What a wrapping looks like in base64, and what stands beside it, tells nothing.
    forms = [each[12:] if each.startswith(wrapped) else each for each in forms]
    forms = [each[16:-7] if each.startswith("eyJ0b2tlbiI6") else each for each in forms]
    found = {form[at : at + PART] for form in forms for at in range(len(form) - 7)}
    return frozenset(p for p in found if len(set(p)) >= KINDS and "..." not in p)


def leaks(text: str, *secrets: Iterable[str]) -> list[str]:
    """Return all parts of secrets that a text tells.

    Of a password, too: if it is quoted as a whole, who cuts it is the program.
    """
    windows = {text[at : at + PART] for at in range(len(text) - PART + 1)}
    return [
        part
        for group in secrets
        for secret in group
        for part in sorted(parts(secret) & windows)
    ]
