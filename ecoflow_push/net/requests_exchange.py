"""RequestsExchange: over requests, for what is rare and for ways through proxies."""

from __future__ import annotations

import socket
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from ecoflow_push.errors import Unreachable
from ecoflow_push.net.explain import ProxyRefused
from ecoflow_push.net.retry import MOST_BYTES, OWN_HEADERS, Reply, Request, read_body
from ecoflow_push.net.sockets import CONNECT_SECONDS, obedient
from ecoflow_push.net.trust import Trust


class RequestsExchange:
    """Kept-alive connections to one server."""

    def __init__(
        self,
        url: str,
        *,
        trust: Trust = Trust(),  # noqa: B008 - immutable
        proxy: str | None = None,
        lanes: int = 1,
        needs_body: bool = True,
    ) -> None:
        """Prepare for the server at `url`; nothing is contacted.

        `lanes` is how many threads may send at once. Without `needs_body` the status is
        an answer, whatever becomes of the rest. Raises SettingsError when a certificate
        or key file cannot be used.
        """
        self.proxied = proxy is not None
        self._needs_body = needs_body
        self._is_closed = False
        self._proxies = {url.partition(":")[0]: proxy} if proxy else {}
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
                proxies=self._proxies,
            )
            with response:
                body = self._read(response)
        except requests.exceptions.ProxyError as exc:
            if _is_answered(exc):
                raise ProxyRefused from exc
            raise
        except urllib3.exceptions.HTTPError as exc:
            raise requests.ConnectionError(exc) from exc
        return Reply(response.status_code, response.headers, body)

    def close(self) -> None:
        """Close the kept connections, for good: whoever still sends is too late."""
        self._is_closed = True
        self._adapter.close()

    def _read(self, response: requests.Response) -> bytes:
        def read(size: int) -> bytes:
            return bytes(response.raw.read(size, decode_content=False))

        try:
            return read_body(response.headers, read, MOST_BYTES)
        except (Unreachable, OSError, urllib3.exceptions.HTTPError):
            if self._needs_body:
                raise
            return b""


def _is_answered(exc: requests.exceptions.ProxyError) -> bool:
    """Return whether the proxy itself said no: http.client's error has no number."""
    cause = getattr(exc.args[0] if exc.args else None, "reason", None)
    inner = getattr(cause, "original_error", None)
    return type(inner) is OSError and inner.errno is None


class _DeadlineConnection:
    """What urllib3's connections need to hand out sockets that obey a deadline."""

    timeout: Any

    def _new_conn(self) -> socket.socket:
        plain: socket.socket = super()._new_conn()  # type: ignore[misc]
        return obedient(plain, self.timeout)


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
