"""Worker: one run, from the device list to the last push; a stream of devices."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ecoflow_push.api.base import Reading
from ecoflow_push.api.models import DeviceInfo
from ecoflow_push.errors import EcoflowApiException, ExitStatus
from ecoflow_push.metrics.run_series import run_registry
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.run.collect import COLLECT_SHARE, collect
from ecoflow_push.run.outcome import Outcome
from ecoflow_push.run.telling import (
    Fared,
    deliver_run,
    lasting,
    remember,
    send,
    tell_end,
)

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.api.base import EcoflowApiClient
    from ecoflow_push.memory.state import State
    from ecoflow_push.metrics.labels import Labels
    from ecoflow_push.run.doors import Doors
    from ecoflow_push.run.healthcheck import Healthcheck
    from ecoflow_push.run.updates import Updates
    from ecoflow_push.sinks.base import Sink, Update

# Of what collecting left, for all sinks' devices; the rest is for the run's own series.
DEVICES_PUSH_SHARE = 0.85


class Worker:
    """Takes one snapshot of every device and delivers it; one object, one run."""

    def __init__(
        self,
        sources: Sequence[EcoflowApiClient],
        sinks: Sequence[Sink],
        updates: Updates,
        state: State,
        *,
        labels: Labels,
        deadline: float,
        healthcheck: Healthcheck | None = None,
        shown: Callable[[Iterable[Reading], EcoflowApiClient], Iterable[Reading]]
        | None = None,
    ) -> None:
        """Store what is needed; `run` or `collect` does the work.

        `deadline` (seconds) starts now. `shown` passes on the readings of a source, and
        shows that they come.
        """
        #: The sources' names for people.
        self.titles = {source.name: source.title for source in sources}
        self._sources = sources
        self._sinks = sinks
        self.updates = updates
        self._state = state
        self.labels = labels
        self._healthcheck = healthcheck
        self._shown = shown
        self._started = time.monotonic()
        self._deadline = Deadline(deadline)
        self.outcome = Outcome(updates, {sink.name: sink.delivery for sink in sinks})
        self._durations: dict[str, float] = {}
        self._ending: list[str] = []
        self._settled: list[Sink] = []
        self._send = send
        self._serials: dict[str, None] = {}
        #: How far our clock is ahead of EcoFlow's (s), None as long as it is unknown.
        self.offset: float | None = None

    def run(self) -> ExitStatus:
        """Walk the whole road and return what the process is to exit with."""
        outcome = self.outcome
        if self._healthcheck:
            self._healthcheck.start()
        try:
            self._walk()
            # Whatever happened: the run's series say so.
            told = partial(deliver_run, self._sinks, self._deadline, outcome)
            outcome.survives(partial(told, self.registry), *self._sinks)
        finally:
            self._finish()
        # Last, so that no signal can contradict it.
        self.tell()
        if self._healthcheck:
            self._healthcheck.end(outcome.status(), self._deadline)
        return outcome.status()

    def run_for_one(self, doors: Doors) -> ExitStatus:
        """Do so for one account of many; who runs them all tells of the run.

        `doors` is what was found out of receivers.
        """
        self._send = doors.send
        for sink in self._sinks:
            sink.share(doors.claims)
        try:
            self._walk()
        finally:
            self._finish()
        return self.outcome.status()

    def _walk(self) -> None:
        """Collect and deliver; the books are right when this returns."""
        survives = self.outcome.survives
        if survives(partial(self.collect, self._give), *self._sinks):
            began = time.monotonic()
            self._deliver()
            self._durations["push"] = time.monotonic() - began
        for sink in self._sinks:
            self._settle(sink)

    def _finish(self) -> None:
        outcome = self.outcome
        self.leave()
        remember(self._state, outcome.status(), outcome.failed_stages())

    # -- collecting -----------------------------------------------------------------

    def collect(self, take: Callable[[Update], None]) -> None:
        """Read the devices, and hand over what becomes of each as it comes."""
        began = time.monotonic()
        outcome, named = self.outcome, self.outcome.named
        share = self._deadline.share(COLLECT_SHARE)
        try:
            readings: Iterable[Reading] = collect(self._sources, named, share)
            if self._shown:
                readings = self._shown(readings, self._sources[0])
            for reading in readings:
                self._note(reading, take)
        except EcoflowApiException as exc:
            outcome.error = exc
        # Nobody listed them: those we knew are still the ones to speak of.
        wanted = self._sources[0].wanted or list(
            map(DeviceInfo, named or self._state.devices)
        )
        for device in wanted:
            if outcome.learnt.keys().isdisjoint((device.sn, device.sn.upper())):
                unread = Reading(device, "", error=outcome.error, asked=False)
                self._note(unread, take)
        if self._sources[0].listed is not None:
            for update in self.updates.of_the_rest(self._listed()):
                take(update)
        connect = sum(source.connect_seconds for source in self._sources)
        self._durations["connect"] = connect
        self._durations["collect"] = time.monotonic() - began - connect

    def _note(self, reading: Reading, take: Callable[[Update], None]) -> None:
        self.outcome.note(reading)
        is_listed = reading.device.sn in self._listed()
        take(self.updates.of(reading, is_listed=is_listed))

    def _listed(self) -> dict[str, None]:
        """Return the serials of the account's list, none if nobody answered it.

        Of thousands a set would take five times the memory.
        """
        listed = self._sources[0].listed
        if listed and not self._serials:
            self._serials = dict.fromkeys([device.sn for device in listed])
        return self._serials

    def _give(self, update: Update) -> None:
        if self.offset is None:
            self.offset = clock_offset(self._sources)
        for sink in self._sinks:
            sink.hear(self.offset)
            sink.take(update, self._deadline)
        if update.action == "end":
            self._ending.append(update.sn)

    # -- delivering -----------------------------------------------------------------

    def _deliver(self) -> None:
        share = self._deadline.share(DEVICES_PUSH_SHARE)
        survives = self.outcome.survives
        ready = {s for s in self._sinks if survives(partial(s.prepare, share), s)}
        for place, sink in enumerate(self._sinks):
            part = share.share(1 / (len(self._sinks) - place))
            if sink in ready:
                survives(partial(self._send, sink, sink.deliver, part), sink)
            self._settle(sink)
            for other in self._sinks[place + 1 :]:
                other.hear(sink.clock_offset())
        for sn in self._ending:
            if all(s.has_ended(sn) and not s.delivery.is_broken for s in self._sinks):
                self._state.devices.pop(sn, None)

    def _settle(self, sink: Sink) -> None:
        """Whatever happened: what was collected is stored, what is lost is counted."""
        if sink not in self._settled:
            self._settled.append(sink)
            self.outcome.survives(partial(sink.settle, self._deadline), sink)

    # -- saying ---------------------------------------------------------------------

    def registry(self) -> CollectorRegistry:
        """Return the run's own series, as far as they are known now."""
        status, state = self.outcome.status(), self._state
        stages = self.outcome.failed_stages()
        return run_registry(
            self.labels,
            durations=self._durations,
            **lasting(state, status, stages),
            **self.counted(),
        )

    def counted(self) -> dict[str, Any]:
        """Return what this run counted, as the run's own series tell it."""
        updates = self.updates
        backlogs = [sink.backlog() for sink in self._sinks]
        backlog = next((each for each in backlogs if each), None)
        return {
            "devices": {"ok": 0, "offline": 0, "refused": 0, "failed": 0}
            | self.outcome.counts(),
            "samples": updates.samples,
            "skipped": updates.skipped,
            "unread": updates.unread,
            "waiting": backlog.samples if backlog else 0,
            "oldest_at": backlog.oldest_at if backlog else None,
            "resting": backlog.resting if backlog else 0,
            "dropped": backlog.dropped if backlog else None,
        }

    def fared(self) -> dict[str, Fared]:
        """Return how each sink fared, by its name."""
        return {sink.name: Fared(sink) for sink in self._sinks}

    def tell(self, level: int | None = None) -> ExitStatus:
        """Log the one line of this run, and return its status."""
        status = self.outcome.status()
        tell_end(status, self._started, self.outcome.line(), level)
        return status

    def leave(self) -> None:
        """Close all connections."""
        leaving: list[EcoflowApiClient | Sink] = [*self._sources]
        leaving += [sink for sink in self._sinks if not sink.stays]
        for each in leaving:
            # A close that fails has closed all the same.
            with contextlib.suppress(OSError):
                each.close()


def clock_offset(sources: Sequence[EcoflowApiClient]) -> float | None:
    """Return how far our clock is ahead of EcoFlow's (s), None if it is unknown."""
    offsets = [source.clock_offset() for source in sources]
    known = [offset for offset in offsets if offset is not None]
    return max(known, key=abs, default=None)
