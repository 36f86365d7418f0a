"""A real mosquitto as EcoFlow's broker is: TLS, passwords, ACL, client id prefixes."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from ecoflow_push.simulator.cloud import USER_ID
from tests.fetch_servers import environ as library_path
from tests.support import eventually, free_port, real_server

BROKER_USER = "app-0123456789abcdef"
BROKER_PASSWORD = "fedcba9876543210"


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
def mosquitto(folder: Path, authority: trustme.CA, *lines: str) -> Iterator[Mosquitto]:
    """Run mosquitto with TLS, a password file, an ACL and client id prefixes."""
    folder.mkdir(exist_ok=True)
    program = real_server("mosquitto")
    port = free_port()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    server = authority.issue_cert("localhost", "mqtt.ecoflow.com")
    server.private_key_pem.write_to_path(str(folder / "server.key"))
    server.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    passwords = program.parent.parent / "bin" / "mosquitto_passwd"
    for user, password in ((BROKER_USER, BROKER_PASSWORD), ("sim", "sim")):
        create = [] if (folder / "passwd").exists() else ["-c"]
        subprocess.run(
            [passwords, *create, "-b", folder / "passwd", user, password],
            check=True,
            env=library_path(program),
        )
    (folder / "acl").write_text(
        f"user {BROKER_USER}\n"
        "topic read /app/device/property/#\n"
        f"topic read /app/{USER_ID}/+/thing/property/get_reply\n"
        f"topic write /app/{USER_ID}/+/thing/property/get\n"
        "user sim\ntopic readwrite #\n"
    )
    config = [
        f"listener {port} 127.0.0.1",
        f"cafile {folder}/ca.pem",
        f"certfile {folder}/server.pem",
        f"keyfile {folder}/server.key",
        "allow_anonymous false",
        f"password_file {folder}/passwd",
        f"acl_file {folder}/acl",
        "clientid_prefixes ANDROID_",
        "persistence false",
        f"log_dest file {folder}/log",
        "log_type all",
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
