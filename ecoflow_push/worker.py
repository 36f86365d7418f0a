"""Worker: one run, from the device list to the last push."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import generate_latest

from ecoflow_push import __version__
from ecoflow_push.api import create_client
from ecoflow_push.api.models import DeviceInfo, short_sn
from ecoflow_push.collect import Collection, Reading, collect
from ecoflow_push.deadline import Deadline, within
from ecoflow_push.errors import (
    ApiOutOfTime,
    AskedToWait,
    EcoflowApiException,
    ExitStatus,
    KeysRefused,
    SinkError,
    SinkRedirected,
    SinkRejected,
    SinkUnauthorized,
    Terminated,
)
from ecoflow_push.metrics.registry import DeviceFacts, RegistryBuilder, RunFacts
from ecoflow_push.settings import Secret, Settings
from ecoflow_push.sinks import create_pushgateway, create_textfile
from ecoflow_push.state import LONGEST_PAUSE_SECONDS, DeviceRecord, State, fingerprint
from ecoflow_push.truth import Judge, Truth

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.api.base import EcoflowApiClient
    from ecoflow_push.sinks.pushgateway import PushgatewaySink
    from ecoflow_push.sinks.textfile import TextfileSink

log = logging.getLogger(__name__)

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
COLLECT_SHARE = 0.6
# Of what collecting left; the rest is for the run's own series.
DEVICES_PUSH_SHARE = 0.85
# A gateway re-checks all it holds at every push (push-protocols.md 1.3).
MANY_GROUPS = 50
TELL_REFUSED_SECONDS = 86_400.0


class _Outcome:
    """How one sink fared."""

    def __init__(self) -> None:
        self.delivered = 0
        self.errors: list[SinkError] = []
        #: Nothing more is sent: it is down, redirects, or refuses the credentials.
        self.closed = False


class Worker:
    """Takes one snapshot of every device and delivers it; one object, one run."""

    def __init__(
        self,
        clients: Sequence[EcoflowApiClient],
        state: State,
        judge: Judge,
        *,
        job: str = "ecoflow",
        instance: str = "ecoflow",
        extra_labels: Mapping[str, str] | None = None,
        pushgateway: PushgatewaySink | None = None,
        textfile: TextfileSink | None = None,
        deadline: float = 50.0,
        keys_fingerprint: str = "",
    ) -> None:
        """Store what is needed; `run`, `dry_run` or `list_devices` does the work.

        `deadline` (seconds) starts now. `keys_fingerprint` tells whether the keys are
        still those that EcoFlow refused before.
        """
        self._clients = clients
        self._state = state
        self._judge = judge
        self._job = job
        self._instance = instance
        self._extra_labels = extra_labels or {}
        self._pushgateway = pushgateway
        self._textfile = textfile
        self._keys_fingerprint = keys_fingerprint
        #: Serials that somebody asked for by name, in this run.
        self._named = tuple(judge.only or judge.named)
        self._started = time.monotonic()
        self._deadline = Deadline(deadline)
        self._collection = Collection()
        self._truth = Truth()
        self._outcomes: dict[str, _Outcome] = {}
        self._durations: dict[str, float] = {}
        self._bug = False

    def run(self) -> ExitStatus:
        """Walk the whole road and return what the process is to exit with."""
        try:
            self._collect()
            self._push_devices()
        except Terminated:
            raise
        except Exception:  # a bug becomes status 70, and the run's series still say so
            log.exception("a bug in ecoflow_push, please report it")
            self._bug = True
        finally:
            self._leave()
        self._write_textfile()
        try:
            self._push_run()
            if self._status() == ExitStatus.OK:
                self._state.last_success_at = time.time()
            self._tell()
        finally:
            self._save()
        return self._status()

    def dry_run(self) -> ExitStatus:
        """Collect, and print the exposition instead of pushing it; remember nothing."""
        self._collect()
        self._leave()
        _print(generate_latest(self._everything()).decode())
        self._tell()
        return self._status()

    def list_devices(self) -> ExitStatus:
        """Print a table of the devices and how each can be read."""
        self._collect()
        self._leave()
        rows = [("SERIAL", "NAME", "PRODUCT", "ONLINE", "READ BY")]
        for sn, reading in sorted(self._collection.readings.items()):
            record = self._state.devices.get(sn) or DeviceRecord()
            facts = self._judge.describe(sn, reading, record)
            online = {True: "yes", False: "no", None: "unknown"}[facts.online]
            rows.append((sn, facts.name, facts.product_name, online, _read_by(reading)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows if len(rows) > 1 else ():
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            _print("  ".join(cells).rstrip() + "\n")
        self._tell()
        return self._status()

    def _collect(self) -> None:
        began = time.monotonic()
        growing = Collection()
        named = self._named
        error = self._standing_refusal()
        if error is None:
            share = self._deadline.share(COLLECT_SHARE)
            if not within(share, lambda: collect(self._clients, named, growing, share)):
                error = ApiOutOfTime("EcoFlow: no answer in time")
        else:
            growing.wanted = [DeviceInfo(sn) for sn in named]
        if not growing.wanted:
            # Nobody listed them: those we knew are still the ones to speak of.
            growing.wanted = [DeviceInfo(sn) for sn in self._state.devices]
        self._collection = growing.finished(error)
        self._note_refusals()
        self._truth = self._judge.judge(self._collection, self._state)
        self._durations["connect"] = growing.connect_seconds
        self._durations["collect"] = time.monotonic() - began - growing.connect_seconds

    def _leave(self) -> None:
        for client in self._clients:
            client.close()

    def _standing_refusal(self) -> EcoflowApiException | None:
        """Return why EcoFlow is not to be asked now, if there is a reason."""
        now = time.time()
        if wait := self._state.refused_for(self._keys_fingerprint, now):
            return KeysRefused(
                "EcoFlow refused these keys several times: not asked again for"
                f" {wait:.0f} s, or until they change"
            )
        if wait := self._state.pause_for(now):
            return AskedToWait(f"EcoFlow asked us to wait {wait:.0f} s more", wait)
        return None

    def _note_refusals(self) -> None:
        state, error, now = self._state, self._collection.error, time.time()
        if isinstance(error, KeysRefused) and error.code:
            state.refused(self._keys_fingerprint, now)
        elif self._collection.listed is not None:
            state.accepted()
        if isinstance(error, AskedToWait) and not state.pause_for(now):
            state.pause_until = now + min(error.seconds, LONGEST_PAUSE_SECONDS)

    def _push_devices(self) -> None:
        began = time.monotonic()
        if self._pushgateway:
            outcome = self._outcomes["pushgateway"] = _Outcome()
            share = self._deadline.share(DEVICES_PUSH_SHARE)
            self._bounded(outcome, share, lambda: self._push_groups(outcome, share))
        for verdict in self._truth.verdicts:
            if verdict.facts is None and not self._pushgateway:
                self._state.devices.pop(verdict.sn, None)
        self._durations["push"] = time.monotonic() - began

    def _push_groups(self, outcome: _Outcome, deadline: Deadline) -> None:
        gateway = self._pushgateway
        assert gateway is not None
        verdicts = list(self._truth.verdicts)
        if len(verdicts) > MANY_GROUPS:
            log.warning(
                "%d devices on one Pushgateway: it re-checks all it holds at every"
                " push, so this takes long; use several gateways or the textfile",
                len(verdicts),
            )
        for verdict in verdicts:
            if outcome.closed:
                return
            group = {"job": self._job, "device": verdict.sn}
            facts = verdict.facts
            if facts is None:
                if self._attempt(outcome, partial(gateway.delete, group, deadline)):
                    self._state.devices.pop(verdict.sn, None)
            else:
                registry = self._registry([facts])
                self._attempt(outcome, partial(gateway.push, registry, group, deadline))

    def _write_textfile(self) -> None:
        textfile = self._textfile
        if textfile:
            # Whoever reads the file knows that it was delivered; so may its status.
            outcome = self._outcomes["textfile"] = _Outcome()
            outcome.delivered = 1
            registry = self._everything()
            outcome.delivered = 0
            self._attempt(outcome, partial(textfile.push, registry))

    def _push_run(self) -> None:
        gateway = self._pushgateway
        if gateway is None:
            return
        outcome = self._outcomes.setdefault("pushgateway", _Outcome())
        group = {"job": f"{self._job}_push", "instance": self._instance}
        registry = self._registry([], self._run_facts())
        push = partial(gateway.push, registry, group, self._deadline)
        # What was refused once is not asked twice; a gateway that was down may be back.
        if not any(
            isinstance(error, (SinkUnauthorized, SinkRedirected))
            for error in outcome.errors
        ):
            attempt = partial(self._attempt, outcome, push, counts=False)
            self._bounded(outcome, self._deadline, attempt)
        gateway.close()

    def _bounded(
        self, outcome: _Outcome, deadline: Deadline, work: Callable[[], object]
    ) -> None:
        if not within(deadline, work):
            outcome.errors.append(SinkError("pushgateway: no answer in time"))
            outcome.closed = True

    def _attempt(
        self, outcome: _Outcome, deliver: Callable[[], None], *, counts: bool = True
    ) -> bool:
        try:
            deliver()
        except SinkError as exc:
            outcome.errors.append(exc)
            # Refused content concerns one device; everything else all of them.
            outcome.closed = not isinstance(exc, SinkRejected)
            return False
        outcome.delivered += counts
        return True

    def _registry(
        self, devices: Iterable[DeviceFacts], run: RunFacts | None = None
    ) -> CollectorRegistry:
        builder = RegistryBuilder(self._judge.prefix, self._extra_labels)
        for facts in devices:
            builder.add_device(facts)
        if run:
            builder.add_run(run)
        return builder.registry()

    def _everything(self) -> CollectorRegistry:
        """Return one registry of what was learnt in this run, and of the run itself."""
        learnt = [v.facts for v in self._truth.verdicts if v.facts and v.fresh]
        return self._registry(learnt, self._run_facts())

    def _run_facts(self) -> RunFacts:
        states = Counter({"ok": 0, "offline": 0, "refused": 0, "failed": 0})
        states.update(reading.state for reading in self._collection.readings.values())
        status = self._status()
        succeeded = status == ExitStatus.OK
        return RunFacts(
            version=__version__,
            exit_status=status,
            durations=self._durations,
            last_success_at=time.time() if succeeded else self._state.last_success_at,
            devices=states,
            samples=self._truth.samples,
            skipped=self._truth.skipped,
        )

    def _save(self) -> None:
        self._state.save()
        if self._state.trouble:
            log.warning(
                "%s; nothing is remembered for the next run", self._state.trouble
            )

    def _status(self) -> ExitStatus:
        """Return the exit status as far as it is known now."""
        found = {self._collect_status(), self._sink_status()}
        if self._bug:
            found.add(ExitStatus.SOFTWARE)
        return next(status for status in PRECEDENCE if status in found)

    def _collect_status(self) -> ExitStatus:
        readings = self._collection.readings.values()
        troubled = [
            reading
            for reading in readings
            if reading.state == "failed"
            or (reading.state == "refused" and reading.device.sn in self._named)
        ]
        if any(reading.state in ("ok", "offline") for reading in readings):
            return ExitStatus.PARTIAL if troubled else ExitStatus.OK
        errors = {reading.error for reading in readings} | {self._collection.error}
        found = {error.status for error in errors if error}
        return next((s for s in PRECEDENCE if s in found), ExitStatus.UNAVAILABLE)

    def _sink_status(self) -> ExitStatus:
        failed = [outcome for outcome in self._outcomes.values() if outcome.errors]
        if not failed:
            return ExitStatus.OK
        if any(outcome.delivered for outcome in self._outcomes.values()):
            return ExitStatus.PARTIAL
        found = set()
        for outcome in failed:
            statuses = {error.status for error in outcome.errors}
            found.add(next(s for s in PRECEDENCE if s in statuses))
        if found == {ExitStatus.IOERR} and not self._truth.verdicts:
            # Only the run's own series were lost; why nothing was collected says more.
            return ExitStatus.PARTIAL
        # Several sinks that fail in different ways: nothing was delivered anywhere.
        return found.pop() if len(found) == 1 else ExitStatus.IOERR

    def _tell(self) -> None:
        """Log the one line of this run."""
        status = self._status()
        level = {ExitStatus.OK: logging.INFO, ExitStatus.PARTIAL: logging.WARNING}
        states = Counter(r.state for r in self._collection.readings.values())
        took = time.monotonic() - self._started
        parts = [
            f"exit {status:d} {status.name} after {took:.1f} s",
            "devices: "
            + (", ".join(f"{n} {s}" for s, n in sorted(states.items())) or "none"),
            f"{self._truth.samples} samples",
        ]
        for name, outcome in self._outcomes.items():
            if not outcome.errors:
                parts.append(f"{name}: ok")
        parts += self._problems()
        log.log(level.get(status, logging.ERROR), "%s", "; ".join(parts))

    def _problems(self) -> Iterable[str]:
        """Return what went wrong, each cause once, with the devices it concerns."""
        concerned: dict[str, list[str]] = {}
        if self._collection.error:
            concerned[str(self._collection.error)] = []
        for sn, reading in self._collection.readings.items():
            if (
                reading.error
                and reading.state != "offline"
                and self._worth_telling(reading)
            ):
                concerned.setdefault(str(reading.error), []).append(short_sn(sn))
        for outcome in self._outcomes.values():
            for error in outcome.errors:
                concerned.setdefault(str(error), [])
        for text, serials in concerned.items():
            yield f"{', '.join(serials)}: {text}" if serials else text

    def _worth_telling(self, reading: Reading) -> bool:
        """Return False for what was discovered, is refused, and was said today."""
        record = self._state.devices.get(reading.device.sn)
        if reading.state != "refused" or reading.device.sn in self._named or not record:
            return True
        now = time.time()
        if (
            record.told_at is not None
            and 0 <= now - record.told_at < TELL_REFUSED_SECONDS
        ):
            return False
        record.told_at = now
        return True


def create_worker(
    settings: Settings, state: State, folder: str, only: Sequence[str]
) -> Worker:
    """Return the worker of the settings; `only` narrows this run to some serials.

    `folder` is the state's, where a login is kept.

    Raises SettingsError for what cannot be built as they say.
    """
    clients = [create_client(settings, source, folder) for source in settings.sources]
    judge = Judge(
        prefix=settings.prefix,
        named=settings.device_sns,
        only=only,
        device_names=settings.device_names,
        stale_after=settings.stale_after,
    )
    keys = (settings.api_url, settings.access_key, settings.secret_key)
    return Worker(
        clients,
        state,
        judge,
        job=settings.job,
        instance=settings.instance,
        extra_labels=settings.extra_labels,
        pushgateway=create_pushgateway(settings),
        textfile=create_textfile(settings),
        deadline=settings.run_deadline,
        keys_fingerprint=fingerprint(
            *(key.reveal() if isinstance(key, Secret) else key or "" for key in keys)
        ),
    )


def _print(text: str) -> None:
    """Write to stdout; raises SinkError when it is full or closed."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, ValueError) as exc:
        # What stays in the buffer would fail again, noisily, at the end.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - lives as long as we
        raise SinkError("stdout: cannot be written") from exc


def _read_by(reading: Reading) -> str:
    """Return how a device can be read, for the table of --list-devices."""
    if reading.snapshot:
        way = {"rest": "developer keys", "mqtt": "app account"}[reading.source]
        return way if reading.snapshot.quotas else f"{way} (no data)"
    if reading.state == "offline":
        return "not asked (offline)"
    if reading.state == "refused":
        return "app account only"
    return "not readable now"
