"""The files that --init writes: where they are, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ecoflow_push.memory.files import replace_file


def whole(path: str, environ: Mapping[str, str]) -> str:
    """Return the absolute path of what somebody may type."""
    home = environ.get("HOME") or os.path.expanduser("~")
    for beginning in ("~/", "$HOME/"):
        if path.startswith(beginning):
            path = os.path.join(home, path.removeprefix(beginning))
    return os.path.abspath(path)


def trouble(path: str) -> str:
    """Return why no file of settings can be there, "" if one can."""
    if not path.isprintable():
        return "expected a name of printable text"
    if os.path.lexists(path) and not os.path.isfile(path):
        return "not a regular file"
    folder = os.path.dirname(path)
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        return f"nothing can be written in {folder}"
    return ""


def beside(path: str, variable: str) -> str:
    """Return the file for a secret: in the folder of the settings, named as it is."""
    name = variable.lower().replace("_", "-")
    return os.path.join(os.path.dirname(path), name)


def write(contents: Mapping[str, str]) -> None:
    """Write each text into its file (0600), the last one last; raises OSError.

    Where one cannot be written none is left that was not there.
    """
    made: list[str] = []
    try:
        for path, text in contents.items():
            _make_folder(os.path.dirname(path))
            is_new = not os.path.lexists(path)
            replace_file(path, text.encode(), 0o600)
            made += [path] if is_new else []
    except OSError:
        for path in made:
            os.unlink(path)
        raise


def _make_folder(path: str) -> None:
    # A mode argument would be for the last folder alone.
    umask = os.umask(0o077)
    try:
        os.makedirs(path, exist_ok=True)
    finally:
        os.umask(umask)
