"""What a run costs in instructions, and what a large one holds, for any checkout.

    python -m benchmarks.count [FOLDER]

The judge for a change: instructions do not depend on what else the machine does
(grind.py), and a peak is the kernel's. FOLDER is another checkout, an older one say, to
be counted beside. Exits 1 if a goal is missed, 69 where there is no valgrind.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from benchmarks import grind
from benchmarks.goals import OTHERS, PYTHON, Goals
from benchmarks.grind import instructions
from benchmarks.process import IMPORTS, PUSH, ROOT, Command, Servers, start

BARE, FLOOR = "bare interpreter", "three imports"
REST, MQTT = "REST, 1 device", "MQTT, cached login"
TEN = "REST, 10 devices"
#: Where values go: as the table of goals calls it.
WAYS = {
    "to a text file": "textfile",
    "to a gateway": "recorder",
    "by remote-write": "receiver",
}
FEW, MORE, BEATS = 10, 30, 6
ONE = "https 1"
BEATER, EVERY = os.path.join(ROOT, "benchmarks", "beats.py"), "--every=60"
LARGE = "1,000 devices {}: peak"


class Paths:
    """The paths of a run through one checkout, each with a state of its own."""

    def __init__(self, root: str, servers: Servers, folder: str) -> None:
        self._push = [PUSH[0], os.path.join(root, "push.py")]
        self._servers = servers
        self._folder = os.path.join(folder, root.strip("/").replace("/", "_"))
        os.makedirs(self._folder, exist_ok=True)

    def command(self, cloud: str = ONE, sink: str = "gateway") -> Command:
        """Return a run that reads `cloud` and pushes to `sink`."""
        place = os.path.join(self._folder, f"{cloud} {sink}".replace(" ", "-"))
        return Command(
            self._push,
            self._servers.environ(cloud, sink)
            | {
                "STATE_DIR": place,
                # Slow as it is under valgrind, no deadline may end it.
                "RUN_DEADLINE": "300",
                "PYTHONHASHSEED": "0",
            },
        )

    def run(self, cloud: str = ONE, sink: str = "gateway") -> float:
        """Return the instructions of a run that is not the first one."""
        command = self.command(cloud, sink)
        start(command, os.devnull)
        return instructions(command)

    def beats(self, cloud: str, beats: int) -> float:
        """Return the instructions of a process that stays for so many beats."""
        argv, environ, _ = self.command(cloud, "recorder")
        place = os.path.join(environ["STATE_DIR"], f"every-{beats}")
        environ = environ | {"STATE_DIR": place}
        start(Command(argv, environ), os.devnull)
        python, push = argv
        command = Command([python, BEATER, str(beats), push, EVERY], environ)
        # A server that is slow once is no part of a beat, of which there are few.
        return min(instructions(command) for _ in range(2 if cloud == ONE else 1))

    def peak(self, sink: str) -> float:
        """Return what 1,000 devices make a run hold at most, in MiB."""
        return start(self.command("http 1000", sink), os.devnull).peak / 2**20

    def parts(self, cloud: str) -> dict[str, float]:
        """Return whose the instructions of a run are; the work is what is left."""
        command = self.command(cloud)
        start(command, os.devnull)
        bare = Command([sys.executable, "-c", "pass"], command.environ)
        # From the checkout, as a script has it.
        environ = command.environ | {"PYTHONPATH": os.path.dirname(self._push[1])}
        found = grind.steps(grind.modules(command), grind.modules(bare))
        return {
            name: instructions(Command(grind.importing(names), environ))
            for name, names in found.items()
        }


def raw(paths: Paths, environ: dict[str, str]) -> dict[str, float]:
    """Return all that is counted, two at a time, the longest first."""
    jobs: dict[str, Callable[[], float]] = {
        f"beats {size} {count}": partial(paths.beats, f"https {size}", count)
        for count in (BEATS, 1)
        for size in (10, 1)
    }
    for way, sink in WAYS.items():
        for size in (MORE, FEW):
            jobs[f"{way} {size}"] = partial(paths.run, f"http {size}", sink)
        jobs[LARGE.format(way)] = partial(paths.peak, sink)
    jobs[TEN] = partial(paths.run, "https 10", "recorder")
    jobs[MQTT] = partial(paths.run, "mqtt 1")
    jobs[REST] = paths.run
    jobs[FLOOR] = partial(instructions, Command(IMPORTS, environ))
    jobs[f"{FLOOR}: peak"] = lambda: (
        start(Command(IMPORTS, environ), os.devnull).peak / 2**20
    )
    bare = Command([sys.executable, "-c", "pass"], environ)
    jobs[BARE] = partial(instructions, bare)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = {name: pool.submit(job) for name, job in jobs.items()}
        return {name: job.result() for name, job in done.items()}


def figures(counted: dict[str, float]) -> dict[str, float]:
    """Return each figure that has a goal, from what was counted."""
    floor, peak = counted[FLOOR], counted[f"{FLOOR}: peak"]
    found = {
        REST: counted[REST],
        f"{MQTT} / {FLOOR}": counted[MQTT] / floor,
        TEN: counted[TEN],
    }
    for way in WAYS:
        more, few = counted[f"{way} {MORE}"], counted[f"{way} {FEW}"]
        found[f"each further device, {way}"] = (more - few) / (MORE - FEW)
        large = LARGE.format(way)
        found[f"{large} / {FLOOR}"] = counted[large] / peak
    for size in (1, 10):
        more, few = counted[f"beats {size} {BEATS}"], counted[f"beats {size} 1"]
        what = f"a beat of --every, {size} device{'s' * (size > 1)}"
        found[what] = (more - few) / (BEATS - 1)
    return found


def show(title: str, columns: dict[str, dict[str, float]]) -> None:
    """Print a table: a row for each name, a column for each of `columns`."""
    print(f"\n{title:44}" + "".join(f"{head[:11]:>12}" for head in columns))
    for name in dict.fromkeys(name for column in columns.values() for name in column):
        cells = (column.get(name) for column in columns.values())
        print(f"{name:44}" + "".join(f"{cell or 0:12.1f}" for cell in cells))


def count(servers: Servers, folder: str, other: str) -> bool:
    """Print everything and return whether a goal is missed."""
    began = time.monotonic()
    environ = servers.environ() | {"PYTHONHASHSEED": "0"}
    ours = Paths(ROOT, servers, folder)
    found = raw(ours, environ)
    theirs = raw(Paths(other, servers, folder), environ) if other else {}
    clouds = {REST: ONE, MQTT: "mqtt 1"}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        steps = dict(zip(clouds, pool.map(ours.parts, clouds.values()), strict=True))
    print(f"Python {platform.python_version()}, {time.monotonic() - began:.0f} s.")
    if sys.version_info[:2] != PYTHON:
        print(f"Goals in instructions are those of 3.11, times {OTHERS}.")
    columns = {"beside": theirs} if theirs else {}
    show("M instructions; MiB of peaks", columns | {"counted": found})
    whose = {name: grind.parts(steps[name], found[name]) for name in clouds}
    show("M instructions, whose", whose)
    print()
    goals = Goals()
    goals.counted(figures(found), figures(theirs) if theirs else {})
    return goals.missed


def main() -> int:
    """Print the figures, and return 1 if one of ours is over its goal."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", default="", help="another checkout")
    other = parser.parse_args().folder
    if not grind.is_there():
        print(grind.NO_VALGRIND, file=sys.stderr)
        return grind.UNAVAILABLE
    with tempfile.TemporaryDirectory(prefix="ecoflow-push-count-") as folder:
        servers = Servers(folder)
        try:
            return int(count(servers, folder, other and os.path.abspath(other)))
        finally:
            servers.close()


if __name__ == "__main__":
    sys.exit(main())
