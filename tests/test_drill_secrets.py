"""Every secret, on every way on which something fails: nothing of it is told to anyone.

A path is a place that answers, a way in which its answer quotes all secrets, and how
push.py was started. Each is walked with each style of the log.
"""

from __future__ import annotations

import gzip
import os
import random
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import cramjam
import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import Received
from tests.leaks import leaks
from tests.leaky import (
    ACCESS_KEY,
    APP_LIST,
    BASIC,
    CERTIFIED,
    CHECK,
    DRY,
    HEARS,
    HTTP,
    KEYS,
    LIST,
    PLACES,
    RUN,
    SECRET_KEY,
    Scene,
    Secrets,
    by_account,
    quoting,
    scene,
    watched,
)
from tests.misset import ARGUMENTS, HEAD, TAIL, WHOLE, WRONG
from tests.scripted_broker import ScriptedBroker
from tests.support import PUSH, Run, eventually, fetch, free_port, push
from tests.typist import ACCESS, NUMBER, SECRET, Typist

STYLES = {
    "text": {"LOG_LEVEL": "INFO"},
    "JSON": {"LOG_LEVEL": "INFO", "LOG_FORMAT": "json"},
    "DEBUG": {"LOG_LEVEL": "DEBUG"},
}
#: One of them in the short form.
ONE_OF_STYLES = (
    "JSON",
    pytest.param("text", marks=pytest.mark.late),
    pytest.param("DEBUG", marks=pytest.mark.late),
)
# Moments, and how long something took.
TIMES = re.compile(r"\d{4}-\d\d-\d\dT\S+|\d+\.\d+(e[+-]\d+)?|[+-]\d+ s\b")
# Of a place, in the short form.
SHORT = 3
SHORT_SETTINGS = 25
# What a variable is not looked at without.
BESIDE: dict[str, dict[str, str]] = {
    "ECOFLOW_ACCOUNT_USER": {"ECOFLOW_ACCOUNT_PASSWORD": "hidden-1"},
    "ECOFLOW_ACCOUNT_PASSWORD": {"ECOFLOW_ACCOUNT_USER": "a@b.example"},
    "PUSHGATEWAY_PASSWORD": {
        "PUSHGATEWAY_URL": "http://127.0.0.1:1",
        "PUSHGATEWAY_USERNAME": "user",
    },
    "PUSHGATEWAY_BEARER_TOKEN": {"PUSHGATEWAY_URL": "http://127.0.0.1:1"},
    "REMOTE_WRITE_PASSWORD": {
        "REMOTE_WRITE_URL": "http://127.0.0.1:1",
        "REMOTE_WRITE_USERNAME": "user",
    },
    "REMOTE_WRITE_BEARER_TOKEN": {"REMOTE_WRITE_URL": "http://127.0.0.1:1"},
    "REMOTE_WRITE_HEADERS": {"REMOTE_WRITE_URL": "http://127.0.0.1:1"},
}
LEAST_PATHS = 400
PATHS = sum(len(place.ways) * len(place.modes) for place in PLACES.values())


@pytest.fixture(scope="module")
def servers() -> Iterator[Scene]:
    with scene() as found:
        yield found


def laid(base: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    whole = {**base, **changes}
    if changes.get("PUSHGATEWAY_BEARER_TOKEN"):
        scheme, _, rest = str(whole["PUSHGATEWAY_URL"]).partition("//")
        whole["PUSHGATEWAY_URL"] = f"{scheme}//{rest.rpartition('@')[2]}"
    return {name: value for name, value in whole.items() if value is not None}


@pytest.mark.case("K1", "K2")
@pytest.mark.drill("secrets")
@pytest.mark.parametrize("name", PLACES)
def test_what_a_server_quotes_is_told_to_nobody(name, drill, servers, tmp_path):
    """Whoever quotes all secrets, and however: they are in no output, file or body."""
    place = PLACES[name]
    rng = random.Random(f"{drill.seed} {name}")
    cases = list(product(place.ways, place.modes, STYLES))
    rng.shuffle(cases)
    size = drill.size(SHORT, len(cases))
    wrong: list[str] = []
    unmet, masked = [], 0
    for number in range(size):
        way, mode, style = case = cases[number % len(cases)]
        folder = tmp_path / str(number)
        folder.mkdir()
        servers.heal()
        environ = {**servers.environ(folder), **STYLES[style]}
        if place.is_second:
            # Without a list, or the next run would not ask for one.
            servers.cloud.fail(APP_LIST, faults.status(500))
            push(laid(environ, by_account(servers, servers.broker.port)))
            servers.heal()
        reached: list[str] = []
        fault: Any = place.ways[way](quoting(place.secrets, rng))
        is_script = isinstance(fault, ScriptedBroker)
        fault = fault if is_script else watched(fault, reached)
        run = push(laid(environ, place.plant(servers, fault)), *mode)
        masked += "***" in run.stdout + run.stderr
        if not (fault.connects if is_script else reached):
            unmet.append(case)
        if run.status in (70, 78) or run.status < 0:
            wrong.append(f"{case}: {run}")
        elif found := told(run, place.secrets, folder, servers):
            wrong.append(f"{case}: {found}")
    print(f"{name}: {size} runs, {masked} with a mask, {len(unmet)} unmet")
    assert not wrong, "\n".join(wrong)
    assert not unmet
    assert PATHS >= LEAST_PATHS


def told(
    run: Run, secrets: Secrets, folder: Path, servers: Scene
) -> dict[str, list[str]]:
    """Return what of all secrets was told, by where that was."""
    texts = {"stdout": run.stdout, "stderr": run.stderr}
    for path in folder.rglob("*"):
        # What is kept of a login is there for the next run, and for nobody else.
        is_login = path.name == "account.json"
        if is_login:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        elif path.is_file() and path.name != "bearer":
            texts[str(path)] = path.read_bytes().decode("latin-1")
    found = {where: leaks(text, *secrets) for where, text in texts.items()}
    for name, own in HEARS.items():
        heard = "\n".join(map(_heard, servers.servers[name].received))
        found[f"what {name} heard"] = leaks(heard, *secrets.without(own))
    return {where: parts for where, parts in found.items() if parts}


def _heard(received: Received) -> str:
    body = received.body
    encoding = received.headers.get("content-encoding")
    if encoding == "snappy":
        body = bytes(cramjam.snappy.decompress_raw(body))
    elif encoding == "gzip":
        body = gzip.decompress(body)
    head = [received.path, *(f"{k}: {v}" for k, v in received.headers.items())]
    return "\n".join([*head, body.decode("latin-1")])


@pytest.mark.case("K2", "K4", "K5", "K12")
@pytest.mark.drill("secrets")
def test_what_is_set_wrongly_is_told_without_its_value(drill, servers, tmp_path):
    """A secret that is set wrongly, or in the wrong place, is told to nobody."""
    rng = random.Random(f"{drill.seed} wrong")
    ways = product(WRONG, (RUN, CHECK, DRY))
    cases = [(*way, rng.choice(list(STYLES))) for way in ways]
    rng.shuffle(cases)
    wrong: list[str] = []
    servers.heal()
    size = drill.size(SHORT_SETTINGS, len(cases))
    for number in range(size):
        what, mode, style = case = cases[number % len(cases)]
        folder = tmp_path / str(number)
        folder.mkdir()
        base = {
            **servers.cloud.environ(),
            "TEXTFILE_PATH": str(folder / "text.prom"),
            "STATE_DIR": str(folder / "state"),
            "RUN_DEADLINE": "3",
            "ESTABLISH_ATTEMPTS": "1",
            **STYLES[style],
        }
        changes = WRONG[what](folder)
        name = what.partition(":")[0]
        base |= {k: v for k, v in BESIDE.get(name, {}).items() if k not in changes}
        files = sorted(map(str, folder.glob("*.env")))
        options = [each for file in files for each in ("--env-file", file)]
        if "ECOFLOW_ACCOUNT" in name:
            base["ECOFLOW_SOURCE"] = "mqtt"
        run = push(laid(base, changes), *mode, *options)
        said = "\n".join([run.stdout, run.stderr, *_written(folder)])
        found = leaks(said, (HEAD, TAIL, WHOLE))
        if found or run.status in (70, *range(-64, 0)):
            wrong.append(f"{case}: {found[:2]} {run}")
    print(f"settings: {size} runs, {len(wrong)} failed")
    assert not wrong, "\n".join(wrong)


def _written(folder: Path) -> list[str]:
    """Return what a run left behind."""
    mine = ("value", "settings.env", "account.json", "fifo")
    paths = [path for path in folder.rglob("*") if path.name not in mine]
    return [p.read_bytes().decode("latin-1") for p in paths if p.is_file()]


@pytest.mark.case("K3")
@pytest.mark.drill("secrets")
@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_the_command_line_takes_no_secret(arguments, servers, tmp_path):
    """What is no option ends a run before it begins, and is not repeated."""
    servers.heal()

    run = push({**servers.environ(tmp_path)}, *arguments)

    assert run.status in (64, 78)
    assert leaks(run.stdout + run.stderr, (HEAD, TAIL, WHOLE)) == []
    assert servers.cloud.received == []


@contextmanager
def started(
    folder: Path, environ: Mapping[str, str], *arguments: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that writes into files."""
    with (
        (folder / "stdout").open("wb") as stdout,
        (folder / "stderr").open("wb") as stderr,
        subprocess.Popen(
            [sys.executable, *arguments],
            env={"PATH": os.defpath, "HOME": "/nonexistent", **environ},
            cwd="/",
            stdout=stdout,
            stderr=stderr,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def what_was_said(folder: Path) -> list[str]:
    return [(folder / name).read_text() for name in ("stdout", "stderr")]


#: How a process ends that waits for EcoFlow, by its signal.
ENDS = {"is ended": signal.SIGTERM, "is told to crash": signal.SIGABRT}


@pytest.mark.case("K7", "L5")
@pytest.mark.drill("secrets")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    "options",
    [
        (),
        pytest.param(("--check",), marks=pytest.mark.late),
        pytest.param(("--every", "60"), marks=pytest.mark.late),
    ],
)
def test_what_others_see_of_a_process(options, end, servers, tmp_path):
    """Neither a list of processes shows a secret, nor a dump that Python makes."""
    servers.heal()
    servers.cloud.fail(LIST, faults.hang())
    environ = {**servers.environ(tmp_path), **STYLES["DEBUG"]}
    python = ("-X", "dev", "-X", "tracemalloc")
    with started(tmp_path, environ, *python, str(PUSH), *options) as process:
        assert eventually(lambda: servers.cloud.received)
        own = Path(f"/proc/{process.pid}")
        shown = [path.read_text() for path in own.glob("task/*/comm")]
        shown += [(own / name).read_text() for name in ("cmdline", "status")]
        children = [path.read_text() for path in own.glob("task/*/children")]
        process.send_signal(ENDS[end])
        process.wait(30)
    said = what_was_said(tmp_path)

    assert not "".join(children).strip()
    assert end != "is told to crash" or "Current thread" in said[1]
    run = Run(0, said[0] + "\n".join(shown), said[1])
    assert told(run, BASIC + KEYS, tmp_path / "state", servers) == {}


@pytest.mark.case("K1", "L13")
@pytest.mark.drill("secrets")
@pytest.mark.parametrize("style", ONE_OF_STYLES)
def test_what_a_process_that_stays_tells(style, drill, servers, tmp_path):
    """Run by run a job that stays masks what all its servers quote, in metrics too."""
    rng = random.Random(f"{drill.seed} stays {style}")
    servers.heal()
    servers.cloud.fail(LIST, HTTP["status 500"](quoting(BASIC + KEYS, rng)), 2)
    for name in ("gateway", "receiver", "monitor"):
        text = quoting(BASIC + KEYS, rng)
        servers.others[name].fail("", HTTP["status 400"](text))
    port = free_port()
    environ = {
        **servers.environ(tmp_path),
        **STYLES[style],
        "EXPORTER_PORT": str(port),
        "RUN_DEADLINE": "2",
    }
    with started(tmp_path, environ, str(PUSH), "--every", "1") as process:
        pings = servers.others["monitor"].received
        assert eventually(lambda: len([x for x in pings if x.body]) > 2)
        shown = fetch(f"http://127.0.0.1:{port}/metrics").decode()
        process.terminate()
        assert process.wait(30) == 0
    said = what_was_said(tmp_path)

    assert "***" in said[1]
    assert "ecoflow_pd_soc" in shown
    run = Run(0, said[0] + shown, said[1])
    assert told(run, BASIC + KEYS, tmp_path, servers) == {}


@pytest.mark.case("K1")
@pytest.mark.drill("secrets")
def test_what_stands_on_the_screen_of_init(drill, home, servers):
    """What is typed, and quoted by EcoFlow, is masked on the screen of --init."""
    servers.heal()
    text = quoting(KEYS, random.Random(drill.seed))
    servers.cloud.fail(LIST, faults.code("5001", text))
    environ = {**home, "ECOFLOW_API_HOST": servers.cloud.url}
    with Typist(environ) as typist:
        typist.answer(NUMBER)
        typist.answer(ACCESS, ACCESS_KEY)
        typist.answer(SECRET, SECRET_KEY)
        typist.wait_for("code 5001")
        typist.process.terminate()
        typist.end()

        assert "***" in typist.screen
        assert leaks(typist.screen, *KEYS) == []


#: Where a path is told that nobody can write to, or read.
PATHS_TOLD = ("TEXTFILE_PATH", "STATE_DIR", "ECOFLOW_CA_FILE", "XDG_STATE_HOME", "HOME")


@pytest.mark.case("K6")
@pytest.mark.drill("secrets")
@pytest.mark.parametrize("style", ONE_OF_STYLES)
def test_a_path_that_a_secret_is_part_of(style, servers, tmp_path):
    """Even where a folder is called as a secret is, every line masks its name."""
    (tmp_path / "file").write_text("")
    place = f"{tmp_path}/file/{SECRET_KEY.replace('/', '-')}"
    key = place.rpartition("/")[2]
    runs = []
    for name, mode in product(PATHS_TOLD, (RUN, CHECK, DRY)):
        servers.heal()
        environ: dict[str, str | None] = {
            "ECOFLOW_SECRET_KEY": key,
            "TEXTFILE_PATH": str(tmp_path / "text.prom"),
            **({"STATE_DIR": None} if "HOME" in name else {}),
            name: place + ".prom" * (name == "TEXTFILE_PATH"),
        }
        base = {**servers.environ(tmp_path), **STYLES[style]}
        runs.append(push(laid(base, environ), *mode))

    said = "\n".join(run.stdout + run.stderr for run in runs)
    assert "cannot write" in said
    assert "cannot use the state folder" in said
    assert leaks(said, [key]) == []


@pytest.mark.case("K8")
@pytest.mark.drill("secrets")
def test_libraries_that_somebody_lets_talk(servers, tmp_path):
    """What urllib3 says of addresses, where someone switched that on, is masked too."""
    servers.heal()
    (tmp_path / "sitecustomize.py").write_text(
        "import logging\n"
        "for name in ('', 'urllib3', 'requests', 'paho'):\n"
        "    logging.getLogger(name).setLevel(logging.DEBUG)\n"
    )
    environ = laid(servers.environ(tmp_path), by_account(servers, servers.broker.port))

    run = push({**environ, "PYTHONPATH": str(tmp_path), "LOG_LEVEL": "DEBUG"})

    assert "certification?userId=***" in run.stderr
    assert told(run, BASIC + CERTIFIED, tmp_path / "state", servers) == {}
