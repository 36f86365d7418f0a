"""Every sink in the same clothes, with somebody who looks at what it says."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.core import CollectorRegistry, Metric

from ecoflow_push.memory.records import DeviceRecord
from ecoflow_push.memory.spool import Keep, Spool
from ecoflow_push.memory.state import State
from ecoflow_push.metrics.labels import Labels
from ecoflow_push.metrics.record import record_of
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.sinks.base import Delivery, Sink, Update
from ecoflow_push.sinks.endpoint import RemoteWriteSink
from ecoflow_push.sinks.exporter import ExporterSink
from ecoflow_push.sinks.groups import Gateway as Groups
from ecoflow_push.sinks.pushgateway import PushgatewaySink
from ecoflow_push.sinks.queue import Queue
from ecoflow_push.sinks.server import Connection, Server
from ecoflow_push.sinks.textfile import TextfileSink
from tests.receiver import STALE, Receiver
from tests.support import Gateway, fetch, free_port, gateway, parse
from tests.test_wire import registry as registry_of

LABELS = Labels("ecoflow", "test", "ecoflow", {})
INFO = "ecoflow_device_info"
ONLINE = "ecoflow_online"
SOC = "ecoflow_pd_soc"
RUN = "ecoflow_push_success"
Values = dict[str, dict[str, float]]


def registry(sn: str, values: Mapping[str, float]) -> CollectorRegistry:
    """Return what is said of a device, as the registry's builder would."""
    metrics = []
    for name, value in values.items():
        metric = Metric(name, f"About {name}.", "gauge")
        metric.add_sample(name, {"device": sn, "device_name": f'A "{sn}"'}, value)
        metrics.append(metric)
    return registry_of(*metrics)


def run_registry() -> CollectorRegistry:
    metric = Metric(RUN, "Whether it went well.", "gauge")
    metric.add_sample(RUN, {}, 1.0)
    return registry_of(metric)


def say(sn: str, soc: float = 87.0, **more: Any) -> Update:
    """Return the update of a device that was read."""
    values = {ONLINE: 1.0, INFO: 1.0, SOC: soc}
    return update(sn, "say", values, held_at=time.time(), online=True, **more)


def offline(sn: str) -> Update:
    return update(sn, "say", {ONLINE: 0.0, INFO: 1.0}, online=False)


def reduce(sn: str, **more: Any) -> Update:
    return update(sn, "reduce", {INFO: 1.0}, **more)


def end(sn: str) -> Update:
    return Update(sn, "end")


def unread(sn: str) -> Update:
    return Update(sn, "unread")


def update(sn: str, action: Any, values: Mapping[str, float], **more: Any) -> Update:
    said = registry(sn, values)
    at_ms = round((more.get("at") or time.time()) * 1000)
    return Update(
        sn,
        action,
        registry=said,
        make_record=lambda: record_of(said, {"job": LABELS.job}, at_ms),
        **more,
    )


class Kit:
    """A sink, and who looks at what it says."""

    name: str
    #: The server to which it sends, None if there is none.
    server: Any = None

    def __init__(self, folder: Path, state: State) -> None:
        self.folder = folder
        self.state = state
        self.stale_after = 300.0
        self.ahead = True
        self._made: list[Sink] = []

    def sink(self) -> Sink:
        """Return the sink of a new run."""
        sink = self.made()
        self._made.append(sink)
        return sink

    def made(self) -> Sink:
        raise NotImplementedError

    def close(self) -> None:
        for sink in self._made:
            sink.close()

    def values(self) -> Values:
        """Return what is said of each device, by name."""
        raise NotImplementedError

    def heard(self) -> int:
        """Return how many requests arrived."""
        return len(self.server.received) if self.server else 0

    def run(self, *updates: Update, offset: float | None = 0.0) -> Sink:
        """Do a run, whole, as a worker does it."""
        sink = self.sink()
        self.begin(sink, *updates, offset=offset)
        sink.deliver(Deadline(10))
        self.end(sink)
        return sink

    def begin(self, sink: Sink, *updates: Update, offset: float | None = 0.0) -> None:
        for each in updates:
            self.state.devices.setdefault(each.sn, DeviceRecord())
            sink.hear(offset)
            sink.take(each, Deadline(10))
        sink.prepare(Deadline(10))

    def end(self, sink: Sink) -> None:
        sink.settle(Deadline(10))
        sink.deliver_run(run_registry(), Deadline(10))
        sink.close()


class TextfileKit(Kit):
    name = "textfile"

    @property
    def path(self) -> Path:
        return self.folder / "ecoflow.prom"

    def made(self) -> Sink:
        return TextfileSink(str(self.path))

    def values(self) -> Values:
        return by_device(self.path.read_text()) if self.path.exists() else {}


class ExporterKit(Kit):
    name = "exporter"

    def __init__(self, folder: Path, state: State) -> None:
        super().__init__(folder, state)
        self.now = 1000.0
        self.standing = ExporterSink(free_port(), 300.0, "ecoflow", lambda: self.now)

    def made(self) -> Sink:
        self.standing.delivery = Delivery()
        return self.standing

    def end(self, sink: Sink) -> None:
        sink.settle(Deadline(10))
        sink.deliver_run(run_registry(), Deadline(10))

    def values(self) -> Values:
        url = f"http://127.0.0.1:{self.standing.port}/metrics"
        return by_device(fetch(url).decode())


class PushgatewayKit(Kit):
    name = "pushgateway"

    def __init__(self, folder: Path, state: State, url: str) -> None:
        super().__init__(folder, state)
        self.url = url

    def made(self) -> Sink:
        server = Server("PUSHGATEWAY", self.url)
        connection = Connection(server, attempts=2, longest_wait=0.01)
        return PushgatewaySink(Groups(connection), self.state, LABELS)

    def values(self) -> Values:
        series = Gateway(self.url).series()
        found: Values = {}
        for (name, labels), value in series.items():
            found.setdefault(dict(labels).get("device", ""), {})[name] = value
        return found


class RemoteWriteKit(Kit):
    name = "remote-write"
    most_samples = 2000
    version = "1"

    def __init__(self, folder: Path, state: State, receiver: Receiver) -> None:
        super().__init__(folder, state)
        #: How far the clock of its runs is ahead of ours (s).
        self.ahead_by = 0.0
        self.server = receiver
        state.use_endpoint("spool-0")

    @property
    def spool(self) -> str:
        return str(self.folder / "spool-0")

    def made(self) -> Sink:
        return Queue(
            RemoteWriteSink(
                Server("REMOTE_WRITE", self.server.write_url),
                version=self.version,
                attempts=2,
                longest_wait=0.01,
                most_samples=self.most_samples,
            ),
            Spool(self.spool, Keep(ahead=self.ahead)),
            self.state,
            LABELS,
            stale_after=self.stale_after,
            clock=lambda: time.time() + self.ahead_by,
        )

    def values(self) -> Values:
        """Return the newest value of each series that has not ended."""
        import struct

        found: Values = {}
        for labels, points in self.server.stored.items():
            bits = points[-1][1]
            if bits != STALE:
                named = dict(labels)
                value = struct.unpack("<d", bits)[0]
                found.setdefault(named.get("device", ""), {})[named["__name__"]] = value
        return found


def by_device(text: str) -> Values:
    found: Values = {}
    for (name, labels), value in parse(text).items():
        found.setdefault(dict(labels).get("device", ""), {})[name] = value
    return found


NAMES = ("textfile", "exporter", "pushgateway", "remote-write")


@contextmanager
def kit_of(name: str, folder: Path, server: Any = None) -> Iterator[Kit]:
    """Open the kit of a sink; its real counterpart runs unless `server` is given."""
    with ExitStack() as stack:
        state = stack.enter_context(State.open(str(folder / "state")))
        kit: Kit
        if name == "textfile":
            kit = TextfileKit(folder, state)
        elif name == "exporter":
            kit = ExporterKit(folder, state)
            stack.callback(kit.standing.close)
        elif name == "pushgateway":
            url = server.url if server else stack.enter_context(gateway()).url
            kit = PushgatewayKit(folder, state, url)
            kit.server = server
        else:
            receiver = server or stack.enter_context(Receiver())
            kit = RemoteWriteKit(folder, state, receiver)
        stack.callback(kit.close)
        yield kit
