"""What is printed instead of pushed where there are many accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecoflow_push.errors import EcoflowPushError, ExitStatus, Finding, LockedError
from ecoflow_push.memory.state import State
from ecoflow_push.metrics.exposition import Exposition
from ecoflow_push.run import show as shows
from ecoflow_push.run.check import create_check
from ecoflow_push.run.fleet import Fleet
from ecoflow_push.run.one_of_many import folder_of, settings_of
from ecoflow_push.run.outcome import worst
from ecoflow_push.run.results import Result, Results
from ecoflow_push.run.say import show, show_head, show_status
from ecoflow_push.run.telling import sinks_status

if TYPE_CHECKING:
    from ecoflow_push.config.accounts import Account
    from ecoflow_push.config.settings import Settings
    from ecoflow_push.run.worker import Worker
    from ecoflow_push.start.options import Options


def look(options: Options, settings: Settings) -> ExitStatus:
    """Do what the options say, for all accounts that are ours."""
    with State.open(folder_of(settings), looks=True) as state:
        if options.check:
            return _check(settings, state)
        looking = _list_devices if options.list_devices else _dry_run
        return looking(settings, state)


def _dry_run(settings: Settings, state: State) -> ExitStatus:
    expositions: dict[str, Exposition] = {}

    def visit(account: Account, worker: Worker) -> ExitStatus:
        shows.gather(worker, expositions.setdefault(account.name, Exposition()))
        return worker.outcome.status()

    fleet = Fleet(settings, state, (), visit=visit)
    fleet.work()
    whole = Exposition()
    for name in sorted(expositions):
        whole.join(expositions[name])
    whole.add(fleet.registry())
    shows.say_all(whole)
    fleet.tell()
    return fleet.status()


def _list_devices(settings: Settings, state: State) -> ExitStatus:
    rows: list[tuple[str, ...]] = []

    def visit(account: Account, worker: Worker) -> ExitStatus:
        rows.extend((account.label, *row) for row in shows.rows_of(worker))
        return worker.outcome.status()

    fleet = Fleet(settings, state, (), visit=visit)
    fleet.work()
    shows.say_table(sorted(rows), "ACCOUNT")
    fleet.tell()
    return fleet.status()


def _check(settings: Settings, state: State) -> ExitStatus:
    """Try each account, one after the other, and then what is one for all."""
    accounts = settings.accounts
    assert accounts
    show_head()
    common = create_check(settings, state, folder_of(settings), ())
    results = Results(account.name for account in accounts.ours)
    shard = accounts.shard
    text = f"complete; {len(accounts.ours)} accounts"
    text += f" of shard {shard.index} of {shard.count}" if shard else ""
    try:
        is_well = common.shows(*common.of_settings(text))
        for account in sorted(accounts.ours, key=lambda each: each.name):
            result = results[account.name]
            is_well &= _check_one(account, settings, result)
            common.updates.has_news |= result.is_walked
        for sink in common.sinks:
            sink.hear(results.offset())
        is_well &= common.shows(*common.of_sinks())
    finally:
        common.leave()
    found = {results.status(), sinks_status(common.sinks)}
    if not settings.has_sink:
        found.add(ExitStatus.CONFIG)
    return show_status(worst(found), is_well=is_well)


def _check_one(account: Account, common: Settings, result: Result) -> bool:
    """Print what is found of one account, and return whether it is well."""
    whose = f"account {account.label}, "
    try:
        settings = settings_of(account, common)
        # They are tried once for all.
        settings.sinks = {}
        folder = folder_of(settings)
        with State.open(folder, looks=True) as state:
            check = create_check(settings, state, folder, (), is_bare=True)
            try:
                is_well = check.shows(*check.of_ecoflow(), whose=whose)
                check.told(result)
            finally:
                check.leave()
    except LockedError as exc:
        result.is_locked = True
        finding = Finding("warning", f"{whose}lock", exc.text)
    except EcoflowPushError as exc:
        result.end(exc.status)
        finding = Finding("wrong", f"{whose}settings", exc.text, exc.cure)
    else:
        return is_well
    show(finding)
    return finding.mark != "wrong"
