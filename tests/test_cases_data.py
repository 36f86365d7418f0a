"""Cases of the catalogue about what EcoFlow says, all the way to a real Pushgateway."""

from __future__ import annotations

import json
import time

import pytest

from ecoflow_push.metrics.names import MOST_SAMPLES
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedDevice
from tests.conftest import DELTA, STREAM
from tests.remote_write import ended, of_devices
from tests.support import push, values

QUOTA, LIST = "quota/all", "device/list"
SOC = ("ecoflow_pd_soc", ())


def says(data: bytes) -> bytes:
    return b'{"code":"0","message":"Success","data":' + data + b"}"


ENVELOPES = {
    "a text": b'"Success"',
    "a number": b"7",
    "null": b"null",
    "true": b"true",
    "a map without a code": b"{}",
    "a code that is null": b'{"code":null,"data":{"pd.soc":87}}',
    "a code that is a map": b'{"code":{"0":0},"data":{"pd.soc":87}}',
    "a code that is a list": b'{"code":["0"],"data":{"pd.soc":87}}',
    "a code that is true": b'{"code":true,"data":{"pd.soc":87}}',
    "two documents": says(b'{"pd.soc":87}') * 2,
    "data that is a text": says(b'"pd.soc"'),
    "data that is a number": says(b"87"),
    "data that is a list": says(b"[87]"),
}


@pytest.mark.case("D1")
@pytest.mark.parametrize("where", [LIST, QUOTA])
@pytest.mark.parametrize("envelope", ENVELOPES)
def test_an_envelope_that_is_none(envelope, where, environ, cloud, pushgateway):
    """What is no answer of EcoFlow's is 69 with one line, and no value comes of it."""
    # A list of devices is a list, if there is a device in it.
    cloud.fail(where, faults.body(ENVELOPES[envelope]))

    run = push(environ)

    assert run.status == 69, run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not values(pushgateway.device(DELTA.sn))


@pytest.mark.case("D1")
@pytest.mark.parametrize("code", [b"0", b'"0"'])
def test_a_code_may_be_a_number(code, environ, cloud, pushgateway):
    """Success is 0, be it a text or a number."""
    cloud.fail(QUOTA, faults.body(b'{"code":' + code + b',"data":{"pd.soc":87}}'))

    assert push(environ).status == 0

    assert values(pushgateway.device(DELTA.sn)) == {SOC: 87}


@pytest.mark.case("D2", "D3", "D6", "D7", "D9")
def test_one_map_with_all_that_is_odd(environ, cloud, pushgateway):
    """A real gateway takes what is left: unique, finite, plain; the rest is counted."""
    odd = {
        # Two that meet in one name, and a list beside a number.
        "pd.wattsIn": 1,
        "pd.watts_in": 2,
        "a.b": 3,
        "a_b": 4,
        "inv.x": [5, 6],
        "inv": {"x": 7},
        # Names that are none, or are somebody's.
        "": 8,
        ".": 9,
        "__name__": 10,
        "le": 11,
        "9v": 12,
        "---": 13,
        "pd.\ud800": 14,
        "pd.\0nul": 15,
        "pd.\u202ertl": 16,
        "pd.a\nb": 17,
        'pd.x{y="z"} 1\nevil 2': 18,
        "pd.\x1b[31mred": 19,
        "\ufeffpd.bom": 20,
        "device": 21,
        "job": 22,
        # Values that are none, or not quite.
        "t.true": True,
        "t.text": "12",
        "t.dashes": "--",
        "t.null": None,
        "t.long": "x" * 200_000,
        "pd.soc": 87,
    }
    cloud.fail(QUOTA, faults.body(says(json.dumps(odd).encode())))

    run = push(environ)

    assert run.status == 0, run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert run.stderr.isascii()
    found = values(pushgateway.device(DELTA.sn))
    assert found[SOC] == 87
    assert found["ecoflow_pd_watts_in", ()] == 1
    assert found["ecoflow_a_b", ()] == 3
    assert found["ecoflow_t_true", ()] == 1
    assert found["ecoflow_inv_x", (("index_0", "0"),)] == 5
    assert not {1.0, 3.0} & {value for key, value in found.items() if "_4" in key[0]}
    assert {2.0, 4.0}.isdisjoint(found.values())
    assert not [name for name, _ in found if "text" in name or "dashes" in name]
    own = pushgateway.run()
    skipped = {k.rpartition(" ")[2]: v for k, v in own.items() if "skipped" in k}
    assert skipped["collision"] >= 2
    assert skipped["string"] == 3
    assert skipped["null"] == 1
    # Nothing got lost on the way: each leaf is a sample, or counted.
    leaves = len(odd) + 1
    assert own["ecoflow_push_samples"] == len(found)
    assert len(found) + sum(skipped.values()) == leaves


@pytest.mark.case("D6", "K9", "K10")
@pytest.mark.parametrize(
    "name",
    [
        'Garage"} 1\necoflow_online{device="X"} 0\n# ',
        "\x1b[2J\x1b[31mall is well\x07",
        "a\\nb\\",
        "\ud800\udfff \ud83d",
        "\u202enpj.exe\u2069",
        "\ufeff\0\r\n\v\f\x85\u2028\u2029",
        "x" * 1_000_000,
        "2026-01-01T00:00:00.000Z INFO exit 0 OK after 0.1 s",
    ],
    ids=lambda name: ascii(name[:16]),
)
def test_a_hostile_name(name, environ, cloud, pushgateway):
    """A name stays one label value of a line and 256 letters, and forges no line."""
    product = name[::-1]
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, {"pd.soc": 87}, name, product)]

    run = push(environ | {"LOG_LEVEL": "DEBUG"})

    assert run.status == 0, run.stderr
    assert run.stderr.count(" exit 0 OK ") == 1
    assert "\x1b" not in run.stderr
    assert all(line.isprintable() for line in run.stderr.splitlines())
    assert set(pushgateway.devices()) == {DELTA.sn}
    assert pushgateway.device(DELTA.sn)["ecoflow_online", ()] == 1
    labels = [dict(found) for each, found in pushgateway.series() if "pd_soc" in each]
    assert len(labels) == 1
    for label in ("device_name", "product_name"):
        assert len(labels[0].get(label, "").splitlines()) <= 1
        assert len(labels[0].get(label, "")) <= 256


@pytest.mark.case("D8")
def test_a_key_that_is_there_twice(environ, cloud, pushgateway):
    """Of a key that one object has twice the last one counts, as JSON's readers do."""
    data = b'{"pd.soc":1,"pd.x":5,"pd.soc":87,"a":{"b":1,"b":2}}'
    cloud.fail(QUOTA, faults.body(says(data)))

    assert push(environ).status == 0

    assert values(pushgateway.device(DELTA.sn)) == {
        SOC: 87,
        ("ecoflow_pd_x", ()): 5,
        ("ecoflow_a_b", ()): 2,
    }


KINDS = [87, [1, 2, 3], {"a": {"b": 5}}, "text", None, True, [[1], []], 1e308, {}, 86.5]


@pytest.mark.case("D10", "D11")
def test_a_value_that_is_another_kind_each_time(environ, cloud, receiver, pushgateway):
    """From run to run a key may be anything: only what it is now is there."""
    environ["REMOTE_WRITE_URL"] = receiver.write_url
    expected = [{""}, {"0", "1", "2"}, {"_a_b"}, set(), set(), {""}, {"0 0"}, {""}]
    for value, places in zip(KINDS, [*expected, set(), {""}], strict=True):
        cloud.devices[:] = [SimulatedDevice(DELTA.sn, {"pd.x": value, "pd.soc": 87})]

        run = push(environ)

        assert run.status == 0, (value, run.stderr)
        found = values(pushgateway.device(DELTA.sn))
        assert found.pop(SOC) == 87
        told = {
            name.removeprefix("ecoflow_pd_x") + " ".join(index for _, index in labels)
            for name, labels in found
        }
        assert told == places, value
    assert receiver.outrages == []


@pytest.mark.case("D11")
def test_a_list_that_shrinks(environ, cloud, receiver, pushgateway):
    """What a list has no more is gone from the gateway, and ends in the database."""
    environ["REMOTE_WRITE_URL"] = receiver.write_url
    for cells in ([3321, 3322, 3323], [3321]):
        cloud.devices[:] = [SimulatedDevice(DELTA.sn, {"bms.cellVol": cells})]
        assert push(environ).status == 0

    found = values(pushgateway.device(DELTA.sn))
    assert found == {("ecoflow_bms_cell_vol", (("index_0", "0"),)): 3321}
    gone = [s for s in of_devices(receiver)[-1] if s.is_stale]
    assert {sample.label("index_0") for sample in gone} == {"1", "2"}
    assert ended(gone) == {"ecoflow_bms_cell_vol"}


@pytest.mark.case("D12")
def test_more_keys_than_any_device_has(environ, cloud, pushgateway):
    """Of 10,000 keys the same first ones are pushed each time; the rest is counted."""
    keys = {f"k{n:05}": n for n in range(10_000)}
    found = []
    for order in (keys, dict(reversed(keys.items()))):
        cloud.devices[:] = [SimulatedDevice(DELTA.sn, order)]

        run = push(environ)

        assert run.status == 0, run.stderr
        assert "beyond the most of a device" in run.stderr
        found.append(set(values(pushgateway.device(DELTA.sn))))
        assert len(found[-1]) == MOST_SAMPLES
        skipped = pushgateway.run()["ecoflow_push_skipped_values too_many"]
        assert skipped == 10_000 - MOST_SAMPLES
    assert found[0] == found[1]


@pytest.mark.case("D13")
def test_a_fleet_that_takes_too_long(environ, cloud, pushgateway):
    """What there was no time for is told, and read first by the next run."""
    cloud.devices[:] = [
        SimulatedDevice(f"R331ZFAKE00001{n:02}", {"pd.soc": n}) for n in range(60)
    ]

    def slow(handler) -> None:
        time.sleep(0.2)
        handler.send(cloud.answer(handler.current))

    cloud.fail(QUOTA, slow)
    environ["RUN_DEADLINE"] = "4"

    first = push(environ)
    read = set(pushgateway.devices())
    have = {sn for sn in read if values(pushgateway.device(sn))}
    cloud.heal()
    cloud.received.clear()
    second = push({**environ, "RUN_DEADLINE": "20"})

    assert first.status in (1, 75), first.stderr
    assert 0 < len(have) < 60, first.stderr
    assert " failed, " in first.stderr
    assert second.status == 0
    asked = [each.path.partition("sn=")[2] for each in cloud.received]
    first_asked = next(sn for sn in asked if sn)
    assert first_asked not in have


@pytest.mark.case("D14")
@pytest.mark.parametrize("online", [0, "0", False, "false"])
def test_offline_beside_online(online, environ, cloud, pushgateway):
    """Whatever way it is said: online 0, no value, and the others as ever: 0."""
    old = SimulatedDevice(DELTA.sn, {"pd.soc": 87}, online=online)
    cloud.devices[:] = [old, STREAM]

    run = push(environ)

    assert run.status == 0, run.stderr
    assert pushgateway.device(DELTA.sn)["ecoflow_online", ()] == 0
    assert not values(pushgateway.device(DELTA.sn))
    assert values(pushgateway.device(STREAM.sn))
