"""What several tests need: real servers, runs of push.py, certificates."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tests.fetch_servers import environ, find

ROOT = Path(__file__).resolve().parent.parent
PUSH = ROOT / "push.py"
# Our own documented names and the gateway's two; everything else is a quota.
OWN_NAMES = re.compile(
    r"ecoflow_(online|device_info|snapshot_timestamp_seconds"
    r"|data_last_change_timestamp_seconds|push_\w+)"
    r"|push_(failure_)?time_seconds"
)

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Run(NamedTuple):
    """One run of push.py: what it said and how long it took (seconds)."""

    status: int
    stdout: str
    stderr: str
    took: float


def push(environ: Mapping[str, str], *args: str, timeout: float = 60) -> Run:
    """Run push.py as cron would, with this environment and no other."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, PUSH, *args],
        env={"PATH": os.defpath, "HOME": "/nonexistent", **environ},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr, time.monotonic() - began)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def fetch(url: str, **headers: str) -> bytes:
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        return bytes(response.read())


class Gateway:
    """A real Pushgateway."""

    def __init__(self, url: str) -> None:
        self.url = url

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


@contextmanager
def server(program: str, *args: str, ready: str, url: str) -> Iterator[str]:
    """Run a real server until the block ends; `ready` is the path that says so."""
    binary = find().get(program)
    # Never skipped: a suite that ran without its servers would prove nothing.
    assert binary, f"{program} is missing: run ./dev servers, or put it on PATH"
    # Not a pipe: a server that logs into one that nobody reads stops.
    said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
    process = subprocess.Popen([binary, *args], stderr=said, env=environ(binary))
    try:
        for _ in range(500):
            assert process.poll() is None, (said.seek(0), said.read())[1]
            try:
                fetch(url + ready)
                break
            except urllib.error.HTTPError as exc:
                if exc.code == 401:
                    break
            except OSError as exc:
                if "CERTIFICATE" in str(exc) or "HANDSHAKE" in str(exc).upper():
                    break
            time.sleep(0.01)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=10)
        said.close()


@contextmanager
def gateway(*args: str, scheme: str = "http") -> Iterator[Gateway]:
    port = free_port()
    with server(
        "prometheus-pushgateway",
        f"--web.listen-address=127.0.0.1:{port}",
        # Debian's default is a file that outlives the test.
        "--persistence.file=",
        *args,
        ready="/-/ready",
        url=f"{scheme}://localhost:{port}",
    ) as url:
        yield Gateway(url)
