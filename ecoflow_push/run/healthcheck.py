"""Healthcheck: tells a dead man's switch that a run began, and how it ended.

The addresses are those of healthchecks.io and its kin: URL/start, URL, URL/fail. It
never fails a run; of an address that does not work the log has a line.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from ecoflow_push.errors import ExitStatus, HostLimit, Unreachable
from ecoflow_push.logs import recent
from ecoflow_push.net.deadline import Deadline, limit_of, start, within
from ecoflow_push.net.exchange import authorization, open_exchange
from ecoflow_push.net.retry import Request, Transport

if TYPE_CHECKING:
    from threading import Thread

    from ecoflow_push.config.settings import Settings

log = logging.getLogger(__name__)

MOST_SECONDS = 5.0
# The services keep the first 10 to 100 kB.
MOST_BYTES = 10_000


class Healthcheck:
    """The pings of one run."""

    def __init__(
        self, url: str, proxies: Mapping[str, str], *, waits: bool = True
    ) -> None:
        """Store what is needed; nothing is contacted.

        Without `waits` the last ping goes on after the run, as it can in a process that
        stays: the next beat is worth more.
        """
        parts = urlsplit(url)
        netloc = parts.netloc.rpartition("@")[2]
        self._url = parts._replace(netloc=netloc, path=quote(parts.path, safe="/%"))
        self._headers = {
            "Content-Type": "text/plain",
            **authorization(
                None if parts.username is None else unquote(parts.username),
                unquote(parts.password or ""),
                None,
            ),
        }
        self._proxies = proxies
        self._waits = waits
        self._starting: Thread | None = None

    def start(self) -> None:
        """Say that the run began, without waiting for the answer."""
        ping = partial(self._ping, "/start", "", Deadline(MOST_SECONDS))
        with self._never_failing("/start"):
            self._starting = start(ping)

    def end(self, status: ExitStatus, deadline: Deadline) -> None:
        """Say how the run ended; a failure with the log's last lines.

        A run without any time left still gets a second for it.
        """
        time_left = Deadline(MOST_SECONDS)
        if self._waits:
            time_left = Deadline(min(MOST_SECONDS, max(1.0, deadline.left())))
        way = "" if status == ExitStatus.OK else "/fail"
        text = f"exit {status:d} {status.name}\n{recent()}"

        def ping() -> None:
            if self._starting:
                self._starting.join(time_left.left() / 2)
            self._ping(way, text, time_left)

        with self._never_failing(way):
            if self._waits:
                within(time_left, ping)
            else:
                start(ping)

    @contextmanager
    def _never_failing(self, way: str) -> Iterator[None]:
        """Let a limit of the host be the ping's loss, and not the run's."""
        try:
            yield
        except Exception as exc:
            if not (limit := limit_of(exc)):
                raise
            log.debug("healthcheck%s: %s", way, limit)

    def _ping(self, way: str, text: str, deadline: Deadline) -> None:
        url = self._url._replace(path=self._url.path.rstrip("/") + way).geturl()
        body = text.encode("utf-8", "replace")[-MOST_BYTES:]
        request = Request("POST", url, self._headers, body)
        transport = Transport(
            open_exchange(url, proxies=self._proxies),
            attempts=2,
            longest_wait=1.0,
            variables=("HEALTHCHECK_URL", "HEALTHCHECK_URL"),
        )
        try:
            reply = transport.send(lambda: request, deadline)
            bad = 300 <= reply.status < 500
            level = logging.WARNING if bad else logging.DEBUG
            log.log(level, "healthcheck%s: HTTP %d", way, reply.status)
        except (Unreachable, HostLimit) as exc:
            log.debug("healthcheck%s: %s", way, exc)
        finally:
            transport.close()


def create_healthcheck(settings: Settings) -> Healthcheck | None:
    """Return the pings of the settings, None if none are wanted."""
    url = settings.healthcheck_url
    if not url:
        return None
    return Healthcheck(url.reveal(), settings.proxies, waits=not settings.stays)
