"""PlainExchange: over http.client, which prometheus_client has with it already."""

from __future__ import annotations

import http.client
import select
import time
from collections import deque
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from ecoflow_push.errors import HostLimit, Unreachable
from ecoflow_push.net.deadline import start
from ecoflow_push.net.kept import KEPT, now
from ecoflow_push.net.reply import OWN_HEADERS, Reply, Request, cut_short, read_body
from ecoflow_push.net.sockets import WithoutHints, dial, doubt
from ecoflow_push.net.trust import Trust

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable


class PlainExchange:
    """Kept-alive connections to one server, one for each thread that sends.

    In a process that stays, the next run's exchange takes them up (net/kept.py).
    """

    def __init__(
        self,
        url: str,
        *,
        trust: Trust = Trust(),  # noqa: B008 - immutable
        needs_body: bool = True,
        who: str = "",
    ) -> None:
        """Prepare for the server at `url`; nothing is contacted.

        Without `needs_body` the status is an answer, whatever becomes of the rest.
        `who` tells apart as whom the server is talked to: no other takes up what this
        one leaves. Raises SettingsError when a certificate or key file cannot be used.
        """
        self._needs_body = needs_body
        server = self._server = urlsplit(url)
        is_tls = server.scheme == "https"
        # Before the files are read: if they change meanwhile, this is another one's.
        stamp = trust.stamp() if is_tls else ()
        self._identity = (server.scheme, server.netloc, stamp, who)
        # One context for all connections: reading a trust store is the dear part.
        self._tls = trust.context() if is_tls else None
        self._idle: deque[_Connection] = deque()
        self._all: list[_Connection] = []
        self._is_closed = False
        #: On their way, for the first requests.
        self._ahead: deque[_Ahead] = deque()

    def __call__(self, request: Request, seconds: float) -> Reply:
        """Return the complete answer (see Exchange)."""
        parts = urlsplit(request.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if self._is_closed:
            raise ConnectionAbortedError("closed")
        until = time.monotonic() + seconds
        connection = self._connection(seconds)
        with ExitStack() as undo:
            undo.callback(connection.close)
            connection.allow(until - time.monotonic())
            try:
                connection.request(
                    request.method,
                    target,
                    request.body,
                    {**OWN_HEADERS, **request.headers},
                )
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as exc:
                if connection.is_unheard:
                    # As idle as this one: the others are not to be tried one by one.
                    self._idle.clear()
                    self._ahead.clear()
                    KEPT.forget(self._identity)
                    # The system's own word, which has a number, is no deadline of ours.
                    if not isinstance(exc, TimeoutError) or exc.errno:
                        from ecoflow_push.net.explain import WasClosed

                        raise WasClosed from exc
                raise
            # A response that ends its connection is the one that holds the socket.
            with response:
                body = self._read(connection, response, request.most_bytes)
            undo.pop_all()
        self._idle.append(connection)
        if self._has_closed():
            # Meanwhile, perhaps before this one was there to be closed.
            connection.close()
        return Reply(response.status, response.headers, body)

    def dial_ahead(self, lanes: int, seconds: float) -> None:
        """Begin to connect within `seconds`, for the first requests; returns at once.

        `lanes` is how many there will be at once. What goes wrong is theirs to raise.
        """
        # Without a thread a request dials by itself.
        with suppress(HostLimit):
            for _ in range(lanes):
                connection = _Connection(self._server, self._tls)
                self._all.append(connection)
                self._ahead.append(_Ahead(connection, seconds, self._has_closed))

    def _has_closed(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        """Close the kept connections, for good: whoever still sends is too late."""
        self._is_closed = True
        connections, self._all = self._all, []
        idle = set()
        with suppress(IndexError):
            while True:
                idle.add(self._idle.popleft())
        for connection in connections:
            if connection in idle and connection.sock is not None:
                KEPT.give(self._identity, connection)
                continue
            # A close that fails has closed all the same.
            with suppress(OSError):
                connection.close()

    def _connection(self, seconds: float) -> _Connection:
        try:
            return self._idle.popleft()
        except IndexError:
            with suppress(IndexError):
                return self._ahead.popleft().get(seconds)
            kept: Any = KEPT.take(self._identity)
            connection: _Connection = kept or _Connection(self._server, self._tls)
            if kept and kept.sock is not None:
                doubt(kept.sock)
            self._all.append(connection)
            return connection

    def _read(
        self,
        connection: _Connection,
        response: http.client.HTTPResponse,
        most_bytes: int,
    ) -> bytes:
        chunks: list[bytes] = []
        try:
            read_body(response.read, chunks, most_bytes)
            if response.length:
                # Read in pieces, a body that ends early raises nothing by itself.
                raise http.client.IncompleteRead(b"", response.length)
        except (Unreachable, OSError, http.client.HTTPException, ValueError) as exc:
            if self._needs_body:
                raise
            chunks.append(cut_short(exc))
            connection.close()
        return b"".join(chunks)


class _Connection(http.client.HTTPConnection):
    """A connection whose socket has a budget for the whole exchange."""

    response_class = WithoutHints

    def __init__(self, server: SplitResult, context: ssl.SSLContext | None) -> None:
        port = server.port or (443 if server.scheme == "https" else 80)
        super().__init__(server.hostname or "", port)
        self._context = context
        self._seconds = 0.0
        self.opened_at = 0.0
        #: Nothing was sent yet: what has arrived is TLS's own.
        self._is_new = False
        #: The socket that was there before, None for a new one.
        self._kept: Any = None

    def allow(self, seconds: float) -> None:
        """Give the next exchange this much time."""
        self._seconds = seconds
        if self.sock is not None and not self._is_new and _has_news(self.sock):
            # Its end, or an answer to nothing, which would pass for the next one.
            self.close()
        self._is_new = False
        kept: Any = self.sock
        self._kept = kept
        if kept is not None:
            kept.has_heard = False
            kept.settimeout(seconds)

    def dial(self) -> None:
        """Connect before there is a request; raises OSError."""
        self.connect()
        self._is_new = True

    @property
    def is_unheard(self) -> bool:
        """Whether this was there before the exchange, and nothing came of that."""
        return self._kept is not None and not self._kept.has_heard

    def connect(self) -> None:
        """Dial, and speak TLS if it is asked for."""
        self.opened_at = now()
        self.sock = dial(self.host, self.port, self._seconds)
        if self._context:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)


class _Ahead:
    """A connection that a thread dials, and what became of it."""

    def __init__(
        self, connection: _Connection, seconds: float, has_closed: Callable[[], bool]
    ) -> None:
        """Begin; raises HostLimit where there can be no thread.

        Where nobody waits any more, since all `has_closed`, it is closed at once.
        """
        self._connection = connection
        self._has_closed = has_closed
        self._raised: Exception | None = None
        connection.allow(seconds)
        self._thread = start(self._dial)

    def get(self, seconds: float) -> _Connection:
        """Return the connection when it is there; raises what kept it from that."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError("the deadline passed")
        if self._raised:
            raise self._raised
        return self._connection

    def _dial(self) -> None:
        try:
            self._connection.dial()
            if self._has_closed():
                self._connection.close()
        except Exception as exc:  # noqa: BLE001 - carried to who sends
            self._raised = exc


def _has_news(sock: socket.socket) -> bool:
    """Return whether something arrived that nobody has read yet, or the end."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
