"""MqttApiClient: a short visit to EcoFlow's MQTT broker with the app account.

Subscribe, ask every device for its latest quotas, leave as soon as all have answered.
It publishes on the `get` topics and on no other, ever.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ecoflow_push.api.base import EcoflowApiClient
from ecoflow_push.api.frames import decode_frame, get_all_request
from ecoflow_push.api.models import DeviceInfo, Snapshot, online_flag
from ecoflow_push.errors import (
    ApiOutOfTime,
    DeviceOffline,
    DeviceRefused,
    EcoflowApiException,
    KeysRefused,
)
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.net.explain import explain
from ecoflow_push.net.sockets import tls_context

if TYPE_CHECKING:
    from paho.mqtt.client import Client

    from ecoflow_push.api.account import Account, Certification

log = logging.getLogger(__name__)

# ecoflow-protocol.md 7.4: what a visit may take, in seconds.
CONNECT_SECONDS = 10.0
SUBSCRIBE_SECONDS = 5.0
ASK_AGAIN_SECONDS = 5.0
SILENCE_SECONDS = 8.0
KEEPALIVE_SECONDS = 60
# Refused credentials that are younger are not the reason for the refusal.
RENEW_SECONDS = 900.0
QOS = 1
# Free text (ecoflow-protocol.md 3.6).
SENDER = "ecoflow_push"
# CONNACK: 4 bad user name or password, 5 not authorised; 134 and 135 as MQTT 5 and
# paho's second callback interface call them (ecoflow-protocol.md 3.1).
REFUSAL_CODES = frozenset((4, 5, 134, 135))
MOST_BYTES = 8 * 1024 * 1024
# A device that begins to be watched first reports its reporting plan: that is no
# telemetry (ecoflow-protocol.md 3.7).
PLAN_KEYS = frozenset(
    f"pd.{name}"
    for name in (
        *("pdInfoFull", "pdInfoIncre", "pdRunIncre"),
        *("bmsInfoFull", "bmsInfoIncre", "bmsRunIncre"),
    )
)


class _Event(NamedTuple):
    """What a callback saw; `topic` is empty for everything but a message."""

    kind: str
    topic: str = ""
    payload: bytes = b""
    code: int = 0
    codes: tuple[int, ...] = ()


class _Visit:
    """What one device has said so far."""

    def __init__(self) -> None:
        self.quotas: dict[str, object] = {}
        self.online: bool | None = None
        self.complete = False
        self.refused = False
        self.heard_at = 0.0
        #: Sequence numbers of our binary requests, which its reply repeats.
        self.asked: set[int] = set()


class MqttApiClient(EcoflowApiClient):
    """Reads devices of the app account, models closed to developer keys included."""

    source = "mqtt"
    asks_at_once = True

    def __init__(
        self,
        account: Account,
        *,
        instance: str,
        named: Sequence[str] = (),
        ca_file: str | None = None,
        longest_visit: float = 60.0,
    ) -> None:
        """Store what is needed; nothing is contacted.

        `instance` makes the client id this installation's own. `named` serials need no
        device list. `longest_visit` bounds the wait for data (seconds).
        """
        self._account = account
        self._instance = instance
        self._named = tuple(named)
        self._ca_file = ca_file
        self._longest_visit = longest_visit
        self._client: Client | None = None
        self._user_id = ""
        self._events: deque[_Event] = deque()
        self._visits: dict[str, _Visit] = {}
        self._asked_at = 0.0
        self._asked_again = False
        self._subscribed: int | None = None

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of the service's; brokers tell no time."""
        return self._account.clock_offset()

    def connect(self, deadline: Deadline) -> None:
        """Log in if the cache does not serve, and connect to the broker."""
        certification = self._account.certification(deadline)
        try:
            self._connect(certification, deadline)
        except KeysRefused:
            # They may have been rotated, so exactly one new login; but not one in every
            # run, when what is refused is something else.
            if time.time() - certification.obtained_at < RENEW_SECONDS:
                raise
            self.close()
            certification = self._account.certification(deadline, fresh=True)
            self._connect(certification, deadline)

    def get_devices(self, deadline: Deadline) -> list[DeviceInfo]:
        """Return the devices named, else those that the cloud lists."""
        if self._named:
            self.lists_afresh = False
            return [self._account.known(sn) for sn in self._named]
        devices, self.lists_afresh = self._account.devices(deadline)
        return devices

    def ask(self, sns: Sequence[str], deadline: Deadline) -> None:
        """Subscribe to the devices and ask them all for their latest quotas."""
        self._visits = {sn: _Visit() for sn in sns}
        client = self._connected()
        topics = [(topic, QOS) for sn in sns for topic in self._topics(sn)]
        _, self._subscribed = client.subscribe(topics)
        limit = Deadline(min(SUBSCRIBE_SECONDS, deadline.left()))
        while self._subscribed is not None:
            self._pump(limit, "the broker did not confirm the subscription")
        self._publish(sns)
        self._asked_at = time.monotonic()

    def get_device_quota(self, sn: str, deadline: Deadline) -> Snapshot:
        """Return what the device answered, as soon as it has.

        Raises DeviceOffline by the answer's own word; silence is not that, but "no
        answer" (EcoflowApiException).
        """
        visit = self._visits[sn]
        while not (visit.complete or visit.refused):
            left = min(self._patience(), deadline.left())
            if left <= 0:
                break
            self._pump(Deadline(left), "")
        if visit.refused:
            raise DeviceRefused("the broker refused the subscription to this device")
        if visit.online is False:
            raise DeviceOffline("the device is offline")
        if visit.quotas or visit.complete or visit.online:
            heard_at = visit.heard_at or time.time()
            return Snapshot(sn, visit.quotas, heard_at, visit.online)
        if deadline.left() <= 0:
            raise ApiOutOfTime("no answer from the device (out of time)")
        raise EcoflowApiException(
            "no answer: asleep, offline, or not a device of this account"
        )

    def close(self) -> None:
        """Leave the broker at once, and the account's connection."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            sock = client.socket()
            if sock is not None:
                sock.close()
        self._events.clear()
        self._account.close()

    # -- the broker -----------------------------------------------------------------

    def _connect(self, certification: Certification, deadline: Deadline) -> None:
        # Half of a run's imports, and none of a run's that reads by REST.
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        where = f"{certification.host}:{certification.port}"
        self._user_id = certification.user_id
        limit = Deadline(min(CONNECT_SECONDS, deadline.left()))
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id(certification.user_id, self._instance),
            reconnect_on_failure=False,
        )
        client.username_pw_set(certification.username, certification.password)
        if certification.tls:
            client.tls_set_context(tls_context(self._ca_file, obedient=False))
        client.connect_timeout = max(0.1, limit.left())
        self._listen(client)
        try:
            client.connect(certification.host, certification.port, KEEPALIVE_SECONDS)
        except (OSError, ValueError, OverflowError, struct.error) as exc:
            reason, *_ = explain(exc)
            raise EcoflowApiException(f"broker {where}: {reason}") from exc
        self._client = client
        while not client.is_connected():
            try:
                self._pump(limit, "no CONNACK in time")
            except EcoflowApiException as exc:
                raise type(exc)(f"broker {where}: {exc}") from exc

    def _listen(self, client: Client) -> None:
        """Let callbacks carry and not think: an exception in one would be lost."""
        events = self._events

        def on_connect(_c: Any, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
            events.append(_Event("connected", code=int(reason.value)))

        def on_disconnect(_c: Any, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
            events.append(_Event("disconnected", code=int(reason.value)))

        def on_subscribe(_c: Any, _u: Any, _mid: Any, reasons: Any, _p: Any) -> None:
            codes = tuple(int(reason.value) for reason in reasons)
            events.append(_Event("subscribed", codes=codes))

        def on_message(_c: Any, _u: Any, message: Any) -> None:
            # A retained message is as old as it likes, and no part of this snapshot.
            if not message.retain:
                events.append(_Event("message", message.topic, message.payload))

        client.on_connect = on_connect
        client.on_disconnect = on_disconnect
        client.on_subscribe = on_subscribe
        client.on_message = on_message

    def _pump(self, limit: Deadline, otherwise: str) -> None:
        """Let the network do one step, and take in what it brought.

        Raises EcoflowApiException with the words of `otherwise` when `limit` passed,
        unless they are empty.
        """
        client = self._connected()
        if limit.left() <= 0:
            if otherwise:
                raise ApiOutOfTime(otherwise)
            return
        _quick_acknowledge(client)
        try:
            status = client.loop(min(limit.left(), 1.0))
        except (ValueError, struct.error) as exc:
            # What paho raises for a packet that is none.
            raise EcoflowApiException("the broker sent a broken packet") from exc
        while self._events:
            self._take(self._events.popleft())
        if status != 0:
            raise EcoflowApiException("the connection was lost")

    def _take(self, event: _Event) -> None:
        if event.kind == "message":
            self._take_message(event.topic, event.payload)
        elif event.kind == "connected" and event.code in REFUSAL_CODES:
            raise KeysRefused(
                f"refused the credentials (code {event.code}): out of date,"
                " or this client id is in use, or one too many today",
                f"CONNACK {event.code}",
            )
        elif event.kind == "connected" and event.code != 0:
            raise EcoflowApiException(f"refused the connection (code {event.code})")
        elif event.kind == "subscribed":
            self._subscribed = None
            for index, visit in enumerate(self._visits.values()):
                visit.refused = any(c >= 128 for c in event.codes[2 * index :][:2])
        elif event.kind == "disconnected":
            raise EcoflowApiException(
                "the broker ended the connection (another session with this client id?)"
            )

    def _connected(self) -> Client:
        if self._client is None:
            raise EcoflowApiException("not connected to the broker")
        return self._client

    # -- asking and listening -------------------------------------------------------

    def _topics(self, sn: str) -> tuple[str, str]:
        return (
            f"/app/device/property/{sn}",
            f"/app/{self._user_id}/{sn}/thing/property/get_reply",
        )

    def _publish(self, sns: Sequence[str]) -> None:
        """Ask in both languages: no table knows which one every model speaks."""
        client = self._connected()
        for sn in sns:
            topic = f"/app/{self._user_id}/{sn}/thing/property/get"
            number = int.from_bytes(os.urandom(4)) >> 1
            self._visits[sn].asked.add(number)
            request = {
                "from": SENDER,
                "id": str(number),
                "version": "1.1",
                "moduleType": 0,
                "operateType": "latestQuotas",
                "params": {},
            }
            client.publish(topic, json.dumps(request), QOS)
            client.publish(topic, get_all_request(number, SENDER, sn), QOS)

    def _patience(self) -> float:
        """Return how long to wait on, 0 when silence has lasted; asks once more."""
        waited = time.monotonic() - self._asked_at
        end = min(ASK_AGAIN_SECONDS + SILENCE_SECONDS, self._longest_visit)
        if self._asked_again:
            return end - waited
        if ASK_AGAIN_SECONDS <= waited < end:
            self._asked_again = True
            self._publish([sn for sn, v in self._visits.items() if not v.complete])
            return end - waited
        return min(ASK_AGAIN_SECONDS, end) - waited

    def _take_message(self, topic: str, payload: bytes) -> None:
        parts = topic.split("/")
        is_reply = parts[-1] == "get_reply"
        sn = parts[3] if is_reply and len(parts) > 3 else parts[-1]
        visit = self._visits.get(sn)
        if visit is None or len(payload) > MOST_BYTES:
            return
        visit.heard_at = time.time()
        if payload.lstrip()[:1] == b"{":
            self._take_json(visit, payload, is_reply=is_reply)
        else:
            self._take_frame(visit, sn, payload, is_reply=is_reply)

    def _take_json(self, visit: _Visit, payload: bytes, *, is_reply: bool) -> None:
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
                visit.quotas.update(part)
            return
        online = online_flag(part.get("online"))
        if online is not None:
            visit.online = online
            visit.complete = visit.complete or not online
        quotas = part.get("quotaMap")
        # An empty map comes from a device that sleeps, or speaks binary.
        if isinstance(quotas, dict) and quotas and visit.online is not False:
            visit.quotas.update(quotas)
            visit.complete = True

    def _take_frame(
        self, visit: _Visit, sn: str, payload: bytes, *, is_reply: bool
    ) -> None:
        frame = decode_frame(payload, sn)
        if frame.unknown_messages or frame.unknown_fields or frame.damaged:
            log.debug(
                "a frame of %s: unknown messages %s, unknown fields %s, %d damaged",
                sn,
                dict(frame.unknown_messages),
                dict(frame.unknown_fields),
                frame.damaged,
            )
        if is_reply and frame.offline:
            visit.online, visit.complete = False, True
        elif frame.has_data:
            visit.quotas.update(frame.quotas)
            # The reply repeats our number; only its absent -2 says "online".
            if is_reply and visit.asked & frame.seqs:
                visit.online, visit.complete = True, True


def client_id(user_id: str, instance: str) -> str:
    """Return the id of this installation, the same for ever.

    The broker takes this shape alone (ecoflow-protocol.md 3.2), and perhaps only some
    ten ids of an account in a day, so nothing in it may change from run to run.
    """
    digest = hashlib.sha256(f"{user_id}\0{instance}".encode()).hexdigest()
    return f"ANDROID_{digest[:32].upper()}_{user_id}"


def _quick_acknowledge(client: Client) -> None:
    """Ask for acknowledgements without delay, where the system can (Linux).

    A broker with Nagle's algorithm on waits for them: 40 ms per exchange.
    """
    sock = client.socket()
    option = getattr(socket, "TCP_QUICKACK", None)
    if isinstance(sock, socket.socket) and option is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, 1)
