"""SimulatedCloud: EcoFlow's REST services (protocol/rest.md#endpoints).

It holds any number of accounts. One is enough for most, and what `SimulatedCloud` is
made with is the first one.
"""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from ecoflow_push.api.signing import signature
from ecoflow_push.simulator.accounts import (
    NO_LOGIN,
    AppUser,
    Keys,
    SimulatedAccount,
    SimulatedBroker,
    SimulatedDevice,
    envelope,
)
from ecoflow_push.simulator.server import Answer, Fault, Received, RecordingServer

__all__ = ["SimulatedBroker", "SimulatedCloud", "SimulatedDevice"]

ACCESS_KEY = "AKsimulated000000000000000000001"
SECRET_KEY = "SKsimulated000000000000000000002"  # noqa: S105 - opens nothing real
ACCOUNT_USER = "someone@example.org"
ACCOUNT_PASSWORD = "correct horse pässword"  # noqa: S105 - opens nothing real
USER_ID = "1500000000000000001"
TOKEN = "simulated.login.token"  # noqa: S105 - opens nothing real

LOGIN = "/auth/login"
OPEN = "/iot-open/"
BEARER = "Bearer "


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
        port: int = 0,
    ) -> None:
        """Serve `devices`; of requests the last `keeps` are kept, all by default."""
        super().__init__(tls, port)
        self.keeps = keeps
        self._seen: set[tuple[str, str]] = set()
        self._keys = Keys(access_key, secret_key)
        self._user = AppUser(ACCOUNT_USER, ACCOUNT_PASSWORD, USER_ID, TOKEN)
        #: Each account by its access key, its user's address, and what is sent with
        #: its user's token.
        self._accounts: dict[str, SimulatedAccount] = {}
        self._first = SimulatedAccount(devices, self._keys, self._user)
        self.add(self._first)

    @property
    def devices(self) -> list[SimulatedDevice]:
        """Return the devices of the first account."""
        return self._first.devices

    @property
    def broker(self) -> SimulatedBroker | None:
        """Return the broker of the first account."""
        return self._first.broker

    @broker.setter
    def broker(self, broker: SimulatedBroker | None) -> None:
        self._first.broker = broker

    def environ(self) -> dict[str, str]:
        """Return the settings of a job that reads the first account."""
        return self._keys.environ(self.url)

    def account_environ(self) -> dict[str, str]:
        """Return the settings of a job that reads it with the app account."""
        return self._user.environ(self.url)

    def add(self, account: SimulatedAccount) -> None:
        """Serve one more account."""
        keys, user = account.keys, account.user
        names = [keys.access_key] if keys else []
        names += [user.email, f"{BEARER}{user.token}"] if user else []
        with self.lock:
            self._accounts.update(dict.fromkeys(names, account))

    def account(self, identity: str) -> SimulatedAccount:
        """Return the account of an access key or of an app user.

        Raises KeyError if there is none.
        """
        return self._accounts[identity]

    def due(self, received: Received) -> Fault | None:
        """Return the fault of all, else of the account that a request is for."""
        account = self._owner(received)
        if account:
            account.requests += 1
            account.logins += received.path == LOGIN
        fault = super().due(received)
        return fault or (account.next_fault(received.path) if account else None)

    def answer(self, received: Received) -> Answer:
        """Return what the service would answer."""
        account = self._owner(received)
        path = urlsplit(received.path).path
        if path.startswith(OPEN):
            return self._open_answer(account, received)
        if (received.method, path) == ("POST", LOGIN):
            password = json.loads(received.body).get("password")
            return account.login(password) if account else NO_LOGIN
        return _app_answer(account, path) if account else Answer(401)

    def _open_answer(
        self, account: SimulatedAccount | None, received: Received
    ) -> Answer:
        url = urlsplit(received.path)
        query = dict(parse_qsl(url.query))
        if account is None or account.keys is None:
            return envelope("8513", "accessKey is invalid")
        if not self._is_signed(received, query, account.keys):
            return envelope("8521", "signature is wrong")
        asked = received.method, url.path
        if asked == ("GET", "/iot-open/sign/device/list"):
            return account.listed()
        if asked == ("GET", "/iot-open/sign/device/quota/all"):
            return account.quotas(query.get("sn"))
        return Answer(404)

    def _owner(self, received: Received) -> SimulatedAccount | None:
        """Return whose credentials a request has, be they right or wrong."""
        path, headers = received.path, received.headers
        if path.startswith(OPEN):
            return self._accounts.get(headers.get("accesskey", ""))
        if path == LOGIN:
            with contextlib.suppress(ValueError, AttributeError):
                return self._accounts.get(str(json.loads(received.body).get("email")))
        token = headers.get("authorization", "")
        return self._accounts.get(token) if token.startswith(BEARER) else None

    def _is_signed(
        self, received: Received, query: Mapping[str, str], keys: Keys
    ) -> bool:
        headers = received.headers
        nonce, timestamp = headers.get("nonce", ""), headers.get("timestamp", "")
        # The trap: with this header the service signs the body and forgets the query.
        trapped = "application/json" in headers.get("content-type", "")
        signed = json.loads(received.body or b"{}") if trapped else query
        expected = signature(
            signed,
            access_key=keys.access_key,
            secret_key=keys.secret_key,
            nonce=nonce,
            timestamp_ms=timestamp,
        )
        with self.lock:
            reused = (nonce, timestamp) in self._seen
            self._seen.add((nonce, timestamp))
            if self.keeps and len(self._seen) > self.keeps:
                self._seen = {(nonce, timestamp)}
        return headers.get("sign") == expected and not reused


def _app_answer(account: SimulatedAccount, path: str) -> Answer:
    if path == "/iot-auth/app/certification":
        return account.certification()
    if path == "/iot-service/user/device":
        return account.listed_in_the_app()
    return Answer(404)
