"""What the tests of remote-write look at: the spool, the state, what arrived."""

from __future__ import annotations

import json
from pathlib import Path

from ecoflow_push.memory.spool import Spool
from ecoflow_push.metrics.record import Record
from tests.receiver import Receiver, Sample


def spool_files(environ: dict[str, str], pattern: str = "spool-*/0*") -> list[Path]:
    return sorted(Path(environ["STATE_DIR"]).glob(f"*/{pattern}"))


def state(environ: dict[str, str]) -> dict[str, dict[str, int]]:
    (path,) = Path(environ["STATE_DIR"]).glob("*/state.json")
    return json.loads(path.read_text())  # type: ignore[no-any-return]  # as it is made


def say_later(environ: dict[str, str], sn: str, seconds: float) -> None:
    """Let a device's last record be of so many seconds later, by file and by state."""
    (path,) = spool_files(environ, f"spool-*/last/{sn}")
    spool = Spool(str(path.parent.parent))
    spool.open()
    record = Record.from_bytes(spool.files.last(sn) or b"")
    at_ms = record.time_ms + round(seconds * 1000)
    spool.files.remember(sn, record._replace(time_ms=at_ms).to_bytes())
    (path,) = Path(environ["STATE_DIR"]).glob("*/state.json")
    fields = json.loads(path.read_text())
    del fields["crc"]
    for endpoint in fields["endpoints"]:
        endpoint["queues"][sn][4] = at_ms
    path.write_text(json.dumps(fields))


def of_devices(receiver: Receiver) -> list[list[Sample]]:
    """Return the samples of each request that is about a device."""
    return [
        request.samples
        for request in receiver.requests
        if request.samples[0].label("device")
    ]


def of_run(receiver: Receiver) -> list[dict[str, float]]:
    """Return the run's own series of each request that holds them, by last label."""
    own = ("__name__", "instance", "job")
    return [
        {
            " ".join([s.name, *(v for k, v in s.labels if k not in own)]): s.value
            for s in request.samples
        }
        for request in receiver.requests
        if request.samples[0].label("job").endswith("_push")
    ]


def ended(samples: list[Sample]) -> set[str]:
    return {sample.name for sample in samples if sample.is_stale}
