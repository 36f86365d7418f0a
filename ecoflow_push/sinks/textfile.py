"""TextfileSink: the exposition in a file, for node_exporter's textfile collector."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ecoflow_push.config.kinds import Variable
from ecoflow_push.errors import Finding, SinkError
from ecoflow_push.memory.files import replace_file
from ecoflow_push.metrics.exposition import Exposition
from ecoflow_push.sinks.base import Sink, Update

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.config.environ import Reader
    from ecoflow_push.config.settings import Settings
    from ecoflow_push.memory.state import State
    from ecoflow_push.net.deadline import Deadline

VARIABLES = (
    Variable(
        "TEXTFILE_PATH",
        "write the exposition there, whole or not at all, mode 0644, for"
        " node_exporter's textfile collector, which reads no other name than one in"
        " `.prom`; its age is its freshness. A symbolic link is refused: whoever may"
        " put one there would choose what is overwritten",
        is_path=True,
    ),
)
CURE = "check that the job can write into the folder of TEXTFILE_PATH"
KEPT_CURE = "remove the file of TEXTFILE_PATH, or run as its owner"
LINK_CURE = "let TEXTFILE_PATH name the file that it points to"
NAME_CURE = "node_exporter reads no other file"


def read(reader: Reader) -> str | None:
    """Return the path of the settings, None if there is none."""
    path = reader.path("TEXTFILE_PATH")
    if path and os.path.isdir(path):
        reader.fault("TEXTFILE_PATH", "expected a file, not a folder")
    elif path and not path.endswith(".prom"):
        text = "expected a name that ends in .prom"
        reader.fault("TEXTFILE_PATH", text, NAME_CURE)
    return path


def create(
    config: str, _settings: Settings, _state: State, _folder: str | None
) -> TextfileSink:
    """Return the sink."""
    return TextfileSink(config)


class TextfileSink(Sink):
    """Replaces one file, whole or not at all; one object, one run."""

    name = "textfile"
    is_for_all = True

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._exposition = Exposition()
        self._is_abandoned = False

    def take(self, update: Update, deadline: Deadline) -> None:  # noqa: ARG002
        """Keep what was learnt as lines of text, a third of the registry."""
        if update.action == "say" and update.registry is not None:
            self._exposition.add(update.registry)

    def deliver(self, deadline: Deadline) -> None:  # noqa: ARG002
        """Count as delivered: so knows whoever reads the file; so may its status."""
        self.delivery.delivered = 1

    def deliver_run(self, registry: CollectorRegistry, deadline: Deadline) -> None:  # noqa: ARG002
        """Write the file (mode 0644: another user's collector reads it)."""
        self._exposition.add(registry)
        error = self._written()
        if not self._is_abandoned:
            self.delivery.delivered = int(error is None)
            self.delivery.errors += [error] if error else []

    def abandon(self) -> None:
        """Give up a disk that does not answer."""
        self._is_abandoned = True
        self.delivery.delivered = 0
        text = f"textfile: cannot write {self._path}: the disk did not answer in time"
        self.delivery.errors.append(SinkError(text, "look for a failing disk"))

    def probe(self, deadline: Deadline) -> Iterator[Finding]:  # noqa: ARG002
        """Write another file into its folder; the file itself is not touched."""
        from ecoflow_push.memory.trial import cure_of, try_file
        from ecoflow_push.sinks.trial import taken, wrong

        if os.path.islink(self._path):
            yield wrong(self.name, self._linked())
            return
        if os.path.lexists(self._path) and not os.path.isfile(self._path):
            error = SinkError("textfile: not a regular file", "check TEXTFILE_PATH")
            yield wrong(self.name, error)
            return
        if self._is_kept():
            text = "textfile: another user's file, in a folder where each keeps its own"
            yield wrong(self.name, SinkError(text, KEPT_CURE))
            return
        # A run makes no folder: it would be one that no collector looks into.
        fault = try_file(self._path, makes=False)
        if fault is None:
            yield taken(self.name)
            return
        cure = cure_of(fault, "TEXTFILE_PATH", CURE)
        yield wrong(self.name, SinkError(f"textfile: {fault.strerror}", cure))

    def _is_kept(self) -> bool:
        """Return whether the folder's sticky bit keeps the file from being replaced."""
        user = os.geteuid()
        try:
            folder = os.stat(os.path.dirname(self._path) or ".")
            owners = {0, folder.st_uid, os.lstat(self._path).st_uid}
        except OSError:
            return False
        return bool(folder.st_mode & stat.S_ISVTX) and user not in owners

    def _written(self) -> SinkError | None:
        """Write the file, whole or not at all, and return why that failed."""
        if os.path.islink(self._path):
            return self._linked()
        try:
            replace_file(self._path, self._exposition.pieces(), 0o644)
        except OSError as exc:
            text = f"textfile: cannot write {self._path}: {exc.strerror}"
            return SinkError(text, CURE)
        return None

    def _linked(self) -> SinkError:
        return SinkError(f"textfile: {self._path} is a symbolic link", LINK_CURE)
