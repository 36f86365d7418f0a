"""Commands, what each of them cost, and the process of the servers they speak to.

CPU and peak memory are the kernel's accounts of the ended process (wait4), with the
children it waited for; the peak is that of the largest one. Linux counts the starting
process's memory as the least peak of what it starts, so who measures peaks imports
little and leaves the servers to another.
"""

import json
import os
import subprocess
import sys
import time
from typing import Any, NamedTuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PUSH = [sys.executable, os.path.join(ROOT, "push.py")]
IMPORTS = [sys.executable, "-c", "import requests, prometheus_client, paho.mqtt.client"]
MAX_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


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
        self._places: dict[str, Any] = self._read()

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
            **self.sink(sink),
            **self._places["clouds"][cloud],
        }

    def sink(self, name: str) -> dict[str, str]:
        """Return the settings of a sink; `textfile` is a file of this folder."""
        if name == "textfile":
            return {"TEXTFILE_PATH": os.path.join(self._folder, "ecoflow.prom")}
        return dict(self._places["sinks"][name])

    def ask(self, what: str) -> dict[str, Any]:
        """Return the answer of servers.py to `what`."""
        print(json.dumps(what), file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        line = next(iter(self._process.stdout or ()), "")
        if not line:
            sys.exit("The servers ended; their own words are above.")
        answer: dict[str, Any] = json.loads(line)
        return answer


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
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            cost = start(command, stderr)
            if number:  # round 0 is the warm-up, which also leaves the byte code
                costs[name].append(cost)
    return costs


def ratios(these: list[Cost], those: list[Cost], what: str) -> list[float]:
    """Return the ratio of each round."""
    pairs = zip(these, those, strict=True)
    return [getattr(this, what) / getattr(that, what) for this, that in pairs]


def content(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
