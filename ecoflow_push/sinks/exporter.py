"""ExporterSink: the latest snapshots at /metrics, for the schedule mode alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import start_http_server
from prometheus_client.core import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from ecoflow_push.config.kinds import Variable
from ecoflow_push.errors import Fault, Finding, SettingsError
from ecoflow_push.metrics.own import LASTING
from ecoflow_push.net.deadline import limit_of, no_thread
from ecoflow_push.sinks.base import Sink, Update

if TYPE_CHECKING:
    from ecoflow_push.config.environ import Reader
    from ecoflow_push.config.settings import Settings
    from ecoflow_push.memory.state import State
    from ecoflow_push.net.deadline import Deadline

VARIABLES = (
    Variable(
        "EXPORTER_PORT",
        "with `--every`: serve the latest snapshots at `/metrics` on this port; a"
        " device's values are taken back `STALE_AFTER` after it was read",
    ),
)
#: It outlives a run, and is opened once.
STAYS = True
PATIENCE_SECONDS = 10
#: The group of the run's own series; no account's device is called so.
RUN = ("", "")


def read(reader: Reader) -> int | None:
    """Return the port of the settings, None if there is none.

    What Kubernetes says of a service that is called exporter is none.
    """
    value = reader.raw("EXPORTER_PORT") or ""
    if value.startswith("tcp://") and reader.raw("EXPORTER_SERVICE_HOST"):
        return None
    return reader.count("EXPORTER_PORT", None, 1, 65535)


def create(
    config: int,
    settings: Settings,
    _state: State | None = None,
    _folder: str | None = None,
) -> ExporterSink:
    """Return the sink, listening; raises SettingsError if the port is taken."""
    return ExporterSink(config, settings.stale_after, settings.prefix)


def _uptime() -> float:
    """Return seconds on a clock that goes on while the host sleeps, where there is."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class _Group:
    """What is served of one device, or of the run."""

    __slots__ = ("at", "registry")

    def __init__(self, at: float, registry: CollectorRegistry) -> None:
        self.at = at
        self.registry = registry


class ExporterSink(Sink, Collector):
    """Serves what it was last told, as long as that is young enough.

    `stale_after` seconds after it was learnt, a device shows only what stays true, and
    the run nothing. So nothing stale is served even if no run ever ends again.
    """

    name = "exporter"
    stays = True
    is_for_all = True

    def __init__(
        self,
        port: int,
        stale_after: float,
        prefix: str,
        clock: Callable[[], float] = _uptime,
    ) -> None:
        """Listen on `port` of all interfaces; raises SettingsError if it is taken.

        `prefix` is what the names of all metrics begin with.
        """
        super().__init__()
        self._lasting = frozenset(f"{prefix}_{name}" for name in LASTING)
        self._stale_after = stale_after
        self._clock = clock
        self._lock = threading.Lock()
        #: By account and device.
        self._groups: dict[tuple[str, str], _Group] = {}
        #: Those of this run.
        self._known: set[tuple[str, str]] = set()
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, _ = start_http_server(port, registry=registry)
        except RuntimeError as exc:
            # It begins a thread, and that is all that it says of one it cannot have.
            raise no_thread() from exc
        except OSError as exc:
            if limit := limit_of(exc):
                raise limit from exc
            text = f"port {port} cannot be used: {exc.strerror}"
            raise SettingsError([Fault("EXPORTER_PORT", text)]) from exc
        # Whoever connects and hangs up, or says nothing, is no news.
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        handler = self._server.RequestHandlerClass
        handler.timeout = PATIENCE_SECONDS  # type: ignore[attr-defined]

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_port)

    def take(self, update: Update, deadline: Deadline) -> None:  # noqa: ARG002
        """Serve what was learnt at once; what is not heard of again loses its values.

        A registry stays here until the next one of its device.
        """
        group = (update.whose, update.sn)
        self._known.add(group)
        if update.action == "end":
            self._delete(group)
        elif update.action == "say" and update.registry is not None:
            age = time.time() - update.at if update.at else 0.0
            self._serve(group, update.registry, age)

    def prepare(self, deadline: Deadline) -> None:  # noqa: ARG002
        """Forget the devices that are not known any more: none spoke of them."""
        with self._lock:
            for group in self._groups.keys() - self._known - {RUN}:
                del self._groups[group]
        self._known.clear()

    def deliver(self, deadline: Deadline) -> None:  # noqa: ARG002
        """Count as delivered: whoever looks sees it already."""
        self.delivery.delivered = 1

    def deliver_run(self, registry: CollectorRegistry, deadline: Deadline) -> None:  # noqa: ARG002
        """Serve the run's own series."""
        self.runs_told += 1
        self.delivery.delivered = 1
        self._known.clear()
        self._serve(RUN, registry, 0.0)

    def probe(self, deadline: Deadline) -> Iterator[Finding]:  # noqa: ARG002
        """Say where it listens, as it does from the beginning."""
        yield Finding("ok", "exporter", f"listens on port {self.port}")

    def abandon(self) -> None:
        """Serve nothing of a run that ended before it could say so itself."""
        self._delete(RUN)

    def collect(self) -> Iterator[Metric]:
        """Yield the families of all groups, each name once."""
        families: dict[str, Metric] = {}
        for metric in self._served():
            known = families.get(metric.name)
            if known is None:
                known = families[metric.name] = Metric(
                    metric.name, metric.documentation, metric.type
                )
            known.samples += metric.samples
        return iter(families.values())

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def _serve(
        self, group: tuple[str, str], registry: CollectorRegistry, age: float
    ) -> None:
        at = self._clock() - max(0.0, age)
        with self._lock:
            self._groups[group] = _Group(at, registry)

    def _delete(self, group: tuple[str, str]) -> None:
        with self._lock:
            self._groups.pop(group, None)

    def _served(self) -> Iterator[Metric]:
        now = self._clock()
        with self._lock:
            groups = list(self._groups.values())
        for group in groups:
            is_young = now - group.at <= self._stale_after
            for metric in group.registry.collect():
                if is_young or metric.name in self._lasting:
                    yield metric
