"""Instructions of a command, by valgrind's cachegrind, and whose they are.

Two counts of one command differ by less than 1 %, whatever else the machine does, if
its environment is its own and the order in sets is fixed (PYTHONHASHSEED).
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from benchmarks.process import Command

GRIND = ("valgrind", "--tool=cachegrind", "--cache-sim=no")
NO_VALGRIND = "valgrind is needed: sudo apt-get install valgrind"
UNAVAILABLE = 69
# What comes with one of the packages that are asked for by name.
BROUGHT = {
    "certifi": "requests",
    "charset_normalizer": "requests",
    "idna": "requests",
    "urllib3": "requests",
    "google": "protobuf",
}
INTERPRETER, STANDARD, OURS = "interpreter", "standard library", "ours, imported"
WORK = "the work itself"


def is_there() -> bool:
    """Tell whether anything can be counted here."""
    return bool(shutil.which(GRIND[0]))


def instructions(command: Command) -> float:
    """Return the millions of instructions of one run.

    Ends this program where the command does not end as it should.
    """
    argv = [*GRIND, "--cachegrind-out-file=/dev/null", *command.argv]
    done = subprocess.run(
        argv, env=command.environ, capture_output=True, text=True, check=False
    )
    if done.returncode != command.status:
        sys.exit(f"status {done.returncode}: {command.argv}\n{done.stderr}")
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if not found:
        sys.exit(f"valgrind counted nothing: {command.argv}\n{done.stderr}")
    return int(found[1].replace(",", "")) / 1e6


def imported(said: str) -> list[str]:
    """Return the modules that `-X importtime` told of, in its order."""
    lines = [line.split("|") for line in said.splitlines()]
    names = [line[2].strip() for line in lines if len(line) == 3]
    return [name for name in names if is_found(name.partition(".")[0])]


def is_found(package: str) -> bool:
    """Tell whether there is such a package; what is tried in vain is its importer's."""
    try:
        return package.isidentifier() and bool(find_spec(package))
    except ValueError:  # this very program
        return package in sys.stdlib_module_names


def modules(command: Command) -> list[str]:
    """Return the modules that a Python command imports, in order."""
    python, *rest = command.argv
    done = subprocess.run(
        [python, "-X", "importtime", *rest],
        env=command.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != command.status:
        sys.exit(f"status {done.returncode}: {command.argv}\n{done.stderr}")
    return imported(done.stderr)


def package(module: str) -> str:
    """Return whose a module is."""
    name = module.partition(".")[0]
    if name in sys.stdlib_module_names:
        return STANDARD
    return OURS if name in {"ecoflow_push", "push"} else BROUGHT.get(name, name)


def importing(names: Sequence[str]) -> list[str]:
    """Return the command line of an interpreter that imports these and is gone."""
    lines = ["import gc, os", "gc.disable()"]
    for name in names:
        # Some of a package may be tried in vain too.
        lines += ["try:", f"  import {name}", "except ImportError: pass"]
    return [sys.executable, "-c", "\n".join([*lines, "os._exit(0)"])]


def steps(run: Sequence[str], bare: Sequence[str]) -> dict[str, list[str]]:
    """Return by whose they are what is imported up to there; ours come last.

    `run` is what a run imports, `bare` what an interpreter does that has nothing to do.
    """
    rest = [name for name in run if name not in set(bare)]
    owners = sorted({package(name) for name in rest} - {STANDARD, OURS})
    found: dict[str, list[str]] = {INTERPRETER: []}
    so_far: list[str] = []
    for owner in (STANDARD, *owners, OURS):
        so_far = so_far + [name for name in rest if package(name) == owner]
        found[owner] = so_far
    return found


def parts(counts: dict[str, float], whole: float) -> dict[str, float]:
    """Return what each step adds to the one before it, and what the run adds to all."""
    found, before = {}, 0.0
    for name, count in {**counts, WORK: whole}.items():
        found[name] = count - before
        before = count
    return found
