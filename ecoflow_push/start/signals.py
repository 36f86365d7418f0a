"""Signals heard from the first instant on, before any import that takes time."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # of signal, without its imports
import os

# For the type checker alone; `typing` takes longer than all of this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def leave_on_signals(argv: Sequence[str]) -> None:
    """Until there are better words, let SIGTERM and SIGINT just end the process.

    As the first process of a container it would not hear them otherwise.
    """
    stays = any(each.startswith("--every") for each in argv)

    def leave(number: int, _frame: object) -> None:
        os._exit(0 if stays else 128 + number)

    for number in (_signal.SIGINT, _signal.SIGTERM):
        _signal.signal(number, leave)
