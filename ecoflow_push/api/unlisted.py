"""What is said of a device that the account's list lacks.

Imported where that is so: of most runs it is no part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecoflow_push.api.models import short_sn
from ecoflow_push.errors import (
    AskedToWait,
    DeviceOffline,
    DeviceRefused,
    EcoflowApiException,
    KeysRefused,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

UNLISTED_CURE = "check ECOFLOW_DEVICE_SN or --device"
# What the service says of a serial that it does not know.
UNLISTED_CODES = ("1006", "1008")
# Of the list's, to be compared with.
MOST_SERIALS = 3


def unlisted(error: EcoflowApiException, listed: Iterable[str]) -> EcoflowApiException:
    """Return `error`, of a device that the account's list lacks, with that word.

    Only where the service spoke of the device: one may be readable that is not listed,
    and what befell the request says nothing of its serial.
    """
    if not (error.code or isinstance(error, DeviceRefused)) or isinstance(
        error, (KeysRefused, AskedToWait, DeviceOffline)
    ):
        return error
    what, cure = lacking(listed), UNLISTED_CURE
    if error.code in UNLISTED_CODES:
        error.text = f"code {error.code}: {what}"
        error.cure = f"{cure}; what is only shared, the app account can read"
    else:
        error.text = f"{error.text}, {what}"
        error.cure = error.cure or cure
    return error


def lacking(listed: Iterable[str]) -> str:
    """Return what is said of a device that the account's list of serials lacks."""
    serials = list(map(short_sn, listed))
    more = ["…"] if len(serials) > MOST_SERIALS else []
    return f"not in this account's list ({', '.join(serials[:MOST_SERIALS] + more)})"
