"""Quota maps to a real gateway and a real Prometheus, value by value.

The recorded payloads are third-party data beside the project, read from there; our
own small fixtures have the same shapes and always run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import inflection
import pytest

from ecoflow_push.metrics.names import raw_samples
from ecoflow_push.metrics.own import RESERVED_NAMES
from ecoflow_push.simulator.cloud import SimulatedDevice
from tests.support import (
    SHARED,
    Series,
    eventually,
    fetch,
    free_port,
    push_anew,
    running,
    strip,
    values,
)

RECORDED = SHARED / "payloads"

SHAPES: dict[str, dict[str, object]] = {
    "flat": {"pd.soc": 87, "bms_bmsStatus.f32ShowSoc": 86.53, "pd.chgPowerAC": 213052},
    "digit first": {"20_1.pv1InputWatts": 1234, "2_1.switchSta": True},
    "bare": {"powInSumW": 120.5, "relay2Onoff": False},
    "many dots": {"bp5000.M101ZFAKE0000001.soc": 71, "a.b.c.d": 1},
    "lists": {"bms_bmsStatus.cellVol": [3321, 3322], "empty": [], "res": [None, None]},
    "lists of objects": {"bms_kitInfo.watts": [{"sn": "", "soc": 1, "f32Soc": 0.5}]},
    "lists of lists": {"backupLoadWatt.watth": [[1.5, 2.5], [3, 4]]},
    "nested": {"20_134.task1": {"taskIndex": 3, "timeRange": {"isEnable": True}}},
    "parent and child": {"heartbeat": {"a": 1, "b": 2}, "heartbeat.a": 7},
    "case variants": {"pd.chgPowerAc": 2, "pd.chgPowerAC": 1},
    "texts": {
        "sn": "0000",
        "json": '{"a": 1}',
        "num": "12",
        "nul": "x\0\0",
        "no": None,
    },
    "big and small": {"max": 2**63, "tiny": 1e-40, "neg": -5939, "u": 4294967295},
    "odd keys": {"SlowChgWatts": 1, "XT150Watts1": 2, "a key": 3, "x:y": 4, "é": 5},
    "modules by serial": {"bbcin": {"M1093-DCIN-12345": {"l1Curr": 16, "l2Curr": -6}}},
}


def quota_map(path: Path) -> dict[str, object]:
    """Return the quota map of a recorded REST answer or latestQuotas reply."""
    recorded = json.loads(path.read_text())
    if isinstance(recorded.get("data"), dict):
        recorded = recorded["data"]
    found = recorded.get("quotaMap") or recorded.get("params") or recorded
    assert isinstance(found, dict)
    return found


def recorded_maps() -> dict[str, dict[str, object]]:
    """Return every recorded REST map and latestQuotas map, by file."""
    kinds = ("REST quota/all", "open-API quota map", "mqtt app latestQuotas get_reply")
    rows = (RECORDED / "INDEX.tsv").read_text().splitlines()[1:]
    files = [
        row.split("\t")[0]
        for row in rows
        if row.split("\t")[2].startswith(kinds) and "offline" not in row.split("\t")[2]
    ]
    assert len(files) > 25
    return {file: quota_map(RECORDED / file) for file in files}


def leaves(
    value: object, key: str = "", indices: tuple[int, ...] = (), level: int = 0
) -> Iterator[tuple[int, str, tuple[int, ...], float]]:
    """Yield every number and boolean of a map; written apart from the program's."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            path = f"{key}.{name}" if key else name
            yield from leaves(inner, path, indices, level + 1)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from leaves(inner, key, (*indices, place), level + 1)
    elif isinstance(value, (bool, int, float)):
        yield level, key, indices, float(value)


def inflected(key: str) -> str:
    squeezed = re.sub("_+", "_", re.sub(r"[.\[\]]", "_", key)).strip("_")
    return re.sub("[^a-zA-Z0-9_]", "_", inflection.underscore(squeezed))


def expected(quotas: Mapping[str, object]) -> tuple[Series, int, int]:
    """Return the series that a map must become.

    And how many of its numbers met another one's name and labels, and how many of
    those differed from it.
    """
    series: Series = {}
    met = differed = 0
    # The flatter key first: it is the one that stays.
    for _, key, indices, value in sorted(leaves(quotas)):
        places = tuple((f"index_{n}", str(index)) for n, index in enumerate(indices))
        identity = (f"ecoflow_{inflected(key)}", places)
        met += identity in series
        differed += series.setdefault(identity, value) != value
    return series, met, differed


@pytest.mark.parametrize(
    "source", ["own shapes", pytest.param("recorded", marks=pytest.mark.recorded)]
)
def test_every_value_arrives_and_nothing_else(
    source, environ, cloud, pushgateway, tmp_path
):
    """Every number and boolean is on the gateway and in Prometheus, once and exact."""
    maps = SHAPES if source == "own shapes" else recorded_maps()
    serials = {f"TEST{n:012}": name for n, name in enumerate(maps)}
    cloud.devices[:] = [SimulatedDevice(sn, maps[name]) for sn, name in serials.items()]

    run = push_anew(environ)

    assert run.status == 0, run.stderr
    wanted = {sn: expected(maps[name]) for sn, name in serials.items()}
    pushed = pushgateway.devices()
    assert set(pushed) == set(serials)
    for sn, name in serials.items():
        assert values(pushed[sn]) == wanted[sn][0], name
    total = sum(len(series) for series, _, _ in wanted.values())
    own = pushgateway.run()
    assert own["ecoflow_push_samples"] == total
    met = sum(met for _, met, _ in wanted.values())
    differed = sum(differed for _, _, differed in wanted.values())
    assert own["ecoflow_push_skipped_values collision"] == met
    print(
        f"{source}: {len(maps)} maps, {total} values; {met} more met another one's name"
        f" and labels, {differed} of them with another value"
    )

    scraped = scrape(pushgateway.url, tmp_path, total)
    for sn, name in serials.items():
        assert values(scraped[sn]) == wanted[sn][0], name


def scrape(gateway_url: str, folder: Path, total: int) -> dict[str, Series]:
    """Return what a real Prometheus got from the gateway, by device."""
    config = folder / "prometheus.yml"
    config.write_text(
        "scrape_configs:\n"
        "  - job_name: pushgateway\n"
        "    honor_labels: true\n"
        "    scrape_interval: 1s\n"
        "    static_configs:\n"
        f"      - targets: ['{gateway_url.partition('//')[2]}']\n"
    )
    url = f"http://127.0.0.1:{free_port()}"
    with running(
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={url.partition('//')[2]}",
        "--log.level=error",
        ready="/-/ready",
        url=url,
    ):

        def scraped() -> list[Any]:
            answer = fetch(url + '/api/v1/query?query={job="ecoflow"}')
            result = list(json.loads(answer)["data"]["result"])
            return result if len(result) >= total else []

        # The first scrape comes about 5 s after the start.
        result = eventually(scraped)
    devices: dict[str, Series] = {}
    for row in result:
        labels = row["metric"]
        identity = (labels.pop("__name__"), strip(tuple(sorted(labels.items()))))
        devices.setdefault(labels["device"], {})[identity] = float(row["value"][1])
    return devices


@pytest.mark.recorded
def test_names_equal_inflections_on_the_corpus():
    """On every recorded key the name is `inflection.underscore`'s."""
    for file, quotas in recorded_maps().items():
        got, _ = raw_samples(quotas, "ecoflow", RESERVED_NAMES)
        assert {name for name, _, _ in got} == {
            name for name, _ in expected(quotas)[0]
        }, file


def names_wanted(dashboard: str, naming: str) -> tuple[set[str], set[str], set[str]]:
    """Return a dashboard's names, those with a recorded key, and what comes out."""
    maps = recorded_maps()
    rows = (SHARED / "dashboard-metrics.txt").read_text().splitlines()
    names = {
        row.split("\t")[0]
        for row in rows
        if not row.startswith("#") and dashboard in row.split("\t")[1].split(",")
    }
    # Letters and digits only: tells that a key is there, whatever its spelling.
    bare = {
        re.sub("[^a-z0-9]", "", f"ecoflow{key}".lower())
        for quotas in maps.values()
        for _, key, _, _ in leaves(quotas)
    }
    produced = {
        name
        for quotas in maps.values()
        for name, _, _ in raw_samples(quotas, "ecoflow", RESERVED_NAMES, naming)[0]
    }
    return names, {n for n in names if n.replace("_", "") in bare}, produced


@pytest.mark.recorded
def test_existing_dashboards_find_their_names():
    """Each name of the well-known dashboard whose key is recorded comes out so."""
    names, wanted, produced = names_wanted("vpikus-v2", "ecoflow")

    # The dashboard asks for four keys in either of two exporters' spellings.
    other_spelling = {
        name
        for name in wanted - produced
        if name.replace("_", "") in {n.replace("_", "") for n in wanted & produced}
    }
    assert len(wanted) > 50
    assert wanted - produced == other_spelling
    assert len(other_spelling) == 4
    print(
        f"{len(names)} names, {len(wanted)} with a recorded key:"
        f" {len(wanted & produced)} come out so, {len(other_spelling)} by the other"
        " spelling that the dashboard asks for as well"
    )


@pytest.mark.recorded
def test_the_other_spelling_has_the_other_exporters_names():
    """In its own spelling each name of berezhinskiy's list comes out, if recorded."""
    names, wanted, produced = names_wanted("berezhinskiy-readme", "berezhinskiy")

    assert len(wanted) > 150
    assert wanted - produced == set()
    print(f"{len(names)} names, {len(wanted)} with a recorded key: all come out so")
