"""What the tests of remote-write look at: the spool, the state, what arrived."""

from __future__ import annotations

import json
from pathlib import Path

from tests.receiver import Receiver, Sample


def spool_files(environ: dict[str, str], pattern: str = "spool-*/0*") -> list[Path]:
    return sorted(Path(environ["STATE_DIR"]).glob(f"*/{pattern}"))


def state(environ: dict[str, str]) -> dict[str, dict[str, int]]:
    (path,) = Path(environ["STATE_DIR"]).glob("*/state.json")
    return json.loads(path.read_text())  # type: ignore[no-any-return]  # as it is made


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
