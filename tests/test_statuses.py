"""Every exit status that EcoFlow, the sinks and the disk can bring about together.

The oracle is written from docs/exit-statuses.md alone. A run is one in this process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from ecoflow_push.config.settings import Settings
from ecoflow_push.memory.state import State
from ecoflow_push.run.worker import create_worker
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedCloud
from ecoflow_push.simulator.server import RecordingServer
from tests.conftest import DELTA, STREAM
from tests.receiver import Receiver

NOWHERE = "http://127.0.0.1:1"
# What collecting alone would end with.
COLLECTING = {"ok": 0, "partial": 1, "down": 69, "refused": 77, "wait": 75}
GATEWAY = ("none", "ok", "down", "401")
REMOTE = ("none", "ok", "down", "401", "404")
TEXTFILE = ("none", "ok", "unwritable")
DISK = ("ok", "broken")


class World(NamedTuple):
    """What a run meets."""

    api: str
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


def expected(world: World) -> int:
    """Return the status that the documents give this world."""
    collecting = {"ok": 0, "partial": 1, "down": 69, "refused": 77, "wait": 75}[
        world.api
    ]
    if collecting > 1:
        # Nothing was collected, so nothing could be lost.
        return collecting
    fates = {name: fate(name, how, world.disk) for name, how in world.sinks.items()}
    found = set(fates.values())
    if found == {"delivered"}:
        return collecting
    if "delivered" in found:
        # What only the settings keep away, beside a sink that works, is a part.
        return 75 if "stored" in found and world.remote == "down" else 1
    if "stored" in found:
        # Of the only sink, why it is stored says more.
        return {"401": 77, "404": 76}.get(world.remote, 75) if len(fates) == 1 else 75
    if len(fates) == 1:
        (how,) = world.sinks.values()
        return {"401": 77, "404": 76}.get(how, 74)
    return 76 if set(world.sinks.values()) == {"404"} else 74


def fate(sink: str, how: str, disk: str) -> str:
    """Return what becomes of this run's snapshots at one sink."""
    if how == "ok":
        return "delivered"
    return "stored" if sink == "remote" and disk == "ok" else "lost"


@pytest.fixture
def servers() -> Iterator[Mapping[str, str]]:
    with (
        Receiver() as receiver,
        RecordingServer() as well,
        RecordingServer() as closed,
        RecordingServer() as gone,
    ):
        closed.fail("", faults.status(401))
        gone.fail("", faults.status(404))
        fates = {"401": closed.url, "404": gone.url, "down": NOWHERE}
        yield {**fates, "gateway": well.url, "remote": receiver.write_url}


def set_up(cloud: SimulatedCloud, api: str) -> None:
    cloud.heal()
    cloud.devices[:] = [DELTA, STREAM]
    if api == "partial":
        cloud.fail(f"quota/all?sn={STREAM.sn}", faults.status(500))
    elif api == "down":
        cloud.fail("", faults.status(500))
    elif api == "refused":
        cloud.fail("", faults.code("8513"))
    elif api == "wait":
        cloud.fail("", faults.status(429, Retry_After="600"))


@pytest.mark.parametrize("api", COLLECTING)
def test_the_status_follows_from_what_became_of_the_snapshots(
    api, cloud, servers, tmp_path
):
    """In each of 590 worlds a run ends as the documents say, whatever else failed."""
    wrong, count = {}, 0
    set_up(cloud, api)
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    for number, parts in enumerate(product(GATEWAY, REMOTE, TEXTFILE, DISK)):
        world = World(api, *parts)
        if not world.sinks:
            continue
        count += 1
        folder = tmp_path / str(number)
        status = run_in(world, cloud, servers, folder, blocked)
        if status != expected(world):
            wrong[world] = (status, expected(world))
    assert count == 118
    assert not wrong


def run_in(
    world: World,
    cloud: SimulatedCloud,
    servers: Mapping[str, str],
    folder: Path,
    blocked: Path,
) -> int:
    where = {
        "PUSHGATEWAY_URL": servers.get(
            "gateway" if world.gateway == "ok" else world.gateway
        ),
        "REMOTE_WRITE_URL": servers.get(
            "remote" if world.remote == "ok" else world.remote
        ),
        "TEXTFILE_PATH": {
            "ok": str(folder) + ".prom",
            "unwritable": str(blocked / "out.prom"),
        }.get(world.textfile),
    }
    settings = Settings.from_environ(
        {
            **cloud.environ(),
            **{name: value for name, value in where.items() if value},
            "ESTABLISH_ATTEMPTS": "1",
            "STATE_DIR": str(folder if world.disk == "ok" else blocked / "state"),
            "PUSH_INSTANCE": "test",
        }
    )
    with State.open(settings.state_dir) as state:
        return create_worker(settings, state, settings.state_dir, [], {}).run()
