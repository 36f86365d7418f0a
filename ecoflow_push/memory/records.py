"""What is remembered of one device, and of one endpoint; all of it checked.

Everything read from a file is checked, since disks lie.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

# However long a Retry-After says: a wrong one must not silence us for a day.
LONGEST_PAUSE_SECONDS = 900.0
# What cannot be helped is told once a day.
TELL_SECONDS = 86_400.0
# Milliseconds of the year 33658.
MOST = 1e15


class DeviceRecord:
    """What is remembered of one device; times in Unix seconds."""

    __slots__ = (
        "changed_at",
        "digest",
        "family",
        "firmware",
        "held_at",
        "hung_at",
        "listed",
        "missing",
        "name",
        "named",
        "product_name",
        "reduced_at",
        "snapshot_at",
        "source",
        "told_at",
    )

    def __init__(self, fields: Mapping[str, object] | None = None) -> None:
        fields = fields or {}
        self.name = text_of(fields.get("name"))
        self.product_name = _word(fields.get("product_name"))
        #: How it was last read.
        self.source = _word(fields.get("source"))
        #: The user named it once: it is never taken for gone.
        self.named = fields.get("named") is True
        #: A device list had it once: only then it can be gone.
        self.listed = fields.get("listed") is True
        #: When the values that its group holds were collected: 0 if the group holds
        #: none, None if that is not known.
        self.held_at = number_of(fields.get("held_at"))
        #: When its group was last emptied of values.
        self.reduced_at = number_of(fields.get("reduced_at"))
        #: When the push of its group last hung where others went well, None if it was
        #: taken since.
        self.hung_at = number_of(fields.get("hung_at"))
        #: Good device lists in a row that lacked it.
        self.missing = int(number_of(fields.get("missing")) or 0)
        self.snapshot_at = number_of(fields.get("snapshot_at"))
        self.changed_at = number_of(fields.get("changed_at"))
        self.digest = text_of(fields.get("digest"))
        self.family = _word(fields.get("family"))
        self.firmware = _word(fields.get("firmware"))
        #: When the log last said that EcoFlow does not open it, or that nobody can read
        #: what it sends.
        self.told_at = number_of(fields.get("told_at"))

    def fields(self) -> dict[str, object]:
        """Return what goes into the file."""
        return {name: getattr(self, name) for name in self.__slots__}

    def is_to_be_told(self, now: float) -> bool:
        """Return whether the log is to tell of it, once a day; note that it does."""
        told_at = self.told_at
        if told_at is not None and 0 <= now - told_at < TELL_SECONDS:
            return False
        self.told_at = now
        return True


class QueueRecord:
    """What is remembered of one device's queue to an endpoint."""

    __slots__ = (
        *("delivered_ms", "failing", "first", "hung", "last", "rested", "sent_ms"),
        *("series", "served", "why"),
    )

    def __init__(
        self,
        row: Sequence[object] = (0, 0, 0, 0, 0, 0, "", "", ""),
        series: object = 0,
    ) -> None:
        numbers = [int(number_of(value) or 0) for value in (*row[:6], series)]
        #: The number of the run or drain in which it last had its turn; in how many
        #: runs in a row it failed where others did not, and in how many of them it was
        #: plain that it is not the line; whether it was in a request that hung; the
        #: time of the last record that was taken, and of the last that may have been,
        #: since no answer was heard; the fingerprint of the former, 0 if its file must
        #: tell.
        self.served, self.rested, self.failing, self.hung = numbers[:4]
        self.delivered_ms, self.sent_ms, self.series = numbers[4:7]
        #: The files of the oldest and the newest record that waits, "" if none does,
        #: and with what it failed.
        self.first, self.last, self.why = map(text_of, row[6:9])

    def row(self) -> list[object]:
        """Return what goes into the file, beside the fingerprint."""
        return [
            *(self.served, self.rested, self.failing, self.hung),
            *(self.delivered_ms, self.sent_ms),
            *(self.first, self.last, self.why),
        ]


# Without the fingerprint: a version that knows none is to understand all the rest.
QUEUE_FIELDS = len(QueueRecord.__slots__) - 1


class EndpointRecord:
    """What is remembered of a remote-write endpoint; times in Unix seconds."""

    __slots__ = (
        *("aside", "failing_runs", "has_taken", "is_proven", "name"),
        *("pause_until", "queues", "rest_told_at", "samples", "size", "stamp"),
        *("told_at", "version"),
    )

    def __init__(self, fields: Mapping[str, object] | None = None) -> None:
        fields = fields or {}
        self.name = text_of(fields.get("name"))
        #: The protocol's version that it turned out to take.
        version = fields.get("version")
        self.version = str(version) if version in ("1", "2") else ""
        #: It once took something: its address is right.
        self.has_taken = fields.get("has_taken") is True
        #: It refused what no receiver takes: what it says of other things counts.
        self.is_proven = fields.get("is_proven") is True
        #: When the log last said that something waits for another one.
        self.told_at = number_of(fields.get("told_at"))
        #: Until when it wants to be left alone.
        self.pause_until = number_of(fields.get("pause_until"))
        #: In how many runs in a row it answered 5xx, and took nothing.
        self.failing_runs = int(number_of(fields.get("failing_runs")) or 0)
        #: When the log last said that devices rest.
        self.rest_told_at = number_of(fields.get("rest_told_at"))
        #: The spool's folder as it was when this was true, "" if that is not known:
        self.stamp = text_of(fields.get("stamp"))
        #: samples and bytes that wait, bytes that were set aside,
        self.samples, self.size, self.aside = (
            int(number_of(fields.get(name)) or 0)
            for name in ("samples", "size", "aside")
        )
        #: and the queues, by device.
        self.queues: dict[str, QueueRecord] = {}
        queues, series = fields.get("queues"), fields.get("series")
        prints = series if isinstance(series, dict) else {}
        for device, row in (queues if isinstance(queues, dict) else {}).items():
            if isinstance(row, list) and len(row) == QUEUE_FIELDS and text_of(device):
                self.queues[device] = QueueRecord(row, prints.get(device))
            else:
                # Of another version, perhaps: what it says of files must be looked at.
                self.stamp = ""

    def fields(self) -> dict[str, object]:
        """Return what goes into the file, the queues as they are asked for."""
        found = {name: getattr(self, name) for name in self.__slots__}
        # A copy: an abandoned push may still add one.
        queues = self.queues.copy().items()
        return {
            **found,
            "queues": ((device, each.row()) for device, each in queues),
            "series": ((device, q.series) for device, q in queues if q.series),
        }

    def queue(self, device: str) -> QueueRecord:
        """Return what is remembered of a device's queue, from now on."""
        queue = self.queues.get(device)
        if queue is None:
            queue = self.queues[device] = QueueRecord()
        return queue

    @property
    def newest_ms(self) -> int:
        """The time (ms) of the newest record that was taken, 0 if none was."""
        return max((queue.delivered_ms for queue in self.queues.values()), default=0)

    @property
    def resting(self) -> int:
        """How many devices failed where others did not."""
        return sum(queue.rested > 0 for queue in self.queues.values())

    def forget(self, kept: AbstractSet[str]) -> None:
        """Forget the queues of all devices but these."""
        for device in [each for each in self.queues if each not in kept]:
            del self.queues[device]

    def pause_for(self, now: float) -> float:
        """Return for how many seconds it still wants to be left alone."""
        return left_until(self.pause_until, now)


def left_until(until: float | None, now: float) -> float:
    """Return the seconds until a pause ends; one of impossible length is over."""
    left = 0.0 if until is None else until - now
    return left if 0 < left <= LONGEST_PAUSE_SECONDS else 0.0


def counts_of(value: object) -> dict[str, int]:
    """Return the counts by name that a file says; nothing if it says no such thing."""
    found = value if isinstance(value, dict) else {}
    return {key: int(number_of(n) or 0) for key, n in found.items() if text_of(key)}


def number_of(value: object) -> float | None:
    """Return a time or a count that a file says, None if it is none."""
    # Any time and count we write; keeps infinities of a damaged file out.
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and 0 <= value < MOST
    ):
        return float(value)
    return None


def _word(value: object) -> str:
    """Return a text that many devices have in common, once for all of them."""
    return sys.intern(text_of(value))


def text_of(value: object) -> str:
    """Return a line of text that a file says, "" if it is none; cut to 256."""
    return value[:256] if isinstance(value, str) and value.isprintable() else ""
