"""What one run of push.py costs beside importing its libraries, and beside a shell.

    python -m benchmarks.run [--rounds N]

Every round starts each command once, so that a busy minute of the machine hits all of
them alike; a figure is the median of its rounds, a ratio the median of the rounds' own
ratios. Only the ratios mean something elsewhere. Exits 1 if a goal is missed.

CPU and peak memory are the kernel's accounts of the ended process (wait4), with the
children it waited for; the peak is that of the largest one. Linux counts the starting
process's memory as the least peak of what it starts, so this one imports little and
leaves the servers to another.
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

from ecoflow_push.memory.lock import state_folder
from ecoflow_push.memory.state import State

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PUSH = [sys.executable, os.path.join(ROOT, "push.py")]
SHELL = ["/bin/sh", os.path.join(ROOT, "benchmarks", "shell.sh")]
IMPORTS = [sys.executable, "-c", "import requests, prometheus_client, paho.mqtt.client"]
# What a run over REST cannot go below as long as it uses both libraries.
FLOOR = "import gc, os; gc.disable(); import requests, prometheus_client; os._exit(0)"
SHELL_PROGRAMS = ("curl", "openssl", "jq")
USED = ["prometheus_client", "requests"]
USED_BY_MQTT = ["paho", "prometheus_client"]
USED_BY_WRITE = ["cramjam", "prometheus_client", "requests"]
PACKAGES = ["cramjam", "google", "paho", "prometheus_client", "requests", "schedule"]
MAX_RSS_UNIT = 1 if sys.platform == "darwin" else 1024

# The rows that others are compared with begin with a letter, which names the column.
JOB = "push.py, 1 device"
VISIT = "push.py, 1 device over MQTT, cached login"
A = "a  import of three libraries, normal exit"
B = "b  shell.sh, 1 device"
RAW = "   push.py, 1 device, raw metrics alone"
BARE = "   python -c pass"
LOCKED = "   push.py, locked out"
# By the number of devices: the same run to a Pushgateway and over remote-write 1.0.
PUSHED = {1: JOB, 3: "   push.py, 3 devices"}
WRITTEN = {
    1: "   push.py, 1 device, remote-write",
    3: "   push.py, 3 devices, remote-write",
}


class Command(NamedTuple):
    """Something to start, and its environment."""

    argv: list[str]
    environ: dict[str, str]
    status: int = 0


class Cost(NamedTuple):
    """What one process cost: seconds, and bytes."""

    cpu: float
    wall: float
    peak: float
    ended: float


class Servers:
    """The process of servers.py."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.servers"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._places = self._read()

    def environ(
        self, cloud: str = "https 1", sink: str = "gateway", ca: str = "ca_file"
    ) -> dict[str, str]:
        """Return the settings of a job that reads `cloud` and pushes to `sink`.

        What it remembers is its own: the runs of another sink would change it.
        Nothing is inherited that changes the cost of a start, like
        PYTHONDONTWRITEBYTECODE, or the trust store, like REQUESTS_CA_BUNDLE.
        """
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": self._folder,
            "STATE_DIR": os.path.join(self._folder, f"state-{sink}"),
            "ECOFLOW_CA_FILE": self._places[ca],
            **self._places["sinks"][sink],
            **self._places["clouds"][cloud],
        }

    def ask(self, what: str) -> dict:
        """Return the answer of servers.py to `what`."""
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            sys.exit("The servers ended; their own words are above.")
        return json.loads(line)


def start(command: Command, stderr: str) -> Cost:
    """Return what the command cost, its stderr in a file; end this if it failed."""
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
    wall, ended = time.perf_counter() - began, time.time()
    code = os.waitstatus_to_exitcode(status)
    if code != command.status:
        sys.exit(f"status {code}: {command.argv}\n{content(stderr)}")
    cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * MAX_RSS_UNIT
    return Cost(cpu, wall, peak, ended)


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


def ratios(these: list[Cost], those: list[Cost], what: str) -> list[float]:
    """Return the ratio of each round."""
    pairs = zip(these, those, strict=True)
    return [getattr(this, what) / getattr(that, what) for this, that in pairs]


def print_table(costs: dict[str, list[Cost]]) -> None:
    """Print a row for each command."""
    columns = [(A, "cpu"), (A, "wall"), (A, "peak"), (B, "cpu"), (B, "wall")]
    columns = [(name, what) for name, what in columns if name in costs]
    heads = "".join(f"{what} /{name[0]}".rjust(9) for name, what in columns)
    print(f"{'':44}{'cpu ms':>8}{'wall ms':>9}{'peak MiB':>10}{heads}")
    for name, own in costs.items():
        cpu, wall, peak, _ = (quantile([*all_], 0.5) for all_ in zip(*own, strict=True))
        print(f"{name:44}{cpu * 1e3:8.1f}{wall * 1e3:9.1f}{peak / 2**20:10.1f}", end="")
        for other, what in columns:
            print(f"{quantile(ratios(own, costs[other], what), 0.5):9.2f}", end="")
        print()


class Goals:
    """Prints each goal beside what was found, and remembers a miss."""

    def __init__(self) -> None:
        self.missed = False

    def say(self, goal: str, found: str, *, met: bool) -> None:
        self.missed |= not met
        print(f"{'met' if met else 'MISSED':8}{goal:60}{found}")

    def seconds(self, goal: str, found: list[float], most: float) -> None:
        """Demand a median of `most` seconds or less."""
        middle = quantile(found, 0.5)
        text = f"{middle * 1e3:.0f} ms  (at most {max(found) * 1e3:.0f})"
        self.say(f"{goal}: at most {most * 1e3:.0f} ms", text, met=middle <= most)

    def most(
        self, goal: str, found: list[float], most: float, better: float = 0
    ) -> None:
        """Demand a median of `most` or less; tell whether `better` is reached too."""
        middle, low, high = (quantile(found, part) for part in (0.5, 0.25, 0.75))
        text = f"{middle:.2f}  (middle half of the rounds: {low:.2f} to {high:.2f})"
        if better:
            text += f"; {better:.2f} is {'' if middle <= better else 'not '}reached"
        self.say(f"{goal}: at most {most:.2f}", text, met=middle <= most)


def check_requests(goals: Goals, servers: Servers, size: int, stderr: str) -> None:
    """Check what a run says to the cloud and to a gateway that records it."""
    cloud = f"https {size}"
    servers.ask(cloud)  # from here on it counts
    start(Command(PUSH, servers.environ(cloud, "recorder")), stderr)
    seen = servers.ask(cloud)
    asked, pushed = seen["cloud"], seen["gateway"]
    lists = sum("/device/list" in request for request in asked)
    quotas = len({request for request in asked if "/quota/all?sn=" in request})
    groups = len({request for request in pushed if request.startswith("PUT ")})
    what = f"{size} device{'s' if size > 1 else ''}"
    goals.say(
        f"{what}: one TLS handshake",
        str(seen["handshakes"]),
        met=seen["handshakes"] == 1,
    )
    goals.say(
        f"{what}: list + {size} to the cloud, {size + 1} pushes, no more",
        f"{lists} + {quotas} of {len(asked)}, {groups} of {len(pushed)}",
        met=(lists, quotas, groups) == (1, size, size + 1)
        and (len(asked), len(pushed)) == (1 + size, size + 1),
    )


def check_writes(goals: Goals, servers: Servers, size: int, stderr: str) -> None:
    """Check that over remote-write all is taken, a device a request."""
    cloud = f"https {size}"
    servers.ask(cloud)
    start(Command(PUSH, servers.environ(cloud, "receiver")), stderr)
    sent = servers.ask(cloud)["gateway"]
    writes = sent.count("POST /api/v1/write")
    goals.say(
        f"remote-write {size}: {size + 1} writes, no more",
        f"{writes} of {len(sent)}",
        met=writes == len(sent) == size + 1,
    )


def check_visits(goals: Goals, servers: Servers, costs: list[Cost]) -> None:
    """Check that nothing stalls on the way out, nor between question and answer."""
    times = servers.ask("times")["times"]
    visits = times[-len(costs) :]
    leaving = [cost.ended - visit[1] for cost, visit in zip(costs, visits, strict=True)]
    goals.seconds("over MQTT: from answer to end", leaving, 0.05)


def check_imports(
    goals: Goals, what: str, environ: dict[str, str], used: list[str], stderr: str
) -> None:
    """Check which of the mandatory packages a run imports."""
    python, script = PUSH
    start(Command([python, "-X", "importtime", script], environ), stderr)
    lines = [line.split("|") for line in content(stderr).splitlines()]
    modules = {line[2].strip().partition(".")[0] for line in lines if len(line) == 3}
    found = [package for package in PACKAGES if package in modules]
    goals.say(
        f"{what}: imports only {', '.join(used)}",
        ", ".join(found),
        met=found == used,
    )


def check_shell(goals: Goals, servers: Servers, stderr: str) -> None:
    """Check that both push the same series, or their costs would not compare."""
    found = []
    for argv in (PUSH, SHELL):
        servers.ask("https 1")  # which also empties the recorder
        environ = servers.environ(sink="recorder") | {"METRICS_SET": "raw"}
        start(Command(argv, environ), stderr)
        found.append(servers.ask("series")["series"])
    ours, theirs = map(set, found)
    goals.say(
        "shell.sh pushes the same quota series",
        f"{len(ours & theirs)} the same, {len(ours ^ theirs)} not",
        met=bool(ours) and ours == theirs,
    )


def content(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def compare(servers: Servers, rounds: int, stderr: str) -> bool:
    """Print everything and return whether all goals are met."""
    lacking = [program for program in SHELL_PROGRAMS if not shutil.which(program)]
    https = servers.environ()
    commands = {
        JOB: Command(PUSH, https),
        VISIT: Command(PUSH, servers.environ("mqtt 1")),
        A: Command(IMPORTS, https),
        RAW: Command(PUSH, https | {"METRICS_SET": "raw"}),
    }
    if not lacking:
        # curl reads all trusted CAs at each start. push.py looks one up in the system's
        # hashed directory, which costs what reading a file with one CA does.
        commands[B] = Command(SHELL, servers.environ(ca="ca_bundle"))
        commands["   shell.sh, 1 device, one CA alone"] = Command(SHELL, https)
    commands |= {
        "   push.py, 1 device, plain http": Command(PUSH, servers.environ("http 1")),
        "   push.py, 10 devices": Command(PUSH, servers.environ("https 10")),
        WRITTEN[1]: Command(PUSH, servers.environ(sink="receiver")),
        PUSHED[3]: Command(PUSH, servers.environ("https 3")),
        WRITTEN[3]: Command(PUSH, servers.environ("https 3", "receiver")),
        "   import of two libraries, no gc, os._exit": Command(
            [sys.executable, "-c", FLOOR], https
        ),
    }
    # Another account and job, whose lock this process holds.
    locked = https | {"PUSH_JOB": "locked"}
    commands[BARE] = Command([sys.executable, "-c", "pass"], https)
    commands[LOCKED] = Command(PUSH, locked, status=75)
    account = locked["ECOFLOW_ACCESS_KEY"], "locked"
    folder = state_folder(locked["STATE_DIR"], locked["ECOFLOW_API_HOST"], *account)
    with State.open(folder):
        costs = measure(commands, rounds, stderr)
    least = start(Command([shutil.which("true") or "/bin/true"], {}), stderr).peak
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {rounds} rounds,"
        f" medians; a peak below {least / 2**20:.1f} MiB would not be seen."
    )
    print_table(costs)
    print()
    goals = Goals()
    ours = costs[JOB]
    goals.most("CPU / a", ratios(ours, costs[A], "cpu"), 1.0, better=0.9)
    out = ratios(costs[LOCKED], costs[BARE], "cpu")
    goals.most("locked out: CPU / a bare interpreter", out, 2.0)
    if lacking:
        print(f"Nothing to compare with as b: {', '.join(lacking)} not found.")
    else:
        goals.most("CPU / b", ratios(ours, costs[B], "cpu"), 0.8)
    raw = ratios(ours, costs[RAW], "cpu")
    goals.most("with normalized metrics: CPU / raw alone", raw, 1.1)
    goals.most("peak memory / a", ratios(ours, costs[A], "peak"), 1.15)
    for size in (1, 3):
        check_requests(goals, servers, size, stderr)
    check_imports(goals, "https 1", https, USED, stderr)
    goals.most("over MQTT: CPU / a", ratios(costs[VISIT], costs[A], "cpu"), 0.75)
    check_visits(goals, servers, costs[VISIT])
    check_imports(goals, "mqtt 1", servers.environ("mqtt 1"), USED_BY_MQTT, stderr)
    for size, name in WRITTEN.items():
        found = ratios(costs[name], costs[PUSHED[size]], "cpu")
        goals.most(f"remote-write {size}: CPU / Pushgateway", found, 1.2)
        check_writes(goals, servers, size, stderr)
    write = servers.environ(sink="receiver")
    check_imports(goals, "write 1", write, USED_BY_WRITE, stderr)
    if not lacking:
        check_shell(goals, servers, stderr)
    return not goals.missed


def main() -> int:
    """Compare, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, metavar="N")
    rounds = max(1, parser.parse_args().rounds)
    with tempfile.TemporaryDirectory(prefix="ecoflow-push-bench-") as folder:
        servers = Servers(folder)
        try:
            stderr = os.path.join(folder, "stderr")
            return 0 if compare(servers, rounds, stderr) else 1
        finally:
            servers.close()


if __name__ == "__main__":
    sys.exit(main())
