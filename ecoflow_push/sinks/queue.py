"""Queue: the Sink that any timestamped sink becomes, with a spool around it.

What a run learnt becomes records; they are stored first, then all that waits is written
and taken out once it was taken (docs/remote-write.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ecoflow_push.errors import Finding, SinkError, WriteError
from ecoflow_push.memory.entry import Entry
from ecoflow_push.metrics.record import Record, record_of
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.sinks import failing, reports
from ecoflow_push.sinks.base import Backlog, Sink, TimestampedSink, Update, late
from ecoflow_push.sinks.clock import Clock
from ecoflow_push.sinks.endings import RUN, Endings
from ecoflow_push.sinks.losses import Losses
from ecoflow_push.sinks.replay import Replay

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.memory.spool import Spool
    from ecoflow_push.memory.state import State
    from ecoflow_push.metrics.labels import Labels

# Of what a run has left, for the disk.
STORE_SHARE = 0.25
# For the run's own series where the server failed or hung before.
SHORT_TRY_SECONDS = 2.0


class Queue(Sink):
    """Records of one run, and of earlier ones, to one endpoint; one object, one run."""

    def __init__(
        self,
        sink: TimestampedSink,
        spool: Spool,
        state: State,
        labels: Labels,
        *,
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
        sink.is_proven = state.endpoint.is_proven
        self._labels = labels
        self._clock = Clock(clock)
        self._endings = Endings(spool, state.endpoint, self._clock, stale_after)
        self._losses = Losses(sink.name, spool, state, self._clock)
        self._replay = Replay(sink, spool, state, self._losses, self._make_probe)
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
            series = record.fingerprint()
            if said := self._endings.continued(update.sn, record, series):
                self._add(update.sn, said, series)
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
        """Write what waits until it is all out or must wait longer."""
        if pause := reports.pause_of(self._sink.name, self._state):
            self._replay.stop(pause)
            return
        if self._spool.devices() or self._endings.silent:
            self._confirm(deadline)
        if self._clock.distrust or self._replay.is_abandoned:
            return
        if self._clock.is_confirmed:
            # Only now: a clock that nobody has confirmed ages nothing.
            self._spool.files.seconds = deadline.left() * STORE_SHARE
            self._end_the_silent()
            self._spool.commit()
            self._losses.drop_the_impossible()
        failing.run(self._replay, self._state, self._losses, deadline)
        if not self._replay.is_abandoned:
            reports.note_endpoint(self._sink, self._state, self._replay.stopped)

    def verdict(self) -> WriteError | bool:
        """Return whether anything was taken, or why nothing was."""
        stopped, has_taken = self._replay.stopped, bool(self._replay.taken)
        return has_taken or (isinstance(stopped, WriteError) and stopped)

    def spare(self, error: WriteError) -> None:
        """Let all wait."""
        self._replay.stop(error)

    def abandon(self) -> None:
        """Give up; what was not taken until now is to be stored."""
        self._replay.abandon()
        if self._is_at_run:
            self.delivery.run_errors.append(late("the run's own series"))
        else:
            self._replay.stopped = late(self.name)
        self.close()

    def settle(self, deadline: Deadline) -> None:
        """Store what could not be written, drop what has no place, say what happened.

        What is dropped is counted durably before it is removed.
        """
        losses, spool = self._losses, self._spool
        if not self._is_open:
            return
        if self._clock.distrust:
            for entry in self._waiting():
                losses.lose(entry, "clock")
            error = reports.distrusted(
                self.name, self._clock, "; nothing sent or stored"
            )
            self.delivery.errors.append(error)
            losses.count(self.delivery)
        else:
            self._keep_what_waits(deadline)
        losses.tend_other_spools(self.delivery)
        waiting = self._waiting()
        kept = {entry.device for entry in waiting if entry.is_stored}
        self._endings.are_done(kept | self._replay.taken | self._replay.refused)
        known = {sn for sn in self._state.devices if sn not in self._gone}
        known |= {*self._endings.owed, RUN}
        spool.files.forget(known)
        spool.files.sync_removals()
        self.delivery.delivered = len(self._replay.delivered)
        self.delivery.stored = sum(entry.is_stored for entry in waiting)
        self.delivery.lost = sum(entry in losses.entries for entry in self._fresh)
        if not self._state.trouble:
            losses.end_replay()
            spool.note(self._state.endpoint, is_sure=not self._replay.is_abandoned)
            self._state.endpoint.forget(known.union(spool.devices()))
        reports.tell_of_the_disk(self.name, spool, self._state)

    def deliver_run(self, registry: CollectorRegistry, deadline: Deadline) -> None:
        """Write the run's own series, if anything was taken, or nothing waits."""
        self._is_at_run = True
        replay, stopped = self._replay, self._replay.stopped
        is_shut = isinstance(stopped, WriteError) and stopped.refuses_us
        is_idle = not (replay.delivered or self._spool.devices())
        is_shut |= bool(self._clock.distrust)
        is_shut |= replay.turns.waits_long(self._clock.now_ms())
        if is_shut or not (replay.delivered or is_idle):
            return
        if not self._sink.is_proven and (error := replay.flight.prove(deadline)):
            self.delivery.run_errors.append(reports.of_run(error))
            return
        if self._confirm(deadline):
            self.delivery.run_errors.append(reports.distrusted(self.name, self._clock))
            return
        record = record_of(registry, self._labels.run_group, self._clock.now_ms())
        before_ms, before = self._endings.before(RUN)
        if record.time_ms <= before_ms:
            return
        record = record.after(before)
        is_down = stopped or replay.failed
        if is_down:
            deadline = Deadline(min(deadline.left(), SHORT_TRY_SECONDS))
        refusal = replay.flight.write([record], deadline, 1 if is_down else None)
        if replay.is_abandoned:
            return
        if refusal is None:
            self._spool.files.remember(RUN, record.to_bytes())
            self._state.endpoint.queue(RUN).delivered_ms = record.time_ms
            return
        self.delivery.run_errors.append(reports.of_run(refusal))

    def has_ended(self, sn: str) -> bool:
        """Return whether the device's end is delivered or stored, if it is due."""
        return sn not in self._endings.owed

    def backlog(self) -> Backlog | None:
        """Return what waits and what is lost, None before that is known."""
        if not (self._is_open and self._state.is_wanted):
            return None
        oldest_ms = self._spool.oldest_ms
        oldest_at = None if oldest_ms is None else oldest_ms / 1000
        dropped, resting = self._losses.dropped(), self._state.endpoint.resting
        return Backlog(self._spool.samples, oldest_at, dropped, resting)

    def probe(self, deadline: Deadline) -> Iterator[Finding]:
        """Try the spool; write one sample, and its end a millisecond later."""
        from ecoflow_push.sinks.trial import probe

        yield from probe(
            *(self._sink, self._state, self._spool, self._labels),
            clock=self._clock,
            deadline=deadline,
            has_news=self.has_news,
        )

    def as_in_a_run(self, error: WriteError) -> SinkError:
        """Return what a run, which stores what is new, would make of an error."""
        own = self._state, self._spool
        return reports.as_in_a_run(error, *own, has_news=self.has_news)

    def close(self) -> None:
        """Close the connections."""
        self._replay.flight.close()

    def _open(self, deadline: Deadline) -> None:
        if self._is_open:
            return
        self._is_open = True
        if not self._state.is_ours:
            # Without a lock, what waits is not ours to touch.
            self._spool.files.trouble = self._state.trouble
        else:
            self._spool.open(self._state.endpoint)
            self._losses.open()
        self._spool.files.seconds = deadline.left() * STORE_SHARE

    def _add(self, device: str, record: Record, series: int = 0) -> None:
        distrust = self._clock.distrust
        body = b"" if distrust else record.pieces()
        entry = Entry(record.time_ms, len(record.names), device, body)
        self._fresh.append(entry)
        if distrust:
            return
        entry.series = 0 if record.ended else series
        self._replay.hand.keep(entry, record)
        self._spool.add(entry)
        if self._spool.keep.ahead:
            self._spool.write(entry)

    def _end_the_silent(self) -> None:
        if self._clock.is_confirmed:
            for device, record in self._endings.due():
                self._add(device, record)

    def _confirm(self, deadline: Deadline) -> str:
        """Ask the receiver if nobody else told; return why our clock is wrong."""
        if self._clock.offset is None and not self._has_asked_the_time:
            self._has_asked_the_time = True
            offset = self._sink.ask_the_time(deadline)
            if not self._replay.is_abandoned:
                self._clock.hear(offset)
        return self._clock.distrust

    def _make_probe(self, at_ms: int | None) -> Record:
        from ecoflow_push.sinks.trial import contrast

        newest_ms = self._state.endpoint.newest_ms
        return contrast(self._labels, self._clock.now_ms(), at_ms, newest_ms)

    def _keep_what_waits(self, deadline: Deadline) -> None:
        spool = self._spool
        spool.files.seconds = deadline.left() * STORE_SHARE
        stored = self._losses.store(self._waiting(), self.delivery)
        reports.tell(self.delivery, self._state, spool, self._replay, stored=stored)

    def _waiting(self) -> list[Entry]:
        """Return what of this run was neither delivered nor given up."""
        done, lost = self._replay.delivered, self._losses.entries
        return [each for each in self._fresh if each not in done and each not in lost]
