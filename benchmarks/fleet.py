"""What many devices of one account cost, by remote-write into a real VictoriaMetrics.

    python -m benchmarks.fleet [--rounds N] [FOLDER]

The cloud is a simulated one (tests/many_accounts.py) in a process of its own. Every
round runs each size once; a figure is the median of its rounds. FOLDER is another
checkout, an older one say, which every round runs beside. Seconds on the wall mean
something only on a machine that does nothing else: the cloud and the database work
there too. Exits 1 if a goal is missed, 69 where there is no VictoriaMetrics.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.goals import FLEET, FURTHER, Goals, quantile
from benchmarks.process import IMPORTS, PUSH, ROOT, Command, Cost, start
from benchmarks.wide import PATIENT
from tests.fetch_servers import find

SERVER = "victoria-metrics"
#: Bytes.
MIB = 2**20


class Size(NamedTuple):
    """How many devices there are, and how many quotas each has."""

    devices: int
    quotas: int

    def __str__(self) -> str:
        return f"{self.devices:,} devices of {self.quotas} quotas"


FEW, MORE = Size(100, 300), Size(500, 300)
SMALL, LARGE = Size(50, 60), Size(5000, 60)
SIZES = (FEW, MORE, SMALL, LARGE)


class Cloud:
    """The process of a simulated cloud with one account."""

    def __init__(self, size: Size, folder: str) -> None:
        self.folder = os.path.join(folder, f"cloud-{size.devices}-{size.quotas}")
        options = [f"--{name}={n}" for name, n in size._asdict().items()]
        module = "tests.many_accounts"
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, "--folder", self.folder, *options],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        if not next(iter(self._process.stdout or ()), b""):
            sys.exit("The simulated cloud ended; its own words are above.")

    def close(self) -> None:
        """End the process."""
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate()


class Database:
    """A real VictoriaMetrics."""

    def __init__(self, program: str, folder: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{address}"
        self._process = subprocess.Popen(
            [
                program,
                f"-storageDataPath={folder}/database",
                f"-httpListenAddr={address}",
                "-retentionPeriod=100y",
                "-search.latencyOffset=0s",
                "-search.maxUniqueTimeseries=100000000",
                "-search.maxQueryDuration=10m",
                "-loggerLevel=ERROR",
            ]
        )
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                self._ask("/health")
                return
            time.sleep(0.05)
        sys.exit(f"{SERVER} does not answer")

    def devices(self, job: str, size: Size) -> int:
        """Return how many devices are there with all that each reported."""
        match = f'{{job="{job}",__name__!~"ecoflow_(online|device_info|push_.*)"}}'
        query = f"count(count({match}) by (device) >= {size.quotas})"
        found = 0
        until = time.monotonic() + 20
        # What is new is found only when the index has been written.
        while found < size.devices and time.monotonic() < until:
            time.sleep(0.2)
            found = self.value(query)
        return found

    def value(self, query: str) -> int:
        """Return what a query finds among all that was taken, 0 if nothing."""
        self._ask("/internal/force_flush")
        # It asks for whole seconds: what came in this one would not count.
        at = int(time.time()) + 2
        path = f"/api/v1/query?time={at}&query={urllib.parse.quote(query)}"
        rows = json.loads(self._ask(path))["data"]["result"]
        return int(rows[0]["value"][1]) if rows else 0

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait(60)

    def _ask(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=600) as answer:
            return bytes(answer.read())


class Fleet:
    """The runs of one checkout."""

    def __init__(self, root: str, database: Database, folder: str) -> None:
        self._argv = [PUSH[0], os.path.join(root, "push.py")]
        self.name = os.path.relpath(root)
        self._database = database
        self._folder = tempfile.mkdtemp(dir=folder)
        self.costs: dict[Size, list[Cost]] = {size: [] for size in SIZES}

    def run(self, size: Size, cloud: Cloud, *, counts: bool) -> None:
        """Read all devices of the cloud once, into a job of this checkout's own."""
        job = f"{os.path.basename(self._folder)}_{size.devices}_{size.quotas}"
        environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": self._folder,
            "STATE_DIR": os.path.join(self._folder, "state"),
            "REMOTE_WRITE_URL": f"{self._database.url}/api/v1/write",
            "PUSH_JOB": job,
            **PATIENT,
        }
        file = os.path.join(cloud.folder, "site-00001.env")
        command = Command([*self._argv, f"--env-file={file}"], environ)
        cost = start(command, os.path.join(self._folder, "stderr"))
        if counts:
            self.costs[size].append(cost)
        else:
            found = self._database.devices(job, size)
            if found != size.devices:
                sys.exit(f"{self.name}: {size}, and {found} of them are there")

    def median(self, size: Size, what: str) -> float:
        """Return the median of a size's rounds."""
        return quantile([getattr(cost, what) for cost in self.costs[size]], 0.5)

    def further(self) -> list[float]:
        """Return the CPU (s) of each device above the first 100, round by round."""
        pairs = zip(self.costs[FEW], self.costs[MORE], strict=True)
        many = MORE.devices - FEW.devices
        return [(more.cpu - few.cpu) / many for few, more in pairs]

    def figures(self, floors: list[float]) -> dict[str, list[float]]:
        """Return what the goals are of, round by round.

        `floors` is the CPU of three imports, in seconds.
        """
        _, more, small, large = (self.costs[size] for size in SIZES)
        pairs = zip(self.further(), floors, strict=True)
        return {
            f"{MORE}: seconds": [cost.wall for cost in more],
            f"{MORE}: peak": [cost.peak / MIB for cost in more],
            f"{LARGE}: seconds": [cost.wall for cost in large],
            f"{LARGE}: peak / that of {SMALL.devices}": [
                this.peak / that.peak for this, that in zip(large, small, strict=True)
            ],
            FURTHER: [100 * further / floor for further, floor in pairs],
        }

    def show(self, floors: list[float]) -> None:
        """Print a row for each size, and what the last figure is made of."""
        print(f"\n{self.name:40}{'cpu s':>8}{'wall s':>9}{'peak MiB':>10}")
        for size in SIZES:
            cpu, wall, peak = (self.median(size, w) for w in ("cpu", "wall", "peak"))
            print(f"   {size!s:37}{cpu:8.2f}{wall:9.2f}{peak / MIB:10.1f}")
        further, floor = (
            quantile(each, 0.5) * 1e3 for each in (self.further(), floors)
        )
        print(f"   each above the first 100: {further:.2f} ms; imports: {floor:.0f} ms")


@contextlib.contextmanager
def world(program: str) -> Iterator[tuple[dict[Size, Cloud], Database, str]]:
    """Run the clouds and the database."""
    with contextlib.ExitStack() as stack:
        place = tempfile.TemporaryDirectory(prefix="ecoflow-push-fleet-")
        folder = stack.enter_context(place)
        clouds = {size: Cloud(size, folder) for size in SIZES}
        for cloud in clouds.values():
            stack.callback(cloud.close)
        database = Database(program, folder)
        stack.callback(database.close)
        yield clouds, database, folder


def compare(roots: list[str], rounds: int, program: str) -> bool:
    """Print everything and return whether all goals are met."""
    with world(program) as (clouds, database, folder):
        fleets = [Fleet(root, database, folder) for root in roots]
        imports = Command(IMPORTS, {"PATH": os.environ.get("PATH", os.defpath)})
        floors: list[float] = []
        # Round 0 makes the series and leaves the byte code.
        for number in range(rounds + 1):
            for size, cloud in clouds.items():
                for fleet in fleets:
                    fleet.run(size, cloud, counts=number > 0)
            some = [start(imports, os.devnull).cpu for _ in range(5)]
            floors += [quantile(some, 0.5)] if number else []
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {rounds} rounds")
    for fleet in fleets:
        fleet.show(floors)
    print()
    goals = Goals()
    for figure, found in fleets[0].figures(floors).items():
        goals.ratios(figure, found)
    goals.unjudged(FLEET, {})
    return not goals.missed


def main() -> int:
    """Compare, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("folder", nargs="?", metavar="FOLDER")
    arguments = parser.parse_args()
    program = find().get(SERVER) or find("forky").get(SERVER)
    if program is None:
        print(f"{SERVER} is missing: run ./dev servers", file=sys.stderr)
        return 69
    roots = [ROOT, *([arguments.folder] if arguments.folder else [])]
    rounds = max(1, arguments.rounds)
    return 0 if compare(roots, rounds, str(program)) else 1


if __name__ == "__main__":
    sys.exit(main())
