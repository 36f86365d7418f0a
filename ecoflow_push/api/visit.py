"""Visit: what one device says over MQTT, put together from JSON and frames."""

from __future__ import annotations

import json
import logging
import os
import time

from ecoflow_push.api.base import Reading
from ecoflow_push.api.envelope import OFFLINE_CURE, TIME_CURE
from ecoflow_push.api.frames import decode_frame, get_all_request
from ecoflow_push.api.models import DeviceInfo, Snapshot, online_flag, short_sn
from ecoflow_push.errors import (
    ApiOutOfTime,
    DeviceOffline,
    DeviceRefused,
    EcoflowApiException,
)

log = logging.getLogger(__name__)

# Free text (protocol/mqtt.md#question).
SENDER = "ecoflow_push"
MOST_BYTES = 8 * 1024 * 1024
# A device that begins to be watched first reports its reporting plan: that is no
# telemetry (protocol/mqtt.md#pushes).
PLAN_KEYS = frozenset(
    f"pd.{name}"
    for name in (
        *("pdInfoFull", "pdInfoIncre", "pdRunIncre"),
        *("bmsInfoFull", "bmsInfoIncre", "bmsRunIncre"),
    )
)


class Visit:
    """One device: how it is asked, and what it has said so far."""

    def __init__(self, device: DeviceInfo, user_id: str) -> None:
        self.device = device
        #: The broker does not let us listen to it.
        self.refused = False
        #: It has said all that it will say.
        self.complete = False
        own = f"/app/{user_id}/{device.sn}/thing/property"
        self._ask_topic = f"{own}/get"
        #: Where it is heard: what it reports, and what it answers us.
        self.topics = (f"/app/device/property/{device.sn}", f"{own}/get_reply")
        self._quotas: dict[str, object] = {}
        self._online: bool | None = None
        self._heard_at = 0.0
        #: Sequence numbers of our binary requests, which its reply repeats.
        self._asked: set[int] = set()

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.complete or self.refused

    def requests(self) -> list[tuple[str, str | bytes]]:
        """Return topic and payload of one request in both languages.

        No table knows which one every model speaks. These are all that is ever
        published.
        """
        number = int.from_bytes(os.urandom(4)) >> 1
        self._asked.add(number)
        request = {
            "from": SENDER,
            "id": str(number),
            "version": "1.1",
            "moduleType": 0,
            "operateType": "latestQuotas",
            "params": {},
        }
        binary = get_all_request(number, SENDER, self.device.sn)
        return [(self._ask_topic, json.dumps(request)), (self._ask_topic, binary)]

    def hear(self, topic: str, payload: bytes) -> None:
        """Take in a message of one of its topics."""
        if len(payload) > MOST_BYTES:
            return
        self._heard_at = time.time()
        is_reply = topic == self.topics[1]
        if payload.lstrip()[:1] == b"{":
            self._take_json(payload, is_reply=is_reply)
        else:
            self._take_frame(payload, is_reply=is_reply)

    def reading(self, source: str, *, is_late: bool) -> Reading:
        """Return what is known now; without `is_late` there was time for an answer.

        Silence is not "offline", which is the answer's own word.
        """
        device = self.device
        if self.refused:
            text = "the broker refused the subscription to this device"
            cure = "look for the device in the app of this account"
            return Reading(device, source, error=DeviceRefused(text, cure))
        if self._online is False:
            error = DeviceOffline("the device is offline", OFFLINE_CURE)
            return Reading(device, source, error=error)
        if self._quotas or self.complete or self._online:
            heard_at = self._heard_at or time.time()
            snapshot = Snapshot(device.sn, self._quotas, heard_at, self._online)
            if self._online is not None:
                device = device._replace(online=self._online)
            return Reading(device, source, snapshot)
        if is_late:
            late = ApiOutOfTime("no answer from the device (out of time)", TIME_CURE)
            return Reading(device, source, error=late)
        text = "no answer: asleep, offline, or not a device of this account"
        cure = "wake the device, and look for it in the app"
        return Reading(device, source, error=EcoflowApiException(text, cure))

    def _take_json(self, payload: bytes, *, is_reply: bool) -> None:
        try:
            document = json.loads(payload)
        except (ValueError, RecursionError):
            log.debug("a message that is no JSON after all")
            return
        part = document.get("data" if is_reply else "params")
        if not isinstance(part, dict):
            return
        if not is_reply:
            if not part.keys() <= PLAN_KEYS:
                self._quotas.update(part)
            return
        online = online_flag(part.get("online"))
        if online is not None:
            self._online = online
            self.complete = self.complete or not online
        quotas = part.get("quotaMap")
        # An empty map comes from a device that sleeps, or speaks binary.
        if isinstance(quotas, dict) and quotas and self._online is not False:
            self._quotas.update(quotas)
            self.complete = True

    def _take_frame(self, payload: bytes, *, is_reply: bool) -> None:
        frame = decode_frame(payload, self.device.sn)
        if frame.unknown_messages or frame.unknown_fields or frame.damaged:
            log.debug(
                "a frame of %s: unknown messages %s, unknown fields %s, %d damaged",
                short_sn(self.device.sn),
                dict(frame.unknown_messages),
                dict(frame.unknown_fields),
                frame.damaged,
            )
        if is_reply and frame.offline:
            self._online, self.complete = False, True
        elif frame.has_data:
            self._quotas.update(frame.quotas)
            # The reply repeats our number; only its absent -2 says "online".
            if is_reply and self._asked & frame.seqs:
                self._online, self.complete = True, True
