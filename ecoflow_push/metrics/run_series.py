"""What a run says of itself, as a registry; its series carry no device's labels."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from ecoflow_push.devices.normalized import REASONS
from ecoflow_push.metrics.names import SKIP_REASONS
from ecoflow_push.metrics.registry import RegistryBuilder

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.metrics.labels import Labels

NONE: Mapping[str, float] = MappingProxyType({})
# A device may send anything: what it sends must not become any number of series.
MOST_UNREAD = 64
OTHER = "other"


def run_registry(
    labels: Labels,
    *,
    version: str,
    exit_status: int = 0,
    durations: Mapping[str, float] = NONE,
    last_success_at: float | None = None,
    devices: Mapping[str, float] = NONE,
    samples: int = 0,
    skipped: Mapping[str, float] = NONE,
    unread: Mapping[tuple[str, str], float] = MappingProxyType({}),
    runs: int | None = None,
    failures: Mapping[str, float] = NONE,
    waiting: int = 0,
    oldest_at: float | None = None,
    resting: int = 0,
    dropped: Mapping[str, float] | None = None,
    accounts: Mapping[str, float] = NONE,
    shards: int | None = None,
) -> CollectorRegistry:
    """Return a fresh registry of the run's own series.

    Times are in Unix seconds, durations in seconds. `unread` are messages by family and
    message; of more than MOST_UNREAD kinds the rest are counted as one. `runs` and
    `failures`, by stage, are counts over all runs that are remembered, `runs` None
    without a memory.
    `waiting`, `oldest_at`, devices that are `resting` and `dropped`, by reason, are of
    the spool; `dropped` is None where there is none. `accounts`, by state, are there
    where they come from a folder, `shards`, how many share them, where any do.
    """
    builder = RegistryBuilder(labels.prefix, {**labels.extra, **labels.of_run})
    own = builder.own
    own("push_success", exit_status == 0)
    own("push_exit_status", exit_status)
    for phase, seconds in durations.items():
        own("push_duration_seconds", seconds, phase=phase)
    if last_success_at is not None:
        own("push_last_success_timestamp_seconds", last_success_at)
    for state, count in devices.items():
        own("push_devices", count, state=state)
    _add_accounts(builder, accounts, shards)
    own("push_samples", samples)
    for reason in (*SKIP_REASONS, *REASONS):
        own("push_skipped_values", skipped.get(reason, 0), reason=reason)
    _add_unread(builder, unread)
    if runs is not None:
        own("push_runs_total", runs)
        for stage, count in failures.items():
            own("push_failures_total", count, stage=stage)
    if dropped is not None:
        own("push_spool_samples", waiting)
        own("push_spool_resting_devices", resting)
        if oldest_at is not None:
            own("push_spool_oldest_timestamp_seconds", oldest_at)
        for reason, count in dropped.items():
            own("push_dropped_samples_total", count, reason=reason)
    own("push_build_info", 1, version=version)
    return builder.registry()


def _add_accounts(
    builder: RegistryBuilder, accounts: Mapping[str, float], shards: int | None
) -> None:
    for state, count in accounts.items():
        builder.own("push_accounts", count, state=state)
    if shards is not None:
        builder.own("push_shards", shards)


def _add_unread(
    builder: RegistryBuilder, unread: Mapping[tuple[str, str], float]
) -> None:
    known = sorted(unread)[:MOST_UNREAD]
    for family, message in known:
        count = unread[family, message]
        builder.own("push_unknown_messages", count, family=family, message=message)
    if len(unread) > len(known):
        count = sum(unread.values()) - sum(unread[key] for key in known)
        builder.own("push_unknown_messages", count, family=OTHER, message=OTHER)
