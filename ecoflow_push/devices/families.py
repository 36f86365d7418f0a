"""How the devices of a family are read: families/*.tsv, each read when it is met.

A line is a row (metric, keys, unit, what means "none", certainty, source), or one of
    include     blocks (files here that begin with `_`), whose rows stand in its place
    packs       what the keys of a unit begin with, what ends its name, a block
    modules     what keys begin with in front of a module's serial
    firmware    keys of the version, the first one first
    battery_if  keys that are 0 where there is no battery
A block holds rows only. What means "none" is on many models the same
(protocol/values.md#sentinels): 5939, 5999 or 143999 minutes where there is no such
time, 4294967295 for what is not set, -127 degrees without a sensor.
"""

from __future__ import annotations

import os
from functools import cache

from ecoflow_push.devices.metrics import metrics
from ecoflow_push.devices.products import products
from ecoflow_push.devices.tables import FOLDER, TableError, check_cells, lines, number

# What is measured, and what makes the base unit of it: times, over.
_UNITS = {
    "%": ("ratio", 1, 100),
    "V": ("volts", 1, 1),
    "mV": ("volts", 1, 1000),
    "A": ("amperes", 1, 1),
    "mA": ("amperes", 1, 1000),
    "W": ("watts", 1, 1),
    "°C": ("celsius", 1, 1),
    "min": ("seconds", 60, 1),
    "cycles": ("1", 1, 1),
    "mAh": ("ampere hours", 1, 1000),
    "Wh": ("watt hours", 1, 1),
}
_PARTS = {"0.1 ": 10, "0.01 ": 100}
_CERTAINTIES = ("A", "B", "C")
# The lines that are no rows, and how many cells they have.
_WORDS = {"include": 2, "packs": 4, "modules": 2, "firmware": 2, "battery_if": 2}


class Row:
    """Keys whose values, added, times `times` and by `over`, are a metric.

    All keys must be there. A value of `sentinels` means "none"; one outside `low` to
    `high`, the metric's own, is impossible. `certainty` is A where several independent
    sources agree, B for one good source, C for one claim that no recorded value
    contradicts.
    """

    __slots__ = (
        *("metric", "keys", "times", "over", "sentinels", "low", "high"),
        *("certainty", "source"),
    )

    def __init__(self, place: str, cells: list[str], folder: str) -> None:
        check_cells(place, cells, 6)
        self.metric, keys, unit, none, self.certainty, self.source = cells
        metric = metrics(folder).get(self.metric)
        if metric is None:
            raise TableError(place, f"{self.metric!r} is not in metrics.tsv")
        scale = _scale(unit)
        if scale is None:
            raise TableError(place, f"{unit!r} is no known unit")
        quantity, self.times, self.over = scale
        if quantity != metric.unit:
            raise TableError(place, f"{unit} is no unit of {metric.unit}")
        self.low, self.high = metric.low, metric.high
        self.keys = tuple(keys.split(" ")) if keys else ()
        self.sentinels = frozenset([number(place, text) for text in none.split()])
        if not all(self.keys or [""]) or not self.source:
            raise TableError(place, "a row needs keys, one blank apart, and a source")
        if self.certainty not in _CERTAINTIES:
            raise TableError(place, f"{self.certainty!r} is not A, B or C")


# Rows of units whose keys are the prefix, the unit's name, the end, and the row's.
# Without an end there is but one unit, which the keys do not name: it is "1".
Packs = tuple[str, str, tuple[Row, ...]]


class Family:
    """Devices that are read alike; of several rows of a metric the first valid wins.

    `modules` are prefixes in front of a module's serial, which is left out of the key
    where there is one such module. `firmware` are keys of the version, the first one
    first. Where a key of `battery_if` is 0 there is no battery, and its numbers are
    made up.
    """

    __slots__ = ("battery_if", "firmware", "modules", "name", "packs", "rows")

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: tuple[Row, ...] = ()
        self.packs: tuple[Packs, ...] = ()
        self.modules: tuple[str, ...] = ()
        self.firmware: tuple[str, ...] = ()
        self.battery_if: tuple[str, ...] = ()


UNKNOWN = Family("unknown")


def family_named(name: str, folder: str = FOLDER) -> Family | None:
    """Return the family of that name, None if no line of products.tsv speaks of it.

    Raises TableError for a wrong line of its files.
    """
    return _family(name, folder)


@cache
def _family(name: str, folder: str) -> Family | None:
    place = products(folder).families.get(name)
    if place is None:
        return None
    file = _file(name.lower().replace(" ", "_"))
    family = Family(name)
    rows: list[Row] = []
    try:
        for at, cells in lines(folder, file):
            if cells[0] in _WORDS:
                check_cells(at, cells, _WORDS[cells[0]])
            if cells[0] == "include":
                for block in cells[1].split(" "):
                    rows += _block(folder, block, at)
            elif cells[0] == "packs":
                _, prefix, end, block = cells
                family.packs += ((prefix, end, _block(folder, block, at)),)
            elif cells[0] in _WORDS:
                setattr(family, cells[0], tuple(cells[1].split(" ")))
            else:
                rows.append(Row(at, cells, folder))
    except FileNotFoundError:
        raise TableError(place, f"there is no {file}") from None
    family.rows = tuple(rows)
    return family


@cache
def _scale(unit: str) -> tuple[str, int, int] | None:
    """Return what a unit measures, and what makes the base unit of it; None if none."""
    plain = unit.removeprefix("-")
    sign = 1 if plain == unit else -1
    part = next((part for part in _PARTS if plain.startswith(part)), "")
    known = _UNITS.get(plain[len(part) :])
    if known is None:
        return None
    quantity, times, over = known
    return quantity, sign * times, over * _PARTS.get(part, 1)


def _block(folder: str, name: str, place: str) -> tuple[Row, ...]:
    """Return the rows of a block, of which `place` speaks."""
    if not name.startswith("_"):
        raise TableError(place, f"{name!r} does not begin with _, as a block does")
    try:
        return _rows(folder, name)
    except FileNotFoundError:
        raise TableError(place, f"there is no {_file(name)}") from None


@cache
def _rows(folder: str, name: str) -> tuple[Row, ...]:
    rows = []
    for at, cells in lines(folder, _file(name)):
        if cells[0] in _WORDS:
            raise TableError(at, f"a block holds rows only, and no {cells[0]}")
        rows.append(Row(at, cells, folder))
    return tuple(rows)


def _file(name: str) -> str:
    return os.path.join("families", f"{name}.tsv")
