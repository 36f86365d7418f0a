"""Random histories against a small model of docs/truth.md, on a real Pushgateway."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from ecoflow_push.config.settings import Settings
from ecoflow_push.memory.state import State
from ecoflow_push.run.begin import create_worker
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedCloud, SimulatedDevice
from ecoflow_push.simulator.server import RecordingServer
from tests.support import Gateway, values

SERIALS = ("R331MODEL0000001", "BK11MODEL0000002", "HW51MODEL0000003")
SOC = ("ecoflow_pd_soc", ())


class Model:
    """What the gateway must hold of one device, by the documents alone."""

    def __init__(self) -> None:
        self.group = False
        self.value: float | None = None
        #: Known to be over, though the gateway was not there to be told.
        self.over = False
        self.known = False
        self.missing = 0

    def run(self, kind: str, value: float, *, is_up: bool, keeps: bool) -> None:
        """Follow one run: what was learnt, and whether the gateway could be told."""
        if kind in ("ok", "offline", "refused"):
            self.known = True
            self.missing = 0
            if is_up:
                self.group, self.over = True, False
                self.value = value if kind == "ok" else None
            else:
                self.over |= kind != "ok"
        elif kind == "missing" and self.known:
            self.missing += 1
            if self.missing >= 2:
                if is_up:
                    self.__init__()  # type: ignore[misc]  # gone, as if it never was
                self.over = self.group
                return
        self.known |= kind == "listed"
        if kind in ("missing", "failed", "listed") and self.known:
            # Nothing was learnt of its values: young ones may stand, others not.
            self.missing = 0 if kind == "listed" else self.missing
            if not keeps or self.over or not self.group:
                if is_up:
                    self.group, self.value, self.over = True, None, False
                else:
                    self.over = True


@pytest.mark.drill("truth")
@pytest.mark.parametrize("stale_after", ["0", "100000"])
@pytest.mark.parametrize("seed", range(2))
def test_drill_random_histories(seed, stale_after, environ, cloud, pushgateway, drill):
    """Whatever fails in whatever order, the gateway holds what the documents say."""
    steps = drill.size(50, 1500)
    seed += drill.seed
    print(f"seed {seed}, STALE_AFTER {stale_after}, {steps} runs")
    chance = random.Random(seed)
    models = {sn: Model() for sn in SERIALS}
    environ = {**environ, "STALE_AFTER": stale_after, "ESTABLISH_ATTEMPTS": "1"}
    with RecordingServer() as down:
        down.fail("", faults.status(503))
        outage = {**environ, "HTTP_PROXY": down.url, "NO_PROXY": "127.0.0.1"}
        history = []
        for step in range(steps):
            is_up = chance.random() < 0.75
            kinds = one_run(chance, step, cloud, environ if is_up else outage)
            history.append((is_up, kinds))
            for sn, model in models.items():
                keeps = stale_after != "0"
                model.run(kinds[sn], step, is_up=is_up, keeps=keeps)
            compare(models, pushgateway, history)


def one_run(
    chance: random.Random, step: int, cloud: SimulatedCloud, environ: dict[str, str]
) -> dict[str, str]:
    """Do one run with random luck; return what it can have learnt of each device."""
    cloud.heal()
    list_fails = chance.random() < 0.2
    if list_fails:
        empty = faults.body(b'{"code":"0","data":[]}')
        cloud.fail("device/list", chance.choice([faults.status(500), empty]))
    kinds = {}
    cloud.devices.clear()
    for sn in SERIALS:
        kind = chance.choice(["ok"] * 4 + ["offline", "refused", "failed", "missing"])
        quotas = {"pd.soc": step}
        if kind != "missing":
            online = int(kind != "offline")
            code = "1006" if kind == "refused" else "0"
            cloud.devices.append(SimulatedDevice(sn, quotas, online=online, code=code))
        if kind == "failed":
            cloud.fail(f"quota/all?sn={sn}", faults.status(500))
            kind = "listed"
        kinds[sn] = "failed" if list_fails else kind
    if not cloud.devices:
        # An empty list is no word about anybody.
        kinds = dict.fromkeys(SERIALS, "failed")
    settings = Settings.from_environ(environ)
    folder = settings.state_dir
    with State.open(folder) as state:
        create_worker(settings, state, folder, [], {}).run()
    return kinds


def compare(
    models: dict[str, Model], gateway: Gateway, history: Sequence[tuple[bool, object]]
) -> None:
    held = gateway.devices()
    for sn, model in models.items():
        assert (sn in held) == model.group, (sn, history[-6:])
        found = values(held.get(sn, {})).get(SOC)
        assert found == model.value, (sn, history[-6:])
