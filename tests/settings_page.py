"""Write the tables of docs/settings.md from what the code declares.

    python -m tests.settings_page

The prose of the page is kept; under each heading that is known here, the table is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ecoflow_push.config import variables
from ecoflow_push.config.kinds import Variable
from ecoflow_push.config.plugs import SINKS, SOURCES, load

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
HEAD = ("| variable | default | meaning |", "|---|---|---|")


def owned(room: str, plugs: Iterable[str]) -> tuple[Variable, ...]:
    """Return what the plugs of a room declare, in their order."""
    return tuple(variable for plug in plugs for variable in load(room, plug).VARIABLES)


def tables() -> dict[str, tuple[Variable, ...]]:
    """Return the variables of the page, by the headings over their tables."""
    return {
        "Reading from EcoFlow": owned("api", SOURCES) + variables.ECOFLOW,
        "The run": variables.RUN,
        "Labels and names": variables.NAMES,
        "Sinks": owned("sinks", SINKS),
        "From the surroundings": variables.SURROUNDINGS,
    }


def row(variable: Variable) -> str:
    """Return the line of a variable; a default that is one word is a value."""
    default, words = variable.default, variable.words
    is_value = default.isascii() and " " not in default and "`" not in default
    shown = f"`{default}`" if is_value else default
    path = ", *path*" if variable.is_path else ""
    return f"| `{variable.name}` | {shown} | {words}{path} |"


def made(page: str, tables: Mapping[str, tuple[Variable, ...]]) -> str:
    """Return the page with its tables made anew."""
    lines: list[str] = []
    heading = ""
    for line in page.splitlines():
        if line.startswith("#"):
            heading = line.strip("# ")
        if line.startswith("|") and heading in tables:
            if line == HEAD[0]:
                lines += [*HEAD, *map(row, tables[heading])]
            continue
        lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text(), tables()))
