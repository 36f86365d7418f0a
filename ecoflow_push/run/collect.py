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
    from ecoflow_push.net.deadline import Deadline

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
    source: str
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

    def note(self, reading: Reading) -> None:
        """Keep a reading; no answer does not undo what another source knew."""
        earlier = self.readings.get(reading.device.sn)
        if earlier is None or reading.state != "failed" or earlier.state == "refused":
            self.readings[reading.device.sn] = reading

    def finished(self, error: EcoflowApiException | None) -> Collection:
        """Return a copy that no longer grows, every wanted device with a reading."""
        final = Collection()
        final.listed = self.listed
        final.wanted = list(self.wanted)
        final.readings = self.readings.copy()
        final.error = self.error or error
        final.connect_seconds = self.connect_seconds
        for device in final.wanted:
            unread = Reading(device, "failed", "", error=final.error)
            final.readings.setdefault(device.sn, unread)
        return final


def collect(
    clients: Sequence[EcoflowApiClient],
    named: Sequence[str],
    into: Collection,
    deadline: Deadline,
) -> None:
    """Read the devices named, else all of the account, into `into`.

    The first client lists and reads them; a further one reads those that the clients
    before it were refused, or have no telemetry of. Nothing is raised for what EcoFlow
    can do: it becomes the reading's error, or the collection's where it concerns all.
    """
    first, *others = clients
    into.wanted = [DeviceInfo(sn) for sn in named]
    try:
        _connect(first, into, deadline)
        devices = first.get_devices(deadline)
        if not devices:
            into.error = EcoflowApiException(
                "EcoFlow lists no device: the credentials belong to another account"
                " than the devices, or the devices are only shared with it"
            )
            return
        if first.lists_afresh:
            into.listed = devices
        by_sn = {device.sn: device for device in devices}
        into.wanted = [by_sn.get(sn, DeviceInfo(sn)) for sn in named] or devices
        _Round(first, into.wanted, into, deadline).read()
    except EcoflowApiException as exc:
        into.error = exc
    for client in others:
        lacking = [r.device for r in into.readings.values() if _lacks(r)]
        if not lacking or into.error:
            return
        try:
            _connect(client, into, deadline)
            _Round(client, lacking, into, deadline).read()
        except EcoflowApiException as exc:
            for device in lacking:
                into.note(Reading(device, "failed", client.source, error=exc))


def _connect(client: EcoflowApiClient, into: Collection, deadline: Deadline) -> None:
    began = time.monotonic()
    client.connect(deadline)
    into.connect_seconds += time.monotonic() - began


def _lacks(reading: Reading) -> bool:
    no_data = reading.snapshot is not None and not reading.snapshot.quotas
    return reading.state == "refused" or no_data


class _Round:
    """One pass over the wanted devices, in one lane or in several at once."""

    def __init__(
        self,
        client: EcoflowApiClient,
        devices: Sequence[DeviceInfo],
        into: Collection,
        deadline: Deadline,
    ) -> None:
        self._client = client
        self._into = into
        self._deadline = deadline
        many = len(devices) > ONE_LANE_DEVICES and not client.asks_at_once
        self._lanes = MOST_LANES if many else 1
        self._queue = deque(devices)
        self._bugs: list[Exception] = []

    def read(self) -> None:
        online = [d.sn for d in self._queue if d.online is not False]
        if online:
            self._client.ask(online, self._deadline)
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
            # Whoever asked them all at once waits for them all at once.
            share = 1.0 if self._client.asks_at_once else min(1.0, share)
            try:
                device = self._queue.popleft()
            except IndexError:
                return
            reading = _read(self._client, device, self._deadline.share(share))
            self._into.note(reading)
            if _ends_collecting(reading.error, self._deadline):
                self._into.error = reading.error

    def _side_lane(self) -> None:
        try:
            self._lane(may_stay=False)
        except Exception as exc:  # noqa: BLE001 - a bug, carried to the first lane
            self._bugs.append(exc)


def _read(client: EcoflowApiClient, device: DeviceInfo, deadline: Deadline) -> Reading:
    source = client.source
    if device.online is False:
        # Its cached values would be answered all the same, however old they are.
        return Reading(device, "offline", source)
    try:
        snapshot = client.get_device_quota(device.sn, deadline)
    except DeviceOffline as exc:
        return Reading(device, "offline", source, error=exc)
    except DeviceRefused as exc:
        return Reading(device, "refused", source, error=exc)
    except EcoflowApiException as exc:
        return Reading(device, "failed", source, error=exc)
    if snapshot.online is not None:
        device = device._replace(online=snapshot.online)
    return Reading(device, "ok", source, snapshot)


def _ends_collecting(error: EcoflowApiException | None, deadline: Deadline) -> bool:
    """Return whether asking on, for any device, would be in vain or impolite.

    Other refusals are of one device, as long as the device list was not refused.
    """
    if isinstance(error, AskedToWait):
        return error.seconds >= deadline.left()
    return isinstance(error, KeysRefused) and error.code == "8513"
