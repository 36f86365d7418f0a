"""Clocks that are wrong, jump, or stand still: nothing is written at a wrong time."""

from __future__ import annotations

import calendar
import datetime as dt
import itertools
import os
import random
import re
import signal
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedCloud
from ecoflow_push.simulator.server import Fault, Handler
from tests.broker import BROKER_USER
from tests.clock_shift import WallClock, compiled
from tests.conftest import DELTA
from tests.mqtt import paths
from tests.receiver import Receiver
from tests.remote_write import spool_files
from tests.support import PUSH, Run, ended_by, eventually, push
from tests.test_loop import lines, staying

pytestmark = pytest.mark.drill("clocks")
late = pytest.mark.late

HOUR, DAY, YEAR = 3600.0, 86_400.0, 365.25 * 86_400
#: What two clocks may differ by (s).
MOST = 300
#: What a busy machine may take longer (s).
PATIENCE = 30


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    return compiled(tmp_path_factory.mktemp("shift"))


class Place(NamedTuple):
    """A host whose clock is ours, and servers that tell the time, or do not."""

    clock: WallClock
    cloud: SimulatedCloud
    receiver: Receiver
    environ: dict[str, str]

    def push(self, **more: str) -> Run:
        """Do a run, and see that it ended as every run is to end."""
        run = push({**self.environ, **more})
        assert "Traceback" not in run.stderr, run.stderr
        assert len(re.findall(r" exit \d+ [A-Z]+", run.stderr)) == 1, run.stderr
        assert run.seconds <= 10
        return run

    def tell(self, offset: float | None) -> None:
        """Let all servers tell a time that is so far from the true one."""
        self.cloud.date_offset = self.receiver.date_offset = offset

    def waiting(self) -> set[int]:
        """Return the times (ms) of what is stored."""
        return {int(each.name.partition(".")[0]) for each in spool_files(self.environ)}

    def arrived(self) -> list[int]:
        """Return the times (ms) of what the receiver took, as they came."""
        times = [
            sample.timestamp_ms
            for request in self.receiver.requests
            if request.samples[0].label("device") and request.status == 204
            for sample in request.samples
        ]
        return list(dict.fromkeys(times))


@pytest.fixture
def here(made, tmp_path, written, cloud, receiver) -> Place:
    clock = WallClock(made, tmp_path)
    return Place(clock, cloud, receiver, {**written, **clock.environ})


def refused(here: Place) -> list[int]:
    return [each.status for each in here.receiver.requests if each.status == 400]


AGES = {
    "1970": calendar.timegm((1970, 1, 1, 0, 1, 0)),
    "2000": calendar.timegm((2000, 1, 1, 0, 0, 0)),
    "before 2038": 2**31 - 2,
    "after 2038": 2**31 + 60,
    "after 2106": 2**32 + 60,
}


@pytest.mark.case("T1", "T2")
@pytest.mark.parametrize("age", ["1970", *(pytest.param(x, marks=late) for x in AGES)])
def test_a_clock_of_another_age(age, here):
    """Told the time or not, nothing is written at a time that cannot be: 75.

    Put right, it goes on without a word.
    """
    here.clock.set(AGES[age])
    assert here.push().status == 75
    if age in ("1970", "2000"):
        here.tell(None)
        run = here.push()
        assert run.status == 75
        assert f"the clock says that it is {age}" in run.stderr
    assert here.arrived() == []
    assert not here.waiting()

    here.clock.shift(0)
    here.tell(0.0)
    run = here.push()

    assert run.status == 0, run.stderr
    assert len(run.stderr.splitlines()) == 1


@late
@pytest.mark.case("T1")
@pytest.mark.parametrize("age", ["before 2038", "after 2038", "after 2106"])
def test_an_age_to_come(age, here):
    """When it really is that late all is as ever, over the turn too."""
    here.clock.set(AGES[age])
    here.tell(here.clock.offset)
    for _ in range(3):
        assert here.push().status == 0
        time.sleep(1)
    here.receiver.fail("", faults.status(503))
    assert here.push().status == 75
    here.receiver.heal()
    assert here.push().status == 0

    arrived = here.arrived()
    assert len(arrived) == 5
    assert arrived == sorted(set(arrived))
    assert abs(arrived[0] / 1000 - AGES[age]) < 20


@late
@pytest.mark.case("T1", "N18")
@pytest.mark.parametrize(
    ("age", "cure"), [("1970", "set this machine's clock"), ("after 2106", "clock")]
)
def test_a_certificate_under_a_wrong_clock(age, cure, made, tmp_path, authority):
    """Of a certificate not of this time the cure is the clock, and no key goes."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ends = dt.datetime.now(dt.UTC) + dt.timedelta(days=365)
    authority.issue_cert("localhost", not_after=ends).configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    clock = WallClock(made, tmp_path)
    clock.set(AGES[age])
    with SimulatedCloud([DELTA], tls=tls) as cloud:
        run = push(
            {
                **cloud.environ(),
                **clock.environ,
                "ECOFLOW_CA_FILE": str(tmp_path / "ca.pem"),
                "TEXTFILE_PATH": str(tmp_path / "out.prom"),
                "STATE_DIR": str(tmp_path / "state"),
            }
        )
        assert cloud.received == []
    assert run.status == 69, run.stderr
    assert cure in run.stderr


STEPS = [0, 0, 0, 1, -1, 600, -600, HOUR, -HOUR, 30 * DAY, -2 * YEAR, 2 * YEAR]


@pytest.mark.case("T2", "T3", "T4", "T10")
def test_a_drill_of_steps(here, drill):
    """However the clock steps between runs, nothing is refused, nothing is misdated.

    What was stored while the clock was right arrives.
    """
    chance = random.Random(drill.seed)
    kept: set[int] = set()
    statuses: Counter[str] = Counter()
    for number in range(drill.size(4, 400)):
        is_told = chance.random() < 0.7
        # Whom nobody tells the time may not know that it is in the future.
        offset = chance.choice(STEPS if is_told else [s for s in STEPS if s <= 0])
        here.clock.shift(offset if number else HOUR)
        here.tell(0.0 if is_told or not number else None)
        if is_down := chance.random() < 0.3:
            here.receiver.fail("", faults.status(503))
        before = len(here.receiver.requests)

        run = here.push()

        here.receiver.heal()
        is_right = number and abs(offset) < MOST
        statuses[f"{run.status}"] += 1
        if is_told or not number:
            expected = 75 if is_down or not is_right else 0
            # A step of some seconds back from what was said last is waited for.
            assert run.status in {expected, 75}, (offset, run.stderr)
        if is_told and not is_right:
            new = here.receiver.requests[before:]
            assert not [each for each in new if each.samples[0].label("device")]
        kept |= here.waiting()
        for at in (*here.arrived()[-1:], *here.waiting()):
            assert abs(at / 1000 - time.time()) < MOST + 600
    here.clock.shift(0)
    here.tell(0.0)
    assert eventually(lambda: here.push().status == 0, 100)

    arrived = here.arrived()
    assert refused(here) == []
    assert arrived == sorted(arrived)
    assert kept <= set(arrived)
    assert not here.waiting()
    print(f"statuses {dict(statuses)}, {len(arrived)} arrived, {len(kept)} had waited")


def steps(here: Place, change: Callable[[], None], pause: float = 0.0) -> Fault:
    """Return a fault: set the clock while the run waits for a healthy answer."""

    def fault(handler: Handler) -> None:
        time.sleep(pause)
        change()
        handler.send(here.cloud.answer(handler.current))

    return fault


@pytest.mark.case("T5")
@pytest.mark.parametrize(
    "seconds",
    [HOUR, *(pytest.param(x, marks=late) for x in (-HOUR, 2 * YEAR, -2 * YEAR, 90))],
)
@pytest.mark.parametrize("part", ["quota", pytest.param("list", marks=late)])
def test_a_step_in_mid_run(part, seconds, here):
    """A step while a run is at work moves no deadline, dates nothing, ages nothing."""
    here.receiver.fail("", faults.status(503))
    assert here.push().status == 75
    waiting = here.waiting()
    here.receiver.heal()
    here.cloud.fail(part, steps(here, lambda: here.clock.shift(seconds)), 1)

    run = here.push(SPOOL_MAX_AGE="1800")

    assert run.status == 75, run.stderr
    assert here.arrived() in ([], sorted(waiting))
    assert waiting <= here.waiting() | set(here.arrived())
    here.clock.shift(0)
    assert here.push().status == 0
    assert waiting < set(here.arrived())
    assert refused(here) == []


@pytest.mark.case("T3")
@late
def test_a_clock_that_stands_still(here):
    """One time is written once; when the clock goes again, so does the job."""
    here.clock.freeze(time.time())
    assert [here.push().status for _ in range(3)] == [0, 75, 75]
    assert len(here.arrived()) == 1
    here.clock.shift(0)

    assert here.push().status == 0
    # One that stops while a run waits for two seconds.
    slow = steps(here, lambda: None, 2)
    here.cloud.fail("quota", slow, 1)
    here.clock.freeze(time.time() + 1)
    run = here.push()
    assert run.status == 75
    assert "the clock was set while the run was at work" in run.stderr
    assert len(here.arrived()) == 2
    assert refused(here) == []


def dated(here: Place, text: str | None) -> Fault:
    """Return a fault: a healthy answer, with this in its header Date."""

    def fault(handler: Handler) -> None:
        answer = here.cloud.answer(handler.current)
        pairs = (("Date", text),) if text is not None else ()
        handler.send(answer._replace(headers=(*answer.headers, *pairs)))

    return fault


def stamp(form: str, offset: float = 0.0) -> str:
    return time.strftime(form, time.gmtime(time.time() + offset))


IMF = "%a, %d %b %Y %H:%M:%S "
DATES: dict[str, tuple[Callable[[], str | None], int]] = {
    "a leap second": (lambda: "Sat, 31 Dec 2016 23:59:60 GMT", 0),
    "none": (lambda: None, 0),
    "empty": (lambda: "", 0),
    "rubbish": (lambda: "yesterday, at noon", 0),
    "no such day": (lambda: "Thu, 31 Feb 2026 12:00:00 GMT", 0),
    "no such year": (lambda: "Thu, 01 Jan 99999 12:00:00 GMT", 0),
    "a zone of years": (lambda: stamp(IMF) + "+9999999999", 0),
    "digits of others": (lambda: stamp(IMF).replace("2", "٢") + "GMT", 0),
    "another form": (lambda: stamp("%A, %d-%b-%y %H:%M:%S GMT"), 0),
    "asctime": (lambda: stamp("%a %b %d %H:%M:%S %Y"), 0),
    "a zone of its own": (lambda: stamp(IMF, -5 * HOUR) + "-0500", 0),
    "no zone that is known": (lambda: stamp(IMF) + "-0000", 0),
    "no zone": (lambda: stamp(IMF), 0),
    "ten years ago": (lambda: stamp(IMF, -10 * YEAR) + "GMT", 75),
    "in ten years": (lambda: stamp(IMF, 10 * YEAR) + "GMT", 75),
}
SOON = ("a leap second", "no zone that is known")


@pytest.mark.case("T9", "T10")
@pytest.mark.parametrize(
    "kind", [each if each in SOON else pytest.param(each, marks=late) for each in DATES]
)
def test_what_a_header_says_of_the_time(kind, here):
    """What is no time is no word on it, whatever zone this host lives in."""
    say, status = DATES[kind]
    here.cloud.date_offset = None
    here.cloud.fail("", dated(here, say()))

    run = here.push(TZ="America/New_York")

    assert run.status == status, run.stderr
    assert len(here.arrived()) == (status == 0)


# Europe/Berlin, the first without tzdata: the last Sundays of March and October.
BERLIN = ("CET-1CEST,M3.5.0,M10.5.0/3", "Europe/Berlin")
TURNS = {"autumn": (2026, 10, 25, 1, 0, 0), "spring": (2027, 3, 28, 1, 0, 0)}


@pytest.mark.case("T6", "T8")
@pytest.mark.parametrize(
    "kind", [pytest.param("spring", marks=late), "autumn", pytest.param("", marks=late)]
)
def test_a_schedule_over_a_turn_of_summer_time(kind, here, tmp_path, drill):
    """Summer time begins and ends, a clock is set: each beat is on its second."""
    beats = drill.size(4, 20)
    log = tmp_path / "log"
    here.environ["TZ"] = BERLIN[drill.is_full]
    first = calendar.timegm(TURNS[kind]) - beats / 2 if kind else 0.0
    if kind:
        here.clock.set(first)
        here.tell(here.clock.offset)
    began: list[float] = []
    with staying(here.environ, "1", log=log):
        while len(began) < beats:
            assert eventually(lambda: len(lines(log, r" exit \d")) > len(began))
            began.append(time.monotonic())
            if not kind:
                # Without a word from anybody, an hour to and fro.
                here.clock.shift(-HOUR if len(began) % 2 else 0)
    gaps = [later - one for one, later in itertools.pairwise(began)]
    # Not an hour; a busy machine may miss beats.
    assert max(gaps) < PATIENCE
    assert began[-1] - began[0] < beats - 1 + PATIENCE
    if kind:
        arrived = here.arrived()
        assert arrived == sorted(set(arrived))
        # None before its beat; the first may be late, and the next one not.
        assert all(at >= (first + beat) * 1000 for beat, at in enumerate(arrived))
    assert refused(here) == []


@pytest.mark.case("T7")
def test_a_host_that_sleeps(here, tmp_path, drill):
    """Woken up, a schedule does one run on its beat, and makes up for none."""
    log = tmp_path / "log"
    seconds = drill.size(3, 90)
    with staying(here.environ, "1", log=log) as process:
        assert eventually(lambda: lines(log, "exit 0"))
        process.send_signal(signal.SIGSTOP)
        before = len(lines(log, r" exit \d"))
        time.sleep(seconds)
        # The wall's clock went on, as over a real suspend.
        process.send_signal(signal.SIGCONT)
        woken = time.monotonic()
        time.sleep(2)
        runs = len(lines(log, r" exit \d")) - before
        # One that was under way, and one for each second since.
        assert 1 <= runs <= time.monotonic() - woken + 2
        assert process.poll() is None
    assert refused(here) == []
    assert "Traceback" not in log.read_text()


@late
@pytest.mark.case("T7")
def test_a_run_that_is_stopped_at_work(here, tmp_path):
    """A run that slept for longer than its deadline ends at once, with its own word."""
    here.cloud.fail("quota", faults.hang())
    process = subprocess.Popen(
        [sys.executable, PUSH],
        env={"PATH": os.defpath, "HOME": "/nonexistent", **here.environ}
        | {"RUN_DEADLINE": "3"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert eventually(lambda: [p for p in paths(here.cloud) if "quota" in p])
    process.send_signal(signal.SIGSTOP)
    time.sleep(12)
    said, seconds = ended_by(signal.SIGCONT, process, process.pid)

    # 142 is the kernel's alarm, which counts a stop too.
    assert process.returncode in (75, 142, -signal.SIGALRM), said
    assert seconds < 6
    here.cloud.heal()
    assert here.push().status == 0


@late
@pytest.mark.case("T4", "M12")
def test_a_login_of_tomorrow(account, fleet, cloud, made, tmp_path):
    """Credentials obtained under a clock that was ahead are renewed when refused."""
    clock = WallClock(made, tmp_path)
    account |= clock.environ
    right = cloud.broker
    assert right
    clock.shift(HOUR)
    cloud.date_offset = HOUR
    cloud.broker = right._replace(password="rotated")
    push(account)
    clock.shift(0)
    cloud.date_offset = 0.0
    cloud.broker = right
    cloud.received.clear()

    run = push(account)

    assert run.status == 0, run.stderr
    assert paths(cloud).count("/iot-auth/app/certification") == 1
    assert BROKER_USER not in run.stderr
