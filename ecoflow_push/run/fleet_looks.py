"""What is printed instead of pushed for many accounts, one after the other."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ecoflow_push.errors import EcoflowPushError, ExitStatus, Finding, LockedError
from ecoflow_push.logs import of_whom, warn_of
from ecoflow_push.memory.state import State
from ecoflow_push.metrics.exposition import Exposition
from ecoflow_push.run import show
from ecoflow_push.run.begin import create_worker
from ecoflow_push.run.check import Check, create_check
from ecoflow_push.run.one_of_many import folder_of, settings_of
from ecoflow_push.run.outcome import worst
from ecoflow_push.run.results import Results
from ecoflow_push.run.say import show as show_finding
from ecoflow_push.run.say import show_head, show_status
from ecoflow_push.start.attempt import attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ecoflow_push.config.accounts import Account
    from ecoflow_push.config.settings import Settings
    from ecoflow_push.run.results import Result
    from ecoflow_push.run.worker import Worker
    from ecoflow_push.start.options import Options
