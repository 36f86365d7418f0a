"""What is printed instead of pushed where there are many accounts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ecoflow_push.errors import (
    EcoflowPushError,
    ExitStatus,
    Finding,
    LockedError,
    SettingsError,
)
from ecoflow_push.memory.state import State
from ecoflow_push.metrics.exposition import Exposition
from ecoflow_push.run import show as shows
from ecoflow_push.run.begin_all import create_fleet
from ecoflow_push.run.check import create_check
from ecoflow_push.run.outcome import worst
from ecoflow_push.run.results import Result, Results
from ecoflow_push.run.say import found_in, show, show_head, show_status
from ecoflow_push.run.telling import sinks_status

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecoflow_push.config.accounts import Account
    from ecoflow_push.config.settings import Settings
    from ecoflow_push.run.check import Check
    from ecoflow_push.run.fleet import Fleet
    from ecoflow_push.run.members import Members
    from ecoflow_push.run.worker import Worker
    from ecoflow_push.start.options import Options


def create_look(
    options: Options, settings: Settings, members: Members, state: State
) -> Callable[[], ExitStatus]:
    """Return what the options say is to be shown of all members."""
    if options.check:
        common = create_check(settings, state, members.folder, ())
        return partial(_check, common, members)
    fleet = create_fleet(settings, members, state, {})
    return partial(_list_devices if options.list_devices else _dry_run, fleet)


def _dry_run(fleet: Fleet) -> ExitStatus:
    expositions: dict[str, Exposition] = {}

    def visit(account: Account, worker: Worker) -> ExitStatus:
        shows.gather(worker, expositions.setdefault(account.name, Exposition()))
        return worker.outcome.status()

    fleet.work(visit)
    whole = Exposition()
    for name in sorted(expositions):
        whole.join(expositions[name])
    whole.add(fleet.registry())
    shows.say_all(whole)
    fleet.tell()
    return fleet.status()


def _list_devices(fleet: Fleet) -> ExitStatus:
    rows: list[tuple[str, ...]] = []

    def visit(account: Account, worker: Worker) -> ExitStatus:
        rows.extend((account.label, *row) for row in shows.rows_of(worker))
        return worker.outcome.status()

    fleet.work(visit)
    shows.say_table(sorted(rows), "ACCOUNT")
    fleet.tell()
    return fleet.status()


def _check(common: Check, members: Members) -> ExitStatus:
    """Try each account, one after the other, and then what is one for all."""
    show_head()
    accounts, shard = sorted(members.accounts, key=lambda a: a.name), members.shard
    results = Results(account.name for account in accounts)
    text = f"complete; {len(accounts)} accounts"
    text += f" of shard {shard.index} of {shard.count}" if shard else ""
    try:
        is_well = common.shows(*common.of_settings(text))
        for account in accounts:
            result = results[account.name]
            is_well &= _check_one(account, members, result)
            common.updates.has_news |= result.is_walked
        for sink in common.sinks:
            sink.hear(results.offset())
        is_well &= common.shows(*common.of_sinks())
    finally:
        common.leave()
    found = {results.status(), sinks_status(common.sinks)}
    if not common.sinks:
        found.add(ExitStatus.CONFIG)
    return show_status(worst(found), is_well=is_well)


def _check_one(account: Account, members: Members, result: Result) -> bool:
    """Print what is found of one account, and return whether it is well."""
    whose = f"account {account.label}, "
    try:
        settings = members.settings_of(account)
        # They are tried once for all.
        settings.sinks = {}
        folder = members.folder_of(account)
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
    except SettingsError as exc:
        result.end(exc.status)
        for finding in found_in(exc):
            finding.step = whose + finding.step
            show(finding)
        return False
    except EcoflowPushError as exc:
        result.end(exc.status)
        finding = Finding("wrong", f"{whose}settings", exc.text, exc.cure)
    else:
        return is_well
    show(finding)
    return finding.mark != "wrong"
