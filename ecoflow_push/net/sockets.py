"""Sockets that obey a deadline, and the TLS context that makes more of them.

The timeout that such a socket is given is its budget for everything that follows, not
for one call: a server that drips a byte a second gains nothing.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from typing import Any

from ecoflow_push.errors import SettingsError

CONNECT_SECONDS = 8.0


def tls_context(
    ca_file: str | None,
    cert_file: str | None = None,
    key_file: str | None = None,
    *,
    obedient: bool = True,
) -> ssl.SSLContext:
    """Return a verifying client context, by default for sockets that obey.

    Raises SettingsError when a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if obedient:
        context.sslsocket_class = DeadlineSSLSocket
    try:
        if ca_file:
            context.load_verify_locations(cafile=ca_file)
        else:
            _trust_system(context)
    except (OSError, ssl.SSLError) as exc:
        raise SettingsError(
            f"settings: {ca_file}: not a CA bundle in PEM form"
        ) from exc
    if cert_file:
        try:
            # An encrypted key must fail, not ask for its passphrase at a terminal.
            context.load_cert_chain(cert_file, key_file, password=b"")
        except (OSError, ssl.SSLError, ValueError) as exc:
            raise SettingsError(
                f"settings: {cert_file}: not a certificate with its unencrypted key"
            ) from exc
    return context


def _trust_system(context: ssl.SSLContext) -> None:
    """Trust what the system trusts, as cheaply as it allows.

    A hashed directory is read certificate by certificate when one is needed; parsing
    a whole bundle costs more than all the rest of a run's TLS.
    """
    paths = ssl.get_default_verify_paths()
    folder = paths.openssl_capath
    if os.path.isdir(folder):
        with os.scandir(folder) as entries:
            # OpenSSL's names: eight hex digits of a hash, a dot, a number.
            if any(entry.name[8:] in (".0", ".1") for entry in entries):
                context.load_verify_locations(capath=folder)
                return
    bundle = paths.openssl_cafile
    if not os.path.isfile(bundle):
        import certifi

        bundle = certifi.where()
    context.load_verify_locations(cafile=bundle)


class _Rearmed:
    """A socket whose timeout is the budget of all that follows, not of one call."""

    _until: float | None = None

    def settimeout(self, value: float | None) -> None:
        self._until = None if value is None else time.monotonic() + value
        super().settimeout(value)  # type: ignore[misc]  # of the socket beside us

    def _rearm(self) -> None:
        if self._until is not None:
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError("the deadline passed")
            super().settimeout(left)  # type: ignore[misc]

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._rearm()
        return super().recv_into(*args, **kwargs)  # type: ignore[misc, no-any-return]

    def recv(self, *args: Any, **kwargs: Any) -> bytes:
        self._rearm()
        return super().recv(*args, **kwargs)  # type: ignore[misc, no-any-return]

    def send(self, *args: Any, **kwargs: Any) -> int:
        self._rearm()
        return super().send(*args, **kwargs)  # type: ignore[misc, no-any-return]

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self._rearm()
        super().sendall(*args, **kwargs)  # type: ignore[misc]

    def do_handshake(self, *args: Any, **kwargs: Any) -> None:
        self._rearm()
        super().do_handshake(*args, **kwargs)  # type: ignore[misc]


class DeadlineSocket(_Rearmed, socket.socket):
    """A plain socket that obeys."""


class DeadlineSSLSocket(_Rearmed, ssl.SSLSocket):
    """A TLS socket that obeys."""


def dial(host: str, port: int, seconds: float) -> DeadlineSocket:
    """Return a connected socket with what is left of `seconds` as its budget.

    Raises OSError.
    """
    until = time.monotonic() + seconds
    # Against one dead address among several: the next one still gets its chance.
    plain = socket.create_connection((host, port), min(seconds, CONNECT_SECONDS))
    left = until - time.monotonic()
    if left <= 0:
        # Name resolution knows no timeout: by now others have given this up.
        plain.close()
        raise TimeoutError("the deadline passed")
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return obedient(plain, left)


def obedient(plain: socket.socket, seconds: float | None) -> DeadlineSocket:
    """Return the same connection as a socket that obeys."""
    sock = DeadlineSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
    sock.settimeout(seconds)
    return sock
