"""Write docs/internals/cases.md: what the world can do to a job, and what tests it.

    python -m tests.cases_page

The cases are rows of catalogue.toml. A test names those that it automates by the
marker `case`, on itself or, as `pytestmark`, on its whole module.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent
CATALOGUE = TESTS / "catalogue.toml"
PAGE = TESTS.parent / "docs" / "internals" / "cases.md"
MARKER = "mark.case"
# How each group is called, and how many cases it has.
GROUPS = {
    "N": ("The network, and HTTP towards EcoFlow", 22),
    "P": ("The Pushgateway", 12),
    "W": ("Remote-write", 16),
    "M": ("The app account over MQTT", 16),
    "D": ("Data", 16),
    "T": ("Time", 10),
    "S": ("Storage", 16),
    "L": ("Processes, locks, signals, schedulers", 18),
    "K": ("Secrets and security", 16),
}
HEAD = (
    "# The cases\n\n"
    "What the world can do to a job, as a catalogue of {count} cases in {groups}"
    " groups, what a run does then, and the tests that bring it about, with real"
    " servers and sockets. What no machine of ours can bring about says what lacks, and"
    " what the nearest thing is that runs. `python -m tests.cases_page` makes this page"
    " of `tests/catalogue.toml` and of the tests' own marks, and a test holds it to"
    " them.\n"
)
TABLE = "| case | fault | what happens | tests |\n|---|---|---|---|"


class Case(NamedTuple):
    """A row of the catalogue."""

    fault: str
    held: str
    #: What lacks where no test can bring it about, and the nearest thing that runs.
    lacking: str = ""


class Marked(NamedTuple):
    """A test that automates cases."""

    file: str
    test: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"`{self.file}: {self.test}`"


def catalogue() -> dict[str, Case]:
    """Return the cases by their names, in order."""
    rows = tomllib.loads(CATALOGUE.read_text())
    return {name: Case(**row) for name, row in rows.items()}


@cache
def marks() -> list[Marked]:
    """Return the tests that name cases, as files and functions are ordered."""
    paths = sorted(TESTS.glob("test_*.py"))
    return [each for path in paths for each in marked(path.read_text(), path.name)]


def marked(source: str, file: str) -> Iterator[Marked]:
    """Yield the tests of a file that name cases; raises ValueError for a stray mark."""
    if MARKER not in source:
        return
    tree = ast.parse(source)
    told = 0
    everywhere: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and _is_pytestmark(node):
            names, count = _cases(node)
            everywhere += names
            told += count
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            here = list(everywhere)
            for decorator in node.decorator_list:
                names, count = _cases(decorator)
                here += names
                told += count
            if here:
                yield Marked(file, node.name, tuple(here))
    if told != _cases(tree)[1]:
        raise ValueError(f"{file}: a case is marked that is on no test")


def _is_pytestmark(node: ast.Assign) -> bool:
    return any(isinstance(t, ast.Name) and t.id == "pytestmark" for t in node.targets)


def _cases(tree: ast.AST) -> tuple[list[str], int]:
    """Return the names in the marks of a piece of code, and how many marks there are.

    Raises ValueError for a mark without a name.
    """
    names: list[str] = []
    marks = [node for node in ast.walk(tree) if _is_marker(node)]
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _is_marker(node.func)
    ]
    for call in calls:
        names += [str(ast.literal_eval(argument)) for argument in call.args]
    if len(calls) < len(marks) or not all(call.args for call in calls):
        raise ValueError("a mark names no case")
    return names, len(marks)


def _is_marker(node: ast.AST) -> bool:
    """Return whether it is pytest.mark.case."""
    return (
        isinstance(node, ast.Attribute)
        and node.attr == "case"
        and getattr(node.value, "attr", "") == "mark"
    )


def page(cases: Mapping[str, Case], tests: Iterable[Marked]) -> str:
    """Return the page."""
    of_case: dict[str, list[str]] = {name: [] for name in cases}
    for each in tests:
        for name in each.names:
            of_case.setdefault(name, []).append(str(each))
    lines = [HEAD.format(count=len(cases), groups=len(GROUPS))]
    for letter, (title, _) in GROUPS.items():
        lines += [f"## {letter}: {title}", "", TABLE]
        for name, case in cases.items():
            if group_of(name) == letter:
                proofs = "<br>".join(of_case[name])
                lacking = f"*lacking:* {case.lacking}" if case.lacking else ""
                shown = "<br>".join(filter(None, (proofs, lacking)))
                lines.append(f"| {name} | {case.fault} | {case.held} | {shown} |")
        lines.append("")
    return "\n".join(lines)


def group_of(name: str) -> str:
    """Return the letters of a case's name."""
    return re.sub(r"\d+$", "", name)


if __name__ == "__main__":
    PAGE.write_text(page(catalogue(), marks()))
