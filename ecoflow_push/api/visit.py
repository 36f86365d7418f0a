"""Visit: what one device says over MQTT, put together from JSON and frames."""

from __future__ import annotations

import json
import logging
import os
import time
from typing import TYPE_CHECKING

from ecoflow_push import DOCS
from ecoflow_push.api.base import Reading
from ecoflow_push.api.envelope import (
    MOST_WEIGHT,
    OFFLINE_CURE,
    TIME_CURE,
    decode,
    weight_of,
)
from ecoflow_push.api.models import OTHER, DeviceInfo, Room, Snapshot, online_flag
from ecoflow_push.api.question import get_all_request
from ecoflow_push.devices.products import messages_by_serial
from ecoflow_push.devices.questions import question_of
from ecoflow_push.errors import (
    ApiOutOfTime,
    DeviceOffline,
    DeviceRefused,
    EcoflowApiException,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecoflow_push.api.frames import Frame

log = logging.getLogger(__name__)

# Free text (protocol/mqtt.md#question).
SENDER = "ecoflow_push"
# What a byte of a frame can become: a list's empty map has two.
FRAME_WEIGHT = 40
# Of whose messages nothing is known.
UNKNOWN_GROUPS = ("", "not public")
# What a visit may take, in seconds (protocol/mqtt.md#completeness): until the question
# is repeated, and from then on.
ASK_AGAIN_SECONDS = 5.0
SILENCE_SECONDS = 8.0
AWAKE_SECONDS = 3.0
# Nobody sends so many kinds of messages; what is beyond is counted as OTHER.
MOST_UNREAD = 32
# What people call a message without numbers.
JSON = "JSON"
LISTEN_CURE = (
    "set RUN_DEADLINE to 115 or more, leave MQTT_TIMEOUT at 65, and let the job run"
    f" every two minutes ({DOCS}/app-account.md)"
)
# A device that begins to be watched first reports its reporting plan: that is no
# telemetry (protocol/mqtt.md#pushes).
PLAN_KEYS = frozenset(
    f"pd.{part}{plan}"
    for part in ("pd", "bms")
    for plan in ("InfoFull", "InfoIncre", "RunIncre")
)


class Kept:
    """The newest values of one device, and how many found no room."""

    __slots__ = ("quotas", "room", "too_many", "weight")

    def __init__(self, room: Room) -> None:
        self.quotas: dict[str, object] = {}
        self.room = room
        #: What they take in memory at most, in bytes.
        self.weight = self.too_many = 0

    def add(self, found: Mapping[str, object], weight: int) -> None:
        """Keep these values, which weigh so much, or count them."""
        if not self._has_room(weight):
            self._weigh()
        if not self._has_room(weight):
            self.too_many += len(found)
            return
        self.quotas.update(found)
        self.weight += weight
        self.room.left -= weight

    def let_go(self) -> None:
        """Forget the values: they were handed on."""
        self.room.left += self.weight
        self.quotas, self.weight = {}, 0

    def _has_room(self, weight: int) -> bool:
        return self.weight + weight <= MOST_WEIGHT and weight <= self.room.left

    def _weigh(self) -> None:
        """Find out what is held: what came again had been counted again."""
        try:
            held = min(weight_of(json.dumps(self.quotas).encode()), self.weight)
        except RecursionError:
            return
        self.room.left += self.weight - held
        self.weight = held


class Visit:
    """One device: how it is asked, and what it has said so far."""

    def __init__(
        self, device: DeviceInfo, user_id: str, room: Room, lacks: str = ""
    ) -> None:
        """Store what is needed; `lacks` says that the account's list lacks it."""
        self.device = device
        self._lacks = lacks
        #: The broker does not let us listen to it.
        self.refused = False
        #: It has said all that it will say.
        self.complete = False
        own = f"/app/{user_id}/{device.sn}/thing/property"
        self._ask_topic = f"{own}/get"
        #: Where it is heard: what it reports, and what it answers us.
        self.topics = (f"/app/device/property/{device.sn}", f"{own}/get_reply")
        self.kept = Kept(room)
        self._online: bool | None = None
        self._heard_at = 0.0
        #: Messages of which nothing could be read, and how often each came.
        self._unread: dict[str, int] = {}
        self._question = question_of(device.sn)
        #: Sequence numbers of our binary requests, which its reply repeats.
        self._asked: set[int] = set()

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.complete or self.refused

    @property
    def patience(self) -> float:
        """How long (s) it is waited for, from the first question on.

        Whoever speaks what is not understood is awake, and soon answers if it will.
        """
        if self._question.listen:
            return self._question.listen
        if self._unread and not self.kept.quotas:
            is_known = messages_by_serial(self.device.sn) not in UNKNOWN_GROUPS
            return ASK_AGAIN_SECONDS + (AWAKE_SECONDS if is_known else 0.0)
        return ASK_AGAIN_SECONDS + SILENCE_SECONDS

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
        self._heard_at = time.time()
        is_reply = topic == self.topics[1]
        if payload.lstrip()[:1] == b"{":
            self._take_json(payload, is_reply=is_reply)
        else:
            self._take_frame(payload, is_reply=is_reply)

    def reading(self, source: str, waited: float, *, is_late: bool) -> Reading:
        """Return what is known after so many seconds; `is_late` if time was short.

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
        kept = self.kept
        if kept.quotas or self.complete or self._online:
            heard_at = self._heard_at or time.time()
            unread = sorted(self._unread.items())
            snapshot = Snapshot(
                *(device.sn, kept.quotas, heard_at),
                online=self._online,
                unread=unread,
                too_many=kept.too_many,
                weight=kept.weight,
            )
            if self._online is not None:
                names = device.name, device.product_name
                device = DeviceInfo(device.sn, *names, self._online)
            return Reading(device, source, snapshot)
        if self._question.listen > waited:
            text = (
                f"not heard in {waited:.0f} s, and it answers no question, but speaks"
                " once a minute"
            )
            return Reading(device, source, error=ApiOutOfTime(text, LISTEN_CURE))
        if is_late:
            late = ApiOutOfTime("no answer from the device (out of time)", TIME_CURE)
            return Reading(device, source, error=late)
        text = "no answer: asleep, offline, or not a device of this account"
        cure = "wake the device, and look for it in the app"
        if self._lacks:
            from ecoflow_push.api.unlisted import UNLISTED_CURE

            text, cure = f"no answer, and {self._lacks}", UNLISTED_CURE
        return Reading(device, source, error=EcoflowApiException(text, cure))

    def _take_json(self, payload: bytes, *, is_reply: bool) -> None:
        if (weight := weight_of(payload)) > MOST_WEIGHT:
            self._note_unread(JSON)
            return
        # A name may be cut within a letter.
        document = decode(payload.decode("utf-8", "replace"))
        if not isinstance(document, dict):
            log.debug("a message that is no JSON after all")
            return
        part = document.get("data" if is_reply else "params")
        if not is_reply:
            if not isinstance(part, dict):
                # Other makers' devices have words of their own.
                self._note_unread(JSON)
            elif not part.keys() <= PLAN_KEYS:
                self.kept.add(part, weight)
                self._is_heard()
            return
        if not isinstance(part, dict):
            return
        online = online_flag(part.get("online"))
        if online is not None:
            self._online = online
            self.complete = self.complete or not online
        quotas = part.get("quotaMap")
        # An empty map comes from a device that sleeps, or speaks binary.
        if isinstance(quotas, dict) and quotas and self._online is not False:
            self.kept.add(quotas, weight)
            self.complete = True

    def _take_frame(self, payload: bytes, *, is_reply: bool) -> None:
        # Imported here: only a device that speaks binary needs it.
        from ecoflow_push.api.frames import decode_frame

        frame = decode_frame(payload, self.device.sn, time.time())
        if frame.unread or frame.unknown_fields or frame.damaged:
            self._tell(frame)
        if is_reply and frame.offline:
            self._online, self.complete = False, True
            return
        for (func, cmd_id), _ in frame.unread:
            self._note_unread(f"{func}/{cmd_id}")
        if frame.has_data:
            self.kept.add(frame.quotas, FRAME_WEIGHT * len(payload))
        # Of what it says by itself, the plan of its reports tells nothing.
        if not frame.has_data and (frame.quotas or not frame.said):
            return
        self._is_heard()
        if frame.has_data and self._question.awaited & frame.said:
            self.complete = True
        # The reply repeats our number; only its absent -2 says "online". What speaks
        # JSON may have no more to say here than that.
        if is_reply and self._asked & frame.seqs:
            speaks_json = messages_by_serial(self.device.sn) == JSON
            self._online = True
            self.complete = self.complete or frame.has_data or not speaks_json

    def _is_heard(self) -> None:
        """Note that the device speaks, and so is online, unless the cloud denies it."""
        if self._online is None:
            self._online = True

    def _note_unread(self, message: str) -> None:
        if message not in self._unread and len(self._unread) >= MOST_UNREAD:
            message = OTHER
        self._unread[message] = self._unread.get(message, 0) + 1
        self._is_heard()

    def _tell(self, frame: Frame) -> None:
        """Log, for whoever wants to report it, what is not understood."""
        if log.isEnabledFor(logging.DEBUG):
            from ecoflow_push.api.report import tell

            tell(log, frame, self.device.sn)
