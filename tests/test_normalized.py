"""Quota maps to base units: golden maps, and what is left out.

The golden maps and what they must become were written by hand from the facts named in
each.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from ecoflow_push.devices.families import UNKNOWN, family_named
from ecoflow_push.devices.normalized import (
    LONGEST_JSON,
    MOST_PACKS,
    NormalizedSample,
    family_of,
    firmware_of,
    normalized_samples,
)
from ecoflow_push.devices.products import products

GOLDEN = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent / "fixtures/normalized").glob("*.json"))
}


# Golden maps


def samples(
    quotas: Mapping[str, object], sn: str, product: str = ""
) -> tuple[list[NormalizedSample], Counter[str]]:
    return normalized_samples(quotas, sn, product, "ecoflow")


def named(got: list[NormalizedSample]) -> dict[str, float]:
    """Return values by metric, with what tells them apart."""
    return {
        " ".join(
            [name.removeprefix("ecoflow_"), *(f"{k}={v}" for k, v in labels.items())]
        ): value
        for name, labels, value in got
    }


@pytest.mark.parametrize("model", GOLDEN)
def test_golden_maps_become_what_was_written_by_hand(model):
    """The normalized values of a map are those worked out from the facts, all told."""
    golden = GOLDEN[model]

    got, left_out = samples(golden["quotas"], golden["sn"], golden["product"])

    family = family_of(golden["sn"], golden["product"], golden["quotas"])
    assert family.name == golden["family"]
    assert named(got) == pytest.approx(golden["expected"], rel=1e-12, abs=0)
    assert dict(left_out) == golden["left_out"]
    assert firmware_of(golden["quotas"], family) == golden["firmware"]


def test_the_golden_maps_are_of_many_families():
    """At least 12 models of at least 8 families have a golden map."""
    assert len({golden["product"] for golden in GOLDEN.values()}) >= 12
    assert len({golden["family"] for golden in GOLDEN.values()}) >= 8


DELTA_2 = "R331ZFAKE0000001"


@pytest.mark.case("D4")
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (5939, "sentinel"),
        (5999, "sentinel"),
        (143999, "sentinel"),
        (5939.0, "sentinel"),
        (143998, ""),
        (0, ""),
        (-1, "out_of_bounds"),
        (144000, "out_of_bounds"),
        (float("nan"), "out_of_bounds"),
        (float("inf"), "out_of_bounds"),
        (10**400, "out_of_bounds"),
        (-(10**400), "out_of_bounds"),
        ("12", "not_a_number"),
        (True, "not_a_number"),
        ([1], "not_a_number"),
    ],
)
def test_what_cannot_be_is_left_out_and_counted(value, reason):
    """A sentinel, an impossible number or no number gives no sample, and a count."""
    got, left_out = samples({"bms_emsStatus.chgRemainTime": value}, DELTA_2)

    assert bool(got) == (not reason)
    assert dict(left_out) == ({reason: 1} if reason else {})


def test_null_is_absent():
    """A null gives no sample and is not counted; the raw metrics count it."""
    assert samples({"pd.wattsInSum": None}, DELTA_2) == ([], Counter())


def test_nothing_is_negative_zero():
    """A zero of a reversed sign is plain zero."""
    ((_, _, value),) = samples({"powGetAcOut": 0.0}, "P351ZFAKE0000001")[0]

    assert str(value) == "0.0"


def test_the_next_best_key_stands_in():
    """Where the better key is impossible the next one counts, and only there."""
    keys = "bms_emsStatus.f32LcdShowSoc", "bms_emsStatus.lcdShowSoc"

    first, none = samples(dict(zip(keys, (50, 49), strict=True)), DELTA_2)
    second, counted = samples(dict(zip(keys, (101, 49), strict=True)), DELTA_2)

    assert named(first) == {"battery_charge_ratio": 0.5}
    assert named(second) == {"battery_charge_ratio": 0.49}
    assert (dict(none), dict(counted)) == ({}, {"out_of_bounds": 1})


def test_none_is_an_answer():
    """Where the better key says that there is no such time, no other is asked."""
    got, _ = samples({"cmsChgRemTime": 5939, "v1p0.chgRemainTime": 1833}, "P351")

    assert got == []


@pytest.mark.parametrize(
    ("sn", "quotas", "switch"),
    [
        (
            "R374ZFAKE0000001",
            {"ems_change_report.bpSoc": 0, "mpptPwr": 500.0},
            "ems_change_report.bpOnlineSum",
        ),
        (
            "HW51ZFAKE0000001",
            {
                "20_1.batSoc": 0,
                "20_1.batTemp": 0,
                "20_1.pv1InputWatts": 5000,
                "20_1.pv2InputWatts": 0,
            },
            "20_1.batInputVolt",
        ),
    ],
)
def test_no_battery_is_not_an_empty_one(sn, quotas, switch):
    """A device that says it has no battery has no charge, and its solar power."""
    without, _ = samples(quotas | {switch: 0}, sn)
    with_one, _ = samples(quotas | {switch: 500}, sn)

    assert named(without) == {"solar_input_power_watts": 500}
    assert named(with_one)["battery_charge_ratio"] == 0


def test_a_family_is_told_by_what_lies_deeper_too():
    """Where serial and product say nothing, the keys of an inner map do."""
    assert family_of("ZZ99", "", {"20_1": {"batSoc": 50}}).name == "PowerStream"


@pytest.mark.parametrize("missing", ["powGetPv", "powGetPv2"])
@pytest.mark.parametrize("value", [None, -1, "x"])
def test_a_sum_needs_all_its_parts(missing, value):
    """With a part absent or impossible there is no sum, whatever the others are."""
    parts: dict[str, object] = {"powGetPv": 100, "powGetPv2": 50}
    del parts[missing]

    absent, _ = samples(parts, "P351ZFAKE0000001")
    impossible, _ = samples(parts | {missing: value}, "P351ZFAKE0000001")

    assert absent == impossible == []


def test_parts_cannot_make_up_for_each_other():
    """Two impossible parts do not add up to a possible sum."""
    quotas = {"powGetPv": 1e9, "powGetPv2": -1e9 + 100}

    assert samples(quotas, "P351ZFAKE0000001") == ([], Counter(out_of_bounds=1))


@pytest.mark.parametrize(
    ("sn", "product", "family"),
    [
        ("R331ZFAKE0000001", "DELTA Pro", "DELTA 2"),
        ("DCABZFAKE0000001", "", "DELTA Pro"),
        ("HJ3CZFAKE0000001", "", "PowerOcean"),
        ("HJ39ZFAKE0000001", "", "PowerOcean"),
        ("ZZ99ZFAKE0000001", "DELTA 2 Max", "DELTA 2 Max"),
        ("ZZ99ZFAKE0000001", "delta 3 plus", "DELTA 3"),
        ("ZZ99ZFAKE0000001", "DELTA 3 Max Plus", "DELTA 3 Max"),
        ("ZZ99ZFAKE0000001", "DELTA Pro 3", "DELTA Pro 3"),
        ("ZZ99ZFAKE0000001", "DELTA Pro Ultra X", "DELTA Pro Ultra X"),
        ("ZZ99ZFAKE0000001", "GLACIER Classic", "GLACIER Classic"),
        ("ZZ99ZFAKE0000001", "PowerOcean DC Fit", "PowerOcean DC Fit"),
        ("ZZ99ZFAKE0000001", "Smart Home Panel 2", "Smart Home Panel 2"),
        ("ZZ99ZFAKE0000001", "STREAM Microinverter", "STREAM Microinverter"),
        ("", "", "unknown"),
    ],
)
def test_the_serial_comes_before_the_product(sn, product, family):
    """A known serial decides, else the longest beginning of the product's name."""
    assert family_of(sn, product).name == family


@pytest.mark.parametrize(("key", "family"), products().keys.items())
def test_an_unknown_device_is_known_by_its_keys(key, family):
    """Where serial and product say nothing, a key of one kind alone decides."""
    got, _ = samples({key: 50}, "ZZ99ZFAKE0000001", "Unknown")

    assert family_of("ZZ99", "Unknown", {key: 50}) is family_named(family)
    assert family_of("ZZ99", "Unknown", {"odd": 50}) is UNKNOWN
    assert all(name.startswith("ecoflow_") for name, _, _ in got)


def test_a_device_of_no_known_kind_says_nothing():
    """No family, no samples: a bare key of another product is not guessed at."""
    assert samples({"vol": 52000, "soc": 5}, "ZZ99", "Toaster") == ([], Counter())


@pytest.mark.parametrize(
    "key", ["bp_addr.", "bp_addr.a b", "bp_addr.é", f"bp_addr.{'A' * 65}", 'bp_addr.a"']
)
def test_a_pack_without_a_plain_name_is_left_out(key):
    """A pack's name becomes a label only if it is a number or a serial."""
    got, left_out = samples({f"{key}.bpSoc": 50}, "HJ31ZFAKE0000001")

    assert (got, dict(left_out)) == ([], {"odd_pack": 1})


def test_packs_are_bounded():
    """Of more packs than any device has only the first count."""
    quotas = {f"bms[{n}].soc": 50 for n in range(MOST_PACKS + 6)}

    got, left_out = samples(quotas, "MR51ZFAKE0000001")

    assert len(got) == MOST_PACKS
    assert dict(left_out) == {"odd_pack": 6}


def test_one_pack_told_of_twice_is_there_once():
    """Of two reports of one pack the flatter, or first, counts in any order."""
    once = {"bms_slave_bmsSlaveStatus_1.soc": 40, "bms_slave.soc": 50}
    deep = {"bp_addr": {"A": {"bpSoc": 40}}, "bp_addr.A": {"bpSoc": 50}}

    for quotas, sn, name, value in (
        (once, DELTA_2, "battery_charge_ratio pack=1", 0.4),
        (deep, "HJ31ZFAKE0000001", "battery_charge_ratio pack=A", 0.5),
    ):
        for either in (quotas, dict(reversed(quotas.items()))):
            assert named(samples(either, sn)[0]) == {name: value}


@pytest.mark.parametrize(
    "text", ["{", '{"a": NaN}', '{"a":' * 3000, "{" + " " * LONGEST_JSON + "}", "{}"]
)
def test_odd_texts_say_nothing(text):
    """A text that is no JSON, too deep or too long is passed over."""
    quotas = {"bp_addr.A1": text, "bpSoc": 40}

    got, _ = samples(quotas, "HJ31ZFAKE0000001")

    assert named(got) == {"battery_charge_ratio": 0.4}


@pytest.mark.parametrize(
    ("value", "firmware"),
    [
        (16908607, "1.2.1.63"),
        (0, ""),
        (-1, ""),
        (2**32, ""),
        (True, ""),
        ("1.2", ""),
        (1.5, ""),
    ],
)
def test_the_firmware_is_four_bytes_or_unknown(value, firmware):
    """A version is its four bytes from the left; what is none stays unknown."""
    assert firmware_of({"pd.sysVer": value}, family_of(DELTA_2, "")) == firmware
