"""What a metric's name means: metrics.tsv."""

from __future__ import annotations

from functools import cache

from ecoflow_push.devices.tables import (
    FOLDER,
    TableError,
    check_cells,
    lines,
    number,
)


class Metric:
    """What a name means; a value outside `low` to `high`, in `unit`, is impossible."""

    __slots__ = ("help", "high", "low", "unit")

    def __init__(self, unit: str, low: float, high: float, help: str) -> None:  # noqa: A002 - Prometheus calls it so
        self.unit = unit
        self.low = low
        self.high = high
        self.help = help


def metrics(folder: str = FOLDER) -> dict[str, Metric]:
    """Return the metrics by name, without the prefix; raises TableError."""
    return _metrics(folder)


# With a default of its own it would remember `()` and `(FOLDER)` apart.
@cache
def _metrics(folder: str) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for place, cells in lines(folder, "metrics.tsv"):
        check_cells(place, cells, 5)
        name, unit, low, high, text = cells
        if name in found:
            raise TableError(place, f"{name} stands here twice")
        found[name] = Metric(unit, number(place, low), number(place, high), text)
    return found
