"""Writer: the way to a timestamped sink, with the spool beside it.

What a run learnt becomes records; they are stored first, then everything that waits is
written, oldest first, and taken out once it was taken (docs/remote-write.md).
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ecoflow_push.errors import (
    SinkDeferred,
    SinkDown,
    SinkError,
    SinkFailing,
    SinkLoss,
    SinkRedirected,
    SinkRejected,
    SinkUnauthorized,
)
from ecoflow_push.outcome import SinkOutcome
from ecoflow_push.settings import TENANT_HEADERS
from ecoflow_push.sinks import create_remote_write
from ecoflow_push.sinks.record import Record, SeriesKey, empty_record, record_of
from ecoflow_push.spool import Entry, Spool, endpoint_folder, other_spools
from ecoflow_push.state import LONGEST_PAUSE_SECONDS

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.deadline import Deadline
    from ecoflow_push.metrics.registry import DeviceFacts
    from ecoflow_push.settings import Settings
    from ecoflow_push.sinks.remote_write import RemoteWriteSink
    from ecoflow_push.state import State
    from ecoflow_push.truth import Truth, Verdict

log = logging.getLogger(__name__)

# One sample from the future can stop a whole server (reliability.md 0.5).
MOST_CLOCK_OFFSET_SECONDS = 300.0
# A server may answer 5xx for good to one record; after so many runs in a row a newer
# one is tried, and if it is taken the record is set aside.
MOST_FAILING_RUNS = 10
#: Why samples are lost for good, by the label `reason`.
LOSSES = {
    "age": "they waited longer than SPOOL_MAX_AGE",
    "clock": "the clock was not to be trusted",
    "damaged": "their file in the spool was damaged; it is set aside",
    "disk": "they could be neither delivered nor stored",
    "elsewhere": "they waited longer than SPOOL_MAX_AGE for another endpoint",
    "failing": "the server fails on them alone; their file is set aside",
    "partial": "the server took a part of their snapshot and refused these",
    "refused": "the server refused their snapshot for good",
    "size": "the spool is larger than SPOOL_MAX_BYTES",
}
TELL_SECONDS = 86_400.0
#: Of these, what had been kept for later.
WAITED = ("age", "damaged", "failing", "size")
#: What the run's own series are remembered by; no serial number looks like it.
RUN = "@run"


class Writer:
    """Records of one run, and of earlier ones, to one endpoint; one object, one run."""

    def __init__(
        self,
        sink: RemoteWriteSink,
        spool: Spool,
        state: State,
        *,
        job: str,
        prefix: str,
        stale_after: float,
        max_age: float,
        max_bytes: int,
        ahead: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Store what is needed; `open` does the first work.

        `max_age` and `stale_after` are in seconds. `ahead`: records are stored before
        they are sent, not only when that failed. `clock` is what samples are stamped
        by where no snapshot has its own time.
        """
        self.outcome = SinkOutcome()
        self._sink = sink
        self._spool = spool
        self._state = state
        self._job = job
        self._prefix = prefix
        self._stale_after = stale_after
        self._max_age = max_age
        self._max_bytes = max_bytes
        self._ahead = ahead
        self._clock = clock
        self._fresh: list[Entry] = []
        self._lost: list[tuple[Entry, str, int]] = []
        self._settled: set[Entry] = set()
        self._homes: dict[Entry, Spool] = {}
        self._rejected: list[SinkRejected] = []
        self._stopped: SinkError | None = None
        self._is_abandoned = False
        self._replayed = 0
        self._offset: float | None = None
        self._distrust = ""

    def take(
        self,
        truth: Truth,
        registry_of: Callable[[DeviceFacts], CollectorRegistry],
        offset: float | None,
    ) -> None:
        """Make records of what was learnt, and store them.

        `offset` is how far our clock is ahead of EcoFlow's (s), None if it is unknown.
        """
        self._spool.open()
        behind = 0
        for device, said in self._records(truth, registry_of):
            before_ms, live = self._before(device)
            if device in truth.unread and not self._is_stale(said, before_ms):
                continue
            record = said.ending(live)
            if record.names or record.ended:
                behind = max(behind, before_ms - record.time_ms + 1)
                body = record.to_bytes()
                self._fresh.append(
                    Entry(record.time_ms, len(record.names), device, body)
                )
        self.hear(offset)
        if behind > 0 and not self._distrust:
            self._distrust = (
                f"the clock went back: the last snapshot is {behind / 1000:.1f} s ahead"
            )
        if self._ahead and not self._distrust:
            self._spool.store(self._fresh)

    def hear(self, offset: float | None) -> None:
        """Hold our clock against another one's; `offset` as for `take`.

        The first that is known counts: the service is on the Internet and keeps its
        clock, a gateway at home may not.
        """
        if offset is not None and self._offset is None:
            self._offset = offset
            if abs(offset) > MOST_CLOCK_OFFSET_SECONDS:
                way = "ahead of" if offset > 0 else "behind"
                self._distrust = f"the clock is {abs(offset):.0f} s {way} the servers'"

    def replay(self, deadline: Deadline) -> None:
        """Write what waits, oldest first, until it is all out or must wait longer."""
        if self._distrust:
            return
        endpoint = self._state.endpoint
        if wait := endpoint.pause_for(time.time()):
            self._stopped = SinkDeferred(
                f"remote-write: asked to wait {wait:.0f} s more"
            )
            return
        oldest_ms = round((self._clock() - self._max_age) * 1000)
        for entry in self._spool.too_old(oldest_ms):
            if not entry.is_fresh:
                self._lose(entry, "age")
        self._drain(deadline)
        endpoint.version = self._sink.learnt_version
        asked = min(self._sink.asked_to_wait, LONGEST_PAUSE_SECONDS)
        endpoint.pause_until = time.time() + asked if asked else None

    def abandon(self) -> None:
        """Note that the replay did not come back in time."""
        self._is_abandoned = True
        self._stopped = SinkDown("remote-write: no answer in time")

    def finish(self) -> None:
        """Store what could not be written, drop what has no place, say what happened.

        What is dropped is counted durably before it is removed.
        """
        if self._distrust:
            for entry in set(self._fresh) - self._settled:
                self._lose(entry, "clock")
            self.outcome.errors.append(
                SinkDeferred(f"remote-write: {self._distrust}; nothing sent or stored")
            )
        else:
            self._keep_what_waits()
        self._tend_other_spools()
        self._count()
        self._spool.forget([*self._state.devices, RUN])
        self._spool.sync()
        if self._spool.trouble:
            log.warning("%s", self._spool.trouble)

    def push_run(
        self, registry: CollectorRegistry, instance: str, deadline: Deadline
    ) -> None:
        """Write the run's own series, unless anything older still waits."""
        if self._distrust or self._stopped or self._spool.entries:
            return
        if not self._trusts_the_clock(deadline):
            self.outcome.errors.append(SinkDeferred(f"remote-write: {self._distrust}"))
            return
        grouping = {"job": f"{self._job}_push", "instance": instance}
        record = record_of(registry, grouping, self._now_ms())
        before_ms, live = self._before(RUN)
        if record.time_ms <= before_ms:
            return
        record = record.ending(live)
        try:
            self._sink.write(record, deadline)
        except SinkError as exc:
            self.outcome.errors.append(type(exc)(f"the run's own series: {exc}"))
        else:
            self._state.endpoint.has_taken = True
            self._spool.remember(RUN, record.to_bytes())

    @property
    def waiting(self) -> int:
        """The number of samples in the spool."""
        return sum(entry.samples for entry in self._spool.entries)

    @property
    def oldest_at(self) -> float | None:
        """When the oldest record in the spool was collected, in Unix seconds."""
        entries = self._spool.entries
        return entries[0].time_ms / 1000 if entries else None

    def dropped(self) -> dict[str, int]:
        """Return how many samples were ever dropped, by every reason there is."""
        return {reason: self._state.dropped.get(reason, 0) for reason in LOSSES}

    def close(self) -> None:
        """Close the connection."""
        self._sink.close()

    # -- records --------------------------------------------------------------------

    def _records(
        self, truth: Truth, registry_of: Callable[[DeviceFacts], CollectorRegistry]
    ) -> Iterator[tuple[str, Record]]:
        """Yield what this run has to say of each device, without markers yet."""
        nothing = empty_record(self._now_ms())
        for verdict in truth.verdicts:
            if verdict.facts is None:
                yield verdict.sn, nothing
            elif verdict.fresh:
                yield verdict.sn, self._record(verdict, registry_of(verdict.facts))
        for device in truth.unread:
            yield device, nothing

    def _record(self, verdict: Verdict, registry: CollectorRegistry) -> Record:
        at_ms = self._now_ms() if verdict.at is None else round(verdict.at * 1000)
        record = record_of(registry, {"job": self._job}, at_ms)
        if verdict.facts and verdict.facts.online is False:
            # All else that its group still says on a Pushgateway is from before.
            record = record.only(f"{self._prefix}_online")
        return record

    def _before(self, device: str) -> tuple[int, set[SeriesKey]]:
        """Return when a device was last spoken of, and its series that may be alive.

        A record that waits repeats the markers of those before it: they are known to
        be delivered only when it is.
        """
        newest = self._spool.newest(device)
        if newest:
            try:
                record = Record.from_bytes(self._spool.read(newest))
            except (OSError, ValueError):
                return newest.time_ms, self._last(device)[1]
            return newest.time_ms, record.keys() | record.ended_keys()
        return self._last(device)

    def _last(self, device: str) -> tuple[int, set[SeriesKey]]:
        body = self._spool.last(device)
        try:
            record = Record.from_bytes(body or b"")
        except ValueError:
            return 0, set()
        return record.time_ms, record.keys()

    def _is_stale(self, record: Record, before_ms: int) -> bool:
        return record.time_ms - before_ms > self._stale_after * 1000

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)

    # -- writing --------------------------------------------------------------------

    def _drain(self, deadline: Deadline) -> None:
        suspect: Entry | None = None
        for entry in self._queue():
            record = self._load(entry)
            if record is None:
                self._lose(entry, "damaged")
                continue
            if entry.is_fresh and not self._trusts_the_clock(deadline):
                return
            error = self._write(record, deadline, tries=1 if suspect else None)
            if self._is_abandoned:
                # Others look at it already: it stays, and is written again.
                return
            if error is None:
                self._take_out(entry)
                if suspect:
                    self._lose(suspect, "failing")
                    suspect = self._stopped = None
            elif isinstance(error, SinkRejected):
                self._rejected.append(error)
                reason = "partial" if error.written else "refused"
                self._lose(entry, reason, error.written)
            elif suspect is None and self._is_stuck(entry, error):
                suspect, self._stopped = entry, error
            else:
                self._stopped = self._stopped or error
                return

    def _write(
        self, record: Record, deadline: Deadline, tries: int | None
    ) -> SinkError | None:
        try:
            self._sink.write(record, deadline, tries)
        except SinkError as exc:
            return exc
        return None

    def _take_out(self, entry: Entry) -> None:
        self.outcome.delivered += 1
        self._settled.add(entry)
        self._spool.delivered(entry)
        self._state.endpoint.has_taken = True
        self._replayed += not entry.is_fresh

    def _queue(self) -> list[Entry]:
        """Return what is neither delivered nor lost, in the order in which it goes."""
        waiting = {*self._spool.entries, *self._fresh} - self._settled
        return sorted(waiting, key=lambda entry: entry.name)

    def _load(self, entry: Entry) -> Record | None:
        try:
            record = Record.from_bytes(self._spool.read(entry))
        except (OSError, ValueError):
            return None
        found = record.time_ms, len(record.names)
        is_ours = found == (entry.time_ms, entry.samples)
        return record if is_ours else None

    def _trusts_the_clock(self, deadline: Deadline) -> bool:
        """Return whether now may be said to be now; asks the receiver if nobody told.

        Over MQTT, with the login remembered, nobody did.
        """
        if self._offset is None and not self._distrust:
            self.hear(self._sink.clock_offset() or self._sink.ask_the_time(deadline))
        return not self._distrust

    def _is_stuck(self, entry: Entry, error: SinkError) -> bool:
        """Count the runs in which the first in line met a 5xx; tell if it is enough."""
        endpoint = self._state.endpoint
        if not isinstance(error, SinkFailing):
            return False
        if endpoint.failing != entry.name:
            endpoint.failing, endpoint.failing_runs = entry.name, 0
        endpoint.failing_runs += 1
        return endpoint.failing_runs >= MOST_FAILING_RUNS

    def _lose(self, entry: Entry, reason: str, written: int = 0) -> None:
        """Give an entry up; `written` samples of it were taken all the same."""
        self._lost.append((entry, reason, max(0, entry.samples - written)))
        self._settled.add(entry)

    # -- the end --------------------------------------------------------------------

    def _keep_what_waits(self) -> None:
        self._spool.store([e for e in self._queue() if not e.is_stored])
        lost = {entry for entry in self._queue() if not entry.is_stored}
        for entry in lost:
            self._lose(entry, "disk")
        if self._rejected:
            more = f" (and {len(self._rejected) - 1} more)" * (len(self._rejected) > 1)
            if not self._state.endpoint.has_taken:
                more += "; nothing was ever taken there, check REMOTE_WRITE_URL"
            self.outcome.errors.append(
                SinkRejected(f"{self._rejected[0]}{more}: dropped")
            )
        if self._replayed:
            self.outcome.note = f" ({self._replayed} snapshots from the spool)"
        self._count()
        for entry in self._spool.too_many(self._max_bytes):
            self._lose(entry, "size")
            lost.add(entry)
        self._count()
        if self._stopped:
            was_fresh = any(entry.is_fresh for entry in lost)
            self.outcome.errors.append(self._stop_error(stored=not was_fresh))

    def _stop_error(self, *, stored: bool) -> SinkError:
        error = self._stopped or SinkError("")
        if not stored:
            why = self._spool.trouble or "SPOOL_MAX_BYTES is too small"
            return SinkError(f"{error}; not stored either: {why}")
        keeps = f"{self.waiting} samples wait in the spool"
        if count := self.outcome.delivered:
            keeps = f"{count} snapshots were delivered, {keeps}"
        if isinstance(error, (SinkUnauthorized, SinkRedirected)):
            return type(error)(f"{error}; {keeps}")
        return SinkDeferred(f"{error}; {keeps}")

    def _tend_other_spools(self) -> None:
        """Let the records of endpoints that are no longer set grow old and go."""
        oldest_ms = round((self._clock() - self._max_age) * 1000)
        for spool in other_spools(self._spool.folder):
            for entry in () if self._distrust else spool.too_old(oldest_ms):
                self._lose(entry, "elsewhere")
                self._homes[entry] = spool
            waiting = sum(entry.samples for entry in spool.entries)
            if waiting and self._is_due():
                log.warning(
                    "remote-write: %d samples wait for another address, user or tenant"
                    " than is set now; SPOOL_MAX_AGE will drop them",
                    waiting,
                )

    def _is_due(self) -> bool:
        """Return whether this is to be told, and note that it is: once a day."""
        now, told_at = time.time(), self._state.endpoint.told_at
        if told_at is not None and 0 <= now - told_at < TELL_SECONDS:
            return False
        self._state.endpoint.told_at = now
        return True

    def _count(self) -> None:
        """Count what is lost, durably, then remove it."""
        if not self._lost:
            return
        dropped: Counter[str] = Counter()
        for _, reason, samples in self._lost:
            dropped[reason] += samples
        for reason, samples in dropped.items():
            total = self._state.dropped.get(reason, 0)
            self._state.dropped[reason] = total + samples
            log.warning("remote-write: %d samples dropped: %s", samples, LOSSES[reason])
            if reason in WAITED:
                # Not "ok": the sink has not everything.
                self.outcome.errors.append(
                    SinkLoss(f"remote-write: {samples} samples that waited are lost")
                )
        self._state.save()
        for entry, reason, _ in self._lost:
            keep = reason in ("damaged", "failing")
            self._homes.get(entry, self._spool).discard(entry, keep=keep)
        self._lost.clear()


def create_writer(
    settings: Settings,
    state: State,
    folder: str,
    clock: Callable[[], float] = time.time,
) -> Writer | None:
    """Return the way to the remote-write endpoint of the settings, None if none.

    Its spool goes into `folder`. Raises SettingsError when a certificate or key file
    cannot be used.
    """
    server = settings.remote_write
    if not server:
        return None
    headers = settings.remote_write_headers
    tenants = [v for k, v in sorted(headers.items()) if k.lower() in TENANT_HEADERS]
    # A password may change; whose data it is, not.
    spool = endpoint_folder(folder, server.url, server.username or "", *tenants)
    state.use_endpoint(os.path.basename(spool))
    return Writer(
        create_remote_write(settings, server, state.endpoint.version),
        Spool(spool),
        state,
        job=settings.job,
        prefix=settings.prefix,
        stale_after=settings.stale_after,
        max_age=settings.spool_max_age,
        max_bytes=settings.spool_max_bytes,
        ahead=settings.spool_mode == "write-ahead",
        clock=clock,
    )
