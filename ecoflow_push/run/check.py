"""Check: a list of probes, each in the words of a run, fit for a bug report.

Nothing of it lasts: no state, no spool; what goes to a sink is taken back. Every line
is a mark (errors.Finding), the step, what was found and, behind the last colon, what to
do about it (docs/check.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ecoflow_push.api import create_client
from ecoflow_push.api.models import short_sn
from ecoflow_push.config.settings import how_to_set_a_sink
from ecoflow_push.errors import ExitStatus, Finding, NoDevices, SinkError
from ecoflow_push.metrics.labels import create_labels
from ecoflow_push.net.deadline import Deadline, within
from ecoflow_push.run.around import create_around
from ecoflow_push.run.outcome import Learnt
from ecoflow_push.run.say import show, show_faults, show_head, show_status, unnamed
from ecoflow_push.run.updates import create_updates
from ecoflow_push.run.worker import Worker, clock_offset
from ecoflow_push.sinks import create_sinks, create_standing
from ecoflow_push.sinks.base import late
from ecoflow_push.sinks.clock import MOST_OFFSET_SECONDS
from ecoflow_push.sinks.trial import wrong

if TYPE_CHECKING:
    from ecoflow_push.api.base import EcoflowApiClient
    from ecoflow_push.config.settings import Settings
    from ecoflow_push.memory.state import State
    from ecoflow_push.metrics.labels import Labels
    from ecoflow_push.run.around import Around
    from ecoflow_push.run.results import Result
    from ecoflow_push.run.updates import Updates
    from ecoflow_push.sinks.base import Sink

__all__ = ["Check", "create_check", "show_faults"]

ECOFLOW_SHARE = 0.6
#: Steps of the way to EcoFlow, which its sources have in common.
SHARED_STEPS = ("DNS", "TLS", "DNS and TLS", "EcoFlow")


class Check:
    """Goes through the steps of one run; one object, one check."""

    def __init__(
        self,
        sources: Sequence[EcoflowApiClient],
        sinks: Sequence[Sink],
        updates: Updates,
        state: State,
        *,
        labels: Labels,
        deadline: float,
        around: Around,
        missing: Finding | None = None,
    ) -> None:
        """Store what is needed; `deadline` (seconds) starts now.

        `missing` is what a run would not even begin without.
        """
        self.sources = sources
        self.sinks = sinks
        self.updates = updates
        self._state = state
        self._labels = labels
        self._missing = missing
        self._around = around
        self._deadline = Deadline(deadline)
        self._worker = Worker(
            sources, sinks, updates, state, labels=labels, deadline=deadline
        )
        self._outcome = self._worker.outcome
        self._is_clock_told = False

    def run(self) -> ExitStatus:
        """Print what each probe found, and return what a run would exit with."""
        show_head()
        ways = " and ".join(source.title for source in self.sources)
        try:
            is_well = self.shows(
                *self.of_settings(f"complete; devices are read by {ways}"),
                *self.of_ecoflow(),
                *self.of_sinks(),
            )
        finally:
            self.leave()
        return show_status(self.status(), is_well=is_well)

    def status(self) -> ExitStatus:
        """Return what a run would exit with, as far as it is known."""
        return ExitStatus.CONFIG if self._missing else self._outcome.status()

    def told(self, result: Result) -> None:
        """Note what was found of an account."""
        result.keep(self._worker)
        result.end(self.status())

    def leave(self) -> None:
        """Close all connections."""
        self._worker.leave()

    def shows(self, *probes: Iterator[Finding], whose: str = "") -> bool:
        """Print what each probe finds, and return whether all is well.

        `whose` it is begins each line, where there are many.
        """
        is_well = True
        for probe in probes:
            for finding in probe:
                finding.text = self._masked(finding.text)
                finding.step = whose + finding.step
                is_well &= finding.mark != "wrong"
                show(finding)
        return is_well

    def of_settings(self, text: str) -> tuple[Iterator[Finding], ...]:
        """Return the probes of what does not depend on an account; `text` says it."""
        return (self._settings(text),)

    def of_ecoflow(self) -> tuple[Iterator[Finding], ...]:
        """Return the probes of an account."""
        return self._ecoflow(), self._clock(), self._devices()

    def of_sinks(self) -> tuple[Iterator[Finding], ...]:
        """Return the probes of where values go."""
        return self._deliveries(), self._around.monitor(self._deadline.share(1))

    def _masked(self, text: str) -> str:
        known = {*self._outcome.named, *self._outcome.learnt}
        for sn in sorted(known, key=len, reverse=True):
            text = text.replace(sn, short_sn(sn))
        return unnamed(text, self._labels.instance)

    def _settings(self, text: str) -> Iterator[Finding]:
        yield Finding("ok", "settings", text)
        yield from self._around.settings
        yield from self._around.memory(self._state)

    def _ecoflow(self) -> Iterator[Finding]:
        """Probe each source; a clock that is wrong comes before what it may upset."""
        said: set[tuple[str, str]] = set()
        for place, source in enumerate(self.sources):
            share = self._deadline.share(ECOFLOW_SHARE / (len(self.sources) - place))
            for finding in source.probe(share):
                if finding.step in ("region", "credentials"):
                    yield from self._wrong_clock(clock_offset(self.sources))
                # Of what all share, once is enough.
                what = finding.step, finding.text
                if what not in said or finding.step == "credentials":
                    said.add(what)
                    yield self._of(source, finding)

    def _of(self, source: EcoflowApiClient, finding: Finding) -> Finding:
        """Say of which source a finding is, where there are several."""
        if len(self.sources) > 1 and finding.step not in SHARED_STEPS:
            finding.text = f"{source.title}: {finding.text}"
        return finding

    def _wrong_clock(self, offset: float | None) -> Iterator[Finding]:
        """Say that the clock is wrong, once, if its `offset` (s) is known by now."""
        if offset is None or abs(offset) <= MOST_OFFSET_SECONDS or self._is_clock_told:
            return
        self._is_clock_told = True
        text = f"{offset:+.0f} s from the service's"
        yield Finding("wrong", "clock", text, "set the clock, and keep it with NTP")

    def _clock(self) -> Iterator[Finding]:
        """Read the devices, which also tells the time."""
        self._worker.collect(lambda _: None)
        offset = clock_offset(self.sources)
        for sink in self.sinks if offset is None else ():
            offset = offset if offset is not None else self._ask_the_time(sink)
        if offset is None:
            yield Finding("unknown", "clock", "nobody said what time it is")
            return
        for sink in self.sinks:
            sink.hear(offset)
        yield from self._wrong_clock(offset)
        if not self._is_clock_told:
            yield Finding("ok", "clock", f"{offset:+.0f} s from the service's")

    def _ask_the_time(self, sink: Sink) -> float | None:
        share = self._deadline.share(0.5)
        told: list[float | None] = []
        within(share, lambda: told.append(sink.ask_the_time(share)))
        return next(iter(told), None)

    def _devices(self) -> Iterator[Finding]:
        outcome = self._outcome
        asked = {
            sn: learnt
            for sn, learnt in sorted(outcome.learnt.items())
            if outcome.error is None or learnt.error is not outcome.error
        }
        if isinstance(outcome.error, NoDevices):
            yield Finding.of("devices", outcome.error)
        elif not asked:
            yield Finding("unknown", "devices", "none was asked")
        for sn, learnt in asked.items():
            product = self.updates.known(sn).product_name
            yield self._describe(f"{short_sn(sn)} ({product})", learnt)

    def _describe(self, device: str, learnt: Learnt) -> Finding:
        way = {"": "nothing"} | {each.name: each.title for each in self.sources}
        read_by = way[learnt.source]
        if learnt.values is not None:
            text = f"read by {read_by}, {learnt.values} values"
            if not learnt.values:
                text = f"{read_by}, no data"
            if learnt.unread:
                text, cure = learnt.unread.text, learnt.unread.cure
                return Finding("unknown", "device", f"{device}, {text}", cure)
            return Finding("ok", "device", f"{device}, {text}")
        if learnt.state == "offline":
            cure = "switch the device on, and look for its Wi-Fi in the app"
            return Finding("unknown", "device", f"{device}, offline, not asked", cure)
        text = learnt.error.text if learnt.error else "not readable now"
        cure = learnt.error.cure if learnt.error else ""
        text = f"{device}, not read by {read_by}: {text}"
        return Finding(
            "wrong" if self._matters(learnt) else "warning", "device", text, cure
        )

    def _matters(self, learnt: Learnt) -> bool:
        """Return whether a device that is not read is a run's trouble.

        One that is closed to these credentials, and that nobody asked for, is none
        beside others that are read.
        """
        if learnt.state != "refused" or learnt.sn in self._outcome.named:
            return True
        others = self._outcome.learnt.values()
        return all(other.state not in ("ok", "offline") for other in others)

    def _deliveries(self) -> Iterator[Finding]:
        if self._missing:
            yield self._missing
        for place, sink in enumerate(self.sinks):
            sink.has_news = self.updates.has_news
            share = self._deadline.share(0.9 / (len(self.sinks) - place))
            found: list[Finding] = []
            if not within(share, partial(_probe, sink, share, found)):
                found = [wrong(sink.name, sink.as_in_a_run(late(sink.name)))]
            errors = [f.error for f in found if isinstance(f.error, SinkError)]
            sink.delivery.errors += errors
            sink.delivery.delivered += not errors
            yield from found


def _probe(sink: Sink, deadline: Deadline, found: list[Finding]) -> None:
    found += sink.probe(deadline)


def create_check(
    settings: Settings,
    state: State,
    folder: str | None,
    only: Sequence[str],
    *,
    is_bare: bool = False,
) -> Check:
    """Return the check of the settings; `only` narrows it to some serials.

    `is_bare` says that a run does without a sink, as the demo, which then prints.
    Raises SettingsError for what cannot be built as they say.
    """
    missing = None
    if not (settings.has_sink or is_bare):
        text = "none is set, which a run does not do"
        missing = Finding("wrong", "sinks", text, how_to_set_a_sink())
    return Check(
        [create_client(settings, name, state, folder) for name in settings.sources],
        create_sinks(settings, state, folder, create_standing(settings)),
        create_updates(settings, state, only),
        state,
        labels=create_labels(settings),
        deadline=settings.run_deadline,
        around=create_around(settings, folder),
        missing=missing,
    )
