"""The road: settings → client → snapshots → registry → sinks; one run, or the beat.

Apart from push.py, which Python compiles anew at each start: it compiles this once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ecoflow_push import logs
from ecoflow_push.config.plugs import SPOOLED
from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import Fault, SettingsError
from ecoflow_push.memory.lock import state_folder
from ecoflow_push.memory.state import State
from ecoflow_push.net.deadline import alarm
from ecoflow_push.start.attempt import attempt
from ecoflow_push.start.exit import leave_hung
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
    if options.drain:
        return drain(read(options, environ))
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

    def job(standing: Mapping[str, Sink], slow_down: Callable[[float], None]) -> int:
        def work() -> int:
            # Each run reads the settings anew: a mounted secret may have changed.
            settings = read(options, environ)
            slow_down(settings.interval)
            return run(options, settings, standing)

        return attempt(work)

    return stay(settings, job)


def read(options: Options, environ: Mapping[str, str]) -> Settings:
    """Return the settings, and let the log be as they say."""
    sink = not (options.demo or options.looks)
    environ = environ if options.demo else options.whole(environ)
    logs.configure("INFO", environ.get("LOG_FORMAT", "").strip().lower())
    if options.drain:
        settings = Settings.of_sink(environ, SPOOLED)
    else:
        settings = Settings.from_environ(environ, needs_sink=sink, every=options.every)
    logs.configure(settings.log_level, settings.log_format)
    logs.warn_of(() if options.check else settings.notes)
    return settings


def run(options: Options, settings: Settings, standing: Mapping[str, Sink]) -> int:
    """Walk the road once, holding the lock of this account and job."""
    if settings.accounts:
        return _run_for_all(options, settings, standing)
    folder = settings.state_dir and state_folder(
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
        from ecoflow_push.run.begin import create_worker

        if looks:
            from ecoflow_push.run import show

            worker = create_worker(settings, state, folder, options.devices)
            look = show.list_devices if options.list_devices else show.dry_run
            return look(worker)
        worker = create_worker(settings, state, folder, options.devices, standing)
        return worker.run()


def drain(settings: Settings) -> int:
    """Deliver what waits in all folders of STATE_DIR."""
    from ecoflow_push.run.drain import create_drain

    with alarm(settings.run_deadline, stays=False, end=leave_hung):
        return create_drain(settings).run()


def _run_for_all(
    options: Options, settings: Settings, standing: Mapping[str, Sink]
) -> int:
    """Walk the road once for each account of a folder, holding the lock of all."""
    from ecoflow_push.run.begin_all import create_fleet
    from ecoflow_push.run.members import create_members

    if options.devices:
        cure = "run with the file of one account, --env-file"
        fault = Fault("--device", "set, and so is ECOFLOW_ACCOUNTS", cure)
        raise SettingsError([fault])
    members = create_members(settings)
    # A check goes through them one by one.
    times = 1 + len(members.accounts) * options.check
    bound = alarm(settings.run_deadline * times, stays=settings.stays, end=leave_hung)
    with bound, State.open(members.folder, looks=options.looks) as state:
        if options.looks:
            from ecoflow_push.run.fleet_looks import create_look

            return create_look(options, settings, members, state)()
        return create_fleet(settings, members, state, standing).run()
