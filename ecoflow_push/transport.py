"""HTTP under one deadline: sockets that obey it, retries inside it, bounded bodies.

A timeout in requests, urllib3 and http.client bounds one socket call; a server that
drips a byte a second can hold such a client for ever. Here the timeout that urllib3
gives to a socket is its budget for everything that follows, so the time of an
exchange is bounded. Name resolution alone is not: its caller has to be abandoned.
"""

from __future__ import annotations

import email.utils
import logging
import os
import random
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from http.client import RemoteDisconnected
from typing import TYPE_CHECKING, Any, NamedTuple

import certifi
import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import should_bypass_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection

from ecoflow_push import __version__
from ecoflow_push.errors import OutOfTime, SettingsError, Unreachable

if TYPE_CHECKING:
    from ecoflow_push.deadline import Deadline

log = logging.getLogger(__name__)

RETRIED_STATUSES = frozenset((408, 425, 429, 500, 502, 503, 504))
FIRST_WAIT_SECONDS = 0.5
# Against one dead address among several: the next one still gets its chance.
CONNECT_SECONDS = 8.0
CHUNK_BYTES = 64 * 1024


class Request(NamedTuple):
    """One request, built anew for each try."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None


class Reply(NamedTuple):
    """A complete answer; `headers` are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def retry_after(self) -> float | None:
        """Return the seconds that the server asked us to wait, None if it did not."""
        text = self.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"\d{1,9}", text):
            return float(text)
        try:
            return max(
                0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time()
            )
        except (ValueError, OverflowError):
            return None

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of the server's Date, in seconds."""
        try:
            date = email.utils.parsedate_to_datetime(self.headers.get("Date", ""))
            return time.time() - date.timestamp()
        except (ValueError, OverflowError):
            return None


class Transport:
    """A kept-alive session that ends every exchange within its deadline."""

    def __init__(
        self,
        *,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        proxies: Mapping[str, str] | None = None,
        attempts: int = 5,
        longest_wait: float = 30.0,
        longest_try: float = 15.0,
        most_bytes: int = 8 * 1024 * 1024,
        lanes: int = 1,
    ) -> None:
        """Prepare the session; nothing is contacted.

        `attempts` is the most tries of one request, `longest_wait` the longest pause
        between two of them, `longest_try` the longest single try (seconds). `lanes`
        is how many threads may send at once.

        Raises SettingsError when a certificate or key file cannot be used.
        """
        self._attempts = attempts
        self._longest_wait = longest_wait
        self._longest_try = longest_try
        self._most_bytes = most_bytes
        self._proxies = dict(proxies or {})
        self._session = requests.Session()
        # Else a .netrc entry would replace our own Authorization header.
        self._session.trust_env = False
        self._session.headers.clear()
        self._session.headers["User-Agent"] = f"ecoflow-push/{__version__}"
        # A compressed body could inflate to anything; ours are small.
        self._session.headers["Accept-Encoding"] = "identity"
        self._tls = (ca_file, cert_file, key_file)
        self._session.mount("http://", _Adapter(None, lanes))
        self._lanes = lanes
        self._has_tls = False

    def use_tls(self) -> None:
        """Read the trust store; called once, before the first https request.

        Raises SettingsError when a certificate or key file cannot be used.
        """
        if not self._has_tls:
            context = tls_context(*self._tls)
            self._session.mount("https://", _Adapter(context, self._lanes))
            self._has_tls = True

    def send(self, build: Callable[[], Request], deadline: Deadline) -> Reply:
        """Return the answer to what `build` makes, after retries where they help.

        Connection errors and the statuses 408, 425, 429, 500, 502, 503 and 504 are
        tried again with full jitter, honouring Retry-After. An answer whose
        Retry-After is longer than we may wait is returned as it is.

        Raises OutOfTime when the deadline passed first, else Unreachable.
        """
        attempt = 0
        while True:
            attempt += 1
            wait = random.uniform(0.5, 1.0) * min(  # noqa: S311 - jitter, no secret
                self._longest_wait, FIRST_WAIT_SECONDS * 2 ** (attempt - 1)
            )
            try:
                reply = self._try_once(build(), deadline)
            except OutOfTime:
                raise
            except Unreachable as exc:
                if exc.lasting or attempt >= self._attempts:
                    raise
                if wait >= deadline.left():
                    raise OutOfTime(str(exc)) from exc
                log.debug("try %d: %s; again in %.1f s", attempt, exc, wait)
            else:
                if reply.status not in RETRIED_STATUSES or attempt >= self._attempts:
                    return reply
                asked = reply.retry_after()
                if asked is not None and asked > self._longest_wait:
                    return reply
                wait = wait if asked is None else asked
                if wait >= deadline.left():
                    return reply
                log.debug(
                    "try %d: HTTP %d; again in %.1f s", attempt, reply.status, wait
                )
            time.sleep(wait)

    def close(self) -> None:
        """Close the kept connections."""
        self._session.close()

    def _try_once(self, request: Request, deadline: Deadline) -> Reply:
        budget = min(deadline.left(), self._longest_try)
        if budget <= 0:
            raise OutOfTime("no time left")
        timeout = urllib3.Timeout(connect=min(budget, CONNECT_SECONDS), total=budget)
        try:
            response = self._session.request(
                request.method,
                request.url,
                headers=dict(request.headers),
                data=request.body,
                timeout=timeout,  # type: ignore[arg-type]  # requests takes urllib3's
                proxies=self._proxies_for(request.url),
                allow_redirects=False,
                stream=True,
            )
            with response:
                body = self._read(response)
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
        ) as exc:
            reason, lasting = explain(exc)
            if deadline.left() <= 0:
                raise OutOfTime(reason) from exc
            raise Unreachable(reason, lasting=lasting) from exc
        except (ValueError, LookupError) as exc:
            # http.client lets through what a hostile status or header line breaks.
            raise Unreachable("answered in broken HTTP") from exc
        return Reply(response.status_code, response.headers, body)

    def _read(self, response: requests.Response) -> bytes:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Unreachable("answered with a compressed body", lasting=True)
        chunks: list[bytes] = []
        size = 0
        while chunk := response.raw.read(CHUNK_BYTES, decode_content=False):
            chunks.append(chunk)
            size += len(chunk)
            if size > self._most_bytes:
                raise Unreachable(
                    f"answered with more than {self._most_bytes >> 20} MiB",
                    lasting=True,
                )
        return b"".join(chunks)

    def _proxies_for(self, url: str) -> dict[str, str]:
        proxies = {k: v for k, v in self._proxies.items() if k in ("http", "https")}
        if proxies and should_bypass_proxies(url, no_proxy=self._proxies.get("no", "")):
            return {}
        return proxies


def tls_context(
    ca_file: str | None, cert_file: str | None = None, key_file: str | None = None
) -> ssl.SSLContext:
    """Return a verifying client context whose sockets obey their deadline.

    Raises SettingsError when a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _DeadlineSSLSocket
    try:
        if ca_file:
            context.load_verify_locations(cafile=ca_file)
        else:
            _trust_system(context)
    except (OSError, ssl.SSLError) as exc:
        raise SettingsError(
            f"settings: {ca_file}: not a CA bundle in PEM form"
        ) from exc
    if cert_file:
        try:
            # An encrypted key must fail, not ask for its passphrase at a terminal.
            context.load_cert_chain(cert_file, key_file, password=b"")
        except (OSError, ssl.SSLError, ValueError) as exc:
            raise SettingsError(
                f"settings: {cert_file}: not a certificate with its unencrypted key"
            ) from exc
    return context


def _trust_system(context: ssl.SSLContext) -> None:
    """Trust what the system trusts, as cheaply as it allows.

    A hashed directory is read certificate by certificate when one is needed; parsing
    a whole bundle costs more than all the rest of a run's TLS.
    """
    paths = ssl.get_default_verify_paths()
    folder = paths.openssl_capath
    if os.path.isdir(folder):
        with os.scandir(folder) as entries:
            if any(re.fullmatch(r"[0-9a-f]{8}\.\d+", entry.name) for entry in entries):
                context.load_verify_locations(capath=folder)
                return
    bundle = paths.openssl_cafile
    context.load_verify_locations(
        cafile=bundle if os.path.isfile(bundle) else certifi.where()
    )


def explain(exc: BaseException) -> tuple[str, bool]:
    """Return a failure's root cause in plain words, and whether it will last.

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
    for kind, words, lasting in _CAUSES:
        for link in chain:
            if isinstance(link, kind):
                detail = getattr(link, "verify_message", "") or ""
                return words + (f": {detail}" if detail else ""), lasting
    return "the connection failed", False


_CAUSES: tuple[tuple[type[BaseException], str, bool], ...] = (
    (ssl.SSLCertVerificationError, "TLS: its certificate was refused", True),
    (socket.gaierror, "its name could not be resolved", False),
    (ConnectionRefusedError, "connection refused", False),
    (TimeoutError, "no complete answer in time", False),
    (urllib3.exceptions.TimeoutError, "no complete answer in time", False),
    (ssl.SSLEOFError, "TLS: the connection was closed", False),
    (ssl.SSLError, "TLS: the handshake failed", False),
    (RemoteDisconnected, "the connection was closed without an answer", False),
    (ConnectionResetError, "connection reset", False),
    (urllib3.exceptions.ProxyError, "the proxy failed", False),
    (urllib3.exceptions.IncompleteRead, "the answer was cut short", False),
    (urllib3.exceptions.InvalidChunkLength, "the answer was cut short", False),
    (urllib3.exceptions.ProtocolError, "answered in broken HTTP", False),
    (requests.exceptions.InvalidURL, "its address is not usable", True),
)


class _Rearmed:
    """A socket whose timeout is the budget of all that follows, not of one call."""

    _until: float | None = None

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
        return super().recv_into(*args, **kwargs)  # type: ignore[misc, no-any-return]

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


class _DeadlineSocket(_Rearmed, socket.socket):
    pass


class _DeadlineSSLSocket(_Rearmed, ssl.SSLSocket):
    pass


class _DeadlineConnection:
    """What urllib3's connections need to hand out sockets that obey a deadline."""

    timeout: Any

    def _new_conn(self) -> socket.socket:
        plain: socket.socket = super()._new_conn()  # type: ignore[misc]
        obedient = _DeadlineSocket(
            plain.family, plain.type, plain.proto, fileno=plain.detach()
        )
        obedient.settimeout(self.timeout)
        return obedient


class _HTTPConnection(_DeadlineConnection, HTTPConnection):
    pass


class _HTTPSConnection(_DeadlineConnection, HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _Adapter(HTTPAdapter):
    """requests' adapter over those connections, with one TLS context for all."""

    def __init__(self, context: ssl.SSLContext | None, lanes: int) -> None:
        self._context = context
        super().__init__(pool_connections=2, pool_maxsize=lanes, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)
        self._obey(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, ssl_context=self._context, **kwargs)
        return self._obey(manager)

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Leave the trust store to our context, or it is read per connection."""

    def _obey(self, manager: Any) -> Any:
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return manager
