"""One account of many: its settings, its folder, its part of what is one for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecoflow_push.config.accounts import LABEL
from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import Fault, SettingsError
from ecoflow_push.memory.lock import state_folder
from ecoflow_push.sinks.base import Sink, Update

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from ecoflow_push.config.accounts import Account
    from ecoflow_push.errors import Finding
    from ecoflow_push.net.deadline import Deadline


class Part(Sink):
    """One account's part of a sink that is one for all."""

    def __init__(self, whole: Sink, lock: threading.Lock) -> None:
        super().__init__()
        self.name = whole.name
        self._whole = whole
        self._lock = lock

    def take(self, update: Update, deadline: Deadline) -> None:
        """Pass it on; one account at a time."""
        with self._lock:
            self._whole.take(update, deadline)

    def deliver(self, deadline: Deadline) -> None:  # noqa: ARG002
        """Count as delivered: what is passed on goes out with that of all others."""
        self.delivery.delivered = 1

    def probe(self, deadline: Deadline) -> Iterator[Finding]:  # noqa: ARG002
        """Find nothing: the whole is tried once for all."""
        yield from ()


def settings_of(account: Account, common: Settings) -> Settings:
    """Return the settings of one account, under those for all; raises SettingsError."""
    if account.faults:
        raise account.faults
    every = common.interval if common.stays else None
    found = Settings.from_environ(
        account.environ, needs_sink=common.has_sink, every=every
    )
    if LABEL in found.extra_labels:
        text = f"the label {LABEL} is used by the program itself"
        raise SettingsError([Fault("EXTRA_LABELS", text)])
    own = {LABEL: account.name}
    found.extra_labels = {**common.extra_labels, **found.extra_labels, **own}
    # What is wrong with what is said for all is told once.
    known = set(map(str, common.notes))
    found.notes = tuple(note for note in found.notes if str(note) not in known)
    return found


def folder_of(
    settings: Settings, identity: tuple[str, str] | None = None
) -> str | None:
    """Return the state folder of an account; of the run for them all, if it has none.

    None without a memory.

    The run's is that of a part of a folder of accounts and a job, wherever it runs.
    """
    if identity is None and settings.accounts:
        shard = settings.accounts.shard
        part = str(shard.index) if shard else ""
        identity = ("accounts", f"{settings.accounts.folder}\0{part}")
    identity = identity or (settings.api_url, settings.account)
    state_dir = settings.state_dir
    return state_dir and state_folder(state_dir, *identity, settings.job)
