"""Whom a connection trusts, and who we are to it: files in PEM form, and TLS of them.

Imports stay light: settings hold it, and many a run speaks no TLS.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ecoflow_push.errors import Fault, SettingsError
from ecoflow_push.net.deadline import limit_of

if TYPE_CHECKING:
    import ssl


class Trust:
    """Paths of PEM files, None is the system's trust, and whose variables say so.

    `prefix` is what the names of those variables begin with, "" if there are none.
    """

    __slots__ = ("_contexts", "ca_file", "cert_file", "key_file", "prefix")

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
        self._contexts: dict[bool, ssl.SSLContext] = {}

    def context(self, *, obedient: bool = True) -> ssl.SSLContext:
        """Return a verifying client context, by default for sockets that obey.

        It is made once: reading a trust store is the dear part. Raises SettingsError
        when a file cannot be used.
        """
        if obedient not in self._contexts:
            self._contexts[obedient] = self._made(obedient=obedient)
        return self._contexts[obedient]

    def _made(self, *, obedient: bool) -> ssl.SSLContext:
        import ssl

        from ecoflow_push.net.sockets import DeadlineSSLSocket

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
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
