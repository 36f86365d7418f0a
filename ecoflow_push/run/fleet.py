"""Fleet: one run for the accounts of a folder, a few of them at the same time.

Each is walked by a worker of its own, with its own memory, lock and spool, so that what
happens to one costs the others nothing. What is one for all of them is here: the time,
the text file, and what is told of the run.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from ecoflow_push.errors import EcoflowPushError, ExitStatus, LockedError
from ecoflow_push.logs import Alike, alike, of_whom, warn_of
from ecoflow_push.memory.state import State
from ecoflow_push.metrics.run_series import run_registry
from ecoflow_push.net.deadline import Deadline, start
from ecoflow_push.run.begin import create_worker
from ecoflow_push.run.doors import Doors
from ecoflow_push.run.members import Part
from ecoflow_push.run.order import Order
from ecoflow_push.run.outcome import Faults, worst
from ecoflow_push.run.results import Result, Results
from ecoflow_push.run.telling import (
    deliver_run,
    lasting,
    level_of,
    no_memory,
    remember,
    sinks_status,
    tell_end,
)
from ecoflow_push.start.attempt import attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.config.accounts import Account
    from ecoflow_push.metrics.labels import Labels
    from ecoflow_push.run.healthcheck import Healthcheck
    from ecoflow_push.run.members import Members
    from ecoflow_push.run.order import Turn
    from ecoflow_push.run.worker import Worker
    from ecoflow_push.sinks.base import Sink

    Visit = Callable[[Account, Worker], ExitStatus]
    Around = AbstractContextManager[Callable[[int], object]]

log = logging.getLogger(__name__)

# Of a run's time, for all accounts; the rest is for the run's own series.
ACCOUNTS_SHARE = 0.9
# A line each; of more, one says how many.
MOST_TOLD = 20
# In one line.
MOST_NAMED = 8


class Fleet(Faults):
    """Works all accounts that are ours; one object, one run."""

    def __init__(
        self,
        members: Members,
        state: State,
        sinks: Sequence[Sink],
        *,
        labels: Labels,
        deadline: float,
        around: Around,
        healthcheck: Healthcheck | None = None,
    ) -> None:
        """Store what is needed; `deadline` (seconds) starts now.

        `state` is that of the run, and `sinks` are those for what it tells of itself.
        The accounts are worked within `around`, which is told of each that is done.
        """
        super().__init__()
        self._members = members
        self._state = state
        self._sinks = sinks
        self._labels = labels
        self._around = around
        self._healthcheck = healthcheck
        self._started = time.monotonic()
        self._deadline = Deadline(deadline)
        self._lock = threading.Lock()
        self._alike = Alike()
        self._doors = Doors()
        self._order = Order(members, self._deadline.share(ACCOUNTS_SHARE))
        self._results = Results(account.name for account in members.accounts)
        self._visit: Visit | None = None
        self._worked = 0.0
        self._told = 0

    def run(self) -> ExitStatus:
        """Work them all, tell of it, and return what the process is to exit with."""
        if self._healthcheck:
            self._healthcheck.start()
        try:
            self.work()
            # Of devices of whom nothing was heard, what is served may stand.
            is_whole = all(result.is_walked for result in self._results.values())
            for sink in self._sinks:
                if is_whole:
                    self.survives(partial(sink.prepare, self._deadline), sink)
                self.survives(partial(sink.settle, self._deadline), sink)
                sink.hear(self._results.offset())
            told = partial(deliver_run, self._heard(), self._deadline, self)
            told = partial(told, self.registry, self._doors.bound)
            self.survives(told, *self._sinks)
        finally:
            self._finish()
        self.tell()
        if self._healthcheck:
            self._healthcheck.end(self.status(), self._deadline)
        return self.status()

    def status(self) -> ExitStatus:
        """Return the exit status as far as it is known now."""
        found = {self._results.status(), sinks_status(self._sinks)}
        return worst({*found, *self.statuses()})

    def registry(self) -> CollectorRegistry:
        """Return the run's own series, as far as they are known now."""
        shard = self._members.shard
        return run_registry(
            self._labels,
            durations={"accounts": self._worked},
            accounts=self._results.states(),
            shards=shard.count if shard else None,
            **lasting(self._state, self.status(), self._stages()),
            **self._results.counted(self._state.dropped),
        )

    def tell(self) -> None:
        """Log the one line of this run."""
        if (more := self._told - MOST_TOLD) > 0:
            log.warning(
                "%d more accounts are not well; LOG_LEVEL=DEBUG names them", more
            )
        self._alike.tell()
        tell_end(self.status(), self._started, "; ".join(self._parts()))

    def work(self, visit: Visit | None = None) -> None:
        """Work all accounts; `visit` each where nothing is to be pushed."""
        self._visit = visit
        alike.set(self._alike)
        self._alike.known = no_memory(self._state)
        self.survives(self._work, *self._sinks)
        self._worked = time.monotonic() - self._started

    # -- the accounts ----------------------------------------------------------------

    def _work(self) -> None:
        parts = {
            sink.name.replace("-", "_"): partial(Part, sink, threading.Lock())
            for sink in self._sinks
            if sink.is_for_all
        }
        slots = []
        for _ in range(min(self._members.at_once, len(self._results))):
            try:
                slots.append(start(partial(self._slot, parts)))
            except EcoflowPushError:
                # With those that there are, it only takes longer.
                if not slots:
                    raise
        # A little longer than the work's own bounds: its words are the better ones.
        patience = Deadline(self._deadline.left() * ACCOUNTS_SHARE + 1.0)
        with self._around as step:
            done = 0
            while any(slot.is_alive() for slot in slots) and patience.left() > 0:
                for slot in slots:
                    slot.join(min(0.1, patience.left()))
                before, done = done, self._results.done()
                step(done - before)
        for account in self._members.accounts:
            result = self._results[account.name]
            if result.is_begun and not result.is_ended:
                self._order.is_late(account)
                self._tell_of([account], "hung: the next runs work it last")
        if rest := self._order.rest():
            cure = "the next run begins there; raise RUN_DEADLINE or ACCOUNTS_AT_ONCE"
            self._tell_of(rest, f"no time left: {cure}")

    def _slot(self, parts: Mapping[str, partial[Part]]) -> None:
        """Work one account after the other."""
        while turn := self._order.next():
            of_whom.set(f"account {turn.account.label}: ")
            result = self._results[turn.account.name]
            result.is_begun = True
            own = {name: part(turn.account.name) for name, part in parts.items()}
            status = attempt(partial(self._walk, turn, result, own), self._level_of)
            self._order.end(turn)
            result.end(ExitStatus(status))

    def _walk(self, turn: Turn, result: Result, own: Mapping[str, Sink]) -> ExitStatus:
        settings = self._members.settings_of(turn.account)
        settings.run_deadline = turn.deadline.left()
        warn_of(settings.notes)
        folder = self._members.folder_of(turn.account)
        try:
            state = State.open(folder, looks=self._visit is not None)
        except LockedError:
            result.is_locked = True
            raise
        with state:
            whole = self._state
            given, dropped = None if self._visit else own, state.dropped_before(whole)
            worker = create_worker(settings, state, folder, (), given, is_alone=False)
            visit = partial(self._visit, turn.account, worker) if self._visit else None
            walk = visit or partial(worker.run_for_one, self._doors)
            status = walk()
            result.keep(worker, dropped)
            if status != ExitStatus.OK:
                worker.tell(self._level_of(status))
        return status

    def _level_of(self, status: ExitStatus) -> int:
        with self._lock:
            self._told += 1
            if self._told > MOST_TOLD:
                return logging.DEBUG
        return level_of(status)

    def _tell_of(self, accounts: Sequence[Account], text: str) -> None:
        """Say in one line what became of accounts that could not say it."""
        status = ExitStatus.TEMPFAIL
        for account in accounts:
            self._results[account.name].end(status)
        more = len(accounts) - MOST_NAMED
        whose = ", ".join(account.label for account in accounts[:MOST_NAMED])
        whose += f" and {more} more" if more > 0 else ""
        word = "account" if len(accounts) == 1 else "accounts"
        said = f"{word} {whose}: exit {status} {status.name}: {text}"
        log.log(self._level_of(status), "%s", said)

    # -- what comes of it ------------------------------------------------------------

    def _heard(self) -> list[Sink]:
        """Return who is to be told: a receiver that takes nothing is left alone.

        While samples wait for it, the run's own series are not to go before them.
        """
        fared = [(sink, self._results.fared(sink.name)) for sink in self._sinks]
        return [s for s, all_ in fared if not all_ or any(e.may_tell for e in all_)]

    def _stages(self) -> set[str]:
        """Return the stages in which anything failed."""
        found = self._results.stages()
        if sinks_status(self._sinks) != ExitStatus.OK:
            found.add("push")
        if ExitStatus.SOFTWARE in self.statuses():
            found.add("bug")
        return found

    def _parts(self) -> Iterator[str]:
        shard = self._members.shard
        if shard:
            yield f"shard {shard.index} of {shard.count}"
        yield from self._results.parts()
        for sink in self._sinks:
            fared = self._results.fared(sink.name)
            errors = (*sink.delivery.errors, *sink.delivery.run_errors)
            if unwell := sum(not each.is_well for each in fared):
                yield f"{sink.name}: not well for {unwell} of {len(fared)} accounts"
            elif not errors:
                yield f"{sink.name}: ok"
            yield from sorted({str(error) for error in errors})
        yield from self.found

    def _finish(self) -> None:
        for sink in self._sinks:
            if not sink.stays:
                with contextlib.suppress(OSError):
                    sink.close()
        dropped = self._results.counted(self._state.dropped).get("dropped")
        self._state.dropped = dict(dropped or self._state.dropped)
        self._alike.known = ""
        remember(self._state, self.status(), self._stages())
