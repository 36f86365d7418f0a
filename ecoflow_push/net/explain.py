"""What failed, in plain words: the root cause of a connection's error."""

from __future__ import annotations

import socket
import ssl
from http.client import HTTPException, IncompleteRead, RemoteDisconnected


def explain(exc: BaseException) -> tuple[str, bool, bool]:
    """Return a failure's root cause in plain words, if it will last, if all is down.

    The libraries' own texts nest four layers deep and quote the URL.
    """
    chain: list[BaseException] = []
    cause: BaseException | None = exc
    while cause is not None and cause not in chain:
        chain.append(cause)
        inner = getattr(cause, "reason", None)
        inner = inner if isinstance(inner, BaseException) else None
        inner = inner or next(
            (a for a in cause.args if isinstance(a, BaseException)), None
        )
        cause = inner or cause.__cause__ or cause.__context__
    if any("unnel connection failed" in str(link) for link in chain):
        return "the proxy refused", False, True
    for kind, words, lasting, down in _CAUSES:
        for link in chain:
            if isinstance(link, kind):
                detail = getattr(link, "verify_message", "") or ""
                return words + (f": {detail}" if detail else ""), lasting, down
    return "the connection failed", False, False


# Kind, words, whether it will last, whether every other request will meet it too.
_CAUSES: tuple[tuple[type[BaseException], str, bool, bool], ...] = (
    (ssl.SSLCertVerificationError, "TLS: its certificate was refused", True, True),
    (socket.gaierror, "its name could not be resolved", False, True),
    (ConnectionRefusedError, "connection refused", False, True),
    (TimeoutError, "no complete answer in time", False, True),
    (ssl.SSLEOFError, "TLS: the connection was closed", False, True),
    (ssl.SSLError, "TLS: the handshake failed", False, True),
    (RemoteDisconnected, "the connection was closed without an answer", False, False),
    (ConnectionResetError, "connection reset", False, False),
    (IncompleteRead, "the answer was cut short", False, False),
    (HTTPException, "answered in broken HTTP", False, False),
)
