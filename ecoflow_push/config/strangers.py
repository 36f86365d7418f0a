"""Names in the environment that look like settings and are none.

Imported only where there is such a name, since it asks every plug for what it declares.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from ecoflow_push.config import variables
from ecoflow_push.config.plugs import SINKS, SOURCES, load
from ecoflow_push.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: What other exporters call it (docs/coming-from.md), and what stands for it here; ""
#: where nothing does.
OTHERS = {
    "DEBUG_ENABLED": "LOG_LEVEL",
    "DEVICE_LIST_CACHE_TTL": "",
    "DEVICE_NAME": "ECOFLOW_DEVICE_NAME",
    "DEVICE_SN": "ECOFLOW_DEVICE_SN",
    "ECOFLOW_ACCESSKEY": "ECOFLOW_ACCESS_KEY",
    "ECOFLOW_API_ENDPOINT": "ECOFLOW_API_HOST",
    "ECOFLOW_API_TYPE": "ECOFLOW_SOURCE",
    "ECOFLOW_API_ZONE_ID": "",
    "ECOFLOW_DEVICES": "ECOFLOW_DEVICE_SN",
    "ECOFLOW_DEVICES_JSON": "",
    "ECOFLOW_DEVICES_PRETTY_NAMES": "ECOFLOW_DEVICE_NAME",
    "ECOFLOW_DEVICE_GENERAL_KEY": "",
    "ECOFLOW_EMAIL": "ECOFLOW_ACCOUNT_USER",
    "ECOFLOW_PASSWORD": "ECOFLOW_ACCOUNT_PASSWORD",
    "ECOFLOW_PRODUCT_NAME": "",
    "ECOFLOW_SECRET": "ECOFLOW_SECRET_KEY",
    "ECOFLOW_SECRETKEY": "ECOFLOW_SECRET_KEY",
    "ECOFLOW_USERNAME": "ECOFLOW_ACCOUNT_USER",
    "EXPIRATION_THRESHOLD": "STALE_AFTER",
    "EXPORTER_TYPE": "ECOFLOW_SOURCE",
    "HTTP_BACKOFF_FACTOR": "RETRY_TIMEOUT",
    "HTTP_RETRIES": "ESTABLISH_ATTEMPTS",
    "HTTP_TIMEOUT": "RUN_DEADLINE",
    "IDLE_CHECK_INTERVAL": "",
    "MAX_RECONNECT_DELAY": "",
    "METRIC_PREFIX": "METRICS_PREFIX",
    "MQTT_DEVICE_OFFLINE_THRESHOLD_SECONDS": "",
    "MQTT_KEEPALIVE": "",
    "MQTT_PING_INTERVAL_SECONDS": "",
    "MQTT_STATE_REFRESH_INTERVAL_SECONDS": "",
    "PROMETHEUS_PORT": "EXPORTER_PORT",
    "QUOTA_REQUEST_INTERVAL": "",
    "SCRAPING_INTERVAL": "COLLECTING_INTERVAL",
    "offgridTimeout": "STALE_AFTER",
    "offlineTimeout": "STALE_AFTER",
}
#: What our own names begin with; of other names only those above are told.
OURS = ("ECOFLOW_", "PUSHGATEWAY_", "REMOTE_WRITE_", "PUSH_", "SPOOL_", "METRICS_")


def notes(names: Sequence[str], environ: Mapping[str, str]) -> Iterator[Fault]:
    """Yield a note on each of these names that is no setting."""
    known = _known()
    for name in sorted(names):
        is_ours = name.upper().startswith(OURS) and not _is_link(name, environ)
        if name in known or not environ[name].strip():
            continue
        if name in OTHERS and not _is_link(name, environ):
            instead = OTHERS[name]
            cure = f"set {instead} instead" if instead else "leave it out"
        elif is_ours:
            near = _nearest(name.upper(), known)
            cure = f"did you mean {near}?" if near else "see docs/settings.md"
        else:
            continue
        yield Fault(name, "no setting has this name", cure)


def _nearest(name: str, known: Sequence[str]) -> str:
    """Return the setting that somebody may have meant, "" if none is like it.

    One of whose words some were left out, or that was cut short, before one that is
    spelt alike: letters alone make USER a URL.
    """
    words = set(name.split("_"))
    fuller = (each for each in known if words <= set(each.split("_")))
    longer = (each for each in known if each.startswith(name))
    return next(iter([*fuller, *longer, *get_close_matches(name, known, 1)]), "")


def _known() -> list[str]:
    """Return the name of every setting, and its _FILE form where it has one."""
    owned = [*variables.ECOFLOW, *variables.RUN, *variables.NAMES]
    for room, plugs in (("api", SOURCES), ("sinks", SINKS)):
        for plug in plugs:
            owned += load(room, plug).VARIABLES
    files = [f"{each.name}_FILE" for each in owned if not each.is_path]
    return [*(each.name for each in owned), *files]


def _is_link(name: str, environ: Mapping[str, str]) -> bool:
    """Return whether Kubernetes put it there, for a service that is called so."""
    services = (name.partition(mark)[0] for mark in ("_SERVICE_", "_PORT"))
    return any(f"{service}_SERVICE_HOST" in environ for service in services)
