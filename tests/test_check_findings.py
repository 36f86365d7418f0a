"""--check: each finding, and each fault that is known, has its cure."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import pytest

from ecoflow_push.api.envelope import DEVELOPER
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import (
    SimulatedDevice,
)
from ecoflow_push.simulator.server import Answer, Fault, Handler
from tests.check import (
    INSTANCE,
    LIST,
    NOWHERE,
    Setup,
    another_region,
    assert_decent,
    check,
    textfile,
)
from tests.conftest import DELTA, OFFLINE, World
from tests.receiver import PATH
from tests.support import ROOT, eventually, push
from tests.test_docs import table_rows
from tests.test_faults import CLOUD_FAULTS, SINK_FAULTS

# What a cure begins with.
VERBS = (
    "ask",
    "check",
    "give",
    "keep",
    "let",
    "look",
    "raise",
    "set",
    "switch",
    "the",
    "try",
    "use",
    "wait",
    "wake",
)


def cloud_fails(fault: Fault) -> Setup:
    def setup(world: World) -> Mapping[str, str | None]:
        world.cloud.fail(LIST, fault)
        return {}

    return setup


def device_answers(code: str) -> Setup:
    def setup(world: World) -> Mapping[str, str | None]:
        world.cloud.devices[:] = [SimulatedDevice(DELTA.sn, code=code)]
        return {}

    return setup


def gateway_fails(fault: Fault, part: str = "") -> Setup:
    def setup(world: World) -> Mapping[str, str | None]:
        world.faulty.fail(part, fault)
        return {"PUSHGATEWAY_URL": world.faulty.url}

    return setup


def receiver_fails(fault: Fault) -> Setup:
    def setup(world: World) -> Mapping[str, str | None]:
        world.receiver.fail(PATH, fault)
        return only_receiver(world.receiver.write_url)

    return setup


def only_receiver(url: str) -> dict[str, str | None]:
    return {"PUSHGATEWAY_URL": None, "REMOTE_WRITE_URL": url}


def with_settings(**settings: str | None) -> Setup:
    return lambda _: settings


def unknown_everywhere(world: World) -> Mapping[str, str | None]:
    world.cloud.fail(LIST, faults.code("8513", "accessKey is invalid"))
    return another_region(world)


def wrong_clock(world: World) -> Mapping[str, str | None]:
    world.cloud.date_offset = 3600.0
    return only_receiver(world.receiver.write_url)


def both_wrong(world: World) -> Mapping[str, str | None]:
    world.cloud.date_offset = 3600.0
    return {"ECOFLOW_SECRET_KEY": "SKwrong"}


def account(**settings: str) -> Setup:
    def setup(world: World) -> Mapping[str, str | None]:
        keys = {"ECOFLOW_ACCESS_KEY": None, "ECOFLOW_SECRET_KEY": None}
        return {**keys, **world.cloud.account_environ(), **settings}

    return setup


def devices(*fleet: SimulatedDevice) -> Setup:
    def setup(world: World) -> Mapping[str, str | None]:
        world.cloud.devices[:] = fleet
        return {}

    return setup


def blocked_state(world: World) -> Mapping[str, str | None]:
    (world.folder / "file").write_text("")
    return {"STATE_DIR": str(world.folder / "file" / "state")}


def only_put(handler: Handler) -> None:
    """Take a push, refuse the rest."""
    handler.send(Answer(200 if handler.current.method == "PUT" else 405))


def fifo(world: World) -> Mapping[str, str | None]:
    os.mkfifo(world.folder / "fifo.prom")
    return textfile("fifo.prom")(world)


NAMELESS = "http://sink.invalid:9091"
HANG: dict[str, str | None] = {"RUN_DEADLINE": "2"}


def slow(setup: Setup) -> Setup:
    return lambda world: {**setup(world), **HANG}


# Each row of the table in docs/check.md, and how it comes about.
FINDINGS: dict[str, Setup] = {
    "the settings have a fault": with_settings(COLLECTING_INTERVAL="soon"),
    "no sink is set": with_settings(PUSHGATEWAY_URL=None),
    "the state folder cannot be used": blocked_state,
    "EcoFlow's name does not resolve": with_settings(
        ECOFLOW_API_HOST="api.ecoflow.invalid"
    ),
    "EcoFlow's host refuses the connection": with_settings(ECOFLOW_API_HOST=NOWHERE),
    "EcoFlow's certificate is not trusted": lambda world: {
        "ECOFLOW_API_HOST": world.untrusted.url
    },
    "EcoFlow does not answer in time": slow(cloud_fails(faults.hang())),
    "EcoFlow's host answers with a web page": cloud_fails(faults.page()),
    "EcoFlow's host redirects": cloud_fails(faults.redirect(NOWHERE)),
    "HTTP 5xx from EcoFlow": cloud_fails(faults.status(503)),
    "HTTP 429 from EcoFlow": cloud_fails(faults.status(429)),
    "HTTP 401 from EcoFlow": cloud_fails(faults.status(401)),
    "HTTP 403 from EcoFlow": cloud_fails(faults.status(403)),
    "Server is too busy": cloud_fails(faults.code("9", "Server is too busy")),
    "the clock is wrong": wrong_clock,
    "8513 accessKey is invalid, the key belongs to another region": another_region,
    "8513 accessKey is invalid, in every region": unknown_everywhere,
    "8521 signature is wrong": with_settings(ECOFLOW_SECRET_KEY="SKwrong"),
    "8521 signature is wrong, with a wrong clock": both_wrong,
    "a code that means refused credentials": cloud_fails(faults.code("7005", "no")),
    "a code that nobody knows": cloud_fails(faults.code("4711", "never seen")),
    "the app account was refused": account(ECOFLOW_ACCOUNT_PASSWORD="wr0ng-pass"),
    "EcoFlow lists no device": devices(),
    "a device is offline": devices(OFFLINE),
    "1006 not allowed: the device is not open to keys": device_answers("1006"),
    "8512 no permission": device_answers("8512"),
    "1008 check your params": device_answers("1008"),
    "the Pushgateway is down": with_settings(PUSHGATEWAY_URL=NOWHERE),
    "the Pushgateway's name does not resolve": with_settings(PUSHGATEWAY_URL=NAMELESS),
    "the Pushgateway's certificate is not trusted": lambda world: {
        "PUSHGATEWAY_URL": world.untrusted.url
    },
    "the Pushgateway does not speak TLS": lambda world: {
        "PUSHGATEWAY_URL": world.faulty.url.replace("http:", "https:")
    },
    "the Pushgateway answers 401": gateway_fails(faults.status(401)),
    "the Pushgateway redirects": gateway_fails(faults.redirect(NOWHERE)),
    "the Pushgateway answers 400": gateway_fails(faults.status(400, b"not so")),
    "the Pushgateway answers 404": gateway_fails(faults.status(404)),
    "the Pushgateway answers 5xx": gateway_fails(faults.status(503)),
    "the Pushgateway is a web page": gateway_fails(faults.page()),
    "the Pushgateway hangs": slow(gateway_fails(faults.hang())),
    "the Pushgateway's test cannot be read back": gateway_fails(
        faults.body(b'{"data": []}'), "/api/v1/metrics"
    ),
    "the Pushgateway's test cannot be deleted": gateway_fails(only_put),
    "the receiver is down": lambda _: only_receiver(NOWHERE),
    "the receiver's name does not resolve": lambda _: only_receiver(NAMELESS),
    "the receiver's certificate is not trusted": lambda world: only_receiver(
        world.untrusted.url
    ),
    "the receiver answers 401": receiver_fails(faults.status(401)),
    "the receiver redirects": receiver_fails(faults.redirect(NOWHERE)),
    "the receiver answers 400": receiver_fails(faults.status(400, b"not so")),
    "the receiver answers 404: remote-write is switched off there": receiver_fails(
        faults.status(404, b"receiver is not enabled")
    ),
    "the receiver answers 5xx": receiver_fails(faults.status(503)),
    "the receiver is a web page": receiver_fails(faults.page()),
    "the receiver hangs": slow(receiver_fails(faults.hang())),
    "the text file's folder cannot be written": textfile("missing", "ecoflow.prom"),
    "the text file is something else": fifo,
}
# Without a sink there is a check, but no run.
NO_RUN = {"no sink is set"}


def cure_of(finding: str) -> str:
    ((_, cure),) = [row for row in table_rows("check.md") if row[0] == finding]
    return cure.replace("`", "")


def test_every_finding_is_documented_once():
    """docs/check.md has exactly the findings that are brought about here, in order."""
    rows = [row[0] for row in table_rows("check.md") if row[0] != "finding"]

    assert rows == list(FINDINGS)


def test_the_example_is_what_is_printed(environ, world):
    """The example in docs/check.md is a real output but for hosts and versions."""
    text = (ROOT / "docs" / "check.md").read_text()
    example = text.split("```text\n$ push.py --check\n")[1].split("\n```")[0]
    changes = another_region(world)
    here, home = (changes["regions"] or "").split()
    environ |= {"ECOFLOW_API_HOST": here}
    environ |= {"TEXTFILE_PATH": str(world.folder / "ecoflow.prom")}

    run = check(environ, here, home)

    said = run.stdout.replace(here.partition("//")[2], "api.ecoflow.com")
    said = said.replace(home.partition("//")[2], "api-e.ecoflow.com")
    said = said.replace("not used, plain http", "a trusted certificate")
    said = re.sub(r"[+-]\d s", "+0 s", said)
    assert said.splitlines()[1:] == example.splitlines()[1:]


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_has_its_cure(finding, environ, world):
    """One line ends in the documented cure, in time, with the status of a run."""
    changes = {**environ, "PUSH_INSTANCE": INSTANCE, **FINDINGS[finding](world)}
    regions = (changes.pop("regions", None) or "").split()
    environ = {name: value for name, value in changes.items() if value is not None}
    environ.setdefault("RUN_DEADLINE", "10")
    run = check(environ, *regions)

    assert_decent(run)
    trouble = [line for line in run.stdout.splitlines() if line[:2] in ("wr", "un")]
    assert [line for line in trouble if cure_of(finding) in line], run.stdout
    # A gateway answers before it has deleted.
    assert eventually(lambda: not world.gateway.groups()), world.gateway.groups()
    if finding not in NO_RUN:
        assert push(environ).status == run.status, run.stdout


def test_every_code_is_documented():
    """Each code of EcoFlow's that a quota request can meet stands in the table."""
    rows = [row[0] for row in table_rows("check.md")]
    codes = {key for key in DEVELOPER if len(key) == 4 and key.isdecimal()}

    for code in codes - {"6012", "6042", "7005", "7015"}:
        assert any(row.startswith(code) for row in rows), code


@pytest.mark.parametrize("fault", CLOUD_FAULTS)
def test_a_fault_of_the_cloud_has_a_cure(fault, environ, cloud):
    """Whatever EcoFlow answers, a line says wrong and ends in one cure, as in a run."""
    cloud.fail(LIST, CLOUD_FAULTS[fault][0])

    run = check({**environ, "RUN_DEADLINE": "2"}, cloud.url)

    assert_decent(run)
    assert run.status == CLOUD_FAULTS[fault][1]
    wrong = [line for line in run.stdout.splitlines() if line.startswith("wrong")]
    assert len(wrong) == 1
    assert wrong[0].rpartition(": ")[2].startswith(VERBS), wrong
    assert "ok       pushgateway: " in run.stdout


@pytest.mark.parametrize("fault", SINK_FAULTS)
def test_a_fault_of_the_gateway_has_a_cure(fault, environ, world):
    """Whatever a gateway answers, the status is a run's, and the deadline holds."""
    world.faulty.fail("", SINK_FAULTS[fault][0])

    run = check({**environ, "PUSHGATEWAY_URL": world.faulty.url, "RUN_DEADLINE": "2"})

    assert_decent(run)
    assert run.status == SINK_FAULTS[fault][1]
