"""Frame: what the samples of many snapshots have in common.

No prometheus_client in here: its import may wait until EcoFlow is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash

#: A metric's type and its help.
Kind = tuple[str, str]


class Frame:
    """What stays of samples when their values change; never altered.

    Sample n is called `names[n]`, has the labels `extras[places[n]]` beside those of
    its sheet, and is of kind `kinds[metas[n]]`. Those of one name stand together, and
    no series stands twice. Frames are equal where all of that is.
    """

    __slots__ = (
        *("_digest", "_hash", "_heads", "_key"),
        *("extras", "kinds", "metas", "names", "places"),
    )

    def __init__(self, rows: Iterable[tuple[str, Mapping[str, str], Kind]]) -> None:
        """Take each sample's name, further labels and kind.

        Raises ValueError if a series occurs twice.
        """
        names: list[str] = []
        places: list[int] = []
        metas: list[int] = []
        place_of: dict[tuple[tuple[str, str], ...], int] = {}
        meta_of: dict[Kind, int] = {}
        for name, extra, kind in rows:
            names.append(name)
            places.append(place_of.setdefault(tuple(extra.items()), len(place_of)))
            metas.append(meta_of.setdefault(kind, len(meta_of)))
        if len(set(zip(names, places, strict=True))) < len(names):
            raise ValueError("a series occurs twice")
        self.names = tuple(names)
        self.places = tuple(places)
        self.metas = tuple(metas)
        self.extras = [dict(items) for items in place_of]
        self.kinds = list(meta_of)
        self._key = (self.names, self.places, tuple(place_of), tuple(meta_of))
        self._hash = hash(self._key)
        self._heads: list[str] | None = None
        self._digest: _Hash | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    @property
    def heads(self) -> list[str]:
        """What stands before each sample's labels in a text, the line before ended."""
        if self._heads is None:
            before, heads = "", []
            for name, meta in zip(self.names, self.metas, strict=True):
                head = f"\n{name}"
                if name != before:
                    head = f"\n{family_head(name, self.kinds[meta])}{name}"
                before = name
                heads.append(head)
            self._heads = heads
        return self._heads

    def digest(self, values: Sequence[float]) -> str:
        """Return what differs wherever a name, a label or a value does."""
        if self._digest is None:
            # Imported for a signature already, if at all.
            import hashlib

            self._digest = hashlib.sha256(repr(self._key[:3]).encode())
        found = self._digest.copy()
        found.update(_packed(values))
        return found.hexdigest()[:16]


#: Samples: what stays, and the values.
Part = tuple[Frame, Sequence[float]]
#: One sample: its name, its places in lists or further labels, and its value.
Row = tuple[str, "tuple[int, ...] | Mapping[str, str]", float]


def _packed(values: Sequence[float]) -> bytes:
    import struct

    return struct.pack(f"<{len(values)}d", *values)


def family_head(name: str, kind: Kind) -> str:
    """Return the lines that begin a family of gauges or counters, and no others."""
    text = kind[1].replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {text}\n# TYPE {name} {kind[0]}\n"
