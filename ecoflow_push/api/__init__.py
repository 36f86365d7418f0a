"""EcoFlow's side: knows nothing of Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecoflow_push.errors import SettingsError

if TYPE_CHECKING:
    from ecoflow_push.api.base import EcoflowApiClient
    from ecoflow_push.settings import Settings


def create_client(settings: Settings) -> EcoflowApiClient:
    """Return the client that reads the devices as the settings say.

    Raises SettingsError for what this version cannot read, or a bad CA file.
    """
    if settings.source != "rest" or not (settings.access_key and settings.secret_key):
        raise SettingsError(
            "settings: this version reads with developer keys only: set"
            " ECOFLOW_ACCESS_KEY and ECOFLOW_SECRET_KEY (and ECOFLOW_SOURCE=rest)"
        )
    # Imported here: requests is half of a run's cost, and other sources do without.
    from ecoflow_push.api.rest import RestApiClient

    return RestApiClient(
        settings.api_url,
        settings.access_key.reveal(),
        settings.secret_key.reveal(),
        ca_file=settings.api_ca_file,
        proxies=settings.proxies,
        attempts=settings.attempts,
        longest_wait=settings.longest_wait,
    )
