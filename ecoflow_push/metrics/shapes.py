"""Quota maps to samples by a plan: what is worked out once for all maps of one shape.

The devices of a model, and the snapshots of one device, differ in little but numbers.
The shape of a map is all else of it: its keys, the kind of each value, what lies in
which list. Equal shapes have equal names, labels and order, so the second map of a
shape makes a plan, and from then on only the numbers are read.

`raw_samples` is the rule, and what is odd goes by it alone; a plan is what it says of a
map whose numbers are their own places.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ecoflow_push.metrics.names import LONGEST_KEY, raw_samples
from ecoflow_push.metrics.own import RESERVED_NAMES
from ecoflow_push.metrics.registry import part_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ecoflow_push.metrics.frame import Frame, Part

# How many values a map may have, and all that there are plans for: some 10 MB of them.
MOST_VALUES = 5_000
MOST_PLANNED = 32_768
# So many maps without a plan while there is room for none: others have come in.
MOST_MISSED = 1_024

_NUMBER, _DICT, _LIST = 0, 3, 4
_KINDS = {int: 0, float: 0, bool: 0, str: 1, type(None): 2, dict: _DICT, list: _LIST}

_Shape = tuple[object, ...]


class _Plan:
    """What becomes of a shape: its samples' frame, and where in a map the numbers are.

    Those of the samples come first.
    """

    __slots__ = ("frame", "numbers", "skipped")

    def __init__(
        self, frame: Frame, places: Sequence[int], skipped: Counter[str]
    ) -> None:
        self.frame = frame
        self.skipped = skipped
        #: Of one place itemgetter returns no tuple.
        self.numbers: Callable[[Sequence[object]], Sequence[object]] = (
            itemgetter(*places)
            if len(places) > 1
            else lambda values: [values[place] for place in places]
        )


class Shapes:
    """Plans by shape, a bounded number."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._plans: dict[_Shape, _Plan | None] = {}
        #: Hashes: at worst a plan is made for a map that comes but once.
        self._seen: set[int] = set()
        self._planned = self._missed = 0

    def part(
        self, quotas: Mapping[str, object], prefix: str, naming: str
    ) -> tuple[Part, Counter[str]]:
        """Return the samples of a map, and a count of what was skipped."""
        flat = _flat(quotas, (prefix, naming))
        if flat:
            shape, values = flat
            plan = self._plans.get(shape)
            if plan is None and self._is_due(shape, len(values)):
                plan = self._plans[shape] = _plan(quotas, prefix, naming)
            if plan and (numbers := _finite(plan.numbers(values))) is not None:
                said = numbers[: len(plan.frame.names)]
                return (plan.frame, said), plan.skipped.copy()
        samples, skipped = raw_samples(quotas, prefix, RESERVED_NAMES, naming)
        return part_of(samples, prefix), skipped

    def _is_due(self, shape: _Shape, size: int) -> bool:
        """Return whether a shape without a plan was seen before, and has room."""
        if shape in self._plans or _is_long(shape):
            return False
        if self._planned + size > MOST_PLANNED or len(self._seen) >= MOST_MISSED:
            self._missed += 1
            if self._missed >= MOST_MISSED:
                self._forget()
            return False
        seen = hash(shape)
        is_due = seen in self._seen
        self._seen.add(seen)
        self._planned += size * is_due
        return is_due


#: Of the whole process: the next beat's devices have the shapes of this one's.
SHAPES = Shapes()


def _flat(
    quotas: Mapping[str, object], beside: tuple[str, str]
) -> tuple[_Shape, list[object]] | None:
    """Return the shape of a map and all its values, level by level; None if it is odd.

    Neither depends on a number, but what is no number, text or container is odd.
    """
    shape: list[object] = [*beside]
    values: list[object] = []
    containers: list[Any] = [quotas]
    try:
        # It grows as it goes.
        for each in containers:
            if isinstance(each, dict):
                inner = list(each.values())
                shape.append(tuple(each))
            else:
                inner = each
            kinds = bytes(map(_KINDS.__getitem__, map(type, inner)))
            shape.append(kinds)
            values += inner
            if len(values) > MOST_VALUES:
                return None
            if _DICT in kinds or _LIST in kinds:
                containers += [x for x in inner if type(x) is dict or type(x) is list]
    except KeyError:
        return None
    return tuple(shape), values


def _is_long(shape: _Shape) -> bool:
    """Return whether a shape has a key that is no name: of such none is kept."""
    keys = [each for each in shape if isinstance(each, tuple)]
    return any(len(key) > LONGEST_KEY for each in keys for key in each)


def _finite(numbers: Sequence[object]) -> list[float] | None:
    """Return them as floats, None if one is not finite or has too many digits."""
    try:
        found = list(map(float, numbers))  # type: ignore[arg-type]
    except OverflowError:
        return None
    # Where the sum is finite all of them are.
    return found if math.isfinite(sum(found)) else None


def _plan(quotas: Mapping[str, object], prefix: str, naming: str) -> _Plan | None:
    """Return the plan of a map, None where its numbers decide what becomes of them."""
    there, back = (
        raw_samples(_places(quotas, sign), prefix, RESERVED_NAMES, naming)
        for sign in (1, -1)
    )
    samples, skipped = there
    if [(*s[:2], -s[2]) for s in samples] != back[0]:
        return None
    frame, found = part_of(samples, prefix)
    places = [int(place) - 1 for place in found]
    # Those that are skipped count, too: as what, depends on whether they are finite.
    _, values = _flat(quotas, (prefix, naming)) or ((), [])
    numbers = {n for n, value in enumerate(values) if _KINDS[type(value)] == _NUMBER}
    return _Plan(frame, [*places, *sorted(numbers.difference(places))], skipped)


def _places(quotas: Mapping[str, object], sign: int) -> dict[str, object]:
    """Return a copy of a map in which each number is its own place, from 1 on."""
    copy: dict[str, object] = {}
    count = 0
    containers: list[tuple[Any, Any]] = [(quotas, copy)]
    for each, into in containers:
        items = each.items() if isinstance(each, dict) else enumerate(each)
        for key, value in items:
            count += 1
            kind = _KINDS[type(value)]
            new = value
            if kind == _NUMBER:
                new = float(sign * count)
            elif kind in (_DICT, _LIST):
                new = {} if kind == _DICT else [None] * len(value)
                containers.append((value, new))
            into[key] = new
    return copy
