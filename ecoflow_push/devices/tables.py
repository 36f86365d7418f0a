"""The data of this folder: a line is a fact, its cells stand between tabs.

A cell of `-` is empty; a line that begins with `#` is a comment. What is wrong in a
table is told by file and line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from ecoflow_push.errors import EcoflowPushError

FOLDER = os.path.dirname(__file__)
#: The messages of binary devices, as .proto and as descriptors (.binpb).
SCHEMA = os.path.join(FOLDER, "schema")


class TableError(EcoflowPushError):
    """A table is wrong; the text begins with the place, `products.tsv:12: `."""

    def __init__(self, place: str, what: str) -> None:
        super().__init__(
            f"{place}: {what}", "correct that line of ecoflow_push/devices"
        )


def lines(folder: str, name: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each line's place and cells; raises OSError where there is no such file."""
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        text = file.read()
    for number, line in enumerate(text.split("\n"), 1):
        if line and line[0] != "#":
            cells = line.split("\t")
            if "-" in cells:
                cells = ["" if cell == "-" else cell for cell in cells]
            yield f"{name}:{number}", cells


def check_cells(place: str, cells: list[str], count: int) -> None:
    """Raise TableError unless a line has so many cells."""
    if len(cells) != count:
        raise TableError(place, f"{len(cells)} cells where {count} belong")


def number(place: str, text: str) -> float:
    """Return a cell's number; raises TableError where it holds none."""
    try:
        return float(text)
    except ValueError:
        raise TableError(place, f"{text!r} is no number") from None
