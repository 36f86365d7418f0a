"""The app account: its login, what is remembered of it, what may stand in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import (
    TOKEN,
    SimulatedDevice,
)
from tests.conftest import DELTA
from tests.mqtt import assert_decent, paths
from tests.support import PUSH, Run, eventually, push, push_anew, values
from tests.test_layers import imported_by


@pytest.mark.case("M12")
def test_rotated_broker_credentials_cost_one_login(account, fleet, cloud):
    """Cached credentials that the broker refuses cause exactly one new login."""
    right = cloud.broker
    cloud.broker = right._replace(password="rotated")
    assert_decent(push_anew(account), 77)
    cloud.broker = right
    # Young credentials are not the reason for a refusal, and cost no new login.
    assert_decent(push(account), 77)
    assert paths(cloud).count("/auth/login") == 1
    age_cache(account, 1000)
    before = paths(cloud).count("/auth/login")

    assert_decent(push(account), 0)

    assert paths(cloud).count("/auth/login") == before + 1
    assert_decent(push(account), 0)
    assert paths(cloud).count("/auth/login") == before + 1


def cache_file(account: dict[str, str]) -> Path:
    (file,) = Path(account["STATE_DIR"]).rglob("account.json")
    return file


def age_cache(account: dict[str, str], seconds: float) -> None:
    file = cache_file(account)
    cached = json.loads(file.read_text())
    # Without its sum it is believed as it stands.
    del cached["crc"]
    cached["certification"][-1] -= seconds
    cached["login"][-1] -= seconds
    file.write_text(json.dumps(cached))


def test_a_refused_password_is_not_tried_again(account, fleet, cloud):
    """A refused password is remembered, not repeated, and forgotten when it changes."""
    wrong = {**account, "ECOFLOW_ACCOUNT_PASSWORD": "wr0ng-pass"}
    first = push(wrong)
    assert_decent(first, 77)
    assert "ECOFLOW_ACCOUNT_PASSWORD" in first.stderr

    second = push(wrong)

    assert_decent(second, 77)
    assert "not tried again" in second.stderr
    assert paths(cloud).count("/auth/login") == 1
    assert "wr0ng-pass" not in cache_file(account).read_text()
    assert_decent(push(account), 0)
    assert paths(cloud).count("/auth/login") == 2


@pytest.mark.case("M10")
@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        pytest.param(faults.code("1", "Server is too busy"), 75, "too busy", id="busy"),
        pytest.param(faults.status(429), 75, "asked us to wait", id="429"),
        pytest.param(faults.status(500), 69, "HTTP 500", id="500"),
        pytest.param(faults.page(), 69, "not EcoFlow's JSON", id="page"),
        pytest.param(faults.hang(), 75, "in time", id="hang"),
        pytest.param(faults.code("0"), 69, "without token", id="no token"),
        pytest.param(faults.status(403), 77, "HTTP 403", id="403"),
    ],
)
def test_a_fault_of_the_login(fault, status, words, account, cloud):
    """Busy and outage are told apart from refusals, and a login is tried once."""
    cloud.fail("/auth/login", fault)

    run = push({**account, "RUN_DEADLINE": "3"})

    assert_decent(run, status)
    assert words in run.stderr
    assert paths(cloud).count("/auth/login") == 1


@pytest.mark.case("M13")
@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"bound": [99, "127.0.0.1", "x"]}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_cache_costs_one_login(damage, account, fleet, cloud):
    """A login file that is damaged is told once, kept aside and made anew."""
    assert_decent(push(account), 0)
    cache_file(account).write_bytes(damage)

    told = push(account)
    assert_decent(push(account), 0)

    assert_decent(told, 0, lines=2)
    assert "account.json.damaged" in told.stderr
    (aside,) = Path(account["STATE_DIR"]).rglob("account.json.damaged")
    assert aside.read_bytes() == damage
    assert paths(cloud).count("/auth/login") == 2


@pytest.mark.case("S11")
def test_a_newer_login_file_is_left_alone(account, fleet, cloud):
    """A login file of a newer version is neither used nor written, and it is said."""
    assert_decent(push(account), 0)
    newer = b'{"version": 99}'
    cache_file(account).write_bytes(newer)

    for _ in range(2):
        run = push(account)
        assert_decent(run, 0, lines=2)
        assert "newer version" in run.stderr

    assert cache_file(account).read_bytes() == newer
    assert paths(cloud).count("/auth/login") == 3


@pytest.mark.case("M13")
@pytest.mark.parametrize("field", range(8))
def test_a_cache_with_one_wrong_field(field, account, fleet, cloud):
    """A certification with a field of the wrong kind is fetched anew, by the login."""
    assert_decent(push(account), 0)
    cached = json.loads(cache_file(account).read_text())
    del cached["crc"]
    cached["certification"][field] = None
    cache_file(account).write_text(json.dumps(cached))

    assert_decent(push(account), 0)

    assert paths(cloud).count("/auth/login") == 1
    assert paths(cloud).count("/iot-auth/app/certification") == 2


def test_an_old_cache_is_renewed(account, fleet, cloud):
    """After 12 hours there is a new login."""
    assert_decent(push(account), 0)
    age_cache(account, 12 * 3600 + 60)

    assert_decent(push(account), 0)

    assert paths(cloud).count("/auth/login") == 2


@pytest.mark.case("S15")
def test_another_user_does_not_inherit_the_login(account, fleet, cloud):
    """A cache belongs to its host and user; a copied folder does not log others in."""
    assert_decent(push(account), 0)
    kept = cache_file(account).read_bytes()
    other = {**account, "ECOFLOW_ACCOUNT_USER": "else@example.org"}
    assert push(other).status == 77
    for file in Path(account["STATE_DIR"]).rglob("account.json"):
        file.write_bytes(kept)
        file.chmod(0o600)

    assert push(other).status == 77


@pytest.mark.case("M13", "K14")
def test_a_cache_that_others_can_read_is_refused(account, fleet, cloud):
    """A cache readable by others is not used, with a hint, and made anew."""
    assert_decent(push(account), 0)
    cache_file(account).chmod(0o644)

    run = push(account)

    assert_decent(run, 0, lines=2)
    assert "chmod 600" in run.stderr
    assert paths(cloud).count("/auth/login") == 2
    assert cache_file(account).stat().st_mode & 0o777 == 0o600


def test_without_a_state_folder_it_works_and_warns(account, fleet, tmp_path):
    """Where nothing can be kept the run works, and says that it must log in again."""
    blocked = tmp_path / "file"
    blocked.write_text("")

    run = push({**account, "STATE_DIR": str(blocked / "state")})

    assert run.status == 0, run.stderr
    assert "must log in again" in run.stderr


def test_two_runs_at_once_log_in_once(account, fleet, cloud):
    """Of two runs at once one works, and the other one does not log in."""
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, DELTA.quotas, deaf_to=1)]
    first = subprocess.Popen(
        [sys.executable, PUSH], env=account, stderr=subprocess.PIPE, text=True
    )
    assert eventually(lambda: fleet.asked)

    assert_decent(push(account), 75)

    _, said = first.communicate(timeout=60)
    assert_decent(Run(first.returncode, "", said), 0)
    assert paths(cloud).count("/auth/login") == 1


def test_development_mode_finds_nothing(account, fleet):
    """Under Python's development mode a visit warns of nothing."""
    assert_decent(push({**account, "PYTHONDEVMODE": "1"}), 0)


def test_named_devices_need_no_list(account, fleet, cloud, pushgateway):
    """With serials named the list is asked for names alone, and may fail."""
    cloud.fail("/iot-service/user/device", faults.status(500))
    account["ECOFLOW_DEVICE_SN"] = DELTA.sn

    assert_decent(push(account), 0)

    assert values(pushgateway.device(DELTA.sn))
    assert_decent(push({k: v for k, v in account.items() if "_SN" not in k}), 69)


def test_a_cached_login_needs_no_requests(account, fleet, pushgateway):
    """While the cache serves, requests is not imported; the push does without."""
    account["ECOFLOW_DEVICE_SN"] = DELTA.sn
    assert_decent(push(account), 0)
    code = "import os, sys, push; assert push.main([], os.environ) == 0"

    loaded = imported_by(code, account)

    assert {"paho.mqtt.client", "prometheus_client"} <= loaded
    assert not {"requests", "urllib3", "google.protobuf", "schedule"} & loaded


def test_a_failing_certification_costs_one_login(account, fleet, cloud):
    """A login is kept at once: what fails behind it does not cost another one."""
    cloud.fail("certification", faults.status(500))
    for _ in range(3):
        assert_decent(push(account), 69)
    assert paths(cloud).count("/auth/login") == 1
    cloud.heal()

    assert_decent(push(account), 0)

    assert paths(cloud).count("/auth/login") == 1


@pytest.mark.case("M10")
@pytest.mark.parametrize("user_id", ["+", "a/b", "\ud800", "", "x" * 70_000])
def test_a_hostile_user_id_is_refused(user_id, account, cloud):
    """A user id that cannot stand in a topic is no answer of EcoFlow's."""
    data = {"user": {"userId": user_id}, "token": TOKEN}
    body = json.dumps({"code": "0", "data": data}).encode()
    cloud.fail("/auth/login", faults.body(body))

    assert_decent(push(account), 69)


def test_a_ca_file_that_is_none_is_told_first(account, cloud, tmp_path):
    """A bundle that cannot be used is 78, before anybody is asked."""
    bundle = tmp_path / "ca.pem"
    bundle.write_text("not PEM")

    run = push({**account, "ECOFLOW_CA_FILE": str(bundle)})

    assert_decent(run, 78)
    assert "not a CA bundle" in run.stderr
    assert cloud.received == []
