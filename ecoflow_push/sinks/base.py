"""The seam between a run and where its values go: what every sink can do.

    take       every update of the run, one device at a time; what must last is stored
    prepare    after the last one, before anything is sent to anybody
    deliver    send; may be abandoned
    settle     whatever happened: store what was not sent, count what is lost
    deliver_run    the run's own series, last

A sink keeps of an update what it needs and lets the rest go.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from ecoflow_push.errors import ExitStatus, SinkError, WriteError

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.errors import Finding
    from ecoflow_push.memory.state import State
    from ecoflow_push.metrics.record import Record
    from ecoflow_push.net.deadline import Deadline
    from ecoflow_push.sinks.claims import Claims

Action = Literal["say", "reduce", "end", "unread"]


class Update:
    """What becomes of one device now.

    `action`: "say" what was learnt in this run; "reduce" what is still said to what
    remains true, since the values are too old; "end" it, the device is gone; "unread",
    nothing was learnt, and what is said may stand. The registry is there for the first
    two.
    """

    __slots__ = (
        *("action", "at", "held_at", "if_there", "online", "registry", "sn", "whose"),
        *("_make_record", "_record"),
    )

    def __init__(
        self,
        sn: str,
        action: Action,
        *,
        registry: CollectorRegistry | None = None,
        make_record: Callable[[], Record] | None = None,
        at: float | None = None,
        held_at: float = 0.0,
        online: bool | None = None,
        if_there: bool = False,
    ) -> None:
        self.sn = sn
        self.action = action
        self.registry = registry
        #: When it was learnt, in Unix seconds; None for just now.
        self.at = at
        #: When the values in the registry were collected, 0 if it holds none.
        self.held_at = held_at
        self.online = online
        #: Of this device nothing was ever heard, perhaps its serial is mistyped: what
        #: is not there must not be made.
        self.if_there = if_there
        #: The account's name, for a sink that is for all: two may have one device.
        self.whose = ""
        self._make_record = make_record
        self._record: Record | None = None

    @property
    def record(self) -> Record:
        """The same as a record, made once, by the first who asks.

        Where `at` is None its time is 0: whoever sends it stamps it.
        """
        if self._record is None:
            assert self._make_record
            self._record = self._make_record()
        return self._record


class Backlog:
    """What waits for a sink, and what is lost to it, by reason, over all runs.

    `oldest_at` in Unix seconds, None if nothing waits. Of `resting` devices nothing is
    taken, of others it is.
    """

    __slots__ = ("dropped", "oldest_at", "resting", "samples")

    def __init__(
        self,
        samples: int,
        oldest_at: float | None,
        dropped: Mapping[str, float],
        resting: int = 0,
    ) -> None:
        self.samples = samples
        self.resting = resting
        self.oldest_at = oldest_at
        self.dropped = dropped


class Delivery:
    """How one sink fared in this run."""

    def __init__(self) -> None:
        #: Snapshots that were taken; of this run's, those that are kept for later, and
        #: those that this sink will never get.
        self.delivered = self.stored = self.lost = 0
        self.errors: list[SinkError] = []
        #: What kept the run's own series away; no snapshot is lost with them.
        self.run_errors: list[SinkError] = []
        #: A bug of ours, or a limit of the host, kept it from being asked or heard.
        self.is_broken = False
        #: What is worth a word beside "ok".
        self.note = ""

    @property
    def waits(self) -> bool:
        """Whether what it does not have now is kept for it, or was not to be sent."""
        return any(
            error.is_stored or error.status == ExitStatus.TEMPFAIL
            for error in self.errors
        )

    @property
    def is_closed(self) -> bool:
        """Whether sending on is in vain: it is down, or it refuses us."""
        return any(
            isinstance(error, WriteError) and (error.is_down or error.refuses_us)
            for error in self.errors
        )

    @property
    def has_refused(self) -> bool:
        """Whether asking again, even later in this run, would be impolite."""
        return any(
            isinstance(error, WriteError) and error.refuses_us for error in self.errors
        )


class Sink(ABC):
    """Where updates go. All but `deliver` do nothing unless a sink says otherwise.

    What the world can do to a sink becomes an error in its `delivery`; only a bug is
    raised.
    """

    #: The word for it in the log: its module's name, with hyphens.
    name: str
    #: It outlives the run, and is made once for many.
    stays = False
    #: There is one of it for all accounts.
    is_for_all = False
    #: How many runs told it how they went, for one that stays.
    runs_told = 0

    def __init__(self) -> None:
        self.delivery = Delivery()
        #: For `probe`: a run would have something new to deliver.
        self.has_news = True

    def share(self, claims: Claims) -> None:  # noqa: B027
        """Learn, before the first update, what other accounts of the run say."""

    def take(self, update: Update, deadline: Deadline) -> None:  # noqa: B027
        """Keep what is needed of one device's update; store what must last."""

    def prepare(self, deadline: Deadline) -> None:  # noqa: B027
        """Be ready for the worst: what is to last is stored when this returns."""

    @abstractmethod
    def deliver(self, deadline: Deadline) -> None:
        """Send what was taken. Runs in a thread that may be abandoned."""

    def verdict(self) -> WriteError | bool:
        """Return whether anything that `deliver` sent was taken, or why nothing was."""
        return False

    def spare(self, error: WriteError) -> None:  # noqa: B027
        """Learn, instead of `deliver`, that to send anything is in vain now."""

    def settle(self, deadline: Deadline) -> None:  # noqa: B027
        """Make the books right, whatever became of `deliver`."""

    def deliver_run(self, registry: CollectorRegistry, deadline: Deadline) -> None:  # noqa: B027
        """Send the run's own series. Runs in a thread that may be abandoned."""

    def has_ended(self, sn: str) -> bool:  # noqa: ARG002 - each sink its own answer
        """Return whether this sink is done with a device that was to end."""
        return True

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of the sink's (s), None if unknown."""
        return None

    def ask_the_time(self, deadline: Deadline) -> float | None:  # noqa: ARG002
        """Return as `clock_offset` does, after asking; for --check."""
        return self.clock_offset()

    def hear(self, offset: float | None) -> None:  # noqa: B027
        """Learn how far our clock is ahead of somebody's (s), None if unknown."""

    def backlog(self) -> Backlog | None:
        """Return what waits here, None for a sink that keeps nothing."""
        return None

    @abstractmethod
    def probe(self, deadline: Deadline) -> Iterator[Finding]:
        """Try it with something harmless that is taken back; yield what was found."""

    def as_in_a_run(self, error: WriteError) -> SinkError:
        """Return what a run would make of an error that a probe met."""
        return error

    def abandon(self) -> None:  # noqa: B027
        """Give up what `deliver` is still at: what it says later does not count."""

    def close(self) -> None:  # noqa: B027
        """Leave; safe to call twice."""


class TimestampedSink(ABC):
    """What takes records with times of their own; `Queue` makes a Sink of it."""

    #: As that of a Sink.
    name: str
    #: What was found out of the receiver that the next run should know, "" if nothing.
    learnt: str = ""
    #: It is known to be what it should be: what it takes is taken.
    is_proven = True
    #: The last write was taken, or not, at another try than its first.
    was_repeated = False
    #: Of a try of the last write nobody heard how it ended: it may have been taken.
    was_unheard = False
    #: How many samples one request holds, and how many requests there may be at once.
    most_samples: int = 2000
    most_in_flight = 1

    @abstractmethod
    def write(
        self, records: Sequence[Record], deadline: Deadline, tries: int | None = None
    ) -> None:
        """Write all of `records`, of each device oldest first; raises WriteError.

        They are taken all together or not. `tries` overrides how often it is tried.
        """

    def twin(self) -> TimestampedSink:
        """Return another one, as much known, that may write while this one does.

        Needed where `most_in_flight` is more than 1.
        """
        raise NotImplementedError

    def prove(self, deadline: Deadline) -> None:  # noqa: B027
        """Find out whether it `is_proven`; raises WriteError for what cannot be."""

    @abstractmethod
    def ask_the_time(self, deadline: Deadline) -> float | None:
        """Return how far our clock is ahead (s), after asking; None if unknown."""

    def close(self) -> None:  # noqa: B027
        """Leave; safe to call twice."""


def late(what: str) -> WriteError:
    """Return the error of what did not come back in time."""
    cure = "look for a firewall in the way, then raise RUN_DEADLINE"
    return WriteError(f"{what}: no answer in time", cure, is_down=True)


def as_door(error: WriteError, state: State) -> WriteError:
    """Return what a refusal means where nothing is taken."""
    text = error.text
    if not state.endpoint.has_taken:
        text += "; nothing was ever taken there"
    return WriteError(text, error.cure, bad="address", answered=error.answered)


def no_time_left(name: str) -> SinkError:
    """Return that a run was too short for all there is."""
    cure = "the next runs go on with it"
    return SinkError(f"{name}: no time left", cure, status=ExitStatus.TEMPFAIL)
