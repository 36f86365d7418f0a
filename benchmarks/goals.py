"""What a run may cost at most: every goal, in one place.

    python -m benchmarks.goals

prints them as docs/internals/cost.md has them. `./dev count` judges what is counted, in
millions of instructions and MiB; `./dev bench` what is a ratio of times, and of fleets
what no ratio says.
"""

import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

COUNT, BENCH = "./dev count", "./dev bench"
FLEET = "python -m benchmarks.fleet"
SHARDS = "python -m benchmarks.shards"
#: What a goal in instructions may be more on a Python that is not the one it is for.
PYTHON, OTHERS = (3, 11), 1.15


class Goal(NamedTuple):
    """What `figure` may be at most, in `unit`, and what is better still (0: nothing).

    M is millions of instructions; x a multiple of what the figure names behind "/", %
    a hundredth of it.
    """

    number: str
    figure: str
    most: float
    unit: str
    judge: str = COUNT
    better: float = 0

    @property
    def limit(self) -> str:
        """The most, in words."""
        return f"{self.most:g} {self.unit}"


FURTHER = "each device above the first 100: CPU / three imports"
GOALS = (
    Goal("G1", "REST, 1 device", 420, "M"),
    Goal("G1", "REST, 1 device: CPU / three imports", 0.70, "x", BENCH),
    Goal("G1", "REST, 1 device: peak / three imports", 0.92, "x", BENCH),
    Goal("G2", "MQTT, cached login / three imports", 0.72, "x", better=0.70),
    Goal(
        "G2", "MQTT, cached login: CPU / three imports", 0.78, "x", BENCH, better=0.70
    ),
    Goal("G3", "REST, 10 devices", 600, "M"),
    Goal("G3", "REST, 10 devices: CPU / three imports", 0.90, "x", BENCH),
    Goal("G4", "each further device, to a text file", 8, "M"),
    Goal("G4", "each further device, to a gateway", 8, "M"),
    Goal("G4", "each further device, by remote-write", 8, "M"),
    Goal(
        "G4",
        "1,000 devices to a text file: CPU / JSON alone",
        6.5,
        "x",
        BENCH,
        better=5,
    ),
    Goal("G5", "1,000 devices to a text file: peak / three imports", 1.6, "x"),
    Goal("G5", "1,000 devices to a gateway: peak / three imports", 1.6, "x"),
    Goal("G5", "1,000 devices by remote-write: peak / three imports", 1.6, "x"),
    Goal("G5", "10,000 devices by remote-write: peak", 128, "MiB", BENCH),
    Goal("G6", "a beat of --every, 1 device", 30, "M"),
    Goal("G6", "a beat of --every, 10 devices", 180, "M"),
    Goal(
        "G6", "a beat of --every: CPU / a minute of exporter + agent", 0.25, "x", BENCH
    ),
    Goal("G7", "one run: CPU / a minute of exporter + agent", 1.8, "x", BENCH),
    Goal("G8", "1 device: CPU / shell script, one CA", 0.90, "x", BENCH),
    Goal("G8", "10 devices: CPU / shell script, one CA", 0.20, "x", BENCH),
    Goal("G9", "1 device: CPU / exporter to its first scrape", 0.70, "x", BENCH),
    Goal("G10", "1 device: CPU / one run in Go", 9, "x", BENCH),
    Goal("G10", "10 devices: CPU / one run in Go", 2.5, "x", BENCH),
    Goal(
        "G11",
        "50 ms away: wall beyond its round trips / three imports",
        0.8,
        "x",
        BENCH,
        better=0.4,
    ),
    Goal("G12", "500 devices of 300 quotas: seconds", 8, "s", FLEET),
    Goal("G12", "500 devices of 300 quotas: peak", 60, "MiB", FLEET),
    Goal("G12", "5,000 devices of 60 quotas: seconds", 50, "s", FLEET),
    Goal("G12", "5,000 devices of 60 quotas: peak / that of 50", 1.5, "x", FLEET),
    # 2.5 ms where three imports take 98.
    Goal("G12", FURTHER, 2.55, "%", FLEET),
    Goal("G13", "a shard of 1,250 devices: seconds", 50, "s", SHARDS),
    Goal("G13", "a shard of 1,250 devices: peak", 128, "MiB", SHARDS),
)


def goal(figure: str) -> Goal:
    """Return the goal of a figure."""
    return next(each for each in GOALS if each.figure == figure)


def most(each: Goal, python: tuple[int, int] = sys.version_info[:2]) -> float:
    """Return what the figure may be at most under this Python.

    Only what is counted in instructions is another thing elsewhere: both sides of a
    ratio are under the same Python.
    """
    return each.most * (OTHERS if each.unit == "M" and python != PYTHON else 1)


def table(rows: tuple[Goal, ...] = GOALS) -> str:
    """Return the goals as a table in Markdown."""
    lines = ["| | | at most | by |", "|---|---|---|---|"]
    for each in rows:
        limit = each.limit
        if each.better:
            limit += f" (better: {each.better:g})"
        lines.append(f"| {each.number} | {each.figure} | {limit} | `{each.judge}` |")
    return "\n".join(lines)


class Goals:
    """Prints each goal beside what was found, and remembers a miss."""

    def __init__(self, say: Callable[[str], object] = print) -> None:
        """`say` is given each line."""
        self.missed = False
        self._say = say
        self._judged: set[str] = set()

    def say(self, goal: str, found: str, *, met: bool) -> None:
        """Tell of something that is met or not."""
        self.missed |= not met
        self._say(f"{'met' if met else 'MISSED':8}{goal:76}{found}")

    def seconds(self, goal: str, found: list[float], most: float) -> None:
        """Demand a median of `most` seconds or less."""
        middle = quantile(found, 0.5)
        text = f"{middle * 1e3:.0f} ms  (at most {max(found) * 1e3:.0f})"
        self.say(f"{goal}: at most {most * 1e3:.0f} ms", text, met=middle <= most)

    def most(self, goal: str, found: list[float], most: float) -> None:
        """Demand a median of `most` or less."""
        self.say(f"{goal}: at most {most:.2f}", spread(found), met=is_most(found, most))

    def ratios(self, figure: str, found: list[float]) -> None:
        """Demand a goal of the table of a median, in its unit."""
        each = goal(figure)
        self.judged(figure)
        text = f"{each.number:5}{figure}: at most {each.limit}"
        self.say(text, spread(found), met=is_most(found, each.most))

    def counted(self, found: Mapping[str, float], beside: Mapping[str, float]) -> None:
        """Demand the goals of what was counted; `beside` is another checkout's."""
        for each in GOALS:
            if each.figure not in found:
                continue
            self.judged(each.figure)
            value, limit = found[each.figure], most(each)
            text = f"{beside[each.figure]:9.2f}" if beside else ""
            text += f"{value:9.2f} {each.unit}"
            if each.better:
                reached = "" if value <= each.better else "not "
                text += f"; {each.better:g} is {reached}reached"
            line = f"{each.number:5}{each.figure}: at most {limit:g} {each.unit}"
            self.say(line, text, met=value <= limit)

    def judged(self, figure: str) -> None:
        """Know that a goal of the table was told of."""
        self._judged.add(figure)

    def unjudged(self, judge: str, why: Mapping[str, str]) -> None:
        """Tell of the goals of `judge` that nothing was found for, and `why`."""
        for each in GOALS:
            if each.judge == judge and each.figure not in self._judged:
                reason = why.get(each.number, "not asked for")
                self._say(f"{'-':8}{each.number:5}{each.figure}: not checked, {reason}")


def quantile(values: list[float], part: float) -> float:
    """Return the value that `part` of the values do not exceed; 0.5 is the median."""
    return sorted(values)[round(part * (len(values) - 1))]


def is_most(found: list[float], most: float) -> bool:
    """Tell whether the median is `most` or less."""
    return quantile(found, 0.5) <= most


def spread(found: list[float]) -> str:
    """Return the median and the middle half of what was found, in words."""
    middle, low, high = (quantile(found, part) for part in (0.5, 0.25, 0.75))
    if len(found) == 1:
        return f"{middle:.2f}"
    return f"{middle:.2f}  (middle half of {len(found)}: {low:.2f} to {high:.2f})"


if __name__ == "__main__":
    print(table())
