"""The import law, and what a run must not import."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PUSH, ROOT

PACKAGE = ROOT / "ecoflow_push"
# From the ground up. A room imports what is in it and what lies below its floor; rooms
# of one floor know nothing of one another.
FLOORS = (
    {"", "errors", "logs"},
    {"config", "net"},
    {"devices", "memory"},
    {"metrics"},
    {"api", "sinks"},
    {"start"},
    {"run", "simulator"},
    {"push"},
)
# Only these read Settings; everything else takes plain arguments.
FACTORIES = {
    *("create_client", "create_pushgateway", "create_remote_write", "create_textfile"),
    *(
        "create_check",
        "create_judge",
        "create_exporter",
        "create_healthcheck",
        "create_worker",
        "create_writer",
        "spool_folder",
    ),
    # Builds what stays between the runs of a schedule.
    "stay",
}


def modules() -> list[Path]:
    return [PUSH, *sorted(PACKAGE.rglob("*.py"))]


def part(path: Path) -> str:
    if path == PUSH:
        return "push"
    inside = path.relative_to(PACKAGE).parts
    return inside[0].removesuffix(".py") if inside[0] != "__init__.py" else ""


def imported_parts(path: Path) -> set[str]:
    """Return the parts of ours that a module imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "ecoflow_push":
                names = [f"ecoflow_push.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.partition(".")[0] == "ecoflow_push":
                found.add(name.split(".")[1].replace("__version__", ""))
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path):
    """A module imports only what its place on the road allows."""
    room = part(path)
    (floor,) = (n for n, rooms in enumerate(FLOORS) if room in rooms)
    allowed = {room}.union(*FLOORS[:floor])
    assert imported_parts(path) <= allowed


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_factories_read_the_settings(path):
    """Outside push.py and the create_ functions nothing takes Settings."""
    if part(path) in ("push", "config"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            takes = ast.unparse(node.args)
            assert "Settings" not in takes or node.name in FACTORIES


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_push_reads_the_environment(path):
    """os.environ stands in push.py alone."""
    if part(path) != "push":
        assert "os.environ" not in path.read_text()
        assert "getenv" not in path.read_text()


def test_push_fits_on_a_screen():
    """push.py is short enough to be read as one story."""
    assert len(PUSH.read_text().splitlines()) <= 160


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
    """A run over REST imports neither paho nor schedule, nor what is for later."""
    code = "import os, sys, push; assert push.main([], os.environ) == 0"

    loaded = imported_by(code, environ)

    assert {"requests", "prometheus_client"} <= loaded
    assert not {"paho", "schedule", "cramjam", "google.protobuf"} & loaded
    assert "ecoflow_push.simulator" not in loaded


def test_before_the_lock_nothing_dear_is_imported():
    """A run that could be locked out has not imported the libraries."""
    loaded = imported_by("import sys, push", {})

    assert not {"requests", "prometheus_client", "urllib3", "ssl"} & loaded


def test_a_locked_out_run_imports_next_to_nothing():
    """Looking at the lock costs none of the standard library's dear modules."""
    loaded = imported_by("import sys, ecoflow_push.start.lock_probe", {})

    assert not {"logging", "typing", "contextlib", "urllib", "re", "json"} & loaded
