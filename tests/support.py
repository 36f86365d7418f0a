"""What several tests need: real servers, runs of push.py, certificates."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ecoflow_push.devices.metrics import metrics
from tests.fetch_servers import environ, find_one
from tests.forker import BARE, IMPOSSIBLE, OTHERS, Hardship, forker, is_enough

ROOT = Path(__file__).resolve().parent.parent
PUSH = ROOT / "push.py"
# All that a run may import, ours too, but for the program itself.
MODULES = (
    *OTHERS,
    *(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "ecoflow_push").rglob("[!_]*.py"))
    ),
)
# Third parties' recordings and tables, which are no part of the project. Tests that
# read them are marked `recorded`.
SHARED = ROOT.parent / "shared"
# Our own documented names and the gateway's two; everything else is a quota.
OWN_NAMES = re.compile(
    r"ecoflow_(online|device_info|snapshot_timestamp_seconds"
    r"|data_last_change_timestamp_seconds|push_\w+"
    rf"|{'|'.join(metrics())})"
    r"|push_(failure_)?time_seconds"
)

# Why a test is skipped on a machine that cannot fetch the real servers.
NO_SERVERS = "it needs the real servers, which ./dev servers fetches"

# Seconds that a busy machine may add to a bound that the program keeps. Its watchdog,
# which tells no time, strikes 5 s after the deadline.
LATE = 3

T = TypeVar("T")
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Run(NamedTuple):
    """One run of push.py: what it said."""

    status: int
    stdout: str
    stderr: str

    @property
    def seconds(self) -> float:
        """How long it worked by its own last word, the interpreter's start left out."""
        found = re.findall(r"exit \d+ [A-Z]+ after (\d+\.\d) s; ", self.stderr)
        assert found, f"no run that ended by itself: {self.stderr}"
        return float(found[-1])


def push(environ: Mapping[str, str], *args: str, timeout: float = 120) -> Run:
    """Run push.py as cron would, with this environment and no other.

    The interpreter is one that has all modules imported, ours too (tests/forker.py), or
    a new one where that makes a difference.
    """
    environ = {**BARE, **environ}
    if not is_enough(environ):
        return push_anew(environ, *args, timeout=timeout)
    return forked(PUSH, args, environ, modules=MODULES, timeout=timeout)


def forked(
    file: Path,
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    modules: Sequence[str] = OTHERS,
    hardships: Sequence[Hardship] = (),
    timeout: float = 120,
) -> Run:
    """Run a program in a process that has imported these modules.

    The test is skipped where the hardships cannot be brought about.
    """
    with forker(modules) as process:
        status, *said = process.run(
            *(str(file), argv, environ), hardships=hardships, timeout=timeout
        )
    out, err = (each.decode(errors="surrogateescape") for each in said)
    if hardships and status == IMPOSSIBLE:
        pytest.skip(err)
    return Run(status, out, err)


def push_anew(environ: Mapping[str, str], *args: str, timeout: float = 120) -> Run:
    """Run push.py as `push` does, in a new interpreter."""
    done = subprocess.run(
        [sys.executable, PUSH, *args],
        env={**BARE, **environ},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)


def _ports() -> Iterator[int]:
    # Below those of outgoing connections. Each process that tests, of this suite or of
    # another one, has a block of its own: who holds the first port of it.
    for first in range(18_000, 32_000, 350):
        with socket.socket() as guard, suppress(OSError):
            guard.bind(("127.0.0.1", first))
            while True:
                yield from range(first + 1, first + 350)


PORTS = _ports()


def free_port() -> int:
    """Return a port that nobody listens on, nor is given by the system to others."""
    for port in PORTS:
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError


def fetch(url: str, **headers: str) -> bytes:
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return bytes(response.read())


class Gateway:
    """A real Pushgateway."""

    def __init__(self, url: str) -> None:
        self.url = url

    def wipe(self) -> None:
        """Forget all groups, where the gateway lets us."""
        url = f"{self.url}/api/v1/admin/wipe"
        request = urllib.request.Request(url, method="PUT")
        urllib.request.urlopen(request, timeout=30).close()
        assert eventually(lambda: not self.groups())

    def groups(self) -> dict[str, dict[str, str]]:
        """Return the groups' labels, by device or, for a run's group, by job."""
        data = json.loads(fetch(f"{self.url}/api/v1/metrics"))["data"]
        labels = [group["labels"] for group in data]
        return {each.get("device") or each["job"]: each for each in labels}

    def series(self) -> Series:
        """Return all that was pushed, without the gateway's own metrics."""
        text = fetch(f"{self.url}/metrics").decode()
        return {
            key: value
            for key, value in parse(text).items()
            if dict(key[1]).get("job")
            and not re.match(r"push_(failure_)?time_seconds", key[0])
        }

    def devices(self) -> dict[str, Series]:
        """Return each device's series, the identity labels left out."""
        found: dict[str, Series] = {}
        for (name, labels), value in self.series().items():
            if sn := dict(labels).get("device"):
                found.setdefault(sn, {})[name, strip(labels)] = value
        return found

    def device(self, sn: str) -> Series:
        """Return one device's series, none if it has no group."""
        return self.devices().get(sn, {})

    def run(self) -> dict[str, float]:
        """Return the run's own series, by name and their one further label."""
        return {
            " ".join(
                [name, *(v for k, v in labels if k not in ("job", "instance"))]
            ): value
            for (name, labels), value in self.series().items()
            if "_push_" in name
        }


def parse(text: str) -> Series:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def strip(labels: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    identity = ("job", "instance", "device", "device_name", "product_name")
    return tuple(pair for pair in labels if pair[0] not in identity)


def values(series: Series) -> Series:
    """Return the series that come from quota maps."""
    return {k: v for k, v in series.items() if not OWN_NAMES.fullmatch(k[0])}


# To find one it is started.
_server = cache(find_one)


def real_server(program: str, suite: str = "") -> Path:
    """Return where a real server is; without it the test is skipped, but never in CI.

    tests/conftest.py makes one line of all that are skipped so.
    """
    if binary := _server(program, suite):
        return binary
    # A suite that ran without its servers would prove little.
    assert not os.environ.get("CI"), f"{program} is missing"
    pytest.skip(NO_SERVERS)


@contextmanager
def running(
    program: str, *args: str, ready: str, url: str, suite: str = "", beside: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a real server until the block ends; `ready` is the path that says so.

    It is the program `beside` that one, if one is named.
    """
    binary = real_server(program, suite)
    if beside:
        # Of the same package; upstream's names end as the other one's does.
        end = binary.name.removeprefix(program)
        binary = binary.with_name(beside + end)
    # Not a pipe: a server that logs into one that nobody reads stops.
    said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
    process = subprocess.Popen([binary, *args], stderr=said, env=environ(binary))

    def is_up() -> bool:
        assert process.poll() is None, (said.seek(0), said.read())[1]
        try:
            fetch(url + ready)
        except urllib.error.HTTPError as exc:
            return exc.code == 401
        except urllib.error.URLError as exc:
            # It wants a certificate, or has one that is not known here.
            return isinstance(exc.reason, ssl.SSLError)
        except OSError:
            return False
        return True

    try:
        assert eventually(is_up), f"{program} does not answer"
        yield process
    finally:
        # One that a test has stopped would not hear the other signal.
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(timeout=30)
        said.close()


@contextmanager
def gateway(*args: str, scheme: str = "http") -> Iterator[Gateway]:
    port = free_port()
    url = f"{scheme}://localhost:{port}"
    with running(
        "prometheus-pushgateway",
        f"--web.listen-address=127.0.0.1:{port}",
        # Debian's default is a file that outlives the test.
        "--persistence.file=",
        *args,
        ready="/-/ready",
        url=url,
    ):
        yield Gateway(url)


Points = dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[int, float]]]


class Database(NamedTuple):
    """A real server that takes remote-write; what it holds, by name and labels."""

    url: str
    process: subprocess.Popen[bytes]
    is_victoria: bool

    @property
    def write_url(self) -> str:
        return f"{self.url}/api/v1/write"

    def points(self, match: str = '{job=~".+"}') -> Points:
        """Return all samples in milliseconds, as stored; staleness markers left out."""
        if self.is_victoria:
            fetch(f"{self.url}/internal/force_flush")
            # New series are found only after the index is written.
            path = f"/api/v1/export?match[]={quote(match)}"
            text = eventually(lambda: fetch(self.url + path).decode(), 5)
            return {
                _key(row["metric"]): [
                    (at, float(value))
                    for at, value in zip(row["timestamps"], row["values"], strict=True)
                    if value is not None
                ]
                for row in map(json.loads, _as_json(text).splitlines())
            }
        at = time.time() + 3600
        rows = self._query(f"{match}[100d]", at)
        return {
            _key(row["metric"]): [(round(t * 1000), float(v)) for t, v in row["values"]]
            for row in rows
        }

    def alive(self, match: str = '{job=~".+"}', at: float | None = None) -> Series:
        """Return what an instant query shows, without what has ended."""
        at = time.time() if at is None else at
        if self.is_victoria:
            fetch(f"{self.url}/internal/force_flush")
        rows = eventually(lambda: self._query(match, at), 5)
        return {_key(row["metric"]): float(row["value"][1]) for row in rows}

    def _query(self, query: str, at: float) -> list[Any]:
        path = f"/api/v1/query?query={quote(query)}&time={at:.3f}"
        return list(json.loads(fetch(self.url + path))["data"]["result"])


def ended_by(
    number: int, process: subprocess.Popen[str], pid: int
) -> tuple[str, float]:
    """Send a signal to `pid`; return what `process` said, and how long (s) it took."""
    began = time.monotonic()
    os.kill(pid, number)
    _, said = process.communicate(timeout=30)
    return said, time.monotonic() - began


def eventually(ask: Callable[[], T], seconds: float = 60) -> T:
    """Return the first answer that is not empty, the last one if none is.

    The time is no bound of anything but the patience with a busy machine; where an
    empty answer is one, less of it is enough.
    """
    until = time.monotonic() + seconds
    pause = 0.01
    while not (answer := ask()) and time.monotonic() < until:
        time.sleep(pause)
        pause = min(0.1, pause * 1.5)
    return answer


def hears(pid: int, number: int) -> bool:
    """Return whether a process has a handler of its own for a signal."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(caught and int(caught[1], 16) >> (number - 1) & 1)


def _as_json(exported: str) -> str:
    """Return VictoriaMetrics' export with values that JSON knows."""

    def mend(values: re.Match[str]) -> str:
        # A staleness marker is null, but a bare NaN where it is the first value.
        return re.sub(r"\+?Inf", "Infinity", values[0]).replace("NaN", "null")

    return re.sub(r'"values":\[.*?\]', mend, exported)


def _key(metric: dict[str, str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    name = metric.pop("__name__")
    return name, tuple(sorted(metric.items()))


@contextmanager
def prometheus(
    folder: Path,
    *args: str,
    suite: str = "",
    config: str = "",
    port: int | None = None,
) -> Iterator[Database]:
    """Run a real Prometheus that takes remote-write; its data stay in `folder`."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    folder.mkdir(exist_ok=True)
    (folder / "prometheus.yml").write_text(config or "global: {}\n")
    with running(
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
        "--log.level=warn",
        *args,
        ready="/-/ready",
        url=url,
        suite=suite,
    ) as process:
        yield Database(url, process, is_victoria=False)


@contextmanager
def victoria_metrics(
    folder: Path, *args: str, suite: str = "", port: int | None = None
) -> Iterator[Database]:
    """Run a real VictoriaMetrics; its data stay in `folder`."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    with running(
        "victoria-metrics",
        f"-storageDataPath={folder}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=100y",
        "-search.latencyOffset=0s",
        "-loggerLevel=ERROR",
        # Or a snapshot whose answer got lost is there twice.
        "-dedup.minScrapeInterval=1ms",
        *args,
        ready="/health",
        url=url,
        suite=suite,
    ) as process:
        yield Database(url, process, is_victoria=True)


@contextmanager
def vmagent(folder: Path, target: str, *, suite: str = "") -> Iterator[Database]:
    """Run a real vmagent that passes on what is written to it."""
    url = f"http://127.0.0.1:{free_port()}"
    folder.mkdir(exist_ok=True)
    (folder / "scrape.yml").write_text("global: {}\n")
    with running(
        "victoria-metrics",
        f"-promscrape.config={folder}/scrape.yml",
        f"-remoteWrite.url={target}",
        f"-remoteWrite.tmpDataPath={folder}/queue",
        f"-httpListenAddr={url.partition('//')[2]}",
        "-loggerLevel=ERROR",
        ready="/health",
        url=url,
        suite=suite,
        beside="vmagent",
    ) as process:
        yield Database(url, process, is_victoria=True)


@contextmanager
def vmauth(folder: Path, target: str, token: str) -> Iterator[Database]:
    """Run a real vmauth, which lets this token write to `target`."""
    url = f"http://127.0.0.1:{free_port()}"
    folder.mkdir(exist_ok=True)
    rules = {
        "users": [
            {
                "bearer_token": token,
                "url_map": [{"src_paths": ["/api/v1/write"], "url_prefix": target}],
            }
        ]
    }
    (folder / "auth.yml").write_text(json.dumps(rules))
    with running(
        "victoria-metrics",
        f"-auth.config={folder}/auth.yml",
        f"-httpListenAddr={url.partition('//')[2]}",
        "-loggerLevel=ERROR",
        ready="/metrics",
        url=url,
        beside="vmauth",
    ) as process:
        yield Database(url, process, is_victoria=True)


def stop_listening(listener: socket.socket, thread: threading.Thread) -> None:
    """Close a socket whose connections a thread accepts, when that has ended.

    Closed under it, the next socket may get its number, and the thread that socket's
    first connection.
    """
    with suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    listener.close()
