"""Turns: which records go into the next requests.

Order matters within one device only. Devices have their turns in rounds: first those of
which nothing older waits, then those served longest ago; last, when all others are
done, those that failed where others did not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from ecoflow_push.memory.entry import Entry
    from ecoflow_push.memory.spool import Spool
    from ecoflow_push.memory.state import State
    from ecoflow_push.net.deadline import Deadline

# Up to so many devices each has its own requests, so that one costs no other anything.
MOST_ALONE = 8
# Prometheus, as it comes, refuses what is an hour older than the newest of all that it
# has (protocol/remote-write.md#order): nothing may run so far ahead of what waits, what
# was just collected a little further than what waits itself.
MOST_AHEAD_MS = 30 * 60 * 1000
MOST_FRESH_AHEAD_MS = 45 * 60 * 1000
SHUT_OUT_MS = 60 * 60 * 1000
# What a device cannot get rid of in so many runs, while others can, holds nobody back.
MOST_RUNS_HELD = 10

# Of what is left, for one device's request while others wait.
TURN_SHARE = 0.7

#: One device's share of a request: its name, and its entries, oldest first.
Turn = tuple[str, list["Entry"]]


class Turns:
    """The order of one run."""

    def __init__(
        self, spool: Spool, state: State, given_up: AbstractSet[Entry], most: int
    ) -> None:
        """Store what is needed; a request holds at most `most` samples."""
        self._spool = spool
        self._endpoint = state.endpoint
        self._queues = state.endpoint.queues
        # A drain counts as no run, and of a killed run the number comes again.
        last = max((queue.served for queue in self._queues.values()), default=0)
        self._number = max(state.runs, last) + 1
        self._given_up = given_up
        self._most = most
        self._order: list[str] = []
        self._closed: set[str] = set()
        self._skipped: set[Entry] = set()
        self._is_free = False
        #: How many records of a device go together, where that is not yet known to go
        #: well, or went badly.
        self._limits: dict[str, int] = {}

    def begin(self) -> bool:
        """Find the order of this run; return whether there is anything to do."""

        def rank(device: str) -> tuple[bool, bool, bool, int, str]:
            is_old = self._spool.has_backlog(device)
            queue = self._queues.get(device)
            served = queue.served if queue else 0
            head = self._spool.head(device)
            name = head.name if head else ""
            return self.are_resting({device}), self._hung(device), is_old, served, name

        self._order = sorted(self._spool.devices(), key=rank)
        self._limits = {
            device: 1 for device in self._order if self._spool.has_backlog(device)
        }
        return any(map(self._next, self._order))

    def next_round(self) -> list[list[Turn]]:
        """Return requests, in each of which a device has one turn; none at the end."""
        still = [device for device in self._order if device not in self._closed]
        well = [device for device in still if not self.are_resting({device})]
        heads = self._heads()
        for devices in (well, still):
            turns = [
                (each, self._next(each, 0, self._until(each, heads)))
                for each in devices
            ]
            if some := [turn for turn in turns if turn[1]]:
                return self._packed(some)
        return []

    def are_resting(self, devices: AbstractSet[str]) -> bool:
        """Return whether all of these failed where others did not, and still may."""
        return all(
            device in self._queues and self._queues[device].rested > 0
            for device in devices
        )

    def _hung(self, device: str) -> bool:
        queue = self._queues.get(device)
        return queue is not None and queue.hung > 0

    def had(self, devices: AbstractSet[str]) -> None:
        """Note that devices have their turn."""
        for device in devices:
            self._endpoint.queue(device).served = self._number

    def share(self, devices: AbstractSet[str], deadline: Deadline) -> Deadline:
        """Return how long these may take, where others wait for their first turn."""
        # Of several one alone may be what hangs.
        if len(devices) > 1 or any(map(self._waits_for_a_turn, self._order)):
            return deadline.share(TURN_SHARE)
        return deadline

    def _waits_for_a_turn(self, device: str) -> bool:
        queue = self._queues.get(device)
        has_had = queue is not None and queue.served == self._number
        return not has_had and device not in self._closed

    def are_many(self) -> bool:
        """Return whether more devices wait than have requests of their own."""
        return len(self._order) > MOST_ALONE

    def shrink(self, device: str) -> None:
        """Send a device's records one by one."""
        self._limits[device] = 1

    def grow(self, device: str) -> None:
        """Send more of a device's records at once."""
        if device in self._limits:
            self._limits[device] *= 4

    def skip(self, entry: Entry) -> None:
        """Pass by an entry, in this run."""
        self._skipped.add(entry)

    def close(self, device: str) -> None:
        """End a device's turns."""
        self._closed.add(device)

    def reopen(self, device: str) -> None:
        """Let a device go on."""
        self._closed.discard(device)

    def head(self, device: str) -> Entry | None:
        """Return a device's oldest entry that is to go next, None if there is none."""
        return next(iter(self._next(device, 1)), None)

    def only_head(self) -> Entry | None:
        """Return the oldest entry of all if they are of one device, else None."""
        devices = self._spool.devices()
        return self.head(devices[0]) if len(devices) == 1 else None

    def leave_out(self, device: str) -> None:
        """Go on as if nothing waited of a device: it cannot be read."""
        if device in self._order:
            self._order.remove(device)

    def let_go(self) -> None:
        """Hold nothing back in this run: the server is already further ahead."""
        self._is_free = True

    def holder(self) -> Entry | None:
        """Return what anything that could go next waits for, None if nothing does."""
        heads = self._heads()
        if not any(
            each not in self._closed and self.head(each) for each in self._order
        ):
            return None
        return self.head(heads[0][1]) if heads else None

    def waits_long(self, now_ms: int) -> bool:
        """Return whether a newer sample would shut the door for what still waits."""
        return self._until("", self._heads()) + MOST_FRESH_AHEAD_MS < now_ms

    def _heads(self) -> list[tuple[int, str]]:
        """Return what waits longest, of two devices: when it was collected, and whose.

        What failed in this run alone may be the line's fault. What is shut out already
        is helped by nobody's waiting.
        """
        shut_out_ms = self._endpoint.newest_ms - SHUT_OUT_MS
        heads: list[tuple[int, str]] = []
        for device in () if self._is_free else self._order:
            queue = self._queues.get(device)
            if self._spool.has_backlog(device) and (
                queue is None or queue.rested < MOST_RUNS_HELD
            ):
                entry = self.head(device)
                if entry and entry.time_ms >= shut_out_ms:
                    heads.append((entry.time_ms, device))
        return sorted(heads)[:2]

    def _until(self, device: str, heads: list[tuple[int, str]]) -> float:
        """Return when (ms) what waits longest of all other devices was collected."""
        others = (time_ms for time_ms, each in heads if each != device)
        return next(others, float("inf"))

    def _next(
        self, device: str, limit: int = 0, waits_ms: float = float("inf")
    ) -> list[Entry]:
        """Return what goes next of a device, as far as one request holds it.

        `waits_ms` is when what waits longest of others was collected.
        """
        limit = limit or self._limits.get(device, self._most)
        head = self._spool.head(device)
        if head is None or (limit == 1 and not self._is_passed(head)):
            # Nothing behind it needs to be looked for.
            return [head] if head and _is_due(head, waits_ms) else []
        found: list[Entry] = []
        samples = 0
        for entry in self._spool.queue(device):
            if self._is_passed(entry):
                continue
            samples += entry.samples
            is_full = samples > self._most or len(found) >= limit
            if not _is_due(entry, waits_ms) or (found and is_full):
                break
            found.append(entry)
        return found

    def _is_passed(self, entry: Entry) -> bool:
        return entry in self._skipped or entry in self._given_up

    def _packed(self, turns: list[Turn]) -> list[list[Turn]]:
        if not self.are_many():
            return [[turn] for turn in turns]
        requests: list[list[Turn]] = []
        room = 0
        for device, entries in turns:
            samples = sum(entry.samples for entry in entries)
            is_alone = self._hung(device) or self.are_resting({device})
            if not requests or samples > room or is_alone:
                requests.append([])
                room = self._most
            requests[-1].append((device, entries))
            room = 0 if is_alone else room - samples
        return requests


def _is_due(entry: Entry, waits_ms: float) -> bool:
    most = MOST_FRESH_AHEAD_MS if entry.is_fresh else MOST_AHEAD_MS
    return entry.time_ms <= waits_ms + most
