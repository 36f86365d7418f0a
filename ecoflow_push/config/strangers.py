"""Names in the environment that look like settings and are none.

Imported only where there may be such a name. Where there is one, every plug is asked
for what it declares, which costs a third of a run.
"""

from __future__ import annotations

from ecoflow_push import DOCS
from ecoflow_push.config.plugs import SINKS, SOURCES, load
from ecoflow_push.config.slips import meant_by
from ecoflow_push.errors import Fault

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

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
#: What our own names begin with; of other names only those above are told, and slips.
OURS = ("ECOFLOW_", "PUSHGATEWAY_", "REMOTE_WRITE_", "PUSH_", "SPOOL_", "METRICS_")


def notes(names: Iterable[str], environ: Mapping[str, str]) -> Iterator[Fault]:
    """Yield a note on each of these names that is no setting."""
    odd = [
        name
        for name in sorted(names)
        if (name in OTHERS or name.upper().startswith(OURS) or meant_by(name))
        and environ[name].strip()
        and not _is_link(name, environ)
    ]
    known = _known() if odd else []
    for name in odd:
        if name not in known:
            yield Fault(name, "no setting has this name", _cure(name, known))


def _cure(name: str, known: Sequence[str]) -> str:
    """Return what to do about a name."""
    if name in OTHERS:
        return f"set {OTHERS[name]} instead" if OTHERS[name] else "leave it out"
    near = meant_by(name) or _nearest(name.upper(), known)
    return f"did you mean {near}?" if near else f"see {DOCS}/settings.md"


def _nearest(name: str, known: Sequence[str]) -> str:
    """Return the setting that somebody may have meant, "" if none is like it.

    One of whose words some were left out, or that was cut short, before one that is
    spelt alike: letters alone make USER a URL.
    """
    from difflib import get_close_matches

    words = set(name.split("_"))
    fuller = (each for each in known if words <= set(each.split("_")))
    longer = (each for each in known if each.startswith(name))
    return next(iter([*fuller, *longer, *get_close_matches(name, known, 1)]), "")


def _known() -> list[str]:
    """Return the name of every setting, and its _FILE form where it has one."""
    from ecoflow_push.config import variables

    owned = [*variables.ECOFLOW, *variables.RUN, *variables.NAMES]
    for room, plugs in (("api", SOURCES), ("sinks", SINKS)):
        for plug in plugs:
            owned += load(room, plug).VARIABLES
    files = [f"{each.name}_FILE" for each in owned if not each.is_path]
    return [*(each.name for each in owned), *files]


def _is_link(name: str, environ: Mapping[str, str]) -> bool:
    """Return whether Kubernetes put it there, for a service that is called so."""
    # A service itself may be called pushgateway-service.
    return any(
        name.startswith(("_SERVICE_", "_PORT"), end)
        and f"{name[:end]}_SERVICE_HOST" in environ
        for end in range(len(name))
    )
