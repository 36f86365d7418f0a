"""The plug of remote-write: its variables, and the way to the endpoint they name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ecoflow_push.config.kinds import TENANT_HEADERS, Variable
from ecoflow_push.memory.spool import Keep, Spool
from ecoflow_push.memory.spools import endpoint_folder
from ecoflow_push.metrics.labels import create_labels
from ecoflow_push.sinks.endpoint import RemoteWriteSink
from ecoflow_push.sinks.queue import Queue
from ecoflow_push.sinks.server import (
    Server,
    read_server,
    server_variables,
)

if TYPE_CHECKING:
    from ecoflow_push.config.environ import Reader
    from ecoflow_push.config.settings import Settings
    from ecoflow_push.memory.state import State

VARIABLES = (
    *server_variables(
        "REMOTE_WRITE",
        (
            Variable(
                "REMOTE_WRITE_URL",
                "a remote-write endpoint, the whole address:"
                " [remote-write.md](remote-write.md); `user:password@` as above",
            ),
            Variable(
                "REMOTE_WRITE_VERSION",
                "`1`, which nearly every receiver takes, `2`, or `auto`: 2, falling"
                " back to 1 and remembering it",
                "1",
            ),
            Variable(
                "REMOTE_WRITE_MAX_SAMPLES",
                "most samples of one request (1 to 100000)",
                "2000",
            ),
        ),
        (
            Variable(
                "REMOTE_WRITE_HEADERS",
                "further headers, `Name: value` lines or separated by `;`; those that"
                " the program sets itself are a fault",
            ),
        ),
        what="endpoint",
    ),
    Variable(
        "SPOOL_MODE",
        "store, send, take out; or `on-failure`: store only what could not be sent,"
        " which halves what is flushed to an SD card",
        "write-ahead",
    ),
    Variable("SPOOL_MAX_AGE", "how long a snapshot may wait for remote-write", "86400"),
    Variable(
        "SPOOL_MAX_BYTES",
        "how large the spool may be (200 MiB); the oldest are dropped first",
        "209715200",
    ),
)


class Config:
    """What the settings say of a remote-write endpoint and its spool."""

    __slots__ = ("headers", "keep", "most_samples", "server", "version")

    def __init__(
        self,
        server: Server,
        version: str,
        headers: Mapping[str, str],
        keep: Keep,
        most_samples: int = 2000,
    ) -> None:
        self.server = server
        self.version = version
        self.headers = headers
        self.keep = keep
        self.most_samples = most_samples

    @property
    def endpoint(self) -> tuple[str, ...]:
        """What tells the endpoint from others: a password may change, the rest not."""
        headers = sorted(self.headers.items())
        tenants = [v for k, v in headers if k.lower() in TENANT_HEADERS]
        return (self.server.url, self.server.username or "", *tenants)


def read(reader: Reader) -> Config | None:
    """Return the endpoint of the settings, None if there is none."""
    # Its whole address is the user's to say, down to the last slash.
    server = read_server(reader, "REMOTE_WRITE", query=True)
    version = reader.choice("REMOTE_WRITE_VERSION", ("1", "2", "auto")) or "1"
    headers = reader.headers("REMOTE_WRITE_HEADERS")
    is_authorized = server and (server.username or server.bearer_token)
    if is_authorized and "authorization" in map(str.lower, headers):
        text = "Authorization, and so have other variables"
        reader.fault("REMOTE_WRITE_HEADERS", text)
    modes = ("write-ahead", "on-failure")
    keep = Keep(
        ahead=reader.choice("SPOOL_MODE", modes) != modes[1],
        max_age=reader.seconds("SPOOL_MAX_AGE", 86_400, 0),
        # 1e12: more than any disk that this should fill.
        max_bytes=reader.count("SPOOL_MAX_BYTES", 200 * 1024 * 1024, 0, 10**12) or 0,
    )
    most = reader.count("REMOTE_WRITE_MAX_SAMPLES", 2000, 1, 100_000) or 2000
    return Config(server, version, headers, keep, most) if server else None


def create(
    config: Config,
    settings: Settings,
    state: State,
    folder: str | None,
    clock: Callable[[], float] = time.time,
) -> Queue:
    """Return the way to the endpoint, its spool in `folder`, None for none.

    `clock` is what samples are stamped by where no snapshot has its own time.

    Raises SettingsError when a certificate or key file cannot be used.
    """
    return Queue(
        *create_ends(config, settings, state, folder),
        state,
        create_labels(settings),
        stale_after=settings.stale_after,
        clock=clock,
    )


def create_ends(
    config: Config, settings: Settings, state: State, folder: str | None
) -> tuple[RemoteWriteSink, Spool]:
    """Return both ends of that way: where it leads to, and where it comes from.

    Raises SettingsError as above.
    """
    # In what is no folder nothing can ever be made.
    spool = endpoint_folder(folder or os.devnull, *config.endpoint)
    state.use_endpoint(os.path.basename(spool))
    sink = RemoteWriteSink(
        config.server,
        version=config.version,
        known_version=state.endpoint.version,
        headers=config.headers,
        proxies=settings.proxies,
        attempts=settings.attempts,
        longest_wait=settings.longest_wait,
        most_samples=config.most_samples,
    )
    return sink, Spool(spool, config.keep)
