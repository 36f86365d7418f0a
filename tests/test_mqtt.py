"""The app account over a real mosquitto: TLS, passwords, ACL, client id prefixes."""

from __future__ import annotations

import datetime as dt
import gc
import json
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from ecoflow_push.api.protobuf import message_class
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import (
    ACCOUNT_PASSWORD,
    TOKEN,
    SimulatedBroker,
    SimulatedCloud,
    SimulatedDevice,
)
from ecoflow_push.simulator.devices import SimulatedDevices
from ecoflow_push.simulator.server import RecordingServer
from tests.broker import BROKER_PASSWORD, BROKER_USER, Mosquitto, mosquitto
from tests.conftest import DELTA
from tests.scripted_broker import ScriptedBroker, hang_up
from tests.support import PUSH, Run, free_port, push, values
from tests.test_layers import imported_by

SECRETS = (ACCOUNT_PASSWORD, TOKEN, BROKER_PASSWORD)
ASLEEP = SimulatedDevice("R601ZFAKE0000003", {"pd.soc": 12}, online=0)


@pytest.fixture
def broker(tmp_path, authority) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path / "broker", authority) as running:
        yield running


@pytest.fixture
def fleet(cloud, broker, ca_file) -> Iterator[SimulatedDevices]:
    """Devices behind the broker, whose credentials the cloud hands out."""
    cloud.devices[:] = [DELTA]
    cloud.broker = SimulatedBroker(
        "localhost", broker.port, BROKER_USER, BROKER_PASSWORD
    )
    with SimulatedDevices(
        cloud.devices,
        "localhost",
        broker.port,
        username="sim",
        password="sim",
        tls=ssl.create_default_context(cafile=ca_file),
    ) as devices:
        yield devices


@pytest.fixture
def account(environ, cloud: SimulatedCloud, ca_file) -> dict[str, str]:
    """The settings of a job that uses the app account."""
    kept = {k: v for k, v in environ.items() if not k.startswith("ECOFLOW_")}
    return {**kept, **cloud.account_environ(), "ECOFLOW_CA_FILE": ca_file}


def assert_decent(run: Run, status: int, *, lines: int = 1) -> None:
    assert run.status == status, run.stderr
    assert len(run.stderr.splitlines()) == lines, run.stderr
    assert "Traceback" not in run.stderr
    for secret in SECRETS:
        assert secret not in run.stderr + run.stdout


def paths(cloud: SimulatedCloud) -> list[str]:
    return [received.path.partition("?")[0] for received in cloud.received]


def test_a_snapshot_over_mqtt(account, fleet, cloud, pushgateway):
    """The app account gives the same series as the developer keys."""
    run = push(account)

    assert_decent(run, 0)
    assert values(pushgateway.device(DELTA.sn)) == {
        ("ecoflow_pd_soc", ()): 87,
        ("ecoflow_inv_ac_in_vol", ()): 230579,
        ("ecoflow_bms_bms_status_cell_vol", (("index_0", "0"),)): 3321,
        ("ecoflow_bms_bms_status_cell_vol", (("index_0", "1"),)): 3322,
    }
    device = pushgateway.device(DELTA.sn)
    assert device["ecoflow_online", ()] == 1
    (info,) = [dict(labels) for name, labels in device if name == "ecoflow_device_info"]
    assert info["source"] == "mqtt"
    assert {topic.rsplit("/", 1)[1] for topic, _ in fleet.asked} == {"get"}
    assert len(fleet.asked) == 2
    assert run.took < 3


def test_the_next_run_logs_in_no_more(account, fleet, cloud, broker, tmp_path):
    """Login, certification and client id of the first run serve the next ones."""
    for _ in range(3):
        assert_decent(push(account), 0)

    assert paths(cloud).count("/auth/login") == 1
    assert paths(cloud).count("/iot-auth/app/certification") == 1
    assert len(broker.client_ids()) == 3
    assert len(set(broker.client_ids())) == 1
    (file,) = tmp_path.rglob("account.json")
    assert file.stat().st_mode & 0o777 == 0o600
    assert ACCOUNT_PASSWORD not in file.read_text()


# -- what a device may answer ---------------------------------------------------------


def test_offline_by_its_own_word(account, fleet, cloud, pushgateway):
    """A device whose reply says offline is offline: 0, its flag, and no value."""
    account["ECOFLOW_DEVICE_SN"] = f"{DELTA.sn},{ASLEEP.sn}"
    cloud.devices.append(ASLEEP)

    run = push(account)

    assert_decent(run, 0)
    assert pushgateway.device(ASLEEP.sn)["ecoflow_online", ()] == 0
    assert not values(pushgateway.device(ASLEEP.sn))
    assert values(pushgateway.device(DELTA.sn))


def test_silence_is_unknown(account, fleet, cloud, pushgateway):
    """A device that does not answer is not called offline, and not read."""
    account |= {"ECOFLOW_DEVICE_SN": "R331ZFAKE0000009", "MQTT_TIMEOUT": "1"}

    run = push(account)

    assert_decent(run, 69)
    assert "no answer: asleep" in run.stderr
    assert ("ecoflow_online", ()) not in pushgateway.device("R331ZFAKE0000009")
    assert run.took < 4


def test_a_config_frame_is_no_data(account, fleet, cloud, pushgateway):
    """A reporting plan is no telemetry: the device is asked again, and then answers."""
    plan = b'{"params": {"pd.pdInfoFull": 300000, "pd.pdInfoIncre": 2000}}'
    cloud.devices[:] = [
        SimulatedDevice(DELTA.sn, DELTA.quotas, pushes=[plan], deaf_to=1)
    ]

    run = push(account)

    assert_decent(run, 0)
    assert 5 < run.took < 9
    names = {name for name, _ in pushgateway.device(DELTA.sn)}
    assert "ecoflow_pd_soc" in names
    assert "ecoflow_pd_pd_info_full" not in names
    assert len(fleet.asked) == 4


def test_config_frames_alone_are_no_data(account, fleet, cloud, pushgateway):
    """A device that sends its reporting plan and nothing else is not read."""
    plan = b'{"params": {"pd.pdInfoFull": 300000, "pd.bmsRunIncre": 30000}}'
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, pushes=[plan], deaf_to=99)]

    run = push({**account, "MQTT_TIMEOUT": "1"})

    assert_decent(run, 69)
    assert "no answer: asleep" in run.stderr
    assert not values(pushgateway.device(DELTA.sn))


def test_pushes_merge_into_the_reply(account, fleet, cloud, pushgateway):
    """What a device pushes beside its reply belongs to the same snapshot."""
    extra = b'{"params": {"mppt.inWatts": 58}, "timestamp": 1787344693}'
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, DELTA.quotas, pushes=[extra])]

    assert_decent(push(account), 0)

    device = values(pushgateway.device(DELTA.sn))
    assert device["ecoflow_mppt_in_watts", ()] == 58
    assert device["ecoflow_pd_soc", ()] == 87


def test_garbage_and_floods_do_no_harm(account, cloud, pushgateway):
    """10,000 pushes, 5 MB, garbage and foreign topics: the reply still counts."""
    own = f"/app/device/property/{DELTA.sn}"
    reply = json.dumps({"data": {"online": 1, "quotaMap": {"pd.soc": 87}}}).encode()
    garbage = [b"", b"{", b"\xff\xfe", b'{"params": 7}', b"[]", b"{}", b"nonsense"]

    def flood(broker, connection, topic):
        for payload in garbage:
            broker.publish(connection, own, payload)
            broker.publish(connection, f"{topic}_reply", payload)
            broker.publish(connection, "/some/other/topic", payload)
        for number in range(10_000):
            push = b'{"params": {"pd.wattsInSum": %d}}' % number
            broker.publish(connection, own, push)
        big = {"params": {f"x.k{n}": n for n in range(200)}, "pad": "x" * 5_000_000}
        broker.publish(connection, own, json.dumps(big).encode())
        broker.publish(connection, f"{topic}_reply", reply)

    with ScriptedBroker(then=flood) as broker:
        use(cloud, broker)
        run = push(account)

    assert_decent(run, 0)
    device = values(pushgateway.device(DELTA.sn))
    assert device["ecoflow_pd_soc", ()] == 87
    assert device["ecoflow_pd_watts_in_sum", ()] == 9999
    assert device["ecoflow_x_k199", ()] == 199


# -- the broker -----------------------------------------------------------------------


def use(cloud: SimulatedCloud, broker: ScriptedBroker) -> None:
    cloud.broker = SimulatedBroker(
        "127.0.0.1", broker.port, BROKER_USER, BROKER_PASSWORD, "mqtt"
    )


def reset(_broker, connection, _topic):
    hang_up(connection)


@pytest.mark.parametrize(
    ("broker", "status", "words"),
    [
        pytest.param({"connack": 4}, 77, "code 134", id="rc 4"),
        pytest.param({"connack": 5}, 77, "code 135", id="rc 5"),
        pytest.param({"connack": 3}, 69, "refused the connection", id="rc 3"),
        pytest.param({"connack": None}, 75, "no CONNACK in time", id="no CONNACK"),
        pytest.param({"suback": 128}, 77, "refused the subscription", id="SUBACK 128"),
        pytest.param({"suback": None}, 75, "did not confirm", id="no SUBACK"),
        pytest.param({"hangs_up": True}, 69, "connection", id="reset after CONNACK"),
        pytest.param({"then": reset}, 69, "connection", id="reset after SUBACK"),
        pytest.param({}, 69, "no answer: asleep", id="swallows all"),
    ],
)
def test_a_fault_of_the_broker(broker, status, words, account, cloud, pushgateway):
    """A broker's fault has its status and one line, after a single connection."""
    account |= {"RUN_DEADLINE": "5", "MQTT_TIMEOUT": "1"}
    with ScriptedBroker(**broker) as scripted:
        use(cloud, scripted)

        run = push(account)

        assert_decent(run, status)
        assert words in run.stderr
        assert run.took < 5
        assert scripted.connects == 1
    assert pushgateway.run()["ecoflow_push_exit_status"] == status


def test_a_broker_that_swallows_by_acl(account, cloud, authority, ca_file, tmp_path):
    """An ACL that grants nothing looks like silence, and ends like it."""
    with mosquitto(tmp_path / "deaf", authority) as deaf:
        (tmp_path / "deaf" / "acl").write_text(f"user {BROKER_USER}\n")
    with mosquitto(tmp_path / "deaf", authority) as deaf:
        cloud.broker = SimulatedBroker(
            "localhost", deaf.port, BROKER_USER, BROKER_PASSWORD
        )
        run = push({**account, "MQTT_TIMEOUT": "1"})

    assert_decent(run, 69)


def test_nobody_at_the_broker(account, cloud):
    """A closed port is 69, with plain words."""
    cloud.broker = SimulatedBroker(
        "127.0.0.1", free_port(), BROKER_USER, BROKER_PASSWORD
    )

    run = push(account)

    assert_decent(run, 69)
    assert "connection refused" in run.stderr


def test_a_silent_broker_ends_in_time(account, cloud):
    """A broker that accepts and never speaks TLS ends within the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        cloud.broker = SimulatedBroker("127.0.0.1", port, BROKER_USER, BROKER_PASSWORD)

        run = push({**account, "RUN_DEADLINE": "4"})

    assert run.status in (69, 75), run.stderr
    assert run.took < 4


def test_a_broker_nobody_trusts(account, fleet, cloud, tmp_path):
    """A broker of an unknown authority is refused; the password is never sent."""
    other = trustme.CA()
    other.cert_pem.write_to_path(str(tmp_path / "other.pem"))

    run = push({**account, "ECOFLOW_CA_FILE": str(tmp_path / "other.pem")})

    assert_decent(run, 69)
    assert "certificate was refused" in run.stderr
    assert fleet.asked == []


def test_an_expired_certificate(account, cloud, authority, tmp_path):
    """A broker's certificate that has expired is refused."""
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", not_after=past).configure_cert(context)
    with RecordingServer(tls=context) as expired:
        port = expired.server_address[1]
        cloud.broker = SimulatedBroker("localhost", port, BROKER_USER, BROKER_PASSWORD)

        run = push(account)

    assert_decent(run, 69)
    assert "certificate was refused" in run.stderr


# -- the account ----------------------------------------------------------------------


def test_rotated_broker_credentials_cost_one_login(account, fleet, cloud):
    """Cached credentials that the broker refuses cause exactly one new login."""
    right = cloud.broker
    cloud.broker = right._replace(password="rotated")
    assert_decent(push(account), 77)
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


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        pytest.param(faults.code("1", "Server is too busy"), 75, "too busy", id="busy"),
        pytest.param(faults.status(429), 75, "asked us to wait", id="429"),
        pytest.param(faults.status(500), 69, "HTTP 500", id="500"),
        pytest.param(faults.page(), 69, "no JSON", id="page"),
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


@pytest.mark.parametrize(
    "broker",
    [
        SimulatedBroker("evil.example", 8883, "u", "p"),
        SimulatedBroker("ecoflow.com.evil.example", 8883, "u", "p"),
        SimulatedBroker("169.254.169.254", 8883, "u", "p"),
        SimulatedBroker("localhost", 0, "u", "p"),
        SimulatedBroker("localhost", 70000, "u", "p"),
        SimulatedBroker("mqtt.ecoflow.com", 1883, "u", "p", "mqtt"),
    ],
    ids=str,
)
def test_a_broker_that_is_not_to_be_trusted(broker, account, cloud):
    """A broker outside ecoflow.com, without TLS or port is not contacted."""
    cloud.broker = broker

    run = push(account)

    assert_decent(run, 69)
    assert "named a broker" in run.stderr


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
    """A cache that is damaged, foreign or from another version is rebuilt quietly."""
    assert_decent(push(account), 0)
    cache_file(account).write_bytes(damage)

    assert_decent(push(account), 0)
    assert_decent(push(account), 0)

    assert paths(cloud).count("/auth/login") == 2


@pytest.mark.parametrize("field", range(8))
def test_a_cache_with_one_wrong_field(field, account, fleet, cloud):
    """A certification with a field of the wrong kind is fetched anew, by the login."""
    assert_decent(push(account), 0)
    cached = json.loads(cache_file(account).read_text())
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
    until = time.monotonic() + 10
    while not fleet.asked and time.monotonic() < until:
        time.sleep(0.01)

    assert_decent(push(account), 75)

    _, said = first.communicate(timeout=20)
    assert_decent(Run(first.returncode, "", said, 0.0), 0)
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


# -- both sources ---------------------------------------------------------------------


def test_auto_reads_what_the_keys_are_refused(
    environ, account, fleet, cloud, pushgateway
):
    """With both pairs and auto, MQTT reads what REST refuses or has no data of."""
    closed = SimulatedDevice("R601ZFAKE0000005", {"pd.soc": 55}, code="1006")
    cloud.devices[:] = [DELTA, closed]
    both = {**environ, **account, **cloud.environ(), "ECOFLOW_SOURCE": "auto"}

    run = push(both)

    assert_decent(run, 0)
    assert values(pushgateway.device(closed.sn)) == {("ecoflow_pd_soc", ()): 55}
    info = {
        sn: {dict(labels)["source"] for name, labels in series if "info" in name}
        for sn, series in pushgateway.devices().items()
    }
    assert info == {DELTA.sn: {"rest"}, closed.sn: {"mqtt"}}
    assert {topic.split("/")[3] for topic, _ in fleet.asked} == {closed.sn}


def test_auto_without_need_does_not_log_in(environ, account, fleet, cloud):
    """With auto, an account whose devices REST reads is not logged in."""
    both = {**environ, **account, **cloud.environ(), "ECOFLOW_SOURCE": "auto"}

    assert_decent(push(both), 0)

    assert "/auth/login" not in paths(cloud)


def test_nothing_is_left_behind(account, fleet, cloud, broker, ca_file):
    """After close() no thread and no socket of the visit is left."""
    from ecoflow_push.api import create_client
    from ecoflow_push.config.settings import Settings
    from ecoflow_push.net.deadline import Deadline

    threads = threading.active_count()
    settings = Settings.from_environ(account)
    client = create_client(settings, "mqtt", None)
    deadline = Deadline(20)
    client.connect(deadline)
    sns = [device.sn for device in client.get_devices(deadline)]
    client.ask(sns, deadline)
    assert client.get_device_quota(sns[0], deadline).quotas == DELTA.quotas

    client.close()
    client.close()

    del client
    gc.collect()  # a socket left open would warn, and a warning is an error here
    # The simulated cloud's own threads end a moment after their connections.
    until = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= threads


def test_no_secret_at_debug(account, fleet, cloud, tmp_path):
    """Password, token and broker password are in no output, at any level."""
    for style in ("text", "json"):
        run = push({**account, "LOG_LEVEL": "DEBUG", "LOG_FORMAT": style})
        assert run.status == 0
        for secret in SECRETS:
            assert secret not in run.stderr + run.stdout
    for file in tmp_path.rglob("state.json"):
        for secret in SECRETS:
            assert secret not in file.read_text()


# -- binary devices, and many visits --------------------------------------------------

DELTA_3 = "P231ZFAKE0000007"


def delta_3_frame(seq: int) -> bytes:
    """Return what a DELTA 3 answers: one clear header with a display report."""
    report = message_class("display.DisplayPropertyUpload")()
    report.pow_in_sum_w = 120.5
    report.cms_batt_soc = 66.0
    envelope = message_class("envelope.Envelope")()
    envelope.header.add(
        pdata=report.SerializeToString(), src=2, cmd_func=254, cmd_id=21, seq=seq
    )
    return bytes(envelope.SerializeToString())


BINARY = SimulatedDevice(DELTA_3, name="Cellar", frame=delta_3_frame)


def test_a_binary_device(account, fleet, cloud, pushgateway):
    """A device that speaks protobuf gives the keys that REST would, and is online."""
    cloud.devices[:] = [BINARY]

    run = push(account)

    assert_decent(run, 0)
    assert run.took < 3
    device = pushgateway.device(DELTA_3)
    assert values(device) == {
        ("ecoflow_pow_in_sum_w", ()): 120.5,
        ("ecoflow_cms_batt_soc", ()): 66.0,
    }
    assert device["ecoflow_online", ()] == 1


def test_a_binary_device_that_is_offline(account, fleet, cloud, pushgateway):
    """The code -2 in a reply's header is the cloud's word for offline."""

    def offline(seq: int) -> bytes:
        envelope = message_class("envelope.Envelope")()
        envelope.header.add(seq=seq, code=b"-2")
        return bytes(envelope.SerializeToString())

    cloud.devices[:] = [SimulatedDevice(DELTA_3, frame=offline)]

    assert_decent(push(account), 0)

    assert pushgateway.device(DELTA_3)["ecoflow_online", ()] == 0


def test_a_taken_over_session(account, fleet, cloud, broker, ca_file):
    """Another session with our client id ends the visit in one line, at once."""
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, deaf_to=99)]
    process = subprocess.Popen(
        [sys.executable, PUSH], env=account, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 10
    while not fleet.asked and time.monotonic() < until:
        time.sleep(0.01)
    thief = Client(CallbackAPIVersion.VERSION2, client_id=broker.client_ids()[0])
    thief.username_pw_set(BROKER_USER, BROKER_PASSWORD)
    thief.tls_set_context(ssl.create_default_context(cafile=ca_file))
    thief.connect("localhost", broker.port)
    thief.loop_start()
    _, said = process.communicate(timeout=15)
    thief.disconnect()
    thief.loop_stop()

    assert_decent(Run(process.returncode, "", said, 0.0), 69)
    assert "another session with this client id" in said


def test_drill_many_visits(account, fleet, cloud, broker, pushgateway, drill):
    """However many runs visit: one login, one client id, one topic, right values."""
    runs = 100 if drill else 4
    cloud.devices[:] = [DELTA, BINARY, ASLEEP]
    account["ECOFLOW_DEVICE_SN"] = f"{DELTA.sn},{DELTA_3},{ASLEEP.sn}"
    visits, answers = [], []

    for _ in range(runs):
        run = push(account)

        assert_decent(run, 0)
        own = pushgateway.run()
        visits.append(
            own["ecoflow_push_duration_seconds connect"]
            + own["ecoflow_push_duration_seconds collect"]
        )
        answers.append(max(answered - heard for heard, answered in fleet.times))
        fleet.times.clear()
        devices = pushgateway.devices()
        assert values(devices[DELTA.sn])["ecoflow_pd_soc", ()] == 87
        assert values(devices[DELTA_3])["ecoflow_cms_batt_soc", ()] == 66.0
        assert devices[ASLEEP.sn]["ecoflow_online", ()] == 0
        assert not values(devices[ASLEEP.sn])

    assert paths(cloud).count("/auth/login") == 1
    assert paths(cloud).count("/iot-auth/app/certification") == 1
    assert len(broker.client_ids()) == runs
    assert len(set(broker.client_ids())) == 1
    assert {topic.rsplit("/", 1)[1] for topic, _ in fleet.asked} == {"get"}
    print(
        f"{runs} runs, {len(fleet.asked)} requests; median from the first import to the"
        f" last answer {statistics.median(visits) * 1000:.0f} ms, of which the devices"
        f" took {statistics.median(answers) * 1000:.1f} ms to answer"
    )


def test_a_failing_certification_costs_one_login(account, fleet, cloud):
    """A login is kept at once: what fails behind it does not cost another one."""
    cloud.fail("certification", faults.status(500))
    for _ in range(3):
        assert_decent(push(account), 69)
    assert paths(cloud).count("/auth/login") == 1
    cloud.heal()

    assert_decent(push(account), 0)

    assert paths(cloud).count("/auth/login") == 1


@pytest.mark.parametrize("sn", ["A#B", "A+B", "#", "a/b", "\ud800", "x" * 70_000])
def test_a_hostile_serial_spoils_nothing(sn, account, fleet, cloud, pushgateway):
    """A serial that no device can have is left out; the others are read."""
    cloud.devices.append(SimulatedDevice(sn, {"pd.soc": 1}))

    assert_decent(push(account), 0)

    assert values(pushgateway.device(DELTA.sn))


@pytest.mark.parametrize("user_id", ["+", "a/b", "\ud800", "", "x" * 70_000])
def test_a_hostile_user_id_is_refused(user_id, account, cloud):
    """A user id that cannot stand in a topic is no answer of EcoFlow's."""
    data = {"user": {"userId": user_id}, "token": TOKEN}
    body = json.dumps({"code": "0", "data": data}).encode()
    cloud.fail("/auth/login", faults.body(body))

    assert_decent(push(account), 69)


def test_a_retained_message_is_no_news(account, cloud, pushgateway):
    """What the broker kept for whoever comes is as old as it likes: it is left out."""

    def retained(broker, connection, topic):
        own = f"/app/device/property/{DELTA.sn}"
        payload = b'{"params": {"pd.soc": 42}}'
        body = struct.pack("!H", len(own)) + own.encode() + payload
        connection.sendall(bytes((0x31, len(body))) + body)

    with ScriptedBroker(then=retained) as broker:
        use(cloud, broker)
        assert_decent(push({**account, "MQTT_TIMEOUT": "1"}), 69)

    assert not values(pushgateway.device(DELTA.sn))
