"""Power cuts: whatever the disk kept of a run, nothing is lost, doubled, or blamed.

A cut is made of a copy of the folder at that instant. What was stored and flushed is
there; what was removed since then may be back, and a file that was overwritten without
being flushed may be the old one (docs/remote-write.md).
"""

from __future__ import annotations

import copy
import random
import shutil
from pathlib import Path
from threading import Lock
from typing import Self

import pytest

from ecoflow_push.memory.state import State
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.simulator import faults
from tests.delivery import DOWN, run, stored, wait_in_spool, waiting
from tests.receiver import PATH, Receiver
from tests.sinks import RemoteWriteKit, run_registry, say

FLEET = [f"R331ZFAKE00000{n:02}" for n in range(10)]


Stored = dict[tuple[tuple[str, str], ...], list[tuple[int, bytes]]]


class Cuts:
    """A run of which the power can fail at every request, and at its end."""

    def __init__(self, kit: RemoteWriteKit, place: Path, chance: random.Random) -> None:
        self._kit = kit
        # A line on which answers get lost, or none.
        self._lost = chance.choice([0.0, 0.0, 0.3])
        self._chance = chance
        # Several requests may be in flight.
        self._lock = Lock()
        self._place = place
        #: Copies of the folder and of what the receiver holds.
        self.cuts: list[tuple[Path, Stored]] = []

    def __enter__(self) -> Self:
        self._kit.state.save()
        self.before = self._copy("before")
        self._kit.server.fail(PATH, self._answer)
        return self

    def __exit__(self, *exc: object) -> None:
        self._kit.server.heal()

    def cut(self) -> None:
        """Let one more cut be at this instant."""
        with self._lock:
            held = copy.deepcopy(self._kit.server.stored)
            self.cuts.append((self._copy(str(len(self.cuts))), held))

    def _answer(self, handler) -> None:
        # Before it was taken, and after, as far as anybody may know.
        self.cut()
        answer = self._kit.server.answer(handler.current)
        self.cut()
        if self._chance.random() < self._lost:
            faults.reset()(handler)
        else:
            handler.send(answer)

    def _copy(self, name: str) -> Path:
        return shutil.copytree(self._kit.folder, self._place / name)


def come_back(
    chance: random.Random, before: Path, after: Path, *, is_settled: bool
) -> None:
    """Let what was removed or overwritten without a flush be as before, by luck.

    What has settled has flushed its removals.
    """
    share = chance.choice([0.0, 0.3, 0.7, 1.0])
    for old in before.glob(f"spool-*/{'last' if is_settled else '**'}/*"):
        new = after / old.relative_to(before)
        if old.is_file() and chance.random() < share:
            shutil.copy(old, new)


@pytest.mark.case("S8")
@pytest.mark.drill("power")
def test_drill_power_cuts(tmp_path, drill):
    """What comes back is no loss, nothing fails, and all is there once and in order."""
    wanted, cuts = drill.size(25, 5000), 0
    chance = random.Random(drill.seed)
    while cuts < wanted:
        folder = tmp_path / f"history-{cuts}"
        with Receiver() as receiver:
            cuts += history(chance, folder, receiver, wanted - cuts)
        shutil.rmtree(folder)
    print(f"{cuts} cuts")


def history(chance: random.Random, folder: Path, receiver: Receiver, most: int) -> int:
    """Cut a replay wherever it can be; return how often."""
    devices = FLEET[: chance.choice([1, 2, 3, 10])]
    home, place = folder / "home", folder / "cuts"
    home.mkdir(parents=True)
    with State.open(str(home / "state")) as state:
        kit = RemoteWriteKit(home, state, receiver)
        if chance.random() < 0.5:
            run(kit, *map(say, devices))
        expected = {sn: stored(kit, sn) for sn in devices}
        wait_in_spool(kit, chance.randint(1, 6), *devices)
        sink = kit.sink()
        kit.begin(sink, *map(say, devices))
        for entry in waiting(kit):
            expected[entry.device].append(entry.time_ms)
        with Cuts(kit, place, chance) as cuts:
            sink.deliver(Deadline(10))
            cuts.cut()
        sink.settle(Deadline(10))
        cuts.cut()
        sink.deliver_run(run_registry(), Deadline(10))
        cuts.cut()
        flushed = len(cuts.cuts)
        state.runs += 1
        state.save()
        cuts.cut()
        sink.close()
    chosen = list(enumerate(cuts.cuts))
    for number, (after, held) in chance.sample(chosen, min(most, len(chosen))):
        if number < flushed:
            come_back(chance, cuts.before, after, is_settled=number > flushed - 3)
        receiver.stored = held
        live = chance.sample(devices, chance.randint(0, len(devices)))
        start_again(chance, after, receiver, live, expected)
    return min(most, len(chosen))


def start_again(
    chance: random.Random,
    folder: Path,
    receiver: Receiver,
    live: list[str],
    expected: dict[str, list[int]],
) -> None:
    """Run after a cut, with these devices, and look what came of it."""
    with State.open(str(folder / "state")) as state:
        kit = RemoteWriteKit(folder, state, receiver)
        lost = receiver.store_then_lose()
        receiver.script = chance.choice([[], [], [DOWN] * 9, [None, lost, lost, lost]])
        sink, runs = run(kit, *map(say, live)), 1
        state.save()
        receiver.script = []
        while runs < 2 or (waiting(kit) and runs < 5):
            sink, runs = run(kit, *map(say, live)), runs + 1
            assert sink.delivery.errors == []
            assert sink.delivery.run_errors == []
        assert sum(state.dropped.values()) == 0
        for sn, times in expected.items():
            found = stored(kit, sn)
            assert found[: len(times)] == sorted(times)
            assert len(found) == len(times) + runs * (sn in live)
    assert receiver.outrages == []
