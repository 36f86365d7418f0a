"""Claims: whose device it is, where accounts of one run share a Pushgateway.

A group is the device's, whichever account lists it. An account that it left takes
nothing away that the one which it came to says in the same run.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ecoflow_push.net.deadline import Deadline

# Of who waits until another one has taken a group away: that may hang.
LONGEST_WAIT_SECONDS = 2.0


class Claims:
    """Devices that somebody says, and those of which something is taken away now.

    For several threads. Serial numbers alone, a few megabytes for ten thousand.
    """

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._held: set[str] = set()
        self._leaving: set[str] = set()
        self._changed = threading.Condition()

    def say(self, sn: str) -> None:
        """Note that somebody has something to say of a device in this run."""
        with self._changed:
            self._said.add(sn)

    def is_held(self, sn: str) -> bool:
        """Return whether what somebody said of a device was taken in this run."""
        return sn in self._held

    def may_take(self, sn: str) -> bool:
        """Return whether a device's group may be taken away; its `turn` comes then."""
        with self._changed:
            is_free = sn not in self._said
            if is_free:
                self._leaving.add(sn)
        return is_free

    @contextmanager
    def turn(self, sn: str, deadline: Deadline, *, says: bool) -> Iterator[None]:
        """Let what is said come after what is taken away: it is there to stay."""
        seconds = min(deadline.left(), LONGEST_WAIT_SECONDS)
        if says:
            with self._changed:
                self._changed.wait_for(lambda: sn not in self._leaving, seconds)
        try:
            yield
            if says:
                self._held.add(sn)
        finally:
            if not says:
                with self._changed:
                    self._leaving.discard(sn)
                    self._changed.notify_all()
