"""The dashboard and the rules: sound, of known names, and accepted by promtool."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, compress

import yaml

from ecoflow_push.devices.metrics import metrics
from ecoflow_push.metrics.own import (
    DEVICE_METRICS,
    RUN_METRICS,
)
from tests.dashboard import (
    DASHBOARD,
    EXPRESSIONS,
    NORMALIZED,
    PANELS,
    RULES,
    VALUES,
    VARIABLES,
    rules,
)
from tests.deploy import program, said_by

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
    assert len(PANELS) > 25
    assert {panel["type"] for panel in PANELS} == {"stat", "table", "timeseries"}


def test_panels_stand_beside_each_other():
    """Every panel has an id of its own, and none lies on another or off the grid."""
    panels = DASHBOARD["panels"]
    places = [panel["gridPos"] for panel in panels]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    for place in places:
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
    for one, other in combinations(places, 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        ), (one, other)


def test_the_data_source_is_a_variable():
    """Panels, queries and variables ask the chosen data source and no other."""
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert VARIABLES["datasource"]["query"] == "prometheus"
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    targets = [target for panel in PANELS for target in panel["targets"]]
    for each in (*PANELS, *targets, VARIABLES["job"], VARIABLES["device"]):
        assert each["datasource"] == chosen
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
    assert used - {"__all", "__range"} == VARIABLES.keys()


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
    "and on (job, instance) instance:ecoflow_push_running",
    "unless on (job, device) last_over_time(ecoflow_online[10m]) == 0",
    "and on (job, device) last_over_time(ecoflow_online[10m]) == 1",
    "unless on (job, device) push_time_seconds < time() - 900",
    "unless on (job, instance) push_time_seconds < time() - 900",
    "unless on (job, instance) last_over_time(push_time_seconds[1d])",
    "and on (job, instance) ecoflow_push_build_info",
)


def test_no_condition_is_idle(tmp_path):
    """Without any one of the conditions on age, in any rule, the rules' tests fail."""
    # No further back than the tests look: that is most of what they take.
    text = RULES.read_text().replace("[1d:1m]", "[2h:1m]")
    places = [
        (found.start(), found.end())
        for condition in CONDITIONS
        for found in re.finditer(re.escape(condition), text)
    ]
    assert len(places) > len(CONDITIONS)

    def passes_without(place: tuple[int, int]) -> bool:
        folder = tmp_path / str(place[0])
        folder.mkdir()
        (folder / RULES.name).write_text(text[: place[0]] + text[place[1] :])
        copy = folder / RULES_TEST.name
        copy.write_text(RULES_TEST.read_text())
        return said_by(program("promtool"), "test", "rules", copy)[0] == 0

    with ThreadPoolExecutor(4) as pool:
        passed = list(pool.map(passes_without, places))
    idle = [text[:start].count("\n") + 1 for start, _ in compress(places, passed)]
    assert idle == []  # lines of the rules
