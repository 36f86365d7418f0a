"""One run at a time of the caller's choice, with devices that need no cloud.

    python -m tests.one_run MINUTE [KIND ...]

Everything behind the client is the real thing: worker, truth, registry, spool, sink.
The settings come from the environment, as for push.py. Each KIND is one device's:
ok, few (it reports a key less), offline or failed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ecoflow_push import logs
from ecoflow_push.api.base import EcoflowApiClient, Reading
from ecoflow_push.api.models import DeviceInfo, Snapshot
from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import EcoflowApiException
from ecoflow_push.memory.lock import state_folder
from ecoflow_push.memory.state import State
from ecoflow_push.metrics.labels import create_labels
from ecoflow_push.run.updates import create_updates
from ecoflow_push.run.worker import Worker
from ecoflow_push.sinks import remote_write

SERIALS = ("R331DRILL0000001", "BK11DRILL0000002", "HW51DRILL0000003")
KEYS = 40


def quotas(minute: int, kind: str) -> dict[str, object]:
    """Return values that tell the minute, and no other could have."""
    found: dict[str, object] = {f"pd.k{n}": minute + n / 64 for n in range(KEYS)}
    if kind == "few":
        del found["pd.k1"]
    return found


class Fleet(EcoflowApiClient):
    """Devices that answer at once, at the minute of this run."""

    name = "rest"
    title = "a drill"

    def __init__(self, minute: int, at: float, kinds: Sequence[str]) -> None:
        super().__init__()
        self._minute = minute
        self._at = at
        self._kinds = dict(zip(SERIALS, kinds, strict=True))

    def read(self, named, deadline):
        self.wanted = self.listed = [
            DeviceInfo(sn, f"Device {sn[:4]}", "DELTA 2", kind != "offline")
            for sn, kind in self._kinds.items()
        ]
        for device in self.wanted:
            yield self.reading(device, self._kinds[device.sn])

    def reading(self, device: DeviceInfo, kind: str) -> Reading:
        """Return what is learnt of a device of this kind."""
        if kind == "offline":
            return Reading(device, self.name)
        if kind == "failed":
            error = EcoflowApiException("no answer")
            return Reading(device, self.name, error=error)
        snapshot = Snapshot(device.sn, quotas(self._minute, kind), self._at)
        return Reading(device, self.name, snapshot)

    def probe(self, deadline):
        yield from ()

    def close(self):
        pass


def work(source: EcoflowApiClient, settings: Settings, folder: str, now: float) -> int:
    """Do one run with a source of the caller's, written at the time `now`."""
    with State.open(folder) as state:
        config = settings.sinks["remote_write"]
        return Worker(
            [source],
            [remote_write.create(config, settings, state, folder, clock=lambda: now)],
            create_updates(settings, state, ()),
            state,
            labels=create_labels(settings),
            deadline=settings.run_deadline,
        ).run()


def main() -> int:
    """Do the run and return its status."""
    minute, *kinds = sys.argv[1:]
    at = float(os.environ["DRILL_START"]) + 60 * int(minute)
    # By how much the clock is set between collecting and writing.
    step = float(os.environ.get("DRILL_STEP", "0"))
    settings = Settings.from_environ(os.environ)
    logs.configure("INFO", "text")
    assert settings.state_dir
    folder = state_folder(settings.state_dir, "drill")
    fleet = Fleet(int(minute), at, kinds or ["ok"] * len(SERIALS))
    return work(fleet, settings, folder, at + step)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
