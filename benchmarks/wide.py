"""What is not one run: the beats of --every, a thousand devices, and a long way.

run.py asks for these.
"""

import importlib.util
import os
import sys

from benchmarks.goals import Goals
from benchmarks.process import PUSH, ROOT, Command, Cost, Servers, start

BEATER = [sys.executable, os.path.join(ROOT, "benchmarks", "beats.py")]
EVERY = "--every=60"
BEATS = 20
BEAT = "   a beat of push.py --every, 1 device"
TEXT = "   push.py, 1,000 devices to a text file"
JSON = "   json_floor.py, the same 1,000 answers"
#: No deadline is to end what is large.
PATIENT = {"RUN_DEADLINE": "3000"}
WALL = "benchmarks.wall"
AWAY = "50 ms away: wall beyond its round trips / three imports"


def beats(servers: Servers, rounds: int, stderr: str) -> list[Cost]:
    """Return the cost of a beat, round by round: that of some beats less that of one.

    Its peak is that of the process which stays.
    """
    environ = servers.environ()
    found = []
    for _ in range(rounds):
        one, all_ = (
            start(Command([*BEATER, str(count), PUSH[1], EVERY], environ), stderr)
            for count in (1, BEATS + 1)
        )
        cpu, wall = ((all_[n] - one[n]) / BEATS for n in range(2))
        found.append(Cost(cpu, wall, all_.peak, all_.ended))
    return found


def large(servers: Servers, rounds: int, stderr: str) -> tuple[list[Cost], list[Cost]]:
    """Return what 1,000 devices cost to a text file, and what their JSON does."""
    environ = servers.environ("http 1000", "textfile") | PATIENT
    script = os.path.join(ROOT, "benchmarks", "json_floor.py")
    floor = [sys.executable, script, servers.ask("answers")["answers"]]
    pairs = [
        (start(Command(PUSH, environ), stderr), start(Command(floor, environ), stderr))
        for _ in range(rounds)
    ]
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]


def tenfold(servers: Servers, stderr: str) -> Cost:
    """Return what 10,000 devices cost by remote-write."""
    environ = servers.environ("http 10000", "receiver") | PATIENT
    cost = start(Command(PUSH, environ), stderr)
    servers.ask("http 10000")  # which frees what the recorder holds
    return cost


def check_wall(goals: Goals, servers: Servers, rounds: int, stderr: str) -> None:
    """Demand the goal of a long way, where there is what measures it (wall.py)."""
    if importlib.util.find_spec(WALL):
        importlib.import_module(WALL).compare(servers, goals, rounds, stderr)
        goals.judged(AWAY)
