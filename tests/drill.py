"""The hall's frame: a campaign has a name, a size and a seed.

`./dev drill` runs all campaigns in full numbers, `./dev drill NAME ...` those.
DRILL_SIZE is what their numbers are multiplied by (0.1, 5), DRILL_SEED the seed to
begin with again. Without `--drill` each runs in its short form.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

# Each is told in docs/reliability.md.
CAMPAIGNS = (
    *("kills", "syscalls", "power", "outages", "spool", "fuzz", "memory"),
    *("secrets", "statuses", "truth", "gateways", "networks", "clocks", "soak"),
    *("slurm", "mutations"),
)
SHORT_SEED = 1


class Drill(NamedTuple):
    """How a test that is part of a campaign is to run now."""

    name: str
    #: In full numbers.
    is_full: bool
    seed: int

    def size(self, short: int, full: int) -> int:
        """Return how many cases to run, and print how to run them again."""
        factor = os.environ.get("DRILL_SIZE")
        size = max(1, round(full * float(factor or 1)))
        size = size if self.is_full or factor else short
        print(f"\n{self.name}: {size} of {full}, DRILL_SEED={self.seed}")
        return size


def drill_of(name: str, *, is_full: bool) -> Drill:
    """Return the campaign, with the seed that is asked for or one that is new."""
    fresh = time.time_ns() // 1000 % 10**6 if is_full else SHORT_SEED
    return Drill(name, is_full, int(os.environ.get("DRILL_SEED") or fresh))
