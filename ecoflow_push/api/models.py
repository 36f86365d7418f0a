"""What EcoFlow says: devices and snapshots. Nothing here does I/O."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Mapping, Sequence

from ecoflow_push.config.kinds import is_serial
from ecoflow_push.redact import redact

# What all of them may hold together, in bytes, as weighed in envelope.weight_of.
MOST_HELD = 32 << 20


class DeviceInfo:
    """One device of the account.

    `name` and `product_name` are empty when the cloud does not tell them (it often
    does not: protocol/rest.md#device-list); `online` is None when nobody said.
    """

    __slots__ = ("name", "online", "product_name", "sn")

    # No NamedTuple, here and below: making the class is dear.
    def __init__(
        self,
        sn: str,
        name: str = "",
        product_name: str = "",
        online: bool | None = None,  # noqa: FBT001 - of a row of a list
    ) -> None:
        self.sn = sn
        self.name = name
        self.product_name = product_name
        self.online = online

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeviceInfo) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    def __hash__(self) -> int:
        return hash(self.sn)


#: What messages are counted as that are beyond all that anybody sends.
OTHER = "other"


class Snapshot:
    """All quotas of one device at one moment; `collected_at` in Unix seconds.

    Empty `quotas` are an answer too: EcoFlow has no telemetry of this device. `online`
    is the answer's own word, None where it has none. `unread` are the messages of which
    nothing could be read, and how often each came (docs/metrics.md). `too_many` values
    were left out; what is there takes at most `weight` bytes of memory.
    """

    __slots__ = (
        *("sn", "quotas", "collected_at", "online"),
        *("unread", "too_many", "weight"),
    )

    def __init__(
        self,
        sn: str,
        quotas: Mapping[str, object],
        collected_at: float,
        *,
        online: bool | None = None,
        unread: Sequence[tuple[str, int]] = (),
        too_many: int = 0,
        weight: int = 0,
    ) -> None:
        self.sn = sn
        self.quotas = quotas
        self.collected_at = collected_at
        self.online = online
        self.unread = unread
        self.too_many = too_many
        self.weight = weight


class Room:
    """The memory (bytes) that is left for values of devices that are still heard."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MOST_HELD


def clean_text(value: object) -> str:
    """Return `value` as a label value: one printable line of at most 256 characters.

    Names come from whoever can rename a device; NUL padding and lone surrogates
    occur in recorded payloads (protocol/rest.md#shapes).
    """
    if not isinstance(value, str):
        return ""
    if not value.isprintable():
        value = value.encode("utf-8", "replace").decode("utf-8")
        value = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", value)
    return value.strip()[:256]


def said(value: object, most: int) -> str:
    """Return what a service said, masked before it is cut, for a line of the log."""
    return clean_text(redact(value) if isinstance(value, str) else value)[:most]


def listed_device(sn: object, row: object) -> DeviceInfo | None:
    """Return the device of a device list's row, None if it cannot be one."""
    serial = clean_text(sn)
    if not is_serial(serial) or not isinstance(row, Mapping):
        return None
    return DeviceInfo(
        # Each is there once, however many devices have it or are remembered by it.
        sn=sys.intern(serial),
        name=clean_text(row.get("deviceName")),
        product_name=sys.intern(clean_text(row.get("productName"))),
        online=online_flag(row.get("online")),
    )


def online_flag(value: object) -> bool | None:
    """Return a device list's flag: 0 or 1 by the documents, None for anything odd."""
    words = {"0": False, "1": True, "false": False, "true": True, "offline": False}
    text = str(value).strip().lower()
    with contextlib.suppress(ValueError):
        text = f"{float(text):g}"
    return words.get(text)


def short_sn(sn: str) -> str:
    """Return a serial number that can be shown to anyone."""
    return sn if len(sn) <= 8 else f"{sn[:4]}…{sn[-4:]}"
