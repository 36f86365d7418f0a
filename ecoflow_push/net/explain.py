"""Why a connection failed, in plain words, and what to do about it."""

from __future__ import annotations

import socket
import ssl
from http.client import HTTPException, IncompleteRead, RemoteDisconnected


class ProxyRefused(OSError):
    """The proxy answered, and did not open the way."""


class WasClosed(ConnectionError):
    """A kept connection had been closed while it was idle: no answer has begun."""


class ProxyUnreachable(OSError):
    """The proxy itself could not be reached; `variable` says where it is."""

    def __init__(self, address: str, variable: str) -> None:
        super().__init__(address)
        self.address = address
        self.variable = variable


class Cause:
    """The root of a failure.

    `cure` speaks of `{url}` and `{ca}`, the variables of an address and its authority;
    `lasting` where another try cannot help, `down` where all other requests will meet
    it too.
    """

    __slots__ = ("cure", "down", "lasting", "text")

    def __init__(
        self, text: str, cure: str = "", *, lasting: bool = False, down: bool = False
    ) -> None:
        self.text = text
        self.cure = cure
        self.lasting = lasting
        self.down = down


def explain(exc: BaseException) -> Cause:
    """Return a failure's root cause.

    The libraries' own texts nest four layers deep and quote the URL.
    """
    # Of a good run no part.
    from ecoflow_push.limits import links

    chain = links(exc)
    for kind, cause in _CAUSES:
        for link in chain:
            if isinstance(link, kind):
                detail = getattr(link, "verify_message", "") or ""
                text = f"{cause.text}: {detail}" if detail else cause.text
                number = getattr(link, "verify_code", 0)
                cure = _CERTIFICATE_CURES.get(number, cause.cure)
                if isinstance(exc, ProxyUnreachable):
                    text = f"the proxy {exc.address}: {text}"
                    cure = cure.replace("{url}", exc.variable)
                return Cause(text, cure, lasting=cause.lasting, down=cause.down)
    return Cause("the connection failed")


# OpenSSL's X509_V_ERR_*: where another authority would change nothing.
_CERTIFICATE_CURES = {
    9: "set this machine's clock: the server's certificate is not valid yet",
    10: (
        "the server's certificate has expired: it must be renewed there; or set this"
        " machine's clock, if that is ahead"
    ),
    62: "check the host in {url}: the server's certificate is for another name",
    64: "check the host in {url}: the server's certificate is for another address",
}
_CAUSES: tuple[tuple[type[BaseException], Cause], ...] = (
    (
        ProxyRefused,
        Cause(
            "the proxy refused",
            "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
            down=True,
        ),
    ),
    (
        ssl.SSLCertVerificationError,
        Cause(
            "TLS: its certificate was refused",
            "check the host in {url}, or set {ca} if it is your own authority's",
            lasting=True,
            down=True,
        ),
    ),
    (
        socket.gaierror,
        Cause(
            "its name could not be resolved",
            "check the host in {url}, and this machine's DNS",
            down=True,
        ),
    ),
    (
        ConnectionRefusedError,
        Cause(
            "connection refused",
            "check that it runs, and the host and port in {url}",
            down=True,
        ),
    ),
    (
        TimeoutError,
        Cause(
            "no complete answer in time",
            "look for a firewall in the way, then raise RUN_DEADLINE",
            down=True,
        ),
    ),
    (
        ssl.SSLEOFError,
        Cause(
            "TLS: the connection was closed",
            "check that the port in {url} is one for https",
            down=True,
        ),
    ),
    (
        ssl.SSLError,
        Cause(
            "TLS: the handshake failed",
            "check that the port in {url} is one for https",
            down=True,
        ),
    ),
    (RemoteDisconnected, Cause("the connection was closed without an answer")),
    (ConnectionResetError, Cause("connection reset")),
    (IncompleteRead, Cause("the answer was cut short")),
    (HTTPException, Cause("answered in broken HTTP")),
)
