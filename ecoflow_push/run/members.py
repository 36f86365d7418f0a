"""The accounts of a run: their settings, under those for all, and their folders."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ecoflow_push.config.accounts import LABEL
from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import Fault, SettingsError
from ecoflow_push.memory.lock import state_folder
from ecoflow_push.sinks.base import Sink, Update

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

    from ecoflow_push.config.accounts import Account
    from ecoflow_push.config.shards import Shard
    from ecoflow_push.errors import Finding
    from ecoflow_push.net.deadline import Deadline

    SettingsOf = Callable[[Account], Settings]


class Members:
    """All accounts that are ours, and what each needs; a few are worked at once.

    `folder` is the state's of the run for them all: that of a part of a folder of
    accounts and a job, wherever it runs; None without a memory. `settings_of` raises
    SettingsError.
    """

    def __init__(
        self,
        accounts: Sequence[Account],
        shard: Shard | None,
        at_once: int,
        *,
        folder: str | None,
        folder_of: Callable[[Account], str | None],
        settings_of: SettingsOf,
    ) -> None:
        self.accounts = accounts
        self.shard = shard
        self.at_once = at_once
        self.folder = folder
        self.folder_of = folder_of
        self.settings_of = settings_of


class Part(Sink):
    """One account's part of a sink that is one for all."""

    def __init__(self, whole: Sink, lock: threading.Lock, whose: str) -> None:
        super().__init__()
        self._whose = whose
        self.name = whole.name
        self._whole = whole
        self._lock = lock

    def take(self, update: Update, deadline: Deadline) -> None:
        """Pass it on; one account at a time."""
        update.whose = self._whose
        with self._lock:
            self._whole.take(update, deadline)

    def deliver(self, deadline: Deadline) -> None:  # noqa: ARG002
        """Count as delivered: what is passed on goes out with that of all others."""
        self.delivery.delivered = 1

    def probe(self, deadline: Deadline) -> Iterator[Finding]:  # noqa: ARG002
        """Find nothing: the whole is tried once for all."""
        yield from ()


def create_members(common: Settings) -> Members:
    """Return the accounts of the settings, which are those for all."""
    accounts = common.accounts
    assert accounts
    state_dir, job, shard = common.state_dir, common.job, accounts.shard
    known = set(map(str, common.notes))

    def folder_of(account: Account) -> str | None:
        host, name = account.identity or ("", account.label)
        return state_dir and state_folder(state_dir, host, name, job)

    def settings_of(account: Account) -> Settings:
        if account.faults:
            raise account.faults
        every = common.interval if common.stays else None
        found = Settings.from_environ(
            account.environ, needs_sink=common.has_sink, every=every
        )
        if LABEL in found.extra_labels:
            text = f"the label {LABEL} is used by the program itself"
            raise SettingsError([Fault("EXTRA_LABELS", text)])
        found.is_one_of_many = True
        own = {LABEL: account.name}
        found.extra_labels = {**common.extra_labels, **found.extra_labels, **own}
        # What is wrong with what is said for all is told once.
        found.notes = tuple(note for note in found.notes if str(note) not in known)
        return found

    part = str(shard.index) if shard else ""
    place = ("accounts", f"{accounts.folder}\0{part}", job)
    return Members(
        accounts.ours,
        shard,
        accounts.at_once,
        folder=state_dir and state_folder(state_dir, *place),
        folder_of=folder_of,
        settings_of=settings_of,
    )
