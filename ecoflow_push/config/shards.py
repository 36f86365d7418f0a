"""Which part of the accounts is ours: the rule, and the engines that say the index.

The rule knows an account by what it is, never by its place in a list: nothing that
comes or goes beside it moves it.
"""

from __future__ import annotations

import hashlib

from ecoflow_push.config.kinds import ENGINES

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from ecoflow_push.config.environ import Reader

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
    text = "\0".join(identity)
    # A broken account is known by its file's name, which may be any bytes.
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % count


def read_shard(read: Reader) -> Shard | None:
    """Return which shard this is, None if there is but one run for all accounts.

    None, and a fault, where that is not clear.
    """
    engines = [names for names in ENGINES if read.raw(names[0])]
    if read.wants("SHARD_INDEX"):
        index_name = "SHARD_INDEX"
    elif len({read.raw(index) for index, _ in engines}) > 1:
        names = " and ".join(index for index, _ in engines)
        read.fault("", f"{names} contradict each other", "set SHARD_INDEX")
        return None
    elif engines:
        index_name = engines[0][0]
    elif read.wants("SHARD_COUNT"):
        cure = "set SHARD_INDEX, from 0 on, or leave out SHARD_COUNT"
        read.fault("SHARD_COUNT", "set, and no index", cure)
        return None
    else:
        return None
    counts = [count for _, count in engines or ENGINES if count and read.raw(count)]
    return _checked(read, index_name, ["SHARD_COUNT", *counts])


def _checked(read: Reader, index_name: str, count_names: list[str]) -> Shard | None:
    """Return the shard that variables name, the first count that is set."""
    count_name = next(filter(read.wants, count_names), "")
    if not count_name:
        cure = "set it to the number of shards"
        read.fault("SHARD_COUNT", f"missing, {index_name} is set", cure)
        return None
    index = read.count(index_name, None, 0, MOST_SHARDS)
    count = read.count(count_name, None, 1, MOST_SHARDS)
    if index is None or count is None:
        return None
    if index >= count:
        text = f"expected an index below {count_name}, which is {count}"
        read.fault(index_name, text, "indexes begin with 0")
        return None
    return Shard(index, count)
