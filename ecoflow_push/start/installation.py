"""What an installation lacks, told in one line: an old Python, a missing package.

A good run never imports this. Like push.py, the package's own files on the way here and
`lines`, it is in the grammar of Python 3.6: an older one is to be told, not to choke.
"""

import contextlib
import os
import sys
import time

from ecoflow_push.lines import line

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import NoReturn

    from ecoflow_push.errors import InstallationError

#: What pyproject.toml asks for: each package, from which version on, and below which.
PACKAGES = (
    ("certifi", "", ""),
    ("cramjam", "2.6", "3"),
    ("idna", "3", "4"),
    ("paho-mqtt", "2.1", "3"),
    ("prometheus-client", "0.21", "1"),
    ("protobuf", "4.25", "8"),
    ("requests", "2.32", "3"),
    ("schedule", "1.2", "2"),
    ("tqdm", "4.66", "5"),
    ("urllib3", "2.5", "3"),
)
FIRST = (3, 11)
NEWER = ("python3.14", "python3.13", "python3.12", "python3.11")


def leave_old_python(environ: "Mapping[str, str]") -> "NoReturn":
    """End the process with 78: the Python that runs us is too old."""
    found = "{}.{}.{}".format(*sys.version_info[:3])
    text = f"this is Python {found}, 3.11 or newer is needed: {_cure()}"
    as_json = environ.get("LOG_FORMAT", "").strip().lower() == "json"
    said = line("ERROR", f"exit 78 CONFIG: {text}", time.time(), as_json=as_json)
    # None if closed at the start.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(said + "\n")
    raise SystemExit(78)


def fault_of(exc: Exception) -> "InstallationError | None":
    """Return what the installation lacks, if `exc` comes of that.

    None where it is a bug of ours: our own module that is missing, or any other
    exception than a package of another shape raises, or one while all fit.
    """
    if not isinstance(exc, (ImportError, AttributeError, TypeError)):
        return None
    from ecoflow_push.errors import InstallationError

    unfit = "; ".join(_unfit())
    is_theirs = isinstance(exc, ImportError) and not _is_ours(exc.name)
    if not unfit and not is_theirs:
        return None
    text = f"the installation is not complete: {unfit or exc}"
    return InstallationError(text, _cure(is_damaged=not unfit))


def _is_ours(name: "str | None") -> bool:
    return f"{name}.".startswith("ecoflow_push.")


def _unfit() -> "Iterator[str]":
    """Yield what is wrong: which packages are missing, which are out of bounds."""
    from importlib.metadata import PackageNotFoundError, version

    missing = []
    for package, least, below in PACKAGES:
        try:
            found = _numbers(version(package))
        except PackageNotFoundError:
            missing.append(package)
            continue
        if least and not _numbers(least) <= found < _numbers(below):
            needed = f"{least} or newer, below {below}, is needed"
            yield f"{package} is {version(package)}, {needed}"
    if missing:
        yield f"{', '.join(missing)} missing"


def _bounds(least: str, below: str) -> str:
    return f">={least},<{below}" if least else ""


def _numbers(version: str) -> "list[int]":
    """Return the numbers that a version begins with: 2.32.0rc1 is 2, 32."""
    numbers = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return numbers


def _cure(*, is_damaged: bool = False) -> str:
    """Return the way to what fits: beside push.py in a clone, else where we are.

    A package that `is_damaged` is there by its name: pip alone would leave it so.
    """
    import shlex

    # Where push.py is; of an installed package where all packages are.
    folder = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
    environment = os.path.join(folder, ".venv")
    python = os.path.join(environment, "bin", "python")
    is_there = os.access(python, os.X_OK)
    if is_there and os.path.realpath(sys.prefix) != os.path.realpath(environment):
        return f"run it with {shlex.quote(python)}"
    base = _fitting_python()
    pinned = os.path.join(folder, "requirements.txt")
    if os.path.exists(pinned):
        anew = "--clear " if is_there else ""
        first = "" if base else "install Python 3.11 or newer (python3-venv), then: "
        return (
            f"{first}{shlex.quote(base or 'python3')} -m venv {anew}"
            f"{shlex.quote(environment)} && {shlex.quote(python)} -m pip install "
            f"--require-hashes -r {shlex.quote(pinned)}"
        )
    if sys.version_info < FIRST:
        return f"use {base}" if base else "install one"
    needed = " ".join(shlex.quote(p + _bounds(*of)) for p, *of in PACKAGES)
    anew = "--force-reinstall " if is_damaged else ""
    return f"{shlex.quote(sys.executable)} -m pip install {anew}{needed}"


def _fitting_python() -> str:
    """Return a Python to make an environment with, "" if none is found."""
    if sys.version_info >= FIRST:
        return getattr(sys, "_base_executable", "") or sys.executable
    import shutil

    return next(filter(None, map(shutil.which, NEWER)), "")
