"""The Indexed Job of deploy/kubernetes/fleet, rehearsed with a process for each pod."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.deploy import secrets_in
from tests.indexed_job import Ended, IndexedJob, pod_of
from tests.kubernetes import FLEETS, Rendered, moved
from tests.many_accounts import Process, many_accounts
from tests.support import (
    Database,
    eventually,
    free_port,
    push,
    victoria_metrics,
)

SECRETS, ACCOUNTS = "/run/secrets/ecoflow-push", "/run/secrets/ecoflow-accounts"

# --- what the rehearsal itself knows of Kubernetes ----------------------------------


def rehearsed(script: str, folder: Path, **spec: Any) -> Ended:
    """Return how a Job of the fleet ends whose pods run this in a shell."""
    job = {**Rendered("fleet").job, **spec}
    pod = pod_of(["sh", "-c", script], {"HOME": str(folder)})
    return IndexedJob(job, pod).run()


# By index; and how often each is tried.
STATUSES = (0, 1, 64, 69, 74, 75, 77, 78)
TRIED = (1, 1, 1, 2, 2, 2, 1, 1)
CASES = " ".join(f"{index}) exit {status};;" for index, status in enumerate(STATUSES))


def test_each_status_has_its_number_of_tries(tmp_path):
    """What trying again may cure is tried twice, all else once; none stops others."""
    script = f"case $JOB_COMPLETION_INDEX in {CASES} esac"
    ended = rehearsed(script, tmp_path)

    tries = {i: [s] * n for i, (s, n) in enumerate(zip(STATUSES, TRIED, strict=True))}
    assert ended.statuses() == tries
    assert ended.succeeded == {0}
    assert ended.failed == set(range(1, 8))
    assert ended.reason == "FailedIndexes"


def test_a_second_try_may_succeed(tmp_path):
    """An index whose second try ends with 0 has not failed, and the Job is complete."""
    script = "mkdir ~/$JOB_COMPLETION_INDEX 2>/dev/null && exit 75; exit 0"
    ended = rehearsed(script, tmp_path)

    assert ended.statuses() == {index: [75, 0] for index in range(8)}
    assert (ended.failed, ended.reason) == (frozenset(), "")


def test_what_no_rule_names_is_counted(tmp_path):
    """A pod that the kernel killed is tried once more."""
    assert rehearsed("kill -9 $$", tmp_path).statuses() == {
        i: [137] * 2 for i in range(8)
    }


def test_no_more_pods_at_a_time_than_may_be(tmp_path):
    """Of eight pods two run beside each other, and the lowest index begins."""
    script = (
        "mkdir ~/$JOB_COMPLETION_INDEX; ls ~ | wc -l; sleep 0.2;"
        " rmdir ~/$JOB_COMPLETION_INDEX"
    )
    ended = rehearsed(script, tmp_path, parallelism=2)

    seen = [int(one.said) for each in ended.tries.values() for one in each]
    assert max(seen) == 2
    assert next(iter(ended.tries)) in {0, 1}
    assert ended.succeeded == set(range(8))


STOPPED = "[ $JOB_COMPLETION_INDEX = 0 ] && exit 77; exec sleep 60"


@pytest.mark.parametrize(
    ("reason", "spec"),
    [
        ("MaxFailedIndexesExceeded", {"maxFailedIndexes": 0}),
        (
            "PodFailurePolicy",
            {
                "podFailurePolicy": {
                    "rules": [
                        {
                            "action": "FailJob",
                            "onExitCodes": {"operator": "In", "values": [77]},
                        }
                    ]
                }
            },
        ),
        ("DeadlineExceeded", {"activeDeadlineSeconds": 2}),
    ],
)
def test_a_job_that_ends_stops_what_runs(reason, spec, tmp_path):
    """Too many failed indexes, FailJob and the deadline end the pods of all others."""
    ended = rehearsed(STOPPED, tmp_path, **spec)

    assert ended.reason == reason
    assert ended.succeeded == set()
    others = {s for i, each in ended.statuses().items() if i for s in each}
    assert others <= {143}


# --- push.py in its pods ------------------------------------------------------------


Folders = tuple[Path, Path, Path]


class Forked:
    """A pod of push.py, whose interpreter is there already; it ends by itself."""

    returncode = -1

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def communicate(self) -> tuple[str, None]:
        self.returncode, out, err = push(self._environ)
        return out + err, None

    def terminate(self) -> None:
        pytest.fail("no Job of these stops its pods")


def pods_of(way: str, folders: Folders, **environ: str) -> Ended:
    """Return how the Job of a way ends, with our folders and hosts in their places."""
    secrets, accounts, state = folders
    rendered = Rendered(way)
    places = {SECRETS: secrets, ACCOUNTS: accounts, "/var/lib/ecoflow-push": state}
    theirs = moved(rendered.environ(), places)
    theirs |= {"HOME": str(state), **environ}
    return IndexedJob(rendered.job, lambda engine: Forked({**engine, **theirs})).run()


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """What is mounted: the Secret, no accounts yet, and an empty claim."""
    accounts, state = tmp_path / "accounts", tmp_path / "state"
    accounts.mkdir()
    state.mkdir()
    return secrets_in(tmp_path / "secrets", "remote-write-password"), accounts, state


@pytest.mark.parametrize("way", FLEETS)
def test_settings_that_are_wrong_are_tried_once(way, folders):
    """Each shard says what is wrong with the settings, once, and fails its index."""
    ended = pods_of(way, folders, SPOOL_MAX_AGE="soon")

    assert ended.statuses() == {index: [78] for index in range(8)}
    assert ended.reason == "FailedIndexes"
    for [one] in ended.tries.values():
        assert "SPOOL_MAX_AGE" in one.said


class World(NamedTuple):
    """EcoFlow's cloud, the receiver, and what is mounted into the pods."""

    cloud: Process
    database: Database
    folders: Folders

    def shards(self) -> dict[str, int]:
        """Return the index of each account, by its name, as docs/fleet.md has it."""
        found = {}
        for file in sorted(self.folders[1].glob("*.env")):
            lines = dict(line.split("=", 1) for line in file.read_text().splitlines())
            who = f"{lines['ECOFLOW_API_HOST']}\0{lines['ECOFLOW_ACCESS_KEY']}"
            first = hashlib.sha256(who.encode()).digest()[:8]
            found[file.stem] = int.from_bytes(first, "big") % 8
        return found

    def run(self, way: str, **environ: str) -> Ended:
        """Return how a Job of this way ends, whose pods have this environment too."""
        url = {"REMOTE_WRITE_URL": self.database.write_url}
        return pods_of(way, self.folders, **{**url, **environ})

    def read(self) -> Counter[str]:
        """Return how often each account's devices were written as online."""
        found: Counter[str] = Counter()
        for (_, labels), points in self.database.points("ecoflow_online").items():
            found[dict(labels)["account"]] += len(points)
        return found

    def told(self, match: str) -> dict[str, float]:
        """Return what the shards last said of themselves, by their labels."""
        found = self.database.points(match).items()
        return {dict(labels)["shard"]: points[-1][1] for (_, labels), points in found}


ONCE = dict.fromkeys((f"site-{number:05}" for number in range(1, 25)), 2)
ALL_WELL = {index: [0] for index in range(8)}


@pytest.fixture
def world(folders: Folders, tmp_path: Path) -> Iterator[World]:
    """24 accounts of two devices, a cloud for them, and a real receiver."""
    numbers = ("--accounts", "24", "--devices", "2", "--quotas", "20")
    with (
        many_accounts(folders[1], *numbers) as cloud,
        victoria_metrics(tmp_path / "database") as database,
    ):
        yield World(cloud, database, folders)


@pytest.mark.parametrize("way", FLEETS)
def test_the_shards_read_every_account_once(way, world):
    """All shards succeed; each device is written once; each shard tells its part."""
    ended = world.run(way)

    assert ended.statuses() == ALL_WELL, ended.tries
    assert ended.reason == ""
    assert eventually(lambda: world.read() == ONCE)
    of_each = Counter(world.shards().values())
    told = {str(index): of_each[index] for index in range(8)}
    assert eventually(lambda: world.told('ecoflow_push_accounts{state="ok"}') == told)
    shards = dict.fromkeys(told, 8)
    assert eventually(lambda: world.told("ecoflow_push_shards") == shards)
    assert bool(list(world.folders[2].iterdir())) is (way == "fleet")


def test_an_account_that_is_refused_fails_its_index_alone(world):
    """Its shard is 1, is not tried again, and has read its other accounts once."""
    world.cloud.ask("fault site-00003 keys")
    ended = world.run("fleet")

    index = world.shards()["site-00003"]
    assert ended.statuses() == ALL_WELL | {index: [1]}
    assert (ended.failed, ended.reason) == ({index}, "FailedIndexes")
    assert "account site-00003: exit 77 NOPERM" in ended.tries[index][0].said
    assert eventually(
        lambda: world.read() == {k: v for k, v in ONCE.items() if k != "site-00003"}
    )


def with_accounts(world: World, status: int) -> dict[int, list[int]]:
    """Return two tries of each shard that has accounts.

    One that has none has nothing to lose but what it tells of itself.
    """
    taken = set(world.shards().values())
    return {index: [status] * 2 if index in taken else [1] for index in range(8)}


def test_what_a_receiver_misses_waits_on_the_claim(world, tmp_path):
    """A receiver that is down costs a second try; the next Job writes both of them."""
    port = free_port()
    nowhere = f"http://127.0.0.1:{port}/api/v1/write"
    ended = world.run("fleet", REMOTE_WRITE_URL=nowhere, ESTABLISH_ATTEMPTS="1")
    assert ended.statuses() == with_accounts(world, 75), ended.tries

    with victoria_metrics(tmp_path / "later", port=port) as database:
        later = World(world.cloud, database, world.folders)
        assert later.run("fleet").statuses() == ALL_WELL
        thrice = {name: 3 * devices for name, devices in ONCE.items()}
        assert eventually(lambda: later.read() == thrice)


def test_what_a_receiver_misses_is_lost_without_a_disk(world):
    """Without a state what cannot be delivered is 74, and tried once more."""
    nowhere = f"http://127.0.0.1:{free_port()}/api/v1/write"
    ended = world.run(
        "fleet-stateless", REMOTE_WRITE_URL=nowhere, ESTABLISH_ATTEMPTS="1"
    )

    assert ended.statuses() == with_accounts(world, 74)


def test_a_count_that_is_not_the_jobs_is_told(world):
    """Of a Job with more indexes than SHARD_COUNT those beyond it fail at once."""
    ended = world.run("fleet", SHARD_COUNT="5")

    assert ended.statuses() == {i: [0] if i < 5 else [78] for i in range(8)}
    assert ended.failed == {5, 6, 7}
    assert eventually(lambda: world.read() == ONCE)
