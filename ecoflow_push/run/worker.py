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
from prometheus_client.core import CollectorRegistry

from ecoflow_push import __version__
from ecoflow_push.api import create_client
from ecoflow_push.api.models import DeviceInfo
from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import (
    ApiOutOfTime,
    AskedToWait,
    EcoflowApiException,
    ExitStatus,
    KeysRefused,
    SinkDown,
    SinkError,
)
from ecoflow_push.memory.state import (
    LONGEST_PAUSE_SECONDS,
    DeviceRecord,
    State,
    fingerprint,
)
from ecoflow_push.metrics.registry import (
    DeviceFacts,
    RegistryBuilder,
    RunFacts,
    SpoolFacts,
    Totals,
)
from ecoflow_push.net.deadline import Deadline, within
from ecoflow_push.run.collect import Collection, Reading, collect
from ecoflow_push.run.outcome import STAGES, Outcome, SinkOutcome
from ecoflow_push.run.updates import Judge, Verdict, create_judge
from ecoflow_push.sinks import (
    create_pushgateway,
    create_textfile,
)

if TYPE_CHECKING:
    from ecoflow_push.api.base import EcoflowApiClient
    from ecoflow_push.run.healthcheck import Healthcheck
    from ecoflow_push.run.writer import Writer
    from ecoflow_push.sinks.exporter import ExporterSink
    from ecoflow_push.sinks.pushgateway import PushgatewaySink
    from ecoflow_push.sinks.textfile import TextfileSink

log = logging.getLogger(__name__)

COLLECT_SHARE = 0.6
# Of what collecting left, for all sinks' devices; the rest is for the run's own series.
DEVICES_PUSH_SHARE = 0.85
# Of that, where remote-write comes behind.
GATEWAY_SHARE = 0.5
# A gateway re-checks all it holds at every push (push-protocols.md 1.3).
MANY_GROUPS = 50


class Worker:
    """Takes one snapshot of every device and delivers it; one object, one run."""

    def __init__(
        self,
        clients: Sequence[EcoflowApiClient],
        state: State,
        judge: Judge,
        *,
        job: str,
        instance: str,
        extra_labels: Mapping[str, str],
        pushgateway: PushgatewaySink | None,
        writer: Writer | None = None,
        textfile: TextfileSink | None,
        exporter: ExporterSink | None = None,
        healthcheck: Healthcheck | None = None,
        deadline: float,
        keys_fingerprint: str,
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
        self._extra_labels = extra_labels
        self._pushgateway = pushgateway
        self._writer = writer
        self._textfile = textfile
        self._exporter = exporter
        self._healthcheck = healthcheck
        self._keys_fingerprint = keys_fingerprint
        self._started = time.monotonic()
        self._deadline = Deadline(deadline)
        self._outcome = Outcome(judge.only or judge.named)
        self._durations: dict[str, float] = {}

    def run(self) -> ExitStatus:
        """Walk the whole road and return what the process is to exit with."""
        outcome = self._outcome
        if self._healthcheck:
            self._healthcheck.start()
        try:
            try:
                self._collect()
                began = time.monotonic()
                self._push_devices()
                self._durations["push"] = time.monotonic() - began
            except Exception:  # a bug becomes 70, and the run's series still say so
                log.exception("a bug in ecoflow_push, please report it")
                outcome.bug = True
            self._write_textfile()
            self._serve()
            self._push_run()
            if outcome.status() == ExitStatus.OK:
                self._state.last_success_at = time.time()
            totals = self._totals()
            self._state.runs, self._state.failures = totals.runs, dict(totals.failures)
        finally:
            self._leave()
            self._save()
        # Last, so that no signal can contradict it.
        self._tell()
        if self._healthcheck:
            self._healthcheck.end(outcome.status(), self._deadline)
        return outcome.status()

    def dry_run(self) -> ExitStatus:
        """Collect, and print the exposition instead of pushing it; remember nothing."""
        self._collect()
        self._leave()
        _print(generate_latest(self._everything()).decode())
        self._tell()
        return self._outcome.status()

    def list_devices(self) -> ExitStatus:
        """Print a table of the devices and how each can be read."""
        self._collect()
        self._leave()
        rows = [("SERIAL", "NAME", "PRODUCT", "ONLINE", "READ BY")]
        for sn, reading in sorted(self._outcome.collection.readings.items()):
            record = self._state.devices.get(sn) or DeviceRecord()
            facts = self._judge.describe(sn, reading, record)
            online = {True: "yes", False: "no", None: "unknown"}[facts.online]
            rows.append((sn, facts.name, facts.product_name, online, _read_by(reading)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows if len(rows) > 1 else ():
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            _print("  ".join(cells).rstrip() + "\n")
        self._tell()
        return self._outcome.status()

    # -- collecting -----------------------------------------------------------------

    def _collect(self) -> None:
        began = time.monotonic()
        growing = Collection()
        named = self._outcome.named
        error = self._standing_refusal()
        if error is None:
            share = self._deadline.share(COLLECT_SHARE)
            work = partial(collect, self._clients, named, growing, share)
            if not within(share, work):
                error = ApiOutOfTime("EcoFlow: no answer in time")
        else:
            growing.wanted = [DeviceInfo(sn) for sn in named]
        if not growing.wanted:
            # Nobody listed them: those we knew are still the ones to speak of.
            growing.wanted = [DeviceInfo(sn) for sn in self._state.devices]
        collection = self._outcome.collection = growing.finished(error)
        self._note_refusals(collection)
        self._outcome.truth = self._judge.judge(collection, self._state)
        self._durations["connect"] = growing.connect_seconds
        self._durations["collect"] = time.monotonic() - began - growing.connect_seconds

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

    def _note_refusals(self, collection: Collection) -> None:
        state, error, now = self._state, collection.error, time.time()
        # The app account keeps its own memory of a refused password.
        by_keys = self._clients[0].source == "rest"
        if by_keys and isinstance(error, KeysRefused) and error.code:
            state.refused(self._keys_fingerprint, now)
        elif collection.listed is not None:
            state.accepted()
        if isinstance(error, AskedToWait) and not state.pause_for(now):
            state.pause_until = now + min(error.seconds, LONGEST_PAUSE_SECONDS)

    # -- pushing --------------------------------------------------------------------

    def _push_devices(self) -> None:
        verdicts = self._outcome.truth.verdicts
        writer = self._writer
        share = self._deadline.share(DEVICES_PUSH_SHARE)
        gone = {
            verdict.sn: record
            for verdict in verdicts
            if verdict.facts is None and (record := self._state.devices.get(verdict.sn))
        }
        if writer:
            # Stored before anything is sent, to whomever: a push may be its end.
            writer.take(
                self._outcome.truth,
                self._registry_of,
                share,
                offset=self._clock_offset(),
                elapsed=time.monotonic() - self._started,
            )
        if self._pushgateway:
            sink = self._outcome.sinks["pushgateway"] = SinkOutcome()
            part = share.share(GATEWAY_SHARE) if writer else share
            push = partial(self._push_groups, self._pushgateway, sink, part)
            if not within(part, push):
                # What it says later must not overwrite what others say then.
                self._pushgateway.close()
                sink.is_abandoned = True
                sink.errors.append(SinkDown("pushgateway: no answer in time"))
        else:
            for verdict in verdicts:
                if verdict.facts is None:
                    self._state.devices.pop(verdict.sn, None)
        if writer:
            self._outcome.sinks["remote-write"] = writer.outcome
            self._replay(writer, share, gone)

    def _replay(
        self, writer: Writer, deadline: Deadline, gone: Mapping[str, DeviceRecord]
    ) -> None:
        if self._pushgateway:
            writer.hear(self._pushgateway.clock_offset())
        try:
            if not within(deadline, partial(writer.replay, deadline)):
                writer.abandon()
                writer.close()
        finally:
            # Even then: what was collected must be stored, what was lost counted.
            writer.finish(self._deadline)
        for sn in writer.owed & gone.keys():
            self._state.devices[sn] = gone[sn]

    def _clock_offset(self) -> float | None:
        """Return how far our clock is ahead of EcoFlow's (s), None if it is unknown."""
        offsets = [client.clock_offset() for client in self._clients]
        known = [offset for offset in offsets if offset is not None]
        return max(known, key=abs, default=None)

    def _push_groups(
        self, gateway: PushgatewaySink, sink: SinkOutcome, deadline: Deadline
    ) -> None:
        verdicts = list(self._outcome.truth.verdicts)
        if len(verdicts) > MANY_GROUPS:
            log.warning(
                "%d devices on one Pushgateway: it re-checks all it holds at every"
                " push, so this takes long; use remote-write (REMOTE_WRITE_URL)",
                len(verdicts),
            )
        records = self._state.devices
        if self._doubt(verdicts):
            # Before the first push: killed behind it, we could no longer say so.
            self._state.save()
        for verdict in verdicts:
            if sink.is_closed:
                return
            # After a group that failed in all its tries, one try for each other.
            tries = 1 if sink.errors else None
            group = {"job": self._job, "device": verdict.sn}
            if verdict.facts is None:
                delete = partial(gateway.delete, group, deadline, tries)
                if _attempt(sink, delete):
                    records.pop(verdict.sn, None)
                continue
            push = partial(
                gateway.push, self._registry_of(verdict.facts), group, deadline, tries
            )
            if verdict.if_there:
                push = partial(_push_if_there, gateway, group, deadline, push)
            if _attempt(sink, push) and verdict.sn in records:
                fills = bool(verdict.facts.samples)
                records[verdict.sn].held_at = (
                    verdict.facts.snapshot_at if fills else 0.0
                )
                records[verdict.sn].reduced_at = None if fills else time.time()

    def _doubt(self, verdicts: Iterable[Verdict]) -> bool:
        """Note which groups will hold something else; return whether any will.

        Until its push is known to be taken, what such a group holds is not known.
        """
        doubted = False
        for verdict in verdicts:
            record = self._state.devices.get(verdict.sn)
            fills = verdict.facts is not None and bool(verdict.facts.samples)
            if record and record.held_at is not None and fills != (record.held_at > 0):
                record.held_at = None
                doubted = True
        return doubted

    def _write_textfile(self) -> None:
        if self._textfile:
            sink = self._outcome.sinks["textfile"] = SinkOutcome()
            # Whoever reads the file knows that it was delivered; so may its status.
            sink.delivered = 1
            push = partial(self._textfile.push, self._everything())
            sink.delivered = int(_attempt(sink, push, counts=False))

    def _serve(self) -> None:
        if not self._exporter:
            return
        self._outcome.sinks["exporter"] = sink = SinkOutcome()
        sink.delivered = 1
        for verdict in self._outcome.truth.verdicts:
            if verdict.facts is None:
                self._exporter.delete(verdict.sn)
            elif verdict.fresh:
                # What is not heard of again loses its values there by itself.
                bare = verdict.facts._replace(samples=(), online=None)
                age = time.time() - verdict.at if verdict.at else 0.0
                self._exporter.push(
                    verdict.sn,
                    self._registry_of(verdict.facts),
                    self._registry_of(bare),
                    age,
                )
        run = self._registry([], self._run_facts())
        self._exporter.push("", run, CollectorRegistry())
        self._exporter.forget([*self._state.devices, ""])

    def _push_run(self) -> None:
        if not (self._pushgateway or self._writer):
            return
        registry = self._registry([], self._run_facts())
        if self._pushgateway:
            sink = self._outcome.sinks.setdefault("pushgateway", SinkOutcome())
            group = {"job": f"{self._job}_push", "instance": self._instance}
            push = partial(self._pushgateway.push, registry, group, self._deadline)
            # Refused once, not asked twice; a gateway that was down may be back.
            if not (sink.has_refused or sink.is_abandoned):
                self._bounded(sink, partial(_attempt, sink, push, counts=False))
        if self._writer:
            write = partial(
                self._writer.push_run, registry, self._instance, self._deadline
            )
            self._bounded(self._writer.outcome, write)

    def _bounded(self, sink: SinkOutcome, work: Callable[[], object]) -> None:
        if not within(self._deadline, work):
            sink.errors.append(SinkDown("the run's own series: no answer in time"))

    # -- saying ---------------------------------------------------------------------

    def _registry_of(self, facts: DeviceFacts) -> CollectorRegistry:
        return self._registry([facts])

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
        verdicts = self._outcome.truth.verdicts
        learnt = [v.facts for v in verdicts if v.facts and v.fresh]
        return self._registry(learnt, self._run_facts())

    def _run_facts(self) -> RunFacts:
        outcome = self._outcome
        states = Counter({"ok": 0, "offline": 0, "refused": 0, "failed": 0})
        states.update(r.state for r in outcome.collection.readings.values())
        status = outcome.status()
        succeeded = status == ExitStatus.OK
        writer = self._writer
        return RunFacts(
            version=__version__,
            exit_status=status,
            durations=self._durations,
            last_success_at=time.time() if succeeded else self._state.last_success_at,
            devices=states,
            samples=outcome.truth.samples,
            skipped=outcome.truth.skipped,
            # Without a memory they would count from 0 in every run.
            totals=None if self._state.trouble else self._totals(),
            spool=SpoolFacts(writer.waiting, writer.oldest_at, writer.dropped())
            if writer and writer.is_open
            else None,
        )

    def _totals(self) -> Totals:
        """Return the totals with this run counted as far as it is known now."""
        state, failed = self._state, self._outcome.failed_stages()
        failures = {
            stage: state.failures.get(stage, 0) + (stage in failed) for stage in STAGES
        }
        return Totals(state.runs + 1, failures)

    def _tell(self) -> None:
        """Log the one line of this run."""
        status = self._outcome.status()
        level = {ExitStatus.OK: logging.INFO, ExitStatus.PARTIAL: logging.WARNING}
        took = time.monotonic() - self._started
        log.log(
            level.get(status, logging.ERROR),
            "exit %d %s after %.1f s; %s",
            status,
            status.name,
            took,
            self._outcome.line(),
        )

    def _leave(self) -> None:
        for client in self._clients:
            client.close()
        for sink in (self._pushgateway, self._writer):
            if sink:
                sink.close()

    def _save(self) -> None:
        self._state.save()
        if self._state.trouble:
            log.warning(
                "%s; nothing is remembered for the next run", self._state.trouble
            )


def create_worker(
    settings: Settings,
    state: State,
    folder: str,
    only: Sequence[str],
    exporter: ExporterSink | None = None,
) -> Worker:
    """Return the worker of the settings; `only` narrows this run to some serials.

    `folder` is the state's, where a login is kept; `exporter` outlives the run. Raises
    SettingsError for what cannot be built as they say.
    """
    clients = [create_client(settings, source, folder) for source in settings.sources]
    judge = create_judge(settings, only)
    healthcheck = None
    if settings.healthcheck_url:
        from ecoflow_push.run.healthcheck import create_healthcheck

        healthcheck = create_healthcheck(settings)
    writer = None
    if settings.remote_write:
        from ecoflow_push.run.writer import create_writer

        writer = create_writer(settings, state, folder)
    if settings.pushgateway:
        state.use_gateway(settings.pushgateway.url)
    return Worker(
        clients,
        state,
        judge,
        job=settings.job,
        instance=settings.instance,
        extra_labels=settings.extra_labels,
        pushgateway=create_pushgateway(settings),
        writer=writer,
        textfile=create_textfile(settings),
        exporter=exporter,
        healthcheck=healthcheck,
        deadline=settings.run_deadline,
        keys_fingerprint=fingerprint(*settings.keys),
    )


def _push_if_there(
    gateway: PushgatewaySink,
    group: Mapping[str, str],
    deadline: Deadline,
    push: Callable[[], None],
) -> None:
    if gateway.has_group(group, deadline):
        push()


def _attempt(
    sink: SinkOutcome, deliver: Callable[[], None], *, counts: bool = True
) -> bool:
    try:
        deliver()
    except SinkError as exc:
        sink.errors.append(exc)
        return False
    sink.delivered += counts
    return True


def _print(text: str) -> None:
    """Write to stdout; raises SinkError when it is full or closed."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError) as exc:  # None if closed at the start
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
        return "app account only" if reading.source == "rest" else "refused"
    return "not readable now"
