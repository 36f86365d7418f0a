"""Does the image start as it should: its size, what is compiled, how long it takes.

    python -m benchmarks.image [--rounds N]

No engine and no base image is needed: the Dockerfile's own commands are done in a
folder, on a copy of this interpreter without any byte code, as official images have it.
That is run as a container with a read-only root has it (nothing can be kept), beside
the same tree that compiled itself at its first start. Where Docker or Podman has the
image that `./dev image` builds, its size is told and it is asked too. Exits 1 if a goal
is missed, 69 where the packages cannot be had.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.goals import Goals
from benchmarks.process import ROOT, Command, Servers, measure, ratios
from ecoflow_push import __version__

UNAVAILABLE = 69
MOST = 1.1
#: What `python -v` says of a module that it had to compile.
COMPILED = re.compile(r"^# code object from '?([^\n']+\.py)'?$", re.MULTILINE)
#: Of a base, what no image has.
LEFT_OUT = ("__pycache__", "site-packages", "test", "tests", "idle_test", "config-*")
INSIDE_RUNS = 9
#: Done inside: the median of so many runs.
INSIDE = f"""
import os, statistics, subprocess, sys, time
def run():
    began = time.perf_counter()
    subprocess.run([sys.executable, "/app/push.py", "--demo"],
                   capture_output=True, check=True)
    return time.perf_counter() - began
print(statistics.median(run() for _ in range({INSIDE_RUNS})))
"""
OWNER = re.compile(r"-o \d+ -g \d+ ")


def instructions() -> list[tuple[str, str]]:
    """Return the words of the Dockerfile, each with what it is given."""
    text = Path(ROOT, "Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = (line.partition(" ") for line in text.splitlines() if line.strip())
    return [(word, rest.strip()) for word, _, rest in lines]


class CannotMakeError(Exception):
    """A command of the Dockerfile failed, often for want of a network."""


class Tree:
    """What the Dockerfile makes, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = folder / "usr" / "local"
        self.app = folder / "app"
        self.python = self.app / ".venv" / "bin" / "python"
        self.script = self.app / "push.py"

    def copy_base(self) -> None:
        """Copy this interpreter as it comes in a base image: without byte code."""
        name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        source = Path(sys.base_prefix)
        left_out = shutil.ignore_patterns(*LEFT_OUT)
        library = self.base / "lib" / name
        shutil.copytree(source / "lib" / name, library, ignore=left_out, symlinks=True)
        (library / "site-packages").mkdir()
        for shared in (source / "lib").glob("libpython*"):
            shutil.copy(shared, self.base / "lib", follow_symlinks=False)
        (self.base / "bin").mkdir()
        program = self.base / "bin" / "python"
        shutil.copy(source / "bin" / name, program)
        # pip is the host's: it is no part of what is made.
        (self.base / "bin" / "pip").write_text(
            f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m pip "$@"\n'
        )
        (self.base / "bin" / "pip").chmod(0o755)

    def build(self, *, compiles: bool) -> None:
        """Do what the Dockerfile says; leave out the compiling if it is not wanted."""
        self.app.mkdir()
        for word, rest in instructions():
            if word == "COPY" and not rest.startswith("--from"):
                self._copy(rest.split())
            elif word == "RUN":
                commands = [each.strip() for each in rest.split("&&")]
                if not compiles:
                    commands = [each for each in commands if "compileall" not in each]
                self._run(" && ".join(commands))

    def _copy(self, words: list[str]) -> None:
        *sources, target = words
        for source in sources:
            place = Path(ROOT, source)
            if place.is_dir():
                left_out = shutil.ignore_patterns("__pycache__")
                shutil.copytree(place, self.app / target, ignore=left_out)
            else:
                shutil.copy(place, self.app / target)

    def _run(self, command: str) -> None:
        command = OWNER.sub("", command).replace("/var/lib", f"{self.folder}/var/lib")
        path = f"{self.base}/bin:{os.environ.get('PATH', os.defpath)}"
        # pip's own settings, where its packages come from, are the host's.
        environ = {**os.environ, "PATH": path}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        argv = ["/bin/sh", "-c", command or ":"]
        done = subprocess.run(
            argv, cwd=self.app, env=environ, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise CannotMakeError(f"{command}\n{done.stdout}{done.stderr}")

    def size(self) -> float:
        """Return the MiB of all that is in it."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return sum(path.lstat().st_size for path in files) / 2**20


def compiled(argv: list[str], environ: dict[str, str]) -> set[str]:
    """Return the sources that a run compiles; `argv` ends with what follows `-v`."""
    done = subprocess.run(
        argv, env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"status {done.returncode}: {argv}\n{done.stderr[-2000:]}")
    return set(COMPILED.findall(done.stderr))


def engine() -> str:
    """Return the program that has the image, "" if there is none."""
    for name in ("docker", "podman"):
        program = shutil.which(name)
        asked = [program or "false", "image", "inspect", f"ecoflow-push:{__version__}"]
        if not subprocess.run(asked, capture_output=True, check=False).returncode:
            return program or ""
    return ""


def check_engine(goals: Goals, program: str) -> None:
    """Ask the image itself."""
    image = f"ecoflow-push:{__version__}"
    inspect = [program, "image", "inspect", "--format", "{{.Size}}", image]
    size = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout
    argv = [program, "run", "--rm", "--read-only", "--network", "none"]
    argv += ["--entrypoint", "/app/.venv/bin/python", image]
    found = compiled([*argv, "-v", "/app/push.py", "--demo"], dict(os.environ))
    told = ", ".join(sorted(found)) or "nothing"
    goals.say("the image: nothing is compiled at its start", told, met=not found)
    began = time.monotonic()
    inside = subprocess.run(
        [*argv, "-c", INSIDE], capture_output=True, text=True, check=True
    )
    whole = time.monotonic() - began
    print(
        f"the image {image}: {int(size) / 2**20:.0f} MiB; inside a run of --demo takes"
        f" {float(inside.stdout) * 1e3:.0f} ms, {INSIDE_RUNS} and the container"
        f" {whole:.1f} s"
    )


def check(goals: Goals, servers: Servers, folder: Path, rounds: int) -> None:
    """Build both trees and compare their starts."""
    ready, bare = Tree(folder / "ready"), Tree(folder / "bare")
    for tree in (ready, bare):
        tree.copy_base()
        tree.build(compiles=tree is ready)
    added = ready.size() - bare.size()
    print(f"the tree: {ready.size():.0f} MiB, {added:.0f} of them byte code")
    kept = {"PYTHONDONTWRITEBYTECODE": "1"}
    closed = servers.environ() | kept
    for name in ("https 1", "mqtt 1"):
        environ = servers.environ(name) | kept
        found = compiled([str(ready.python), "-v", str(ready.script)], environ)
        told = ", ".join(sorted(found)) or "nothing"
        goals.say(f"{name}: nothing is compiled at its start", told, met=not found)
    found = compiled([str(bare.python), "-v", str(bare.script)], closed)
    goals.say("without the Dockerfile's care", f"{len(found)} files", met=bool(found))
    commands = {
        "image": Command([str(ready.python), str(ready.script)], closed),
        "outside": Command([str(bare.python), str(bare.script)], servers.environ()),
    }
    costs = measure(commands, rounds, os.path.join(folder, "stderr"))
    found_ratios = ratios(costs["image"], costs["outside"], "cpu")
    goals.most("start of the image: CPU / the same tree outside", found_ratios, MOST)


def main() -> int:
    """Build, compare, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=11, metavar="N")
    rounds = max(1, parser.parse_args().rounds)
    goals = Goals()
    with tempfile.TemporaryDirectory(prefix="ecoflow-push-image-") as folder:
        servers = Servers(folder)
        try:
            check(goals, servers, Path(folder), rounds)
        except CannotMakeError as exc:
            print(f"The tree cannot be made: {exc}", file=sys.stderr)
            return UNAVAILABLE
        finally:
            servers.close()
    if program := engine():
        check_engine(goals, program)
    else:
        print("No engine here has the image: ./dev image builds it.")
    return int(goals.missed)


if __name__ == "__main__":
    sys.exit(main())
