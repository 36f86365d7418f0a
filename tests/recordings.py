"""The recorded quota maps, by model: third-party data beside the project."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from ecoflow_push.devices.normalized import NormalizedSample, normalized_samples
from ecoflow_push.metrics.names import raw_samples
from tests.frames import RECORDED, recorded_frames
from tests.models_table import DECODED
from tests.models_table import RECORDED as FRAMES

# Recorded payloads by model, with the beginning of a serial where one is sure.
MODELS: dict[str, tuple[str, list[str]]] = {
    "Alternator Charger": (
        "F371",
        ["alternator/alternator-decoded.json", "alternator/alternator-frames.hex"],
    ),
    "BLADE": ("H101", ["blade/blade-get_reply.json"]),
    "DELTA 2": (
        "R331",
        [
            "delta2/delta2-get_reply-b.json",
            "delta2/delta2-get_reply.json",
            "delta2/delta2-quota-all.json",
        ],
    ),
    "DELTA 2 Max": (
        "R351",
        [
            "delta2/delta2max-2slaves-get_reply.json",
            "delta2/delta2max-2slaves-quota-excerpt.json",
            "delta2/delta2max-get_reply-b.json",
            "delta2/delta2max-get_reply.json",
        ],
    ),
    "DELTA 3": (
        "P231",
        [
            "delta3/delta3-decoded-b.json",
            "delta3/delta3-decoded.json",
            "delta3/delta3-p231-frame.hex",
            "delta3/delta3-params-flat-b.json",
        ],
    ),
    "DELTA 3 Classic": ("P321", ["delta3/delta3classic-decoded.json"]),
    "DELTA 3 Max Plus": (
        "D3M1",
        ["delta3/delta3maxplus-decoded.json", "delta3/delta3maxplus-pdata.hex"],
    ),
    "DELTA 3 Plus": ("P351", ["delta3/delta3plus-decoded.json"]),
    "DELTA Max": (
        "DAEB",
        [
            "delta/deltamax-1slave-get_reply.json",
            "delta/deltamax-get_reply.json",
            "delta/deltamax-mppt-push.json",
            "delta/deltamax-oldfw-get_reply.json",
        ],
    ),
    "DELTA Pro": (
        "DCEB",
        [
            "delta/deltapro-2slaves-get_reply.json",
            "delta/deltapro-ems-push.json",
            "delta/deltapro-params.json",
            "delta/deltapro-quota-all.json",
        ],
    ),
    "DELTA Pro 3": (
        "MR51",
        [
            "deltapro3/deltapro3-decoded.json",
            "deltapro3/deltapro3-property-frames.hex",
        ],
    ),
    "DELTA Pro Ultra": (
        "Y711",
        [
            "deltaproultra/deltaproultra-decoded.json",
            "deltaproultra/deltaproultra-quota-excerpt.json",
            "deltaproultra/dpu-pdata.hex",
        ],
    ),
    "DELTA Pro Ultra X": ("P101", ["deltaproultra/deltaproultrax-params.json"]),
    "DELTA mini": (
        "DBAB",
        ["delta/deltamini-get_reply.json", "delta/deltamini-pushes.json"],
    ),
    "GLACIER": (
        "BX11",
        ["glacier/glacier-get_reply.json", "glacier/glacier-push.json"],
    ),
    "GLACIER Classic": ("RF45", ["glacier/glacier_classic-decoded.json"]),
    "Power Kits": (
        "M101",
        [
            "powerkit/powerkit-get_reply-jsonstrings.json",
            "powerkit/powerkit-quota-all.json",
        ],
    ),
    "PowerOcean": (
        "HJ31",
        [
            "powerocean/powerglow-quota.json",
            "powerocean/powerocean-app-detail.json",
            "powerocean/powerocean-decoded.json",
            "powerocean/powerocean-dual-app-detail.json",
            "powerocean/powerocean-hj31-pdata.hex",
            "powerocean/powerocean-j327-frames.hex",
        ],
    ),
    "PowerOcean DC Fit": (
        "HC31",
        [
            "powerocean/poweroceandcfit-app-detail.json",
            "powerocean/poweroceandcfit-decoded.json",
        ],
    ),
    "PowerOcean Plus": (
        "R371",
        [
            "powerocean/powerocean-r374-get_all.hex",
            "powerocean/poweroceanplus-app-detail-b.json",
            "powerocean/poweroceanplus-app-detail.json",
            "powerocean/poweroceanplus-decoded.json",
        ],
    ),
    "PowerStream": (
        "HW51",
        [
            "powerstream/powerstream-decoded-b.json",
            "powerstream/powerstream-open-params.json",
            "powerstream/powerstream-quota-all.json",
            "powerstream/powerstream-short-frame.hex",
            "powerstream/powerstream800-decoded.json",
        ],
    ),
    "RAPID Pro Desktop Charger": ("P521", ["charger/rapidpro320-decoded.json"]),
    "RIVER 2 Max": ("R611", ["river2/river2max-get_reply.json"]),
    "RIVER 2 Pro": ("R621", ["river2/river2pro-get_reply.json"]),
    "RIVER 3": ("R655", ["river3/river3-decoded.json"]),
    "RIVER 3 Plus": (
        "",
        [
            "river3/river3plus-bms-pdata.hex",
            "river3/river3plus-cms-pdata.hex",
            "river3/river3plus-decoded.json",
        ],
    ),
    "RIVER Max": (
        "",
        [
            "river/rivermax-merged.json",
            "river/rivermax-params.json",
            "river/rivermax-push.json",
            "river/rivermax-pushes.json",
        ],
    ),
    "RIVER Pro": ("", ["river/riverpro-get_reply.json", "river/riverpro-params.json"]),
    "RIVER mini": (
        "",
        ["river/rivermini-get_reply.json", "river/rivermini-pushes.json"],
    ),
    "STREAM 5000": (
        "ES21",
        ["stream5000/es21-frames.hex", "stream5000/es21-pv-frames.hex"],
    ),
    "STREAM AC": ("BK51", ["stream/stream_ac-decoded.json"]),
    "STREAM AC 5000": (
        "ES22",
        ["stream5000/es22-push-frames.hex", "stream5000/es22-task-frames.hex"],
    ),
    "STREAM AC Pro": ("BK31", ["stream/stream_ac_pro-decoded.json"]),
    "STREAM Microinverter": (
        "BK01",
        [
            "stream/stream_microinverter-bk01-frames.hex",
            "stream/stream_microinverter-decoded.json",
        ],
    ),
    "STREAM Ultra": ("BK11", ["stream/stream_ultra-decoded.json"]),
    "STREAM Ultra X": ("BK61", ["stream/stream_ultra_x-decoded.json"]),
    "Smart Home Panel": (
        "SP10",
        [
            "shp/shp1-get_reply.json",
            "shp/shp1-open-params.json",
            "shp/shp1-quota-all.json",
        ],
    ),
    "Smart Home Panel 2": ("HD31", ["shp2/shp2-decoded.json", "shp2/shp2-pdata.hex"]),
    "Smart Home Panel 3": ("HR65", ["shp3/shp3-params.json"]),
    "Smart Meter": ("BK21", ["smartmeter/smartmeter-decoded.json"]),
    "Smart Plug": (
        "HW52",
        [
            "smartplug/smartplug-decoded.json",
            "smartplug/smartplug-quota-all.json",
            "smartplug/smartplug-quota-subset.json",
        ],
    ),
    "WAVE 2": ("KT21", ["wave/wave2-get_reply.json", "wave/wave2-pushes.json"]),
    "WAVE 3": ("AC71", ["wave/wave3-decoded.json"]),
}
NO_BATTERY = {"Smart Meter", "Smart Plug", "STREAM Microinverter"}
# Power stations, and devices with a solar input, that do not say their power.
ONLY_BATTERY = "the one recording is a battery's report"
SILENT_STATIONS = {"DELTA 3 Classic": ONLY_BATTERY}
SOLAR = {
    model
    for model in MODELS
    if model.startswith(("DELTA", "RIVER", "STREAM", "PowerOcean", "WAVE"))
} | {"Power Kits", "PowerStream"}
SILENT_SOLAR = {
    "DELTA 3 Classic": ONLY_BATTERY,
    "DELTA Pro Ultra X": "the one recording has no key of it",
    "RIVER Max": "the device reports voltage and current only",
    "RIVER Pro": "the device reports voltage and current only",
    "RIVER mini": "the device reports voltage and current only",
}


# Reading the recordings: as the developers' map has the same values


def spelled(value: Any) -> Any:
    """Return names as the developer API has them, where protobufjs kept a `_`."""
    if isinstance(value, dict):
        return {re.sub(r"_(?=\d)", "", k): spelled(v) for k, v in value.items()}
    return [spelled(item) for item in value] if isinstance(value, list) else value


# What peers called display fields before the schema was known
# (protocol/binary.md#names).
RENAMED = {"totalPower": "powGetSysGrid", "batTemp102": "cmsBattTemp"}
SHOWN = "hs_yj751_pd_"
REPORTS = {
    "AppParaHeartbeatReport": f"{SHOWN}app_set_info_addr.",
    "AppShowHeartbeatReport": f"{SHOWN}appshow_addr.",
    "BMSHeartBeatReport": "",
    "BMSHeartBeatReport1": "bms[1].",
    "BackendRecordHeartbeatReport": f"{SHOWN}backend_addr.",
    "CMSHeartBeatReport": "",
    "DisplayPropertyUpload": "",
    "EMSHeartbeatReport": "",
    "EMS_CHANGE_REPORT": "ems_change_report.",
    "EMS_HEARTBEAT": "",
    "EMS_PARAM_CHANGE_REPORT": "ems_param_change_report.",
    "EMS_STATE_CHANGE_REPORT": "ems_change_report.",
    "ENERGY_STREAM_REPORT": "",
    "EnergyStreamItem": "",
    "ProtoPushAndSet": "pd303_mc.",
    "ProtoTimeStat": "",
    "RuntimePropertyUpload": "",
    "inverter_heartbeat": "20_1.",
    "plug_heartbeat": "2_1.",
}


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, dict):
            found |= flat(inner, f"{prefix}{name}.")
        else:
            found[prefix + RENAMED.get(name, name)] = inner
    return found


def of_reports(reports: Mapping[str, Any]) -> dict[str, Any]:
    """Return one quota map of what a peer keeps by report."""
    found: dict[str, Any] = {}
    for name, report in reports.items():
        name = name.partition("_")[2] if name.startswith("JTS1_") else name  # noqa: PLW2901
        if name == "BPInfoReport":
            for pack in report["bpInfo"]:
                found |= flat(pack, f"hs_yj751_bms_slave_addr.{pack['bpNo']}.")
        elif name == "BP_STA_REPORT":
            listed = report.get("bpSta", report)
            packs = enumerate(listed) if isinstance(listed, list) else listed.items()
            found |= {f"bp_addr.{sn}": pack for sn, pack in packs if sn != ""}
        elif name in REPORTS:
            found |= flat(report, REPORTS[name])
    return found


def recorded_map(file: str, model: str) -> dict[str, Any]:
    """Return a recorded payload as one quota map."""
    if file.endswith(".hex"):
        product = next((p for p, files in FRAMES.items() if file in files), model)
        quotas: dict[str, Any] = {}
        for frame in recorded_frames(file, product):
            quotas |= frame.quotas
        return quotas
    content = json.loads((RECORDED / file).read_text())
    if isinstance(content, list):
        merged = [m.get("params") or flat(spelled(m)) for m in content]
        return {key: value for part in merged for key, value in part.items()}
    if "-decoded" in file:
        return of_reports(spelled(content))
    for member in ("data", "quotaMap", "params", "data"):
        inner = content.get(member)
        content = inner if isinstance(inner, dict) else content
    if "quota" in content:
        content = of_reports(content["quota"])
    elif file == "river/rivermax-merged.json":
        content = {k: value for part in content.values() for k, value in part.items()}
    elif file.endswith(("deltaproultrax-params.json", "shp3-params.json")):
        content = {
            re.sub("_(.)", lambda m: m[1].upper(), k): v for k, v in content.items()
        }
    assert isinstance(content, dict)
    return content


@cache
def recordings() -> dict[str, dict[str, dict[str, Any]]]:
    """Return every recorded quota map, by model and file."""
    return {
        model: {file: recorded_map(file, model) for file in files}
        for model, (_, files) in MODELS.items()
    }


def serial_of(model: str) -> str:
    return f"{MODELS[model][0] or 'ZZ99'}ZFAKE0000001"


def read(quotas: dict[str, Any], sn: str, model: str) -> list[NormalizedSample]:
    return normalized_samples(quotas, sn, model, "ecoflow")[0]


def of_recordings() -> Iterator[tuple[str, str, list[NormalizedSample]]]:
    """Yield model, file and what the file's map becomes."""
    for model, maps in recordings().items():
        for file, quotas in maps.items():
            yield model, file, read(quotas, serial_of(model), model)


def covered() -> dict[str, set[str]]:
    """Return the metrics that the recordings of each model give."""
    found: dict[str, set[str]] = {model: set() for model in MODELS}
    for model, _, got in of_recordings():
        found[model] |= {name.removeprefix("ecoflow_") for name, _, _ in got}
    return found


def way_of(file: str) -> str:
    """Say whether developer keys or the app account gave a recording."""
    return "keys" if re.search("quota|open-params", file) else "app"


def recorded_lines() -> str:
    """Return tests/fixtures/recorded.tsv: how much was recorded of each model."""
    files: dict[tuple[str, str], set[str]] = {}
    for model, (_, listed) in MODELS.items():
        for file in listed:
            files.setdefault((model, way_of(file)), set()).add(file)
    known = {file for listed in files.values() for file in listed}
    for listing in (FRAMES, DECODED):
        for product, more in listing.items():
            for file in {*more} - known:
                name = "RIVER 3 Plus" if product == "Unknown" else product
                files.setdefault((name, way_of(file)), set()).add(file)
    lines = [
        "# What the recorded payloads of each model have: python -m tests.models_given",
        "# model\tserial\tway\trecordings\traw names\tnormalized metrics",
    ]
    for (model, way), own in sorted(files.items()):
        raw: set[str] = set()
        metrics: set[str] = set()
        serial = MODELS[model][0] if model in MODELS else ""
        for file in own:
            if file in MODELS.get(model, ("", []))[1]:
                quotas = recordings()[model][file]
                raw |= {each[0] for each in raw_samples(quotas, "", frozenset())[0]}
                found = read(quotas, serial_of(model), model)
                metrics |= {each[0].removeprefix("ecoflow_") for each in found}
        cells = (model, serial or "-", way, str(len(own)), str(len(raw)))
        lines.append("\t".join((*cells, " ".join(sorted(metrics)) or "-")))
    return "\n".join(lines) + "\n"
