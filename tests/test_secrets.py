"""What servers quote of our secrets: nothing of it is in any output or file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import USER_ID, SimulatedCloud
from ecoflow_push.simulator.server import Fault, RecordingServer
from tests.leaks import parts, spellings
from tests.support import free_port, push

LOGIN, CERTIFICATION, LIST = "/auth/login", "/certification", "/user/device"
TOKEN = 'eyJh/bGci+OiJI"UzI1.NiJ9_pr\\0be~42'
USER = "1765432198076543210"
BROKER_USER = "app-93b1e0c7d2f84a65"
BROKER_PASSWORD = 'Zq7"x&w<2>k+L/m=9 v\\T4'
ACCESS_KEY = "AK9f3c71e0b2d8465a"
SECRET_KEY = "SK/b7+e21d=94c6f0a38"
BEARER = "glc_eyJvIjoiNzQ1/Mz+A="
PATH_TOKEN = "t0k3n%2Fof-a%20path.77"
EARNED = (TOKEN, USER, BROKER_USER, BROKER_PASSWORD)
ALL = (*EARNED, ACCESS_KEY, SECRET_KEY, BEARER, PATH_TOKEN)

STYLES = {
    "text": {"LOG_LEVEL": "INFO"},
    "JSON": {"LOG_LEVEL": "INFO", "LOG_FORMAT": "json"},
    "DEBUG": {"LOG_LEVEL": "DEBUG"},
}


def logged_in(**data: Any) -> Fault:
    answer = {"user": {"userId": USER}, "token": TOKEN} | data
    return faults.body(json.dumps({"code": "0", "data": answer}).encode())


def certified(**data: Any) -> Fault:
    answer = {
        "url": "127.0.0.1",
        "port": str(free_port()),
        "protocol": "mqtt",
        "certificateAccount": BROKER_USER,
        "certificatePassword": BROKER_PASSWORD,
    }
    envelope = {"code": "0", "data": answer | data}
    return faults.body(json.dumps(envelope).encode())


def quoting(secret: str, number: str = "5001") -> Fault:
    return faults.code(number, f"token {' '.join(spellings(secret))} is not valid")


def handing_out(number: str) -> Fault:
    """Refuse, and hand out all the same."""
    data = {"user": {"userId": USER}, "token": TOKEN}
    message = f"token {' '.join(spellings(TOKEN))} is not valid"
    envelope = {"code": number, "message": message, "data": data}
    return faults.body(json.dumps(envelope).encode())


#: What each server of EcoFlow's answers, by path.
ACCOUNT_PATHS = {
    "a login that is refused with a token": {LOGIN: handing_out("5001")},
    "a refusal that hands out another token": {
        LOGIN: logged_in(token="0f1e2d3c4b5a69788796a5b4c3d2e1f0"),
        CERTIFICATION: handing_out("5001"),
    },
    "a login without a user": {LOGIN: logged_in(user=TOKEN)},
    "a login with an odd token": {LOGIN: logged_in(token=[TOKEN])},
    "certification quotes the token": {
        LOGIN: logged_in(),
        CERTIFICATION: quoting(TOKEN),
    },
    "certification quotes the user": {LOGIN: logged_in(), CERTIFICATION: quoting(USER)},
    "certification refuses with a page": {
        LOGIN: logged_in(),
        CERTIFICATION: faults.status(401, TOKEN.encode(), WWW_Authenticate=TOKEN),
    },
    "certification redirects to the token": {
        LOGIN: logged_in(),
        CERTIFICATION: faults.redirect(f"https://127.0.0.1/{TOKEN}"),
    },
    "certification of an odd type": {
        LOGIN: logged_in(),
        CERTIFICATION: faults.body(b"{}", f"text/{TOKEN}"),
    },
    "certification without a broker": {
        LOGIN: logged_in(),
        CERTIFICATION: certified(url=TOKEN),
    },
    "the list quotes the broker's password": {
        LOGIN: logged_in(),
        CERTIFICATION: certified(),
        LIST: quoting(BROKER_PASSWORD),
    },
    "the list quotes the broker's user": {
        LOGIN: logged_in(),
        CERTIFICATION: certified(),
        LIST: quoting(BROKER_USER),
    },
}
#: How the program is started, with each style of the log.
WAYS = {
    "text": ((), ("--check",), ("--list-devices",)),
    "JSON": ((), ("--dry-run",)),
    "DEBUG": ((), ("--check",)),
}


def assert_nothing(said: str, secrets: tuple[str, ...], state: Path) -> None:
    """No part of a secret is in what was said, nor in a file but the stored login."""
    files = {
        str(path): path.read_bytes().decode("latin-1")
        for path in state.rglob("*")
        if path.is_file() and not path.name.startswith("account.json")
    }
    for secret in secrets:
        for part in parts(secret):
            assert part not in said
            assert [name for name in files if part in files[name]] == []


@pytest.mark.case("M10", "K1")
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("path", ACCOUNT_PATHS)
def test_what_the_account_s_servers_quote(path, style, account, cloud, tmp_path):
    """What was earned at run time is masked, fresh and from the file, in each mode."""
    for where, fault in ACCOUNT_PATHS[path].items():
        cloud.fail(where, fault)
    state = tmp_path / "state"
    with RecordingServer() as watcher:
        account |= {
            **STYLES[style],
            "TEXTFILE_PATH": str(tmp_path / "text.prom"),
            "HEALTHCHECK_URL": f"{watcher.url}/ping",
        }
        del account["PUSHGATEWAY_URL"]
        # The first run earns it, the others find it in the file.
        runs = [push(account, *way) for way in WAYS[style]]
        pings = [received.body.decode() for received in watcher.received]

    assert all(run.status in (69, 75, 77) for run in runs), runs
    said = "\n".join(run.stdout + run.stderr for run in runs)
    assert "exit 69" in said or "exit 7" in said
    assert any("exit" in ping for ping in pings)
    text = (tmp_path / "text.prom").read_text()
    assert_nothing("\n".join([said, *pings, text]), EARNED, state)


@pytest.mark.case("K1")
@pytest.mark.parametrize("style", STYLES)
def test_what_the_developer_api_quotes(style, environ, tmp_path):
    """Keys are masked, whole and in parts, in each mode."""
    runs = []
    with SimulatedCloud([]) as cloud:
        environ |= STYLES[style] | {
            "ECOFLOW_API_HOST": cloud.url,
            "ECOFLOW_ACCESS_KEY": ACCESS_KEY,
            "ECOFLOW_SECRET_KEY": SECRET_KEY,
        }
        for secret in (ACCESS_KEY, SECRET_KEY):
            cloud.heal()
            cloud.fail("/", quoting(secret))
            runs += [push(environ, *way) for way in WAYS[style]]

    assert [run.status for run in runs] == [69] * len(runs)
    said = "\n".join(run.stdout + run.stderr for run in runs)
    assert said.count("***") >= len(runs)
    assert_nothing(said, (ACCESS_KEY, SECRET_KEY), tmp_path / "state")


@pytest.mark.case("K1")
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("number", [302, 400, 401, 500])
@pytest.mark.parametrize("prefix", ["PUSHGATEWAY", "REMOTE_WRITE"])
def test_what_a_sink_s_server_quotes(prefix, number, style, environ, tmp_path):
    """A token in the path or behind Bearer is masked in what the server quotes."""
    secrets = (PATH_TOKEN, BEARER)
    quoted = " ".join(" ".join(spellings(secret)) for secret in secrets)
    quoted = quoted.replace('"', "'")
    with RecordingServer() as server:
        server.fail("/", faults.status(number, quoted.encode(), Location=quoted))
        del environ["PUSHGATEWAY_URL"]
        environ |= STYLES[style] | {
            f"{prefix}_URL": f"{server.url}/{PATH_TOKEN}/api/v1/write",
            f"{prefix}_BEARER_TOKEN": BEARER,
            "ESTABLISH_ATTEMPTS": "1",
            "HEALTHCHECK_URL": f"{server.url}/ping",
        }
        runs = [push(environ, *way) for way in WAYS[style][:2]]
        pings = [r.body.decode() for r in server.received if "/ping" in r.path]

    # A dry run asks no sink.
    assert all(run.status in (0, 74, 75, 76, 77) for run in runs), runs
    assert runs[0].status
    said = "\n".join(run.stdout + run.stderr for run in runs)
    assert number == 302 or "***" in said
    assert_nothing("\n".join([said, *pings]), secrets, tmp_path / "state")


def test_the_table_would_see_a_secret(tmp_path):
    """What is looked for is found where it stands: whole, cut and encoded."""
    for secret in ALL:
        for spelling in spellings(secret):
            with pytest.raises(AssertionError):
                assert_nothing(f"token {spelling} is", (secret,), tmp_path)
    assert USER not in USER_ID
