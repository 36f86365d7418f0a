"""The app account: one login, the broker's credentials, both kept for the next runs.

A process that starts anew every minute must not log in every minute (the service
throttles logins: ecoflow-protocol.md 2.4), nor repeat a refused password.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ecoflow_push.api.models import DeviceInfo, clean_text, online_flag, said
from ecoflow_push.config.environ import is_serial
from ecoflow_push.errors import (
    ApiOutOfTime,
    AskedToWait,
    EcoflowApiException,
    KeysRefused,
    OutOfTime,
    Unreachable,
)
from ecoflow_push.memory.files import replace_file
from ecoflow_push.net.retry import Request, Transport

if TYPE_CHECKING:
    from ecoflow_push.net.deadline import Deadline
    from ecoflow_push.net.retry import Exchange, Reply

log = logging.getLogger(__name__)

LOGIN = "/auth/login"
CERTIFICATION = "/iot-auth/app/certification"
DEVICES = "/iot-service/user/device"

FILE_VERSION = 1
MAX_FILE_BYTES = 1024 * 1024
# Peers renew after 6 to 20 hours; the token's real life is not known (2.3).
CACHE_SECONDS = 12 * 3600.0
# A device is bought more seldom than once an hour.
LIST_SECONDS = 3600.0
REFUSED_SECONDS = 3600.0
# A login that is younger is not the reason why a request was refused.
RENEW_SECONDS = 900.0
BUSY_SECONDS = 120.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Certification(NamedTuple):
    """What the broker wants to see, and the login that it came from."""

    user_id: str
    token: str
    host: str
    port: int
    username: str
    password: str
    tls: bool
    obtained_at: float


class Login(NamedTuple):
    """What a login earned."""

    user_id: str
    token: str
    obtained_at: float

    def is_usable(self) -> bool:
        """Return whether it can stand in a topic, a client id and a header."""
        token = self.token
        return (
            is_serial(self.user_id)
            and token.isascii()
            and token.isprintable()
            and (0 < len(token) < 4096)
        )


Kept = TypeVar("Kept", Login, Certification)


class Account:
    """An e-mail and a password, and what they have earned so far."""

    def __init__(
        self,
        api_url: str,
        user: str,
        password: str,
        *,
        cache_file: str | None,
        exchange: Callable[[], Exchange],
        attempts: int,
        longest_wait: float,
    ) -> None:
        """Store what is needed; `exchange` is called when the cache does not serve.

        `cache_file` (0600) is the only place that ever holds the token and the
        broker's password; None keeps them in memory alone.
        """
        self._api_url = api_url
        self._host = api_url.partition("://")[2]
        self._user = user
        self._password = password
        self._cache_file = cache_file
        self._make_exchange = exchange
        self._attempts = attempts
        self._longest_wait = longest_wait
        self._transport: Transport | None = None
        self._login: Login | None = None
        self._certification: Certification | None = None
        self._refused: dict[str, object] = {}
        self._names: dict[str, dict[str, str]] = {}
        self._listed_at = 0.0
        self._listed: list[DeviceInfo] | None = None
        self._loaded = False

    def certification(
        self, deadline: Deadline, *, fresh: bool = False
    ) -> Certification:
        """Return the broker's credentials, from the cache unless `fresh`.

        Raises KeysRefused for a refused (or lately refused) password, AskedToWait,
        ApiOutOfTime or EcoflowApiException.
        """
        self._load()
        if self._certification and not fresh:
            return self._certification
        if wait := self._still_refused():
            raise KeysRefused(
                f"{self._host}: the app account was refused: not tried again for"
                f" {wait:.0f} s, or until ECOFLOW_ACCOUNT_PASSWORD changes"
            )
        self._certification = None
        young = self._login is not None and (
            0 <= time.time() - self._login.obtained_at < RENEW_SECONDS
        )
        if self._login is None or fresh:
            self._log_in(deadline)
            young = True
        try:
            self._certification = self._fetch_certification(deadline)
        except EcoflowApiException as exc:
            # A code or 401 means that the token is dead: one new login, unless this
            # one is so young that something else must be the reason.
            if young or not exc.code or isinstance(exc, AskedToWait):
                raise
            self._log_in(deadline)
            self._certification = self._fetch_certification(deadline)
        try:
            self._fetch_devices(deadline)
        except EcoflowApiException as exc:
            # Names and discovery only; whoever named the serials does without.
            log.debug("no device list: %s", exc)
        self._save()
        return self._certification

    def devices(self, deadline: Deadline) -> tuple[list[DeviceInfo], bool]:
        """Return the account's devices, and whether EcoFlow has just listed them.

        A list younger than an hour serves, its online flags left out; after a failed
        request any list does.
        """
        self.certification(deadline)
        old = not 0 <= time.time() - self._listed_at < LIST_SECONDS
        if self._listed is None and (old or not self._names):
            try:
                self._fetch_devices(deadline)
                self._save()
            except EcoflowApiException:
                if not self._names:
                    raise
        if self._listed is not None:
            return self._listed, True
        return [self.known(sn) for sn in self._names], False

    def known(self, sn: str) -> DeviceInfo:
        """Return what the last list said of a device, its online flag left out."""
        names = self._names.get(sn, {})
        return DeviceInfo(sn, names.get("name", ""), names.get("product_name", ""))

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of the service's, None if it was silent."""
        return self._transport.clock_offset() if self._transport else None

    def close(self) -> None:
        """Close the kept connection, if there was one."""
        if self._transport:
            self._transport.close()

    # -- EcoFlow's side -------------------------------------------------------------

    def _log_in(self, deadline: Deadline) -> None:
        body = {
            "email": self._user,
            "password": base64.b64encode(self._password.encode()).decode(),
            "scene": "IOT_APP",
            "userType": "ECOFLOW",
        }
        # One try: a login that was perhaps heard is not repeated within a run.
        transport = Transport(self._exchange(), attempts=1, longest_wait=0.0)
        headers = {"Content-Type": "application/json", "lang": "en_US"}
        request = Request(
            "POST", self._api_url + LOGIN, headers, json.dumps(body).encode()
        )
        reply = self._send(transport, request, deadline)
        if reply.status in (401, 403):
            self._remember_refusal()
            raise KeysRefused(
                f"{self._host}: HTTP {reply.status} to the login: refused, or blocked"
                " for a while after too many logins"
            )
        envelope = self._envelope(reply)
        code = str(envelope.get("code"))
        words = said(envelope.get("message"), 100)
        if "too busy" in words.lower():
            raise AskedToWait(f"{self._host}: {words}", BUSY_SECONDS, code)
        if code != "0":
            # Any code of the login means refused credentials; no code is an outage.
            self._remember_refusal()
            raise KeysRefused(
                f"{self._host}: the app account was refused (code {said(code, 20)}):"
                " check ECOFLOW_ACCOUNT_USER and ECOFLOW_ACCOUNT_PASSWORD, and that"
                " ECOFLOW_API_HOST is the account's region",
                code,
            )
        data = envelope.get("data")
        user = data.get("user") if isinstance(data, dict) else None
        token = data.get("token") if isinstance(data, dict) else None
        user_id = user.get("userId") if isinstance(user, dict) else None
        login = Login(str(user_id or ""), str(token or ""), time.time())
        if not login.is_usable():
            raise EcoflowApiException(f"{self._host}: a login without token or user")
        # Kept at once: what comes next may fail, and must not cost another login.
        self._login = login
        self._refused = {}
        self._save()

    def _fetch_certification(self, deadline: Deadline) -> Certification:
        assert self._login
        user_id, token, _ = self._login
        data = self._get(f"{CERTIFICATION}?userId={user_id}", token, deadline)
        if not isinstance(data, dict):
            data = {}
        port = clean_text(str(data.get("port", "")))
        found = Certification(
            user_id,
            token,
            clean_text(data.get("url")),
            int(port) if port.isdecimal() and len(port) < 6 else 0,
            str(data.get("certificateAccount", "")),
            str(data.get("certificatePassword", "")),
            data.get("protocol", "mqtts") != "mqtt",
            time.time(),
        )
        if fault := self._fault(found):
            raise EcoflowApiException(f"{self._host}: named {fault}")
        return found

    def _fault(self, found: Certification) -> str:
        """Return why a certification is not to be used, empty if it may be."""
        is_local_api = self._api_url.split("/")[2].startswith(LOOPBACK)
        local = found.host in LOOPBACK and is_local_api
        if not found.host.endswith(".ecoflow.com") and not local:
            return "a broker outside ecoflow.com, not trusted"
        if not found.tls and not local:
            return "a broker without TLS"
        if not 0 < found.port < 65536:
            return "a broker without a port"
        texts = (found.token, found.username, found.password)
        usable = all(text.isprintable() and len(text) < 4096 for text in texts)
        return "" if usable and is_serial(found.user_id) else "odd credentials"

    def _fetch_devices(self, deadline: Deadline) -> None:
        """Ask for the device list; bound ones and those shared to the account."""
        assert self._certification
        data = self._get(DEVICES, self._certification.token, deadline)
        devices: dict[str, DeviceInfo] = {}
        for part in ("bound", "share"):
            rows = data.get(part) if isinstance(data, dict) else None
            # An object by serial, or a list (ecoflow-protocol.md 2.5).
            if isinstance(rows, list):
                rows = {str(r.get("sn", "")): r for r in rows if isinstance(r, dict)}
            for key, row in (rows if isinstance(rows, dict) else {}).items():
                sn = clean_text(key)
                if is_serial(sn) and isinstance(row, dict) and sn not in devices:
                    devices[sn] = DeviceInfo(
                        sn,
                        clean_text(row.get("deviceName")),
                        clean_text(row.get("productName")),
                        online_flag(row.get("online")),
                    )
        self._names = {
            device.sn: {"name": device.name, "product_name": device.product_name}
            for device in devices.values()
        }
        self._listed = list(devices.values())
        self._listed_at = time.time()

    def _get(self, path: str, token: str, deadline: Deadline) -> object:
        if self._transport is None:
            self._transport = Transport(
                self._exchange(),
                attempts=self._attempts,
                longest_wait=self._longest_wait,
                longest_try=10.0,
            )
        headers = {"Authorization": f"Bearer {token}", "lang": "en_US"}
        request = Request("GET", self._api_url + path, headers)
        envelope = self._envelope(self._send(self._transport, request, deadline))
        code = said(str(envelope.get("code")), 20)
        if code != "0":
            words = said(envelope.get("message"), 100)
            raise EcoflowApiException(f"{self._host}: code {code}: {words}", code)
        return envelope.get("data")

    def _exchange(self) -> Exchange:
        exchange = self._make_exchange()
        # One connection serves login, certification and list alike.
        self._make_exchange = lambda: exchange
        return exchange

    def _send(
        self, transport: Transport, request: Request, deadline: Deadline
    ) -> Reply:
        try:
            return transport.send(lambda: request, deadline)
        except OutOfTime as exc:
            raise ApiOutOfTime(f"{self._host}: {exc} (out of time)") from exc
        except Unreachable as exc:
            raise EcoflowApiException(f"{self._host}: {exc}") from exc

    def _envelope(self, reply: Reply) -> Mapping[str, object]:
        asked = reply.retry_after()
        if reply.status == 429 or (reply.status != 200 and asked is not None):
            asked = BUSY_SECONDS if asked is None else asked
            raise AskedToWait(
                f"{self._host}: HTTP {reply.status}: asked us to wait {asked:.0f} s",
                asked,
            )
        if reply.status != 200:
            what = f"HTTP {reply.status}"
            code = what if reply.status == 401 else ""
            raise EcoflowApiException(f"{self._host}: {what}", code)
        try:
            envelope = json.loads(reply.body)
        except (ValueError, RecursionError):
            envelope = None
        if not isinstance(envelope, dict) or "code" not in envelope:
            raise EcoflowApiException(f"{self._host}: answered no JSON of EcoFlow's")
        return envelope

    # -- memory ---------------------------------------------------------------------

    def _still_refused(self) -> float:
        """Return for how many seconds this very password must not be tried again."""
        at, salt = self._refused.get("at"), self._refused.get("salt")
        if not isinstance(at, float) or not isinstance(salt, str) or not salt.isascii():
            return 0.0
        age = time.time() - at
        if not 0 <= age < REFUSED_SECONDS or self._hash(salt) != self._refused.get(
            "hash"
        ):
            return 0.0
        return REFUSED_SECONDS - age

    def _remember_refusal(self) -> None:
        salt = os.urandom(16).hex()
        self._login = self._certification = None
        self._refused = {"salt": salt, "hash": self._hash(salt), "at": time.time()}
        self._save()

    def _hash(self, salt: str) -> str:
        import hashlib

        # Slow on purpose: a password can be guessed, and this file may be copied.
        secret = f"{self._user}\0{self._password}".encode()
        return hashlib.scrypt(
            secret, salt=salt.encode(), n=2**14, r=8, p=1, dklen=32
        ).hex()

    def _load(self) -> None:
        if self._loaded or self._cache_file is None:
            return
        self._loaded = True
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(self._cache_file, flags), "rb") as file:
                found = os.fstat(file.fileno())
                if found.st_mode & 0o077 or found.st_uid != os.geteuid():
                    log.warning(
                        "%s is readable by others, so it is not used: chmod 600",
                        self._cache_file,
                    )
                    return
                data = json.loads(file.read(MAX_FILE_BYTES))
        except (OSError, ValueError, RecursionError):
            return
        bound = [FILE_VERSION, self._host, self._user]
        if not isinstance(data, dict) or data.get("bound") != bound:
            return
        refused, names = data.get("refused"), data.get("names")
        self._refused = refused if isinstance(refused, dict) else {}
        if isinstance(names, dict) and _is_map_of_texts(names):
            self._names = {
                sn: {key: clean_text(text) for key, text in inner.items()}
                for sn, inner in names.items()
            }
        listed_at = data.get("listed_at")
        self._listed_at = listed_at if isinstance(listed_at, float) else 0.0
        login = _kept(data.get("login"), Login, (str, str, float))
        self._login = login if login and login.is_usable() else None
        kinds = (str, str, str, int, str, str, bool, float)
        kept = _kept(data.get("certification"), Certification, kinds)
        self._certification = kept if kept and not self._fault(kept) else None

    def _save(self) -> None:
        if self._cache_file is None:
            return
        text = json.dumps(
            {
                "bound": [FILE_VERSION, self._host, self._user],
                "login": self._login,
                "certification": self._certification,
                "refused": self._refused,
                "names": self._names,
                "listed_at": self._listed_at,
            }
        )
        try:
            replace_file(self._cache_file, text.encode(), 0o600)
        except OSError as exc:
            log.warning(
                "cannot keep the login in %s (%s): the next run must log in again",
                self._cache_file,
                exc.strerror,
            )


def _kept(fields: object, made: type[Kept], kinds: tuple[type, ...]) -> Kept | None:
    """Return what the cache kept, None if it is damaged or too old."""
    if not isinstance(fields, list) or len(fields) != len(kinds):
        return None
    if any(type(f) is not kind for f, kind in zip(fields, kinds, strict=True)):
        return None
    # The time that it was obtained at is the last field of all.
    return made(*fields) if 0 <= time.time() - fields[-1] < CACHE_SECONDS else None


def _is_map_of_texts(value: dict[str, object]) -> bool:
    return all(is_serial(sn) for sn in value) and all(
        isinstance(inner, dict)
        and all(isinstance(text, str) for text in inner.values())
        for inner in value.values()
    )
