"""The dashboard and the rules: sound, of known names, and accepted by promtool."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import compress
from random import Random
from typing import Any

import pytest
import yaml

from ecoflow_push.devices.metrics import metrics
from ecoflow_push.metrics.own import (
    DEVICE_METRICS,
    RUN_METRICS,
)
from tests.dashboard import (
    DASHBOARD,
    EVERYTHING,
    EXPRESSIONS,
    NORMALIZED,
    PANELS,
    RULES,
    VALUES,
    VARIABLES,
    filled_in,
    rules,
)
from tests.deploy import program, rules_pass, said_by
from tests.support import ROOT

RULES_TEST = RULES.with_name("ecoflow.rules.test.yml")
OWN = {f"ecoflow_{name}" for name in (*DEVICE_METRICS, *RUN_METRICS, *NORMALIZED)}
# Those of a Pushgateway itself, and of Prometheus.
OTHERS = {"push_time_seconds", "ALERTS"}
FRESH = (
    "and on (job, device) (abs(last_over_time(ecoflow_snapshot_timestamp_seconds"
    '{job=~"$job",device_name=~"$device"}[10m]) - time()) < 600)'
    " unless on (job, device) (last_over_time(ecoflow_online"
    '{job=~"$job",device_name=~"$device"}[10m]) == 0)'
)


def test_the_dashboards_frame():
    """Grafana 10 knows the schema; there is no id of a server, and nothing is fixed."""
    assert DASHBOARD["schemaVersion"] == 38
    assert DASHBOARD["id"] is None
    assert DASHBOARD["uid"]
    assert len(PANELS) > 30
    assert {panel["type"] for panel in PANELS} == {"stat", "table", "timeseries"}


def test_panels_stand_beside_each_other():
    """Every panel has its own id; they fill the grid, and none lies on another."""
    assert len({panel["id"] for panel in EVERYTHING}) == len(EVERYTHING)
    assert len({panel["title"] for panel in EVERYTHING}) == len(EVERYTHING)
    assert_filled(DASHBOARD["panels"])
    closed = [row for row in DASHBOARD["panels"] if row.get("collapsed")]
    assert closed
    for row in closed:
        # As if it were opened.
        assert_filled([row, *row["panels"]])


def assert_filled(panels: list[dict[str, Any]]) -> None:
    """Fail unless each of the 24 columns is taken once all the way down."""
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    lines = [y for _, y in taken]
    whole = {(x, y) for x in range(24) for y in range(min(lines), max(lines) + 1)}
    assert sorted(taken) == sorted(whole)


def test_every_panel_is_explained():
    """Each panel has a description of its own, which is a sentence."""
    said = [panel["description"] for panel in PANELS]

    assert all(text.endswith(".") and text == text.strip() for text in said)
    assert all(panel["fieldConfig"]["defaults"].get("noValue", "-") for panel in PANELS)


def test_a_growth_is_of_the_time_that_is_shown():
    """No window of a growth is fixed, and each has room for runs every five minutes."""
    growing = [
        target
        for panel in PANELS
        for target in panel["targets"]
        if "increase(" in target["expr"]
    ]
    assert growing
    for target in growing:
        windows = re.findall(r'increase\(\w+\{.*?"\}\[(.*?)\]', target["expr"])
        assert len(windows) == target["expr"].count("increase(")
        for window in windows:
            assert window in {"$__range", "$__rate_interval"}
            # Grafana makes a rate's interval at least four times this.
            assert window == "$__range" or target["interval"] == "5m"


# Labels that every series has that is asked for with them.
ALWAYS = {"device_name", "instance", "state", "stage", "reason"}
# Labels that some have, and what picks these.
SOME = {"pack": 'pack!=""', "shard": 'shard!=""'}


def test_no_legend_ends_in_nothing():
    """A legend names only labels that its series have: `pack` those of packs alone."""
    for panel in PANELS:
        for target in panel["targets"]:
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            picked = {name for name, how in SOME.items() if how in target["expr"]}
            assert labels <= ALWAYS | picked, panel["title"]
            if panel["type"] == "timeseries":
                assert picked <= labels


def test_a_graph_has_one_line_a_device():
    """Twelve devices are twelve lines: so many have strong colours of their own."""
    for panel in PANELS:
        by_device = [
            target
            for target in panel["targets"]
            if target["legendFormat"].startswith("{{device_name}}")
        ]
        # Few devices know them.
        assert len(by_device) <= (2 if panel["title"] == "Grid and home" else 1)
        if by_device and "{{pack}}" not in by_device[0]["legendFormat"]:
            assert "battery" not in by_device[0]["expr"] or (
                'pack=""' in by_device[0]["expr"]
            )


# What a screen of 1280 pixels leaves for a table as wide as the dashboard.
INNER = 1248
DEFAULT_WIDTH = 150


def columns(table: dict[str, Any]) -> dict[str, int]:
    """Return the least width of each column, in pixels."""
    [organize] = [
        each["options"] for each in table["transformations"] if each["id"] == "organize"
    ]
    hidden = {name for name, gone in organize["excludeByName"].items() if gone}
    shown = [
        organize["renameByName"].get(name, name)
        for name in organize["indexByName"]
        if name not in hidden
    ]
    given = {
        each["matcher"]["options"]: {
            one["id"]: one["value"] for one in each["properties"]
        }
        for each in table["fieldConfig"]["overrides"]
    }
    assert given.keys() <= set(shown)
    return {
        name: given.get(name, {}).get("custom.width")
        or given.get(name, {}).get("custom.minWidth", DEFAULT_WIDTH)
        for name in shown
    }


def test_no_table_is_wider_than_a_small_screen():
    """All columns of each table fit beside each other on 1280 pixels."""
    tables = [panel for panel in PANELS if panel["type"] == "table"]
    assert len(tables) == 7
    for table in tables:
        width = INNER * table["gridPos"]["w"] / 24 - 16
        assert sum(columns(table).values()) <= width, table["title"]


def test_twelve_devices_are_seen_at_once():
    """The table of devices is as high as its head and twelve rows."""
    [table] = [panel for panel in PANELS if panel["title"] == "Devices"]
    # A line of the grid is 30 pixels, and 8 between two; a frame takes 56, a row 36.
    high = table["gridPos"]["h"] * 38 - 8
    assert table["options"]["cellHeight"] == "sm"
    assert (high - 56 - 36) // 36 >= 12


def test_nothing_is_drawn_where_nothing_is_known():
    """No cell of a table draws a gauge, or the colour of a value, without a value."""
    for table in (panel for panel in PANELS if panel["type"] == "table"):
        for each in table["fieldConfig"]["overrides"]:
            given = {one["id"]: one["value"] for one in each["properties"]}
            kind = given.get("custom.cellOptions", {}).get("type", "auto")
            assert kind in {"auto", "color-text", "color-background"}
            if kind == "color-background" and each["matcher"]["options"] != "State":
                matches = [
                    one["options"]["match"]
                    for one in given["mappings"]
                    if one["type"] == "special"
                ]
                assert matches == ["null"]


def test_the_data_source_is_a_variable():
    """Panels, queries and variables ask the chosen data source and no other."""
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert VARIABLES["datasource"]["query"] == "prometheus"
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    targets = [target for panel in PANELS for target in panel["targets"]]
    for each in (*PANELS, *targets, VARIABLES["job"], VARIABLES["device"]):
        assert each["datasource"] == chosen
    # Grafana's own default, until somebody chooses.
    current = VARIABLES["datasource"]["current"]
    assert (current["text"], current["value"]) == ("default", "default")
    assert json.dumps(DASHBOARD).count('"uid"') == 3 + len(PANELS) + len(targets)


def test_every_query_says_something():
    """Each query has an expression, a letter of its own, and known variables."""
    for panel in PANELS:
        letters = [target["refId"] for target in panel["targets"]]
        assert letters
        assert len(set(letters)) == len(letters)
        for target in panel["targets"]:
            assert target["expr"].strip()
            # A picture of a moment asks for the moment, a graph for the range.
            assert target["instant"] is (panel["type"] != "timeseries")
            assert target["range"] is not target["instant"]
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    known = {"__all", "__range", "__rate_interval", "__value", "__url_time_range"}
    assert used - known == VARIABLES.keys()


def names_in(expr: str) -> set[str]:
    """Return the metrics of an expression: those of ours, and those of a gateway."""
    return set(re.findall(r"\b(?:ecoflow_\w+|push_\w+|ALERTS)\b", expr))


def test_the_names_are_those_of_the_program():
    """The normalized names that the dashboard's fleet has are real ones."""
    assert NORMALIZED.keys() <= metrics().keys()


def test_only_known_metrics_are_asked_for():
    """Dashboard and rules name our metrics, and the normalized ones are all shown."""
    recorded = {
        rule["record"].partition(":")[2] for rule in rules() if "record" in rule
    }
    shown = {name for expr in EXPRESSIONS.values() for name in names_in(expr)}
    ruled = {name for rule in rules() for name in names_in(rule["expr"])}

    assert shown <= OWN | OTHERS
    assert ruled <= OWN | OTHERS | recorded
    assert shown >= {f"ecoflow_{name}" for name in NORMALIZED}


def test_rates_are_of_counters():
    """No expression takes the rate of a gauge, and each counter's growth is taken."""
    everything = [*EXPRESSIONS.values(), *(rule["expr"] for rule in rules())]
    for expr in everything:
        assert not re.search(r"\b(i?rate|delta|idelta|deriv)\b", expr)
        grown = re.findall(r"increase\((\w+)", expr)
        assert all(name.endswith("_total") for name in grown)
        assert len(grown) == len(re.findall(r"\w+_total\b", expr))


def test_every_value_is_tied_to_its_age():
    """Each selector of a value stands under the same two conditions on its device."""
    assert len(VALUES) > 25
    for title, expr in VALUES.items():
        [name] = {n for n in names_in(expr) if n.removeprefix("ecoflow_") in NORMALIZED}
        words = " ".join(expr.split())
        selector = re.escape(name) + r"\{([^}]*)\}"
        # Once for now, once for a gap of a few minutes.
        labels = re.findall(selector, words)
        assert labels == [labels[0]] * 2, title
        assert 'job=~"$job",device_name=~"$device"' in labels[0]
        assert words.count(FRESH) == 1, title


def test_what_draws_the_dashboard_is_locked():
    """Its libraries are of one version each, known by a hash and from no address."""
    folder = ROOT / "tools/picture"
    asked = json.loads((folder / "package.json").read_text())["dependencies"]
    locked = json.loads((folder / "package-lock.json").read_text())["packages"]

    assert locked.pop("")["dependencies"] == asked
    for name, version in asked.items():
        assert locked[f"node_modules/{name}"]["version"] == version
    for package in locked.values():
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package


# --- promtool ---------------------------------------------------------------------


def test_promtool_accepts_the_rules(tmp_path):
    """Promtool finds nothing wrong with the rules, and something with a wrong one."""
    wrong = tmp_path / "wrong.rules.yml"
    wrong.write_text(RULES.read_text().replace("group by", "gruop by", 1))

    assert said_by(program("promtool"), "check", "rules", RULES)[0] == 0
    assert said_by(program("promtool"), "check", "rules", wrong)[0] != 0


def test_promtool_sees_every_alert_fire_and_not_fire():
    """The rules' own tests pass, and they show each alert firing, with its text."""
    status, said = said_by(program("promtool"), "test", "rules", RULES_TEST)
    assert status == 0, said

    tests = yaml.safe_load(RULES_TEST.read_text())["tests"]
    fired = {
        each["alertname"]
        for test in tests
        for each in test["alert_rule_test"]
        if each["exp_alerts"]
    }
    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}
    # Looks at all alerts at once: what is not listed there does not fire.
    for test in tests:
        looks = [
            json.dumps(each.get("exp_samples", []))
            for each in test["promql_expr_test"]
            if each["expr"] == 'ALERTS{alertstate="firing"}'
        ]
        assert looks
        for alert in fired:
            assert not all(f'\\"{alert}\\"' in look for look in looks), alert


# What ties a rule to an age. Each of them stands for a way in which a value is over.
CONDITIONS = (
    "and on (job, device) device:ecoflow_fresh",
    "and on (job, instance, shard) instance:ecoflow_push_running",
    "unless on (job, device) last_over_time(ecoflow_online[10m]) == 0",
    "and on (job, device) last_over_time(ecoflow_online[10m]) == 1",
    "unless on (job, device) push_time_seconds < time() - 900",
    "unless on (job, instance, shard) push_time_seconds < time() - 900",
    "unless on (job, instance) last_over_time(push_time_seconds[1d])",
    "and on (job, instance) ecoflow_push_build_info",
    # What one shard says must not stand for another.
    ", shard",
)


@pytest.mark.drill("mutations")
def test_no_condition_is_idle(tmp_path, drill):
    """Without any one of the conditions on age, in any rule, the rules' tests fail."""
    # No further back than the tests look: that is most of what they take.
    text = RULES.read_text().replace("[1d:1m]", "[2h:1m]")
    places = [
        (found.start(), found.end())
        for condition in CONDITIONS
        for found in re.finditer(re.escape(condition), text)
    ]
    assert len(places) > len(CONDITIONS)
    some = Random(drill.seed).sample(places, len(places))
    places = sorted(some[: drill.size(3, len(places))])

    def passes_without(place: tuple[int, int]) -> bool:
        changed = text[: place[0]] + text[place[1] :]
        return rules_pass(tmp_path / str(place), RULES.name, changed, RULES_TEST)

    assert passes_without((0, 0))
    with ThreadPoolExecutor(4) as pool:
        passed = list(pool.map(passes_without, places))
    idle = [text[:start].count("\n") + 1 for start, _ in compress(places, passed)]
    assert idle == []  # lines of the rules


def test_a_device_that_was_renamed_is_one_row(tmp_path):
    """The table of devices tells it by its newest name, also when it is not read."""
    labels = '{job="ecoflow",device="S1",device_name="%s",product_name="DELTA 2"}'
    names = {"Old": ("0+60x5 stale", "1x5 stale"), "New": ("_x5 360+60x5", "_x5 1x60")}
    series = [
        {"series": f"ecoflow_{metric}{labels % name}", "values": values}
        for name, (times, ones) in names.items()
        for metric, values in (
            ("snapshot_timestamp_seconds", times),
            ("device_info", ones),
        )
    ]
    asked = [
        {
            "expr": filled_in(EXPRESSIONS["Devices A"]),
            "eval_time": minute,
            "exp_samples": [{"labels": labels % "New", "value": state}],
        }
        for minute, state in (("9m", 2), ("40m", 1))
    ]
    group = {"interval": "1m", "input_series": series, "promql_expr_test": asked}
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [], "tests": [group]}))

    status, said = said_by(program("promtool"), "test", "rules", file)
    assert status == 0, said
