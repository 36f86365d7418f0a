"""Take one snapshot of EcoFlow devices, push it to Prometheus, exit with the truth.

    python push.py              settings → client → snapshots → registry → sinks
    python push.py --dry-run    print what would be pushed
    python push.py --demo       the same road, from a simulated EcoFlow cloud

The settings are environment variables (docs/settings.md), the exit statuses those of
sysexits.h where they fit (docs/exit-statuses.md).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # of signal, without its imports

if __name__ == "__main__":
    # Before anything that takes time: until we have words of our own, it just ends us.
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from ecoflow_push import logs
from ecoflow_push.deadline import Watchdog
from ecoflow_push.errors import EcoflowPushError, ExitStatus
from ecoflow_push.options import Options, parse_args
from ecoflow_push.settings import Settings
from ecoflow_push.state import State, state_folder

log = logging.getLogger("ecoflow_push")


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what the arguments say and return the exit status."""
    options = parse_args(argv)
    logs.configure("INFO", "text", ())
    try:
        with contextlib.ExitStack() as stack:
            if options.demo:
                from ecoflow_push.simulator import demo_environ

                environ = stack.enter_context(demo_environ(environ))
            prints = options.dry_run or options.demo or options.list_devices
            settings = Settings.from_environ(environ, needs_sink=not prints)
            logs.configure(settings.log_level, settings.log_format, settings.secrets())
            return run(options, settings)
    except EcoflowPushError as exc:
        log.error("exit %d %s: %s", exc.status, exc.status.name, exc)  # noqa: TRY400
        return exc.status
    except MemoryError:
        log.error("exit 75 TEMPFAIL: out of memory")  # noqa: TRY400 - not our bug
        return ExitStatus.TEMPFAIL
    except Exception:  # a bug becomes status 70, with one redacted traceback
        log.exception("exit 70 SOFTWARE: a bug in ecoflow_push, please report it")
        return ExitStatus.SOFTWARE


def run(options: Options, settings: Settings) -> int:
    """Walk the road once, holding the lock of this account and job."""
    account = settings.access_key or settings.account_user
    name = account.reveal() if account else ""
    folder = state_folder(settings.state_dir, settings.api_url, name, settings.job)
    # The kernel's own end of it all, for a hang that not even the watchdog survives.
    signal.setitimer(signal.ITIMER_REAL, settings.run_deadline + 10)
    with State.open(folder) as state, Watchdog(settings.run_deadline + 5):
        # With the lock in hand, not before: these imports are most of a run's cost.
        from ecoflow_push.worker import create_worker

        worker = create_worker(settings, state, folder, options.devices)
        if options.list_devices:
            return worker.list_devices()
        if options.dry_run or not settings.has_sink:
            return worker.dry_run()
        return worker.run()


def stop(signum: int, _frame: object) -> NoReturn:
    """End the process at once: the kernel closes connections and frees the lock.

    Raising here would be lost wherever Python cannot raise.
    """
    status = ExitStatus(128 + signum)
    logs.last_words(f"exit {status:d} {status.name}: stopped by signal {signum}")
    os._exit(status)


def entry() -> NoReturn:
    """Be the process: the installed command, and this file as a script."""
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    gc.disable()  # for one short run, looking for cycles costs more than it frees
    try:
        status = main(sys.argv[1:], os.environ)
    except SystemExit as exc:  # --help, --version, a wrong option
        status = exc.code if isinstance(exc.code, int) else 0
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)  # taking the interpreter apart is a sixth of a run's cost


if __name__ == "__main__":
    entry()
