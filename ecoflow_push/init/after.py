"""What comes next: the lines that start this very installation with that very file."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence

SYSTEM = "/etc/systemd/system"
UNIT = "ecoflow-push"
# By PrivateTmp=, as the service has it.
HIDDEN = ("/tmp/", "/var/tmp/")  # noqa: S108 - only looked for
# Here, or in an installed package.
UNITS = (("..", "..", "deploy", "systemd"), ("systemd",))


def tell(path: str, reached: Sequence[str], *, has_level: bool) -> None:
    """Print how to start runs with the settings in `path`.

    `reached` are the folders that a run writes to; if it `has_level`, the settings say
    how much is logged. What is printed is to be copied:
    unlike all else it is not masked, and holds nothing that was answered.
    """
    command = [*program(), "--env-file", path]
    for line in (
        f"Written: {path}",
        "",
        "One run now:",
        "",
        shlex.join(command),
        "",
        "Every minute, by cron: call `crontab -e`, and put this line at the end:",
        "",
        cron_line(command, has_level=has_level),
        "",
        *(by_systemd(command, reached) if shutil.which("systemctl") else ()),
    ):
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def program() -> list[str]:
    """Return what starts this installation: push.py in a clone, else the command."""
    here = os.path.dirname(os.path.abspath(__file__))
    script = os.path.join(os.path.dirname(os.path.dirname(here)), "push.py")
    if os.path.isfile(script):
        return [sys.executable, script]
    beside = os.path.join(os.path.dirname(sys.executable), UNIT)
    for command in (beside, os.path.abspath(sys.argv[0])):
        if os.path.basename(command) == UNIT and os.access(command, os.X_OK):
            return [command]
    return [sys.executable, "-m", "ecoflow_push"]


def cron_line(command: Sequence[str], *, has_level: bool = False) -> str:
    """Return the line of a crontab; a good run says nothing that would be mailed.

    Unless the settings have a word on that, which is what `has_level` says.
    """
    # To cron a percent sign that is not escaped is the end of the line; nothing of its
    # own may stand before that escape. A backslash stands in single quotes here.
    quoted = shlex.join(command).replace("\\", "\\''").replace("%", r"\%")
    return f"* * * * * {'' if has_level else 'LOG_LEVEL=WARNING '}{quoted}"


def by_systemd(command: Sequence[str], reached: Sequence[str]) -> Iterator[str]:
    """Yield commands that install the units, with what is different here."""
    here = os.path.dirname(os.path.abspath(__file__))
    places = (os.path.normpath(os.path.join(here, *place)) for place in UNITS)
    units = next(filter(os.path.isdir, places), "")
    if not units:
        return
    sudo = "sudo " if os.geteuid() else ""
    files = (os.path.join(units, f"{UNIT}.{kind}") for kind in ("service", "timer"))
    folder = f"{SYSTEM}/{UNIT}.service.d"
    yield "Or, instead of cron, by systemd (252 or newer):"
    yield ""
    yield f"{sudo}install -m 644 {shlex.join(files)} {SYSTEM}/"
    yield f"{sudo}mkdir -p {folder}"
    yield f"{sudo}tee {folder}/installation.conf >/dev/null <<'END'"
    yield from drop_in(command, reached)
    yield "END"
    yield f"{sudo}systemctl daemon-reload"
    start = f"{sudo}systemctl start {UNIT}.service"
    yield f"{start} && {sudo}systemctl enable --now {UNIT}.timer"
    yield ""


def drop_in(command: Sequence[str], reached: Sequence[str]) -> Iterator[str]:
    """Yield what of deploy/systemd's service is different here."""
    # systemd takes no program with these in its path, but arguments.
    prefix = ["/usr/bin/env"] if set("\\\"'") & set(command[0]) else []
    first, *others = *prefix, *command
    # Variables are expanded in arguments, not in the program's own path.
    arguments = (each.replace("$", "$$") for each in others)
    yield "[Service]"
    yield "ExecStart="
    yield f"ExecStart={' '.join(map(_quoted, (first, *arguments)))}"
    # As who has tried it; the file is that user's alone.
    yield "DynamicUser=no"
    yield f"User={_user()}"
    yield "ProtectHome=read-only"
    if any(f"{each}/".startswith(HIDDEN) for each in (*command, *reached)):
        yield "PrivateTmp=no"
    for each in reached:
        yield f"ReadWritePaths={_quoted(each)}"
    # The service's own place for all of that.
    yield "EnvironmentFile="
    yield "LoadCredential="
    yield "Environment=ECOFLOW_ACCESS_KEY_FILE= ECOFLOW_SECRET_KEY_FILE="


def _user() -> str:
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _quoted(word: str) -> str:
    """Return a word as systemd reads it: in quotes, percent signs doubled."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
