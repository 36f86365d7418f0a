"""Scenes: a job, what waits in its spool, and the servers it meets, to be played often.

What a run leaves behind is held against what it found, and against the receiver.
"""

from __future__ import annotations

import json
import os
import platform
import random
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedCloud
from ecoflow_push.simulator.server import Answer, Received, RecordingServer
from tests import tracer
from tests.drill import Drill
from tests.receiver import Receiver, Sample
from tests.support import PUSH, ROOT

TRACER = str(ROOT / "tests" / "tracer.py")
# Of the kernel: it stops at the calls of a program.
NEEDS = "it needs Linux on x86-64, and ptrace to be allowed"
DEVICE = re.compile(r"/device/([^/]+)")
#: A record: of which device, and when (ms) it was collected.
Point = tuple[str, int]


class Played(NamedTuple):
    """One run of a scene."""

    status: int
    stderr: str
    #: Number, name, what about, and what was done there; None if it never came to it.
    met: tuple[int, str, str, str] | None = None

    @property
    def exits(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if " exit " in line]


class Choosy(Receiver):
    """Refuses one snapshot for good, whoever sends it how often.

    A request that was cut off by a kill is no sender's fault.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refused: Point | None = None

    def answer(self, received: Received) -> Answer:
        """Take what came whole."""
        if len(received.body) < int(received.headers.get("content-length", 0)):
            return Answer(400)
        return super().answer(received)

    def _is_good(self, sample: Sample) -> bool:
        if (sample.label("device"), sample.timestamp_ms) == self.refused:
            return False
        return super()._is_good(sample)


class Scene:
    """A state folder that is set up once, and what is around it."""

    def __init__(
        self,
        environ: dict[str, str],
        receiver: Choosy,
        cloud: SimulatedCloud,
        gateway: RecordingServer,
        folder: Path,
    ) -> None:
        """Use the settings; `folder` is where its files are."""
        self.environ = {
            "PATH": os.defpath,
            # Without it Python looks up the user, with sockets of its own.
            "HOME": "/nonexistent",
            **environ,
            "STATE_DIR": str(folder / "now" / "state"),
        }
        self.receiver = receiver
        self.cloud = cloud
        self.gateway = gateway
        self.state = folder / "now" / "state"
        #: Records that are not to come to the receiver.
        self.lost: set[Point] = set()
        #: Whether the receiver fails in the run in question, not in those after it.
        self.is_down = False
        self._folder = folder
        self._stored: dict[tuple[tuple[str, str], ...], list[tuple[int, bytes]]] = {}
        self.state.parent.mkdir(parents=True)

    # -- setting up -----------------------------------------------------------------

    def let_wait(self, runs: int) -> None:
        """Let the snapshots of some runs wait."""
        self.receiver.fail("/", faults.status(503))
        for _ in range(runs):
            done = self.run()
            assert done.status == 75, done.stderr
        self.receiver.heal()

    def keep(self) -> None:
        """Let each play begin with what is there now."""
        shutil.copytree(self._folder / "now", self._folder / "first", symlinks=True)
        self._stored = {key: list(p) for key, p in self.receiver.stored.items()}

    def begin(self) -> set[Point]:
        """Set up what was kept; return what is stored there."""
        shutil.rmtree(self._folder / "now")
        shutil.copytree(self._folder / "first", self._folder / "now", symlinks=True)
        receiver = self.receiver
        receiver.stored.clear()
        receiver.stored.update({key: list(p) for key, p in self._stored.items()})
        heard = (receiver.requests, receiver.received, receiver.outrages)
        for one in (*heard, self.cloud.received, self.gateway.received):
            one.clear()
        self.text_file.unlink(missing_ok=True)
        return self.waiting() | self.taken()

    # -- playing --------------------------------------------------------------------

    def run(self) -> Played:
        """Do a run that nothing happens to."""
        done = subprocess.run(
            [sys.executable, PUSH],
            env=self.environ,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Played(done.returncode, done.stderr)

    def meet(
        self, place: int, calls: Iterable[str], turn: int, *, stays: bool = False
    ) -> Played:
        """Do a run in which something happens at a call."""
        if self.is_down:
            self.receiver.fail("/", faults.status(503))
        process = self.begin_to_meet(place, calls, turn, stays=stays)
        _, said = process.communicate(timeout=120)
        self.receiver.heal()
        met = self.met()
        return Played(process.returncode, said, met[-1] if met else None)

    def begin_to_meet(
        self,
        place: int,
        calls: Iterable[str],
        turn: int,
        *options: str,
        stays: bool = False,
    ) -> subprocess.Popen[str]:
        """Start such a run."""
        self._report.unlink(missing_ok=True)
        folders = [str(self._folder / "now")]
        order = tracer.Order(
            folders, list(calls), place, turn, stays, str(self._report)
        )
        return subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", TRACER, json.dumps(order._asdict())),
                *(sys.executable, str(PUSH), *options),
            ],
            env=self.environ,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def count(self, calls: Iterable[str], turn: int) -> int:
        """Return at how many places something can happen."""
        self.begin()
        done = self.meet(-1, calls, turn)
        assert done.met, done.stderr
        return done.met[0] + 1

    def met(self) -> list[tuple[int, str, str, str]]:
        """Return what the last such run has met so far."""
        with suppress(OSError):
            lines = self._report.read_text().splitlines()
            return [tuple(json.loads(line)) for line in lines]
        return []

    @property
    def _report(self) -> Path:
        return self._folder / "report"

    # -- what is there --------------------------------------------------------------

    def files(self, pattern: str) -> list[Path]:
        return sorted(self.state.glob(f"*/spool-*/{pattern}"))

    def waiting(self) -> set[Point]:
        """Return the records in the spool."""
        names = [path.name.split(".") for path in self.files("0*")]
        return {(sn, int(at)) for at, _, sn in names}

    def taken(self) -> set[Point]:
        """Return the records that the receiver has, each of them whole."""
        found: dict[Point, set[str]] = {}
        for labels, points in self.receiver.stored.items():
            told = dict(labels)
            if sn := told.get("device"):
                for at, _ in points:
                    found.setdefault((sn, at), set()).add(told["__name__"])
        names: dict[str, set[str]] = {}
        for (sn, _), each in found.items():
            names.setdefault(sn, set()).update(each)
        parts = {point for point, each in found.items() if each != names[point[0]]}
        assert not parts, f"in part: {parts}"
        return set(found)

    def runs_told(self) -> int:
        """Return how many runs' own series the receiver has."""
        own = [
            points
            for labels, points in self.receiver.stored.items()
            if ("__name__", "ecoflow_push_exit_status") in labels
        ]
        return sum(map(len, own))

    def dropped(self) -> dict[str, int]:
        found = {}
        for path in self.state.glob("*/state.json"):
            found = dict(json.loads(path.read_text())["dropped"])
        return {reason: count for reason, count in found.items() if count}

    def pushed(self) -> set[str]:
        """Return of which devices a Pushgateway was pushed anything."""
        paths = [r.path for r in self.gateway.received if r.method == "PUT"]
        return {found[1] for path in paths if (found := DEVICE.search(path))}

    @property
    def text_file(self) -> Path:
        return self._folder / "now" / "text.prom"

    def text(self) -> str:
        """Return what is in the text file of this play."""
        return self.text_file.read_text() if self.text_file.exists() else ""

    def logins(self) -> int:
        """Return how often somebody logged in since the play began."""
        return sum(one.path == "/auth/login" for one in self.cloud.received)

    def has_used_a_login(self) -> bool:
        """Return whether a login was used for anything since the play began."""
        return any("/certification" in one.path for one in self.cloud.received)

    def has_login(self) -> bool:
        """Return whether a login is kept."""
        files = list(self.state.glob("*/account.json"))
        return any(json.loads(path.read_text())["login"] for path in files)

    # -- what must hold -------------------------------------------------------------

    def assert_private(self) -> None:
        """Whatever happened, what there is can be read by us alone."""
        for path in [self.state, *self.state.rglob("*")]:
            if os.path.lexists(path):
                mode = stat.S_IMODE(path.lstat().st_mode)
                assert mode == (0o700 if path.is_dir() else 0o600), (path, oct(mode))

    def assert_heals(self, kept: set[Point], *, may_lose: bool = False) -> None:
        """The next runs deliver all that was kept, once and in order; no litter.

        Where something `may_lose`, that is told and counted.
        """
        said = []
        for _ in range(3):
            done = self.run()
            said.append(done.stderr)
            assert done.status in (0, 1, 75), said
            assert "Traceback" not in done.stderr, said
            if not (done.status or self.waiting()):
                break
        else:
            raise AssertionError("\n".join(said))
        missing = kept - self.taken() - self.lost
        assert not missing or may_lose, (missing, said)
        assert not missing or self.dropped(), said
        assert not missing or "samples dropped" in "".join(said), said
        litter = list(self._folder.joinpath("now").rglob("*.tmp*"))
        assert not litter
        for points in self.receiver.stored.values():
            times = [at for at, _ in points]
            assert times == sorted(set(times))
        assert self.receiver.outrages == []
        self.assert_private()


def needs_the_tracer() -> None:
    """Skip the test where no call of a program can be stopped at."""
    is_known = (platform.system(), platform.machine()) == ("Linux", "x86_64")
    order = tracer.Order([], ["openat"], -1, -1, False, os.devnull)
    command = [sys.executable, "-I", "-S", TRACER, json.dumps(order._asdict())]
    if not is_known or subprocess.run([*command, "/bin/true"], check=False).returncode:
        pytest.skip(NEEDS)


def places(
    scene: Scene, drill: Drill, calls: Iterable[str], turn: int, short: int
) -> Iterable[int]:
    """Return at which places of a scene something is to happen: in full, at all."""
    total = scene.count(calls, turn)
    size = drill.size(short, total)
    # A run that is disturbed may come to more.
    chance = random.Random(drill.seed)
    return range(total) if size >= total else sorted(chance.sample(range(total), size))
