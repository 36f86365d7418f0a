"""EcoFlow's side: knows nothing of Prometheus."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ecoflow_push.errors import SettingsError

if TYPE_CHECKING:
    from ecoflow_push.api.base import EcoflowApiClient
    from ecoflow_push.config.settings import Settings
    from ecoflow_push.net.retry import Exchange


def create_client(
    settings: Settings, source: str, folder: str | None
) -> EcoflowApiClient:
    """Return the client that reads by `source`: "rest" or "mqtt".

    `folder` is where the app account's login is kept for the next run, None for
    nowhere. Raises SettingsError for a bad CA file or missing credentials.
    """

    # Imported where it is needed: requests is half of a run's cost, and a run over
    # MQTT does without while its login is cached.
    def exchange() -> Exchange:
        from ecoflow_push.net.requests_exchange import RequestsExchange

        return RequestsExchange(
            settings.api_url,
            ca_file=settings.api_ca_file,
            proxies=settings.proxies,
            lanes=4,
        )

    if source == "rest" and settings.access_key and settings.secret_key:
        from ecoflow_push.api.rest import RestApiClient

        return RestApiClient(
            settings.api_url,
            settings.access_key.reveal(),
            settings.secret_key.reveal(),
            exchange(),
            attempts=settings.attempts,
            longest_wait=settings.longest_wait,
        )
    if source == "mqtt" and settings.account_user and settings.account_password:
        from ecoflow_push.api.account import Account
        from ecoflow_push.api.mqtt import MqttApiClient

        account = Account(
            settings.api_url,
            settings.account_user.reveal(),
            settings.account_password.reveal(),
            cache_file=folder and os.path.join(folder, "account.json"),
            exchange=exchange,
            attempts=settings.attempts,
            longest_wait=settings.longest_wait,
        )
        return MqttApiClient(
            account,
            instance=settings.instance,
            named=settings.device_sns,
            ca_file=settings.api_ca_file,
            longest_visit=settings.mqtt_timeout,
        )
    raise SettingsError(f"settings: no credentials for the source {source}")
