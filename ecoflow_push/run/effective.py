"""The settings as --check shows them: what is set, where, and a few defaults.

The lines can go into a bug report: what opens something is not in them, nor are names
of people's things.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ecoflow_push.api.models import short_sn
from ecoflow_push.config.texts import are_hosts
from ecoflow_push.errors import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ecoflow_push.config.environ import Reader
    from ecoflow_push.errors import Fault

HIDDEN = "***"
#: Theirs is a home, a host or a pod's: what follows from them is shown.
NOT_OURS = frozenset(("HOME", "KUBERNETES_SERVICE_HOST", "XDG_STATE_HOME"))
#: Names that people gave to their things.
PERSONAL = frozenset(("ECOFLOW_DEVICE_NAME", "EXTRA_LABELS", "PUSH_INSTANCE"))
PROXIES = ("http_proxy", "https_proxy")
SERIALS = "ECOFLOW_DEVICE_SN"
API_HOST = "ECOFLOW_API_HOST"
#: Addresses of which even the path opens something.
SECRET_PATHS = frozenset(("HEALTHCHECK_URL",))


def effective(
    reader: Reader, defaults: Mapping[str, str], faults: Sequence[Fault] = ()
) -> Iterator[Finding]:
    """Yield what is set, in alphabetical order, then those `defaults` that hold.

    Of what has one of the `faults`, nobody knows what in it is secret.
    """
    faulty = {word for fault in faults for word in fault.variable.split()}
    names = sorted(name for name in reader.asked - NOT_OURS if reader.raw(name))
    for name in names:
        is_faulty = not faulty.isdisjoint((name, name.removesuffix("_FILE")))
        value = HIDDEN if is_faulty else _shown(name, reader)
        yield Finding("set", name, f"{value} ({reader.origin(name)})")
    for name, value in defaults.items():
        if not {name, f"{name}_FILE"} & set(names):
            yield Finding("default", name, value)


def _shown(name: str, reader: Reader) -> str:
    """Return what may be seen of a variable's value."""
    value = reader.raw(name) or ""
    if name.endswith("_FILE"):
        return value
    if name == SERIALS:
        return ",".join(short_sn(part.strip()) for part in value.split(","))
    if name in PERSONAL:
        return HIDDEN
    if name.lower() in PROXIES and "://" not in value:
        value = f"//{value}"
    if name.lower() in PROXIES or name.endswith("_URL") or name == API_HOST:
        return _address(value, is_open=name not in SECRET_PATHS)
    if name.lower() == "no_proxy" and not are_hosts(value):
        # It is not read where there is no proxy.
        return HIDDEN
    return HIDDEN if name in reader.secrets or "@" in value else value


def _address(value: str, *, is_open: bool) -> str:
    """Return an address without what opens something."""
    try:
        parts = urlsplit(value)
    except ValueError:
        return HIDDEN
    if "@" in parts.path:
        # A slash in a password ends the host before its time.
        return HIDDEN
    user, at, host = parts.netloc.rpartition("@")
    hidden = parts._replace(
        netloc=f"{HIDDEN * bool(user)}{at}{host}",
        path=parts.path if is_open or not parts.path else f"/{HIDDEN}",
        query=HIDDEN * bool(parts.query),
    )
    return hidden.geturl()
