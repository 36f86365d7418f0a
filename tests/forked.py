"""Runs of push.py out of one process that has imported it all: a third of the cost.

Each is forked, gets an environment, arguments and files of its own, and is push.py's
file from its first line to its last. Nothing has been read or learnt before.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tests.support import PUSH, ROOT, Run

FORKER = """
import json, os, runpy, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
import argparse, cramjam, logging.handlers, paho.mqtt.client, requests
import ecoflow_push.api.mqtt, ecoflow_push.api.rest, ecoflow_push.api.probe
import ecoflow_push.config.env_file, ecoflow_push.config.strangers
import ecoflow_push.metrics.exposition, ecoflow_push.net.plain
import ecoflow_push.net.requests_exchange, ecoflow_push.run.check
import ecoflow_push.run.healthcheck, ecoflow_push.run.show, ecoflow_push.run.worker
import ecoflow_push.sinks.pushgateway, ecoflow_push.sinks.remote_write
import ecoflow_push.sinks.textfile, ecoflow_push.sinks.trial
push = sys.argv[1]
for line in sys.stdin:
    environ, arguments, *files = json.loads(line)
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), number)
        os.environ.clear()
        os.environ.update(environ)
        sys.argv[:] = [push, *arguments]
        runpy.run_path(push, run_name="__main__")
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@cache
def _forker() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", FORKER, PUSH],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT)},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    # Whoever measures counts what is waited for.
    atexit.register(process.communicate)
    return process


def forked(environ: Mapping[str, str], *arguments: str) -> Run:
    """Run push.py as `tests.support.push` does, in a process that is forked."""
    process = _forker()
    assert process.stdin
    assert process.stdout
    whole = {"PATH": os.defpath, "HOME": "/nonexistent", **environ}
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name) for name in ("stdout", "stderr")]
        process.stdin.write(f"{json.dumps([whole, arguments, *files])}\n")
        process.stdin.flush()
        status = int(process.stdout.readline())
        said = [Path(file).read_text(errors="surrogateescape") for file in files]
    return Run(status, *said)
