"""Queue: the Sink that any timestamped sink becomes, with a spool around it.

What a run learnt becomes records; they are stored first, then everything that waits is
written, oldest first, and taken out once it was taken (docs/remote-write.md).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ecoflow_push.errors import ExitStatus, Finding, SinkError, WriteError
from ecoflow_push.memory.entry import Entry
from ecoflow_push.metrics.record import Record, record_of
from ecoflow_push.sinks.base import Backlog, Sink, TimestampedSink, Update, late
from ecoflow_push.sinks.clock import Clock
from ecoflow_push.sinks.endings import Endings
from ecoflow_push.sinks.losses import Losses
from ecoflow_push.sinks.replay import Replay, deferred

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.memory.spool import Spool
    from ecoflow_push.memory.spools import Keep
    from ecoflow_push.memory.state import State
    from ecoflow_push.metrics.labels import Labels
    from ecoflow_push.net.deadline import Deadline

log = logging.getLogger(__name__)

# Of what a run has left, for the disk.
STORE_SHARE = 0.25
#: What the run's own series are remembered by; no serial number looks like it.
RUN = "@run"
CLOCK_CURE = "set the clock, and keep it with NTP"


class Queue(Sink):
    """Records of one run, and of earlier ones, to one endpoint; one object, one run."""

    def __init__(
        self,
        sink: TimestampedSink,
        spool: Spool,
        state: State,
        labels: Labels,
        *,
        keep: Keep,
        stale_after: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin with the run; `take` or `prepare` does the first work.

        `stale_after` is in seconds. `clock` is what samples are stamped by where no
        snapshot has its own time.
        """
        super().__init__()
        self.name = sink.name
        self._sink = sink
        self._spool = spool
        self._state = state
        self._labels = labels
        self._keep = keep
        self._clock = Clock(clock)
        self._endings = Endings(spool, self._clock, stale_after)
        self._losses = Losses(sink.name, spool, state)
        self._replay = Replay(sink, spool, state, self._losses, self.delivery)
        self._is_open = False
        self._is_at_run = False
        self._has_asked_the_time = False
        self._fresh: list[Entry] = []
        #: Devices that were to end in this run.
        self._gone: set[str] = set()

    def take(self, update: Update, deadline: Deadline) -> None:
        """Make a record of what was learnt, and store it."""
        self._open(deadline)
        if update.action == "say":
            record = update.record
            if update.at is None:
                record = record._replace(time_ms=self._clock.now_ms())
            if update.online is False:
                # All else that its group still says on a Pushgateway is from before.
                record = record.only(f"{self._labels.prefix}_online")
            self._clock.stamped(record.time_ms)
            if said := self._endings.continued(update.sn, record):
                self._add(update.sn, said)
            return
        self._endings.silent.append(update.sn)
        if update.action == "end":
            self._gone.add(update.sn)
            self._endings.owed.add(update.sn)

    def prepare(self, deadline: Deadline) -> None:
        """End what has ended, and make durable what was stored."""
        self._open(deadline)
        self._clock.watch()
        self._end_the_silent()
        self._spool.commit()

    def hear(self, offset: float | None) -> None:
        """Hold our clock against another one's; the first that is known counts."""
        self._clock.hear(offset)

    def ask_the_time(self, deadline: Deadline) -> float | None:
        """Return how far our clock is ahead of the sink's (s), after asking."""
        return self._sink.ask_the_time(deadline)

    def deliver(self, deadline: Deadline) -> None:
        """Write what waits, oldest first, until it is all out or must wait longer."""
        if pause := self._replay.pause():
            self._replay.stopped = pause
            return
        if self._replay.waiting(self._fresh) or self._endings.silent:
            self._confirm(deadline)
        if self._clock.distrust or self._replay.is_abandoned:
            return
        if self._clock.is_confirmed:
            # Only now: a clock that nobody has confirmed ages nothing.
            self._spool.seconds = deadline.left() * STORE_SHARE
            self._end_the_silent()
            self._spool.commit()
            self._drop_the_impossible()
        self._replay.run(self._replay.waiting(self._fresh), deadline)
        self._replay.note_endpoint()

    def abandon(self) -> None:
        """Give up; what was not taken until now is to be stored."""
        self._replay.is_abandoned = True
        if self._is_at_run:
            self.delivery.run_errors.append(late("the run's own series"))
        else:
            self._replay.stopped = late(self.name)
        self.close()

    def settle(self, deadline: Deadline) -> None:
        """Store what could not be written, drop what has no place, say what happened.

        What is dropped is counted durably before it is removed.
        """
        if not self._is_open:
            return
        losses, endings = self._losses, self._endings
        if self._clock.distrust:
            for entry in set(self._fresh) - self._replay.delivered - losses.entries:
                losses.lose(entry, "clock")
            text = f"{self.name}: {self._clock.distrust}; nothing sent or stored"
            error = SinkError(text, CLOCK_CURE, status=ExitStatus.TEMPFAIL)
            self.delivery.errors.append(error)
            losses.count(self.delivery)
        else:
            self._keep_what_waits(deadline)
        losses.tend_other_spools(self._clock, self._keep, self.delivery)
        waiting = set(self._fresh) - losses.entries
        kept = {entry.device for entry in waiting if entry.is_stored}
        endings.are_done(kept | self._replay.answered)
        known = self._state.devices.keys() - self._gone
        self._spool.forget({*known, *endings.owed, RUN})
        self._spool.sync()
        if self._spool.trouble and self._spool.trouble != self._state.trouble:
            log.warning("%s", self._spool.trouble)

    def deliver_run(self, registry: CollectorRegistry, deadline: Deadline) -> None:
        """Write the run's own series, unless anything older still waits."""
        self._is_at_run = True
        if self._clock.distrust or self._replay.stopped or self._spool.entries:
            return
        if distrust := self._confirm(deadline):
            text = f"{self.name}: {distrust}"
            error = SinkError(text, CLOCK_CURE, status=ExitStatus.TEMPFAIL)
            self.delivery.run_errors.append(error)
            return
        record = record_of(registry, self._labels.run_group, self._clock.now_ms())
        before_ms, live = self._endings.before(RUN)
        if record.time_ms <= before_ms:
            return
        record = record.ending(live)
        refusal = self._replay.write(record, deadline)
        self._replay.note_endpoint()
        if self._replay.is_abandoned:
            return
        if refusal is None:
            self._spool.remember(RUN, record.to_bytes())
            return
        text = f"the run's own series: {refusal.text}"
        self.delivery.run_errors.append(WriteError(text, refusal.cure, bad=refusal.bad))

    def has_ended(self, sn: str) -> bool:
        """Return whether the device's end is delivered or stored, if it is due."""
        return sn not in self._endings.owed

    def backlog(self) -> Backlog | None:
        """Return what waits and what is lost, None before that is known."""
        if not self._is_open:
            return None
        entries = self._spool.entries
        oldest_at = entries[0].time_ms / 1000 if entries else None
        return Backlog(self._spool.samples, oldest_at, self._losses.dropped())

    def probe(self, deadline: Deadline) -> Iterator[Finding]:
        """Write one sample, and its end a millisecond later."""
        from ecoflow_push.sinks.trial import taken, write_trial, wrong

        error = self._replay.pause()
        if error is None and self._clock.distrust:
            text, cure = "nothing sent by a wrong clock", "set it, see above"
            error = SinkError(text, cure, status=ExitStatus.TEMPFAIL)
        if error is None:
            try:
                write_trial(self._sink, self._labels, self._clock.now_ms(), deadline)
            except WriteError as exc:
                error = self.as_in_a_run(exc)
        yield wrong(self.name, error) if error else taken(self.name)

    def as_in_a_run(self, error: WriteError) -> SinkError:
        """Return what a run, which stores what is new, would make of an error."""
        has_memory = not self._state.trouble
        is_lost = error.bad == "server" and not (has_memory and self.has_news)
        if is_lost or error.bad == "content":
            return error
        return deferred(error, error.text, is_stored=has_memory)

    def close(self) -> None:
        """Close the connection."""
        self._sink.close()

    def _open(self, deadline: Deadline) -> None:
        if self._is_open:
            return
        self._is_open = True
        if self._state.trouble:
            # Without a lock or a memory, what waits is not ours to touch.
            self._spool.trouble = self._state.trouble
        else:
            self._spool.open()
        self._spool.seconds = deadline.left() * STORE_SHARE

    def _add(self, device: str, record: Record) -> None:
        distrust = self._clock.distrust
        # What will be counted alone need not be kept.
        body = b"" if distrust else record.to_bytes()
        entry = Entry(record.time_ms, len(record.names), device, body)
        self._fresh.append(entry)
        self._replay.keep_at_hand(entry, record)
        if self._keep.ahead and not distrust:
            self._spool.write(entry)

    def _end_the_silent(self) -> None:
        if self._clock.is_confirmed:
            for device, record in self._endings.due():
                self._add(device, record)

    def _confirm(self, deadline: Deadline) -> str:
        """Ask the receiver if nobody else told; return why our clock is wrong, if so.

        So it is with the app account's login remembered.
        """
        if self._clock.offset is None and not self._has_asked_the_time:
            self._has_asked_the_time = True
            offset = self._sink.ask_the_time(deadline)
            if not self._replay.is_abandoned:
                self._clock.hear(offset)
        return self._clock.distrust

    def _drop_the_impossible(self) -> None:
        """Give up what is too old, and what a wrong clock once stamped."""
        oldest_ms = self._clock.now_ms() - round(self._keep.max_age * 1000)
        for entry in self._replay.waiting(self._fresh):
            if self._clock.is_impossible(entry.time_ms):
                self._losses.lose(entry, "clock")
            elif entry.time_ms < oldest_ms and not entry.is_fresh:
                self._losses.lose(entry, "age")

    def _keep_what_waits(self, deadline: Deadline) -> None:
        losses, replay = self._losses, self._replay
        self._spool.seconds = deadline.left() * STORE_SHARE
        for entry in replay.waiting(self._fresh):
            self._spool.write(entry)
        self._spool.commit()
        lost = {each for each in replay.waiting(self._fresh) if not each.is_stored}
        for entry in lost:
            losses.lose(entry, "disk")
        losses.count(self.delivery)
        if not self._state.trouble:
            for entry in self._spool.too_many(self._keep.max_bytes):
                losses.lose(entry, "size")
                lost.add(entry)
            losses.count(self.delivery)
        if rejection := replay.rejection():
            self.delivery.errors.append(rejection)
        if replayed := sum(not entry.is_fresh for entry in replay.delivered):
            self.delivery.note = f" ({replayed} snapshots from the spool)"
        was_fresh = any(entry.is_fresh for entry in lost)
        if stop := replay.stop(stored=not was_fresh):
            self.delivery.errors.append(stop)
