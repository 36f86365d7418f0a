"""TextfileSink: the exposition in a file, for node_exporter's textfile collector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import generate_latest

from ecoflow_push.errors import SinkError
from ecoflow_push.memory.files import replace_file

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry


class TextfileSink:
    """Replaces one file, whole or not at all."""

    def __init__(self, path: str) -> None:
        self._path = path

    def push(self, registry: CollectorRegistry) -> None:
        """Write the whole exposition (mode 0644: another user's collector reads it).

        Raises SinkError; the file is then what it was.
        """
        try:
            replace_file(self._path, generate_latest(registry), 0o644)
        except OSError as exc:
            raise SinkError(
                f"textfile: cannot write {self._path}: {exc.strerror}"
            ) from exc
