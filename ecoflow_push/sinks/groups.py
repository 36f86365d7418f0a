"""Gateway: the groups of a Pushgateway, each replaced or deleted as a whole."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_client import generate_latest

from ecoflow_push.config.kinds import is_made_of
from ecoflow_push.errors import WriteError
from ecoflow_push.net.reply import MOST_BYTES
from ecoflow_push.net.retry import Reply, Request
from ecoflow_push.sinks.server import Connection

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.net.deadline import Deadline

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def body_of(registry: CollectorRegistry) -> bytes:
    """Return what makes `registry` the whole content of a group.

    gzip also guards against a connection cut at the end of a line, which old gateways
    store as a whole push (protocol/pushgateway.md#compression).
    """
    return gzip.compress(generate_latest(registry), compresslevel=1, mtime=0)


class Gateway:
    """Replaces (PUT) and deletes groups; never adds to one (POST).

    PUT alone leaves nothing behind of what is no longer reported. No client of
    prometheus_client does it for us: they know no total deadline, follow redirects
    and throw the gateway's explanation away (protocol/pushgateway.md#clients).

    A group is a mapping of labels with `job` first.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._groups: list[dict[str, str]] | None = None

    def push(
        self,
        body: bytes,
        group: Mapping[str, str],
        deadline: Deadline,
        tries: int | None = None,
    ) -> None:
        """Make `body` the whole content of the group.

        `tries` overrides how often. Raises WriteError; the group is then what it was,
        as far as the gateway tells.
        """
        headers = {"Content-Type": CONTENT_TYPE, "Content-Encoding": "gzip"}
        request = Request("PUT", path_of(group), headers, body)
        self._send(request, deadline, tries)

    def delete(
        self, group: Mapping[str, str], deadline: Deadline, tries: int | None = None
    ) -> None:
        """Remove the group; one that is not there is fine. Raises as `push` does."""
        self._send(Request("DELETE", path_of(group), {}), deadline, tries)

    def has_group(self, group: Mapping[str, str], deadline: Deadline) -> bool:
        """Return whether the gateway holds the group. Raises as `push` does."""
        if self._groups is None:
            reply = self._send(Request("GET", "/api/v1/metrics", {}), deadline)
            try:
                found = json.loads(reply.content(MOST_BYTES))["data"]
                self._groups = [dict(each["labels"]) for each in found]
            except (ValueError, LookupError, TypeError, RecursionError) as exc:
                text = f"{self._connection.what}: does not list its groups"
                cure = "check that GET reaches the same gateway as PUT"
                raise WriteError(text, cure) from exc
        return dict(group) in self._groups

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of the gateway's, in seconds."""
        return self._connection.clock_offset()

    def close(self) -> None:
        """Close the kept connection."""
        self._connection.close()

    def _send(
        self, request: Request, deadline: Deadline, tries: int | None = None
    ) -> Reply:
        connection = self._connection
        whole = request._replace(
            url=connection.url + request.url,
            headers={**connection.headers, **request.headers},
        )
        reply = connection.send(lambda: whole, deadline, tries)
        if reply.status not in (200, 202, 204):
            cure = "check the address and prefix in PUSHGATEWAY_URL"
            raise connection.fault(reply, address_cure=cure)
        if reply.is_page():
            raise connection.page("answered with")
        return reply


def path_of(group: Mapping[str, str]) -> str:
    """Return the URL path of a group: /metrics/job/ecoflow/device/R331..."""
    path = "/metrics"
    for name, value in group.items():
        if is_made_of(value, "_-"):
            path += f"/{name}/{value}"
        else:
            # Slashes, dots and the like: legal in this form for every value.
            encoded = base64.urlsafe_b64encode(value.encode()).decode()
            path += f"/{name}@base64/{encoded}"
    return path
