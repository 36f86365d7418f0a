"""docs/normalized.md, and the long tables behind it in docs/internals/keys.md.

They are made from the tables of devices/ and, where they are, the recorded payloads:
python -m tests.normalized_page
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ecoflow_push.devices.families import (
    Conditions,
    Family,
    Row,
    Test,
    family_named,
)
from ecoflow_push.devices.hours import METRIC
from ecoflow_push.devices.metrics import metrics
from ecoflow_push.devices.normalized import MOST_PACKS, family_of
from ecoflow_push.devices.products import products
from tests.frames import RECORDED
from tests.recordings import MODELS, SILENT_SOLAR, SILENT_STATIONS, covered, serial_of
from tests.support import ROOT

PAGE = ROOT / "docs" / "normalized.md"
KEYS = ROOT / "docs" / "internals" / "keys.md"
COVERAGE = "## Coverage\n"


PAGE_BEGIN = """\
# Normalized metrics

The same names on every model, in base units: watts, volts, seconds, ratios between 0 \
and 1. Build dashboards and alerts on these; the [raw metrics](metrics.md#quotas) have \
all that a device reports, in its own units. `METRICS_SET` chooses. This page is made \
by `python -m tests.normalized_page`.

```promql
ecoflow_battery_charge_ratio{pack=""} * 100
sum by (device_name) (ecoflow_solar_input_power_watts)
increase(ecoflow_grid_import_energy_watt_hours_total[1d]) / 1000
```

- A value that is not reported is absent; one that means "none", or that cannot be, is \
left out and counted in `ecoflow_push_skipped_values`, never corrected.
- Without the label `pack` a series is the device, or its main battery; with it, one \
battery: an extra one by number, or a pack by number or serial.
- A sum is there only if each of its parts is.
- Of linked units one speaks for the system: its values may be added up over devices. \
What begins with `unit_` is that of one unit alone, and is no further part of a sum.
- 0 V at the AC input is there only of families that report the voltage also while \
they do not charge ([which](protocol/values.md#mains-voltage)).
- Energies are the device's own counters; what it does not count Prometheus can \
[estimate](metrics.md#energy).

## Metrics

Which of them your model has: [models.md](models.md). In the last column stands how \
many of the {families} families of models report what a metric is made of.

| metric | unit | type | meaning | families |
|---|---|---|---|---|"""
PAGE_END = f"""
## What is left out

| `reason` in `ecoflow_push_skipped_values` | the value |
|---|---|
| `sentinel` | stands for "none" or "not known" |
| `out_of_bounds` | cannot be |
| `not_a_number` | is a text, a boolean or a list where a number should be |
| `ambiguous` | comes from several modules where one is expected |
| `odd_pack` | is that of a pack without a plain name, or beyond the {MOST_PACKS}th |

From which keys each value comes, with its bounds, conditions, certainty and source: \
[internals/keys.md](internals/keys.md). What has no row, and why: \
[internals/open.md](internals/open.md).
"""
INTRODUCTION = """\
# Where normalized metrics come from

The tables behind [normalized.md](../normalized.md), made from the program's own by \
`python -m tests.normalized_page`.

## Metrics

| no. | metric | unit | between |
|---|---|---|---|"""
LEFT_OUT = """
## Families

Chosen by the beginning of the serial number, else by that of the product's name, else \
by a key that only such devices have.

| family | known by |
|---|---|"""
ONLY_IF = """
## Conditions

What a family reports, and is read only if it is not a battery's that is absent \
([how that is told](../protocol/values.md#no-battery)), or a system's for which \
another unit speaks ([linked units](../protocol/values.md#linked-stream-units)). A key \
that is absent from the answer says nothing; where all of a condition are, it counts \
as true.

| family | what | only if |
|---|---|---|"""
HEAD = """\
| keys | families | scale | means "none" | certainty | source |
|---|---|---|---|---|---|"""
LEFT_OPEN = """\
Of several keys of a family the first valid one counts, in the order above. Certainty: \
A several independent sources agree, B one good source, C one claim that no recorded \
value contradicts. The sources are sections of \
[what is known](../protocol/README.md).

What has no row, and why, is in [open.md](open.md)."""


def families() -> list[Family]:
    """Return all families, by name."""
    named = [family_named(name) for name in sorted(products().families)]
    return [family for family in named if family]


def scale_of(row: Row) -> str:
    parts = [f"* {row.times:g}"] if row.times != 1 else []
    return " ".join(parts + ([f"/ {row.over:g}"] if row.over != 1 else []))


def signed(row: Row, unit: str) -> str:
    """Return the keys of a row, with what is done to them."""
    keys = [("-" if key in row.minus else "+", f"`{unit}{key}`") for key in row.keys]
    return " ".join(f"{sign} {key}" for sign, key in keys).removeprefix("+ ")


def cited(source: str) -> str:
    """Return the places that a row cites, as links."""
    return "; ".join(
        f"[{place.removeprefix('protocol/')}](../{place})"
        for place in source.split("; ")
    )


def metric_rows(metric: str) -> Iterator[str]:
    """Yield a line for each way to a metric, with the families that go it."""
    ways: dict[tuple[str, ...], list[str]] = {}
    for family in families():
        if family.hours and metric == METRIC:
            for kind, flow in family.hours.kinds.items():
                keys = f"`{flow}`: the hours of `{family.hours.prefix}{kind}.watth`"
                rest = ("", "", family.hours.certainty, cited(family.hours.source))
                ways.setdefault((keys, *rest), []).append(family.name)
        for prefix, end, rows in (("", "", family.rows), *family.packs):
            unit = f"{prefix}{{pack}}{end}" if end else prefix
            for row in rows:
                if row.metric == metric:
                    cells = (
                        signed(row, unit),
                        scale_of(row),
                        ", ".join(f"{value:.0f}" for value in sorted(row.sentinels)),
                        row.certainty,
                        cited(row.source),
                    )
                    ways.setdefault(cells, []).append(family.name)
    for (keys, *how), names in ways.items():
        yield f"| {' | '.join([keys, ', '.join(names), *how])} |"


def serials_of(family: Family) -> str:
    table, own = products(), family.name
    begins = [p for p, (_, name, _) in table.serials.items() if name == own]
    # What a shorter one says already is not said again.
    serials = [f"`{p}`" for p in begins if not {p[:2], p[:3]} & ({*begins} - {p})]
    names = [f"“{p}”" for p, name in table.names.items() if name == own]
    keys = [f"`{key}`" for key, name in table.keys.items() if name == own]
    said = [
        f"{what} {', '.join(values)}"
        for what, values in (
            ("serial", serials),
            ("product", names),
            ("neither known, and the key", keys),
        )
        if values
    ]
    return "; ".join(said)


def said(test: Test) -> str:
    key, how, wanted = test
    if (how, wanted) == ("!=", 0):
        return f"`{key}` is not 0"
    return f"`{key}` is {'not ' if how == '!=' else ''}{wanted:g}"


def ties() -> Iterator[str]:
    """Yield a line for each condition of a family, with what it is tied to."""
    for family in families():
        tied: dict[Conditions, dict[str, list[Row]]] = {}
        for row in family.rows:
            if row.only_if:
                tied.setdefault(row.only_if, {}).setdefault(row.metric, []).append(row)
        for conditions, by_metric in tied.items():
            names: list[str] = []
            for metric, rows in by_metric.items():
                if len(rows) == sum(row.metric == metric for row in family.rows):
                    names.append(f"`ecoflow_{metric}`")
                else:
                    names += [f"`{key}`" for row in rows for key in row.keys]
            told = ", and ".join(" or ".join(map(said, tests)) for tests in conditions)
            yield f"| {family.name} | {', '.join(names)} | {told} |"


def page() -> str:
    """Return the page of those who use the metrics."""
    rows = {family.name: rows_of(family) for family in families()}
    lines = [PAGE_BEGIN.replace("{families}", str(len(rows)))]
    for name, metric in metrics().items():
        kind = "counter" if name.endswith("_total") else "gauge"
        meaning = metric.help.partition(" From ")[0]
        count = sum(name in each for each in rows.values())
        lines.append(
            f"| `ecoflow_{name}` | {metric.unit} | {kind} | {meaning} | {count} |"
        )
    return "\n".join([*lines, PAGE_END])


def rows_of(family: Family) -> set[str]:
    """Return the metrics that a family has, of the device or of its packs."""
    found = {row.metric for row in family.rows}
    for _, _, rows in family.packs:
        found |= {row.metric for row in rows}
    return found | ({METRIC} if family.hours else set())


def reference() -> str:
    """Return the tables behind it, without the coverage."""
    lines = [INTRODUCTION]
    for number, (name, metric) in enumerate(metrics().items(), 1):
        bounds = f"{metric.low:.10g} and {metric.high:.10g}"
        lines.append(f"| {number} | `ecoflow_{name}` | {metric.unit} | {bounds} |")
    lines += [LEFT_OUT]
    for family in families():
        lines.append(f"| {family.name} | {serials_of(family)} |")
    lines += [ONLY_IF, *ties()]
    lines += ["", "## Keys", ""]
    for name, metric in metrics().items():
        lines += [f"### ecoflow_{name}", "", metric.help, "", HEAD, *metric_rows(name)]
        lines.append("")
    lines.append(LEFT_OPEN)
    return "\n".join([*lines, "", ""])


def coverage() -> str:
    """Return the table of the recorded payloads, model by metric."""
    found = covered()
    numbers = [str(number) for number in range(1, len(metrics()) + 1)]
    files = sum(len(files) for _, files in MODELS.values())
    names = {family_of(serial_of(model), model).name for model in MODELS}
    lines = [
        f"{files} recorded payloads of {len(MODELS)} models, of {len(names)} families.",
        "The columns are the numbers above; x is in a recording of the model.",
        "Some recordings hold one message of several: a device may give more.",
        "",
        f"| model | {' | '.join(numbers)} |",
        "|---" * (len(numbers) + 1) + "|",
    ]
    for model in MODELS:
        cells = ["x" if name in found[model] else "" for name in metrics()]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    counts = [str(sum(name in got for got in found.values())) for name in metrics()]
    lines += [f"| models | {' | '.join(counts)} |", ""]
    for title, listed in (
        ("Power stations without input and output power", SILENT_STATIONS),
        ("Models with a solar input without its power", SILENT_SOLAR),
    ):
        reasons = [f"{model} ({why})" for model, why in listed.items()]
        lines += [f"{title}: {'; '.join(reasons)}.", ""]
    return "\n".join(lines)


def documents() -> dict[Path, str]:
    """Return both pages; the coverage is that of the old page without recordings."""
    kept = KEYS.read_text().partition(COVERAGE)[2]
    table = f"\n{coverage()}" if RECORDED.is_dir() else kept
    return {PAGE: page(), KEYS: reference() + COVERAGE + table}


if __name__ == "__main__":
    for path, text in documents().items():
        path.write_text(text)
