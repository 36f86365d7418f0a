"""What docs/settings.md says of the variables that no source and no sink owns.

A run does not import this: it is the declaration, for people.
"""

from __future__ import annotations

from ecoflow_push.config.kinds import Variable
from ecoflow_push.config.plugs import SOURCES
from ecoflow_push.config.shards import ENGINES

ECOFLOW = (
    Variable(
        "ECOFLOW_SOURCE",
        f"{', '.join(f'`{name}`' for name in SOURCES)}, or `auto`: all that are asked"
        " for, in this order, each for the devices that those before it are refused or"
        " have no data of; needed when more than one is asked for",
        "from the credentials",
    ),
    Variable(
        "ECOFLOW_API_HOST",
        "the service, which routes by your location; `api-e.ecoflow.com` (Europe) and"
        " `api-a.ecoflow.com` (Americas) pin the region that a key belongs to; `host`,"
        " `host:port` or a URL, plain `http` for loopback only",
        "api.ecoflow.com",
    ),
    Variable(
        "ECOFLOW_CA_FILE",
        "CA bundle for EcoFlow, REST and MQTT",
        "the system's trust",
        is_path=True,
    ),
    Variable(
        "ECOFLOW_DEVICE_SN",
        "one serial number, or several separated by commas; lower case will do",
        "all devices of the account",
    ),
    Variable(
        "ECOFLOW_DEVICE_NAME",
        "a name for the one serial of `ECOFLOW_DEVICE_SN`, or `SN=name,SN=name`",
        "the name in the app",
    ),
    Variable(
        "ECOFLOW_ACCOUNTS",
        "a folder with a file `NAME.env` for each account, in place of credentials:"
        " [fleet.md](fleet.md)",
        is_path=True,
    ),
    Variable(
        "ACCOUNTS_AT_ONCE",
        "how many of them are worked at the same time (1 to 64)",
        "8",
    ),
    Variable(
        "SHARD_COUNT",
        "how many runs share the accounts of `ECOFLOW_ACCOUNTS`",
        "the engine's, where it says so",
    ),
    Variable(
        "SHARD_INDEX",
        "which of them this is, from 0 on; the engine's is that of a Kubernetes Indexed"
        " Job, a Slurm array, a Cloud Run Job or an AWS Batch array",
        "the engine's",
    ),
    Variable("ESTABLISH_ATTEMPTS", "most tries of one request (1 to 100)", "5"),
    Variable(
        "RETRY_TIMEOUT",
        "longest single wait between two tries; the first is 0.5 s, doubling, with"
        " jitter",
        "30",
    ),
)
RUN = (
    Variable(
        "RUN_DEADLINE",
        "hard limit of one run, everything included; collecting gets 60 % of it; with"
        " `--every`, at most the interval unless set",
        "50",
    ),
    Variable(
        "STALE_AFTER",
        "after so long without a good snapshot a device's values are removed from the"
        " Pushgateway, and end for remote-write",
        "300",
    ),
    Variable(
        "COLLECTING_INTERVAL",
        "with `--every` without a number: a run every so often, at least 1, and"
        " [60 is enough](deploy.md#how-often); with the app account less than 60 is"
        " raised to 60",
        "10",
    ),
    Variable(
        "HEALTHCHECK_URL",
        "a dead man's switch (healthchecks.io and its kin): told at `URL/start`,"
        " `URL`, or `URL/fail` with the log's last lines; never fails a run; one that"
        " cannot be told costs a warning a day",
    ),
    Variable(
        "STATE_DIR",
        "what one run tells the next ([truth.md](truth.md)): one folder per account"
        " and job in it; or `none`, with developer keys alone: nothing is remembered,"
        " nor written anywhere ([deploy.md](deploy.md#without-a-disk))",
        "`$XDG_STATE_HOME/ecoflow-push`, else `~/.local/state/ecoflow-push`",
        is_path=True,
    ),
    Variable(
        "LOG_LEVEL",
        "`DEBUG`, `INFO`, `WARNING` (or `warn`), `ERROR` or `CRITICAL`; a healthy run"
        " says one line at INFO, and nothing above",
        "INFO",
    ),
    Variable(
        "LOG_FORMAT",
        "`text`, or `json` for one object a line; the log goes to stderr",
        "text",
    ),
)
NAMES = (
    Variable(
        "PUSH_JOB",
        "label `job` of the devices' series; the run's own have it with `_push` behind",
        "ecoflow",
    ),
    Variable(
        "PUSH_INSTANCE",
        "label `instance` of the run's own series, and part of the MQTT client id;"
        " must be stable, never a pod's name",
        "the host name; in a container or pod, `PUSH_JOB`",
    ),
    Variable("METRICS_PREFIX", "what every metric name begins with", "ecoflow"),
    Variable(
        "METRICS_SET",
        "which metrics are pushed: `raw` ([metrics.md](metrics.md)), `normalized`"
        " ([normalized.md](normalized.md)), or both",
        "raw,normalized",
    ),
    Variable(
        "METRICS_NAMING",
        "spelling of raw names: `ecoflow` (`pd_chg_power_ac`), or `berezhinskiy`"
        " (`pd_chg_power_a_c`) for dashboards of that exporter",
        "ecoflow",
    ),
    Variable(
        "EXTRA_LABELS",
        "`site=home,owner=me`: on every series; names that the program uses itself"
        " are a fault",
    ),
)
#: None of them is ours; they have no _FILE form.
SURROUNDINGS = (
    Variable(
        "HTTPS_PROXY",
        "proxy for https, `http(s)://[user:password@]host:port`; lower case is read"
        " first",
    ),
    Variable("HTTP_PROXY", "proxy for http, likewise"),
    Variable(
        "NO_PROXY",
        "hosts that are reached without a proxy, with commas between them, likewise",
    ),
    Variable("XDG_STATE_HOME", "see `STATE_DIR`", is_path=True),
    Variable("HOME", "see `STATE_DIR`", is_path=True),
    Variable("KUBERNETES_SERVICE_HOST", "set in a pod; see `PUSH_INSTANCE`"),
    *(
        Variable(name, f"see `{setting}`; read beside `ECOFLOW_ACCOUNTS` alone")
        for names in ENGINES
        for name, setting in zip(names, ("SHARD_INDEX", "SHARD_COUNT"), strict=True)
        if name
    ),
)
