"""Every recording and every case from the field, held against every alert."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from ecoflow_push.devices.normalized import family_of
from ecoflow_push.simulator.cloud import SimulatedDevice
from tests.dashboard import rules
from tests.frames import decode
from tests.recordings import MODELS, recordings
from tests.support import SHARED, eventually, prometheus, push
from tests.test_dashboard_values import ask, configuration

VOLTAGE = "ac_input_voltage_volts"
CASES = SHARED / "cases"
# What an alert may say of which map, and the key that says it there: percent, and °C.
JUSTIFIED: dict[str, dict[str, tuple[str, float]]] = {
    "EcoflowBatteryLow": {
        "delta2/delta2max-get_reply-b.json": ("bms_bmsStatus.f32ShowSoc", 9.5),
        "delta/deltamax-get_reply.json": ("pd.soc", 0),
        "delta/deltapro-ems-push.json": ("ems.f32LcdShowSoc", 17.609001),
        "deltapro3/deltapro3-decoded.json": ("cmsBattSoc", 8.928750038146973),
        "powerocean/powerocean-app-detail.json": ("bpSoc", 5),
        "powerocean/poweroceanplus-decoded.json": ("bpSoc", 9),
        "stream/stream_ac-decoded.json": ("bmsBattSoc", 11),
        "stream/stream_ac_pro-decoded.json": ("bmsBattSoc", 11),
        "stream/stream_ultra-decoded.json": ("v1p0.lcdShowSoc", 8),
        "wave/wave2-get_reply.json": ("bms.f32ShowSoc", 1.0),
        "dpux-charging.json": ("cmsBattSoc", 9.0),
    },
    # Each had 230 V before.
    "EcoflowGridLost": {
        "delta2/delta2-quota-all.json": ("inv.acInVol", 0),
        "delta3/delta3plus-decoded.json": ("plugInInfoAcInVol", 7.427235126495361),
        "river/riverpro-get_reply.json": ("inv.invInVol", 0),
        "river2/river2max-get_reply.json": ("inv.acInVol", 0),
    },
    "EcoflowBatteryHot": {"stream5000/es21-pv-frames.hex": ("maxCellTemp", 46)},
}


def recorded_fleet() -> Iterator[tuple[str, SimulatedDevice]]:
    """Yield a device of each recorded map, its file's name and serial its own."""
    number = 0
    for model, maps in recordings().items():
        for file, quotas in maps.items():
            number += 1
            sn = f"{(MODELS[model][0] or 'ZZ99')[:4]:X<4}ZREC{number:08}"
            yield file, SimulatedDevice(sn, quotas, file, model)


def case_fleet() -> Iterator[tuple[str, SimulatedDevice]]:
    """Yield a device of each case."""
    with (CASES / "INDEX.tsv").open() as index:
        for row in csv.DictReader(index, delimiter="\t"):
            file, sn, product = row["file"], row["sn"], row["productName"]
            text = (CASES / file).read_text()
            quotas: dict[str, Any] = {}
            if file.endswith(".json"):
                content = json.loads(text)
                quotas = content.get("quotas", content)
            else:
                for line in text.splitlines():
                    quotas |= decode(bytes.fromhex(line), sn).quotas
            yield file, SimulatedDevice(sn, quotas, file, product.strip("-"))


def on_the_mains(device: SimulatedDevice) -> SimulatedDevice:
    """Return a device as it may have been before: its mains at 230 V, if it tells."""
    quotas = dict(device.quotas or {})
    family = family_of(device.sn, device.product_name or "", quotas)
    for row in family.rows:
        if row.metric == VOLTAGE and row.keys[0] in quotas:
            quotas[row.keys[0]] = round(230 / (row.times / row.over))
    return replace(device, quotas=quotas)


@pytest.mark.recorded
def test_no_alert_speaks_of_what_no_data_say(environ, cloud, tmp_path):
    """Each is low, hot or without mains only where its own map says so."""
    for name in ("METRICS_SET", "PUSHGATEWAY_URL"):
        del environ[name]
    fleet = {
        file: device
        for file, device in (*recorded_fleet(), *case_fleet())
        if device.quotas
    }
    cloud.devices[:] = map(on_the_mains, fleet.values())
    place = tmp_path / "server"
    # A Pushgateway looks at all that it holds with each device of such a fleet.
    with prometheus(place, config=configuration(place, "")) as database:
        environ["REMOTE_WRITE_URL"] = database.write_url
        assert push(environ).status == 0
        assert eventually(
            lambda: len(ask(database, "device:ecoflow_fresh")) == len(fleet)
        )
        cloud.devices[:] = fleet.values()
        assert push(environ).status == 0
        # The run's own group is pushed last.
        assert eventually(lambda: ask(database, "ecoflow_push_runs_total == 2"))
        found = {
            rule["alert"]: {
                row["metric"].get("device_name") for row in ask(database, rule["expr"])
            }
            for rule in rules()
            if "alert" in rule
        }

    assert {name: files for name, files in found.items() if files} == {
        name: set(files) for name, files in JUSTIFIED.items()
    }
    for files in JUSTIFIED.values():
        for file, (key, value) in files.items():
            assert (fleet[file].quotas or {})[key] == value
