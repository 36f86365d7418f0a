"""A line to a real server, which passes everything on, or does something to it."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from urllib.error import HTTPError

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import (
    Answer,
    Fault,
    Handler,
    Received,
    RecordingServer,
)

# Those that belong to one connection, or are made anew.
OWN = ("host", "content-length", "connection")


class Relay(RecordingServer):
    """Passes requests on to `target`, and the answers back, as a context manager."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target
        #: The statuses that the server behind it gave.
        self.statuses: list[int] = []

    def answer(self, received: Received) -> Answer:
        """Return what the server behind it answers."""
        headers = {k: v for k, v in received.headers.items() if k not in OWN}
        request = urllib.request.Request(
            self.target + received.path,
            received.body or None,
            headers,
            method=received.method,
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                given = Answer(reply.status, reply.read())
        except HTTPError as exc:
            given = Answer(exc.code, exc.read())
        self.statuses.append(given.status)
        return given

    def lose_the_answer(self) -> Fault:
        """Return a fault: pass the request on, then reset the connection."""

        def fault(handler: Handler) -> None:
            self.answer(handler.current)
            faults.reset()(handler)

        return fault

    def answer_too_late(self) -> Fault:
        """Return a fault: pass the request on, and never pass back the answer."""

        def fault(handler: Handler) -> None:
            self.answer(handler.current)
            faults.hang()(handler)

        return fault

    def garble(self, change: Callable[[bytes], bytes]) -> Fault:
        """Return a fault: pass on what `change` makes of the body."""

        def fault(handler: Handler) -> None:
            current = handler.current
            garbled = current._replace(body=change(current.body))
            handler.send(self.answer(garbled))

        return fault
