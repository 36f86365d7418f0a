"""Runs as cron starts them: bounds, lanes, hostile answers, signals and kills."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import time
from collections import Counter
from functools import partial

import pytest

from ecoflow_push.api.models import clean_text
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SECRET_KEY, SimulatedDevice
from ecoflow_push.simulator.server import RecordingServer
from tests.conftest import DELTA, STREAM
from tests.support import PUSH, eventually, hears, push, push_anew, values


@pytest.mark.case("L7")
def test_a_second_signal_changes_nothing(environ, cloud):
    """A storm of signals still ends in the status of one of them, with one line."""
    import signal

    cloud.fail("device/list", faults.hang())
    process = subprocess.Popen(
        [sys.executable, PUSH], env=environ, stderr=subprocess.PIPE, text=True
    )
    assert eventually(lambda: cloud.received)
    process.send_signal(signal.SIGTERM)
    for _ in range(20):
        process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)

    assert process.returncode in (130, 143)
    assert len(said.splitlines()) == 1


def test_secrets_are_masked_as_wired(environ, cloud):
    """A secret that the service echoes does not reach the log."""
    echo = f"bad {SECRET_KEY} {base64.b64encode(SECRET_KEY.encode()).decode()}"
    cloud.fail("device/list", faults.code("4711", echo))

    for style in ("text", "json"):
        run = push_anew({**environ, "LOG_FORMAT": style, "LOG_LEVEL": "DEBUG"})
        assert run.status == 69
        assert SECRET_KEY not in run.stderr
        assert "bad *** ***" in run.stderr


@pytest.mark.parametrize("option", ["--list-devices", "--dry-run", "--check"])
def test_secrets_are_masked_on_the_screen(option, environ, cloud):
    """A secret that the service gives as a device's name is not printed either."""
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, DELTA.quotas, f"my {SECRET_KEY}")]

    run = push(environ, option)

    assert run.status == 0
    assert run.stdout
    assert SECRET_KEY not in run.stdout + run.stderr


def test_an_empty_list_is_69_with_advice(environ, cloud):
    """An account without devices is told apart from an outage."""
    cloud.devices.clear()

    run = push(environ)

    assert run.status == 69
    assert "lists no device" in run.stderr


def test_a_clock_that_is_off_is_named(environ, cloud):
    """Beside a refused signature, a clock far from EcoFlow's Date is named first."""
    body = b'{"code": "8521", "message": "signature is wrong"}'
    cloud.fail(
        "device/list",
        faults.raw(
            b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        ),
    )

    run = push(environ)

    assert run.status == 77
    said = r"wrong, and this clock is \+\d+ s from EcoFlow's: set the clock .* check EC"
    assert re.search(said, run.stderr)


@pytest.mark.case("D14")
def test_offline_by_code_6012(environ, cloud, pushgateway):
    """Code 6012 of the quotas is EcoFlow's word for offline; of a list it is none."""
    cloud.fail("quota/all", faults.code("6012", "the device is offline"), times=1)
    assert push(environ).status == 0
    assert pushgateway.device(DELTA.sn)["ecoflow_online", ()] == 0

    cloud.fail("device/list", faults.code("6012", "the device is offline"))
    assert push(environ).status == 69


def test_8521_of_one_device_does_not_end_the_run(environ, cloud, pushgateway):
    """A signature refused for one device, after its tries, costs that device alone."""
    cloud.devices.append(STREAM)
    cloud.fail(f"quota/all?sn={DELTA.sn}", faults.code("8521", "signature is wrong"))

    assert push(environ).status == 1

    assert values(pushgateway.device(STREAM.sn))


def test_refused_keys_end_the_run(environ, cloud):
    """Keys unknown in the middle of a run are not tried on the remaining devices."""
    cloud.devices.append(STREAM)
    cloud.fail(f"quota/all?sn={DELTA.sn}", faults.code("8513"))

    push(environ)

    assert not [r for r in cloud.received if STREAM.sn in r.path]


def fleet_of(count: int) -> list[SimulatedDevice]:
    return [SimulatedDevice(f"TEST{n:012}", {"pd.soc": n}) for n in range(count)]


def most_in_flight(cloud, environ, count: int, after: int = 0) -> int:
    """Return how many requests were under way at once, the first ones left out."""
    import threading

    cloud.devices[:] = fleet_of(count)
    lock, flying, most, seen = threading.Lock(), [0], [0], [0]

    def slow(handler):
        with lock:
            seen[0] += 1
            flying[0] += 1
            if seen[0] > after:
                most[0] = max(most[0], flying[0])
        time.sleep(0.05)
        with lock:
            flying[0] -= 1
        handler.send(cloud.answer(handler.current))

    cloud.fail("quota/all", slow)
    push(environ)
    cloud.heal()
    return most[0]


def test_lanes(environ, cloud):
    """Up to 8 devices are asked one by one, more of them four at once."""
    assert most_in_flight(cloud, environ, 8) == 1
    assert most_in_flight(cloud, environ, 24) == 4


def test_one_lane_after_a_429(environ, cloud):
    """After a 429, even one that passed, the rest is asked one by one."""
    cloud.fail("quota/all", faults.status(429), times=1)

    assert most_in_flight(cloud, environ, 24, after=8) == 1


def test_pushes_are_gzip_and_bearer_tokens_are_sent(environ):
    """A push is compressed, complete, and carries the token that is set."""
    with RecordingServer() as gateway:
        run = push(
            {
                **environ,
                "PUSHGATEWAY_URL": gateway.url,
                "PUSHGATEWAY_BEARER_TOKEN": "t0ken-of-mine",
                "PUSH_JOB": "a job/..",
            }
        )

        assert run.status == 0, run.stderr
        assert [r.method for r in gateway.received] == ["PUT", "PUT"]
        for received in gateway.received:
            assert received.headers["authorization"] == "Bearer t0ken-of-mine"
            assert received.headers["content-encoding"] == "gzip"
            assert received.body.startswith(b"\x1f\x8b")
        job = base64.urlsafe_b64encode(b"a job/..").decode()
        path = f"/metrics/job@base64/{job}/device/{DELTA.sn}"
        assert gateway.received[0].path == path


@pytest.mark.case("P7")
def test_odd_jobs_land_in_one_group(environ, pushgateway):
    """A job with slashes, dots and letters from afar is read back as it was."""
    for job in ("a/b", "..", "%2F", "Küche"):
        assert push({**environ, "PUSH_JOB": job}).status == 0

    jobs = {labels["job"] for labels in pushgateway.groups().values()}
    assert {f"{job}_push" for job in ("a/b", "..", "%2F", "Küche")} <= jobs


def test_a_group_that_fails_costs_the_others_nothing(environ, cloud):
    """A gateway that fails over one group still gets the others, one try each."""
    cloud.devices.append(STREAM)
    with RecordingServer() as gateway:
        gateway.fail(DELTA.sn, faults.status(500))

        run = push({**environ, "PUSHGATEWAY_URL": gateway.url})

        assert run.status == 1
        tried = [r.path.rsplit("/", 1)[1] for r in gateway.received]
        assert tried == [*[DELTA.sn] * 5, STREAM.sn, "test"]


def test_many_groups_are_warned_of(environ, cloud):
    """Beyond 50 devices on one gateway the run says that this takes long."""
    cloud.devices[:] = fleet_of(51)
    with RecordingServer() as gateway:
        run = push({**environ, "PUSHGATEWAY_URL": gateway.url})

    assert run.status == 0
    assert "51 devices on one Pushgateway" in run.stderr


@pytest.mark.case("D6", "K9")
@pytest.mark.parametrize(
    ("given", "clean"),
    [
        ("Garage", "Garage"),
        ("Gara\x00\x00ge\x00", "Gara ge"),
        ("a\nb\u2028c", "a b c"),
        ("\ud800", "?"),
        ("x" * 300, "x" * 256),
        (None, ""),
        (7, ""),
    ],
)
def test_names_become_label_values(given, clean):
    """Whatever a device is called, its label is one printable line of UTF-8."""
    assert clean_text(given) == clean


def test_one_devices_refusal_is_its_own(environ, cloud, pushgateway):
    """A 403 or refusal code for one device does not starve the others, nor the keys."""
    cloud.devices.append(STREAM)
    for fault in (faults.status(403), faults.code("401", "unauthorized")):
        cloud.heal()
        cloud.fail(f"quota/all?sn={DELTA.sn}", fault)
        for _ in range(4):
            assert push(environ).status == 1

    assert values(pushgateway.device(STREAM.sn))
    assert len([r for r in cloud.received if "device/list" in r.path]) == 8


def test_a_retry_after_beyond_one_devices_share(environ, cloud, pushgateway):
    """A pause too long for one device's share costs that device, not the round."""
    cloud.devices[:] = fleet_of(24)
    cloud.fail("quota/all", faults.status(429, Retry_After="3"), times=1)

    run = push({**environ, "RETRY_TIMEOUT": "30", "RUN_DEADLINE": "15"})

    assert run.status == 1, run.stderr
    assert pushgateway.run()["ecoflow_push_devices failed"] == 1
    cloud.heal()
    assert push(environ).status == 0


@pytest.mark.case("L8")
def test_a_blocked_stderr_does_not_hang_the_run(environ, cloud):
    """A log that nobody reads cannot hold a run: watchdog and signals still end it."""
    cloud.fail("device/list", faults.hang())
    read, write = os.pipe()
    os.set_blocking(write, False)
    while True:
        try:
            os.write(write, b"x" * 65536)
        except BlockingIOError:
            break
    os.set_blocking(write, True)
    process = subprocess.Popen(
        [sys.executable, PUSH], env={**environ, "RUN_DEADLINE": "1"}, stderr=write
    )
    try:
        # 1 s of deadline, 5 s to the watchdog, 10 s to the kernel's alarm.
        assert process.wait(timeout=60) in (75, -14)
    finally:
        process.kill()
        os.close(read)
        os.close(write)


@pytest.mark.case("L8")
@pytest.mark.parametrize("args", [["--help"], ["--version"], ["--dry-run"]])
@pytest.mark.parametrize("stream", ["full", "closed"])
def test_bad_standard_streams(args, stream, environ):
    """A full or closed stdout gives no traceback and a status of ours."""
    where = "/dev/full" if stream == "full" else "&-"
    line = f'exec "{sys.executable}" "{PUSH}" {" ".join(args)} >{where}'
    done = subprocess.run(
        ["sh", "-c", line],
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )

    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.returncode == (74 if args == ["--dry-run"] else 0)


@pytest.mark.case("P2")
def test_a_secret_echoed_by_the_gateway_is_masked(environ):
    """Credentials in a gateway's answer are masked before the answer is cut."""
    secret = "a-s3cret-that-is-long-enough-to-be-cut-in-the-middle"
    basic = base64.b64encode(f"user:{secret}".encode()).decode()
    with RecordingServer() as gateway:
        for echo in (basic, secret, "x" * 180 + secret):
            gateway.heal()
            gateway.fail("", faults.status(400, f"you sent {echo}".encode()))
            run = push(
                {
                    **environ,
                    "PUSHGATEWAY_URL": gateway.url,
                    "PUSHGATEWAY_USERNAME": "user",
                    "PUSHGATEWAY_PASSWORD": secret,
                }
            )
            assert run.status == 76
            assert secret[:10] not in run.stderr
            assert basic[:12] not in run.stderr


def test_a_textfile_must_be_a_file(environ, tmp_path):
    """A device or FIFO in the textfile's place is refused, not replaced."""
    fifo = tmp_path / "fifo.prom"
    os.mkfifo(fifo)
    del environ["PUSHGATEWAY_URL"]

    run = push({**environ, "TEXTFILE_PATH": str(fifo)})

    assert run.status == 74
    assert "not a regular file" in run.stderr
    assert fifo.is_fifo()

    planted = tmp_path / ".out.prom.tmp"
    os.mkfifo(planted)
    run = push({**environ, "TEXTFILE_PATH": str(tmp_path / "out.prom")})
    assert run.status == 0
    assert not planted.exists()


@pytest.mark.case("L11", "K14")
@pytest.mark.parametrize("umask", ["000", "077", "777"])
def test_folders_are_private_under_any_umask(umask, environ, tmp_path):
    """With any umask the state's folders are ours alone, and the text file is not."""
    environ["TEXTFILE_PATH"] = str(tmp_path / "out.prom")
    line = f'umask {umask}; exec "{sys.executable}" "{PUSH}"'
    subprocess.run(["sh", "-c", line], env=environ, check=True, timeout=60)

    for path in (tmp_path / "state", *(tmp_path / "state").rglob("*")):
        mode = path.stat().st_mode & 0o777
        assert mode == 0o700 if path.is_dir() else mode & 0o077 == 0, path
    assert (tmp_path / "out.prom").stat().st_mode & 0o777 == 0o644


@pytest.mark.case("D6")
def test_hostile_keys_cost_little(environ, cloud, pushgateway):
    """Keys far longer than any device's are left out and counted, at no great cost."""
    body = (
        '{"code":"0","data":{"'
        + "p" * 100_000
        + '":{'
        + ",".join(f'"k{n}":1' for n in range(3000))
        + '},"'
        + "A" * 100_000
        + '":1,"b'
        + "[1]" * 3_000
        + '":1,"pd.soc":87}}'
    )
    cloud.fail("quota/all", faults.body(body.encode()))

    run = push(environ)

    assert run.status == 0, run.stderr
    assert run.seconds < 5
    assert values(pushgateway.device(DELTA.sn)) == {("ecoflow_pd_soc", ()): 87}
    assert pushgateway.run()["ecoflow_push_skipped_values too_long"] == 3


@pytest.mark.drill("kills")
def test_drill_signals_at_any_instant(environ, cloud, drill):
    """A signal at any instant of ours ends a run, with one line at most."""
    import random
    import signal

    chance = random.Random(drill.seed)
    rounds = drill.size(8, 150)
    slow = 0.0
    for _ in range(rounds):
        number = chance.choice([signal.SIGTERM, signal.SIGINT])
        process = subprocess.Popen(
            [sys.executable, PUSH], env=environ, stderr=subprocess.PIPE, text=True
        )
        # Until our first line of code has run, the system and Python answer.
        assert eventually(partial(hears, process.pid, signal.SIGTERM))
        time.sleep(chance.uniform(0, 0.2))
        began = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        slow = max(slow, time.monotonic() - began)
        assert process.returncode in (0, 128 + number), said
        # A run that has told its end may still be told to stop.
        lines = [line for line in said.splitlines() if " exit 0 OK " not in line]
        assert len(lines) <= 1, said
    print(f"{rounds} signals: the slowest end took {slow * 1000:.0f} ms")
    assert push(environ).status == 0


@pytest.mark.case("S6")
@pytest.mark.drill("kills")
def test_drill_kills_at_any_instant(environ, cloud, pushgateway, tmp_path, drill):
    """A run killed at any instant leaves no lock, no litter and no broken state."""
    import json
    import random

    chance = random.Random(drill.seed)
    rounds = drill.size(8, 200)
    environ["TEXTFILE_PATH"] = str(tmp_path / "out.prom")
    killed = at_work = 0
    while killed < rounds:
        cloud.received.clear()
        process = subprocess.Popen(
            [sys.executable, PUSH], env=environ, stderr=subprocess.DEVNULL
        )
        # From its first request on: before that there is an interpreter's start alone.
        while killed % 4 and not cloud.received and process.poll() is None:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05 if killed % 4 else 0.2))
        process.kill()
        killed += process.wait() < 0
        at_work += bool(cloud.received)
    assert at_work >= rounds // 2

    run = push(environ)

    assert run.status == 0, run.stderr
    assert len(run.stderr.splitlines()) == 1
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"lock", "state.json", "out.prom"}
    (state,) = tmp_path.rglob("state.json")
    assert DELTA.sn in json.loads(state.read_text())["devices"]
    print(f"{rounds} kills: the next run worked, and left no litter")


def ended(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    """Return the statuses of those that have ended."""
    return [p.returncode for p in processes if p.poll() is not None]


def are_but_one(processes: list[subprocess.Popen[bytes]]) -> bool:
    return len(ended(processes)) == len(processes) - 1


@pytest.mark.case("L1")
@pytest.mark.drill("kills")
def test_drill_fifty_starts_at_once(environ, cloud, drill):
    """Of many runs started at once exactly one works; the others end with 75."""
    starts, rounds = (50, 5) if drill.is_full else (10, 1)
    for _ in range(rounds):
        cloud.received.clear()
        cloud.fail("device/list", faults.hang(), times=1)
        processes = [
            subprocess.Popen(
                [sys.executable, PUSH], env=environ, stderr=subprocess.DEVNULL
            )
            for _ in range(starts)
        ]
        # The one that works hangs until all others have come and gone.
        assert eventually(partial(are_but_one, processes), 45)
        # It may be the slower one.
        assert eventually(lambda: cloud.received, 45)
        assert set(ended(processes)) == {75}
        for process in processes:
            process.terminate()
            process.wait(timeout=10)
        assert Counter(ended(processes)) == {75: starts - 1, 143: 1}
        lists = [r for r in cloud.received if "device/list" in r.path]
        assert len(lists) == 1
    print(f"{rounds} times {starts} starts: one asked EcoFlow, each time")
