"""Writer: the way to a timestamped sink, with the spool beside it.

What a run learnt becomes records; they are stored first, then everything that waits is
written, oldest first, and taken out once it was taken (docs/remote-write.md).
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ecoflow_push.config.settings import TENANT_HEADERS
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
from ecoflow_push.memory.spool import Entry, Spool, endpoint_folder, other_spools
from ecoflow_push.memory.state import LONGEST_PAUSE_SECONDS
from ecoflow_push.metrics.record import Record, SeriesKey, empty_record, record_of
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.run.outcome import SinkOutcome
from ecoflow_push.sinks import create_remote_write

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.config.settings import Server, Settings
    from ecoflow_push.memory.state import State
    from ecoflow_push.metrics.registry import DeviceFacts
    from ecoflow_push.run.updates import Truth, Verdict
    from ecoflow_push.sinks.remote_write import RemoteWriteSink

log = logging.getLogger(__name__)

# One sample from the future can stop a whole server (reliability.md 0.5).
MOST_CLOCK_OFFSET_SECONDS = 300.0
# Between what a snapshot and the run say of the time of one moment.
MOST_SKEW_MS = 1000
# A server may answer 5xx for good to one record; after so many runs in a row a newer
# one is tried, and if it is taken the record is set aside.
MOST_FAILING_RUNS = 10
# Of what a run has left, for the disk.
STORE_SHARE = 0.25
#: Why samples are lost for good, by the label `reason`.
LOSSES = {
    "age": "they waited longer than SPOOL_MAX_AGE",
    "clock": "the clock was not to be trusted",
    "damaged": "their file in the spool was damaged; it is set aside",
    "disk": "they could be neither delivered nor stored",
    "elsewhere": "they waited for another endpoint, too long or too many",
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
        """Store what is needed; `take` does the first work.

        `max_age` and `stale_after` are in seconds. `ahead`: records are stored before
        they are sent, not only when that failed. `clock` is what samples are stamped
        by where no snapshot has its own time.
        """
        self.outcome = SinkOutcome()
        #: Devices that are gone, and whose series are not known to end yet.
        self.owed: set[str] = set()
        #: `take` was called: what waits is known.
        self.is_open = False
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
        #: Devices whose series may have to end, though nothing was heard of them.
        self._silent: list[str] = []
        self._lost: list[tuple[Entry, str, int]] = []
        self._delivered: set[Entry] = set()
        self._settled: set[Entry] = set()
        self._homes: dict[Entry, Spool] = {}
        self._rejected: list[SinkRejected] = []
        self._stopped: SinkError | None = None
        self._is_abandoned = False
        self._offset: float | None = None
        self._has_asked_the_time = False
        self._distrust = ""

    def take(
        self,
        truth: Truth,
        registry_of: Callable[[DeviceFacts], CollectorRegistry],
        deadline: Deadline,
        *,
        offset: float | None,
        elapsed: float,
    ) -> None:
        """Make records of what was learnt, and store them.

        `offset` is how far our clock is ahead of EcoFlow's (s), None if it is unknown;
        `elapsed` are the seconds since the run began.
        """
        self.is_open = True
        if self._state.trouble:
            # Without the lock, or without a memory, what waits is not ours to touch.
            self._spool.trouble = self._state.trouble
        else:
            self._spool.open()
        self.hear(offset)
        earliest_ms = self._now_ms() - round(elapsed * 1000) - MOST_SKEW_MS
        for verdict in truth.verdicts:
            if verdict.facts is None:
                self.owed.add(verdict.sn)
            elif verdict.fresh:
                record = self._record(verdict, registry_of(verdict.facts))
                if not earliest_ms <= record.time_ms <= self._now_ms() + MOST_SKEW_MS:
                    self._distrust = "the clock was set while the run was at work"
                self._add(verdict.sn, record)
        self._silent = [*self.owed, *truth.unread]
        if self._is_confirmed:
            self._end_the_silent()
        self._store_ahead(deadline)

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
        endpoint = self._state.endpoint
        if wait := endpoint.pause_for(time.time()):
            text = f"remote-write: asked to wait {wait:.0f} s more"
            self._stopped = SinkDeferred(text)
            return
        if self._queue() or self._silent:
            self._ask_the_time(deadline)
        if self._distrust:
            return
        if self._is_confirmed:
            # Only now: a clock that nobody has confirmed ages nothing.
            self._end_the_silent()
            self._store_ahead(deadline)
            self._drop_the_impossible()
        self._drain(deadline)
        endpoint.version = self._sink.learnt_version
        self._note_pause()

    def abandon(self) -> None:
        """Note that the replay did not come back in time."""
        self._is_abandoned = True
        self._stopped = SinkDown("remote-write: no answer in time")

    def finish(self, deadline: Deadline) -> None:
        """Store what could not be written, drop what has no place, say what happened.

        What is dropped is counted durably before it is removed.
        """
        if self._distrust:
            for entry in set(self._fresh) - self._settled:
                self._lose(entry, "clock")
            self.outcome.errors.append(
                SinkDeferred(f"remote-write: {self._distrust}; nothing sent or stored")
            )
            self._count()
        else:
            self._keep_what_waits(deadline)
        self._tend_other_spools()
        kept = {e.device for e in self._fresh if e.is_stored} - {
            entry.device for entry, _, _ in self._lost
        }
        self.owed -= kept | {entry.device for entry in self._delivered}
        self.owed = {device for device in self.owed if self._before(device)[1]}
        self._spool.forget([*self._state.devices, *self.owed, RUN])
        self._spool.sync()
        if self._spool.trouble and self._spool.trouble != self._state.trouble:
            log.warning("%s", self._spool.trouble)

    def push_run(
        self, registry: CollectorRegistry, instance: str, deadline: Deadline
    ) -> None:
        """Write the run's own series, unless anything older still waits."""
        if self._distrust or self._stopped or self._spool.entries:
            return
        if wrong := self._ask_the_time(deadline):
            self.outcome.errors.append(SinkDeferred(f"remote-write: {wrong}"))
            return
        grouping = {"job": f"{self._job}_push", "instance": instance}
        record = record_of(registry, grouping, self._now_ms())
        before_ms, live = self._before(RUN)
        if record.time_ms <= before_ms:
            return
        record = record.ending(live)
        error = self._write(record, deadline, None)
        self._note_pause()
        if error is None:
            self._spool.remember(RUN, record.to_bytes())
            return
        kinds = (SinkUnauthorized, SinkRedirected)
        kind = type(error) if isinstance(error, kinds) else SinkLoss
        self.outcome.errors.append(kind(f"the run's own series: {error}"))

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

    def _record(self, verdict: Verdict, registry: CollectorRegistry) -> Record:
        at_ms = self._now_ms() if verdict.at is None else round(verdict.at * 1000)
        record = record_of(registry, {"job": self._job}, at_ms)
        if verdict.facts and verdict.facts.online is False:
            # All else that its group still says on a Pushgateway is from before.
            record = record.only(f"{self._prefix}_online")
        return record

    def _add(self, device: str, said: Record) -> None:
        """Make an entry of what a device said, with markers for what it says no more.

        Its time must be later than all that was said of the device before.
        """
        before_ms, live = self._before(device)
        record = said.ending(live)
        if not (record.names or record.ended):
            return
        if record.time_ms <= before_ms:
            ahead = (before_ms - record.time_ms) / 1000
            self._distrust = self._distrust or (
                f"the clock went back: the last snapshot is {ahead:.1f} s ahead"
            )
        size = len(record.names)
        self._fresh.append(Entry(record.time_ms, size, device, record.to_bytes()))

    def _end_the_silent(self) -> None:
        """Make records that end the series of devices that are gone or silent."""
        for device in self._silent:
            before_ms, live = self._before(device)
            silence_ms = self._now_ms() - before_ms
            is_due = device in self.owed or silence_ms > self._stale_after * 1000
            if live and is_due:
                self._add(device, empty_record(self._now_ms()))
        self._silent = []

    def _store_ahead(self, deadline: Deadline) -> None:
        if self._ahead and not self._distrust:
            unstored = [entry for entry in self._fresh if not entry.has_file]
            self._spool.store(unstored, deadline.share(STORE_SHARE))

    def _before(self, device: str) -> tuple[int, set[SeriesKey]]:
        """Return when a device was last spoken of, and its series that may be alive.

        A record that waits repeats the markers of those before it: they are known to
        be delivered only when it is. What is known to come from the future tells the
        series, and no time.
        """
        for entry in self._spool.waiting(device):
            try:
                record = Record.from_bytes(self._spool.read(entry))
            except (OSError, ValueError):
                continue
            if not self._is_impossible(entry.time_ms):
                return entry.time_ms, record.keys() | record.ended_keys()
        body = self._spool.last(device)
        try:
            record = Record.from_bytes(body or b"")
        except ValueError:
            return 0, set()
        at_ms = 0 if self._is_impossible(record.time_ms) else record.time_ms
        return at_ms, record.keys()

    # -- the clock ------------------------------------------------------------------

    @property
    def _is_confirmed(self) -> bool:
        """Whether some server said that it is as late as our clock says."""
        return self._offset is not None and not self._distrust

    def _ask_the_time(self, deadline: Deadline) -> str:
        """Ask the receiver if nobody else told; return why our clock is wrong, if so.

        So it is with the app account's login remembered.
        """
        if self._offset is None and not self._has_asked_the_time:
            self._has_asked_the_time = True
            self.hear(self._sink.ask_the_time(deadline))
        return self._distrust

    def _is_impossible(self, time_ms: int) -> bool:
        """Return whether a time is known to be in the future."""
        latest_ms = self._now_ms() + round(MOST_CLOCK_OFFSET_SECONDS * 1000)
        return self._is_confirmed and time_ms > latest_ms

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)

    # -- writing --------------------------------------------------------------------

    def _drop_the_impossible(self) -> None:
        """Give up what is too old, and what a wrong clock once stamped."""
        oldest_ms = self._now_ms() - round(self._max_age * 1000)
        for entry in self._queue():
            if self._is_impossible(entry.time_ms):
                self._lose(entry, "clock")
            elif entry.time_ms < oldest_ms and not entry.is_fresh:
                self._lose(entry, "age")

    def _drain(self, deadline: Deadline) -> None:
        queue = deque(self._queue())
        while queue:
            entry = queue.popleft()
            error = self._send(entry, deadline)
            if error is None:
                continue
            if self._is_abandoned:
                return
            if self._is_stuck(entry, error) and self._pass_by(entry, queue, deadline):
                continue
            self._stopped = error
            return

    def _send(
        self, entry: Entry, deadline: Deadline, tries: int | None = None
    ) -> SinkError | None:
        """Write one entry and settle it; return what keeps it from being settled."""
        try:
            record = self._load(entry)
        except ValueError:
            self._lose(entry, "damaged")
            return None
        except OSError as exc:
            return SinkDeferred(f"spool: cannot read {entry.name}: {exc.strerror}")
        error = self._write(record, deadline, tries)
        if self._is_abandoned:
            # Others look at it already: it stays, and is written again.
            return SinkDown("abandoned")
        if error is None:
            self.outcome.delivered += 1
            self._delivered.add(entry)
            self._settled.add(entry)
            self._spool.delivered(entry)
        elif isinstance(error, SinkRejected):
            self._rejected.append(error)
            self._lose(entry, "partial" if error.written else "refused", error.written)
        else:
            return error
        return None

    def _write(
        self, record: Record, deadline: Deadline, tries: int | None
    ) -> SinkError | None:
        try:
            self._sink.write(record, deadline, tries)
        except SinkError as exc:
            return exc
        self._state.endpoint.has_taken = True
        return None

    def _load(self, entry: Entry) -> Record:
        """Return an entry's record; raises ValueError for damage, OSError."""
        try:
            record = Record.from_bytes(self._spool.read(entry))
        except FileNotFoundError as exc:
            raise ValueError("its file is gone") from exc
        if (record.time_ms, len(record.names)) != (entry.time_ms, entry.samples):
            raise ValueError("not what its name says")
        return record

    def _queue(self) -> list[Entry]:
        """Return what is neither delivered nor lost, in the order in which it goes."""
        waiting = {*self._spool.entries, *self._fresh} - self._settled
        return sorted(waiting, key=lambda entry: entry.name)

    def _is_stuck(self, entry: Entry, error: SinkError) -> bool:
        """Count the runs in a row in which the first met a 5xx; tell if enough."""
        endpoint = self._state.endpoint
        if endpoint.failing != entry.name or not isinstance(error, SinkFailing):
            endpoint.failing, endpoint.failing_runs = entry.name, 0
        endpoint.failing_runs += isinstance(error, SinkFailing)
        return endpoint.failing_runs >= MOST_FAILING_RUNS

    def _pass_by(self, stuck: Entry, queue: deque[Entry], deadline: Deadline) -> bool:
        """Return whether a newer entry is taken where the first one is not.

        Then the first had one more try, and is settled. Another device's is tried if
        there is one: it closes no way for the first.
        """
        others = (entry for entry in queue if entry.device != stuck.device)
        probe = next(others, queue[0] if queue else None)
        if probe is None or self._send(probe, deadline, tries=1):
            return False
        queue.remove(probe)
        if probe not in self._delivered:
            return False
        if self._send(stuck, deadline, tries=1) and not self._is_abandoned:
            self._lose(stuck, "failing")
        return True

    def _note_pause(self) -> None:
        asked = min(self._sink.asked_to_wait, LONGEST_PAUSE_SECONDS)
        self._state.endpoint.pause_until = time.time() + asked if asked else None

    def _lose(self, entry: Entry, reason: str, written: int = 0) -> None:
        """Give an entry up; `written` samples of it were taken all the same."""
        self._lost.append((entry, reason, max(0, entry.samples - written)))
        self._settled.add(entry)

    # -- the end --------------------------------------------------------------------

    def _keep_what_waits(self, deadline: Deadline) -> None:
        unstored = [entry for entry in self._queue() if not entry.has_file]
        self._spool.store(unstored, deadline.share(STORE_SHARE))
        lost = {entry for entry in self._queue() if not entry.is_stored}
        for entry in lost:
            self._lose(entry, "disk")
        self._count()
        if not self._state.trouble:
            for entry in self._spool.too_many(self._max_bytes):
                self._lose(entry, "size")
                lost.add(entry)
            self._count()
        if self._rejected:
            more = f" (and {len(self._rejected) - 1} more)" * (len(self._rejected) > 1)
            if not self._state.endpoint.has_taken:
                more += "; nothing was ever taken there, check REMOTE_WRITE_URL"
            self.outcome.errors.append(
                SinkRejected(f"{self._rejected[0]}{more}: dropped")
            )
        if replayed := sum(not entry.is_fresh for entry in self._delivered):
            self.outcome.note = f" ({replayed} snapshots from the spool)"
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
        is_settings = isinstance(error, (SinkUnauthorized, SinkRedirected))
        kind = type(error) if is_settings else SinkDeferred
        kept = kind(f"{error}; {keeps}")
        kept.is_stored = True
        return kept

    def _tend_other_spools(self) -> None:
        """Bound what waits for endpoints that are not set now, and say that it does."""
        spools = other_spools(self._spool.folder)
        if self._is_confirmed and not self._state.trouble:
            now = self._clock()
            over = self._spool.size + sum(spool.size for spool in spools)
            over -= self._max_bytes
            for spool in spools:
                for entry in spool.entries[:]:
                    if over > 0 or entry.time_ms < (now - self._max_age) * 1000:
                        over -= entry.size
                        self._homes[entry] = spool
                        self._lose(entry, "elsewhere")
            self._count()
            for spool in spools:
                spool.remove_if_unused(now - self._max_age)
        waiting = sum(entry.samples for spool in spools for entry in spool.entries)
        if waiting and self._is_due():
            log.warning(
                "remote-write: %d samples wait for another address, user or tenant than"
                " is set now; SPOOL_MAX_AGE will drop them",
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
        if self._state.trouble:
            # What was removed may have made room.
            self._state.save()


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
    spool = spool_folder(settings, server, folder)
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


def spool_folder(settings: Settings, server: Server, folder: str) -> str:
    """Return the folder of the spool of an endpoint, whose name stands for it."""
    headers = settings.remote_write_headers
    tenants = [v for k, v in sorted(headers.items()) if k.lower() in TENANT_HEADERS]
    # A password may change; whose data it is, not.
    return endpoint_folder(folder, server.url, server.username or "", *tenants)
