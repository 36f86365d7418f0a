"""What a run costs in instructions, and what a large one holds, for any checkout.

    python -m benchmarks.count [FOLDER]

Instructions are counted by valgrind's cachegrind, with the byte code made before: two
counts of one run differ by less than 1 %, whatever else the machine does. A peak is the
kernel's (wait4). FOLDER is another checkout, an older one say, to be counted beside.
"""

import os
import re
import subprocess
import sys
import tempfile

from benchmarks.run import PUSH, ROOT, Command, Servers, start

# Figures that a change may not go above: millions of instructions, MiB.
GOALS = {
    "REST to Pushgateway": 623,
    "MQTT to Pushgateway, cached login": 467,
    "1,000 devices to a text file": 150,
    "1,000 devices by remote-write": 80,
}


def instructions(command: Command, folder: str) -> float:
    """Return the millions of instructions of one run, the better of two."""
    counts = []
    start(command, os.devnull)
    for _ in range(2):
        done = subprocess.run(
            [
                *("valgrind", "--tool=cachegrind", "--cache-sim=no"),
                f"--cachegrind-out-file={folder}/out",
                *command.argv,
            ],
            env=command.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != command.status:
            sys.exit(f"status {done.returncode}: {command.argv}\n{done.stderr}")
        found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
        counts.append(int(found[1].replace(",", "")) / 1e6)
    return min(counts)


def counted(root: str, servers: Servers, folder: str) -> dict[str, float]:
    """Return each figure of the checkout at `root`."""
    push = [PUSH[0], os.path.join(root, "push.py")]
    state = {"STATE_DIR": os.path.join(folder, "state" + root.replace("/", "_"))}
    large = servers.environ("http 1000", "receiver") | state
    large |= {"RUN_DEADLINE": "300", "METRICS_SET": "raw"}
    text = {k: v for k, v in large.items() if k != "REMOTE_WRITE_URL"}
    text["TEXTFILE_PATH"] = os.path.join(folder, "large.prom")
    names = list(GOALS)
    return {
        names[0]: instructions(Command(push, servers.environ() | state), folder),
        names[1]: instructions(
            Command(push, servers.environ("mqtt 1") | state), folder
        ),
        names[2]: start(Command(push, text), os.devnull).peak / 2**20,
        names[3]: start(Command(push, large), os.devnull).peak / 2**20,
    }


def main() -> int:
    """Print the figures, and return 1 if one of ours is over its goal."""
    missed = False
    with tempfile.TemporaryDirectory(prefix="ecoflow-push-count-") as folder:
        servers = Servers(folder)
        try:
            ours = counted(ROOT, servers, folder)
            theirs = counted(sys.argv[1], servers, folder) if sys.argv[1:] else {}
        finally:
            servers.close()
    for name, most in GOALS.items():
        missed |= ours[name] > most
        mark = "met" if ours[name] <= most else "MISSED"
        before = f"{theirs[name]:9.1f}" if theirs else ""
        print(f"{mark:7}{name:36}{before}{ours[name]:9.1f}   at most {most}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
