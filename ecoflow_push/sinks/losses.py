"""Losses: samples that a timestamped sink will never get, counted before they go."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ecoflow_push.errors import ExitStatus, SinkError
from ecoflow_push.logs import warn_once
from ecoflow_push.memory.notes import Notes
from ecoflow_push.memory.spools import other_spools
from ecoflow_push.metrics.record import Record

if TYPE_CHECKING:
    from ecoflow_push.memory.entry import Entry
    from ecoflow_push.memory.spool import Spool
    from ecoflow_push.memory.state import State
    from ecoflow_push.sinks.base import Delivery
    from ecoflow_push.sinks.clock import Clock
    from ecoflow_push.sinks.turns import Turn

    #: An entry, why, how many samples of it, and where it was.
    Lost = tuple[Entry, str, int, Spool]

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
#: What is as true in the next run.
PATIENT = ("age", "clock", "elsewhere", "size")
#: How many are counted, durably, before they go.
AT_ONCE = 500
TELL_SECONDS = 86_400.0


class Losses:
    """What is given up in this run; `count` makes it so."""

    def __init__(self, name: str, spool: Spool, state: State, clock: Clock) -> None:
        """Store what is needed; `name` is the sink's."""
        self._name = name
        self._spool = spool
        self._state = state
        self._clock = clock
        self._home = os.path.basename(spool.folder)
        self._notes = Notes(os.path.dirname(spool.folder))
        self._came_back_ms = 0
        #: From where a replay began, and up to where it is noted (ms).
        self._began_ms = self._noted_ms = 0
        #: All that was given up.
        self.entries: set[Entry] = set()
        self._uncounted: list[Lost] = []

    def open(self) -> None:
        """Take up what a run could only note, since its disk was full."""
        self._notes.open()
        for reason, samples in self._notes.dropped.items():
            known = self._state.dropped.get(reason, 0)
            self._state.dropped[reason] = max(known, samples)
        self._came_back_ms = self._notes.replayed_until(self._home, self._state.runs)

    def sending(self, turns: Iterable[Turn]) -> None:
        """Note, before it is sent, what a kill may leave, a power cut bring back.

        A note is flushed, so it runs ahead, at most by as much as was sent before.
        """
        times = [entry.time_ms for _, entries in turns for entry in entries]
        self._began_ms = self._began_ms or min(times)
        if self._state.trouble or max(times) <= self._noted_ms:
            return
        ahead_ms = max(times) + max(0, max(times) - self._began_ms)
        self._noted_ms = max(*times, min(ahead_ms, self._spool.newest_ms))
        self._notes.begin_replay(self._home, self._noted_ms, self._state.runs)

    def end_replay(self) -> None:
        """Let the state say what the notes do: with the count of runs it is saved."""
        for device in self._spool.devices() if self._came_back_ms else ():
            queue = self._state.endpoint.queue(device)
            queue.sent_ms = max(queue.sent_ms, self._came_back_ms)

    def forget_replay(self) -> None:
        """Let the notes say so, where the count of runs stays: the state is saved."""
        self._notes.end_replay(self._home)

    def may_be_there(self, turns: Iterable[Turn]) -> None:
        """Note that the answer to a request was not heard.

        One record that was taken is taken again; of several of one device a server that
        keeps the order refuses the older ones.
        """
        for device, entries in turns:
            if len(entries) == 1:
                continue
            queue = self._state.endpoint.queue(device)
            queue.sent_ms = max(queue.sent_ms, entries[-1].time_ms)

    def was_taken(self, entry: Entry) -> bool:
        """Return whether an entry was taken once, and a power cut brought it back."""
        if entry.is_fresh:
            return False
        taken_ms = self._state.endpoint.queue(entry.device).delivered_ms
        with contextlib.suppress(ValueError):
            last = Record.from_bytes(self._spool.files.last(entry.device) or b"")
            taken_ms = max(taken_ms, last.time_ms)
        return self._is_until(entry, taken_ms)

    def may_have_been_taken(self, entry: Entry) -> bool:
        """Return whether nobody heard what became of an entry that was sent once."""
        sent_ms = self._state.endpoint.queue(entry.device).sent_ms
        return self._is_until(entry, sent_ms) or self._is_until(
            entry, self._came_back_ms
        )

    def _is_until(self, entry: Entry, at_ms: int) -> bool:
        return entry.time_ms <= at_ms and not self._clock.is_impossible(at_ms)

    def drop_the_impossible(self) -> None:
        """Give up what is too old, and what a wrong clock once stamped."""
        self._forget_the_impossible()
        clock, spool = self._clock, self._spool
        oldest_ms = clock.now_ms() - round(spool.keep.max_age * 1000)
        first_ms = spool.oldest_ms
        is_due = first_ms is not None and first_ms < oldest_ms
        if not (is_due or clock.is_impossible(spool.newest_ms)):
            return
        for entry in spool.entries:
            if clock.is_impossible(entry.time_ms):
                self.lose(entry, "clock")
            elif entry.time_ms < oldest_ms and not entry.is_fresh:
                self.lose(entry, "age")

    def _forget_the_impossible(self) -> None:
        """Forget what was delivered by a wrong clock: its time would come one day."""
        for device, queue in self._state.endpoint.queues.items():
            if self._clock.is_impossible(max(queue.delivered_ms, queue.sent_ms)):
                queue.delivered_ms = queue.sent_ms = 0
                with contextlib.suppress(ValueError):
                    last = Record.from_bytes(self._spool.files.last(device) or b"")
                    last = last._replace(time_ms=0)
                    self._spool.files.remember(device, last.to_bytes())

    def lose(
        self, entry: Entry, reason: str, written: int = 0, home: Spool | None = None
    ) -> None:
        """Give an entry up; `written` samples of it were taken all the same."""
        samples = max(0, entry.samples - written)
        self._uncounted.append((entry, reason, samples, home or self._spool))
        self.entries.add(entry)

    def store(self, waiting: Sequence[Entry], delivery: Delivery) -> bool:
        """Write what waits, and give up what has no place.

        Return whether all of `waiting` has one.
        """
        spool = self._spool
        for entry in waiting:
            spool.write(entry)
        spool.commit()
        for entry in waiting:
            if not entry.is_stored:
                self.lose(entry, "disk")
        self.count(delivery)
        if not self._state.trouble:
            for entry in spool.too_many():
                self.lose(entry, "size")
            self.count(delivery)
        return self.entries.isdisjoint(waiting)

    def count(self, delivery: Delivery) -> None:
        """Count what is lost, durably, then remove it."""
        todo, self._uncounted = self._uncounted, []
        # What the next run gives up just as well comes last, and only while the disk
        # has time for it: however much waits, a run has its deadline.
        todo.sort(key=_can_wait)
        files, dropped = self._spool.files, Counter[str]()
        while todo and (files.seconds > 0 or not _can_wait(todo[0])):
            began = time.monotonic()
            dropped += self._count(todo[:AT_ONCE])
            del todo[:AT_ONCE]
            files.seconds -= time.monotonic() - began
        for reason, samples in dropped.items():
            why = LOSSES[reason]
            kind = f"{self._name}: samples dropped: {why}"
            text = f"{self._name}: {samples} samples dropped: {why}"
            warn_once(log, kind, "%s", text)
            if reason in WAITED:
                # Not "ok": the sink has not everything.
                text = f"{self._name}: {samples} samples that waited are lost"
                error = SinkError(text, WAITED[reason], status=ExitStatus.PARTIAL)
                delivery.errors.append(error)

    def _count(self, lost: list[Lost]) -> Counter[str]:
        dropped: Counter[str] = Counter()
        for _, reason, samples, _ in lost:
            dropped[reason] += samples
        for reason, samples in dropped.items():
            total = self._state.dropped.get(reason, 0)
            self._state.dropped[reason] = total + samples
        self._state.save()
        if self._state.trouble and self._state.is_ours:
            self._notes.lost(self._state.dropped)
        for entry, reason, _, home in lost:
            home.discard(entry, keep=reason in ("damaged", "failing"))
        if self._state.trouble:
            # What was removed may have made room.
            self._state.save()
        return dropped

    def dropped(self) -> dict[str, float]:
        """Return how many samples were ever dropped, by every reason there is."""
        return {reason: self._state.dropped.get(reason, 0) for reason in LOSSES}

    def tend_other_spools(self, delivery: Delivery) -> None:
        """Bound what waits for endpoints that are not set now, and say that it does."""
        state = self._state
        if not state.is_ours:
            return
        spools = other_spools(self._spool.folder, state.endpoints)
        if self._clock.is_confirmed and not state.trouble:
            self._bound(spools, delivery)
        for spool in () if state.trouble else spools:
            if known := state.endpoints.get(os.path.basename(spool.folder)):
                spool.note(known)
        waiting = sum(spool.samples for spool in spools)
        if waiting and self._is_due():
            log.warning(
                "%s: %d samples wait for another address, user or tenant than"
                " is set now; SPOOL_MAX_AGE will drop them",
                self._name,
                waiting,
            )

    def _bound(self, spools: list[Spool], delivery: Delivery) -> None:
        """Drop what waits elsewhere too long, or too much of it."""
        keep = self._spool.keep
        oldest = self._clock.now() - keep.max_age
        mine = (self._spool, *spools)
        over = sum(each.size + each.aside for each in mine) - keep.max_bytes
        for spool in spools:
            first_ms = spool.oldest_ms
            if over <= 0 and (first_ms is None or first_ms >= oldest * 1000):
                continue
            for entry in spool.entries:
                if over > 0 or entry.time_ms < oldest * 1000:
                    over -= spool.files.size_of(entry)
                    self.lose(entry, "elsewhere", home=spool)
        self.count(delivery)
        for spool in spools:
            spool.remove_if_unused(oldest)

    def _is_due(self) -> bool:
        """Return whether this is to be told, and note that it is: once a day."""
        now, told_at = time.time(), self._state.endpoint.told_at
        if told_at is not None and 0 <= now - told_at < TELL_SECONDS:
            return False
        self._state.endpoint.told_at = now
        return True


def _can_wait(lost: Lost) -> bool:
    """Return whether the next run would give it up as well."""
    entry, reason, _, _ = lost
    return reason in PATIENT and entry.has_file and not entry.is_fresh
