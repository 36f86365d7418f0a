"""The spools of a state folder: one for each endpoint, and how they are kept."""

from __future__ import annotations

import contextlib
import hashlib
import os

from ecoflow_push.memory.spool import Spool


class Keep:
    """How the spool of a timestamped sink is kept.

    `ahead`: records are stored before they are sent, not only when that failed.
    `max_age` is in seconds.
    """

    __slots__ = ("ahead", "max_age", "max_bytes")

    def __init__(
        self,
        *,
        ahead: bool = True,
        max_age: float = 86_400.0,
        max_bytes: int = 20 * 1024 * 1024,
    ) -> None:
        self.ahead = ahead
        self.max_age = max_age
        self.max_bytes = max_bytes


def endpoint_folder(state_folder: str, *endpoint: str) -> str:
    """Return the folder of one endpoint's spool: a hash, since a URL may tell much."""
    digest = hashlib.sha256("\0".join(endpoint).encode()).hexdigest()[:12]
    return os.path.join(state_folder, f"spool-{digest}")


def other_spools(own_folder: str) -> list[Spool]:
    """Return the spools of endpoints that were once set and are not now."""
    parent, own = os.path.split(own_folder)
    found = []
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(parent)):
            is_link = os.path.islink(os.path.join(parent, name))
            if name.startswith("spool-") and name != own and not is_link:
                spool = Spool(os.path.join(parent, name))
                spool.open()
                found.append(spool)
    return found
