"""Who owns what in the simulated cloud: accounts, their devices, and what they say."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ecoflow_push.simulator.server import Answer, Faults

# What every answer has, and ends with.
HEADERS = (("Content-Type", "application/json;charset=UTF-8"),)
TAIL = b', "eagleEyeTraceId": "ea1a2a00000000000000000000000007", "tid": ""}'


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
    #: Gives the quotas as JSON, in place of `quotas` (encoded.py).
    encoded: Callable[[], bytes] | None = None

    def quotas_json(self) -> bytes:
        """Return what it reports, as JSON."""
        return self.encoded() if self.encoded else _json(self.quotas or {})


class SimulatedBroker(NamedTuple):
    """The broker whose credentials the cloud hands out."""

    host: str
    port: int
    username: str
    password: str
    protocol: str = "mqtts"


class Keys(NamedTuple):
    """A developer's key pair."""

    access_key: str
    secret_key: str

    def environ(self, url: str) -> dict[str, str]:
        """Return the settings of a job that reads the cloud at `url` with them."""
        return {
            "ECOFLOW_API_HOST": url,
            "ECOFLOW_ACCESS_KEY": self.access_key,
            "ECOFLOW_SECRET_KEY": self.secret_key,
        }


class AppUser(NamedTuple):
    """Whom the app knows; the token is what a login is answered with."""

    email: str
    password: str
    user_id: str
    token: str

    def environ(self, url: str) -> dict[str, str]:
        """Return the settings of a job that reads the cloud at `url` as this user."""
        return {
            "ECOFLOW_API_HOST": url,
            "ECOFLOW_ACCOUNT_USER": self.email,
            "ECOFLOW_ACCOUNT_PASSWORD": self.password,
        }


class Shelf:
    """Devices, found by serial however many they are; the list may change any time."""

    def __init__(self, devices: list[SimulatedDevice]) -> None:
        self.devices = devices
        self._places: dict[str, int] = {}

    def find(self, sn: str | None) -> SimulatedDevice | None:
        """Return the device of a serial."""
        place = self._places.get(sn or "", len(self.devices))
        if place >= len(self.devices) or self.devices[place].sn != sn:
            self._places = {each.sn: n for n, each in enumerate(self.devices)}
            place = self._places.get(sn or "", -1)
        return self.devices[place] if place >= 0 else None


class SimulatedAccount(Faults):
    """Whoever owns devices, and opens them with keys, in the app or either way.

    Its faults are its own alone. `requests` and `logins` count what came in for it, the
    refused and the failed included.
    """

    def __init__(
        self,
        devices: list[SimulatedDevice],
        keys: Keys | None = None,
        user: AppUser | None = None,
        broker: SimulatedBroker | None = None,
    ) -> None:
        super().__init__()
        self.devices = devices
        self.keys = keys
        self.user = user
        self.broker = broker
        self.requests = 0
        self.logins = 0
        self._shelf = Shelf(devices)

    def login(self, password: object) -> Answer:
        """Return the answer to a login; the app sends a password in base64."""
        user = self.user
        if (
            user is None
            or password != base64.b64encode(user.password.encode()).decode()
        ):
            return NO_LOGIN
        data = {"user": {"userId": user.user_id}, "token": user.token}
        return envelope("0", "Success", data)

    def certification(self) -> Answer:
        """Return the answer with the broker's credentials."""
        if self.broker is None:
            return envelope("1", "no broker in this simulation")
        host, port, username, password, protocol = self.broker
        data = {"url": host, "port": str(port), "protocol": protocol}
        data |= {"certificateAccount": username, "certificatePassword": password}
        return envelope("0", "Success", data)

    def listed(self) -> Answer:
        """Return the answer with the list that keys are given."""
        return envelope("0", "Success", [_row(device) for device in self.devices])

    def listed_in_the_app(self) -> Answer:
        """Return the answer with the list that the app is given."""
        bound = {device.sn: _row(device) for device in self.devices}
        return envelope("0", "Success", {"bound": bound, "share": {}})

    def quotas(self, sn: str | None) -> Answer:
        """Return the answer with what a device reports."""
        device = self._shelf.find(sn)
        if device is None or device.code == "1006":
            return envelope("1006", "current device is not allowed to get device info")
        if device.code != "0":
            return envelope(device.code, "refused by the simulation")
        if device.quotas is None:
            return envelope("0", "Success")
        # Offline devices are answered too, from the cache.
        return _answer("0", "Success", device.quotas_json())


def envelope(code: str, message: str, data: object = None) -> Answer:
    """Return an answer as all of the service's are."""
    return _answer(code, message, b"" if data is None else _json(data))


def _answer(code: str, message: str, data: bytes) -> Answer:
    head = _json({"code": code, "message": message})[:-1]
    member = b', "data": ' + data if data else b""
    return Answer(200, head + member + TAIL, HEADERS)


def _row(device: SimulatedDevice) -> dict[str, object]:
    row = {
        "sn": device.sn,
        "deviceName": device.name,
        "productName": device.product_name,
        "online": device.online,
    }
    return {key: value for key, value in row.items() if value is not None}


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


NO_LOGIN = envelope("1002", "The account does not exist or the password is wrong")
