"""Whose turn it is, and how long it may last: so that who hangs costs himself alone."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ecoflow_push.memory.late import Late
from ecoflow_push.memory.state import NAME
from ecoflow_push.net.deadline import Deadline

if TYPE_CHECKING:
    from ecoflow_push.config.accounts import Account
    from ecoflow_push.run.members import Members

# With less, none is begun; where there never was more, with less than this part of it.
LEAST_SECONDS = 0.5
BEGIN_SHARE = 0.6
# Of the time for all: what one may take of it in any case. Less would be too little for
# an account of the app, and those that are not begun are the first of the next run.
LEAST_SHARE = 1 / 3
# A file server's clock may be so much ahead of ours.
MOST_AHEAD_SECONDS = 300.0
# Of a turn: who took as long was cut short.
LATE_SHARE = 0.55


class Turn:
    """One account's, until a deadline that is its own.

    It `is_cut` where the run's time allows less than it should have.
    """

    __slots__ = ("account", "began", "deadline", "is_cut")

    def __init__(self, account: Account, seconds: float, *, is_cut: bool) -> None:
        self.account = account
        self.is_cut = is_cut
        self.began = time.monotonic()
        self.deadline = Deadline(seconds)


class Order:
    """Gives each account its turn; for several threads."""

    def __init__(self, members: Members, deadline: Deadline) -> None:
        """Put all accounts in order; all turns are over at the deadline.

        Those come first whose last turn ended longest ago, new ones before all; last
        those that used up their time, as the run's folder remembers. Without a memory
        chance decides, so that where time is short it is not for ever the same.
        """
        self._latest = time.time() + MOST_AHEAD_SECONDS
        self._members = members
        self._deadline = deadline
        self._least = deadline.left() * LEAST_SHARE
        self._shortest = min(LEAST_SECONDS, deadline.left() * BEGIN_SHARE)
        self._memory = Late(members.folder)
        self._lock = threading.Lock()
        self._waiting = sorted(members.accounts, key=self._key, reverse=True)
        self._late: set[str] = set()

    def next(self) -> Turn | None:
        """Return the next turn, None if there is none, or no time for it.

        Of the time that is left each gets the same part, and more if others need less.
        """
        with self._lock:
            left = self._deadline.left()
            if not self._waiting or left < self._shortest:
                return None
            fair = left * self._members.at_once / len(self._waiting)
            seconds = min(left, max(fair, self._least))
            return Turn(self._waiting.pop(), seconds, is_cut=seconds < self._least)

    def end(self, turn: Turn) -> None:
        """Note how long a turn took."""
        took = time.monotonic() - turn.began
        if not turn.is_cut and took >= LATE_SHARE * (took + turn.deadline.left()):
            self.is_late(turn.account)

    def is_late(self, account: Account) -> None:
        """Note that an account used up its time."""
        with self._lock:
            self._late.add(self._name(account))

    def rest(self) -> list[Account]:
        """Return those that had no turn; from now on nobody has one."""
        with self._lock:
            rest, self._waiting = self._waiting[::-1], []
            late = [n for n in map(self._name, rest) if n in self._memory.names]
            # They keep their place, but for some: where time is short for long, the
            # last would never have a turn. So many cost the others little.
            kept = late[max(1, self._members.at_once // 2) :]
            self._memory.save(frozenset({*self._late, *kept}))
        return rest

    def _key(self, account: Account) -> tuple[bool, float, str]:
        folder, served_at = self._members.folder_of(account), 0.0
        if folder is None:
            return False, 0.0, os.urandom(8).hex()
        with suppress(OSError):
            served_at = os.stat(os.path.join(folder, NAME)).st_mtime
        # By a clock that was wrong then: of now everybody else's turn would be older.
        served_at = served_at if served_at <= self._latest else 0.0
        return self._name(account) in self._memory.names, served_at, account.name

    def _name(self, account: Account) -> str:
        return os.path.basename(self._members.folder_of(account) or "")
