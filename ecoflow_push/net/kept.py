"""KEPT: the connections that rest between the runs of a process that stays."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Self

# What lies between us and a server forgets who was silent, some without a word: the
# least that is met in the wild is two minutes.
REST_SECONDS = 90.0
# A name may lead elsewhere meanwhile, and a certificate may be withdrawn.
LIFE_SECONDS = 3600.0
# Each is an open file, and of these a process has 256 in some places: each account of
# a thousand leaves one behind.
MOST = 96


class Connection(Protocol):
    """What can rest here."""

    #: When it was opened, as `now` tells it.
    opened_at: float

    def close(self) -> None:
        """Close it; safe to call twice."""


class Kept:
    """Connections at rest, each for whoever comes with just the same identity.

    There is one for the process. It keeps something as long as a schedule runs (`with
    KEPT`), since there a new connection, TLS above all, is a third of what a run costs;
    one run alone leaves nothing here, and finds nothing. From one run to the next, and
    no further: what a run did not take up is closed at its end (`turn`), so that what
    the settings no longer say is soon gone. Whether a server has closed one meanwhile
    is for him to find out who takes it.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or now
        self._lock = threading.Lock()
        self._is_open = False
        #: By identity: the connection, since when it rests, and in which run that was.
        self._resting: dict[Hashable, list[tuple[Connection, float, int]]] = {}
        self._run = 0

    def __enter__(self) -> Self:
        self._is_open = True
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_open = False
        self.turn()
        self.turn()

    def give(self, identity: Hashable, connection: Connection) -> None:
        """Let a connection rest, or close it where none may; of many, the oldest."""
        unwanted: Connection | None = connection
        with self._lock:
            if self._is_open and self._clock() - connection.opened_at < LIFE_SECONDS:
                # The last one, so that the first is who was not needed for longest.
                resting = self._resting.pop(identity, [])
                resting.append((connection, self._clock(), self._run))
                self._resting[identity] = resting
                unwanted = self._one_too_many()
        if unwanted is not None:
            _close(unwanted)

    def _one_too_many(self) -> Connection | None:
        """Return what must go for what has come, None if nothing must."""
        if sum(map(len, self._resting.values())) <= MOST:
            return None
        first = next(identity for identity, resting in self._resting.items() if resting)
        return self._resting[first].pop(0)[0]

    def take(self, identity: Hashable) -> Connection | None:
        """Return what rests under this identity, None if nothing does."""
        with self._lock:
            resting = self._resting.get(identity)
            while resting:
                connection, since, _ = resting.pop()
                if self._clock() - since < REST_SECONDS:
                    return connection
                _close(connection)
        return None

    def forget(self, identity: Hashable) -> None:
        """Close what rests under this identity: one of them turned out to be dead."""
        with self._lock:
            for connection, *_ in self._resting.pop(identity, ()):
                _close(connection)

    def turn(self) -> None:
        """End a run: close what was there before it, and was not taken up."""
        with self._lock:
            before, self._resting = self._resting, {}
            for identity, resting in before.items():
                for each in resting:
                    if each[2] == self._run:
                        self._resting.setdefault(identity, []).append(each)
                    else:
                        _close(each[0])
            self._run += 1


def now() -> float:
    """Return seconds of a clock that goes on while the host sleeps, where it can."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def _close(connection: Connection) -> None:
    # A close that fails has closed all the same.
    with suppress(OSError):
        connection.close()


KEPT = Kept()
