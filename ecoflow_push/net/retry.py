"""HTTP under one deadline: sockets that obey it, retries inside it, bounded bodies.

A timeout in requests, urllib3 and http.client bounds one socket call; a server that
drips a byte a second can hold such a client for ever. Our sockets take a timeout as
the budget of the whole exchange. Name resolution alone is not bounded by it: whoever
waits for that must be ready to leave.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from typing import TYPE_CHECKING, Protocol

from ecoflow_push.errors import OutOfTime, Unreachable
from ecoflow_push.net.deadline import limit_of
from ecoflow_push.net.reply import Reply, Request

if TYPE_CHECKING:
    from ecoflow_push.net.deadline import Deadline

# Who sends needs no other door.
__all__ = ["Exchange", "Patience", "Reply", "Request", "Transport"]

log = logging.getLogger(__name__)

RETRIED_STATUSES = frozenset((408, 425, 429, 500, 502, 503, 504))
FIRST_WAIT_SECONDS = 0.5


class Exchange(Protocol):
    """One way to send a request and get its answer, within a time."""

    def __call__(self, request: Request, seconds: float) -> Reply:
        """Return the complete answer; `seconds` bound all but name resolution.

        Raises WasClosed where a kept connection had ended before the answer began,
        Unreachable for an answer that is refused, else whatever OSError,
        HTTPException or ValueError its library raises.
        """

    def dial_ahead(self, lanes: int, seconds: float) -> None:
        """Begin to connect within `seconds`, for the first requests, if that is simple.

        Returns at once; `lanes` is how many there will be at once. What goes wrong is
        theirs to raise.
        """

    def close(self) -> None:
        """Close the kept connections, for good: whoever still sends is too late."""


class Patience:
    """How often to try one request, and how long (s) to pause between two tries."""

    __slots__ = ("attempts", "longest_wait")

    def __init__(self, attempts: int = 5, longest_wait: float = 30.0) -> None:
        self.attempts = attempts
        self.longest_wait = longest_wait


class Transport:
    """An exchange with retries, and an end to it all."""

    def __init__(
        self,
        exchange: Exchange,
        *,
        attempts: int,
        longest_wait: float,
        longest_try: float = 15.0,
        is_worth_a_retry: Callable[[Reply], bool] | None = None,
        variables: tuple[str, str],
    ) -> None:
        """Store what is needed.

        `attempts` is the most tries of one request, `longest_wait` the longest pause
        between two of them, `longest_try` the longest single try (seconds).
        `is_worth_a_retry` tells which answers are tried again, by default those with
        the statuses 408, 425, 429, 500, 502, 503 and 504. `variables` are those that
        say where the server is and which authority it trusts in, for the cures.
        """
        self._url, self._ca = variables
        self._exchange = exchange
        self._attempts = attempts
        self._longest_wait = longest_wait
        self._longest_try = longest_try
        self._is_worth_a_retry = is_worth_a_retry or _has_retried_status
        self._offset: float | None = None
        #: The server asked for a slower pace.
        self.throttled = False

    def send(
        self, build: Callable[[], Request], deadline: Deadline, tries: int | None = None
    ) -> Reply:
        """Return the answer to what `build` makes, after retries where they help.

        Connection errors and answers that are worth it are tried again, doubling, with
        jitter, and not before Retry-After allows; but what a kept connection lost that
        had ended meanwhile is sent again at once, one time. An answer whose Retry-After
        is longer than we may wait is returned as it is.

        `tries` overrides how often. Raises OutOfTime when the deadline passed first,
        else Unreachable.
        """
        tries = tries or self._attempts
        attempt, again = 0, iter((True,))
        while True:
            attempt += 1
            wait = random.uniform(0.5, 1.0) * min(  # noqa: S311 - jitter, no secret
                self._longest_wait, FIRST_WAIT_SECONDS * 2 ** (attempt - 1)
            )
            try:
                reply = self._try(build, deadline, again)
            except OutOfTime:
                raise
            except Unreachable as exc:
                if exc.lasting or attempt >= tries:
                    raise
                if wait >= deadline.left():
                    raise OutOfTime(exc.text, exc.cure) from exc
                log.debug("try %d: %s; again in %.1f s", attempt, exc, wait)
            else:
                self.throttled |= reply.status in (403, 429)
                self._offset = reply.clock_offset(time.time())
                if not self._is_worth_a_retry(reply) or attempt >= tries:
                    return reply
                asked = reply.retry_after()
                if asked is not None and asked > self._longest_wait:
                    return reply
                # Asked not to wait at all, it would still be the same in no time.
                wait = max(wait, asked or 0.0)
                if wait >= deadline.left():
                    return reply
                log.debug(
                    "try %d: HTTP %d; again in %.1f s", attempt, reply.status, wait
                )
            time.sleep(wait)

    def dial_ahead(self, lanes: int, seconds: float) -> None:
        """Begin to connect within `seconds` for the first request; returns at once."""
        self._exchange.dial_ahead(lanes, min(seconds, self._longest_try))

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of the last answer's, in seconds."""
        return self._offset

    def close(self) -> None:
        """Close the kept connections."""
        self._exchange.close()

    def _try(
        self, build: Callable[[], Request], deadline: Deadline, again: Iterator[bool]
    ) -> Reply:
        """Try once, over a kept connection that had ended twice, if that is `again`."""
        try:
            return self._try_once(build(), deadline)
        except Unreachable as exc:
            from ecoflow_push.net.explain import WasClosed

            # Servers close what is idle, and a request may cross that.
            if isinstance(exc.__cause__, WasClosed) and next(again, False):
                return self._try_once(build(), deadline)
            raise

    def _try_once(self, request: Request, deadline: Deadline) -> Reply:
        budget = min(deadline.left(), self._longest_try)
        if budget <= 0:
            raise OutOfTime("no time left")
        try:
            return self._exchange(request, budget)
        except (OSError, HTTPException) as exc:
            if limit := limit_of(exc):
                raise limit from exc
            # A good run has nothing to explain.
            from ecoflow_push.net.explain import explain

            cause = explain(exc)
            cure = cause.cure.format(url=self._url, ca=self._ca)
            if deadline.left() <= 0:
                raise OutOfTime(cause.text, cure) from exc
            raise Unreachable(
                cause.text, cure, lasting=cause.lasting, down=cause.down
            ) from exc
        except (ValueError, LookupError) as exc:
            if limit := limit_of(exc):
                raise limit from exc
            # http.client lets through what a hostile status or header line breaks.
            raise Unreachable("answered in broken HTTP") from exc


def _has_retried_status(reply: Reply) -> bool:
    return reply.status in RETRIED_STATUSES
