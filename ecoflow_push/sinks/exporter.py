"""ExporterSink: the latest snapshots at /metrics, for the schedule mode alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import start_http_server
from prometheus_client.core import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from ecoflow_push.errors import SettingsError

PATIENCE_SECONDS = 10


def _uptime() -> float:
    """Return seconds on a clock that goes on while the host sleeps, where there is."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class ExporterSink(Collector):
    """Serves what was last pushed to it, as long as that is young enough.

    What it holds are registries by group, as on a Pushgateway; after `stale_after`
    seconds without a push, a group shows its second registry, which has no values. So
    nothing stale is served even if no run ever ends again.
    """

    def __init__(
        self, port: int, stale_after: float, clock: Callable[[], float] = _uptime
    ) -> None:
        """Listen on `port` of all interfaces; raises SettingsError if it is taken."""
        self._stale_after = stale_after
        self._clock = clock
        self._lock = threading.Lock()
        #: How often it was pushed to.
        self.pushes = 0
        self._groups: dict[str, tuple[float, CollectorRegistry, CollectorRegistry]] = {}
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, _ = start_http_server(port, registry=registry)
            # Whoever connects and hangs up, or says nothing, is no news.
            self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
            handler = self._server.RequestHandlerClass
            handler.timeout = PATIENCE_SECONDS  # type: ignore[attr-defined]
        except OSError as exc:
            raise SettingsError(
                f"settings: EXPORTER_PORT: port {port} cannot be used: {exc.strerror}"
            ) from exc

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_port)

    def push(
        self,
        group: str,
        registry: CollectorRegistry,
        stale: CollectorRegistry,
        age: float = 0.0,
    ) -> None:
        """Serve `registry` for the group, and `stale` once it is too old.

        `age` is how old it is already, in seconds.
        """
        with self._lock:
            self.pushes += 1
            self._groups[group] = (self._clock() - max(0.0, age), registry, stale)

    def forget(self, kept: Iterable[str]) -> None:
        """Serve nothing of all groups but these any more."""
        with self._lock:
            self._groups = {g: self._groups[g] for g in kept if g in self._groups}

    def delete(self, group: str) -> None:
        """Serve nothing of the group any more."""
        with self._lock:
            self._groups.pop(group, None)

    def collect(self) -> Iterator[Metric]:
        """Yield the families of all groups, each name once."""
        families: dict[str, Metric] = {}
        for metric in self._families():
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

    def _families(self) -> Iterator[Metric]:
        now = self._clock()
        with self._lock:
            groups = list(self._groups.values())
        for at, registry, stale in groups:
            yield from (registry if now - at <= self._stale_after else stale).collect()
