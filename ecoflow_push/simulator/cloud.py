"""SimulatedCloud: the REST part of EcoFlow's cloud, as ecoflow-protocol.md 1 has it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from ecoflow_push.api.signing import signature
from ecoflow_push.simulator.server import Answer, Received, RecordingServer

ACCESS_KEY = "AKsimulated000000000000000000001"
SECRET_KEY = "SKsimulated000000000000000000002"  # noqa: S105 - opens nothing real


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


class SimulatedCloud(RecordingServer):
    """Serves any fleet, verifies signatures as the service does, fails on demand."""

    def __init__(
        self,
        devices: list[SimulatedDevice],
        *,
        access_key: str = ACCESS_KEY,
        secret_key: str = SECRET_KEY,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls)
        self.devices = devices
        self._access_key = access_key
        self._secret_key = secret_key
        self._seen: set[tuple[str, str]] = set()

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
        if headers.get("sign") != expected or reused:
            return "8521", "signature is wrong"
        return None

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
