"""Rows tied to conditions: what counts, and devices that need it from end to end."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace

import pytest

from ecoflow_push.devices.families import family_named
from ecoflow_push.devices.normalized import normalized_samples
from ecoflow_push.simulator.cloud import SimulatedDevice
from tests.dashboard import rules
from tests.frames import DISPLAY, PACK, RUNTIME, header
from tests.mqtt import assert_decent
from tests.normalized_page import families
from tests.support import Series, eventually, prometheus, push, push_anew
from tests.test_dashboard_values import ask, configuration
from tests.test_devices import Tables
from tests.test_normalized import GOLDEN, named, samples

# What counts


@pytest.mark.parametrize(
    ("condition", "quotas", "counts"),
    [
        ("a", {"a": 1}, True),
        ("a", {"a": 0}, False),
        ("a", {"a": 0.0}, False),
        ("a", {"a": False}, False),
        ("a", {}, True),
        ("a", {"a": None}, True),
        ("a=1", {"a": 1.0}, True),
        ("a=1", {"a": 0}, False),
        ("a=1", {"a": "1"}, False),
        ("a=1", {}, True),
        ("a!=2", {"a": 1}, True),
        ("a!=2", {"a": 2}, False),
        ("a!=2", {}, True),
        ("a b", {"a": 0, "b": 3}, True),
        ("a b", {"a": 0, "b": 0}, False),
        ("a b", {"a": 0}, False),
        ("a b", {"b": 3}, True),
        ("a=1 b", {"a": 2, "b": 3}, True),
        ("a=1; b", {"a": 2, "b": 3}, False),
        ("a=1; b", {"a": 1, "b": 0}, False),
        ("a=1; b", {"a": 1, "b": 3}, True),
        ("a=1; b", {"b": 3}, True),
    ],
)
@pytest.mark.parametrize("tied", ["input_power_watts", "input_*", "w"])
def test_a_row_counts_where_its_conditions_hold(
    tmp_path, tied, condition, quotas, counts
):
    """A tied row gives its value where all conditions hold; others always do."""
    tables = Tables(tmp_path / "devices")
    tables.append("products.tsv", "name\ttoaster\tToaster")
    for line in (
        f"only_if\t{condition}\t{tied}",
        "input_power_watts\tw\tW\t-\tA\tseen",
        "output_power_watts\tv\tW\t-\tA\tseen",
    ):
        tables.append("families/toaster.tsv", line)
    family = family_named("Toaster", tables.folder)

    got, left_out = normalized_samples(
        {**quotas, "w": 20, "v": 30}, "ZZ99", "Toaster", "ecoflow", family
    )

    assert named(got) == {"output_power_watts": 30} | (
        {"input_power_watts": 20} if counts else {}
    )
    assert not left_out


def test_the_next_row_stands_in_for_one_whose_condition_fails(tmp_path):
    """Of several rows of a metric the first one that counts gives the value."""
    tables = Tables(tmp_path / "devices")
    tables.append("products.tsv", "name\ttoaster\tToaster")
    for line in (
        "input_power_watts\tw\tW\t-\tA\tseen",
        "input_power_watts\tv\tW\t-\tA\tseen",
        "only_if\ta\tw",
    ):
        tables.append("families/toaster.tsv", line)
    family = family_named("Toaster", tables.folder)

    got, _ = normalized_samples(
        {"a": 0, "w": 20, "v": 30}, "ZZ99", "Toaster", "ecoflow", family
    )

    assert named(got) == {"input_power_watts": 30}


def test_a_row_may_be_tied_twice(tmp_path):
    """A row that two lines speak of counts where the conditions of both hold."""
    tables = Tables(tmp_path / "devices")
    tables.append("products.tsv", "name\ttoaster\tToaster")
    for line in (
        "input_power_watts\tw\tW\t-\tA\tseen",
        "only_if\ta\tw",
        "only_if\tb=1\tinput_*",
    ):
        tables.append("families/toaster.tsv", line)
    family = family_named("Toaster", tables.folder)

    def said(a: int, b: int) -> bool:
        quotas = {"a": a, "b": b, "w": 20}
        return bool(normalized_samples(quotas, "", "", "ecoflow", family)[0])

    assert [said(1, 1), said(1, 0), said(0, 1), said(0, 0)] == [True, *[False] * 3]


EMPTY = [
    ("wave3_no_battery", {"bmsBattVol": 44.5}),
    ("wave2_no_battery", {"bms.bmsHwFlag": 1, "bms.designCap": 23000}),
    ("glacier_no_battery", {"pd.batFlag": 1, "bms_bmsStatus.designCap": 13800}),
    ("panel2_no_storage", {"pd303_mc.backupIncreInfo.backupFullCap": 6144}),
]


@pytest.mark.parametrize(("model", "battery"), EMPTY)
def test_an_empty_battery_is_there(model, battery):
    """A battery that is there and empty has a charge of 0."""
    golden = GOLDEN[model]

    got, _ = samples(golden["quotas"] | battery, golden["sn"], golden["product"])

    assert named(got)["battery_charge_ratio"] == 0


@pytest.mark.parametrize("status", [0, 2, 3])
def test_only_the_leader_speaks_for_the_system(status):
    """A unit that does not lead gives no value of the system, whatever it sends."""
    leader = GOLDEN["stream_linked_leader"]
    quotas = leader["quotas"] | {"distributedDeviceStatus": status}

    got = named(samples(quotas, leader["sn"])[0])

    assert got["battery_charge_ratio"] == 0.52
    assert got.items() >= {"unit_solar_input_power_watts": 400}.items()
    system = "battery_power", "solar_input", "grid_power", "home_power", "charge_rem"
    assert not [name for name in got if name.startswith(system)]


def test_a_leader_at_rest_says_zero():
    """Zeros of the unit that leads, or of one that stands alone, are values."""
    leader = GOLDEN["stream_linked_leader"]
    still = {key: 0 for key in leader["quotas"] if key.startswith(("powGet", "cms"))}

    got = named(samples(leader["quotas"] | still, leader["sn"])[0])

    for metric in ("battery_charge_ratio", "grid_power_watts", "home_power_watts"):
        assert got[metric] == 0


# From a broker to a gateway

MEMBER = SimulatedDevice(
    "BK61ZFAKE0000041",
    frame=lambda seq: (
        header(
            DISPLAY,
            # cmsBattSoc, bmsBattSoc, the system's powers, the strings, the
            # connection, the status.
            {262: 0.0, 242: 31.0, 515: 0.0, 516: 0.0, 517: 0.0, 518: 0.0}
            | {361: 140.5, 70: 0.0, 996: 50.25, 997: 90.25, 616: 120.75, 613: 233.5}
            | {990: 2},
            seq=seq,
        )
        + header(PACK, {1: 0, 7: 19910, 8: 4700, 25: 31.25}, seq=seq)
    ),
)
WITHOUT = SimulatedDevice(
    "AC71ZFAKE0000042",
    frame=lambda seq: (
        header(RUNTIME, {68: 236.0, 244: 0.0}, seq=seq)
        + header(
            DISPLAY,
            # powGetAc, what it takes itself, the battery, both sums, the sun.
            {53: 16.25, 777: 16.25, 54: 0.0, 158: 0.0, 242: 0.0, 262: 0.0}
            | {258: 0, 259: 0, 3: 0.0, 4: 0.0, 361: 0.0},
            seq=seq,
        )
    ),
)
PASSING = SimulatedDevice(
    "ZZ99ZFAKE0000043",
    product_name="RIVER 3 Plus",
    frame=lambda seq: (
        header(RUNTIME, {68: 0.0}, seq=seq)
        + header(
            DISPLAY,
            {3: 81.0, 4: 81.0, 9: 0.0, 10: 0.0, 11: -12.5, 12: 0.0, 37: 0.0}
            | {54: 81.25, 158: 0.0, 262: 66.0, 361: 0.0, 368: -67.5},
            seq=seq,
        )
    ),
)
SAID = {
    MEMBER.sn: {
        "battery_charge_ratio": 0.31,
        "battery_voltage_volts": 19.91,
        "battery_current_amperes": 4.7,
        "unit_solar_input_power_watts": 281,
        "unit_connection_power_watts": 120.75,
        "ac_input_voltage_volts": 233.5,
    },
    WITHOUT.sn: {
        "ac_input_power_watts": 16.25,
        "ac_input_voltage_volts": 236,
        "input_power_watts": 0,
        "output_power_watts": 0,
        "solar_input_power_watts": 0,
    },
    PASSING.sn: {
        "battery_charge_ratio": 0.66,
        "battery_power_watts": 0,
        "input_power_watts": 81,
        "output_power_watts": 81,
        "ac_input_power_watts": 81.25,
        "ac_output_power_watts": 67.5,
        "solar_input_power_watts": 0,
        "dc_output_power_watts": 12.5,
    },
}


def normalized_of(series: Series) -> dict[str, float]:
    return {
        name.removeprefix("ecoflow_"): value
        for (name, _), value in series.items()
        if re.search(r"_(ratio|watts|volts|amperes|celsius)$", name)
    }


def test_frames_of_parts_and_absent_batteries(account, fleet, cloud, pushgateway):
    """Of what a member, a WAVE 3 without battery and a RIVER 3 answer, this is said."""
    cloud.devices[:] = [MEMBER, WITHOUT, PASSING]

    assert_decent(push_anew({**account, "METRICS_SET": "normalized"}), 0)

    for sn, expected in SAID.items():
        got = normalized_of(pushgateway.device(sn))
        assert got == pytest.approx(expected, rel=1e-6), sn


# From REST to Prometheus

SYSTEM = {
    name: GOLDEN[name]
    for name in (
        "stream_linked_leader",
        "stream_linked_member",
        "stream_linked_member_rest",
    )
}
OTHERS = [name for name in GOLDEN if name.endswith(("_no_battery", "_no_storage"))]


def device_of(name: str) -> SimulatedDevice:
    golden: Mapping[str, object] = GOLDEN[name]
    quotas = golden["quotas"]
    assert isinstance(quotas, Mapping)
    return SimulatedDevice(str(golden["sn"]), quotas, name, str(golden["product"]))


def test_a_linked_system_counts_once(environ, cloud, pushgateway, tmp_path):
    """Sums over the devices are the system's values, and no alert speaks of them."""
    leader = SYSTEM["stream_linked_leader"]["expected"]
    cloud.devices[:] = [
        device_of(name) for name in (*SYSTEM, *OTHERS, "river3_passing_through")
    ]
    place = tmp_path / "server"
    with prometheus(place, config=configuration(place, pushgateway.url)) as database:
        run = push({**environ, "METRICS_SET": "normalized"})
        assert_decent(run, 0)
        assert eventually(lambda: ask(database, "ecoflow_push_success == 1"))
        units = 'device=~"BK.*"'
        sums = {
            metric: ask(database, f"sum(ecoflow_{metric}{{{units}}})")
            for metric in (
                *("solar_input_power_watts", "grid_power_watts", "home_power_watts"),
                *("battery_power_watts", "unit_solar_input_power_watts"),
            )
        }
        alerts = {
            rule["alert"]: ask(database, rule["expr"], time.time())
            for rule in rules()
            if "alert" in rule
        }

    said = {metric: float(rows[0]["value"][1]) for metric, rows in sums.items()}
    assert said.pop("unit_solar_input_power_watts") == 400 + 298
    assert said == {metric: leader[metric] for metric in said}
    assert said["solar_input_power_watts"] + said["grid_power_watts"] == (
        said["home_power_watts"] + said["battery_power_watts"]
    )
    assert not any(alerts.values()), alerts


def test_only_who_reports_it_idle_loses_the_grid(environ, cloud, pushgateway, tmp_path):
    """After mains, 0 V of a DELTA 2 is an outage, and that of a RIVER 3 is nothing."""
    river, delta = device_of("river3_passing_through"), device_of("delta2")
    place = tmp_path / "server"
    environ["METRICS_SET"] = "normalized"
    lost = next(r["expr"] for r in rules() if r.get("alert") == "EcoflowGridLost")
    voltage = "ecoflow_ac_input_voltage_volts"
    with prometheus(place, config=configuration(place, pushgateway.url)) as database:
        charging = {**(river.quotas or {}), "plugInInfoAcInVol": 230}
        cloud.devices[:] = [replace(river, quotas=charging), delta]
        assert_decent(push(environ), 0)
        assert eventually(lambda: len(ask(database, f"{voltage} > 80")) == 2)
        unplugged = {**(delta.quotas or {}), "inv.acInVol": 0}
        cloud.devices[:] = [river, replace(delta, quotas=unplugged)]
        assert_decent(push(environ), 0)
        assert eventually(lambda: ask(database, f"{voltage} == 0"))
        assert eventually(lambda: ask(database, lost))
        devices = [row["metric"]["device"] for row in ask(database, lost)]

    assert devices == [delta.sn]


def test_every_voltage_says_whether_it_is_reported_idle():
    """Each row of the AC input's voltage names the table that says so."""
    rows = [
        row
        for family in families()
        for row in family.rows
        if row.metric == "ac_input_voltage_volts" and 0 not in row.sentinels
    ]

    assert rows
    assert all("protocol/values.md#mains-voltage" in row.source for row in rows)
