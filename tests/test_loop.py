"""The schedule mode: its beat, its bounds, and what it serves."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from ecoflow_push.config.environ import Reader
from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import LockedError, SettingsError
from ecoflow_push.memory.state import State
from ecoflow_push.run.schedule import Loop
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedDevice
from ecoflow_push.simulator.server import RecordingServer
from ecoflow_push.sinks.exporter import ExporterSink
from ecoflow_push.start.attempt import attempt
from ecoflow_push.start.lock_probe import _folder
from tests.conftest import DELTA, STREAM
from tests.support import (
    PUSH,
    eventually,
    fetch,
    free_port,
    hears,
    parse,
    push,
    push_anew,
    values,
)
from tests.test_settings import ACCOUNT, BASE


class Clock:
    """A clock that only sleeping and working move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def beats(
    durations: list[float],
    interval: float = 10.0,
    look: Callable[[Clock], None] = lambda _: None,
) -> list[float]:
    """Return when runs of these durations began, counted from the first."""
    clock = Clock()
    began = []
    left = iter(durations)

    def job() -> None:
        began.append(clock.now - 1000)
        look(clock)
        clock.now += next(left)

    Loop(interval, job, clock, clock.sleep).run(len(durations))
    return began


@pytest.mark.case("T7")
@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        ([1, 1, 1, 1], [0, 10, 20, 30]),
        ([0, 9.99, 0], [0, 10, 20]),
        # A run that takes all its interval has missed the beat at its end.
        ([10, 1, 1], [0, 20, 30]),
        ([25, 1, 1], [0, 30, 40]),
        # A host that slept for an hour: one run on the next beat, none made up for.
        ([3605, 1], [0, 3610]),
    ],
)
def test_beats_are_kept_or_skipped(durations, expected):
    """Runs begin on a grid from the first one; a missed beat is skipped."""
    assert beats(durations) == expected


@pytest.mark.case("T8")
def test_no_beat_drifts():
    """After 10,000 runs of any duration below it, the interval is still exact."""
    chance = random.Random(1)

    began = beats([chance.uniform(0, 0.9) for _ in range(10_000)], 1.0)

    assert began == [float(n) for n in range(10_000)]


@pytest.mark.case("T6")
def test_the_walls_clock_moves_no_beat():
    """A zone that moves by an hour in every run, as schedule sees it, moves no beat."""
    hour = [0]

    def jumping(clock: Clock) -> None:
        hour[0] += 1
        os.environ["TZ"] = f"X{hour[0]}"
        time.tzset()

    try:
        assert beats([1.0] * 5, look=jumping) == [0, 10, 20, 30, 40]
    finally:
        os.environ.pop("TZ", None)
        time.tzset()


@contextmanager
def staying(
    environ: dict[str, str], *args: str, log: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run push.py --every until the block ends, at the latest."""
    with open(log or os.devnull, "w", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            [sys.executable, PUSH, "--every", *args],
            env={"PATH": os.defpath, "HOME": "/nonexistent", **environ},
            stderr=stderr,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def lines(log: Path, pattern: str) -> list[str]:
    return [line for line in log.read_text().splitlines() if re.search(pattern, line)]


def until(condition) -> None:
    assert eventually(condition)


def test_it_runs_at_once_and_then_on_the_beat(environ, cloud, tmp_path):
    """The first run comes at once, the next ones a second apart, none before its beat.

    On a busy machine one may be late, or miss its beat.
    """
    log = tmp_path / "log"
    began = time.time()
    with staying(environ, "1", log=log):
        until(lambda: len(lines(log, "exit 0 OK after")) >= 4)

    lists = [received for received in cloud.received if "list" in received.path]
    asked = [float(received.headers["timestamp"]) / 1000 for received in lists]
    assert all(at - began >= beat for beat, at in enumerate(asked)), (began, asked)
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert min(gaps) < 1.5, gaps


@pytest.mark.case("L6")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(number, environ, tmp_path):
    """SIGTERM and SIGINT end the schedule with 0 and a word, long before the beat."""
    log = tmp_path / "log"
    with staying(environ, "600", log=log) as process:
        until(lambda: lines(log, "exit 0 OK after"))
        process.send_signal(number)

        assert process.wait(timeout=60) == 0

    assert lines(log, f"the schedule was stopped by signal {number:d}")


def test_a_signal_before_the_first_run_ends_it_with_0(environ):
    """SIGTERM while Python still imports ends a schedule with 0 too."""
    with staying(environ, "600") as process:
        until(lambda: hears(process.pid, signal.SIGTERM))
        process.send_signal(signal.SIGTERM)

        assert process.wait(timeout=60) == 0


@pytest.mark.drill("kills")
def test_a_drill_of_stops(environ, cloud, tmp_path, drill):
    """Stopped at any moment, the schedule ends with 0, long before the beat."""
    chance = random.Random(drill.seed)
    slowest = 0.0
    log = tmp_path / "log"
    for _ in range(drill.size(4, 100)):
        with staying(environ, "600", log=log) as process:
            until(lambda: lines(log, "a run every"))
            time.sleep(chance.uniform(0, 1.2))
            began = time.monotonic()
            process.send_signal(chance.choice([signal.SIGTERM, signal.SIGINT]))
            assert process.wait(timeout=60) == 0
            slowest = max(slowest, time.monotonic() - began)
    print(f"slowest stop {slowest * 1000:.0f} ms")


def resident_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", text)[0])


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.case("L13")
@pytest.mark.drill("soak")
def test_a_drill_of_beats(environ, cloud, pushgateway, tmp_path, drill):
    """Faults at random end no schedule, shift no beat, and leak nothing."""
    count = drill.size(6, 300)
    chance = random.Random(drill.seed)
    log = tmp_path / "log"
    held: list[tuple[int, int]] = []
    kinds = {
        "cloud down": lambda: cloud.fail("", faults.status(503)),
        "cloud hangs": lambda: cloud.fail("quota", faults.hang()),
        "cloud resets": lambda: cloud.fail("", faults.reset()),
        "odd answer": lambda: cloud.fail(
            "quota", faults.body(b'{"code":"0","data":7}')
        ),
        "well": lambda: None,
    }
    with RecordingServer() as gateway:
        environ |= {"PUSHGATEWAY_URL": gateway.url, "ESTABLISH_ATTEMPTS": "2"}
        with staying(environ, "1", log=log) as process:
            until(lambda: lines(log, "exit 0"))
            began = time.monotonic()
            for number in range(1, count + 1):
                time.sleep(max(0, began + number - 0.5 - time.monotonic()))
                cloud.heal()
                gateway.heal()
                kinds[chance.choice([*kinds, "well"])]()
                if chance.random() < 0.2:
                    gateway.fail("", faults.status(500))
                held.append((resident_kib(process.pid), descriptors(process.pid)))
            assert process.poll() is None
    ended = [float(line.split()[0][-7:-1]) for line in lines(log, r"exit \d+ \w+")]
    statuses = [re.findall(r"exit (\d+)", line)[0] for line in lines(log, r"exit \d+")]
    print("statuses:", {s: statuses.count(s) for s in sorted(set(statuses))})
    print(f"memory: {held[len(held) // 3][0]} KiB, then {held[-1][0]} KiB")
    # A run may take its whole second, and then the next beat is over.
    assert len(ended) > 0.4 * count
    assert {"0"} < set(statuses)
    third = held[len(held) // 3 :]
    assert max(rss for rss, _ in third) - third[0][0] < 4096
    assert max(fds for _, fds in held) - held[0][1] <= 4


@pytest.mark.case("L13")
def test_a_bug_ends_no_schedule_and_shifts_no_beat(caplog):
    """A run that fails in an unforeseen way is 70, and the next one comes in time."""
    clock = Clock()
    began, statuses = [], []

    def buggy() -> int:
        began.append(clock.now - 1000)
        clock.now += 3
        if len(began) == 2:
            raise ZeroDivisionError
        return 0

    job = partial(attempt, buggy)
    Loop(10, lambda: statuses.append(job()), clock, clock.sleep).run(4)

    assert began == [0, 10, 20, 30]
    assert statuses == [0, 70, 0, 0]
    assert "a bug in ecoflow_push" in caplog.text


@pytest.mark.case("L13")
def test_a_failed_run_ends_no_schedule(environ, cloud, tmp_path):
    """After a run that failed the schedule goes on, and the next one succeeds."""
    log = tmp_path / "log"
    with staying(environ, "1", log=log):
        until(lambda: lines(log, "exit 0 OK after"))
        cloud.fail("list", faults.code("8512"))
        until(lambda: lines(log, "exit 77"))
        cloud.heal()
        before = len(lines(log, "exit 0 OK after"))
        until(lambda: len(lines(log, "exit 0 OK after")) > before)


@pytest.mark.case("L14")
def test_what_hangs_is_given_up_beat_by_beat(environ, cloud, tmp_path):
    """While EcoFlow hangs each beat ends with 75, and leaves no thread behind."""
    cloud.fail("quota", faults.hang())
    log = tmp_path / "log"
    with staying(environ, "1", log=log) as process:
        until(lambda: lines(log, "exit 75"))
        few = threads(process.pid)
        until(lambda: len(lines(log, "exit 75")) == 4)
        assert threads(process.pid) <= few + 1
        cloud.heal()
        until(lambda: lines(log, "exit 0 OK after"))
        assert process.poll() is None


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def test_a_locked_state_skips_the_beat(environ, tmp_path):
    """While another run holds the lock, a beat ends with 75, and the next one comes."""
    log = tmp_path / "log"
    with State.open(_folder(Reader(environ))), staying(environ, "1", log=log):
        until(lambda: len(lines(log, "exit 75 TEMPFAIL: another run")) >= 2)
        assert not lines(log, "exit 0 OK after")


# -- intervals ----------------------------------------------------------------------


def test_the_interval_and_its_deadline():
    """--every wins over COLLECTING_INTERVAL; a run ends before the next begins."""
    for every, given, interval, deadline in [
        (0.0, {}, 10, 9),
        (0.0, {"COLLECTING_INTERVAL": "30"}, 30, 27),
        (5.0, {"COLLECTING_INTERVAL": "30"}, 5, 4.5),
        (300.0, {}, 300, 50),
        (5.0, {"RUN_DEADLINE": "40"}, 5, 40),
        (None, {}, 10, 50),
    ]:
        settings = Settings.from_environ({**BASE, **given}, every=every)
        assert (settings.interval, settings.run_deadline) == (interval, deadline)
        assert not settings.is_interval_raised


def test_the_app_account_is_visited_once_a_minute_at_most():
    """With the app account an interval below 60 s is raised to that."""
    environ = {"PUSHGATEWAY_URL": "http://g", **ACCOUNT}
    for every, interval in [(0.0, 60), (5.0, 60), (90.0, 90)]:
        settings = Settings.from_environ(environ, every=every)
        assert settings.interval == interval
        assert settings.is_interval_raised == (every != 90)


@pytest.mark.parametrize("wrong", ["0", "0.5", "-1", "x", "nan", "1e9"])
def test_a_wrong_interval_is_64(wrong):
    """An interval that makes no sense is a wrong option."""
    assert push_anew(BASE, "--every", wrong).status == 64


@pytest.mark.parametrize("other", ["--dry-run", "--list-devices"])
def test_what_prints_once_does_not_stay(other):
    """--every together with what prints once is a wrong option."""
    assert push(BASE, "--every", "5", other).status == 64


# -- the pull port ------------------------------------------------------------------


def served(port: int):
    return parse(fetch(f"http://127.0.0.1:{port}/metrics").decode())


def test_the_pull_port_serves_the_latest_snapshot(environ, cloud, tmp_path):
    """With EXPORTER_PORT alone, /metrics has the last snapshot and the run's series."""
    port = free_port()
    del environ["PUSHGATEWAY_URL"]
    environ |= {"EXPORTER_PORT": str(port)}
    cloud.devices[:] = [DELTA, STREAM]
    log = tmp_path / "log"
    with staying(environ, "1", log=log):
        until(lambda: lines(log, "exit 0 OK after"))
        first = served(port)
        cloud.devices[:] = [
            SimulatedDevice(DELTA.sn, {"pd.soc": 12}, "Garage", "DELTA 2")
        ]
        until(
            lambda: any(v == 12 for (n, _), v in served(port).items() if "pd_soc" in n)
        )
        cloud.fail("quota", faults.code("1", "whatever"))
        runs = len(lines(log, "exit"))
        until(lambda: len(lines(log, "exit")) > runs + 1)
        failing = served(port)
        until(lambda: STREAM.sn not in str(served(port)))

    assert len(values(first)) == 6
    assert {dict(k)["device"] for n, k in first if "pd_soc" in n} == {DELTA.sn}
    assert first["ecoflow_push_success", ()] == 1
    # Not readable, but young.
    assert [v for (n, _), v in failing.items() if "pd_soc" in n] == [12]
    assert failing["ecoflow_push_success", ()] == 0


def test_who_hangs_up_on_the_pull_port_is_no_news(capfd):
    """A connection that is reset leaves no traceback, and the port goes on."""
    sink = ExporterSink(free_port(), 300, "ecoflow")
    try:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", sink.port)) as plain:
                plain.sendall(b"GET /metrics HTTP/1.1\r\n")
                plain.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
        assert served(sink.port) == {}
    finally:
        sink.close()
    assert capfd.readouterr().err == ""


def test_a_run_that_ends_early_serves_its_failure_not_the_last_success(
    environ, cloud, tmp_path
):
    """A beat that finds the lock held takes the run's series from the port."""
    port = free_port()
    log = tmp_path / "log"
    environ |= {"EXPORTER_PORT": str(port)}
    with staying(environ, "1", log=log):
        until(lambda: lines(log, "exit 0 OK after"))
        until(lambda: ("ecoflow_push_success", ()) in served(port))
        held = contextlib.ExitStack()
        until(lambda: _entered(held, environ))
        with held:
            until(lambda: lines(log, "exit 75 TEMPFAIL: another run"))
            until(lambda: ("ecoflow_push_success", ()) not in served(port))
            assert any("pd_soc" in name for name, _ in served(port))


def _entered(stack: contextlib.ExitStack, environ: dict[str, str]) -> bool:
    try:
        stack.enter_context(State.open(_folder(Reader(environ))))
    except LockedError:
        return False
    return True


def test_a_taken_port_is_78(environ):
    """A port that somebody else holds is a fault of the settings."""
    with socket.create_server(("0.0.0.0", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(SettingsError, match="EXPORTER_PORT"):
            ExporterSink(port, 300, "ecoflow")
        run = push({**environ, "EXPORTER_PORT": str(port)}, "--every")

    assert run.status == 78
    assert f"EXPORTER_PORT: port {port} cannot be used" in run.stderr


def test_a_single_run_listens_to_nothing(environ):
    """Without --every, EXPORTER_PORT is no sink and nothing listens."""
    port = free_port()
    del environ["PUSHGATEWAY_URL"]

    run = push({**environ, "EXPORTER_PORT": str(port)})

    assert run.status == 78
    assert "no sink" in run.stderr


# -- totals -------------------------------------------------------------------------


def test_totals_go_on_over_processes(environ, cloud, pushgateway):
    """Runs and failures count on from run to run, by the stage that failed."""
    assert push(environ).status == 0
    cloud.fail("list", faults.status(500))
    assert push({**environ, "ESTABLISH_ATTEMPTS": "1"}).status == 69
    cloud.heal()
    cloud.fail("quota", faults.code("1", "whatever"))
    assert push(environ).status == 69
    cloud.heal()

    assert push(environ).status == 0

    own = pushgateway.run()
    assert own["ecoflow_push_runs_total"] == 4
    assert own["ecoflow_push_failures_total connect"] == 1
    assert own["ecoflow_push_failures_total collect"] == 2
    assert own["ecoflow_push_failures_total push"] == 0
    assert own["ecoflow_push_failures_total bug"] == 0


def test_a_named_device_that_is_not_there_counts_as_a_failure(environ, pushgateway):
    """A run with a serial that nobody has counts as a failed one."""
    run = push({**environ, "ECOFLOW_DEVICE_SN": f"{DELTA.sn},R331NOBODY000001"})

    assert run.status == 1
    own = pushgateway.run()
    assert own["ecoflow_push_failures_total collect"] == 1


def test_without_a_memory_there_are_no_totals(environ, pushgateway, tmp_path):
    """A counter that would begin anew in every run is not pushed."""
    (tmp_path / "file").write_text("")

    assert push({**environ, "STATE_DIR": str(tmp_path / "file" / "x")}).status == 0

    assert not any("_total" in name for name in pushgateway.run())


# -- healthcheck --------------------------------------------------------------------


@pytest.fixture
def pings():
    with RecordingServer() as server:
        yield server


def paths(pings: RecordingServer) -> list[str]:
    return [received.path for received in pings.received]


def test_a_good_run_pings_start_and_success(environ, pings):
    """The service hears of the start and of the success."""
    environ["HEALTHCHECK_URL"] = f"{pings.url}/ping/3f2a-uuid"

    run = push(environ)

    assert run.status == 0
    assert paths(pings) == ["/ping/3f2a-uuid/start", "/ping/3f2a-uuid"]


def test_a_failed_run_pings_with_its_last_lines(environ, cloud, pings):
    """The service hears of the failure, with the log's last lines, secrets masked."""
    secret = environ["ECOFLOW_SECRET_KEY"]
    environ["HEALTHCHECK_URL"] = f"{pings.url}/ping/3f2a-uuid?x=y"
    cloud.fail("list", faults.code("8521", f"sign of {secret} is wrong"))

    run = push({**environ, "ESTABLISH_ATTEMPTS": "1"})

    assert run.status == 77
    assert paths(pings)[-1] == "/ping/3f2a-uuid/fail?x=y"
    body = pings.received[-1].body.decode()
    assert body.startswith("exit 77 NOPERM\n")
    assert "the signature is wrong" in body
    assert secret not in body
    assert "3f2a-uuid" not in run.stderr + body


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (faults.status(500), "HTTP 500: wait, the fault is on its side"),
        (faults.reset(), "connection reset"),
        (faults.hang(), "no complete answer in time: look for a firewall in the way"),
        (faults.status(404), "HTTP 404: check HEALTHCHECK_URL"),
        (faults.redirect("https://x.example/a?b=c"), "HTTP 302, a redirect to https:/"),
    ],
)
def test_a_healthcheck_fails_no_run(fault, why, environ, pings):
    """Whatever the service does, the run's status is its own, within its deadline.

    One warning says why it was not told.
    """
    environ["HEALTHCHECK_URL"] = pings.url
    pings.fail("", fault)

    run = push({**environ, "RUN_DEADLINE": "3"})

    assert run.status == 0
    last, warning = run.stderr.splitlines()
    assert " INFO exit 0 OK after " in last
    assert f" WARNING healthcheck {pings.url[7:]}: {why}" in warning


def test_a_healthcheck_gets_its_user_and_a_quoted_path(environ, pings):
    """What stands before the host goes as a header, and a space in the path works."""
    url = pings.url.replace("http://", "http://me:s%40crt@")

    run = push({**environ, "HEALTHCHECK_URL": f"{url}/my ping"})

    assert (run.status, paths(pings)[-1]) == (0, "/my%20ping")
    assert pings.received[-1].headers["authorization"] == "Basic bWU6c0BjcnQ="


def test_a_healthcheck_that_lasts_to_fail_is_told_once_a_day(environ, pings):
    """Not each minute; one more line says when it is reached again.

    Another address, or another day, is told anew.
    """
    environ["HEALTHCHECK_URL"] = f"{pings.url}/ping/3f2a-uuid"

    def told() -> str:
        run = push(environ)
        assert run.status == 0
        assert "3f2a" not in run.stderr
        return "".join(
            line.partition("Z ")[2].partition(" ")[0][0]
            for line in run.stderr.splitlines()
            if "healthcheck" in line
        )

    assert told() == ""
    pings.fail("", faults.status(404))
    assert [told(), told()] == ["W", ""]
    pings.heal()
    assert [told(), told()] == ["I", ""]
    pings.fail("", faults.reset())
    assert told() == ""
    pings.heal()
    assert told() == "I"
    pings.fail("", faults.reset())
    (file,) = Path(environ["STATE_DIR"]).glob("*/healthcheck")
    what, told_at, state = file.read_text().split()
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text(f"{what} {float(told_at) - 86_401:.0f} {state}")
    assert [told(), told()] == ["W", ""]
    file.write_text("rubbish")
    assert [told(), told()] == ["W", ""]
    environ["HEALTHCHECK_URL"] += "-2"
    assert [told(), told()] == ["W", ""]


def test_a_healthcheck_address_never_shows(environ, pings):
    """The address, which whoever knows it may use, is in no line of the log."""
    url = f"{pings.url}/ping/3f2a-uuid"

    run = push({**environ, "HEALTHCHECK_URL": url, "LOG_LEVEL": "DEBUG"})

    assert run.status == 0
    assert "3f2a" not in run.stderr
