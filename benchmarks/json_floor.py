"""The least that Python can do with 1,000 answers: read, parse, a line each, join.

    python benchmarks/json_floor.py FOLDER

FOLDER has the answers as the cloud sends them, a file each. Nothing is checked, named,
sorted or written: what a run does beside this is its work.
"""

import json
import os
import sys


def main() -> None:
    """Make a text of all answers, and drop it."""
    lines = []
    for entry in os.scandir(sys.argv[1]):
        with open(entry.path, encoding="utf-8") as file:
            answer = json.loads(file.read())
        lines += [f"{key} {value}" for key, value in answer["data"].items()]
    "\n".join(lines)


if __name__ == "__main__":
    main()
