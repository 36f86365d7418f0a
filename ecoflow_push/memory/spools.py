"""The spools of a state folder: one for each endpoint, and how they are kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from ecoflow_push.memory.entry import entry_named
from ecoflow_push.memory.lock import is_state_folder
from ecoflow_push.memory.spool import Spool
from ecoflow_push.memory.state import NAME

if TYPE_CHECKING:
    from ecoflow_push.memory.records import EndpointRecord

#: What the name of a spool's folder begins with.
SPOOL = "spool-"


def endpoint_folder(state_folder: str, *endpoint: str) -> str:
    """Return the folder of one endpoint's spool: a hash, since a URL may tell much."""
    digest = hashlib.sha256("\0".join(endpoint).encode()).hexdigest()[:12]
    return os.path.join(state_folder, f"{SPOOL}{digest}")


def state_folders(state_dir: str) -> list[str]:
    """Return the folders of all accounts and jobs, those first that rest the longest.

    Raises OSError.
    """
    paths = [
        os.path.join(state_dir, name)
        for name in sorted(os.listdir(state_dir))
        if is_state_folder(name)
    ]
    return sorted(filter(os.path.isdir, paths), key=_saved_at)


def _saved_at(folder: str) -> float:
    with contextlib.suppress(OSError):
        return os.stat(os.path.join(folder, NAME)).st_mtime
    return 0.0


def waiting(state_folder: str) -> dict[str, tuple[int, int]]:
    """Return how many records wait in each spool, and samples, by its folder's name.

    The names of files tell, nothing is touched, and no lock is needed. Raises OSError.
    """
    found = {}
    for name in os.listdir(state_folder):
        path = os.path.join(state_folder, name)
        if name.startswith(SPOOL) and os.path.isdir(path) and not os.path.islink(path):
            entries = list(filter(None, map(entry_named, os.listdir(path))))
            found[name] = len(entries), sum(each.samples for each in entries)
    return found


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
            if name.startswith(SPOOL) and name != own and not is_link:
                spool = Spool(os.path.join(parent, name))
                spool.open(known.get(name))
                found.append(spool)
    return found
