"""Run push.py and learn the largest memory it ever held.

Linux counts the starting process's memory as the least peak of what it starts, so a
small process stands between the tests and push.py: this file, run as a script.
"""

from __future__ import annotations

import os
import sys

KIB = 1 if sys.platform == "darwin" else 1024


def main() -> int:
    """Start a program, and write its peak (bytes) into the file named before it."""
    place, *argv = sys.argv[1:]
    pid = os.posix_spawn(argv[0], argv, os.environ)
    _, status, usage = os.wait4(pid, 0)
    with open(place, "w", encoding="ascii") as file:
        file.write(str(usage.ru_maxrss * KIB))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
