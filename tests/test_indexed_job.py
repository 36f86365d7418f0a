"""The Indexed Job of deploy/kubernetes/fleet, rehearsed with a process for each pod."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import secrets_in
from tests.indexed_job import Ended, IndexedJob, pod_of
from tests.kubernetes import FLEETS, Rendered, moved
from tests.support import PUSH

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
        "mkdir ~/at-work-$JOB_COMPLETION_INDEX; ls -d ~/at-work-* | wc -l;"
        " sleep 0.2; rmdir ~/at-work-$JOB_COMPLETION_INDEX"
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


def pods_of(
    way: str, secrets: Path, accounts: Path, state: Path, **environ: str
) -> Ended:
    """Return how the Job of a way ends, with our folders and hosts in their places."""
    rendered = Rendered(way)
    places = {SECRETS: secrets, ACCOUNTS: accounts, "/var/lib/ecoflow-push": state}
    theirs = moved(rendered.environ(), places)
    command = [sys.executable, str(PUSH)]
    pod = pod_of(command, {**theirs, "HOME": str(state), **environ})
    return IndexedJob(rendered.job, pod).run()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """What is mounted: the Secret, no accounts yet, and an empty claim."""
    accounts, state = tmp_path / "accounts", tmp_path / "state"
    accounts.mkdir()
    state.mkdir()
    return secrets_in(tmp_path / "secrets", "remote-write-password"), accounts, state


@pytest.mark.parametrize("way", FLEETS)
def test_settings_that_are_wrong_are_tried_once(way, folders):
    """Each shard says what is wrong with the settings, once, and fails its index."""
    ended = pods_of(way, *folders, SPOOL_MAX_AGE="soon")

    assert ended.statuses() == {index: [78] for index in range(8)}
    assert ended.reason == "FailedIndexes"
    for [one] in ended.tries.values():
        assert "SPOOL_MAX_AGE" in one.said
