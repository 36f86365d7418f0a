"""Others who do this job, where a variable says where they are.

    VPIKUS=FOLDER      a clone of vpikus/ecoflow-prometheus-exporter
    GO_ONESHOT=FILE    a program that reads the variables of push.py, one CA out of
                       SSL_CERT_FILE, pushes once and ends; or the folder of its source

An exporter is two processes on a host that nothing can connect to: itself, and an agent
that scrapes it and writes to elsewhere. Both are asked for one value a minute.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.process import Command, Cost, Servers
from tests.fetch_servers import HOME as FETCHED

EXPORTER = "ecoflow_prometheus.py"
SERIAL = "R331BENCH0000000"
MINUTE = 60.0
PATIENCE = 20.0
CONFIG = """\
global: {{scrape_interval: 60s, scrape_timeout: 10s}}
scrape_configs:
  - job_name: ecoflow
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def exporter_command(servers: Servers) -> Command | None:
    """Return how the exporter is started for one device, if there is one."""
    folder = os.environ.get("VPIKUS", "")
    if not folder:
        return None
    script = os.path.abspath(os.path.join(folder, EXPORTER))
    if not os.path.exists(script):
        sys.exit(f"VPIKUS: there is no {script}")
    environ = servers.environ()
    return Command(
        [sys.executable, script],
        {
            **environ,
            # It writes the scheme itself.
            "ECOFLOW_API_HOST": environ["ECOFLOW_API_HOST"].partition("://")[2],
            "ECOFLOW_DEVICE_SN": SERIAL,
            "REQUESTS_CA_BUNDLE": environ["ECOFLOW_CA_FILE"],
            "COLLECTING_INTERVAL": "60",
        },
    )


def go_command(folder: str) -> list[str]:
    """Return the command line of the program in Go, [] if there is none."""
    place = os.path.abspath(os.environ.get("GO_ONESHOT") or os.devnull)
    if os.path.isdir(place):
        built = os.path.join(folder, "go-oneshot")
        subprocess.run(["go", "build", "-o", built, "."], cwd=place, check=True)
        place = built
    return [place] if os.path.isfile(place) else []


def agents() -> dict[str, list[str]]:
    """Return the command lines of the agents that are here, by name."""
    found = {}
    for name in ("vmagent", "prometheus"):
        places = [*map(str, FETCHED.glob(f"*/usr/bin/{name}")), shutil.which(name)]
        for place in sorted(filter(None, places)):
            found[name] = [place]
            if name == "prometheus":
                done = subprocess.run(
                    [place, "--help"], capture_output=True, text=True, check=False
                )
                new = re.search(r"--(\[no-\])?agent\b", done.stdout + done.stderr)
                found[name] += ["--agent" if new else "--enable-feature=agent"]
    return found


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process, from its own clock."""
    return time.clock_gettime((~pid << 3) | 2)


def peak_of(pid: int) -> float:
    """Return the most memory that a process ever held, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", text)[0]) * 1024


def scraped(port: int) -> bytes:
    """Return what an exporter shows, b"" if it does not listen yet."""
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: connection.recv(65536), b""))
    except ConnectionError:
        return b""


class Exporter:
    """One that runs, until it is ended."""

    def __init__(self, command: Command) -> None:
        self.port = free_port()
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            command.argv,
            env=command.environ | {"EXPORTER_PORT": str(self.port)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def first(self) -> Cost:
        """Return what it cost until it showed a device's values."""
        while b"ecoflow_pd_soc" not in scraped(self.port):
            time.sleep(0.01)
            late = time.perf_counter() - self.began > PATIENCE
            if late or self.process.poll() is not None:
                sys.exit(f"the exporter shows nothing: {self.process.args}")
        wall, pid = time.perf_counter() - self.began, self.process.pid
        return Cost(cpu_of(pid), wall, peak_of(pid), time.time())

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def first_scrape(command: Command) -> Cost:
    """Return what an exporter costs until its first scrape."""
    exporter = Exporter(command)
    try:
        return exporter.first()
    finally:
        exporter.end()


class Pairs:
    """An exporter and each agent that is here, at work until they are asked."""

    def __init__(self, command: Command, servers: Servers, folder: str) -> None:
        self._stack = ExitStack()
        exporter = Exporter(command)
        self._stack.callback(exporter.end)
        exporter.first()
        self._pids = {"exporter": exporter.process.pid}
        url = servers.sink("receiver")["REMOTE_WRITE_URL"]
        text = CONFIG.format(port=exporter.port)
        for name, argv in agents().items():
            place, listen = f"{folder}/{name}", f"127.0.0.1:{free_port()}"
            config = Path(folder, f"{name}.yml")
            if name == "vmagent":
                config.write_text(text)
                argv += [f"-promscrape.config={config}", f"-remoteWrite.url={url}"]
                argv += [f"-remoteWrite.tmpDataPath={place}"]
                argv += [f"-httpListenAddr={listen}"]
            else:
                config.write_text(f"{text}remote_write: [{{url: '{url}'}}]\n")
                argv += [f"--config.file={config}"]
                argv += [f"--storage.agent.path={place}"]
                argv += [f"--web.listen-address={listen}"]
            with open(os.path.join(folder, f"{name}.log"), "wb") as log:
                agent = subprocess.Popen(argv, stdout=log, stderr=log)
            self._stack.callback(agent.wait)
            self._stack.callback(agent.kill)
            self._pids[name] = agent.pid
        time.sleep(MINUTE / 4)  # their start is no part of a minute
        self._began = time.monotonic()
        self._before = {name: cpu_of(pid) for name, pid in self._pids.items()}

    def minute(self) -> dict[str, tuple[float, float]]:
        """Wait for a whole minute; return CPU seconds of one, and bytes, of each."""
        passed = time.monotonic() - self._began
        minutes = int(passed // MINUTE) + 1
        time.sleep(minutes * MINUTE - passed)
        return {
            name: ((cpu_of(pid) - self._before[name]) / minutes, peak_of(pid))
            for name, pid in self._pids.items()
        }

    def end(self) -> None:
        """End all of them."""
        self._stack.close()
