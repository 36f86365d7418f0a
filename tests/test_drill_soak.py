"""Many beats in one process, with faults: it holds no more at the end than before."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedCloud
from ecoflow_push.simulator.server import Answer, Fault, Received, RecordingServer
from tests.conftest import DELTA, STREAM
from tests.mqtt import paths, use
from tests.receiver import Receiver
from tests.scripted_broker import ScriptedBroker
from tests.support import ROOT, free_port

pytestmark = pytest.mark.drill("soak")

Row = dict[str, Any]
#: What the memory may grow by (KiB a beat), threads and descriptors not at all but for
#: those of a request that hangs at that moment.
MOST_SLOPE, FEW = 1.0, 4
# What the servers do instead of answering, and how often.
QUICK = (
    *(faults.status(500), faults.status(503), faults.status(429, Retry_After="0")),
    *(faults.status(404), faults.status(401), faults.reset(), faults.cut()),
    *(faults.page(), faults.body(b'{"code":"0","data":7}'), faults.body(b"")),
    *(faults.redirect("http://127.0.0.1:9/"), faults.raw(b"\x00\x01\x02")),
)
KINDS: tuple[object, ...] = (
    0,
    1.5,
    True,
    None,
    "text",
    [],
    [1, 2],
    {"a": 1, "b": [{"c": 2}]},
    [{"d": 3}],
)
SLOW = (faults.hang(), faults.drip_body(0.05), faults.drip_headers(0.05))


class Moods:
    """Which fault is due, at random."""

    def __init__(self, seed: int, quick: float, slow: float) -> None:
        self._chance = random.Random(seed)
        self._quick = quick
        self._slow = slow

    def __call__(self) -> Fault | None:
        kind = self._chance.random()
        if kind < self._slow:
            return self._chance.choice(SLOW)
        if kind < self._slow + self._quick:
            return self._chance.choice(QUICK)
        return None


class MoodyCloud(SimulatedCloud):
    """Fails as its moods say."""

    moods: Moods

    def next_fault(self, path: str) -> Fault | None:
        """Return the mood."""
        return self.moods()


class ShiftingCloud(SimulatedCloud):
    """Its devices have other keys and kinds of values at each list."""

    chance: random.Random

    def next_fault(self, path: str) -> Fault | None:
        """Answer well, of devices that have just changed."""
        if "device/list" in path:
            self.devices[:] = [
                replace(device, quotas=self._changed()) for device in self.devices
            ]
        return None

    def _changed(self) -> dict[str, object]:
        size = self.chance.randrange(5, 80)
        kinds = [self.chance.choice(KINDS) for _ in range(size)]
        start = self.chance.randrange(100)
        return {f"part{n % 7}.key{start + n}": kind for n, kind in enumerate(kinds)}


class MoodyServer(RecordingServer):
    """A gateway, or whoever is to be pinged."""

    moods: Moods

    def next_fault(self, path: str) -> Fault | None:
        """Return the mood."""
        return self.moods()


class MoodyReceiver(Receiver):
    """Keeps the last requests alone."""

    moods: Moods
    taken = 0

    def next_fault(self, path: str) -> Fault | None:
        """Return the mood, but for whoever proves the address."""
        fault = super().next_fault(path)
        del self.received[:-20]
        del self.requests[:-20]
        return fault or self.moods()

    def answer(self, received: Received) -> Answer:
        """Take no request whose sender was out of time before its end."""
        if len(received.body) < int(received.headers.get("content-length", 0)):
            return Answer(400)
        return super().answer(received)


def beaten(environ: dict[str, str], count: int, seed: int, log: Path) -> list[Row]:
    """Return what a process held that did so many beats, from time to time."""
    # Fewer have no slope, however small DRILL_SIZE is.
    count = max(6, count)
    every = max(3, count // 100)
    with open(log, "w", encoding="utf-8") as stderr:
        done = subprocess.run(
            [sys.executable, "-m", "tests.beats", str(count), str(every), str(seed)],
            env={"PATH": os.defpath, "HOME": "/nonexistent", "PYTHONPATH": str(ROOT)}
            | environ,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            timeout=3600,
            check=False,
        )
    said = log.read_text()
    assert done.returncode == 0, said[-3000:]
    assert "Traceback" not in said
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows[-1]["beat"] == count // every * every
    # The schedule's first word, and one of each beat.
    ends = said.count(" exit ")
    assert ends == count, said[-3000:]
    return rows


def slope(rows: list[Row]) -> float:
    """Return by how much the memory grew (KiB a beat), by least squares."""
    xs = [row["beat"] for row in rows]
    ys = [row["memory"] for row in rows]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    wide = sum((one - x) ** 2 for one in xs)
    grown: float = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / wide
    return grown


def assert_flat(rows: list[Row], *, is_full: bool) -> None:
    # The first third is for caches to fill; a few beats are all that.
    later = rows[len(rows) // 3 :]
    grown = slope(later)
    print(f"statuses {rows[-1]['statuses']}; {grown:.4f} KiB a beat,", end=" ")
    print(f"{later[0]['memory']} then {later[-1]['memory']} KiB;", end=" ")
    for what in ("threads", "files"):
        seen = [row[what] for row in later]
        print(f"{what} {min(seen)} to {max(seen)};", end=" ")
        assert max(seen) - min(seen) <= FEW, rows
        middle = len(seen) // 2
        assert not is_full or min(seen[middle:]) <= min(seen[:middle]), rows
    print()
    if is_full and rows[-1]["beat"] >= 1000:
        assert grown < MOST_SLOPE, rows


@pytest.mark.case("L13")
def test_a_drill_of_many_beats(tmp_path, drill):
    """Memory, threads and descriptors stay, whatever servers and host do."""
    count = drill.size(25, 10_000)
    # Each waits now and then for what hangs.
    processes = 4 if drill.is_full else 1

    def live(number: int) -> list[Row]:
        folder = tmp_path / str(number)
        folder.mkdir()
        return lived(folder, count // processes, drill.seed + 10 * number)

    with ThreadPoolExecutor(processes) as pool:
        all_rows = list(pool.map(live, range(processes)))
    for rows in all_rows:
        assert_flat(rows, is_full=drill.is_full)
        # So few may all go well, or meet one and the same fault.
        assert {"0"} < set(rows[-1]["statuses"]) or rows[-1]["beat"] < 100
        assert "70" not in rows[-1]["statuses"]


def lived(folder: Path, count: int, seed: int) -> list[Row]:
    """Return what a process held among servers that fail at random."""
    cloud, receiver = MoodyCloud([DELTA, STREAM]), MoodyReceiver()
    gateway, watcher = MoodyServer(), MoodyServer()
    moods = [Moods(seed + number, 0.05, 0.001) for number in range(4)]
    cloud.moods, gateway.moods, receiver.moods, watcher.moods = moods
    cloud.keeps = gateway.keeps = watcher.keeps = 50
    with cloud, gateway, receiver, watcher:
        environ = {
            **cloud.environ(),
            "PUSHGATEWAY_URL": gateway.url,
            "REMOTE_WRITE_URL": receiver.write_url,
            "HEALTHCHECK_URL": watcher.url,
            "TEXTFILE_PATH": str(folder / "out.prom"),
            "EXPORTER_PORT": str(free_port()),
            "STATE_DIR": str(folder / "state"),
            "RUN_DEADLINE": "1",
            "RETRY_TIMEOUT": "0.01",
            "LOG_LEVEL": "INFO",
        }
        rows = beaten(environ, count, seed, folder / "log")
        assert receiver.outrages == []
    return rows


def test_a_drill_of_changing_shapes(tmp_path, drill):
    """Memory stays, though no beat's maps have the shape of those before."""
    count = drill.size(12, 10_000)
    processes = 4 if drill.is_full else 1

    def live(number: int) -> list[Row]:
        cloud, receiver = ShiftingCloud([DELTA, STREAM]), MoodyReceiver()
        cloud.chance = random.Random(drill.seed + number)
        receiver.moods = Moods(0, 0, 0)
        cloud.keeps = 50
        with cloud, receiver:
            environ = {
                **cloud.environ(),
                "REMOTE_WRITE_URL": receiver.write_url,
                "TEXTFILE_PATH": str(tmp_path / f"{number}.prom"),
                "STATE_DIR": str(tmp_path / f"state{number}"),
                "LOG_LEVEL": "INFO",
            }
            log = tmp_path / f"log{number}"
            return beaten(environ, count // processes, 0, log)

    with ThreadPoolExecutor(processes) as pool:
        for rows in pool.map(live, range(processes)):
            assert_flat(rows, is_full=drill.is_full)
            statuses = rows[-1]["statuses"]
            assert {"0"} <= set(statuses) <= {"0", "1", "75", "78"}, statuses


@pytest.mark.case("M15")
def test_a_drill_of_sessions(account, fleet, cloud, pushgateway, tmp_path, drill):
    """However many sessions with a broker one process has, none leaves a thing."""
    count = drill.size(6, 1000)

    rows = beaten(account, count, drill.seed, tmp_path / "log")

    # Between two sweeps too: the three of any process, and one that looks.
    assert max(row["files"] for row in rows) <= FEW + 2
    assert_flat(rows, is_full=drill.is_full)
    statuses = rows[-1]["statuses"]
    assert statuses.get("0", 0) > 0.9 * count, statuses
    assert len(fleet.asked) >= statuses["0"]
    assert paths(cloud).count("/auth/login") <= 1 + 0.1 * count


@pytest.mark.late
@pytest.mark.case("M15", "M9")
@pytest.mark.parametrize("kind", ["hangs up", "refuses", "is silent"])
def test_a_drill_of_sessions_that_fail(kind, account, cloud, tmp_path, drill):
    """Nor do those that fail, in whatever way."""
    count = drill.size(3, 60 if kind == "is silent" else 1000)
    cloud.keeps = 50
    scripts: dict[str, dict[str, Any]] = {
        "hangs up": {"hangs_up": True},
        "refuses": {"connack": 3},
        "is silent": {"connack": None},
    }
    account |= {"RUN_DEADLINE": "2", "MQTT_TIMEOUT": "1"}
    with ScriptedBroker(**scripts[kind]) as broker:
        use(cloud, broker)
        rows = beaten(account, count, drill.seed, tmp_path / "log")
        assert broker.connects > 0.9 * count
    assert max(row["files"] for row in rows) <= FEW + 2
    assert_flat(rows, is_full=drill.is_full)
