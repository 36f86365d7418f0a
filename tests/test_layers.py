"""The import law, and what a run must not import."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support import PUSH, ROOT

PACKAGE = ROOT / "ecoflow_push"
# Under one roof: what Python compiles at each start, and what it compiles once.
ROAD = PACKAGE / "road.py"
MODULES = [PUSH, *sorted(PACKAGE.rglob("*.py"))]
# From the ground up: the files beside the folders, the folders, push.py. A room imports
# what is in it and what lies below its floor; rooms of one floor know nothing of one
# another.
FLOORS = (
    {""},
    {"config", "net"},
    {"devices", "memory"},
    {"metrics"},
    {"api", "sinks", "start"},
    {"run", "simulator"},
    {"init"},
    {"push"},
)
# What Python takes to a name that is not of ASCII letters, and to any other text.
OF_FOREIGN_NAMES = {"encodings.idna", "stringprep", "unicodedata"}
every_module = pytest.mark.parametrize(
    "path", MODULES, ids=lambda path: str(path.relative_to(ROOT))
)


def room(path: Path) -> str:
    if path in (PUSH, ROAD):
        return "push"
    return path.parent.name.replace(PACKAGE.name, "")


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def imported_rooms(path: Path) -> set[str]:
    """Return the rooms that a module imports from anywhere in it."""
    names = set()
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    ours = [name.split(".") for name in names if f"{name}.".startswith("ecoflow_push.")]
    files = {ROAD.stem: "push"}
    return {
        each[1] if (PACKAGE / each[1]).is_dir() else files.get(each[1], "")
        for each in ours
        if each[1:]
    }


def imported_modules(path: Path) -> set[Path]:
    """Return the modules of ours that a module imports, from anywhere in it."""
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names = (f"{node.module}.{alias.name}", node.module)
                files = (ROOT / f"{name.replace('.', '/')}.py" for name in names)
                found |= {next((file for file in files if file in MODULES), path)}
    return found - {path}


def uses(path: Path) -> set[str]:
    """Return every `a.b` that a module uses, and every name that it imports."""
    nodes = nodes_of(path)
    found = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def names_in(path: Path) -> set[str]:
    nodes = nodes_of(path)
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def test_every_room_has_a_floor():
    """The rooms are the folders, and no others."""
    rooms = [room for floor in FLOORS for room in floor]

    assert sorted(rooms) == sorted({room(path) for path in MODULES})


@every_module
def test_imports_go_down_only(path):
    """A module imports only what its place on the road allows."""
    own = room(path)
    (floor,) = (n for n, rooms in enumerate(FLOORS) if own in rooms)

    assert imported_rooms(path) <= {own}.union(*FLOORS[:floor])


def test_no_modules_stand_in_a_circle():
    """Each module can be read, and imported, after those that it imports."""
    waiting = {path: imported_modules(path) for path in MODULES}
    assert sum(map(len, waiting.values())) > len(MODULES)

    while free := [path for path, needs in waiting.items() if not needs]:
        for path in free:
            del waiting[path]
        waiting = {path: needs.difference(free) for path, needs in waiting.items()}

    assert not waiting


@every_module
def test_only_factories_take_the_settings(path):
    """Only functions that create, or stay between runs, take Settings."""
    if room(path) in ("push", "config"):
        return
    for node in nodes_of(path):
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            takes = re.search(r"\bSettings\b", ast.unparse(node.args))
            name = getattr(node, "name", "")
            assert not takes or name.startswith("create") or name == "stay", name


@every_module
def test_only_push_reads_the_environment(path):
    """os.environ stands in push.py alone."""
    reads = {"os.environ", "os.environb", "os.getenv", "os.getenvb"} & uses(path)

    assert reads <= ({"os.environ"} if path == PUSH else set())


@every_module
def test_one_file_ends_the_process(path):
    """Only start/exit.py leaves past the interpreter."""
    leaves = {name for name in uses(path) if name.endswith("._exit")}

    assert bool(leaves) == (path == PACKAGE / "start" / "exit.py")


@every_module
def test_one_file_imports_by_name(path):
    """Only config/plugs.py imports what no import statement shows."""
    dynamic = {"importlib.import_module", "__import__"} & (uses(path) | names_in(path))

    assert bool(dynamic) == (path == PACKAGE / "config" / "plugs.py")


@every_module
def test_a_module_fits_in_the_head(path):
    """No file of the package is longer than 300 lines."""
    assert len(path.read_text().splitlines()) <= 300


def test_push_fits_on_a_screen():
    """push.py and the road are each short enough to be read as one story."""
    assert len(PUSH.read_text().splitlines()) <= 100
    assert len(ROAD.read_text().splitlines()) <= 160


def imported_by(code: str, environ: dict[str, str]) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", code + "; print(*sys.modules)"],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stdout.split())


def test_a_rest_run_imports_no_package_that_it_does_not_need(environ):
    """A plain run over REST imports prometheus_client alone of all packages."""
    code = "import os, sys, push; assert push.main([], os.environ) == 0"

    loaded = imported_by(code, environ)

    assert "prometheus_client" in loaded
    others = {"requests", "urllib3", "paho", "schedule", "cramjam", "google.protobuf"}
    assert not others & loaded
    assert not {"ecoflow_push.simulator", *OF_FOREIGN_NAMES} & loaded


def test_a_visit_imports_no_package_that_it_does_not_need(account, fleet):
    """A plain run over MQTT, logged in before, imports paho and prometheus_client."""
    code = "import os, sys, push; assert push.main([], os.environ) == 0"
    imported_by(code, account)

    loaded = imported_by(code, account)

    assert {"prometheus_client", "paho"} <= loaded
    others = {"requests", "urllib3", "schedule", "cramjam", "google.protobuf"}
    assert not others & loaded
    assert not {"ecoflow_push.simulator", *OF_FOREIGN_NAMES} & loaded


def test_before_the_lock_nothing_dear_is_imported():
    """A run that could be locked out has not imported the libraries."""
    loaded = imported_by("import sys, push", {})

    assert not {"requests", "prometheus_client", "urllib3", "ssl"} & loaded


def test_a_locked_out_run_imports_next_to_nothing():
    """Looking at the lock costs none of the standard library's dear modules."""
    loaded = imported_by("import sys, ecoflow_push.start.lock_probe", {})

    assert not {"logging", "typing", "contextlib", "urllib", "re", "json"} & loaded


def test_a_signal_is_heard_before_anything_is_imported():
    """The first handler costs no module but those that end the process."""
    nothing = imported_by("import sys", {})
    loaded = imported_by("import sys, ecoflow_push.start.signals", {})

    assert {name for name in loaded - nothing if name != "__future__"} == {
        "ecoflow_push",
        "ecoflow_push.leaving",
        "ecoflow_push.start",
        "ecoflow_push.start.exit",
        "ecoflow_push.start.signals",
    }
