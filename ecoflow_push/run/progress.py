"""Progress: a bar on a terminal while many devices are read, which leaves no trace."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecoflow_push.api.base import EcoflowApiClient, Reading
    from ecoflow_push.config.settings import Settings

# Fewer are read before anybody looks.
FEW = 20
log = logging.getLogger(__name__)


def is_watched(settings: Settings) -> bool:
    """Return whether somebody may look: the log tells of this run, on a terminal."""
    if settings.stays or settings.log_format != "text":
        return False
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
    with bar(len(source.wanted), "devices") as step:
        step(1)
        for reading in readings:
            yield reading
            step(1)


@contextlib.contextmanager
def bar(total: int, unit: str) -> Iterator[Callable[[int], object]]:
    """Show a bar, and let the block say how far it came since it said so last."""
    from threading import RLock

    # Only here: its import takes as long as a short run.
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    # One process needs no lock of several, nor a thread that watches a slow bar.
    tqdm.set_lock(RLock())
    tqdm.monitor_interval = 0
    drawn = tqdm(
        total=total,
        unit=f" {unit}",
        file=_Terminal(),
        leave=False,
        dynamic_ncols=True,
    )
    with drawn, logging_redirect_tqdm():
        yield drawn.update


class _Terminal:
    """Standard error, which may go away while a run goes on."""

    encoding = "utf-8"

    def __getattr__(self, name: str) -> object:
        return getattr(sys.stderr, name)

    def write(self, text: str) -> None:
        """Write what can be written."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Write what is waiting."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
