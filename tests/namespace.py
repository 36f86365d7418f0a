"""A network of the test's own: two namespaces, and a road between them that may fail.

The program lives at the near end and has no other way out. The road is a program of
ours that carries each packet between two tun devices, so that it can lose, delay, or
narrow, and knows where everything went. At the far end are doors: ports, each of which
leads to a server of the test's on the loopback interface.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import ipaddress
import os
import random
import select
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from tests.proxy import pump
from tests.support import PUSH, Run

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
TCP, UDP = 6, 17
SYN, ACK = 0x02, 0x10
NEAR, NEAR_V6 = "10.8.0.2", "fd08::2"
#: What is at the far end: any address of the first, and the second.
FAR, FAR_V6 = "10.9.0.0/16", "fd09::1"
RESOLVER = "10.9.0.53"
#: How long a narrow road lets packets wait before it drops them (s).
LONGEST_QUEUE = 3.0

_LIBC = ctypes.CDLL(None, use_errno=True)


class Packet(NamedTuple):
    """What the road sees of a packet; `is_out` if the program sent it."""

    is_out: bool
    size: int
    protocol: int
    to: str
    port: int
    flags: int
    payload: bytes


def packet_of(raw: bytes, *, is_out: bool) -> Packet:
    """Return what is in a packet, of either version of IP."""
    if raw[0] >> 4 == 4:
        protocol, to, at = raw[9], raw[16:20], (raw[0] & 15) * 4
    else:
        protocol, to, at = raw[6], raw[24:40], 40
    port, flags, payload = 0, 0, b""
    if protocol in (TCP, UDP) and len(raw) >= at + 8:
        port = struct.unpack_from("!H", raw, at + 2)[0]
        if protocol == TCP:
            flags = raw[at + 13]
            payload = raw[at + (raw[at + 12] >> 4) * 4 :]
        else:
            payload = raw[at + 8 :]
    address = str(ipaddress.ip_address(to))
    return Packet(is_out, len(raw), protocol, address, port, flags, payload)


class Road:
    """The way between the two namespaces, as a context manager.

    `loses` is the share of packets that get lost in each direction, `delay` the seconds
    that each takes, `rate` the bits per second, 0 for as fast as it goes. `stops` is
    asked of each packet. Whoever changes them changes what happens from then on.
    """

    def __init__(self, folder: Path, seed: int = 1) -> None:
        self.loses = 0.0
        self.delay = 0.0
        self.rate = 0.0
        self.stops: Callable[[Packet], bool] = lambda _: False
        #: What the program sent, by address and port.
        self.sent: dict[tuple[str, int], bytearray] = {}
        self.counts = {"carried": 0, "lost": 0}
        self._folder = folder
        self._chance = random.Random(seed)
        self._is_over = False
        self._closing: list[Callable[[], object]] = []
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)

    def __enter__(self) -> Self:
        try:
            self._near, self._far = _namespace(), _namespace()
            with self.at(self._near):
                self._near_end = _tun()
                _ip("link set lo up")
                _ip(f"addr add {NEAR}/32 dev road", f"addr add {NEAR_V6}/128 dev road")
                _ip("link set road up")
                _ip("route add default dev road", "-6 route add default dev road")
            with self.at(self._far):
                self._far_end = _tun()
                _ip("link set lo up", "link set road up")
                _ip(f"route add local {FAR} dev lo", f"route add {NEAR} dev road")
                _ip(f"addr add {FAR_V6}/128 dev road nodad")
                _ip(f"-6 route add {NEAR_V6} dev road")
        except OSError as exc:
            os.close(self._home)
            pytest.skip(f"it needs a network namespace, which is not allowed: {exc}")
        thread = threading.Thread(target=self._carry, daemon=True)
        thread.start()
        self._closing.append(thread.join)
        (self._folder / "resolv.conf").write_text(f"nameserver {RESOLVER}\n")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over = True
        for close in reversed(self._closing):
            close()
        for each in (self._near_end, self._far_end, self._near, self._far, self._home):
            os.close(each)

    @contextmanager
    def at(self, namespace: int) -> Iterator[None]:
        """Let this thread, and what it starts and opens, be in a namespace."""
        _enter(namespace)
        try:
            yield
        finally:
            _enter(self._home)

    def door(self, address: str, port: int, target: int) -> None:
        """Let a port at the far end lead to one of the loopback interface."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.at(self._far):
            listener = socket.create_server((address, port), family=family)
        self._serve(listener, lambda: self._admit(listener, target))

    def resolver(self, zone: Zone, address: str = RESOLVER) -> None:
        """Let somebody answer for names at the far end."""
        with self.at(self._far):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((address, 53))

        def answer() -> None:
            query, who = sock.recvfrom(512)
            if not query:  # it was shut down
                raise ConnectionResetError
            later = threading.Timer(zone.delay, _reply, (sock, zone, query, who))
            later.daemon = True
            later.start()

        self._serve(sock, answer)

    def resolvers(self, *addresses: str) -> None:
        """Let the program ask these, in this order."""
        text = "".join(f"nameserver {each}\n" for each in addresses)
        (self._folder / "resolv.conf").write_text(text)

    def start(
        self, environ: Mapping[str, str], *args: str, **more: str
    ) -> subprocess.Popen[str]:
        """Start push.py at the near end, as cron would."""
        resolv = shlex.quote(f"{self._folder}/resolv.conf")
        command = f"mount --bind {resolv} /etc/resolv.conf && exec "
        alone = ("unshare", "-m", "sh", "-c", command + '"$@"', "sh")
        with self.at(self._near):
            return subprocess.Popen(
                [*alone, sys.executable, str(PUSH), *args],
                env={"PATH": os.defpath, "HOME": "/nonexistent", **environ, **more},
                cwd="/",
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def push(self, environ: Mapping[str, str], *args: str) -> Run:
        """Run push.py at the near end until it ends."""
        process = self.start(environ, *args)
        stdout, stderr = process.communicate(timeout=180)
        return Run(process.returncode, stdout, stderr)

    def _serve(self, sock: socket.socket, work: Callable[[], None]) -> None:
        def serve() -> None:
            with suppress(OSError):
                while True:
                    work()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()

        def close() -> None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            thread.join()
            sock.close()

        self._closing.append(close)

    def _admit(self, listener: socket.socket, target: int) -> None:
        visitor, _ = listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", target), 10)
        except OSError:
            visitor.close()
            return
        server.settimeout(None)
        thread = threading.Thread(target=_join, args=(visitor, server), daemon=True)
        thread.start()

        def close() -> None:
            for each in (visitor, server):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            thread.join()

        self._closing.append(close)

    def _carry(self) -> None:
        ends = {self._near_end: self._far_end, self._far_end: self._near_end}
        #: When the road is free again, by the end that sends.
        free = dict.fromkeys(ends, 0.0)
        waiting: list[tuple[float, int, int, bytes]] = []
        number = 0
        while not self._is_over:
            pause = 0.1
            if waiting:
                pause = min(pause, max(0.0, waiting[0][0] - time.monotonic()))
            for end in select.select(list(ends), [], [], pause)[0]:
                raw = os.read(end, 65536)
                now = time.monotonic()
                if not self._lets_through(raw, end, free[end] - now):
                    self.counts["lost"] += 1
                    continue
                self.counts["carried"] += 1
                took = len(raw) * 8 / self.rate if self.rate else 0.0
                free[end] = max(now, free[end]) + took
                number += 1
                due = free[end] + self.delay
                heapq.heappush(waiting, (due, number, ends[end], raw))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, end, raw = heapq.heappop(waiting)
                with suppress(OSError):
                    os.write(end, raw)

    def _lets_through(self, raw: bytes, end: int, queued: float) -> bool:
        packet = packet_of(raw, is_out=end == self._near_end)
        if packet.is_out and packet.protocol in (TCP, UDP):
            told = self.sent.setdefault((packet.to, packet.port), bytearray())
            told += packet.payload
        if self.stops(packet) or queued > LONGEST_QUEUE:
            return False
        return self._chance.random() >= self.loses


class Zone:
    """What a resolver says: addresses by name, and how it fails."""

    def __init__(self, names: Mapping[str, list[str]]) -> None:
        self.names = dict(names)
        #: Seconds before it answers.
        self.delay = 0.0
        #: What it answers instead: an rcode, bytes as they are, or silence ("").
        self.instead: int | bytes | str | None = None
        self.asked: list[str] = []


def _reply(sock: socket.socket, zone: Zone, query: bytes, who: Any) -> None:
    name, at = _name(query, 12)
    (kind,) = struct.unpack_from("!H", query, at)
    zone.asked.append(name)
    question = query[12 : at + 4]
    rows, rcode = [], 0
    if zone.instead == "":
        return
    if isinstance(zone.instead, bytes):
        with suppress(OSError):
            sock.sendto(query[:2] + zone.instead, who)
        return
    if isinstance(zone.instead, int):
        rcode = zone.instead
    else:
        family = {1: 4, 28: 6}.get(kind)
        addresses = map(ipaddress.ip_address, zone.names.get(name, []))
        rows = [each.packed for each in addresses if each.version == family]
        rcode = 0 if name in zone.names else 3
    head = query[:2] + struct.pack("!HHHHH", 0x8180 | rcode, 1, len(rows), 0, 0)
    body = b"".join(
        struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(row)) + row for row in rows
    )
    with suppress(OSError):
        sock.sendto(head + question + body, who)


def _name(query: bytes, at: int) -> tuple[str, int]:
    labels = []
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels).lower(), at + 1


def _join(visitor: socket.socket, server: socket.socket) -> None:
    with visitor, server:
        there = threading.Thread(target=pump, args=(visitor, server), daemon=True)
        there.start()
        pump(server, visitor)
        there.join()


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _namespace() -> int:
    """Return a new namespace, which lives as long as this descriptor does."""
    found: list[int] = []

    def make() -> None:
        if not _LIBC.unshare(CLONE_NEWNET):
            found.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if not found:
        raise PermissionError("unshare")
    return found[0]


def _tun() -> int:
    device = os.open("/dev/net/tun", os.O_RDWR)
    request = struct.pack("16sH22x", b"road", IFF_TUN | IFF_NO_PI)
    try:
        fcntl.ioctl(device, TUNSETIFF, request)
    except OSError:
        os.close(device)
        raise
    return device


def _ip(*commands: str) -> None:
    for each in commands:
        done = subprocess.run(
            ["ip", *each.split()], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise OSError(f"ip {each}: {done.stderr.strip()}")


def lacks() -> str:
    """Return what this machine lacks for a network of one's own, "" if nothing."""
    if os.geteuid() != 0:
        return "only root may make a network of its own"
    if not shutil.which("ip"):
        return "it needs ip (iproute2)"
    if not os.path.exists("/dev/net/tun"):
        return "it needs /dev/net/tun"
    return ""
