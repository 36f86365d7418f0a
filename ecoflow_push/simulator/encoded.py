"""Encoded: the quotas of any number of devices, written out once.

A cloud of thousands shares its processors with what it serves, so that an answer must
cost it next to nothing.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Mapping

# Stands where a moving value is to be; nothing that is reported is like it.
MARK = "\0moving"


class Encoded:
    """Quotas as JSON; each time it is asked for, the `moving` ones have a new value.

    One can be shared by all devices of a kind: it is all that they take of memory.
    """

    def __init__(
        self, quotas: Mapping[str, object], moving: Collection[str] = ()
    ) -> None:
        """Write `quotas` out; the values of those that are `moving` do not matter."""
        marked = {
            key: MARK if key in moving else value for key, value in quotas.items()
        }
        mark = json.dumps(MARK).encode()
        self._pieces = json.dumps(marked).encode().split(mark)
        self._times = itertools.count(1)

    def __call__(self) -> bytes:
        """Return the quotas as JSON."""
        return (b"%d" % next(self._times)).join(self._pieces)
