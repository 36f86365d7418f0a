"""The whole road: push.py as cron starts it, a simulated cloud, a real Pushgateway."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import pytest

from ecoflow_push import __version__
from ecoflow_push.memory.state import State
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedDevice
from tests.conftest import DELTA, OFFLINE, STREAM
from tests.support import PUSH, eventually, parse, push, push_anew, values

LIST = "device/list"
QUOTA = "quota/all"


def test_one_run_replaces_the_device_and_the_run(environ, cloud, pushgateway):
    """One run leaves exactly the device's values and the run's own series."""
    before = time.time()

    run = push_anew(environ)

    assert run.status == 0, run.stderr
    assert values(pushgateway.device(DELTA.sn)) == {
        ("ecoflow_pd_soc", ()): 87,
        ("ecoflow_inv_ac_in_vol", ()): 230579,
        ("ecoflow_bms_bms_status_cell_vol", (("index_0", "0"),)): 3321,
        ("ecoflow_bms_bms_status_cell_vol", (("index_0", "1"),)): 3322,
    }
    assert pushgateway.groups() == {
        DELTA.sn: {"job": "ecoflow", "device": DELTA.sn},
        "ecoflow_push": {"job": "ecoflow_push", "instance": "test"},
    }
    own = pushgateway.run()
    assert own["ecoflow_push_success"] == 1
    assert own["ecoflow_push_exit_status"] == 0
    assert own["ecoflow_push_samples"] == 4
    assert own["ecoflow_push_devices ok"] == 1
    assert own[f"ecoflow_push_build_info {__version__}"] == 1
    at = own["ecoflow_push_last_success_timestamp_seconds"]
    assert before <= at <= time.time()


def test_one_run_sends_no_request_too_many(environ, cloud):
    """A run asks for the list once and for each device once, and a GET has no type."""
    cloud.devices.append(STREAM)

    assert push(environ).status == 0

    paths = [received.path.partition("?")[0] for received in cloud.received]
    assert [path.rsplit("/", 1)[1] for path in paths] == ["list", "all", "all"]
    assert all("content-type" not in received.headers for received in cloud.received)


def test_one_line_tells_a_healthy_run(environ):
    """A healthy run says one line at INFO, with a time, and nothing on stdout."""
    run = push(environ)

    (line,) = run.stderr.splitlines()
    assert " INFO exit 0 OK " in line
    assert "1 ok; 4 samples; pushgateway: ok" in line
    assert run.stdout == ""


@pytest.mark.case("D14")
def test_an_offline_device_has_no_values(environ, cloud, pushgateway):
    """An offline device's cached values never leave, only that it is offline."""
    cloud.devices[:] = [DELTA]
    assert push(environ).status == 0
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, DELTA.quotas, online=0)]

    run = push(environ)

    assert run.status == 0, run.stderr
    names = {name for name, _ in pushgateway.device(DELTA.sn)}
    assert names == {
        "ecoflow_online",
        "ecoflow_device_info",
        "ecoflow_snapshot_timestamp_seconds",
    }
    assert pushgateway.device(DELTA.sn)["ecoflow_online", ()] == 0
    assert QUOTA not in cloud.received[-1].path


def test_a_remembered_name_survives_a_list_without_it(environ, cloud, pushgateway):
    """A list row without names does not rename the series of a known device."""
    assert push(environ).status == 0
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, DELTA.quotas)]

    assert push(environ).status == 0

    labels = [dict(labels) for name, labels in pushgateway.series() if "pd_soc" in name]
    assert [label["device_name"] for label in labels] == ["Garage"]
    assert [label["product_name"] for label in labels] == ["DELTA 2"]


def test_a_device_that_left_is_deleted_after_two_lists(environ, cloud, pushgateway):
    """The group of a device that left the account is gone after the second run."""
    cloud.devices[:] = [DELTA, STREAM]
    assert push(environ).status == 0
    cloud.devices[:] = [DELTA]

    assert push(environ).status == 0
    assert STREAM.sn in pushgateway.groups()
    assert push(environ).status == 0
    assert set(pushgateway.groups()) == {DELTA.sn, "ecoflow_push"}


@pytest.mark.parametrize("reason", ["empty list", "error", "--device", "named", "demo"])
def test_nothing_else_deletes_a_group(reason, environ, cloud, pushgateway):
    """No group is deleted by an empty list, an error, --device or a setting."""
    cloud.devices[:] = [DELTA, STREAM]
    assert push(environ).status == 0
    args: tuple[str, ...] = ()
    if reason == "empty list":
        cloud.devices[:] = []
    elif reason == "error":
        cloud.fail(LIST, faults.status(500))
    elif reason == "--device":
        cloud.devices[:] = [DELTA]
        args = ("--device", DELTA.sn)
    elif reason == "demo":
        args = ("--demo",)
    else:
        cloud.devices[:] = [DELTA]
        environ["ECOFLOW_DEVICE_SN"] = DELTA.sn

    for _ in range(3):
        push(environ, *args)

    assert {DELTA.sn, STREAM.sn} <= set(pushgateway.groups())


def test_two_lists_in_a_row_means_in_a_row(environ, cloud, pushgateway):
    """A list that has the device again, in any run, starts the count anew."""
    cloud.devices[:] = [DELTA, STREAM]
    assert push(environ).status == 0
    cloud.devices[:] = [DELTA]
    assert push(environ).status == 0
    cloud.devices[:] = [DELTA, STREAM]
    assert push(environ, "--device", DELTA.sn).status == 0
    cloud.devices[:] = [DELTA]

    assert push(environ).status == 0

    assert STREAM.sn in pushgateway.groups()


def test_a_device_once_named_is_never_deleted(environ, cloud, pushgateway):
    """A device that the user named once is not taken for gone when it vanishes."""
    cloud.devices[:] = [DELTA, STREAM]
    assert push({**environ, "ECOFLOW_DEVICE_SN": STREAM.sn}).status == 0
    assert push(environ).status == 0
    cloud.devices[:] = [DELTA]

    for _ in range(3):
        assert push(environ).status == 0

    assert STREAM.sn in pushgateway.groups()


@pytest.mark.case("P6")
def test_an_unreadable_device_keeps_its_group_for_a_while(environ, cloud, pushgateway):
    """A device that failed keeps its group until STALE_AFTER, then only its info."""
    cloud.devices[:] = [DELTA, STREAM]
    assert push(environ).status == 0
    before = pushgateway.device(DELTA.sn)
    cloud.fail(f"{QUOTA}?sn={DELTA.sn}", faults.code("1", "whatever"))

    assert push(environ).status == 1
    assert pushgateway.device(DELTA.sn) == before
    assert push({**environ, "STALE_AFTER": "0"}).status == 1

    reduced = pushgateway.device(DELTA.sn)
    assert {name for name, _ in reduced} == {
        "ecoflow_device_info",
        "ecoflow_snapshot_timestamp_seconds",
    }
    at = ("ecoflow_snapshot_timestamp_seconds", ())
    assert reduced[at] == before[at]


@pytest.mark.case("P6")
def test_an_outage_reduces_every_known_device(environ, cloud, pushgateway):
    """When the list fails for too long, known devices lose their values too."""
    assert push(environ).status == 0
    cloud.fail(LIST, faults.status(500))

    run = push({**environ, "STALE_AFTER": "0"})

    assert run.status == 69
    assert not values(pushgateway.device(DELTA.sn))
    assert pushgateway.run()["ecoflow_push_devices failed"] == 1


def test_a_change_of_values_is_dated(environ, cloud, pushgateway):
    """The last change is unknown at first, then the time of the differing snapshot."""
    change = ("ecoflow_data_last_change_timestamp_seconds", ())
    snapshot = ("ecoflow_snapshot_timestamp_seconds", ())
    push(environ)
    push(environ)
    assert change not in pushgateway.device(DELTA.sn)
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, {"pd.soc": 86})]

    push(environ)
    changed = pushgateway.device(DELTA.sn)[change]
    push(environ)

    device = pushgateway.device(DELTA.sn)
    assert device[change] == changed < device[snapshot]


def test_online_without_telemetry_is_read(environ, cloud, pushgateway):
    """A device that EcoFlow has no telemetry for is online, without a timestamp."""
    cloud.devices[:] = [SimulatedDevice("BK21ZFAKE0000004", None)]

    assert push(environ).status == 0

    device = pushgateway.device("BK21ZFAKE0000004")
    assert {name for name, _ in device} == {"ecoflow_online", "ecoflow_device_info"}


def test_a_discovered_closed_model_is_dealt_with(environ, cloud, pushgateway):
    """A model closed to developer keys is told once a day and does not fail the run."""
    closed = SimulatedDevice("R601ZFAKE0000005", code="1006")
    cloud.devices[:] = [DELTA, closed]

    first, second = push(environ), push(environ)

    assert (first.status, second.status) == (0, 0)
    assert "R601…0005: " in first.stderr
    assert "the app account can read it" in first.stderr
    assert "1006" not in second.stderr
    assert pushgateway.device(closed.sn)["ecoflow_online", ()] == 1
    assert pushgateway.run()["ecoflow_push_devices refused"] == 1
    assert push({**environ, "ECOFLOW_DEVICE_SN": f"{DELTA.sn},{closed.sn}"}).status == 1
    assert push({**environ, "ECOFLOW_DEVICE_SN": closed.sn}).status == 77


@pytest.mark.case("N22", "D14")
def test_a_mistyped_serial_leaves_no_group(environ, pushgateway):
    """A serial that the account does not list makes the run partial, and no group."""
    run = push({**environ, "ECOFLOW_DEVICE_SN": f"{DELTA.sn},R331ZFAKE0000009"})

    assert run.status == 1
    assert "R331…0009" in run.stderr
    assert set(pushgateway.groups()) == {DELTA.sn, "ecoflow_push"}


def test_named_devices_only(environ, cloud, pushgateway):
    """ECOFLOW_DEVICE_SN narrows the job, --device one run of it."""
    cloud.devices[:] = [DELTA, STREAM, OFFLINE]
    names = f"{DELTA.sn}=One,{STREAM.sn}=Two"
    environ |= {
        "ECOFLOW_DEVICE_SN": f"{DELTA.sn},{STREAM.sn}",
        "ECOFLOW_DEVICE_NAME": names,
        "EXTRA_LABELS": "site=home",
    }

    assert push(environ, "--device", STREAM.sn).status == 0
    assert set(pushgateway.groups()) == {STREAM.sn, "ecoflow_push"}
    assert push(environ).status == 0

    assert set(pushgateway.groups()) == {DELTA.sn, STREAM.sn, "ecoflow_push"}
    shown = {
        (labels.get("device_name"), labels.get("product_name"), labels["site"])
        for labels in (dict(labels) for _, labels in pushgateway.series())
    }
    run_series = (None, None, "home")
    assert shown == {
        ("One", "DELTA 2", "home"),
        ("Two", "STREAM Ultra", "home"),
        run_series,
    }


def test_dry_run_prints_and_touches_nothing(environ, pushgateway, tmp_path):
    """--dry-run prints the exposition, logs to stderr, pushes and remembers nothing."""
    run = push(environ, "--dry-run")

    assert run.status == 0
    names = {name for name, _ in parse(run.stdout)}
    assert {"ecoflow_pd_soc", "ecoflow_push_success"} <= names
    assert pushgateway.groups() == {}
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lock"]


def test_the_textfile_holds_everything(environ, cloud, tmp_path):
    """The textfile holds devices and run, is world-readable and leaves no litter."""
    cloud.devices[:] = [DELTA, STREAM]
    path = tmp_path / "out" / "ecoflow.prom"
    path.parent.mkdir()
    environ["TEXTFILE_PATH"] = str(path)

    run = push(environ)

    assert run.status == 0, run.stderr
    names = [name for name, _ in parse(path.read_text())]
    assert names.count("ecoflow_online") == 2
    assert "ecoflow_push_success" in names
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in path.parent.iterdir()] == ["ecoflow.prom"]


def test_list_devices_says_how_each_is_read(environ, cloud):
    """--list-devices prints a table of serials, names, and how each can be read."""
    closed = SimulatedDevice("R601ZFAKE0000005", code="1006")
    cloud.devices[:] = [DELTA, OFFLINE, closed]

    run = push(environ, "--list-devices")

    rows = {line.split()[0]: line for line in run.stdout.splitlines()}
    assert rows[DELTA.sn].endswith("developer keys")
    assert rows[OFFLINE.sn].endswith("not asked (offline)")
    assert rows[closed.sn].endswith("app account only")
    assert "Garage" in rows[DELTA.sn]


# What a device reports: CHARGE, INPUT, OUTPUT and AGE.
NOW: dict[str, tuple[dict[str, object], list[str]]] = {
    "all": (
        {
            "bms_emsStatus.f32LcdShowSoc": 46.3,
            "pd.wattsInSum": 1710,
            "pd.wattsOutSum": 0,
        },
        ["46.3 %", "1710 W", "0 W", "0 s"],
    ),
    "some": ({"pd.wattsOutSum": 12}, ["", "", "12 W", "0 s"]),
    "a pack's": ({"bms_slave.soc": 40, "pd.x": 1}, ["", "", "", "0 s"]),
    "unknown": ({"pd.x": 1}, ["", "", "", "0 s"]),
    "out of bounds": ({"pd.wattsInSum": 99_999_999}, ["", "", "", "0 s"]),
    "nothing": ({}, ["", "", "", ""]),
}


@pytest.mark.parametrize("case", NOW)
def test_list_devices_says_what_they_say_now(case, environ, cloud):
    """--list-devices shows what was read, and a blank where nothing is known."""
    quotas, expected = NOW[case]
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, quotas), OFFLINE]
    environ["METRICS_PREFIX"] = "power"

    cells = table(push(environ, "--list-devices").stdout)

    shown = [cells[DELTA.sn][name] for name in ("CHARGE", "INPUT", "OUTPUT", "AGE")]
    assert re.sub(r"^[0-9] s$", "0 s", shown.pop()) == expected[-1]
    assert shown == expected[:-1]
    assert {cells[OFFLINE.sn][name] for name in ("CHARGE", "AGE", "CHANGED")} == {""}


def test_list_devices_says_when_the_values_changed(environ, cloud, tmp_path):
    """--list-devices tells how long ago the values last were others, once it knows."""
    for soc in (80, 81, 81):
        cloud.devices[:] = [SimulatedDevice(DELTA.sn, {"pd.soc": soc})]
        assert push(environ).status == 0
    (path,) = tmp_path.glob("state/**/state.json")
    with State.open(str(path.parent)) as state:
        changed_at = state.devices[DELTA.sn].changed_at
        assert changed_at
        state.devices[DELTA.sn].changed_at = changed_at - 3 * 3600
        state.save()

    cells = table(push(environ, "--list-devices").stdout)

    assert cells[DELTA.sn]["CHANGED"] == "3 h"


def table(text: str) -> dict[str, dict[str, str]]:
    """Return the cells of a table by the first of the row and the column's heading."""
    head, *rows = text.splitlines()
    places = [match.span() for match in re.finditer(r"\S+(?: \S+)*\s*", head)]
    names = [head[slice(*place)].strip() for place in places]
    cells = [
        [row.ljust(len(head))[slice(*at)].strip() for at in places] for row in rows
    ]
    return {row[0]: dict(zip(names, row, strict=True)) for row in cells}


def test_the_demo_needs_no_account(pushgateway, tmp_path):
    """--demo pushes three simulated devices under a job of its own."""
    run = push({"PUSHGATEWAY_URL": pushgateway.url, "PUSH_INSTANCE": "test"}, "--demo")

    assert run.status == 0, run.stderr
    jobs = {labels["job"] for labels in pushgateway.groups().values()}
    assert jobs == {"ecoflow_demo", "ecoflow_demo_push"}
    assert len(pushgateway.groups()) == 4


def test_the_demo_without_a_sink_prints():
    """--demo without any setting shows its metrics on the screen."""
    run = push({}, "--demo")

    assert run.status == 0
    assert 'ecoflow_pd_soc{device="R331DEMO00000001"' in run.stdout


@pytest.mark.case("K3")
def test_version_and_wrong_options():
    """--version prints the version; a wrong option is 64 and its value not echoed."""
    assert push({}, "--version").stdout == f"ecoflow-push {__version__}\n"
    wrong = [
        "--secret-key=tops3cret",
        "tops3cret",
        "--dry-run=tops3cret",
        "-dtops3cret",
    ]
    for args in (
        *([argument] for argument in wrong),
        ["--device"],
        ["--device", "a b"],
    ):
        run = push({}, *args)
        assert run.status == 64
        assert "tops3cret" not in run.stderr
        assert len(run.stderr.splitlines()) == 1


@pytest.mark.case("L1")
def test_a_second_run_leaves_at_once(environ, cloud, pushgateway):
    """While one run works, another ends with 75, without a wait or a push."""
    cloud.fail(LIST, faults.hang())
    first = subprocess.Popen(
        [sys.executable, PUSH], env=environ, stderr=subprocess.PIPE
    )
    try:
        assert eventually(lambda: cloud.received)

        second = push(environ)

        assert second.status == 75
        assert first.poll() is None
        assert "another run" in second.stderr
        assert push({**environ, "LOG_LEVEL": "CRITICAL"}).stderr == ""
        # What is wrong is said rather than who is at work.
        assert push({**environ, "PUSH_JOB_FILE": "/nowhere"}).status == 78
        assert push({**environ, "ECOFLOW_ACCOUNT_USER": "me"}).status == 78
        assert pushgateway.groups() == {}
    finally:
        first.kill()
        first.communicate()
    cloud.fail(LIST, lambda handler: handler.send(cloud.answer(cloud.received[-1])))


@pytest.mark.case("L2")
def test_a_killed_run_leaves_no_lock(environ, cloud):
    """A run that was killed does not lock out the next one."""
    cloud.fail(LIST, faults.hang(), times=1)
    first = subprocess.Popen(
        [sys.executable, PUSH], env=environ, stderr=subprocess.PIPE
    )
    assert eventually(lambda: cloud.received)
    first.kill()
    first.communicate()

    assert push(environ).status == 0


@pytest.mark.case("L6")
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
@pytest.mark.parametrize("where", ["cloud", "gateway"])
def test_a_signal_ends_the_run(number, status, where, environ, cloud, tmp_path):
    """SIGTERM and SIGINT end a run long before its deadline, whatever it waits for."""
    from ecoflow_push.simulator.server import RecordingServer

    with RecordingServer() as deaf:
        deaf.fail("", faults.hang())
        waiting_at = deaf
        if where == "cloud":
            cloud.fail(LIST, faults.hang())
            waiting_at = cloud
        environ["PUSHGATEWAY_URL"] = deaf.url
        process = subprocess.Popen(
            [sys.executable, PUSH], env=environ, stderr=subprocess.PIPE, text=True
        )
        assert eventually(lambda: waiting_at.received)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)

    assert process.returncode == status
    assert len(said.splitlines()) == 1
    assert "stopped by signal" in said


def test_a_fault_of_the_settings_is_told_in_the_form_that_was_asked_for(environ):
    """LOG_FORMAT=json holds for the line about wrong settings too."""
    run = push({**environ, "LOG_FORMAT": "json", "STALE_AFTER": "soon"})

    assert run.status == 78
    assert "STALE_AFTER" in json.loads(run.stderr)["message"]


@pytest.mark.parametrize("chosen", ["raw", "normalized", "raw,normalized", None])
def test_the_set_of_metrics_is_chosen(chosen, environ, pushgateway):
    """METRICS_SET chooses raw metrics, normalized ones, or both; unset it is both."""
    del environ["METRICS_SET"]
    if chosen:
        environ["METRICS_SET"] = chosen

    run = push(environ, "--device", DELTA.sn)

    names = {name for name, _ in pushgateway.device(DELTA.sn)}
    assert run.status == 0, run.stderr
    assert ("ecoflow_pd_soc" in names) == (chosen != "normalized")
    assert ("ecoflow_battery_charge_ratio" in names) == (chosen != "raw")
