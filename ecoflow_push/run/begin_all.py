"""The beginning of a run for many accounts, made of the settings."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ecoflow_push.metrics.labels import create_labels
from ecoflow_push.net.kept import KEPT
from ecoflow_push.run import progress
from ecoflow_push.run.fleet import Fleet
from ecoflow_push.sinks import create_sinks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ecoflow_push.config.settings import Settings
    from ecoflow_push.memory.state import State
    from ecoflow_push.run.members import Members
    from ecoflow_push.sinks.base import Sink


@contextlib.contextmanager
def _around(
    total: int, *, keeps: bool, is_watched: bool
) -> Iterator[Callable[[int], object]]:
    """Keep connections from one account to the next, and show how far it is."""
    with contextlib.ExitStack() as stack:
        if keeps:
            stack.enter_context(KEPT)
        step: Callable[[int], object] = int
        if is_watched and total > 1:
            step = stack.enter_context(progress.bar(total, "accounts"))
        yield step


def create_fleet(
    settings: Settings, members: Members, state: State, standing: Mapping[str, Sink]
) -> Fleet:
    """Return the run for all members; `standing` are the sinks that outlive it.

    Raises SettingsError for what cannot be opened as the settings say.
    """
    healthcheck = None
    if settings.healthcheck_url:
        from ecoflow_push.run.healthcheck import create_healthcheck

        healthcheck = create_healthcheck(settings, members.folder, tells=True)
    # A process that stays keeps connections itself, over its runs.
    keeps, is_watched = not settings.stays, progress.create_watching(settings)
    total = len(members.accounts)
    return Fleet(
        members,
        state,
        create_sinks(settings, state, members.folder, standing),
        labels=create_labels(settings),
        deadline=settings.run_deadline,
        around=_around(total, keeps=keeps, is_watched=is_watched),
        healthcheck=healthcheck,
    )
