"""--check of set-ups that are well: each ends with 0, and has nothing wrong in it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from ecoflow_push.config.environ import Reader
from ecoflow_push.run.effective import effective
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SECRET_KEY, SimulatedDevice
from tests.check import INSTANCE, PASSWORD, assert_decent, check
from tests.conftest import DELTA, World
from tests.planted import (
    USER,
    Changes,
    by_the_account,
    laid,
    locked,
    only_receiver,
    proxied,
    tunnelled,
    unlocked,
    untrusted_gateway,
    with_broker,
)
from tests.support import push, push_anew
from tests.test_layers import imported_by


def receiver(world: World, version: str = "1") -> Changes:
    return only_receiver(world.receiver.write_url) | {"REMOTE_WRITE_VERSION": version}


def text_file(world: World) -> Changes:
    return {"PUSHGATEWAY_URL": None, "TEXTFILE_PATH": f"{world.folder}/ecoflow.prom"}


def all_sinks(world: World) -> Changes:
    return {
        **receiver(world),
        **text_file(world),
        "PUSHGATEWAY_URL": world.gateway.url,
    }


def with_password(world: World) -> Changes:
    world.receiver.fail("", locked)
    return unlocked("REMOTE_WRITE", receiver)(world, "", receiver(world))


def both_accounts(world: World) -> Changes:
    return {**with_broker(world), "ECOFLOW_SOURCE": "auto", **text_file(world)}


def own_authority(world: World) -> Changes:
    return {**untrusted_gateway(world), "PUSHGATEWAY_CA_FILE": world.ca_file}


def password_of_a_proxy(world: World) -> Changes:
    settings = dict(proxied(password=f"{USER}:{PASSWORD}")(world))
    url = settings["HTTP_PROXY"] or ""
    return {**settings, "HTTP_PROXY": url.replace("//", f"//{USER}:{PASSWORD}@")}


def secrets_in_files(world: World) -> Changes:
    (world.folder / "secret").write_text(f"{SECRET_KEY}\n")
    file = {"ECOFLOW_SECRET_KEY_FILE": str(world.folder / "secret")}
    return {"ECOFLOW_SECRET_KEY": None, **file}


def monitored(world: World) -> Changes:
    return {"HEALTHCHECK_URL": f"{world.faulty.url}/ping/8d7b6c5a"}


def monitored_without_a_log(world: World) -> Changes:
    world.faulty.fail("/log", faults.status(404))
    return monitored(world)


#: What is set beside the keys and a Pushgateway, or instead of them.
SETUPS: dict[str, Callable[[World], Changes]] = {
    "keys and a Pushgateway": lambda _: {},
    "keys and remote-write 1.0": receiver,
    "keys and remote-write 2.0": lambda world: receiver(world, "2"),
    "keys and remote-write, whichever": lambda world: receiver(world, "auto"),
    "keys and a text file": text_file,
    "keys and all sinks": all_sinks,
    "the app account": lambda world: by_the_account(world, "", {}),
    "both accounts and a text file": both_accounts,
    "a proxy": proxied(),
    "a proxy with a password": password_of_a_proxy,
    "a tunnel to EcoFlow, and an authority of one's own": tunnelled(),
    "a Pushgateway of one's own authority": own_authority,
    "basic authentication": with_password,
    "a secret in a file": secrets_in_files,
    "a monitor": monitored,
    "a monitor that keeps no log": monitored_without_a_log,
    "memory where XDG has it": lambda world: {
        "STATE_DIR": None,
        "XDG_STATE_HOME": str(world.folder / "xdg"),
    },
    "one device of one's own name": lambda _: {
        "ECOFLOW_DEVICE_SN": DELTA.sn,
        "ECOFLOW_DEVICE_NAME": "Wohnzimmer",
    },
    "json in the log, spool on failure": lambda world: {
        **receiver(world),
        "LOG_FORMAT": "json",
        "SPOOL_MODE": "on-failure",
    },
}


@pytest.mark.parametrize("setup", SETUPS)
def test_a_setup_that_is_well_gets_0(setup, environ, world):
    """Check and run end with 0, and no line says that something is wrong or odd."""
    environ, _ = laid({**environ, "PUSH_INSTANCE": INSTANCE}, SETUPS[setup](world))

    run = check(environ)

    assert_decent(run, "Wohnzimmer")
    assert run.status == 0, run.stdout
    assert not re.findall("^(?:wrong|warning) .*", run.stdout, re.MULTILINE)
    assert run.stdout.endswith("\na run would exit 0 OK\n")
    assert push(environ).status == 0


def test_files_of_settings_and_the_option_itself(environ, world):
    """With two files push.py --check is well, and says from which line what is."""
    first, second = world.folder / "first.env", world.folder / "second.env"
    lines = [f"{name}={value}\n" for name, value in environ.items()]
    first.write_text("# of the job\n" + "".join(lines) + "RUN_DEADLINE=20\n")
    second.write_text("RUN_DEADLINE='30'\n")
    for file in (first, second):
        file.chmod(0o600)
    options = [f"--env-file={file}" for file in (first, second)]

    run = push_anew({"LOG_LEVEL": "WARNING"}, "--check", *options)

    assert (run.status, run.stderr) == (0, "")
    assert f"set      RUN_DEADLINE: 30 ({second}:1)\n" in run.stdout
    place = 2 + list(environ).index("PUSHGATEWAY_URL")
    url = environ["PUSHGATEWAY_URL"]
    assert f"set      PUSHGATEWAY_URL: {url} ({first}:{place})\n" in run.stdout
    assert "set      LOG_LEVEL: WARNING (environment)\n" in run.stdout


# -- the settings, shown ------------------------------------------------------------


@pytest.mark.case("K6")
def test_settings_are_shown_without_what_opens_anything(environ, world):
    """Keys, passwords, tokens, queries, names and serials are not in the lines."""
    secrets = [f"s3cret{number}of-{number * 7}" for number in range(8)]
    (world.folder / "token").write_text(secrets[0])
    place = world.faulty.url.partition("//")[2]
    environ |= {
        "PUSHGATEWAY_URL": f"http://someone:{secrets[1]}@{place}/prefix",
        "REMOTE_WRITE_URL": f"{world.receiver.write_url}?token={secrets[2]}",
        "REMOTE_WRITE_BEARER_TOKEN_FILE": str(world.folder / "token"),
        "REMOTE_WRITE_HEADERS": f"X-Key: {secrets[3]}",
        "HEALTHCHECK_URL": f"http://{secrets[4]}@{place}/{secrets[5]}?k={secrets[6]}",
        "https_proxy": f"me:{secrets[7]}@localhost:1",
        "ECOFLOW_DEVICE_SN": DELTA.sn,
        "ECOFLOW_DEVICE_NAME": "Wohnzimmer",
        "EXTRA_LABELS": "site=Wohnzimmer",
        "PUSH_INSTANCE": INSTANCE,
    }

    run = check(environ)

    assert_decent(run, *secrets, "someone", "Wohnzimmer")
    line = re.compile(r"^set +(\w+): (.*) \(environment\)$", re.MULTILINE)
    shown = dict(line.findall(run.stdout))
    assert shown.keys() == environ.keys()
    assert shown["ECOFLOW_ACCESS_KEY"] == shown["REMOTE_WRITE_HEADERS"] == "***"
    assert shown["PUSHGATEWAY_URL"] == f"http://***@{place}/prefix"
    assert shown["REMOTE_WRITE_URL"] == f"{world.receiver.write_url}?***"
    assert shown["REMOTE_WRITE_BEARER_TOKEN_FILE"] == f"{world.folder}/token"
    assert shown["HEALTHCHECK_URL"] == f"http://***@{place}/***?***"
    assert shown["https_proxy"] == "//***@localhost:1"
    assert shown["ECOFLOW_DEVICE_SN"] == "R331…0001"
    assert "default  COLLECTING_INTERVAL: 10\ndefault  RUN_DEADLINE: 50\n" in run.stdout


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUSHGATEWAY_PASSWORD", "Hunter//twenty?seven"),
        ("PUSHGATEWAY_PASSWORD", "Hunter://twenty-seven"),
        ("PUSHGATEWAY_PASSWORD", "//[Hunter-twenty"),
        ("REMOTE_WRITE_HEADERS", "X-Key: abcd//Hunter?twenty"),
        ("PUSHGATEWAY_URL", "http://me:1/Hunter@localhost:9091"),
        ("PUSHGATEWAY_URL", "http://me/Hunter@localhost:9091"),
        ("NO_PROXY", "http://localhost/Hunter"),
        ("no_proxy", "Hunter=twenty"),
    ],
)
def test_a_secret_is_shown_in_no_part(name, value):
    """Whatever in it looks like an address."""
    reader = Reader({name: value})
    for each in ("PUSHGATEWAY_PASSWORD", "REMOTE_WRITE_HEADERS"):
        reader.secret(each)
    reader.url("PUSHGATEWAY_URL")
    reader.proxies()

    (shown,) = effective(reader, {})

    assert shown.text == "*** (environment)"


def test_what_only_looks_like_an_address_is_shown():
    """It is no reason to fail, either."""
    reader = Reader({"NO_PROXY": "[b"})
    reader.proxies()

    (shown,) = effective(reader, {})

    assert shown.text == "[b (environment)"


def test_of_a_faulty_setting_the_place_is_shown_and_no_value(world):
    """Who has a fault sees the line where it stands; what it is may be a secret."""
    file = world.folder / "job.env"
    file.write_text(
        "ECOFLOW_ACCESS_KEY=AKkey12345\nECOFLOW_SECRET_KEY=SK key12345\n"
        "PUSHGATEWAY_URL=http://me:p/ss@wo?rd@localhost:9091\nRUN_DEADLINE=20\n"
        "REMOTE_WRITE_HEADERS=0pen-sesame\n"
    )
    file.chmod(0o600)

    run = push({}, "--check", f"--env-file={file}")

    assert run.status == 78
    for number, name in enumerate(("ACCESS", "SECRET"), 1):
        assert f"set      ECOFLOW_{name}_KEY: *** ({file}:{number})\n" in run.stdout
    assert f"set      PUSHGATEWAY_URL: *** ({file}:3)\n" in run.stdout
    assert f"set      RUN_DEADLINE: 20 ({file}:4)\n" in run.stdout
    for secret in ("key12345", "p/ss", "wo?rd", "0pen"):
        assert secret not in run.stdout


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-15"])
@pytest.mark.parametrize("mode", ["--check", "--list-devices", "--dry-run"])
def test_a_screen_that_has_not_every_letter(mode, encoding, environ, cloud):
    """In an 8-bit locale what it lacks is a question mark, and no fault."""
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, DELTA.quotas, "Wohnzimmer \u2013 A")]

    run = push({**environ, "PYTHONIOENCODING": encoding}, mode)

    assert run.status == 0, run.stderr
    assert ("R331?0001" if mode == "--check" else "Wohnzimmer ? A") in run.stdout


def test_what_follows_from_the_surroundings_is_shown(environ, world):
    """Defaults are the effective ones: where the state is, by HOME."""
    del environ["STATE_DIR"]
    home = str(world.folder)

    run = check({**environ, "HOME": home})

    assert f"default  STATE_DIR: {home}/.local/state/ecoflow-push\n" in run.stdout
    assert "HOME:" not in run.stdout


def test_a_name_that_is_no_setting_is_a_warning(environ):
    """It has its line with the right name, and ends nothing."""
    run = check({**environ, "PUSHGATEWAY_USER": "me"})

    assert_decent(run)
    assert run.status == 0
    assert re.search(
        "^warning  settings: PUSHGATEWAY_USER: no setting has this name: .*"
        "PUSHGATEWAY_USERNAME",
        run.stdout,
        re.MULTILINE,
    )


# -- the monitor --------------------------------------------------------------------


@pytest.mark.parametrize("keeps_a_log", [True, False])
def test_the_monitor_is_not_told_of_a_run_that_was_none(keeps_a_log, environ, world):
    """A log's note is enough; without one, what begins a run; a success never."""
    if not keeps_a_log:
        world.faulty.fail("/log", faults.status(405))

    run = check({**environ, **monitored(world)} | {"PUSH_INSTANCE": INSTANCE})

    assert run.status == 0
    asked = [each.path for each in world.faulty.received]
    ways = ["/log"] if keeps_a_log else ["/log", "/start"]
    assert asked == [f"/ping/8d7b6c5a{way}" for way in ways]


def test_a_run_imports_nothing_of_the_check(environ, world):
    """What only --check needs is not loaded by a run with everything set."""
    settings = {**environ, **monitored(world), **receiver(world)}
    environ, _ = laid(settings, {"TEXTFILE_PATH": f"{world.folder}/ecoflow.prom"})
    code = "import os, sys, push; assert push.main([], os.environ) == 0"

    loaded = imported_by(code, environ)

    assert "ecoflow_push.sinks.queue" in loaded
    for name in ("run.check", "run.around", "run.effective", "memory.trial"):
        assert f"ecoflow_push.{name}" not in loaded, name
