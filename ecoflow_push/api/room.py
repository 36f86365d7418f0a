"""Room: what devices that speak by themselves may fill, all together and each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ecoflow_push.api.envelope import MOST_WEIGHT, weight_of

if TYPE_CHECKING:
    from collections.abc import Mapping

# The values of all devices that are still heard, in bytes (envelope.weight_of).
MOST_HELD = 32 << 20


class Room:
    """The memory that is left, in bytes."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MOST_HELD


class Kept:
    """The newest values of one device, and how many found no room."""

    __slots__ = ("quotas", "room", "too_many", "weight")

    def __init__(self, room: Room) -> None:
        self.quotas: dict[str, object] = {}
        self.room = room
        self.too_many = 0
        #: What they take in memory, in bytes, at most.
        self.weight = 0

    def add(self, found: Mapping[str, object], weight: int) -> None:
        """Keep these values, which weigh so much, or count them."""
        if not self._has_room(weight):
            self._weigh()
            if not self._has_room(weight):
                self.too_many += len(found)
                return
        self.quotas.update(found)
        self.weight += weight
        self.room.left -= weight

    def let_go(self) -> None:
        """Forget the values: they were handed on."""
        self.room.left += self.weight
        self.quotas, self.weight = {}, 0

    def _has_room(self, weight: int) -> bool:
        return self.weight + weight <= MOST_WEIGHT and weight <= self.room.left

    def _weigh(self) -> None:
        """Find out what is held: what came again had been counted again."""
        try:
            held = weight_of(json.dumps(self.quotas).encode())
        except RecursionError:
            return
        held = min(held, self.weight)
        self.room.left += self.weight - held
        self.weight = held
