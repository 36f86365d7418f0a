"""RequestsExchange: over requests, for what is rare and for ways through proxies."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    NameResolutionError,
    NewConnectionError,
)

from ecoflow_push.errors import Unreachable
from ecoflow_push.limits import links
from ecoflow_push.net.explain import ProxyRefused, ProxyUnreachable, WasClosed
from ecoflow_push.net.reply import OWN_HEADERS, Reply, Request, cut_short, read_body
from ecoflow_push.net.sockets import CONNECT_SECONDS, WithoutHints, dial
from ecoflow_push.net.trust import Trust


class RequestsExchange:
    """Kept-alive connections to one server."""

    def __init__(
        self,
        url: str,
        *,
        trust: Trust = Trust(),  # noqa: B008 - immutable
        proxy: str | None = None,
        proxy_variable: str = "",
        lanes: int = 1,
        needs_body: bool = True,
    ) -> None:
        """Prepare for the server at `url`; nothing is contacted.

        `proxy_variable` is where the proxy's address stands. `lanes` is how many
        threads may send at once. Without `needs_body` the status is an answer, whatever
        becomes of the rest. Raises SettingsError when a certificate or key file cannot
        be used.
        """
        self._needs_body = needs_body
        self._is_closed = False
        self._scheme = url.partition(":")[0]
        self._proxy = proxy
        self._proxy_variable = proxy_variable
        # One context for all connections: reading a trust store is the dear part.
        context = trust.context() if url.startswith("https:") else None
        # The adapter alone: a session would add cookies, redirects and .netrc.
        self._adapter = _Adapter(context, lanes)

    def __call__(self, request: Request, seconds: float) -> Reply:
        """Return the complete answer (see Exchange)."""
        timeout = urllib3.Timeout(connect=min(seconds, CONNECT_SECONDS), total=seconds)
        prepared = requests.PreparedRequest()
        prepared.prepare(
            request.method,
            request.url,
            headers={**OWN_HEADERS, **request.headers},
            data=request.body,
        )
        if self._is_closed:
            raise ConnectionAbortedError("closed")
        try:
            response = self._adapter.send(
                prepared,
                stream=True,
                timeout=timeout,  # type: ignore[arg-type]  # requests takes urllib3's
                proxies={self._scheme: self._proxy} if self._proxy else {},
            )
            with response:
                body = self._read(response, request.most_bytes)
        except requests.RequestException as exc:
            if any(isinstance(link, WasClosed) for link in links(exc)):
                raise WasClosed from exc
            if not isinstance(exc, requests.exceptions.ProxyError):
                raise
            raise self._of_the_proxy(exc) from exc
        except urllib3.exceptions.HTTPError as exc:
            raise requests.ConnectionError(exc) from exc
        return Reply(response.status_code, response.headers, body)

    def dial_ahead(self, lanes: int, seconds: float) -> None:
        """Do nothing: the way is not straight, or rarely gone."""

    def close(self) -> None:
        """Close the kept connections, for good: whoever still sends is too late."""
        self._is_closed = True
        pools = self._adapter.poolmanager.pools
        for key in pools.keys():  # noqa: SIM118 - it is no mapping that can be walked
            # A close that fails has closed all the same, and urllib3 would print it.
            with suppress(OSError):
                pools[key].close()
        self._adapter.close()

    def _read(self, response: requests.Response, most_bytes: int) -> bytes:
        def read(size: int) -> bytes:
            return bytes(response.raw.read(size, decode_content=False))

        chunks: list[bytes] = []
        try:
            read_body(read, chunks, most_bytes)
        except (Unreachable, OSError, urllib3.exceptions.HTTPError) as exc:
            if self._needs_body:
                raise
            chunks.append(cut_short(exc))
        return b"".join(chunks)

    def _of_the_proxy(self, exc: requests.exceptions.ProxyError) -> OSError:
        """Return the error without the library's idea of whose fault it is.

        Of a tunnel whose far end hangs up it believes that too.
        """
        address = (self._proxy or "").partition("://")[2].rpartition("@")[2]
        address, variable = address.rstrip("/"), self._proxy_variable
        for link in links(exc):
            if isinstance(link, ProxyRefused):
                link.address, link.variable = address, variable
                return link
        kinds = (
            ProxyUnreachable,
            urllib3.exceptions.NewConnectionError,
            urllib3.exceptions.ConnectTimeoutError,
            urllib3.exceptions.SSLError,
        )
        if any(isinstance(link, kinds) for link in links(exc)):
            return ProxyUnreachable(address, variable)
        return requests.ConnectionError(exc)


class _DeadlineConnection:
    """What urllib3's connections need to hand out sockets that obey a deadline."""

    response_class: type[HTTPResponse] = WithoutHints
    timeout: Any
    sock: Any
    _dns_host: str
    port: int
    #: The socket that was there before the request, None for a new one.
    _kept: Any = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._kept = self.sock
        if self._kept is not None:
            self._kept.has_heard = False
        self._watched(super().request, *args, **kwargs)  # type: ignore[misc]

    def getresponse(self) -> Any:
        return self._watched(super().getresponse)  # type: ignore[misc]

    def _watched(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return work(*args, **kwargs)
        except TimeoutError:
            raise
        except (OSError, HTTPException) as exc:
            if self._kept is not None and not self._kept.has_heard:
                raise WasClosed from exc
            raise

    def _new_conn(self) -> socket.socket:
        # The library's own gives all its time to the first of several addresses.
        try:
            sock = dial(self._dns_host.strip("[]"), self.port, self.timeout)
        except socket.gaierror as exc:
            raise NameResolutionError(self._dns_host, self, exc) from exc  # type: ignore[arg-type]
        except TimeoutError as exc:
            raise ConnectTimeoutError(self, "no connection in time") from exc
        except OSError as exc:
            raise NewConnectionError(self, "no connection") from exc  # type: ignore[arg-type]
        sock.settimeout(self.timeout)
        return sock


class _HTTPConnection(_DeadlineConnection, HTTPConnection):
    pass


class _HTTPSConnection(_DeadlineConnection, HTTPSConnection):
    def _tunnel(self) -> None:
        """Open the way through a proxy.

        Raises ProxyRefused with its answer, which the library's own error has among
        its words alone, or ProxyUnreachable where none came.
        """
        answers: list[WithoutHints] = []

        def listen(*args: Any, **kwargs: Any) -> HTTPResponse:
            answers.append(WithoutHints(*args, **kwargs))
            return answers[-1]

        self.response_class = listen  # type: ignore[assignment]  # it is only called
        try:
            super()._tunnel()
        except (OSError, HTTPException) as exc:
            status = answers[-1].heard if answers else 0
            if not status:
                # Else the library takes the proxy for reached, and this for the host's.
                self.close()
                raise ProxyUnreachable("", "") from exc
            if not 200 <= status < 300:
                raise ProxyRefused(status) from exc
            raise
        finally:
            del self.response_class


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _Adapter(HTTPAdapter):
    """requests' adapter over those connections, with one TLS context for all."""

    def __init__(self, context: Any, lanes: int) -> None:
        self._context = context
        super().__init__(pool_connections=2, pool_maxsize=lanes, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools; requests calls this once."""
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)
        self._obey(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Return the pools that go through `proxy`."""
        if proxy.startswith("https:"):
            kwargs["proxy_ssl_context"] = Trust().context()
        manager = super().proxy_manager_for(proxy, ssl_context=self._context, **kwargs)
        return self._obey(manager)

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Leave the trust store to our context, or it is read per connection."""

    def _obey(self, manager: Any) -> Any:
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return manager
