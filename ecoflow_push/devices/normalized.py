"""Quota maps to the same metrics on every model, in base units; pure.

DELTA 2      bms_emsStatus.f32LcdShowSoc 46.3    ecoflow_battery_charge_ratio 0.463
PowerStream  20_1.invOutputWatts 1710            ecoflow_ac_output_power_watts 171.0
DELTA Pro    bmsSlave1.vol 50064                 ecoflow_battery_voltage_volts{pack="1"}

Which keys of which family are which metric, and who says so, is data: families/*.tsv.
Where sources disagree on scale or sign there is no row: docs/internals/open.md.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from ecoflow_push.config.kinds import is_serial
from ecoflow_push.devices.families import (
    UNKNOWN,
    Family,
    Packs,
    Row,
    Test,
    family_named,
)
from ecoflow_push.devices.products import family_by_product, family_by_serial, products

# Why a value that has a row became no sample.
REASONS = ("sentinel", "out_of_bounds", "not_a_number", "ambiguous", "odd_pack")
# A PowerOcean has 9 packs at most, a DELTA Pro Ultra 15 (3 inverters of 5).
MOST_PACKS = 64
MOST_OPENED = 10_000
MOST_LEVELS = 8
LONGEST_JSON = 65_536
LONGEST_KEY = 512
MOST_REMEMBERED = 1_000
# A list of the units of one system, of which each speaks for all.
LINKED = "linkedUnits.unit"
#: Name, labels beyond the device's own, and the value in base units.
NormalizedSample = tuple[str, dict[str, str], float]


def family_of(
    sn: str, product_name: str, quotas: Mapping[str, object] | None = None
) -> Family:
    """Return how a device is read: by serial, else by product, else by its keys.

    Raises TableError where the family's table is wrong.
    """
    name = family_by_serial(sn) or family_by_product(product_name)
    if not name and quotas:
        name = _family_by_keys(quotas) or _family_by_keys(_opened(quotas))
    return family_named(name) or UNKNOWN


def _family_by_keys(values: Mapping[str, object]) -> str:
    keys = products().keys
    return next((keys[key] for key in keys if key in values), "")


def firmware_of(quotas: Mapping[str, object], family: Family) -> str:
    """Return the main board's version, its four bytes from the left; empty if unknown.

    0 is no version (protocol/names.md#versions).
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
    *,
    at: float | None = None,
) -> tuple[list[NormalizedSample], Counter[str]]:
    """Return what a quota map says in base units, and what was left out, by reason.

    A value that a row wants and cannot use is left out and counted, never corrected;
    an absent one is absent. Without a `family` it is found out; without the time `at`
    (Unix, s) of the map nothing is said of the running day.
    """
    opened = _opened(quotas)
    family = family or family_of(sn, product_name, quotas)
    left_out: Counter[str] = Counter()
    values: Mapping[str, object] = quotas
    if opened:
        # The key given flat wins, as for the raw metrics.
        values = {**opened, **quotas}
    linked = quotas.get(LINKED)
    if isinstance(linked, list):
        values = {f"{LINKED}#leads": _leads(sn, linked), **values}
    if family.modules:
        values = {**values, **_single_modules(values, family.modules, left_out)}
    found = {
        (metric, ""): value for metric, value in _apply(family.rows, values, left_out)
    }
    for packs in family.packs:
        for pack, report in _reports(values, packs, left_out).items():
            for metric, value in _apply(packs[2], report, left_out):
                found.setdefault((metric, pack), value)
    samples = [
        (f"{prefix}_{metric}", {"pack": pack} if pack else {}, found[metric, pack])
        for metric, pack in sorted(found)
    ]
    if family.hours and at is not None:
        # Of one family alone: others do without the module.
        from ecoflow_push.devices.hours import METRIC, energies_today

        today = sorted(energies_today(values, family.hours, at, left_out))
        samples += [
            (f"{prefix}_{METRIC}", {"flow": flow}, energy) for flow, energy in today
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
        if row.only_if and not all(_holds(tests, values) for tests in row.only_if):
            continue
        value = _value(row, values, left_out)
        if value is not None:
            done.add(metric)
            yield metric, value
        elif metric.endswith("_remaining_seconds") and _is_none(row, values):
            # The better key said that there is no such time.
            done.add(metric)


def _holds(tests: Iterable[Test], values: Mapping[str, object]) -> bool:
    said = False
    for key, how, wanted in tests:
        value = values.get(key)
        if value is not None:
            if (value == wanted) == (how == "="):
                return True
            said = True
    return not said


def _is_none(row: Row, values: Mapping[str, object]) -> bool:
    value = values[row.keys[0]]
    return isinstance(value, (int, float)) and value in row.sentinels


def _value(
    row: Row, values: Mapping[str, object], left_out: Counter[str]
) -> float | None:
    total = 0.0
    low, high = row.low, row.high
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
        total += -value if key in row.minus else value
    if not total <= high or not total >= low:
        left_out["out_of_bounds"] += 1
        return None
    return total


def _opened(quotas: Mapping[str, object]) -> dict[str, object]:
    """Return what lies in maps and in JSON texts, under dotted keys.

    PowerOcean packs and Power Kits modules come as JSON in a text, panels as maps
    (protocol/rest.md#shapes).
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


def _leads(sn: str, units: list[object]) -> bool:
    """Whether a unit speaks for those linked to it: the first by serial does.

    None of them is said to lead (protocol/values.md#stream-5000).
    """
    serials = [unit.get("sn") for unit in units if isinstance(unit, dict)]
    known = [serial for serial in serials if isinstance(serial, str)]
    return sn not in known or sn == min(known)


def _split(
    values: Mapping[str, object], prefix: str, end: str
) -> Iterator[tuple[str, str, object]]:
    split = _remembered if len(values) <= MOST_REMEMBERED else _split_keys
    for key, unit, name in split(tuple(values), prefix, end):
        yield unit, name, values[key]


def _split_keys(
    keys: tuple[str, ...], prefix: str, end: str
) -> list[tuple[str, str, str]]:
    """Return of each key with a prefix the unit and the name in it."""
    own = [(key, key.removeprefix(prefix)) for key in keys if key.startswith(prefix)]
    if not end:
        return [(key, "1", rest) for key, rest in own]
    parts = [(key, *rest.partition(end)) for key, rest in own]
    return [(key, unit, name) for key, unit, found, name in parts if found and name]


# The devices of a model mostly have the same keys.
_remembered = lru_cache(maxsize=16)(_split_keys)


def _reports(
    values: Mapping[str, object], packs: Packs, left_out: Counter[str]
) -> dict[str, dict[str, object]]:
    """Return the report of each pack, by what tells it apart."""
    reports: dict[str, dict[str, object]] = {}
    prefix, end, _ = packs
    for pack, name, value in _split(values, prefix, end):
        reports.setdefault(pack, {})[name] = value
    # A number or a serial, fit to be a label.
    plain = [pack for pack in sorted(reports) if is_serial(pack)][:MOST_PACKS]
    if len(plain) < len(reports):
        left_out["odd_pack"] += len(reports) - len(plain)
    return {pack: reports[pack] for pack in plain}


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
