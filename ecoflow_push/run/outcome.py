"""How a run went: its exit status, and the one line that tells it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from ecoflow_push import DOCS
from ecoflow_push.api.models import short_sn
from ecoflow_push.errors import EcoflowApiException, EcoflowPushError, ExitStatus
from ecoflow_push.net.deadline import limit_of

if TYPE_CHECKING:
    from ecoflow_push.api.base import Reading
    from ecoflow_push.run.updates import Updates
    from ecoflow_push.sinks.base import Delivery, Sink

log = logging.getLogger(__name__)

# The first of these that applies is the run's status (docs/exit-statuses.md).
PRECEDENCE = (
    ExitStatus.CONFIG,
    ExitStatus.NOPERM,
    ExitStatus.SOFTWARE,
    ExitStatus.OSERR,
    ExitStatus.IOERR,
    ExitStatus.PROTOCOL,
    ExitStatus.UNAVAILABLE,
    ExitStatus.TEMPFAIL,
    ExitStatus.PARTIAL,
    ExitStatus.OK,
)
#: Where a run can fail; the label `stage`.
STAGES = ("connect", "collect", "push", "bug")


class Learnt:
    """What is left of a reading when its values are let go."""

    __slots__ = ("error", "online", "sn", "source", "state", "unread", "values")

    def __init__(self, reading: Reading) -> None:
        self.sn = reading.device.sn
        self.state = reading.state
        self.source = reading.source
        self.online = False if self.state == "offline" else reading.device.online
        self.error = reading.error
        #: How many there were, None where there was no snapshot.
        self.values = len(reading.snapshot.quotas) if reading.snapshot else None
        #: Its answer, if nothing in it could be read, else None.
        self.unread = _unread(reading) if reading.is_unread else None


class Faults:
    """What nobody foresaw, and what it is that was met instead of a bug."""

    def __init__(self, found: dict[str, EcoflowPushError] | None = None) -> None:
        """Add to what is `found` elsewhere, by what is wrong."""
        self.bug = False
        self.found = {} if found is None else found

    def is_bug(self, exc: Exception) -> bool:
        """Note what nobody foresaw, and return whether it is a bug (70).

        Else it is the host (71) or the installation (78) that lacks something, or an
        error that says itself what it means.
        """
        fault = limit_of(exc) or (exc if isinstance(exc, EcoflowPushError) else None)
        if fault is None:
            from ecoflow_push.start.installation import fault_of

            fault = fault_of(exc)
        if fault:
            self.found[str(fault)] = fault
            return False
        self.bug = True
        return True

    def survives(self, work: Callable[[], object], *sinks: Sink) -> bool:
        """Do a step of the run; what it raises is noted, not raised.

        Returns False then; of these sinks nobody knows what they have.
        """
        try:
            work()
        except Exception as exc:  # a bug, with one redacted traceback, or none of ours
            if self.is_bug(exc):
                log.exception("a bug in ecoflow_push, please report it")
            for sink in sinks:
                sink.delivery.is_broken = True
            return False
        return True

    def statuses(self) -> set[ExitStatus]:
        """Return what each of them means for the run."""
        found = {fault.status for fault in self.found.values()}
        return found | ({ExitStatus.SOFTWARE} if self.bug else set())

    def status(self) -> ExitStatus:
        """Return the exit status as far as it is known now."""
        return worst({ExitStatus.OK} | self.statuses())


class Outcome(Faults):
    """What is known of a run so far; `named` are the serials asked for by name."""

    def __init__(
        self, updates: Updates, deliveries: Mapping[str, Delivery] | None = None
    ) -> None:
        """Look at what is counted elsewhere: how each sink fares, by its name."""
        super().__init__(updates.faults)
        self.named = tuple(updates.wanted.serials)
        self.learnt: dict[str, Learnt] = {}
        #: What ended collecting for all devices not yet read.
        self.error: EcoflowApiException | None = None
        self._updates = updates
        self._deliveries = deliveries or {}

    def note(self, reading: Reading) -> None:
        """Keep what was learnt of a device, without the values."""
        self.learnt[reading.device.sn] = Learnt(reading)

    def counts(self) -> Counter[str]:
        """Return how many devices are in each state."""
        return Counter(learnt.state for learnt in self.learnt.values())

    def status(self) -> ExitStatus:
        """Return the exit status as far as it is known now."""
        found = {self._collect_status(), self._sink_status()}
        return worst(found | self.statuses())

    def failed_stages(self) -> set[str]:
        """Return the stages of STAGES in which anything failed."""
        faults = self.found.values()
        found = {
            "connect": self.error is not None,
            "collect": self.counts()["failed"] > 0
            or (self.error is None and self._collect_status() != ExitStatus.OK),
            "push": any(
                s.errors or s.run_errors or s.is_broken
                for s in self._deliveries.values()
            ),
            "bug": self.bug or any(f.status == ExitStatus.SOFTWARE for f in faults),
        }
        return {stage for stage, has_failed in found.items() if has_failed}

    def line(self) -> str:
        """Return what came out: devices, samples, sinks, and what went wrong."""
        counts = ", ".join(
            f"{count} {state}" for state, count in sorted(self.counts().items())
        )
        samples = f"{self._updates.samples} samples"
        if too_many := self._updates.skipped["too_many"]:
            samples += f", {too_many} beyond the most of a device ({DOCS}/metrics.md)"
        parts = [f"devices: {counts or 'none'}", samples]
        parts += [
            f"{name}: ok{sink.note}"
            for name, sink in sorted(self._deliveries.items())
            if not (sink.errors or sink.run_errors or sink.is_broken)
        ]
        return "; ".join([*parts, *self._problems()])

    def _collect_status(self) -> ExitStatus:
        learnt = self.learnt.values()
        failed = [each for each in learnt if each.state == "failed"]
        refused = [each for each in learnt if each.state == "refused"]
        if any(each.state in ("ok", "offline") for each in learnt):
            missed = failed or any(map(self._is_named, refused))
            return ExitStatus.PARTIAL if missed else ExitStatus.OK
        # What is merely closed to us says less than what went wrong.
        errors = [self.error, *(each.error for each in failed or refused)]
        return worst({e.status for e in errors if e} or {ExitStatus.UNAVAILABLE})

    def _sink_status(self) -> ExitStatus:
        """Return what became of this run's snapshots, and of what waited before.

        It follows from what the sinks have, and only of the one that is alone from
        which fault it met. Where nothing was learnt there was nothing to lose, and why
        nothing was learnt says more.
        """
        sinks = self._deliveries.values()
        failed = [sink for sink in sinks if sink.errors]
        if not failed:
            told = all(not sink.run_errors for sink in sinks)
            return ExitStatus.OK if told else ExitStatus.PARTIAL
        if not self._updates.has_news:
            return ExitStatus.PARTIAL
        faults = {worst({error.status for error in sink.errors}) for sink in failed}
        if any(sink.delivered for sink in sinks):
            deferred = ExitStatus.TEMPFAIL in faults
            return ExitStatus.TEMPFAIL if deferred else ExitStatus.PARTIAL
        waits = any(sink.waits for sink in failed)
        if len(sinks) == 1 or faults == {ExitStatus.PROTOCOL}:
            return faults.pop()
        return ExitStatus.TEMPFAIL if waits else ExitStatus.IOERR

    def _problems(self) -> Iterable[str]:
        """Return what went wrong, each cause once, with the devices it concerns."""
        concerned: dict[str, list[str]] = {}
        concerned |= {text: [] for text in self.found}
        if self.error:
            concerned[str(self.error)] = []
        for sn, learnt in self.learnt.items():
            fault = learnt.error or learnt.unread
            if fault and self._is_news(learnt):
                concerned.setdefault(str(fault), []).append(short_sn(sn))
        for sink in self._deliveries.values():
            for error in (*sink.errors, *sink.run_errors):
                concerned.setdefault(str(error), [])
        for whole, serials in concerned.items():
            # A server may quote what it was sent, or lead to it.
            text = whole
            for sn in self.learnt:
                text = text.replace(sn, short_sn(sn))
            more = f" and {len(serials) - 8} more" if len(serials) > 8 else ""
            yield f"{', '.join(serials[:8])}{more}: {text}" if serials else text

    def _is_named(self, learnt: Learnt) -> bool:
        return self._updates.wanted.is_asked_for(learnt.sn)

    def _is_news(self, learnt: Learnt) -> bool:
        """Return False for what is no trouble, or was told today."""
        if learnt.state == "refused":
            told_before = learnt.sn in self._updates.told_before
            return self._is_named(learnt) or not told_before
        if learnt.unread:
            return learnt.sn not in self._updates.told_before
        return learnt.state != "offline"


def _unread(reading: Reading) -> EcoflowPushError:
    """Return what to say of a device that is heard and not understood."""
    messages = reading.snapshot.unread if reading.snapshot else ()
    names = ", ".join(message for message, _ in messages[:8])
    return EcoflowPushError(
        f"answers in messages that are not known yet ({names})",
        f"report them, {DOCS}/app-account.md#what-is-not-understood says how",
    )


def worst(found: set[ExitStatus]) -> ExitStatus:
    """Return the first of these that applies."""
    return next(status for status in PRECEDENCE if status in found)
