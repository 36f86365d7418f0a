"""Drills: outages of real servers, and kills, with nothing lost and nothing doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.error import HTTPError

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import Answer, Fault, Received, RecordingServer
from tests.one_run import KEYS, SERIALS, quotas
from tests.support import (
    MODULES,
    ROOT,
    Database,
    Points,
    eventually,
    forked,
    free_port,
    prometheus,
    victoria_metrics,
)

# So far back that the last minute of any drill is in the past, and the first one not
# older than what may wait.
START = 14 * 3600
ONE_RUN = ROOT / "tests" / "one_run.py"
KINDS = ("ok", "ok", "ok", "ok", "few", "offline", "failed")
Starter = Callable[..., AbstractContextManager[Database]]


class Line(RecordingServer):
    """The line to a real server, which may fail on the way there or back."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.target = ""
        self.trouble = 0.0
        self._chance = chance

    def next_fault(self, path: str) -> Fault | None:
        """Return a fault in so many requests of a hundred, by luck."""
        if self._chance.random() >= self.trouble:
            return super().next_fault(path)
        return self._chance.choice(
            [
                faults.status(500, b"oops"),
                faults.status(503, Retry_After="0"),
                faults.status(429, Retry_After="1"),
                faults.status(429),
                faults.reset(),
                self._lose_the_answer,
            ]
        )

    def answer(self, received: Received) -> Answer:
        """Pass a request on, and its answer back."""
        request = urllib.request.Request(
            self.target + received.path, received.body, received.headers
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as reply:
                return Answer(reply.status, reply.read())
        except HTTPError as exc:
            return Answer(exc.code, exc.read())

    def _lose_the_answer(self, handler) -> None:
        self.answer(handler.current)
        faults.reset()(handler)


class Drill:
    """Runs of a job, minute by minute, and what became of each snapshot."""

    def __init__(self, folder: Path, between: Line) -> None:
        self.folder = folder
        self.between = between
        self.start = int(time.time()) - START
        self.minute = 0
        #: What was collected: by device, minute and what kind of snapshot it was.
        self.collected: dict[str, dict[int, str]] = {sn: {} for sn in SERIALS}
        self._environ = {
            "PATH": os.defpath,
            "HOME": "/nonexistent",
            "ECOFLOW_ACCESS_KEY": "AK",
            "ECOFLOW_SECRET_KEY": "SK",
            "REMOTE_WRITE_URL": f"{between.url}/api/v1/write",
            "PUSH_INSTANCE": "drill",
            "STATE_DIR": str(folder),
            "DRILL_START": str(self.start),
            "RUN_DEADLINE": "3",
            "ESTABLISH_ATTEMPTS": "2",
            "RETRY_TIMEOUT": "0.05",
        }

    def _next(self, kinds: Sequence[str]) -> list[str]:
        """Return the arguments of the run of the next minute."""
        self.minute += 1
        for sn, kind in zip(SERIALS, kinds, strict=True):
            self.collected[sn][self.minute] = kind
        return [str(self.minute), *kinds]

    def begin(self, *kinds: str) -> subprocess.Popen[str]:
        """Start the run of the next minute."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.one_run", *self._next(kinds)],
            env={**self._environ, "PYTHONPATH": str(ROOT)},
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *kinds: str) -> int:
        """Do the run of the next minute; what it did wrong fails the test."""
        what = (ONE_RUN, self._next(kinds), self._environ)
        done = forked(*what, modules=MODULES, timeout=60)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.status in (0, 1, 69, 75, 76), done.stderr
        return done.status

    def calm_down(self) -> None:
        """Run on without any trouble until nothing waits."""
        self.between.trouble = 0
        until = time.monotonic() + 60
        while self.run(*["ok"] * 3) or self.files("0*"):
            assert time.monotonic() < until, self.files("0*")
            # A Retry-After of the troubled line may still hold.
            time.sleep(0.2)

    def at_ms(self, minute: int) -> int:
        return (self.start + 60 * minute) * 1000

    def files(self, pattern: str) -> list[str]:
        return sorted(path.name for path in self.folder.glob(f"*/spool-*/{pattern}"))

    def dropped(self) -> dict[str, int]:
        (path,) = self.folder.glob("*/state.json")
        return dict(json.loads(path.read_text())["dropped"])

    def expected(self) -> Points:
        """Return what a server must hold if nothing at all was dropped."""
        found: Points = {}
        for sn, minutes in self.collected.items():
            for minute, kind in minutes.items():
                if kind == "failed":
                    continue
                values = quotas(minute, kind) if kind != "offline" else {}
                named = {key.replace(".", "_"): value for key, value in values.items()}
                named["online"] = int(kind != "offline")
                for name, value in named.items():
                    points = found.setdefault(
                        (f"ecoflow_{name}", (("device", sn),)), []
                    )
                    points.append((self.at_ms(minute), float(str(value))))
        return found


def held(database: Database, enough: int) -> Points:
    """Return the quota samples of a server once it shows as many as are expected."""

    def look() -> Points:
        found: Points = {
            (name, (("device", dict(labels)["device"]),)): points
            for (name, labels), points in database.points('{device!=""}').items()
            if "_pd_k" in name or name.endswith("_online")
        }
        is_whole = sum(map(len, found.values())) >= enough
        return found if is_whole or not database.is_victoria else {}

    return eventually(look, 3) or look()


@pytest.mark.case("W1", "W2", "L12")
@pytest.mark.drill("outages")
@pytest.mark.parametrize("start", [prometheus, victoria_metrics])
def test_drill_outages(start, tmp_path, drill):
    """After any outages every snapshot is in the server, once and in order."""
    runs = 200 if drill.is_full else 25
    for number in range(drill.size(1, 3)):
        seed = drill.seed + number
        outages(seed, start, tmp_path / str(seed), runs=runs)


def outages(seed: int, start: Starter, folder: Path, runs: int) -> None:
    folder.mkdir()
    print(f"seed {seed}, {start.__name__}, {runs} runs")
    port = free_port()
    with Line(random.Random(seed + 1)) as between:
        between.target = f"http://127.0.0.1:{port}"
        job = Drill(folder / "state", between)
        chance = random.Random(seed)
        statuses = play(chance, between, job, runs, start, folder / "data", port)
        print("statuses:", {s: statuses.count(s) for s in sorted(set(statuses))})
        with start(folder / "data", port=port) as database:
            job.calm_down()
            expected = job.expected()
            found = held(database, sum(map(len, expected.values())))
    print("requests:", len(between.received), "dropped:", job.dropped())
    assert 75 in statuses
    assert job.dropped() == {}
    assert found == expected


def play(
    chance: random.Random,
    between: Line,
    job: Drill,
    runs: int,
    start: Starter,
    folder: Path,
    port: int,
) -> list[int]:
    """Run through episodes of luck: a server that is up, down, hung or troubled."""
    statuses: list[int] = []
    while len(statuses) < runs:
        episode = chance.choice(["up", "up", "trouble", "trouble", "down", "hung"])
        length = chance.randint(1, 3 if episode == "hung" else 12)
        between.trouble = 0.6 if episode == "trouble" else 0.1
        count = min(length, runs - len(statuses))
        if episode == "down":
            statuses += [one(chance, job) for _ in range(count)]
            continue
        with start(folder, port=port) as database:
            if episode == "hung":
                database.process.send_signal(signal.SIGSTOP)
            statuses += [one(chance, job) for _ in range(count)]
    return statuses


def one(chance: random.Random, job: Drill) -> int:
    return job.run(*chance.choices(KINDS, k=len(SERIALS)))


@pytest.mark.case("S7", "L16")
@pytest.mark.drill("kills")
def test_drill_kills(tmp_path, drill):
    """Killed at any instant, a job loses nothing that was stored; no litter stays."""
    # No more of one job: its minutes would come up with today.
    kills = 500 if drill.is_full else 25
    for number in range(drill.size(1, 10)):
        seed = drill.seed + number
        kill(seed, tmp_path / str(seed), kills)


def kill(seed: int, folder: Path, kills: int) -> None:
    folder.mkdir()
    chance = random.Random(seed)
    with (
        prometheus(folder / "data") as database,
        Line(random.Random(seed + 1)) as between,
    ):
        between.target = database.url
        job = Drill(folder / "state", between)
        accepted: set[tuple[int, str]] = set()
        killed = 0
        longest = 0.3
        while killed < kills:
            # A spool that is seldom empty, and does not grow for ever.
            between.trouble = chance.choice([0.0, 0.3, 1.0])
            status, took = killed_run(job, chance.uniform(0.03, longest))
            killed += status == -9
            # Hardly longer than a run takes, or nothing would be killed.
            longest = longest if status == -9 else max(0.1, took)
            done = [(job.at_ms(job.minute), sn) for sn in SERIALS]
            accepted |= waiting(job) | set(done if status != -9 else ())
        job.calm_down()
        found = held(database, 0)
        print(f"seed {seed}: {killed} kills, {job.minute} runs, {len(accepted)} stored")

    assert job.files(".*") == job.files("bad/*") == job.files("last/.*") == []
    assert job.files("last/*") == sorted([*SERIALS, "@run"])
    assert job.dropped() == {}
    minutes = {job.at_ms(minute): minute for minute in range(1, job.minute + 1)}
    for (name, _), points in found.items():
        times = [at for at, _ in points]
        assert times == sorted(set(times))
        if "_pd_k" in name:
            place = int(name.rpartition("k")[2])
            assert all(value == minutes[at] + place / 64 for at, value in points)
    for at, sn in accepted:
        for place in range(KEYS):
            points = found[f"ecoflow_pd_k{place}", (("device", sn),)]
            assert at in dict(points), (at, sn)


def killed_run(job: Drill, after: float) -> tuple[int, float]:
    """Start a run, kill it `after` seconds; return its status and how long it took."""
    process = job.begin(*["ok"] * 3)
    began = time.monotonic()
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        process.kill()
    _, said = process.communicate()
    # 1: only what the run says of itself was kept away.
    assert process.returncode in (-9, 0, 1, 75), said
    assert "Traceback" not in said, said
    return process.returncode, time.monotonic() - began


def waiting(job: Drill) -> set[tuple[int, str]]:
    """Return when, and of which device, what waits in the spool was collected."""
    names = [name.split(".") for name in job.files("0*")]
    return {(int(at), sn) for at, _, sn in names}
