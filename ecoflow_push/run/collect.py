"""The first half of the road: readings, one device at a time, as they come.

Reading happens in a thread of its own, so that whoever judges and stores can leave
whatever it hangs in. It is never far ahead: at most AHEAD snapshots wait, and of heavy
ones fewer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ecoflow_push.api.base import Reading
from ecoflow_push.api.models import DeviceInfo
from ecoflow_push.errors import ApiOutOfTime, EcoflowApiException
from ecoflow_push.net.deadline import Deadline, start

if TYPE_CHECKING:
    from ecoflow_push.api.base import EcoflowApiClient

# Of a run's time.
COLLECT_SHARE = 0.6
AHEAD = 16
# What those that wait may take in memory, in bytes; one may always wait.
AHEAD_WEIGHT = 8 << 20


def collect(
    sources: Sequence[EcoflowApiClient], named: Sequence[str], deadline: Deadline
) -> Iterator[Reading]:
    """Yield a reading of each device named, else of each of the account.

    The first source lists and reads them; a further one reads those that the sources
    before it were refused, or have no telemetry of. Raises EcoflowApiException where
    collecting ended early: of the devices that were not yielded nothing is known.
    """
    #: Read, but another source may know more of them.
    lacking: dict[str, Reading] = {}
    ahead = _Ahead(_read(sources, named, lacking, deadline))
    try:
        # A little longer than the work's own bounds: its words are the better ones.
        yield from ahead.arrivals(Deadline(deadline.left() + 0.25))
    except _Abandoned as exc:
        yield from list(lacking.values())
        raise ApiOutOfTime(
            "EcoFlow: no answer in time",
            "look for a firewall in the way, then raise RUN_DEADLINE",
        ) from exc
    finally:
        ahead.leave()


class _Abandoned(Exception):
    """The thread did not end in time."""


class _Ahead:
    """Readings made in a thread, few before they are asked for.

    `queue` would do; importing it costs more than all of this.
    """

    def __init__(self, readings: Iterator[Reading]) -> None:
        self._readings = readings
        self._waiting: deque[Reading] = deque()
        self._weight = 0
        self._changed = threading.Condition()
        self._raised: BaseException | None = None
        self._is_over = False
        self._is_left = False
        start(self._work)

    def arrivals(self, patience: Deadline) -> Iterator[Reading]:
        """Yield the readings; raises what making them raised, or _Abandoned."""
        while reading := self._next(patience):
            yield reading
        if self._raised:
            raise self._raised

    def leave(self) -> None:
        """Let the thread end at its next reading: nobody takes it any more."""
        with self._changed:
            self._is_left = True
            self._changed.notify_all()

    def _next(self, patience: Deadline) -> Reading | None:
        with self._changed:
            while not self._waiting:
                if self._is_over:
                    return None
                if patience.left() <= 0:
                    raise _Abandoned
                # In slices: of several signals at once, none may reach a thread that
                # waits.
                self._changed.wait(min(0.5, patience.left()))
            reading = self._waiting.popleft()
            self._weight -= _weight(reading)
            # Not at each one: to wake a thread costs more than to let it sleep.
            if len(self._waiting) <= AHEAD // 2:
                self._changed.notify_all()
            return reading

    def _work(self) -> None:
        try:
            for reading in self._readings:
                with self._changed:
                    while not (self._has_room(reading) or self._is_left):
                        self._changed.wait()
                    if self._is_left:
                        return
                    self._waiting.append(reading)
                    self._weight += _weight(reading)
                    self._changed.notify_all()
                # The next one is made without it.
                del reading
        except BaseException as exc:  # noqa: BLE001 - carried to who waits
            self._raised = exc
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def _has_room(self, reading: Reading) -> bool:
        waiting = len(self._waiting)
        is_light = self._weight + _weight(reading) <= AHEAD_WEIGHT
        return not waiting or (waiting < AHEAD and is_light)


def _weight(reading: Reading) -> int:
    return reading.snapshot.weight if reading.snapshot else 0


def _read(
    sources: Sequence[EcoflowApiClient],
    named: Sequence[str],
    lacking: dict[str, Reading],
    deadline: Deadline,
) -> Iterator[Reading]:
    first, *others = sources
    try:
        for reading in first.read(named, deadline):
            if others and _lacks(reading):
                lacking[reading.device.sn] = reading
            else:
                yield reading
    except EcoflowApiException:
        yield from lacking.values()
        raise
    for source in others:
        if lacking:
            yield from _read_more(source, lacking, deadline)
    yield from lacking.values()


def _read_more(
    source: EcoflowApiClient, lacking: dict[str, Reading], deadline: Deadline
) -> Iterator[Reading]:
    """Yield what another source knows of those that are lacking, and take them out."""
    asked = dict(lacking)
    try:
        for reading in source.read(list(asked), deadline):
            sn = reading.device.sn
            # Its list may spell in upper case what was named in lower case.
            named = sn if sn in asked else next(x for x in asked if x.upper() == sn)
            earlier = asked.pop(named)
            _note(earlier, reading, lacking)
            if named not in lacking:
                yield reading.of(_merged(earlier, reading))
    except EcoflowApiException as exc:
        for earlier in asked.values():
            unread = Reading(earlier.device, source.name, error=exc, asked=False)
            _note(earlier, unread, lacking)


def _note(earlier: Reading, later: Reading, lacking: dict[str, Reading]) -> None:
    """Keep the better one; no answer does not undo what another source knew."""
    if later.state == "failed" and earlier.state != "refused":
        return
    if _lacks(later) or later.state == "failed":
        lacking[earlier.device.sn] = later.of(_merged(earlier, later))
    else:
        del lacking[earlier.device.sn]


def _merged(earlier: Reading, later: Reading) -> DeviceInfo:
    """Return who the device is: the first list's names, the later word on online."""
    online = later.device.online
    if online is None:
        online = earlier.device.online
    names = earlier.device.name, earlier.device.product_name
    return DeviceInfo(later.device.sn, *names, online)


def _lacks(reading: Reading) -> bool:
    no_data = reading.snapshot is not None and not reading.snapshot.quotas
    return reading.state == "refused" or no_data
