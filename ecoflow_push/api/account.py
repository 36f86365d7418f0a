"""The app account: one login, the broker's credentials, the device list.

The service throttles logins (protocol/account.md#refusals), so each is made to last.
"""

from __future__ import annotations

import base64
import json
import logging
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ecoflow_push.api.envelope import (
    LIST_WEIGHT,
    LOGGED_IN,
    LOGIN,
    ask,
    check_count,
)
from ecoflow_push.api.models import DeviceInfo, clean_text, listed_device
from ecoflow_push.config.kinds import LOOPBACK
from ecoflow_push.errors import AskedToWait, EcoflowApiException, KeysRefused
from ecoflow_push.memory.login import Certification, Login, LoginFile
from ecoflow_push.net.exchange import open_exchange
from ecoflow_push.net.retry import Patience, Request, Transport
from ecoflow_push.net.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ecoflow_push.errors import Finding
    from ecoflow_push.net.deadline import Deadline
    from ecoflow_push.net.retry import Exchange

log = logging.getLogger(__name__)

LOGIN_PATH = "/auth/login"
CERTIFICATION_PATH = "/iot-auth/app/certification"
DEVICES_PATH = "/iot-service/user/device"

# A device is bought more seldom than once an hour.
LIST_SECONDS = 3600.0
# A login that is younger is not the reason why a request was refused.
RENEW_SECONDS = 900.0
# A login may take longer than what can be tried again.
LOGIN_SECONDS = 15.0
LONGEST_TRY_SECONDS = 10.0
VARIABLES = ("ECOFLOW_API_HOST", "ECOFLOW_CA_FILE")


class Account:
    """An e-mail and a password, and what they have earned so far."""

    def __init__(
        self,
        api_url: str,
        user: str,
        password: str,
        *,
        path: str | None,
        trust: Trust = Trust(),  # noqa: B008 - immutable
        proxies: Mapping[str, str] | None = None,
        patience: Patience | None = None,
        check_pace: Callable[[], object] = int,
    ) -> None:
        """Store what is needed; nothing is contacted.

        `path` is the login file, None for none. `check_pace` raises AskedToWait before
        a login that would be too many.
        """
        self._check_pace = check_pace
        self.host = api_url.partition("://")[2]
        self.trust = trust
        self._api_url = api_url
        self._user = user
        self._password = password
        self._proxies = proxies or {}
        self._patience = patience or Patience()
        self._kept = LoginFile(path, self.host, user, password)
        self._opened: Exchange | None = None
        self._transport: Transport | None = None
        self._listed: list[DeviceInfo] | None = None

    def certification(
        self, deadline: Deadline, *, fresh: bool = False
    ) -> Certification:
        """Return the broker's credentials, kept ones unless `fresh`.

        Raises KeysRefused for a refused (or lately refused) password, AskedToWait,
        ApiOutOfTime or EcoflowApiException.
        """
        kept = self._kept
        kept.load()
        if kept.certification and not fresh and not self._fault(kept.certification):
            return kept.certification
        if wait := kept.refused_for():
            raise KeysRefused(
                f"{self.host}: the app account was refused: not tried again for"
                f" {wait:.0f} s, or until ECOFLOW_ACCOUNT_PASSWORD changes",
                "correct ECOFLOW_ACCOUNT_USER and _PASSWORD, or wait",
            )
        kept.certification = None
        login = kept.login
        young = login is not None and (
            0 <= time.time() - login.obtained_at < RENEW_SECONDS
        )
        if login is None or fresh:
            login, young = self._log_in(deadline), True
        try:
            found = self._certify(login, deadline)
        except EcoflowApiException as exc:
            # A code or 401 means that the token is dead: one new login, unless this
            # one is so young that something else must be the reason.
            if young or not exc.code or isinstance(exc, AskedToWait):
                raise
            found = self._certify(self._log_in(deadline), deadline)
        kept.certification = found
        try:
            self._list(found, deadline)
        except EcoflowApiException as exc:
            # Names and discovery only; whoever named the serials does without.
            log.debug("no device list: %s", exc)
        kept.save()
        return found

    def devices(self, deadline: Deadline) -> tuple[list[DeviceInfo], bool]:
        """Return the account's devices, and whether EcoFlow has just listed them.

        A list younger than an hour serves, its online flags left out; after a failed
        request any list does. Raises EcoflowApiException or one of its kinds.
        """
        certification = self.certification(deadline)
        kept = self._kept
        is_old = not 0 <= time.time() - kept.listed_at < LIST_SECONDS
        if self._listed is None and (is_old or not kept.names):
            try:
                self._list(certification, deadline)
                kept.save()
            except EcoflowApiException:
                if not kept.names:
                    raise
        if self._listed is not None:
            return self._listed, True
        return [self.known(sn) for sn in kept.names], False

    def known(self, sn: str) -> DeviceInfo:
        """Return what the last list said of a device, its online flag left out."""
        found = self._kept.names
        sn = sn if sn in found or sn.upper() not in found else sn.upper()
        names = found.get(sn, {})
        return DeviceInfo(
            sn,
            clean_text(names.get("name", "")),
            clean_text(names.get("product_name", "")),
        )

    def lacks(self, sn: str) -> str:
        """Return what to say of a device that a young list lacks, "" without one."""
        kept = self._kept
        is_young = 0 <= time.time() - kept.listed_at < LIST_SECONDS
        is_known = not is_young or not kept.names or sn in kept.names
        if is_known:
            return ""
        from ecoflow_push.api.unlisted import lacking

        return lacking(kept.names)

    def reach(self, deadline: Deadline) -> Iterator[Finding]:
        """Look at the name and the certificate of EcoFlow's host."""
        from ecoflow_push.api.probe import reach

        return reach(self._api_url, self.trust, self._proxies, deadline)

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of the service's, None if it was silent."""
        return self._transport.clock_offset() if self._transport else None

    def close(self) -> None:
        """Close the kept connection, if there was one."""
        if self._opened:
            self._opened.close()

    def _log_in(self, deadline: Deadline) -> Login:
        self._check_pace()
        body = {
            "email": self._user,
            "password": base64.b64encode(self._password.encode()).decode(),
            "scene": "IOT_APP",
            "userType": "ECOFLOW",
        }
        request = Request(
            "POST",
            self._api_url + LOGIN_PATH,
            {"Content-Type": "application/json", "lang": "en_US"},
            json.dumps(body).encode(),
        )
        # One try: a login that was perhaps heard is not repeated within a run.
        once = self._transport_of(Patience(1, 0.0), LOGIN_SECONDS)
        try:
            data, _ = ask(once, lambda: request, deadline, self.host, LOGIN)
        except KeysRefused:
            self._kept.refused()
            raise
        data = data if isinstance(data, dict) else {}
        user = data.get("user")
        user_id = user.get("userId") if isinstance(user, dict) else None
        login = Login(_text(user_id), _text(data.get("token")), time.time())
        if not login.learnt().is_usable():
            raise EcoflowApiException(f"{self.host}: a login without token or user")
        self._kept.accepted(login)
        return login

    def _certify(self, login: Login, deadline: Deadline) -> Certification:
        path = f"{CERTIFICATION_PATH}?userId={login.user_id}"
        data = self._get(path, login.token, deadline)
        data = data if isinstance(data, dict) else {}
        port = clean_text(str(data.get("port", "")))
        found = Certification(
            login.user_id,
            login.token,
            clean_text(data.get("url")),
            int(port) if port.isdecimal() and len(port) < 6 else 0,
            _text(data.get("certificateAccount")),
            _text(data.get("certificatePassword")),
            data.get("protocol", "mqtts") != "mqtt",
            time.time(),
        ).learnt()
        if fault := self._fault(found):
            raise EcoflowApiException(f"{self.host}: named {fault}")
        return found

    def _fault(self, found: Certification) -> str:
        """Return why a certification is not to be used, empty if it may be."""
        local = found.host in LOOPBACK and urlsplit(self._api_url).hostname in LOOPBACK
        if not found.host.endswith(".ecoflow.com") and not local:
            return "a broker outside ecoflow.com, not trusted"
        if not found.tls and not local:
            return "a broker without TLS"
        if not 0 < found.port < 65536:
            return "a broker without a port"
        return "" if found.is_usable() else "odd credentials"

    def _list(self, certification: Certification, deadline: Deadline) -> None:
        """Ask for the device list; bound ones and those shared to the account.

        Each part is a map by serial or a list (protocol/account.md#devices).
        """
        data = self._get(DEVICES_PATH, certification.token, deadline)
        devices: dict[str, DeviceInfo] = {}
        for part in ("bound", "share"):
            rows = data.get(part) if isinstance(data, dict) else None
            for sn, row in _by_serial(rows):
                if device := listed_device(sn, row):
                    devices.setdefault(device.sn, device)
        check_count(devices, self.host)
        self._kept.names = {
            device.sn: {"name": device.name, "product_name": device.product_name}
            for device in devices.values()
        }
        self._listed = list(devices.values())
        self._kept.listed_at = time.time()

    def _get(self, path: str, token: str, deadline: Deadline) -> object:
        if self._transport is None:
            self._transport = self._transport_of(self._patience, LONGEST_TRY_SECONDS)
        headers = {"Authorization": f"Bearer {token}", "lang": "en_US"}
        request = Request("GET", self._api_url + path, headers)
        data, _ = ask(
            *(self._transport, lambda: request, deadline, self.host, LOGGED_IN),
            most_weight=LIST_WEIGHT,
        )
        return data

    def _transport_of(self, patience: Patience, longest_try: float) -> Transport:
        # One connection serves login, certification and list alike.
        self._opened = self._opened or open_exchange(
            self._api_url, trust=self.trust, proxies=self._proxies, is_rare=True
        )
        return Transport(
            self._opened,
            attempts=patience.attempts,
            longest_wait=patience.longest_wait,
            longest_try=longest_try,
            variables=VARIABLES,
        )


def _text(value: object) -> str:
    """Return a text or a whole number as text, "" for what is neither."""
    return str(value) if type(value) in (str, int) else ""


def _by_serial(rows: object) -> Iterable[tuple[object, object]]:
    """Return the rows of a list: an object by serial, or an array."""
    if isinstance(rows, list):
        return [(row.get("sn"), row) for row in rows if isinstance(row, dict)]
    return rows.items() if isinstance(rows, dict) else ()
