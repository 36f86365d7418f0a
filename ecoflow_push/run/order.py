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
from ecoflow_push.run.one_of_many import folder_of

if TYPE_CHECKING:
    from ecoflow_push.config.accounts import Account
    from ecoflow_push.config.settings import Settings

# With less, none is begun.
LEAST_SECONDS = 0.5
# Of the time for all: what one may take of it in any case. Less would be too little for
# an account of the app, and those that are not begun are the first of the next run.
LEAST_SHARE = 1 / 3
# Of a turn: who took as long was cut short.
LATE_SHARE = 0.55


class Turn:
    """One account's, until a deadline that is its own."""

    __slots__ = ("account", "began", "deadline")

    def __init__(self, account: Account, seconds: float) -> None:
        self.account = account
        self.began = time.monotonic()
        self.deadline = Deadline(seconds)


class Order:
    """Gives each account its turn; for several threads."""

    def __init__(
        self, settings: Settings, folder: str | None, deadline: Deadline
    ) -> None:
        """Put all accounts in order; all turns are over at the deadline.

        Those come first whose last turn ended longest ago, new ones before all; last
        those that used up their time, as `folder` remembers.
        """
        assert settings.accounts
        self._settings = settings
        self._at_once = settings.accounts.at_once
        self._deadline = deadline
        self._least = deadline.left() * LEAST_SHARE
        self._memory = Late(folder)
        self._lock = threading.Lock()
        self._waiting = sorted(settings.accounts.ours, key=self._key, reverse=True)
        self._late: set[str] = set()

    def next(self) -> Turn | None:
        """Return the next turn, None if there is none, or no time for it.

        Of the time that is left each gets the same part, and more if others need less.
        """
        with self._lock:
            left = self._deadline.left()
            if not self._waiting or left < LEAST_SECONDS:
                return None
            fair = left * self._at_once / len(self._waiting)
            seconds = min(left, max(fair, self._least))
            return Turn(self._waiting.pop(), seconds)

    def end(self, turn: Turn) -> None:
        """Note how long a turn took."""
        took = time.monotonic() - turn.began
        if took >= LATE_SHARE * (took + turn.deadline.left()):
            self.is_late(turn.account)

    def is_late(self, account: Account) -> None:
        """Note that an account used up its time."""
        with self._lock:
            self._late.add(self._name(account))

    def rest(self) -> list[Account]:
        """Return those that had no turn; from now on nobody has one."""
        with self._lock:
            rest, self._waiting = self._waiting, []
            # They keep their place.
            late = {*map(self._name, rest)} & self._memory.names
            self._memory.save(frozenset(self._late | late))
        return rest[::-1]

    def _key(self, account: Account) -> tuple[bool, float, str]:
        folder, served_at = self._folder(account), 0.0
        if folder:
            with suppress(OSError):
                served_at = os.stat(os.path.join(folder, NAME)).st_mtime
        return self._name(account) in self._memory.names, served_at, account.name

    def _folder(self, account: Account) -> str | None:
        return folder_of(self._settings, account.identity or ("", account.name))

    def _name(self, account: Account) -> str:
        return os.path.basename(self._folder(account) or "")
