"""The trials: the probes of --check, on settings that are not yet written."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from ecoflow_push.api import create_client
from ecoflow_push.config.plugs import SINKS
from ecoflow_push.errors import Fault, Finding, SettingsError
from ecoflow_push.memory.state import State
from ecoflow_push.metrics.labels import create_labels
from ecoflow_push.net.deadline import Deadline, within
from ecoflow_push.redact import redact
from ecoflow_push.run.show import list_devices, say
from ecoflow_push.run.updates import create_updates
from ecoflow_push.run.worker import Worker, clock_offset
from ecoflow_push.sinks import create_sinks
from ecoflow_push.sinks.base import late
from ecoflow_push.sinks.clock import MOST_OFFSET_SECONDS

if TYPE_CHECKING:
    from ecoflow_push.api.base import EcoflowApiClient
    from ecoflow_push.errors import ExitStatus
    from ecoflow_push.init.draft import Draft
    from ecoflow_push.sinks.base import Sink

OTHER_CURE = "try again"


class Trials:
    """Tries sources and sinks, and says what it found; `folder` is for a state."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        #: How far our clock is ahead of EcoFlow's (s), None as long as it is unknown.
        self._offset: float | None = None
        #: The host that knows the credentials tried last, if it is another one.
        self.known_at = ""

    def read(self, draft: Draft, name: str) -> ExitStatus | None:
        """Show the devices, and return how a run would end; None if that is in vain.

        The draft speaks of the source `name` alone.
        """
        self.known_at = ""
        try:
            settings = draft.settings()
            with State.open(self._folder, looks=True) as state:
                client = create_client(settings, name, state, None)
                try:
                    if not self._is_open(client, settings.run_deadline):
                        return None
                    worker = Worker(
                        [client],
                        [],
                        create_updates(settings, state, ()),
                        state,
                        labels=create_labels(settings),
                        deadline=settings.run_deadline,
                    )
                    say("\n")
                    return list_devices(worker)
                finally:
                    client.close()
        except SettingsError as exc:
            show_faults(exc.faults)
            return None

    def push(self, draft: Draft, name: str) -> bool:
        """Send a trial to one sink, and return whether all is well."""
        others = [other for other in SINKS if other != name]
        found: list[Finding] = []
        try:
            settings = draft.without(others, "sinks").settings()
            with State.open(self._folder, looks=True) as state:
                for sink in create_sinks(settings, state, self._folder, {}):
                    deadline = Deadline(settings.run_deadline)
                    if not within(
                        deadline, partial(self._probe, sink, deadline, found)
                    ):
                        found = [Finding.of(sink.name, late(sink.name))]
                    sink.close()
        except SettingsError as exc:
            show_faults(exc.faults)
            return False
        return show(found)

    def _is_open(self, client: EcoflowApiClient, seconds: float) -> bool:
        """Go the way to EcoFlow, and return whether the devices can be asked for."""
        is_well = show(client.probe(Deadline(seconds)))
        self.known_at = client.known_at
        self._offset = clock_offset([client])
        if not self._is_clock_right():
            text = f"{self._offset:+.0f} s from the service's"
            show(
                [Finding("wrong", "clock", text, "set the clock, and keep it with NTP")]
            )
        return is_well

    def _is_clock_right(self) -> bool:
        return self._offset is None or abs(self._offset) <= MOST_OFFSET_SECONDS

    def _probe(self, sink: Sink, deadline: Deadline, found: list[Finding]) -> None:
        if self._offset is None or not self._is_clock_right():
            # It may have been set since.
            self._offset = sink.ask_the_time(deadline.share(0.3)) or self._offset
        sink.hear(self._offset)
        found += sink.probe(deadline)


def show(findings: Iterable[Finding]) -> bool:
    """Print each finding, and return whether none is wrong."""
    is_well = True
    for finding in findings:
        is_wrong = finding.mark == "wrong"
        cure = finding.cure or OTHER_CURE * is_wrong
        text = f"{finding.text}: {cure}" if cure else finding.text
        line = redact(f"{finding.mark:<8} {finding.step}: {text}")
        say("".join(c if c.isprintable() else "?" for c in line) + "\n")
        is_well = is_well and not is_wrong
    return is_well


def show_faults(faults: Iterable[Fault]) -> None:
    """Print what is wrong with settings."""
    for fault in faults:
        show([Finding("wrong", fault.variable, fault.text, fault.cure or "correct it")])
