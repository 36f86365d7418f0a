"""DeveloperApi: EcoFlow's REST developer API, two signed requests and their answers."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from ecoflow_push.api.envelope import (
    DEVELOPER,
    LETTER_BYTES,
    LIST_WEIGHT,
    MOST_WEIGHT,
    ask,
    check_count,
)
from ecoflow_push.api.models import DeviceInfo, Snapshot, listed_device
from ecoflow_push.api.signing import signed_headers
from ecoflow_push.errors import DeviceOffline, EcoflowApiException, KeysRefused
from ecoflow_push.net.reply import MOST_BYTES
from ecoflow_push.net.retry import Exchange, Patience, Request, Transport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecoflow_push.net.deadline import Deadline

DEVICE_LIST = "/iot-open/sign/device/list"
QUOTA_ALL = "/iot-open/sign/device/quota/all"
# 8521 also comes and goes by itself (protocol/rest.md#codes): three tries, 2 s apart.
SIGNATURE_TRIES = 3
SIGNATURE_WAIT_SECONDS = 2.0
LONGEST_TRY_SECONDS = 10.0
#: Whose variables a failed request speaks of: the address, and the authority.
VARIABLES = ("ECOFLOW_API_HOST", "ECOFLOW_CA_FILE")


class DeveloperApi:
    """Asks the server's cache of every device that a developer account owns."""

    def __init__(
        self,
        api_url: str,
        access_key: str,
        secret_key: str,
        exchange: Exchange,
        patience: Patience,
    ) -> None:
        """Store what is needed; nothing is contacted."""
        self._api_url = api_url
        self._host = api_url.partition("://")[2]
        self._access_key = access_key
        self._secret_key = secret_key
        self._longest_wait = patience.longest_wait
        self._signature_tries = min(SIGNATURE_TRIES, patience.attempts)
        self._transport = Transport(
            exchange,
            attempts=patience.attempts,
            longest_wait=patience.longest_wait,
            longest_try=LONGEST_TRY_SECONDS,
            variables=VARIABLES,
        )

    @property
    def throttled(self) -> bool:
        """Whether the service asked for a slower pace."""
        return self._transport.throttled

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of the service's, in seconds."""
        return self._transport.clock_offset()

    def devices(self, deadline: Deadline) -> list[DeviceInfo]:
        """Return the account's own devices; shared ones are not listed.

        Raises EcoflowApiException or one of its kinds.
        """
        try:
            data, _ = self._get(DEVICE_LIST, {}, deadline, LIST_WEIGHT)
        except DeviceOffline as exc:
            # Not an answer that a list can have.
            raise EcoflowApiException(exc.text, exc.cure, code=exc.code) from exc
        if data is not None and not isinstance(data, list):
            raise EcoflowApiException(f"{self._host}: the device list is not a list")
        devices: dict[str, DeviceInfo] = {}
        for row in data or []:
            device = (
                listed_device(row.get("sn"), row) if isinstance(row, dict) else None
            )
            if device:
                devices.setdefault(device.sn, device)
        check_count(devices, self._host)
        return list(devices.values())

    def quotas(self, sn: str, deadline: Deadline) -> Snapshot:
        """Return what the server holds of one device.

        It is a cache and answers for offline devices too: whether the device is online,
        only the device list knows (protocol/rest.md#quotas). `data` that is null, empty
        or absent means "no telemetry here" (protocol/rest.md#envelope). Raises
        EcoflowApiException or one of its kinds.
        """
        data, weight = self._get(QUOTA_ALL, {"sn": sn}, deadline)
        if data and not isinstance(data, dict):
            raise EcoflowApiException(f"{self._host}: the quotas are not a map")
        quotas = data if isinstance(data, dict) else {}
        return Snapshot(sn, quotas, time.time(), weight=weight)

    def dial_ahead(self, lanes: int, seconds: float) -> None:
        """Begin to connect within `seconds` for the first request; returns at once."""
        self._transport.dial_ahead(lanes, seconds)

    def close(self) -> None:
        """Close the kept connections."""
        self._transport.close()

    def _get(
        self,
        path: str,
        params: Mapping[str, str],
        deadline: Deadline,
        most_weight: int = MOST_WEIGHT,
    ) -> tuple[object, int]:
        url = self._api_url + path
        if params:
            # Signed raw, sent encoded (protocol/rest.md#signature); one form for
            # serials.
            url += "?" + "&".join(f"{k}={quote(v, safe='')}" for k, v in params.items())

        def build() -> Request:
            # No Content-Type: with one, the service signs the (empty) body instead of
            # the query and answers 8521 (protocol/rest.md#content-type).
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
                most_bytes=min(MOST_BYTES, most_weight // LETTER_BYTES),
            )

        tries = 0
        while True:
            tries += 1
            try:
                return ask(
                    *(self._transport, build, deadline, self._host, DEVELOPER),
                    most_weight=most_weight,
                )
            except KeysRefused as exc:
                wait = min(SIGNATURE_WAIT_SECONDS, self._longest_wait)
                if (
                    exc.code != "8521"
                    or tries >= self._signature_tries
                    or wait >= deadline.left()
                ):
                    raise
                time.sleep(wait)
