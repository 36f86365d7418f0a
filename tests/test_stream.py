"""The stream of a run, with sources that only a double can be."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from ecoflow_push.api.base import EcoflowApiClient, Reading
from ecoflow_push.api.models import DeviceInfo, Snapshot
from ecoflow_push.errors import (
    ApiOutOfTime,
    DeviceRefused,
    EcoflowApiException,
    KeysRefused,
)
from ecoflow_push.memory.spool import Spool
from ecoflow_push.memory.state import State
from ecoflow_push.metrics.labels import Labels
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.run.around import Around
from ecoflow_push.run.check import Check
from ecoflow_push.run.collect import AHEAD, collect
from ecoflow_push.run.updates import Updates
from ecoflow_push.run.wanted import Wanted, Wording
from ecoflow_push.run.worker import Worker
from ecoflow_push.sinks.base import Sink, TimestampedSink, Update
from ecoflow_push.sinks.queue import Queue
from ecoflow_push.sinks.textfile import TextfileSink
from tests.support import eventually, parse

LABELS = Labels("ecoflow", "test", "ecoflow", {})
SERIALS = [f"R331ZFAKE{n:07}" for n in range(200)]


class Source(EcoflowApiClient):
    """Yields what it is given, or does what it is told instead."""

    title = "a double"

    def __init__(
        self,
        readings: Callable[[Sequence[str]], Iterator[Reading]],
        name: str = "rest",
        wanted: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.name = name
        self.wanted = [DeviceInfo(sn) for sn in wanted]
        self._readings = readings

    def read(self, named, deadline):
        yield from self._readings(named)

    def probe(self, deadline):
        yield from ()

    def close(self):
        pass


class Quotas(dict[str, object]):
    """A map that can be watched."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # each is its own


def read(sn: str, name: str = "rest", **quotas: object) -> Reading:
    snapshot = Snapshot(sn, Quotas(quotas), time.time())
    return Reading(DeviceInfo(sn, online=True), name, snapshot)


def failed(sn: str, error: EcoflowApiException, name: str = "rest") -> Reading:
    return Reading(DeviceInfo(sn), name, error=error)


def worker(
    sources: Sequence[EcoflowApiClient],
    folder: Path,
    *sinks: Sink,
    deadline: float = 20.0,
    named: Sequence[str] = (),
) -> Worker:
    state = State.open(str(folder / "state"))
    updates = Updates(state, LABELS, Wanted(named), Wording(), 300)
    return Worker(sources, sinks, updates, state, labels=LABELS, deadline=deadline)


def served(path: Path) -> dict[str, float]:
    """Return the raw values in a text file, by device."""
    series = parse(path.read_text()).items()
    return {dict(k[1])["device"]: v for k, v in series if k[0] == "ecoflow_odd"}


def test_a_bug_is_70_and_the_run_says_so(tmp_path, caplog):
    """A bug ends in 70 with one traceback, and the run's series still go out."""

    def readings(named: Sequence[str]) -> Iterator[Reading]:
        yield read(SERIALS[0], odd=1)
        raise ZeroDivisionError

    path = tmp_path / "out.prom"

    status = worker([Source(readings)], tmp_path, TextfileSink(str(path))).run()

    assert status == 70
    series = parse(path.read_text())
    assert series["ecoflow_push_exit_status", ()] == 70
    assert [bool(record.exc_info) for record in caplog.records] == [True, False]


class Double(Sink):
    """Counts how often it is settled, and notes the time (s) for the run's own series.

    `deliver` is a bug if it is told so.
    """

    def __init__(self, name: str, *, is_buggy: bool = False) -> None:
        super().__init__()
        self.name = name
        self.settled = 0
        self.left_for_run = 0.0
        self.is_left = False
        self._is_buggy = is_buggy

    def deliver(self, deadline):
        if self._is_buggy:
            raise ZeroDivisionError

    def settle(self, deadline):
        self.settled += 1

    def deliver_run(self, registry, deadline):
        self.left_for_run = deadline.left()
        if self.name == "hangs":
            threading.Event().wait(60)

    def abandon(self):
        self.is_left = True

    def probe(self, deadline):
        return iter(())


@pytest.mark.parametrize("where", ["source", "sink", "nowhere"])
def test_whatever_happens_each_sink_is_settled_once(where, tmp_path):
    """A bug, wherever it is, keeps no sink from storing what it was given."""

    def readings(named: Sequence[str]) -> Iterator[Reading]:
        yield read(SERIALS[0], odd=1)
        if where == "source":
            raise ZeroDivisionError

    sinks = Double("first", is_buggy=where == "sink"), Double("second")

    status = worker([Source(readings)], tmp_path, *sinks).run()

    assert status == (0 if where == "nowhere" else 70)
    assert [sink.settled for sink in sinks] == [1, 1]


def test_each_sink_has_time_for_the_run_s_own_series(tmp_path):
    """A sink that hangs with the run's own series leaves time to the next one."""
    hangs, other = Double("hangs"), Double("other")
    source = Source(lambda _: iter([read(SERIALS[0], odd=1)]))

    worker([source], tmp_path, hangs, other, deadline=2.0).run()

    assert hangs.is_left
    assert other.left_for_run > 0
    assert not other.is_left


def test_a_device_is_let_go_before_the_next_ones_are_there(tmp_path):
    """However many devices there are, few of their maps are ever alive at once."""
    alive: weakref.WeakSet[Quotas] = weakref.WeakSet()
    most = 0

    def readings(named: Sequence[str]) -> Iterator[Reading]:
        nonlocal most
        for number, sn in enumerate(SERIALS):
            reading = read(sn, odd=number)
            assert reading.snapshot
            assert isinstance(reading.snapshot.quotas, Quotas)
            alive.add(reading.snapshot.quotas)
            most = max(most, len(alive))
            yield reading

    path = tmp_path / "out.prom"

    assert worker([Source(readings)], tmp_path, TextfileSink(str(path))).run() == 0

    assert served(path) == {sn: n for n, sn in enumerate(SERIALS)}
    assert most <= AHEAD + 8
    gc.collect()
    assert not alive


def test_of_heavy_maps_fewer_wait(tmp_path):
    """Where maps are heavy, no more of them wait than a few megabytes' worth."""
    made: list[str] = []
    release = threading.Event()

    def readings(named: Sequence[str]) -> Iterator[Reading]:
        for sn in SERIALS[:20]:
            made.append(sn)
            snapshot = Snapshot(sn, {"odd": 1}, time.time(), weight=3 << 20)
            yield Reading(DeviceInfo(sn), "rest", snapshot)

    class Waits(TextfileSink):
        def take(self, update: Update, deadline: Deadline) -> None:
            release.wait(20)
            super().take(update, deadline)

    path = tmp_path / "out.prom"
    job = worker([Source(readings)], tmp_path, Waits(str(path)))
    thread = threading.Thread(target=job.run)
    thread.start()

    # One is being taken, two wait, and one is made.
    assert eventually(lambda: len(made) == 4)
    time.sleep(0.2)
    assert len(made) == 4
    release.set()
    thread.join()
    assert len(served(path)) == 20


def test_every_sink_is_given_a_device_before_the_next_one(tmp_path):
    """Each update goes to all sinks in their order; only then the next one is made."""
    given: list[tuple[str, str]] = []

    class Watching(TextfileSink):
        def take(self, update: Update, deadline: Deadline) -> None:
            given.append((self.name, update.sn))
            super().take(update, deadline)

    first, second = (Watching(str(tmp_path / name)) for name in ("a", "b"))
    first.name, second.name = "first", "second"

    def readings(named: Sequence[str]) -> Iterator[Reading]:
        return (read(sn, odd=1) for sn in SERIALS[:3])

    assert worker([Source(readings)], tmp_path, first, second).run() == 0

    assert given == [(name, sn) for sn in SERIALS[:3] for name in ("first", "second")]


def test_what_was_read_before_a_hang_is_delivered(tmp_path):
    """A source that hangs is left at its share of the time; the rest is "failed"."""
    release = threading.Event()

    def readings(named: Sequence[str]) -> Iterator[Reading]:
        yield read(SERIALS[0], odd=1)
        release.wait(60)

    path = tmp_path / "out.prom"
    source = Source(readings, wanted=SERIALS[:2])
    job = worker([source], tmp_path, TextfileSink(str(path)), deadline=2.0)

    status = job.run()
    release.set()

    assert status == 1
    assert served(path) == {SERIALS[0]: 1}
    assert {sn: each.state for sn, each in job.outcome.learnt.items()} == {
        SERIALS[0]: "ok",
        SERIALS[1]: "failed",
    }
    assert isinstance(job.outcome.error, ApiOutOfTime)


def test_a_refusal_of_the_whole_is_no_word_on_a_device(tmp_path):
    """What ends all reading, be it a device's refusal, leaves what was said before."""

    def refused(named: Sequence[str]) -> Iterator[Reading]:
        yield from ()
        raise DeviceRefused("not open to keys")

    taken: list[str] = []
    job = worker([Source(refused, wanted=SERIALS[:1])], tmp_path, named=SERIALS[:1])
    job.updates.of(read(SERIALS[0], odd=1), is_listed=True)

    job.collect(lambda update: taken.append(update.action))

    assert job.outcome.learnt[SERIALS[0]].state == "failed"
    assert job.outcome.status() == 77
    assert taken == ["reduce"]


class Hangs(TimestampedSink):
    """Does not come back from anything, until it is told to."""

    name = "hangs"

    def __init__(self) -> None:
        self.release = threading.Event()

    def write(self, record, deadline, tries=None):
        self.release.wait(60)

    def ask_the_time(self, deadline):
        self.release.wait(60)


def test_of_a_sink_that_hangs_a_check_says_what_a_run_does(tmp_path):
    """Where a run must leave a sink that hangs, --check tells the same status."""
    found = []
    for number in range(2):
        hangs, folder = Hangs(), tmp_path / str(number)
        state = State.open(str(folder))
        updates = Updates(state, LABELS, Wanted(), Wording(), 300)
        spool = Spool(str(folder / "spool-0"))
        sink = Queue(hangs, spool, state, LABELS, stale_after=300)
        source = Source(lambda _: iter([read(SERIALS[0], odd=1)]))
        check = partial(Check, around=Around([], str(folder), None))
        job = (Worker, check)[number](
            [source], [sink], updates, state, labels=LABELS, deadline=1.5
        )
        found.append(job.run())
        hangs.release.set()

    assert found == [75, 75]


# -- several sources ----------------------------------------------------------------

REFUSED = DeviceRefused("not open to keys")
SILENT = EcoflowApiException("no answer")


def states(*sources: Source, deadline: float = 20.0) -> dict[str, tuple[str, str]]:
    """Return the state and the source of each device, by serial."""
    found = collect(sources, (), Deadline(deadline))
    return {each.device.sn: (each.state, each.source) for each in found}


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        (failed("A", REFUSED), read("A", "mqtt", odd=2), ("ok", "mqtt")),
        (failed("A", REFUSED), failed("A", SILENT, "mqtt"), ("failed", "mqtt")),
        (failed("A", REFUSED), failed("A", REFUSED, "mqtt"), ("refused", "mqtt")),
        (read("A"), failed("A", SILENT, "mqtt"), ("ok", "rest")),
        (read("A"), read("A", "mqtt", odd=2), ("ok", "mqtt")),
    ],
)
def test_another_source_is_asked_for_what_the_first_lacks(earlier, later, expected):
    """What is refused or empty, the next source may know; no answer undoes nothing."""
    asked: list[str] = []

    def second(named: Sequence[str]) -> Iterator[Reading]:
        asked.extend(named)
        yield later

    found = states(Source(lambda _: iter([earlier])), Source(second, "mqtt"))

    assert found == {"A": expected}
    assert asked == ["A"]


@pytest.mark.parametrize("earlier", [read("A", odd=1), failed("A", SILENT)])
def test_another_source_is_not_asked_for_more(earlier):
    """A device that was read, or that failed, is no other source's affair."""

    def second(named: Sequence[str]) -> Iterator[Reading]:
        raise AssertionError

    found = states(Source(lambda _: iter([earlier])), Source(second, "mqtt"))

    assert found == {"A": (earlier.state, "rest")}


def test_the_first_lists_name_stays():
    """A device that another source reads keeps the name of the first one's list."""
    refused = Reading(DeviceInfo("A", "Garage"), "rest", error=REFUSED)

    (found,) = collect(
        [
            Source(lambda _: iter([refused])),
            Source(lambda _: iter([read("A", "mqtt", odd=1)]), "mqtt"),
        ],
        (),
        Deadline(20),
    )

    assert found.device == DeviceInfo("A", "Garage", online=True)


@pytest.mark.parametrize("error", [KeysRefused("a wrong password"), REFUSED])
def test_another_sources_trouble_is_its_own(error):
    """Where the second source is refused, what the first one read still stands."""

    def refuses(named: Sequence[str]) -> Iterator[Reading]:
        yield from ()
        raise error

    def readings(named: Sequence[str]) -> Iterator[Reading]:
        yield read("A", odd=1)
        yield failed("B", REFUSED)
        yield read("C")

    found = states(Source(readings), Source(refuses, "mqtt"))

    assert found == {"A": ("ok", "rest"), "B": ("failed", "mqtt"), "C": ("ok", "rest")}


def test_what_the_first_said_survives_the_others_hang():
    """What a source was refused is known even if the next one never comes back."""
    release = threading.Event()

    def hangs(named: Sequence[str]) -> Iterator[Reading]:
        release.wait(60)
        return iter(())

    sources = [Source(lambda _: iter([failed("A", REFUSED)])), Source(hangs, "mqtt")]
    readings = collect(sources, (), Deadline(0.5))

    assert next(readings).state == "refused"
    with pytest.raises(ApiOutOfTime):
        next(readings)
    release.set()
