"""Drills: a run is killed at each of its calls to the kernel, or each is refused."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ecoflow_push.simulator.cloud import SimulatedCloud
from ecoflow_push.simulator.server import RecordingServer
from tests import tracer
from tests.conftest import DELTA, STREAM
from tests.scenes import Choosy, Played, Point, Scene, needs_the_tracer, places
from tests.support import eventually

SERIALS = {DELTA.sn, STREAM.sn}
#: Of a run that is disturbed; the rest would be a bug, or a setting.
STATUSES = (0, 1, 69, 71, 74, 75)


def nothing(scene: Scene) -> None:
    """Leave it as it is."""


def went_well(scene: Scene) -> None:
    assert scene.run().status == 0


def waits(scene: Scene) -> None:
    scene.let_wait(2)


def went_well_and_is_down(scene: Scene) -> None:
    went_well(scene)
    scene.is_down = True


def quarantines(scene: Scene) -> None:
    """Let one record be damaged that waits, and another one be refused for good."""
    scene.let_wait(2)
    damaged = scene.files(f"0*{STREAM.sn}")[0]
    content = bytearray(damaged.read_bytes())
    content[-3] ^= 0x40
    damaged.write_bytes(content)
    scene.receiver.refused = min(p for p in scene.waiting() if p[0] == DELTA.sn)
    spoilt = (STREAM.sn, int(damaged.name.partition(".")[0]))
    scene.lost = {scene.receiver.refused, spoilt}


class Table:
    """What came of each case: all are played, whatever comes of one."""

    def __init__(self) -> None:
        self.seen: Counter[int] = Counter()
        self.failures: list[str] = []

    def play(
        self, case: Callable[..., Played], scene: Scene, *about: int, **more: bool
    ) -> None:
        """Play one case; what is wrong with it is told at the end."""
        try:
            self.seen[case(scene, *about, **more).status] += 1
        except AssertionError as exc:
            met = scene.met()[-1:]
            trace = traceback.format_exception(exc, limit=-1)
            self.failures.append(f"{about} {more or ''} {met}: {''.join(trace)}")
            print(self.failures[-1])

    def close(self) -> None:
        """Print the figures; fail if there is a failure."""
        played = self.seen.total() + len(self.failures)
        print(f"{played} cases, {len(self.failures)} failures,", end=" ")
        print("statuses:", dict(sorted(self.seen.items())))
        assert not self.failures, "\n\n".join(self.failures)


AHEAD: dict[str, str] = {}
ON_FAILURE = {"SPOOL_MODE": "on-failure"}
EVERYTHING = {
    "TEXTFILE_PATH": "{folder}/now/text.prom",
    "PUSHGATEWAY_URL": "{watcher}",
    "HEALTHCHECK_URL": "{watcher}/ping",
}
#: Settings, what went before, and whether it is the app account's.
SCENES = {
    "the first run": (AHEAD, nothing, False),
    "a backlog is drained": (AHEAD, waits, False),
    "a run like any other": (AHEAD, went_well, False),
    "the receiver is down": (AHEAD, went_well_and_is_down, False),
    "all kinds of sinks": (EVERYTHING, went_well, False),
    "records are set aside": (AHEAD, quarantines, False),
    "on failure, the first run": (ON_FAILURE, nothing, False),
    "on failure, a backlog is drained": (ON_FAILURE, waits, False),
    "on failure, the receiver is down": (ON_FAILURE, went_well_and_is_down, False),
    "the app account logs in": (AHEAD, nothing, True),
    "the app account drains": (AHEAD, waits, True),
    "on failure, the app account is down": (ON_FAILURE, went_well_and_is_down, True),
}
SHORT_OF_KILLS = {
    "a backlog is drained": 3,
    "records are set aside": 2,
    "the app account logs in": 2,
}
SHORT_OF_FAULTS = {"a backlog is drained": 4, "the first run": 2}


def rows(short: dict[str, int]) -> list[object]:
    return [
        pytest.param(name, marks=() if name in short else (pytest.mark.late,), id=name)
        for name in SCENES
    ]


@pytest.fixture
def choosy() -> Iterator[Choosy]:
    with Choosy() as receiver:
        yield receiver


@pytest.fixture
def watcher() -> Iterator[RecordingServer]:
    """What takes anything: a Pushgateway, and who watches the job."""
    with RecordingServer() as server:
        yield server


@pytest.fixture
def scene(
    request,
    cloud: SimulatedCloud,
    choosy: Choosy,
    watcher: RecordingServer,
    tmp_path: Path,
) -> Scene:
    """The scene that a test is given the name of, set up."""
    needs_the_tracer()
    settings, before, is_account = SCENES[request.param]
    source = cloud.environ()
    if is_account:
        request.getfixturevalue("fleet")
        ca_file = request.getfixturevalue("ca_file")
        source = {**cloud.account_environ(), "ECOFLOW_CA_FILE": ca_file}
    cloud.devices[:] = [DELTA, STREAM]
    places = {"folder": tmp_path, "watcher": watcher.url}
    scene = Scene(
        {
            **source,
            **{name: value.format(**places) for name, value in settings.items()},
            "REMOTE_WRITE_URL": choosy.write_url,
            "PUSH_INSTANCE": "test",
            "METRICS_SET": "raw",
            "RETRY_TIMEOUT": "0.05",
            "ESTABLISH_ATTEMPTS": "2",
            "RUN_DEADLINE": "20",
        },
        *(choosy, cloud, watcher, tmp_path),
    )
    before(scene)
    scene.keep()
    return scene


# -- kills -----------------------------------------------------------------------------


@pytest.mark.drill("kills")
@pytest.mark.case("S6", "L2", "L16")
@pytest.mark.parametrize("scene", rows(SHORT_OF_KILLS), indirect=True)
def test_a_kill_at_every_call(scene, drill, request):
    """Killed before whichever call, a run loses nothing stored, nor leaves litter."""
    short = SHORT_OF_KILLS.get(request.node.callspec.id, 1)
    table = Table()
    for place in places(scene, drill, tracer.CHANGES, -1, short):
        table.play(killed, scene, place)
    table.close()
    assert table.seen[tracer.KILLED]


def killed(scene: Scene, place: int) -> Played:
    """Kill a run at a place, and let the next ones repair it."""
    before = scene.begin()
    began = time.time()
    done = scene.meet(place, tracer.CHANGES, -1)
    if done.met is None:
        assert done.status in (0, 1, 75), done.stderr
    else:
        assert done.status == tracer.KILLED
    scene.assert_private()
    waiting, taken = scene.waiting(), scene.taken()
    if "SPOOL_MODE" not in scene.environ:
        assert_stored_first(scene, taken - before, waiting, began)
    kept = waiting | taken
    assert before - kept <= scene.lost
    logins, has_login = scene.logins(), scene.has_login()
    assert has_login or not scene.has_used_a_login()

    scene.assert_heals(kept)

    assert scene.logins() - logins <= (not has_login)
    spoilt = {point for point in scene.lost if point != scene.receiver.refused}
    aside = {
        (n[2], int(n[0])) for n in (p.name.split(".", 2) for p in scene.files("bad/*"))
    }
    assert spoilt <= aside <= scene.lost
    assert scene.dropped().keys() <= ({"damaged", "refused"} if scene.lost else set())
    return done


def assert_stored_first(
    scene: Scene, sent: set[Point], waiting: set[Point], began: float
) -> None:
    """What is written ahead was in a file before anybody was sent it."""
    for sn, at in sent - waiting:
        (last,) = scene.files(f"last/{sn}")
        assert last.stat().st_mtime >= began, (sn, at)


# -- errors ----------------------------------------------------------------------------


@pytest.mark.drill("syscalls")
@pytest.mark.case("S2", "S3", "S5", "S16", "L9")
@pytest.mark.parametrize("scene", rows(SHORT_OF_FAULTS), indirect=True)
def test_a_fault_of_every_call(scene, drill, request):
    """Whichever call fails, a run says so and claims nothing, and the next heals."""
    short = SHORT_OF_FAULTS.get(request.node.callspec.id, 1)
    table = Table()
    for place in places(scene, drill, tracer.ERRORS, 0, short):
        turn = place + drill.seed
        table.play(refused, scene, place, turn, stays=False)
        if drill.is_full and place % 3 == drill.seed % 3:
            table.play(refused, scene, place, turn + 1, stays=True)
    table.close()


def refused(scene: Scene, place: int, turn: int, *, stays: bool) -> Played:
    """Let a call fail, or all of its name from there on, and the next ones heal it."""
    before = scene.begin()
    done = scene.meet(place, tracer.ERRORS, turn, stays=stays)
    assert_told(scene, done, before)
    scene.assert_private()
    kept = scene.waiting() | scene.taken()
    assert before - kept <= scene.lost, done

    # Where nothing in the folder can be touched, what is new goes without what waits.
    scene.assert_heals(kept, may_lose=stays)
    return done


def assert_told(scene: Scene, done: Played, before: set[Point]) -> None:
    """One line says how it went, truly."""
    said = done.stderr
    # Where a snapshot is refused, and nothing else can be read that would be taken.
    others = (76,) if scene.receiver.refused else ()
    assert done.status in (*STATUSES, *others), said
    assert len(done.exits) == 1, said
    (line,) = done.exits
    assert f"exit {done.status} " in line
    assert "Traceback" not in said, said
    assert " bug " not in said, said
    taken, waiting = scene.taken() - before, scene.waiting() - before
    is_lost = "could be neither delivered nor stored" in said
    are_read = "devices: 2 ok" in line
    if are_read and "remote-write: ok" in line:
        assert {sn for sn, _ in taken} == SERIALS, said
    if are_read and "pushgateway: ok" in line:
        assert scene.pushed() == SERIALS, said
    if are_read and "textfile: ok" in line:
        assert all(sn in scene.text() for sn in SERIALS), said
    if "samples wait in the spool" in line:
        assert scene.waiting(), said
    if done.status == 0 or (done.status == 75 and are_read):
        assert {sn for sn, _ in taken | waiting} == SERIALS, said
    assert not (is_lost and done.status in (0, 75)), said


@pytest.mark.drill("syscalls")
@pytest.mark.case("S2", "L9")
@pytest.mark.parametrize("scene", ["a backlog is drained"], indirect=True)
def test_a_fault_of_a_call_of_a_process_that_stays(scene, drill):
    """With --every a call that fails costs that beat at most; the next ones go on."""
    table = Table()
    for place in places(scene, drill, tracer.ERRORS, 0, 1):
        table.play(stayed, scene, place, place + drill.seed)
    table.close()


def stayed(scene: Scene, place: int, turn: int) -> Played:
    """Let a call fail once, see beats that go well after it, and stop the process."""
    scene.begin()
    process = scene.begin_to_meet(place, tracer.ERRORS, turn, "--every=1")
    told: list[int] = []

    def has_gone_on() -> bool:
        if scene.met():
            told.append(scene.runs_told())
        return process.poll() is not None or bool(told and told[-1] > told[0] + 1)

    has_ended = eventually(has_gone_on, 20) and process.poll() is not None
    process.terminate()
    _, said = process.communicate(timeout=30)
    done = Played(process.returncode, said, scene.met()[-1] if scene.met() else None)
    assert done.status == 0 or (has_ended and done.status in STATUSES), said
    assert has_ended or told[-1] > told[0] + 1, said
    assert "Traceback" not in said, said
    assert " bug " not in said, said
    beats = [line for line in done.exits if "the schedule was stopped" not in line]
    assert len(done.exits) - len(beats) == (not has_ended), said
    assert all(int(line.split(" exit ")[1].split()[0]) in STATUSES for line in beats)
    assert sum("remote-write: ok" in line for line in beats) <= scene.runs_told()
    kept = scene.waiting() | scene.taken()

    scene.assert_heals(kept)
    return done
