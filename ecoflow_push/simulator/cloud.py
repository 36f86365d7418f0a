"""SimulatedCloud: EcoFlow's REST services (protocol/rest.md#endpoints)."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from ecoflow_push.api.signing import signature
from ecoflow_push.simulator.server import Answer, Received, RecordingServer

ACCESS_KEY = "AKsimulated000000000000000000001"
SECRET_KEY = "SKsimulated000000000000000000002"  # noqa: S105 - opens nothing real
ACCOUNT_USER = "someone@example.org"
ACCOUNT_PASSWORD = "correct horse pässword"  # noqa: S105 - opens nothing real
USER_ID = "1500000000000000001"
TOKEN = "simulated.login.token"  # noqa: S105 - opens nothing real


@dataclass(slots=True)
class SimulatedDevice:
    """One device of the simulated account; None is a member that the list lacks.

    `code` other than "0" is what its quotas are answered with.
    """

    sn: str
    quotas: Mapping[str, object] | None = field(default_factory=dict)
    name: str | None = None
    product_name: str | None = None
    online: object = 1
    code: str = "0"
    #: Answers the app's binary request with these bytes, given its sequence number.
    frame: Callable[[int], bytes] | None = None
    #: What it sends on its property topic as soon as it is asked anything.
    pushes: list[bytes] = field(default_factory=list)
    #: How many requests it sleeps through before it answers.
    deaf_to: int = 0


class SimulatedBroker(NamedTuple):
    """The broker whose credentials the cloud hands out."""

    host: str
    port: int
    username: str
    password: str
    protocol: str = "mqtts"


class SimulatedCloud(RecordingServer):
    """Serves any fleet, verifies signatures as the service does, fails on demand."""

    def __init__(
        self,
        devices: list[SimulatedDevice],
        *,
        access_key: str = ACCESS_KEY,
        secret_key: str = SECRET_KEY,
        tls: ssl.SSLContext | None = None,
        keeps: int | None = None,
    ) -> None:
        """Serve `devices`; of requests the last `keeps` are kept, all by default."""
        super().__init__(tls)
        self.keeps = keeps
        self.devices = devices
        self._access_key = access_key
        self._secret_key = secret_key
        self._seen: set[tuple[str, str]] = set()
        self.broker: SimulatedBroker | None = None

    def account_environ(self) -> dict[str, str]:
        """Return the settings of a job that reads it with the app account."""
        return {
            "ECOFLOW_API_HOST": self.url,
            "ECOFLOW_ACCOUNT_USER": ACCOUNT_USER,
            "ECOFLOW_ACCOUNT_PASSWORD": ACCOUNT_PASSWORD,
        }

    def environ(self) -> dict[str, str]:
        """Return the settings of a job that reads this cloud."""
        return {
            "ECOFLOW_API_HOST": self.url,
            "ECOFLOW_ACCESS_KEY": self._access_key,
            "ECOFLOW_SECRET_KEY": self._secret_key,
        }

    def answer(self, received: Received) -> Answer:
        """Return what the service would answer."""
        url = urlsplit(received.path)
        query = dict(parse_qsl(url.query))
        if (received.method, url.path) == ("POST", "/auth/login"):
            return _log_in(json.loads(received.body))
        if not url.path.startswith("/iot-open/"):
            return self._app_answer(url.path, received.headers)
        refusal = self._refusal(received, query)
        if refusal:
            return _envelope(*refusal)
        if (received.method, url.path) == ("GET", "/iot-open/sign/device/list"):
            return _envelope("0", "Success", [_row(device) for device in self.devices])
        if (received.method, url.path) == ("GET", "/iot-open/sign/device/quota/all"):
            return self._quotas(query.get("sn"))
        return Answer(404)

    def _refusal(
        self, received: Received, query: Mapping[str, str]
    ) -> tuple[str, str] | None:
        headers = received.headers
        if headers.get("accesskey") != self._access_key:
            return "8513", "accessKey is invalid"
        nonce, timestamp = headers.get("nonce", ""), headers.get("timestamp", "")
        # The trap: with this header the service signs the body and forgets the query.
        trapped = "application/json" in headers.get("content-type", "")
        signed = json.loads(received.body or b"{}") if trapped else query
        expected = signature(
            signed,
            access_key=self._access_key,
            secret_key=self._secret_key,
            nonce=nonce,
            timestamp_ms=timestamp,
        )
        with self.lock:
            reused = (nonce, timestamp) in self._seen
            self._seen.add((nonce, timestamp))
            if self.keeps and len(self._seen) > self.keeps:
                self._seen = {(nonce, timestamp)}
        if headers.get("sign") != expected or reused:
            return "8521", "signature is wrong"
        return None

    def _app_answer(self, path: str, headers: Mapping[str, str]) -> Answer:
        if headers.get("authorization") != f"Bearer {TOKEN}":
            return Answer(401)
        if path == "/iot-auth/app/certification":
            return self._certification()
        if path == "/iot-service/user/device":
            bound = {device.sn: _row(device) for device in self.devices}
            return _envelope("0", "Success", {"bound": bound, "share": {}})
        return Answer(404)

    def _certification(self) -> Answer:
        if self.broker is None:
            return _envelope("1", "no broker in this simulation")
        host, port, username, password, protocol = self.broker
        data = {"url": host, "port": str(port), "protocol": protocol}
        data |= {"certificateAccount": username, "certificatePassword": password}
        return _envelope("0", "Success", data)

    def _quotas(self, sn: str | None) -> Answer:
        device = next((d for d in self.devices if d.sn == sn), None)
        if device is None or device.code == "1006":
            return _envelope("1006", "current device is not allowed to get device info")
        if device.code != "0":
            return _envelope(device.code, "refused by the simulation")
        if device.quotas is None:
            return _envelope("0", "Success")
        # Offline devices are answered too, from the cache.
        return _envelope("0", "Success", device.quotas)


def _log_in(body: Mapping[str, object]) -> Answer:
    password = base64.b64encode(ACCOUNT_PASSWORD.encode()).decode()
    if (body.get("email"), body.get("password")) != (ACCOUNT_USER, password):
        return _envelope("1002", "The account does not exist or the password is wrong")
    return _envelope("0", "Success", {"user": {"userId": USER_ID}, "token": TOKEN})


def _row(device: SimulatedDevice) -> dict[str, object]:
    row = {
        "sn": device.sn,
        "deviceName": device.name,
        "productName": device.product_name,
        "online": device.online,
    }
    return {key: value for key, value in row.items() if value is not None}


def _envelope(code: str, message: str, data: object = None) -> Answer:
    envelope: dict[str, object] = {"code": code, "message": message}
    if data is not None:
        envelope["data"] = data
    envelope |= {"eagleEyeTraceId": "ea1a2a00000000000000000000000007", "tid": ""}
    headers = (("Content-Type", "application/json;charset=UTF-8"),)
    return Answer(200, json.dumps(envelope).encode(), headers)
