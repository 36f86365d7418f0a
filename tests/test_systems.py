"""Devices of public tables: their frames from a broker to a gateway, and balances."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from functools import partial

import pytest

from ecoflow_push.devices.normalized import normalized_samples
from ecoflow_push.devices.products import family_by_serial, product_name, products
from ecoflow_push.simulator.cloud import SimulatedDevice
from tests.frames import DISPLAY, decode, fields, header
from tests.mqtt import assert_decent
from tests.support import ROOT, SHARED, Series, push, push_anew
from tests.test_normalized import GOLDEN, named

SYSTEM = (254, 39)
MODULE = (254, 46)
MINUTES = (96, 34)
PARALLEL = (96, 50)
HOURS = (254, 32)

# Each device's answer, written by hand from the tables of docs/protocol/values.md, and
# all that must become of it. `{pack}` in front is the pack's label.
STREAM = "ES21ZFAKE0000051"
OCEAN_2 = "RE17ZFAKE0000052"
PAIR = "J329ZFAKE0000053"
SECOND = "J329ZFAKE0000054"
WALLBOX = "C374ZFAKE0000055"
TRACKER = "S02FZFAKE0000056"
METER = "BK21ZFAKE0000057"
CLASSIC = "P322ZFAKE0000058"
PANEL = "HR61ZFAKE0000059"
PRO = "HR51ZFAKE0000060"
FIT = "HC31ZFAKE0000061"


def answers() -> dict[str, list[tuple[tuple[int, int], Mapping[int, object]]]]:
    """Return what the devices say; of what they tell the time, it is of now."""
    minute = int(time.time()) - 120
    return {
        STREAM: [
            (
                SYSTEM,
                {
                    11: {1: 612, 2: 90, 3: 1500, 4: 798, 5: 61, 6: 712},
                    12: {1: 261, 2: 444, 5: 45},
                    15: {1: 3, 3: -45.5},
                    18: {1: 3},
                    33: {6: 61.25},
                    50: {
                        1: {
                            1: STREAM,
                            3: 750.5,
                            4: 399.5,
                            7: 351.0,
                            9: 500.5,
                            11: 250.0,
                        }
                    },
                },
            )
        ],
        OCEAN_2: [
            (
                SYSTEM,
                {
                    7: {1: 999.0, 2: 999.0, 3: 999.0, 4: 999.0},
                    65: {4: 999.0, 7: 5000.0, 15: 7200.0, 17: 48.5, 20: 812.0},
                    87: {1: 930.0, 2: 118.0, 3: 0.0, 4: -812.0},
                },
            ),
            (MODULE, {5: {1: -399.0, 9: 16.0, 10: -25.0, 15: 2, 37: minute + 60}}),
            (
                MODULE,
                {
                    5: {1: -406.0, 3: 97, 9: 16.25, 10: -25.0, 15: 2, 17: 31, 30: 29.5}
                    | {37: minute + 120, 38: 48.25, 39: 98.5, 54: 3600.0}
                },
            ),
            (MODULE, {5: {1: -390.0, 9: 15.5, 10: -24.0, 15: 2, 37: minute}}),
        ],
        PAIR: [
            (
                PARALLEL,
                {
                    1: {1: 812.0, 2: 200.0, 4: -612.0, 5: 44},
                },
            ),
            (PARALLEL, {1: {1: 400.0, 2: 94.0, 4: -306.0, 5: 45, 6: PAIR}}),
            (PARALLEL, {1: {1: 412.0, 2: 106.0, 4: -306.0, 5: 43, 10: SECOND}}),
        ],
        WALLBOX: [
            (
                (2, 33),
                {
                    1: 3,
                    8: {2: 51200, 4: 3611.5, 7: 231.25, 8: 0.0, 9: 0.0, 10: 15.5},
                    17: 160,
                    42: 1200,
                    43: 50000,
                    44: 51200,
                    101: 2,
                },
            )
        ],
        TRACKER: [((32, 1), {3: 1, 4: 18000, 9: 40, 10: 2**32 - 1, 11: 42, 14: 88})],
        METER: [
            (
                DISPLAY,
                {515: -85.5, 773: {1: 900.0, 2: 800.0, 3: 700.0, 4: 3000.0, 6: 600.0}},
            )
        ],
        CLASSIC: [(DISPLAY, {3: 12.0, 4: 30.0, 262: 71.0})],
        PANEL: [
            (
                DISPLAY,
                {262: 80.0, 515: 250.0, 516: 1250.0, 517: 3000.0, 518: 2000.0}
                | {1015: {1: 120.5}, 1016: {2: -90.0, 3: 0.75}},
            )
        ],
        PRO: [
            (DISPLAY, {262: 57.0, 515: -100.0, 516: 4321.0, 517: 2600.0}),
            ((32, 177), {3: "HR52ZFAKE0000062", 5: 1, 11: 56.5, 44: 30000.0}),
        ],
        FIT: [
            (
                MINUTES,
                {
                    1: {1: 640.0, 3: -300.0, 4: 1500.0, 5: minute, 7: 40, 8: -1160.0},
                },
            ),
            (
                MINUTES,
                {
                    1: {1: -555.5, 5: minute + 60, 7: 39, 8: -555.5},
                },
            ),
        ],
    }


SAID = {
    STREAM: {
        "battery_charge_ratio": 0.61,
        "solar_input_power_watts": 750,
        "unit_solar_input_power_watts": 750.5,
        "grid_power_watts": -45,
        "home_power_watts": 306,
        "battery_power_watts": 399,
    },
    OCEAN_2: {
        "battery_charge_ratio": 0.485,
        "battery_energy_remaining_watt_hours": 7200,
        "solar_input_power_watts": 0,
        "grid_power_watts": 118,
        "home_power_watts": 930,
        "battery_power_watts": -812,
        "battery_charge_ratio 2": 0.4825,
        "battery_health_ratio 2": 0.985,
        "battery_voltage_volts 2": 16.25,
        "battery_current_amperes 2": -25,
        "battery_power_watts 2": -406,
        "battery_temperature_celsius 2": 29.5,
        "battery_cycles 2": 31,
        "battery_energy_remaining_watt_hours 2": 3600,
    },
    PAIR: {
        "battery_charge_ratio": 0.44,
        "solar_input_power_watts": 0,
        "grid_power_watts": 200,
        "home_power_watts": 812,
        "battery_power_watts": -612,
    },
    WALLBOX: {
        "output_power_watts": 3611.5,
        "ac_output_power_watts": 3611.5,
        "ac_input_voltage_volts": 231.25,
        "ac_output_energy_watt_hours_total": 51200,
    },
    TRACKER: {"battery_charge_ratio": 0.88},
    METER: {
        "grid_power_watts": -85.5,
        "grid_import_energy_watt_hours_total": 3000,
        "grid_export_energy_watt_hours_total": 600,
    },
    CLASSIC: {
        "battery_charge_ratio": 0.71,
        "input_power_watts": 12,
        "output_power_watts": 30,
    },
    PANEL: {
        "battery_charge_ratio": 0.8,
        "solar_input_power_watts": 3000,
        "grid_power_watts": 250,
        "home_power_watts": 1250,
        "battery_power_watts": 2000,
    },
    PRO: {
        "battery_charge_ratio": 0.57,
        "solar_input_power_watts": 2600,
        "grid_power_watts": -100,
        "battery_charge_ratio HR52ZFAKE0000062": 0.565,
    },
    FIT: {
        "battery_charge_ratio": 0.39,
        "solar_input_power_watts": 0,
        "grid_power_watts": 555.5,
        "home_power_watts": 555.5,
        "battery_power_watts": 0,
    },
}
PRODUCTS = {
    STREAM: ("STREAM 5000", "STREAM 5000"),
    OCEAN_2: ("OCEAN 2", "OCEAN 2"),
    PAIR: ("PowerOcean", "PowerOcean"),
    WALLBOX: ("PowerPulse 2", "PowerPulse"),
    TRACKER: ("Single Axis Solar Tracker", "Solar Tracker"),
    METER: ("Smart Meter", "Smart Meter"),
    CLASSIC: ("DELTA 3 Classic", "DELTA 3"),
    PANEL: ("OCEAN Smart Electrical Panel 40", "OCEAN Panel"),
    PRO: ("OCEAN Pro", "OCEAN Pro"),
    FIT: ("PowerOcean DC Fit", "PowerOcean DC Fit"),
}


def answer(sn: str, seq: int = 1) -> bytes:
    return b"".join(header(pair, content, seq=seq) for pair, content in answers()[sn])


def normalized_of(series: Series) -> dict[str, float]:
    """Return the normalized values of a gateway's group, with the pack's label."""
    found = {}
    for (name, labels), value in series.items():
        metric = name.removeprefix("ecoflow_")
        if metric.split("_")[0] in SAID_OF and not metric.startswith("push"):
            pack = dict(labels).get("pack", "")
            found[f"{metric} {pack}".strip()] = value
    return found


SAID_OF = {name.split("_")[0] for values in SAID.values() for name in values}


def test_what_public_tables_tell_reaches_the_gateway(
    account, fleet, cloud, pushgateway
):
    """Each answer, through a broker, becomes these values under this name, no other."""
    cloud.devices[:] = [SimulatedDevice(sn, frame=partial(answer, sn)) for sn in SAID]

    assert_decent(push_anew({**account, "METRICS_SET": "normalized"}), 0)

    for sn, expected in SAID.items():
        got = normalized_of(pushgateway.device(sn))
        assert got == pytest.approx(expected, rel=1e-6), sn
    told = {}
    for name, labels in pushgateway.series():
        if name == "ecoflow_device_info":
            info = dict(labels)
            told[info["device"]] = (info["product_name"], info["family"])
    assert told == PRODUCTS


@pytest.mark.parametrize("model", ["delta3_1500", "deltaproultrax"])
def test_what_the_developer_api_says_reaches_the_gateway(
    environ, cloud, pushgateway, model
):
    """A quota map of these models becomes the values of its golden map, no other."""
    golden = GOLDEN[model]
    sn, product = golden["sn"], golden["product"] or None
    cloud.devices[:] = [SimulatedDevice(sn, golden["quotas"], "One", product)]

    assert_decent(push({**environ, "METRICS_SET": "normalized"}), 0)

    got = pushgateway.device(sn)
    for metric, value in golden["expected"].items():
        assert got[f"ecoflow_{metric}", ()] == pytest.approx(value, rel=1e-9)
    (info,) = {
        dict(at)["product_name"] for _, at in pushgateway.series() if sn in str(at)
    }
    assert info == (product or "DELTA 3 1500")


# Presence


def read(
    sn: str, *messages: tuple[tuple[int, int], Mapping[int, object]]
) -> dict[str, float]:
    return read_bytes(sn, b"".join(header(*message) for message in messages))


def read_bytes(sn: str, payload: bytes) -> dict[str, float]:
    return named(normalized_samples(decode(payload, sn).quotas, sn, "", "ecoflow")[0])


@pytest.mark.parametrize("group", [11, 12, 15, 33, 50])
def test_a_group_that_is_not_there_says_nothing(group):
    """Without a group of 254/39 there is no value that only it holds, and no zero."""
    ((_, whole),) = answers()[STREAM]
    rest = {number: what for number, what in whole.items() if number != group}

    got = read(STREAM, (SYSTEM, rest))
    alone = read(STREAM, (SYSTEM, {group: whole[group]}))

    assert got.items() <= {**SAID[STREAM], **got}.items()
    assert {*got} | {*alone} == {*SAID[STREAM]}
    assert all(value for name, value in got.items())


def test_an_edge_that_is_missing_in_the_flow_is_zero():
    """An empty group 12 is a system at rest; none at all is not known."""
    assert read(STREAM, (SYSTEM, {12: {}})) == {
        "battery_power_watts": 0,
        "grid_power_watts": 0,
        "home_power_watts": 0,
    }
    assert read(STREAM, (SYSTEM, {25: 1})) == {}


def test_an_edge_in_another_form_is_not_zero():
    """A number of the flow that cannot be read makes no sum of the others."""
    strange = {12: {4: 518, 5: 18.0, 7: 20}}

    assert read(STREAM, (SYSTEM, strange)) == {"home_power_watts": 518}


@pytest.mark.parametrize(("source", "grid"), [(0, None), (4, 8), (None, 8)])
def test_a_meter_that_is_not_in_use_does_not_count(source, grid):
    """Without a flow the meter says what comes from the grid, if group 18 names one."""
    groups: dict[int, object] = {15: {1: 4, 3: 8.0}}
    if source is not None:
        groups[18] = {1: source}

    assert read(STREAM, (SYSTEM, groups)).get("grid_power_watts") == grid
    flow = {**groups, 12: {6: 297}}
    assert read(STREAM, (SYSTEM, flow))["grid_power_watts"] == 297


def test_of_linked_units_one_speaks_for_the_system():
    """Of two units that report one system only the first by serial gives its values."""
    second = "ES21ZFAKE0000099"
    units = {54: {1: {1: second, 2: 40}}}
    ((_, own),) = answers()[STREAM]
    # Two items of one list: the field twice.
    both = fields({54: _item({1: second, 2: 40}) + _item({1: STREAM, 2: 61})})

    def said(sn: str, more: bytes) -> dict[str, float]:
        return read_bytes(sn, header(SYSTEM, fields(own) + more))

    assert said(STREAM, both) == said(STREAM, b"") == SAID[STREAM]
    assert said(second, both) == {
        "battery_charge_ratio": 0.6125,
        "unit_solar_input_power_watts": 750.5,
    }
    # A list without the unit itself says nothing of it.
    assert said(STREAM, fields(units)) == SAID[STREAM]


@pytest.mark.parametrize("missing", [1, 2, 3, 4])
def test_an_earlier_flow_stands_in_for_what_is_missing(missing):
    """An OCEAN 2 that leaves a power out of 87 has the one of 7, or of the summary."""
    now = {n: 10.0 * n for n in (1, 2, 3, 4) if n != missing}
    names = ("home_power", "grid_power", "solar_input_power", "battery_power")
    expected = {f"{names[n - 1]}_watts": value for n, value in now.items()}
    gap = f"{names[missing - 1]}_watts"
    last = {65: {4: 31.0, 20: -41.0}, 4: {13: 21.0}}

    before = read(OCEAN_2, (SYSTEM, {7: {missing: 5.0}, 87: now, **last}))
    without = read(OCEAN_2, (SYSTEM, {87: now, **last}))

    assert before == expected | {gap: 5.0}
    rest = {1: {}, 2: {gap: 21}, 3: {gap: 31}, 4: {gap: 41}}[missing]
    assert without == expected | rest


def test_of_minutes_past_the_newest_counts_whole():
    """The newest item of 96/34 counts, wherever it stands, and nothing of others."""
    minute = int(time.time()) - 120
    old = {1: 500.0, 3: 900.0, 4: 400.0, 5: minute, 7: 50, 8: 450.0, 9: 450.0}
    new = {1: 300.0, 2: 300.0, 5: minute + 60}

    for items in ([new, old], [old, new]):
        content = b"".join(_item(item) for item in items)
        frame = decode(header(MINUTES, content), PAIR)
        got = named(normalized_samples(frame.quotas, PAIR, "", "ecoflow")[0])

        assert got == {
            "home_power_watts": 300,
            "grid_power_watts": 300,
            "solar_input_power_watts": 0,
            "battery_power_watts": 0,
        }
        assert frame.quotas["minute.timestamp"] == minute + 60
        assert not {"minute.pv1Pwr", "minute.bpSoc"} & {*frame.quotas}


def test_this_moment_comes_before_the_minute_past():
    """What 96/33 says of a power counts, the last minute only for the others."""
    got = read(
        PAIR,
        (MINUTES, {1: {1: 300.0, 2: 300.0, 5: int(time.time()) - 60}}),
        ((96, 33), {1: 410.0, 2: -90.0}),
    )

    assert got["home_power_watts"] == 410
    assert got["grid_power_watts"] == -90
    assert got["solar_input_power_watts"] == 0


def _item(values: Mapping[int, object]) -> bytes:
    # Two items of one list: the field twice.
    return fields({1: values})


def test_hours_are_told_apart_by_kind_and_the_last_day_counts():
    """Each kind of 254/32 has keys of its own, those of the newest day."""
    day = 1786060800
    hours = bytes([0, 0, 5, 7] + [0] * 20)
    earlier = bytes([9] * 24)
    frame = decode(
        b"".join(
            header(HOURS, {1: 7, 2: {1: start, 2: kind, 3: what}})
            for start, kind, what in (
                (day, 1, hours),
                (day - 86400, 1, earlier),
                (day, 48, hours),
            )
        ),
        FIT,
    )

    assert not frame.unknown_messages
    for kind in (1, 48):
        assert frame.quotas[f"watth_item.{kind}.watth"] == list(hours)
        assert frame.quotas[f"watth_item.{kind}.timestamp"] == day


def test_a_circuit_that_is_there_and_draws_nothing_draws_zero():
    """Missing watts and amperes of a circuit are 0, missing volts are not known."""
    frame = decode(answer(PANEL), PANEL)

    assert frame.quotas["loadCh1SampleInfo.loadChPower"] == 0
    assert frame.quotas["loadCh1SampleInfo.loadChCurr"] == 0
    assert frame.quotas["loadCh2SampleInfo.loadChPower"] == -90
    assert "loadCh2SampleInfo.loadChVol" not in frame.quotas
    assert not [key for key in frame.quotas if key.startswith("loadCh3Sample")]


@pytest.mark.parametrize("sn", [STREAM, OCEAN_2, WALLBOX, TRACKER])
def test_a_serial_that_is_not_known_gets_no_message_of_another_product(sn):
    """Pairs that several products use say nothing of a device of no known prefix."""
    frame = decode(answer(sn), "ZZ99ZFAKE0000001")

    assert frame.quotas == {}


# Balances


@pytest.mark.parametrize("sn", [STREAM, OCEAN_2, PAIR, PANEL, FIT])
def test_what_comes_in_goes_out(sn):
    """Sun and grid are home and battery, within 2 %, where all four are there."""
    got = read(sn, *answers()[sn])

    assert got["solar_input_power_watts"] + got["grid_power_watts"] == pytest.approx(
        got["home_power_watts"] + got["battery_power_watts"], rel=0.02
    )


# Names

PREFIXES = ROOT / "docs" / "protocol" / "prefixes.md"


def told_of(begins: str) -> bool:
    """Whether a serial's beginning has a product, a family or a marked doubt."""
    table = products()
    return (
        product_name(begins) != "Unknown"
        or bool(family_by_serial(begins))
        or begins in table.doubtful
    )


def test_every_prefix_of_the_facts_is_in_the_table_and_the_other_way_round():
    """Facts and table know the same beginnings, and the same ones are in doubt."""
    sure, doubtful = (
        {
            begins
            for row in re.findall(r"^\| (`.*?) \|", part, re.MULTILINE)
            for begins in re.findall(r"`(\w+)`", row)
        }
        for part in PREFIXES.read_text().split("## Doubtful prefixes")
    )

    assert not sure & doubtful
    assert {begins for begins in sure if begins not in products().serials} == set()
    assert doubtful == {*products().doubtful}
    assert sure == {*products().serials} - doubtful
    assert len(sure | doubtful) >= 70


@pytest.mark.recorded
def test_every_publicly_known_prefix_is_told():
    """Each prefix that clients or accounts know has a product, a family or a doubt."""
    table = SHARED / "ecoflow-fields" / "_serial_prefixes.tsv"
    known = {
        begins
        for line in table.read_text().splitlines()[1:]
        for begins in line.partition("\t")[0].split(" ")
    }

    assert len(known) >= 69
    assert {
        begins for begins in known if not told_of(begins.removesuffix("x"))
    } == set()


def test_a_claim_is_no_product():
    """What sources do not agree on is marked, has no name, and perhaps a family."""
    table = products()

    assert table.doubtful["R631"] == "RIVER 3 Plus, RIVER 3"
    assert table.serials["R631"] == ("", "RIVER 3", "third generation")
    for begins in table.doubtful:
        assert table.serials[begins][0] == ""
