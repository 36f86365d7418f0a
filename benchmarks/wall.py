"""How long a run takes where EcoFlow is far away: wall clock by round trip and devices.

    python -m benchmarks.wall [--rounds N]

A run waits for (3 + devices / lanes) round trips at least: TCP, TLS, the device list,
and the devices, lane by lane. What it takes beyond them is compared with the time that
importing requests, prometheus_client and paho takes, round by round. The way to
EcoFlow is a delayed one (delay.py), the gateway is near. Exits 1 if a goal is missed.
"""

import argparse
import math
import os
import sys
import tempfile

from benchmarks.delay import Delay
from benchmarks.run import IMPORTS, PUSH, Command, Goals, Servers, measure, quantile
from ecoflow_push.api.lanes import lanes_for

SIZES = (1, 3, 10)
ROUND_TRIPS = (0.05, 0.2)
#: What a run may take beyond its round trips, in parts of that import.
MOST, BETTER = 0.8, 0.4
FLOOR = "import"


def trips(size: int) -> int:
    """Return the round trips that a run with `size` devices has to wait for."""
    return 3 + math.ceil(size / lanes_for(size))


def compare(servers: Servers, goals: Goals, rounds: int, stderr: str) -> None:
    """Print a line for each round trip and number of devices, and what is missed."""
    for round_trip in ROUND_TRIPS:
        for size in SIZES:
            environ = servers.environ(f"https {size}", "recorder")
            # The name, not the number: it is to be looked up.
            far = environ["ECOFLOW_API_HOST"].rpartition(":")
            with Delay(int(far[2]), round_trip) as line:
                environ["ECOFLOW_API_HOST"] = f"{far[0]}:{line.port}"
                environ["STATE_DIR"] += f"-wall-{size}"
                commands = {
                    FLOOR: Command(IMPORTS, environ),
                    "run": Command(PUSH, environ),
                }
                costs = measure(commands, rounds, stderr)
            least = trips(size) * round_trip
            walls = [cost.wall for cost in costs["run"]]
            pairs = zip(walls, costs[FLOOR], strict=True)
            beyond = [(wall - least) / floor.wall for wall, floor in pairs]
            low, middle, high = (quantile(beyond, part) for part in (0.25, 0.5, 0.75))
            times = (
                f"; {quantile(walls, 0.5) * 1e3:.0f} ms"
                f" ({quantile(walls, 0.25) * 1e3:.0f}"
                f" to {quantile(walls, 0.75) * 1e3:.0f}),"
                f" import {quantile([f.wall for f in costs[FLOOR]], 0.5) * 1e3:.0f} ms"
            )
            goals.say(
                f"G11 {size:2} devices: wall - {trips(size)} x {round_trip * 1e3:3.0f}"
                f" ms, / import: at most {MOST:.2f}",
                f"{middle:.2f}  (middle half of the rounds: {low:.2f} to {high:.2f});"
                f" {BETTER:.2f} is {'' if middle <= BETTER else 'not '}reached"
                f"{times}",
                met=middle <= MOST,
            )


def main() -> int:
    """Compare, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, metavar="N")
    rounds = max(1, parser.parse_args().rounds)
    goals = Goals()
    with tempfile.TemporaryDirectory(prefix="ecoflow-push-wall-") as folder:
        servers = Servers(folder)
        try:
            compare(servers, goals, rounds, os.path.join(folder, "stderr"))
        finally:
            servers.close()
    return int(goals.missed)


if __name__ == "__main__":
    sys.exit(main())
