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
from itertools import accumulate, islice, pairwise, takewhile

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
    "too_long",
    "too_many",
)
# The deepest recorded payload has 5 levels, the widest 2,700 values, the longest key 70
# letters. What is far beyond comes from no device, and must not cost much.
MOST_LEVELS = 32
MOST_SAMPLES = 5_000
# Of all the names of a device together: each stands three times in a text. Dearer are
# a name that is new, as a metric of its own, and a place in a list, as labels of its
# own. The most that was recorded is 440,000.
MOST_LETTERS = 510_000
PLACE_LETTERS = 80
MOST_LEAVES = 100_000
LONGEST_KEY = 200


# Whose spelling: EcoFlow's keys as `inflection.underscore` writes them, or as
# berezhinskiy/ecoflow_exporter does: an underscore before every capital.
NAMINGS = ("ecoflow", "berezhinskiy")

_SEPARATORS = re.compile(r"[.\[\]_]+")
# Before a capital that follows a small letter or digit, or that starts a word; before
# any.
_BOUNDARIES = (
    r"(?<=[a-z\d])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])",
    r"(?<=[^_])(?=[A-Z])",
)
_FOREIGN = re.compile(r"[^a-z0-9_]")


# Name, places in opened lists, and value; key, places, value and level. Classes with
# these names would cost a run more than all that it does with them.
RawSample = tuple[str, tuple[int, ...], float]
_Leaf = tuple[str, tuple[int, ...], object, int]


@lru_cache(maxsize=16_384)
def metric_name(key: str, naming: str = NAMINGS[0]) -> str:
    """Return the name of a quota key without its prefix, empty if nothing is left.

    Existing dashboards for EcoFlow rely on one of two spellings, which differ on runs
    of capitals: pd_chg_power_ac, pd_chg_power_a_c (protocol/names.md#spellings).
    """
    name = _boundary(naming).sub("_", _SEPARATORS.sub("_", key).strip("_")).lower()
    return _FOREIGN.sub("_", name)


@lru_cache(maxsize=2)
def _boundary(naming: str) -> re.Pattern[str]:
    # A run needs one of them, and they take time to compile.
    return re.compile(_BOUNDARIES[NAMINGS.index(naming)])


def raw_samples(
    quotas: Mapping[str, object],
    prefix: str,
    reserved: frozenset[str],
    naming: str = NAMINGS[0],
) -> tuple[list[RawSample], Counter[str]]:
    """Return the samples of a quota map, sorted, and a count of what was skipped.

    Where two keys meet in one name and index, the one given flatter wins (a recorded
    map may hold a parent and its flattened children: protocol/rest.md#shapes), then
    the one that sorts first, so that the order of a map decides nothing.
    """
    skipped: Counter[str] = Counter()
    winners: dict[tuple[str, tuple[int, ...]], tuple[int, str, float]] = {}
    leaves = _leaves(quotas)
    for key, indices, value, level in islice(leaves, MOST_LEAVES):
        name = metric_name(key, naming) if len(key) <= LONGEST_KEY else ""
        reason = _reason(key, value, name, reserved)
        if reason:
            skipped[reason] += 1
            continue
        candidate = (level, key, _number(value))
        rival = winners.setdefault((name, indices), candidate)
        if rival is not candidate:
            skipped["collision"] += 1
            winners[name, indices] = min(rival, candidate)
    places = sorted(winners)
    most = _most(places)
    skipped["too_many"] += sum(1 for _ in leaves) + len(places[most:])
    samples = [
        (f"{prefix}_{name}", indices, winners[name, indices][2])
        for name, indices in places[:most]
    ]
    return samples, +skipped


def _most(places: list[tuple[str, tuple[int, ...]]]) -> int:
    """Return how many of these places may be said, the first of them."""
    if len(places) <= MOST_LETTERS // (LONGEST_KEY + 2 * PLACE_LETTERS):
        return len(places)
    letters = accumulate(
        len(name) + PLACE_LETTERS * (len(indices) + (name != before))
        for (before, _), (name, indices) in pairwise([("", ()), *places])
    )
    return min(MOST_SAMPLES, sum(1 for _ in takewhile(MOST_LETTERS.__ge__, letters)))


def _reason(key: str, value: object, name: str, reserved: frozenset[str]) -> str:
    """Return why a leaf becomes no sample, empty if it does."""
    if len(key) > LONGEST_KEY:
        return "too_long"
    if isinstance(value, str):
        return "string"
    if value is None:
        return "null"
    if isinstance(value, (dict, list)):
        return "too_deep" if value else "empty"
    if not math.isfinite(_number(value)):
        return "non_finite"
    is_reserved = name in reserved or name.startswith("push_")
    return "reserved" if is_reserved else "" if name else "no_name"


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # JSON has no other kinds left
    except OverflowError:
        return math.inf


def _leaves(quotas: Mapping[str, object]) -> Iterator[_Leaf]:
    """Yield everything that cannot be opened further, or is too far out to be."""
    stack = [_leaf("", key, (), value, 0) for key, value in quotas.items()]
    while stack:
        leaf = stack.pop()
        key, indices, value, level = leaf
        is_open = level < MOST_LEVELS and len(key) <= LONGEST_KEY
        if value and isinstance(value, dict) and is_open:
            stack += [
                _leaf(key, name, indices, inner, level + 1)
                for name, inner in value.items()
            ]
        elif value and isinstance(value, list) and is_open:
            stack += [
                (key, (*indices, place), inner, level + 1)
                for place, inner in enumerate(value)
            ]
        else:
            yield leaf


def _leaf(
    parent: str, name: str, indices: tuple[int, ...], value: object, level: int
) -> _Leaf:
    """Return the leaf `parent.name`; a written `[n]` is an index like a list's."""
    if len(name) > LONGEST_KEY:
        return name, indices, value, level
    if "[" in name:
        indices += tuple(int(n) for n in re.findall(r"\[(\d{1,9})\]", name))
        name = re.sub(r"\[\d{1,9}\]", "", name)
    return f"{parent}.{name}" if parent else name, indices, value, level
