"""Healthcheck: tells a dead man's switch that a run began, and how it ended.

The addresses are those of healthchecks.io and its kin: URL/start, URL, URL/fail. It
never fails a run; of an address that does not work the log has a line a day.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from ecoflow_push.errors import ExitStatus, HostLimit, Unreachable
from ecoflow_push.logs import recent
from ecoflow_push.memory.lock import fingerprint
from ecoflow_push.memory.told import Told
from ecoflow_push.net.deadline import Deadline, limit_of, start, within
from ecoflow_push.net.exchange import authorization, open_exchange
from ecoflow_push.net.retry import Request, Transport

if TYPE_CHECKING:
    from threading import Thread

    from ecoflow_push.config.settings import Settings
    from ecoflow_push.net.retry import Reply

    Fault = Unreachable | HostLimit

log = logging.getLogger(__name__)

# Of the file in the state folder.
NAME = "healthcheck"
TIME_CURE = "look for a firewall in the way, and at HEALTHCHECK_URL"
MOST_SECONDS = 5.0
# The services keep the first 10 to 100 kB.
MOST_BYTES = 10_000


class Healthcheck:
    """The pings of one run."""

    def __init__(
        self,
        url: str,
        proxies: Mapping[str, str],
        *,
        waits: bool = True,
        told: Told | None = None,
    ) -> None:
        """Store what is needed; nothing is contacted.

        `told` is when the log last told of trouble; without it, it never does.
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
        self._told = told

    def start(self) -> None:
        """Say that the run began, without waiting for the answer."""
        ping = partial(self._send, "/start", "", Deadline(MOST_SECONDS))
        try:
            self._starting = start(ping)
        except HostLimit as limit:
            log.debug("healthcheck/start: %s", limit)

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
            self._tell(self._send(way, text, time_left))

        try:
            if not self._waits:
                start(ping)
            elif not within(time_left, ping):
                self._tell(Unreachable("no answer in time", TIME_CURE))
        except Exception as exc:  # a bug is passed on, a limit is the ping's loss alone
            if not (limit := limit_of(exc)):
                raise
            self._tell(limit)

    def ask(self, way: str, text: str, deadline: Deadline) -> Reply:
        """Send one ping, and return the answer; raises Unreachable."""
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
            return transport.send(lambda: request, deadline)
        finally:
            transport.close()

    def _send(self, way: str, text: str, deadline: Deadline) -> Fault | None:
        """Return why the service was not told, None if it was."""
        fault: Fault | None
        try:
            fault = _fault(self.ask(way, text, deadline))
        except (Unreachable, HostLimit) as exc:
            fault = exc
        log.debug("healthcheck%s: %s", way, fault or "told")
        return fault

    def _tell(self, fault: Fault | None) -> None:
        """Log what is news of the service: that it cannot be told, or can be again."""
        if not self._told:
            return
        if fault is None:
            if self._told.is_over():
                log.info("healthcheck %s: reached again", self._url.netloc)
        elif self._told.is_to_be_told(time.time()):
            log.warning("healthcheck %s: %s", self._url.netloc, fault)


def _fault(reply: Reply) -> Unreachable | None:
    """Return what an answer means that is no success, None for one that is."""
    status, text = reply.status, f"HTTP {reply.status}"
    if status < 300:
        return None
    if status >= 500:
        return Unreachable(text, "wait, the fault is on its side")
    if status < 400:
        text = f"{text}, a redirect{reply.leads_to()}, not followed"
    return Unreachable(text, "check HEALTHCHECK_URL")


def create_healthcheck(
    settings: Settings, folder: str | None = None, *, tells: bool = False
) -> Healthcheck | None:
    """Return the pings of the settings, None if none are wanted.

    `folder` is the state's, None if there is none; `tells` says that the log is to tell
    of what ails them.
    """
    if not settings.healthcheck_url:
        return None
    url = settings.healthcheck_url.reveal()
    told = Told(folder, NAME, fingerprint(url)[:12]) if tells else None
    return Healthcheck(url, settings.proxies, waits=not settings.stays, told=told)
