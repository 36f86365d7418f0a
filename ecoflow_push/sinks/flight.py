"""Flight: requests to one endpoint, several of them at once."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ecoflow_push.errors import HostLimit, WriteError
from ecoflow_push.net.deadline import start

if TYPE_CHECKING:
    from ecoflow_push.memory.state import State
    from ecoflow_push.metrics.record import Record
    from ecoflow_push.net.deadline import Deadline
    from ecoflow_push.sinks.base import TimestampedSink


class Landed(NamedTuple):
    """What became of a request: why it was not taken, and how sure that is."""

    error: WriteError | None
    was_repeated: bool
    was_unheard: bool


class Flight:
    """The ways to one endpoint: a second one is made when it is first needed."""

    def __init__(self, sink: TimestampedSink, state: State) -> None:
        """Begin with the sink alone."""
        self._sinks = [sink]
        self._endpoint = state.endpoint
        #: Something was taken, but not at once.
        self.is_troubled = False
        #: Others look at what waits already: nothing counts that comes from now on.
        self.is_abandoned = False

    def prove(self, deadline: Deadline) -> WriteError | None:
        """Make sure that the address is one; return why it is not to be written to."""
        try:
            self._sinks[0].prove(deadline)
        except WriteError as exc:
            return exc
        self._endpoint.is_proven = self._sinks[0].is_proven
        return None

    def write(
        self, records: list[Record], deadline: Deadline, tries: int | None = None
    ) -> WriteError | None:
        """Write records and return why they were not taken, if so."""
        return self.send([records], deadline, tries)[0].error

    def send(
        self,
        requests: Sequence[Sequence[Record]],
        deadline: Deadline,
        tries: int | None = None,
    ) -> list[Landed]:
        """Write all requests at once, and return of each what became of it.

        No series may be in two of them. `tries` overrides how often each is tried.
        """
        landed = self._sent(requests, deadline, tries)
        if not self.is_abandoned:
            taken = [each for each in landed if each.error is None]
            self._endpoint.has_taken |= bool(taken)
            self.is_troubled |= any(each.was_repeated for each in taken)
        return landed

    def _sent(
        self,
        requests: Sequence[Sequence[Record]],
        deadline: Deadline,
        tries: int | None,
    ) -> list[Landed]:
        while len(self._sinks) < len(requests):
            self._sinks.append(self._sinks[0].twin())
        landed: dict[int, Landed] = {}
        raised: list[BaseException] = []

        def write(place: int) -> None:
            sink = self._sinks[place]
            try:
                sink.write(requests[place], deadline, tries)
            except WriteError as exc:
                landed[place] = Landed(exc, sink.was_repeated, sink.was_unheard)
            except BaseException as exc:  # noqa: BLE001 - a bug, carried to who waits
                raised.append(exc)
            else:
                landed[place] = Landed(None, sink.was_repeated, False)

        threads, places = [], deque(range(len(requests)))
        with contextlib.suppress(HostLimit):
            while len(places) > 1:
                threads.append(start(partial(write, places[-1])))
                places.pop()
        # The first, and those for which there is no thread.
        for place in places:
            write(place)
        for thread in threads:
            thread.join()
        if raised:
            raise raised[0]
        return [landed[place] for place in range(len(requests))]

    def close(self) -> None:
        """Close all connections; safe to call twice."""
        for sink in self._sinks:
            sink.close()
