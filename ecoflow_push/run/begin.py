"""The beginning of a run: all that it needs, made of the settings.

A run waits for the network most of its time, and for imports most of the rest. So it
lets the two wait together: what asks EcoFlow is made first, and dials while the rest is
imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecoflow_push.api import create_client
from ecoflow_push.run import progress
from ecoflow_push.run.collect import COLLECT_SHARE
from ecoflow_push.sinks import create_sinks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ecoflow_push.config.settings import Settings
    from ecoflow_push.memory.state import State
    from ecoflow_push.run.worker import Worker
    from ecoflow_push.sinks.base import Sink


def create_worker(
    settings: Settings,
    state: State,
    folder: str | None,
    only: Sequence[str],
    standing: Mapping[str, Sink] | None = None,
    *,
    is_alone: bool = True,
) -> Worker:
    """Return the worker of the settings; `only` narrows this run to some serials.

    `folder` is the state's, where a login and a spool are kept, None for nowhere;
    `standing` are the sinks that outlive the run, None where this one only looks. If it
    `is_alone`, it dials ahead, and shows how far it is. Raises SettingsError for what
    cannot be built as they say.
    """
    sinks: list[Sink] = []
    if standing is not None:
        sinks = create_sinks(settings, state, folder, standing)
    names = settings.sources
    sources = [create_client(settings, name, state, folder) for name in names]
    # All that could still be wrong with the settings has been looked at.
    if is_alone and not settings.stays:
        sources[0].dial_ahead(settings.run_deadline * COLLECT_SHARE)
    # These, with what they need, are most of a run's imports.
    from ecoflow_push.metrics.labels import create_labels
    from ecoflow_push.run.updates import create_updates
    from ecoflow_push.run.worker import Worker

    healthcheck = None
    if settings.healthcheck_url:
        from ecoflow_push.run.healthcheck import create_healthcheck

        healthcheck = create_healthcheck(settings, folder, tells=True)
    is_watched = is_alone and progress.is_watched(settings)
    return Worker(
        sources,
        sinks,
        create_updates(settings, state, only),
        state,
        labels=create_labels(settings),
        deadline=settings.run_deadline,
        healthcheck=healthcheck,
        shown=progress.shown if is_watched else None,
    )
