"""Cases of the catalogue about a visit to the broker: what else may befall it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import (
    TOKEN,
    USER_ID,
    SimulatedBroker,
    SimulatedDevice,
)
from tests.broker import BROKER_PASSWORD, BROKER_USER
from tests.conftest import DELTA
from tests.mqtt import SECRETS, assert_decent, paths, use
from tests.scripted_broker import ScriptedBroker, hang_up
from tests.support import (
    LATE,
    PUSH,
    Gateway,
    Run,
    ended_by,
    eventually,
    push,
    values,
)

OTHER = "R331ZFAKE0000008"
SOON = 2  # seconds in which a signal ends a run


def reply_of(soc: int) -> bytes:
    """Return what a device of the JSON kind answers."""
    data = {"online": 1, "quotaMap": {"pd.soc": soc}}
    return json.dumps({"data": data}).encode()


@pytest.mark.case("M5")
def test_other_people_s_messages_say_nothing(account, cloud, pushgateway):
    """Whatever comes under another serial, user or topic, is no word of the device."""

    def talk(broker, connection, topic):
        params = b'{"params": {"pd.soc": 1, "pd.wattsInSum": 2}}'
        for place in (
            f"/app/device/property/{OTHER}",
            f"/app/device/property/{DELTA.sn}/",
            f"/app/device/property/{DELTA.sn}/x",
            f"/app/device/property/{DELTA.sn.lower()}",
            f"/app/device/{DELTA.sn}",
            f"app/device/property/{DELTA.sn}",
        ):
            broker.publish(connection, place, params)
        for place in (
            f"/app/{USER_ID}/{OTHER}/thing/property/get_reply",
            f"/app/7/{DELTA.sn}/thing/property/get_reply",
            f"{topic}_reply/x",
            f"/app/{USER_ID}/{DELTA.sn}/thing/property/set_reply",
            topic,
        ):
            broker.publish(connection, place, reply_of(3))
        broker.publish(connection, f"{topic}_reply", reply_of(87))

    account["ECOFLOW_DEVICE_SN"] = DELTA.sn
    with ScriptedBroker(then=talk) as broker:
        use(cloud, broker)
        run = push(account)

    assert_decent(run, 0)
    assert set(pushgateway.devices()) == {DELTA.sn}
    assert values(pushgateway.device(DELTA.sn)) == {("ecoflow_pd_soc", ()): 87}


@pytest.mark.case("M6")
def test_what_nobody_can_read_is_counted(account, cloud, pushgateway):
    """JSON of other words and frames without values are counted, and cost nothing."""
    own = f"/app/device/property/{DELTA.sn}"
    odd = (b'{"params": 7}', b"{}", b'{"params": [1]}')

    def talk(broker, connection, topic):
        for payload in (*odd, b"", b"\xff\xfe\x00", b"{", b'{"a":\xff'):
            broker.publish(connection, own, payload)
        broker.publish(connection, f"{topic}_reply", reply_of(87))

    with ScriptedBroker(then=talk) as broker:
        use(cloud, broker)
        run = push(account)

    assert_decent(run, 0)
    assert values(pushgateway.device(DELTA.sn)) == {("ecoflow_pd_soc", ()): 87}
    counts = {
        name: count
        for name, count in pushgateway.run().items()
        if "unknown_messages" in name
    }
    # Twice at most: the question has two languages, and the first answer may do.
    assert sum(counts.values()) in (len(odd), 2 * len(odd)), counts
    assert all("JSON" in name for name in counts)


# -- a session that ends in the middle ------------------------------------------------


def assert_unheard(gateway: Gateway) -> None:
    """Of a device that said nothing no more is told than that it is there."""
    names = {name for name, _ in gateway.device(OTHER)}
    assert names == {"ecoflow_device_info"}


@pytest.mark.case("M9")
@pytest.mark.parametrize("how", ["hangs up", "falls silent"])
def test_a_session_that_ends_in_the_middle(how, account, cloud, pushgateway):
    """Who has answered is read and delivered, who has not failed: 1, and no value."""
    cloud.devices.append(SimulatedDevice(OTHER, {"pd.soc": 5}))

    def talk(broker, connection, topic):
        if DELTA.sn in topic:
            broker.publish(connection, f"{topic}_reply", reply_of(87))
        elif how == "hangs up":
            # What was sent is heard before the reset would be.
            time.sleep(0.3)
            hang_up(connection)
        else:
            broker.stopping.wait(30)

    with ScriptedBroker(then=talk) as broker:
        use(cloud, broker)
        run = push({**account, "MQTT_TIMEOUT": "1"})
        broker.stopping.set()

        assert broker.connects == 1
    assert_decent(run, 1)
    assert run.seconds < 1 + LATE
    assert values(pushgateway.device(DELTA.sn)) == {("ecoflow_pd_soc", ()): 87}
    assert_unheard(pushgateway)
    own = pushgateway.run()
    assert own["ecoflow_push_devices ok"] == own["ecoflow_push_devices failed"] == 1
    assert own["ecoflow_push_exit_status"] == 1


@pytest.mark.case("M9")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_broker_that_dies_or_freezes(
    number, account, broker, fleet, cloud, pushgateway
):
    """A real broker that is killed or frozen: what was heard before it is delivered."""
    cloud.devices.append(SimulatedDevice(OTHER, deaf_to=99))
    account["MQTT_TIMEOUT"] = "2"
    process = subprocess.Popen(
        [sys.executable, PUSH], env=account, stderr=subprocess.PIPE, text=True
    )
    assert eventually(lambda: broker.has_acknowledged("get_reply"))
    broker.process.send_signal(number)
    _, said = process.communicate(timeout=60)
    broker.process.send_signal(signal.SIGCONT)

    run = Run(process.returncode, "", said)
    assert_decent(run, 1)
    assert run.seconds < 2 + LATE
    assert values(pushgateway.device(DELTA.sn))
    assert_unheard(pushgateway)


# -- what the account's answers may name ----------------------------------------------


class Certified(NamedTuple):
    """What the certification says, as the service's names have it."""

    url: object = "localhost"
    port: object = "8883"
    protocol: object = "mqtts"
    certificateAccount: object = BROKER_USER  # noqa: N815 - the service's
    certificatePassword: object = BROKER_PASSWORD  # noqa: N815 - the service's


@pytest.mark.case("M11")
@pytest.mark.parametrize(
    "port", ["x", "", "-1", "0", "70000", "88 83", "8883.0", "1e3", None, [8883], {}]
)
def test_a_port_that_is_none(port, account, cloud):
    """Whatever stands for a port and is none, nobody is contacted: 69."""
    data = Certified(port=port)._asdict()
    body = json.dumps({"code": "0", "data": data}).encode()
    cloud.fail("certification", faults.body(body))

    run = push(account)

    assert_decent(run, 69)
    assert "named a broker without a port" in run.stderr


@pytest.mark.case("M10", "M11")
@pytest.mark.parametrize(
    "odd", [None, "", [], {"a": BROKER_USER}, True, "a\nb"], ids=repr
)
@pytest.mark.parametrize("name", ["certificateAccount", "certificatePassword"])
def test_credentials_that_are_none(name, odd, account, fleet, cloud, broker):
    """What is no text is not made one: without user or password nobody is contacted."""
    data = Certified(port=str(broker.port))._replace(**{name: odd})._asdict()
    body = json.dumps({"code": "0", "data": data}).encode()
    cloud.fail("certification", faults.body(body))

    run = push(account)

    assert_decent(run, 69)
    assert "named odd credentials" in run.stderr
    assert broker.client_ids() == []


@pytest.mark.case("K11", "M11")
@pytest.mark.parametrize("host", ["127.0.0.2", "0.0.0.0", "127.1", "2130706433"])
def test_a_broker_on_this_host(host, account, cloud):
    """A broker beside us that the account may not name gets no connection."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        cloud.broker = SimulatedBroker(
            host, listener.getsockname()[1], BROKER_USER, BROKER_PASSWORD
        )
        run = push(account)

        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert_decent(run, 69)
    assert "a broker outside ecoflow.com, not trusted" in run.stderr


@pytest.mark.case("K11", "M11", "M13")
def test_a_login_file_that_names_this_host(account, fleet, cloud, tmp_path):
    """A login that somebody else stored leads no run of EcoFlow's host to loopback."""
    assert push(account).status == 0
    (own,) = (tmp_path / "state").glob("*/account.json")
    stored = json.loads(own.read_text())
    del stored["crc"]
    stored["bound"][0] = "api.ecoflow.com"
    # No proxy is there, so that nothing of it leaves this host.
    real = {
        **{k: v for k, v in account.items() if k != "ECOFLOW_API_HOST"},
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "ESTABLISH_ATTEMPTS": "1",
    }
    assert push(real).status == 69
    (folder,) = {*(tmp_path / "state").iterdir()} - {own.parent}
    planted = folder / "account.json"
    planted.touch(0o600)
    planted.write_text(json.dumps(stored))
    asked = len(fleet.asked)

    run = push(real)

    assert_decent(run, 69)
    assert len(fleet.asked) == asked
    assert TOKEN in planted.read_text()


@pytest.mark.case("M10")
@pytest.mark.parametrize(
    "data",
    [
        {"token": TOKEN},
        {"token": TOKEN, "user": None},
        {"token": TOKEN, "user": {}},
        {"token": TOKEN, "user": [USER_ID]},
        {"token": TOKEN, "user": USER_ID},
        {"user": {"userId": USER_ID}},
        {"user": {"userId": USER_ID}, "token": {"a": TOKEN}},
        {"user": {"userId": USER_ID}, "token": "a\nb"},
        [TOKEN, USER_ID],
        TOKEN,
        None,
    ],
    ids=repr,
)
def test_a_login_without_token_or_user(data, account, cloud, tmp_path):
    """A login that lacks a half is 69 after one try, and nothing of it is said."""
    body = json.dumps({"code": "0", "data": data}).encode()
    cloud.fail("/auth/login", faults.body(body))

    run = push({**account, "LOG_LEVEL": "DEBUG"})

    assert run.status == 69, run.stderr
    assert "without token or user" in run.stderr
    for secret in (*SECRETS, USER_ID):
        assert secret not in run.stderr
    assert paths(cloud).count("/auth/login") == 1


# -- signals --------------------------------------------------------------------------

Stage = Callable[[ScriptedBroker], bool]
STAGES: Mapping[str, tuple[Mapping[str, object], Stage]] = {
    "connecting": ({"connack": None}, lambda broker: broker.connects > 0),
    "subscribing": ({"suback": None}, lambda broker: broker.subscribes > 0),
    "waiting": ({}, lambda broker: broker.publishes > 0),
}


@pytest.mark.case("L6", "M14")
@pytest.mark.parametrize("stage", STAGES)
def test_a_signal_ends_a_visit(stage, account, cloud):
    """SIGTERM ends a visit within 2 s, whatever it waits for of the broker."""
    script, is_there = STAGES[stage]
    with ScriptedBroker(**script) as broker:  # type: ignore[arg-type]
        use(cloud, broker)
        terminate(account, lambda: is_there(broker))


@pytest.mark.case("L6", "M14")
@pytest.mark.parametrize("where", ["login", "handshake", "lost packets"])
def test_a_signal_ends_the_way_there(where, account, cloud):
    """SIGTERM ends a login, a handshake and a connection that nobody answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        silent.settimeout(60)
        port = silent.getsockname()[1]
        cloud.broker = SimulatedBroker("127.0.0.1", port, BROKER_USER, BROKER_PASSWORD)
        if where == "login":
            cloud.fail("/auth/login", faults.hang())
            terminate(account, lambda: bool(cloud.received))
        elif where == "handshake":
            taken: list[socket.socket] = []

            def accept() -> bool:
                taken.append(silent.accept()[0])
                return True

            terminate(account, accept)
            taken[0].close()
        else:
            # One more than fits: the kernel answers no further SYN.
            with socket.create_connection(("127.0.0.1", port)):
                terminate(
                    account, lambda: "certification" in f"{paths(cloud)}", pause=0.3
                )


def terminate(
    environ: dict[str, str], is_there: Callable[[], bool], pause: float = 0.0
) -> None:
    """Start a run, tell it to end when it is there, and see it end."""
    process = subprocess.Popen(
        [sys.executable, PUSH], env=environ, stderr=subprocess.PIPE, text=True
    )
    try:
        assert eventually(is_there)
        time.sleep(pause)
        assert process.poll() is None
        said, seconds = ended_by(signal.SIGTERM, process, process.pid)
    finally:
        process.kill()

    assert_decent(Run(process.returncode, "", said), 143)
    assert "stopped by signal 15" in said
    assert seconds < SOON
