"""Peers that want our memory: what they send, and what a run then holds at most."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from ecoflow_push.simulator.server import Answer, Fault, Handler
from tests.scripted_broker import Connection, ScriptedBroker
from tests.support import PUSH, Run

PEAK = Path(__file__).with_name("peak.py")
#: What a run may hold, in bytes, whatever it is sent: of the 128 MiB of our own units.
MOST = 96 << 20
MIB = 1 << 20


class Held(NamedTuple):
    """A run of push.py, and the most memory that it held (bytes)."""

    run: Run
    peak: int


def push_watched(environ: Mapping[str, str], folder: Path, *args: str) -> Held:
    """Run push.py as cron would, and learn how much it held."""
    place = folder / "peak"
    done = subprocess.run(
        [sys.executable, PEAK, place, sys.executable, PUSH, *args],
        env={"PATH": os.defpath, "HOME": "/nonexistent", **environ},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    run = Run(done.returncode, done.stdout, done.stderr)
    return Held(run, int(place.read_text()))


# -- bodies ---------------------------------------------------------------------------


def envelope(data: bytes) -> bytes:
    return b'{"code":"0","message":"Success","data":' + data + b"}"


def many(unit: bytes, size: int) -> bytes:
    """Return a list of `unit`, of about `size` bytes."""
    return b"[" + b",".join([unit] * (size // (len(unit) + 1))) + b"]"


def numbered(count: int, row: str) -> bytes:
    """Return a map of `count` rows, in which {n} is the number."""
    return b"{" + ",".join(row.format(n=n) for n in range(count)).encode() + b"}"


def under(data: bytes) -> bytes:
    return b'{"a":' + data + b"}"


#: How a text begins that takes four bytes a letter.
WIDE = '"\U0001f600'.encode()
#: What is sent, made when a test asks for it.
Body = Callable[[], bytes]
DATA: dict[str, Body] = {
    "a million empty lists": lambda: under(many(b"[]", 3_000_000)),
    "7.5 MiB of small objects": lambda: under(many(b'{"a":1}', 15 * MIB // 2)),
    "600,000 objects, no two alike": lambda: under(
        b"[" + b",".join(b'{"%d":{}}' % n for n in range(600_000)) + b"]"
    ),
    "lists in lists": lambda: under(many(b"[" * 30 + b"]" * 30, 3 * MIB)),
    "deeper than Python": lambda: under(b"[" * 200_000 + b"]" * 200_000),
    "400,000 keys": lambda: numbered(400_000, '"k{n}":{n}'),
    "a text of 8 MiB": lambda: under(b'"' + b"x" * 8 * MIB + b'"'),
    "a wide text of 3 MiB": lambda: under(WIDE + b"x" * 3 * MIB + b'"'),
    "numbers of 4,000 digits": lambda: under(many(b"9" * 4000, 15 * MIB // 2)),
    "one number of 3 MiB": lambda: under(b"9" * 3 * MIB),
    "texts of JSON": lambda: numbered(
        100, '"k{n}":"{{\\"a\\":[' + ",".join(["{{}}"] * 20_000) + ']}}"'
    ),
}
#: As much as is read of one device, so that none of these is refused.
LARGEST: dict[str, Body] = {
    "lists": lambda: under(many(b"[]", 23_000)),
    "maps": lambda: under(
        b"[" + b",".join(b'{"%d":1.5}' % n for n in range(6_900)) + b"]"
    ),
    "maps in maps": lambda: under(
        b"[" + b",".join(b'{"%x":{"y":{"z":1.5}}}' % n for n in range(3_400)) + b"]"
    ),
    "keys": lambda: numbered(11_000, '"k{n}":{n}.5'),
    "long keys": lambda: numbered(3_900, '"' + "k" * 80 + '{n}":1.5'),
    "a long parent": lambda: (
        b'{"' + b"p" * 180 + b'":' + numbered(12_000, '"k{n}":1.5') + b"}"
    ),
    "numbers": lambda: under(many(b"1.5", 58_000)),
    "a wide text": lambda: under(WIDE + b"x" * 520_000 + b'"'),
}


def bomb(size: int) -> bytes:
    """Return gzip of so many bytes of JSON's blanks: what is packed once, repeated."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    piece = b" " * MIB
    packed = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    check = 0
    for _ in range(size // MIB):
        check = zlib.crc32(piece, check)
    head = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    tail = packer.flush() + struct.pack("<II", check, size)
    return head + packed * (size // MIB) + tail


def answers(status: int, body: bytes, **headers: str) -> Fault:
    """Answer with a body that was made once."""
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return lambda handler: handler.send(Answer(status, body, pairs))


def endless(status: int = 200) -> Fault:
    """Answer with a body that has no end."""

    def fault(handler: Handler) -> None:
        handler.wfile.write(handler.head(status, None))
        while not handler.server.stopping.is_set():
            handler.wfile.write(b"x" * 65_536)

    return fault


def long_headers() -> Fault:
    """Answer with as many headers of the greatest length as http.client takes."""
    lines = b"".join(b"X-%d: %s\r\n" % (n, b"y" * 65_000) for n in range(90))

    def fault(handler: Handler) -> None:
        handler.wfile.write(
            b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 0\r\n\r\n"
        )

    return fault


def groups(count: int) -> bytes:
    """Return a gateway's list of groups, with what they hold."""
    metric = '"ecoflow_m{n}":{"metrics":[{"labels":{"device":"D"},"value":"1"}]}'
    metrics = ",".join(metric.replace("{n}", str(n)) for n in range(50))
    group = '{"labels":{"job":"ecoflow","device":"D%d"},' + metrics + "}"
    rows = ",".join(group % n for n in range(count))
    return f'{{"status":"success","data":[{rows}]}}'.encode()


# -- packets --------------------------------------------------------------------------

Script = Callable[[ScriptedBroker, Connection, str], None]


def packet(
    topic: bytes, payload: bytes, head: int = 0x30, mid: int | None = None
) -> bytes:
    """Return a PUBLISH."""
    body = struct.pack("!H", len(topic)) + topic
    body += b"" if mid is None else struct.pack("!H", mid)
    size = len(body) + len(payload)
    length = b""
    while size > 0x7F:
        length += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return bytes((head,)) + length + bytes((size,)) + body + payload


def claims(*, sends: bool) -> Script:
    """Claim a packet of 256 MiB, the most that there can be, and send it or not."""

    def script(broker: ScriptedBroker, connection: Connection, topic: str) -> None:
        connection.sendall(b"\x30\xff\xff\xff\x7f\x00\x01x")
        while sends:
            connection.sendall(bytes(65_536))

    return script


def forever(make: Callable[[str, int], bytes]) -> Script:
    """Send what `make` makes of our topic and a number, for ever."""

    def script(broker: ScriptedBroker, connection: Connection, topic: str) -> None:
        number = 0
        while True:
            number += 1
            connection.sendall(make(topic, number))

    return script


def once(make: Callable[[str], bytes]) -> Script:
    """Send what `make` makes of our topic, each time that we ask."""
    return lambda broker, connection, topic: connection.sendall(make(topic))


def own(topic: str) -> bytes:
    """Return where a device reports, by where it is asked."""
    serial = topic.split("/")[3]
    return f"/app/device/property/{serial}".encode()


def new_keys(topic: str, number: int) -> bytes:
    params = {f"k{number}.{n}": n for n in range(1_000)}
    return packet(own(topic), json.dumps({"params": params}).encode())
