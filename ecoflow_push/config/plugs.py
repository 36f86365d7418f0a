"""The two short tables: by what names sources and sinks go, and what asks for them.

A plug is the module of that name in `api` or `sinks`. It owns its part: `VARIABLES`
declares its variables, `read(reader)` returns its config (None if it is not wanted),
`create(...)` opens it. It is imported only when the environment speaks of it.

A source's config has `account`, which is what its first variable says (the look at
the lock needs no more), and `needs_memory`, why it must not go without one, "" if it
may; its module's `LEAST_INTERVAL` (s) a schedule keeps. A sink's config is its own
affair. `create` takes config, settings, state and folder; of a sink
that stays between runs (`STAYS = True`) config and settings.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

#: What each source is asked for by; the first says whose data it is. The order is that
#: in which they read.
SOURCES: Mapping[str, tuple[str, ...]] = {
    "rest": ("ECOFLOW_ACCESS_KEY", "ECOFLOW_SECRET_KEY"),
    "mqtt": ("ECOFLOW_ACCOUNT_USER", "ECOFLOW_ACCOUNT_PASSWORD"),
}
#: What each sink is asked for by. The order is that in which they deliver: what is
#: local is told first how the run went.
SINKS: Mapping[str, tuple[str, ...]] = {
    "textfile": ("TEXTFILE_PATH",),
    "exporter": ("EXPORTER_PORT",),
    "pushgateway": ("PUSHGATEWAY_URL",),
    "remote_write": ("REMOTE_WRITE_URL",),
}
#: The one for which what is not taken waits in spools.
SPOOLED = "remote_write"


def spoken_of(
    table: Mapping[str, tuple[str, ...]], names: Iterable[str]
) -> Iterator[str]:
    """Yield the plugs of `table` that variables with these names can be about."""
    names = tuple(names)
    for plug, variables in table.items():
        beginnings = (*variables, f"{plug.upper()}_")
        if any(name.startswith(beginnings) for name in names):
            yield plug


def load(room: str, name: str) -> Any:
    """Return the module of a plug; `room` is api or sinks."""
    from importlib import import_module

    return import_module(f"ecoflow_push.{room}.{name}")
