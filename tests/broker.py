"""A real mosquitto as EcoFlow's broker is: TLS, passwords, ACL, client id prefixes."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import trustme

from ecoflow_push.simulator.cloud import USER_ID
from tests.fetch_servers import environ as library_path
from tests.support import eventually, free_port, real_server

BROKER_USER = "app-0123456789abcdef"
BROKER_PASSWORD = "fedcba9876543210"
ONE = MappingProxyType({BROKER_USER: (BROKER_PASSWORD, USER_ID)})


class Mosquitto:
    """A running mosquitto; `log` is what it says."""

    def __init__(self, port: int, log: Path, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.process = process
        self._log = log

    def client_ids(self) -> list[str]:
        """Return the client id of every connection, the simulator's left out."""
        lines = [
            line.split(" as ")[1].split(" (")[0]
            for line in self._log.read_text().splitlines()
            if "New client connected" in line
        ]
        return [name for name in lines if name != "ANDROID_simulated_devices"]

    def has_acknowledged(self, end: str) -> bool:
        """Return whether a client has acknowledged a message of such a topic."""
        text = self._log.read_text()
        form = rf"Sending PUBLISH to (\S+) \(d\d, q1, r\d, m(\d+), '\S+{end}'"
        return any(
            f"Received PUBACK from {client} (Mid: {mid}, RC:0)" in text
            for client, mid in re.findall(form, text)
        )


@contextmanager
def mosquitto(
    folder: Path,
    authority: trustme.CA | None,
    *lines: str,
    users: Mapping[str, tuple[str, str]] = ONE,
    log_type: str = "all",
) -> Iterator[Mosquitto]:
    """Run mosquitto with a password file, an ACL, client id prefixes and, mostly, TLS.

    `users` have a password, and the id of the app's user whose topics are theirs.
    """
    folder.mkdir(exist_ok=True)
    program = real_server("mosquitto")
    port = free_port()
    secrets = {user: password for user, (password, _) in users.items()} | {"sim": "sim"}
    # As a file, since each start of the program costs; it makes hashes of it.
    (folder / "passwd").write_text(
        "".join(f"{user}:{password}\n" for user, password in secrets.items())
    )
    subprocess.run(
        [program.parent.parent / "bin" / "mosquitto_passwd", "-U", folder / "passwd"],
        check=True,
        env=library_path(program),
    )
    (folder / "acl").write_text(
        "".join(
            f"user {user}\n"
            "topic read /app/device/property/#\n"
            f"topic read /app/{user_id}/+/thing/property/get_reply\n"
            f"topic write /app/{user_id}/+/thing/property/get\n"
            for user, (_, user_id) in users.items()
        )
        + "user sim\ntopic readwrite #\n"
    )
    tls = _tls(folder, authority) if authority else []
    config = [
        f"listener {port} 127.0.0.1",
        *tls,
        "allow_anonymous false",
        f"password_file {folder}/passwd",
        f"acl_file {folder}/acl",
        "clientid_prefixes ANDROID_",
        "persistence false",
        f"log_dest file {folder}/log",
        f"log_type {log_type}",
        "user root",
        *lines,
    ]
    (folder / "mosquitto.conf").write_text("\n".join(config) + "\n")
    process = subprocess.Popen(
        [program, "-c", folder / "mosquitto.conf"], env=library_path(program)
    )

    def is_up() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        return False

    try:
        assert eventually(is_up), "mosquitto does not answer"
        yield Mosquitto(port, folder / "log", process)
    finally:
        # One that a test has stopped would not hear the other signal.
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(timeout=30)


def _tls(folder: Path, authority: trustme.CA) -> list[str]:
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    server = authority.issue_cert("localhost", "mqtt.ecoflow.com")
    server.private_key_pem.write_to_path(str(folder / "server.key"))
    server.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    return [
        f"cafile {folder}/ca.pem",
        f"certfile {folder}/server.pem",
        f"keyfile {folder}/server.key",
    ]
