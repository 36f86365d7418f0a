"""--check: each finding has its cure, the status is a run's, and nothing is left."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from ecoflow_push import __version__
from ecoflow_push.api.rest import ADVICE
from ecoflow_push.memory.state import state_folder
from ecoflow_push.run.check import CURES, KEYS_CURE, OTHER_CURE
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import (
    ACCESS_KEY,
    ACCOUNT_PASSWORD,
    ACCOUNT_USER,
    SECRET_KEY,
    TOKEN,
    SimulatedBroker,
    SimulatedCloud,
    SimulatedDevice,
)
from ecoflow_push.simulator.devices import SimulatedDevices
from ecoflow_push.simulator.server import Answer, Fault, Handler, RecordingServer
from tests.broker import BROKER_PASSWORD, BROKER_USER, mosquitto
from tests.conftest import DELTA, OFFLINE, STREAM
from tests.receiver import PATH, STALE, Receiver
from tests.support import ROOT, Gateway, Run, eventually, push
from tests.test_docs import table_rows
from tests.test_faults import CLOUD_FAULTS, SINK_FAULTS

LIST = "device/list"
PASSWORD = "s3cret-of-the-gateway"
SECRETS = (ACCESS_KEY, SECRET_KEY, ACCOUNT_PASSWORD, ACCOUNT_USER, TOKEN, PASSWORD)
INSTANCE = "a-host-with-a-name"
LINE = re.compile(r"(ok|wrong|unknown) +[\w -]+: .+")
# What push.py does with the option, the regions being the arguments.
DRIVER = """
import os, sys
from ecoflow_push import logs
from ecoflow_push.run.check import REGIONS, create_check, show_faults
from ecoflow_push.errors import EcoflowPushError, SettingsError
from ecoflow_push.config.settings import Settings
from ecoflow_push.memory.state import State, state_folder
regions = sys.argv[1:] or REGIONS
logs.configure("DEBUG", "text", ())
try:
    settings = Settings.from_environ(os.environ, needs_sink=False)
    logs.configure("DEBUG", "text", settings.secrets())
    folder = state_folder(settings.state_dir, settings.api_url, "x", settings.job)
    with State.open(folder) as state:
        status = create_check(settings, state, folder, [], regions).run()
except SettingsError as exc:
    status = show_faults(exc)
except EcoflowPushError as exc:
    sys.stderr.write(f"{exc}\\n")
    status = exc.status
sys.stderr.flush()
os._exit(status)
"""


class World(NamedTuple):
    """What a finding may need."""

    cloud: SimulatedCloud
    gateway: Gateway
    #: A server that answers 200 to everything, until it is told to fail.
    faulty: RecordingServer
    #: A server of a certificate that nobody trusts.
    untrusted: RecordingServer
    receiver: Receiver
    folder: Path
    stack: ExitStack


#: Brings a finding about, and returns the settings that it needs; None takes one away.
Setup = Callable[[World], Mapping[str, str | None]]


@pytest.fixture
def world(cloud, pushgateway, server_tls, tmp_path) -> Iterator[World]:
    with ExitStack() as stack:
        faulty = stack.enter_context(RecordingServer())
        untrusted = stack.enter_context(RecordingServer(server_tls))
        receiver = stack.enter_context(Receiver())
        yield World(cloud, pushgateway, faulty, untrusted, receiver, tmp_path, stack)


def check(environ: Mapping[str, str], *regions: str) -> Run:
    """Run the check as push.py would, with all that can be logged."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *regions],
        env={
            "PATH": os.defpath,
            "HOME": "/nonexistent",
            "PYTHONPATH": str(ROOT),
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr, time.monotonic() - began)


def assert_decent(run: Run, *serials: str) -> None:
    """Every line has its form, and nothing says what nobody may know."""
    head, *lines = run.stdout.splitlines()
    assert head.startswith(f"ecoflow-push {__version__}, Python 3.")
    assert re.fullmatch(rf"a run would exit {run.status} [A-Z]+", lines.pop())
    assert lines
    for line in lines:
        assert LINE.fullmatch(line), line
    said = run.stdout + run.stderr
    assert "Traceback" not in said
    private = (*SECRETS, DELTA.sn, STREAM.sn, OFFLINE.sn, *serials, INSTANCE)
    for secret in (*private, os.uname().nodename):
        assert secret not in said, secret


# -- findings -----------------------------------------------------------------------


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


def another_region(world: World) -> Mapping[str, str | None]:
    other = SimulatedCloud([DELTA], access_key="AKother0000000000000000000000009")
    url = world.stack.enter_context(other).url
    return {"ECOFLOW_API_HOST": url, "regions": f"{url} {world.cloud.url}"}


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


def textfile(*path: str) -> Setup:
    def setup(world: World) -> Mapping[str, str | None]:
        return {
            "TEXTFILE_PATH": str(world.folder.joinpath(*path)),
            "PUSHGATEWAY_URL": None,
        }

    return setup


def fifo(world: World) -> Mapping[str, str | None]:
    os.mkfifo(world.folder / "fifo")
    return textfile("fifo")(world)


NOWHERE = "http://127.0.0.1:1"
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
    run = check(environ, *regions)

    assert_decent(run)
    trouble = [line for line in run.stdout.splitlines() if line[:2] in ("wr", "un")]
    assert [line for line in trouble if cure_of(finding) in line], run.stdout
    assert run.took < float(environ.get("RUN_DEADLINE", "10")) + 2
    # A gateway answers before it has deleted.
    assert eventually(lambda: not world.gateway.groups()), world.gateway.groups()
    if finding not in NO_RUN:
        assert push(environ).status == run.status, run.stdout


def test_every_code_is_documented():
    """Each code of EcoFlow's that a quota request can meet stands in the table."""
    rows = [row[0] for row in table_rows("check.md")]

    for code in ADVICE.keys() - {"6012"}:
        assert any(row.startswith(code) for row in rows), code


def test_every_cure_is_for_words_that_are_said():
    """No cure hides behind one before it, and each is for words of our errors."""
    sources = [*(ROOT / "ecoflow_push").rglob("*.py")]
    said = "".join(path.read_text() for path in sources if path.name != "check.py")
    said = re.sub(r'"\s+f?"', "", said)  # as the compiler joins them
    for place, (words, _) in enumerate(CURES):
        assert not [earlier for earlier, _ in CURES[:place] if earlier in words]
        assert words in said or words.startswith("HTTP "), words


@pytest.mark.parametrize("fault", CLOUD_FAULTS)
def test_a_fault_of_the_cloud_has_a_cure(fault, environ, cloud):
    """Whatever EcoFlow answers, a line says wrong and ends in one cure, as in a run."""
    cloud.fail(LIST, CLOUD_FAULTS[fault][0])

    run = check({**environ, "RUN_DEADLINE": "2"}, cloud.url)

    assert_decent(run)
    assert run.status == CLOUD_FAULTS[fault][1]
    wrong = [line for line in run.stdout.splitlines() if line.startswith("wrong")]
    assert len(wrong) == 1
    cures = [cure.partition("{")[0] for _, cure in CURES] + [KEYS_CURE, OTHER_CURE]
    own = ["check ", *(advice.partition("{")[0] for _, advice in ADVICE.values())]
    assert [cure for cure in cures + own if cure in wrong[0]], wrong
    assert "ok       pushgateway: " in run.stdout
    assert run.took < 4


@pytest.mark.parametrize("fault", SINK_FAULTS)
def test_a_fault_of_the_gateway_has_a_cure(fault, environ, world):
    """Whatever a gateway answers, the status is a run's, and the deadline holds."""
    world.faulty.fail("", SINK_FAULTS[fault][0])

    run = check({**environ, "PUSHGATEWAY_URL": world.faulty.url, "RUN_DEADLINE": "2"})

    assert_decent(run)
    assert run.status == SINK_FAULTS[fault][1]
    assert run.took < 4


# -- in good health -----------------------------------------------------------------


def all_sinks(environ: Mapping[str, str], world: World) -> dict[str, str]:
    return {
        **environ,
        "PUSH_INSTANCE": INSTANCE,
        "REMOTE_WRITE_URL": world.receiver.write_url,
        "TEXTFILE_PATH": str(world.folder / "ecoflow.prom"),
    }


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def adopt(environ: dict[str, str], world: World) -> tuple[Path, Path]:
    """Give the check's driver the state that push.py left; return both folders."""
    (state,) = world.folder.rglob("state.json")
    folder = Path(state_folder(environ["STATE_DIR"], world.cloud.url, "x", "ecoflow"))
    return state.parent, state.parent.rename(folder)


def test_in_good_health_all_is_ok(environ, world):
    """A healthy job gets nothing but ok, 0, and not a word on stderr."""
    run = check(all_sinks(environ, world))

    assert_decent(run)
    assert (run.status, run.stderr) == (0, "")
    steps = [line.split(":")[0].split() for line in run.stdout.splitlines()[1:-1]]
    assert [step for _, step in steps] == [
        *("settings", "DNS", "TLS", "EcoFlow", "clock", "region", "credentials"),
        *("device", "pushgateway", "remote-write", "textfile"),
    ]
    assert {mark for mark, _ in steps} == {"ok"}


def test_nothing_is_left(environ, world):
    """Twice beside a job that runs: gateway, text file and state are what they were."""
    environ = all_sinks(environ, world)
    assert push(environ).status == 0
    groups, series = world.gateway.groups(), world.gateway.series()
    before = files(world.folder)

    for _ in range(2):
        assert check(environ).status == 0

    # A gateway answers before it has deleted.
    assert eventually(lambda: world.gateway.groups() == groups)
    assert world.gateway.series() == series
    assert files(world.folder) == before
    assert world.receiver.outrages == []
    tests = {
        dict(labels)["__name__"]: points
        for labels, points in world.receiver.stored.items()
        if dict(labels)["job"] == "ecoflow_check"
    }
    (points,) = tests.values()
    assert [bits == STALE for _, bits in points] == [False, True, False, True]
    assert push(environ).status == 0


@pytest.mark.parametrize("version", ["1", "2", "auto"])
def test_every_version_is_tried_as_a_run_would(version, environ, world):
    """A receiver of 1.0 alone is found to be one, and only auto copes with it."""
    world.receiver.speaks = "1"
    environ = all_sinks(environ, world) | {"REMOTE_WRITE_VERSION": version}

    run = check(environ)

    assert_decent(run)
    assert run.status == (1 if version == "2" else 0)
    assert ("set REMOTE_WRITE_VERSION to 1 or auto" in run.stdout) == (version == "2")


def test_a_push_whose_answer_is_lost_leaves_nothing(environ, world):
    """A receiver that stores and hangs up gets the marker all the same."""
    world.receiver.fail(PATH, world.receiver.store_then_lose(), times=1)
    environ = {**all_sinks(environ, world), "ESTABLISH_ATTEMPTS": "1"}

    run = check(environ)

    assert run.status == 75
    (points,) = world.receiver.stored.values()
    assert points[-1][1] == STALE


def test_a_hanging_world_ends_in_time(environ, world):
    """With all servers hanging at once, the deadline holds and each has its line."""
    for server in (world.cloud, world.faulty, world.receiver):
        server.fail("", faults.hang())
    environ = all_sinks(environ, world) | {"PUSHGATEWAY_URL": world.faulty.url}

    run = check({**environ, "RUN_DEADLINE": "3"})

    assert_decent(run)
    assert run.status == 75
    assert run.stdout.count("in time") == 3
    assert run.took < 4.5


def test_a_silent_handshake_ends_in_time(environ, world):
    """A server that never speaks TLS is wrong at the step TLS, and 75 as in a run."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environ["ECOFLOW_API_HOST"] = f"https://127.0.0.1:{silent.getsockname()[1]}"

        run = check({**environ, "RUN_DEADLINE": "2"})

    assert_decent(run)
    assert run.status == 75
    assert "wrong    TLS: " in run.stdout
    assert run.took < 3.5


# -- EcoFlow ------------------------------------------------------------------------


def test_the_other_region_is_named(environ, world):
    """The host that knows the key is named, and the credentials are accepted there."""
    changes = another_region(world)

    run = check(
        environ | {"ECOFLOW_API_HOST": changes["ECOFLOW_API_HOST"]},
        *(changes["regions"] or "").split(),
    )

    assert run.status == 77
    home = world.cloud.url.partition("://")[2]
    assert f": set ECOFLOW_API_HOST={home}\n" in run.stdout
    assert f"ok       credentials: accepted by {home}" in run.stdout


def test_a_wrong_signature_elsewhere_names_the_region_too(environ, world):
    """A host that refuses but the signature knows the key: both are named."""
    changes = another_region(world)
    environ |= {
        "ECOFLOW_API_HOST": changes["ECOFLOW_API_HOST"],
        "ECOFLOW_SECRET_KEY": "SKwrong",
    }

    run = check(environ, *(changes["regions"] or "").split())

    assert "wrong    region: " in run.stdout
    assert re.search(r"wrong    credentials: .*check ECOFLOW_SECRET_KEY", run.stdout)


def test_a_host_of_ones_own_is_not_left(environ, world):
    """A key that a host outside the regions refuses is shown to no other host."""
    changes = another_region(world)
    environ["ECOFLOW_API_HOST"] = changes["ECOFLOW_API_HOST"]

    run = check(environ, world.cloud.url)

    assert run.status == 77
    assert world.cloud.received == []
    assert "wrong    credentials: " in run.stdout


def test_a_pause_that_was_asked_for_is_kept(environ, world):
    """Between a run's 429 and the end of its pause, the check does not ask either."""
    world.cloud.fail(LIST, faults.status(429, Retry_After="600"), times=1)
    assert push(environ).status == 75
    asked = len(world.cloud.received)
    adopt(environ, world)

    run = check(environ)

    assert_decent(run)
    assert run.status == 75
    assert "asked us to wait" in run.stdout
    assert len(world.cloud.received) == asked


def test_without_a_sink_it_is_78_as_a_run_is(environ, world):
    """All the rest is checked, and the end is what a run's would be."""
    del environ["PUSHGATEWAY_URL"]

    run = check(environ)

    assert_decent(run)
    assert run.status == push(environ).status == 78
    assert "wrong    sinks: none is set" in run.stdout
    assert "ok       credentials" in run.stdout


def test_a_receivers_pause_is_kept(environ, world):
    """Between a receiver's 429 and the end of its pause, the check sends nothing."""
    environ |= {"REMOTE_WRITE_URL": world.receiver.write_url}
    world.receiver.fail("", faults.status(429, Retry_After="600"))
    assert push(environ).status == 75
    asked = len(world.receiver.received)
    adopt(environ, world)

    run = check(environ)

    assert_decent(run)
    assert "asked to wait" in run.stdout
    assert len(world.receiver.received) == asked


def test_keys_that_are_accepted_again_are_used_by_the_next_run(environ, world):
    """After a check that found resting keys accepted, a run does not rest."""
    world.cloud.fail(LIST, faults.code("8521", "sign is wrong"))
    for _ in range(10):
        assert push(environ).status == 77
    world.cloud.heal()
    asked = len(world.cloud.received)
    assert push(environ).status == 77
    assert len(world.cloud.received) == asked
    own, folder = adopt(environ, world)

    run = check(environ)
    folder.rename(own)

    assert "credentials: accepted, again" in run.stdout
    assert push(environ).status == 0


def test_servers_cannot_make_us_tell(environ, world):
    """Secrets, serials and lines that a server's words hold do not come out."""
    words = f"{SECRET_KEY} {DELTA.sn}\n\x1b[31m ok: all is well {PASSWORD}"
    world.cloud.fail("quota/all", faults.code("4711", words))
    world.faulty.fail("", faults.status(400, words.encode()))
    environ |= {
        "PUSHGATEWAY_URL": world.faulty.url,
        "PUSHGATEWAY_USERNAME": "user",
        "PUSHGATEWAY_PASSWORD": PASSWORD,
        "PUSH_INSTANCE": INSTANCE,
    }

    run = check(environ)

    assert_decent(run)
    assert run.status == push(environ).status == 76
    assert "***" in run.stdout


def test_a_proxy_that_is_down(environ, world):
    """Behind a proxy that does not answer, the proxy is what is to be looked at."""
    environ |= {
        "ECOFLOW_API_HOST": "api.ecoflow.invalid",
        "HTTPS_PROXY": NOWHERE,
    }

    run = check(environ)

    assert_decent(run)
    assert run.status == push(environ).status == 69
    assert (
        "connection refused: check that it runs, and the host and port in HTTPS_PROXY"
        in run.stdout
    )


def test_every_fault_of_the_settings_has_its_line(environ):
    """Each fault stands on a line of its own, semicolons in it or not, and it is 78."""
    del environ["ECOFLOW_SECRET_KEY"]
    environ |= {"ECOFLOW_DEVICE_NAME": "Garage", "RUN_DEADLINE": "soon"}

    run = check(environ)

    assert_decent(run)
    assert run.status == 78
    lines = [line for line in run.stdout.splitlines() if line.startswith("wrong")]
    assert len(lines) == run.stdout.count("see docs/settings.md") + 1 == 4
    assert [line for line in lines if "; else give SN=name" in line]


def test_a_ca_file_that_is_none_is_78(environ, world):
    """A bundle that cannot be used is a fault of the settings, with its cure."""
    bundle = world.folder / "ca.pem"
    bundle.write_text("not PEM")

    run = check({**environ, "ECOFLOW_CA_FILE": str(bundle)})

    assert_decent(run)
    assert run.status == 78
    assert "not a CA bundle" in run.stdout


def test_how_each_device_can_be_read(environ, world):
    """Each device has its line; one that is closed or off does not make it fail."""
    closed = SimulatedDevice(STREAM.sn, code="1006")
    silent = SimulatedDevice("BKA1ZFAKE0000009", None)
    world.cloud.devices[:] = [DELTA, closed, OFFLINE, silent]

    run = check(environ)

    assert_decent(run, silent.sn)
    assert run.status == push(environ).status == 0
    assert (
        "ok       device: R331…0001 (DELTA 2), read by developer keys, 3" in run.stdout
    )
    assert "Garage" not in run.stdout
    assert "wrong    device: BK11…0002" in run.stdout
    assert "unknown  device: R601…0003" in run.stdout
    assert "developer keys, no data" in run.stdout


def test_the_app_account(environ, world, authority, ca_file):
    """With the app account login, broker and devices are gone through, then cached."""
    keys = {k: v for k, v in environ.items() if not k.startswith("ECOFLOW_")}
    environ = {**keys, **world.cloud.account_environ(), "ECOFLOW_CA_FILE": ca_file}
    broker = world.stack.enter_context(mosquitto(world.folder / "broker", authority))
    place = ("localhost", broker.port)
    world.cloud.broker = SimulatedBroker(*place, BROKER_USER, BROKER_PASSWORD)
    tls = ssl.create_default_context(cafile=ca_file)
    fleet = SimulatedDevices(
        world.cloud.devices, *place, username="sim", password="sim", tls=tls
    )
    with fleet:
        runs = [check(environ), check(environ)]

    for run in runs:
        assert_decent(run)
        assert BROKER_PASSWORD not in run.stdout + run.stderr
        assert run.status == 0
        assert "read by app account, 3 values" in run.stdout
    assert "ok       clock" in runs[0].stdout
    assert "unknown  clock" in runs[1].stdout
    logins = [each for each in world.cloud.received if each.path == "/auth/login"]
    assert len(logins) == 1


def test_nobody_to_read_it(environ):
    """With stdout closed the check ends in 74, with one line and no traceback."""
    code = f"import sys; sys.stdout.close()\n{DRIVER}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 74
    assert done.stderr.splitlines() == ["stdout: cannot be written"]
