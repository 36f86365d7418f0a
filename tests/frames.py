"""Binary frames for the tests: written by hand from the field tables, and recorded.

The recorded frames are third-party data beside the project, read from there.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ecoflow_push.api.frames import Frame, decode_frame
from ecoflow_push.devices.products import products
from tests.support import SHARED

RECORDED = SHARED / "payloads"
DELTA_3 = "P231ZFAKE0000001"
POWERSTREAM = "HW51ZFAKE0000001"
PLUG = "HW52ZFAKE0000001"
ULTRA = "Y711ZFAKE0000001"
PANEL = "HD31ZFAKE0000001"
OCEAN = "HJ31ZFAKE0000001"
FIT = "HC31ZFAKE0000001"
NEW = "ZZ99ZFAKE0000001"

DISPLAY = (254, 21)
RUNTIME = (254, 22)
PACK = (32, 50)
MANAGER = (32, 2)


# The wire format, written apart from the program's.


def varint(number: int) -> bytes:
    number %= 1 << 64
    low = number % 128
    return bytes([low]) if number < 128 else bytes([low + 128]) + varint(number // 128)


def field(number: int, value: object) -> bytes:
    """Return one field: an int as varint, a float as fixed32, the rest by length."""
    if isinstance(value, int):
        return varint(number * 8) + varint(value)
    if isinstance(value, float):
        return varint(number * 8 + 5) + struct.pack("<f", value)
    if isinstance(value, Mapping):
        value = fields(value)
    elif isinstance(value, str):
        value = value.encode()
    assert isinstance(value, bytes)
    return varint(number * 8 + 2) + varint(len(value)) + value


def fields(values: Mapping[int, object]) -> bytes:
    return b"".join(field(number, value) for number, value in values.items())


def header(pair: tuple[int, int], pdata: object = b"", **more: object) -> bytes:
    """Return an envelope of one header; several joined are one of several headers."""
    numbers = {"src": 2, "enc_type": 6, "data_len": 10, "seq": 14, "code": 22}
    content = fields(pdata) if isinstance(pdata, Mapping) else pdata
    return field(
        1,
        {1: content, 8: pair[0], 9: pair[1]}
        | {numbers[name]: value for name, value in more.items()},
    )


def decode(payload: bytes, sn: str = DELTA_3) -> Frame:
    return decode_frame(payload, sn)


def said_nothing(seqs=(), *, offline: bool = False, damaged: int = 0) -> Frame:
    return Frame({}, False, offline, frozenset(seqs), Counter(), Counter(), damaged)


# Recorded frames

# Messages recorded without their envelope: the pair of each line.
BARE = {
    "delta3/delta3maxplus-pdata.hex": [DISPLAY] * 3,
    "deltaproultra/dpu-pdata.hex": [(2, 4), (254, 16), (2, 3)],
    "powerocean/powerocean-hj31-pdata.hex": [(96, 34), (96, 34), (212, 33), (212, 99)],
    "river3/river3plus-bms-pdata.hex": [PACK],
    "river3/river3plus-cms-pdata.hex": [MANAGER],
    "shp2/shp2-pdata.hex": [(12, 1)] + [(12, 32)] * 6,
    "stream5000/es22-two-units-pdata.hex": [(254, 39)] * 6,
    "wallbox/powerpulseev-pdata.hex": [(2, 33)] * 3,
}


def recorded(file: str) -> Any:
    path = RECORDED / file
    return json.loads(path.read_text()) if path.suffix == ".json" else path.read_text()


def serial(product: str) -> str:
    """Return an invented serial number of a product."""
    serials = products().serials
    prefix = next((p for p, (name, _, _) in serials.items() if name == product), "ZZ99")
    return f"{prefix}ZFAKE0000001"[:16]


def recorded_frames(file: str, product: str) -> list[Frame]:
    payloads = [bytes.fromhex(line) for line in recorded(file).splitlines()]
    if file in BARE:
        payloads = [header(p, d) for p, d in zip(BARE[file], payloads, strict=True)]
    return [decode(payload, serial(product)) for payload in payloads]


def products_of(listing: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    return [(file, product) for product, files in listing.items() for file in files]
