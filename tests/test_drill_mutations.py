"""The safety code, broken on purpose line by line: each time a named drill sees it.

tests/mutations.toml says which line, how it is broken, and who must see it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT

MUTATIONS = tomllib.loads((ROOT / "tests/mutations.toml").read_text())
#: Those that are seen in the same way.
GROUPS: dict[str, list[str]] = {}
for _name, _row in MUTATIONS.items():
    _way = [_row["seen_by"], _row.get("options"), _row.get("environ")]
    GROUPS.setdefault(str(_way), []).append(_name)
# What a copy does not need, or has as it is.
LINKED = (".servers", ".venv")
LEFT_OUT = shutil.ignore_patterns(
    *(".git", "__pycache__", "node_modules", ".*_cache", ".hypothesis", *LINKED)
)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_has_its_place(name):
    """What is to be broken stands once in its file, and who must see it is there."""
    row = MUTATIONS[name]

    assert (ROOT / row["file"]).read_text().count(row["old"]) == 1
    assert row["new"] != row["old"]
    for seen_by in row["seen_by"]:
        file, _, test = seen_by.partition("::")
        assert f"def {test.partition('[')[0]}(" in (ROOT / file).read_text()


@pytest.mark.late
@pytest.mark.drill("mutations")
@pytest.mark.parametrize("names", GROUPS.values(), ids=lambda names: names[0])
def test_nothing_is_seen_where_nothing_is_broken(names, tmp_path):
    """In a copy that is whole the tests that guard it pass: they see what is broken."""
    run = judged(copied(tmp_path), MUTATIONS[names[0]])

    assert run.returncode == pytest.ExitCode.OK, run.stdout[-2000:]


@pytest.mark.late
@pytest.mark.drill("mutations")
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_seen(name, tmp_path):
    """The tests that guard a line fail in a copy in which it is broken."""
    row = MUTATIONS[name]
    copy = copied(tmp_path)
    file = copy / row["file"]
    file.write_text(file.read_text().replace(row["old"], row["new"]))

    run = judged(copy, row)

    # 1 is a test that failed; others are what kept it from being run.
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout[-2000:]
    print(f"{name}: seen by {Path(row['seen_by'][0]).name}")


def copied(folder: Path) -> Path:
    """Return a copy of the project."""
    copy = folder / "copy"
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT, symlinks=True)
    for linked in LINKED:
        if (ROOT / linked).exists():
            (copy / linked).symlink_to((ROOT / linked).resolve())
    return copy


def judged(copy: Path, row: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run the tests there that guard a line, up to the first that fails."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-qx", "--tb=line"),
            *("-p", "no:cacheprovider", *row.get("options", ()), *row["seen_by"]),
        ],
        cwd=copy,
        env={**os.environ, **row.get("environ", {})},
        capture_output=True,
        text=True,
        check=False,
    )
