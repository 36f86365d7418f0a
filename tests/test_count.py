"""What judges a change: goals in one place, and counting that counts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from benchmarks import grind
from benchmarks.count import BARE, BEATER, FLOOR, LARGE, MQTT, REST, TEN, WAYS, figures
from benchmarks.goals import (
    BENCH,
    COUNT,
    FLEET,
    GOALS,
    OTHERS,
    PYTHON,
    SHARDS,
    Goals,
    most,
    table,
)
from benchmarks.process import Command
from tests.support import PUSH, ROOT

needs_valgrind = pytest.mark.skipif(
    not grind.is_there(), reason="valgrind is not installed"
)
ENVIRON = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONHASHSEED": "0"}


def python(text: str) -> Command:
    """Return an interpreter that does what the text says."""
    return Command([sys.executable, "-c", text], ENVIRON)


def shell(text: str) -> Command:
    """Return a shell that does so: to count it takes a fifth of the time."""
    return Command(["/bin/sh", "-c", text], ENVIRON)


# --- the goals --------------------------------------------------------------------


def test_the_goals_are_told():
    """docs/internals/cost.md has the table of the goals as the code makes it."""
    page = (ROOT / "docs" / "internals" / "cost.md").read_text()

    assert f"\n{table()}\n" in page


def test_the_readme_says_what_a_day_costs():
    """Its line on the cost has the figures of the table it leads to."""
    told = (ROOT / "README.md").read_text().partition("**What it costs.**")[2]
    told = told.partition(" [Which to choose]")[0]
    page = (ROOT / "docs" / "deploy.md").read_text()
    rows = page.partition("## What a day costs")[2].partition("\n\nAll were")[0]

    figures = re.findall(r"\d+", told.replace("--every 60", ""))
    assert len(figures) > 5
    assert set(figures) <= set(re.findall(r"\d+", rows))


def test_each_goal_has_a_judge():
    """Figures have one goal each, G1 to G13, and one of four commands judges it."""
    assert {each.judge for each in GOALS} == {COUNT, BENCH, FLEET, SHARDS}
    assert len({each.figure for each in GOALS}) == len(GOALS)
    numbers = dict.fromkeys(each.number for each in GOALS)
    assert list(numbers) == [f"G{number}" for number in range(1, 14)]
    # A bench in the code names the figures that it finds.
    code = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
    for each in GOALS:
        if each.judge == BENCH:
            end = each.figure.partition(": ")[2]
            assert code.count(end) > 1, each.figure


def counted(**other: float) -> dict[str, float]:
    """Return counts as they could be, with some as they are given."""
    found = {BARE: 40.0, FLOOR: 600.0, f"{FLOOR}: peak": 30.0}
    found |= {REST: 400.0, MQTT: 300.0, TEN: 500.0}
    for way in WAYS:
        found |= {f"{way} 30": 700.0, f"{way} 10": 540.0, LARGE.format(way): 45.0}
    for size in (1, 10):
        found |= {f"beats {size} 6": 550.0, f"beats {size} 1": 450.0}
    return found | other


def test_what_is_counted_becomes_figures():
    """Each goal of the counting has its figure; what is repeated is divided."""
    found = figures(counted())

    assert found.keys() == {each.figure for each in GOALS if each.judge == COUNT}
    assert found["MQTT, cached login / three imports"] == 0.5
    assert found["each further device, to a gateway"] == 8
    assert found["a beat of --every, 10 devices"] == 20
    assert found["1,000 devices by remote-write: peak / three imports"] == 1.5


def test_a_goal_is_missed_by_what_is_over_it():
    """Just the figure that is over its goal is missed, and the line says so."""
    said: list[str] = []
    Goals(said.append).counted(figures(counted()), {})
    assert len(said) == len([each for each in GOALS if each.judge == COUNT])
    assert all(line.startswith("met ") for line in said)

    said.clear()
    goals = Goals(said.append)
    goals.counted(figures(counted(**{TEN: 800.0})), {})
    assert goals.missed
    [line] = [line for line in said if not line.startswith("met ")]
    assert line.startswith("MISSED  G3   REST, 10 devices: at most")
    assert line.endswith(" 800.00 M")


def test_another_python_may_take_more_instructions():
    """Goals in instructions are for one Python; ratios and peaks are for all."""
    for each in GOALS:
        assert most(each, PYTHON) == each.most
        more = OTHERS if each.unit == "M" else 1
        assert most(each, (3, 13)) == each.most * more


# --- the counting -----------------------------------------------------------------


@needs_valgrind
def test_instructions_are_those_of_the_work():
    """A count is repeatable within 1 %, and grows with the work as the work does."""
    loop = "n=0; while [ $n -lt {} ]; do n=$((n + 1)); done"
    once, again, twice, thrice = (
        grind.instructions(shell(loop.format(size)))
        for size in (2000, 2000, 4000, 6000)
    )

    assert again == pytest.approx(once, rel=0.01)
    assert thrice - twice == pytest.approx(twice - once, rel=0.05)
    assert twice - once > 1


@needs_valgrind
def test_a_command_that_fails_is_not_counted():
    """What ends with another status than it should ends the counting with its words."""
    failing = shell("echo no more of it >&2; exit 1")

    with pytest.raises(SystemExit, match="no more of it"):
        grind.instructions(failing)
    assert grind.instructions(failing._replace(status=1)) > 0.1


def test_modules_are_those_of_the_run():
    """What a run imports is found by running it, each module with its owner."""
    run = python("import json, certifi, schedule, ecoflow_push.errors")
    run = run._replace(environ=ENVIRON | {"PYTHONPATH": str(ROOT)})

    found = grind.steps(grind.modules(run), grind.modules(python("pass")))
    owners = [grind.INTERPRETER, grind.STANDARD, "requests", "schedule", grind.OURS]
    assert list(found) == owners
    assert found[grind.INTERPRETER] == []
    assert "json.decoder" in found[grind.STANDARD]
    assert "certifi" in found["requests"]
    assert found[grind.OURS][-1] == "ecoflow_push.errors"
    # Each goes on from the one before it.
    for fewer, more in pairwise(owners):
        assert found[more][: len(found[fewer])] == found[fewer]


def test_modules_that_are_not_there_are_nobodys():
    """A package that is tried in vain is no owner of its own."""
    run = python("try: import no_such_package\nexcept ImportError: pass")

    assert "no_such_package" not in grind.modules(run)


def test_the_parts_are_the_whole():
    """What each part adds, the work last, is all that the run has."""
    found = grind.parts({"interpreter": 30.0, "ours": 75.5}, 100.0)

    assert found == {"interpreter": 30.0, "ours": 45.5, grind.WORK: 24.5}
    assert sum(found.values()) == 100


def test_beats_are_not_waited_for(environ):
    """So many beats are runs of push.py itself, at once, and the last one ends it."""
    environ = ENVIRON | environ
    argv = [sys.executable, BEATER, "3", str(PUSH), "--every=60"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True)

    assert done.stderr.count(" exit 0 OK after ") == 3
    assert "a run every 60 s" in done.stderr


# --- where it runs ----------------------------------------------------------------


def test_without_valgrind(tmp_path):
    """Where there is no valgrind one line says how to get it, and the status is 69."""
    (tmp_path / "dirname").symlink_to(shutil.which("dirname") or "/usr/bin/dirname")
    environ = {"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    for argv in (
        ["/bin/sh", str(ROOT / "dev"), "count"],
        [sys.executable, "-m", "benchmarks.count"],
    ):
        done = subprocess.run(
            argv, env=environ, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (grind.UNAVAILABLE, "")
        assert done.stderr == f"{grind.NO_VALGRIND}\n"


def test_the_gate_is_in_the_workflow():
    """CI counts in a job of its own, with valgrind from the system's packages."""
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    job = yaml.safe_load(workflow)["jobs"]["count"]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands[-1] == "./dev count"
    assert commands[-2].startswith("apt-get install ")
    assert commands[-2].endswith(" valgrind")
    goals_are_for = ".".join(map(str, PYTHON))
    assert goals_are_for in job["strategy"]["matrix"]["python"]


@pytest.mark.parametrize("name", ["shell.sh", "shell_tuned.sh"])
def test_the_shell_scripts_are_sh(name):
    """A script to compare with is what any sh reads."""
    script = Path(ROOT, "benchmarks", name)

    assert os.access(script, os.X_OK)
    assert subprocess.run(["/bin/sh", "-n", script], check=False).returncode == 0
