"""What many accounts cost, shared by some runs, into a real VictoriaMetrics.

    python -m benchmarks.shards [--accounts N] [--devices N] [--quotas N] [--shards N]

The shards run one after the other, each alone, as on machines of their own; the cloud
(tests/many_accounts.py) and the database work beside each. In the end every series of
every device must be there once for each round. Exits 1 if a goal is missed or a sample
is not there just so often, 69 where there is no VictoriaMetrics.
"""

import argparse
import contextlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.fleet import MIB, SERVER, Database, Size
from benchmarks.goals import SHARDS, Goals
from benchmarks.process import PUSH, Command, Cost, start
from tests.fetch_servers import find
from tests.many_accounts import Process, many_accounts

JOB = "shards"
# The first one logs in, proves addresses and makes all series.
ROUNDS = 2


class World(NamedTuple):
    """The cloud, its accounts, the database, and a folder for the runs."""

    cloud: Process
    accounts: str
    database: Database
    folder: str

    def run(self, index: int, count: int) -> tuple[Cost, int]:
        """Run one shard; return what it cost, and its requests to the cloud."""
        environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": self.folder,
            "ECOFLOW_ACCOUNTS": self.accounts,
            "STATE_DIR": os.path.join(self.folder, "state"),
            "REMOTE_WRITE_URL": f"{self.database.url}/api/v1/write",
            "PUSH_JOB": JOB,
            "PUSH_INSTANCE": "shards",
            "SHARD_INDEX": str(index),
            "SHARD_COUNT": str(count),
        }
        before = self.requests()
        cost = start(Command([*PUSH], environ), os.path.join(self.folder, "stderr"))
        return cost, self.requests() - before

    def requests(self) -> int:
        """Return how many requests the cloud had."""
        counts = self.cloud.ask("counts").values()
        return sum(each["requests"] for each in counts)


@contextlib.contextmanager
def world(program: str, accounts: int, devices: int, quotas: int) -> Iterator[World]:
    """Run the cloud and the database."""
    with contextlib.ExitStack() as stack:
        place = tempfile.TemporaryDirectory(prefix="ecoflow-push-shards-")
        folder = stack.enter_context(place)
        there = Path(folder, "accounts")
        options = ("--accounts", accounts, "--devices", devices, "--quotas", quotas)
        cloud = stack.enter_context(many_accounts(there, *map(str, options)))
        database = Database(program, folder)
        stack.callback(database.close)
        yield World(cloud, str(there), database, folder)


def main() -> int:
    """Run all shards, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    sizes = {"accounts": 1000, "devices": 10, "quotas": 300, "shards": 8}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N")
    size = parser.parse_args()
    program = find().get(SERVER) or find("forky").get(SERVER)
    if program is None:
        print(f"{SERVER} is missing: run ./dev servers", file=sys.stderr)
        return 69
    costs: list[Cost] = []
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs")
    with world(str(program), size.accounts, size.devices, size.quotas) as there:
        for number in range(ROUNDS):
            print(f"\nround {number + 1}    cpu s   wall s   peak MiB   requests")
            for index in range(size.shards):
                cost, requests = there.run(index, size.shards)
                costs.append(cost)
                row = f"{cost.cpu:9.2f}{cost.wall:9.2f}{cost.peak / MIB:11.1f}"
                print(f"shard {index} {row}{requests:11,}")
        wanted = size.accounts * size.devices
        found = there.database.devices(JOB, Size(wanted, size.quotas))
        # When values last changed is not known of the first ones.
        match = f'job="{JOB}",__name__!="ecoflow_data_last_change_timestamp_seconds"'
        times = f"count_over_time({{{match}}}[1d])"
        fewest, most = (
            there.database.value(f"{which}({times})") for which in ("min", "max")
        )
    print(f"\n{found:,} of {wanted:,} devices; each series {fewest} to {most} times")
    goals = Goals()
    goals.ratios("a shard of 1,250 devices: seconds", [cost.wall for cost in costs])
    goals.ratios("a shard of 1,250 devices: peak", [cost.peak / MIB for cost in costs])
    goals.unjudged(SHARDS, {})
    is_whole = found == wanted and fewest == most == ROUNDS
    return 0 if is_whole and not goals.missed else 1


if __name__ == "__main__":
    sys.exit(main())
