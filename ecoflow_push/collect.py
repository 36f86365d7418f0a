"""The first half of the road: a client's devices and snapshots, or why not."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from ecoflow_push.api.models import DeviceInfo, Snapshot
from ecoflow_push.errors import (
    AskedToWait,
    DeviceOffline,
    DeviceRefused,
    EcoflowApiException,
    KeysRefused,
)

if TYPE_CHECKING:
    from ecoflow_push.api.base import EcoflowApiClient
    from ecoflow_push.deadline import Deadline

DeviceState = Literal["ok", "offline", "refused", "failed"]

# The cloud dislikes bursts more than a steady pace (ecoflow-protocol.md 1.10).
ONE_LANE_DEVICES = 8
MOST_LANES = 4
# One hanging device of many may not use up what the others need.
LARGEST_SHARE = 1 / 6


class Reading(NamedTuple):
    """What a run learnt of one device; a `snapshot` only if it is "ok"."""

    device: DeviceInfo
    state: DeviceState
    snapshot: Snapshot | None = None
    error: EcoflowApiException | None = None


class Collection:
    """What has been collected so far; safe to look at while it grows."""

    def __init__(self) -> None:
        #: The device list, once it was answered.
        self.listed: list[DeviceInfo] | None = None
        #: Those to read, once they are known.
        self.wanted: list[DeviceInfo] = []
        self.readings: dict[str, Reading] = {}
        #: What ended collecting for all devices not yet read.
        self.error: EcoflowApiException | None = None
        self.connect_seconds = 0.0

    def finished(self, error: EcoflowApiException | None) -> Collection:
        """Return a copy that no longer grows, every wanted device with a reading."""
        final = Collection()
        final.listed = self.listed
        final.wanted = list(self.wanted)
        final.readings = self.readings.copy()
        final.error = self.error or error
        final.connect_seconds = self.connect_seconds
        for device in final.wanted:
            unread = Reading(device, "failed", error=final.error)
            final.readings.setdefault(device.sn, unread)
        return final


def collect(
    client: EcoflowApiClient, named: Sequence[str], into: Collection, deadline: Deadline
) -> None:
    """Read the devices named, else all of the account, into `into`.

    Nothing is raised for what EcoFlow can do: it becomes the reading's error, or the
    collection's where it concerns them all.
    """
    into.wanted = [DeviceInfo(sn) for sn in named]
    began = time.monotonic()
    try:
        client.connect(deadline)
        into.connect_seconds = time.monotonic() - began
        devices = client.get_devices(deadline)
        if not devices:
            into.error = EcoflowApiException(
                "EcoFlow lists no device: the keys belong to another account than the"
                " devices, or the devices are only shared with it"
            )
            return
        into.listed = devices
        by_sn = {device.sn: device for device in devices}
        into.wanted = [by_sn.get(sn, DeviceInfo(sn)) for sn in named] or devices
        _Round(client, into, deadline).read()
    except EcoflowApiException as exc:
        into.error = exc


class _Round:
    """One pass over the wanted devices, in one lane or in several at once."""

    def __init__(
        self, client: EcoflowApiClient, into: Collection, deadline: Deadline
    ) -> None:
        self._client = client
        self._into = into
        self._deadline = deadline
        many = len(into.wanted) > ONE_LANE_DEVICES
        self._lanes = MOST_LANES if many else 1
        self._queue = deque(into.wanted)
        self._bugs: list[Exception] = []

    def read(self) -> None:
        threads = [
            threading.Thread(target=self._side_lane, daemon=True)
            for _ in range(1, self._lanes)
        ]
        for thread in threads:
            thread.start()
        self._lane(may_stay=True)
        for thread in threads:
            thread.join()
        if self._bugs:
            raise self._bugs[0]

    def _lane(self, *, may_stay: bool) -> None:
        while self._into.error is None and (may_stay or not self._client.throttled):
            share = max(LARGEST_SHARE, self._lanes / max(1, len(self._queue)))
            try:
                device = self._queue.popleft()
            except IndexError:
                return
            share_deadline = self._deadline.share(min(1.0, share))
            reading = _read(self._client, device, share_deadline)
            self._into.readings[device.sn] = reading
            if _ends_collecting(reading.error):
                self._into.error = reading.error

    def _side_lane(self) -> None:
        try:
            self._lane(may_stay=False)
        except Exception as exc:  # noqa: BLE001 - a bug, carried to the first lane
            self._bugs.append(exc)


def _read(client: EcoflowApiClient, device: DeviceInfo, deadline: Deadline) -> Reading:
    if device.online is False:
        # Its cached values would be answered all the same, however old they are.
        return Reading(device, "offline")
    try:
        snapshot = client.get_device_quota(device.sn, deadline)
    except DeviceOffline as exc:
        return Reading(device, "offline", error=exc)
    except DeviceRefused as exc:
        return Reading(device, "refused", error=exc)
    except EcoflowApiException as exc:
        return Reading(device, "failed", error=exc)
    return Reading(device, "ok", snapshot)


def _ends_collecting(error: EcoflowApiException | None) -> bool:
    """Return whether asking on would only hurt; 8521 comes and goes by itself."""
    if isinstance(error, KeysRefused):
        return error.code != "8521"
    return isinstance(error, AskedToWait)
