"""Drain: what waits in all folders of a STATE_DIR is delivered, nothing is collected.

For an account that moved to another machine, or a shard that is no more: its spool is
where it was, and nobody's run looks there again (docs/remote-write.md).
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ecoflow_push.config.plugs import SPOOLED
from ecoflow_push.errors import EcoflowPushError, ExitStatus, LockedError
from ecoflow_push.memory.spools import endpoint_folder, state_folders, waiting
from ecoflow_push.memory.state import FOLDER_CURE, State
from ecoflow_push.net.deadline import Deadline, within
from ecoflow_push.net.kept import KEPT
from ecoflow_push.run.outcome import worst
from ecoflow_push.run.telling import tell_end
from ecoflow_push.sinks import drained

if TYPE_CHECKING:
    from ecoflow_push.config.settings import Settings

    Open = Callable[[State, str], drained.Drained]

log = logging.getLogger(__name__)

# The rest is for the books of the last one.
DELIVER_SHARE = 0.9
# Less would not do for one request of a slow line.
LEAST_SECONDS = 5.0
# With less nothing is begun.
SHORTEST_SECONDS = 0.25
# So many folders in a row of which nothing is taken: it is not them.
MOST_IN_VAIN = 2


class Place:
    """The folder of one account and job: what waits there, and what became of it."""

    def __init__(self, path: str, own: str) -> None:
        """Look at it; `own` is the name of the spool that is to be drained."""
        self.path = path
        #: What waits for our endpoint, and for others.
        self.records = self.samples = self.elsewhere = 0
        #: What was delivered of it.
        self.taken_records = self.taken_samples = 0
        self.errors: list[EcoflowPushError] = []
        self.word = "empty"
        try:
            found = waiting(path)
        except OSError as exc:
            self.word = "closed"
            self.errors.append(_closed(path, exc))
            return
        self.records, self.samples = found.pop(own, (0, 0))
        self.elsewhere = sum(samples for _, samples in found.values())
        if self.records:
            self.word = "not reached"

    @property
    def is_due(self) -> bool:
        """Whether anything was to be done."""
        return self.word != "empty"

    @property
    def status(self) -> ExitStatus:
        """What a run would end with that has only this one."""
        if self.word == "drained":
            return ExitStatus.PARTIAL if self.errors else ExitStatus.OK
        return worst({e.status for e in self.errors} or {ExitStatus.TEMPFAIL})


class Drain:
    """One drain of all folders."""

    def __init__(
        self,
        places: Sequence[Place],
        open_queue: Open,
        *,
        deadline: float,
        started: float,
    ) -> None:
        """Store what is needed; `deadline` (seconds) starts at `started`, monotonic.

        `open_queue` returns the queue of a state and its folder.
        """
        self._places = places
        self._open = open_queue
        self._started = started
        left = started + deadline - time.monotonic()
        self._deadline = Deadline(left * DELIVER_SHARE)
        #: How far our clock is ahead of the receiver's (s), None if that is not known.
        self._offset: float | None = None
        self._in_vain = 0
        self._is_over = False

    def run(self) -> ExitStatus:
        """Deliver what can be delivered, say what came of it, and return the status."""
        self._tell_of_others()
        todo = [place for place in self._places if place.records]
        # Connections go from folder to folder.
        with KEPT:
            while todo:
                todo = [p for n, p in enumerate(todo) if self._visit(p, len(todo) - n)]
        return self._tell()

    def _visit(self, place: Place, left: int) -> bool:
        """Drain a folder, where `left` are still to come; return whether to come back.

        Each has an equal share of the time; what one leaves the others have.
        """
        seconds = self._deadline.left()
        if self._is_over or seconds < SHORTEST_SECONDS:
            return False
        share = Deadline(min(seconds, max(seconds / left, LEAST_SECONDS)))
        try:
            with State.open(place.path) as state:
                if state.is_ours:
                    return self._drain(place, state, share)
                place.word = "left alone"
                place.errors = [_unusable(state.trouble, state.cure)]
        except LockedError:
            place.word = "locked"
            log.warning(
                "%s: a run is at work there; %d samples wait in it",
                *(place.path, place.samples),
            )
        return False

    def _drain(self, place: Place, state: State, share: Deadline) -> bool:
        queue = self._open(state, place.path)
        try:
            queue.hear(self._offset)
            queue.prepare(share)
            try:
                if not within(share, partial(queue.deliver, share)):
                    queue.abandon()
            finally:
                queue.settle(share)
        finally:
            queue.close()
        if state.trouble:
            log.warning("%s: %s", state.trouble, state.cure)
        self._offset = queue.clock_offset()
        place.taken_records += queue.delivery.delivered
        place.taken_samples += queue.samples
        place.records, place.samples = queue.waits or (place.records, place.samples)
        place.errors = list(queue.delivery.errors)
        place.word = "waiting" if place.records else "drained"
        self._in_vain = self._in_vain + 1 if queue.is_in_vain else 0
        self._is_over = queue.is_shut or self._in_vain == MOST_IN_VAIN
        return queue.may_go_on

    def _tell_of_others(self) -> None:
        others = [place.elsewhere for place in self._places if place.elsewhere]
        if others:
            log.warning(
                "remote-write: %d samples in %d folders wait for another address, user"
                " or tenant than is set now, and stay: drain them with that one",
                *(sum(others), len(others)),
            )

    def _tell(self) -> ExitStatus:
        """Log the one line of this drain, and return its status."""
        status = self._status()
        tell_end(status, self._started, "; ".join(self._said()))
        return status

    def _status(self) -> ExitStatus:
        found = {place.status for place in self._places if place.is_due}
        if not found - {ExitStatus.OK}:
            return ExitStatus.OK
        has_some = any(place.word == "drained" for place in self._places)
        return ExitStatus.PARTIAL if has_some else worst(found)

    def _said(self) -> Iterator[str]:
        counts = Counter(place.word for place in self._places)
        words = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
        yield f"folders: {words or 'none'}"
        records, samples, taken_records, taken_samples = (
            sum(getattr(place, name) for place in self._places)
            for name in ("records", "samples", "taken_records", "taken_samples")
        )
        yield f"{taken_samples} samples of {taken_records} snapshots delivered"
        yield f"{samples} of {records} wait" if records else "none waits"
        yield from {str(e): 0 for place in self._places for e in place.errors}


def create_drain(settings: Settings) -> Drain:
    """Return the drain of the settings.

    Raises SettingsError when a certificate or key file cannot be used, and
    EcoflowPushError when STATE_DIR cannot be read.
    """
    # To look at many files takes a while, too.
    started = time.monotonic()
    config, folder = settings.sinks[SPOOLED], settings.state_dir or ""
    own = os.path.basename(endpoint_folder("", *config.endpoint))
    try:
        places = [Place(path, own) for path in state_folders(folder)]
    except OSError as exc:
        raise _closed(folder, exc) from exc

    def open_queue(state: State, path: str) -> drained.Drained:
        return drained.create(config, settings, state, path)

    deadline = settings.run_deadline
    return Drain(places, open_queue, deadline=deadline, started=started)


def _closed(path: str, exc: OSError) -> EcoflowPushError:
    return _unusable(f"cannot read {path}: {exc.strerror}", FOLDER_CURE)


def _unusable(text: str, cure: str) -> EcoflowPushError:
    error = EcoflowPushError(text, cure)
    error.status = ExitStatus.CONFIG
    return error
