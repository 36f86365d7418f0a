"""Every family, spoilt in every way its table knows: no value is made up.

A map with all the keys of a family is changed in one place, or in several: a key that
goes, a value that means "none", one that cannot be, a condition that fails. Whatever is
said then must be said by keys of this very map. The judge reads the tables by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecoflow_push.devices.families import Family, Row
from ecoflow_push.devices.metrics import metrics
from ecoflow_push.devices.normalized import (
    NormalizedSample,
    family_of,
    normalized_samples,
)
from ecoflow_push.devices.tables import FOLDER
from tests.normalized_page import families
from tests.recordings import of_recordings, recordings, serial_of
from tests.test_devices import data_lines
from tests.test_normalized import GOLDEN, named

FAMILIES = {family.name: family for family in families()}
GONE = object()
Change = dict[str, Any]


def read(family: Family, quotas: Mapping[str, object]) -> list[NormalizedSample]:
    return normalized_samples(quotas, "", "", "ecoflow", family)[0]


# The judge


@cache
def ties_of(name: str) -> list[tuple[list[list[str]], list[str]]]:
    """Return the conditions of a family, by their words, and what they are tied to."""
    path = Path(FOLDER, "families", name.lower().replace(" ", "_") + ".tsv")
    lines = [line.split("\t") for line in data_lines(path)]
    return [
        ([tests.split(" ") for tests in line[1].split("; ")], line[2].split(" "))
        for line in lines
        if line[0] == "only_if"
    ]


def parts(test: str) -> tuple[str, bool, float]:
    """Return the key of a test, whether it must be equal, and to what."""
    key, _, wanted = test.partition("=")
    return key.rstrip("!"), "=" in test and "!" not in test, float(wanted or 0)


def is_true(test: str, quotas: Mapping[str, object]) -> bool | None:
    key, equal, wanted = parts(test)
    value = quotas.get(key)
    return None if value is None else (value == wanted) is equal


def conditions_of(family: Family, row: Row) -> list[list[str]]:
    return [
        tests
        for conditions, names in ties_of(family.name)
        if any(fnmatchcase(row.metric, n) or n in row.keys for n in names)
        for tests in conditions
    ]


def holds(tests: list[str], quotas: Mapping[str, object]) -> bool:
    truths = {is_true(test, quotas) for test in tests}
    return True in truths or truths == {None}


def value_by(row: Row, report: Mapping[str, object]) -> float | None:
    """Return what a row says of a report, None if it says nothing."""
    total = 0.0
    metric = metrics()[row.metric]
    for key in row.keys:
        value = report.get(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return None
        part = value * row.times / row.over
        if value in row.sentinels or not metric.low <= part <= metric.high:
            return None
        total += -part if key in row.minus else part
    return total if metric.low <= total <= metric.high else None


def said_by_keys(
    family: Family, quotas: Mapping[str, object]
) -> dict[str, set[float | None]]:
    """Return by metric, and pack, each value that some row that counts gives."""
    found: dict[str, set[float | None]] = {}
    for row in family.rows:
        if all(holds(tests, quotas) for tests in conditions_of(family, row)):
            found.setdefault(row.metric, set()).add(value_by(row, quotas))
    for prefix, end, rows in family.packs:
        start = prefix + (f"1{end}" if end else "")
        report = {
            key.removeprefix(start): value
            for key, value in quotas.items()
            if key.startswith(start)
        }
        for row in rows:
            values = found.setdefault(f"{row.metric} pack=1", set())
            values.add(value_by(row, report))
    return found


def assert_honest(family: Family, quotas: Mapping[str, object]) -> dict[str, float]:
    got = named(read(family, quotas))
    said = said_by_keys(family, quotas)
    for name, value in got.items():
        assert value in said.get(name, ()), name
    return got


# The maps


def fitting(row: Row, place: int) -> float:
    """Return a value in the unit of the device, its own for each place of a key."""
    metric = metrics()[row.metric]
    high = min(metric.high, 90.0) / len(row.keys)
    low = max(metric.low, 0.0)
    base = low + (high - low) * (0.3 + place % 37 / 100)
    return base * row.over / row.times


@cache
def whole(family: Family) -> dict[str, Any]:
    """Return a map with every key of the family, with values that may be."""
    quotas: dict[str, Any] = {}
    for prefix, end, rows in (("", "", family.rows), *family.packs):
        start = f"{prefix}1{end}" if end else prefix
        for row in rows:
            for key in row.keys:
                quotas.setdefault(start + key, fitting(row, len(quotas)))
    for conditions, _ in ties_of(family.name):
        for tests in conditions:
            for key, equal, wanted in map(parts, tests):
                if equal:
                    quotas[key] = wanted
                else:
                    quotas.setdefault(key, wanted + 1)
    return quotas


def changes(family: Family) -> Iterator[Change]:
    """Yield whatever may go wrong with one fact of the family."""
    for prefix, end, rows in (("", "", family.rows), *family.packs):
        start = f"{prefix}1{end}" if end else prefix
        for row in rows:
            metric = metrics()[row.metric]
            odd: list[Any] = [GONE, None, "7", True, [1], float("nan"), 10**400]
            odd += row.sentinels
            odd += [
                beyond * row.over / row.times
                for beyond in (metric.low - 1, metric.high + 1, metric.high * 3 + 1)
            ]
            for key in row.keys:
                yield from ({start + key: value} for value in odd)
    for conditions, _ in ties_of(family.name):
        for tests in conditions:
            yield {
                key: wanted + 1 if equal else wanted
                for key, equal, wanted in map(parts, tests)
            }
            for key, _, wanted in map(parts, tests):
                yield from ({key: value} for value in (GONE, 0, wanted + 1, wanted))


def changed(quotas: Mapping[str, Any], *several: Change) -> dict[str, Any]:
    found = dict(quotas)
    for change in several:
        found |= change
    return {key: value for key, value in found.items() if value is not GONE}


def is_huge(change: Change) -> bool:
    return any(type(v) is int and v > 10**300 for v in change.values())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_whole_map_says_everything(name):
    """With every key there each metric of the family has the value of its first row."""
    family = FAMILIES[name]

    got = assert_honest(family, whole(family))

    expected = {row.metric: row for row in reversed(family.rows)}
    assert {m for m in got if " " not in m} == expected.keys()
    assert any("pack=" in metric for metric in got) == bool(family.packs)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_change_makes_a_value_up(name):
    """Each change by itself leaves only values that a key of this map says."""
    family = FAMILIES[name]
    count = 0
    for change in changes(family):
        if is_huge(change):
            read(family, changed(whole(family), change))
        else:
            assert_honest(family, changed(whole(family), change))
        count += 1
    assert count


@pytest.mark.drill("fuzz")
@given(st.data())
def test_no_changes_together_make_a_value_up(data):
    """Several changes at once do not either, nor do they on a map of few keys."""
    family = data.draw(st.sampled_from(list(FAMILIES.values())))
    listed = [change for change in changes(family) if not is_huge(change)]
    several = data.draw(st.lists(st.sampled_from(listed), max_size=6))
    quotas = whole(family)
    kept = data.draw(st.sets(st.sampled_from(sorted(quotas))))
    few = {key: quotas[key] for key in kept}

    assert_honest(family, changed(quotas, *several))
    assert_honest(family, changed(few, *several))


@pytest.mark.parametrize("name", [name for name in FAMILIES if ties_of(name)])
def test_a_condition_that_fails_silences_what_is_tied_to_it(name):
    """Of the rows of a condition that fails none gives a value, of the others all."""
    family = FAMILIES[name]
    before = named(read(family, whole(family)))
    for conditions, _ in ties_of(name):
        for tests in conditions:
            failing = {
                key: wanted + 1 if equal else wanted
                for key, equal, wanted in map(parts, tests)
            }
            quotas = changed(whole(family), failing)
            rows = [
                row
                for row in family.rows
                if all(holds(each, quotas) for each in conditions_of(family, row))
            ]
            assert len(rows) < len(family.rows)

            got = assert_honest(family, quotas)

            free = {row.metric for row in rows if not set(row.keys) & set(failing)}
            assert free <= got.keys()
            silent = before.keys() - {row.metric for row in rows}
            assert not {metric for metric in silent if " " not in metric} & got.keys()


@pytest.mark.parametrize("model", GOLDEN)
def test_the_golden_maps_spoilt(model):
    """A golden map of which any one fact goes wrong says nothing that it has not."""
    golden = GOLDEN[model]
    family = family_of(golden["sn"], golden["product"], golden["quotas"])
    flat = {k: v for k, v in golden["quotas"].items() if not isinstance(v, dict)}
    if flat == golden["quotas"]:
        for change in changes(family):
            if not is_huge(change) and not family.modules:
                assert_honest_but_for_lists(family, changed(flat, change))


def assert_honest_but_for_lists(family: Family, quotas: Mapping[str, Any]) -> None:
    said = said_by_keys(family, quotas)
    for name, value in named(read(family, quotas)).items():
        if not name.endswith("_total") and "pack=" not in name:
            assert value in said.get(name, ()), name


# Recorded payloads


@pytest.mark.recorded
def test_recorded_maps_whose_conditions_fail():
    """No recorded map gives a value of a part that is made to be absent in it."""
    count = 0
    for model, maps in recordings().items():
        for quotas in maps.values():
            family = family_of(serial_of(model), model, quotas)
            for conditions, _ in ties_of(family.name):
                for tests in conditions:
                    failing = {
                        key: wanted + 1 if equal else wanted
                        for key, equal, wanted in map(parts, tests)
                    }
                    got = named(read(family, quotas | failing))
                    tied = {
                        row.metric
                        for row in family.rows
                        if tests in conditions_of(family, row)
                    } - {
                        row.metric
                        for row in family.rows
                        if tests not in conditions_of(family, row)
                    }
                    assert not tied & got.keys(), model
                    count += 1
    assert count > 20


# What a peer keeps of several reports, 2.4 % apart, and frames of several days as one
# map: test_normalized_recorded.py has each frame of those by itself.
UNEVEN = {
    "powerocean/poweroceanplus-decoded.json",
    "stream5000/es21-pv-frames.hex",
    "stream5000/es22-push-frames.hex",
}


@pytest.mark.recorded
def test_recorded_powers_balance():
    """Sun and grid give what home and battery take, within 2 % where all four are."""
    count = 0
    for model, file, got in of_recordings():
        values = named(got)
        flows = [
            values[f"{part}_power_watts"]
            for part in ("solar_input", "grid", "home", "battery")
            if f"{part}_power_watts" in values
        ]
        if len(flows) == 4:
            sun, grid, home, battery = flows
            most = max(map(abs, flows))
            apart = abs(sun + grid - home - battery)
            assert (apart <= 0.02 * most + 3) == (file not in UNEVEN), (model, file)
            count += 1
    assert count > 5
