"""What newcomers type wrong in the settings: what was typed, the line, the status."""

from __future__ import annotations

import re
from contextlib import ExitStack

import pytest

from ecoflow_push.config.strangers import OTHERS
from ecoflow_push.config.texts import STRANGE
from tests.mistakes import (
    ACCESS_KEY,
    HOSTS,
    SECRET_KEY,
    SN,
    Mistake,
    World,
    complaints,
    table,
)
from tests.mistakes import run as made
from tests.support import ROOT, push, push_anew

KEYS = {"ECOFLOW_ACCESS_KEY": "AK0123456789", "ECOFLOW_SECRET_KEY": "SK9876543210"}
# A cloud and a gateway that refuse the connection: 69 is what a run gets that begins.
BASE = {
    **KEYS,
    "ECOFLOW_API_HOST": "http://127.0.0.1:1",
    "PUSHGATEWAY_URL": "http://127.0.0.1:1",
    "ESTABLISH_ATTEMPTS": "1",
}
MISTAKES = table()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with ExitStack() as stack:
        yield World(tmp_path_factory.mktemp("mistakes") / "me", stack)


@pytest.mark.parametrize(
    "number", range(len(MISTAKES)), ids=lambda n: f"{n} {MISTAKES[n].kind}"
)
def test_a_mistake(number, world):
    """What is typed wrong brings the line and the status of its row, and no secret."""
    mistake = MISTAKES[number]
    with world.anew():
        run = made(world, mistake)

        said = " / ".join(complaints(run))
        assert re.fullmatch(world.pattern(mistake.line), said), (mistake.typed, said)
        assert run.status == mistake.status
        for secret in (ACCESS_KEY, SECRET_KEY, SN, "t0psecret", "3f2a", "pw@"):
            assert secret not in run.stdout + run.stderr


def test_the_set_up_without_a_mistake_is_well(world):
    """What every row lies over ends with 0 and not a word of complaint."""
    with world.anew():
        run = made(world, Mistake("none", {}, 0, ""))

    assert (run.status, complaints(run)) == (0, [])


def test_the_table_of_mistakes():
    """No row is there twice, and every state of a host is used."""
    rows = [m.typed for m in MISTAKES]

    assert len(set(rows)) == len(rows) >= 300
    assert {m.host for m in MISTAKES} == {"", *HOSTS}


RIGHT: list[dict[str, str]] = [
    {"LOG_LEVEL": "warn"},
    {"LOG_LEVEL": "Warning"},
    {"LOG_LEVEL": "debug"},
    {"RUN_DEADLINE": "1m"},
    {"STALE_AFTER": "0.5h", "RETRY_TIMEOUT": "90s"},
    {"STATE_DIR": "~/state"},
    {"STATE_DIR": "$HOME/state"},
    {"PUSH_JOB": "it's", "EXTRA_LABELS": "site=home"},
    {"PUSHGATEWAY_USERNAME": "u", "PUSHGATEWAY_PASSWORD": "'\"#$ \\"},
]


@pytest.mark.parametrize("given", RIGHT, ids=str)
def test_what_is_right(given, tmp_path):
    """What may be said in another way is no mistake."""
    run = push({**BASE, "HOME": str(tmp_path), **given})

    assert run.status == 69, run.stderr
    if "STATE_DIR" in given:
        assert (tmp_path / "state").is_dir()


def test_a_name_is_told_beside_the_fault_that_it_causes():
    """A key under a wrong name is missing, and the line before says why."""
    environ = {**BASE, "ECOFLOW_ACCESSKEY": "AK0123456789"}
    del environ["ECOFLOW_ACCESS_KEY"]

    run = push(environ)
    assert run.status == 78
    warning, error = run.stderr.splitlines()
    assert warning.endswith("name: set ECOFLOW_ACCESS_KEY instead")
    assert "ECOFLOW_ACCESS_KEY: missing" in error

    check = push(environ, "--check")
    assert check.status == 78
    assert "warning  settings: ECOFLOW_ACCESSKEY: no setting" in check.stdout


def test_the_check_tells_names(environ):
    """--check finds them where a run is well otherwise, on its screen alone."""
    run = push_anew({**environ, "PUSH_JOBS": "x"}, "--check")

    assert "warning  settings: PUSH_JOBS: no setting has this name: did" in run.stdout
    assert "WARNING" not in run.stderr


def test_what_kubernetes_sets_is_no_mistake(tmp_path):
    """A service that is called as we are leaves its variables in every pod."""
    links = {
        "PUSHGATEWAY_SERVICE_HOST": "10.0.0.1",
        "PUSHGATEWAY_SERVICE_PORT_HTTP": "9091",
        "PUSHGATEWAY_PORT": "tcp://10.0.0.1:9091",
        "PUSHGATEWAY_PORT_9091_TCP_ADDR": "10.0.0.1",
        "PROMETHEUS_SERVICE_HOST": "10.0.0.2",
        "PROMETHEUS_PORT": "tcp://10.0.0.2:9090",
        "PUSHGATEWAY_SERVICE_SERVICE_HOST": "10.0.0.3",
        "PUSHGATEWAY_SERVICE_SERVICE_PORT": "9091",
        "PUSHGATEWAY_SERVICE_PORT_9091_TCP_PORT": "9091",
        "ECOFLOW_PORTAL_SERVICE_HOST": "10.0.0.4",
        "ECOFLOW_PORTAL_PORT": "tcp://10.0.0.4:80",
    }

    run = push({**BASE, "STATE_DIR": str(tmp_path), **links})

    assert run.status == 69
    assert "WARNING" not in run.stderr


def test_other_exporters_names_are_those_of_the_page():
    """docs/coming-from.md has each name that is told, and each is looked at."""
    page = (ROOT / "docs" / "coming-from.md").read_text()
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|$", page, re.MULTILINE)
    named = {
        name
        for there, here in rows
        if not here.startswith("the same")
        for name in re.findall(r"`(\w+)`", there)
    }
    ours = set(
        re.findall(
            r"^\| `(\w+)`", (ROOT / "docs/settings.md").read_text(), re.MULTILINE
        )
    )

    names = {name for name in named if "_" in name or "T" in name}
    assert names - ours == set(OTHERS)
    assert set(OTHERS.values()) <= ours | {""}
    for name in OTHERS:
        assert name.startswith(STRANGE), name


def test_quotes_around_a_password_in_a_file_are_its_own(tmp_path):
    """A password that has quotes around it can be given: from a file."""
    file = tmp_path / "password"
    file.write_text("'p'")
    given = {"PUSHGATEWAY_USERNAME": "u", "PUSHGATEWAY_PASSWORD_FILE": str(file)}

    run = push({**BASE, "STATE_DIR": str(tmp_path), **given})

    assert run.status == 69, run.stderr
