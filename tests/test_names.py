"""Quota keys to names, quota maps to samples."""

import math
import re
import string

import inflection
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecoflow_push.metrics.names import (
    MOST_LEVELS,
    MOST_SAMPLES,
    metric_name,
    raw_samples,
)

NONE: frozenset[str] = frozenset()


def samples(quotas, reserved=NONE):
    return raw_samples(quotas, "ecoflow", reserved)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("bms_emsStatus.f32LcdShowSoc", "bms_ems_status_f32_lcd_show_soc"),
        ("bms_bmsStatus.maxCellTemp", "bms_bms_status_max_cell_temp"),
        ("pd.chgPowerAC", "pd_chg_power_ac"),
        ("pd.dsgPowerDC", "pd_dsg_power_dc"),
        ("pd.XT150Watts1", "pd_xt150_watts1"),
        ("plugInInfoPvLVol", "plug_in_info_pv_l_vol"),
        ("20_1.llcOpVolt", "20_1_llc_op_volt"),
        ("bms_slave_bmsSlaveStatus_1.soc", "bms_slave_bms_slave_status_1_soc"),
        ("hs_yj751_pd_appshow_addr.soc", "hs_yj751_pd_appshow_addr_soc"),
        ("a key: odd-one", "a_key__odd_one"),
        ("..", ""),
        ("", ""),
        ("é", "_"),
    ],
)
def test_the_spelling(key, name):
    """Names are spelled as existing dashboards for EcoFlow spell them."""
    assert metric_name(key) == name


@pytest.mark.drill("fuzz")
@given(st.text(alphabet=string.ascii_letters + string.digits + "._-[]", max_size=40))
def test_the_spelling_is_inflections(key):
    """For every key of ASCII letters the spelling is `inflection.underscore`'s."""
    squeezed = re.sub("_+", "_", re.sub(r"[.\[\]]", "_", key)).strip("_")

    assert metric_name(key) == inflection.underscore(squeezed)


@pytest.mark.case("D9")
def test_every_shape_of_a_quota_map():
    """Numbers and booleans at any depth become samples, everything else is counted."""
    got, skipped = samples(
        {
            "pd.soc": 87,
            "2_1.switchSta": True,
            "bms_bmsStatus.f32ShowSoc": 86.53,
            "bms_bmsStatus.cellVol": [3321, 3322],
            "bms_kitInfo.watts": [{"sn": "", "f32Soc": 1.5}],
            "backupLoadWatt.watth": [[1, 2], [3]],
            "20_134.task1": {"timeRange": {"isEnable": False}},
            "written[3].index[4]": 5,
            "bms_bmsStatus.packSn": "0000000000000000",
            "numeric": "12",
            "res": [None, None],
            "bms_bmsStatus.cellTemp": [],
            "2_1": {},
        }
    )

    assert got == [
        ("ecoflow_20_134_task1_time_range_is_enable", (), 0),
        ("ecoflow_2_1_switch_sta", (), 1),
        ("ecoflow_backup_load_watt_watth", (0, 0), 1),
        ("ecoflow_backup_load_watt_watth", (0, 1), 2),
        ("ecoflow_backup_load_watt_watth", (1, 0), 3),
        ("ecoflow_bms_bms_status_cell_vol", (0,), 3321),
        ("ecoflow_bms_bms_status_cell_vol", (1,), 3322),
        ("ecoflow_bms_bms_status_f32_show_soc", (), 86.53),
        ("ecoflow_bms_kit_info_watts_f32_soc", (0,), 1.5),
        ("ecoflow_pd_soc", (), 87),
        ("ecoflow_written_index", (3, 4), 5),
    ]
    assert skipped == {"string": 3, "null": 2, "empty": 2}


@pytest.mark.case("D2")
def test_a_leaf_wins_over_its_parent():
    """A key given flattened wins over the same one inside its parent, once, counted."""
    quotas = {"heartbeat": {"backupBatPer": 69}, "heartbeat.backupBatPer": 70}

    for order in (quotas, dict(reversed(quotas.items()))):
        assert samples(order) == (
            [("ecoflow_heartbeat_backup_bat_per", (), 70)],
            {"collision": 1},
        )


@pytest.mark.case("D2")
def test_two_keys_that_meet_are_decided_by_spelling():
    """Of two keys of one rank that meet in one name, the first by sort stays."""
    quotas = {"pd.chgPowerAc": 2, "pd.chgPowerAC": 1, "pd.chg_power_ac": 3}

    for order in (quotas, dict(reversed(quotas.items()))):
        assert samples(order) == (
            [("ecoflow_pd_chg_power_ac", (), 1)],
            {"collision": 2},
        )


@pytest.mark.case("D2")
def test_a_list_and_a_scalar_of_one_name_both_stay():
    """An opened list has index labels, so it does not meet a scalar of its name."""
    got, skipped = samples({"a.b": 1, "a": {"b": [2]}})

    assert got == [("ecoflow_a_b", (), 1), ("ecoflow_a_b", (0,), 2)]
    assert not skipped


@pytest.mark.case("D3")
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "non_finite"),
        (math.inf, "non_finite"),
        (10**400, "non_finite"),
        (-(10**400), "non_finite"),
    ],
)
def test_numbers_that_are_none(value, reason):
    """NaN, infinities and integers beyond a float become no sample."""
    assert samples({"a": value}) == ([], {reason: 1})


@pytest.mark.case("D7")
def test_own_names_are_reserved():
    """A quota key that lands on one of our own names is left out and counted."""
    got, skipped = samples({"online": 1, "push.success": 1, "onlineX": 1}, {"online"})

    assert got == [("ecoflow_online_x", (), 1)]
    assert skipped == {"reserved": 2}


@pytest.mark.case("P9", "D12")
def test_depth_and_width_are_bounded():
    """A hostile map costs bounded work, and what is cut is counted."""
    deep: object = 1
    for _ in range(MOST_LEVELS + 5):
        deep = [deep]
    wide = {f"k{n}": n for n in range(MOST_SAMPLES + 7)}

    assert samples({"a": deep}) == ([], {"too_deep": 1})
    got, skipped = samples(wide)
    assert len(got) == MOST_SAMPLES
    assert skipped == {"too_many": 7}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=20,
)


@pytest.mark.case("D2", "D15")
@pytest.mark.drill("fuzz")
@given(st.dictionaries(st.text(max_size=12), VALUES, max_size=8))
def test_any_map_gives_unique_finite_valid_samples(quotas):
    """Whatever a map holds: names are valid, places unique, values finite."""
    got, _ = samples(quotas)

    places = [(name, indices) for name, indices, _ in got]
    assert len(places) == len(set(places))
    assert all(re.fullmatch(r"ecoflow_[a-z0-9_]+", name) for name, _ in places)
    assert all(math.isfinite(value) for _, _, value in got)
    assert samples(dict(reversed(quotas.items())))[0] == got
