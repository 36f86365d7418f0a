"""Healthcheck: tells a dead man's switch that a run began, and how it ended.

The addresses are those of healthchecks.io and its kin: URL/start, URL, URL/fail. It
never fails a run, and says nothing but a line at DEBUG of its own troubles.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ecoflow_push.deadline import Deadline, within
from ecoflow_push.errors import ExitStatus, Unreachable
from ecoflow_push.logs import recent
from ecoflow_push.sinks.http import PlainExchange
from ecoflow_push.transport import Request, Transport

if TYPE_CHECKING:
    from ecoflow_push.settings import Settings

log = logging.getLogger(__name__)

MOST_SECONDS = 5.0
# The services keep the first 10 to 100 kB.
MOST_BYTES = 10_000


class Healthcheck:
    """The pings of one run."""

    def __init__(self, url: str, proxies: Mapping[str, str]) -> None:
        """Store what is needed; nothing is contacted."""
        self._url = url
        self._proxies = proxies
        self._starting: threading.Thread | None = None

    def start(self) -> None:
        """Say that the run began, without waiting for the answer."""
        self._starting = threading.Thread(
            target=self._ping, args=("/start", "", Deadline(MOST_SECONDS)), daemon=True
        )
        self._starting.start()

    def end(self, status: ExitStatus, deadline: Deadline) -> None:
        """Say how the run ended; a failure with the log's last lines.

        A run without any time left still gets a second for it.
        """
        time_left = Deadline(min(MOST_SECONDS, max(1.0, deadline.left())))
        if self._starting:
            self._starting.join(time_left.left() / 2)
        way = "" if status == ExitStatus.OK else "/fail"
        text = f"exit {status:d} {status.name}\n{recent()}"
        within(time_left, lambda: self._ping(way, text, time_left))

    def _ping(self, way: str, text: str, deadline: Deadline) -> None:
        parts = urlsplit(self._url)
        url = parts._replace(path=parts.path.rstrip("/") + way).geturl()
        body = text.encode("utf-8", "replace")[-MOST_BYTES:]
        request = Request("POST", url, {"Content-Type": "text/plain"}, body)
        transport = Transport(
            PlainExchange(url, proxies=self._proxies), attempts=2, longest_wait=1.0
        )
        try:
            reply = transport.send(lambda: request, deadline)
            log.debug("healthcheck%s: HTTP %d", way, reply.status)
        except Unreachable as exc:
            log.debug("healthcheck%s: %s", way, exc)
        finally:
            transport.close()


def create_healthcheck(settings: Settings) -> Healthcheck | None:
    """Return the pings of the settings, None if none are wanted."""
    url = settings.healthcheck_url
    return Healthcheck(url.reveal(), settings.proxies) if url else None
