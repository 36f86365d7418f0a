"""How the devices of a family are read: families/*.tsv, each read when it is met.

A line is a row (metric, keys, unit, what means "none", certainty, source), or one of
    include     blocks (files here that begin with `_`), whose rows stand in its place
    packs       what the keys of a unit begin with, what ends its name, a block
    modules     what keys begin with in front of a module's serial
    firmware    keys of the version, the first one first
    only_if     conditions, and the metrics and keys whose rows they are tied to
    hours       what keys of a day's hours begin with, kind=flow, certainty, source
A block holds rows only. Keys are one blank apart and added; `-key` is taken away.

A condition is one or more of `key=1`, `key!=2` and plain `key` (is not 0), one blank
apart, of which one must be true; several conditions, `; ` apart, must all hold. A key
that is absent says nothing, and where all are, the rows count. `battery_*` is every
metric that begins so.

What means "none" is on many models the same
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
_PARTS = {"0.5 ": 2, "0.1 ": 10, "0.01 ": 100}
_CERTAINTIES = ("A", "B", "C")
# The lines that are no rows, and how many cells they have.
_WORDS = {"include": 2, "packs": 4, "modules": 2, "firmware": 2, "only_if": 3}
_WORDS["hours"] = 5

# Key, "=" or "!=", and the number it is compared with.
Test = tuple[str, str, float]
# Each inner one holds where one of its tests is true, or none of its keys is there.
Conditions = tuple[tuple[Test, ...], ...]


class Row:
    """Keys whose values, added, times `times` and by `over`, are a metric.

    All keys must be there. Those of `minus`, with a `-` in the table, are taken away. A
    value of `sentinels` means "none"; one outside `low` to `high`, the metric's own, is
    impossible. `certainty` is A where several independent sources agree, B for one good
    source, C for one claim that no recorded value contradicts. The row counts only
    where all of `only_if` hold.
    """

    __slots__ = (
        *("metric", "keys", "times", "over", "sentinels", "low", "high"),
        *("certainty", "source", "only_if", "minus"),
    )

    def __init__(self, place: str, cells: list[str], folder: str) -> None:
        check_cells(place, cells, 6)
        self.only_if: Conditions = ()
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
        signed = keys.split(" ")
        self.keys = tuple(signed)
        self.minus: tuple[str, ...] = ()
        if "-" in keys:
            self.keys = tuple([key.removeprefix("-") for key in signed])
            self.minus = tuple([key[1:] for key in signed if key[:1] == "-"])
        self.sentinels: frozenset[float] = frozenset()
        if none:
            self.sentinels = frozenset([number(place, text) for text in none.split()])
        if "" in self.keys or not self.source:
            raise TableError(place, "a row needs keys, one blank apart, and a source")
        if self.certainty not in _CERTAINTIES:
            raise TableError(place, f"{self.certainty!r} is not A, B or C")

    def tied(self, conditions: Conditions) -> Row:
        """Return this row, tied to further conditions."""
        row = Row.__new__(Row)
        for name in Row.__slots__:
            setattr(row, name, getattr(self, name))
        row.only_if += conditions
        return row


# Rows of units whose keys are the prefix, the unit's name, the end, and the row's.
# Without an end there is but one unit, which the keys do not name: it is "1".
Packs = tuple[str, str, tuple[Row, ...]]


class Hours:
    """Records of a day's hours: `kinds` are the flows of energy by their number."""

    __slots__ = ("certainty", "kinds", "prefix", "source")

    def __init__(self, place: str, cells: list[str]) -> None:
        _, self.prefix, kinds, self.certainty, self.source = cells
        pairs = [kind.partition("=") for kind in kinds.split(" ")]
        self.kinds = {kind: flow for kind, _, flow in pairs}
        if len(self.kinds) != len(pairs) or not all(self.kinds.values()):
            raise TableError(place, "hours need kinds as 1=solar, one blank apart")
        if self.certainty not in _CERTAINTIES or not self.source:
            raise TableError(place, "hours need A, B or C and a source")


class Family:
    """Devices that are read alike; of several rows of a metric the first valid wins.

    `modules` are prefixes in front of a module's serial, which is left out of the key
    where there is one such module. `firmware` are keys of the version, the first one
    first.
    """

    __slots__ = ("firmware", "hours", "modules", "name", "packs", "rows")

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: tuple[Row, ...] = ()
        self.packs: tuple[Packs, ...] = ()
        self.modules: tuple[str, ...] = ()
        self.firmware: tuple[str, ...] = ()
        self.hours: Hours | None = None


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
    ties: list[tuple[str, Conditions, list[str]]] = []
    try:
        for at, cells in lines(folder, file):
            word = cells[0]
            if word not in _WORDS:
                rows.append(Row(at, cells, folder))
                continue
            check_cells(at, cells, _WORDS[word])
            if word == "include":
                for block in cells[1].split(" "):
                    rows += _block(folder, block, at)
            elif word == "only_if":
                ties.append((at, _conditions(at, cells[1]), cells[2].split(" ")))
            else:
                _set(family, at, cells, folder)
    except FileNotFoundError:
        raise TableError(place, f"there is no {file}") from None
    for at, conditions, names in ties:
        rows = _tied(at, rows, conditions, names)
    family.rows = tuple(rows)
    return family


def _set(family: Family, place: str, cells: list[str], folder: str) -> None:
    if cells[0] == "packs":
        _, prefix, end, block = cells
        family.packs += ((prefix, end, _block(folder, block, place)),)
    elif cells[0] == "hours":
        family.hours = Hours(place, cells)
    else:
        setattr(family, cells[0], tuple(cells[1].split(" ")))


def _conditions(place: str, text: str) -> Conditions:
    """Return the conditions of a cell; raises TableError."""
    return tuple(
        tuple(_test(place, test) for test in tests.split(" "))
        for tests in text.split("; ")
    )


def _test(place: str, text: str) -> Test:
    key, how, wanted = text.partition("!=")
    if not how:
        key, how, wanted = text.partition("=")
    if not key:
        raise TableError(place, "a condition needs keys, one blank apart")
    return (key, how, number(place, wanted)) if how else (key, "!=", 0.0)


def _tied(
    place: str, rows: list[Row], conditions: Conditions, names: list[str]
) -> list[Row]:
    """Return the rows, those of the named metrics and keys tied to the conditions."""
    found = set()
    tied = []
    for row in rows:
        own = {name for name in names if _is_of(row, name)}
        found |= own
        tied.append(row.tied(conditions) if own else row)
    for name in names:
        if name not in found:
            raise TableError(place, f"{name!r} is neither metric nor key of a row")
    return tied


def _is_of(row: Row, name: str) -> bool:
    if name.endswith("*"):
        return row.metric.startswith(name[:-1])
    return name == row.metric or name in row.keys


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
