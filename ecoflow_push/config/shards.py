"""Which part of the accounts is ours: the rule, and the engines that say the index.

The rule knows an account by what it is, never by its place in a list: nothing that
comes or goes beside it moves it.
"""

from __future__ import annotations

import hashlib

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from ecoflow_push.config.environ import Reader

#: What engines call the index of a task, and how many there are where they say so:
#: Kubernetes' Indexed Jobs, Slurm's arrays, Cloud Run Jobs, AWS Batch's arrays.
ENGINES = (
    ("JOB_COMPLETION_INDEX", ""),
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    ("CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"),
    ("AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
)
# As many tasks as any of them takes.
MOST_SHARDS = 100_000


class Shard:
    """One of `count` parts, `index` from 0."""

    __slots__ = ("count", "index")

    def __init__(self, index: int, count: int) -> None:
        self.index = index
        self.count = count

    def has(self, *identity: str) -> bool:
        """Return whether an account is ours: API host, and access key or user."""
        return shard_of(identity, self.count) == self.index


def shard_of(identity: tuple[str, ...], count: int) -> int:
    """Return the index of the shard that an account falls to, of `count`."""
    digest = hashlib.sha256("\0".join(identity).encode()).digest()
    return int.from_bytes(digest[:8], "big") % count


def read_shard(read: Reader) -> Shard | None:
    """Return which shard this is, None if there is but one run for all accounts."""
    index_name, count_name = _names(read)
    if not (index_name or read.wants("SHARD_COUNT")):
        return None
    count_name = "SHARD_COUNT" if read.wants("SHARD_COUNT") else count_name
    count = read.count(count_name, None, 1, MOST_SHARDS) if count_name else None
    index = read.count(index_name, None, 0, MOST_SHARDS) if index_name else None
    if not index_name:
        cure = "set SHARD_INDEX, from 0 on, or leave out SHARD_COUNT"
        read.fault("SHARD_COUNT", "set, and no index", cure)
    elif count is None and not read.is_faulty(count_name):
        text = f"missing, {index_name} is set"
        read.fault("SHARD_COUNT", text, "set it to the number of shards")
    elif None not in (index, count) and index >= count:  # type: ignore[operator]  # None is not in
        text = f"expected an index below {count_name}, which is {count}"
        read.fault(index_name, text, "indexes begin with 0")
    return None if index is None or count is None else Shard(index, count)


def _names(read: Reader) -> tuple[str, str]:
    """Return the variables of the index and of the count, "" for those not set."""
    if read.wants("SHARD_INDEX"):
        counts = (count for _, count in ENGINES if count and read.raw(count))
        return "SHARD_INDEX", next(counts, "")
    engines = [(index, count) for index, count in ENGINES if read.raw(index)]
    if len({read.raw(index) for index, _ in engines}) > 1:
        names = " and ".join(index for index, _ in engines)
        read.fault("", f"{names} contradict each other", "set SHARD_INDEX")
        return "", ""
    index, count = next(iter(engines), ("", ""))
    return index, count if count and read.raw(count) else ""
