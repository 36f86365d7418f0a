"""What newcomers do wrong: what was typed, the line that came, the status.

    python -m tests.mistakes

prints the table as Markdown, each line from a run of push.py; tests/test_mistakes.py
holds every run to its row in mistakes.toml. Beside its mistake, a row is a set-up that
works.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import trustme

from ecoflow_push.config.strangers import OTHERS
from ecoflow_push.memory.lock import hold, state_folder
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedCloud, SimulatedDevice
from ecoflow_push.simulator.server import Answer, Fault, Received, RecordingServer
from tests.forker import is_enough
from tests.receiver import Receiver
from tests.support import MODULES, PUSH, ROOT, Run, forked

ACCESS_KEY, SECRET_KEY = "AK0123456789abcdef", "SK9876543210fedcba"
SN = "R331ZFAKE0000001"
# As a Python that is too old would be: push.py must say so in its grammar.
AS_OLD = (
    "import runpy, sys; sys.version_info = (3, 9, 2, 'final', 0);"
    "sys.argv = [sys.argv[1]]; sys.path.insert(0, sys.argv[0].rpartition('/')[0]);"
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
PYTHONS = {"python3.9": ("-c", AS_OLD), "python3 without packages": ("-S",)}
BASE_PYTHON = getattr(sys, "_base_executable", sys.executable)
TABLE = Path(__file__).with_suffix(".toml")
# What a row may say for what differs from run to run.
ANY = {"s": r"\d+\.\d", "n": r"[+-]?\d+", "any": r".*?"}


class Mistake(NamedTuple):
    """One row; names in braces are places of the world.

    `given` lies over the set-up that works, None takes a variable away; `line` is all
    that push.py complains of; `host` is a name of HOSTS; of several `runs` the last one
    counts; `python` is a name of PYTHONS.
    """

    kind: str
    given: Mapping[str, str | None]
    status: int
    line: str
    argv: Sequence[str] = ()
    files: Mapping[str, str | bytes] = {}
    host: str = ""
    runs: int = 1
    python: str = ""

    @property
    def typed(self) -> str:
        """What was typed, for people."""
        told = [
            f"no {name}" if value is None else f"{name}={_visible(value)}"
            for name, value in self.given.items()
        ]
        told += [f"{name}: {_visible(text)}" for name, text in self.files.items()]
        if self.python:
            told.append(f"{self.python} push.py")
        told += [" ".join(("push.py", *self.argv))] if self.argv else []
        told += [f"run {self.runs} times"] if self.runs > 1 else []
        return "; ".join([*told, f"({self.host})"] if self.host else told)


class EmptyGateway(RecordingServer):
    """Takes all, and lists no group."""

    def answer(self, received: Received) -> Answer:
        """Return an empty list to who asks, else that all is well."""
        return Answer(200, b'{"data":[]}' if received.method == "GET" else b"")


class World:
    """The servers and the folder that all rows have in common."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        """Start the servers; they end with `stack`."""
        self.cloud = stack.enter_context(
            SimulatedCloud([], access_key=ACCESS_KEY, secret_key=SECRET_KEY)
        )
        self.gateway = stack.enter_context(EmptyGateway())
        self.receiver = stack.enter_context(Receiver())
        self.other = stack.enter_context(RecordingServer())
        self.folder = folder
        self.places: dict[str, str] = {}
        #: What a row opens, and its end closes.
        self.stack = stack

    @contextmanager
    def anew(self) -> Iterator[None]:
        """Be as if nothing had happened, for one row."""
        servers = (self.cloud, self.gateway, self.receiver, self.other)
        for server in servers:
            server.heal()
            server.date_offset = 0.0
        device = SimulatedDevice(SN, {"pd.soc": 87}, "Garage", "DELTA 2")
        self.cloud.devices[:] = [device]
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        names = ("cloud", "gateway", "receiver", "other")
        self.places = {
            name: server.url.partition("//")[2]
            for name, server in zip(names, servers, strict=True)
        }
        self.places |= {"folder": str(self.folder), "closed": "127.0.0.1:1"}
        with ExitStack() as self.stack:
            yield

    def environ(self) -> dict[str, str]:
        """Return the settings of a job that works."""
        return {
            **self.cloud.environ(),
            "PUSHGATEWAY_URL": f"http://{self.places['gateway']}",
            "STATE_DIR": f"{self.folder}/state",
            "PUSH_INSTANCE": "pi",
            "ESTABLISH_ATTEMPTS": "1",
            "HOME": str(self.folder),
            "PATH": os.defpath,
        }

    def filled(self, text: str) -> str:
        """Return a text with the places that it names."""
        for name, place in (self.places | WORDS).items():
            text = text.replace(f"{{{name}}}", place)
        return text

    def shown(self, text: str) -> str:
        """Return a text with names for the places in it."""
        for name, place in self.places.items():
            text = text.replace(place, SHOWN.get(name, f"{name}.example"))
        text = text.replace(str(ROOT), "/home/me/ecoflow_push")
        return text.replace(BASE_PYTHON, "python3")

    def pattern(self, line: str) -> str:
        """Return a regular expression of a row's line."""
        known = {name: re.escape(place) for name, place in self.places.items()} | ANY
        parts = re.split(r"\{(\w+)\}", line)
        return "".join(
            known[part] if place % 2 else re.escape(part)
            for place, part in enumerate(parts)
        )


#: What else a row may name.
WORDS = {"key": ACCESS_KEY, "secret": SECRET_KEY, "sn": SN, "long": "x" * 70_000}
#: How the table calls the places.
SHOWN = {"folder": "/home/me", "closed": "127.0.0.1:1", "cloud": "cloud.example"}


def run(world: World, mistake: Mistake) -> Run:
    """Make the mistake, and return what push.py made of it."""
    if mistake.host:
        HOSTS[mistake.host](world)
    for name, content in mistake.files.items():
        file = world.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            file.write_text(world.filled(content))
        else:
            file.write_bytes(content)
        file.chmod(0o644 if "readable" in mistake.host else 0o600)
    environ = world.environ()
    for name, value in mistake.given.items():
        environ.pop(name, None)
        if value is not None:
            environ[name] = world.filled(value)
    argv = list(map(world.filled, mistake.argv))
    python = PYTHONS.get(mistake.python, ())
    alone = world.folder / "push.py"
    program = alone if alone.exists() else PUSH
    for _ in range(mistake.runs):
        if program == PUSH and not python and is_enough(environ):
            done = forked(PUSH, argv, environ, modules=MODULES)
        else:
            done = _anew([*python, str(program), *argv], environ)
    return done


def _anew(words: Sequence[str], environ: Mapping[str, str]) -> Run:
    done = subprocess.run(
        [sys.executable, *words],
        env=environ,
        cwd="/",
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=60,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)


def table() -> list[Mistake]:
    """Return all rows: those of the file, and the names of other exporters."""
    told = tomllib.loads(TABLE.read_text())
    names = told["names"] | {
        name: f"set {instead} instead" if instead else "leave it out"
        for name, instead in OTHERS.items()
    }
    warning = "WARNING {}: no setting has this name: {}"
    rows = [Mistake(**row) for each in told["rows"] for row in _read(each)]
    rows += [
        Mistake("names", {name: "x"}, 0, warning.format(name, cure))
        for name, cure in names.items()
    ]
    return rows + [
        Mistake("options", {}, 64, f"ecoflow-push: {line}", argv=(option,))
        for option, line in told["options"].items()
    ]


def _read(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows that one of the file stands for: of `each`, one a value."""
    given = dict.fromkeys(row.pop("without", ()), None) | row.pop("set", {})
    contents = {name: bytes.fromhex(x) for name, x in row.pop("bytes", {}).items()}
    row["files"] = row.pop("files", {}) | contents
    for name, values in row.pop("each", {"": [""]}).items():
        for value in values:
            yield {**row, "given": given | ({name: value} if name else {})}


def complaints(run: Run) -> list[str]:
    """Return what a run complains of: its lines, but for those at INFO and the time."""
    lines = [re.sub(r"^\S+Z ", "", line) for line in run.stderr.splitlines()]
    return [line for line in lines if not line.startswith("INFO ")]


# -- what is so on the host, or at the other end ------------------------------------


def cloud_fails(part: str, fault: Fault) -> Callable[[World], None]:
    return lambda world: world.cloud.fail(part, fault)


def gateway_fails(fault: Fault) -> Callable[[World], None]:
    return lambda world: world.gateway.fail("", fault)


def receiver_fails(fault: Fault) -> Callable[[World], None]:
    return lambda world: world.receiver.fail("", fault)


def other_fails(fault: Fault) -> Callable[[World], None]:
    return lambda world: world.other.fail("", fault)


DAY = timedelta(days=1)
DATES = (("begins", -DAY), ("ends", DAY))


def has_certificate(*names: str, **times: timedelta) -> Callable[[World], None]:
    """Let `{tls}` be a cloud with a certificate of the authority in ca.pem."""

    def setup(world: World) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(world.folder / "ca.pem"))
        now = datetime.now(UTC)
        begins, ends = (now + times.get(name, default) for name, default in DATES)
        certificate = authority.issue_cert(*names, not_before=begins, not_after=ends)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        server = SimulatedCloud(
            world.cloud.devices,
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            tls=context,
        )
        url = world.stack.enter_context(server).url
        world.places["tls"] = url.partition("//")[2]

    return setup


def clock(seconds: float) -> Callable[[World], None]:
    def setup(world: World) -> None:
        # Theirs behind is ours ahead.
        for server in (world.cloud, world.gateway, world.receiver):
            server.date_offset = -seconds

    return setup


def devices(*fleet: SimulatedDevice) -> Callable[[World], None]:
    def setup(world: World) -> None:
        world.cloud.devices[:] = fleet

    return setup


def another_run(world: World) -> None:
    url, job = world.cloud.url, "ecoflow"
    folder = state_folder(f"{world.folder}/state", url, ACCESS_KEY, job)
    for descriptor in hold(folder):
        world.stack.callback(os.close, descriptor)


def damaged_state(content: str) -> Callable[[World], None]:
    def setup(world: World) -> None:
        url = world.cloud.url
        folder = state_folder(f"{world.folder}/state", url, ACCESS_KEY, "ecoflow")
        Path(folder).mkdir(parents=True, mode=0o700)
        (Path(folder) / "state.json").write_text(content)

    return setup


def push_py_alone(world: World) -> None:
    shutil.copy(PUSH, world.folder)


def nothing(world: World) -> None:
    """Nothing but what the words say."""


HOSTS: dict[str, Callable[[World], None]] = {
    "the file is readable by all": nothing,
    "push.py was copied alone": push_py_alone,
    "another run is at work": another_run,
    "state.json is damaged": damaged_state("{"),
    "state.json is of a newer version": damaged_state('{"version": 99}'),
    "certificate of an unknown authority": has_certificate("localhost"),
    "certificate for another name": has_certificate("elsewhere.example"),
    "certificate has expired": has_certificate("localhost", begins=-9 * DAY, ends=-DAY),
    "certificate is of tomorrow": has_certificate(
        "localhost", begins=DAY, ends=9 * DAY
    ),
    "the clock is an hour ahead": clock(3600),
    "the clock is an hour behind": clock(-3600),
    "the account lists a dozen": devices(
        *(SimulatedDevice(f"R331ZFAKE00000{n}", {"pd.soc": 1}) for n in range(11, 23))
    ),
    "the account lists none": devices(),
    "the device is closed to developer keys": devices(SimulatedDevice(SN, code="1006")),
    "the serial is a battery's": devices(SimulatedDevice(SN, code="8512")),
    "EcoFlow answers 8512": cloud_fails("quota", faults.code("8512", "no permission")),
    "EcoFlow answers 1008": cloud_fails("quota", faults.code("1008", "check params")),
    "EcoFlow answers HTTP 401": cloud_fails("", faults.status(401)),
    "EcoFlow answers HTTP 403": cloud_fails("", faults.status(403)),
    "EcoFlow answers HTTP 404": cloud_fails("", faults.status(404)),
    "EcoFlow answers HTTP 429": cloud_fails("", faults.status(429)),
    "EcoFlow answers HTTP 502": cloud_fails("", faults.status(502, faults.PAGE)),
    "EcoFlow is too busy": cloud_fails("", faults.code("9", "Server is too busy")),
    "EcoFlow does not answer": cloud_fails("", faults.hang()),
    "EcoFlow's host redirects": cloud_fails(
        "", faults.redirect("https://me:pw@www.ecoflow.example/login?token=t0psecret#x")
    ),
    "a captive portal answers": cloud_fails("", faults.page()),
    "a captive portal redirects": cloud_fails(
        "", faults.redirect("http://portal.example/welcome;jsessionid=1?mac=00:11")
    ),
    "a port that speaks no HTTP": other_fails(faults.raw(b"SSH-2.0-OpenSSH_9.2\r\n")),
    "the gateway answers 400": gateway_fails(
        faults.status(400, b"pushed metrics are inconsistent")
    ),
    "the gateway answers 401": gateway_fails(faults.status(401, b"Unauthorized")),
    "the gateway answers 403": gateway_fails(faults.status(403)),
    "the gateway answers 404": gateway_fails(faults.status(404, b"404 page not found")),
    "the gateway answers 405": gateway_fails(faults.status(405)),
    "the gateway answers 413": gateway_fails(faults.status(413)),
    "the gateway answers 429": gateway_fails(faults.status(429)),
    "the gateway answers 500": gateway_fails(faults.status(500, b"disk full")),
    "the gateway answers 503": gateway_fails(faults.status(503)),
    "the gateway redirects": gateway_fails(
        faults.redirect("https://gateway.example/metrics/job/ecoflow/device/" + SN)
    ),
    "the gateway is a web page": gateway_fails(faults.page()),
    "the gateway cuts its answer": gateway_fails(faults.reset()),
    "the receiver answers 400": receiver_fails(faults.status(400, b"bad request")),
    "the receiver answers 401": receiver_fails(faults.status(401)),
    "the receiver answers 404": receiver_fails(faults.status(404)),
    "the receiver answers 405": receiver_fails(faults.status(405)),
    "the receiver answers 415": receiver_fails(faults.status(415)),
    "the receiver answers 429": receiver_fails(faults.status(429)),
    "the receiver answers 503": receiver_fails(faults.status(503)),
    "the receiver redirects": receiver_fails(
        faults.redirect("https://sso.example/login?rd=%2Fapi&state=t0psecret")
    ),
    "the receiver is a web page": receiver_fails(faults.page()),
    "the proxy answers 403": other_fails(faults.status(403)),
    "the proxy answers 407": other_fails(faults.status(407)),
    "the proxy answers 503": other_fails(
        faults.status(503, b"connection refused by 10.0.0.1")
    ),
    "the healthcheck answers 404": other_fails(faults.status(404)),
    "the healthcheck answers 503": other_fails(faults.status(503)),
    "the healthcheck redirects": other_fails(
        faults.redirect("https://hc.example/ping/3f2a?x=y")
    ),
}


def _visible(value: str | bytes) -> str:
    """Return a text with what nobody sees spelled out."""
    if isinstance(value, bytes):
        return repr(value)[2:-1]
    return "".join(
        c if c.isprintable() and c.isascii() else c.encode("unicode_escape").decode()
        for c in value
    )


def _cell(text: str) -> str:
    text = text.replace("|", "\\|").replace("`", "'")
    return f"`{text}`" if text else ""


def main() -> int:
    """Print the table, and return 1 if a run was not as its row says."""
    failed, mistakes = 0, table()
    print("| | what was typed | the line that came | status |\n|---|---|---|---|")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        world = World(Path(folder) / "me", stack)
        for mistake in mistakes:
            with world.anew():
                done = run(world, mistake)
                said = " / ".join(complaints(done))
                is_so = re.fullmatch(world.pattern(mistake.line), said)
                failed += done.status != mistake.status or not is_so
                typed = mistake.typed.replace("{long}", "70,000 letters")
                typed = world.shown(world.filled(typed))
                cells = (mistake.kind, _cell(typed), _cell(world.shown(said)))
                print(f"| {' | '.join(cells)} | {done.status} |", flush=True)
    print(f"\n{len(mistakes)} mistakes, {failed} not as they should be")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
