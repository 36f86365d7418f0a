"""Which devices a run is about, and which metrics of them are said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ecoflow_push.metrics.shapes import SHAPES

if TYPE_CHECKING:
    from collections import Counter

    from ecoflow_push.memory.state import State
    from ecoflow_push.metrics.frame import Part


class Wanted:
    """Which devices a run is about.

    `named` are the serials of the settings, `only` those of this run alone, which
    change nothing that is remembered of others; without either it is about all. `names`
    are what the user calls them, by serial. Where a list spells a serial in upper case,
    so does the reading of a device that was named in lower case.
    """

    __slots__ = ("_asked", "_named", "_names", "named", "only")

    def __init__(
        self,
        named: Sequence[str] = (),
        only: Sequence[str] = (),
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.named = named
        self.only = only
        self._named = _spellings(named)
        self._asked = _spellings(self.serials)
        names = names or {}
        self._names = {sn.upper(): name for sn, name in names.items()} | dict(names)

    @property
    def serials(self) -> Sequence[str]:
        """The devices asked for by serial, none if all are."""
        return self.only or self.named

    def is_named(self, sn: str) -> bool:
        """Return whether the settings name a device."""
        return sn in self._named

    def is_asked_for(self, sn: str) -> bool:
        """Return whether a device was asked for by its serial."""
        return sn in self._asked

    def name_of(self, sn: str) -> str:
        """Return what the user calls a device, "" if nothing."""
        return self._names.get(sn, "")


class Wording:
    """Which metrics are said, of raw and normalized, and how raw names are spelt."""

    __slots__ = ("naming", "sets")

    def __init__(
        self, sets: Sequence[str] = ("raw", "normalized"), naming: str = "ecoflow"
    ) -> None:
        self.sets = sets
        self.naming = naming

    def raw(
        self, quotas: Mapping[str, object], prefix: str
    ) -> tuple[Part, Counter[str]]:
        """Return the raw samples of a device, and how many values were skipped."""
        return SHAPES.part(quotas, prefix, self.naming)


def spelt(sn: str, state: State) -> str:
    """Return a serial as EcoFlow's list spelt it, as far as that is remembered."""
    upper, devices = sn.upper(), state.devices
    is_typed_so = sn in devices and devices[sn].listed
    return upper if upper in devices and not is_typed_so else sn


def _spellings(serials: Sequence[str]) -> frozenset[str]:
    return frozenset((*serials, *(sn.upper() for sn in serials)))
