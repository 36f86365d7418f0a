"""Signals heard from the first instant on, before any import that takes time."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # of signal, without its imports

from ecoflow_push import leaving
from ecoflow_push.start.exit import leave_at_once

# For the type checker alone; `typing` takes longer than all of this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn


def leave_on_signals(argv: Sequence[str]) -> None:
    """Until there are better words, let SIGTERM and SIGINT just end the process.

    As the first process of a container it would not hear them otherwise.
    """
    stays = any(each.startswith("--every") for each in argv)

    def leave(number: int) -> NoReturn:
        leave_at_once(0 if stays else 128 + number)

    _listen(leave)


def leave_with_a_word(*, stays: bool) -> None:
    """From now on let SIGTERM and SIGINT end the process after one line.

    At once, but for what is to be taken back before. What `stays` is stopped so: its
    status is 0.
    """
    from ecoflow_push.errors import ExitStatus
    from ecoflow_push.logs import last_words

    # Raising there would be lost wherever Python cannot raise.
    def leave(number: int) -> NoReturn:
        status = ExitStatus(128 + number)
        text = f"exit {status:d} {status.name}: stopped by signal {number}"
        if there := leaving.left_behind():
            text += f"; left behind: {there}"
        last_words(text)
        leave_at_once(status)

    def leave_the_schedule(number: int) -> NoReturn:
        last_words(f"exit 0 OK: the schedule was stopped by signal {number}", "INFO")
        leave_at_once(ExitStatus.OK)

    _listen(leave_the_schedule if stays else leave)


def _listen(leave: Callable[[int], NoReturn]) -> None:
    def hear(number: int, _frame: object) -> None:
        leaving.leave(lambda: leave(number))

    for number in (_signal.SIGINT, _signal.SIGTERM):
        _signal.signal(number, hear)
