"""What the tests of --drain look at: what waits in folders, and what arrived."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ecoflow_push.memory.entry import unframed
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import Fault, Handler
from tests.receiver import Receiver
from tests.remote_write import spool_files
from tests.support import PUSH, Run, push

#: Accounts and jobs have a folder each, and jobs have series of their own.
JOBS = ("attic", "barn", "cabin")


def bare(written: dict[str, str]) -> dict[str, str]:
    """Return the settings that know of no account."""
    return {k: v for k, v in written.items() if not k.startswith("ECOFLOW_")}


def spoil(
    written: dict[str, str],
    receiver: Receiver,
    jobs: Sequence[str] = JOBS,
    runs: int = 2,
) -> list[str]:
    """Let runs of jobs find the receiver down; return the names of what waits."""
    receiver.fail("", faults.status(503))
    for _ in range(runs):
        for job in jobs:
            assert push({**written, "PUSH_JOB": job}).status == 75
    receiver.heal()
    receiver.requests.clear()
    return waiting(written)


def waiting(written: dict[str, str]) -> list[str]:
    """Return what waits, by folder and name."""
    return [f"{p.parent.parent.name}/{p.name}" for p in spool_files(written)]


def time_of(name: str) -> int:
    """Return when (ms) something was collected that waits under this name."""
    return int(name.partition("/")[2].partition(".")[0])


def folder_of(written: dict[str, str], job: str) -> Path:
    """Return the folder of a job, by what waits in it."""
    for state in Path(written["STATE_DIR"]).glob("*/state.json"):
        for file in state.parent.glob("spool-*/0*"):
            if job.encode() in unframed(file.read_bytes()):
                return state.parent
    raise AssertionError(job)


def states(written: dict[str, str]) -> dict[str, dict[str, object]]:
    """Return what each folder remembers, but for what it knows of endpoints."""
    found = {}
    for path in Path(written["STATE_DIR"]).glob("*/state.json"):
        fields = json.loads(path.read_text())
        found[path.parent.name] = {
            k: v for k, v in fields.items() if k not in ("crc", "endpoints")
        }
    return found


def stored(receiver: Receiver) -> dict[str, list[int]]:
    """Return when pd.soc was collected, by job, as the receiver has it."""
    found: dict[str, list[int]] = {}
    for labels, points in receiver.stored.items():
        named = dict(labels)
        if named["__name__"] == "ecoflow_pd_soc":
            found[named["job"]] = [at for at, _ in points]
    return found


def said(run: Run) -> str:
    """Return the one line of a drain, from its status on."""
    assert "Traceback" not in run.stderr
    return run.stderr.splitlines()[-1].partition(" exit ")[2]


@contextmanager
def draining(environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(PUSH), "--drain"],
        env={"PATH": os.defpath, **environ},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def slow(seconds: float) -> Fault:
    """Return a fault: take a request, after a while."""

    def fault(handler: Handler) -> None:
        handler.server.stopping.wait(seconds)
        handler.send(handler.server.answer(handler.current))

    return fault
