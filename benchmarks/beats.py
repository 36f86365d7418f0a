"""Be push.py --every for so many beats, and leave without having waited for one.

    python benchmarks/beats.py COUNT push.py --every=60

The program is the one that is named, whole and unchanged; only the clock goes on where
its main thread would sleep. So a count of it is the same at any load, and what is
measured of a hundred beats takes no hundred minutes.
"""

import os
import sys
import threading
import time
from collections.abc import Callable

SHORT = 5


class Clock:
    """A monotonic clock that sleeping moves, at the end of each beat."""

    def __init__(self, beats: int) -> None:
        """Leave when it has slept for so many `beats`."""
        self._left = beats
        self._skipped = 0.0
        self._now: Callable[[], float] = time.monotonic
        self._sleep: Callable[[float], None] = time.sleep

    def monotonic(self) -> float:
        """Return the seconds, those that nobody waited for included."""
        return self._now() + self._skipped

    def sleep(self, seconds: float) -> None:
        """Take the wait for the next beat as done, which is long and the main thread's.

        What is waited for within a beat is waited for.
        """
        here = threading.current_thread() is threading.main_thread()
        if not here or seconds < SHORT:
            self._sleep(seconds)
            return
        self._left -= 1
        if not self._left:
            os._exit(0)
        self._skipped += seconds


def main() -> None:
    """Run the program that the arguments name."""
    import runpy

    count, *sys.argv[:] = sys.argv[1:]
    clock = Clock(int(count))
    time.monotonic, time.sleep = clock.monotonic, clock.sleep  # type: ignore[assignment]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
