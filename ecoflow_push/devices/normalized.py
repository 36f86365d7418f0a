"""Quota maps to the same metrics on every model, in base units; a table, and pure.

DELTA 2      bms_emsStatus.f32LcdShowSoc 46.3    ecoflow_battery_charge_ratio 0.463
PowerStream  20_1.invOutputWatts 1710            ecoflow_ac_output_power_watts 171.0
DELTA Pro    bmsSlave1.vol 50064                 ecoflow_battery_voltage_volts{pack="1"}

A row says which keys of which family are which metric, and who says so. Where sources
disagree on scale or sign there is no row: OPEN holds those. docs/normalized.md is made
from these tables.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

# Why a value that has a row became no sample.
REASONS = ("sentinel", "out_of_bounds", "not_a_number", "ambiguous", "odd_pack")
# A PowerOcean has 9 packs at most, a DELTA Pro Ultra 15 (3 inverters of 5).
MOST_PACKS = 64
LONGEST_PACK = 64
MOST_OPENED = 10_000
MOST_LEVELS = 8
LONGEST_JSON = 65_536
LONGEST_KEY = 512


class NormalizedSample(NamedTuple):
    """One value in base units; `labels` are those beyond the device's own."""

    name: str
    labels: dict[str, str]
    value: float


class Metric(NamedTuple):
    """What a name means; a value outside `low` to `high` is impossible."""

    unit: str
    low: float
    high: float
    help: str


class Row(NamedTuple):
    """Keys whose values, added, times `times` and by `over`, are a metric.

    All keys must be there. `certainty` is that of the notes: A several independent
    sources agree, B one good source, C one claim that no recorded value contradicts.
    """

    metric: str
    keys: tuple[str, ...]
    source: str
    certainty: str
    times: float = 1
    over: float = 1
    sentinels: frozenset[float] = frozenset()


class Packs(NamedTuple):
    """Rows of units whose keys are `prefix`, the unit's name, `end`, and the row's.

    Without an `end` there is but one unit, which the keys do not name: it is "1".
    """

    prefix: str
    end: str
    rows: tuple[Row, ...]


class Family(NamedTuple):
    """Devices that are read alike; of several rows of a metric the first valid wins.

    `modules` are prefixes in front of a module's serial, which is left out of the key
    where there is one such module. `firmware` is the first key of the version.
    """

    name: str
    rows: tuple[Row, ...]
    packs: tuple[Packs, ...] = ()
    modules: tuple[str, ...] = ()
    firmware: tuple[str, ...] = ()
    #: Where one of these keys is 0 there is no battery, and its numbers are made up.
    battery_if: tuple[str, ...] = ()


class Open(NamedTuple):
    """What has no row, and why."""

    family: str
    keys: str
    metric: str
    why: str


_POWER = 60_000.0
_ENERGY = 4_294_967_294.0
_LONGEST = 143_998 * 60.0

METRICS: dict[str, Metric] = {
    "battery_charge_ratio": Metric(
        "ratio",
        0,
        1,
        "Charge: of the whole device where it reports that, else of its main battery;"
        " with `pack` of one battery. From bms_emsStatus.f32LcdShowSoc, cmsBattSoc and"
        " their like.",
    ),
    "battery_health_ratio": Metric(
        "ratio",
        0.01,
        1,
        "State of health of the battery. From bms_bmsStatus.soh, soh and their like.",
    ),
    "battery_voltage_volts": Metric(
        "volts",
        1,
        200,
        "Voltage of the battery. From bms_bmsStatus.vol, vol and their like.",
    ),
    "battery_current_amperes": Metric(
        "amperes",
        -1000,
        1000,
        "Current of the battery, positive while it charges. From bms_bmsStatus.amp, amp"
        " and their like.",
    ),
    "battery_power_watts": Metric(
        "watts",
        -_POWER,
        _POWER,
        "Power of the batteries, positive while they charge. From powGetBms,"
        " powGetBpCms, bpPwr, 20_1.batInputWatts.",
    ),
    "battery_temperature_celsius": Metric(
        "celsius",
        -40,
        100,
        "Temperature of the battery: of its warmest cell where that is reported. From"
        " bms_bmsStatus.maxCellTemp, maxCellTemp and their like.",
    ),
    "battery_cycles": Metric(
        "1",
        0,
        20_000,
        "Charge cycles of the battery. From bms_bmsStatus.cycles, cycles and their"
        " like.",
    ),
    "battery_capacity_remaining_ampere_hours": Metric(
        "ampere hours",
        0,
        10_000,
        "Charge left in the battery. From bms_bmsStatus.remainCap, remainCap and their"
        " like.",
    ),
    "battery_energy_remaining_watt_hours": Metric(
        "watt hours",
        0,
        1_000_000,
        "Energy left in the batteries, where the device reports energy. From"
        " bpRemainWatth.",
    ),
    "input_power_watts": Metric(
        "watts",
        0,
        _POWER,
        "Power into the device, all inputs. From pd.wattsInSum, powInSumW,"
        " hs_yj751_pd_appshow_addr.wattsInSum.",
    ),
    "output_power_watts": Metric(
        "watts",
        0,
        _POWER,
        "Power out of the device, all outputs. From pd.wattsOutSum, powOutSumW,"
        " hs_yj751_pd_appshow_addr.wattsOutSum.",
    ),
    "ac_input_power_watts": Metric(
        "watts",
        0,
        _POWER,
        "Power into the AC inputs. From inv.inputWatts, powGetAcIn and their like.",
    ),
    "ac_output_power_watts": Metric(
        "watts",
        0,
        _POWER,
        "Power out of the AC outputs. From inv.outputWatts, powGetAcOut and the like.",
    ),
    "ac_input_voltage_volts": Metric(
        "volts",
        0,
        300,
        "Voltage at the AC input, or of the grid. From inv.acInVol, plugInInfoAcInVol"
        " and their like.",
    ),
    "solar_input_power_watts": Metric(
        "watts",
        0,
        _POWER,
        "Power into the solar inputs; where one also takes a car's power, of both. From"
        " mppt.inWatts, powGetPv, powGetPvSum, mpptPwr and their like.",
    ),
    "dc_output_power_watts": Metric(
        "watts",
        0,
        _POWER,
        "Power out of the DC outputs, USB and 12 V added. From pd.usb1Watts,"
        " powGetTypec1 and their like.",
    ),
    "grid_power_watts": Metric(
        "watts",
        -_POWER,
        _POWER,
        "Power from the grid, negative while feeding it. From powGetSysGrid,"
        " sysGridPwr, wattInfo.gridWatt.",
    ),
    "home_power_watts": Metric(
        "watts",
        0,
        _POWER,
        "Power that the home takes. From powGetSysLoad, sysLoadPwr,"
        " wattInfo.allHallWatt.",
    ),
    "charge_remaining_seconds": Metric(
        "seconds",
        0,
        _LONGEST,
        "Time until the device is charged, as it estimates. From"
        " bms_emsStatus.chgRemainTime, cmsChgRemTime and their like.",
    ),
    "discharge_remaining_seconds": Metric(
        "seconds",
        0,
        _LONGEST,
        "Time until the device is empty, as it estimates. From"
        " bms_emsStatus.dsgRemainTime, cmsDsgRemTime and their like.",
    ),
    "battery_charge_energy_watt_hours_total": Metric(
        "watt hours",
        0,
        _ENERGY,
        "Energy put into the battery, as the device counts it. From accuChgEnergy,"
        " bpAccuChgEnergy, bpTotalChgEnergy.",
    ),
    "battery_discharge_energy_watt_hours_total": Metric(
        "watt hours",
        0,
        _ENERGY,
        "Energy taken from the battery, as the device counts it. From accuDsgEnergy,"
        " bpAccuDsgEnergy, bpTotalDsgEnergy.",
    ),
    "ac_input_energy_watt_hours_total": Metric(
        "watt hours",
        0,
        _ENERGY,
        "Energy into the AC input, as the device counts it. From pd.chgPowerAC,"
        " pd.chgPowerAc, displayStatisticsSum.",
    ),
    "ac_output_energy_watt_hours_total": Metric(
        "watt hours",
        0,
        _ENERGY,
        "Energy out of the AC outputs, as the device counts it. From pd.dsgPowerAC,"
        " pd.dsgPowerAc, displayStatisticsSum.",
    ),
    "dc_input_energy_watt_hours_total": Metric(
        "watt hours",
        0,
        _ENERGY,
        "Energy into the DC input, as the device counts it. From pd.chgPowerDC,"
        " pd.chgPowerDc.",
    ),
    "dc_output_energy_watt_hours_total": Metric(
        "watt hours",
        0,
        _ENERGY,
        "Energy out of the DC outputs, as the device counts it. From pd.dsgPowerDC,"
        " pd.dsgPowerDc, displayStatisticsSum.",
    ),
    "solar_input_energy_watt_hours_total": Metric(
        "watt hours",
        0,
        _ENERGY,
        "Energy into the solar inputs, as the device counts it. From pd.chgSunPower,"
        " displayStatisticsSum.",
    ),
}

# -- sources ------------------------------------------------------------------------

_P1 = "ecoflow-protocol.md 6.2 (Delta 2, Delta 2 Max, River 2)"
_P_GEN1 = "ecoflow-protocol.md 6.2 (River Max/Pro, Delta Max, Delta Pro)"
_P_MV = "ecoflow-protocol.md 6.2; recorded values agree"
_P_FLAT = "ecoflow-protocol.md 6.2 (flat / protobuf)"
_P_STREAM = "ecoflow-protocol.md 6.3; ecoflow-protobuf.md 9"
_P_PS = "ecoflow-protocol.md 6.2 (PowerStream)"
_P_PLUG = "ecoflow-protocol.md 6.2 (Smart Plug)"
_P_OCEAN = "ecoflow-protocol.md 6.2 (PowerOcean)"
_T_BMS = "ecoflow-fields BMSHeartBeatReport"
_T_DISPLAY = "ecoflow-fields DisplayPropertyUpload"
_T_CMS = "ecoflow-fields CMSHeartBeatReport.v1p0"
_T_SHOW = "ecoflow-fields dpu_AppShowHeartbeatReport"
_T_BACKEND = "ecoflow-fields dpu_BackendRecordHeartbeatReport"
_T_BP = "ecoflow-fields powerocean_BpStaReport"
_S9 = "ecoflow-protobuf.md 9 (signs)"
_S8 = "ecoflow-protobuf.md 8 (display_statistics_sum): one schema"
_S11 = "ecoflow-protobuf.md 11 (R374)"

_TIMES = frozenset((5939.0, 5999.0, 143_999.0))  # ecoflow-protocol.md 1.9
# 12,927 stands on two models for the direction that does not apply, and nowhere else.
_TIMES_3 = _TIMES | {12_927.0}
_UINT32 = frozenset((4_294_967_295.0,))  # unset: ecoflow-protocol.md 1.9
_NO_SENSOR = frozenset((-127.0,))  # ecoflow-protocol.md 1.9
# A battery of 46 cycles and one of 69 report 0: it is what those firmwares do not know.
_NO_HEALTH = frozenset((0.0,))


def _row(
    metric: str,
    keys: str,
    source: str,
    certainty: str,
    *,
    times: float = 1,
    over: float = 1,
    sentinels: frozenset[float] = frozenset(),
) -> Row:
    return Row(metric, tuple(keys.split()), source, certainty, times, over, sentinels)


def _each(metric: str, keys: str, source: str, certainty: str, **how: object) -> Rows:
    """Return a row for each of the keys: alternatives, the better one first."""
    return tuple(
        _row(metric, key, source, certainty, **how)  # type: ignore[arg-type]
        for key in keys.split()
    )


Rows = tuple[Row, ...]


def _percent(metric: str, keys: str, source: str, certainty: str) -> Rows:
    empty = _NO_HEALTH if metric == "battery_health_ratio" else frozenset()
    return _each(metric, keys, source, certainty, over=100, sentinels=empty)


def _remaining(
    charge: str,
    discharge: str,
    source: str,
    certainty: str,
    sentinels: frozenset[float],
) -> Rows:
    how = {"times": 60, "sentinels": sentinels}
    return _each("charge_remaining_seconds", charge, source, certainty, **how) + _each(
        "discharge_remaining_seconds", discharge, source, certainty, **how
    )


def _energies(*, upper: bool) -> Rows:
    ac, dc = ("AC", "DC") if upper else ("Ac", "Dc")
    source = "ecoflow-protocol.md 6.2 (lifetime counters)"
    keys = [
        ("ac_input", f"pd.chgPower{ac}"),
        ("ac_output", f"pd.dsgPower{ac}"),
        ("dc_input", f"pd.chgPower{dc}"),
        ("dc_output", f"pd.dsgPower{dc}"),
    ]
    if not upper:
        # On the others it stands still at 0 under the sun, which dc_input counts.
        keys.append(("solar_input", "pd.chgSunPower"))
    return tuple(
        _row(f"{name}_energy_watt_hours_total", key, source, "A", sentinels=_UINT32)
        for name, key in keys
    )


def _battery(
    prefix: str,
    source: str,
    certainty: str,
    *,
    electric: str = "mV mA",
    cell: str = "maxCellTemp",
    own: str = "temp",
) -> Rows:
    """Return the rows of a battery's report, its charge apart.

    `electric` names the units of voltage and current, empty where they are not known.
    """
    rows = [
        *_percent("battery_health_ratio", f"{prefix}soh", source, certainty),
        *_each(
            "battery_temperature_celsius",
            f"{prefix}{cell} {prefix}{own}",
            source,
            certainty,
            sentinels=_NO_SENSOR,
        ),
        _row("battery_cycles", f"{prefix}cycles", source, certainty, sentinels=_UINT32),
        _row(
            "battery_capacity_remaining_ampere_hours",
            f"{prefix}remainCap",
            source,
            certainty,
            over=1000,
            sentinels=_UINT32,
        ),
    ]
    if electric:
        over = 1000 if electric == "mV mA" else 1
        rows += [
            _row("battery_voltage_volts", f"{prefix}vol", source, certainty, over=over),
            _row(
                "battery_current_amperes", f"{prefix}amp", source, certainty, over=over
            ),
        ]
    return tuple(rows)


def _charged_battery(
    source: str,
    certainty: str,
    *,
    electric: str = "mV mA",
    charge: str = "f32ShowSoc soc",
) -> Rows:
    return _percent("battery_charge_ratio", charge, source, certainty) + _battery(
        "", source, certainty, electric=electric
    )


# -- JSON devices -------------------------------------------------------------------

_SUMS: Rows = (
    _row("input_power_watts", "pd.wattsInSum", _P1, "A"),
    _row("output_power_watts", "pd.wattsOutSum", _P1, "A"),
    _row("ac_input_power_watts", "inv.inputWatts", _P1, "A"),
    _row("ac_output_power_watts", "inv.outputWatts", _P1, "A"),
)
_GRID_VOLTAGE = _each("ac_input_voltage_volts", "inv.acInVol", _P1, "A", over=1000)
_DC_PORTS = (
    _row(
        "dc_output_power_watts",
        "pd.carWatts pd.usb1Watts pd.usb2Watts pd.qcUsb1Watts pd.qcUsb2Watts"
        " pd.typec1Watts pd.typec2Watts",
        _P1,
        "B",
    ),
)
_DELTA_2_ALL: Rows = (
    *_percent(
        "battery_charge_ratio",
        "bms_emsStatus.f32LcdShowSoc bms_emsStatus.lcdShowSoc pd.soc"
        " bms_bmsStatus.f32ShowSoc bms_bmsStatus.soc",
        _P1,
        "A",
    ),
    *_SUMS,
    *_GRID_VOLTAGE,
    *_DC_PORTS,
    *_remaining(
        "bms_emsStatus.chgRemainTime",
        "bms_emsStatus.dsgRemainTime",
        "ecoflow-protocol.md 6.2, 1.9",
        "A",
        _TIMES,
    ),
    *_energies(upper=True),
)
_SOLAR_W = _each(
    "solar_input_power_watts",
    "mppt.inWatts",
    f"{_P1}; a DELTA 2 Max recorded 40.1 V x 0.76 A = 30",
    "B",
)
_SOLAR_TWO = (
    _row(
        "solar_input_power_watts",
        "mppt.inWatts mppt.pv2InWatts",
        f"{_P1}; recorded 40.1 V x 0.76 A = 30",
        "B",
    ),
)
_SLAVES = _charged_battery(_P1, "A")
_SLAVE_PACKS = (
    Packs("bms_slave_bmsSlaveStatus_", ".", _SLAVES),
    # One pack only; its name stands nowhere but in a dashboard.
    Packs("bms_slave.", "", _charged_battery("dashboard-metrics.txt", "C")),
)
_CLASSIC_FIRMWARE = ("pd.sysVer",)
_DELTA_2 = Family(
    "DELTA 2",
    (*_DELTA_2_ALL, *_SOLAR_W, *_battery("bms_bmsStatus.", _P1, "A")),
    _SLAVE_PACKS,
    firmware=_CLASSIC_FIRMWARE,
)
_DELTA_2_MAX = Family(
    "DELTA 2 Max",
    (*_DELTA_2_ALL, *_SOLAR_TWO, *_battery("bms_bmsStatus.", _P1, "A")),
    _SLAVE_PACKS,
    firmware=_CLASSIC_FIRMWARE,
)
_RIVER_2 = Family(
    "RIVER 2",
    (
        *_DELTA_2_ALL,
        *_SOLAR_W,
        *_battery(
            "bms_bmsStatus.",
            "ecoflow-protocol.md 6.2 (River 2); recorded 20 x 35 at 753 W",
            "B",
            electric="V A",
        ),
    ),
    firmware=_CLASSIC_FIRMWARE,
)
# A name that nobody knows: only what is the same on all that have these keys.
_LIKE_DELTA_2 = Family(
    "like DELTA 2",
    (*_DELTA_2_ALL, *_battery("bms_bmsStatus.", _P1, "A", electric="")),
    _SLAVE_PACKS,
    firmware=_CLASSIC_FIRMWARE,
)
_SOLAR_TENTHS = _each("solar_input_power_watts", "mppt.inWatts", _P_GEN1, "B", over=10)
_GEN_1_PACKS = (Packs("bmsSlave", ".", _charged_battery(_P_MV, "B")),)
_DELTA_PRO = Family(
    "DELTA Pro",
    (
        *_percent(
            "battery_charge_ratio",
            "ems.f32LcdShowSoc ems.lcdShowSoc pd.soc bmsMaster.f32ShowSoc"
            " bmsMaster.soc",
            _P_MV,
            "B",
        ),
        *_SUMS,
        *_GRID_VOLTAGE,
        *_DC_PORTS,
        *_SOLAR_TENTHS,
        *_battery("bmsMaster.", _P_MV, "B"),
        *_remaining(
            "ems.chgRemainTime",
            "ems.dsgRemainTime",
            "ecoflow-protocol.md 1.9",
            "A",
            _TIMES,
        ),
        *_energies(upper=False),
    ),
    _GEN_1_PACKS,
    firmware=_CLASSIC_FIRMWARE,
)
_RIVER = Family(
    "RIVER",
    (
        *_percent("battery_charge_ratio", "pd.soc bmsMaster.soc", _P_MV, "B"),
        *_SUMS,
        *_each("ac_input_voltage_volts", "inv.invInVol", _P_MV, "B", over=1000),
        *_SOLAR_TENTHS,
        *_battery("bmsMaster.", _P_MV, "B"),
        *_energies(upper=True),
    ),
    _GEN_1_PACKS,
    firmware=_CLASSIC_FIRMWARE,
)
_RIVER_MINI = Family(
    "RIVER mini",
    (
        *_percent("battery_charge_ratio", "inv.fSoc pd.soc inv.soc", _P_MV, "B"),
        *_SUMS,
        *_battery("inv.", _P_MV, "B"),
        *_energies(upper=True),
    ),
    firmware=_CLASSIC_FIRMWARE,
)
_WAVE_2 = Family(
    "WAVE 2",
    (
        *_percent(
            "battery_charge_ratio", "bms.f32ShowSoc bms.soc pd.batSoc", _P_MV, "B"
        ),
        *_battery("bms.", "recorded 46.5 V x 0.96 A at 46 W", "B", own="tmp"),
        _row(
            "solar_input_power_watts", "pd.pvPower", "tolwi devices/internal/wave2", "C"
        ),
    ),
)
_GLACIER = Family(
    "GLACIER",
    (
        *_percent(
            "battery_charge_ratio",
            "bms_emsStatus.f32LcdSoc bms_emsStatus.lcdSoc bms_bmsStatus.f32ShowSoc",
            _P_MV,
            "B",
        ),
        *_battery(
            "bms_bmsStatus.",
            "recorded 22.4 V x 3.95 A at 90 W",
            "B",
            cell="maxCellTmp",
            own="tmp",
        ),
        *_remaining(
            "bms_emsStatus.chgRemain",
            "bms_emsStatus.dsgRemain",
            "ecoflow-protocol.md 1.9",
            "B",
            _TIMES,
        ),
    ),
)
_MODULE_UNITS = "recorded: V x A = W in mV, mA and W"
_POWER_KITS = Family(
    "Power Kits",
    (
        _row(
            "solar_input_power_watts",
            "kitscc.pv1InWatts kitscc.pv2InWatts",
            "recorded 34.2 V x 2.65 A = 90",
            "B",
        ),
        _row("ac_input_power_watts", "ichigh.inWatts", _MODULE_UNITS, "C"),
        _row("ac_output_power_watts", "ichigh.outWatts", _MODULE_UNITS, "C"),
        _row("dc_output_power_watts", "lddc.dcTotalWatts", _MODULE_UNITS, "C"),
    ),
    tuple(
        Packs(prefix, ".", _charged_battery(_MODULE_UNITS, "B"))
        for prefix in ("bp2000.", "bp5000.")
    ),
    ("kitscc.", "ichigh.", "lddc."),
)
_BLADE = Family(
    "BLADE",
    _percent(
        "battery_charge_ratio",
        "normalBleHeartBeat.batteryRemainPercent",
        "recorded",
        "C",
    ),
)
_PANEL_1 = Family(
    "Smart Home Panel",
    (*_percent("battery_charge_ratio", "heartbeat.backupBatPer", "recorded", "B"),),
)

# -- the third generation -----------------------------------------------------------

_CHARGE_3 = _percent(
    "battery_charge_ratio",
    "cmsBattSoc v1p0.f32LcdShowSoc f32LcdShowSoc bmsBattSoc f32ShowSoc soc",
    f"{_T_DISPLAY}, {_T_CMS}, {_T_BMS}",
    "A",
)
_BATTERY_3: Rows = (
    *_CHARGE_3,
    *_battery("", f"{_T_BMS}; recorded V x A = W", "A"),
    *_percent("battery_health_ratio", "bmsBattSoh cmsBattSoh", _T_DISPLAY, "A"),
    *_each(
        "battery_temperature_celsius",
        "bmsMaxCellTemp cmsBattTemp",
        _T_DISPLAY,
        "A",
        sentinels=_NO_SENSOR,
    ),
    _row(
        "battery_charge_energy_watt_hours_total",
        "accuChgEnergy",
        _T_BMS,
        "A",
        sentinels=_UINT32,
    ),
    _row(
        "battery_discharge_energy_watt_hours_total",
        "accuDsgEnergy",
        _T_BMS,
        "A",
        sentinels=_UINT32,
    ),
)
_REMAINING_3 = _remaining(
    "cmsChgRemTime v1p0.chgRemainTime",
    "cmsDsgRemTime v1p0.dsgRemainTime",
    f"{_T_DISPLAY}; ecoflow-protocol.md 1.9",
    "A",
    _TIMES_3,
)
_SUMS_3: Rows = (
    _row("input_power_watts", "powInSumW", _T_DISPLAY, "A"),
    _row("output_power_watts", "powOutSumW", _T_DISPLAY, "A"),
)
_AC_3: Rows = (
    _row("ac_input_power_watts", "powGetAcIn", _T_DISPLAY, "A"),
    _row("ac_output_power_watts", "powGetAcOut", f"{_T_DISPLAY}; {_S9}", "A", times=-1),
    _row("ac_input_voltage_volts", "plugInInfoAcInVol", _P_FLAT, "A"),
)
_POWER_BMS = (_row("battery_power_watts", "powGetBms", f"{_T_DISPLAY}; {_S9}", "A"),)
_STATISTICS: Rows = tuple(
    _row(
        f"{name}_energy_watt_hours_total",
        " ".join(f"displayStatisticsSum.listInfo#{number}" for number in numbers),
        _S8,
        "C",
        sentinels=_UINT32,
    )
    for name, numbers in (
        ("ac_output", "2"),
        ("dc_output", "345"),
        ("solar_input", "7"),
    )
)
# Keys of the device as a whole, which no battery's report has.
_SYSTEM = ("cms", "bms", "v1p0", "f32Lcd")
_PACKS_3 = (
    Packs(
        "bms[",
        "].",
        tuple(row for row in _BATTERY_3 if not row.keys[0].startswith(_SYSTEM)),
    ),
)
_FIRMWARE_3 = ("pdFirmVer", "iotFirmVer")
_SOLAR_ONE = _each("solar_input_power_watts", "powGetPv", _T_DISPLAY, "A")
_SOLAR_PAIR = (_row("solar_input_power_watts", "powGetPv powGetPv2", _T_DISPLAY, "A"),)
_SOLAR_HL = (_row("solar_input_power_watts", "powGetPvH powGetPvL", _T_DISPLAY, "A"),)
_SOLAR_SUM = _each("solar_input_power_watts", "powGetPvSum", _T_DISPLAY, "A")
_USB_3 = "powGetQcusb1 powGetQcusb2 powGetTypec1 powGetTypec2 powGet12v"


def _ports(keys: str) -> Rows:
    source = f"{_T_DISPLAY}; recorded -2 W on an output"
    return (_row("dc_output_power_watts", keys, source, "C", times=-1),)


def _third(name: str, *rows: Rows) -> Family:
    return Family(
        name,
        _BATTERY_3 + sum(rows, ()),
        _PACKS_3,
        firmware=_FIRMWARE_3,
    )


_STATION_3 = _SUMS_3 + _POWER_BMS + _REMAINING_3 + _STATISTICS
_GRID_3: Rows = (
    _row(
        "grid_power_watts",
        "powGetSysGrid",
        "ecoflow-protobuf.md, Smart Meter subset; recorded with powGetSysLoadFromGrid",
        "B",
    ),
    _row("home_power_watts", "powGetSysLoad", _T_DISPLAY, "A"),
    _row("battery_power_watts", "powGetBpCms", _P_STREAM, "B"),
)
_DELTA_3 = _third("DELTA 3", _STATION_3, _AC_3, _SOLAR_PAIR, _ports(_USB_3))
_DELTA_3_MAX = _third(
    "DELTA 3 Max", _STATION_3, _AC_3, _SOLAR_PAIR, _ports(f"{_USB_3} powGetTypec3")
)
_DELTA_PRO_3 = _third(
    "DELTA Pro 3",
    _STATION_3,
    (
        _row("ac_input_power_watts", "powGetAcIn", _T_DISPLAY, "A"),
        _row(
            "ac_output_power_watts",
            "powGetAcLvOut powGetAcHvOut",
            f"{_T_DISPLAY}; {_S9}",
            "B",
            times=-1,
        ),
        _row("ac_input_voltage_volts", "plugInInfoAcInVol", _P_FLAT, "A"),
    ),
    _SOLAR_HL,
)
_RIVER_3 = _third("RIVER 3", _STATION_3, _AC_3, _SOLAR_ONE, _ports(_USB_3))
_ULTRA_X = _third("DELTA Pro Ultra X", _STATION_3)
_STREAM = _third("STREAM", _SOLAR_SUM, _GRID_3, _REMAINING_3)
_MICROINVERTER = Family(
    "STREAM Microinverter",
    (
        *_SOLAR_PAIR,
        _row(
            "ac_output_power_watts",
            "gridConnectionPower",
            f"{_T_DISPLAY}; recorded 184.1 of 99.3 + 84.8 from the sun",
            "B",
        ),
        _row("ac_input_voltage_volts", "gridConnectionVol", _T_DISPLAY, "A"),
    ),
    firmware=_FIRMWARE_3,
)
_METER = Family("Smart Meter", _GRID_3[:1], firmware=_FIRMWARE_3)
_WAVE_3 = _third("WAVE 3", _SUMS_3, _POWER_BMS, _SOLAR_ONE, _AC_3[:1])
_GLACIER_CLASSIC = _third("GLACIER Classic", _SUMS_3, _REMAINING_3)
_CHARGER = _third("RAPID Pro", _SUMS_3, _REMAINING_3)
_ALTERNATOR = _third("Alternator Charger")
_PANEL_3 = Family("Smart Home Panel 3", _CHARGE_3[:1], firmware=_FIRMWARE_3)
_LIKE_THIRD = _third(
    "third generation",
    _SUMS_3,
    _POWER_BMS,
    _AC_3[:2],
    _SOLAR_SUM,
    _SOLAR_HL,
    _SOLAR_PAIR,
    _GRID_3[:2],
    _STATISTICS,
    _REMAINING_3,
)

# -- families with messages of their own --------------------------------------------

_POWERSTREAM = Family(
    "PowerStream",
    (
        *_percent("battery_charge_ratio", "20_1.batSoc", _P_PS, "A"),
        _row("battery_voltage_volts", "20_1.batInputVolt", _P_PS, "A", over=10),
        _row("battery_temperature_celsius", "20_1.batTemp", _P_PS, "A", over=10),
        _row(
            "battery_power_watts",
            "20_1.batInputWatts",
            f"{_P_PS}; recorded 150 W of 171 W out, and -212 W under 215 W of sun",
            "B",
            times=-1,
            over=10,
        ),
        _row("ac_output_power_watts", "20_1.invOutputWatts", _P_PS, "A", over=10),
        _row(
            "solar_input_power_watts",
            "20_1.pv1InputWatts 20_1.pv2InputWatts",
            _P_PS,
            "A",
            over=10,
        ),
        *_remaining(
            "20_1.chgRemainTime",
            "20_1.dsgRemainTime",
            "ecoflow-protocol.md 1.9",
            "A",
            _TIMES,
        ),
    ),
    battery_if=("20_1.batInputVolt",),
)
_PLUG = Family(
    "Smart Plug",
    (
        _row("ac_output_power_watts", "2_1.watts", _P_PLUG, "A", over=10),
        # 0 V comes and goes while the plug works (ecoflow-protocol.md 6.3).
        _row(
            "ac_input_voltage_volts",
            "2_1.volt",
            _P_PLUG,
            "A",
            sentinels=frozenset((0.0,)),
        ),
    ),
)
_SHOW = "hs_yj751_pd_appshow_addr."
_BACKEND = "hs_yj751_pd_backend_addr."
_ULTRA = Family(
    "DELTA Pro Ultra",
    (
        *_percent("battery_charge_ratio", f"{_SHOW}soc", _T_SHOW, "A"),
        _row("input_power_watts", f"{_SHOW}wattsInSum", _T_SHOW, "A"),
        _row("output_power_watts", f"{_SHOW}wattsOutSum", _T_SHOW, "A"),
        _row(
            "ac_input_power_watts",
            f"{_SHOW}inAcC20Pwr {_SHOW}inAc5p8Pwr",
            _T_SHOW,
            "A",
        ),
        _row(
            "solar_input_power_watts",
            f"{_SHOW}inHvMpptPwr {_SHOW}inLvMpptPwr",
            _T_SHOW,
            "A",
        ),
        _row("battery_voltage_volts", f"{_BACKEND}batVol", _T_BACKEND, "B"),
        _row(
            "battery_current_amperes",
            f"{_BACKEND}batAmp",
            f"{_T_BACKEND}; recorded -0.09 with bmsOutputWatts 23",
            "C",
        ),
    ),
    (
        Packs(
            "hs_yj751_bms_slave_addr.",
            ".",
            (
                *_percent(
                    "battery_charge_ratio",
                    "bpSoc",
                    "ecoflow-protobuf.md 11, annex I",
                    "A",
                ),
                _row(
                    "battery_temperature_celsius",
                    "bpTemp",
                    "ecoflow-protobuf.md 11, annex I",
                    "A",
                ),
            ),
        ),
    ),
)
_PANEL_2 = Family(
    "Smart Home Panel 2",
    (
        *_percent(
            "battery_charge_ratio",
            "pd303_mc.backupIncreInfo.backupBatPer",
            "ecoflow-protobuf.md 11",
            "A",
        ),
        _row("home_power_watts", "wattInfo.allHallWatt", "ecoflow-protobuf.md 11", "A"),
        _row(
            "ac_input_voltage_volts",
            "pd303_mc.masterIncreInfo.gridVol",
            "recorded 118 and 124 beside a nominal 120 and loads at 125",
            "B",
        ),
    ),
)
_BP: Rows = (
    *_percent("battery_charge_ratio", "bpSoc", _T_BP, "B"),
    *_percent("battery_health_ratio", "bpSoh", _T_BP, "B"),
    _row("battery_voltage_volts", "bpVol", _P_OCEAN, "B"),
    _row("battery_current_amperes", "bpAmp", f"{_P_OCEAN}; recorded with bpPwr", "B"),
    _row("battery_power_watts", "bpPwr", _P_OCEAN, "B"),
    _row(
        "battery_temperature_celsius", "bpMaxCellTemp", _T_BP, "B", sentinels=_NO_SENSOR
    ),
    _row("battery_cycles", "bpCycles", _T_BP, "B"),
    _row("battery_energy_remaining_watt_hours", "bpRemainWatth", _P_OCEAN, "B"),
    _row(
        "battery_charge_energy_watt_hours_total",
        "bpAccuChgEnergy",
        _T_BP,
        "B",
        sentinels=_UINT32,
    ),
    _row(
        "battery_discharge_energy_watt_hours_total",
        "bpAccuDsgEnergy",
        _T_BP,
        "B",
        sentinels=_UINT32,
    ),
)
_OCEAN_PACKS = (Packs("bp_addr.", ".", _BP),)
_TOTALS_SOURCE = (
    "ecoflow-fields powerocean_EmsChangeReport; recorded packs add up to it"
)
_POWEROCEAN = Family(
    "PowerOcean",
    (
        *_percent(
            "battery_charge_ratio", "bpSoc ems_change_report.bpSoc", _P_OCEAN, "B"
        ),
        _row("battery_power_watts", "bpPwr", f"{_P_OCEAN}; recorded balance", "B"),
        _row("battery_energy_remaining_watt_hours", "bpRemainWatth", _P_OCEAN, "B"),
        _row("solar_input_power_watts", "mpptPwr", f"{_P_OCEAN}; {_S11}", "A"),
        _row("grid_power_watts", "sysGridPwr", f"{_P_OCEAN}; {_S11}", "A"),
        _row("home_power_watts", "sysLoadPwr", f"{_P_OCEAN}; {_S11}", "A"),
        _row(
            "battery_charge_energy_watt_hours_total",
            "ems_change_report.bpTotalChgEnergy",
            _TOTALS_SOURCE,
            "B",
            sentinels=_UINT32,
        ),
        _row(
            "battery_discharge_energy_watt_hours_total",
            "ems_change_report.bpTotalDsgEnergy",
            _TOTALS_SOURCE,
            "B",
            sentinels=_UINT32,
        ),
    ),
    _OCEAN_PACKS,
    # A recorded one without a battery reports a charge of 0.
    battery_if=("ems_change_report.bpOnlineSum",),
)
_OCEAN_FIT = Family(
    "PowerOcean DC Fit",
    (
        *_percent("battery_charge_ratio", "bpSoc", _P_OCEAN, "B"),
        _row("battery_energy_remaining_watt_hours", "bpRemainWatth", _P_OCEAN, "B"),
    ),
    _OCEAN_PACKS,
)
_UNKNOWN = Family("unknown", ())

# -- which family -------------------------------------------------------------------

# ecoflow-protocol.md 5.1; of the doubtful prefixes only DAEB and H101.
PREFIXES: dict[str, Family] = {
    "AC71": _WAVE_3,
    "BK01": _MICROINVERTER,
    "BK11": _STREAM,
    "BK12": _STREAM,
    "BK21": _METER,
    "BK31": _STREAM,
    "BK41": _STREAM,
    "BK51": _STREAM,
    "BK61": _STREAM,
    "BX1": _GLACIER,
    "D361": _LIKE_DELTA_2,
    "D3M": _DELTA_3_MAX,
    "D3N": _DELTA_3_MAX,
    "DAAB": _DELTA_PRO,
    "DAEB": _DELTA_PRO,
    "DBAB": _DELTA_PRO,
    "DC": _DELTA_PRO,
    "ES21": _STREAM,
    "ES22": _STREAM,
    "F371": _ALTERNATOR,
    "H101": _BLADE,
    "HC31": _OCEAN_FIT,
    "HD3": _PANEL_2,
    "HJ3": _POWEROCEAN,
    "HW51": _POWERSTREAM,
    "HW52": _PLUG,
    "J32": _POWEROCEAN,
    "KT2": _WAVE_2,
    "M10": _POWER_KITS,
    "MR5": _DELTA_PRO_3,
    "P101": _ULTRA_X,
    "P231": _DELTA_3,
    "P321": _DELTA_3,
    "P351": _DELTA_3,
    "P521": _CHARGER,
    "R33": _DELTA_2,
    "R35": _DELTA_2_MAX,
    "R371": _POWEROCEAN,
    "R372": _POWEROCEAN,
    "R374": _POWEROCEAN,
    "R60": _RIVER_2,
    "R61": _RIVER_2,
    "R62": _RIVER_2,
    "RF45": _GLACIER_CLASSIC,
    "SP10": _PANEL_1,
    "Y71": _ULTRA,
}
# The beginnings of product names in small letters, the longer one first.
PRODUCTS: dict[str, Family] = {
    "alternator": _ALTERNATOR,
    "blade": _BLADE,
    "delta 2 max": _DELTA_2_MAX,
    "delta 2": _DELTA_2,
    "delta 3 1500": _LIKE_DELTA_2,
    "delta 3 max": _DELTA_3_MAX,
    "delta 3": _DELTA_3,
    "delta max": _DELTA_PRO,
    "delta mini": _DELTA_PRO,
    "delta pro 3": _DELTA_PRO_3,
    "delta pro ultra x": _ULTRA_X,
    "delta pro ultra": _ULTRA,
    "delta pro": _DELTA_PRO,
    "glacier classic": _GLACIER_CLASSIC,
    "glacier": _GLACIER,
    "power kits": _POWER_KITS,
    "powerocean dc fit": _OCEAN_FIT,
    "powerocean": _POWEROCEAN,
    "powerstream": _POWERSTREAM,
    "rapid pro": _CHARGER,
    "river 2": _RIVER_2,
    "river 3": _RIVER_3,
    "river max": _RIVER,
    "river mini": _RIVER_MINI,
    "river pro": _RIVER,
    "smart home panel 2": _PANEL_2,
    "smart home panel 3": _PANEL_3,
    "smart home panel": _PANEL_1,
    "smart meter": _METER,
    "smart plug": _PLUG,
    "stream microinverter": _MICROINVERTER,
    "stream": _STREAM,
    "wave 2": _WAVE_2,
    "wave 3": _WAVE_3,
}
# A key that only one kind of device has, where serial and product say nothing.
SHAPES: tuple[tuple[str, Family], ...] = (
    ("bms_bmsStatus.soc", _LIKE_DELTA_2),
    ("ems.lcdShowSoc", _DELTA_PRO),
    ("inv.fSoc", _RIVER_MINI),
    ("bmsMaster.soc", _RIVER),
    ("20_1.batSoc", _POWERSTREAM),
    ("2_1.watts", _PLUG),
    (f"{_SHOW}soc", _ULTRA),
    ("cmsBattSoc", _LIKE_THIRD),
    ("powInSumW", _LIKE_THIRD),
    ("v1p0.lcdShowSoc", _LIKE_THIRD),
    ("accuChgCap", _LIKE_THIRD),
)

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *PREFIXES.values(),
        *PRODUCTS.values(),
        *(family for _, family in SHAPES),
    )
}

OPEN: tuple[Open, ...] = (
    Open(
        "Smart Home Panel, Smart Home Panel 2",
        "gridInfo.gridVol, pd303_mc.gridVol",
        "ac_input_voltage_volts",
        "the nominal voltage: recorded as 230 without mains, and as 120 beside a"
        " measured 124",
    ),
    Open(
        "DELTA 2, DELTA 2 Max, RIVER 2, RIVER Max, RIVER mini, RIVER Pro",
        "pd.chgSunPower",
        "solar_input_energy_watt_hours_total",
        "0 in every recording, also under the sun",
    ),
    Open(
        "third generation",
        "displayStatisticsSum, object 6",
        "ac_input_energy_watt_hours_total",
        "said to be AC in, and recorded as a hundredth of AC out: without what is"
        " passed through",
    ),
    Open(
        "third generation",
        "bmsBattVol, bmsBattAmp, cmsBattVol, cmsBattAmp, plugInInfoBmsVol",
        "battery_voltage_volts, battery_current_amperes",
        "volts on a DELTA 3, millivolts on a RIVER 3 and a DELTA 3 Max Plus, under one"
        " name; vol and amp are millivolts and milliamperes on all",
    ),
    Open(
        "third generation",
        "powGetAc",
        "ac_output_power_watts",
        "51 beside powGetAcOut -87 on one model, 0 beside -39 on another",
    ),
    Open(
        "DELTA Pro 3",
        "powGet24v, powGet5p8, powGet4p81, powGet4p82",
        "dc_output_power_watts",
        "watts for one peer, tenths for another",
    ),
    Open(
        "STREAM",
        "gridConnectionPower, sysGridConnectionPower, powGetSchuko1, powGetSchuko2",
        "ac_output_power_watts, grid_power_watts",
        "the sign is opposite to powGetSysGrid's on one unit; recorded as 0 on others",
    ),
    Open(
        "STREAM 5000",
        "messages 254/39 and 254/40",
        "solar_input_power_watts, grid_power_watts, home_power_watts",
        "no public schema",
    ),
    Open(
        "Smart Meter",
        "gridConnectionDataRecord",
        "grid energies",
        "peers call them consumption and delivery over life, the app's schema totals of"
        " active and reactive energy",
    ),
    Open(
        "WAVE 2, WAVE 3",
        "pd.batChgRemain, pd.batDsgRemain, cmsChgRemTime, cmsDsgRemTime",
        "charge_remaining_seconds, discharge_remaining_seconds",
        "both directions hold the same number, whichever applies",
    ),
    Open(
        "WAVE 2",
        "power.mpptPwr, power.acPwrIn, power.batPwrOut, pd.batPower",
        "power of inputs and battery",
        "pairs of names for one quantity, with units that nobody states",
    ),
    Open(
        "Alternator Charger",
        "cmsChgRemTime, cmsDsgRemTime",
        "charge_remaining_seconds, discharge_remaining_seconds",
        "a peer calls the second one the time to full, the app's schema the other way",
    ),
    Open(
        "RIVER Max, RIVER mini, RIVER Pro, DELTA 2, RIVER 2",
        "pd.remainTime",
        "discharge_remaining_seconds",
        "the sign is said to be the direction, and was seen to contradict the power",
    ),
    Open(
        "RIVER mini",
        "inv.invInVol, inv.invOutVol, inv.invInAmp, inv.invOutAmp",
        "ac_input_voltage_volts",
        "bytes in the wrong order",
    ),
    Open(
        "RIVER Max, RIVER mini, RIVER Pro",
        "inv.dcInVol, inv.dcInAmp",
        "solar_input_power_watts",
        "voltage and current only: the device reports no power, and none is computed",
    ),
    Open(
        "DELTA 2, DELTA 2 Max, RIVER 2",
        "mppt.outWatts, mppt.carOutWatts, mppt.dcdc12vWatts, mppt.carOutVol",
        "dc_output_power_watts",
        "tenths in EcoFlow's documents, watts for peers",
    ),
    Open(
        "like DELTA 2",
        "bms_bmsStatus.vol, bms_bmsStatus.amp, mppt.inWatts",
        "battery_voltage_volts, battery_current_amperes, solar_input_power_watts",
        "V and A on a RIVER 2, mV and mA on a DELTA 2: without a known model, neither",
    ),
    Open(
        "PowerStream",
        "20_1.batInputCur, 20_1.invOpVolt, 20_1.gridConsWatts",
        "battery_current_amperes, ac_input_voltage_volts, grid_power_watts",
        "the sign was never recorded; hundredths in one table, tenths in a recording",
    ),
    Open(
        "DELTA Pro Ultra",
        "hs_yj751_pd_appshow_addr.outAc*Pwr",
        "ac_output_power_watts",
        "whether L14 and TT hold what L1 and L2 do is not said",
    ),
    Open(
        "DELTA Pro Ultra X",
        "powGetL1, powGetL2, powGet5p8, powGetPvH, powGetPvL",
        "ac_output_power_watts, solar_input_power_watts",
        "the one recording has no solar power, and two of the ports",
    ),
    Open(
        "DELTA Pro Ultra",
        "hs_yj751_pd_appshow_addr.remainTime",
        "charge_remaining_seconds, discharge_remaining_seconds",
        "its direction is not said",
    ),
    Open(
        "PowerOcean, PowerOcean DC Fit",
        "bpDsgTime",
        "discharge_remaining_seconds",
        "recorded as 600000 and 144000 only; its unit is not said",
    ),
    Open(
        "PowerOcean DC Fit",
        "pvPwr, mpptPwr, bpPwr, gridPwr, loadPwr",
        "solar_input_power_watts, battery_power_watts, grid_power_watts",
        "sources give fields 3 and 4 of the message to different quantities; load and"
        " grid are negative together in one recording",
    ),
    Open(
        "Smart Home Panel 2",
        "wattInfo.gridWatt, masterInfo.gridWatt",
        "grid_power_watts",
        "whether it turns negative while feeding is not said",
    ),
    Open(
        "Smart Home Panel",
        "channelPower.infoList",
        "home_power_watts",
        "which of the 12 channels are batteries is not said",
    ),
    Open(
        "Smart Home Panel 3",
        "shp_grid_pwr, shp_load_pwr, shp_batt_pwr",
        "grid_power_watts, home_power_watts",
        "names of one peer, which the app's schema does not have",
    ),
    Open(
        "Power Kits",
        "bmsTotal.totalSoc, bmsTotal.totalInWatts, bmsTotal.totalOutWatts,"
        " bmsTotal.totalAmp",
        "battery_charge_ratio, input_power_watts, output_power_watts",
        "a charge of 5 beside packs at 87 and 89 in one recording, where the output is"
        " negative; the powers are of the batteries, not of the system",
    ),
)


def family_of(
    sn: str, product_name: str, quotas: Mapping[str, object] | None = None
) -> Family:
    """Return how a device is read: by serial, else by product, else by its keys."""
    for length in (4, 3, 2):
        if family := PREFIXES.get(sn[:length]):
            return family
    product = product_name[:64].lower()
    if product not in ("", "unknown"):
        for beginning, family in PRODUCTS.items():
            if product.startswith(beginning):
                return family
    for values in (quotas, _opened(quotas)) if quotas else ():
        for key, family in SHAPES:
            if key in values:
                return family
    return _UNKNOWN


def firmware_of(quotas: Mapping[str, object], family: Family) -> str:
    """Return the main board's version, its four bytes from the left; empty if unknown.

    ecoflow-protocol.md 6.1: peers format these numbers so (DS); 0 is no version.
    """
    for key in family.firmware:
        value = quotas.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**32:
            return ".".join(str(byte) for byte in value.to_bytes(4, "big"))
    return ""


def normalized_samples(
    quotas: Mapping[str, object],
    sn: str,
    product_name: str,
    prefix: str,
    family: Family | None = None,
) -> tuple[list[NormalizedSample], Counter[str]]:
    """Return what a quota map says in base units, and what was left out, by reason.

    A value that a row wants and cannot use is left out and counted, never corrected;
    an absent one is absent. Without a `family` it is found out.
    """
    opened = _opened(quotas)
    family = family or family_of(sn, product_name, quotas)
    left_out: Counter[str] = Counter()
    values: Mapping[str, object] = quotas
    if opened:
        # The key given flat wins, as for the raw metrics.
        values = {**opened, **quotas}
    if family.modules:
        values = {**values, **_single_modules(values, family.modules, left_out)}
    rows = family.rows
    if any(values.get(key) == 0 for key in family.battery_if):
        rows = tuple(row for row in rows if not row.metric.startswith("battery_"))
    found = {(metric, ""): value for metric, value in _apply(rows, values, left_out)}
    for packs in family.packs:
        for pack, report in _reports(values, packs, left_out).items():
            for metric, value in _apply(packs.rows, report, left_out):
                found.setdefault((metric, pack), value)
    samples = [
        NormalizedSample(
            f"{prefix}_{metric}", {"pack": pack} if pack else {}, found[metric, pack]
        )
        for metric, pack in sorted(found)
    ]
    return samples, left_out


def _apply(
    rows: Iterable[Row], values: Mapping[str, object], left_out: Counter[str]
) -> Iterator[tuple[str, float]]:
    """Yield each metric once, from the first of its rows that gives a value."""
    done = set()
    for row in rows:
        metric, keys = row.metric, row.keys
        if metric in done or keys[0] not in values:
            continue
        value = _value(row, values, left_out)
        if value is not None:
            done.add(metric)
            yield metric, value
        elif metric.endswith("_remaining_seconds") and _is_none(row, values):
            # The better key said that there is no such time.
            done.add(metric)


def _is_none(row: Row, values: Mapping[str, object]) -> bool:
    value = values[row.keys[0]]
    return isinstance(value, (int, float)) and value in row.sentinels


def _value(
    row: Row, values: Mapping[str, object], left_out: Counter[str]
) -> float | None:
    total = 0.0
    _, low, high, _ = METRICS[row.metric]
    for key in row.keys:
        part = values.get(key)
        if part is None:
            return None
        if type(part) is not int and type(part) is not float:
            left_out["not_a_number"] += 1
            return None
        if part in row.sentinels:
            left_out["sentinel"] += 1
            return None
        try:
            value = part * row.times / row.over
        except OverflowError:
            value = float("inf")
        # Not so for NaN either.
        if not low <= value <= high:
            left_out["out_of_bounds"] += 1
            return None
        total += value
    if not total <= high or not total >= low:
        left_out["out_of_bounds"] += 1
        return None
    return total


def _opened(quotas: Mapping[str, object]) -> dict[str, object]:
    """Return what lies in maps and in JSON texts, under dotted keys.

    PowerOcean packs and Power Kits modules come as JSON in a text, panels as maps
    (ecoflow-protocol.md 1.8).
    """
    found: dict[str, object] = {}
    closed = [
        key
        for key, value in quotas.items()
        if type(value) is dict
        or (type(value) is str and value[:1] == "{")
        or key == "displayStatisticsSum.listInfo"
    ]
    # Sorted, so that the order of a map decides nothing.
    stack = [(key, quotas[key], 0) for key in sorted(closed)]
    while stack and len(found) < MOST_OPENED:
        key, value, level = stack.pop()
        if type(value) is str and value[:1] == "{" and len(value) <= LONGEST_JSON:
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                continue
        if type(value) is dict:
            if level < MOST_LEVELS and len(key) <= LONGEST_KEY:
                stack += [
                    (f"{key}.{name}", inner, level + 1) for name, inner in value.items()
                ]
        elif key == "displayStatisticsSum.listInfo":
            found.update(_statistics(value))
        elif level:
            found.setdefault(key, value)
    return found


def _statistics(items: object) -> Iterator[tuple[str, object]]:
    """Yield counters by the number of what they count; no content means 0."""
    for item in items[:MOST_PACKS] if isinstance(items, list) else ():
        number = item.get("statisticsObject") if isinstance(item, dict) else None
        if type(number) is int and number:
            key = f"displayStatisticsSum.listInfo#{number}"
            yield key, item.get("statisticsContent", 0)


def _split(
    values: Mapping[str, object], prefix: str, end: str
) -> Iterator[tuple[str, str, object]]:
    start = len(prefix)
    for key, value in values.items():
        if key.startswith(prefix):
            if not end:
                yield "1", key[start:], value
                continue
            unit, found, name = key[start:].partition(end)
            if found and name:
                yield unit, name, value


def _reports(
    values: Mapping[str, object], packs: Packs, left_out: Counter[str]
) -> dict[str, dict[str, object]]:
    """Return the report of each pack, by what tells it apart."""
    reports: dict[str, dict[str, object]] = {}
    for pack, name, value in _split(values, packs.prefix, packs.end):
        reports.setdefault(pack, {})[name] = value
    plain = [pack for pack in sorted(reports) if _is_plain(pack)][:MOST_PACKS]
    if len(plain) < len(reports):
        left_out["odd_pack"] += len(reports) - len(plain)
    return {pack: reports[pack] for pack in plain}


def _is_plain(pack: str) -> bool:
    """Return whether this is a number or a serial, fit to be a label."""
    letters = pack.replace("_", "").replace("-", "")
    return len(pack) <= LONGEST_PACK and letters.isascii() and letters.isalnum()


def _single_modules(
    values: Mapping[str, object], prefixes: Iterable[str], left_out: Counter[str]
) -> dict[str, object]:
    """Return the values of modules that are the only one of their kind."""
    found: dict[str, object] = {}
    for prefix in prefixes:
        modules: dict[str, dict[str, object]] = {}
        for serial, name, value in _split(values, prefix, "."):
            modules.setdefault(serial, {})[name] = value
        if len(modules) == 1:
            (module,) = modules.values()
            found |= {prefix + name: value for name, value in module.items()}
        elif modules:
            # Of which is the power?
            left_out["ambiguous"] += 1
    return found
