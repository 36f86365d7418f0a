"""What newcomers type wrong in the settings: what was typed, the line, the status."""

from __future__ import annotations

import re

import pytest

from ecoflow_push.config.strangers import OTHERS
from ecoflow_push.config.texts import STRANGE
from tests.support import ROOT, push

KEYS = {"ECOFLOW_ACCESS_KEY": "AK0123456789", "ECOFLOW_SECRET_KEY": "SK9876543210"}
# A cloud and a gateway that refuse the connection: 69 is what a run gets that begins.
BASE = {
    **KEYS,
    "ECOFLOW_API_HOST": "http://127.0.0.1:1",
    "PUSHGATEWAY_URL": "http://127.0.0.1:1",
    "ESTABLISH_ATTEMPTS": "1",
}
KEPT = "the loader kept"
BOTH_PAIRS = {"ECOFLOW_ACCOUNT_USER": "me@example.org", "ECOFLOW_ACCOUNT_PASSWORD": "p"}

# What was set, beside what is right, and the whole of what is at fault.
SETTINGS: list[tuple[dict[str, str], str]] = [
    (
        {"ECOFLOW_ACCESS_KEY": '"AK0123456789"'},
        (
            f"ECOFLOW_ACCESS_KEY: quotes around it: {KEPT} them as part of the value,"
            " leave them out"
        ),
    ),
    ({"ECOFLOW_SECRET_KEY": "'SK9876543210'"}, "ECOFLOW_SECRET_KEY: quotes around it"),
    ({"PUSHGATEWAY_URL": '"http://127.0.0.1:1"'}, "PUSHGATEWAY_URL: quotes around it"),
    ({"PUSHGATEWAY_URL": "''"}, "PUSHGATEWAY_URL: quotes around it"),
    ({"LOG_LEVEL": '"info"'}, "LOG_LEVEL: quotes around it"),
    ({"STATE_DIR": '"/tmp/state"'}, "STATE_DIR: quotes around it"),
    ({"RUN_DEADLINE": "'50'"}, "RUN_DEADLINE: quotes around it"),
    ({"HTTPS_PROXY": '"http://127.0.0.1:1"'}, "HTTPS_PROXY: quotes around it"),
    (
        {"ECOFLOW_DEVICE_SN": '"R331A"', "ECOFLOW_DEVICE_NAME": "Garage"},
        "ECOFLOW_DEVICE_SN: quotes around it",
    ),
    (
        {"ECOFLOW_ACCESS_KEY": "ECOFLOW_ACCESS_KEY=AK0123456789"},
        (
            f"ECOFLOW_ACCESS_KEY: ECOFLOW_ACCESS_KEY= in it: {KEPT} it as part of the"
            " value, leave it out"
        ),
    ),
    (
        {"PUSHGATEWAY_URL": "export PUSHGATEWAY_URL=http://127.0.0.1:1"},
        "PUSHGATEWAY_URL: PUSHGATEWAY_URL= in it",
    ),
    ({"STATE_DIR": "STATE_DIR=/tmp/state"}, "STATE_DIR: STATE_DIR= in it"),
    (
        {"STATE_DIR": "state"},
        "STATE_DIR: expected an absolute path: it begins with /, ~/ or $HOME/",
    ),
    ({"STATE_DIR": "./state"}, "STATE_DIR: expected an absolute path"),
    ({"STATE_DIR": "~you/state"}, "STATE_DIR: expected an absolute path"),
    ({"STATE_DIR": "${HOME}/state"}, "STATE_DIR: expected an absolute path"),
    ({"STATE_DIR": "$XDG/state"}, "STATE_DIR: expected an absolute path"),
    ({"XDG_STATE_HOME": "state"}, "XDG_STATE_HOME: expected an absolute path"),
    ({"ECOFLOW_CA_FILE": "ca.pem"}, "ECOFLOW_CA_FILE: expected an absolute path"),
    ({"ECOFLOW_CA_FILE": "~/ca.pem"}, "ECOFLOW_CA_FILE: no such file"),
    ({"PUSHGATEWAY_CA_FILE": "c"}, "PUSHGATEWAY_CA_FILE: expected an absolute path"),
    (
        {"PUSHGATEWAY_CERT_FILE": "c", "PUSHGATEWAY_KEY_FILE": __file__},
        "PUSHGATEWAY_CERT_FILE: expected an absolute path",
    ),
    (
        {"ECOFLOW_ACCESS_KEY": "", "ECOFLOW_ACCESS_KEY_FILE": "key"},
        "ECOFLOW_ACCESS_KEY_FILE: expected an absolute path",
    ),
    (
        {"ECOFLOW_ACCESS_KEY": "", "ECOFLOW_ACCESS_KEY_FILE": "$HOME/key"},
        "ECOFLOW_ACCESS_KEY_FILE: cannot be read (No such file or directory)",
    ),
    ({"TEXTFILE_PATH": "x.prom"}, "TEXTFILE_PATH: expected an absolute path"),
    (
        {"TEXTFILE_PATH": "/tmp/ecoflow.txt"},
        (
            "TEXTFILE_PATH: expected a name that ends in .prom: node_exporter reads no"
            " other file"
        ),
    ),
    ({"TEXTFILE_PATH": "/tmp/ecoflow"}, "TEXTFILE_PATH: expected a name that ends"),
    ({"TEXTFILE_PATH": "/tmp"}, "TEXTFILE_PATH: expected a file, not a folder"),
    ({"PUSHGATEWAY_URL": "gateway:9091"}, "PUSHGATEWAY_URL: expected http(s)://host"),
    ({"ECOFLOW_SECRET_KEY": ""}, "ECOFLOW_SECRET_KEY: missing"),
    ({"ECOFLOW_ACCESS_KEY": ""}, "ECOFLOW_ACCESS_KEY: missing"),
    (
        BOTH_PAIRS,
        (
            "ECOFLOW_ACCESS_KEY, ECOFLOW_SECRET_KEY, ECOFLOW_ACCOUNT_USER and"
            " ECOFLOW_ACCOUNT_PASSWORD are set: leave one of them"
        ),
    ),
    ({**BOTH_PAIRS, "ECOFLOW_SOURCE": "app"}, "ECOFLOW_SOURCE: expected one of rest"),
    ({"LOG_LEVEL": "loud"}, "LOG_LEVEL: expected one of DEBUG"),
    ({"STALE_AFTER": "5 min"}, "STALE_AFTER: expected seconds from 0"),
    ({"STALE_AFTER": "1m30s"}, "STALE_AFTER: expected seconds from 0"),
    ({"RUN_DEADLINE": "h"}, "RUN_DEADLINE: expected seconds from 1"),
]


@pytest.mark.parametrize(("given", "line"), SETTINGS, ids=lambda x: str(x)[:60])
def test_a_setting_is_wrong(given, line):
    """A mistake is one fault in one line, without the value, and 78."""
    run = push({**BASE, **given})

    assert run.status == 78, run.stderr
    [said] = run.stderr.splitlines()
    assert f"ERROR exit 78 CONFIG: settings: {line}" in said
    assert "; " not in said
    for secret in KEYS.values():
        assert secret not in said


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


# A name, what it is told to be, by the nearest right one.
NAMES = {
    "ECOFLOW_ACESS_KEY": "did you mean ECOFLOW_ACCESS_KEY?",
    "ECOFLOW_SECRET_KEY_FIL": "did you mean ECOFLOW_SECRET_KEY_FILE?",
    "ecoflow_secret_key": "did you mean ECOFLOW_SECRET_KEY?",
    "PUSHGATEWAY_URI": "did you mean PUSHGATEWAY_URL?",
    "PUSHGATEWAY_PASSWD": "did you mean PUSHGATEWAY_PASSWORD?",
    "PUSHGATEWAY_USER": "did you mean PUSHGATEWAY_USERNAME?",
    "REMOTE_WRITE_TOKEN": "did you mean REMOTE_WRITE_BEARER_TOKEN?",
    "PUSHGATEWAY_TOKEN": "did you mean PUSHGATEWAY_BEARER_TOKEN?",
    "ECOFLOW_SN": "did you mean ECOFLOW_DEVICE_SN?",
    "ECOFLOW_HOST": "did you mean ECOFLOW_API_HOST?",
    "ECOFLOW_USER": "did you mean ECOFLOW_ACCOUNT_USER?",
    "REMOTE_WRITE_HEADER": "did you mean REMOTE_WRITE_HEADERS?",
    "PUSH_JOBS": "did you mean PUSH_JOB?",
    "SPOOL_MAXAGE": "did you mean SPOOL_MAX_AGE?",
    "METRICS_SETS": "did you mean METRICS_SET?",
    "STATE_DIR_FILE": "",
    "ECOFLOW_QQQQQQQQQQQQQQQQQQQQQQQ": "see docs/settings.md",
    "SPOOL_MODE": "",
    "MQTT_HOST": "",
    "HTTP_HOME": "",
    **{
        name: f"set {instead} instead" if instead else "leave it out"
        for name, instead in OTHERS.items()
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_no_setting(name, tmp_path):
    """It is one warning with the nearest right name, and changes nothing else."""
    run = push({**BASE, "STATE_DIR": str(tmp_path), name: "on-failure"})

    assert run.status == 69
    warnings = [line for line in run.stderr.splitlines() if f" {name}: " in line]
    if not NAMES[name]:
        assert not warnings
        return
    [line] = warnings
    assert f" WARNING {name}: no setting has this name: {NAMES[name]}" in line


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
    assert "wrong    settings: ECOFLOW_ACCESSKEY: no setting" in check.stdout


def test_the_check_tells_names(environ):
    """--check finds them where a run is well otherwise, on its screen alone."""
    run = push({**environ, "PUSH_JOBS": "x"}, "--check")

    assert "wrong    settings: PUSH_JOBS: no setting has this name: did" in run.stdout
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


OPTIONS = {
    "--dryrun": "--dryrun is wrong; did you mean --dry-run? See --help",
    "--dry_run": "--dry_run is wrong; did you mean --dry-run?",
    "--list-device": "--list-device is wrong; did you mean --list-devices?",
    "--chek": "--chek is wrong; did you mean --check?",
    "-check": "an argument is wrong; did you mean --check?",
    "check": "an argument is wrong; did you mean --check?",
    "--evry=60": "--evry is wrong; did you mean --every?",
    "--envfile=/x": "--envfile is wrong; did you mean --env-file?",
    "--env-file": "--env-file is wrong; see --help",
    "--every=5d": "--every is wrong; see --help",
    "--every=0s": "--every is wrong; see --help",
    "--every=m": "--every is wrong; see --help",
    "--quux": "--quux is wrong; see --help",
}


@pytest.mark.parametrize("option", OPTIONS)
def test_a_wrong_option(option):
    """A wrong option is 64, and the nearest right one is named."""
    run = push(BASE, option)

    assert run.status == 64
    assert run.stderr.startswith(f"ecoflow-push: {OPTIONS[option]}")
    assert len(run.stderr.splitlines()) == 1


CONTENTS = {
    '"AK0123456789"': "quotes around it: leave them out of the file",
    "ECOFLOW_ACCESS_KEY=AK0123456789": "ECOFLOW_ACCESS_KEY= in it: let it hold the",
    "AK0123456789 AK0123456789": "expected ASCII characters without spaces",
}


@pytest.mark.parametrize("content", CONTENTS)
def test_a_secret_s_file_holds_more_than_the_secret(content, tmp_path):
    """What stands around a secret in its own file is one fault, too."""
    file = tmp_path / "key"
    file.write_text(content + "\n")
    environ = {**BASE, "ECOFLOW_ACCESS_KEY_FILE": str(file)}
    del environ["ECOFLOW_ACCESS_KEY"]

    run = push(environ)

    assert run.status == 78
    [line] = run.stderr.splitlines()
    assert CONTENTS[content] in line
    assert "; " not in line
    assert "AK0123456789" not in line


def test_quotes_around_a_password_in_a_file_are_its_own(tmp_path):
    """A password that has quotes around it can be given: from a file."""
    file = tmp_path / "password"
    file.write_text("'p'")
    given = {"PUSHGATEWAY_USERNAME": "u", "PUSHGATEWAY_PASSWORD_FILE": str(file)}

    run = push({**BASE, "STATE_DIR": str(tmp_path), **given})

    assert run.status == 69, run.stderr
