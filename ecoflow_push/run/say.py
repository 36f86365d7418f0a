"""What --check prints: a head, a line for each finding, and the status."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

from ecoflow_push import DOCS, __version__
from ecoflow_push.config.environ import Reader
from ecoflow_push.errors import ExitStatus, Finding
from ecoflow_push.redact import redact
from ecoflow_push.run.effective import effective
from ecoflow_push.run.show import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ecoflow_push.errors import Fault, SettingsError

OTHER_CURE = "try again; if it stays, report these lines"


def show_head() -> None:
    """Print what a bug report begins with; nothing of it names this host."""
    python = f"Python {platform.python_version()}"
    system = os.uname()
    # Not platform.platform(), which starts another program to learn no more.
    parts = [system.sysname, system.release, system.machine]
    if libc := "".join(platform.libc_ver()):
        parts += ["with", libc]
    say(f"ecoflow-push {__version__}, {python}, {'-'.join(parts)}\n")


def show(finding: Finding) -> None:
    """Print one line without secrets; raises SinkError when nobody can read it."""
    cure = finding.cure or (OTHER_CURE if finding.mark == "wrong" else "")
    text = f"{finding.text}: {cure}" if cure else finding.text
    line = redact(f"{finding.mark:<8} {finding.step}: {text}")
    say("".join(c if c.isprintable() else "?" for c in line) + "\n")


def show_faults(error: SettingsError) -> ExitStatus:
    """Print what is set, and each fault of it; return the exit status."""
    show_head()
    if isinstance(error.reader, Reader):
        for finding in effective(error.reader, {}, error.faults):
            show(finding)
    for finding in found_in(error):
        show(finding)
    for note in error.notes:
        show(noted(note))
    return show_status(error.status)


def found_in(error: SettingsError) -> Iterator[Finding]:
    """Yield the finding that each fault of the settings is."""
    for fault in error.faults:
        text = ": ".join(filter(None, (fault.variable, fault.text)))
        cure = fault.cure or f"correct it, see {DOCS}/settings.md"
        yield Finding("wrong", "settings", text, cure)


def noted(note: Fault) -> Finding:
    """Return the finding that a note on the settings is."""
    text = ": ".join(filter(None, (note.variable, note.text)))
    return Finding("warning", "settings", text, note.cure)


def show_status(status: ExitStatus, *, is_well: bool = True) -> ExitStatus:
    """Print the last line, and return the exit status of the check.

    It is a run's, but never 0 if not all `is_well`.
    """
    text = f"a run would exit {status:d} {status.name}"
    if status == ExitStatus.OK and not is_well:
        status = ExitStatus.PARTIAL
        text += f"; the check exits {status:d} {status.name} for what is wrong"
    say(f"{text}\n")
    return status


def unnamed(text: str, instance: str) -> str:
    """Return a text without this host's name.

    A server that quotes our series quotes it with them; so does one that quotes our
    path, or redirects it.
    """
    if "/instance" in text:
        from ecoflow_push.sinks.groups import path_of

        whole = path_of({"instance": instance})
        text = text.replace(whole.removeprefix("/metrics"), "/instance/...")
    return text.replace(f'"{instance}"', '"..."')
