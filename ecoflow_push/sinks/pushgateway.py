"""PushgatewaySink: one update replaces one group of a Pushgateway."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from ecoflow_push.config.kinds import Variable
from ecoflow_push.errors import OutOfTime, SinkError, WriteError
from ecoflow_push.metrics.labels import Labels, create_labels
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.sinks.base import Sink, Update, late
from ecoflow_push.sinks.claims import Claims
from ecoflow_push.sinks.groups import Gateway, body_of
from ecoflow_push.sinks.server import (
    Connection,
    Server,
    read_server,
    server_variables,
)

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.config.environ import Reader
    from ecoflow_push.config.settings import Settings
    from ecoflow_push.errors import Finding
    from ecoflow_push.memory.state import State

log = logging.getLogger(__name__)

VARIABLES = server_variables(
    "PUSHGATEWAY",
    (
        Variable(
            "PUSHGATEWAY_URL",
            "`http(s)://host:9091[/prefix]`; a trailing `/metrics` is tolerated, a"
            " group's path is a fault, `user:password@` is taken out and used as below",
        ),
    ),
    what="gateway",
    token="a token instead, for a proxy in front of the gateway",  # noqa: S106 - words
)
# A gateway re-checks all it holds at every push (protocol/pushgateway.md#cost).
MANY_GROUPS = 50
# For the one try that the run's own series get at a gateway that was down.
LAST_SECONDS = 2.0
# A push that takes so many times as long as any other one hangs; else time was over.
HANG_FACTOR = 3


def read(reader: Reader) -> Server | None:
    """Return the gateway of the settings, None if there is none."""
    server = read_server(reader, "PUSHGATEWAY")
    if server:
        # What people paste.
        server.url = server.url.rstrip("/").removesuffix("/metrics")
        _, is_a_group, job = f"{server.url}/".partition("/metrics/job")
        if is_a_group and job.startswith(("/", "%40base64/")):
            text = "expected the gateway alone, http(s)://host:9091[/prefix]"
            cure = "leave /metrics/job... out; the job is PUSH_JOB"
            reader.fault("PUSHGATEWAY_URL", text, cure)
    return server


def create(
    config: Server, settings: Settings, state: State, _folder: str | None
) -> PushgatewaySink:
    """Return the sink; raises SettingsError for a certificate that cannot be used."""
    state.use_gateway(config.url)
    connection = Connection(
        config,
        attempts=settings.attempts,
        longest_wait=settings.longest_wait,
        proxies=settings.proxies,
    )
    return PushgatewaySink(Gateway(connection), state, create_labels(settings))


class _Group:
    """What is to become of one device's group; no `body`: it is to be deleted."""

    __slots__ = ("body", "held_at", "if_there", "is_snapshot", "sn")

    def __init__(self, update: Update, body: bytes | None) -> None:
        self.sn = update.sn
        self.body = body
        self.held_at = update.held_at
        self.if_there = update.if_there
        self.is_snapshot = update.action == "say"


class PushgatewaySink(Sink):
    """Keeps each device's group as docs/truth.md says; one object, one run."""

    name = "pushgateway"

    def __init__(self, gateway: Gateway, state: State, labels: Labels) -> None:
        super().__init__()
        self._gateway = gateway
        self._state = state
        self._labels = labels
        self._claims = Claims()
        self._groups: deque[_Group] = deque()
        #: Devices whose group is to be deleted, and is not yet.
        self._ending: set[str] = set()
        self._is_abandoned = False
        self._is_at_run = False
        #: The longest that a push took which went well, in seconds.
        self._slowest = 0.0
        #: How many groups there were, and how many are as they should be.
        self._count = self._done = 0
        #: It is well, and merely too slow for all that there is.
        self._is_slow = False

    def share(self, claims: Claims) -> None:
        """Leave alone what another account says."""
        self._claims = claims

    def take(self, update: Update, deadline: Deadline) -> None:  # noqa: ARG002
        """Keep the request's body: of a thousand devices, a few megabytes."""
        if update.action == "end":
            self._ending.add(update.sn)
            self._groups.append(_Group(update, None))
        elif update.registry is not None:
            self._groups.append(_Group(update, body_of(update.registry)))
        if update.action == "say":
            self._claims.say(update.sn)
            # Until it is taken.
            self.delivery.lost += 1

    def prepare(self, deadline: Deadline) -> None:  # noqa: ARG002
        """Note which groups will hold something else, before the first push.

        Until its push is known to be taken, what such a group holds is not known;
        killed behind it, we could no longer say so. Where time is too short for all,
        those have their turn first that had it longest ago.
        """
        self._groups = deque(sorted(self._groups, key=self._turn))
        doubted = False
        for group in self._groups:
            record = self._state.devices.get(group.sn)
            fills = group.held_at > 0
            if record and record.held_at is not None and fills != (record.held_at > 0):
                record.held_at = None
                doubted = True
        if doubted:
            self._state.save()

    def deliver(self, deadline: Deadline) -> None:
        """Push and delete groups, until one says that the rest is in vain."""
        pushed = sum(group.body is not None for group in self._groups)
        if pushed > MANY_GROUPS:
            log.warning(
                "%d devices on one Pushgateway: it re-checks all it holds at every"
                " push, so this takes long; use remote-write (REMOTE_WRITE_URL)",
                pushed,
            )
        self._count = len(self._groups)
        while self._groups and not (self.delivery.is_closed or self._is_abandoned):
            group = self._groups.popleft()
            if not (group.is_snapshot or self._claims.may_take(group.sn)):
                self._done += 1
                continue
            had, began = deadline.left(), time.monotonic()
            replace = partial(self._replace, group, deadline)
            is_done = self._attempt(replace, self.delivery.errors)
            took = time.monotonic() - began
            if is_done:
                self._slowest = max(self._slowest, took)
                self._done += 1
                self.delivery.delivered += group.is_snapshot
                self.delivery.lost -= group.is_snapshot
                self._note_held(group)
            elif not self._is_abandoned:
                self._note_slowness(group, had, took)
        if self.delivery.is_closed and not self._is_abandoned:
            self._tell_how_many()

    def verdict(self) -> WriteError | bool:
        """Return whether any group is as it should be, or why none is."""
        errors = [e for e in self.delivery.errors if isinstance(e, WriteError)]
        return errors[-1] if errors and not self._done else self._done > 0

    def spare(self, error: WriteError) -> None:
        """Leave all groups as they are."""
        if self._groups:
            self.delivery.errors.append(error)

    def deliver_run(self, registry: CollectorRegistry, deadline: Deadline) -> None:
        """Push the run's group; refused once, it is not asked twice.

        A gateway that was down may be back, but others wait for the time that it takes
        to find out.
        """
        self._is_at_run = True
        if self.delivery.has_refused or self._is_abandoned:
            return
        tries = None
        if self.delivery.is_closed and not self._is_slow:
            deadline, tries = Deadline(min(LAST_SECONDS, deadline.left())), 1
        group, body = self._labels.run_group, body_of(registry)
        push = partial(self._gateway.push, body, group, deadline, tries)
        self._attempt(push, self.delivery.run_errors)

    def has_ended(self, sn: str) -> bool:
        """Return whether the device's group is deleted, another one's, or to stay."""
        return sn not in self._ending or self._claims.is_held(sn)

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of the gateway's, in seconds."""
        return self._gateway.clock_offset()

    def probe(self, deadline: Deadline) -> Iterator[Finding]:
        """Push a group of its own, read it back, delete it."""
        from ecoflow_push.sinks.trial import probe_gateway

        yield probe_gateway(self.name, self._gateway, self._labels, deadline)

    def abandon(self) -> None:
        """Give up; what is said later must not overwrite what others say then."""
        self._is_abandoned = True
        if self._is_at_run:
            self.delivery.run_errors.append(late("the run's own series"))
        else:
            self.delivery.errors.append(late(self.name))
            self._tell_how_many()
        self.close()

    def close(self) -> None:
        """Close the kept connection."""
        self._gateway.close()

    def _replace(self, group: _Group, deadline: Deadline) -> None:
        # After a group that failed in all its tries, one try for each other.
        tries = 1 if self.delivery.errors else None
        labels = {"job": self._labels.job, "device": group.sn}
        with self._claims.turn(group.sn, deadline, says=group.is_snapshot):
            if group.body is None:
                self._gateway.delete(labels, deadline, tries)
            elif not group.if_there or self._gateway.has_group(labels, deadline):
                self._gateway.push(group.body, labels, deadline, tries)

    def _turn(self, group: _Group) -> tuple[float, float]:
        """Return what sorts groups: those that hung last, by when; then by their age.

        A group without values has the age of its last push too.
        """
        record = self._state.devices.get(group.sn)
        if record is None:
            return 0.0, 0.0
        return record.hung_at or 0.0, record.held_at or record.reduced_at or 0.0

    def _attempt(self, work: Callable[[], None], errors: list[SinkError]) -> bool:
        """Do it and return whether that counts as done; `errors` learn why not."""
        try:
            work()
        except WriteError as exc:
            if not self._is_abandoned:
                errors.append(exc)
            return False
        return not self._is_abandoned

    def _note_held(self, group: _Group) -> None:
        record = self._state.devices.get(group.sn)
        if group.body is None:
            self._ending.discard(group.sn)
        elif record:
            record.hung_at = None
            record.held_at = group.held_at
            record.reduced_at = None if group.held_at else time.time()

    def _note_slowness(self, group: _Group, had: float, took: float) -> None:
        """Tell a push that used up the time from one for which too little was left.

        A group whose push hangs is to be the last one next time.
        """
        if not isinstance(self.delivery.errors[-1].__cause__, OutOfTime):
            return
        self._is_slow = self._done > 0 and took <= self._slowest * HANG_FACTOR
        record = self._state.devices.get(group.sn)
        if record and had > 0 and not self._is_slow:
            record.hung_at = time.time()

    def _tell_how_many(self) -> None:
        error = self.delivery.errors[-1]
        if self._is_slow:
            error.cure = "use remote-write (REMOTE_WRITE_URL), or raise RUN_DEADLINE"
        if self._done:
            error.text += f"; {self._done} of {self._count} groups pushed"
