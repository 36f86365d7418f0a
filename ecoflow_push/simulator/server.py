"""A small HTTP server that records requests and can be told to misbehave."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from typing import Any, NamedTuple, Self


class Received(NamedTuple):
    """One request as it came in; header names are lower-case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """A well-behaved answer."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


#: Misbehaviour: gets the handler, writes what it likes to `handler.wfile`.
Fault = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Takes any request to the server's `answer`, or to the fault that is due."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: RecordingServer
    #: The request that is being answered.
    current: Received

    def handle_one_request(self) -> None:
        """Serve one request; end quietly when the client hangs up."""
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def _take(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(length)
        received = self.current = Received(self.command, self.path, headers, body)
        with self.server.lock:
            self.server.received.append(received)
            if self.server.keeps:
                del self.server.received[: -self.server.keeps]
            fault = self.server.due(received)
        if fault:
            fault(self)
        else:
            self.send(self.server.answer(received))

    do_GET = do_PUT = do_POST = do_DELETE = do_CONNECT = _take  # noqa: N815 - http.server's names

    def send(self, answer: Answer) -> None:
        """Send a complete answer in one piece."""
        self.wfile.write(
            self.head(answer.status, len(answer.body), answer.headers) + answer.body
        )

    def head(
        self, status: int, length: int | None, headers: tuple[tuple[str, str], ...] = ()
    ) -> bytes:
        """Return the status line and the headers; `length` None leaves it open."""
        lines = [f"HTTP/1.1 {status} {self.responses.get(status, ('',))[0]}"]
        if self.server.date_offset is not None:
            now = time.time() + self.server.date_offset
            lines += [f"Date: {self.date_time_string(now)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if length is None:
            self.close_connection = True
        else:
            lines += [f"Content-Length: {length}"]
        return "\r\n".join([*lines, "", ""]).encode()

    def log_message(self, *args: Any) -> None:
        """Keep quiet: `received` is the log."""


class Faults:
    """The faults that are due; they can be set and healed while requests come in."""

    def __init__(self) -> None:
        self._faults: list[tuple[str, Iterator[Fault]]] = []

    def fail(self, part: str, fault: Fault, times: int | None = None) -> None:
        """Answer the next `times` requests whose path contains `part` by `fault`.

        None is all of them.
        """
        due = repeat(fault) if times is None else repeat(fault, times)
        self._faults.append((part, due))

    def heal(self) -> None:
        """Forget every fault."""
        self._faults.clear()

    def next_fault(self, path: str) -> Fault | None:
        """Return the fault that is due for `path`, and count it."""
        # Of a copy: another thread may heal meanwhile.
        for part, due in [*self._faults]:
            if part in path and (fault := next(due, None)):
                return fault
        return None


class RecordingServer(Faults, ThreadingHTTPServer):
    """Listens on a port of the loopback interface, as a context manager."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        """Listen at once; `port` 0 is a free one."""
        Faults.__init__(self)
        self.lock = threading.Lock()
        self.received: list[Received] = []
        self.handshakes = 0
        #: How many requests are kept; None: all.
        self.keeps: int | None = None
        #: How far the server's clock is ahead, in seconds; None: it tells no time.
        self.date_offset: float | None = 0.0
        #: Set when the server stops: a fault that waits must wait for this.
        self.stopping = threading.Event()
        self._tls = tls
        ThreadingHTTPServer.__init__(self, ("127.0.0.1", port), Handler)

    @property
    def url(self) -> str:
        """Return the address that a client is to use."""
        scheme, host = ("https", "localhost") if self._tls else ("http", "127.0.0.1")
        return f"{scheme}://{host}:{self.server_address[1]}"

    def answer(self, received: Received) -> Answer:  # noqa: ARG002 - for subclasses
        """Return the answer of a server in good health; to be overridden."""
        return Answer(200)

    def due(self, received: Received) -> Fault | None:
        """Return the fault that is due for a request, and count it."""
        return self.next_fault(received.path)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its own thread, so that it can stall only itself."""
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        try:
            request = self._tls.wrap_socket(request, server_side=True)
        except OSError:
            return
        with self.lock:
            self.handshakes += 1
        with request:
            super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about clients that hang up."""

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()
