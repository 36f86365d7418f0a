"""How a run went: its exit status, and the one line that tells it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ecoflow_push.api.models import short_sn
from ecoflow_push.errors import (
    ExitStatus,
    SinkDown,
    SinkError,
    SinkRedirected,
    SinkUnauthorized,
)
from ecoflow_push.run.collect import Collection, Reading
from ecoflow_push.run.updates import Truth

# The first of these that applies is the run's status (docs/exit-statuses.md).
PRECEDENCE = (
    ExitStatus.NOPERM,
    ExitStatus.SOFTWARE,
    ExitStatus.IOERR,
    ExitStatus.PROTOCOL,
    ExitStatus.UNAVAILABLE,
    ExitStatus.TEMPFAIL,
    ExitStatus.PARTIAL,
    ExitStatus.OK,
)


#: Where a run can fail; the label `stage`.
STAGES = ("connect", "collect", "push", "bug")


class SinkOutcome:
    """How one sink fared."""

    def __init__(self) -> None:
        self.delivered = 0
        self.errors: list[SinkError] = []
        #: Somebody may still be talking to it, and is not heard any more.
        self.is_abandoned = False
        #: What is worth a word beside "ok".
        self.note = ""

    @property
    def is_closed(self) -> bool:
        """Whether sending on is in vain: it is down, or it refuses us."""
        kinds = (SinkDown, SinkRedirected, SinkUnauthorized)
        return any(isinstance(error, kinds) for error in self.errors)

    @property
    def has_refused(self) -> bool:
        """Whether asking again, even later in this run, would be impolite."""
        kinds = (SinkRedirected, SinkUnauthorized)
        return any(isinstance(error, kinds) for error in self.errors)


class Outcome:
    """What is known of a run so far; `named` are the serials asked for by name."""

    def __init__(self, named: Sequence[str]) -> None:
        self.named = tuple(named)
        self.collection = Collection()
        self.truth = Truth()
        self.sinks: dict[str, SinkOutcome] = {}
        self.bug = False

    def status(self) -> ExitStatus:
        """Return the exit status as far as it is known now."""
        found = {self._collect_status(), self._sink_status()}
        if self.bug:
            found.add(ExitStatus.SOFTWARE)
        return _worst(found)

    def failed_stages(self) -> set[str]:
        """Return the stages of STAGES in which anything failed."""
        readings = self.collection.readings.values()
        found = {
            "connect": self.collection.error is not None,
            "collect": any(r.state == "failed" for r in readings)
            or (
                self.collection.error is None
                and self._collect_status() != ExitStatus.OK
            ),
            "push": any(sink.errors for sink in self.sinks.values()),
            "bug": self.bug,
        }
        return {stage for stage, has_failed in found.items() if has_failed}

    def line(self) -> str:
        """Return what came out: devices, samples, sinks, and what went wrong."""
        states = Counter(r.state for r in self.collection.readings.values())
        counts = ", ".join(
            f"{count} {state}" for state, count in sorted(states.items())
        )
        parts = [f"devices: {counts or 'none'}", f"{self.truth.samples} samples"]
        parts += [
            f"{name}: ok{sink.note}"
            for name, sink in self.sinks.items()
            if not sink.errors
        ]
        return "; ".join([*parts, *self._problems()])

    def _collect_status(self) -> ExitStatus:
        readings = self.collection.readings.values()
        failed = [reading for reading in readings if reading.state == "failed"]
        refused = [reading for reading in readings if reading.state == "refused"]
        if any(reading.state in ("ok", "offline") for reading in readings):
            missed = failed or any(r.device.sn in self.named for r in refused)
            return ExitStatus.PARTIAL if missed else ExitStatus.OK
        # What is merely closed to us says less than what went wrong.
        errors = [self.collection.error, *(r.error for r in failed or refused)]
        return _worst({e.status for e in errors if e} or {ExitStatus.UNAVAILABLE})

    def _sink_status(self) -> ExitStatus:
        failed = [sink for sink in self.sinks.values() if sink.errors]
        if not failed:
            return ExitStatus.OK
        deferred = any(
            error.status == ExitStatus.TEMPFAIL
            for sink in failed
            for error in sink.errors
        )
        if any(sink.delivered for sink in self.sinks.values()):
            return ExitStatus.TEMPFAIL if deferred else ExitStatus.PARTIAL
        found = {_worst({error.status for error in sink.errors}) for sink in failed}
        nothing_new = not any(verdict.fresh for verdict in self.truth.verdicts)
        if found == {ExitStatus.IOERR} and nothing_new:
            # Nothing of this run was lost; why nothing was collected says more.
            return ExitStatus.PARTIAL
        if len(found) == 1:
            return found.pop()
        # Several sinks that fail in different ways: nothing was delivered anywhere.
        stored = any(error.is_stored for sink in failed for error in sink.errors)
        return ExitStatus.TEMPFAIL if deferred or stored else ExitStatus.IOERR

    def _problems(self) -> Iterable[str]:
        """Return what went wrong, each cause once, with the devices it concerns."""
        concerned: dict[str, list[str]] = {}
        if self.collection.error:
            concerned[str(self.collection.error)] = []
        for sn, reading in self.collection.readings.items():
            if reading.error and self._is_news(sn, reading):
                concerned.setdefault(str(reading.error), []).append(short_sn(sn))
        for sink in self.sinks.values():
            for error in sink.errors:
                concerned.setdefault(str(error), [])
        for text, serials in concerned.items():
            more = f" and {len(serials) - 8} more" if len(serials) > 8 else ""
            yield f"{', '.join(serials[:8])}{more}: {text}" if serials else text

    def _is_news(self, sn: str, reading: Reading) -> bool:
        """Return False for what is no trouble, or was told today."""
        if reading.state == "refused":
            return sn in self.named or sn not in self.truth.told_before
        return reading.state != "offline"


def _worst(found: set[ExitStatus]) -> ExitStatus:
    return next(status for status in PRECEDENCE if status in found)
