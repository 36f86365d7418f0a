"""What a run raises becomes an exit status and one line."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ecoflow_push import logs
from ecoflow_push.errors import EcoflowPushError, ExitStatus
from ecoflow_push.net.deadline import limit_of

log = logging.getLogger("ecoflow_push")


def attempt(
    work: Callable[[], int],
    level_of: Callable[[ExitStatus], int] = lambda _: logging.ERROR,
) -> int:
    """Return the status of `work`, or that of what it raises, with one line.

    `level_of` gives the log's level of that line.
    """
    try:
        return work()
    except EcoflowPushError as exc:
        return _tell(exc, level_of)
    except Exception as exc:  # a bug becomes status 70, with one redacted traceback
        if limit := limit_of(exc):
            return _tell(limit, level_of)
        from ecoflow_push.start.installation import fault_of

        if fault := fault_of(exc):
            return _tell(fault, level_of)
        log.exception("exit 70 SOFTWARE: a bug in ecoflow_push, please report it")
        return ExitStatus.SOFTWARE


def _tell(fault: EcoflowPushError, level_of: Callable[[ExitStatus], int]) -> int:
    status = fault.status
    logs.warn_of(fault.notes)
    log.log(level_of(status), "exit %d %s: %s", status, status.name, fault)
    return fault.status
