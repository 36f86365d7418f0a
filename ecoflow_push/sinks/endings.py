"""Endings: which series of a device are alive, so that they can end in time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ecoflow_push.metrics.record import Record, empty_record

if TYPE_CHECKING:
    from ecoflow_push.memory.records import EndpointRecord
    from ecoflow_push.memory.spool import Spool
    from ecoflow_push.sinks.clock import Clock


#: What the run's own series are remembered by; no serial number looks like it.
RUN = "@run"


class Endings:
    """What was said last of each device, by what waits and what was delivered."""

    def __init__(
        self, spool: Spool, endpoint: EndpointRecord, clock: Clock, stale_after: float
    ) -> None:
        """Store what is needed; `stale_after` in seconds."""
        self._spool = spool
        self._endpoint = endpoint
        self._clock = clock
        self._stale_after = stale_after
        #: Devices that are gone, and whose series are not known to end yet.
        self.owed: set[str] = set()
        #: Devices whose series may have to end, though nothing was heard of them.
        self.silent: list[str] = []

    def before(self, device: str) -> tuple[int, Record]:
        """Return when a device was last spoken of (ms), and what may still be alive.

        A record that waits repeats the markers of those before it: they are known to
        be delivered only when it is. What is known to come from the future tells the
        series, and no time.
        """
        for entry in self._spool.waiting(device):
            try:
                record = Record.from_bytes(self._spool.read(entry), is_valued=False)
            except (OSError, ValueError):
                continue
            if not self._clock.is_impossible(entry.time_ms):
                return entry.time_ms, record
        body = self._spool.files.last(device)
        try:
            record = Record.from_bytes(body or b"", is_valued=False)
        except ValueError:
            return 0, empty_record(0)
        impossible = self._clock.is_impossible(record.time_ms)
        return 0 if impossible else record.time_ms, record._replace(ended=())

    def continued(self, device: str, said: Record, series: int = 0) -> Record | None:
        """Return what a device says, with markers for what it says no more.

        None if that is nothing. Its time must be later than all that was said of the
        device before; if not, the clock is not to be trusted. Where `series`,
        its fingerprint, is the last one's, of thousands of devices no file is read.
        """
        before_ms, record = self._said_at(device, series), said
        if not before_ms:
            before_ms, before = self.before(device)
            record = said.after(before)
        if not (record.names or record.ended):
            return None
        if record.time_ms <= before_ms:
            self._clock.went_back((before_ms - record.time_ms) / 1000)
        return record

    def _said_at(self, device: str, series: int) -> int:
        """Return when (ms) a device said just these series last.

        0 where it said others, or where what is remembered of it is not all there is.
        """
        queue = self._endpoint.queues.get(device)
        if not (queue and series and queue.series == series):
            return 0
        at_ms = queue.delivered_ms
        is_all = self._spool.files.is_made and not self._spool.head(device)
        return at_ms if is_all and not self._clock.is_impossible(at_ms) else 0

    def due(self) -> Iterator[tuple[str, Record]]:
        """Yield records that end the series of devices that are gone or silent."""
        silent, self.silent = self.silent, []
        for device in silent:
            before_ms, before = self.before(device)
            silence_ms = self._clock.now_ms() - before_ms
            is_due = device in self.owed or silence_ms > self._stale_after * 1000
            if before.size and is_due:
                record = self.continued(device, empty_record(self._clock.now_ms()))
                if record:
                    yield device, record

    def are_done(self, devices: set[str]) -> None:
        """Note of which gone devices the end is delivered, or stored to be."""
        self.owed -= devices
        self.owed = {device for device in self.owed if self.before(device)[1].size}
