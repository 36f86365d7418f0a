"""Replay: what waits, written device by device, each taken out once it was taken.

What keeps a record from being taken is told by contrast (docs/remote-write.md): a
refusal is about the content only if the same address takes another record after it, a
failure is a device's own only if another device's records are taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecoflow_push.errors import SinkError, WriteError
from ecoflow_push.sinks.base import as_door, no_time_left
from ecoflow_push.sinks.endings import RUN
from ecoflow_push.sinks.flight import Flight
from ecoflow_push.sinks.hand import Hand
from ecoflow_push.sinks.suspects import Suspects
from ecoflow_push.sinks.turns import MOST_RUNS_HELD, Turn, Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ecoflow_push.memory.entry import Entry
    from ecoflow_push.memory.spool import Spool
    from ecoflow_push.memory.state import State
    from ecoflow_push.metrics.record import Record
    from ecoflow_push.net.deadline import Deadline
    from ecoflow_push.sinks.base import TimestampedSink
    from ecoflow_push.sinks.losses import Losses


class Replay:
    """The writing of one run, and what came of it."""

    def __init__(
        self,
        sink: TimestampedSink,
        spool: Spool,
        state: State,
        losses: Losses,
        make_probe: Callable[[int | None], Record],
    ) -> None:
        """Store what is needed; `make_probe` makes what disturbs no device's order.

        It is of a time (ms) as old as the one given, or of now.
        """
        self._sink = sink
        self._spool = spool
        self._state = state
        self._losses = losses
        self.make_probe = make_probe
        self.name = sink.name
        self.turns = Turns(spool, state, losses.entries, sink.most_samples)
        self.flight = Flight(sink, state)
        self.hand = Hand(spool, losses, sink.most_samples)
        #: What was taken, and of which devices.
        self.delivered: set[Entry] = set()
        self.taken: set[str] = set()
        #: Devices of which the server refused something.
        self.refused: set[str] = set()
        self.suspects = Suspects(spool, losses)
        #: With which status everything is refused that is as old as what waits, 0 if
        #: that is not known.
        self.too_old_is = 0
        #: Devices that had little time to answer; how much the run had (s).
        self.hurried: set[str] = set()
        self._seconds = 0.0
        #: Which device failed since anything was last taken, and whether anything did.
        self._failed_last = ""
        self._has_failed = False
        #: Why a device's turn ended, where it is the device's own.
        self.failed: dict[str, SinkError] = {}
        #: Why it did not go on.
        self.stopped: SinkError | None = None
        #: What was sent, and not answered yet.
        self._in_flight: list[Turn] = []

    def run(self, deadline: Deadline) -> bool:
        """Write until it is all out, or `stopped` and `failed` say why not.

        Return whether there is anything to be told apart.
        """
        self._seconds = self._seconds or deadline.left()
        if not self.turns.begin():
            return False
        for device in self.hand.failed:
            self.turns.leave_out(device)
        if not self._sink.is_proven and (error := self.flight.prove(deadline)):
            self.stop(error)
            return False
        while not self._is_over and (requests := self._next_round(deadline)):
            while requests and not self._is_over:
                if deadline.left():
                    self._serve(requests, deadline)
                else:
                    self.stop(no_time_left(self._sink.name))
        return not self.is_abandoned

    def _next_round(self, deadline: Deadline) -> list[list[Turn]]:
        """Return the next requests; also what was held back, if that is in vain."""
        requests = self.turns.next_round()
        holder = None if requests or self.taken else self.turns.holder()
        error = holder and self.failed.get(holder.device)
        if holder and isinstance(error, WriteError):
            self.takes_others(holder, error, deadline)
            return [] if self._is_over else self.turns.next_round()
        return requests

    def abandon(self) -> None:
        """Let nothing count that comes from now on; what was sent may be there."""
        self.flight.is_abandoned = True
        self._losses.may_be_there(self._in_flight)

    @property
    def is_abandoned(self) -> bool:
        """Others look at what waits already: it stays, and is written again."""
        return self.flight.is_abandoned

    @property
    def _is_over(self) -> bool:
        return self.is_abandoned or self.stopped is not None

    def stop(self, error: SinkError) -> None:
        """Do not go on; the first reason counts."""
        self.stopped = self.stopped or error

    # -- one request ----------------------------------------------------------------

    def _serve(self, requests: list[list[Turn]], deadline: Deadline) -> None:
        """Write the next requests; put back into `requests` what to try in parts."""
        loads = self._load(requests)
        if not loads:
            return
        devices = {device for turns, _ in loads for device, _ in turns}
        self.turns.had(devices)
        self._in_flight = [turn for turns, _ in loads for turn in turns]
        has_several = any(len(records) > len(turns) for turns, records in loads)
        if has_several or devices & self.taken:
            self._losses.sending(self._in_flight)
        share = self.turns.share(devices, deadline)
        # Whether it is the server is soon told: once is enough.
        tries = 1 if self._has_failed or self.turns.are_resting(devices) else None
        hurried = devices if deadline.left() < self._seconds / 2 else set()
        landed = self.flight.send([records for _, records in loads], share, tries)
        if self.is_abandoned:
            return
        self._in_flight = []
        # First: what was taken at the same time was not taken later.
        for (turns, _), (error, _, was_unheard) in zip(loads, landed, strict=True):
            if error is None:
                self.take(turns)
            elif was_unheard:
                # Of several tries one may have been taken.
                self._losses.may_be_there(turns)
            if error and not error.answered:
                # Perhaps it would have answered.
                self.hurried |= hurried & {device for device, _ in turns}
        for (turns, _), (error, *_) in zip(loads, landed, strict=True):
            if error is not None:
                self._judge(turns, error, requests, deadline)

    def _load(
        self, requests: list[list[Turn]]
    ) -> list[tuple[list[Turn], list[Record]]]:
        """Take as many requests as may be in flight now, those of them that can be."""
        is_well = self.taken and not (self._has_failed or self.suspects.entries)
        most = self._sink.most_in_flight if is_well and self.turns.are_many() else 1
        loads = [self.hand.load(turns) for turns in requests[:most]]
        del requests[:most]
        for device in self.hand.failed.keys() - self.failed.keys():
            self.turns.leave_out(device)
            self.failed[device] = self.hand.failed[device]
        return [load for load in loads if load[0]]

    def _judge(
        self,
        turns: list[Turn],
        error: WriteError,
        requests: list[list[Turn]],
        deadline: Deadline,
    ) -> None:
        """Stop, or find out which of the devices of a request it is."""
        if error.refuses_us or error.is_down:
            self.stop(error)
        if self._is_over:
            return
        self._has_failed |= error.bad != "content"
        if error.accepted:
            self.delivered.update(entry for _, entries in turns for entry in entries)
            self.take(self.suspects.taken_in_part(turns, error))
        elif len(turns) == 1:
            self._look_closer(*turns[0], error, deadline)
        else:
            for device, _ in turns if error.is_late else ():
                self._state.endpoint.queue(device).hung = 1
            # These first: a server that is down is soon found out.
            half = len(turns) // 2
            requests[:0] = [turns[:half], turns[half:]]

    def _look_closer(
        self, device: str, entries: list[Entry], error: WriteError, deadline: Deadline
    ) -> None:
        """Find out which record of a device it is, and what it means."""
        is_old = error.answered >= 500 and error.answered == self.too_old_is
        is_content = error.bad == "content" or is_old
        if len(entries) > 1 and (is_content or error.answered >= 500):
            # Its oldest one alone will show.
            self.turns.shrink(device)
        elif is_content:
            self._refuse(entries[0], error, deadline)
        elif device in self.taken and not deadline.left():
            self.stop(no_time_left(self._sink.name))
        else:
            self._fail(entries[0], error, deadline)

    # -- what came of it ------------------------------------------------------------

    def take(self, turns: list[Turn]) -> None:
        """Settle what was taken."""
        for device, entries in turns:
            self.turns.grow(device)
            queue = self._state.endpoint.queue(device)
            queue.rested, queue.failing, queue.hung, queue.why = 0, 0, 0, ""
            # Before a file goes, if any can: this run may be given up in between.
            if entries and self._spool.files.is_made:
                queue.delivered_ms = max(queue.delivered_ms, entries[-1].time_ms)
            for entry in entries:
                self.delivered.add(entry)
                queue.series = entry.series if self._spool.delivered(entry) else 0
        self._show(device for device, _ in turns)

    def _show(self, devices: Iterable[str]) -> None:
        """Hold what went before against something that was taken."""
        self.taken.update(devices)
        self._failed_last, self._has_failed = "", False
        self.suspects.judge()

    def _refuse(self, entry: Entry, error: WriteError, deadline: Deadline) -> None:
        """Suspect an entry that was refused alone, or the door."""
        self.refused.add(entry.device)
        if self._losses.was_taken(entry):
            self._spool.discard(entry)
        else:
            self.turns.skip(entry)
            is_shut = self.suspects.add(entry, error)
            if is_shut and not self.taken:
                self.takes_others(entry, error, deadline)

    def takes_others(self, entry: Entry, error: WriteError, deadline: Deadline) -> bool:
        """Return whether something harmless is taken where this was not; stop if not.

        If only something newer is, the server is ahead of what waits, and holding
        anything back for its sake is in vain.
        """
        is_content = error.bad == "content"
        tries, probe = None if is_content else 1, self.make_probe(entry.time_ms)
        refusal = self.flight.write([probe], deadline, tries)
        if refusal and self._says_too_old(refusal):
            # Something of now would shut out what waits, had that not been shut out.
            status, probe = refusal.answered, self.make_probe(None)
            refusal = self.flight.write([probe], deadline, tries)
            if refusal is None:
                self.too_old_is = status
                self.turns.let_go()
                self._reopen()
        if refusal is None:
            self.taken.add(RUN)
            self._state.endpoint.queue(RUN).delivered_ms = probe.time_ms
            self._failed_last, self._has_failed = "", False
        elif refusal.bad == "content":
            self.stop(as_door(error, self._state) if is_content else error)
        else:
            self.stop(refusal)
        return refusal is None

    def _says_too_old(self, refusal: WriteError) -> bool:
        """Return whether this may be said of everything as old.

        Some say it by 5xx; then it is believed only when they have said so for long.
        """
        is_said = refusal.answered >= 500 and not refusal.is_down
        is_long = self._state.endpoint.failing_runs >= MOST_RUNS_HELD
        return refusal.bad == "content" or (is_said and is_long)

    def _reopen(self) -> None:
        """Let those go on that failed with what is said of everything as old."""
        for device, error in list(self.failed.items()):
            if isinstance(error, WriteError) and error.answered == self.too_old_is:
                self.turns.reopen(device)
                del self.failed[device]

    def _fail(self, entry: Entry, error: WriteError, deadline: Deadline) -> None:
        """End a device's turns; the server may be down if another one's just failed."""
        device = entry.device
        self.failed[device] = error
        self.turns.close(device)
        before, self._failed_last = self._failed_last, device
        if before and before != device:
            self.takes_others(entry, error, deadline)
