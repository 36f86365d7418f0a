"""What may be shown to anyone of a message that nobody can read yet."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ecoflow_push.api.models import short_sn

if TYPE_CHECKING:
    from logging import Logger

    from ecoflow_push.api.frames import Frame

# Serials, names of networks and of devices: numbers of protobuf seldom look so.
_TEXT = re.compile(
    rb"(?:[\x20-\x7e]|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}"
    rb"|[\xf0-\xf4][\x80-\xbf]{3}){8,}"
)


def unnamed(pdata: bytes, sn: str) -> str:
    """Return a message in hex; texts, the serial number first, are crossed out.

    Each letter becomes an X: all lengths stay as they are.
    """
    own = sn.encode()
    pdata = pdata.replace(own, b"X" * len(own)) if own else pdata
    return _TEXT.sub(lambda text: b"X" * len(text[0]), pdata).hex()


def tell(log: Logger, frame: Frame, sn: str) -> None:
    """Log what is not understood of a frame that a device sent."""
    for (func, cmd_id), pdata in frame.unread:
        log.debug("%s: %d/%d %s", short_sn(sn), func, cmd_id, unnamed(pdata, sn))
    if frame.unknown_fields or frame.damaged:
        log.debug(
            "%s: unknown fields %s, %d damaged",
            short_sn(sn),
            dict(frame.unknown_fields),
            frame.damaged,
        )
