"""A local EcoFlow cloud, for --demo, tests and benchmarks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ecoflow_push.config.plugs import SOURCES
from ecoflow_push.simulator.cloud import SimulatedCloud
from ecoflow_push.simulator.fleet import demo_fleet


@contextmanager
def demo_environ(environ: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Run a simulated cloud and yield the environment of a job that reads it.

    The sinks are the user's; account, job and state are the demo's own, so that it
    can touch nothing of a real installation.
    """
    with (
        SimulatedCloud(demo_fleet(), keeps=100) as cloud,
        tempfile.TemporaryDirectory(prefix="ecoflow-push-demo-") as state_dir,
    ):
        sources = (name for names in SOURCES.values() for name in names)
        own = (*sources, "ECOFLOW_", "PUSH_JOB", "STATE_DIR", "SPOOL_", "HEALTHCHECK_")
        own += ("ACCOUNTS_", "SHARD_")
        kept = {k: v for k, v in environ.items() if not k.startswith(own)}
        bypassed = environ.get("no_proxy") or environ.get("NO_PROXY", "")
        yield {
            **kept,
            **cloud.environ(),
            "PUSH_JOB": "ecoflow_demo",
            "STATE_DIR": state_dir,
            # It ends with the demo, and what waits in it would end unsaid.
            "SPOOL_MAX_BYTES": "0",
            "no_proxy": ",".join(filter(None, (bypassed, "127.0.0.1"))),
        }
