"""Where updates go: knows nothing of EcoFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ecoflow_push.config.plugs import SINKS, load

if TYPE_CHECKING:
    from ecoflow_push.config.settings import Settings
    from ecoflow_push.memory.state import State
    from ecoflow_push.sinks.base import Sink


def create_sinks(
    settings: Settings, state: State, folder: str | None, standing: Mapping[str, Sink]
) -> list[Sink]:
    """Return the sinks of a run, in the order in which they deliver.

    `folder` is the state's, None if there is none.
    What stays between runs is taken from `standing`, with a new delivery. Raises
    SettingsError for what cannot be opened as the settings say.
    """
    from ecoflow_push.sinks.base import Delivery

    sinks = []
    for name in SINKS:
        if name in standing:
            standing[name].delivery = Delivery()
            sinks.append(standing[name])
        elif name in settings.sinks:
            plug = load("sinks", name)
            if not getattr(plug, "STAYS", False):
                config = settings.sinks[name]
                sinks.append(plug.create(config, settings, state, folder))
    return sinks


def create_standing(settings: Settings) -> dict[str, Sink]:
    """Return the sinks that stay between runs; none where there is but one run.

    Raises SettingsError for what cannot be opened as the settings say.
    """
    standing: dict[str, Sink] = {}
    for name, config in settings.sinks.items() if settings.stays else ():
        plug = load("sinks", name)
        if getattr(plug, "STAYS", False):
            standing[name] = plug.create(config, settings)
    return standing
