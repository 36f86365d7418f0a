"""Replay: what waits, written oldest first, each taken out once the server took it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ecoflow_push.errors import ExitStatus, SinkError, WriteError
from ecoflow_push.memory.records import LONGEST_PAUSE_SECONDS
from ecoflow_push.metrics.record import Record
from ecoflow_push.sinks.base import Delivery, TimestampedSink

if TYPE_CHECKING:
    from ecoflow_push.memory.entry import Entry
    from ecoflow_push.memory.spool import Spool
    from ecoflow_push.memory.state import State
    from ecoflow_push.net.deadline import Deadline
    from ecoflow_push.sinks.losses import Losses

# A server may answer 5xx for good to one record; after so many runs in a row a newer
# one is tried, and if it is taken the record is set aside.
MOST_FAILING_RUNS = 10
# Records of a household need not be read back; those of a thousand devices must go.
MOST_AT_HAND = 16


class Replay:
    """The writing of one run, and what came of it."""

    def __init__(
        self,
        sink: TimestampedSink,
        spool: Spool,
        state: State,
        losses: Losses,
        delivery: Delivery,
    ) -> None:
        self._sink = sink
        self._spool = spool
        self._state = state
        self._losses = losses
        self._delivery = delivery
        self._at_hand: dict[Entry, Record] = {}
        self._asked_to_wait = 0.0
        self.delivered: set[Entry] = set()
        #: Devices of which the server took or refused something.
        self.answered: set[str] = set()
        self.rejected: list[WriteError] = []
        #: Why it did not go on.
        self.stopped: SinkError | None = None
        #: Others look at what waits already: it stays, and is written again.
        self.is_abandoned = False

    def keep_at_hand(self, entry: Entry, record: Record) -> None:
        """Spare the way over the spool, as long as they are few."""
        if len(self._at_hand) < MOST_AT_HAND:
            self._at_hand[entry] = record

    def waiting(self, fresh: Iterable[Entry]) -> list[Entry]:
        """Return what is neither delivered nor lost, in the order in which it goes."""
        waiting = {*self._spool.entries, *fresh} - self.delivered - self._losses.entries
        return sorted(waiting, key=lambda entry: entry.name)

    def run(self, waiting: Iterable[Entry], deadline: Deadline) -> None:
        """Write one after the other, until it is all out or `stopped` says why not."""
        queue = deque(waiting)
        while queue:
            entry = queue.popleft()
            error = self._send(entry, deadline)
            if self.is_abandoned:
                return
            if error is None:
                continue
            if self._is_stuck(entry, error) and self._pass_by(entry, queue, deadline):
                continue
            if not self.is_abandoned:
                self.stopped = error
            return

    def write(
        self, record: Record, deadline: Deadline, tries: int | None = None
    ) -> WriteError | None:
        """Write a record and return why it was not taken, if so."""
        self._asked_to_wait = 0.0
        try:
            self._sink.write(record, deadline, tries)
        except WriteError as exc:
            self._asked_to_wait = exc.retry_after
            return exc
        if not self.is_abandoned:
            self._state.endpoint.has_taken = True
        return None

    def note_endpoint(self) -> None:
        """Remember what was found out of the server, and how long it wants to rest."""
        if not self.is_abandoned:
            endpoint, asked = self._state.endpoint, self._asked_to_wait
            endpoint.version = self._sink.learnt
            until = time.time() + min(asked, LONGEST_PAUSE_SECONDS)
            endpoint.pause_until = until if asked else None

    def pause(self) -> SinkError | None:
        """Return that the server once asked for a rest, as long as it lasts."""
        wait = self._state.endpoint.pause_for(time.time())
        if not wait:
            return None
        text = f"{self._sink.name}: asked to wait {wait:.0f} s more"
        cure = "wait, it has too much to do"
        return SinkError(text, cure, status=ExitStatus.TEMPFAIL)

    def rejection(self) -> WriteError | None:
        """Return one error for all that was refused for good, None if nothing was."""
        if not self.rejected:
            return None
        first, others = self.rejected[0], len(self.rejected) - 1
        more = f" (and {others} more)" if others else ""
        if not self._state.endpoint.has_taken:
            more += "; nothing was ever taken there"
        return WriteError(f"{first.text}{more}: dropped", first.cure, bad="content")

    def stop(self, *, stored: bool) -> SinkError | None:
        """Return what it means that the rest was not written, None if all was."""
        error = self.stopped
        if error is None:
            return None
        if not stored:
            why = self._spool.trouble or "SPOOL_MAX_BYTES is too small"
            text = f"{error.text}; not stored either: {why}"
            bad = error.bad if isinstance(error, WriteError) else "server"
            return WriteError(text, error.cure, bad=bad)
        keeps = f"{self._spool.samples} samples wait in the spool"
        if count := self._delivery.delivered:
            keeps = f"{count} snapshots were delivered, {keeps}"
        return deferred(error, f"{error.text}; {keeps}", is_stored=True)

    def _send(
        self, entry: Entry, deadline: Deadline, tries: int | None = None
    ) -> SinkError | None:
        """Write one entry and settle it; return what keeps it from being settled."""
        try:
            record = self._load(entry)
        except ValueError:
            self._losses.lose(entry, "damaged")
            return None
        except OSError as exc:
            text = f"spool: cannot read {entry.name}: {exc.strerror}"
            return SinkError(
                text, "look for a failing disk", status=ExitStatus.TEMPFAIL
            )
        error = self.write(record, deadline, tries)
        if self.is_abandoned or (error and error.bad != "content"):
            return error
        self.answered.add(entry.device)
        if error is None:
            self._delivery.delivered += 1
            self.delivered.add(entry)
            self._spool.delivered(entry)
        else:
            self.rejected.append(error)
            reason = "partial" if error.accepted else "refused"
            self._losses.lose(entry, reason, error.accepted)
        return None

    def _load(self, entry: Entry) -> Record:
        """Return an entry's record; raises ValueError for damage, OSError."""
        if record := self._at_hand.pop(entry, None):
            return record
        try:
            record = Record.from_bytes(self._spool.read(entry))
        except FileNotFoundError as exc:
            raise ValueError("its file is gone") from exc
        if (record.time_ms, len(record.names)) != (entry.time_ms, entry.samples):
            raise ValueError("not what its name says")
        return record

    def _is_stuck(self, entry: Entry, error: SinkError) -> bool:
        """Count the runs in a row in which the first met a 5xx; tell if enough."""
        endpoint = self._state.endpoint
        is_failing = isinstance(error, WriteError) and 500 <= error.answered < 600
        if endpoint.failing != entry.name or not is_failing:
            endpoint.failing, endpoint.failing_runs = entry.name, 0
        endpoint.failing_runs += is_failing
        return endpoint.failing_runs >= MOST_FAILING_RUNS

    def _pass_by(self, stuck: Entry, queue: deque[Entry], deadline: Deadline) -> bool:
        """Return whether a newer entry is taken where the first one is not.

        Then the first had one more try, and is settled. Another device's is tried if
        there is one: it closes no way for the first.
        """
        others = (entry for entry in queue if entry.device != stuck.device)
        probe = next(others, queue[0] if queue else None)
        if probe is None or self._send(probe, deadline, tries=1):
            return False
        queue.remove(probe)
        if probe not in self.delivered:
            return False
        if self._send(stuck, deadline, tries=1) and not self.is_abandoned:
            self._losses.lose(stuck, "failing")
        return True


def deferred(error: SinkError, text: str, *, is_stored: bool) -> SinkError:
    """Return an error that only puts off; one of the settings stays what it is."""
    if isinstance(error, WriteError) and error.refuses_us:
        kept: SinkError = WriteError(text, error.cure, bad=error.bad)
        kept.is_stored = is_stored
        return kept
    return SinkError(text, error.cure, status=ExitStatus.TEMPFAIL, is_stored=is_stored)
