"""--init on a real terminal: what it asks, tries, writes, and says to do next."""

from __future__ import annotations

import base64
import os
import pwd
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import bcrypt
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from ecoflow_push.config.env_file import over_files
from ecoflow_push.config.plugs import SINKS, SOURCES, load
from ecoflow_push.init.after import drop_in
from ecoflow_push.init.draft import Draft
from ecoflow_push.init.questions import PUSHING, READING, everything
from ecoflow_push.simulator.cloud import (
    ACCESS_KEY,
    ACCOUNT_PASSWORD,
    ACCOUNT_USER,
    SECRET_KEY,
    SimulatedCloud,
)
from tests.conftest import DELTA
from tests.deploy import SYSTEMD, program, said_by
from tests.settings_page import tables
from tests.support import (
    ROOT,
    eventually,
    fetch,
    free_port,
    gateway,
    prometheus,
    stop_listening,
)
from tests.typist import (
    ACCESS,
    ELSEWHERE,
    GATEWAY,
    IN_FILES,
    KEYS,
    NUMBER,
    PASSWORD,
    SECRET,
    TO_GATEWAY,
    WRONG,
    as_cron,
    by_gateway,
    finish,
    settings_file,
    typing,
)

# -- from keys in hand to a run --------------------------------------------------------

ODD = "an odd\\%d place$HOME's"
# A mount namespace of its own: the machine's tables and its own cron see nothing of it.
CRON = """
set -e
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /etc/cron.d
mount -t tmpfs tmpfs /var/spool/cron
mkdir -m 1730 /var/spool/cron/crontabs
: >/run/crontab
if [ -e /etc/crontab ]; then mount --bind /run/crontab /etc/crontab; fi
crontab -
exec cron -f -L 15
"""


@contextmanager
def cron(table: str) -> Iterator[None]:
    """Let the real cron work by a table of its own."""
    for name in ("cron", "crontab", "unshare"):
        program(name)
    apart = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid() or subprocess.run([*apart, "true"], check=False).returncode:
        pytest.skip("cron is started by root alone, in a mount namespace")
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
    daemon = subprocess.Popen(
        [*apart, "sh", "-c", CRON],
        stdin=subprocess.PIPE,
        env={"PATH": path},
        start_new_session=True,
    )
    try:
        assert daemon.stdin
        daemon.stdin.write(table.encode())
        daemon.stdin.close()
        yield
        assert daemon.poll() is None
    finally:
        daemon.terminate()
        daemon.wait(timeout=30)


@pytest.fixture
def odd_place(tmp_path: Path) -> Path:
    """An installation in a folder whose name needs every kind of quoting."""
    folder = Path(tmp_path, ODD)
    folder.mkdir()
    # Copied: of a link Python takes the place that it leads to.
    shutil.copy(ROOT / "push.py", folder)
    for name in ("ecoflow_push", "deploy"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def test_from_keys_to_a_run_by_cron(home, odd_place, pushgateway):
    """The printed line, put into a real crontab, pushes in the next minute."""
    file = odd_place / "my settings.env"
    script = odd_place / "push.py"
    with typing(home, "--env-file", str(file), program=script) as typist:
        for prompt, answer in by_gateway(pushgateway.url):
            typist.answer(prompt, answer)
        finish(typist)
    assert DELTA.sn in typist.screen
    assert "ok       pushgateway: took the test, gone again" in typist.screen
    assert eventually(lambda: not pushgateway.groups())
    [line] = re.findall(r"^\* \* \* \* \* .*\n", typist.screen, re.MULTILINE)

    with cron(line):
        assert eventually(pushgateway.devices, 90)
        assert eventually(lambda: "ecoflow_push_exit_status" in pushgateway.run())

    assert list(pushgateway.devices()) == [DELTA.sn]
    assert pushgateway.run()["ecoflow_push_exit_status"] == 0


def test_the_printed_command_and_a_quiet_line(home, pushgateway):
    """One command runs once; the line of cron says nothing that would be mailed."""
    with typing(home) as typist:
        for prompt, answer in by_gateway(pushgateway.url):
            typist.answer(prompt, answer)
        finish(typist)
    said = typist.screen
    [line] = re.findall(r"^\* \* \* \* \* (.*)\n", said, re.MULTILINE)
    [command] = re.findall(r"^One run now:\n\n(.*)\n", said, re.MULTILINE)
    assert line.endswith(command)
    theirs = {"HOME": "/nonexistent", "PATH": os.defpath}

    for each, is_quiet in ((line, True), (command, False)):
        done = subprocess.run(
            ["sh", "-c", each], env=theirs, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, "")
        assert (done.stderr == "") == is_quiet
    assert list(pushgateway.devices()) == [DELTA.sn]


def install_units(screen: str, folder: Path) -> Path:
    """Do what is printed for systemd, in a folder of ours, and return that."""
    _, _, said = screen.partition("by systemd (252 or newer):\n\n")
    commands, _, rest = said.partition("systemctl")
    assert rest.rstrip().endswith("systemctl enable --now ecoflow-push.timer")
    units = folder / "units"
    units.mkdir()
    commands = commands.removesuffix("sudo ").replace("sudo ", "")
    commands = commands.replace("/etc/systemd/system", str(units))
    subprocess.run(["sh", "-ec", commands], check=True)
    return units


def verified(units: Path) -> tuple[int, str]:
    names = (units / "ecoflow-push.service", units / "ecoflow-push.timer")
    return said_by(program("systemd-analyze"), "verify", "--man=no", *names)


def test_the_printed_commands_for_systemd(home, odd_place, pushgateway, tmp_path):
    """They install units that systemd reads without a word, for this very place."""
    file = odd_place / "my settings.env"
    script = odd_place / "push.py"
    with typing(home, "--env-file", str(file), program=script) as typist:
        for prompt, answer in by_gateway(pushgateway.url):
            typist.answer(prompt, answer)
        finish(typist)

    units = install_units(typist.screen, tmp_path)

    assert verified(units) == (0, "")
    text = (units / "ecoflow-push.service.d" / "installation.conf").read_text()
    place = str(odd_place).replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    words = f'"{sys.executable}" "{place}/push.py" "--env-file" "{place}/{file.name}"'
    assert f"\nExecStart={words}\n" in text
    assert f"\nUser={pwd.getpwuid(os.getuid()).pw_name}\n" in text


def test_the_installed_command_is_printed(home, tmp_path, pushgateway):
    """Of an installed package the command is started, and the units are at hand."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    put = data["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    site = tmp_path / "site"
    command = tmp_path / "10 %d of my$HOME" / "ecoflow-push"
    shutil.copytree(ROOT / "ecoflow_push", site / "ecoflow_push")
    for theirs, ours in put.items():
        copy = shutil.copytree if (ROOT / theirs).is_dir() else shutil.copy
        if ours.startswith("ecoflow_push/"):
            copy(ROOT / theirs, site / ours)
    command.parent.mkdir()
    command.write_text(
        f"#!{sys.executable}\nfrom ecoflow_push.__main__ import entry\nentry()\n"
    )
    command.chmod(0o755)
    with typing({**home, "PYTHONPATH": str(site)}, program=command) as typist:
        for prompt, answer in by_gateway(pushgateway.url):
            typist.answer(prompt, answer)
        finish(typist)

    [line] = re.findall(r"^\* \* \* \* \* (.*)\n", typist.screen, re.MULTILINE)
    escaped = str(command).replace("%", r"\%")
    assert line == f"LOG_LEVEL=WARNING '{escaped}' --env-file {settings_file(home)}"
    units = install_units(typist.screen, tmp_path)
    # It says so of a program that is not there, whose path it reads otherwise.
    assert verified(units) == (0, "")
    drop_in = units / "ecoflow-push.service.d" / "installation.conf"
    for escape, other in (("%%d", "%d"), ('"', "")):
        text = drop_in.read_text()
        assert escape in text
        drop_in.write_text(text.replace(escape, other))
        assert verified(units) != (0, "")
        drop_in.write_text(text)


def test_a_program_that_systemd_would_not_take(tmp_path):
    """With quotes in its path it is started as an argument of another one."""
    command = tmp_path / "it's" / "ecoflow-push"
    command.parent.mkdir()
    shutil.copy("/bin/true", command)
    units = tmp_path / "units"
    shutil.copytree(SYSTEMD, units)
    folder = units / "ecoflow-push.service.d"
    folder.mkdir()
    lines = drop_in([str(command), "--env-file", "/x"], ["/srv/a b"])

    (folder / "installation.conf").write_text("\n".join([*lines, ""]))

    assert verified(units) == (0, "")


# -- what is wrong is asked again ------------------------------------------------------


def test_a_wrong_answer_is_asked_again(home, cloud, pushgateway):
    """A finding is shown with its cure, and what was right need not be typed twice."""
    nobody = f"http://127.0.0.1:{free_port()}"
    with typing(home) as typist:
        typist.answer(NUMBER, "3")
        came = typist.answer(NUMBER)
        assert "A number from 1 to 2, please.\n" in came
        typist.answer(ACCESS)
        typist.answer(ACCESS, "has spaces in it")
        came = typist.answer(ACCESS, ACCESS_KEY)
        assert "wrong    ECOFLOW_ACCESS_KEY: expected ASCII" in came
        typist.answer(SECRET, WRONG)
        came = typist.answer(NUMBER)
        assert "the signature is wrong: check ECOFLOW_SECRET_KEY\n" in came
        typist.answer("Access key (is not shown) [as before]: ")
        typist.answer("Secret key (is not shown) [as before]: ", SECRET_KEY)
        came = typist.answer(NUMBER)
        assert re.search(rf"^{DELTA.sn}  Garage  DELTA 2  yes ", came, re.MULTILINE)
        typist.answer(GATEWAY, "gateway:9091")
        came = typist.answer(GATEWAY, nobody)
        assert "wrong    PUSHGATEWAY_URL: expected http(s)://" in came
        typist.answer(NUMBER)
        came = typist.answer(f"Its address [{nobody}]: ", pushgateway.url)
        assert "wrong    pushgateway: " in came
        assert "connection refused: check that it runs" in came
        typist.answer(NUMBER)
        typist.answer(ELSEWHERE)
        typist.answer(IN_FILES)
        finish(typist)

    said = over_files([str(settings_file(home))], {})
    assert said["ECOFLOW_ACCESS_KEY"] == ACCESS_KEY
    assert said["ECOFLOW_SECRET_KEY"] == SECRET_KEY
    assert said["PUSHGATEWAY_URL"] == pushgateway.url
    assert as_cron(home, settings_file(home)).status == 0


@contextmanager
def tunnel(hosts: Mapping[str, SimulatedCloud]) -> Iterator[str]:
    """Run a proxy that leads to servers of this machine, whatever they are called."""

    def carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)

    def serve(client: socket.socket) -> None:
        with client:
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            host = head.split()[1].decode().partition(":")[0]
            port = hosts[host].server_address[1]
            with socket.create_connection(("127.0.0.1", port)) as server:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=carry, args=(server, client))
                back.start()
                carry(client, server)
                back.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        stop_listening(listener, thread)


def test_a_key_of_another_region(home, authority: trustme.CA, ca_file, tmp_path):
    """The host that knows the key is found, named, used, and written."""
    names = ("api.ecoflow.com", "api-a.ecoflow.com", "api-e.ecoflow.com")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(tls)
    del home["ECOFLOW_API_HOST"]
    with (
        SimulatedCloud([DELTA], tls=tls) as at_home,
        SimulatedCloud([DELTA], tls=tls, access_key="of-somebody-else") as abroad,
        tunnel({**dict.fromkeys(names, abroad), names[2]: at_home}) as proxy,
    ):
        environ = {**home, "ECOFLOW_CA_FILE": ca_file, "https_proxy": proxy}
        with typing(environ) as typist:
            for prompt, answer in KEYS:
                typist.answer(prompt, answer)
            came = typist.answer(NUMBER, "3")
            typist.answer("The file, whose name ends in .prom: ", f"{tmp_path}/x.prom")
            typist.answer(ELSEWHERE)
            typist.answer(IN_FILES)
            finish(typist)
        run = as_cron(home, settings_file(home))

    known = "the key is unknown at api.ecoflow.com and known at api-e.ecoflow.com"
    assert f"wrong    region: {known}: set ECOFLOW_API_HOST=api-e" in came
    assert "\nFrom now on ECOFLOW_API_HOST=api-e.ecoflow.com is used.\n" in came
    assert came.index("ok       region: api-e") < came.index(DELTA.sn)
    said = over_files([str(settings_file(home))], {})
    assert said["ECOFLOW_API_HOST"] == "api-e.ecoflow.com"
    assert said["https_proxy"] == proxy
    assert run.status == 0, run.stderr


def test_devices_that_nobody_reads(home, cloud, pushgateway):
    """Keys that open no device are taken only by who says so."""
    cloud.devices[0].code = "1006"
    try:
        with typing(home) as typist:
            for prompt, answer in KEYS:
                typist.answer(prompt, answer)
            words = "A run would end so. Take it all the same? [no]: "
            came = typist.answer(words, "perhaps")
            assert "exit 77 NOPERM" in came
            typist.answer(words)
            typist.answer(NUMBER)
            for prompt, _ in KEYS[1:]:
                typist.answer(prompt.replace(": ", " [as before]: "))
            typist.answer(words, "y")
            for prompt, answer in by_gateway(pushgateway.url)[3:]:
                typist.answer(prompt, answer)
            finish(typist)
    finally:
        cloud.devices[0].code = "0"


# -- the ways there are ----------------------------------------------------------------


def test_the_app_account(home, fleet, ca_file, pushgateway):
    """Its devices are shown by one visit, and a run of cron reads them."""
    environ = {**home, "ECOFLOW_CA_FILE": ca_file, "MQTT_TIMEOUT": "5"}
    with typing(environ) as typist:
        typist.answer(NUMBER, "2")
        typist.answer("E-mail of the account: ", ACCOUNT_USER)
        typist.answer("Its password (is not shown): ", PASSWORD)
        typist.answer("Number [2]: ")
        typist.answer("E-mail of the account [as before]: ")
        again = "Its password (is not shown) [as before]: "
        typist.answer(again, ACCOUNT_PASSWORD)
        for prompt, answer in by_gateway(pushgateway.url)[3:]:
            typist.answer(prompt, answer)
        finish(typist)
    assert re.search(rf"^{DELTA.sn}.* app account\n", typist.screen, re.MULTILINE)

    run = as_cron(home, settings_file(home))
    assert run.status == 0, run.stderr
    assert list(pushgateway.devices()) == [DELTA.sn]


def test_several_sinks_and_secrets_in_files(home, tmp_path):
    """All are tried, served by one run, and no secret stands in the settings."""
    users = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    web = tmp_path / "web.yml"
    web.write_text(f'basic_auth_users: {{"me": "{users}"}}\n')
    text = tmp_path / "ecoflow.prom"
    args = (f"--web.config.file={web}",)
    with prometheus(tmp_path / "prometheus", *args) as database:
        with typing(home, umask=0) as typist:
            for prompt, answer in KEYS:
                typist.answer(prompt, answer)
            typist.answer(NUMBER, "2")
            address = "The whole address [http://localhost:9090/api/v1/write]: "
            typist.answer(address, database.write_url)
            typist.answer(NUMBER, "3")
            typist.answer("Token (is not shown): ", PASSWORD)
            came = typist.answer(f"The whole address [{database.write_url}]: ")
            assert "wrong    remote-write: " in came
            assert "check REMOTE_WRITE_USERNAME and _PASSWORD, or _BEARER" in came
            typist.answer("Number [3]: ", "2")
            typist.answer("User name: ", "me")
            typist.answer("Password (is not shown): ", PASSWORD)
            typist.answer(ELSEWHERE, "yes")
            typist.answer(NUMBER, "2")
            typist.answer("The file, whose name ends in .prom: ", str(text))
            typist.answer(ELSEWHERE)
            typist.answer(IN_FILES, "y")
            finish(typist)
        run = as_cron(home, settings_file(home))
        query = f"{database.url}/api/v1/query?query=ecoflow_push_exit_status"
        token = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
        answer = fetch(query, Authorization=f"Basic {token}").decode()

    assert run.status == 0, run.stderr
    assert '"value":' in answer
    assert DELTA.sn in text.read_text()
    folder = settings_file(home).parent
    secrets = {
        "ecoflow-access-key": ACCESS_KEY,
        "ecoflow-secret-key": SECRET_KEY,
        "remote-write-password": PASSWORD,
    }
    for name, secret in secrets.items():
        assert (folder / name).read_text() == f"{secret}\n"
        assert secret not in settings_file(home).read_text()
        variable = name.upper().replace("-", "_")
        assert f"{variable}_FILE={folder}/{name}\n" in settings_file(home).read_text()
    assert {path.name for path in folder.iterdir()} == {*secrets, "ecoflow-push.env"}
    for path in (folder, *folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_an_address_with_everything_in_it(home, authority, ca_file, tmp_path):
    """A server with TLS by its own authority, its password typed into the address."""
    server = authority.issue_cert("localhost")
    server.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    users = bcrypt.hashpw(b"by the way", bcrypt.gensalt(4)).decode()
    web = tmp_path / "web.yml"
    web.write_text(
        "tls_server_config: {cert_file: server.pem, key_file: server.pem}\n"
        f'basic_auth_users: {{"me": "{users}"}}\n'
    )
    with gateway(f"--web.config.file={web}", scheme="https") as remote:
        url = remote.url.replace("//", "//me:by%20the%20way@")
        with typing(home) as typist:
            for prompt, answer in [*KEYS, *TO_GATEWAY[:1], (GATEWAY, url)]:
                typist.answer(prompt, answer)
            authority_file = "File with its own authority, if any"
            typist.answer(f"{authority_file} [none]: ")
            shown = url.replace("by%20the%20way", "***")
            came = typist.answer(f"Its address [{shown}]: ")
            assert "wrong    pushgateway: " in came
            assert "set PUSHGATEWAY_CA_FILE if it is your own authority's" in came
            typist.answer(f"{authority_file} [none]: ", "/nowhere.pem")
            came = typist.answer(
                f"{authority_file} [none]: ", str(tmp_path / "web.yml")
            )
            assert "wrong    PUSHGATEWAY_CA_FILE: no such file" in came
            typist.answer(f"Its address [{shown}]: ")
            typist.answer(f"{authority_file} [{tmp_path}/web.yml, or none]: ", "none")
            typist.answer(f"Its address [{shown}]: ")
            typist.answer(f"{authority_file} [none]: ", ca_file)
            typist.answer(ELSEWHERE)
            typist.answer(IN_FILES)
            finish(typist)
        run = as_cron(home, settings_file(home))

    assert run.status == 0, run.stderr
    said = over_files([str(settings_file(home))], {})
    assert (said["PUSHGATEWAY_URL"], said["PUSHGATEWAY_CA_FILE"]) == (url, ca_file)


# -- what is asked ---------------------------------------------------------------------


def test_every_way_is_offered():
    """Each source can be chosen, and each sink but those that need --every."""
    stays = [name for name in SINKS if getattr(load("sinks", name), "STAYS", False)]
    declared = {each.name: each for table in tables().values() for each in table}
    hidden = {question.name for question in everything() if question.hidden}

    assert READING.keys() == SOURCES.keys()
    assert PUSHING.keys() == SINKS.keys() - stays
    for question in everything():
        assert question.name in declared
    for name in declared:
        secret = name.endswith(("_KEY", "_PASSWORD", "_TOKEN"))
        assert (name in hidden) == secret, name


# -- what is written -------------------------------------------------------------------

printable = st.characters(exclude_categories=("Cc", "Cs"))
marks = st.sampled_from(" #'\"$\\=%&;{}!\u00e4")
values = st.text(marks | printable, min_size=1).map(str.strip).filter(bool)


@pytest.mark.case("K2")
@pytest.mark.drill("fuzz")
@given(values=st.lists(values, min_size=3, max_size=3))
def test_what_is_written_is_read_back(values, tmp_path_factory):
    """--env-file reads every value as it was, whatever is in it."""
    names = ("ECOFLOW_SECRET_KEY", "PUSHGATEWAY_PASSWORD", "EXTRA_LABELS")
    draft = Draft("/nonexistent")
    draft.update(zip(names, values, strict=True))
    file = tmp_path_factory.getbasetemp() / "property.env"
    file.write_text(draft.text())

    assert dict(over_files([str(file)], {})) == dict(draft)
