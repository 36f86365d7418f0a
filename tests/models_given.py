"""What each model gives: the second table of docs/models.md, and what was recorded.

    python -m tests.models_given

makes tests/fixtures/recorded.tsv anew, where the recordings are beside the project.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from ecoflow_push.devices.families import Family, Row
from ecoflow_push.devices.normalized import family_of
from ecoflow_push.devices.products import products
from tests.dashboard import ENERGY_RULES, ESTIMATE, rules
from tests.support import ROOT

RECORDED = ROOT / "tests" / "fixtures" / "recorded.tsv"
WAYS = ("keys", "app")
HEAD = """
## What each model gives

- *Raw* is how many raw metrics recordings of the model have, with developer keys and \
with the app account. `?` is not recorded. To developer keys a model may be closed: \
EcoFlow opens them one by one ([rest.md](protocol/rest.md)).
- *Normalized* is how many of the [metrics of all models](normalized.md) come of these \
recordings, of how many that the family has rows for. A model that was not recorded is \
read as its family is; whether it sends all of that is not known.
- *Energy* says what the device [counts itself](metrics.md#energy), and what can be \
estimated from its powers.
- *Certainty* is how many metrics have several independent sources that agree (A), one \
good source (B), or a claim that no recorded value contradicts (C).

| model | raw: keys | raw: app | normalized: keys | normalized: app | energy | \
certainty | recordings: keys | recordings: app |
|---|---|---|---|---|---|---|---|---|
"""


class Seen(NamedTuple):
    """What the recordings of a model have, made one way."""

    serial: str
    recordings: int
    raw: int
    normalized: frozenset[str]


@cache
def seen() -> dict[tuple[str, str], Seen]:
    """Return what was recorded, by model and way."""
    found = {}
    for line in RECORDED.read_text().splitlines():
        if not line.startswith("#"):
            model, serial, way, recordings, raw, names = line.split("\t")
            metrics = frozenset(names.split(" ")) - {"-"}
            found[model, way] = Seen(
                serial.strip("-"), int(recordings), int(raw), metrics
            )
    return found


@cache
def flows() -> dict[str, tuple[str, str]]:
    """Return of each flow of energy the counter and the power, as the rules have it."""
    found = {}
    for rule in rules(ENERGY_RULES):
        if rule["record"] == ESTIMATE:
            expr = rule["expr"]
            [power] = re.findall(r"ecoflow_(\w+_power_watts)", expr)
            counter = re.search(r"ecoflow_(\w+_total)", expr)
            flow = rule["labels"]["flow"].replace("_", " ")
            found[flow] = (counter[1] if counter else "", power)
    # No power stands for it.
    return {**found, "dc input": ("dc_input_energy_watt_hours_total", "")}


def rows_of(family: Family) -> Iterable[Row]:
    return [*family.rows, *(row for packs in family.packs for row in packs[2])]


def energy_of(family: Family) -> str:
    """Say what a family counts, and what of the rest can be estimated."""
    own = certainties(rows_of(family))
    # Packs have powers of their own, which are no part of the estimates.
    powers = certainties(family.rows)
    counted, estimated = [], []
    for flow, (counter, power) in flows().items():
        if counter in own:
            counted.append(f"{flow} ({own[counter]})")
        elif power in powers:
            estimated.append(f"{flow} ({powers[power]})")
    said = [
        f"{what}: {', '.join(listed)}"
        for what, listed in (("counted", counted), ("estimated", estimated))
        if listed
    ]
    if family.hours:
        kinds = ", ".join(
            flow.replace("_", " ") for flow in family.hours.kinds.values()
        )
        said.append(f"of the running day: {kinds} ({family.hours.certainty})")
    return "; ".join(said) or "none"


def certainties(rows: Iterable[Row]) -> dict[str, str]:
    """Return of each metric the letter of its best row."""
    best: dict[str, str] = {}
    for row in rows:
        best[row.metric] = min(row.certainty, best.get(row.metric, "C"))
    return best


def certainty_of(family: Family) -> str:
    counts = sorted(Counter(certainties(rows_of(family)).values()).items())
    return ", ".join(f"{count} {letter}" for letter, count in counts) or "-"


def models() -> dict[str, str]:
    """Return all models that are named or recorded, by name, with a serial of each."""
    found = {model: each.serial for (model, _), each in seen().items()}
    for prefix, (product, _, _) in products().serials.items():
        if product:
            found.setdefault(product, prefix)
    return dict(sorted(found.items()))


def line(model: str, serial: str) -> str:
    family = family_of(f"{serial or 'ZZ99'}ZFAKE0000001"[:16], model)
    rows = len(certainties(rows_of(family)))
    recorded = [seen().get((model, way)) for way in WAYS]
    raw = [f"{each.raw}" if each and each.raw else "?" for each in recorded]
    if products().of_serial(serial, 2) == "not public":
        raw[1] = "not read"
    normalized = [
        f"{len(each.normalized)} of {rows}" if each and rows else f"? of {rows}"
        for each in recorded
    ]
    if not rows:
        normalized = ["none", "none"]
    counts = [str(each.recordings) if each else "0" for each in recorded]
    cells = [model, *raw, *normalized, energy_of(family), certainty_of(family), *counts]
    return f"| {' | '.join(cells)} |"


def given() -> str:
    """Return the section of what each model gives."""
    return HEAD + "\n".join(line(*each) for each in models().items()) + "\n"


if __name__ == "__main__":
    from tests.recordings import recorded_lines

    RECORDED.write_text(recorded_lines())
