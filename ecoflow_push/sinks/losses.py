"""Losses: samples that a timestamped sink will never get, counted before they go."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

from ecoflow_push.errors import ExitStatus, SinkError
from ecoflow_push.memory.spools import Keep, other_spools

if TYPE_CHECKING:
    from ecoflow_push.memory.entry import Entry
    from ecoflow_push.memory.spool import Spool
    from ecoflow_push.memory.state import State
    from ecoflow_push.sinks.base import Delivery
    from ecoflow_push.sinks.clock import Clock

log = logging.getLogger(__name__)

#: Why samples are lost for good, by the label `reason`.
LOSSES = {
    "age": "they waited longer than SPOOL_MAX_AGE",
    "clock": "the clock was not to be trusted",
    "damaged": "their file in the spool was damaged; it is set aside",
    "disk": "they could be neither delivered nor stored",
    "elsewhere": "they waited for another endpoint, too long or too many",
    "failing": "the server fails on them alone; their file is set aside",
    "partial": "the server took a part of their snapshot and refused these",
    "refused": "the server refused their snapshot for good",
    "size": "the spool is larger than SPOOL_MAX_BYTES",
}
#: Of these, what had been kept for later, and what else may be the matter.
WAITED = {
    "age": "let the server be reached more often, or raise SPOOL_MAX_AGE",
    "damaged": "look for a failing disk",
    "failing": "look for the file in the spool's folder bad",
    "size": "let the server be reached more often, or raise SPOOL_MAX_BYTES",
}
TELL_SECONDS = 86_400.0


class Losses:
    """What is given up in this run; `count` makes it so."""

    def __init__(self, name: str, spool: Spool, state: State) -> None:
        """Store what is needed; `name` is the sink's."""
        self._name = name
        self._spool = spool
        self._state = state
        #: All that was given up.
        self.entries: set[Entry] = set()
        self._uncounted: list[tuple[Entry, str, int, Spool]] = []

    def lose(
        self, entry: Entry, reason: str, written: int = 0, home: Spool | None = None
    ) -> None:
        """Give an entry up; `written` samples of it were taken all the same."""
        samples = max(0, entry.samples - written)
        self._uncounted.append((entry, reason, samples, home or self._spool))
        self.entries.add(entry)

    def count(self, delivery: Delivery) -> None:
        """Count what is lost, durably, then remove it."""
        if not self._uncounted:
            return
        dropped: Counter[str] = Counter()
        for _, reason, samples, _ in self._uncounted:
            dropped[reason] += samples
        for reason, samples in dropped.items():
            total = self._state.dropped.get(reason, 0)
            self._state.dropped[reason] = total + samples
            log.warning(
                "%s: %d samples dropped: %s", self._name, samples, LOSSES[reason]
            )
            if reason in WAITED:
                # Not "ok": the sink has not everything.
                text = f"{self._name}: {samples} samples that waited are lost"
                error = SinkError(text, WAITED[reason], status=ExitStatus.PARTIAL)
                delivery.errors.append(error)
        self._state.save()
        for entry, reason, _, home in self._uncounted:
            home.discard(entry, keep=reason in ("damaged", "failing"))
        self._uncounted.clear()
        if self._state.trouble:
            # What was removed may have made room.
            self._state.save()

    def dropped(self) -> dict[str, float]:
        """Return how many samples were ever dropped, by every reason there is."""
        return {reason: self._state.dropped.get(reason, 0) for reason in LOSSES}

    def tend_other_spools(self, clock: Clock, keep: Keep, delivery: Delivery) -> None:
        """Bound what waits for endpoints that are not set now, and say that it does."""
        spools = other_spools(self._spool.folder)
        if clock.is_confirmed and not self._state.trouble:
            oldest = clock.now() - keep.max_age
            over = self._spool.size + sum(spool.size for spool in spools)
            over -= keep.max_bytes
            for spool in spools:
                for entry in spool.entries[:]:
                    if over > 0 or entry.time_ms < oldest * 1000:
                        over -= entry.size
                        self.lose(entry, "elsewhere", home=spool)
            self.count(delivery)
            for spool in spools:
                spool.remove_if_unused(oldest)
        waiting = sum(spool.samples for spool in spools)
        if waiting and self._is_due():
            log.warning(
                "%s: %d samples wait for another address, user or tenant than"
                " is set now; SPOOL_MAX_AGE will drop them",
                self._name,
                waiting,
            )

    def _is_due(self) -> bool:
        """Return whether this is to be told, and note that it is: once a day."""
        now, told_at = time.time(), self._state.endpoint.told_at
        if told_at is not None and 0 <= now - told_at < TELL_SECONDS:
            return False
        self._state.endpoint.told_at = now
        return True
