"""PushgatewaySink: one update replaces one group of a Pushgateway."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ecoflow_push.config.kinds import Variable
from ecoflow_push.errors import Finding, WriteError
from ecoflow_push.metrics.labels import Labels, create_labels
from ecoflow_push.sinks.base import Sink, Update, late
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
    from ecoflow_push.memory.state import State
    from ecoflow_push.net.deadline import Deadline

log = logging.getLogger(__name__)

VARIABLES = server_variables(
    "PUSHGATEWAY",
    (
        Variable(
            "PUSHGATEWAY_URL",
            "`http(s)://host:9091[/prefix]`; a trailing `/metrics` is tolerated,"
            " `user:password@` is taken out and used as below",
        ),
    ),
    what="gateway",
    token="a token instead, for a proxy in front of the gateway",  # noqa: S106 - words
)
# A gateway re-checks all it holds at every push (protocol/pushgateway.md#cost).
MANY_GROUPS = 50


def read(reader: Reader) -> Server | None:
    """Return the gateway of the settings, None if there is none."""
    server = read_server(reader, "PUSHGATEWAY")
    if server:
        # What people paste.
        server.url = server.url.rstrip("/").removesuffix("/metrics")
    return server


def create(
    config: Server, settings: Settings, state: State, _folder: str
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

    __slots__ = ("body", "held_at", "if_there", "sn")

    def __init__(
        self, sn: str, body: bytes | None, held_at: float, *, if_there: bool
    ) -> None:
        self.sn = sn
        self.body = body
        self.held_at = held_at
        self.if_there = if_there


class PushgatewaySink(Sink):
    """Keeps each device's group as docs/truth.md says; one object, one run."""

    name = "pushgateway"

    def __init__(self, gateway: Gateway, state: State, labels: Labels) -> None:
        super().__init__()
        self._gateway = gateway
        self._state = state
        self._labels = labels
        self._groups: deque[_Group] = deque()
        #: Devices whose group is to be deleted, and is not yet.
        self._ending: set[str] = set()
        self._is_abandoned = False
        self._is_at_run = False

    def take(self, update: Update, deadline: Deadline) -> None:  # noqa: ARG002
        """Keep the request's body: of a thousand devices, a few megabytes."""
        if update.action == "end":
            self._ending.add(update.sn)
            self._groups.append(_Group(update.sn, None, 0.0, if_there=False))
        elif update.registry is not None:
            body = body_of(update.registry)
            if_there = update.if_there
            group = _Group(update.sn, body, update.held_at, if_there=if_there)
            self._groups.append(group)

    def prepare(self, deadline: Deadline) -> None:  # noqa: ARG002
        """Note which groups will hold something else, before the first push.

        Until its push is known to be taken, what such a group holds is not known;
        killed behind it, we could no longer say so.
        """
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
        while self._groups and not (self.delivery.is_closed or self._is_abandoned):
            group = self._groups.popleft()
            if self._attempt(partial(self._replace, group, deadline)):
                self.delivery.delivered += 1
                self._note_held(group)

    def deliver_run(self, registry: CollectorRegistry, deadline: Deadline) -> None:
        """Push the run's group; refused once, it is not asked twice.

        A gateway that was down may be back.
        """
        self._is_at_run = True
        if not (self.delivery.has_refused or self._is_abandoned):
            group = self._labels.run_group
            push = partial(self._gateway.push, body_of(registry), group, deadline)
            self._attempt(push)

    def has_ended(self, sn: str) -> bool:
        """Return whether the device's group is deleted, or was not to be."""
        return sn not in self._ending

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of the gateway's, in seconds."""
        return self._gateway.clock_offset()

    def probe(self, deadline: Deadline) -> Iterator[Finding]:
        """Push a group of its own, read it back, delete it."""
        from ecoflow_push.sinks.trial import taken, trial, wrong

        gateway, group = self._gateway, self._labels.check_group
        early = deadline.share(0.7)
        try:
            gateway.push(body_of(trial(self._labels.prefix)), group, early)
        except WriteError as exc:
            if not exc.refuses_us:
                # It may have been taken without our hearing of it.
                with suppress(WriteError):
                    gateway.delete(group, deadline, 1)
            yield wrong(self.name, exc)
            return
        found = taken(self.name)
        try:
            held = gateway.has_group(group, early)
        except WriteError:
            held = False
        if not held:
            text = "took the test, which cannot be read back"
            cure = "check that GET reaches the same gateway as PUT"
            found = Finding("unknown", self.name, text, cure)
        try:
            gateway.delete(group, deadline)
        except WriteError as exc:
            text = f"took the test and keeps it ({exc.text})"
            cure = f"let DELETE through, and delete the job {group['job']}"
            found = Finding("unknown", self.name, text, cure)
        yield found

    def abandon(self) -> None:
        """Give up; what is said later must not overwrite what others say then."""
        self._is_abandoned = True
        what = "the run's own series" if self._is_at_run else self.name
        self.delivery.errors.append(late(what))
        self.close()

    def close(self) -> None:
        """Close the kept connection."""
        self._gateway.close()

    def _replace(self, group: _Group, deadline: Deadline) -> None:
        # After a group that failed in all its tries, one try for each other.
        tries = 1 if self.delivery.errors else None
        labels = {"job": self._labels.job, "device": group.sn}
        if group.body is None:
            self._gateway.delete(labels, deadline, tries)
        elif not group.if_there or self._gateway.has_group(labels, deadline):
            self._gateway.push(group.body, labels, deadline, tries)

    def _attempt(self, work: Callable[[], None]) -> bool:
        """Do it and return whether that counts as done."""
        try:
            work()
        except WriteError as exc:
            if not self._is_abandoned:
                self.delivery.errors.append(exc)
            return False
        return not self._is_abandoned

    def _note_held(self, group: _Group) -> None:
        record = self._state.devices.get(group.sn)
        if group.body is None:
            self._ending.discard(group.sn)
        elif record:
            record.held_at = group.held_at
            record.reduced_at = None if group.held_at else time.time()
