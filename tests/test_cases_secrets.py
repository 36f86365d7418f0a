"""Cases of the catalogue about secrets: where they are read, and never seen."""

from __future__ import annotations

import ast
import json
import os
import pprint
import re
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import yaml

from ecoflow_push.config.environ import Reader
from ecoflow_push.config.kinds import Secret
from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import SettingsError
from ecoflow_push.memory.entry import Entry
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import RecordingServer
from tests.conftest import DELTA
from tests.hostile import MOST, push_watched
from tests.mqtt import paths
from tests.remote_write import of_devices, spool_files
from tests.support import PUSH, ROOT, eventually, gateway, push
from tests.test_settings import BASE
from tests.typist import AT_TERMINAL

PLANTED = {
    "ECOFLOW_ACCESS_KEY": "pl4nted-access-key",
    "ECOFLOW_SECRET_KEY": "pl4nted-secret-key",
    "PUSHGATEWAY_URL": "http://g/pl4nted-path-9",
    "PUSHGATEWAY_USERNAME": "somebody",
    "PUSHGATEWAY_PASSWORD": "pl4nted-p@ss/word",
    "REMOTE_WRITE_URL": "http://r/api/v1/write?k=pl4nted-query",
    "REMOTE_WRITE_BEARER_TOKEN": "pl4nted-bearer",
    "REMOTE_WRITE_HEADERS": "X-Key: pl4nted-header",
    "HEALTHCHECK_URL": "https://h/pl4nted-ping",
}
# The access key says whose data it is, and opens nothing alone.
SECRETS = [v for k, v in PLANTED.items() if re.search("T_KEY|PASSWORD|TOKEN", k)]


# -- secrets from files ---------------------------------------------------------------


def fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


SECRET_FILES = {
    "missing": (lambda path: None, "No such file"),
    "empty": (Path.touch, ""),
    "white space": (lambda path: path.write_text(" \r\n\t\n"), ""),
    "a GiB": (huge, ""),
    "a folder": (Path.mkdir, ""),
    "a FIFO": (fifo, ""),
    "a device": (lambda path: path.symlink_to("/dev/zero"), ""),
    "a loop": (lambda path: path.symlink_to(path), ""),
    "two lines": (lambda path: path.write_text("pl4nted\npl4nted-too\n"), ""),
    "no UTF-8": (lambda path: path.write_bytes(b"pl4nted\xff\n"), ""),
    "controls": (lambda path: path.write_bytes(b"pl4nted\x1b[31m\n"), ""),
}


@pytest.mark.case("K4")
@pytest.mark.parametrize("name", ["ECOFLOW_SECRET_KEY", "PUSHGATEWAY_PASSWORD"])
@pytest.mark.parametrize("kind", SECRET_FILES)
def test_a_secret_file_that_is_none(kind, name, environ, cloud, tmp_path):
    """It is 78 in one line that names the variable, at once and with little memory."""
    make, words = SECRET_FILES[kind]
    path = tmp_path / "secret"
    make(path)
    environ.pop(name, None)
    environ |= {"PUSHGATEWAY_USERNAME": "me", f"{name}_FILE": str(path)}

    run, peak = push_watched(environ, tmp_path)

    assert run.status == 78, run.stderr
    (line,) = run.stderr.splitlines()
    assert name in line
    assert words in line
    assert "pl4nted" not in line
    assert peak <= MOST
    assert cloud.received == []


@pytest.mark.case("K4")
@pytest.mark.parametrize("kind", ["0644", "link", "CRLF", "BOM", "no end", "spaces"])
def test_a_secret_file_that_is_one(kind, environ, tmp_path):
    """Linked, readable, with any line end, it serves."""
    secret = environ.pop("ECOFLOW_SECRET_KEY")
    path = tmp_path / "secret"
    ends = {"CRLF": "\r\n", "no end": "", "spaces": " \n\n"}
    head = "\ufeff" if kind == "BOM" else ""
    path.write_text(head + secret + ends.get(kind, "\n"), newline="")
    path.chmod(0o644 if kind == "0644" else 0o400)
    if kind == "link":
        (tmp_path / "..data").symlink_to(tmp_path)
        path = tmp_path / "..data" / "secret"

    run = push(environ | {"ECOFLOW_SECRET_KEY_FILE": str(path)})

    assert run.status == 0, run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.case("K5")
@pytest.mark.parametrize("name", ["ECOFLOW_ACCESS_KEY", "ECOFLOW_SECRET_KEY"])
def test_a_value_and_its_file(name, environ, cloud, tmp_path):
    """Both are a fault, be they equal: 78, and nobody is contacted."""
    path = tmp_path / "secret"
    path.write_text(environ[name])

    run = push(environ | {f"{name}_FILE": str(path)})

    assert run.status == 78
    assert f"{name}_FILE" in run.stderr
    assert "set only one of them" in run.stderr
    assert environ[name] not in run.stderr
    assert cloud.received == []


@pytest.mark.case("K5")
def test_a_folder_of_credentials_is_no_source(environ, tmp_path):
    """What systemd hands over is read where X_FILE names it, and nowhere else."""
    for name in ("ECOFLOW_SECRET_KEY", "ecoflow_secret_key", "secret-key"):
        (tmp_path / name).write_text("another-one")
    environ["CREDENTIALS_DIRECTORY"] = str(tmp_path)

    assert push(environ).status == 0

    right = environ.pop("ECOFLOW_SECRET_KEY")
    (tmp_path / "secret-key").write_text(right)
    assert push(environ).status == 78
    environ["ECOFLOW_SECRET_KEY_FILE"] = f"{tmp_path}/secret-key"
    assert push(environ).status == 0


# -- where they do not come out -------------------------------------------------------


def everything(thing: object, seen: set[int]) -> str:
    """Return whatever a debugger, a log or a pickle's reader would show first."""
    if id(thing) in seen or len(seen) > 5_000:
        return ""
    seen.add(id(thing))
    said = [repr(thing), str(thing), pprint.pformat(thing)]
    if isinstance(thing, dict):
        inner = [*thing.keys(), *thing.values()]
    elif isinstance(thing, (list, tuple, set, frozenset)):
        inner = list(thing)
    else:
        names = getattr(type(thing), "__slots__", ())
        is_ours = type(thing).__module__.startswith("ecoflow_push")
        inner = [getattr(thing, name, None) for name in names] if is_ours else []
        inner += (
            list(vars(thing).values()) if is_ours and hasattr(thing, "__dict__") else []
        )
        if isinstance(thing, (Secret, Reader)):
            # What `reveal` is for, and the environment itself.
            inner = []
    return "\n".join([*said, *(everything(each, seen) for each in inner)])


@pytest.mark.case("K6")
def test_no_dump_of_the_settings_shows_a_secret():
    """Neither the settings nor what they hold prints a secret, at any depth."""
    settings = Settings.from_environ({**BASE, **PLANTED})

    said = everything(settings, set())

    assert "pushgateway" in said
    assert [secret for secret in SECRETS if secret in said] == []


@pytest.mark.case("K6")
def test_no_chain_of_errors_shows_a_secret():
    """What is raised for faulty settings, and all that it came from, shows none."""
    wrong = {
        **PLANTED,
        "ECOFLOW_SECRET_KEY": "pl4nted with spaces",
        "PUSHGATEWAY_URL": "http://me:pl4nted-pass@[::1",
        "REMOTE_WRITE_URL": "http://me:pl4nted-pass@h:99999/",
        "HEALTHCHECK_URL": "ftp://h/pl4nted-ping",
        "REMOTE_WRITE_HEADERS": "pl4nted-header",
        "https_proxy": "socks5://me:pl4nted-pass@h",
        "RUN_DEADLINE": "pl4nted",
    }
    with pytest.raises(SettingsError) as raised:
        Settings.from_environ({**BASE, **wrong})

    chain = "".join(traceback.format_exception(raised.value))
    # Not the source lines of this file.
    said = re.sub(r"(?m)^ +.*$", "", chain)
    assert "PUSHGATEWAY_URL" in said
    assert "pl4nted" not in said
    assert (
        "pl4nted" not in f"{raised.value!r} {raised.value.args} {raised.value.faults}"
    )


@pytest.mark.case("K7")
@pytest.mark.parametrize(
    "how",
    [
        {"PYTHONFAULTHANDLER": "1"},
        {"PYTHONDEVMODE": "1", "PYTHONTRACEMALLOC": "5"},
    ],
    ids=" ".join,
)
def test_a_crash_shows_no_secret(how, environ, cloud):
    """What Python prints when it is killed in the middle has frames, and no value."""
    cloud.fail("device/list", faults.hang())
    environ |= how | {
        "PUSHGATEWAY_USERNAME": "me",
        "PUSHGATEWAY_PASSWORD": PLANTED["PUSHGATEWAY_PASSWORD"],
        "LOG_LEVEL": "DEBUG",
    }
    process = subprocess.Popen(
        [sys.executable, PUSH], env=environ, stderr=subprocess.PIPE, text=True
    )
    assert eventually(lambda: cloud.received)
    process.send_signal(signal.SIGABRT)
    _, said = process.communicate(timeout=60)

    assert process.returncode == -signal.SIGABRT
    assert "Fatal Python error" in said
    secrets = ("ECOFLOW_ACCESS_KEY", "ECOFLOW_SECRET_KEY", "PUSHGATEWAY_PASSWORD")
    for name in secrets:
        assert environ[name] not in said


# -- where they are not sent ----------------------------------------------------------


@pytest.mark.case("K11")
@pytest.mark.parametrize("number", [301, 302, 303, 307, 308])
def test_no_redirect_of_a_login_is_followed(number, account, cloud):
    """The other host sees nothing: no password, no token, no request."""
    with RecordingServer() as other:
        for path in ("/auth/login", "certification", "user/device"):
            cloud.heal()
            cloud.fail(path, faults.redirect(f"{other.url}{path}", number))

            run = push(account | {"STATE_DIR": f"{account['STATE_DIR']}{path[1]}"})

            assert run.status == 69, run.stderr
        assert other.received == []
    assert paths(cloud).count("/auth/login") == 3


@pytest.mark.case("K11")
@pytest.mark.parametrize("number", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("sink", ["PUSHGATEWAY", "REMOTE_WRITE", "HEALTHCHECK"])
def test_no_redirect_of_a_sink_is_followed(sink, number, environ, tmp_path):
    """A sink's redirect, to loopback or the cloud's metadata, leads to no request."""
    with RecordingServer() as server, RecordingServer() as other:
        server.fail("", faults.redirect(f"{other.url}/latest/meta-data/", number))
        del environ["PUSHGATEWAY_URL"]
        environ |= {f"{sink}_URL": server.url}
        environ |= {"TEXTFILE_PATH": str(tmp_path / "text.prom")}

        run = push(environ)

        assert run.status == (0 if sink == "HEALTHCHECK" else 1), run.stderr
        assert "a redirect to" in run.stderr
        assert other.received == []


@pytest.mark.case("K12")
@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://h/x",
        "unix:///run/x.sock",
        "gopher://h/",
        "javascript:alert(1)",
        "//h/x",
        "h:9091",
        "http:/h",
        "http://",
        "http:// h",
        "http://h\n.example/",
        "http://h#f",
    ],
)
@pytest.mark.parametrize(
    "name", ["PUSHGATEWAY_URL", "REMOTE_WRITE_URL", "HEALTHCHECK_URL"]
)
def test_only_http_is_spoken(name, url):
    """Any other scheme, or none, is a fault of the settings that names the variable."""
    with pytest.raises(SettingsError) as raised:
        Settings.from_environ({**BASE, name: url})

    assert name in {fault.variable for fault in raised.value.faults}


# -- a certificate of our own ---------------------------------------------------------


@pytest.mark.case("K13")
@pytest.mark.parametrize("kind", ["another key", "encrypted", "no key", "no PEM"])
@pytest.mark.parametrize("sink", ["PUSHGATEWAY", "REMOTE_WRITE"])
def test_a_key_that_does_not_serve(kind, sink, environ, cloud, authority, tmp_path):
    """It is 78 before anything is sent, and no terminal is asked for a passphrase."""
    from cryptography.hazmat.primitives import serialization

    cert, other = (authority.issue_cert("client@example.org") for _ in range(2))
    key = serialization.load_pem_private_key(cert.private_key_pem.bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"pl4nted-phrase"),
    )
    (tmp_path / "cert").write_bytes(cert.cert_chain_pems[0].bytes())
    content = {
        "another key": other.private_key_pem.bytes(),
        "encrypted": locked,
        "no key": cert.cert_chain_pems[0].bytes(),
        "no PEM": b"pl4nted",
    }
    (tmp_path / "key").write_bytes(content[kind])
    del environ["PUSHGATEWAY_URL"]
    environ |= {
        f"{sink}_URL": "https://127.0.0.1:1",
        f"{sink}_CERT_FILE": str(tmp_path / "cert"),
        f"{sink}_KEY_FILE": str(tmp_path / "key"),
    }
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", AT_TERMINAL, PUSH],
        env=environ,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    os.close(theirs)
    try:
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        os.close(ours)

    assert process.returncode == 78, said
    (line,) = said.splitlines()
    assert f"{sink}_CERT_FILE" in line
    assert "not a certificate with its unencrypted key" in line
    assert "pl4nted" not in line
    assert cloud.received == []


@pytest.mark.case("K13")
def test_a_certificate_that_is_not_taken(environ, authority, ca_file, tmp_path):
    """Without the certificate that a gateway wants a run is 74, and with it 0."""
    server = authority.issue_cert("localhost")
    server.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    (tmp_path / "web.yml").write_text(
        "tls_server_config:\n  cert_file: server.pem\n  key_file: server.pem\n"
        f"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {ca_file}\n"
    )
    client = authority.issue_cert("client@example.org")
    client.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
    (tmp_path / "client.pem").chmod(0o644)
    with gateway(f"--web.config.file={tmp_path}/web.yml", scheme="https") as remote:
        environ |= {"PUSHGATEWAY_URL": remote.url, "PUSHGATEWAY_CA_FILE": ca_file}
        without = push(environ)
        environ["PUSHGATEWAY_CERT_FILE"] = str(tmp_path / "client.pem")
        served = push(environ)

    assert without.status == 74, without.stderr
    assert len(without.stderr.splitlines()) == 1
    # A key in the certificate's file, readable by others, serves.
    assert served.status == 0, served.stderr


# -- what is stored, and what is shipped ----------------------------------------------


@pytest.mark.case("K15")
def test_a_planted_record_is_judged_as_any_other(written, receiver):
    """Whole and with its sum, but no record of ours: it alone is set aside."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    (one,) = spool_files(written)
    at = int(one.name.split(".")[0])
    bodies = [
        b"{}",
        b"cposix\nsystem\n(S'touch /tmp/x'\ntR.",
        b"\x80\x04\x95\x17\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix",
        json.dumps([at, [[]], [["gauge", "h"]], ["n"], [9], [0], [1.0], []]).encode(),
        json.dumps(
            [1, [[]], [["gauge", "h"]], ["n"] * 9, [0], [0], [1.0], []]
        ).encode(),
    ]
    for number, body in enumerate(bodies, 1):
        entry = Entry(at + number, 1, DELTA.sn, body)
        (one.parent / entry.name).write_bytes(entry.content or b"")
    receiver.heal()

    run = push(written)

    assert run.status == 1, run.stderr
    assert "Traceback" not in run.stderr
    assert len(spool_files(written, "spool-*/bad/*")) == len(bodies)
    assert spool_files(written) == []
    assert len(of_devices(receiver)) == 2


@pytest.mark.case("K15")
def test_nothing_that_is_read_can_be_run():
    """No module of ours can turn what is stored or answered into code."""
    banned = {"pickle", "marshal", "shelve", "dill", "cPickle", "yaml", "code", "runpy"}
    calls = {"eval", "exec", "compile", "__import__"}
    for path in sorted((ROOT / "ecoflow_push").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [each.name.partition(".")[0] for each in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").partition(".")[0]]
            assert banned.isdisjoint(names), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in calls, path


@pytest.mark.case("K16")
def test_what_is_installed_is_known_by_its_hash():
    """Each requirement is one version with its hashes, and the image asks for them."""
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (ROOT / name).read_text().replace("\\\n", " ")
        rows = [
            row for row in text.splitlines() if row and not row.lstrip().startswith("#")
        ]
        assert rows
        for row in rows:
            assert re.match(r"[\w.\[\]-]+==\S+ ", row), row
            assert "--hash=sha256:" in row, row
    dockerfile = (ROOT / "Dockerfile").read_text()
    (install,) = re.findall(
        r"pip .*?install .*?requirements\.txt", dockerfile, re.DOTALL
    )
    assert "--require-hashes" in install
    assert re.search(r"(?m)^USER [1-9]\d*:[1-9]\d*$", dockerfile)
    watched = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())
    kinds = {update["package-ecosystem"] for update in watched["updates"]}
    assert {"docker", "github-actions"} <= kinds
