"""Quota maps to base units: golden maps, hostile ones, and the recorded ones.

The golden maps and what they must become were written by hand from the facts named in
each; the recorded payloads are third-party data beside the project, read from there.

python -m tests.test_normalized writes docs/normalized.md.
"""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecoflow_push.devices.normalized import (
    LONGEST_JSON,
    METRICS,
    MOST_PACKS,
    OPEN,
    PREFIXES,
    PRODUCTS,
    REASONS,
    SHAPES,
    Family,
    NormalizedSample,
    Packs,
    Row,
    family_of,
    firmware_of,
    normalized_samples,
)
from tests.models_table import RECORDED as FRAMES
from tests.support import ROOT
from tests.test_protobuf import RECORDED, recorded_frames

DOCUMENT = ROOT / "docs" / "normalized.md"
GOLDEN = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent / "fixtures/normalized").glob("*.json"))
}
COVERAGE = "## Coverage\n"

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
    "DELTA 3 Classic": ("", ["delta3/delta3classic-decoded.json"]),
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
    "RIVER 3": ("", ["river3/river3-decoded.json"]),
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
    "Smart Home Panel 3": ("", ["shp3/shp3-params.json"]),
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
    "PowerOcean DC Fit": "sources disagree which field it is",
    "RIVER Max": "the device reports voltage and current only",
    "RIVER Pro": "the device reports voltage and current only",
    "RIVER mini": "the device reports voltage and current only",
    "STREAM 5000": "its message has no public schema",
    "STREAM AC 5000": "its message has no public schema",
}


# Reading the recordings: as the developers' map has the same values


def spelled(value: Any) -> Any:
    """Return names as the developer API has them, where protobufjs kept a `_`."""
    if isinstance(value, dict):
        return {re.sub(r"_(?=\d)", "", k): spelled(v) for k, v in value.items()}
    return [spelled(item) for item in value] if isinstance(value, list) else value


# What peers called display fields before the schema was known (ecoflow-fields).
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


def of_recordings() -> Iterator[tuple[str, str, list[NormalizedSample]]]:
    """Yield model, file and what the file's map becomes."""
    for model, maps in recordings().items():
        for file, quotas in maps.items():
            yield model, file, samples(quotas, serial_of(model), model)[0]


def covered() -> dict[str, set[str]]:
    """Return the metrics that the recordings of each model give."""
    found: dict[str, set[str]] = {model: set() for model in MODELS}
    for model, _, got in of_recordings():
        found[model] |= {sample.name.removeprefix("ecoflow_") for sample in got}
    return found


def needs_recordings() -> None:
    if not RECORDED.is_dir():
        pytest.skip("no recorded payloads beside the project (../shared/payloads)")


# The document

INTRODUCTION = """\
# Normalized metrics

The same names on every model, in base units. This page is made from the program's \
table by `python -m tests.test_normalized`.

- A value that is not reported is absent; one that means "none", or that cannot be, is \
left out and counted in `ecoflow_push_skipped_values`, never corrected.
- Without the label `pack` a series is the device, or its main battery; with it, one \
battery: an extra one by number, or a pack by number or serial.
- A sum is there only if each of its parts is.
- Energies are the device's own counters; nothing is integrated.

## Metrics

| no. | metric | unit | type | between | meaning |
|---|---|---|---|---|---|"""
LEFT_OUT = f"""
| left out as | the value |
|---|---|
| `sentinel` | stands for "none" or "not known" |
| `out_of_bounds` | cannot be |
| `not_a_number` | is a text, a boolean or a list where a number should be |
| `ambiguous` | comes from several modules where one is expected |
| `odd_pack` | is that of a pack without a plain name, or beyond the {MOST_PACKS}th |

## Families

Chosen by the beginning of the serial number, else by that of the product's name, else \
by a key that only such devices have.

| family | known by |
|---|---|"""
HEAD = """\
| keys | families | scale | means "none" | certainty | source |
|---|---|---|---|---|---|"""
LEFT_OPEN = """\
Of several keys of a family the first valid one counts, in the order above. Certainty: \
A several independent sources agree, B one good source, C one claim that no recorded \
value contradicts. The sources are notes collected from public ones, which are not \
part of this repository; *recorded* means recorded payloads of that model.

## Left open

No row, because sources disagree on scale or sign, or say too little.

| family | keys | would be | why not |
|---|---|---|---|"""


def families() -> list[Family]:
    listed = [*PREFIXES.values(), *PRODUCTS.values(), *(f for _, f in SHAPES)]
    return sorted({family.name: family for family in listed}.values())


def scale_of(row: Row) -> str:
    parts = [f"* {row.times:g}"] if row.times != 1 else []
    return " ".join(parts + ([f"/ {row.over:g}"] if row.over != 1 else []))


def metric_rows(metric: str) -> Iterator[str]:
    """Yield a line for each way to a metric, with the families that go it."""
    ways: dict[tuple[str, ...], list[str]] = {}
    for family in families():
        for prefix, end, rows in (("", "", family.rows), *family.packs):
            unit = f"{prefix}{{pack}}{end}" if end else prefix
            for row in rows:
                if row.metric == metric:
                    cells = (
                        " + ".join(f"`{unit}{key}`" for key in row.keys),
                        scale_of(row),
                        ", ".join(f"{value:.0f}" for value in sorted(row.sentinels)),
                        row.certainty,
                        row.source,
                    )
                    ways.setdefault(cells, []).append(family.name)
    for (keys, *how), names in ways.items():
        yield f"| {' | '.join([keys, ', '.join(names), *how])} |"


def serials_of(family: Family) -> str:
    serials = [f"`{p}`" for p, listed in PREFIXES.items() if listed is family]
    names = [f"“{p}”" for p, listed in PRODUCTS.items() if listed is family]
    keys = [f"`{key}`" for key, listed in SHAPES if listed is family]
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


def reference() -> str:
    """Return the document without its coverage."""
    lines = [INTRODUCTION]
    for number, (name, metric) in enumerate(METRICS.items(), 1):
        kind = "counter" if name.endswith("_total") else "gauge"
        meaning = metric.help.partition(" From ")[0]
        bounds = f"{metric.low:.10g} and {metric.high:.10g}"
        lines.append(
            f"| {number} | `ecoflow_{name}` | {metric.unit} | {kind} | {bounds} |"
            f" {meaning} |"
        )
    lines += [LEFT_OUT]
    for family in families():
        lines.append(f"| {family.name} | {serials_of(family)} |")
    lines += ["", "## Keys", ""]
    for name, metric in METRICS.items():
        lines += [f"### ecoflow_{name}", "", metric.help, "", HEAD, *metric_rows(name)]
        lines.append("")
    lines.append(LEFT_OPEN)
    lines += [
        f"| {row.family} | {row.keys} | {row.metric} | {row.why} |" for row in OPEN
    ]
    return "\n".join([*lines, "", ""])


def coverage() -> str:
    """Return the table of the recorded payloads, model by metric."""
    found = covered()
    numbers = [str(number) for number in range(1, len(METRICS) + 1)]
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
        cells = ["x" if name in found[model] else "" for name in METRICS]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    counts = [str(sum(name in got for got in found.values())) for name in METRICS]
    lines += [f"| models | {' | '.join(counts)} |", ""]
    for title, listed in (
        ("Power stations without input and output power", SILENT_STATIONS),
        ("Models with a solar input without its power", SILENT_SOLAR),
    ):
        reasons = [f"{model} ({why})" for model, why in listed.items()]
        lines += [f"{title}: {'; '.join(reasons)}.", ""]
    return "\n".join(lines)


def document() -> str:
    return f"{reference()}{COVERAGE}\n{coverage()}"


# Golden maps


def samples(
    quotas: Mapping[str, object], sn: str, product: str = ""
) -> tuple[list[NormalizedSample], Counter[str]]:
    return normalized_samples(quotas, sn, product, "ecoflow")


def named(got: list[NormalizedSample]) -> dict[str, float]:
    """Return values by metric, with what tells them apart."""
    return {
        " ".join(
            [name.removeprefix("ecoflow_"), *(f"{k}={v}" for k, v in labels.items())]
        ): value
        for name, labels, value in got
    }


@pytest.mark.parametrize("model", GOLDEN)
def test_golden_maps_become_what_was_written_by_hand(model):
    """The normalized values of a map are those worked out from the facts, all told."""
    golden = GOLDEN[model]

    got, left_out = samples(golden["quotas"], golden["sn"], golden["product"])

    family = family_of(golden["sn"], golden["product"], golden["quotas"])
    assert family.name == golden["family"]
    assert named(got) == pytest.approx(golden["expected"], rel=1e-12, abs=0)
    assert dict(left_out) == golden["left_out"]
    assert firmware_of(golden["quotas"], family) == golden["firmware"]


def test_the_golden_maps_are_of_many_families():
    """At least 12 models of at least 8 families have a golden map."""
    assert len({golden["product"] for golden in GOLDEN.values()}) >= 12
    assert len({golden["family"] for golden in GOLDEN.values()}) >= 8


DELTA_2 = "R331ZFAKE0000001"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (5939, "sentinel"),
        (5999, "sentinel"),
        (143999, "sentinel"),
        (5939.0, "sentinel"),
        (143998, ""),
        (0, ""),
        (-1, "out_of_bounds"),
        (144000, "out_of_bounds"),
        (float("nan"), "out_of_bounds"),
        (float("inf"), "out_of_bounds"),
        (10**400, "out_of_bounds"),
        (-(10**400), "out_of_bounds"),
        ("12", "not_a_number"),
        (True, "not_a_number"),
        ([1], "not_a_number"),
    ],
)
def test_what_cannot_be_is_left_out_and_counted(value, reason):
    """A sentinel, an impossible number or no number gives no sample, and a count."""
    got, left_out = samples({"bms_emsStatus.chgRemainTime": value}, DELTA_2)

    assert bool(got) == (not reason)
    assert dict(left_out) == ({reason: 1} if reason else {})


def test_null_is_absent():
    """A null gives no sample and is not counted; the raw metrics count it."""
    assert samples({"pd.wattsInSum": None}, DELTA_2) == ([], Counter())


def test_nothing_is_negative_zero():
    """A zero of a reversed sign is plain zero."""
    ((_, _, value),) = samples({"powGetAcOut": 0.0}, "P351ZFAKE0000001")[0]

    assert str(value) == "0.0"


def test_the_next_best_key_stands_in():
    """Where the better key is impossible the next one counts, and only there."""
    keys = "bms_emsStatus.f32LcdShowSoc", "bms_emsStatus.lcdShowSoc"

    first, none = samples(dict(zip(keys, (50, 49), strict=True)), DELTA_2)
    second, counted = samples(dict(zip(keys, (101, 49), strict=True)), DELTA_2)

    assert named(first) == {"battery_charge_ratio": 0.5}
    assert named(second) == {"battery_charge_ratio": 0.49}
    assert (dict(none), dict(counted)) == ({}, {"out_of_bounds": 1})


def test_none_is_an_answer():
    """Where the better key says that there is no such time, no other is asked."""
    got, _ = samples({"cmsChgRemTime": 5939, "v1p0.chgRemainTime": 1833}, "P351")

    assert got == []


@pytest.mark.parametrize(
    ("sn", "quotas", "switch"),
    [
        (
            "R374ZFAKE0000001",
            {"ems_change_report.bpSoc": 0, "mpptPwr": 500.0},
            "ems_change_report.bpOnlineSum",
        ),
        (
            "HW51ZFAKE0000001",
            {
                "20_1.batSoc": 0,
                "20_1.batTemp": 0,
                "20_1.pv1InputWatts": 5000,
                "20_1.pv2InputWatts": 0,
            },
            "20_1.batInputVolt",
        ),
    ],
)
def test_no_battery_is_not_an_empty_one(sn, quotas, switch):
    """A device that says it has no battery has no charge, and its solar power."""
    without, _ = samples(quotas | {switch: 0}, sn)
    with_one, _ = samples(quotas | {switch: 500}, sn)

    assert named(without) == {"solar_input_power_watts": 500}
    assert named(with_one)["battery_charge_ratio"] == 0


def test_a_family_is_told_by_what_lies_deeper_too():
    """Where serial and product say nothing, the keys of an inner map do."""
    assert family_of("ZZ99", "", {"20_1": {"batSoc": 50}}).name == "PowerStream"


@pytest.mark.parametrize("missing", ["powGetPv", "powGetPv2"])
@pytest.mark.parametrize("value", [None, -1, "x"])
def test_a_sum_needs_all_its_parts(missing, value):
    """With a part absent or impossible there is no sum, whatever the others are."""
    parts: dict[str, object] = {"powGetPv": 100, "powGetPv2": 50}
    del parts[missing]

    absent, _ = samples(parts, "P351ZFAKE0000001")
    impossible, _ = samples(parts | {missing: value}, "P351ZFAKE0000001")

    assert absent == impossible == []


def test_parts_cannot_make_up_for_each_other():
    """Two impossible parts do not add up to a possible sum."""
    quotas = {"powGetPv": 1e9, "powGetPv2": -1e9 + 100}

    assert samples(quotas, "P351ZFAKE0000001") == ([], Counter(out_of_bounds=1))


@pytest.mark.parametrize(
    ("sn", "product", "family"),
    [
        ("R331ZFAKE0000001", "DELTA Pro", "DELTA 2"),
        ("DCABZFAKE0000001", "", "DELTA Pro"),
        ("HJ3CZFAKE0000001", "", "PowerOcean"),
        ("HJ39ZFAKE0000001", "", "PowerOcean"),
        ("ZZ99ZFAKE0000001", "DELTA 2 Max", "DELTA 2 Max"),
        ("ZZ99ZFAKE0000001", "delta 3 plus", "DELTA 3"),
        ("ZZ99ZFAKE0000001", "DELTA 3 Max Plus", "DELTA 3 Max"),
        ("ZZ99ZFAKE0000001", "DELTA Pro 3", "DELTA Pro 3"),
        ("ZZ99ZFAKE0000001", "DELTA Pro Ultra X", "DELTA Pro Ultra X"),
        ("ZZ99ZFAKE0000001", "GLACIER Classic", "GLACIER Classic"),
        ("ZZ99ZFAKE0000001", "PowerOcean DC Fit", "PowerOcean DC Fit"),
        ("ZZ99ZFAKE0000001", "Smart Home Panel 2", "Smart Home Panel 2"),
        ("ZZ99ZFAKE0000001", "STREAM Microinverter", "STREAM Microinverter"),
        ("", "", "unknown"),
    ],
)
def test_the_serial_comes_before_the_product(sn, product, family):
    """A known serial decides, else the longest beginning of the product's name."""
    assert family_of(sn, product).name == family


@pytest.mark.parametrize(("key", "family"), SHAPES)
def test_an_unknown_device_is_known_by_its_keys(key, family):
    """Where serial and product say nothing, a key of one kind alone decides."""
    got, _ = samples({key: 50}, "ZZ99ZFAKE0000001", "Unknown")

    assert family_of("ZZ99", "Unknown", {key: 50}) is family
    assert family_of("ZZ99", "Unknown", {"odd": 50}).name == "unknown"
    assert all(sample.name.startswith("ecoflow_") for sample in got)


def test_a_device_of_no_known_kind_says_nothing():
    """No family, no samples: a bare key of another product is not guessed at."""
    assert samples({"vol": 52000, "soc": 5}, "ZZ99", "Toaster") == ([], Counter())


@pytest.mark.parametrize(
    "key", ["bp_addr.", "bp_addr.a b", "bp_addr.é", f"bp_addr.{'A' * 65}", 'bp_addr.a"']
)
def test_a_pack_without_a_plain_name_is_left_out(key):
    """A pack's name becomes a label only if it is a number or a serial."""
    got, left_out = samples({f"{key}.bpSoc": 50}, "HJ31ZFAKE0000001")

    assert (got, dict(left_out)) == ([], {"odd_pack": 1})


def test_packs_are_bounded():
    """Of more packs than any device has only the first count."""
    quotas = {f"bms[{n}].soc": 50 for n in range(MOST_PACKS + 6)}

    got, left_out = samples(quotas, "MR51ZFAKE0000001")

    assert len(got) == MOST_PACKS
    assert dict(left_out) == {"odd_pack": 6}


def test_one_pack_told_of_twice_is_there_once():
    """Of two reports of one pack the flatter, or first, counts in any order."""
    once = {"bms_slave_bmsSlaveStatus_1.soc": 40, "bms_slave.soc": 50}
    deep = {"bp_addr": {"A": {"bpSoc": 40}}, "bp_addr.A": {"bpSoc": 50}}

    for quotas, sn, name, value in (
        (once, DELTA_2, "battery_charge_ratio pack=1", 0.4),
        (deep, "HJ31ZFAKE0000001", "battery_charge_ratio pack=A", 0.5),
    ):
        for either in (quotas, dict(reversed(quotas.items()))):
            assert named(samples(either, sn)[0]) == {name: value}


@pytest.mark.parametrize(
    "text", ["{", '{"a": NaN}', '{"a":' * 3000, "{" + " " * LONGEST_JSON + "}", "{}"]
)
def test_odd_texts_say_nothing(text):
    """A text that is no JSON, too deep or too long is passed over."""
    quotas = {"bp_addr.A1": text, "bpSoc": 40}

    got, _ = samples(quotas, "HJ31ZFAKE0000001")

    assert named(got) == {"battery_charge_ratio": 0.4}


@pytest.mark.parametrize(
    ("value", "firmware"),
    [
        (16908607, "1.2.1.63"),
        (0, ""),
        (-1, ""),
        (2**32, ""),
        (True, ""),
        ("1.2", ""),
        (1.5, ""),
    ],
)
def test_the_firmware_is_four_bytes_or_unknown(value, firmware):
    """A version is its four bytes from the left; what is none stays unknown."""
    assert firmware_of({"pd.sysVer": value}, PREFIXES["R33"]) == firmware


# The tables


def test_every_row_is_one_of_a_known_metric_with_source_and_certainty():
    """Rows name a metric, at least one key, a source and a certainty; none is twice."""
    for family in families():
        for packs in (Packs("", "", family.rows), *family.packs):
            rows = packs.rows
            assert len({(row.metric, row.keys) for row in rows}) == len(rows)
            for row in rows:
                assert row.metric in METRICS
                assert row.keys
                assert all(row.keys)
                assert row.source
                assert row.certainty in ("A", "B", "C")
                assert row.over > 0


def test_no_open_key_has_a_row_for_what_is_open():
    """What is listed as open is not answered by a row of the same family."""
    by_name = {family.name: family for family in families()}
    for row in OPEN:
        for name in row.family.split(", "):
            family = by_name.get(name)
            keys = set(row.keys.split(", "))
            metrics = set(row.metric.split(", "))
            for listed in family.rows if family else ():
                assert not (keys & set(listed.keys) and listed.metric in metrics)


def test_longer_product_names_come_first():
    """No beginning of a product's name hides a longer one behind it."""
    names = list(PRODUCTS)
    for place, name in enumerate(names):
        assert not any(later.startswith(name) for later in names[place + 1 :])


def test_names_tell_their_units():
    """A name ends in its unit as Prometheus wants it, a counter's in _total."""
    endings = {
        "ratio": "_ratio",
        "volts": "_volts",
        "amperes": "_amperes",
        "watts": "_watts",
        "celsius": "_celsius",
        "seconds": "_seconds",
        "1": "_cycles",
        "ampere hours": "_ampere_hours",
        "watt hours": "_watt_hours",
    }
    for name, metric in METRICS.items():
        assert name.removesuffix("_total").endswith(endings[metric.unit])
        assert name.endswith("_total") == ("_energy_watt_hours_" in name)
        assert metric.low < metric.high
        assert metric.help.endswith(".")
        assert " From " in metric.help


def test_the_document_is_up_to_date():
    """docs/normalized.md is what the tables and the recorded payloads say."""
    text = DOCUMENT.read_text()

    assert text.partition(COVERAGE)[0] == reference()
    if RECORDED.is_dir():
        assert text == document()


# Recorded payloads


def test_every_recorded_payload_with_quotas_is_read():
    """No recorded payload is forgotten, but for what is no quota map of a device."""
    needs_recordings()
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


def test_the_recorded_payloads_are_covered():
    """Charge, input and output, and solar power are there where they are reported."""
    needs_recordings()
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


def test_no_recorded_value_is_outside_its_bounds():
    """Every normalized value of every recorded payload is possible, and there once."""
    needs_recordings()
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


@pytest.mark.parametrize(("file", "metric", "value"), CONFIRMED)
def test_scales_and_signs_agree_with_what_else_was_recorded(file, metric, value):
    """A value is what other recorded values, or the recorder's own words, make it."""
    needs_recordings()
    (got,) = [got for _, name, got in of_recordings() if name == file]

    assert named(got)[metric] == pytest.approx(value, rel=1e-6)


# Hostile maps


def check(got: list[NormalizedSample]) -> None:
    places = [(name, tuple(labels.items())) for name, labels, _ in got]
    assert len(set(places)) == len(places)
    for name, labels, value in got:
        metric = METRICS[name.removeprefix("ecoflow_")]
        assert metric.low <= value <= metric.high, name
        assert type(value) is float
        assert set(labels) <= {"pack"}
        assert all(
            re.fullmatch(r"[A-Za-z0-9_-]{1,64}", pack) for pack in labels.values()
        )


NUMBERS = (
    st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from([5939, 65535, 4294967295, -127, 0, 100, 53000, 10**400, 1e-40])
)
INNER = ["soc", "vol", "A1", "pv1InWatts", "x.y"]
VALUES = st.recursive(
    NUMBERS | st.booleans() | st.none() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(INNER), inner)
        | st.dictionaries(st.text(max_size=6), inner, max_size=3).map(json.dumps)
    ),
    max_leaves=8,
)
KEYS = sorted(
    {
        (f"{packs.prefix}1{packs.end}" if packs.end else packs.prefix) + key
        for family in families()
        for packs in (Packs("", "", family.rows), *family.packs)
        for row in packs.rows
        for key in row.keys
    }
    | {"bp_addr", "bmsTotal", "kitscc", "displayStatisticsSum.listInfo", "bms[", "20_1"}
)
SERIALS = st.sampled_from([f"{p}ZFAKE00001" for p in [*PREFIXES, "ZZ99"]] + [""])
NAMES = st.sampled_from([*PRODUCTS, "Unknown", ""]) | st.text(max_size=5)


@given(st.sampled_from(sorted(GOLDEN)), st.data())
@settings(max_examples=300, deadline=None)
def test_no_mutated_map_gives_an_impossible_value(model, data):
    """A good map with any values changed gives only possible values, in any order."""
    golden = GOLDEN[model]
    quotas = copy.deepcopy(golden["quotas"])
    quotas |= data.draw(st.dictionaries(st.sampled_from(sorted(quotas)), VALUES))
    quotas |= data.draw(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
    before = copy.deepcopy(quotas)

    got, left_out = samples(quotas, golden["sn"], golden["product"])

    check(got)
    assert set(left_out) <= set(REASONS)
    backwards = dict(reversed(quotas.items()))
    assert samples(backwards, golden["sn"], golden["product"])[0] == got
    assert repr(quotas) == repr(before)


@given(
    st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=20), VALUES, max_size=12),
    SERIALS,
    NAMES,
)
@settings(max_examples=300, deadline=None)
def test_no_map_of_any_device_raises(quotas, sn, product):
    """Any map of any device is read without an exception, to possible values."""
    got, left_out = samples(quotas, sn, product)

    check(got)
    assert all(count > 0 for count in left_out.values())


def test_a_huge_map_is_bounded():
    """Deep, wide and long maps are read, and bounded."""
    deep: dict[str, Any] = {"bpSoc": 1}
    for _ in range(500):
        deep = {"A": deep}
    wide = {f"A{n}": {"bpSoc": 50} for n in range(20_000)}

    got, left_out = samples({"bp_addr": wide, "x": deep}, "HJ31ZFAKE0000001")

    check(got)
    assert len(got) <= MOST_PACKS
    assert left_out["odd_pack"] > 1000


if __name__ == "__main__":
    DOCUMENT.write_text(document())
