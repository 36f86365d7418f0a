"""What the sinks that push to a server share: its variables, the road, its answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, quote, unquote

from ecoflow_push.config.kinds import Secret, Variable
from ecoflow_push.errors import Unreachable, WriteError
from ecoflow_push.memory.lock import fingerprint
from ecoflow_push.net.exchange import (
    authorization,
    open_exchange,
    proxy_for,
    variable_of,
)
from ecoflow_push.net.retry import Reply, Request, Transport
from ecoflow_push.net.trust import Trust

if TYPE_CHECKING:
    from ecoflow_push.config.environ import Reader
    from ecoflow_push.errors import Bad
    from ecoflow_push.net.deadline import Deadline

PORTAL_CURE = "check for a login portal or proxy in the way, and {url}"


class Server:
    """An HTTP server that takes what is pushed, and how it is to be approached.

    `prefix` is what the names of its variables begin with.
    """

    __slots__ = ("bearer_token", "password", "prefix", "trust", "url", "username")

    def __init__(
        self,
        prefix: str,
        url: str,
        *,
        username: str | None = None,
        password: Secret | None = None,
        bearer_token: Secret | None = None,
        trust: Trust = Trust(),  # noqa: B008 - immutable
    ) -> None:
        self.prefix = prefix
        self.url = url
        self.username = username
        self.password = password
        self.bearer_token = bearer_token
        self.trust = trust

    @property
    def name(self) -> str:
        """The sink's name."""
        return self.prefix.lower().replace("_", "-")

    def headers(self) -> dict[str, str]:
        """Return those that show who we are."""
        password, token = self.password, self.bearer_token
        return authorization(
            self.username,
            password.reveal() if password else None,
            token.reveal() if token else None,
        )


def server_variables(
    prefix: str,
    first: tuple[Variable, ...],
    between: tuple[Variable, ...] = (),
    *,
    what: str,
    token: str = "a token instead",  # noqa: S107 - words about one
) -> tuple[Variable, ...]:
    """Return the variables of a server, in the order of the docs.

    `first` and `between`, behind the credentials, are what its sink has beside. `what`
    it is called, and what its `token` is.
    """
    key_place = "in the certificate's file"
    return (
        *first,
        Variable(f"{prefix}_USERNAME", "basic authentication"),
        Variable(f"{prefix}_PASSWORD", "its password"),
        Variable(f"{prefix}_BEARER_TOKEN", token),
        *between,
        Variable(
            f"{prefix}_CA_FILE",
            f"CA bundle for the {what}",
            "the system's trust",
            is_path=True,
        ),
        Variable(f"{prefix}_CERT_FILE", "client certificate in PEM form", is_path=True),
        Variable(
            f"{prefix}_KEY_FILE", "its key, not encrypted", key_place, is_path=True
        ),
    )


def read_server(read: Reader, prefix: str, *, query: bool = False) -> Server | None:
    """Return the server of the variables that begin with `prefix`, None if unset."""
    url = read.url(f"{prefix}_URL", query=query)
    username = read.text(f"{prefix}_USERNAME")
    password = read.password(f"{prefix}_PASSWORD")
    token = read.header_secret(f"{prefix}_BEARER_TOKEN")
    basic = read.pair(f"{prefix}_USERNAME", f"{prefix}_PASSWORD")
    if basic and token:
        read.fault(f"{prefix}_BEARER_TOKEN", f"not together with {prefix}_USERNAME")
    if url and url.username is not None:
        if basic or token:
            read.fault(f"{prefix}_URL", "has credentials, and so have other variables")
        username = unquote(url.username)
        password = Secret(unquote(url.password or ""))
    ca_file, cert_file, key_file = (
        read.existing_file(f"{prefix}_{file}_FILE") for file in ("CA", "CERT", "KEY")
    )
    if key_file and not (cert_file or read.is_faulty(f"{prefix}_CERT_FILE")):
        read.fault(f"{prefix}_KEY_FILE", f"needs {prefix}_CERT_FILE")
    if not url:
        return None
    return Server(
        prefix,
        _without_userinfo(url),
        username=username,
        password=password,
        bearer_token=token,
        trust=Trust(ca_file, cert_file, key_file, prefix=prefix),
    )


def _without_userinfo(url: SplitResult) -> str:
    netloc, path = url.netloc.rpartition("@")[2], quote(url.path, safe="/%")
    base = f"{url.scheme}://{netloc}{path}"
    # A query stands behind a path, if only the root.
    return f"{base}{'/' * (not path)}?{url.query}" if url.query else base


class Connection:
    """The road to a server, and what its answers mean."""

    def __init__(
        self,
        server: Server,
        *,
        attempts: int,
        longest_wait: float,
        headers: Mapping[str, str] | None = None,
        proxies: Mapping[str, str] | None = None,
        needs_body: bool = True,
        is_worth_a_retry: Callable[[Reply], bool] | None = None,
        longest_try: float = math.inf,
    ) -> None:
        """Store what is needed, for arguments see Transport; nothing is contacted.

        `headers` go with every request. One try may last what is left of its deadline:
        who is slow because he is busy is slower still if he is asked again. Raises
        SettingsError when a certificate or key file cannot be used.
        """
        self.url = server.url
        self.headers = {**(headers or {}), **server.headers()}
        #: The server, for people.
        self.what = f"{server.name} {server.url.partition('://')[2].partition('/')[0]}"
        self._prefix = server.prefix
        #: The variable of a proxy that can answer in the server's stead: not of one
        #: that tunnels.
        self._proxy = ""
        if (
            proxies
            and server.url.startswith("http:")
            and proxy_for(server.url, proxies)
        ):
            self._proxy = variable_of(server.url, proxies)
        self._transport = Transport(
            open_exchange(
                server.url,
                trust=server.trust,
                proxies=proxies,
                needs_body=needs_body,
                who=fingerprint(*self.headers.values()),
            ),
            attempts=attempts,
            longest_wait=longest_wait,
            is_worth_a_retry=is_worth_a_retry,
            longest_try=longest_try,
            variables=(f"{server.prefix}_URL", f"{server.prefix}_CA_FILE"),
        )

    def send(
        self, build: Callable[[], Request], deadline: Deadline, tries: int | None = None
    ) -> Reply:
        """Return the answer, whatever it says; raises WriteError if there is none."""
        try:
            return self._transport.send(build, deadline, tries)
        except Unreachable as exc:
            text = f"{self.what}: {exc.text}"
            raise WriteError(text, exc.cure, is_down=exc.down) from exc

    def fault(
        self, reply: Reply, *, says: str = "", address_cure: str = ""
    ) -> WriteError:
        """Return what an answer means that is no success.

        `says` stands behind its status; `address_cure` is for a redirect.
        """
        status, text = reply.status, f"{self.what}: HTTP {reply.status}{says}"
        bad: Bad = "server"
        wait = 0.0
        if 300 <= status < 400:
            bad, text = "address", f"{text}, a redirect{reply.leads_to()}, not followed"
            cure = address_cure or f"check {self._prefix}_URL"
        elif status in (401, 403):
            bad, text = "credentials", f"{text}, credentials refused"
            text += f": {reply.words()}" if reply.body else ""
            cure = f"check {self._prefix}_USERNAME and _PASSWORD, or _BEARER_TOKEN"
            if self._proxy and status == 403:
                cure = f"let the proxy in {self._proxy} allow it, or {cure}"
        elif status == 407:
            bad, text = "credentials", f"{text}, a proxy wants a user and a password"
            cure = f"check {self._prefix}_URL, and the proxy in the way"
            if self._proxy:
                from ecoflow_push.net.explain import of_proxy

                cure = of_proxy(status, "", self._proxy).cure
        else:
            way = " by way of a proxy" * self._may_be_of_a_proxy(status)
            text, cure = f"{text}{way}: {reply.words()}", self._cure(status)
            if 400 <= status < 500 and status not in (408, 425, 429):
                bad = "content"
            else:
                wait = reply.retry_after() or 0.0
        return WriteError(text, cure, bad=bad, answered=status, retry_after=wait)

    def page(self, text: str) -> WriteError:
        """Return what it means that something else answered."""
        cure = PORTAL_CURE.format(url=f"{self._prefix}_URL")
        return WriteError(f"{self.what}: {text} a web page (a login portal?)", cure)

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of the last answer's, in seconds."""
        return self._transport.clock_offset()

    def close(self) -> None:
        """Close the kept connections."""
        self._transport.close()

    def _cure(self, status: int) -> str:
        if status == 429:
            return "wait, it has too much to do"
        if 400 <= status < 500:
            return f"check {self._prefix}_URL; its own words and log may say more"
        if self._may_be_of_a_proxy(status):
            return (
                f"look into the log of the proxy in {self._proxy}, then of the server"
            )
        return "wait, the fault is on its side" if 500 <= status < 600 else ""

    def _may_be_of_a_proxy(self, status: int) -> bool:
        """Return whether a proxy may say so, of the server behind it."""
        return bool(self._proxy) and status in (502, 503, 504)
