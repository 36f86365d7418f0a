"""Why a connection failed, in plain words, and what to do about it."""

from __future__ import annotations

import socket
import ssl
import time
from http.client import HTTPException, IncompleteRead, RemoteDisconnected

# OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and _CERT_HAS_EXPIRED.
NOT_YET_VALID, HAS_EXPIRED = 9, 10


class ProxyRefused(OSError):
    """The proxy answered with an HTTP status, and did not open the way.

    `address` is the proxy's, and `variable` says where it stands; whoever knows them
    puts them in.
    """

    address = variable = ""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


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
    for link in chain:
        if isinstance(link, ProxyRefused):
            return of_proxy(link.status, link.address, link.variable)
    for kind, cause in _CAUSES:
        for link in chain:
            if isinstance(link, kind):
                detail = (getattr(link, "verify_message", "") or "").rstrip(".")
                text = f"{cause.text}: {detail}" if detail else cause.text
                other = _OTHER_NAMES.get(getattr(link, "verify_code", 0), "")
                cure = _of_clock(link) or other or cause.cure
                if isinstance(exc, ProxyUnreachable):
                    text = f"the proxy {exc.address}: {text}"
                    cure = cure.replace("{url}", exc.variable)
                return Cause(text, cure, lasting=cause.lasting, down=cause.down)
    return Cause("the connection failed")


def _of_clock(link: BaseException) -> str:
    """Return what to do about a certificate that is not of this time, "" if it is.

    A machine without a battery for its clock begins in another year.
    """
    code = getattr(link, "verify_code", 0)
    if code not in (NOT_YET_VALID, HAS_EXPIRED):
        return ""
    now = time.strftime("it says %Y-%m-%d %H:%M UTC", time.gmtime())
    if code == NOT_YET_VALID:
        return f"set this machine's clock, {now}"
    old = "if that is right, the server's certificate is too old"
    return f"look at this machine's clock, {now}; {old}"


def of_proxy(status: int, address: str, variable: str) -> Cause:
    """Return what it means that a proxy itself answers with `status`."""
    says, cure = _OF_PROXIES.get(status, ("refused", "check {variable} and NO_PROXY"))
    text = f"the proxy {address} {says} (HTTP {status})"
    cure = cure.format(variable=variable)
    return Cause(text, cure, lasting=status < 500, down=True)


# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH: another authority
# would change nothing.
_OTHER_NAMES = {
    62: "check the host in {url}: the server's certificate is for another name",
    64: "check the host in {url}: the server's certificate is for another address",
}
# What speaks TLS hangs up on what does not.
_OTHER_SCHEME = "check the port in {url}, and whether it wants https"
_NOT_REACHED = (
    "did not reach the server behind it",
    "look into the proxy's log, or check {variable} and NO_PROXY",
)
#: What the answers of a proxy mean, and what to do.
_OF_PROXIES = {
    403: (
        "does not let this through",
        "let the proxy allow it, or check {variable} and NO_PROXY",
    ),
    407: (
        "wants a user and a password",
        "set {variable} to http://user:password@host:port, or check those in it",
    ),
    502: _NOT_REACHED,
    503: _NOT_REACHED,
    504: _NOT_REACHED,
}
_CAUSES: tuple[tuple[type[BaseException], Cause], ...] = (
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
    (
        RemoteDisconnected,
        Cause("the connection was closed without an answer", _OTHER_SCHEME),
    ),
    (ConnectionResetError, Cause("connection reset", _OTHER_SCHEME)),
    (IncompleteRead, Cause("the answer was cut short")),
    (
        HTTPException,
        Cause("answered in broken HTTP", "check the host and port in {url}"),
    ),
)
