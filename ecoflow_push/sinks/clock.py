"""Clock: what is known of ours, which stamps what no snapshot stamps.

One sample from the future can stop a whole server (protocol/remote-write.md#future).
"""

from __future__ import annotations

import time
from collections.abc import Callable

MOST_OFFSET_SECONDS = 300.0
WAS_SET = "the clock was set while the run was at work"
# How far two clocks may differ on how long it is since a moment, or on that moment.
MOST_SKEW_SECONDS = 1.0
# One that also counts the time in which the machine slept, where there is one.
STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
# 2025: before there was anything that this could have read.
EARLIEST = 1_735_689_600
# Between two readings that are to be of one instant; a process may be stopped there.
SAME_INSTANT_SECONDS = 0.01


def _lead() -> float:
    """Return how far the wall clock is ahead of the steady one, at one instant (s)."""
    while True:
        before = time.clock_gettime(STEADY)
        wall = time.time()
        after = time.clock_gettime(STEADY)
        if after - before <= SAME_INSTANT_SECONDS:
            return wall - after


class Clock:
    """Our clock in one run, and whether it is to be trusted."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """Begin with the run; `now` returns Unix seconds."""
        self._now = now
        self._started = now()
        self._lead = _lead()
        #: How far it is ahead of the first who told (s), None if nobody did.
        self.offset: float | None = None
        #: Why it is not to be trusted, "" if nothing speaks against it.
        self.distrust = ""
        if self._started < EARLIEST:
            year = time.gmtime(self._started).tm_year
            self.distrust = f"the clock says that it is {year}"

    def now(self) -> float:
        """Return Unix seconds."""
        return self._now()

    def now_ms(self) -> int:
        """Return Unix milliseconds."""
        return round(self._now() * 1000)

    def hear(self, offset: float | None) -> None:
        """Hold it against another one; `offset` is how far it is ahead (s).

        The first that is known counts: the service is on the Internet and keeps its
        clock, a gateway at home may not.
        """
        if offset is not None and self.offset is None:
            self.offset = offset
            if abs(offset) > MOST_OFFSET_SECONDS:
                way = "ahead of" if offset > 0 else "behind"
                self.distrust = f"the clock is {abs(offset):.0f} s {way} the servers'"

    def stamped(self, time_ms: int) -> None:
        """See if what was collected in this run is of its time."""
        first, last = self._started - MOST_SKEW_SECONDS, self._now() + MOST_SKEW_SECONDS
        if not first <= time_ms / 1000 <= last:
            self.distrust = WAS_SET
        self.watch()

    def watch(self) -> None:
        """See if the clock went on as a clock does since the run began."""
        if abs(_lead() - self._lead) > MOST_SKEW_SECONDS:
            self.distrust = WAS_SET

    def went_back(self, seconds: float) -> None:
        """Note that what was said last is so far ahead; nobody could explain it."""
        self.distrust = self.distrust or (
            f"the clock went back: the last snapshot is {seconds:.1f} s ahead"
        )

    @property
    def is_confirmed(self) -> bool:
        """Whether some server said that it is as late as our clock says."""
        return self.offset is not None and not self.distrust

    def is_impossible(self, time_ms: int) -> bool:
        """Return whether a time is known to be in the future.

        By the clock that confirmed ours: within the bounds two of our own times may
        contradict each other, and neither is known to be the wrong one.
        """
        if self.offset is None or self.distrust:
            return False
        return time_ms / 1000 > self._now() - self.offset + MOST_OFFSET_SECONDS
