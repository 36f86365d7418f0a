"""What the tests of deploy/ share: programs, and the settings a deployment makes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ecoflow_push import __version__
from ecoflow_push.config.settings import Settings
from tests.fetch_servers import HOME
from tests.settings_page import tables
from tests.support import NO_SERVERS, ROOT

DEPLOY = ROOT / "deploy"
SYSTEMD = DEPLOY / "systemd"
COMPOSE = DEPLOY / "compose"
WAYS = ("rest", "app-account", "remote-write")
IMAGE = f"ecoflow-push:{__version__}"
# Nothing of ours can end a run later than so long after its deadline (push.py).
ALARM_SECONDS = 10
MEBIBYTE = 1024 * 1024
# Programs that come with the servers.
BESIDE_SERVERS = {"kubectl", "promtool"}
# Kubernetes', systemd's and compose's spelling.
UNITS = {"Mi": MEBIBYTE, "M": MEBIBYTE, "m": MEBIBYTE}


def program(name: str) -> str:
    """Return where a program of the system is; without it the test is skipped."""
    folders = [os.environ.get("PATH", os.defpath), "/usr/sbin"]
    folders += map(str, HOME.glob("*/usr/bin"))
    found = shutil.which(name, path=os.pathsep.join(folders))
    if not found:
        # Where CI is set nothing may be missing.
        assert not os.environ.get("CI"), f"{name} is missing"
        pytest.skip(NO_SERVERS if name in BESIDE_SERVERS else f"{name} is missing")
    return found


def said_by(*command: str | Path) -> tuple[int, str]:
    """Run a checker; return its status and all that it said."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Those made with Go may take the memory rather than tidy up, and one processor.
        env={**os.environ, "GOGC": "1000", "GOMAXPROCS": "1"},
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


def rules_pass(folder: Path, rules: str, text: str, tests: Path) -> bool:
    """Return whether the tests of rules pass with this text as the file `rules`.

    Each group of them is run alone: where one fails, the others are not.
    """
    folder.mkdir()
    (folder / rules).write_text(text)
    whole = yaml.safe_load(tests.read_text())
    for number, group in enumerate(whole["tests"]):
        file = folder / f"{number}.yml"
        file.write_text(yaml.dump(whole | {"tests": [group]}, Dumper=yaml.CSafeDumper))
        if said_by(program("promtool"), "test", "rules", file)[0]:
            return False
    return True


def assert_documented(names: set[str]) -> None:
    """Fail unless every variable is one of docs/settings.md, or its _FILE form."""
    declared = {each.name: each for table in tables().values() for each in table}
    assert names
    for name in names:
        bare = name.removesuffix("_FILE")
        has_file_form = bare in declared and not declared[bare].is_path
        assert name in declared or (name != bare and has_file_form), name


def accepted(environ: Mapping[str, str], folder: Path, place: str) -> Settings:
    """Return the program's settings; `folder` stands for the secrets' `place`."""
    ours = {k: v.replace(place, str(folder)) for k, v in environ.items()}
    return Settings.from_environ(ours)


def secrets_in(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text(f"content-of-{name}\n")
    return folder


def size(text: str) -> int:
    """Return the bytes of 128Mi, 128m and the like."""
    number = text.rstrip("KMGim")
    return int(number) * UNITS[text.removeprefix(number)]


Unit = dict[str, dict[str, list[str]]]


def read_unit(*files: Path) -> Unit:
    """Return a unit with its drop-ins, all values of a key; an empty one resets it."""
    unit: Unit = {}
    for file in files:
        section = ""
        for line in file.read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif line and not line.startswith("#"):
                key, _, value = line.partition("=")
                values = unit.setdefault(section, {}).setdefault(key, [])
                if value:
                    values.append(value)
                elif key != "Environment":
                    values.clear()
    return unit


def compose() -> dict[str, Any]:
    """Return the compose file."""
    return dict(yaml.safe_load((COMPOSE / "compose.yaml").read_text()))
