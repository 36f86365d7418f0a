"""Quota maps to named samples; pure.

pd.soc                         ecoflow_pd_soc
pd.chgPowerAC                  ecoflow_pd_chg_power_ac
bms_kitInfo.watts[0].f32Soc    ecoflow_bms_kit_info_watts_f32_soc{index_0="0"}
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

# Why a value of a quota map became no sample; the label `reason` of the metric.
SKIP_REASONS = (
    "string",
    "null",
    "empty",
    "non_finite",
    "collision",
    "reserved",
    "no_name",
    "too_deep",
    "too_many",
)
# The deepest recorded payload has 5 levels, the widest 2,700 values.
MOST_LEVELS = 32
MOST_SAMPLES = 10_000


_SEPARATORS = re.compile(r"[.\[\]_]+")
# Before a capital that follows a small letter or digit, or that starts a word.
_BOUNDARY = re.compile(r"(?<=[a-z\d])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_FOREIGN = re.compile(r"[^a-z0-9_]")


class RawSample(NamedTuple):
    """One number of a quota map; `indices` are its places in opened lists."""

    name: str
    indices: tuple[int, ...]
    value: float


class _Leaf(NamedTuple):
    key: str
    indices: tuple[int, ...]
    value: object
    level: int


@lru_cache(maxsize=16_384)
def metric_name(key: str) -> str:
    """Return the name of a quota key without its prefix, empty if nothing is left.

    The spelling is that of `inflection.underscore`, which existing dashboards for
    EcoFlow rely on (ecoflow-protocol.md 6.1).
    """
    name = _BOUNDARY.sub("_", _SEPARATORS.sub("_", key).strip("_")).lower()
    return _FOREIGN.sub("_", name)


def raw_samples(
    quotas: Mapping[str, object], prefix: str, reserved: frozenset[str]
) -> tuple[list[RawSample], Counter[str]]:
    """Return the samples of a quota map, sorted, and a count of what was skipped.

    Where two keys meet in one name and index, the one given flatter wins (a recorded
    map may hold a parent and its flattened children: ecoflow-protocol.md 1.8), then
    the one that sorts first, so that the order of a map decides nothing.
    """
    skipped: Counter[str] = Counter()
    winners: dict[tuple[str, tuple[int, ...]], tuple[int, str, float]] = {}
    for leaf in _leaves(quotas):
        value = leaf.value
        if isinstance(value, (bool, int, float)):
            number = _finite(value)
            name = metric_name(leaf.key)
            if number is None:
                skipped["non_finite"] += 1
            elif not name:
                skipped["no_name"] += 1
            elif name in reserved or name.startswith("push_"):
                skipped["reserved"] += 1
            else:
                place = (name, leaf.indices)
                candidate = (leaf.level, leaf.key, number)
                rival = winners.get(place)
                if rival is None:
                    winners[place] = candidate
                else:
                    skipped["collision"] += 1
                    winners[place] = min(rival, candidate)
        elif isinstance(value, str):
            skipped["string"] += 1
        elif value is None:
            skipped["null"] += 1
        else:
            skipped["too_deep" if value else "empty"] += 1
    places = sorted(winners)
    if len(places) > MOST_SAMPLES:
        skipped["too_many"] += len(places) - MOST_SAMPLES
        del places[MOST_SAMPLES:]
    return [
        RawSample(f"{prefix}_{name}", indices, winners[name, indices][2])
        for name, indices in places
    ], skipped


def _leaves(quotas: Mapping[str, object]) -> Iterator[_Leaf]:
    """Yield everything that cannot be opened further."""
    stack = [_leaf("", key, (), value, 0) for key, value in quotas.items()]
    while stack:
        leaf = stack.pop()
        key, indices, value, level = leaf
        if not value or level == MOST_LEVELS or not isinstance(value, (dict, list)):
            yield leaf
        elif isinstance(value, dict):
            stack += [
                _leaf(key, name, indices, v, level + 1) for name, v in value.items()
            ]
        else:
            stack += [
                _Leaf(key, (*indices, i), v, level + 1) for i, v in enumerate(value)
            ]


def _leaf(
    parent: str, name: str, indices: tuple[int, ...], value: object, level: int
) -> _Leaf:
    """Return the leaf `parent.name`; a written `[n]` is an index like a list's."""
    if "[" in name:
        indices += tuple(int(n) for n in re.findall(r"\[(\d{1,9})\]", name))
        name = re.sub(r"\[\d{1,9}\]", "", name)
    return _Leaf(f"{parent}.{name}" if parent else name, indices, value, level)


def _finite(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
