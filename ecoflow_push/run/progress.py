"""Progress: a bar on a terminal while many devices are read, which leaves no trace."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecoflow_push.api.base import EcoflowApiClient, Reading

# Fewer are read before anybody looks.
FEW = 20
log = logging.getLogger(__name__)


def is_watched() -> bool:
    """Return whether somebody may look: the log tells of runs, on a terminal."""
    # Closed, it is None or raises.
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return log.isEnabledFor(logging.INFO) and sys.stderr.isatty()
    return False


def shown(readings: Iterable[Reading], source: EcoflowApiClient) -> Iterator[Reading]:
    """Yield the readings, and show how many of what `source` is to read are there."""
    readings = iter(readings)
    first = next(readings, None)
    if first is None:
        return
    yield first
    if len(source.wanted) <= FEW:
        yield from readings
        return
    from threading import RLock

    try:
        # Only here: its import takes as long as a short run.
        from tqdm import tqdm
        from tqdm.contrib.logging import logging_redirect_tqdm
    except ImportError:
        # No bar is worth a run.
        yield from readings
        return
    # One process needs no lock of several, nor a thread that watches a slow bar.
    tqdm.set_lock(RLock())
    tqdm.monitor_interval = 0
    bar = tqdm(
        total=len(source.wanted),
        initial=1,
        unit=" devices",
        # One that goes away it leaves alone.
        file=sys.stderr,
        leave=False,
        dynamic_ncols=True,
    )
    with bar, logging_redirect_tqdm():
        for reading in readings:
            yield reading
            bar.update()
