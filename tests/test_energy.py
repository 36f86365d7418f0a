"""Energies: estimated by rules, shown in kWh by the dashboard, on real servers."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from ecoflow_push.devices.metrics import metrics
from ecoflow_push.metrics.record import Record, record_of
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.sinks.endpoint import RemoteWriteSink
from ecoflow_push.sinks.server import Server
from tests.dashboard import (
    COUNTERS,
    ENERGIES,
    ENERGY_RULES,
    ESTIMATE,
    PANELS,
    VARIABLES,
    filled_in,
    rules,
)
from tests.deploy import program, rules_pass, said_by
from tests.fetch_servers import NEWER
from tests.support import Database, eventually, fetch, prometheus, victoria_metrics
from tests.test_wire import from_text

RULES_TEST = ENERGY_RULES.with_name("ecoflow-energy.rules.test.yml")
ESTIMATES = {
    rule["labels"]["flow"]: rule["expr"]
    for rule in rules(ENERGY_RULES)
    if rule["record"] == ESTIMATE
}


# --- the files --------------------------------------------------------------------


def test_every_power_has_an_estimate():
    """Each power is integrated, and of one that has a direction both ways are."""
    powers = sorted(name for name in metrics() if name.endswith("_power_watts"))
    found = sorted(
        re.findall(r"ecoflow_(\w+_power_watts)", expr)[0] for expr in ESTIMATES.values()
    )
    signed = [name for name in powers if metrics()[name].low < 0]

    assert found == sorted([*powers, *signed])
    for flow, expr in ESTIMATES.items():
        [power] = re.findall(r"ecoflow_(\w+_power_watts)", expr)
        turned = "clamp_min(-ecoflow" in expr
        assert ("clamp_min(" in expr) == (power in signed), flow
        assert turned == flow.endswith(("_export", "_discharge", "unit_input")), flow


def test_a_counter_of_the_device_wins():
    """Where the program counts an energy of a flow, no estimate stands beside it."""
    known = {f"ecoflow_{name}" for name in metrics()}
    counters = {name for name in known if name.endswith("_total")}
    ends = {name for name in counters if "dc_input" in name}  # has no power
    named = set()
    for expr in ESTIMATES.values():
        named |= set(re.findall(r"ecoflow_\w+_total\b", expr))

    assert named == counters - ends
    for flow, counter in COUNTERS.items():
        found = re.findall(r"ecoflow_\w+_total\b", ESTIMATES[flow])
        assert found == ([counter] if counter else [])


def test_the_dashboard_asks_for_the_counter_first():
    """Each cell of a table is one flow: its counter's increase, else the estimate."""
    tables = [panel for panel in PANELS if f"{panel['title']} A" in ENERGIES]
    assert [table["title"] for table in tables] == [
        "Energy today",
        "Energy yesterday",
        "Energy this month",
    ]
    times = [(table["timeFrom"], table.get("timeShift")) for table in tables]
    assert times == [("now/d", None), ("now/d", "1d/d"), ("now/M", None)]
    for table in tables:
        # Grafana's own unit turns into Wh and MWh from row to row.
        assert table["fieldConfig"]["defaults"]["unit"] == "suffix: kWh"
        asked = [target["expr"] for target in table["targets"]]
        assert len(asked) == len(COUNTERS)
        for expr, (flow, counter) in zip(asked, COUNTERS.items(), strict=True):
            named = re.findall(r"ecoflow_\w+_total|device_flow:[\w:]+", expr)
            assert named[-1] == ESTIMATE
            assert set(named[:-1]) == ({counter} if counter else set())
            assert f'flow="{flow}"' in expr
            selectors = expr.count('job=~"$job",device_name=~"$device"')
            assert expr.count("[$__range]") == selectors == len(named)
    assert VARIABLES.keys() == {"datasource", "job", "device"}


# --- promtool ---------------------------------------------------------------------


def test_promtool_sees_the_energies():
    """Promtool accepts the rules, and their own tests pass."""
    for what, file in (("check", ENERGY_RULES), ("test", RULES_TEST)):
        status, said = said_by(program("promtool"), what, "rules", file)
        assert status == 0, said


@pytest.mark.drill("mutations")
def test_no_part_of_the_rules_is_idle(tmp_path, drill):
    """Without any one of the conditions the rules' own tests fail."""
    text = ENERGY_RULES.read_text()
    conditions = (
        r" > 0(?= <=)",
        r" <= 600",
        r"\n +unless on \(job, device\)\n +max by.*?> 3600",
        r"\n +unless on \(job, device\)\n +last_over_time\(\w+_total\[1h\]\)",
        r'\{pack=""\}',
        r"clamp_min\((?=ecoflow)",
        r"clamp_min\(-",
    )
    changed = []
    for condition in conditions:
        places = list(re.finditer(condition, text, re.DOTALL))
        assert places, condition
        for place in places:
            rest = text[place.end() :]
            if "clamp_min" in condition:
                # Energy in both directions, or in the wrong one.
                sign = "-" if condition.endswith("-") else ""
                other = "" if sign else "-"
                rest = f"clamp_min({other}" + rest
            changed.append((condition, text[: place.start()] + rest))

    some = Random(drill.seed).sample(changed, len(changed))
    changed = some[: drill.size(2, len(changed))]

    def passes(number: int, text: str) -> bool:
        return rules_pass(tmp_path / str(number), ENERGY_RULES.name, text, RULES_TEST)

    assert passes(-1, text)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(passes, count(), [text for _, text in changed]))
    idle = [c for (c, _), passed in zip(changed, done, strict=True) if passed]
    assert idle == []


# A day in the sun: watts by the minute, and the energy of it.
SUN = [max(0.0, 800 * math.sin(math.pi * (n - 360) / 840)) for n in range(1440)]
SUN[1200:] = [0.0] * 240
ENERGY = 800 * 2 * 840 / math.pi / 60
# A load that comes and goes, as a cooler does.
LOAD = [300.0 if n % 90 < 37 else 40.0 for n in range(1440)]
DAYS = {"SUN": SUN, "LOAD": LOAD}


def measured(way: str, every: int, tmp_path: Path) -> dict[str, float]:
    """Return the energies of a day that the rules estimate, in watt hours."""
    held = way == "Pushgateway"
    step = 1 if held else every
    last = [n - n % every if held else n for n in range(0, 1440, step)]
    values: dict[str, list[float]] = {}
    for name, powers in DAYS.items():
        device = f'{{job="ecoflow",device="{name}"}}'
        values |= {
            f"ecoflow_snapshot_timestamp_seconds{device}": [60 * n for n in last],
            f"ecoflow_solar_input_power_watts{device}": [powers[n] for n in last],
        }
    total = f"sum_over_time({ESTIMATE}[2d])"
    # promtool says what it got where it is not what was expected.
    looks = [
        {"expr": total.replace("[", f'{{device="{name}"}}['), "eval_time": "1500m"}
        for name in DAYS
    ]
    test = {
        "interval": f"{step}m",
        "input_series": [
            {"series": name, "values": " ".join(map(str, numbers))}
            for name, numbers in values.items()
        ],
        "promql_expr_test": looks,
    }
    # Of the other flows nothing is known here.
    needed = [
        rule
        for rule in rules(ENERGY_RULES)
        if rule.get("labels", {}).get("flow", "solar") == "solar"
    ]
    asked_of = tmp_path / "solar.rules.yml"
    group = {"name": "energy", "interval": "1m", "rules": needed}
    asked_of.write_text(yaml.safe_dump({"groups": [group]}))
    asked = {"rule_files": [str(asked_of)], "evaluation_interval": "1m"}
    file = tmp_path / f"{way}-{every}.yml"
    file.write_text(yaml.safe_dump({**asked, "tests": [test]}))
    said = said_by(program("promtool"), "test", "rules", file)[1]
    got = re.findall(
        r"got:[^\n]*device=\"(\w+)\"[^\n]*flow=\"solar\".*? ([\d.E+]+)\"?\s*$",
        said,
        re.MULTILINE | re.DOTALL,
    )
    return {name: float(energy) for name, energy in got}


@pytest.mark.parametrize("way", ["Pushgateway", "remote-write"])
@pytest.mark.parametrize("every", [1, 4])
def test_the_interval_does_not_change_the_energy(way, every, tmp_path):
    """Read every minute or every four, a day's energy is right to 2 %."""
    found = measured(way, every, tmp_path)

    assert found.keys() == DAYS.keys()
    assert found["SUN"] == pytest.approx(ENERGY, rel=0.02)
    assert found["LOAD"] == pytest.approx(sum(LOAD) / 60, rel=0.02)


# --- the tables of the dashboard --------------------------------------------------

# The estimates are written after the powers.
LATER = json.dumps({"storage": {"tsdb": {"out_of_order_time_window": "1d"}}})
WAYS: dict[str, Callable[..., Any]] = {
    "Prometheus 2": partial(prometheus, config=LATER),
    "Prometheus 3": partial(prometheus, config=LATER, suite=NEWER),
    "VictoriaMetrics": victoria_metrics,
}
MINUTES = 180
# Of the last two hours, in kWh. The Roof counts nothing: 600 W of sun, 300 W from the
# grid and then 120 W into it, 450 W for the home, 180 W into the battery, then 240 W
# out of it. The Shed counts 10 Wh a minute, and two batteries; the home it estimates.
SHOWN = {
    "Roof": [1.2, 0.3, 0.12, 0.9, 0.18, 0.24],
    "Shed": [1.2, 1.2, 1.2, 0.9, 2.4, 2.4],
    # Counts each battery, and both together.
    "Cabin": [1.2, 0.3, 0.12, 0.9, 1.2, 1.2],
}


def exposition(name: str, minute: int, at: float) -> str:
    """Return what is said of a device in this minute."""
    first = minute < MINUTES - 60
    values: dict[str, float] = {
        "snapshot_timestamp_seconds": at,
        "solar_input_power_watts": 600,
        "grid_power_watts": 300 if first else -120,
        "home_power_watts": 450,
        "battery_power_watts": 180 if first else -240,
    }
    # Some time ago it lost its memory.
    counted = 5000 + 10 * minute if minute < 100 else 10 * (minute - 100)
    counters = {
        name.removeprefix("ecoflow_") for name in filter(None, COUNTERS.values())
    }
    batteries = {name for name in counters if name.startswith("battery")}
    packs = {"Roof": [], "Shed": ["", "1"], "Cabin": ["", "HJ32A", "HJ32B"]}[name]
    if name == "Shed":
        values |= dict.fromkeys(counters - batteries, counted)
    labels = f'device="{name.upper()}",device_name="{name}",product_name="P"'
    lines = [f"ecoflow_{key}{{{labels}}} {value}" for key, value in values.items()]
    for key in batteries:
        lines += [
            f"ecoflow_{key}{{{labels}" + (f',pack="{p}"' if p else "") + f"}} {counted}"
            for p in packs
        ]
    return "\n".join(sorted(lines)) + "\n"


def sink_to(database: Database) -> RemoteWriteSink:
    server = Server("REMOTE_WRITE", database.write_url)
    return RemoteWriteSink(server, version="1", attempts=2, longest_wait=1)


def record(text: str, at: float, ended: Any = ()) -> Record:
    """Return an exposition of the time `at`, with the end of the series in `ended`."""
    made = record_of(from_text(text), {"job": "ecoflow"}, round(at * 1000))
    return made.ending(set(ended))


def write(sink: RemoteWriteSink, records: Iterable[Record]) -> None:
    """Write them in their order, many in one request."""
    waiting = list(records)
    for first in range(0, len(waiting), 60):
        sink.write(waiting[first : first + 60], Deadline(30))


def fill(database: Database, begin: float, every: int) -> None:
    """Write three hours of each device, and what the rules make of them."""
    sink = sink_to(database)
    times = {n: begin + 60 * n for n in range(0, MINUTES + 1, every)}
    write(
        sink,
        (
            record(exposition(name, minute, at), at)
            for minute, at in times.items()
            for name in SHOWN
        ),
    )
    sink.close()
    end = begin + 60 * MINUTES
    assert eventually(lambda: database.alive("ecoflow_snapshot_timestamp_seconds", end))
    estimate(database, begin, end)


def estimate(database: Database, begin: float, end: float) -> None:
    """Write what the rules make of each minute in this time.

    Rules look at now alone: here they are asked of each minute, one after the other.
    """
    sink = sink_to(database)
    for rule in rules(ENERGY_RULES):
        path = f"/api/v1/query_range?query={quote(rule['expr'])}"
        path += f"&start={begin:.0f}&end={end:.0f}&step=60&nocache=1"
        found = json.loads(fetch(database.url + path))["data"]["result"]
        texts: dict[float, str] = {}
        for series in found:
            series["metric"].pop("job")
            labels = series["metric"] | rule.get("labels", {})
            named = ",".join(f'{key}="{value}"' for key, value in labels.items())
            for at, value in series["values"]:
                line = f"{rule['record']}{{{named}}} {value}\n"
                texts[at] = texts.get(at, "") + line
        # As Prometheus does, a rule ends what it does not say again.
        said: Any = ()
        records = []
        for at in range(round(begin), round(end) + 1, 60):
            if at in texts or said:
                records.append(record(texts.get(at, ""), at, said))
                said = records[-1].keys()
        write(sink, records)
        if texts and rule["record"] != ESTIMATE:
            shows = partial(database.alive, rule["record"], max(texts))
            assert eventually(shows)
    sink.close()
    shows = partial(database.alive, f"last_over_time({ESTIMATE}[1h])", end)
    assert eventually(shows)


@pytest.fixture(scope="module", params=[(w, n) for w in WAYS for n in (1, 4)], ids=str)
def filled(request, tmp_path_factory) -> Iterator[tuple[Database, float]]:
    """A server with three hours of a fleet in it, and when they end."""
    way, every = request.param
    begin = (time.time() // 60 - MINUTES) * 60
    with WAYS[way](tmp_path_factory.mktemp("server") / "data") as database:
        fill(database, begin, every)
        yield database, begin + 60 * MINUTES


def shown(filled: tuple[Database, float], table: str, **chosen: Any) -> Any:
    """Return the rows of a table: by device, what each of its cells says."""
    database, end = filled
    rows: dict[str, dict[str, float]] = {}
    for title, expr in ENERGIES.items():
        if title.startswith(table):
            asked = filled_in(expr, **chosen, seconds=7200)
            for row in database._query(asked, end):
                cells = rows.setdefault(row["metric"]["device_name"], {})
                assert title not in cells
                cells[title] = float(row["value"][1])
    return {name: list(cells.values()) for name, cells in rows.items()}


def test_the_tables_show_what_was_counted_or_estimated(filled):
    """Each table says the energies of each device, however often it is read."""
    for table in ("Energy today", "Energy yesterday", "Energy this month"):
        found = shown(filled, table)
        assert found.keys() == SHOWN.keys()
        for name, energies in SHOWN.items():
            assert found[name] == pytest.approx(energies, rel=0.05), name


def test_the_choice_of_a_device_holds(filled):
    """With one device chosen no other is in the tables, and none of another job."""
    assert shown(filled, "Energy today", device="Roof").keys() == {"Roof"}
    assert shown(filled, "Energy today", job="other") == {}
