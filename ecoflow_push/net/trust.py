"""Whom a connection trusts, and who we are to it: files in PEM form, and TLS of them.

Imports stay light: settings hold it, and many a run speaks no TLS.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ecoflow_push.errors import Fault, SettingsError
from ecoflow_push.net.deadline import limit_of

if TYPE_CHECKING:
    import ssl

# In a process that stays: a folder does not show what was changed in one of its files.
LIFE_SECONDS = 3600.0
MOST_CONTEXTS = 8

#: The contexts of this process, by their files: what those were like, and when it was
#: made. Reading a trust store is the dear part of TLS.
_made: dict[object, tuple[object, float, ssl.SSLContext]] = {}


class Trust:
    """Paths of PEM files, None is the system's trust, and whose variables say so.

    `prefix` is what the names of those variables begin with, "" if there are none.
    """

    __slots__ = ("ca_file", "cert_file", "key_file", "prefix")

    # No NamedTuple, here and where a start makes few: making the class is dear.
    def __init__(
        self,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        *,
        prefix: str = "",
    ) -> None:
        self.ca_file = ca_file
        self.cert_file = cert_file
        self.key_file = key_file
        self.prefix = prefix

    def context(self, *, obedient: bool = True) -> ssl.SSLContext:
        """Return a verifying client context, by default for sockets that obey.

        One serves the whole process, until a file changes. Raises SettingsError when a
        file cannot be used.
        """
        key = (self.ca_file, self.cert_file, self.key_file, obedient)
        stamp, now = self.stamp(), time.monotonic()
        known = _made.get(key)
        if known and known[0] == stamp and now - known[1] < LIFE_SECONDS:
            return known[2]
        if len(_made) >= MOST_CONTEXTS:
            _made.clear()
        context = self._create(obedient=obedient)
        _made[key] = stamp, now, context
        return context

    def stamp(self) -> tuple[object, ...]:
        """Return what is another one as soon as a file is, in place or replaced."""
        own = [self.ca_file] if self.ca_file else _of_the_system()
        return tuple(map(_look_of, filter(None, (*own, self.cert_file, self.key_file))))

    def _create(self, *, obedient: bool) -> ssl.SSLContext:
        import ssl

        from ecoflow_push.net.sockets import Context, DeadlineSSLSocket

        context = Context(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if obedient:
            context.sslsocket_class = DeadlineSSLSocket
        try:
            if self.ca_file:
                context.load_verify_locations(cafile=self.ca_file)
            else:
                _trust_system(context)
        except (OSError, ssl.SSLError) as exc:
            raise limit_of(exc) or SettingsError([self._ca_fault()]) from exc
        if self.cert_file:
            try:
                # An encrypted key must fail, not ask for its passphrase at a terminal.
                context.load_cert_chain(self.cert_file, self.key_file, password=b"")
            except (OSError, ssl.SSLError, ValueError) as exc:
                text = "not a certificate with its unencrypted key"
                fault = Fault(f"{self.prefix}_CERT_FILE", text)
                raise limit_of(exc) or SettingsError([fault]) from exc
        return context

    def _ca_fault(self) -> Fault:
        variable = f"{self.prefix}_CA_FILE"
        if self.ca_file:
            return Fault(variable, "not a CA bundle in PEM form")
        cure = f"set {variable}" if self.prefix else "install its CA certificates"
        return Fault("", "the system's trust cannot be read", cure)


def _look_of(path: str) -> tuple[object, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return (path,)
    # The inode's own time changes with whatever is done to the file.
    return path, found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns


def _of_the_system() -> list[str]:
    import ssl

    paths = ssl.get_default_verify_paths()
    return [paths.openssl_capath, paths.openssl_cafile]


def _trust_system(context: ssl.SSLContext) -> None:
    """Trust what the system trusts, as cheaply as it allows.

    A hashed directory is read certificate by certificate when one is needed; parsing
    a whole bundle costs more than all the rest of a run's TLS.
    """
    import ssl

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
