"""Take one snapshot of EcoFlow devices, push it to Prometheus, exit with the truth.

    python push.py              settings → client → snapshots → registry → sinks
    python push.py --dry-run    print what would be pushed
    python push.py --demo       the same road, from a simulated EcoFlow cloud

The settings are environment variables (docs/settings.md), the exit statuses those of
sysexits.h where they fit (docs/exit-statuses.md).
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import NoReturn

from ecoflow_push import __version__, logs
from ecoflow_push.deadline import Watchdog
from ecoflow_push.errors import EcoflowPushError, ExitStatus, Terminated
from ecoflow_push.settings import Settings, is_serial
from ecoflow_push.state import State, state_folder

log = logging.getLogger("ecoflow_push")


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what the arguments say and return the exit status."""
    options = parse_args(argv)
    logs.configure("INFO", "text", ())
    try:
        with ExitStack() as stack:
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
    except Exception:  # a bug becomes status 70, with one redacted traceback
        log.exception("exit 70 SOFTWARE: a bug in ecoflow_push, please report it")
        return ExitStatus.SOFTWARE


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Walk the road once, holding the lock of this account and job."""
    account = settings.access_key or settings.account_user
    name = account.reveal() if account else ""
    folder = state_folder(settings.state_dir, settings.api_url, name, settings.job)
    with ExitStack() as stack:
        state = State.open(folder)
        stack.callback(state.close)
        stack.enter_context(
            Watchdog(
                settings.run_deadline + 5,
                ExitStatus.TEMPFAIL,
                "exit 75 TEMPFAIL: hung 5 s beyond RUN_DEADLINE, ended by the watchdog",
            )
        )
        # With the lock in hand, not before: these imports are most of a run's cost.
        from ecoflow_push.worker import create_worker

        worker = create_worker(settings, state, options.device)
        if options.list_devices:
            return worker.list_devices()
        if options.dry_run or not (settings.pushgateway_url or settings.textfile_path):
            return worker.dry_run()
        return worker.run()


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options; a wrong one ends with 64, and its value is not echoed."""
    parser = argparse.ArgumentParser(
        prog="ecoflow-push", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--dry-run", action="store_true", help="print, push nothing")
    parser.add_argument("--demo", action="store_true", help="from a simulated cloud")
    parser.add_argument("--list-devices", action="store_true", help="print a table")
    parser.add_argument("--device", action="append", default=[], metavar="SN")
    parser.add_argument("--version", action="version", version=__version__)
    parser.exit_on_error = False
    try:
        options, unknown = parser.parse_known_args(argv)
    except argparse.ArgumentError as exc:
        parser.exit(ExitStatus.USAGE, f"ecoflow-push: {exc}\n")
    if unknown or not all(map(is_serial, options.device)):
        wrong = unknown[0].partition("=")[0] if unknown else "the value of --device"
        wrong = wrong if wrong.startswith(("-", "the ")) else "an argument"
        parser.exit(ExitStatus.USAGE, f"ecoflow-push: {wrong} is wrong; see --help\n")
    return options


def stop(signum: int, _frame: object) -> None:
    """End the run, wherever it is; a second signal changes nothing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise Terminated(signum)


def entry() -> NoReturn:
    """Be the process: the installed command, and this file as a script."""
    gc.disable()  # for one short run, looking for cycles costs more than it frees
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    status = main(sys.argv[1:], os.environ)
    for stream in (sys.stdout, sys.stderr):
        if stream and not stream.closed:
            stream.flush()
    os._exit(status)  # taking the interpreter apart is a sixth of a run's cost


if __name__ == "__main__":
    entry()
