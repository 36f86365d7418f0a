"""What is printed instead of pushed: --dry-run and --list-devices."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ecoflow_push.errors import ExitStatus, SinkError
from ecoflow_push.metrics.exposition import Exposition
from ecoflow_push.redact import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecoflow_push.run.outcome import Learnt
    from ecoflow_push.run.worker import Worker
    from ecoflow_push.sinks.base import Update


def dry_run(worker: Worker) -> ExitStatus:
    """Print the exposition of what would be pushed; remember nothing."""
    exposition = Exposition()

    def take(update: Update) -> None:
        if update.action == "say" and update.registry:
            exposition.add(update.registry)

    worker.collect(take)
    worker.leave()
    exposition.add(worker.registry())
    for piece in exposition.pieces():
        say(piece.decode())
    return worker.tell()


def list_devices(worker: Worker) -> ExitStatus:
    """Print a table of the devices and how each can be read."""
    worker.collect(lambda _: None)
    worker.leave()
    rows = [("SERIAL", "NAME", "PRODUCT", "ONLINE", "READ BY")]
    for sn, learnt in sorted(worker.outcome.learnt.items()):
        facts = worker.updates.known(sn)
        known = learnt.online if learnt.state != "failed" else None
        online = {True: "yes", False: "no", None: "unknown"}[known]
        way = _read_by(learnt, worker.titles)
        rows.append((sn, facts.name, facts.product_name, online, way))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if len(rows) > 1 else ():
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip() + "\n")
    return worker.tell()


def say(text: str) -> None:
    """Write to stdout, without secrets; raises SinkError when it is full or closed."""
    try:
        sys.stdout.write(redact(text))
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError) as exc:  # None if closed at the start
        # What stays in the buffer would fail again, noisily, at the end.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - lives as long as we
        raise SinkError("stdout: cannot be written") from exc


def _read_by(learnt: Learnt, titles: Mapping[str, str]) -> str:
    if learnt.values is not None:
        way = titles[learnt.source]
        return way if learnt.values else f"{way} (no data)"
    if learnt.state == "offline":
        return "not asked (offline)"
    if learnt.state == "refused":
        return getattr(learnt.error, "instead", "") or "refused"
    return "not readable now"
