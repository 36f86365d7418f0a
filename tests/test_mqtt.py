"""The app account over a real mosquitto: TLS, passwords, ACL, client id prefixes."""

from __future__ import annotations

import gc
import json
import ssl
import statistics
import struct
import subprocess
import sys
import threading

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from ecoflow_push.api.protobuf import message_class
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import (
    ACCOUNT_PASSWORD,
    SimulatedDevice,
)
from tests.broker import BROKER_PASSWORD, BROKER_USER
from tests.conftest import DELTA
from tests.mqtt import SECRETS, assert_decent, paths, use
from tests.scripted_broker import ScriptedBroker
from tests.support import PUSH, Run, eventually, push, push_anew, values

# How long a device that says nothing is waited for (docs/settings.md, MQTT_TIMEOUT).
SILENCE = 13
ASLEEP = SimulatedDevice("R601ZFAKE0000003", {"pd.soc": 12}, online=0)


def test_a_snapshot_over_mqtt(account, fleet, cloud, pushgateway):
    """The app account gives the same series as the developer keys."""
    run = push_anew(account)

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
    assert run.seconds < SILENCE


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


@pytest.mark.case("D14")
def test_offline_by_its_own_word(account, fleet, cloud, pushgateway):
    """A device whose reply says offline is offline: 0, its flag, and no value."""
    account["ECOFLOW_DEVICE_SN"] = f"{DELTA.sn},{ASLEEP.sn}"
    cloud.devices.append(ASLEEP)

    run = push(account)

    assert_decent(run, 0)
    assert pushgateway.device(ASLEEP.sn)["ecoflow_online", ()] == 0
    assert not values(pushgateway.device(ASLEEP.sn))
    assert values(pushgateway.device(DELTA.sn))


@pytest.mark.case("M4")
@pytest.mark.parametrize("is_listed", [True, False])
def test_silence_is_unknown(is_listed, account, fleet, cloud, pushgateway):
    """A device that does not answer is not called offline, and not read.

    If the account's list lacks it, that is what is said.
    """
    account |= {"ECOFLOW_DEVICE_SN": "R331ZFAKE0000009", "MQTT_TIMEOUT": "1"}
    words = "R331…0009: no answer, and not in this account's list (R331…0001): check"
    if is_listed:
        cloud.devices.append(SimulatedDevice("R331ZFAKE0000009", deaf_to=99))
        words = "R331…0009: no answer: asleep"

    run = push(account)

    assert_decent(run, 69)
    assert words in run.stderr
    assert ("ecoflow_online", ()) not in pushgateway.device("R331ZFAKE0000009")
    assert run.seconds < SILENCE


def test_a_config_frame_is_no_data(account, fleet, cloud, pushgateway):
    """A reporting plan is no telemetry: the device is asked again, and then answers."""
    plan = b'{"params": {"pd.pdInfoFull": 300000, "pd.pdInfoIncre": 2000}}'
    cloud.devices[:] = [
        SimulatedDevice(DELTA.sn, DELTA.quotas, pushes=[plan], deaf_to=1)
    ]

    run = push(account)

    assert_decent(run, 0)
    assert 5 <= run.seconds < SILENCE
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


@pytest.mark.case("M6", "M8")
def test_garbage_and_floods_do_no_harm(account, cloud, pushgateway):
    """10,000 pushes, 400 kB, garbage and foreign topics: the reply still counts."""
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
        big = {"params": {f"x.k{n}": n for n in range(200)}, "pad": "x" * 400_000}
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


def test_auto_pauses_each_source_for_itself(environ, account, cloud):
    """With auto, a pause that the app account is asked for is not the keys'."""
    closed = SimulatedDevice("R601ZFAKE0000005", {"pd.soc": 55}, code="1006")
    cloud.devices[:] = [DELTA, closed]
    cloud.fail("/auth/login", faults.status(429, Retry_After="600"), times=1)
    both = {**environ, **account, **cloud.environ(), "ECOFLOW_SOURCE": "auto"}
    assert_decent(push(both), 1)
    cloud.received.clear()

    again = push(both)

    assert_decent(again, 1)
    assert "asked us to wait" in again.stderr
    assert "devices: 1 failed, 1 ok" in again.stderr
    assert "/auth/login" not in paths(cloud)


def test_a_device_of_this_run_has_its_name(account, fleet, cloud, pushgateway):
    """With --device beside ECOFLOW_DEVICE_SN the series carry the cloud's names."""
    other = SimulatedDevice("R331ZFAKE0000008", {"pd.soc": 5}, "Shed", "DELTA 2")
    cloud.devices.append(other)

    assert_decent(
        push({**account, "ECOFLOW_DEVICE_SN": DELTA.sn}, "--device", other.sn), 0
    )

    names = {
        (found["device"], found["device_name"])
        for name, labels in pushgateway.series()
        if name == "ecoflow_pd_soc" and (found := dict(labels))
    }
    assert names == {(other.sn, "Shed")}


@pytest.mark.case("M15")
def test_nothing_is_left_behind(account, fleet, cloud, broker, ca_file):
    """After close() no thread and no socket of the visit is left."""
    from ecoflow_push.api import create_client
    from ecoflow_push.config.settings import Settings
    from ecoflow_push.memory.state import State
    from ecoflow_push.net.deadline import Deadline

    threads = threading.active_count()
    settings = Settings.from_environ(account)
    client = create_client(settings, "mqtt", State(), None)
    reading = next(client.read((), Deadline(20)))
    assert reading.snapshot
    assert reading.snapshot.quotas == DELTA.quotas

    client.close()
    client.close()

    del client
    gc.collect()  # a socket left open would warn, and a warning is an error here
    # The simulated cloud's own threads end a moment after their connections.
    assert eventually(lambda: threading.active_count() <= threads)


@pytest.mark.case("K8")
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
    assert run.seconds < SILENCE
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


@pytest.mark.case("M16")
def test_a_taken_over_session(account, fleet, cloud, broker, ca_file):
    """Another session with our client id ends the visit in one line, at once."""
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, deaf_to=99)]
    process = subprocess.Popen(
        [sys.executable, PUSH], env=account, stderr=subprocess.PIPE, text=True
    )
    assert eventually(lambda: fleet.asked)
    thief = Client(CallbackAPIVersion.VERSION2, client_id=broker.client_ids()[0])
    thief.username_pw_set(BROKER_USER, BROKER_PASSWORD)
    thief.tls_set_context(ssl.create_default_context(cafile=ca_file))
    thief.connect("localhost", broker.port)
    thief.loop_start()
    _, said = process.communicate(timeout=60)
    thief.disconnect()
    thief.loop_stop()

    assert_decent(Run(process.returncode, "", said), 69)
    assert "another session with this client id" in said
    # It does not push the other one off in turn.
    assert len(broker.client_ids()) == 2


@pytest.mark.case("M15")
@pytest.mark.drill("soak")
def test_drill_many_visits(account, fleet, cloud, broker, pushgateway, drill):
    """However many runs visit: one login, one client id, one topic, right values."""
    runs = drill.size(4, 100)
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


@pytest.mark.parametrize("sn", ["A#B", "A+B", "#", "a/b", "\ud800", "x" * 70_000])
def test_a_hostile_serial_spoils_nothing(sn, account, fleet, cloud, pushgateway):
    """A serial that no device can have is left out; the others are read."""
    cloud.devices.append(SimulatedDevice(sn, {"pd.soc": 1}))

    assert_decent(push(account), 0)

    assert values(pushgateway.device(DELTA.sn))


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
