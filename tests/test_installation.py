"""What an installation lacks: 78 and one line with the cure, by any Python from 3.6."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from glob import glob
from pathlib import Path

import pytest

from ecoflow_push.api.protobuf import message_class
from ecoflow_push.simulator.cloud import SimulatedDevice
from ecoflow_push.start.installation import PACKAGES
from tests.support import PUSH, ROOT, Run, push_anew

START = ROOT / "ecoflow_push" / "start"
# All that an old Python compiles before it is told.
EARLY = (
    PUSH,
    ROOT / "ecoflow_push" / "__init__.py",
    START / "__init__.py",
    START / "installation.py",
    ROOT / "ecoflow_push" / "lines.py",
)
# Those of the system and of pyenv, if there are any.
OLD = [
    python
    for minor in range(6, 11)
    for pattern in (
        f"/usr/bin/python3.{minor}",
        f"/usr/local/bin/python3.{minor}",
        os.path.expanduser(f"~/.pyenv/versions/3.{minor}.*/bin/python"),
    )
    for python in glob(pattern)
]
AS_OLD = (
    "import runpy, sys; sys.version_info = (3, 9, 2, 'final', 0);"
    "sys.argv = [sys.argv[1]]; sys.path.insert(0, sys.argv[0].rpartition('/')[0]);"
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
DELTA_3 = "P231ZFAKE0000007"
KEYS = {
    "ECOFLOW_ACCESS_KEY": "a" * 32,
    "ECOFLOW_SECRET_KEY": "b" * 32,
    "PUSHGATEWAY_URL": "http://127.0.0.1:9",
}


def run(python: object, *args: object, **environ: str) -> Run:
    """Run a Python with these variables, where nothing of ours is."""
    done = subprocess.run(
        [str(python), *map(str, args)],
        env={"PATH": "/nonexistent", "HOME": "/nonexistent", **environ},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)


def frame(seq: int) -> bytes:
    """Return an answer that nobody can read without protobuf."""
    report = message_class("display.DisplayPropertyUpload")()
    report.cms_batt_soc = 66.0
    envelope = message_class("envelope.Envelope")()
    envelope.header.add(
        pdata=report.SerializeToString(), src=2, cmd_func=254, cmd_id=21, seq=seq
    )
    return bytes(envelope.SerializeToString())


def told(run: Run) -> str:
    """Return the one line of a run that ended with 78."""
    assert run.status == 78, run.stderr
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert "ERROR exit 78 CONFIG: " in line
    return line


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of its own, in a folder whose name a shell must be told in quotes."""
    folder = tmp_path / "a clone"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ecoflow_push", folder / "ecoflow_push", ignore=ignore)
    for name in ("push.py", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python without any package."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    return folder / "bin" / "python"


@pytest.mark.parametrize("path", EARLY, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_an_old_python_compiles_is_in_its_grammar(path):
    """All that is compiled before the check is in the grammar of Python 3.6."""
    tree = ast.parse(path.read_text(), feature_version=(3, 6))

    imported = {
        node.module: {alias.name for alias in node.names}
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
    }
    assert "__future__" not in imported, "its annotations are unknown to 3.6"
    if path != PUSH:
        ours = {name for name in imported if name and name.startswith("ecoflow_push")}
        assert ours <= {"ecoflow_push.lines"}


@pytest.mark.skipif(not OLD, reason="no Python older than 3.11 is here")
def test_an_old_python_says_one_line():
    """Every older Python that is here says its version, and ends with 78."""
    for python in OLD:
        line = told(run(python, "-B", PUSH, "--version"))

        found = run(python, "-c", "import sys; print(sys.version.split()[0])").stdout
        assert f"this is Python {found.strip()}, 3.11 or newer is needed: " in line


@pytest.mark.parametrize("has", ["environment", "requirements", "nothing"])
def test_what_an_old_python_is_told_to_do(has, clone):
    """An old Python names the environment that is there, else how to make one."""
    python = clone / ".venv" / "bin" / "python"
    if has == "environment":
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)
    if has == "nothing":
        (clone / "requirements.txt").unlink()

    line = told(run(sys.executable, "-B", "-c", AS_OLD, clone / "push.py"))

    make = f"python3 -m venv '{clone}/.venv' && '{python}' -m pip install"
    assert line.endswith(
        {
            "environment": f"3.11 or newer is needed: run it with '{python}'",
            "requirements": "install Python 3.11 or newer (python3-venv), then: "
            f"{make} --require-hashes -r '{clone}/requirements.txt'",
            "nothing": "3.11 or newer is needed: install one",
        }[has]
    )


def test_an_old_python_names_a_newer_one_and_logs_in_json(clone, tmp_path):
    """A newer Python in PATH is named, and LOG_FORMAT=json is heard."""
    newer = tmp_path / "python3.12"
    newer.symlink_to(sys.executable)

    done = run(
        sys.executable,
        *("-B", "-c", AS_OLD, clone / "push.py"),
        PATH=str(tmp_path),
        LOG_FORMAT="json",
    )

    assert done.status == 78
    message = json.loads(done.stderr)["message"]
    assert f"is needed: {newer} -m venv '{clone}/.venv' && " in message


@pytest.mark.parametrize("args", [(), ("--check",), ("--dry-run",), ("--demo",)])
def test_without_the_packages(args, bare, clone, tmp_path):
    """Without packages every run ends with 78 and names how to come to them."""
    state = str(tmp_path / "state")

    line = told(run(bare, "-B", clone / "push.py", *args, **KEYS, STATE_DIR=state))

    missing = ", ".join(package for package, _, _ in PACKAGES)
    assert f"the installation is not complete: {missing} missing: " in line
    python = clone / ".venv" / "bin" / "python"
    assert f" -m venv '{clone}/.venv' && '{python}' -m pip install " in line


def test_without_the_packages_beside_an_environment(bare, clone, tmp_path):
    """The environment that is named is one that works."""
    environ = {**KEYS, "STATE_DIR": str(tmp_path / "state")}
    venv.create(clone / ".venv", symlinks=True)
    python = clone / ".venv" / "bin" / "python"

    assert told(run(bare, "-B", clone / "push.py", **environ)).endswith(
        f" missing: run it with '{python}'"
    )
    # Itself without packages, it is to be made anew.
    assert f" -m venv --clear '{clone}/.venv' && " in told(
        run(python, "-B", clone / "push.py", **environ)
    )


@pytest.mark.parametrize("python", [sys.executable, *OLD[:1]])
@pytest.mark.parametrize("how", ["alone", "safe path"])
def test_push_py_without_its_folder(how, python, clone):
    """push.py alone, or where Python may not look beside it, says so in one line."""
    options = ["-B"]
    if how == "alone":
        shutil.rmtree(clone / "ecoflow_push")
    else:
        options.append("-I")

    line = told(run(python, *options, clone / "push.py", **KEYS))

    assert "push.py needs the folder ecoflow_push beside it" in line


def test_a_file_beside_push_py_is_none_of_pythons_own(clone):
    """A file there that is named like a module of Python's is not imported for it."""
    for name in ("contextlib", "json", "logging", "typing"):
        (clone / f"{name}.py").write_text("raise SystemExit('of a stranger')")

    done = run(sys.executable, "-B", clone / "push.py", "--version")

    assert (done.status, done.stderr) == (0, "")


@pytest.mark.case("W15")
def test_an_installed_command_without_the_packages(bare, clone, tmp_path):
    """What is no clone is told to install what is asked for, where it is."""
    (clone / "requirements.txt").unlink()
    state = str(tmp_path / "state")

    line = told(run(bare, "-B", clone / "push.py", **KEYS, STATE_DIR=state))

    assert f" missing: {bare} -m pip install certifi 'cramjam>=2.6,<3' " in line


STUBS = {
    # package, version, module, what the module holds: what is told
    "too old": (
        *("prometheus-client", "0.16.0", "prometheus_client", ""),
        "prometheus-client is 0.16.0, 0.21 or newer, below 1, is needed: ",
    ),
    "too new": (
        *("prometheus-client", "1.0rc1", "prometheus_client", "import os; os.x"),
        "prometheus-client is 1.0rc1, 0.21 or newer, below 1, is needed: ",
    ),
    "not it": (
        *("", "", "prometheus_client", ""),
        "No module named 'prometheus_client.core'",
    ),
}


@pytest.mark.parametrize("case", STUBS)
def test_a_package_of_a_wrong_version(case, environ, tmp_path):
    """A package that does not fit is named with its version, or with what it lacks."""
    *stub, expected = STUBS[case]
    environ["PYTHONPATH"] = install(tmp_path, *stub)

    assert f"the installation is not complete: {expected}" in told(push_anew(environ))


def install(folder: Path, package: str, version: str, module: str, text: str) -> str:
    """Put a module, and what tells its version, into a folder; return that."""
    folder = folder / "stubs"
    where = folder.joinpath(*module.split("."))
    where.mkdir(parents=True)
    (where / "__init__.py").write_text(text)
    if package:
        told = folder / f"{package.replace('-', '_')}-{version}.dist-info" / "METADATA"
        told.parent.mkdir()
        told.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    return str(folder)


def test_a_damaged_package_is_installed_anew(clone, environ, tmp_path):
    """What is there by its name, and cannot be imported, pip alone would leave so."""
    (clone / "requirements.txt").unlink()
    environ["PYTHONPATH"] = install(tmp_path, "", "", "prometheus_client", "")

    line = told(run(sys.executable, "-B", clone / "push.py", **environ))

    assert line.partition(" -m ")[2].startswith("pip install --force-reinstall certifi")


def test_a_package_that_fails_in_the_middle_of_a_run(
    account, fleet, cloud, pushgateway, tmp_path
):
    """A package that is needed for one device ends the run with 78, and is told."""
    cloud.devices[:] = [SimulatedDevice(DELTA_3, name="Cellar", frame=frame)]
    account["PYTHONPATH"] = install(
        tmp_path, "protobuf", "3.21.12", "google.protobuf", ""
    )

    run = push_anew(account)

    assert run.status == 78, run.stderr
    (line,) = run.stderr.splitlines()
    assert " exit 78 CONFIG after " in line
    assert "protobuf is 3.21.12, 4.25 or newer, below 8, is needed: " in line
    assert pushgateway.run()["ecoflow_push_exit_status"] == 78


def test_a_fault_of_a_package_that_fits_is_a_bug(environ, tmp_path):
    """While all versions fit, only an import that fails is the installation's."""
    stub = ("prometheus-client", "0.22.1", "prometheus_client", "import os; os.x")
    environ["PYTHONPATH"] = install(tmp_path, *stub)

    run = push_anew(environ)

    assert run.status == 70
    assert "Traceback" in run.stderr


def test_a_module_of_ours_that_is_missing_is_a_bug(clone, environ):
    """That a module of the program is missing is not told as a missing package."""
    (clone / "ecoflow_push" / "metrics" / "exposition.py").unlink()

    done = run(sys.executable, "-B", clone / "push.py", "--dry-run", **environ)

    assert done.status == 70
    assert "ModuleNotFoundError" in done.stderr


def test_the_packages_are_those_of_the_project():
    """The bounds that are told are those of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    asked = [
        f"{package}>={least},<{below}" if least else package
        for package, least, below in PACKAGES
    ]
    assert asked == project["dependencies"]
    assert project["requires-python"] == ">=3.11"


def test_the_installed_command_is_push_py():
    """The command that a wheel installs is `entry` of the module that push.py is in."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    module, function = data["project"]["scripts"]["ecoflow-push"].split(":")
    put = data["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]

    assert put["push.py"] == f"{module.replace('.', '/')}.py"
    assert module.endswith("__main__")
    assert f"\ndef {function}(" in PUSH.read_text()
