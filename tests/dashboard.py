"""The dashboard and the rules, as the files have them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support import ROOT

DASHBOARD = json.loads((ROOT / "deploy/grafana/ecoflow.json").read_text())
RULES = ROOT / "deploy/prometheus/ecoflow.rules.yml"
ENERGY_RULES = RULES.with_name("ecoflow-energy.rules.yml")
# What the energies of the dashboard are made of: by flow, the device's own counter.
COUNTERS = {
    "solar": "ecoflow_solar_input_energy_watt_hours_total",
    "grid_import": "ecoflow_grid_import_energy_watt_hours_total",
    "grid_export": "ecoflow_grid_export_energy_watt_hours_total",
    "home": "",
    "battery_charge": "ecoflow_battery_charge_energy_watt_hours_total",
    "battery_discharge": "ecoflow_battery_discharge_energy_watt_hours_total",
}
ESTIMATE = "device_flow:ecoflow_energy_watt_hours:estimate1m"
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

# What stands in a row that is closed is inside of it.
EVERYTHING = [
    panel for each in DASHBOARD["panels"] for panel in (each, *each.get("panels", ()))
]
PANELS = [panel for panel in EVERYTHING if panel["type"] != "row"]
VARIABLES = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
# By the panel's title and the letter of the query.
ENERGIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in PANELS
    for target in panel["targets"]
    if ESTIMATE in target["expr"]
}
EXPRESSIONS = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in PANELS
    for target in panel["targets"]
    if ESTIMATE not in target["expr"]
}
VALUES = {
    title: expr
    for title, expr in EXPRESSIONS.items()
    if any(f"ecoflow_{name}" in expr for name in NORMALIZED)
}


def rules(file: Path = RULES) -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(file.read_text())["groups"]:
        yield from group["rules"]


def filled_in(
    expr: str,
    job: str = ".+",
    device: str = ".+",
    seconds: int = 3600,
    rate: int = 1200,
) -> str:
    """Return the expression as Grafana would send it, of a time that long.

    `rate` is the window (s) of a growth: four times the least interval, or more.
    """
    expr = expr.replace("$__rate_interval", f"{rate}s")
    expr = expr.replace("$__range", f"{seconds}s")
    expr = re.sub(r"\$\{?job\b\}?", job, expr)
    expr = re.sub(r"\$\{?device\b\}?", device, expr)
    assert "$" not in expr
    return expr
