"""Quota maps to base units: hostile ones."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecoflow_push.devices.metrics import metrics
from ecoflow_push.devices.normalized import MOST_PACKS, REASONS, NormalizedSample
from ecoflow_push.devices.products import products
from tests.normalized_page import families
from tests.test_normalized import GOLDEN, samples


def check(got: list[NormalizedSample]) -> None:
    places = [(name, tuple(labels.items())) for name, labels, _ in got]
    assert len(set(places)) == len(places)
    for name, labels, value in got:
        metric = metrics()[name.removeprefix("ecoflow_")]
        assert metric.low <= value <= metric.high, name
        assert type(value) is float
        assert set(labels) <= {"pack"}
        assert all(
            re.fullmatch(r"[A-Za-z0-9_-]{1,64}", pack) for pack in labels.values()
        )


NUMBERS = (
    st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from([5939, 65535, 4294967295, -127, 0, 100, 53000, 10**400, 1e-40])
)
INNER = ["soc", "vol", "A1", "pv1InWatts", "x.y"]
VALUES = st.recursive(
    NUMBERS | st.booleans() | st.none() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(INNER), inner)
        | st.dictionaries(st.text(max_size=6), inner, max_size=3).map(json.dumps)
    ),
    max_leaves=8,
)
KEYS = sorted(
    {
        (f"{prefix}1{end}" if end else prefix) + key
        for family in families()
        for prefix, end, rows in (("", "", family.rows), *family.packs)
        for row in rows
        for key in (*row.keys, *(key for tests in row.only_if for key, _, _ in tests))
    }
    | {"bp_addr", "bmsTotal", "kitscc", "displayStatisticsSum.listInfo", "bms[", "20_1"}
)
SERIALS = st.sampled_from(
    [f"{p}ZFAKE00001" for p in [*products().serials, "ZZ99"]] + [""]
)
NAMES = st.sampled_from([*products().names, "Unknown", ""]) | st.text(max_size=5)


@pytest.mark.case("D15")
@pytest.mark.drill("fuzz")
@given(st.sampled_from(sorted(GOLDEN)), st.data())
def test_no_mutated_map_gives_an_impossible_value(model, data):
    """A good map with any values changed gives only possible values, in any order."""
    golden = GOLDEN[model]
    quotas = copy.deepcopy(golden["quotas"])
    quotas |= data.draw(st.dictionaries(st.sampled_from(sorted(quotas)), VALUES))
    quotas |= data.draw(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
    before = copy.deepcopy(quotas)

    got, left_out = samples(quotas, golden["sn"], golden["product"])

    check(got)
    assert set(left_out) <= set(REASONS)
    backwards = dict(reversed(quotas.items()))
    assert samples(backwards, golden["sn"], golden["product"])[0] == got
    assert repr(quotas) == repr(before)


@pytest.mark.case("D15")
@pytest.mark.drill("fuzz")
@given(
    st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=20), VALUES, max_size=12),
    SERIALS,
    NAMES,
)
def test_no_map_of_any_device_raises(quotas, sn, product):
    """Any map of any device is read without an exception, to possible values."""
    got, left_out = samples(quotas, sn, product)

    check(got)
    assert all(count > 0 for count in left_out.values())


def test_a_huge_map_is_bounded():
    """Deep, wide and long maps are read, and bounded."""
    deep: dict[str, Any] = {"bpSoc": 1}
    for _ in range(500):
        deep = {"A": deep}
    wide = {f"A{n}": {"bpSoc": 50} for n in range(20_000)}

    got, left_out = samples({"bp_addr": wide, "x": deep}, "HJ31ZFAKE0000001")

    check(got)
    assert len(got) <= MOST_PACKS
    assert len(got) <= MOST_PACKS
    assert left_out["odd_pack"] > 1000
