"""The installed command, which leaves as early as push.py does."""

from __future__ import annotations

import os
import sys

from ecoflow_push.signals import leave_on_signals


def entry() -> None:
    """Look at the lock, then import and walk the road."""
    leave_on_signals(sys.argv[1:])
    from ecoflow_push.lock import leave_if_held

    leave_if_held(sys.argv[1:], os.environ)
    # push.py, where the package is installed.
    from ecoflow_push.__main__ import (  # type: ignore[import-not-found]
        entry as walk,
    )

    walk()
