"""A fleet on a real Slurm: every sample once, whatever becomes of a task or the count.

The cloud gives each device another number at each request, and keeps when it did. What
VictoriaMetrics holds in the end is compared with that.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Self

import pytest
import yaml

from ecoflow_push.config.shards import shard_of
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.accounts import SimulatedAccount, SimulatedDevice
from ecoflow_push.simulator.cloud import SimulatedCloud
from ecoflow_push.simulator.encoded import Encoded
from tests import many_accounts
from tests.deploy import DEPLOY
from tests.many_accounts import (
    MOVING,
    app_accounts,
    behind_a_broker,
    key_accounts,
    quotas,
    write_files,
)
from tests.remote_write import spool_files
from tests.slurm import Slurm, script_for_here, slurm
from tests.support import (
    Database,
    Points,
    eventually,
    fetch,
    free_port,
    prometheus,
    push,
    victoria_metrics,
)

pytestmark = pytest.mark.drill("slurm")

SCRIPT = DEPLOY / "slurm" / "ecoflow-push.sh"
RULES = DEPLOY / "prometheus" / "ecoflow.rules.yml"
ALERT = "EcoflowShardsMissing"
INSTANCE = "fleet"
QUOTAS = 20
NUMBER = "ecoflow_core_moving"
# Between a device's answer and the time that its samples get, on a busy machine.
LATE_SECONDS = 30


class Served:
    """What a device reports: another number each time, which is how often it did."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._quotas = Encoded(quotas(QUOTAS), {MOVING})

    def __call__(self) -> bytes:
        self.times.append(time.time())
        return self._quotas()


class Devices(many_accounts.Fleet):
    """Makes devices that nobody else has, and knows what each has served."""

    def __init__(self) -> None:
        super().__init__(QUOTAS)
        self.served: dict[str, Served] = {}

    def devices(self, number: int) -> list[SimulatedDevice]:
        found = super().devices(number)
        for device in found:
            device.encoded = self.served[device.sn] = Served()
        return found


class Size(NamedTuple):
    """Of how many accounts and shards a fleet is, and of how many shards later."""

    keys: int
    app: int
    shards: int
    later: int
    #: How much faster than on the wall the alert's time goes.
    haste: int
    #: How long a task may take on a machine that is not busy (s).
    longest_run: float


SHORT, FULL = Size(4, 2, 2, 3, 75, 0.8), Size(52, 12, 8, 5, 30, 3.0)


class Turn(NamedTuple):
    """What each device served in an array, and what its tasks ended with."""

    served: dict[str, range]
    ends: dict[int, int]


class Fleet:
    """Accounts in a folder, the array that reads them, and where their samples go."""

    def __init__(self, folder: Path, size: Size, stack: ExitStack) -> None:
        self.folder = folder
        self.shards = size.shards
        #: Whether each shard has a folder of its own for what it remembers.
        self.is_apart = False
        #: Whether a run may have been killed while it waited for the receiver.
        self.was_cut_off = False
        self.turns: list[Turn] = []
        made = Devices()
        self.served = made.served
        self.cloud = stack.enter_context(SimulatedCloud([], keeps=1000))
        self.accounts = key_accounts(size.keys, 2, made)
        of_app = app_accounts(size.app, 1, made)
        stack.enter_context(behind_a_broker([*of_app.values()], folder / "broker"))
        self.accounts |= of_app
        for account in self.accounts.values():
            self.cloud.add(account)
        write_files(folder / "accounts", self.accounts, self.cloud.url)
        self.receiver = stack.enter_context(Receiver(folder / "victoria-metrics"))
        settings = {
            "ECOFLOW_ACCOUNTS": folder / "accounts",
            "STATE_DIR": folder / "state",
            "PUSH_INSTANCE": INSTANCE,
            "REMOTE_WRITE_URL": f"{self.receiver.url}/api/v1/write",
            "RETRY_TIMEOUT": "0.05",
            "METRICS_SET": "raw",
        }
        file = folder / "fleet.env"
        file.touch(0o600)
        file.write_text("".join(f"{k}={value}\n" for k, value in settings.items()))
        self.slurm: Slurm = stack.enter_context(slurm(folder / "slurm"))

    # -- who is whose ----------------------------------------------------------------

    def shard_of(self, name: str, shards: int = 0) -> int:
        """Return to which shard an account falls, of these or of so many."""
        account = self.accounts[name]
        who = account.keys.access_key if account.keys else ""
        who = who or (account.user.email if account.user else "")
        return shard_of((self.cloud.url, who), shards or self.shards)

    def names(self, index: int) -> list[str]:
        """Return the accounts of a shard."""
        return [name for name in self.accounts if self.shard_of(name) == index]

    def fullest(self) -> int:
        """Return the shard with the most accounts of developer keys."""
        indexes = [self.shard_of(n) for n, a in self.accounts.items() if a.keys]
        return max(indexes, key=indexes.count)

    def devices(self, *names: str) -> set[str]:
        """Return the serials of these accounts."""
        return {d.sn for name in names for d in self.accounts[name].devices}

    def logins(self) -> dict[str, int]:
        """Return how often each account of the app has logged in."""
        return {n: a.logins for n, a in self.accounts.items() if a.user}

    # -- arrays ----------------------------------------------------------------------

    def submit(self, *options: str) -> int:
        """Submit the array as it is delivered, for this machine and count."""
        text = script_for_here(SCRIPT, self.shards)
        if self.is_apart:
            own = f"STATE_DIR={self.folder}/state-$SLURM_ARRAY_TASK_ID"
            text = text.replace("export SHARD_COUNT", f"export SHARD_COUNT {own}")
        script = self.folder / "ecoflow-push.sh"
        script.write_text(text)
        self._begun = {sn: len(served.times) for sn, served in self.served.items()}
        return self.slurm.submit(script, *options, cwd=self.folder)

    def wait(self, job: int) -> Turn:
        """Return what an array did, when all its tasks have ended."""
        ends = self.slurm.wait(job)
        served = {
            sn: range(begun + 1, len(self.served[sn].times) + 1)
            for sn, begun in self._begun.items()
        }
        self.turns.append(Turn(served, ends))
        return self.turns[-1]

    def run(self, *options: str) -> Turn:
        """Run an array, in which each device of its shards is read by one task."""
        turn = self.wait(self.submit(*options))
        for name, account in self.accounts.items():
            times = {len(turn.served[device.sn]) for device in account.devices}
            if self.shard_of(name) not in turn.ends:
                assert times == {0}
            elif account.keys:
                assert times == {1}, self.said()
            else:
                # One that is slow is asked again.
                assert times <= {1, 2}, self.said()
        return turn

    def said(self) -> str:
        """Return what all tasks have said."""
        logs = sorted(self.folder.glob("ecoflow-push-*.log"))
        return "".join(f"{log.name}: {log.read_text()}" for log in logs)

    # -- what arrived ----------------------------------------------------------------

    def numbers(self) -> dict[str, list[int]]:
        """Return which numbers of each device arrived, each once and at its time."""
        owners = {d.sn: n for n, a in self.accounts.items() for d in a.devices}
        found: dict[str, list[int]] = {sn: [] for sn in owners}
        for (_, labels), held in self.receiver.points(NUMBER).items():
            # Where an answer was not waited for, the same sample comes once more.
            points = sorted(set(held)) if self.was_cut_off else held
            named = dict(labels)
            sn = named["device"]
            assert not found[sn], "one device, two series"
            assert named["account"] == owners[sn]
            assert "shard" not in named
            found[sn] = sorted(int(number) for _, number in points)
            assert len(set(found[sn])) == len(points), points
            assert len({at for at, _ in points}) == len(points), points
            for at, number in points:
                # The same clock, and a snapshot is of when it was asked for.
                late = at / 1000 - self.served[sn].times[int(number) - 1]
                assert abs(late) < LATE_SECONDS, points
        return found

    def missing(self) -> list[set[str]]:
        """Return the devices of each turn that were read then and did not arrive."""
        numbers = self.numbers()
        found = []
        for turn in self.turns:
            arrived = {
                sn: [number for number in numbers[sn] if number in served]
                for sn, served in turn.served.items()
            }
            assert all(len(each) < 2 for each in arrived.values())
            found.append(
                {sn for sn, each in arrived.items() if turn.served[sn] and not each}
            )
        return found

    def has_all(self, *but: int) -> bool:
        """Return whether all that was read has arrived, but for these turns."""
        return not any(
            missing for n, missing in enumerate(self.missing()) if n not in but
        )


class Receiver:
    """A VictoriaMetrics that can be away; what is written twice is there twice."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._stack = ExitStack()
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        # Doubles are not to be hidden.
        self._database = self._stack.enter_context(
            victoria_metrics(
                self._folder, "-dedup.minScrapeInterval=0s", port=self._port
            )
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Let nobody be there for a while."""
        self._stack.close()
        yield
        self.__enter__()

    def points(self, name: str) -> Points:
        """Return all samples of a name."""
        return self._database.points(name)


def silence(accounts: list[SimulatedAccount], *, is_over: bool = False) -> None:
    """Let neither the service nor a device answer these accounts, until it is over."""
    for account in accounts:
        account.heal() if is_over else account.fail("", faults.hang())
        for device in account.devices if account.user else ():
            device.deaf_to = 0 if is_over else sys.maxsize


class Watch:
    """A real Prometheus with the rules, in haste; it asks the receiver each second."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def missing(self) -> float:
        """Return how many shards the firing alert misses, 0 while it does not fire."""
        told = json.loads(fetch(f"{self._database.url}/api/v1/alerts"))["data"][
            "alerts"
        ]
        firing = [each for each in told if each["state"] == "firing"]
        assert all(each["labels"]["alertname"] == ALERT for each in firing)
        return sum(float(each["value"]) for each in firing)

    def knows_shards(self) -> bool:
        """Return whether it looks at shards that are at work."""
        return bool(self._database.alive("instance:ecoflow_push_shards:min"))


@contextmanager
def watch(folder: Path, receiver: Receiver, haste: int) -> Iterator[Watch]:
    folder.mkdir()
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    kept = [
        {**rule, "expr": hasten(rule["expr"], haste)}
        for rule in rules
        if rule.get("alert") == ALERT or "instance:" in rule.get("record", "")
    ]
    assert len(kept) == 3
    kept[-1]["for"] = "1s"
    (folder / "rules.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "ecoflow", "rules": kept}]})
    )
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "500ms"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {
                "job_name": "federate",
                "honor_labels": True,
                "metrics_path": "/federate",
                "params": {"match[]": ['{__name__=~"ecoflow_push_.*"}']},
                "static_configs": [{"targets": [receiver.url.partition("//")[2]]}],
            }
        ],
    }
    with prometheus(folder, config=yaml.safe_dump(config)) as database:
        yield Watch(database)


def hasten(expression: str, haste: int) -> str:
    """Return an expression whose minutes, and seconds ago, are so much shorter."""
    found, minutes = re.subn(
        r"\[(\d+)m\]", lambda m: f"[{int(m[1]) * 60_000 // haste}ms]", expression
    )
    found, seconds = re.subn(
        r"time\(\) - (\d+)", lambda m: f"time() - {int(m[1]) / haste}", found
    )
    assert minutes
    assert seconds
    return found


@pytest.fixture
def size(drill) -> Size:
    size = FULL if drill.is_full else SHORT
    print(f"\n{drill.name}: {size}")
    return size


@pytest.fixture
def fleet(tmp_path, size) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(tmp_path, size, stack)


def test_a_killed_task_costs_its_own_accounts_alone(fleet, size, tmp_path):
    """A killed task's accounts are late and missed; the next array has them again."""
    everyone = set(fleet.served)
    with watch(tmp_path / "prometheus", fleet.receiver, size.haste) as watching:
        for _ in range(2):
            assert set(fleet.run().ends.values()) == {0}, fleet.said()
        victim = fleet.fullest()
        names = fleet.names(victim)
        ill = [fleet.accounts[name] for name in names]
        asked = sum(account.requests for account in ill)
        silence(ill)

        job = fleet.submit()
        assert eventually(
            lambda: (
                sum(account.requests for account in ill) > asked
                and fleet.slurm.under_way(job) == {victim}
            )
        ), fleet.said()
        assert fleet.slurm.kill(job, victim)
        turn = fleet.wait(job)

        assert turn.ends == {n: 137 if n == victim else 0 for n in range(fleet.shards)}
        late = {sn for sn, served in turn.served.items() if not served}
        assert late == fleet.devices(*names)
        assert eventually(fleet.has_all), fleet.missing()
        others = ",".join(str(n) for n in range(fleet.shards) if n != victim)

        def is_missed() -> bool:
            assert set(fleet.run(f"--array={others}").ends.values()) == {0}
            return watching.missing() == 1

        assert eventually(is_missed, 150), fleet.said()
        missed_after = len(fleet.turns)
        silence(ill, is_over=True)
        turn = fleet.run()
        assert set(turn.ends.values()) == {0}, fleet.said()
        assert {sn for sn, served in turn.served.items() if served} == everyone
        # Nor is it for want of any that it is silent.
        assert eventually(lambda: not watching.missing()), fleet.said()
        assert watching.knows_shards()
        assert eventually(fleet.has_all), fleet.missing()
    assert set(fleet.logins().values()) == {1}
    print(
        f"{len(fleet.turns)} arrays, missed after {missed_after},"
        f" {sum(map(len, fleet.numbers().values()))} snapshots, each once"
    )


def test_what_a_killed_task_had_stored_arrives(fleet, drill, size):
    """Tasks that are killed at any instant lose nothing stored, and others nothing."""
    chance = random.Random(drill.seed)
    rounds = drill.size(1, 40)
    assert set(fleet.run().ends.values()) == {0}, fleet.said()
    fleet.was_cut_off = True
    stored: set[int] = set()
    victims = []
    for _ in range(rounds):
        index = chance.randrange(fleet.shards)
        job = fleet.submit()
        fleet.slurm.await_start(job, index)
        # Not for luck: the instant is what is drawn.
        time.sleep(chance.random() * size.longest_run)
        victims.append(index if fleet.slurm.kill(job, index) else -1)
        waiting = spool_files({"STATE_DIR": str(fleet.folder / "state")})
        stored |= {int(file.name.partition(".")[0]) for file in waiting}
        turn = fleet.wait(job)
        others = {n: end for n, end in turn.ends.items() if n != victims[-1]}
        assert set(others.values()) == {0}, fleet.said()
    assert set(fleet.run().ends.values()) == {0}, fleet.said()

    def is_there() -> bool:
        points = fleet.receiver.points(NUMBER).values()
        return stored <= {at for each in points for at, _ in each}

    assert eventually(is_there)
    excused = [set(), *(fleet.devices(*fleet.names(v)) for v in victims), set()]
    assert eventually(lambda: all(map(set.issubset, fleet.missing(), excused))), (
        fleet.missing()
    )
    assert set(fleet.logins().values()) == {1}
    print(
        f"{sum(v >= 0 for v in victims)} of {rounds} killed,"
        f" {len(stored)} snapshots had waited,"
        f" {sum(map(len, fleet.missing()))} were not yet stored"
    )


@pytest.mark.parametrize(
    "is_apart", [False, pytest.param(True, marks=pytest.mark.late)]
)
def test_a_changed_count_loses_nothing(is_apart, fleet, size):
    """With another count nothing is lost, nothing twice, and at most one login more.

    With a folder for each shard what waits in it is drained from there.
    """
    fleet.is_apart = is_apart
    for _ in range(2):
        assert set(fleet.run().ends.values()) == {0}, fleet.said()
    assert set(fleet.logins().values()) == {1}
    with fleet.receiver.away():
        turn = fleet.run()
    for index, status in turn.ends.items():
        assert status == 75 or not fleet.names(index), fleet.said()
    waits = len(fleet.turns) - 1
    moved = {
        name
        for name in fleet.accounts
        if fleet.shard_of(name) != fleet.shard_of(name, size.later)
    }
    fleet.shards = size.later

    assert set(fleet.run().ends.values()) == {0}, fleet.said()

    login_again = {name for name in moved if fleet.accounts[name].user and is_apart}
    assert fleet.logins() == {
        name: 2 if name in login_again else 1 for name in fleet.logins()
    }
    if is_apart:
        assert eventually(lambda: fleet.has_all(waits)), fleet.missing()
        assert fleet.missing()[waits] == fleet.devices(*moved)
        for index in range(size.shards):
            run = push(
                {"STATE_DIR": str(fleet.folder / f"state-{index}")},
                *("--drain", "--env-file", str(fleet.folder / "fleet.env")),
            )
            assert run.status == 0, run.stderr
    assert eventually(fleet.has_all), fleet.missing()
    assert set(fleet.run().ends.values()) == {0}, fleet.said()
    assert eventually(fleet.has_all), fleet.missing()
    print(
        f"{size.shards} to {size.later}: {len(moved)} accounts moved, logins"
        f" {sum(fleet.logins().values())} of {size.app} accounts,"
        f" {sum(map(len, fleet.numbers().values()))} snapshots, each once"
    )


def test_what_is_written_twice_is_seen_twice(tmp_path):
    """The receiver of this drill hides no double, so that none is overlooked."""
    with Receiver(tmp_path / "victoria-metrics") as receiver:
        for _ in range(2):
            line = json.dumps(
                {
                    "metric": {"__name__": NUMBER, "job": "ecoflow"},
                    "values": [1],
                    "timestamps": [1_700_000_000_000],
                }
            )
            request = urllib.request.Request(
                f"{receiver.url}/api/v1/import", data=line.encode()
            )
            urllib.request.urlopen(request, timeout=30).close()

        assert eventually(
            lambda: [len(p) for p in receiver.points(NUMBER).values()] == [2], 10
        )
