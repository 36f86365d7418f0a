"""Lanes: many devices asked one by one, some at once, and their readings a stream."""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from ecoflow_push.api.base import Reading
from ecoflow_push.errors import (
    AskedToWait,
    EcoflowApiException,
    HostLimit,
    KeysRefused,
)
from ecoflow_push.net.deadline import start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ecoflow_push.api.models import DeviceInfo
    from ecoflow_push.net.deadline import Deadline

# The cloud dislikes bursts more than a steady pace (protocol/rest.md#pace).
ONE_LANE_DEVICES = 8
MOST_LANES = 4
# Readings that wait for whoever takes them, those being made included.
READ_AHEAD = MOST_LANES + 2
# One hanging device of many may not use up what the others need.
LARGEST_SHARE = 1 / 6


def lanes_for(devices: int) -> int:
    """Return in how many lanes so many devices are asked."""
    return MOST_LANES if devices > ONE_LANE_DEVICES else 1


class Lanes:
    """One pass over some devices, in one lane or in several at once."""

    def __init__(
        self,
        devices: Iterable[DeviceInfo],
        read: Callable[[DeviceInfo, Deadline], Reading],
        deadline: Deadline,
        is_throttled: Callable[[], bool],
    ) -> None:
        """`read` reads one device; once `is_throttled`, one lane goes on alone."""
        self._todo = deque(devices)
        self._read = read
        self._deadline = deadline
        self._is_throttled = is_throttled
        self._lanes = lanes_for(len(self._todo))
        self._room = threading.Semaphore(READ_AHEAD)
        #: What ended it all: the service's word, or a bug.
        self._raised: Exception | None = None
        self._is_over = False

    def readings(self) -> Iterator[Reading]:
        """Yield the readings as they are made, those of one lane in their order.

        Raises, behind what was read, the error that makes it vain to ask on.
        """
        if self._lanes == 1:
            while (reading := self._next()) is not None:
                yield reading
        else:
            yield from self._at_once()
        if self._raised:
            raise self._raised

    def _at_once(self) -> Iterator[Reading]:
        from queue import SimpleQueue

        # Readings, and None from each lane that has ended.
        done: SimpleQueue[Reading | None] = SimpleQueue()
        left = 0
        try:
            for number in range(self._lanes):
                try:
                    start(partial(self._lane, number, done.put))
                except HostLimit:
                    # Those that are there do it all, only slower.
                    if not number:
                        raise
                    break
                left += 1
            while left:
                reading = done.get()
                if reading is None:
                    left -= 1
                    continue
                self._room.release()
                yield reading
        finally:
            # Lanes that wait for room must not wait for ever.
            self._is_over = True
            self._room.release(self._lanes)

    def _lane(self, number: int, tell: Callable[[Reading | None], None]) -> None:
        try:
            while number == 0 or not self._is_throttled():
                self._room.acquire()
                reading = self._next()
                if reading is None:
                    # The room that it did not fill is another lane's.
                    self._room.release()
                    return
                tell(reading)
                # The next one is made without it.
                del reading
        except Exception as exc:  # noqa: BLE001 - a bug, carried to who reads
            self._raised, self._is_over = exc, True
        finally:
            tell(None)

    def _next(self) -> Reading | None:
        """Return the next device's reading; None if there is none, or it is over."""
        share = max(LARGEST_SHARE, self._lanes / max(1, len(self._todo)))
        try:
            device = None if self._is_over else self._todo.popleft()
        except IndexError:
            device = None
        if device is None:
            return None
        reading = self._read(device, self._deadline.share(min(1.0, share)))
        if _ends_collecting(reading.error, self._deadline):
            self._raised, self._is_over = reading.error, True
            return None
        return reading


def _ends_collecting(error: EcoflowApiException | None, deadline: Deadline) -> bool:
    """Return whether asking on, for any device, would be in vain or impolite.

    Other refusals are of one device, as long as the device list was not refused.
    """
    if isinstance(error, AskedToWait):
        return error.seconds >= deadline.left()
    return isinstance(error, KeysRefused) and error.code == "8513"
