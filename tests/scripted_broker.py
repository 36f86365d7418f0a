"""A broker of MQTT 3.1.1 that can be told to misbehave, for one client at a time."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

from tests.support import stop_listening

Connection = socket.socket


class ScriptedBroker:
    """Plays a script to each client; it counts what of some kinds came."""

    def __init__(
        self,
        *,
        connack: int | None = 0,
        suback: int | None = 1,
        hangs_up: bool = False,
        then: Callable[[ScriptedBroker, Connection, str], None] | None = None,
    ) -> None:
        """`connack` and `suback` are return codes, None for silence.

        `hangs_up` resets the connection behind the CONNACK. `then` is called for each
        PUBLISH of the client, with its topic.
        """
        self.connects = self.subscribes = self.publishes = 0
        #: Set at the end, for scripts that wait.
        self.stopping = threading.Event()
        self._connack = connack
        self._suback = suback
        self._hangs_up = hangs_up
        self._then = then
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stopping.set()
        stop_listening(self._server, self._thread)

    def publish(self, connection: Connection, topic: str, payload: bytes) -> None:
        """Send a message with QoS 0."""
        body = struct.pack("!H", len(topic)) + topic.encode() + payload
        connection.sendall(b"\x30" + _length(len(body)) + body)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(
                target=self._serve, args=(connection,), daemon=True
            ).start()

    def _serve(self, connection: Connection) -> None:
        with connection:
            try:
                while packet := _receive(connection):
                    self._answer(connection, *packet)
            except OSError:
                return

    def _answer(self, connection: Connection, kind: int, body: bytes) -> None:
        if kind == 0x10:
            self.connects += 1
            if self._connack is not None:
                connection.sendall(bytes((0x20, 2, 0, self._connack)))
            if self._hangs_up:
                hang_up(connection)
        elif kind == 0x80:
            self.subscribes += 1
            if self._suback is None:
                return
            codes = bytes([self._suback] * body.count(b"/app/"))
            connection.sendall(bytes((0x90, 2 + len(codes))) + body[:2] + codes)
        elif kind == 0x30:
            self.publishes += 1
            size = struct.unpack("!H", body[:2])[0]
            topic, identifier = body[2 : 2 + size].decode(), body[2 + size : 4 + size]
            connection.sendall(b"\x40\x02" + identifier)
            if self._then:
                self._then(self, connection, topic)


def hang_up(connection: Connection) -> None:
    """Reset the connection."""
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()


def _receive(connection: Connection) -> tuple[int, bytes] | None:
    head = connection.recv(1)
    if not head:
        return None
    size = shift = 0
    while True:
        byte = connection.recv(1)[0]
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    body = b""
    while len(body) < size:
        body += connection.recv(size - len(body))
    return head[0] & 0xF0, body


def _length(size: int) -> bytes:
    out = b""
    while size > 0x7F:
        out += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return out + bytes((size,))
