"""The app account: what is heard and not understood, and who answers no question."""

from __future__ import annotations

import json
import threading

import pytest

from ecoflow_push.api.report import unnamed
from ecoflow_push.api.visit import LISTEN_CURE
from ecoflow_push.devices.questions import questions
from ecoflow_push.run.collect import COLLECT_SHARE
from ecoflow_push.simulator.cloud import SimulatedDevice
from tests.conftest import DELTA
from tests.frames import DISPLAY, FIT, MANAGER, fields, header
from tests.mqtt import assert_decent, use
from tests.scripted_broker import ScriptedBroker
from tests.support import LATE, eventually, push, push_anew, values
from tests.test_mqtt import DELTA_3, SILENCE

GLOW = "HF33ZFAKE0000001"
NEW = "ZZ99ZFAKE0000001"
# Nobody's numbers.
STRANGE = (99, 7)


def unknown(gateway):
    """Return the unknown messages of the last run, by family and message."""
    return {
        (found["family"], found["message"]): value
        for (name, labels), value in gateway.series().items()
        if name == "ecoflow_push_unknown_messages" and (found := dict(labels))
    }


def strange(sn: str, **more) -> SimulatedDevice:
    """Return a device that answers the binary question in a message of its own."""

    def frame(seq: int) -> bytes:
        return header(STRANGE, {1: 5, 2: sn}, src=2, seq=seq) * 2

    return SimulatedDevice(sn, frame=frame, **more)


# -- heard, and not understood --------------------------------------------------------


@pytest.mark.parametrize("sn", [GLOW, NEW])
def test_an_answer_that_nobody_can_read(sn, account, fleet, cloud, pushgateway):
    """It is an answer: online, at once, status 0, counted, and told once a day."""
    cloud.devices[:] = [strange(sn, name="Hall")]

    run = push_anew(account)

    assert_decent(run, 0)
    assert run.seconds < 5
    device = pushgateway.device(sn)
    assert device["ecoflow_online", ()] == 1
    assert "ecoflow_device_info" in {name for name, _ in device}
    assert not values(device)
    assert unknown(pushgateway) == {("unknown", "99/7"): 2}
    told = f"{sn[:4]}…0001: answers in messages that are not known yet (99/7): report"
    assert told in run.stderr
    assert sn not in run.stderr
    again = push(account)
    assert_decent(again, 0)
    assert "not known" not in again.stderr


def test_who_is_not_understood_costs_the_others_nothing(
    account, fleet, cloud, pushgateway
):
    """Beside it the others are read as ever, and what is known has no count."""
    cloud.devices[:] = [strange(GLOW), DELTA]

    run = push(account)

    assert_decent(run, 0)
    assert run.seconds < 5
    assert values(pushgateway.device(DELTA.sn))["ecoflow_pd_soc", ()] == 87
    assert unknown(pushgateway) == {("unknown", "99/7"): 2}


def test_known_and_unknown_in_one_answer(account, fleet, cloud, pushgateway):
    """What is known is read; the rest is counted for the family, and not told."""

    def frame(seq: int) -> bytes:
        known = header(DISPLAY, {3: 120.5}, src=2, seq=seq)
        return known + header(STRANGE, {1: 5}, src=2, seq=seq)

    cloud.devices[:] = [SimulatedDevice(DELTA_3, frame=frame)]

    run = push(account)

    assert_decent(run, 0)
    device = values(pushgateway.device(DELTA_3))
    assert device == {("ecoflow_pow_in_sum_w", ()): 120.5}
    assert unknown(pushgateway) == {("DELTA 3", "99/7"): 1}
    assert "not known" not in run.stderr


@pytest.mark.case("M6")
@pytest.mark.parametrize(
    ("pushed", "message"),
    [
        (header(STRANGE, {1: 5}, src=2), "99/7"),
        (header(DISPLAY, {9999: 5}, src=2), "254/21"),
        (header(MANAGER, b"\x0a\x7f", src=2), "32/2"),
        (b'{"method": "NotifyStatus", "src": "shelly"}', "JSON"),
    ],
    ids=["message", "fields", "torn", "JSON"],
)
def test_a_push_that_nobody_can_read(
    pushed, message, account, fleet, cloud, pushgateway
):
    """Who speaks by itself is online; it is asked again, and soon left."""
    cloud.devices[:] = [SimulatedDevice(DELTA_3, pushes=[pushed], deaf_to=99)]

    run = push(account)

    assert_decent(run, 0)
    assert 8 <= run.seconds < 8 + LATE
    assert pushgateway.device(DELTA_3)["ecoflow_online", ()] == 1
    assert len(fleet.asked) == 4
    # Each of the two languages of both questions made it speak.
    assert unknown(pushgateway) == {("DELTA 3", message): 4}


def test_json_is_waited_for_behind_what_is_not_understood(
    account, fleet, cloud, pushgateway
):
    """A product that speaks JSON has more to say than its answer in binary."""
    reply = json.dumps({"data": {"online": 1, "quotaMap": {"pd.soc": 87}}}).encode()

    def frame(seq: int) -> bytes:
        topic = fleet.asked[-1][0] + "_reply"
        threading.Timer(1, fleet.say, (topic, reply)).start()
        return header(STRANGE, {1: 5}, src=2, seq=seq)

    cloud.devices[:] = [SimulatedDevice(DELTA.sn, frame=frame)]

    assert_decent(push(account), 0)

    assert values(pushgateway.device(DELTA.sn)) == {("ecoflow_pd_soc", ()): 87}


def test_offline_is_offline_whatever_it_pushed(account, fleet, cloud, pushgateway):
    """The cloud's word for offline counts, though something was heard."""
    cloud.devices[:] = [
        SimulatedDevice(NEW, online=0, pushes=[header(STRANGE, {1: 5}, src=2)])
    ]
    account["ECOFLOW_DEVICE_SN"] = NEW

    assert_decent(push(account), 0)

    assert pushgateway.device(NEW)["ecoflow_online", ()] == 0


def test_auto_hears_what_the_keys_are_refused(
    environ, account, fleet, cloud, pushgateway
):
    """With auto, a refused device that answers unintelligibly over MQTT is online."""
    cloud.devices[:] = [DELTA, strange(GLOW, code="1006")]
    both = {**environ, **account, **cloud.environ(), "ECOFLOW_SOURCE": "auto"}

    run = push(both)

    assert_decent(run, 0)
    assert "99/7" in run.stderr
    assert pushgateway.device(GLOW)["ecoflow_online", ()] == 1
    assert unknown(pushgateway) == {("unknown", "99/7"): 2}


def test_the_check_says_what_is_not_understood(account, fleet, cloud):
    """--check tells it as unknown, with what to do, and would exit with 0."""
    cloud.devices[:] = [strange(GLOW)]

    run = push(account, "--check")

    assert run.status == 0, run.stdout
    (line,) = [line for line in run.stdout.splitlines() if " device: " in line]
    assert line.startswith("unknown ")
    assert "(99/7): report them" in line
    assert "app account (no data)" in push(account, "--list-devices").stdout


def test_what_to_report_is_at_debug_without_names(account, fleet, cloud):
    """LOG_LEVEL=DEBUG prints such a message in hex, its texts crossed out."""
    cloud.devices[:] = [strange(NEW)]

    run = push({**account, "LOG_LEVEL": "DEBUG"})

    shown = fields({1: 5, 2: "X" * len(NEW)}).hex()
    assert f"ZZ99…0001: 99/7 {shown}" in run.stderr
    assert NEW not in run.stderr
    assert NEW.encode().hex() not in run.stderr


def test_a_report_names_nobody():
    """Serials, networks and names become X; numbers and all lengths stay."""
    numbers = bytes(range(0x18, 0x40)).translate(None, bytes(range(0x20, 0x7F)))
    pdata = numbers + b"\x0a\x09Our house\x12\x04Wifi" + NEW.encode() + numbers

    crossed = bytes.fromhex(unnamed(pdata, NEW))

    assert len(crossed) == len(pdata)
    assert crossed == pdata.replace(b"Our house", b"X" * 9).replace(
        b"Wifi" + NEW.encode(), b"X" * 20
    )


# -- impossible numbers ---------------------------------------------------------------


IMPOSSIBLE = [
    *("NaN", "Infinity", "-Infinity", "1e400", "-1e400"),
    *("9" * 400, "-" + "9" * 5000),
    *("null", '"?"', "[]", "{}", '{"a": null}', "[[], {}]"),
    # A name cut within a letter.
    '"Caf\udcc3"',
]


@pytest.mark.case("M6")
@pytest.mark.parametrize("value", IMPOSSIBLE, ids=lambda value: ascii(value[:12]))
def test_an_impossible_number_is_lost_alone(value, account, cloud, pushgateway):
    """Of a reply with one value that is none, and odd words beside, all else stays."""
    quotas = f'{{"pd.soc": 87, "pd.wattsInSum": {value}, "pd.wattsOutSum": 5}}'
    data = f'{{"online": 1, "sn": {value}, "quotaMap": {quotas}}}'
    reply = f'{{"id": {value}, "data": {data}}}'

    def answer(broker, connection, topic):
        payload = reply.encode("utf-8", "surrogateescape")
        broker.publish(connection, f"{topic}_reply", payload)

    account["METRICS_SET"] = "raw,normalized"
    with ScriptedBroker(then=answer) as broker:
        use(cloud, broker)
        run = push(account)

    assert_decent(run, 0)
    assert run.seconds < 5
    device = pushgateway.device(DELTA.sn)
    assert device["ecoflow_online", ()] == 1
    assert values(device) == {
        ("ecoflow_pd_soc", ()): 87,
        ("ecoflow_pd_watts_out_sum", ()): 5,
    }
    assert device["ecoflow_battery_charge_ratio", ()] == 0.87
    assert device["ecoflow_output_power_watts", ()] == 5
    assert ("ecoflow_input_power_watts", ()) not in device


@pytest.mark.parametrize(
    "lost",
    [
        {4: float("nan")},
        {4: float("inf")},
        {4: 1 << 63},
        {4: "five"},
        # Where the schema has a message: bytes that are none.
        {463: b"\xff\xff\xff"},
    ],
    ids=["nan", "inf", "varint", "text", "no message"],
)
def test_an_impossible_field_is_lost_alone(lost, account, fleet, cloud, pushgateway):
    """Of a binary answer with one field that cannot be, the others stay."""

    def frame(seq: int) -> bytes:
        pdata = fields({3: 120.5}) + fields(lost) + fields({262: 66.0})
        return header(DISPLAY, pdata, src=2, seq=seq)

    cloud.devices[:] = [SimulatedDevice(DELTA_3, frame=frame)]

    assert_decent(push(account), 0)

    assert values(pushgateway.device(DELTA_3)) == {
        ("ecoflow_pow_in_sum_w", ()): 120.5,
        ("ecoflow_cms_batt_soc", ()): 66.0,
    }


# -- who answers no question ----------------------------------------------------------


FIT_DEVICE = SimulatedDevice(FIT, deaf_to=99)
MINUTE = header((96, 33), {1: 250.0, 2: 1.0}, src=2)


def test_who_speaks_once_a_minute_is_listened_to(account, fleet, cloud, pushgateway):
    """It is waited for beyond the silence of others, who have their own times."""
    cloud.devices[:] = [FIT_DEVICE, DELTA]

    def speak() -> None:
        assert eventually(lambda: fleet.asked)
        # A message that is not the one that is waited for ends nothing.
        fleet.say(f"/app/device/property/{FIT}", header((96, 1), {1: 1}, src=2))
        late = threading.Timer(
            SILENCE + 1, fleet.say, (f"/app/device/property/{FIT}", MINUTE)
        )
        late.start()

    threading.Thread(target=speak).start()
    run = push(account)

    assert_decent(run, 0)
    assert SILENCE < run.seconds < SILENCE + 6
    fit, delta = (pushgateway.device(sn) for sn in (FIT, DELTA.sn))
    assert values(fit)
    assert fit["ecoflow_online", ()] == 1
    times = [d["ecoflow_snapshot_timestamp_seconds", ()] for d in (delta, fit)]
    assert times[1] - times[0] > SILENCE - 1


def test_a_deadline_that_is_too_short_is_told(account, fleet, cloud, pushgateway):
    """The run says what to set; the others are read and pushed as ever."""
    cloud.devices[:] = [FIT_DEVICE, DELTA]

    run = push({**account, "RUN_DEADLINE": "5"})

    assert_decent(run, 1)
    assert "HC31…0001: not heard in 3 s, and it answers no question" in run.stderr
    assert LISTEN_CURE in run.stderr
    assert values(pushgateway.device(DELTA.sn))
    alone = push({**account, "RUN_DEADLINE": "5", "ECOFLOW_DEVICE_SN": FIT})
    assert_decent(alone, 75)


def test_the_deadline_that_is_advised_is_long_enough():
    """115 s leave the longest listening, and some seconds to connect."""
    assert "RUN_DEADLINE to 115 " in LISTEN_CURE
    assert "MQTT_TIMEOUT at 65," in LISTEN_CURE
    longest = max(question.listen for question in questions().values())
    assert longest == 65
    assert longest + 3 <= 115 * COLLECT_SHARE
