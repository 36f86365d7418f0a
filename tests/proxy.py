"""A small real proxy: it forwards what it is asked for, and opens tunnels."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import ClassVar, Self
from urllib.parse import SplitResult, urlsplit

from tests.support import stop_listening


class Proxy:
    """Listens on a free port of the loopback interface, as a context manager.

    With `answers` it says that status to everything, with `password` 407 to whoever
    does not show user and password. Whom it does not reach it answers for with 503,
    in the words of a connection that was refused. A method in `gates` waits for its
    event before it goes on.
    in the words of a connection that was refused. `knows` are the loopback ports of
    hosts that no resolver has, `parent` is the place of the proxy that it asks.
    """

    #: Those that run, by their place.
    running: ClassVar[dict[str, Proxy]] = {}

    def __init__(
        self,
        *,
        answers: int = 0,
        password: str = "",
        knows: Mapping[str, int] | None = None,
        parent: str = "",
    ) -> None:
        self.answers = answers
        self.knows = knows or {}
        self.parent = parent
        self.password = password
        #: The first line of each request.
        self.received: list[str] = []
        self.gates: dict[str, threading.Event] = {}
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._listen, daemon=True)

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.place}"

    def __enter__(self) -> Self:
        self.running[self.place] = self
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        del self.running[self.place]
        stop_listening(self._socket, self._thread)

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                threading.Thread(
                    target=self._serve, args=(client,), daemon=True
                ).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            begun = b""
            while b"\r\n\r\n" not in begun:
                more = client.recv(65536)
                if not more:
                    return
                begun += more
            head, _, body = begun.partition(b"\r\n\r\n")
            first, *headers = head.decode().split("\r\n")
            self.received.append(first)
            if status := self._refusal(headers):
                _say(client, status, "no")
                return
            method, target, version = first.split()
            if method in self.gates:
                self.gates[method].wait(60)
            parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
            try:
                server = self._reach(parts)
            except OSError:
                _say(client, 503, "connect: connection refused")
                return
            with server:
                if self.parent:
                    server.sendall(begun)
                elif method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 Opened\r\n\r\n")
                else:
                    path = target.partition(parts.netloc)[2] or "/"
                    kept = [x for x in headers if not x.startswith(HOP_BY_HOP)]
                    lines = [f"{method} {path} {version}", *kept, "Connection: close"]
                    server.sendall("\r\n".join([*lines, "", ""]).encode() + body)
                there = threading.Thread(target=pump, args=(client, server))
                there.daemon = True
                there.start()
                pump(server, client)

    def _reach(self, parts: SplitResult) -> socket.socket:
        host, port = parts.hostname or "", parts.port or 80
        if self.parent:
            host, _, place = self.parent.partition(":")
            port = int(place)
        elif host in self.knows:
            host, port = "127.0.0.1", self.knows[host]
        return socket.create_connection((host, port), 5)

    def _refusal(self, headers: list[str]) -> int:
        shown = base64.b64encode(self.password.encode()).decode()
        if self.password and f"Proxy-Authorization: Basic {shown}" not in headers:
            return 407
        return self.answers


HOP_BY_HOP = ("Connection:", "Proxy-")


def _say(client: socket.socket, status: int, words: str) -> None:
    head = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(words)}\r\n"
    client.sendall(f"{head}Connection: close\r\n\r\n{words}".encode())


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            sink.sendall(chunk)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
