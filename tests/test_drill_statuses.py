"""Every exit status that EcoFlow, the sinks and the disk can bring about together.

The oracle is written from docs/exit-statuses.md alone. Each run is one of push.py's
file, and what it says is held against what the servers and the disk then have.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedCloud, SimulatedDevice
from ecoflow_push.simulator.server import Fault, RecordingServer
from tests.broker import BROKER_PASSWORD, BROKER_USER
from tests.conftest import DELTA, OFFLINE, STREAM
from tests.receiver import Receiver
from tests.support import Run, free_port, push

NOWHERE = "http://127.0.0.1:1"
DEAF = SimulatedDevice("R351ZFAKE0000009", {"pd.soc": 1}, deaf_to=1000)
CLOSED = SimulatedDevice("R351ZFAKE0000008", code="1006")
#: What collecting alone ends with, by the source and by what it meets.
REST = {
    "ok": 0,
    "partial": 1,
    "an offline one too": 0,
    "a closed one too": 0,
    "a closed one by its name": 1,
    "down": 69,
    "no answer of EcoFlow's": 69,
    "a redirect": 69,
    "no device": 69,
    "refused": 77,
    "blocked": 77,
    "closed": 77,
    "wait": 75,
}
ACCOUNT = {
    "ok": 0,
    "partial": 1,
    "login fails": 69,
    "login refused": 77,
    "login must wait": 75,
    "no broker": 69,
    "broker refuses": 77,
    "no device": 69,
    "asleep": 69,
}
AUTO = {"read by the account": 0, "closed to keys": 77, "keys refused": 77}
APIS = {
    **{("keys", name): status for name, status in REST.items()},
    **{("account", name): status for name, status in ACCOUNT.items()},
    **{("auto", name): status for name, status in AUTO.items()},
}
GATEWAY = ("none", "ok", "down", "401", "404", "503")
REMOTE = ("none", "ok", "down", "401", "404", "503", "302")
TEXTFILE = ("none", "ok", "unwritable")
DISK = ("ok", "broken")
#: What no other try, nor another content, can mend.
FOR_GOOD = ("404", "302")


class World(NamedTuple):
    """What a run meets."""

    gateway: str
    remote: str
    textfile: str
    disk: str

    @property
    def sinks(self) -> dict[str, str]:
        found = self._asdict()
        return {
            k: found[k] for k in ("gateway", "remote", "textfile") if found[k] != "none"
        }


WORLDS = [
    w for w in map(World._make, product(GATEWAY, REMOTE, TEXTFILE, DISK)) if w.sinks
]


def expected(collecting: int, world: World) -> int:
    """Return the status that the documents give this world."""
    if collecting > 1:
        # 74, 76 and 77 by a sink speak of snapshots: here was nothing to lose.
        return collecting
    sinks = world.sinks
    well = [name for name, how in sinks.items() if how == "ok"]
    stored = "remote" in sinks and sinks["remote"] != "ok" and world.disk == "ok"
    if len(well) == len(sinks):
        return collecting
    if well:
        # Not there, or failing, is 75 also beside a sink that works; a refusal is 1.
        return 75 if stored and sinks["remote"] in ("down", "503") else 1
    # Which of them it is says more than that they wait.
    refused = 76 if all(how in FOR_GOOD for how in sinks.values()) else 74
    if list(sinks.values()) == ["401"]:
        refused = 77
    return 75 if stored and refused == 74 else refused


class Servers(NamedTuple):
    """Where the sinks' data go, by what becomes of them."""

    well: RecordingServer
    receiver: Receiver
    urls: Mapping[str, str]


@pytest.fixture
def servers() -> Iterator[Servers]:
    kinds = {
        "401": faults.status(401),
        "404": faults.status(404),
        "503": faults.status(503),
        "302": faults.redirect(NOWHERE),
    }
    with Receiver() as receiver, RecordingServer() as well, RecordingServer() as ill:
        for path, fault in kinds.items():
            ill.fail(f"/{path}/", fault)
        urls = {kind: f"{ill.url}/{kind}/api/v1/write" for kind in kinds}
        yield Servers(well, receiver, {**urls, "down": NOWHERE})


def keys(cloud: SimulatedCloud, name: str) -> dict[str, str]:
    """Let EcoFlow be met by keys in this way; return the settings for it."""
    settings = cloud.environ()
    cloud.devices[:] = [DELTA, STREAM]
    fault = {
        "down": faults.status(500),
        "no answer of EcoFlow's": faults.page(),
        "a redirect": faults.redirect(NOWHERE),
        "refused": faults.code("8513"),
        "blocked": faults.status(403),
        "wait": faults.status(429, Retry_After="600"),
    }.get(name)
    if fault:
        cloud.fail("", fault)
    elif name == "partial":
        cloud.fail(f"quota/all?sn={STREAM.sn}", faults.status(500))
    elif name == "an offline one too":
        cloud.devices[:] = [DELTA, OFFLINE]
    elif name == "no device":
        cloud.devices[:] = []
    elif name == "closed":
        cloud.devices[:] = [CLOSED]
    elif name.startswith("a closed one"):
        cloud.devices[:] = [DELTA, CLOSED]
        if name.endswith("by its name"):
            settings["ECOFLOW_DEVICE_SN"] = f"{DELTA.sn},{CLOSED.sn}"
    return settings


def account(cloud: SimulatedCloud, name: str) -> dict[str, str]:
    """Let EcoFlow be met by the app account in this way."""
    assert cloud.broker
    port = cloud.broker.port
    cloud.devices[:] = [DELTA, STREAM]
    fault = {
        "login fails": faults.status(500),
        "login refused": faults.code("1002"),
        "login must wait": faults.status(429, Retry_After="600"),
    }.get(name)
    if fault:
        cloud.fail("/auth/login", fault)
    elif name == "partial":
        cloud.devices[:] = [DELTA, DEAF]
    elif name == "asleep":
        cloud.devices[:] = [DEAF]
    elif name == "no device":
        cloud.devices[:] = []
    elif name == "no broker":
        cloud.fail("/certification", certified(free_port(), BROKER_PASSWORD))
    elif name == "broker refuses":
        cloud.fail("/certification", certified(port, "another"))
    return {**cloud.account_environ(), "MQTT_TIMEOUT": "1"}


def certified(port: int, password: str) -> Fault:
    data = {"url": "localhost", "port": str(port), "protocol": "mqtts"}
    data |= {"certificateAccount": BROKER_USER, "certificatePassword": password}
    return faults.body(json.dumps({"code": "0", "data": data}).encode())


def auto(cloud: SimulatedCloud, name: str) -> dict[str, str]:
    """Let it be met by keys, and by the account for what these do not read."""
    by_account = account(cloud, "ok")
    cloud.devices[:] = [replace(DELTA, code="1006")]
    if name == "closed to keys":
        cloud.fail("/auth/login", faults.code("1002"))
    elif name == "keys refused":
        cloud.fail("/iot-open/", faults.code("8513"))
    return {**cloud.environ(), **by_account, "ECOFLOW_SOURCE": "auto"}


WAYS: dict[str, Callable[[SimulatedCloud, str], dict[str, str]]] = {
    "keys": keys,
    "account": account,
    "auto": auto,
}


def chosen(worlds: list[World], rng: random.Random, *, is_each: bool) -> list[World]:
    """Return so many of them that each pair of what they meet is in one.

    Or each single thing, which is enough where nothing was collected.
    """
    size = 1 if is_each else 2
    left: Counter[object] = Counter()

    def parts(world: World) -> set[object]:
        return set(combinations(enumerate(world), size))

    for world in worlds:
        left.update(dict.fromkeys(parts(world), 1))
    pool, found = rng.sample(worlds, len(worlds)), []
    while left:
        best = max(pool, key=lambda world: len(parts(world) & left.keys()))
        found.append(best)
        for part in parts(best):
            left.pop(part, None)
    return found


@pytest.mark.case("N22", "W16", "P6")
@pytest.mark.drill("statuses")
@pytest.mark.parametrize("source", WAYS)
def test_the_status_follows_from_what_became_of_the_snapshots(
    source, drill, cloud, request, servers, ca_file, tmp_path
):
    """A run ends as the documents say, and its sinks have what its status says."""
    rng = random.Random(f"{drill.seed} {source}")
    whole = {
        api: worlds_of(api, rng, is_full=drill.is_full)
        for api in APIS
        if api[0] == source
    }
    print(f"\n{drill.name}: DRILL_SEED={drill.seed}")
    if source != "keys":
        request.getfixturevalue("fleet")
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    count, wrong = 0, []
    for api, worlds in whole.items():
        for world in worlds:
            cloud.heal()
            settings = WAYS[source](cloud, api[1])
            folder = tmp_path / str(count)
            count += 1
            settings |= {"ECOFLOW_CA_FILE": ca_file} if source != "keys" else {}
            run = run_in(world, settings, servers, folder, blocked)
            fault = judged(run, APIS[api], world, servers, folder)
            if fault:
                wrong.append(f"{api} {world}: {fault}:\n{run.stderr}")
    print(f"{source}: {count} worlds, {len(wrong)} failed")
    assert not wrong, "\n".join(wrong)


def worlds_of(
    api: tuple[str, str], rng: random.Random, *, is_full: bool
) -> list[World]:
    """Return the worlds to run in: all where anything was collected."""
    if APIS[api] < 2:
        if is_full:
            return WORLDS
        if api == ("keys", "ok"):
            return chosen(WORLDS, rng, is_each=False)
    elif is_full:
        return chosen(WORLDS, rng, is_each=False)
    return rng.sample(chosen(WORLDS, rng, is_each=True), 2)


def run_in(
    world: World,
    settings: Mapping[str, str],
    servers: Servers,
    folder: Path,
    blocked: Path,
) -> Run:
    urls = servers.urls
    write_url = servers.receiver.write_url
    where = {
        "PUSHGATEWAY_URL": {**urls, "ok": servers.well.url}.get(world.gateway),
        "REMOTE_WRITE_URL": {**urls, "ok": write_url}.get(world.remote),
        "TEXTFILE_PATH": {
            "ok": f"{folder}.prom",
            "unwritable": str(blocked / "out.prom"),
        }.get(world.textfile),
    }
    servers.well.received.clear()
    servers.receiver.stored.clear()
    return push(
        {
            **settings,
            **{name: value for name, value in where.items() if value},
            "ESTABLISH_ATTEMPTS": "1",
            "STATE_DIR": str(folder if world.disk == "ok" else blocked / "state"),
            "PUSH_INSTANCE": "test",
        }
    )


def judged(
    run: Run, collecting: int, world: World, servers: Servers, folder: Path
) -> str:
    """Return what is wrong with how a run ended, "" if nothing is."""
    status = expected(collecting, world)
    if run.status != status:
        return f"ended with {run.status}, not with {status}"
    said = re.findall(r"exit (\d+) [A-Z]+", run.stderr)
    if said != [str(status)]:
        return f"said {said}"
    is_read = collecting < 2
    pushed = any(
        DELTA.sn in received.path
        and received.body
        and b"ecoflow_pd_soc" in gzip.decompress(received.body)
        for received in servers.well.received
    )
    written = any(
        ("device", DELTA.sn) in labels and ("__name__", "ecoflow_pd_soc") in labels
        for labels in servers.receiver.stored
    )
    text = Path(f"{folder}.prom")
    shown = text.exists() and f'device="{DELTA.sn}"' in text.read_text()
    waits = any(DELTA.sn in path.name for path in folder.glob("**/spool-*/0*"))
    is_kept = world.remote not in ("none", "ok") and world.disk == "ok"
    has = {"gateway": pushed, "remote": written, "text file": shown, "spool": waits}
    should = {
        "gateway": is_read and world.gateway == "ok",
        "remote": is_read and world.remote == "ok",
        "text file": is_read and world.textfile == "ok",
        "spool": is_read and is_kept,
    }
    return "" if has == should else f"is there: {has}, not {should}"
