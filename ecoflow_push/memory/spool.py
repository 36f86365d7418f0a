"""The spool: what remote-write has not taken yet, one queue for each device.

How much waits, and each device's oldest and newest record, are remembered from run to
run; the folder is listed only by a run that needs more, or if anything in it changed
meanwhile. So the cost of a run in an outage does not grow with the outage.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ecoflow_push.memory.entry import Entry, entry_named
from ecoflow_push.memory.folder import BAD, LAST, Folder, by_name

if TYPE_CHECKING:
    from ecoflow_push.memory.records import EndpointRecord


class Keep:
    """How the spool of a timestamped sink is kept.

    `ahead`: records are stored before they are sent, not only when that failed.
    `max_age` is in seconds.
    """

    __slots__ = ("ahead", "max_age", "max_bytes")

    def __init__(
        self,
        *,
        ahead: bool = True,
        max_age: float = 86_400.0,
        max_bytes: int = 200 * 1024 * 1024,
    ) -> None:
        self.ahead = ahead
        self.max_age = max_age
        self.max_bytes = max_bytes


class Spool:
    """The queues of one endpoint; whoever uses it holds the state's lock."""

    def __init__(self, folder: str, keep: Keep | None = None) -> None:
        """Name the folder; `open` makes it."""
        self.keep = keep or Keep()
        self.files = Folder(folder)
        #: By device, oldest first; before the listing the first and last of each.
        self._queues: dict[str, list[Entry]] = {}
        self._is_listed = False
        self._samples = 0
        # None as long as nobody has looked.
        self._size: int | None = None
        self._aside: int | None = None
        self._uncommitted: list[Entry] = []

    @property
    def folder(self) -> str:
        """Its path."""
        return self.files.path

    @property
    def trouble(self) -> str:
        """Why nothing can be stored, "" if it can."""
        return self.files.trouble

    def open(self, known: EndpointRecord | None = None) -> None:
        """Make the folders; take what is `known` of them, if it is still true."""
        # Twice, if need be: what is new would be sent without what waits, and a server
        # that keeps the order would never take that again.
        for _ in range(2):
            try:
                self._open(known)
            except OSError as exc:
                self.files.is_made = False
                text = f"cannot use the spool {self.folder}: {exc.strerror}"
                self.files.trouble = text
            else:
                self.files.trouble = ""
                return

    def _open(self, known: EndpointRecord | None) -> None:
        self.files.make()
        if not (known and self._is_known(known)):
            # What was delivered since, this run need not hear of: no later one trusts.
            for queue in known.queues.values() if known else ():
                queue.series = 0
            self._list()
            # What a killed run left goes from there, too.
            for inside in (BAD, LAST):
                self.files.listed(inside)

    def note(self, known: EndpointRecord, *, is_sure: bool = True) -> None:
        """Let the next run know what waits; the folder must not change after this.

        Where it may, that is not `is_sure`, and the next run looks.
        """
        known.stamp = self.files.stamp() if is_sure and self.files.is_made else ""
        known.samples = self._samples
        known.size, known.aside = self.size, self.aside
        for device in known.queues.keys() | self._queues.keys():
            queue = [e for e in self._queues.get(device, ()) if e.has_file]
            record = known.queue(device)
            record.first = queue[0].name if queue else ""
            record.last = queue[-1].name if queue else ""

    # -- the queues -----------------------------------------------------------------

    def devices(self) -> list[str]:
        """Return the devices of which anything waits."""
        return [device for device, queue in self._queues.copy().items() if queue]

    def head(self, device: str) -> Entry | None:
        """Return the oldest entry of a device, None if nothing waits."""
        return next(iter(self._queues.get(device, ())), None)

    def has_backlog(self, device: str) -> bool:
        """Return whether more waits of a device than what this run has collected."""
        return any(not entry.is_fresh for entry in self._queues.get(device, ()))

    def queue(self, device: str) -> list[Entry]:
        """Return all that waits of a device, oldest first."""
        if self.has_backlog(device):
            self._list()
        return self._queues.get(device, [])

    def waiting(self, device: str) -> Iterator[Entry]:
        """Yield what waits of a device in files, newest first."""
        if queue := self._queues.get(device):
            newest = queue[-1]
            yield newest
            yield from (e for e in self.queue(device)[::-1] if e is not newest)

    @property
    def entries(self) -> list[Entry]:
        """All that waits in files, oldest first."""
        self._list()
        found = [e for queue in self._queues.values() for e in queue if e.has_file]
        return sorted(found, key=by_name)

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest of what waits was collected, None if nothing waits."""
        heads = [e for queue in self._queues.values() for e in queue[:1] if e.has_file]
        return min((entry.time_ms for entry in heads), default=None)

    @property
    def newest_ms(self) -> int:
        """When the newest of what waits was collected, 0 if nothing waits."""
        tails = [queue[-1] for queue in self._queues.values() if queue]
        return max((entry.time_ms for entry in tails), default=0)

    @property
    def samples(self) -> int:
        """How many samples wait."""
        return self._samples

    @property
    def size(self) -> int:
        """The bytes of all that waits."""
        if self._size is None:
            self._size = sum(map(self.files.size_of, self.entries))
        return self._size

    @property
    def aside(self) -> int:
        """The bytes of what was set aside."""
        if self._aside is None:
            # Of folders that cannot be used, nothing is known.
            found = self.files.listed(BAD) if self.files.is_made else ()
            self._aside = sum(self.files.size_of(entry, BAD) for entry in found)
        return self._aside

    def too_many(self) -> list[Entry]:
        """Return the oldest entries that must go for the rest to fit.

        What was set aside goes before them, by this call.
        """
        most_bytes = self.keep.max_bytes
        if not self.files.is_made:
            return []
        if self.size + self.aside > most_bytes:
            for entry in self.files.listed(BAD):
                if self.size + self.aside <= most_bytes:
                    break
                self._aside = self.aside - self.files.size_of(entry, BAD)
                self.files.remove(entry, BAD)
        over, waiting = [], self.size
        for entry in self.entries if waiting > most_bytes else ():
            if waiting <= most_bytes:
                break
            waiting -= self.files.size_of(entry)
            over.append(entry)
        return over

    # -- in and out -----------------------------------------------------------------

    def add(self, entry: Entry) -> None:
        """Put an entry into its device's queue."""
        if self._place(entry) is None:
            insort(self._queues.setdefault(entry.device, []), entry, key=by_name)

    def write(self, entry: Entry) -> None:
        """Write the file of an entry; `commit` makes it last, `trouble` says if not."""
        if not self.files.write(entry):
            return
        self._uncommitted.append(entry)
        self._samples += entry.samples
        if self._size is not None:
            self._size += entry.size
        self.add(entry)

    def commit(self) -> None:
        """Make durable what was written; `trouble` says if not."""
        if self._uncommitted and self.files.sync():
            for entry in self._uncommitted:
                entry.is_stored = True
            self._uncommitted.clear()

    def read(self, entry: Entry) -> bytes:
        """Return the record of an entry; raises ValueError for damage, OSError."""
        return self.files.read(entry)

    def delivered(self, entry: Entry) -> bool:
        """Take an entry out; return whether its file is the device's last one now."""
        self._take_out(entry)
        return self.files.delivered(entry)

    def discard(self, entry: Entry, *, keep: bool = False) -> None:
        """Take an entry out for good; with `keep` its file is set aside."""
        self._take_out(entry)
        if not entry.has_file:
            return
        if keep and self.files.set_aside(entry):
            if self._aside is not None:
                self._aside += self.files.size_of(entry, BAD)
        else:
            self.files.remove(entry)

    def remove_if_unused(self, since: float) -> None:
        """Remove the folders if nothing waits, and nothing was done since (Unix s)."""
        is_empty = self.files.is_made and not self.devices()
        if is_empty and self.files.is_idle(since):
            self.files.destroy()

    def _take_out(self, entry: Entry) -> None:
        if not entry.is_fresh:
            # What comes behind it is not known before.
            self._list()
        place = self._place(entry)
        if place is None:
            return
        del self._queues[entry.device][place]
        if entry.has_file:
            self._samples -= entry.samples
            if self._size is not None:
                self._size -= self.files.size_of(entry)

    def _place(self, entry: Entry) -> int | None:
        queue = self._queues.get(entry.device, [])
        # Mostly it is the only one.
        if not queue or queue[0] is entry:
            return 0 if queue else None
        place = bisect_left(queue, entry.name, key=by_name)
        return place if queue[place : place + 1] == [entry] else None

    # -- what is known --------------------------------------------------------------

    def _is_known(self, known: EndpointRecord) -> bool:
        """Take what the last run knew, if no name came or went since."""
        if not known.stamp or known.stamp != self.files.stamp():
            return False
        if known.samples and not any(q.first for q in known.queues.values()):
            return False
        for device, queue in known.queues.items():
            ends = sorted({name for name in (queue.first, queue.last) if name})
            entries = [entry for name in ends if (entry := entry_named(name))]
            if len(entries) < len(ends) or any(e.device != device for e in entries):
                return False
            if entries:
                self._queues[device] = entries
        self._samples, self._size = known.samples, known.size
        self._aside = known.aside
        return True

    def _list(self) -> None:
        if self._is_listed or not self.files.is_made:
            return
        mine = {e.name: e for queue in self._queues.values() for e in queue}
        there = {entry.name: entry for entry in self.files.listed()}
        queues: dict[str, list[Entry]] = {}
        samples = 0
        for entry in sorted((there | mine).values(), key=by_name):
            if entry.has_file and entry.name not in there:
                continue
            queues.setdefault(entry.device, []).append(entry)
            samples += entry.samples if entry.has_file else 0
        # At once: an abandoned thread may be in here.
        self._queues, self._samples, self._is_listed = queues, samples, True
