"""MqttApiClient: a short visit to EcoFlow's MQTT broker with the app account.

Subscribe, ask every device for its latest quotas, leave as soon as all have answered.
It publishes on the `get` topics and on no other, ever.
"""

from __future__ import annotations

import hashlib
import os
import time
from functools import partial
from typing import TYPE_CHECKING

from ecoflow_push.api.account import RENEW_SECONDS, Account
from ecoflow_push.api.base import EcoflowApiClient, Reading
from ecoflow_push.api.broker import Broker
from ecoflow_push.api.envelope import no_devices
from ecoflow_push.api.guard import Guard
from ecoflow_push.api.models import DeviceInfo, Room
from ecoflow_push.api.visit import ASK_AGAIN_SECONDS, Visit
from ecoflow_push.config.kinds import Secret, Variable
from ecoflow_push.errors import EcoflowApiException, Finding, KeysRefused
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.net.retry import Patience
from ecoflow_push.net.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ecoflow_push.config.environ import Reader
    from ecoflow_push.config.settings import Settings
    from ecoflow_push.memory.login import Certification
    from ecoflow_push.memory.state import State

#: In seconds: no limit is published; more than a visit a minute looks like an attack.
LEAST_INTERVAL = 60.0
VARIABLES = (
    Variable(
        "ECOFLOW_ACCOUNT_USER",
        "e-mail of the app account ([app-account.md](app-account.md))",
    ),
    Variable("ECOFLOW_ACCOUNT_PASSWORD", "its password"),
    Variable(
        "MQTT_TIMEOUT",
        "longest wait for MQTT data in one run; it can only shorten the 13 s that"
        " silence takes, and the 65 s for a device that answers no question"
        " ([app-account.md](app-account.md))",
        "65",
    ),
)


class AppAccount:
    """An account of the app, and how long to listen (s)."""

    __slots__ = ("longest_visit", "password", "user")

    needs_memory = "without a memory every run would log in"

    def __init__(self, user: Secret, password: Secret, longest_visit: float) -> None:
        self.user = user
        self.password = password
        self.longest_visit = longest_visit

    @property
    def account(self) -> str:
        """Whose data it is."""
        return self.user.reveal()


def read(read: Reader) -> AppAccount | None:
    """Return the account, None if it is not set, or not as it must be."""
    user = read.secret("ECOFLOW_ACCOUNT_USER")
    password = read.password("ECOFLOW_ACCOUNT_PASSWORD")
    read.pair("ECOFLOW_ACCOUNT_USER", "ECOFLOW_ACCOUNT_PASSWORD")
    longest_visit = read.seconds("MQTT_TIMEOUT", 65, 1)
    return AppAccount(user, password, longest_visit) if user and password else None


def create(
    config: AppAccount, settings: Settings, state: State, folder: str | None
) -> MqttApiClient:
    """Return the client; its login is kept in `folder`, None for nowhere.

    Raises SettingsError for a bad CA file.
    """
    trust = Trust(settings.api_ca_file, prefix="ECOFLOW")
    if settings.api_ca_file:
        # The broker's; a fault of the file is told before anybody is asked.
        trust.context(obedient=False)
    check_pace: Callable[[], object] = int
    if settings.is_one_of_many and settings.state_dir:
        from ecoflow_push.memory.pace import check_pace as check

        check_pace = partial(check, settings.state_dir)
    account = Account(
        settings.api_url,
        config.user.reveal(),
        config.password.reveal(),
        path=folder and os.path.join(folder, "account.json"),
        trust=trust,
        proxies=settings.proxies,
        patience=Patience(settings.attempts, settings.longest_wait),
        check_pace=check_pace,
    )
    return MqttApiClient(
        account,
        Guard(state),
        instance=settings.instance,
        longest_visit=config.longest_visit,
    )


class MqttApiClient(EcoflowApiClient):
    """Reads devices of the app account, models closed to developer keys included."""

    name = "mqtt"
    title = "app account"

    def __init__(
        self,
        account: Account,
        guard: Guard,
        *,
        instance: str,
        longest_visit: float = 65.0,
    ) -> None:
        """Store what is needed; nothing is contacted.

        `instance` makes the client id this installation's own. `longest_visit` bounds
        the wait for data (seconds).
        """
        super().__init__()
        self._account = account
        self._guard = guard
        self._instance = instance
        self._longest_visit = longest_visit
        self._broker = Broker(account.trust)
        self._user_id = ""
        self._is_probed = False
        #: What a probe met, and a run would have.
        self._met: EcoflowApiException | None = None

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of the service's; brokers tell no time."""
        return self._account.clock_offset()

    def read(self, named: Sequence[str], deadline: Deadline) -> Iterator[Reading]:
        """Yield a reading of each device named, of each of the account if none is."""
        self.wanted = [DeviceInfo(sn) for sn in named]
        readings = self._read(named, deadline)
        return readings if self._is_probed else self._guard.over(self, readings)

    def probe(self, deadline: Deadline) -> Iterator[Finding]:
        """Log in if no login is kept, and connect to the broker."""
        from ecoflow_push.api import probe

        def ask() -> None:
            self._guard.check_pause(self)
            self._connect(deadline)

        self._is_probed = True
        yield from self._account.reach(deadline)
        # Even if that failed: a kept login needs nothing but the broker.
        host = self._account.host
        self._met = probe.met(host, deadline, ask)
        yield probe.answer(host, self._met)
        yield from probe.standing(host, self._met)

    def close(self) -> None:
        """Leave the broker at once, and the account's connection."""
        self._broker.close()
        self._account.close()

    def _read(self, named: Sequence[str], deadline: Deadline) -> Iterator[Reading]:
        if self._met:
            raise self._met
        if not self._broker.is_connected:
            self._connect(deadline)
        if named:
            self.wanted = [self._account.known(sn) for sn in named]
        else:
            self.wanted, is_listed = self._account.devices(deadline)
            if not self.wanted:
                raise no_devices()
            self.listed = list(self.wanted) if is_listed else None
        room = Room()
        visits = {
            device.sn: Visit(
                device, self._user_id, room, self._account.lacks(device.sn)
            )
            for device in self.wanted
            if device.online is not False
        }
        if visits:
            self._begin(visits, deadline)
        for device in self.wanted:
            if device.sn not in visits:
                yield Reading(device, self.name)
        yield from self._listen(visits, deadline)

    def _connect(self, deadline: Deadline) -> None:
        """Log in if the login file does not serve, and connect to the broker."""
        began = time.monotonic()
        try:
            certification = self._account.certification(deadline)
            try:
                self._join(certification, deadline)
            except KeysRefused:
                # They may have been rotated, so exactly one new login; but not one in
                # every run, when what is refused is something else.
                if time.time() - certification.obtained_at < RENEW_SECONDS:
                    raise
                self._broker.close()
                renewed = self._account.certification(deadline, fresh=True)
                self._join(renewed, deadline)
        finally:
            self.connect_seconds += time.monotonic() - began

    def _join(self, certification: Certification, deadline: Deadline) -> None:
        self._user_id = certification.user_id
        name = client_id(certification.user_id, self._instance)
        self._broker.connect(certification, name, deadline)

    def _begin(self, visits: dict[str, Visit], deadline: Deadline) -> None:
        """Subscribe to the devices and ask them all for their latest quotas."""
        topics = [topic for visit in visits.values() for topic in visit.topics]
        codes = self._broker.subscribe(topics, deadline)
        for index, visit in enumerate(visits.values()):
            visit.refused = any(code >= 128 for code in codes[2 * index :][:2])
        self._ask(visits.values())

    def _ask(self, visits: Iterable[Visit]) -> None:
        for visit in visits:
            for topic, payload in visit.requests():
                self._broker.publish(topic, payload)

    def _listen(
        self, visits: dict[str, Visit], deadline: Deadline
    ) -> Iterator[Reading]:
        """Yield each device's reading as soon as it is complete, or given up."""
        by_topic = {topic: each for each in visits.values() for topic in each.topics}
        waiting = dict(visits)
        asked_at, is_asked_again = time.monotonic(), False
        error: EcoflowApiException | None = None
        while True:
            taken_at = time.monotonic()
            waited = taken_at - asked_at
            yield from self._over(waiting, by_topic, waited)
            # What whoever takes the readings does meanwhile is no device's silence.
            asked_at += time.monotonic() - taken_at
            if error or not waiting or deadline.left() <= 0:
                break
            if not is_asked_again and waited >= ASK_AGAIN_SECONDS:
                is_asked_again = True
                self._ask(waiting.values())
            end = min(map(self._patience, waiting.values()))
            end = end if is_asked_again else min(end, ASK_AGAIN_SECONDS)
            left = Deadline(min(end - waited, deadline.left()))
            try:
                for topic, payload in self._broker.listen(left):
                    if topic in by_topic:
                        by_topic[topic].hear(topic, payload)
            except EcoflowApiException as exc:
                error = exc
        for visit in waiting.values():
            is_late = deadline.left() <= 0
            reading = visit.reading(self.name, waited, is_late=is_late)
            yield Reading(visit.device, self.name, error=error) if error else reading

    def _over(
        self, waiting: dict[str, Visit], by_topic: dict[str, Visit], waited: float
    ) -> Iterator[Reading]:
        """Yield the readings of visits that are over, and hear those no more."""
        for sn, visit in list(waiting.items()):
            if visit.is_over or self._patience(visit) <= waited:
                del waiting[sn]
                # Whoever has a reading is not to see it change.
                for topic in visit.topics:
                    by_topic.pop(topic, None)
                yield visit.reading(self.name, waited, is_late=False)
                visit.kept.let_go()

    def _patience(self, visit: Visit) -> float:
        return min(visit.patience, self._longest_visit)


def client_id(user_id: str, instance: str) -> str:
    """Return the id of this installation, the same for ever.

    The broker takes this shape alone (protocol/mqtt.md#client-id), and perhaps only
    some ten ids of an account in a day, so nothing in it may change from run to run.
    """
    digest = hashlib.sha256(f"{user_id}\0{instance}".encode()).hexdigest()
    return f"ANDROID_{digest[:32].upper()}_{user_id}"
