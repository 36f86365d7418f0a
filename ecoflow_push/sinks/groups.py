"""Gateway: the groups of a Pushgateway, each replaced or deleted as a whole."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ecoflow_push.config.kinds import is_made_of
from ecoflow_push.errors import WriteError
from ecoflow_push.net.retry import Reply, Request
from ecoflow_push.sinks.server import Connection

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.net.deadline import Deadline

# It lists its groups with all that they hold: 60 kB of a device.
MOST_BYTES = 8 << 20
# What an outline of JSON is made of: texts, and what opens and closes.
# Nothing is tried again in it, or it would remember each letter.
MARKS = rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]]'
# {"data":[{"labels":{
GROUP_LEVEL = 4
MOST_GROUPS = 20_000
LONGEST_GROUP = 16_384
DEEPEST = 32
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def body_of(registry: CollectorRegistry) -> bytes:
    """Return what makes `registry` the whole content of a group.

    gzip also guards against a connection cut at the end of a line, which old gateways
    store as a whole push (protocol/pushgateway.md#compression).
    """
    # Imported while the first request is on its way.
    from prometheus_client import generate_latest

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
            request = Request("GET", "/api/v1/metrics", {}, most_bytes=MOST_BYTES)
            reply = self._send(request, deadline)
            try:
                self._groups = list(groups_in(reply.content(MOST_BYTES)))
            except (ValueError, RecursionError) as exc:
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
        whole = Request(
            *(request.method, connection.url + request.url),
            *({**connection.headers, **request.headers}, request.body),
            most_bytes=request.most_bytes,
        )
        reply = connection.send(lambda: whole, deadline, tries)
        if reply.status not in (200, 202, 204):
            cure = "check the address and prefix in PUSHGATEWAY_URL"
            raise connection.fault(reply, address_cure=cure)
        if reply.is_page():
            raise connection.page("answered with")
        return reply


def groups_in(body: bytes) -> Iterator[dict[str, str]]:
    """Yield the labels of each group in a gateway's list; raises ValueError.

    Nothing else becomes an object: the list holds all metrics of all groups, and as
    objects they would be many times as large.
    """
    path: list[bytes] = []
    before, begin, count = b"", 0, 0
    is_list = False
    for mark in re.finditer(MARKS, body, re.DOTALL):
        found = mark[0]
        if found in (b"{", b"["):
            path.append(before)
            if len(path) > DEEPEST:
                raise ValueError("deeper than any list of groups")
            is_list |= len(path) == 2 and before == b'"data"'
            if len(path) == GROUP_LEVEL and path[1] == b'"data"':
                begin = mark.start() if before == b'"labels"' else 0
        elif found in (b"}", b"]"):
            if begin and len(path) == GROUP_LEVEL:
                count += 1
                yield _labels(body[begin : mark.end()], count)
                begin = 0
            if not path:
                raise ValueError("not JSON")
            path.pop()
        before = found
    if path or not is_list:
        raise ValueError("no list of groups")


def _labels(text: bytes, count: int) -> dict[str, str]:
    if count > MOST_GROUPS or len(text) > LONGEST_GROUP:
        raise ValueError("more than any gateway has")
    labels = json.loads(text)
    is_map = isinstance(labels, dict)
    if not (is_map and all(isinstance(value, str) for value in labels.values())):
        raise ValueError("no labels")
    return dict(labels)


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
