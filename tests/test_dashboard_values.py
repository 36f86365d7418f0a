"""Every expression of the dashboard and the rules, asked of real databases."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ecoflow_push.metrics.labels import Labels
from ecoflow_push.metrics.record import Record, record_of
from ecoflow_push.metrics.registry import DeviceFacts, device_registry
from ecoflow_push.metrics.run_series import run_registry
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.simulator.cloud import SimulatedDevice
from ecoflow_push.sinks.endpoint import RemoteWriteSink
from ecoflow_push.sinks.groups import Gateway as Groups
from ecoflow_push.sinks.groups import body_of
from ecoflow_push.sinks.server import Connection, Server
from tests.dashboard import (
    DASHBOARD,
    EXPRESSIONS,
    NORMALIZED,
    PANELS,
    RULES,
    VALUES,
    VARIABLES,
    filled_in,
    rules,
)
from tests.fetch_servers import NEWER
from tests.support import (
    ROOT,
    Database,
    eventually,
    fetch,
    gateway,
    prometheus,
    push,
    push_anew,
    victoria_metrics,
)
from tests.test_wire import from_text

LABELS = Labels("ecoflow", "pi", "ecoflow", {})

# --- the fleet --------------------------------------------------------------------


def station(
    name: str,
    at: float,
    values: Mapping[str, float] = {},
    *,
    online: bool | None = True,
    changed_at: float | None = None,
    account: str = "",
) -> CollectorRegistry:
    """Return what is said of a device that was last read at `at`."""
    extra = {"account": account} if account else {}
    facts = DeviceFacts(
        sn=f"R331Z{name.upper()}",
        name=name,
        product_name="DELTA 2",
        source="rest",
        online=online,
        snapshot_at=at,
        changed_at=at if changed_at is None else changed_at,
    )
    ours = Labels(LABELS.job, LABELS.instance, LABELS.prefix, extra)
    text = generate_latest(device_registry(ours, facts)).decode()
    labels = f'device="{facts.sn}",device_name="{name}",product_name="DELTA 2"'
    labels += f',account="{account}"' if account else ""
    for metric, value in values.items():
        text += f"# TYPE ecoflow_{metric} gauge\n"
        text += f"ecoflow_{metric}{{{labels}}} {value}\n"
        if metric.startswith("battery"):
            text += f'ecoflow_{metric}{{{labels},pack="1"}} {value}\n'
    return from_text(text)


def run(at: float, *, dropped: int, oldest_at: float | None) -> CollectorRegistry:
    """Return what a run of `at` that failed in part says of itself."""
    return run_registry(
        LABELS,
        version="0.1.0",
        exit_status=1,
        durations={"connect": 0.2, "collect": 1.5, "push": 0.1},
        last_success_at=at - 1200,
        devices={"ok": 2, "offline": 1, "refused": 0, "failed": 1},
        samples=321,
        skipped={"string": 7},
        runs=100,
        failures={"collect": 1},
        waiting=640 if oldest_at else 0,
        oldest_at=oldest_at,
        dropped={"size": dropped},
    )


SHARD_GROUPS = [
    {"job": "ecoflow_push", "instance": "fleet", "shard": index} for index in "01"
]


def shard(group: Mapping[str, str], at: float) -> CollectorRegistry:
    """Return what a run says of itself of a shard of three; of the second all fail."""
    is_well = group["shard"] == "0"
    labels = Labels("ecoflow", "fleet", "ecoflow", {}, {"shard": group["shard"]})
    return run_registry(
        labels,
        version="0.1.0",
        exit_status=0 if is_well else 69,
        durations={"accounts": 12.5 if is_well else 20},
        last_success_at=at if is_well else at - 4000,
        devices={"ok": 250, "offline": 0, "refused": 0, "failed": 0},
        accounts={"ok": 25, "failed": 0, "locked": 0}
        if is_well
        else {"ok": 0, "failed": 24, "locked": 1},
        shards=3,
        samples=75_000,
        runs=100,
        waiting=0,
        dropped={"age": 0},
    )


ILL = {
    **NORMALIZED,
    "battery_charge_ratio": 0.1,
    "battery_temperature_celsius": 50,
    "ac_input_voltage_volts": 0,
}
# Of the devices below, those whose values no panel may show.
NOT_FRESH = "Attic|Camper|Cellar"
JOB, RUN_JOB = "ecoflow", "ecoflow_push"


def device_group(name: str) -> dict[str, str]:
    return {"job": JOB, "device": f"R331Z{name.upper()}"}


def fill_gateway(url: str, database: Database) -> None:
    """Push a fleet twice, each time until Prometheus has scraped it."""
    now = time.time()
    server = Server("PUSHGATEWAY", url)
    gateway = Groups(Connection(server, attempts=2, longest_wait=1))
    run_group = {"job": RUN_JOB, "instance": "pi"}
    for dropped, balcony in ((0, NORMALIZED), (30, ILL)):
        groups = {
            "Garage": station("Garage", now, NORMALIZED, account="well"),
            "Balcony": station("Balcony", now, balcony, changed_at=now - 7200),
            # Its job died 11 minutes ago, as far as the values tell.
            "Attic": station("Attic", now - 660, NORMALIZED),
            # Reduced: said to be offline, not readable.
            "Camper": station("Camper", now - 60, online=False),
            "Cellar": station("Cellar", now - 1200, online=None, account="late"),
        }
        for name, registry in groups.items():
            gateway.push(body_of(registry), device_group(name), Deadline(10))
        told = run(now, dropped=dropped, oldest_at=now - 2400)
        gateway.push(body_of(told), run_group, Deadline(10))
        for group in SHARD_GROUPS:
            gateway.push(body_of(shard(group, now)), group, Deadline(10))
        told_of = f'ecoflow_push_dropped_samples_total{{reason="size"}} == {dropped}'
        assert eventually(partial(ask, database, told_of))
    gateway.close()


def fill_remote(url: str) -> None:
    """Write 55 minutes of a fleet that is read every five, more or less."""
    now = time.time()
    server = Server("REMOTE_WRITE", url)
    sink = RemoteWriteSink(server, version="1", attempts=2, longest_wait=1)
    last: dict[str, Record] = {}

    def write(
        name: str, at: float, registry: CollectorRegistry, only: str = ""
    ) -> None:
        group: Mapping[str, str] = {"job": JOB}
        if name == "run":
            group = {"job": RUN_JOB, "instance": "pi"}
        record = record_of(registry, group, round(at * 1000))
        record = record.only(only) if only else record
        ended = last[name].keys() if name in last else set()
        last[name] = record
        sink.write([record.ending(ended)], Deadline(10))

    # What a timer's splay and a slow cloud do to an interval.
    lateness = (0, 45, 10, 0, 60, 5, 50, 0, 30, 0, 55, 0)
    for number, late in enumerate(lateness):
        at = now - 3305 + 300 * number + late
        left = now - at
        mains = 230.0 if left > 900 else 0.0
        write("Garage", at, station("Garage", at, NORMALIZED, account="well"))
        ill = {**ILL, "ac_input_voltage_volts": mains}
        write("Balcony", at, station("Balcony", at, ill, changed_at=at - 7200))
        if left > 1000:
            write("Cellar", at, station("Cellar", at, NORMALIZED, account="late"))
        if left > 600:
            write("Attic", at, station("Attic", at, NORMALIZED))
        # It went offline after the last run but one.
        if left > 100:
            write("Camper", at, station("Camper", at, NORMALIZED))
        else:
            away = station("Camper", at, online=False)
            write("Camper", at, away, only="ecoflow_online")
        # By remote-write it is not told while something waits.
        told = run(at, dropped=0 if left > 700 else 30, oldest_at=None)
        write("run", at, told)
        for each in SHARD_GROUPS:
            of_shard = record_of(shard(each, at), each, round(at * 1000))
            sink.write([of_shard], Deadline(10))
        if left > 1200:
            group = {"job": RUN_JOB, "instance": "dead"}
            record = record_of(told, group, round(at * 1000))
            sink.write([record], Deadline(10))
    # The key of a battery that is full has ended just now.
    full = {k: v for k, v in NORMALIZED.items() if k != "charge_remaining_seconds"}
    write("Garage", now - 1, station("Garage", now - 1, full, account="well"))
    sink.close()


def ask(database: Database, expr: str, at: float | None = None) -> list[Any]:
    return database._query(expr, time.time() if at is None else at)


def answered(database: Database, expr: str) -> bool:
    """Return whether there is an answer, or comes to be one."""
    return bool(eventually(partial(ask, database, expr)))


class Filled(NamedTuple):
    """A server with the fleet in it, and which way it came there."""

    database: Database
    way: str


WAYS: dict[str, Callable[..., Any]] = {
    "remote-write, Prometheus 2": prometheus,
    "remote-write, Prometheus 3": partial(prometheus, suite=NEWER),
    "remote-write, VictoriaMetrics": victoria_metrics,
    "Pushgateway, Prometheus 2": prometheus,
    "Pushgateway, Prometheus 3": partial(prometheus, suite=NEWER),
}
PROMETHEUS = [name for name in WAYS if "Prometheus" in name]
WRITTEN = [name for name in WAYS if name.startswith("remote-write")]
SCRAPED = [name for name in WAYS if name.startswith("Pushgateway")]


def configuration(folder: Path, url: str) -> str:
    """Return a configuration that scrapes the gateway and reads the rules."""
    folder.mkdir()
    (folder / RULES.name).write_text(RULES.read_text())
    scrape = {
        "job_name": "pushgateway",
        "honor_labels": True,
        "static_configs": [{"targets": [url.partition("://")[2]]}],
    }
    return json.dumps(
        {
            "global": {"scrape_interval": "200ms", "evaluation_interval": "1s"},
            "rule_files": [RULES.name],
            "scrape_configs": [scrape] if url else [],
        }
    )


class Servers:
    """All servers, at work from the beginning; each filled when it is first asked."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._filled: dict[str, Filled] = {}
        self._gateways: dict[str, str] = {}
        self._databases: dict[str, Database] = {}
        # A Prometheus begins to scrape 5 s after its start: all of them at once.
        for way, start in WAYS.items():
            place, more = folder / way, {}
            if way in SCRAPED:
                self._gateways[way] = stack.enter_context(gateway()).url
            if way in PROMETHEUS:
                more["config"] = configuration(place, self._gateways.get(way, ""))
            self._databases[way] = stack.enter_context(start(place, **more))

    def __call__(self, way: str) -> Filled:
        """Return the server of this way with the fleet in it."""
        if way not in self._filled:
            database = self._databases[way]
            if way in SCRAPED:
                fill_gateway(self._gateways[way], database)
            else:
                fill_remote(database.write_url)
                # What it took it shows when its index is written.
                shows = partial(database.alive, "ecoflow_device_info")
                assert eventually(shows)
            self._filled[way] = Filled(database, way)
        return self._filled[way]


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[Servers]:
    """The servers of all ways."""
    with ExitStack() as stack:
        yield Servers(tmp_path_factory.mktemp("servers"), stack)


@pytest.fixture
def filled(request, servers: Servers) -> Filled:
    """The server of the way that the test names."""
    return servers(request.param)


def ways(names: list[str]) -> Any:
    return pytest.mark.parametrize("filled", names, indirect=True)


# --- every expression -------------------------------------------------------------

# What has no answer, and why.
NO_ANSWER: Mapping[str, str] = {
    "EcoflowLabelsNotHonored": "the gateway's labels are honoured here",
    "EcoflowPushAbsent": "answers only where no run is known at all",
    "EcoflowPushSilent": "a gateway stamps pushes itself, none here is as old",
    "EcoflowWriteSilent": "a gateway's last values never end",
    "Runs and failures B": "the failures were before the first look",
}
NO_ANSWER_WRITTEN: Mapping[str, str] = {
    "EcoflowLabelsNotHonored": "nobody scrapes a gateway here",
    "EcoflowPushAbsent": "answers only where no run is known at all",
    "EcoflowPushSilent": "the stamp of a push is a gateway's",
    "EcoflowSpoolGrows": "while something waits no run is told of by remote-write",
    "Waiting since A": "while something waits no run is told of by remote-write",
    "Runs and failures B": "the failures were before the first look",
}


def assert_answered(filled: Filled, expressions: Mapping[str, str]) -> None:
    """Fail unless just the expressions that are not in the list have an answer."""
    listed = NO_ANSWER_WRITTEN if filled.way in WRITTEN else NO_ANSWER
    for title, expr in expressions.items():
        if title in listed:
            assert ask(filled.database, expr) == [], title
        else:
            assert eventually(partial(ask, filled.database, expr)), (title, expr)


@ways(list(WAYS))
def test_every_panel_has_data(filled):
    """Each query of the dashboard is answered, or is listed with the reason."""
    shown = {title: filled_in(expr) for title, expr in EXPRESSIONS.items()}

    assert_answered(filled, shown)


@ways(PROMETHEUS)
def test_every_rule_has_data(filled):
    """Each rule answers on a fleet with every ill, or is listed; none has an error."""
    assert_answered(
        filled, {rule.get("alert") or rule["record"]: rule["expr"] for rule in rules()}
    )

    answer = json.loads(fetch(f"{filled.database.url}/api/v1/rules"))
    evaluated = [rule for g in answer["data"]["groups"] for rule in g["rules"]]
    assert len(evaluated) == len(list(rules()))
    assert {rule["health"] for rule in evaluated} == {"ok"}


@ways(list(WAYS))
def test_the_variables_have_values(filled):
    """Both lists to choose from are the labels of what was pushed."""
    found = {}
    for name in ("job", "device"):
        query = filled_in(VARIABLES[name]["query"]["query"])
        assert query == filled_in(VARIABLES[name]["definition"])
        [(match, label)] = re.findall(r"^label_values\((.*), (\w+)\)$", query)
        path = f"/api/v1/label/{label}/values?match[]={quote(match)}"
        found[name] = json.loads(fetch(filled.database.url + path))["data"]

    devices = ["Attic", "Balcony", "Camper", "Cellar", "Garage"]
    assert found == {"job": ["ecoflow"], "device": devices}


@ways(list(WAYS))
def test_the_choice_of_a_job_and_a_device_holds(filled):
    """With one of each chosen, no query answers with series of another."""
    for title, expr in EXPRESSIONS.items():
        for row in ask(filled.database, filled_in(expr, JOB, "Garage")):
            assert row["metric"].get("device_name", "Garage") == "Garage", title
        others = ask(filled.database, filled_in(expr, job="other"))
        # A count is then 0, and has no labels.
        assert all(row["metric"] == {} for row in others), title
        assert all(float(row["value"][1]) == 0 for row in others), title


def value_of(filled: Filled, title: str, device: str) -> Any:
    rows = ask(filled.database, filled_in(EXPRESSIONS[title], device=device))
    return [float(row["value"][1]) for row in rows]


@ways(list(WAYS))
def test_what_is_not_fresh_is_not_shown(filled):
    """Values of a device that is offline, silent or not read for long are nowhere."""
    raw = 'last_over_time(ecoflow_battery_charge_ratio{device_name="Attic"}[20m])'
    assert ask(filled.database, raw)
    for title, expr in VALUES.items():
        assert ask(filled.database, filled_in(expr, device=NOT_FRESH)) == [], title

    states = {
        name: value_of(filled, "Devices A", name)
        for name in ("Garage", "Balcony", *NOT_FRESH.split("|"))
    }
    assert states == {
        "Garage": [2],
        "Balcony": [2],
        "Attic": [1],
        "Camper": [0],
        "Cellar": [1],
    }
    assert value_of(filled, "Read A", ".+") == [2]
    assert value_of(filled, "Offline A", ".+") == [1]
    assert value_of(filled, "No fresh values A", ".+") == [2]
    assert value_of(filled, "Lowest charge A", ".+") == [0.1]


@ways(list(WAYS))
def test_a_number_stands_alone(filled):
    """However many devices and installations there are, a big number is one number."""
    numbers = [panel["title"] for panel in PANELS if panel["type"] == "stat"]
    assert "Last run" in numbers
    for title in numbers:
        [row] = ask(filled.database, filled_in(EXPRESSIONS[f"{title} A"]))
        assert row["metric"] == {}, title


@ways(list(WAYS))
def test_a_fleet_is_seen_shard_by_shard(filled):
    """Of three shards one is well, one fails, and one was never heard of."""
    told = {
        title: value_of(filled, f"{title} A", ".+")
        for title in ("Accounts well", "Accounts not well", "Shards", "Shards missing")
    }
    rows = {
        letter: {
            row["metric"]["shard"]: float(row["value"][1])
            for row in ask(
                filled.database, filled_in(EXPRESSIONS[f"Each shard {letter}"])
            )
        }
        for letter in "BDEFG"
    }

    assert told == {
        "Accounts well": [25],
        "Accounts not well": [25],
        "Shards": [3],
        "Shards missing": [2],
    }
    assert value_of(filled, "Slowest shard A", ".+") == [20]
    assert value_of(filled, "Oldest success A", ".+")[0] > 4000
    assert rows == {
        "B": {"0": 0, "1": 69},
        "D": {"0": 12.5, "1": 20},
        "E": {"0": 25, "1": 0},
        "F": {"0": 0, "1": 25},
        "G": {"0": 250, "1": 250},
    }


@ways(list(WAYS))
def test_shards_are_one_installation(filled):
    """Beside other installations a fleet is one row, and one line of each graph."""
    one = {"Installations D": 500, "Installations E": 150_000, "Duration A": 20}
    for title, value in one.items():
        rows = ask(filled.database, filled_in(EXPRESSIONS[title]))
        found = [r for r in rows if r["metric"].get("instance") == "fleet"]
        assert [float(row["value"][1]) for row in found] == [value], title


@ways(list(WAYS))
def test_the_account_whose_devices_are_late_is_seen(filled):
    """An account is listed by how many of its devices are late, if there are any."""
    for letter, value in (("A", 1), ("B", 1), ("C", 1200)):
        query = EXPRESSIONS[f"Accounts with late devices {letter}"]
        [row] = ask(filled.database, filled_in(query))
        assert row["metric"] == {"job": "ecoflow", "account": "late"}
        assert value <= float(row["value"][1]) < value + 300


@ways(WRITTEN)
def test_the_installation_that_is_silent_is_seen(filled):
    """One number says how long the most silent is, a table which one; both see it."""
    rows = ask(filled.database, filled_in(EXPRESSIONS["Installations A"]))
    silent = {row["metric"]["instance"]: float(row["value"][1]) for row in rows}
    assert silent.keys() == {"pi", "dead", "fleet"}
    assert silent["pi"] < 300
    assert silent["dead"] > 1200
    assert value_of(filled, "Last run A", ".+") == [
        pytest.approx(silent["dead"], abs=30)
    ]


@ways(list(WAYS))
def test_every_line_has_a_name(filled):
    """No name in a legend begins or ends with a blank, or has two in a row."""
    for panel in PANELS:
        for target in panel["targets"]:
            expr = EXPRESSIONS.get(f"{panel['title']} {target['refId']}")
            if expr is None or "{{" not in target["legendFormat"]:
                continue
            for row in ask(filled.database, filled_in(expr)):
                name = target["legendFormat"]
                for label in re.findall(r"\{\{(\w+)\}\}", name):
                    value = row["metric"].get(label, "")
                    name = name.replace(f"{{{{{label}}}}}", value)
                assert name == " ".join(name.split()), panel["title"]


@ways(list(WAYS))
def test_only_reasons_that_occurred_are_shown(filled):
    """Of all reasons to leave a value out, the panel shows the one that there was."""
    assert value_of(filled, "Left out, dropped A", ".+") == [7]


@ways(WRITTEN)
def test_a_key_that_ended_is_gone_at_once(filled):
    """What the last snapshot did not report is not shown, what it did report is."""
    assert value_of(filled, "Full in A", "Garage") == []
    assert value_of(filled, "Full in A", "Balcony") == [24]
    assert value_of(filled, "Empty in A", "Garage") == [2]


@ways(WRITTEN)
def test_five_minutes_leave_no_gap(filled):
    """Of a device read every five minutes, a minute late at times, all lines go on."""
    end = time.time() - 300
    begin = end - 2700
    graphs = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in PANELS
        if panel["type"] == "timeseries"
        for target in panel["targets"]
    }
    for title, expr in graphs.items():
        # A growth has none before the second sample.
        if title in NO_ANSWER_WRITTEN or "increase(" in expr:
            continue
        query = quote(filled_in(expr, device="Garage"))
        path = f"/api/v1/query_range?query={query}&start={begin}&end={end}&step=15"
        answer = json.loads(fetch(filled.database.url + path))["data"]["result"]
        assert answer, title
        for line in answer:
            if line["metric"].get("instance") != "dead":
                assert len(line["values"]) == 2700 / 15 + 1, (title, line["metric"])


# --- by push.py -------------------------------------------------------------------

# What two good runs over the simulated fleet do not show, and why.
OF_FLEETS = {
    f"{panel['title']} {target['refId']}": "there is one account"
    for row in DASHBOARD["panels"]
    if row["title"] == "Accounts and shards"
    for panel in row["panels"]
    for target in panel["targets"]
}
NOT_BY_GOOD_RUNS: Mapping[str, Mapping[str, str]] = {
    "Pushgateway": {
        **OF_FLEETS,
        "Left out, dropped B": "nothing was dropped",
        "Waiting for remote-write A": "nothing is written remotely",
        "Runs and failures B": "nothing failed",
        "Waiting since A": "nothing waits",
    },
    "remote-write": {
        **OF_FLEETS,
        "Runs and failures B": "nothing failed",
        "Left out, dropped B": "nothing was dropped",
        "Waiting since A": "nothing waits",
    },
}


GOLDEN = sorted((ROOT / "tests/fixtures/normalized").glob("*.json"))


def low_ones() -> set[str]:
    """Return the serials of the golden devices whose battery is low."""
    maps = [json.loads(file.read_text()) for file in GOLDEN]
    charges = {
        each["sn"]: each["expected"].get("battery_charge_ratio") for each in maps
    }
    return {sn for sn, charge in charges.items() if charge is not None and charge < 0.2}


def simulated_fleet() -> list[SimulatedDevice]:
    """Return a device of each golden file."""
    maps = [json.loads(file.read_text()) for file in GOLDEN]
    return [
        SimulatedDevice(each["sn"], each["quotas"], file.stem, each["product"])
        for file, each in zip(GOLDEN, maps, strict=True)
    ]


@pytest.mark.parametrize("way", ["Pushgateway", "remote-write"])
def test_a_real_run_fills_the_panels(way, environ, cloud, pushgateway, tmp_path):
    """What push.py pushes of a fleet answers every query, but for those listed."""
    del environ["METRICS_SET"]
    cloud.devices[:] = simulated_fleet()
    place = tmp_path / "server"
    url = pushgateway.url if way == "Pushgateway" else ""
    with prometheus(place, config=configuration(place, url)) as database:
        if way == "remote-write":
            del environ["PUSHGATEWAY_URL"]
            environ["REMOTE_WRITE_URL"] = database.write_url
        assert push_anew(environ).status == 0
        # Something has changed at the second look.
        first = cloud.devices[0]
        cloud.devices[0] = replace(first, quotas={**(first.quotas or {}), "pd.more": 1})
        assert push(environ).status == 0
        assert eventually(lambda: ask(database, "ecoflow_push_success"))
        silent = {
            title
            for title, expr in EXPRESSIONS.items()
            if title not in NOT_BY_GOOD_RUNS[way]
            and not eventually(partial(ask, database, filled_in(expr)), 10)
        }
        recorded = {
            rule["record"]: rule["expr"] for rule in rules() if "record" in rule
        }
        assert ask(database, recorded.pop("instance:ecoflow_push_shards:min")) == []
        assert all(map(partial(answered, database), recorded.values()))
        alerts = {rule["alert"]: rule["expr"] for rule in rules() if "alert" in rule}
        is_low = alerts.pop("EcoflowBatteryLow")

        def low() -> list[str]:
            return sorted(row["metric"]["device"] for row in ask(database, is_low))

        # When the rules that it rests on were evaluated since.
        assert eventually(lambda: low() == sorted(low_ones())), low()
        fired = {name: ask(database, expr) for name, expr in alerts.items()}
        listed = {
            title: ask(database, filled_in(EXPRESSIONS[title]))
            for title in NOT_BY_GOOD_RUNS[way]
        }

    assert silent == set()
    assert not any(listed.values()), listed
    # Of a fleet in good health no other rule has anything to say.
    assert not any(fired.values()), fired
