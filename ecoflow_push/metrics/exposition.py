"""One exposition of many registries, each family once; only its text is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import generate_latest

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

# Text and labels cannot hold it: a line's end is written as \n there.
_NEXT = b"\n# HELP "


class Exposition:
    """Gathers the text of registries, family by family, in the order first seen."""

    def __init__(self) -> None:
        self._families: dict[bytes, bytearray] = {}

    def add(self, registry: CollectorRegistry) -> None:
        """Add all samples of a registry, which is not kept."""
        text = generate_latest(registry)
        for block in text.removesuffix(b"\n").split(_NEXT):
            family = block.removeprefix(b"# HELP ")
            help_line, _, rest = family.partition(b"\n")
            type_line, _, samples = rest.partition(b"\n")
            head = b"# HELP %b\n%b\n" % (help_line, type_line)
            if samples:
                known = self._families.setdefault(head, bytearray())
                known += samples + b"\n"

    def pieces(self) -> Iterator[bytes | bytearray]:
        """Yield the exposition, piece by piece."""
        for head, samples in self._families.items():
            yield head
            yield samples
