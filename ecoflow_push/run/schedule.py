"""The schedule mode: a run at once, then one on every beat.

`schedule` keeps the job, a monotonic clock beats. schedule's own clock is the wall's:
it would fall silent for an hour at the end of summer time and for the length of any
step back, and drift by a job's length (protocol/host.md#schedulers).
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import schedule

from ecoflow_push.errors import ExitStatus
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.net.kept import KEPT
from ecoflow_push.run.healthcheck import create_healthcheck
from ecoflow_push.sinks import create_standing
from ecoflow_push.start.signals import leave_with_a_word

if TYPE_CHECKING:
    from ecoflow_push.config.settings import Settings
    from ecoflow_push.sinks.base import Sink

log = logging.getLogger(__name__)


class Loop:
    """Runs a job on the beats of one interval; missed beats are skipped."""

    def __init__(
        self,
        interval: float,
        job: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Store what is needed. `interval` in seconds; `job` raises nothing."""
        #: May change from beat to beat.
        self.interval = interval
        self._clock = clock
        self._sleep = sleep
        self._scheduler = schedule.Scheduler()
        # What is to be done and how often; when, the beat decides.
        self._scheduler.every(interval).seconds.do(job)  # type: ignore[arg-type]  # a timedelta takes fractions

    def run(self, beats: int | None = None) -> None:
        """Run now, then on every beat; for ever, or `beats` times.

        A beat that falls into a run is skipped: the next one is the next on the grid
        that began with the first run, however long runs and sleeps took.
        """
        start = self._clock()
        done = 0
        while True:
            self._scheduler.run_all()
            done += 1
            if done == beats:
                return
            passed = self._clock() - start
            skipped_to = int(passed // self.interval) + 1
            until = start + skipped_to * self.interval
            while (left := until - self._clock()) > 0:
                self._sleep(left)


def stay(
    settings: Settings,
    job: Callable[[Mapping[str, Sink], Callable[[float], None]], int],
    create_loop: Callable[[float, Callable[[], object]], Loop] = Loop,
) -> int:
    """Run `job` on the beats of the settings until a signal ends it with 0.

    `job` is given the sinks that outlive a run, and what to tell the interval (s) of
    its settings: by then there may be an account that is not to be asked so often. It
    returns its status and raises nothing. `create_loop` is given the interval and what
    to do on its beats. Raises SettingsError when one of those sinks cannot be had.
    """
    leave_with_a_word(stays=True)
    standing = create_standing(settings)
    if settings.is_interval_raised:
        _tell_raised(settings.interval)
    log.info("a run every %g s, until SIGTERM or SIGINT", settings.interval)
    gc.enable()

    def beat() -> None:
        told = {name: sink.runs_told for name, sink in standing.items()}
        status = job(standing, slow_down)
        KEPT.turn()
        for name, sink in standing.items():
            if sink.runs_told == told[name]:
                # The run ended before it could say so itself.
                sink.abandon()
        ping = create_healthcheck(settings)
        if ping and status in (ExitStatus.CONFIG, ExitStatus.SOFTWARE):
            ping.end(ExitStatus(status), Deadline(0))

    def slow_down(seconds: float) -> None:
        interval = max(settings.interval, seconds)
        if interval > loop.interval:
            _tell_raised(interval)
        loop.interval = interval

    loop = create_loop(settings.interval, beat)
    with KEPT:
        loop.run()
    return ExitStatus.OK


def _tell_raised(seconds: float) -> None:
    log.warning("with the app account a run every %.0f s is the most", seconds)
