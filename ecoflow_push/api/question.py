"""The binary request for everything, written by hand: no schema is loaded to ask."""

from __future__ import annotations

from ecoflow_push.devices.questions import question_of


def get_all_request(seq: int, sender: str, sn: str) -> bytes:
    """Return the payload that asks a device for all (protocol/binary.md#get-all).

    `seq` is an int32, may be negative, and comes back in the reply; `sender` is any
    client's word.
    """
    header = b"\x10\x20\x18\x20"  # src, dest: the app
    named = question_of(sn).named
    if named:
        func, number = named
        header += b"\x40" + _varint(func) + b"\x48" + _varint(number) + b"\x50\x00"
    header += b"\x70" + _varint(seq) + b"\xba\x01" + _sized(sender.encode())
    if named:
        header += b"\xca\x01" + _sized(sn.encode())
    return b"\x0a" + _sized(header)


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """Return a protobuf varint; a negative number is that of 64 bits, in ten bytes."""
    number &= (1 << 64) - 1
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
