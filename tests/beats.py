"""Many beats of --every in one process, each at once: nobody waits for the next.

    python -m tests.beats COUNT EVERY SEED

The road is that of push.py, with the settings of the environment; only the clock that
beats is ours, and sleeping is what moves it. After each EVERY beats a line of JSON says
what the process holds. Before some beats, at random, the host is at fault.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ecoflow_push import road
from ecoflow_push.run.schedule import Loop, stay
from ecoflow_push.start.attempt import attempt
from ecoflow_push.start.options import parse_args


def held() -> dict[str, int]:
    """Return the memory (KiB), threads and descriptors of this process.

    Of memory what is left when it has been swept; of the others what there was before.
    """
    files = len(os.listdir("/proc/self/fd"))
    gc.collect()
    status = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in status)
    memory = int(found["VmRSS"].split()[0])
    threads = int(found["Threads"])
    return {"memory": memory, "threads": threads, "files": files}


class Beats:
    """The clock, the faults of the host, and what is told."""

    def __init__(self, count: int, every: int, seed: int) -> None:
        self.skipped = 0.0
        self.done = 0
        self.statuses: Counter[int] = Counter()
        self._count = count
        self._every = every
        self._chance = random.Random(seed)
        self._folder = os.environ["STATE_DIR"]
        self._well = dict(os.environ)
        self.environ: Mapping[str, str] = self._well

    def now(self) -> float:
        return time.monotonic() + self.skipped

    def sleep(self, seconds: float) -> None:
        """Let the next beat be now; leave after the last one."""
        self.done += 1
        if self.done % self._every == 0:
            statuses = dict(self.statuses)
            print(json.dumps({"beat": self.done, **held(), "statuses": statuses}))
            sys.stdout.flush()
        if self.done == self._count:
            os._exit(0)
        self.skipped += seconds
        self._spoil()

    def _spoil(self) -> None:
        kind = self._chance.random()
        self.environ = self._well
        if kind < 0.01:
            self.environ = {**self._well, "STALE_AFTER": "never"}
        elif kind < 0.02:
            # As if somebody had begun anew.
            for each in Path(self._folder).glob("*/*.json"):
                each.unlink()
        elif kind < 0.03:
            for each in Path(self._folder).glob("*/state.json"):
                each.write_text("{")


def main() -> None:
    """Do them."""
    count, every, seed = map(int, sys.argv[1:])
    beats = Beats(count, every, seed)
    options = parse_args(["--every", "60"])

    def job(standing, _slow_down) -> int:
        def work() -> int:
            return road.run(options, road.read(options, beats.environ), standing)

        status = attempt(work)
        beats.statuses[int(status)] += 1
        return status

    def create_loop(interval: float, beat) -> Loop:
        return Loop(interval, beat, beats.now, beats.sleep)

    stay(road.read(options, os.environ), job, create_loop)


if __name__ == "__main__":
    main()
