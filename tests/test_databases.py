"""Real Prometheus and VictoriaMetrics take what we write, exactly."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from ecoflow_push.simulator.cloud import SimulatedDevice
from tests.conftest import DELTA, OFFLINE, STREAM
from tests.fetch_servers import NEWER
from tests.support import (
    Database,
    eventually,
    prometheus,
    push,
    push_anew,
    victoria_metrics,
)

MODERN = SimulatedDevice(
    "HW51ZFAKE0000004",
    {f"20_1.key{n}": n * 1.25 for n in range(250)} | {"big": 2**53, "tiny": 5e-324},
    'Ünïcode "quoted" \\ name',
    "PowerStream",
)
SERVERS: dict[str, tuple[Callable[[Path], AbstractContextManager[Database]], str]] = {
    "prometheus 2, version 1": (prometheus, "1"),
    "prometheus 2, version auto": (prometheus, "auto"),
    "prometheus 3, version 1": (partial(prometheus, suite=NEWER), "1"),
    "prometheus 3, version 2": (partial(prometheus, suite=NEWER), "2"),
    "prometheus 3, version auto": (partial(prometheus, suite=NEWER), "auto"),
    "victoria-metrics, version 1": (victoria_metrics, "1"),
    "victoria-metrics, version auto": (victoria_metrics, "auto"),
}


@contextmanager
def server(name, folder):
    start, version = SERVERS[name]
    with start(folder / "data") as database:
        yield database, version


@pytest.mark.parametrize("name", SERVERS)
def test_a_snapshot_arrives_exactly(name, environ, cloud, pushgateway, tmp_path):
    """Three devices arrive with the series, values and times that were collected."""
    cloud.devices[:] = [DELTA, STREAM, MODERN]
    with server(name, tmp_path) as (database, version):
        environ |= {
            "REMOTE_WRITE_URL": database.write_url,
            "REMOTE_WRITE_VERSION": version,
            "EXTRA_LABELS": "site=home",
        }
        before = time.time() * 1000
        for _ in range(2):
            run = push(environ)
            assert run.status == 0, run.stderr
        after = time.time() * 1000

        # As a scrape of the gateway with honor_labels: true would name them.
        pushed = {
            (name, tuple((k, v) for k, v in labels if v)): value
            for (name, labels), value in pushgateway.series().items()
            if "_push_" not in name
        }
        once = sum("last_change" in name for name, _ in pushed)

        def all_of_them():
            # VictoriaMetrics shows samples a while after it took them.
            found = database.points('{device!=""}')
            return (
                found if sum(map(len, found.values())) >= 2 * len(pushed) - once else {}
            )

        points = eventually(all_of_them)

    # VictoriaMetrics keeps some 15 digits of a value.
    exact = 1e-12 if database.is_victoria else 0
    assert {key: values[-1][1] for key, values in points.items()} == {
        key: pytest.approx(value, rel=exact, abs=exact) for key, value in pushed.items()
    }
    assert len(points) == len(pushed) > 260
    for sn in (DELTA.sn, STREAM.sn, MODERN.sn):
        times = {
            tuple(at for at, _ in values)
            for (_, labels), values in points.items()
            if dict(labels)["device"] == sn and len(values) == 2
        }
        (pair,) = times
        assert before - 1 <= pair[0] < pair[1] <= after
    assert all(
        len(values) == 2 or "data_last_change" in name
        for (name, _), values in points.items()
    )


@pytest.mark.parametrize("name", SERVERS)
def test_what_has_ended_is_not_alive(name, environ, cloud, tmp_path):
    """At once after it ended, a series is gone from an instant query, others stay."""
    del environ["PUSHGATEWAY_URL"]
    cloud.devices[:] = [DELTA, STREAM]
    with server(name, tmp_path) as (database, version):
        environ |= {
            "REMOTE_WRITE_URL": database.write_url,
            "REMOTE_WRITE_VERSION": version,
        }
        assert push(environ).status == 0
        fewer = {"pd.soc": 88}
        cloud.devices[:] = [
            SimulatedDevice(DELTA.sn, fewer, DELTA.name, DELTA.product_name),
            SimulatedDevice(STREAM.sn, STREAM.quotas, online=0),
        ]
        assert eventually(lambda: len(database.alive('{device!=""}')) > 10)
        assert push(environ).status == 0

        def settled() -> bool:
            alive = database.alive('{device!=""}')
            names = [name for name, _ in alive]
            # The one is of this run alone, the others have been written before it.
            return any("_last_change_" in name for name in names) and len(names) == 6

        assert eventually(settled), database.alive('{device!=""}')
        alive = database.alive('{device!=""}')

    found = {
        (name, dict(labels)["device"]): value for (name, labels), value in alive.items()
    }
    assert found.pop(("ecoflow_snapshot_timestamp_seconds", DELTA.sn))
    assert found.pop(("ecoflow_data_last_change_timestamp_seconds", DELTA.sn))
    assert found == {
        ("ecoflow_online", DELTA.sn): 1,
        ("ecoflow_device_info", DELTA.sn): 1,
        ("ecoflow_pd_soc", DELTA.sn): 88,
        ("ecoflow_online", STREAM.sn): 0,
    }


def test_the_same_series_by_a_scrape(environ, cloud, pushgateway, tmp_path):
    """A Prometheus that scrapes the gateway and is written to has each series once."""
    cloud.devices[:] = [DELTA, STREAM, OFFLINE]
    target = pushgateway.url.partition("://")[2]
    config = json.dumps(
        {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [
                {
                    "job_name": "pushgateway",
                    "honor_labels": True,
                    "static_configs": [{"targets": [target]}],
                }
            ],
        }
    )
    assert push_anew(environ).status == 0
    with prometheus(tmp_path / "scraping", config=config) as database:
        quotas = '{device!="",__name__!~"push_.*"}'
        # A target is scraped for the first time some 5 s after the start.
        scraped = eventually(lambda: database.alive(quotas))
    with prometheus(tmp_path / "written") as database:
        assert push({**environ, "REMOTE_WRITE_URL": database.write_url}).status == 0
        written = database.alive('{device!=""}')

    def identities(series):
        return {
            key
            for key in series
            if dict(key[1])["device"] != OFFLINE.sn and "change" not in key[0]
        }

    assert identities(scraped) == identities(written) != set()
