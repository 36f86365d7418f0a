"""Characters that nobody sees, or takes for others, by the names that Unicode gives.

Imported only where a value has such a one.
"""

from __future__ import annotations

import unicodedata

#: What word processors and chats make of quotes, hyphens and three dots.
LOOK_ALIKES = "“”„‟‘’‚‛«»‹›‐‑‒–—―−…"  # noqa: RUF001 - these are meant
CURE = "paste it as plain text"
BYTE_ORDER_MARK = "\ufeff"


def hidden(text: str, *, is_plain: bool = True) -> str:
    """Return what to say of the first such character of `text`, "" if there is none.

    Of a text that is not `is_plain`, what can be seen may be meant. Controls, which
    have no names, are left to who knows the form of the text.
    """
    for char in text:
        if not char.isprintable() or (is_plain and char in LOOK_ALIKES):
            return _named(char)
    return ""


def first_foreign(text: str) -> str:
    """Return what to say of the first character that is not ASCII, "" if all are."""
    return next((_named(char) for char in text if not char.isascii()), "")


def has_controls(text: str) -> bool:
    """Return whether anything in it has no name."""
    return not all(unicodedata.name(char, "") for char in text)


def _named(char: str) -> str:
    if "\udc80" <= char <= "\udcff":
        # How Python keeps what it cannot decode.
        return "holds a byte that is not UTF-8"
    name = unicodedata.name(char, "")
    if char == BYTE_ORDER_MARK:
        name += ", a byte order mark"
    article = "an" if name.startswith(tuple("AEIO")) else "a"
    return f"holds {article} {name}" if name else ""
