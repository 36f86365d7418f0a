"""The spools of a state folder: one for each endpoint, and how they are kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from ecoflow_push.memory.spool import Spool

if TYPE_CHECKING:
    from ecoflow_push.memory.records import EndpointRecord


def endpoint_folder(state_folder: str, *endpoint: str) -> str:
    """Return the folder of one endpoint's spool: a hash, since a URL may tell much."""
    digest = hashlib.sha256("\0".join(endpoint).encode()).hexdigest()[:12]
    return os.path.join(state_folder, f"spool-{digest}")


def other_spools(
    own_folder: str, known: Mapping[str, EndpointRecord] = MappingProxyType({})
) -> list[Spool]:
    """Return the spools of endpoints that were once set and are not now.

    `known` is what is remembered of them, by the names of their folders.
    """
    parent, own = os.path.split(own_folder)
    found = []
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(parent)):
            is_link = os.path.islink(os.path.join(parent, name))
            if name.startswith("spool-") and name != own and not is_link:
                spool = Spool(os.path.join(parent, name))
                spool.open(known.get(name))
                found.append(spool)
    return found
