"""What the sinks that speak HTTP share: their exchange, over http.client, and words.

requests would double the imports of a run that reads over MQTT, and prometheus_client
has http.client with it already.
"""

from __future__ import annotations

import base64
import http.client
import re
import ssl
from collections.abc import Mapping
from contextlib import ExitStack
from urllib.parse import SplitResult, unquote, urlsplit

from ecoflow_push.errors import Unreachable
from ecoflow_push.logs import redact
from ecoflow_push.net.retry import OWN_HEADERS, Reply, Request, proxy_for, read_body
from ecoflow_push.net.sockets import dial, tls_context

MOST_BYTES = 8 * 1024 * 1024


class PlainExchange:
    """One kept-alive connection to one server, for one thread."""

    def __init__(
        self,
        url: str,
        *,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        proxies: Mapping[str, str] | None = None,
        needs_body: bool = True,
    ) -> None:
        """Prepare for the server at `url`; nothing is contacted.

        Without `needs_body` the status is an answer, whatever becomes of the rest.
        Raises SettingsError when a certificate or key file cannot be used.
        """
        self._needs_body = needs_body
        self._is_closed = False
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        context = tls_context(ca_file, cert_file, key_file) if tls else None
        proxy = proxy_for(url, proxies or {})
        self._proxy_headers: dict[str, str] = {}
        self._through_proxy = proxy is not None and not tls
        if proxy is None:
            self._connection = _Connection(parts, context)
            return
        proxy_parts = urlsplit(proxy)
        if proxy_parts.username is not None:
            self._proxy_headers["Proxy-Authorization"] = _basic(
                unquote(proxy_parts.username), unquote(proxy_parts.password or "")
            )
        proxy_tls = tls_context(None) if proxy_parts.scheme == "https" else None
        self._connection = _Connection(proxy_parts, context, proxy_tls)
        if tls:
            self._connection.set_tunnel(
                parts.hostname or "", parts.port or 443, self._proxy_headers
            )

    def __call__(self, request: Request, seconds: float) -> Reply:
        """Return the complete answer (see Exchange)."""
        parts = urlsplit(request.url)
        headers = {**OWN_HEADERS, **request.headers}
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        if self._through_proxy:
            target = request.url
            headers |= {**self._proxy_headers, "Host": parts.netloc}
        connection = self._connection
        if self._is_closed:
            raise ConnectionAbortedError("closed")
        with ExitStack() as undo:
            undo.callback(connection.close)
            connection.allow(seconds)
            connection.request(request.method, target, request.body, headers)
            response = connection.getresponse()
            body = self._read(response)
            undo.pop_all()
        return Reply(response.status, response.headers, body)

    def close(self) -> None:
        """Close the kept connection, for good: whoever still sends is too late."""
        self._is_closed = True
        self._connection.close()

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return read_body(response.headers, response.read, MOST_BYTES)
        except (Unreachable, OSError, http.client.HTTPException, ValueError):
            if self._needs_body:
                raise
            self._connection.close()
            return b""


class _Connection(http.client.HTTPConnection):
    """A connection whose socket has a budget for the whole exchange."""

    def __init__(
        self,
        server: SplitResult,
        context: ssl.SSLContext | None,
        proxy_context: ssl.SSLContext | None = None,
    ) -> None:
        port = server.port or (443 if server.scheme == "https" else 80)
        super().__init__(server.hostname or "", port)
        self._context = context
        self._proxy_context = proxy_context
        self._seconds = 0.0

    def allow(self, seconds: float) -> None:
        """Give the next exchange this much time."""
        self._seconds = seconds
        if self.sock is not None:
            self.sock.settimeout(seconds)

    def connect(self) -> None:
        """Dial, through a tunnel if there is one, and speak TLS if it is asked for."""
        self.sock = dial(self.host, self.port, self._seconds)
        name = self.host
        if self._proxy_context:
            self.sock = self._proxy_context.wrap_socket(self.sock, server_hostname=name)
        tunnel = getattr(self, "_tunnel_host", None)
        if tunnel:
            self._tunnel()  # type: ignore[attr-defined]  # as http.client's own connect
            name = tunnel
        if self._context:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=name)


def authorization(
    username: str | None, password: str | None, bearer_token: str | None
) -> dict[str, str]:
    """Return the header that a server wants to see, none if it wants none."""
    if bearer_token is not None:
        return {"Authorization": f"Bearer {bearer_token}"}
    if username is not None:
        return {"Authorization": _basic(username, password or "")}
    return {}


def words(reply: Reply) -> str:
    """Return a server's explanation as one short line."""
    # Masked before it is cut: half a secret is one too.
    text = " ".join(str(redact(reply.body[:8000].decode("utf-8", "replace"))).split())
    return re.sub(r"[^ -~]", "?", text)[:200] or "no explanation"


def explained(exc: Unreachable, settings: str) -> str:
    """Return why a server was not reached, with the variable that may cure it.

    `settings` is what the names of its variables begin with.
    """
    if "certificate" in str(exc):
        return f"{exc}: set {settings}_CA_FILE if it is your own authority's"
    return str(exc)


def is_web_page(reply: Reply) -> bool:
    """Return whether the answer comes from something else, a login portal perhaps."""
    return b"<html" in reply.body.lower()


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
