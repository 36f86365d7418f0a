"""Which accounts are whose: the rule, and who says which part this is."""

from __future__ import annotations

import hashlib

import pytest

from ecoflow_push.config.environ import Reader
from ecoflow_push.config.shards import read_shard, shard_of
from ecoflow_push.errors import SettingsError

EUROPE = "https://api-e.ecoflow.com"
# API host, access key or user, and the shard of 1, 5, 8 and 1,000. Whoever changes
# them moves everybody's accounts.
GOLDEN = (
    ("https://api.ecoflow.com", "AK1", (0, 1, 5, 301)),
    (EUROPE, "AK1", (0, 2, 4, 372)),
    (EUROPE, "me@example.org", (0, 3, 0, 888)),
    ("http://127.0.0.1:8080", "AKmany00000000000000000000000001", (0, 0, 0, 360)),
)


@pytest.mark.parametrize(("host", "account", "shards"), GOLDEN)
def test_an_account_stays_where_it_is(host, account, shards):
    """The shard of an account is what it was in the first version that had shards."""
    found = tuple(shard_of((host, account), count) for count in (1, 5, 8, 1000))

    assert found == shards
    digest = hashlib.sha256(f"{host}\0{account}".encode()).hexdigest()
    assert found[3] == int(digest[:16], 16) % 1000


def test_shards_are_about_as_large():
    """Of 8,000 accounts each of 8 shards has between 900 and 1,100."""
    sizes = [0] * 8
    for number in range(8000):
        sizes[shard_of((EUROPE, f"AK{number:030}"), 8)] += 1

    assert min(sizes) > 900
    assert max(sizes) < 1100


@pytest.mark.parametrize(
    ("environ", "index", "count"),
    [
        ({"SHARD_INDEX": "0", "SHARD_COUNT": "1"}, 0, 1),
        ({"SHARD_INDEX": "7", "SHARD_COUNT": "8"}, 7, 8),
        ({"JOB_COMPLETION_INDEX": "2", "SHARD_COUNT": "3"}, 2, 3),
        ({"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "5"}, 4, 5),
        # One task of an array, run again.
        (
            {
                "SLURM_ARRAY_TASK_ID": "4",
                "SLURM_ARRAY_TASK_COUNT": "1",
                "SHARD_COUNT": "5",
            },
            *(4, 5),
        ),
        ({"CLOUD_RUN_TASK_INDEX": "0", "CLOUD_RUN_TASK_COUNT": "2"}, 0, 2),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "1", "AWS_BATCH_JOB_ARRAY_SIZE": "2"}, 1, 2),
        # What is said on purpose is stronger than the engine.
        ({"SHARD_INDEX": "1", "SHARD_COUNT": "9", "JOB_COMPLETION_INDEX": "5"}, 1, 9),
        ({"SHARD_INDEX": "1", "CLOUD_RUN_TASK_COUNT": "2"}, 1, 2),
        (
            {
                "JOB_COMPLETION_INDEX": "1",
                "CLOUD_RUN_TASK_INDEX": "1",
                "SHARD_COUNT": "2",
            },
            *(1, 2),
        ),
    ],
)
def test_the_index_is_ours_or_the_engine_s(environ, index, count):
    """Index and count are what the settings say, else what the engine says."""
    read = Reader(environ)
    shard = read_shard(read)

    read.raise_faults()
    assert shard is not None
    assert (shard.index, shard.count) == (index, count)


def test_without_an_index_nothing_is_shared():
    """Where nobody says an index there is one run for all accounts."""
    read = Reader({"SLURM_ARRAY_TASK_COUNT": "5", "HOME": "/home/me"})

    assert read_shard(read) is None
    read.raise_faults()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"SHARD_INDEX": "0"}, "SHARD_COUNT: missing, SHARD_INDEX is set"),
        (
            {"JOB_COMPLETION_INDEX": "0"},
            "SHARD_COUNT: missing, JOB_COMPLETION_INDEX is set",
        ),
        ({"SHARD_COUNT": "3"}, "SHARD_COUNT: set, and no index"),
        (
            {"SHARD_INDEX": "3", "SHARD_COUNT": "3"},
            "SHARD_INDEX: expected an index below SHARD_COUNT, which is 3",
        ),
        # An array from 1 to 8.
        (
            {"SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_COUNT": "8"},
            "SLURM_ARRAY_TASK_ID: expected an index below SLURM_ARRAY_TASK_COUNT",
        ),
        ({"SHARD_INDEX": "-1", "SHARD_COUNT": "3"}, "SHARD_INDEX: expected a whole"),
        ({"SHARD_INDEX": "x", "SHARD_COUNT": "3"}, "SHARD_INDEX: expected a whole"),
        ({"SHARD_INDEX": "0", "SHARD_COUNT": "0"}, "SHARD_COUNT: expected a whole"),
        (
            {
                "JOB_COMPLETION_INDEX": "0",
                "CLOUD_RUN_TASK_INDEX": "1",
                "SHARD_COUNT": "2",
            },
            "JOB_COMPLETION_INDEX and CLOUD_RUN_TASK_INDEX contradict each other",
        ),
    ],
)
def test_a_part_that_is_not_clear_is_a_fault(environ, words):
    """An index without a count, not below it, or in doubt is told, once."""
    read = Reader(environ)
    assert read_shard(read) is None

    with pytest.raises(SettingsError) as caught:
        read.raise_faults()
    assert len(caught.value.faults) == 1
    assert str(caught.value.faults[0]).startswith(words)
