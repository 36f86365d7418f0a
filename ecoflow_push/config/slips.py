"""Names that are a slip of the fingers away from the name of a setting.

Imported only where a name begins or ends as one of ours; its own imports stay light,
for some of everybody's do.
"""

from __future__ import annotations

#: Every setting, without its _FILE form. What begins as ours is told by
#: config/strangers.py.
SETTINGS = (
    *("ESTABLISH_ATTEMPTS", "RETRY_TIMEOUT", "RUN_DEADLINE", "STALE_AFTER"),
    *("COLLECTING_INTERVAL", "HEALTHCHECK_URL", "STATE_DIR", "LOG_LEVEL"),
    *("LOG_FORMAT", "EXTRA_LABELS", "MQTT_TIMEOUT", "TEXTFILE_PATH"),
    *("EXPORTER_PORT", "ECOFLOW_SOURCE", "ECOFLOW_API_HOST", "ECOFLOW_CA_FILE"),
    *("ECOFLOW_DEVICE_SN", "ECOFLOW_DEVICE_NAME", "ECOFLOW_ACCESS_KEY"),
    *("ECOFLOW_SECRET_KEY", "ECOFLOW_ACCOUNT_USER", "ECOFLOW_ACCOUNT_PASSWORD"),
    *("PUSH_JOB", "PUSH_INSTANCE", "METRICS_PREFIX", "METRICS_SET"),
    *("METRICS_NAMING", "PUSHGATEWAY_URL", "PUSHGATEWAY_USERNAME"),
    *("PUSHGATEWAY_PASSWORD", "PUSHGATEWAY_BEARER_TOKEN", "PUSHGATEWAY_CA_FILE"),
    *("PUSHGATEWAY_CERT_FILE", "PUSHGATEWAY_KEY_FILE", "REMOTE_WRITE_URL"),
    *("REMOTE_WRITE_VERSION", "REMOTE_WRITE_MAX_SAMPLES", "REMOTE_WRITE_USERNAME"),
    *("REMOTE_WRITE_PASSWORD", "REMOTE_WRITE_BEARER_TOKEN", "REMOTE_WRITE_HEADERS"),
    *("REMOTE_WRITE_CA_FILE", "REMOTE_WRITE_CERT_FILE", "REMOTE_WRITE_KEY_FILE"),
    *("SPOOL_MODE", "SPOOL_MAX_AGE", "SPOOL_MAX_BYTES"),
    *("ECOFLOW_ACCOUNTS", "ACCOUNTS_AT_ONCE", "SHARD_COUNT", "SHARD_INDEX"),
)
PATHS = ("_FILE", "_DIR", "_PATH", "_ACCOUNTS")
# Of so short a word, two slips make another one: PORT and HOST.
SHORT_WORD = 4
# Of a name that is no longer than this, one slip is all that can be told.
SHORT_NAME = 9


def meant_by(name: str) -> str:
    """Return the setting of which `name` is a slip, "" if it is none."""
    upper, size = name.upper(), len(name)
    owner = upper.removesuffix("_FILE")
    if owner != upper and owner in SETTINGS and owner.endswith(PATHS):
        return owner
    for setting in SETTINGS:
        most = 1 if len(setting) <= SHORT_NAME else 2
        form = setting
        if abs(len(form) - size) > most:
            # What is a path itself has no such form; most names end here.
            is_path = size < len(form) or form.endswith(PATHS)
            form = "" if is_path else f"{form}_FILE"
        if abs(len(form) - size) <= most and form != name:
            is_near = upper[:3] == form[:3] or upper[-4:] == form[-4:]
            # A slip brings at most two letters in or out; counting them is cheap.
            is_near = is_near and len(set(upper) ^ set(form)) <= 2 * most
            if is_near and _slips(upper, form) <= most:
                return form
    return ""


def _slips(name: str, form: str) -> int:
    """Return by how many slips one became the other; 9 if another word was meant."""
    slips, words, others = _distance(name, form), name.split("_"), form.split("_")
    if slips > 1 and len(words) == len(others):
        for word, other in zip(words, others, strict=True):
            if len(other) <= SHORT_WORD and _distance(word, other) > 1:
                return 9
    return slips


def _distance(first: str, second: str) -> int:
    """Return how many letters are wrong, missing, too many, or change places."""
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, 1):
        earlier, before, row = before, row, [i]
        for j, other in enumerate(second, 1):
            least = min(row[-1], before[j]) + 1
            least = min(least, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and (letter, first[i - 2]) == (second[j - 2], other):
                least = min(least, earlier[j - 2] + 1)
            row.append(least)
    return row[-1]
