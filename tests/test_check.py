"""--check: the status is a run's, each step is asked, and nothing is left."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ecoflow_push import DOCS
from ecoflow_push.memory.lock import state_folder
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import (
    ACCESS_KEY,
    SECRET_KEY,
    SimulatedBroker,
    SimulatedDevice,
)
from ecoflow_push.simulator.devices import SimulatedDevices
from ecoflow_push.simulator.server import Answer, Handler
from tests.broker import BROKER_PASSWORD, BROKER_USER, mosquitto
from tests.check import (
    DRIVER,
    INSTANCE,
    LIST,
    NOWHERE,
    PASSWORD,
    another_region,
    assert_decent,
    check,
    push_in,
)
from tests.conftest import DELTA, OFFLINE, STREAM, World
from tests.planted import closed_spool, laid, with_broker
from tests.receiver import PATH, STALE
from tests.support import ROOT, eventually, free_port, push, push_anew
from tests.test_serials import lists

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
    lines = run.stdout.splitlines()[1:-1]
    found = [line.split(":")[0].split() for line in lines]
    steps = [each for each in found if each[0] not in ("set", "default")]
    assert [step for _, step in steps] == [
        *("settings", "state", "DNS", "TLS", "EcoFlow", "region", "credentials"),
        *("clock", "device", "textfile", "pushgateway", "remote-write", "spool"),
    ]
    assert {mark for mark, _ in steps} == {"ok"}


def test_nothing_is_left(environ, world):
    """Twice beside a job that runs: gateway, text file and state are what they were."""
    environ = all_sinks(environ, world)
    assert push_anew(environ).status == 0
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


ROOTS = "; the folder is new, and root's: "


def test_a_new_folder_of_root_is_told(environ, world):
    """Whether a job of another user can use it nobody sees before its first run."""
    if os.geteuid():
        pytest.skip("only root takes folders from others")
    cure = "check as the job's user, or let it own STATE_DIR (chown -R)"

    assert f"removed{ROOTS}{cure}\n" in check(environ).stdout
    environ["STATE_DIR"] += "-of-somebody"
    assert ROOTS not in check(environ, hardships=[("another_user", "65534")]).stdout
    environ["STATE_DIR"] += "-of-a-job"
    assert push(environ).status == 0
    adopt(environ, world)
    assert ROOTS not in check(environ).stdout


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
    world.receiver.fail(PATH, world.receiver.store_then_lose(), times=2)
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


def test_a_silent_handshake_ends_in_time(environ, world):
    """A server that never speaks TLS is wrong at the step TLS, and 75 as in a run."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environ["ECOFLOW_API_HOST"] = f"https://127.0.0.1:{silent.getsockname()[1]}"

        run = check({**environ, "RUN_DEADLINE": "2"})

    assert_decent(run)
    assert run.status == 75
    assert "wrong    TLS: " in run.stdout


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


def test_exchanged_keys_are_tried_at_ecoflows_own_hosts_alone(environ, world):
    """To another host the secret key never goes as an access key that it is not."""
    keys = {"ECOFLOW_ACCESS_KEY": "AKtypo", "ECOFLOW_SECRET_KEY": ACCESS_KEY}

    run = check({**environ, **keys})

    assert run.status == 77
    assert {each.headers["accesskey"] for each in world.cloud.received} == {"AKtypo"}


def test_a_wrong_clock_is_told_before_the_secret_is_doubted(environ, world):
    """The line on the clock comes first, and so it does in what a run says."""
    world.cloud.date_offset = 3600.0
    environ["ECOFLOW_SECRET_KEY"] = "SKwrong"

    run, ran = check(environ), push(environ)

    assert run.stdout.count("wrong    clock: ") == 1
    for said in (run.stdout, ran.stderr):
        assert 0 < said.index("set the clock") < said.index("check ECOFLOW_SECRET_KEY")


def test_each_of_two_accounts_is_asked(environ, world):
    """With keys that are refused, the app account's own answer is told as well."""
    settings = {**with_broker(world), "ECOFLOW_SOURCE": "auto"}
    environ |= settings | {"ECOFLOW_SECRET_KEY": "SKwrong"}

    run = check(environ)

    assert_decent(run)
    assert run.status == push(environ).status == 77
    assert "wrong    credentials: developer keys: " in run.stdout
    assert "ok       credentials: app account: accepted" in run.stdout
    assert run.stdout.count("ok       DNS: ") == 1


@pytest.mark.parametrize("way", ["list", "account", "fault"])
def test_the_serial_is_doubted_where_a_run_doubts_it(way, environ, world):
    """Not where another account lists the device, or where the request failed."""
    world.cloud.fail(LIST, lists(DELTA.sn))
    environ["ECOFLOW_DEVICE_SN"] = STREAM.sn
    if way == "account":
        asleep = SimulatedDevice(STREAM.sn, deaf_to=99)
        world.cloud.devices[:] = [DELTA, asleep]
        environ |= with_broker(world)
        environ |= {"ECOFLOW_SOURCE": "auto", "MQTT_TIMEOUT": "1"}
    if way == "fault":
        world.cloud.fail("quota", faults.status(500))

    run, ran = check(environ), push(environ)

    assert_decent(run)
    assert run.status == ran.status
    for said in (run.stdout, ran.stderr):
        assert ("not in this account's list" in said) == (way == "list")
        assert ("check ECOFLOW_DEVICE_SN" in said) == (way == "list")


REDIRECTED = {
    "EcoFlow": LIST,
    "pushgateway": "/metrics",
    "remote-write": PATH,
    "healthcheck": "/ping",
}


def test_a_redirect_of_the_monitor_does_not_tell_what_opens_it(environ, world):
    """Wherever in the path it now stands."""
    uuid = "0a1b2c3d-1111-2222-3333-444455556666"
    world.faulty.fail("", faults.redirect(f"https://hc.example/v2/{uuid}/log"))
    environ["HEALTHCHECK_URL"] = f"{world.faulty.url}/ping/{uuid}"

    run, ran = check(environ), push(environ)

    for said in (run.stdout, ran.stderr):
        assert "a redirect to https://hc.example/v2/***/log, not followed" in said
        assert uuid not in said


@pytest.mark.parametrize("instance", [INSTANCE, f"{INSTANCE}.example.com"])
@pytest.mark.parametrize("status", [301, 404])
def test_a_path_is_told_without_this_host_s_name(status, instance, environ, world):
    """As who redirects to https does, and who quotes what it does not know."""

    def quote(handler: Handler) -> None:
        path = handler.current.path
        place = f"https://gw.example{path}"
        handler.send(Answer(status, path.encode(), (("Location", place),)))

    world.faulty.fail("/metrics", quote)
    environ |= {"PUSHGATEWAY_URL": world.faulty.url, "PUSH_INSTANCE": instance}

    run = check(environ)

    assert_decent(run)
    assert "/metrics/job/ecoflow_check/instance/..." in run.stdout
    assert "base64" not in run.stdout


@pytest.mark.parametrize("step", REDIRECTED)
def test_a_redirect_is_told_with_where_it_leads(step, environ, world):
    """Scheme, host and path are; who asks and the query, which may open it, are not."""
    place = "https://me:w0rd@elsewhere.example:8443/a/b"
    for server in (world.cloud, world.faulty, world.receiver):
        server.fail(REDIRECTED[step], faults.redirect(f"{place}?key=0pen"))
    environ |= {
        "PUSHGATEWAY_URL": world.faulty.url,
        "REMOTE_WRITE_URL": world.receiver.write_url,
        "HEALTHCHECK_URL": f"{world.faulty.url}/ping",
    }

    run = check(environ)

    assert_decent(run, "w0rd", "0pen")
    (line,) = re.findall(f"^wrong    {step}: .*", run.stdout, re.MULTILINE)
    assert " a redirect to https://elsewhere.example:8443/a/b, not followed" in line


def test_no_cure_comes_from_a_servers_words(environ, world):
    """What a server quotes of somebody else's trouble does not blame our settings."""
    words = b"dial tcp 10.0.0.7:9091: connect: connection refused"
    world.faulty.fail("", faults.status(503, words))

    run = check({**environ, "PUSHGATEWAY_URL": world.faulty.url})

    (line,) = re.findall("^wrong    pushgateway: .*", run.stdout, re.MULTILINE)
    assert line.endswith("connection refused: wait, the fault is on its side")


def test_what_a_spool_cannot_take_is_told_as_by_a_run(environ, world):
    """Without a spool, what a receiver does not take is lost: 74 instead of 75."""
    environ, _ = laid({**environ, "ESTABLISH_ATTEMPTS": "1"}, closed_spool(world))
    world.receiver.fail(PATH, faults.status(503))
    hardships = [("ordinary", "")]

    run = check(environ, hardships=hardships)

    assert "wrong    spool: nothing can be stored" in run.stdout
    assert run.status == push_in(environ, hardships) == 74


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


@pytest.mark.case("K9")
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
    assert run.status == push(environ).status == 69
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
        "the proxy 127.0.0.1:1: connection refused: check that it runs, and the host"
        " and port in HTTPS_PROXY" in run.stdout
    )


def test_every_fault_of_the_settings_has_its_line(environ):
    """Each fault stands on a line of its own, semicolons in it or not, and it is 78."""
    del environ["ECOFLOW_SECRET_KEY"]
    environ |= {"ECOFLOW_DEVICE_NAME": "Garage", "RUN_DEADLINE": "soon"}

    run = check(environ)

    assert_decent(run)
    assert run.status == 78
    lines = [line for line in run.stdout.splitlines() if line.startswith("wrong")]
    assert len(lines) == run.stdout.count(f"see {DOCS}/settings.md") == 3
    assert [line for line in lines if "; else give SN=name" in line]


def test_a_ca_file_that_is_none_is_78(environ, world):
    """A bundle that cannot be used is a fault of the settings, with its cure."""
    bundle = world.folder / "ca.pem"
    bundle.write_text("not PEM")

    host = "https://localhost:1"
    settings = {"ECOFLOW_API_HOST": host, "ECOFLOW_CA_FILE": str(bundle)}
    run = check({**environ, **settings})

    assert_decent(run)
    assert run.status == 78
    assert "settings: ECOFLOW_CA_FILE: not a CA bundle" in run.stdout


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
    assert "warning  device: BK11…0002" in run.stdout
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
    code = f"import sys; sys.stdout.close()\n{DRIVER.read_text()}"
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


def test_the_demo_needs_no_sink():
    """It would print, and so the check of it ends with 0."""
    run = push({}, "--demo", "--check")

    assert_decent(run)
    assert run.status == 0
    assert "wrong" not in run.stdout


def test_an_exporter_is_checked_as_it_is_run(environ, pushgateway):
    """With --every its port is a sink, as it is for a run."""
    del environ["PUSHGATEWAY_URL"]
    port = free_port()

    run = push({**environ, "EXPORTER_PORT": str(port)}, "--check", "--every", "60")

    assert_decent(run)
    assert run.status == 0
    assert f"ok       exporter: listens on port {port}\n" in run.stdout


def test_what_kubernetes_says_of_a_service_is_no_port(environ):
    """A Service that is called exporter sets a variable that is no setting then."""
    link = {"EXPORTER_PORT": "tcp://10.0.0.1:9100", "EXPORTER_SERVICE_HOST": "10.0.0.1"}

    run = push({**environ, **link})

    assert (run.status, "EXPORTER" in run.stderr) == (0, False)


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_text_file_that_is_kept_by_the_sticky_bit(mode, environ, tmp_path):
    """The trial of its folder goes well, and another user's run cannot replace it."""
    folder = tmp_path / "collected"
    folder.mkdir()
    folder.chmod(mode)
    theirs = folder / "ecoflow.prom"
    theirs.touch()
    del environ["PUSHGATEWAY_URL"]
    environ["TEXTFILE_PATH"] = str(theirs)
    somebody = [("another_user", "65534")]

    run = check(environ, hardships=somebody)

    assert_decent(run)
    assert run.status == (74 if mode & 0o1000 else 0)
    cure = "remove the file of TEXTFILE_PATH, or run as its owner"
    assert (cure in run.stdout) == bool(mode & 0o1000)
    theirs.unlink()
    assert check(environ, hardships=somebody).status == 0


@pytest.mark.parametrize(
    "name",
    [
        *("x" * (length - 5) for length in (250, 251, 255, 256)),
        # In bytes and in letters there is a difference.
        "\u96fb" * 83,
        "\u96fb" * 84,
    ],
    ids=len,
)
def test_a_long_name_is_tried_as_it_is_written(name, environ, tmp_path):
    """A run writes a text file of any name that the disk takes, and the check knows."""
    del environ["PUSHGATEWAY_URL"]
    path = tmp_path / "collected" / f"{name}.prom"
    path.parent.mkdir()
    environ["TEXTFILE_PATH"] = str(path)
    fits = len(os.fsencode(path.name)) <= 255

    run = check(environ)

    assert_decent(run)
    assert list(path.parent.iterdir()) == []
    assert run.status == push(environ).status == (0 if fits else 74)
    assert ("let TEXTFILE_PATH be shorter" in run.stdout) != fits
    assert list(path.parent.iterdir()) == ([path] if fits else [])


@pytest.mark.parametrize("room", [30, 50, 100])
def test_a_state_folder_far_down_is_tried_as_it_is_written(room, environ, world):
    """Where the names of a spool are too long for the system, the check says so."""
    inside = "/0123456789ab"
    parts = "/".join(["y" * 200] * 25)
    left = 4095 - room - len(inside) - len(environ["STATE_DIR"]) - 1
    deep = f"{environ['STATE_DIR']}/{parts[:left].rstrip('/')}"
    environ = {**environ, "REMOTE_WRITE_URL": world.receiver.write_url}
    environ["STATE_DIR"] = deep + "z" * (left - len(parts[:left].rstrip("/")))
    del environ["PUSHGATEWAY_URL"]

    run = check(environ)

    assert_decent(run)
    done = push(environ)
    assert ("wrong    spool: " in run.stdout) == ("cannot write" in done.stderr)
