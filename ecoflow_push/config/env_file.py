"""--env-file: settings in a file that cron, systemd, Docker and a shell can share.

One assignment a line, nothing is expanded. Imported only where the option is used,
and before the lock is looked at: its own imports stay light.
"""

from __future__ import annotations

import os
import stat

from ecoflow_push.config.kinds import is_made_of
from ecoflow_push.config.texts import MAX_FILE_BYTES
from ecoflow_push.errors import Fault, SettingsError

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import NoReturn

OPTION = "--env-file"
PROXIES = ("http_proxy", "https_proxy", "no_proxy")


class Environ(dict[str, str]):
    """An environment, and what it has from files."""

    def __init__(self) -> None:
        super().__init__()
        #: Where what is from a file stands, as "file:line", by the variable.
        self.origins: dict[str, str] = {}
        #: The file of each variable that others than its owner can read.
        self.exposed: dict[str, str] = {}

    def lay(self, layer: Mapping[str, str]) -> dict[str, str]:
        """Lay a stronger source over what is there; what is empty says nothing.

        It also decides between a value and its _FILE form, or a proxy's two spellings.
        Returns what it said.
        """
        said = {name: value for name, value in layer.items() if value.strip()}
        for name in said:
            bare = name.removesuffix("_FILE")
            forms = {bare, f"{bare}_FILE"}
            if bare.lower() in PROXIES:
                forms = {bare.lower(), bare.upper()}
            for form in forms - said.keys() | {name}:
                for each in (self, self.origins, self.exposed):
                    each.pop(form, None)
        self.update(said)
        return said


def files_alone(argv: Sequence[str]) -> list[str]:
    """Return the files that arguments name, none if there is any other argument."""
    files = []
    rest = iter(argv)
    for each in rest:
        option, is_joined, value = each.partition("=")
        file = value if is_joined else next(rest, "")
        if option != OPTION or not file or file.startswith("-"):
            return []
        files.append(file)
    return files


def over_files(paths: Iterable[str], environ: Mapping[str, str]) -> Environ:
    """Return the environment laid over the files, a later one over an earlier one.

    Raises SettingsError for a file that cannot be read or has a malformed line.
    """
    whole = Environ()
    for path in paths:
        text, is_exposed = _content(path, environ)
        lines = _lines(path, text)
        for name in whole.lay({name: value for name, (value, _) in lines.items()}):
            whole.origins[name] = f"{path}:{lines[name][1]}"
            if is_exposed:
                whole.exposed[name] = path
    whole.lay(environ)
    return whole


def _content(path: str, environ: Mapping[str, str]) -> tuple[str, bool]:
    """Return the text of a file, and whether others than its owner can read it."""
    place = path
    if path.startswith("~/"):
        # A shell does not do so behind "=".
        home = environ.get("HOME") or os.path.expanduser("~")
        place = os.path.join(home, path[2:])
    try:
        # Non-blocking: opening a FIFO that nobody writes to must not hang.
        descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                _refuse(path, "expected a regular file")
            raw = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:
        if "=" in path:
            # Its value may be a secret.
            _refuse(
                "a setting", "expected a file", "put it into one, or before push.py"
            )
        _refuse(path, f"cannot be read ({getattr(exc, 'strerror', '') or 'its name'})")
    if len(raw) > MAX_FILE_BYTES:
        _refuse(path, f"longer than {MAX_FILE_BYTES} bytes")
    try:
        return raw.decode("utf-8-sig"), _is_exposed(found)
    except UnicodeDecodeError as exc:
        number = exc.object[: exc.start].count(b"\n") + 1
        _refuse(f"{path} line {number}", "expected UTF-8 text")


def _is_exposed(found: os.stat_result) -> bool:
    # What is somebody else's we can only read by its group, as a Secret that Kubernetes
    # mounts, or by what systemd lets a service see.
    others = stat.S_IROTH
    if found.st_uid == os.geteuid():
        others |= stat.S_IRGRP
    return bool(found.st_mode & others)


def _lines(path: str, text: str) -> dict[str, tuple[str, int]]:
    """Return each variable's value and the number of its line."""
    found = {}
    for number, each in enumerate(text.split("\n"), 1):
        line = each.strip()
        if not line or line.startswith("#"):
            continue
        words = line.split(None, 1)
        if words[0] == "export" and len(words) > 1:
            line = words[1]
        name, is_assigned, value = line.partition("=")
        place = f"{path} line {number}"
        if not is_assigned or not is_made_of(name, "_") or name[0].isdigit():
            _refuse_name(place, name)
        found[name] = (_unquoted(place, value.strip()), number)
    return found


def _unquoted(place: str, value: str) -> str:
    """Return a value without the quotes around it."""
    quote = value[:1]
    if quote not in ("'", '"') or not quote:
        return value
    if len(value) < 2 or value[-1] != quote:
        cure = "a comment needs a line of its own"
        _refuse(place, "the line does not end with the quote that the value has", cure)
    return value[1:-1]


def _refuse_name(place: str, name: str) -> NoReturn:
    """Refuse a line for what stands before its =, if it has any."""
    from ecoflow_push.config.hidden import CURE, hidden

    if odd := hidden(name):
        _refuse(place, odd, CURE)
    cure = "without spaces around =; a comment begins with #"
    _refuse(place, "expected KEY=value", cure)


def _refuse(place: str, text: str, cure: str = "") -> NoReturn:
    raise SettingsError([Fault(OPTION, f"{place}: {text}", cure)])
