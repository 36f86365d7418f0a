"""What is printed instead of pushed: --dry-run and --list-devices."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from ecoflow_push.errors import ExitStatus, SinkError
from ecoflow_push.metrics.exposition import Exposition
from ecoflow_push.redact import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecoflow_push.metrics.labels import Labels
    from ecoflow_push.run.outcome import Learnt
    from ecoflow_push.run.worker import Worker
    from ecoflow_push.sinks.base import Update


NOW = ("CHARGE", "INPUT", "OUTPUT", "AGE", "CHANGED")
COLUMNS = ("SERIAL", "NAME", "PRODUCT", "ONLINE", *NOW, "READ BY")
# Of the first three: the normalized metric, by what it is multiplied, and the unit.
VALUES = (
    ("battery_charge_ratio", 100, "%"),
    ("input_power_watts", 1, "W"),
    ("output_power_watts", 1, "W"),
)
# From so many seconds on an age is told in so many, and called so.
AGES = ((172_800, 86_400, "d"), (7_200, 3_600, "h"), (120, 60, "min"))


def dry_run(worker: Worker) -> ExitStatus:
    """Print the exposition of what would be pushed; remember nothing."""
    exposition = Exposition()
    gather(worker, exposition)
    exposition.add(worker.registry())
    say_all(exposition)
    return worker.tell()


def gather(worker: Worker, exposition: Exposition) -> None:
    """Add what would be pushed of the devices."""

    def take(update: Update) -> None:
        if update.action == "say" and update.registry:
            exposition.add(update.registry)

    worker.collect(take)
    worker.leave()


def say_all(exposition: Exposition) -> None:
    """Print it, piece by piece."""
    for piece in exposition.pieces():
        say(piece.decode())


def list_devices(worker: Worker) -> ExitStatus:
    """Print a table of the devices, what they say now, and how each can be read."""
    say_table(rows_of(worker))
    return worker.tell()


def rows_of(worker: Worker) -> list[tuple[str, ...]]:
    """Return a row for each device, in the order of COLUMNS."""
    # The columns are normalized metrics, whichever are pushed.
    worker.updates.wording.sets = ("normalized",)
    values: dict[str, list[str]] = {}
    times: dict[str, list[float | None]] = {}

    def take(update: Update) -> None:
        values[update.sn] = [_cell(update, worker.labels, *how) for how in VALUES]
        changed_at = _value(update, worker.labels, "data_last_change_timestamp_seconds")
        times[update.sn] = [update.at, changed_at]

    worker.collect(take)
    worker.leave()
    rows: list[tuple[str, ...]] = []
    for sn, learnt in sorted(worker.outcome.learnt.items()):
        facts = worker.updates.known(sn)
        known = learnt.online if learnt.state != "failed" else None
        online = {True: "yes", False: "no", None: "unknown"}[known]
        ages = [_age(at) if learnt.values else "" for at in times[sn]]
        way = _read_by(learnt, worker.titles)
        row = (sn, facts.name, facts.product_name, online, *values[sn], *ages, way)
        rows.append(row)
    return rows


def say_table(rows: list[tuple[str, ...]], *more: str) -> None:
    """Print rows under their columns, `more` before those of a device."""
    whole = [(*more, *COLUMNS), *rows]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    for row in whole if rows else ():
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip() + "\n")


def say(text: str) -> None:
    """Write to stdout, without secrets; raises SinkError when it is full or closed."""
    try:
        text = redact(text)
        try:
            sys.stdout.write(text)
        except UnicodeEncodeError:
            # An 8-bit locale has no … in a serial, say, nor all names.
            encoding = sys.stdout.encoding
            sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError) as exc:  # None if closed at the start
        # What stays in the buffer would fail again, noisily, at the end.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - lives as long as we
        raise SinkError("stdout: cannot be written") from exc


def _value(update: Update, labels: Labels, suffix: str) -> float | None:
    """Return what is said of the device as a whole, not of one of its packs."""
    whole = {*labels.extra, "device", "device_name", "product_name"}
    for family in update.registry.collect() if update.registry else ():
        for sample in family.samples:
            if (
                sample.name == f"{labels.prefix}_{suffix}"
                and sample.labels.keys() == whole
            ):
                return sample.value
    return None


def _cell(update: Update, labels: Labels, suffix: str, times: int, unit: str) -> str:
    value = _value(update, labels, suffix) if update.action == "say" else None
    return "" if value is None else f"{value * times:g} {unit}"


def _age(at: float | None) -> str:
    if at is None:
        return ""
    seconds = max(0, round(time.time() - at))
    for least, size, unit in AGES:
        if seconds >= least:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _read_by(learnt: Learnt, titles: Mapping[str, str]) -> str:
    if learnt.values is not None:
        way = titles[learnt.source]
        return way if learnt.values else f"{way} (no data)"
    if learnt.state == "offline":
        return "not asked (offline)"
    if learnt.state == "refused":
        return getattr(learnt.error, "instead", "") or "refused"
    return "not readable now"
