"""Clock: what is known of ours, which stamps what no snapshot stamps.

One sample from the future can stop a whole server (protocol/remote-write.md#future).
"""

from __future__ import annotations

import time
from collections.abc import Callable

MOST_OFFSET_SECONDS = 300.0
# Between what a snapshot and the run say of the time of one moment.
MOST_SKEW_MS = 1000


class Clock:
    """Our clock in one run, and whether it is to be trusted."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """Begin with the run; `now` returns Unix seconds."""
        self._now = now
        self._started = time.monotonic()
        #: How far it is ahead of the first who told (s), None if nobody did.
        self.offset: float | None = None
        #: Why it is not to be trusted, "" if nothing speaks against it.
        self.distrust = ""
        self._first_ms: int | None = None
        self._last_ms = 0

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
        """Note when something of this run was collected."""
        first_ms = time_ms if self._first_ms is None else self._first_ms
        self._first_ms = min(first_ms, time_ms)
        self._last_ms = max(self._last_ms, time_ms)
        self.watch()

    def watch(self) -> None:
        """See if all of this run lies between its beginning and now."""
        if self._first_ms is None:
            return
        now_ms, elapsed = self.now_ms(), time.monotonic() - self._started
        earliest_ms = now_ms - round(elapsed * 1000) - MOST_SKEW_MS
        if self._first_ms < earliest_ms or self._last_ms > now_ms + MOST_SKEW_MS:
            self.distrust = "the clock was set while the run was at work"

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
        """Return whether a time is known to be in the future."""
        latest_ms = self.now_ms() + round(MOST_OFFSET_SECONDS * 1000)
        return self.is_confirmed and time_ms > latest_ms
