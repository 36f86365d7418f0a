"""Doors: what one account finds out of a receiver, the others need not find out again.

Each account delivers for itself. Hundreds that wait in vain for the same receiver, one
after the other, would leave no time to read their devices.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ecoflow_push.net.deadline import Deadline
from ecoflow_push.run.telling import send
from ecoflow_push.sinks.claims import Claims

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecoflow_push.errors import WriteError
    from ecoflow_push.sinks.base import Sink

# So many accounts in a row of which nothing is taken: it is not them.
MOST_IN_VAIN = 2
# From then on one at a time tries, for so long, and so long after another one.
TRY_SECONDS = 2.0
PAUSE_SECONDS = 5.0


class _Door:
    """What is known of one receiver."""

    def __init__(self) -> None:
        #: Accounts in a row, and with what the last one was sent away.
        self.in_vain = 0
        self.error: WriteError | None = None
        self.is_tried = False
        #: When it may be tried, on the monotonic clock.
        self.next_try_at = 0.0


class Doors:
    """The receivers of a run for many accounts, by the names of sinks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._doors: dict[str, _Door] = {}
        #: What they say of devices, for sinks in which they would meet.
        self.claims = Claims()

    def send(
        self, sink: Sink, work: Callable[[Deadline], object], deadline: Deadline
    ) -> None:
        """Let a sink work as `send` does, unless others saw that it is in vain."""
        with self._lock:
            door = self._doors.setdefault(sink.name, _Door())
            is_trial = door.in_vain >= MOST_IN_VAIN
            if is_trial and (door.is_tried or time.monotonic() < door.next_try_at):
                assert door.error
                sink.spare(door.error)
                return
            door.is_tried |= is_trial
        if is_trial:
            deadline = Deadline(min(deadline.left(), TRY_SECONDS))
        try:
            send(sink, work, deadline)
        finally:
            with self._lock:
                self._note(door, sink, is_trial=is_trial)

    def bound(self, sink: Sink, deadline: Deadline) -> Deadline:
        """Return how long a last try may take, short where the one before failed."""
        with self._lock:
            door = self._doors.get(sink.name)
            is_trial = door is not None and door.in_vain > 0
        return Deadline(min(deadline.left(), TRY_SECONDS)) if is_trial else deadline

    def _note(self, door: _Door, sink: Sink, *, is_trial: bool) -> None:
        if is_trial:
            door.is_tried = False
            door.next_try_at = time.monotonic() + PAUSE_SECONDS
        verdict = sink.verdict()
        if verdict is True:
            door.in_vain = 0
        elif verdict:
            door.in_vain += 1
            door.error = verdict
