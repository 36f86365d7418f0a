"""Binary MQTT payloads: what they say; pure.

A payload is an envelope of headers; each header carries one message, which may be
XORed with one byte (protocol/binary.md#envelope).
"""

from __future__ import annotations

from binascii import a2b_base64
from collections import Counter
from typing import Any, NamedTuple

from ecoflow_push.devices.messages import messages_of_device
from ecoflow_push.devices.questions import Pair

# The largest recorded payload: 3 kB, 19 headers (protocol/binary.md#headers).
MOST_BYTES = 1 << 18
MOST_HEADERS = 256
# The address of the app, and so ours.
_APP = 32
_XOR = 1
_OFFLINE = b"-2"
# The four keys of the plan by which a device reports, and their like for batteries.
_PLAN = "UploadPeriod"


class Frame(NamedTuple):
    """What one payload says.

    `quotas` have the keys of the REST API; a later header wins over an earlier one.
    `has_data` tells whether there is more in them than the plan by which the device
    reports. `offline` is the cloud's word (code -2). `seqs` are those of the headers;
    a reply repeats the request's. What the schema does not know is counted by
    (cmd_func, cmd_id); `damaged` counts what could not be read in full. `said` are the
    messages that the device itself sent, and `unread` those, in clear, of which not one
    value is known.
    """

    quotas: dict[str, object]
    has_data: bool
    offline: bool
    seqs: frozenset[int]
    unknown_messages: Counter[Pair]
    unknown_fields: Counter[Pair]
    damaged: int
    said: frozenset[Pair] = frozenset()
    unread: tuple[tuple[Pair, bytes], ...] = ()


def decode_frame(payload: bytes, sn: str, at: float | None = None) -> Frame:
    """Return what a payload of the device `sn` says; never raises, whatever it holds.

    Heard at the time `at` (Unix, s) what it says of minutes long past is left out. The
    payload may be wrapped in base64. Larger ones than MOST_BYTES are not read.
    """
    # Imported here: only a device that speaks binary needs it.
    from ecoflow_push.api import protobuf

    envelope = protobuf.parse("envelope.Envelope", _unwrapped(payload))
    headers = envelope.header if envelope else ()
    messages = messages_of_device(sn)
    quotas: dict[str, object] = {}
    unknown_messages: Counter[Pair] = Counter()
    unknown_fields: Counter[Pair] = Counter()
    unread: list[tuple[Pair, bytes]] = []
    damaged = max(len(headers) - MOST_HEADERS, 0) if headers else 1
    for header in headers[:MOST_HEADERS]:
        pair = (header.cmd_func, header.cmd_id)
        pdata = _clear(header)
        if pdata is None:
            damaged += 1
        elif pdata and pair not in messages:
            unknown_messages[pair] += 1
            unread.append((pair, pdata))
        elif pdata and (route := messages[pair]):
            message = protobuf.parse(route.message, pdata)
            if message is None:
                damaged += 1
                message = protobuf.salvage(route.message, pdata)
            found, strange = {}, 1
            if message is not None:
                found = protobuf.quotas_of(message, route, quotas, at)
                strange = protobuf.unknown_fields(message)
                unknown_fields[pair] += strange
            if strange and not found:
                unread.append((pair, pdata))
            quotas |= found
    return Frame(
        quotas,
        any(not key.endswith(_PLAN) for key in quotas),
        any(header.code == _OFFLINE for header in headers),
        frozenset(header.seq for header in headers if header.HasField("seq")),
        unknown_messages,
        +unknown_fields,
        damaged,
        frozenset(
            (header.cmd_func, header.cmd_id)
            for header in headers[:MOST_HEADERS]
            if header.pdata and header.src != _APP
        ),
        tuple(unread),
    )


def _unwrapped(payload: bytes) -> bytes:
    """Return the envelope in a payload, empty if it can hold none.

    An envelope begins with the tag of field 1, which no base64 text does. Wrapped
    ones were never recorded; some clients unwrap (protocol/binary.md#envelope).
    """
    if len(payload) > MOST_BYTES:
        return b""
    if not payload.startswith(b"\x0a"):
        try:
            payload = a2b_base64(payload, strict_mode=True)
        except ValueError:
            return b""
    return payload if payload.startswith(b"\x0a") else b""


def _clear(header: Any) -> bytes | None:
    """Return a header's pdata in clear, None if its length is not the one declared.

    The key is the low byte of seq; what an app sends is clear whatever it declares
    (protocol/binary.md#xor).
    """
    pdata: bytes = header.pdata
    if header.HasField("data_len") and header.data_len != len(pdata):
        return None
    if header.enc_type != _XOR or header.src == _APP:
        return pdata
    key = header.seq & 0xFF
    return pdata.translate(bytes(byte ^ key for byte in range(256)))
