"""What became of each account of a run, and of all of them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ecoflow_push.errors import ExitStatus
from ecoflow_push.run.outcome import worst

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ecoflow_push.run.telling import Fared
    from ecoflow_push.run.worker import Worker

NONE: Mapping[str, float] = MappingProxyType({})
STATES = ("ok", "failed", "locked")
WELL = {ExitStatus.OK, ExitStatus.PARTIAL}
# Each such account's own trouble, until somebody mends it.
LASTING = {ExitStatus.CONFIG, ExitStatus.NOPERM}
# Whatever else is well: no account's own trouble.
OURS = {ExitStatus.SOFTWARE, ExitStatus.OSERR}


class Result:
    """What became of an account; its worker is let go."""

    __slots__ = (
        *("counted", "fared", "is_begun", "is_ended", "is_locked", "is_walked"),
        *("offset", "stages", "status"),
    )

    def __init__(self) -> None:
        self.status = ExitStatus.TEMPFAIL
        self.is_begun = self.is_ended = self.is_locked = self.is_walked = False
        #: How far our clock is ahead (s), None if nobody said.
        self.offset: float | None = None
        self.counted: dict[str, Any] = {}
        self.stages: set[str] = set()
        self.fared: dict[str, Fared] = {}

    @property
    def state(self) -> str:
        """What it amounts to, as the run's own series call it."""
        if self.is_locked:
            return "locked"
        return "ok" if self.status == ExitStatus.OK else "failed"

    def keep(self, worker: Worker, dropped: Mapping[str, float] = NONE) -> None:
        """Keep what is told of a run for all; `dropped` is what was lost before it."""
        self.is_walked = True
        self.offset = worker.offset
        self.counted = worker.counted()
        if now := self.counted["dropped"]:
            new = {reason: now[reason] - dropped.get(reason, 0) for reason in now}
            self.counted["dropped"] = new
        self.stages = worker.outcome.failed_stages()
        self.fared = worker.fared()

    def end(self, status: ExitStatus) -> None:
        """Note how it ended, if that is not known yet."""
        if not self.is_ended:
            self.is_ended = True
            self.status = status
            if not (self.is_walked or self.is_locked):
                self.stages = {"connect"}


class Results(dict[str, Result]):
    """The results of all accounts, by their names."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__((name, Result()) for name in names)

    def status(self) -> ExitStatus:
        """Return what they mean for the run.

        What is wrong with one is told by 1 where others are well; with all of them, the
        rule of an account's devices holds for the accounts. But what another run cannot
        help is the word only where it is that of all.
        """
        found = {result.status for result in self.values()}
        if found & WELL and found != {ExitStatus.OK}:
            found = found & OURS | {ExitStatus.PARTIAL}
        return worst(found - LASTING or found or {ExitStatus.OK})

    def done(self) -> int:
        """Return how many have come to an end."""
        return sum(result.is_ended for result in self.values())

    def states(self) -> dict[str, int]:
        """Return how many are in each state."""
        found = Counter(result.state for result in self.values())
        return {state: found[state] for state in STATES}

    def stages(self) -> set[str]:
        """Return the stages in which anything failed."""
        return {stage for result in self.values() for stage in result.stages}

    def offset(self) -> float | None:
        """Return how far our clock is ahead of EcoFlow's (s), None if unknown."""
        known = [each.offset for each in self.values() if each.offset is not None]
        return max(known, key=abs, default=None)

    def fared(self, sink: str) -> list[Fared]:
        """Return how a sink fared, wherever it was to get something."""
        return [each.fared[sink] for each in self.values() if sink in each.fared]

    def counted(self, dropped: Mapping[str, float] = NONE) -> dict[str, Any]:
        """Return what they counted, all of them together.

        `dropped` is what was lost before this run. It is the run's own memory that
        counts on: the sum of all accounts' would fall whenever one of them is locked.
        """
        total: dict[str, Any] = {
            "devices": Counter({"ok": 0, "offline": 0, "refused": 0, "failed": 0}),
            "skipped": Counter(),
            "unread": Counter(),
            "samples": 0,
        }
        oldest = []
        for counted in (each.counted for each in self.values()):
            for name, value in counted.items():
                if name == "oldest_at":
                    oldest += [value] if value else []
                elif isinstance(value, dict):
                    total.setdefault(name, Counter()).update(value)
                elif value is not None:
                    total[name] = total.get(name, 0) + value
        if lost := total.get("dropped"):
            lost.update(dropped)
        return {**total, "oldest_at": min(oldest, default=None)}

    def parts(self) -> Iterator[str]:
        """Yield what the line of the run says of them."""
        states = [f"{count} {state}" for state, count in self.states().items() if count]
        yield f"accounts: {', '.join(states) or 'none'}"
        counted = self.counted()
        devices = sorted((k, n) for k, n in counted["devices"].items() if n)
        yield f"devices: {', '.join(f'{n} {k}' for k, n in devices) or 'none'}"
        yield f"{counted['samples']} samples"
