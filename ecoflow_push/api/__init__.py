"""EcoFlow's side: knows nothing of Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecoflow_push.config.plugs import load

if TYPE_CHECKING:
    from ecoflow_push.api.base import EcoflowApiClient
    from ecoflow_push.config.settings import Settings
    from ecoflow_push.memory.state import State


def create_client(
    settings: Settings, name: str, state: State, folder: str | None
) -> EcoflowApiClient:
    """Return the client that reads by the source `name`.

    `state` remembers what EcoFlow refused; `folder` is where a login is kept for the
    next run, None for nowhere. Raises SettingsError for a bad CA file.
    """
    client: EcoflowApiClient = load("api", name).create(
        settings.sources[name], settings, state, folder
    )
    return client
