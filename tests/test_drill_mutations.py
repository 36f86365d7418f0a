"""The safety code, broken on purpose line by line: each time a named drill sees it.

tests/mutations.toml says which line, how it is broken, and who must see it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support import ROOT

MUTATIONS = tomllib.loads((ROOT / "tests/mutations.toml").read_text())
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
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_seen(name, tmp_path):
    """The tests that guard a line fail in a copy in which it is broken."""
    row = MUTATIONS[name]
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT, symlinks=True)
    for linked in LINKED:
        if (ROOT / linked).exists():
            (copy / linked).symlink_to((ROOT / linked).resolve())
    file = copy / row["file"]
    file.write_text(file.read_text().replace(row["old"], row["new"]))

    run = subprocess.run(
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

    # 1 is a test that failed; others are what kept it from being run.
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout[-2000:]
    print(f"{name}: seen by {Path(row['seen_by'][0]).name}")
