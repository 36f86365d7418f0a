"""The metrics that are our own: their names, without the prefix, and their help.

Type and HELP are functions of the name alone: a Pushgateway refuses a push whose family
contradicts another group's.
"""

from __future__ import annotations

from ecoflow_push.devices.metrics import metrics

DEVICE_METRICS = {
    "online": "Whether EcoFlow says that the device is online.",
    "device_info": "A device of the account and how it was read; always 1.",
    "snapshot_timestamp_seconds": "When the device's values were collected.",
    "data_last_change_timestamp_seconds": (
        "When the device's values last differed from those collected before."
    ),
}
#: Those that stay true when the values have grown old.
LASTING = (
    "device_info",
    "snapshot_timestamp_seconds",
    "data_last_change_timestamp_seconds",
)
RUN_METRICS = {
    "push_success": "Whether the run had succeeded when it pushed this.",
    "push_exit_status": "The exit status of the run, as known when it pushed this.",
    "push_duration_seconds": "How long a phase of the run took.",
    "push_last_success_timestamp_seconds": "When a run last succeeded.",
    "push_devices": "Devices of this run by state.",
    "push_accounts": "Accounts of this run by state.",
    "push_shards": "How many runs share the accounts of a folder.",
    "push_samples": "Quota samples that this run collected.",
    "push_skipped_values": (
        "Values of this run's quota maps that became no raw or no normalized sample."
    ),
    "push_unknown_messages": (
        "Messages of which this run could read nothing, by family of the device."
    ),
    "push_runs_total": "Runs since the state folder was made.",
    "push_failures_total": "Runs since then in which a stage failed.",
    "push_spool_samples": "Samples that wait in the spool for remote-write.",
    "push_spool_oldest_timestamp_seconds": (
        "When the oldest of the samples in the spool were collected."
    ),
    "push_spool_resting_devices": (
        "Devices of which remote-write takes nothing, while it takes others."
    ),
    "push_dropped_samples_total": "Samples that remote-write will never get.",
    "push_build_info": "The version of ecoflow_push; always 1.",
}
_OWN = (*DEVICE_METRICS, *RUN_METRICS, *metrics())
#: A raw key that lands on one of these is skipped. A counter's family is called without
#: the suffix, and must not be a gauge's too.
RESERVED_NAMES = frozenset((*_OWN, *(name.removesuffix("_total") for name in _OWN)))
