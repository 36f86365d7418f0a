"""Sockets that obey a deadline.

The timeout that such a socket is given is its budget for everything that follows, not
for one call: a server that drips a byte a second gains nothing.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

CONNECT_SECONDS = 8.0
# How soon the far end's system says that it got what was sent, however busy its server.
HEARD_SECONDS = 3.0
# Of a status line and its headers; http.client takes 100 lines of 64 KiB.
MOST_HEAD = 128 * 1024


class _Rearmed:
    """A socket whose timeout is the budget of all that follows, not of one call."""

    _until: float | None = None
    #: Something arrived, since whoever asks last cleared this.
    has_heard = False

    def settimeout(self, value: float | None) -> None:
        self._until = None if value is None else time.monotonic() + value
        super().settimeout(value)  # type: ignore[misc]  # of the socket beside us

    def _rearm(self) -> None:
        if self._until is not None:
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError("the deadline passed")
            super().settimeout(left)  # type: ignore[misc]

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._rearm()
        count: int = super().recv_into(*args, **kwargs)  # type: ignore[misc]
        self.has_heard |= count > 0
        return count

    def recv(self, *args: Any, **kwargs: Any) -> bytes:
        self._rearm()
        return super().recv(*args, **kwargs)  # type: ignore[misc, no-any-return]

    def send(self, *args: Any, **kwargs: Any) -> int:
        self._rearm()
        return super().send(*args, **kwargs)  # type: ignore[misc, no-any-return]

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self._rearm()
        super().sendall(*args, **kwargs)  # type: ignore[misc]

    def do_handshake(self, *args: Any, **kwargs: Any) -> None:
        self._rearm()
        super().do_handshake(*args, **kwargs)  # type: ignore[misc]


class _Lines:
    """A response's first lines, which must not be too long together."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.left = MOST_HEAD

    def readline(self, size: int) -> bytes:
        line: bytes = self._file.readline(size)
        self.left -= len(line)
        if self.left < 0:
            raise http.client.LineTooLong("headers")
        return line

    def close(self) -> None:
        self._file.close()


class WithoutHints(http.client.HTTPResponse):
    """An answer, read past what is said before it: 103 Early Hints, say.

    http.client itself knows that only of 100 Continue, and copies headers of any length
    several times.
    """

    #: The status that was read last, also by who opens a tunnel and tells nobody.
    heard = 0

    def begin(self) -> None:
        """Read the status line and the headers."""
        file = self.fp
        lines: Any = _Lines(file)
        self.fp = lines
        try:
            super().begin()
        finally:
            # It may have been closed.
            if self.fp is lines:
                self.fp = file

    def _read_status(self) -> tuple[str, int, str]:
        lines: Any = self.fp
        while True:
            lines.left = MOST_HEAD
            said: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not 101 < said[1] < 200:
                self.heard = said[1]
                return said
            http.client.parse_headers(self.fp)


class DeadlineSocket(_Rearmed, socket.socket):
    """A plain socket that obeys."""


class DeadlineSSLSocket(_Rearmed, ssl.SSLSocket):
    """A TLS socket that obeys."""


class Context(ssl.SSLContext):
    """A TLS context that knows a name of ASCII letters when it sees one."""

    def wrap_socket(  # type: ignore[override]  # nobody of ours says more by place
        self, sock: socket.socket, **how: Any
    ) -> ssl.SSLSocket:
        """Return the socket with TLS on it."""
        how["server_hostname"] = _plain(how["server_hostname"])
        return super().wrap_socket(sock, **how)


def _plain(host: str) -> str | bytes:
    """Return a name past Python's own codec for those of other alphabets.

    That is imported for any text, and importing it is a hundredth of a run.
    """
    return host.encode() if host.isascii() else host


#: By name, who looks it up.
_looking: dict[str, threading.Lock] = {}
#: By name, what was found last, and for which port: for who waited for just that.
_found: dict[str, tuple[int, list[Any]]] = {}


@contextmanager
def looking_up(host: str, seconds: float) -> Iterator[None]:
    """Let one thread at a time look up a name; raises gaierror after `seconds`.

    Name resolution knows no timeout. Whoever is left behind in it, in a process that
    stays, must not be joined there by one more in each run.
    """
    lock = _looking.setdefault(host, threading.Lock())
    if not lock.acquire(timeout=max(0.0, seconds)):
        raise socket.gaierror(socket.EAI_AGAIN, "an earlier look-up has not ended")
    try:
        yield
    finally:
        lock.release()


def addresses_of(host: str, port: int, seconds: float) -> list[Any]:
    """Return what getaddrinfo says of a name; raises OSError.

    Several who ask at once wait for one answer, however slow that is.
    """
    is_late = _looking.setdefault(host, threading.Lock()).locked()
    with looking_up(host, seconds):
        # Gone while it is looked up anew: what is older is for nobody.
        of_port, found = _found.pop(host, (0, []))
        if not (is_late and of_port == port):
            found = socket.getaddrinfo(_plain(host), port, 0, socket.SOCK_STREAM)
        _found[host] = port, found
    return found


def dial(host: str, port: int, seconds: float) -> DeadlineSocket:
    """Return a connected socket with what is left of `seconds` as its budget.

    Raises OSError.
    """
    until = time.monotonic() + seconds
    found = addresses_of(host, port, seconds)
    # By now others have given this up, if the look-up took too long.
    error: OSError = TimeoutError("the deadline passed")
    for number, (family, kind, protocol, _, address) in enumerate(found, 1):
        left = until - time.monotonic()
        if left <= 0:
            break
        # Against one dead address among several: the next one gets its chance.
        share = left if number == len(found) else left / 2
        sock = None
        try:
            sock = DeadlineSocket(family, kind, protocol)
            sock.settimeout(min(share, CONNECT_SECONDS))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as exc:
            error = exc
            if sock:
                sock.close()
            continue
        sock.settimeout(until - time.monotonic())
        return sock
    raise error


def doubt(sock: socket.socket) -> None:
    """Let a connection end soon if what it sends gets nowhere, where that can be told.

    Who forgets a connection, as a firewall does that begins anew, need not say so: it
    would take all the time there is, and a new one have been heard.
    """
    # Of Linux alone.
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option:
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, option, int(HEARD_SECONDS * 1000))
