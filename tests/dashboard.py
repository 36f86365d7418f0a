"""The dashboard and the rules, as the files have them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.support import ROOT

DASHBOARD = json.loads((ROOT / "deploy/grafana/ecoflow.json").read_text())
RULES = ROOT / "deploy/prometheus/ecoflow.rules.yml"
NORMALIZED = {
    "battery_charge_ratio": 0.87,
    "battery_health_ratio": 0.99,
    "battery_voltage_volts": 53.355,
    "battery_current_amperes": -2.5,
    "battery_temperature_celsius": 24,
    "battery_cycles": 41,
    "input_power_watts": 170,
    "output_power_watts": 112,
    "ac_input_power_watts": 112,
    "ac_output_power_watts": 100,
    "ac_input_voltage_volts": 230.579,
    "solar_input_power_watts": 58,
    "dc_output_power_watts": 12,
    "grid_power_watts": -40,
    "home_power_watts": 260,
    "charge_remaining_seconds": 86_400,
    "discharge_remaining_seconds": 7_200,
}

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
# By the panel's title and the letter of the query.
EXPRESSIONS = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in PANELS
    for target in panel["targets"]
}
VALUES = {
    title: expr
    for title, expr in EXPRESSIONS.items()
    if any(f"ecoflow_{name}" in expr for name in NORMALIZED)
}


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from group["rules"]


def filled_in(expr: str, job: str = ".+", device: str = ".+") -> str:
    """Return the expression as Grafana would send it."""
    expr = re.sub(r"\$\{?job\b\}?", job, expr)
    expr = re.sub(r"\$\{?device\b\}?", device, expr)
    assert "$" not in expr
    return expr
