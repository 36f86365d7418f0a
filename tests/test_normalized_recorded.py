"""Quota maps to base units: the recorded ones, and the page that is made of them."""

from __future__ import annotations

import re

import pytest

from tests.frames import RECORDED, recorded_frames, serial
from tests.models_table import RECORDED as FRAMES
from tests.normalized_page import documents
from tests.recordings import (
    MODELS,
    NO_BATTERY,
    SILENT_SOLAR,
    SILENT_STATIONS,
    SOLAR,
    covered,
    of_recordings,
    read,
)
from tests.test_normalized import named
from tests.test_normalized_hostile import check


def test_the_document_is_up_to_date():
    """docs/normalized.md and keys.md are what the tables and the recordings say."""
    for path, text in documents().items():
        anew = "make it anew: python -m tests.normalized_page"
        assert path.read_text() == text, (path.name, anew)


# Recorded payloads


@pytest.mark.recorded
def test_every_recorded_payload_with_quotas_is_read():
    """No recorded payload is forgotten, but for what is no quota map of a device."""
    other = re.compile(
        r"common/|-expected|set_reply|set-frames|getAllTaskCfg|oldapi|write-frames"
        r"|two-units|wallbox/|shelly|river3plus-cms-decoded|INDEX"
    )
    listed = {file for _, files in MODELS.values() for file in files}

    assert listed == {
        name
        for path in RECORDED.glob("*/*")
        if not other.search(name := str(path.relative_to(RECORDED)))
    }


@pytest.mark.recorded
def test_the_recorded_payloads_are_covered():
    """Charge, input and output, and solar power are there where they are reported."""
    found = covered()
    with_battery = MODELS.keys() - NO_BATTERY
    stations = {m for m in MODELS if m.startswith(("DELTA", "RIVER"))}

    def lacking(models: set[str], *metrics: str) -> set[str]:
        return {model for model in models if not set(metrics) <= found[model]}

    assert lacking(with_battery, "battery_charge_ratio") == set()
    in_and_out = "input_power_watts", "output_power_watts"
    assert lacking(stations, *in_and_out) == SILENT_STATIONS.keys()
    assert lacking(SOLAR, "solar_input_power_watts") == SILENT_SOLAR.keys()
    print(
        f"{len(MODELS)} models: charge on {len(with_battery)} of {len(with_battery)}"
        f" with a battery, input and output on {len(stations - SILENT_STATIONS.keys())}"
        f" of {len(stations)} stations, solar on"
        f" {len(SOLAR - SILENT_SOLAR.keys())} of {len(SOLAR)} with an input"
    )


@pytest.mark.recorded
def test_no_recorded_value_is_outside_its_bounds():
    """Every normalized value of every recorded payload is possible, and there once."""
    count = 0
    for _, file, got in of_recordings():
        check(got)
        count += len(got)
        assert not any(name.endswith("_") for name, _, _ in got), file
    print(f"{count} values")


# Recorded pairs of values that confirm a scale or a sign: metric, and what it must be.
CONFIRMED = [
    # 40.1 V and 0.763 A.
    ("delta2/delta2max-2slaves-get_reply.json", "solar_input_power_watts", 30),
    # wattsInSum is 296, and nothing else comes in.
    ("delta/deltapro-quota-all.json", "solar_input_power_watts", 296),
    ("delta/deltamax-1slave-get_reply.json", "solar_input_power_watts", 309.2),
    # Written beside the frames by whoever recorded them.
    ("powerocean/powerocean-r374-get_all.hex", "grid_power_watts", -3770),
    ("powerocean/powerocean-r374-get_all.hex", "solar_input_power_watts", 4160),
    ("powerocean/powerocean-r374-get_all.hex", "home_power_watts", 390),
    ("shp2/shp2-pdata.hex", "home_power_watts", 677),
    ("deltapro3/deltapro3-property-frames.hex", "battery_voltage_volts", 52.46),
    ("deltapro3/deltapro3-property-frames.hex", "battery_current_amperes", -0.32),
    # All it gives comes from the sun: 99.28 and 84.8 W.
    ("stream/stream_microinverter-decoded.json", "ac_output_power_watts", 184.1),
    # 150 W of the battery and 21 W of the sun.
    ("powerstream/powerstream-quota-all.json", "ac_output_power_watts", 171),
    ("powerstream/powerstream-quota-all.json", "battery_power_watts", -150),
]


@pytest.mark.recorded
@pytest.mark.parametrize(("file", "metric", "value"), CONFIRMED)
def test_scales_and_signs_agree_with_what_else_was_recorded(file, metric, value):
    """A value is what other recorded values, or the recorder's own words, make it."""
    (got,) = [got for _, name, got in of_recordings() if name == file]

    assert named(got)[metric] == pytest.approx(value, rel=1e-6)


TARGETS = ("Battery", "Grid")
SYSTEMS = [
    *((file, "STREAM 5000") for file in FRAMES["STREAM 5000"]),
    *((file, "STREAM AC 5000") for file in FRAMES["STREAM AC 5000"]),
    ("powerocean/powerocean-hj31-pdata.hex", "PowerOcean"),
    ("powerocean/powerocean-r374-get_all.hex", "PowerOcean Plus"),
]


@pytest.mark.recorded
def test_recorded_systems_balance():
    """Sun, and what others make of it, and grid are home and battery, within 2 %."""
    count = 0
    for file, product in SYSTEMS:
        for frame in recorded_frames(file, product):
            # A meter has a moment of its own: by up to 36 W.
            quotas = {
                key: value
                for key, value in frame.quotas.items()
                if not key.startswith(("meter.", "p1Meter."))
            }
            others = sum(
                value
                for to in TARGETS
                if isinstance(value := quotas.get(f"flow.otherSolarTo{to}"), int)
            )
            got = named(read(quotas, serial(product), product))
            solar, grid, home, battery = (
                got.get(f"{part}_power_watts")
                for part in ("solar_input", "grid", "home", "battery")
            )
            if solar is None or grid is None or home is None or battery is None:
                continue
            # Half watts are rounded to whole ones, thrice.
            wanted = pytest.approx(home + battery, rel=0.02, abs=2)
            assert solar + others + grid == wanted, (file, quotas)
            count += 1
    print(f"{count} balances")
    assert count >= 20
