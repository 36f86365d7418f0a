"""Take one snapshot of EcoFlow devices, push it to Prometheus, exit with the truth.

    python push.py              settings → client → snapshots → registry → sinks
    python push.py --every      stay, and walk that road on a schedule
    python push.py --init       ask for the settings, try them, write a file of them
    python push.py --check      say what is wrong, step by step, and what to do
    python push.py --dry-run    print what would be pushed
    python push.py --demo       the same road, from a simulated EcoFlow cloud

The settings are environment variables (docs/settings.md), the exit statuses those of
sysexits.h where they fit (docs/exit-statuses.md).

All of this file is in the grammar of Python 3.6: an older Python is to say one line.
"""

import os
import sys

try:
    if sys.version_info < (3, 11):  # noqa: UP036 - a clone is run by what is there
        from ecoflow_push.start.installation import leave_old_python

        leave_old_python(os.environ)
    from ecoflow_push.start.signals import leave_on_signals, leave_with_a_word
except ImportError:
    WHOLE = "push.py needs the folder ecoflow_push beside it, and no PYTHONSAFEPATH"
    sys.stderr.write("ERROR exit 78 CONFIG: " + WHOLE + "\n")
    sys.exit(78)
except (MemoryError, OSError):
    # So early nobody can say which of them it is.
    SPENT = "the host lacks memory or open files: allow more (ulimit -v, -n), or look"
    sys.stderr.write("ERROR exit 71 OSERR: " + SPENT + " for a failing disk\n")
    sys.exit(71)

if __name__.endswith("__main__"):
    # Before anything that takes time; the installed command imports this file so.
    leave_on_signals(sys.argv[1:])
    from ecoflow_push.start.exit import pass_over, tell_uncaught

    sys.excepthook = lambda *what: tell_uncaught(os.environ, *what)
    sys.unraisablehook = pass_over
    from ecoflow_push.start.lock_probe import leave_if_held

    leave_if_held(sys.argv[1:], os.environ)

import contextlib
import gc
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from ecoflow_push import logs
from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import SettingsError
from ecoflow_push.memory.lock import state_folder
from ecoflow_push.memory.state import State
from ecoflow_push.net.deadline import alarm
from ecoflow_push.start.attempt import attempt
from ecoflow_push.start.exit import leave, leave_hung
from ecoflow_push.start.options import Options, parse_args

if TYPE_CHECKING:
    from ecoflow_push.sinks.base import Sink


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what the arguments say and return the exit status."""
    options = parse_args(argv)
    logs.configure("INFO", environ.get("LOG_FORMAT", "").strip().lower())
    with contextlib.ExitStack() as stack:
        return attempt(partial(begin, options, environ, stack))


def begin(
    options: Options, environ: Mapping[str, str], stack: contextlib.ExitStack
) -> int:
    """Do one run, or stay for many."""
    if options.init:
        from ecoflow_push.init.session import start

        return start(options.env_files, environ)
    if options.demo:
        from ecoflow_push.simulator import demo_environ

        environ = stack.enter_context(demo_environ(options.whole(environ)))
    try:
        settings = read(options, environ)
        if options.every is None or options.check:
            return run(options, settings, {})
    except SettingsError as exc:
        if not options.check:
            raise
        from ecoflow_push.run.check import show_faults

        return show_faults(exc)
    from ecoflow_push.run.schedule import stay

    # Each run reads the settings anew: a mounted secret may have changed.
    return stay(
        settings,
        lambda standing: attempt(
            lambda: run(options, read(options, environ), standing)
        ),
    )


def read(options: Options, environ: Mapping[str, str]) -> Settings:
    """Return the settings, and let the log be as they say."""
    sink = not (options.demo or options.looks)
    environ = environ if options.demo else options.whole(environ)
    logs.configure("INFO", environ.get("LOG_FORMAT", "").strip().lower())
    settings = Settings.from_environ(environ, needs_sink=sink, every=options.every)
    logs.configure(settings.log_level, settings.log_format)
    logs.warn_of(() if options.check else settings.notes)
    return settings


def run(options: Options, settings: Settings, standing: Mapping[str, "Sink"]) -> int:
    """Walk the road once, holding the lock of this account and job."""
    folder = state_folder(
        settings.state_dir, settings.api_url, settings.account, settings.job
    )
    looks = options.looks or not settings.has_sink
    bound = alarm(settings.run_deadline, stays=settings.stays, end=leave_hung)
    with bound, State.open(folder, looks=looks) as state:
        if options.check:
            from ecoflow_push.run.check import create_check

            only, bare = options.devices, options.demo
            return create_check(settings, state, folder, only, is_bare=bare).run()
        # With the lock in hand, not before: these imports are most of a run's cost.
        from ecoflow_push.run.worker import create_worker

        if looks:
            from ecoflow_push.run import show

            worker = create_worker(settings, state, folder, options.devices)
            look = show.list_devices if options.list_devices else show.dry_run
            return look(worker)
        worker = create_worker(settings, state, folder, options.devices, standing)
        return worker.run()


def entry() -> NoReturn:
    """Be the process: the installed command, and this file as a script."""
    if not any(each.startswith("--every") for each in sys.argv):
        leave_with_a_word(stays=False)
    gc.disable()  # for one short run, looking for cycles costs more than it frees
    try:
        status = main(sys.argv[1:], os.environ)
    except SystemExit as exc:  # --help, --version, a wrong option
        status = exc.code if isinstance(exc.code, int) else 0
    leave(status)


if __name__ == "__main__":
    entry()
