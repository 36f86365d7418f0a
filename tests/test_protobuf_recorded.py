"""Binary frames: recorded ones, and the names that peers and the REST API use."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ecoflow_push.api import protobuf
from ecoflow_push.devices.messages import messages_of_device
from ecoflow_push.metrics.names import metric_name
from tests import models_table
from tests.frames import RECORDED, products_of, recorded, recorded_frames, serial

pytestmark = pytest.mark.recorded


PACKS = "hs_yj751_bms_slave_addr"


# Recorded frames hold fields, and messages, that no public table has.
AHEAD = {(96, 1): 8, (96, 8): 30, (96, 17): 4}
# Of these only what is sure is in the schema (protocol/binary.md#unread).
IN_PART = {(2, 33), (254, 39)}
# Where each expected value is; all of them are what the last line leaves.
EXPECTED = {
    "delta3/delta3maxplus-pdata": {
        "battery_level": "cmsBattSoc",
        "ac_charging_speed": "plugInInfoAcInChgPowMax",
        "cell_temperature": "bmsMaxCellTemp",
        "ac_charging_power_max": "plugInInfoAcInChgHalPowMax",
        "battery_charge_limit_min": "cmsMinDsgSoc",
        "battery_charge_limit_max": "cmsMaxChgSoc",
        "remaining_time_charging": "cmsChgRemTime",
        "remaining_time_discharging": "cmsDsgRemTime",
        "energy_backup_battery_level": "energyBackupStartSoc",
        "input_power": "powInSumW",
        "output_power": "powOutSumW",
    },
    "deltaproultra/dpu-pdata": {
        f"battery_{n}_{theirs}": f"{PACKS}.{n}.{ours}"
        for n in (1, 2, 3)
        for theirs, ours in (("battery_level", "bpSoc"), ("cell_temperature", "bpTemp"))
    },
    "shp2/shp2-pdata": {
        "battery_level": "pd303_mc.backupIncreInfo.backupBatPer",
        "in_use_power": "wattInfo.allHallWatt",
        "channel_power_2": "wattInfo.chWatt 1",
        "channel_power_3": "wattInfo.chWatt 2",
        "circuit_power_2": "loadInfo.hall1Watt 1",
        "circuit_power_12": "loadInfo.hall1Watt 11",
        "circuit_current_1": "loadInfo.hall1Curr 0",
        "circuit_current_2": "loadInfo.hall1Curr 1",
        "circuit_current_12": "loadInfo.hall1Curr 11",
    },
    "wallbox/powerpulseev-pdata": {
        "output_power": "charge.power",
        "ac_output_voltage": "charge.voltageL1",
        "ac_output_current": "charge.currentL1",
        "total_energy": "energy",
    },
}
# Their author rounded these to two and four digits.
ROUNDED = {
    "channel_power_2": 2,
    "channel_power_3": 2,
    "ac_output_voltage": 0,
    "ac_output_current": 2,
} | {f"circuit_current_{n}": 4 for n in (1, 2, 12)}


def test_all_recorded_frames_are_listed():
    """The tables of docs/models.md know every recorded file of frames and names."""
    for listing, pattern in (
        (models_table.RECORDED, "*/*.hex"),
        (models_table.DECODED, "*/*-decoded*.json"),
    ):
        listed = {file for file, _ in products_of(listing)}
        assert listed == {str(p.relative_to(RECORDED)) for p in RECORDED.glob(pattern)}


@pytest.mark.parametrize(("file", "product"), products_of(models_table.RECORDED))
def test_recorded_frames_decode(file, product):
    """No recorded frame is damaged, and only known gaps of the schema are counted."""
    frames = recorded_frames(file, product)

    assert not any(frame.damaged or frame.offline for frame in frames)
    unknown = sum((frame.unknown_fields for frame in frames), Counter())
    known = {pair: count for pair, count in unknown.items() if pair not in IN_PART}
    assert known == (AHEAD if "r374" in file else {})
    messages = sum((frame.unknown_messages for frame in frames), Counter())
    values = sum(len(frame.quotas) for frame in frames)
    print(f"{file}: {len(frames)} frames, {values} values, not known: {dict(messages)}")


@pytest.mark.parametrize("name", EXPECTED)
def test_expected_values_match_in_full(name):
    """Each value that a peer asserts for a recorded file is the one decoded."""
    expected = recorded(f"{name}-expected.json")
    product = dict(products_of(models_table.RECORDED))[f"{name}.hex"]
    quotas: dict[str, Any] = {}
    for frame in recorded_frames(f"{name}.hex", product):
        quotas |= frame.quotas

    got = {}
    for theirs, place in EXPECTED[name].items():
        key, _, index = place.partition(" ")
        value = quotas[key][int(index)] if index else quotas[key]
        got[theirs] = round(value, ROUNDED[theirs]) if theirs in ROUNDED else value

    print(f"{name}: {len(got)} of {len(expected)} expected values")
    assert got == expected


def test_the_expected_manager_report_matches_in_full():
    """The peer's decode of a recorded 32/2 equals ours, value by value."""
    expected = recorded("river3/river3plus-cms-decoded.json")
    (frame,) = recorded_frames("river3/river3plus-cms-pdata.hex", "Unknown")

    assert frame.quotas == {
        f"{part}.{key}": value
        for part, values in expected.items()
        for key, value in values.items()
    }


# Names


def numbers(value: object, key: str = "") -> Iterator[str]:
    """Yield the key of every number and boolean; places in lists are left out."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from numbers(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner, key)
    elif isinstance(value, (bool, int, float)):
        yield key


def message_keys(descriptor: Any, prefix: str) -> Iterator[str]:
    """Yield every key that a message may have."""
    for entry in descriptor.fields:
        if entry.message_type is None:
            yield prefix + entry.json_name
        else:
            yield from message_keys(entry.message_type, f"{prefix}{entry.json_name}.")


def our_keys(product: str, *, prefixed: bool) -> set[str]:
    """Return every key that a product's messages may have."""
    found = set()
    for route in filter(None, messages_of_device(serial(product)).values()):
        descriptor = protobuf.message_class(route.message).DESCRIPTOR
        if prefixed and route.items:
            descriptor = descriptor.fields_by_name[route.items].message_type
        prefixes = {route.prefix, route.unit_prefix.format(1)} if prefixed else {""}
        for prefix in prefixes:
            found |= set(message_keys(descriptor, prefix))
    return found


def bare(key: str) -> str:
    """Return a key without what programs spell differently."""
    return re.sub("[^a-z0-9]", "", key.lower())


# Messages that peers decode and we do not: tasks, history, accessories, and a second
# PowerStream heartbeat whose fields its peer had to number.
UNREAD = {
    "time_task_config_post",
    "InverterHeartbeat2",
    "ModuleClusterInfo",
    "EmsEcologyDevReport",
    "JTS1_ERROR_CODE_MASK_REPORT",
    "ParallelEnergyStreamReport",
    "ParallelDevList",
    "ParallelEnergyStreamDetail",
    "EDevPriorityListReport",
    "EDevParamReport",
    "EVChargingParamReport",
    "EnergyStreamDetail",
    "HRChargingParamReport",
    "HeatingRodEnergyStreamShow",
    "HeatingRodTimerTaskReport",
    "EcologyDevBindListReport",
    "BPChangeReport",
    "DcChangeReport",
    "DcStaReport2",
    "ErrorChangeReport",
}
# The least share in percent of a peer's names that are ours, where it is not 96: peers
# had named these fields before the app's schema was known.
LEAST = {
    "Alternator Charger": 5,
    "GLACIER Classic": 86,
    "PowerOcean": 96,
    "PowerStream": 80,
    "Smart Home Panel 2": 85,
    "Smart Meter": 20,
    "Smart Plug": 80,
}


@pytest.mark.parametrize(("file", "product"), products_of(models_table.DECODED))
def test_names_agree_with_those_that_peers_decoded(file, product):
    """What a peer decoded of a product has our names, as far as it knew them."""
    decoded = recorded(file)
    if isinstance(decoded, dict):
        decoded = [v for k, v in decoded.items() if k not in UNREAD]
    theirs = {bare(key.removeprefix("bpSta.")) for o in decoded for key in numbers(o)}
    theirs = {key.removeprefix("v1p0").removeprefix("v1p3") for key in theirs}
    ours = {bare(key) for key in our_keys(product, prefixed=False)}
    ours |= {key.removeprefix("v1p0").removeprefix("v1p3") for key in ours}
    ours |= {key.removeprefix("bpheartbeat") for key in ours}

    share = 100 * len(theirs & ours) / len(theirs)

    print(f"{file}: {len(theirs & ours)} of {len(theirs)} names, {share:.0f} %")
    assert share >= LEAST.get(product, 96), sorted(theirs - ours)


POWEROCEAN_REPORTS = {
    "ENERGY_STREAM_REPORT": "",
    "EMS_HEARTBEAT": "",
    "EMS_CHANGE_REPORT": "ems_change_report.",
    "EMS_STATE_CHANGE_REPORT": "ems_change_report.",
    "EMS_SAFETY_PARAM_REPORT": "ems_change_report.",
    "EMS_PARAM_CHANGE_REPORT": "ems_param_change_report.",
    "BP_STA_REPORT": "bp_addr.",
}


def rest_map(file: str) -> dict[str, Any]:
    """Return a recorded quota map; the app's own, by report, as the developers' one."""
    data = recorded(file)
    data = data.get("data", data.get("params", data))
    if "quota" not in data:
        return {k: v for k, v in data.items() if not k.startswith(("20_134", "2_2"))}
    found = {}
    for report, values in data["quota"].items():
        prefix = POWEROCEAN_REPORTS.get(report.partition("_")[2])
        if prefix is None:
            continue
        for key, value in values.items():
            # Packs are maps, or JSON in strings, by serial; some again in a list.
            if key == "bpHeartBeat":
                continue
            is_json = isinstance(value, str) and value.startswith("{")
            inner = json.loads(value) if is_json else value
            is_pack = prefix == "bp_addr." and isinstance(inner, dict)
            found[f"{prefix}{1 if is_pack else key}"] = inner
    return found


@pytest.mark.parametrize(
    ("file", "product", "missing"),
    [
        ("powerstream/powerstream-quota-all.json", "PowerStream", 0),
        ("powerstream/powerstream-open-params.json", "PowerStream", 0),
        ("smartplug/smartplug-quota-all.json", "Smart Plug", 0),
        ("smartplug/smartplug-quota-subset.json", "Smart Plug", 0),
        ("delta3/delta3-params-flat-b.json", "DELTA 3", 0),
        # The pack's own report, 3/28, has no public table.
        ("deltaproultra/deltaproultra-quota-excerpt.json", "DELTA Pro Ultra", 10),
        # One spelling that its source garbled.
        ("powerocean/powerocean-app-detail.json", "PowerOcean", 1),
        ("powerocean/powerocean-dual-app-detail.json", "PowerOcean", 0),
        ("powerocean/poweroceandcfit-app-detail.json", "PowerOcean DC Fit", 0),
        # Fields of a firmware that is ahead of the public tables.
        ("powerocean/poweroceanplus-app-detail.json", "PowerOcean Plus", 32),
        ("powerocean/poweroceanplus-app-detail-b.json", "PowerOcean Plus", 26),
    ],
)
def test_names_are_those_of_the_rest_api(file, product, missing):
    """Each number of a recorded REST map, tasks apart, has the name of one of ours."""
    rest = {metric_name(key) for key in numbers(rest_map(file))}
    ours = {metric_name(key) for key in our_keys(product, prefixed=True)}

    print(f"{file}: {len(rest & ours)} of {len(rest)} names")
    assert len(rest - ours) == missing, sorted(rest - ours)
