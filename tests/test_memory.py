"""What anybody may send us, and how little a run holds of it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from ecoflow_push.api.account import Account
from ecoflow_push.api.envelope import (
    LETTER_BYTES,
    MOST_DEVICES,
    MOST_WEIGHT,
    weight_of,
)
from ecoflow_push.api.guard import Guard
from ecoflow_push.api.mqtt import MqttApiClient
from ecoflow_push.memory.state import State
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import (
    ACCOUNT_PASSWORD,
    ACCOUNT_USER,
    SimulatedCloud,
    SimulatedDevice,
)
from ecoflow_push.simulator.server import Fault, RecordingServer
from tests.conftest import DELTA
from tests.frames import DISPLAY, OCEAN, field, header
from tests.hostile import (
    DATA,
    LARGEST,
    MIB,
    MOST,
    Body,
    Held,
    Script,
    answers,
    bomb,
    claims,
    endless,
    envelope,
    forever,
    groups,
    long_headers,
    many,
    new_keys,
    numbered,
    once,
    own,
    packet,
    push_watched,
)
from tests.mqtt import use
from tests.receiver import Receiver
from tests.scripted_broker import Connection, ScriptedBroker
from tests.support import LATE

pytestmark = pytest.mark.drill("memory")

LIST = "device/list"
QUOTA = "quota/all"
DEADLINE = 8.0
HEAVY = "far more than any device or list has"
HEADERS, HEAP = "6 MB of headers", "a million empty lists"
LONG = "answered with more than 0.5 MiB"


def rows(table: Iterable[str], *short: str) -> list[ParameterSet]:
    """Return the names of `table`; all but the `short` ones are left to the drill."""
    late = pytest.mark.late
    return [
        pytest.param(each) if each in short else pytest.param(each, marks=late, id=each)
        for each in table
    ]


@pytest.fixture
def text(cloud: SimulatedCloud, tmp_path: Path) -> dict[str, str]:
    """The settings of a job that reads the cloud and writes a text file."""
    return {**cloud.environ(), **common(tmp_path)}


def common(folder: Path) -> dict[str, str]:
    return {
        "TEXTFILE_PATH": str(folder / "out.prom"),
        "STATE_DIR": str(folder / "state"),
        "PUSH_INSTANCE": "test",
        "RETRY_TIMEOUT": "0.05",
        "RUN_DEADLINE": str(DEADLINE),
    }


def assert_small(held: Held, status: int, words: str = "", lines: int = 1) -> None:
    """It ended in time, with its status and its line, and held little."""
    run, peak = held
    assert run.status == status, run.stderr
    assert "Traceback" not in run.stderr
    assert len(run.stderr.splitlines()) == lines, run.stderr
    assert words in run.stderr
    assert run.seconds < DEADLINE + LATE
    assert peak <= MOST, f"{peak / MIB:.1f} MiB"


# -- EcoFlow's REST services ----------------------------------------------------------


def test_the_largest_are_just_not_refused():
    """What these tests take for the most that is read of a device is nearly that."""
    for name, body in LARGEST.items():
        weight = weight_of(envelope(body()))
        assert 0.9 < weight / MOST_WEIGHT <= 1, name


def refused(body: Body) -> tuple[Fault, str]:
    """Return the answer that is too much, and what is said of it."""
    data = body()
    is_long = len(data) > MOST_WEIGHT // LETTER_BYTES
    return answers(200, envelope(data)), LONG if is_long else HEAVY


def bombed(status: int, **headers: str) -> Fault:
    """Answer with 256 MiB in little."""
    return answers(status, bomb(256 * MIB), **headers)


GZIP = {"Content_Encoding": "gzip"}
REFUSED: dict[str, Callable[[], tuple[Fault, str]]] = {
    **{name: partial(refused, body) for name, body in DATA.items()},
    "a body without an end": lambda: (endless(), LONG),
    "a bomb": lambda: (bombed(200, **GZIP), HEAVY),
    "a bomb, unsaid": lambda: (bombed(200), HEAVY),
    "a bomb of an error": lambda: (bombed(500, **GZIP), "HTTP 500"),
    "an error without an end": lambda: (endless(400), LONG),
    "6 MB of headers": lambda: (long_headers(), ""),
}


@pytest.mark.case("N8", "N9", "N10", "D5")
@pytest.mark.parametrize(
    "what",
    rows(REFUSED, "a million empty lists", "a bomb", "a body without an end", HEADERS),
)
def test_a_device_s_answer(what, text, cloud, tmp_path):
    """An answer far beyond any device's is not read: 69, one line with the cure."""
    fault, words = REFUSED[what]()
    cloud.fail(QUOTA, fault)

    assert_small(push_watched(text, tmp_path), 69, words)


@pytest.mark.case("N10")
@pytest.mark.parametrize("what", rows(REFUSED, "a bomb"))
def test_a_list_s_answer(what, text, cloud, tmp_path):
    """The same in place of the device list."""
    fault, _ = REFUSED[what]()
    cloud.fail(LIST, fault)

    assert_small(push_watched(text, tmp_path), 69)


@pytest.mark.case("D12")
@pytest.mark.parametrize("what", rows(LARGEST, next(iter(LARGEST))))
def test_twelve_devices_with_all_that_is_read(what, text, cloud, tmp_path):
    """Twelve devices that each say the most that is read are read, some at once."""
    cloud.devices[:] = [SimulatedDevice(f"R331ZFAKE{n:07}") for n in range(12)]
    cloud.fail(QUOTA, answers(200, envelope(LARGEST[what]())))
    with Receiver() as receiver:
        environ = text | {"REMOTE_WRITE_URL": receiver.write_url}
        environ["RUN_DEADLINE"] = "30"

        run, peak = push_watched(environ, tmp_path)

    assert run.status == 0, run.stderr
    assert peak <= MOST, f"{peak / MIB:.1f} MiB"
    # Told, where not all of it can be said.
    many_values = what not in ("lists", "a wide text")
    assert ("beyond the most of a device" in run.stderr) == many_values


@pytest.mark.parametrize("what", rows(["a body without an end", "a bomb", HEADERS]))
def test_twelve_devices_that_are_refused(what, text, cloud, tmp_path):
    """Four at once that send without an end hold no more than one does."""
    cloud.devices[:] = [SimulatedDevice(f"R331ZFAKE{n:07}") for n in range(12)]
    fault, _ = REFUSED[what]()
    cloud.fail(QUOTA, fault)

    assert_small(push_watched(text, tmp_path), 69)


@pytest.mark.case("D13")
def test_ten_thousand_devices(text, cloud, tmp_path):
    """An account of 10,000 devices is read; one of more than 12,000 is not."""

    def devices(count: int) -> list[SimulatedDevice]:
        name, product = "Garage, third row, {}", "DELTA Pro Ultra"
        return [
            SimulatedDevice(f"R331ZFAKE{n:07}", {}, name.format(n), product, online=0)
            for n in range(count)
        ]

    cloud.devices[:] = devices(10_000)
    text["RUN_DEADLINE"] = "60"
    run, peak = push_watched(text, tmp_path)
    assert run.status == 0, run.stderr
    assert "devices: 10000 offline" in run.stderr
    assert peak <= MOST

    cloud.devices[:] = devices(MOST_DEVICES + 1)
    held = push_watched(text, tmp_path)
    # All that were known are failed ones.
    assert held.run.status == 69, held.run.stderr
    assert "lists 12001 devices, more than 12000" in held.run.stderr
    assert held.peak <= MOST


@pytest.mark.parametrize("what", rows(["a million empty lists", "400,000 keys"], HEAP))
@pytest.mark.parametrize(
    "where", rows(["auth/login", "certification", "user/device"], "auth/login")
)
def test_the_app_account_s_answers(where, what, cloud, tmp_path):
    """An endless or overfull login, certification or list is one line, and 69."""
    cloud.fail(where, answers(200, envelope(DATA[what]())))
    with ScriptedBroker() as broker:
        use(cloud, broker)
        environ = cloud.account_environ() | common(tmp_path)

        held = push_watched(environ, tmp_path)

    assert_small(held, 69, "answered ")


def test_a_broker_s_password_of_a_megabyte(cloud, tmp_path):
    """What is no password is not remembered to be masked in all its spellings."""
    odd = {"url": "localhost", "port": 1, "certificateAccount": "a"}
    odd["certificatePassword"] = random.Random(1).randbytes(600_000).hex()
    cloud.fail("certification", answers(200, envelope(json.dumps(odd).encode())))
    environ = cloud.account_environ() | common(tmp_path)

    held = push_watched(environ, tmp_path)

    assert_small(held, 69, "odd credentials")


# -- sinks ----------------------------------------------------------------------------

ANSWERS: dict[str, Callable[[], Fault]] = {
    "an error of 4 MB": lambda: answers(400, b"out of order sample " * 200_000),
    "an error without an end": lambda: endless(400),
    "a bomb of an error": lambda: bombed(400, **GZIP),
    "a success without an end": endless,
    "6 MB of headers": long_headers,
    "a page without an end": lambda: answers(502, b"<html>" + b"<p>" * MIB),
}


@pytest.mark.parametrize("what", rows(ANSWERS, "an error without an end"))
@pytest.mark.parametrize("sink", ["PUSHGATEWAY", "REMOTE_WRITE", "HEALTHCHECK"])
def test_a_sink_s_answer(sink, what, text, tmp_path):
    """Whatever a sink answers with, it is told in one line, beside a sink that works.

    Nobody needs the words of a remote-write receiver's success or a healthcheck.
    """
    with RecordingServer() as server:
        server.fail("", ANSWERS[what]())
        environ = text | {f"{sink}_URL": server.url, "ESTABLISH_ATTEMPTS": "1"}

        run, peak = push_watched(environ, tmp_path)

    assert run.status in ((0,) if sink == "HEALTHCHECK" else (0, 1, 75)), run.stderr
    assert "Traceback" not in run.stderr
    assert max(map(len, run.stderr.splitlines())) < 1500
    assert run.seconds < DEADLINE + LATE
    assert peak <= MOST, f"{peak / MIB:.1f} MiB"


LISTS = "labels that are a list"
UNLISTED = "does not list its groups"
GROUPS: dict[str, tuple[Body, str]] = {
    "1,500 groups": (lambda: groups(1_500), ""),
    "600,000 groups": (
        lambda: (
            b'{"status":"success","data":' + many(b'{"labels":{}}', 8_000_000) + b"}"
        ),
        UNLISTED,
    ),
    "a group of 7 MiB": (
        lambda: b'{"data":[{"labels":' + numbered(350_000, '"l{n}":"v{n}"') + b"}]}",
        UNLISTED,
    ),
    "a million empty lists": (
        lambda: b'{"status":"success","data":' + many(b"[]", 7 * MIB) + b"}",
        "",
    ),
    LISTS: (lambda: b'{"data":[{"labels":["job","a"]}]}', UNLISTED),
    "seven million brackets": (lambda: b"[" * 7 * MIB, UNLISTED),
    "a text of 7 MiB": (lambda: b'{"data":["' + b"\\a" * (7 * MIB // 2) + b'"]}', ""),
}


@pytest.mark.parametrize("what", rows(GROUPS, "a group of 7 MiB", LISTS))
def test_a_gateway_s_list_of_groups(what, text, cloud, tmp_path):
    """A gateway's list is looked through, however long, and makes no objects."""
    body, words = GROUPS[what]
    cloud.fail(QUOTA, faults.status(500))
    with RecordingServer() as server:
        server.fail("/api/v1/metrics", answers(200, body()))
        environ = text | {"PUSHGATEWAY_URL": server.url, "ESTABLISH_ATTEMPTS": "1"}
        environ["ECOFLOW_DEVICE_SN"] = "R331ZFAKE0000009"
        del environ["TEXTFILE_PATH"]

        held = push_watched(environ, tmp_path)

    assert any("/api/v1/metrics" in each.path for each in server.received)
    assert held.run.status == 69, held.run.stderr
    assert (UNLISTED in held.run.stderr) == bool(words)
    assert held.peak <= MOST, f"{held.peak / MIB:.1f} MiB"


# -- the broker and the devices behind it ---------------------------------------------

REPLY = {"data": {"online": 1, "quotaMap": {"pd.soc": 87}}}


def reply(topic: str, data: bytes) -> bytes:
    body = b'{"data":{"online":1,"quotaMap":' + data + b"}}"
    return packet(f"{topic}_reply".encode(), body)


def at_qos(bits: int, size: int) -> Script:
    """Send messages of a QoS for ever, each with a number of its own."""

    def make(topic: str, number: int) -> bytes:
        mid = number % 65_535 + 1
        return packet(own(topic), b'{"params":{"a":1}}' + bytes(size), 0x30 | bits, mid)

    return forever(make)


FLOODS: dict[str, tuple[Script, int, str]] = {
    "a claim of 256 MiB": (claims(sends=False), 69, "a packet of 255 MiB, not read"),
    "256 MiB": (claims(sends=True), 69, "a packet of 255 MiB, not read"),
    "new keys for ever": (forever(new_keys), 0, "beyond the most of a device"),
    "small messages for ever": (
        forever(lambda topic, n: packet(own(topic), b'{"params":{"a":%d}}' % n) * 500),
        0,
        "1 samples",
    ),
    "the same megabyte for ever": (
        forever(
            lambda topic, n: packet(own(topic), b'{"params":{"a":"%s"}}' % (b"x" * MIB))
        ),
        0,
        "0 samples",
    ),
    "empty messages for ever": (
        forever(lambda topic, n: packet(own(topic), b"") * 5_000),
        75,
        "no answer from the device",
    ),
    "retained for ever": (
        forever(lambda topic, n: packet(own(topic), b'{"params":{"a":1}}', 0x31) * 500),
        75,
        "no answer from the device",
    ),
    "topics of 64 KiB": (
        forever(lambda topic, n: packet(b"/" * 65_535, b"")),
        75,
        "no answer from the device",
    ),
    "QoS 1, answers not taken": (at_qos(2, 0), 0, "1 samples"),
    "QoS 2, never released": (at_qos(4, 100_000), 69, "QoS 2"),
    "a million empty lists": (
        once(lambda topic: reply(topic, under_quota(many(b"[]", MIB)))),
        0,
        "answers in messages that are not known yet (JSON)",
    ),
    "frames of empty maps": (
        forever(
            lambda topic, n: packet(
                own(topic), header(DISPLAY, b"\x9a\x3a\x00" * 80_000)
            )
        ),
        0,
        "",
    ),
}


def under_quota(data: bytes) -> bytes:
    return b'{"a":' + data + b"}"


@pytest.mark.case("M7", "M8")
@pytest.mark.parametrize(
    "what",
    rows(FLOODS, "a claim of 256 MiB", "new keys for ever", "a million empty lists"),
)
def test_a_flood_over_mqtt(what, cloud, tmp_path):
    """Whatever comes over MQTT, for ever: the visit ends in time, and holds little."""
    script, status, words = FLOODS[what]
    with ScriptedBroker(then=script) as broker:
        use(cloud, broker)
        environ = cloud.account_environ() | common(tmp_path)
        environ |= {"RUN_DEADLINE": "6", "ECOFLOW_DEVICE_SN": DELTA.sn}

        run, peak = push_watched(environ, tmp_path)

    assert run.status == status, run.stderr
    assert words in run.stderr
    assert "Traceback" not in run.stderr
    assert run.seconds < 6 + LATE
    assert peak <= MOST, f"{peak / MIB:.1f} MiB"


def test_a_frame_of_many_units(cloud, tmp_path):
    """A megabyte of reports, each of a unit of its own, is not read."""
    units = b"".join(field(2, {1: n, 2: n}) for n in range(95_000))
    script = once(lambda topic: packet(own(topic), header((254, 32), units)))
    with ScriptedBroker(then=script) as broker:
        use(cloud, broker)
        environ = cloud.account_environ() | common(tmp_path)
        environ |= {"RUN_DEADLINE": "6", "ECOFLOW_DEVICE_SN": OCEAN}

        run, peak = push_watched(environ, tmp_path)

    assert run.status == 75, run.stderr
    assert peak <= MOST, f"{peak / MIB:.1f} MiB"


@pytest.mark.parametrize("what", rows(LARGEST, next(iter(LARGEST))))
def test_twelve_devices_over_mqtt(what, cloud, tmp_path):
    """Twelve devices with the most that is read answer at once, and are read."""
    cloud.devices[:] = [SimulatedDevice(f"R331ZFAKE{n:07}") for n in range(12)]
    data = LARGEST[what]()
    with ScriptedBroker(then=once(lambda topic: reply(topic, data))) as broker:
        use(cloud, broker)
        environ = cloud.account_environ() | common(tmp_path)
        environ["RUN_DEADLINE"] = "30"

        run, peak = push_watched(environ, tmp_path)

    assert run.status == 0, run.stderr
    assert peak <= MOST, f"{peak / MIB:.1f} MiB"


def test_forty_devices_beside_a_flood(cloud, tmp_path):
    """Asked much, a broker may not answer all of it at once with a megabyte each."""
    cloud.devices[:] = [SimulatedDevice(f"R331ZFAKE{n:07}") for n in range(40)]
    script, _, _ = FLOODS["the same megabyte for ever"]
    with ScriptedBroker(then=script) as broker:
        use(cloud, broker)
        environ = cloud.account_environ() | common(tmp_path) | {"RUN_DEADLINE": "6"}

        run, peak = push_watched(environ, tmp_path)

    # One of them is heard, and not understood.
    assert run.status == 1, run.stderr
    assert run.seconds < 6 + LATE
    assert peak <= MOST, f"{peak / MIB:.1f} MiB"


def test_what_was_handed_on_stays_as_it_is(cloud, tmp_path):
    """A device that goes on speaking does not change the snapshot that is in use."""
    serials = ["R331ZFAKE0000001", "R331ZFAKE0000002"]

    def script(broker: ScriptedBroker, connection: Connection, topic: str) -> None:
        if serials[0] in topic:
            connection.sendall(reply(topic, b'{"pd.soc":87}'))
            time.sleep(0.5)
            connection.sendall(packet(own(topic), b'{"params":{"pd.soc":5,"a":1}}'))

    state = State.open(str(tmp_path))
    with ScriptedBroker(then=script) as broker:
        use(cloud, broker)
        account = Account(cloud.url, ACCOUNT_USER, ACCOUNT_PASSWORD, path=None)
        client = MqttApiClient(account, Guard(state), instance="x", longest_visit=2.0)
        readings = client.read(serials, Deadline(20))

        first = next(readings)
        list(readings)
        client.close()
    state.close()

    assert first.snapshot
    assert first.snapshot.quotas == {"pd.soc": 87}
