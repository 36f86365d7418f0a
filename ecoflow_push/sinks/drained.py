"""Drained: a queue of which only what waits is written.

Nothing new is taken and no series ends; what the folder remembers of devices stays, and
so do the totals of its runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecoflow_push.errors import ExitStatus, SinkError, WriteError
from ecoflow_push.memory.spool import Keep
from ecoflow_push.memory.state import FOLDER_CURE
from ecoflow_push.metrics.labels import create_labels
from ecoflow_push.sinks import reports
from ecoflow_push.sinks.queue import STORE_SHARE, Queue
from ecoflow_push.sinks.remote_write import create_ends

if TYPE_CHECKING:
    from ecoflow_push.config.settings import Settings
    from ecoflow_push.memory.state import State
    from ecoflow_push.metrics.record import Record
    from ecoflow_push.net.deadline import Deadline
    from ecoflow_push.sinks.remote_write import Config

# Whoever drains wants it delivered, however long it waited: 30 years.
FOR_EVER = 1e9


class Drained(Queue):
    """What waits in one folder for one endpoint; one object, one visit."""

    #: How many samples were delivered.
    samples = 0

    def prepare(self, deadline: Deadline) -> None:
        """Look at what waits."""
        super().prepare(deadline)
        self._replay.suspects.are_last = True
        self._before = self._spool.samples, sum(self._state.dropped.values())

    def settle(self, deadline: Deadline) -> None:
        """Count what is lost, remember what was learnt, and say what happened."""
        losses, replay, spool = self._losses, self._replay, self._spool
        delivery, state = self.delivery, self._state
        spool.files.seconds = deadline.left() * STORE_SHARE
        if self._clock.distrust:
            delivery.errors.append(reports.distrusted(self.name, self._clock))
        losses.count(delivery)
        delivery.errors += reports.in_part(self.name, state, spool, replay)
        if error := replay.stopped:
            delivery.errors.append(reports.deferred(error, error.text, is_stored=True))
        spool.files.sync_removals()
        delivery.delivered = len(replay.delivered)
        samples, dropped = self._before
        dropped = sum(state.dropped.values()) - dropped
        self.samples = samples - dropped - spool.samples
        if not state.trouble:
            losses.end_replay()
            spool.note(state.endpoint, is_sure=not replay.is_abandoned)
        state.save()
        if not state.trouble:
            losses.forget_replay()
        if spool.trouble:
            status = ExitStatus.CONFIG
            delivery.errors.append(SinkError(spool.trouble, FOLDER_CURE, status=status))

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of whoever told first (s)."""
        return self._clock.offset

    @property
    def waits(self) -> tuple[int, int] | None:
        """How many records wait, and samples; None where that cannot be looked at."""
        if not self._spool.files.is_made:
            return None
        return len(self._spool.entries), self._spool.samples

    @property
    def may_go_on(self) -> bool:
        """Whether it was only cut short: with more time it would deliver more."""
        is_cut = self._replay.stopped and not isinstance(
            self._replay.stopped, WriteError
        )
        return bool(is_cut and self._replay.delivered and not self._replay.failed)

    @property
    def is_in_vain(self) -> bool:
        """Whether nothing was taken, though something was to be."""
        has_failed = self._replay.stopped or self._clock.distrust
        return bool(has_failed and not self._replay.delivered)

    @property
    def is_shut(self) -> bool:
        """Whether whatever else is sent there now will fare no better."""
        error = self._replay.stopped
        return isinstance(error, WriteError) and (
            error.is_down or error.retry_after > 0 or error.bad == "credentials"
        )

    def _make_probe(self, at_ms: int | None) -> Record:
        # No series of a run's own, not even one of now.
        return super()._make_probe(self._clock.now_ms() if at_ms is None else at_ms)


def create(config: Config, settings: Settings, state: State, folder: str) -> Drained:
    """Return the way of what waits in `folder`.

    Raises SettingsError when a certificate or key file cannot be used.
    """
    sink, spool = create_ends(config, settings, state, folder)
    # The bounds are the job's: they may be set where it runs, and not here.
    spool.keep = Keep(max_age=FOR_EVER)
    labels = create_labels(settings)
    return Drained(sink, spool, state, labels, stale_after=settings.stale_after)
