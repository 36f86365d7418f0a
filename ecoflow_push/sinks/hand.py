"""Hand: the records of the next request, read back from the spool if need be."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from ecoflow_push.errors import SinkError
from ecoflow_push.metrics.record import Record

if TYPE_CHECKING:
    from ecoflow_push.memory.entry import Entry
    from ecoflow_push.memory.spool import Spool
    from ecoflow_push.sinks.losses import Losses
    from ecoflow_push.sinks.turns import Turn

# Numbers, some 1 MB: records of a household, or of a hundred devices, need not be read
# back; those of thousands must go. A label set takes as much as so many numbers.
MOST_AT_HAND = 100_000
LABEL_SET = 40


class Hand:
    """The records that are at hand."""

    def __init__(self, spool: Spool, losses: Losses, most_samples: int) -> None:
        """Store what is needed; a request holds at most `most_samples`."""
        self._spool = spool
        self._losses = losses
        self._most_samples = most_samples
        self._records: dict[Entry, Record] = {}
        self._size = 0
        #: Devices of which a file could not be read.
        self.failed: dict[str, SinkError] = {}

    def keep(self, entry: Entry, record: Record) -> None:
        """Spare the way over the spool, as long as they are few."""
        weight = _weight(record)
        if self._size + weight <= MOST_AT_HAND:
            self._size += weight
            # As numbers without the objects around them.
            packed = array("d", record.values)
            self._records[entry] = record._replace(values=packed)

    def load(self, turns: list[Turn]) -> tuple[list[Turn], list[Record]]:
        """Return what of a request can be written in one, and its records."""
        loaded: list[Turn] = []
        records: list[Record] = []
        size = 0
        for device, entries in turns:
            there: list[Entry] = []
            for entry in entries:
                record = self._record(entry)
                if device in self.failed:
                    break
                if record is None:
                    continue
                # Only now are the markers known, too; the rest has the next turn.
                size += record.size
                if size > self._most_samples and records:
                    self.keep(entry, record)
                    break
                there.append(entry)
                records.append(record)
            if there:
                loaded.append((device, there))
        return loaded, records

    def _record(self, entry: Entry) -> Record | None:
        """Return an entry's record, None if it is damaged or cannot be read."""
        if record := self._records.pop(entry, None):
            self._size -= _weight(record)
            return record
        try:
            record = Record.from_bytes(self._spool.read(entry))
            if (record.time_ms, len(record.names)) == (entry.time_ms, entry.samples):
                return record
        except FileNotFoundError:
            if self._losses.was_taken(entry):
                # By a run that was given up in the middle of it.
                self._spool.discard(entry)
                return None
        except ValueError:
            pass
        except OSError as exc:
            text = f"spool: cannot read {entry.name}: {exc.strerror}"
            self.failed[entry.device] = SinkError(text, "look for a failing disk")
            return None
        self._losses.lose(entry, "damaged")
        return None


def _weight(record: Record) -> int:
    return record.size + LABEL_SET * len(record.label_sets)
