"""The app account: a broker that fails, and one that is not to be trusted."""

from __future__ import annotations

import datetime as dt
import re
import socket
import ssl

import pytest
import trustme

from ecoflow_push.simulator.cloud import (
    SimulatedBroker,
)
from ecoflow_push.simulator.server import RecordingServer
from tests.broker import BROKER_PASSWORD, BROKER_USER, mosquitto
from tests.mqtt import assert_decent, use
from tests.scripted_broker import ScriptedBroker, hang_up
from tests.support import LATE, free_port, push, push_anew


def reset(_broker, connection, _topic):
    hang_up(connection)


@pytest.mark.case("M1", "M2", "M3", "M4", "M9")
@pytest.mark.parametrize(
    ("broker", "status", "words"),
    [
        pytest.param({"connack": 1}, 69, "connection", id="rc 1"),
        pytest.param({"connack": 2}, 69, "refused the connection", id="rc 2"),
        pytest.param({"connack": 4}, 77, "code 134", id="rc 4"),
        pytest.param({"connack": 5}, 77, "code 135", id="rc 5"),
        pytest.param({"connack": 3}, 69, "refused the connection", id="rc 3"),
        pytest.param({"connack": None}, 75, "no CONNACK in time", id="no CONNACK"),
        pytest.param({"suback": 128}, 77, "refused the subscription", id="SUBACK 128"),
        # On a busy machine the one that waits may be the first to give up.
        pytest.param({"suback": None}, 75, "did not confirm|in time", id="no SUBACK"),
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
        assert re.search(words, run.stderr)
        assert run.seconds < 5 + LATE
        assert scripted.connects == 1
    assert pushgateway.run()["ecoflow_push_exit_status"] == status


@pytest.mark.case("M4")
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

    run = push_anew(account)

    assert_decent(run, 69)
    assert "connection refused" in run.stderr


@pytest.mark.case("M1")
def test_a_silent_broker_ends_in_time(account, cloud):
    """A broker that accepts and never speaks TLS ends within the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        cloud.broker = SimulatedBroker("127.0.0.1", port, BROKER_USER, BROKER_PASSWORD)

        run = push({**account, "RUN_DEADLINE": "4"})

    assert run.status in (69, 75), run.stderr
    assert run.seconds < 4 + LATE


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


@pytest.mark.case("M11", "K11")
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
