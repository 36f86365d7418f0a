"""What one run of push.py costs beside importing its libraries, and beside a shell.

    python benchmarks/run.py [--rounds N]

Every round starts each command once, so that a busy minute of the machine hits all of
them alike; a figure is the median of its rounds, a ratio the median of the rounds' own
ratios. Only the ratios say something about another machine. Exits 1 if a goal is missed.

CPU and peak memory are the kernel's accounts of the ended process (wait4), with the
children it waited for; a peak is the largest of them. Linux hands a parent's own memory
on as the least peak of its children, so this process imports little and leaves the
servers to another.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PUSH = [sys.executable, os.path.join(ROOT, "push.py")]
SHELL = ["/bin/sh", os.path.join(ROOT, "benchmarks", "shell.sh")]
IMPORTS = "import requests, prometheus_client, paho.mqtt.client"
# What push.py cannot go below as long as it uses both libraries.
FLOOR = "import gc, os; gc.disable(); import requests, prometheus_client; os._exit(0)"
SHELL_PROGRAMS = ("curl", "openssl", "jq")
# Mandatory packages that a run over REST has no use for.
UNUSED = ("paho", "schedule")
USED = ("requests", "prometheus_client")
MAX_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Command(NamedTuple):
    """Something to measure: what is started, with which environment."""

    argv: list[str]
    environ: dict[str, str]


class Cost(NamedTuple):
    """What one process cost: seconds, and bytes."""

    cpu: float
    wall: float
    peak: float


class Servers:
    """The process of servers.py, and a place for files."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.servers"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._places = self._read()

    def environ(self, cloud: str, gateway: str = "gateway") -> dict[str, str]:
        """Return the settings of a job that reads `cloud` and pushes to `gateway`.

        Nothing is inherited that changes the cost of a start, like
        PYTHONDONTWRITEBYTECODE, or the trust store, like REQUESTS_CA_BUNDLE.
        """
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": self.folder,
            "STATE_DIR": os.path.join(self.folder, "state"),
            "ECOFLOW_CA_FILE": self._places["ca_file"],
            "PUSHGATEWAY_URL": self._places[gateway],
            **self._places["clouds"][cloud],
        }

    def ask(self, what: str) -> object:
        """Return the answer of servers.py to `what`."""
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            sys.exit("The servers ended; their own words are above.")
        return json.loads(line)


def start(command: Command, stderr: str) -> Cost:
    """Return what the command cost, its stderr left in a file; ends us if it fails."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    files = [
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, stderr, flags, 0o600),
    ]
    began = time.perf_counter()
    pid = os.posix_spawn(
        command.argv[0], command.argv, command.environ, file_actions=files
    )
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - began
    if status:
        said = _content(stderr)
        sys.exit(f"status {os.waitstatus_to_exitcode(status)}: {command.argv}\n{said}")
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * MAX_RSS_UNIT)


def measure(
    commands: dict[str, Command], rounds: int, stderr: str
) -> dict[str, list[Cost]]:
    """Return the costs of each command, round by round."""
    costs = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            cost = start(command, stderr)
            if number:  # round 0 is the warm-up, which also leaves the byte code
                costs[name].append(cost)
    return costs


def quantile(values: list[float], part: float) -> float:
    """Return the value that `part` of the values do not exceed; 0.5 is the median."""
    return sorted(values)[round(part * (len(values) - 1))]


def median(costs: list[Cost], what: str) -> float:
    return quantile([getattr(cost, what) for cost in costs], 0.5)


def ratios(these: list[Cost], those: list[Cost], what: str) -> list[float]:
    """Return the ratio of each round."""
    pairs = zip(these, those, strict=True)
    return [getattr(this, what) / getattr(that, what) for this, that in pairs]


class Goals:
    """Prints each goal beside what was found, and remembers a miss."""

    def __init__(self) -> None:
        self.missed = False

    def say(self, goal: str, found: str, *, met: bool) -> None:
        self.missed |= not met
        print(f"{'met' if met else 'MISSED':8}{goal:48}{found}")

    def most(self, goal: str, found: list[float], most: float, better: float = 0):
        """Demand a median ratio of `most` or less; less than `better` is praised."""
        middle, low, high = (quantile(found, part) for part in (0.5, 0.25, 0.75))
        praise = f", the better {better:.2f} too" if middle <= better else ""
        text = f"{middle:.2f}  (half of the rounds: {low:.2f} to {high:.2f}){praise}"
        self.say(f"{goal} at most {most:.2f}", text, met=middle <= most)


def print_table(costs: dict[str, list[Cost]], beside: list[str]) -> None:
    heads = [
        f"{what} x{name[0]}" for name in beside for what in ("cpu", "wall", "peak")
    ]
    print(f"{'':44}{'cpu ms':>8}{'wall ms':>9}{'peak MiB':>10}", end="  ")
    print("".join(f"{head:>8}" for head in heads))
    for name, own in costs.items():
        cpu, wall, peak = (median(own, what) for what in Cost._fields)
        print(
            f"{name:44}{cpu * 1e3:8.1f}{wall * 1e3:9.1f}{peak / 2**20:10.1f}", end="  "
        )
        for other in beside:
            for what in Cost._fields:
                ratio = quantile(ratios(own, costs[other], what), 0.5)
                print(f"{ratio:8.2f}", end="")
        print()
    print()


def check_requests(goals: Goals, servers: Servers, stderr: str) -> None:
    """Check what a run says to the cloud and to a gateway that records it."""
    for size in (1, 3):
        cloud = f"https {size}"
        servers.ask(cloud)  # which also starts the counts anew
        start(Command(PUSH, servers.environ(cloud, "recorder")), stderr)
        seen = servers.ask(cloud)
        plural = "s" if size > 1 else ""
        goals.say(
            f"{size} device{plural}: 1 TLS handshake",
            str(seen["handshakes"]),
            met=seen["handshakes"] == 1,
        )
        asked, pushed = seen["cloud"], seen["gateway"]
        lists = sum("/device/list" in request for request in asked)
        quotas = sum("/device/quota/all?" in request for request in asked)
        groups = sum(request.startswith("PUT /metrics/job/") for request in pushed)
        goals.say(
            f"{size} device{plural}: 1 list + {size} to the cloud, {size + 1} pushes",
            f"{lists} + {quotas} of {len(asked)}, {groups} of {len(pushed)}",
            met=(lists, quotas, groups) == (1, size, size + 1)
            and (len(asked), len(pushed)) == (size + 1, size + 1)
            and len({*asked, *pushed}) == 2 * size + 2,
        )


def check_imports(goals: Goals, servers: Servers, stderr: str) -> None:
    """Check which of the mandatory packages a run imports."""
    python, *script = PUSH
    argv = [python, "-X", "importtime", *script]
    start(Command(argv, servers.environ("https 1", "recorder")), stderr)
    lines = (line.split("|") for line in _content(stderr).splitlines())
    modules = {line[2].strip().partition(".")[0] for line in lines if len(line) == 3}
    found = sorted(modules.intersection(USED + UNUSED))
    goals.say(
        f"imported over REST: {', '.join(USED)} only",
        ", ".join(found),
        met=found == sorted(USED),
    )


def check_shell(goals: Goals, servers: Servers, stderr: str) -> None:
    """Check that both make the same series, or their costs are not comparable."""
    series = []
    for argv in (PUSH, SHELL):
        start(Command(argv, servers.environ("https 1")), stderr)
        series.append(servers.ask("series"))
    ours, theirs = map(set, map(tuple, series))
    goals.say(
        "shell.sh pushes the same quota series",
        f"{len(ours)}, {len(ours ^ theirs)} of them different",
        met=bool(ours) and ours == theirs,
    )


def _content(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def compare(servers: Servers, rounds: int) -> bool:
    """Print everything and return whether all goals are met."""
    stderr = os.path.join(servers.folder, "stderr")
    lacking = [program for program in SHELL_PROGRAMS if not shutil.which(program)]
    https = servers.environ("https 1")
    job = "push.py, 1 device"
    imports, shell = (
        "a  imports of three packages, normal exit",
        "b  shell.sh, 1 device",
    )
    commands = {job: Command(PUSH, https)}
    commands[imports] = Command([sys.executable, "-c", IMPORTS], https)
    if not lacking:
        commands[shell] = Command(SHELL, https)
    commands["push.py, 1 device, plain http"] = Command(PUSH, servers.environ("http 1"))
    commands["push.py, 10 devices"] = Command(PUSH, servers.environ("https 10"))
    commands["imports of two packages, no gc, os._exit"] = Command(
        [sys.executable, "-c", FLOOR], https
    )
    costs = measure(commands, rounds, stderr)
    least = start(Command([shutil.which("true") or "/bin/true"], {}), stderr).peak

    print(
        f"Python {platform.python_version()}, {os.cpu_count()} CPUs, medians of {rounds}"
        f" rounds; a peak below {least / 2**20:.1f} MiB would not be seen."
    )
    print_table(costs, [imports] if lacking else [imports, shell])
    goals = Goals()
    ours = costs[job]
    goals.most("CPU, of a", ratios(ours, costs[imports], "cpu"), 1.0, better=0.9)
    if lacking:
        print(f"Without b: {', '.join(lacking)} not found.")
    else:
        goals.most("CPU, of b", ratios(ours, costs[shell], "cpu"), 0.8)
    goals.most("peak memory, of a", ratios(ours, costs[imports], "peak"), 1.15)
    check_requests(goals, servers, stderr)
    check_imports(goals, servers, stderr)
    if not lacking:
        check_shell(goals, servers, stderr)
    return not goals.missed


def main() -> int:
    """Compare, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="15 if not given")
    rounds = max(1, parser.parse_args().rounds)
    with tempfile.TemporaryDirectory(prefix="ecoflow-push-bench-") as folder:
        servers = Servers(folder)
        try:
            return 0 if compare(servers, rounds) else 1
        finally:
            servers.close()


if __name__ == "__main__":
    sys.exit(main())
