"""Suspects: what was refused, kept until it is known whose fault that was."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecoflow_push.errors import WriteError
    from ecoflow_push.memory.entry import Entry
    from ecoflow_push.memory.spool import Spool
    from ecoflow_push.sinks.losses import Losses
    from ecoflow_push.sinks.turns import Turn

log = logging.getLogger(__name__)

# So many records refused in a row, and nothing taken: is it the door?
MOST_SUSPECTS = 3


class Suspects:
    """The refusals of one run; only what is taken after them tells what they mean."""

    def __init__(self, spool: Spool, losses: Losses) -> None:
        """Begin with none."""
        self._spool = spool
        self._losses = losses
        self._in_a_row = 0
        #: Nothing new is to come, in any run, that could tell what they mean.
        self.are_last = False
        #: What was refused, and with what.
        self.entries: dict[Entry, WriteError] = {}
        #: Of what was dropped, why.
        self.rejected: list[WriteError] = []

    def add(self, entry: Entry, error: WriteError) -> bool:
        """Suspect an entry; return whether it may well be the door."""
        self.entries[entry] = error
        self._in_a_row += 1
        return self._in_a_row >= MOST_SUSPECTS

    def last(self) -> WriteError | None:
        """Return the last refusal that is not explained, None if all are."""
        return next(reversed(self.entries.values()), None)

    def last_back(self) -> Entry | None:
        """Return the last one that may have been taken once, None if there is none."""
        back = filter(self._losses.may_have_been_taken, reversed(self.entries))
        return next(back, None)

    def forgive(self) -> None:
        """Let go what may have been taken once, where anything is taken."""
        back = list(filter(self._losses.may_have_been_taken, self.entries))
        for entry in back:
            self._spool.discard(entry)
            del self.entries[entry]
        if back:
            log.info(
                "%d snapshots were sent once, without an answer; refused now, they are"
                " taken for delivered",
                len(back),
            )

    def taken_in_part(self, turns: list[Turn], error: WriteError) -> list[Turn]:
        """Lose as many samples as were refused, and return the rest of the turns.

        Which ones were refused is not said.
        """
        entries = [entry for _, some in turns for entry in some]
        missing = max(0, sum(entry.samples for entry in entries) - error.accepted)
        rest: list[Turn] = []
        for device, some in turns:
            whole = []
            for entry in some:
                lost = min(missing, entry.samples)
                missing -= lost
                if lost:
                    self.drop(entry, "partial", error, entry.samples - lost)
                else:
                    whole.append(entry)
            rest.append((device, whole))
        return rest

    def judge(self) -> None:
        """Hold them against something that was taken: the content was at fault."""
        self._in_a_row = 0
        self.forgive()
        for entry, error in self.entries.items():
            self.drop(entry, "refused", error, error.written)
        self.entries.clear()

    def set_aside(self) -> None:
        """Keep beside the spool what is refused where something as old is taken."""
        for entry, error in self.entries.items():
            self.drop(entry, "failing", error)
        self.entries.clear()

    def drop(
        self, entry: Entry, reason: str, error: WriteError, written: int = 0
    ) -> None:
        """Lose an entry for what was said of it, `written` samples of it were taken."""
        self.rejected.append(error)
        self._losses.lose(entry, reason, written)
