"""SimulatedDevices: what answers on EcoFlow's MQTT broker (protocol/mqtt.md#topics)."""

from __future__ import annotations

import json
import ssl
import threading
import time
from typing import Any, Self

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from ecoflow_push.simulator.accounts import Shelf, SimulatedDevice


class SimulatedDevices:
    """A fleet behind a real broker, as a context manager.

    It answers `latestQuotas` as devices of the JSON kind do, and the binary request of
    those that have a `frame`; `asked` records every message that reached any topic of
    a user, as topic and payload, and `times` when one came and was answered.
    """

    def __init__(
        self,
        devices: list[SimulatedDevice],
        host: str,
        port: int,
        *,
        username: str,
        password: str,
        tls: ssl.SSLContext | None = None,
        keeps: int | None = None,
    ) -> None:
        """Answer for `devices`; of what was asked the last `keeps` are kept, or all."""
        self.devices = devices
        self._shelf = Shelf(devices)
        self.asked: list[tuple[str, bytes]] = []
        self.times: list[tuple[float, float]] = []
        self._keeps = keeps
        self._ready = threading.Event()
        self._deaf: dict[str, int] = {}
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id="ANDROID_simulated_devices"
        )
        self._client.username_pw_set(username, password)
        if tls:
            self._client.tls_set_context(tls)
        self._client.on_connect = lambda client, *_: client.subscribe("/app/#", 1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._hear
        self._where = (host, port)

    def __enter__(self) -> Self:
        self._client.connect(*self._where)
        self._client.loop_start()
        if not self._ready.wait(10):
            raise TimeoutError("the broker does not take the simulated devices")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def say(self, topic: str, payload: bytes) -> None:
        """Publish anything, as the cloud or a device would."""
        self._client.publish(topic, payload, 1)

    def _hear(self, _client: Any, _userdata: Any, message: Any) -> None:
        heard = time.time()
        if self._answer(message):
            self.times.append((heard, time.time()))
        if self._keeps:
            del self.asked[: -self._keeps], self.times[: -self._keeps]

    def _answer(self, message: Any) -> bool:
        """Return whether there was an answer."""
        parts = message.topic.split("/")
        if parts[-1] == "get_reply" or parts[2] == "device":
            return False
        self.asked.append((message.topic, message.payload))
        sn = parts[3]
        device = self._shelf.find(sn)
        if device is None or parts[-1] != "get":
            return False
        for push in device.pushes:
            self.say(f"/app/device/property/{sn}", push)
        is_json = message.payload.startswith(b"{")
        # Both languages of one request count as one.
        self._deaf[sn] = self._deaf.get(sn, 0) + is_json
        if self._deaf[sn] <= device.deaf_to:
            return False
        if is_json and device.frame is None:
            self.say(f"{message.topic}_reply", _reply(device, message.payload))
            return True
        if device.frame is not None and not is_json:
            self.say(f"{message.topic}_reply", device.frame(_sequence(message.payload)))
            return True
        return False


def _reply(device: SimulatedDevice, request: bytes) -> bytes:
    number = int(json.loads(request)["id"])
    data: dict[str, object] = {"productType": 80, "model": 1, "online": device.online}
    document: dict[str, object] = {"code": "0", "id": number, "version": "1.1"}
    if device.online:
        data |= {"sn": device.sn, "quotaMap": None}
    else:
        # The service says so in Chinese, whatever the language asked for.
        document["message"] = "\u8bbe\u5907\u4e0d\u5728\u7ebf"
    document |= {"operateType": "latestQuotas", "moduleType": 0, "data": data}
    whole = json.dumps(document).encode()
    # Put in as it is: it may have been encoded long ago.
    return whole.replace(b'"quotaMap": null', b'"quotaMap": ' + device.quotas_json())


def _sequence(request: bytes) -> int:
    """Return the sequence number of the binary request (field 14, a varint)."""
    number = shift = 0
    for byte in request[request.index(b"\x70") + 1 :]:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return number
