"""PushgatewaySink: one registry replaces one group of a Pushgateway."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_client import generate_latest

from ecoflow_push.errors import (
    SinkDown,
    SinkError,
    SinkRedirected,
    SinkRejected,
    SinkUnauthorized,
    Unreachable,
)
from ecoflow_push.net.plain import (
    PlainExchange,
    authorization,
    explained,
    is_web_page,
    words,
)
from ecoflow_push.net.retry import Reply, Request, Transport

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.net.deadline import Deadline

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class PushgatewaySink:
    """Replaces (PUT) and deletes groups; never adds to one (POST).

    PUT alone leaves nothing behind of what is no longer reported. No client of
    prometheus_client does it for us: they know no total deadline, follow redirects
    and throw the gateway's explanation away (push-protocols.md 2).
    """

    def __init__(
        self,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        bearer_token: str | None = None,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        proxies: Mapping[str, str] | None = None,
        attempts: int,
        longest_wait: float,
    ) -> None:
        """Store what is needed; nothing is contacted.

        Raises SettingsError when a certificate or key file cannot be used.
        """
        self._url = url
        self._what = f"pushgateway {url.partition('://')[2].partition('/')[0]}"
        self._groups: list[dict[str, str]] | None = None
        self._headers = authorization(username, password, bearer_token)
        self._transport = Transport(
            PlainExchange(
                url,
                ca_file=ca_file,
                cert_file=cert_file,
                key_file=key_file,
                proxies=proxies,
            ),
            attempts=attempts,
            longest_wait=longest_wait,
        )

    def push(
        self,
        registry: CollectorRegistry,
        group: Mapping[str, str],
        deadline: Deadline,
        tries: int | None = None,
    ) -> None:
        """Make `registry` the whole content of the group; `group` has `job` first.

        `tries` overrides how often. Raises SinkError or one of its kinds; the group is
        then what it was, as far as the gateway tells.
        """
        # gzip also guards against a connection cut at the end of a line, which old
        # gateways store as a whole push (push-protocols.md 1.3).
        body = gzip.compress(generate_latest(registry), compresslevel=1, mtime=0)
        headers = {"Content-Type": CONTENT_TYPE, "Content-Encoding": "gzip"}
        url = self._url + _path(group)
        request = Request("PUT", url, {**self._headers, **headers}, body)
        self._send(request, deadline, tries)

    def delete(
        self, group: Mapping[str, str], deadline: Deadline, tries: int | None = None
    ) -> None:
        """Remove the group; one that is not there is fine. Raises as `push` does."""
        request = Request("DELETE", self._url + _path(group), self._headers)
        self._send(request, deadline, tries)

    def has_group(self, group: Mapping[str, str], deadline: Deadline) -> bool:
        """Return whether the gateway holds the group. Raises as `push` does."""
        if self._groups is None:
            request = Request("GET", f"{self._url}/api/v1/metrics", self._headers)
            reply = self._send(request, deadline, None)
            try:
                found = json.loads(reply.body)["data"]
                self._groups = [dict(each["labels"]) for each in found]
            except (ValueError, LookupError, TypeError, RecursionError) as exc:
                raise SinkError(f"{self._what}: does not list its groups") from exc
        return dict(group) in self._groups

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of the gateway's, in seconds."""
        return self._transport.clock_offset()

    def close(self) -> None:
        """Close the kept connection."""
        self._transport.close()

    def _send(self, request: Request, deadline: Deadline, tries: int | None) -> Reply:
        what = self._what
        try:
            reply = self._transport.send(lambda: request, deadline, tries)
        except Unreachable as exc:
            kind = SinkDown if exc.down else SinkError
            raise kind(f"{what}: {explained(exc, 'PUSHGATEWAY')}") from exc
        if reply.status in (200, 202, 204):
            if is_web_page(reply):
                raise SinkError(f"{what}: answered with a web page (a login portal?)")
            return reply
        if reply.status in (401, 403):
            raise SinkUnauthorized(
                f"{what}: HTTP {reply.status}, credentials refused: check"
                " PUSHGATEWAY_USERNAME and _PASSWORD, or _BEARER_TOKEN"
            )
        if 300 <= reply.status < 400:
            raise SinkRedirected(
                f"{what}: HTTP {reply.status}, a redirect, not followed: check the"
                " address and prefix in PUSHGATEWAY_URL"
            )
        if reply.status >= 500 or reply.status in (408, 425, 429):
            raise SinkError(f"{what}: HTTP {reply.status}: {words(reply)}")
        raise SinkRejected(f"{what}: HTTP {reply.status}: {words(reply)}")


def _path(group: Mapping[str, str]) -> str:
    """Return the URL path of a group: /metrics/job/ecoflow/device/R331..."""
    path = "/metrics"
    for name, value in group.items():
        if value.isascii() and value.replace("_", "").replace("-", "").isalnum():
            path += f"/{name}/{value}"
        else:
            # Slashes, dots and the like: legal in this form for every value.
            encoded = base64.urlsafe_b64encode(value.encode()).decode()
            path += f"/{name}@base64/{encoded}"
    return path
