"""RestApiClient: EcoFlow's REST developer API, read with an access and a secret key."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from ecoflow_push.api.base import EcoflowApiClient
from ecoflow_push.api.models import (
    DeviceInfo,
    Snapshot,
    clean_text,
    online_flag,
    said,
)
from ecoflow_push.api.signing import signed_headers
from ecoflow_push.config.environ import is_serial
from ecoflow_push.errors import (
    ApiOutOfTime,
    AskedToWait,
    DeviceOffline,
    DeviceRefused,
    EcoflowApiException,
    KeysRefused,
    OutOfTime,
    Unreachable,
)
from ecoflow_push.net.retry import Exchange, Reply, Request, Transport

if TYPE_CHECKING:
    from ecoflow_push.net.deadline import Deadline

DEVICE_LIST = "/iot-open/sign/device/list"
QUOTA_ALL = "/iot-open/sign/device/quota/all"

# ecoflow-protocol.md 1.1; a key is bound to the region of its developer account.
REGIONAL_HOSTS = ("api.ecoflow.com", "api-e.ecoflow.com", "api-a.ecoflow.com")
# 8521 also comes and goes by itself (ecoflow-protocol.md 1.5): three tries, 2 s apart.
SIGNATURE_TRIES = 3
SIGNATURE_WAIT_SECONDS = 2.0
# Our clock this far from theirs is worth naming beside a refused signature.
CLOCK_SUSPECT_SECONDS = 300.0
# "Server is too busy" names no time; peers back off for minutes.
BUSY_SECONDS = 120.0

# What each code means for the reader of the log, and for the run.
ADVICE: dict[str, tuple[type[EcoflowApiException], str]] = {
    "8521": (
        KeysRefused,
        "the signature is wrong: check ECOFLOW_SECRET_KEY{clock}",
    ),
    "8513": (
        KeysRefused,
        (
            "the access key is unknown here: a key works in its own region only, try"
            " ECOFLOW_API_HOST={others}, or check ECOFLOW_ACCESS_KEY"
        ),
    ),
    "1006": (
        DeviceRefused,
        (
            "this model is not open to developer keys, or not bound to their account;"
            " the app account can read it"
        ),
    ),
    "8512": (
        DeviceRefused,
        (
            "no permission: perhaps the serial of a battery inside another device; use"
            " the main device's"
        ),
    ),
    "1008": (
        EcoflowApiException,
        "the request's parameters are wrong: check ECOFLOW_DEVICE_SN",
    ),
    "6012": (DeviceOffline, "the device is offline"),
}
# Codes that client code of peers lists as refused credentials; never seen by us.
REFUSAL_CODES = frozenset(("400", "401", "6042", "7005", "7015"))


class RestApiClient(EcoflowApiClient):
    """Reads the server's cache of every device that the developer account owns."""

    source = "rest"

    def __init__(
        self,
        api_url: str,
        access_key: str,
        secret_key: str,
        exchange: Exchange,
        *,
        attempts: int,
        longest_wait: float,
    ) -> None:
        """Store what is needed; nothing is contacted."""
        self._api_url = api_url
        self._host = api_url.partition("://")[2]
        self._access_key = access_key
        self._secret_key = secret_key
        self._longest_wait = longest_wait
        self._signature_tries = min(SIGNATURE_TRIES, attempts)
        self._transport = Transport(
            exchange, attempts=attempts, longest_wait=longest_wait, longest_try=10.0
        )

    @property
    def throttled(self) -> bool:
        """Whether the service asked for a slower pace."""
        return self._transport.throttled

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of the service's, in seconds."""
        return self._transport.clock_offset()

    def connect(self, deadline: Deadline) -> None:
        """Do nothing: the first request opens the connection."""

    def get_devices(self, deadline: Deadline) -> list[DeviceInfo]:
        """Return the account's own devices; shared ones are not listed."""
        try:
            data = self._get(DEVICE_LIST, {}, deadline)
        except DeviceOffline as exc:
            # Not an answer that a list can have.
            raise EcoflowApiException(str(exc), exc.code) from exc
        if data is not None and not isinstance(data, list):
            raise EcoflowApiException(f"{self._host}: the device list is not a list")
        devices: dict[str, DeviceInfo] = {}
        for row in data or []:
            sn = clean_text(row.get("sn")) if isinstance(row, dict) else ""
            if is_serial(sn) and sn not in devices:
                devices[sn] = DeviceInfo(
                    sn=sn,
                    name=clean_text(row.get("deviceName")),
                    product_name=clean_text(row.get("productName")),
                    online=online_flag(row.get("online")),
                )
        return list(devices.values())

    def get_device_quota(self, sn: str, deadline: Deadline) -> Snapshot:
        """Return what the server holds of one device.

        It is a cache and answers for offline devices too: whether the device is
        online, only the device list knows (ecoflow-protocol.md 1.7). `data` that is
        null, empty or absent means "no telemetry here" (1.4).
        """
        data = self._get(QUOTA_ALL, {"sn": sn}, deadline)
        if data and not isinstance(data, dict):
            raise EcoflowApiException(f"{self._host}: the quotas are not a map")
        return Snapshot(sn, data if isinstance(data, dict) else {}, time.time())

    def close(self) -> None:
        """Close the kept connection."""
        self._transport.close()

    def _get(self, path: str, params: Mapping[str, str], deadline: Deadline) -> object:
        tries = 0
        while True:
            tries += 1
            try:
                return self._data(self._send(path, params, deadline))
            except KeysRefused as exc:
                wait = min(SIGNATURE_WAIT_SECONDS, self._longest_wait)
                if (
                    exc.code != "8521"
                    or tries >= self._signature_tries
                    or wait >= deadline.left()
                ):
                    raise
                time.sleep(wait)

    def _send(self, path: str, params: Mapping[str, str], deadline: Deadline) -> Reply:
        url = self._api_url + path
        if params:
            # Signed raw, sent encoded (ecoflow-protocol.md 1.3); one form for serials.
            url += "?" + "&".join(f"{k}={quote(v, safe='')}" for k, v in params.items())

        def build() -> Request:
            # No Content-Type: with one, the service signs the (empty) body instead of
            # the query and answers 8521 (ecoflow-protocol.md 1.3.1).
            return Request(
                "GET",
                url,
                signed_headers(
                    params,
                    access_key=self._access_key,
                    secret_key=self._secret_key,
                    nonce=f"{int.from_bytes(os.urandom(4)) % 1_000_000:06d}",
                    timestamp_ms=str(time.time_ns() // 1_000_000),
                ),
            )

        try:
            return self._transport.send(build, deadline)
        except OutOfTime as exc:
            raise ApiOutOfTime(f"{self._host}: {exc} (out of time)") from exc
        except Unreachable as exc:
            raise EcoflowApiException(f"{self._host}: {exc}") from exc

    def _data(self, reply: Reply) -> object:
        """Return the envelope's data member, or raise what the answer means."""
        if reply.status != 200:
            raise self._http_error(reply)
        envelope = _decode(reply.body)
        if not isinstance(envelope, dict) or "code" not in envelope:
            kind = clean_text(reply.headers.get("Content-Type", "no type")).split(";")[
                0
            ]
            raise EcoflowApiException(
                f"{self._host}: answered {len(reply.body)} bytes of {kind}, not"
                " EcoFlow's JSON (a login page, a proxy, the wrong host?)"
            )
        code = str(envelope["code"])
        if code == "0":
            return envelope.get("data")
        raise self._api_error(code, envelope, reply)

    def _http_error(self, reply: Reply) -> EcoflowApiException:
        status, what = reply.status, f"{self._host}: HTTP {reply.status}"
        if status in (401, 403):
            return KeysRefused(
                f"{what}: refused; EcoFlow blocks noisy clients for a while, so ask"
                " less often and wait, or check the keys",
                code=f"HTTP {status}",
            )
        asked = reply.retry_after()
        if status == 429 or asked is not None:
            asked = BUSY_SECONDS if asked is None else asked
            return AskedToWait(f"{what}: asked us to wait {asked:.0f} s", asked)
        if 300 <= status < 400:
            return EcoflowApiException(
                f"{what}: a redirect, not followed with signed headers; check"
                " ECOFLOW_API_HOST"
            )
        return EcoflowApiException(what)

    def _api_error(
        self, code: str, envelope: Mapping[str, object], reply: Reply
    ) -> EcoflowApiException:
        """Return one line of advice for an error code (ecoflow-protocol.md 1.5)."""
        words = said(envelope.get("message"), 100)
        code = said(code, 20)
        what = f"{self._host}: code {code}"
        if code in ADVICE:
            kind, advice = ADVICE[code]
            others = " or ".join(host for host in REGIONAL_HOSTS if host != self._host)
            advice = advice.format(others=others, clock=_clock_advice(reply))
            return kind(f"{what}: {advice}", code)
        if "too busy" in words.lower():
            return AskedToWait(f"{what}: {words}", BUSY_SECONDS, code)
        kind = EcoflowApiException
        if code in REFUSAL_CODES:
            kind = KeysRefused
        elif "no permission" in words.lower():
            kind = DeviceRefused
        trace = said(envelope.get("eagleEyeTraceId"), 40) or "-"
        return kind(f"{what}: {words or 'no text'} (trace {trace})", code)


def _clock_advice(reply: Reply) -> str:
    """Return what a refused signature may owe to our clock, judged by their Date."""
    offset = reply.clock_offset(time.time()) or 0.0
    if abs(offset) < CLOCK_SUSPECT_SECONDS:
        return ""
    return f", and the clock: it is {offset:+.0f} s from EcoFlow's"


def _decode(body: bytes) -> object:
    """Return the JSON value of `body`, None where it has none."""
    # The second reading is for integers beyond Python's 4300 digits, as infinities.
    for parse_int in (None, float):
        try:
            return json.loads(body, parse_int=parse_int)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            return None
        except ValueError:
            continue
    return None
