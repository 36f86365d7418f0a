"""Check: each step of a run on its own, in plain words, fit for a bug report.

Nothing of it lasts: no state, no spool; what goes to a sink is taken back. Every line
is a mark (ok, wrong, unknown), the step, what was found and, behind the last colon,
what to do about it (docs/check.md).
"""

from __future__ import annotations

import contextlib
import copy
import os
import platform
import re
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from ecoflow_push import __version__
from ecoflow_push.api import create_client
from ecoflow_push.api.models import short_sn
from ecoflow_push.api.rest import ADVICE, REGIONAL_HOSTS
from ecoflow_push.collect import Collection, Reading, collect
from ecoflow_push.deadline import Deadline, within
from ecoflow_push.errors import (
    ApiOutOfTime,
    AskedToWait,
    DeviceRefused,
    EcoflowApiException,
    EcoflowPushError,
    ExitStatus,
    KeysRefused,
    SinkDeferred,
    SinkDown,
    SinkError,
    SinkRedirected,
    SinkRejected,
    SinkUnauthorized,
)
from ecoflow_push.logs import redact
from ecoflow_push.outcome import Outcome, SinkOutcome
from ecoflow_push.settings import Settings
from ecoflow_push.sinks import create_pushgateway, create_remote_write
from ecoflow_push.sockets import dial, tls_context
from ecoflow_push.state import State
from ecoflow_push.transport import explain, proxy_for
from ecoflow_push.truth import Judge
from ecoflow_push.writer import MOST_CLOCK_OFFSET_SECONDS

if TYPE_CHECKING:
    import ssl

    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.api.base import EcoflowApiClient
    from ecoflow_push.sinks.pushgateway import PushgatewaySink
    from ecoflow_push.sinks.remote_write import RemoteWriteSink

ECOFLOW_SHARE = 0.6
# The two that pin a region first: what routes by location may lead elsewhere tomorrow.
REGIONS = tuple(f"https://{host}" for host in reversed(REGIONAL_HOSTS))
NO_DEVICE = "EcoFlow lists no device"
PORTAL = "check for a login portal or proxy in the way, and {url}"
# What to do where an error's own words do not say it: the first whose words fit.
CURES = (
    ("could not be resolved", "check the host in {url}, and this machine's DNS"),
    ("connection refused", "check that it runs, and the host and port in {url}"),
    ("certificate was refused", "check the host in {url}, or set {ca} to its CA"),
    ("TLS: ", "check that the port in {url} is one for https"),
    ("proxy refused", "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"),
    ("not EcoFlow's JSON", PORTAL),
    ("no JSON of EcoFlow's", PORTAL),
    ("web page", PORTAL),
    ("asked us to wait", "wait, and let the job run less often"),
    ("too busy", "wait, and let the job run less often"),
    (NO_DEVICE, "use the credentials of the account that the devices are bound to"),
    ("not tried again", "correct ECOFLOW_ACCOUNT_USER and _PASSWORD, or wait"),
    ("too many logins", "wait an hour, and keep STATE_DIR between runs"),
    ("client id", "give each job a PUSH_INSTANCE of its own"),
    ("no answer: asleep", "wake the device, and look for it in the app"),
    ("offline", "switch the device on, and look for its Wi-Fi in the app"),
    ("no permission", "use the credentials of the account that owns the device"),
    ("refused the subscription", "look for the device in the app of this account"),
    ("in time", "look for a firewall in the way, then raise RUN_DEADLINE"),
    ("HTTP 5", "wait, the fault is on its side; if it lasts, see its log"),
    ("HTTP 429", "wait, it has too much to do"),
    ("HTTP 4", "see its words and its log, and {url}"),
)
KEYS_CURE = "check ECOFLOW_ACCESS_KEY and ECOFLOW_SECRET_KEY"
OTHER_CURE = "try again; if it stays, report these lines"
READ_BY = {"rest": "developer keys", "mqtt": "app account", "": "nothing"}


class Line(NamedTuple):
    """What a step found; `mark` is ok, wrong or unknown."""

    mark: str
    step: str
    text: str


def cured(error: EcoflowPushError, prefix: str) -> str:
    """Return an error's words with one cure behind them.

    `prefix` is that of the variables which say where the server is.
    """
    text = str(error)
    code = getattr(error, "code", "")
    if "check " in text or (code in ADVICE and code != "6012"):
        return text
    names = {"url": f"{prefix}_URL", "ca": f"{prefix}_CA_FILE"}
    if prefix == "ECOFLOW":
        names["url"] = "ECOFLOW_API_HOST"
    cure = next((cure for words, cure in CURES if words in text), OTHER_CURE)
    if cure == OTHER_CURE and isinstance(error, KeysRefused):
        cure = KEYS_CURE
    return f"{text}: {cure.format(**names)}"


def show(line: Line) -> None:
    """Print one line without secrets; raises SinkError when nobody can read it."""
    text = str(redact(f"{line.mark:<8} {line.step}: {line.text}"))
    _print("".join(c if c.isprintable() else "?" for c in text))


def show_head() -> None:
    """Print what a bug report begins with; nothing of it names this host."""
    python = f"Python {platform.python_version()}"
    _print(f"ecoflow-push {__version__}, {python}, {platform.platform()}")


def show_faults(error: EcoflowPushError) -> ExitStatus:
    """Print each fault of the settings, and return the exit status."""
    show_head()
    # A fault may hold a semicolon of its own, with "else" behind it.
    for fault in re.split(r"; (?!else )", str(error).removeprefix("settings: ")):
        show(Line("wrong", "settings", f"{fault}: correct it, see docs/settings.md"))
    return error.status


class Check:
    """Goes through the steps of one run; one object, one check."""

    def __init__(
        self,
        clients: Sequence[EcoflowApiClient],
        state: State,
        judge: Judge,
        *,
        api_url: str,
        proxies: Mapping[str, str],
        tls: ssl.SSLContext,
        elsewhere: Mapping[str, Callable[[], EcoflowApiClient]],
        pushgateway: PushgatewaySink | None,
        remote_write: RemoteWriteSink | None,
        textfile_path: str | None,
        job: str,
        instance: str,
        deadline: float,
    ) -> None:
        """Store what is needed; `run` does the work.

        `elsewhere` makes clients with the same keys for other regions, by their URL.
        `deadline` (seconds) starts now.
        """
        self._clients = clients
        self._state = state
        self._judge = judge
        self._api_url = api_url
        self._host = api_url.partition("://")[2]
        self._proxies = proxies
        self._tls = tls
        self._elsewhere = elsewhere
        self._pushgateway = pushgateway
        self._remote_write = remote_write
        self._textfile_path = textfile_path
        self._group = {"job": f"{job}_check", "instance": instance}
        self._deadline = Deadline(deadline)
        self._outcome = Outcome(judge.only or judge.named)
        self._offset: float | None = None

    def run(self) -> ExitStatus:
        """Print what each step found, and return what a run would exit with."""
        show_head()
        try:
            self._check_settings()
            self._check_ecoflow()
            self._check_devices()
            self._check_sinks()
        finally:
            for each in (*self._clients, self._pushgateway, self._remote_write):
                if each:
                    each.close()
        status = self._outcome.status()
        _print(f"a run would exit {status:d} {status.name}")
        return status

    def _say(self, mark: str, step: str, text: str) -> None:
        known = {*self._outcome.named, *self._outcome.collection.readings}
        for sn in sorted(known, key=len, reverse=True):
            text = text.replace(sn, short_sn(sn))
        # A server that quotes our series quotes this host's name with them.
        text = text.replace(f'"{self._group["instance"]}"', '"..."')
        show(Line(mark, step, text))

    # -- EcoFlow --------------------------------------------------------------------

    def _check_settings(self) -> None:
        ways = " and ".join(READ_BY[client.source] for client in self._clients)
        self._say("ok", "settings", f"complete; devices are read by {ways}")
        if self._state.trouble:
            why = self._state.trouble.rpartition(": ")[2]
            cure = "let STATE_DIR name a folder that the job can write to"
            self._say("wrong", "state", f"nothing can be remembered, {why}: {cure}")

    def _check_ecoflow(self) -> None:
        deadline = self._deadline.share(ECOFLOW_SHARE)
        error = self._reach(deadline)
        growing = Collection()
        if error is None or self._clients[0].source != "rest":
            error = self._collect(growing, deadline)
        found = self._outcome.collection = growing.finished(error)
        self._outcome.truth = self._judge.judge(found, self._state)
        error = found.error
        offsets = [client.clock_offset() for client in self._clients]
        self._offset = next((each for each in offsets if each is not None), None)
        listed = found.listed is not None or str(error).startswith(NO_DEVICE)
        refused = isinstance(error, (KeysRefused, DeviceRefused))
        if error is None or listed or refused:
            self._say("ok", "EcoFlow", f"{self._host} answers")
        else:
            self._say("wrong", "EcoFlow", cured(error, "ECOFLOW"))
        self._check_clock(deadline)
        if error is None or listed:
            self._say("ok", "region", f"{self._host} is the right one")
            self._say("ok", "credentials", "accepted")
        elif getattr(error, "code", "") == "8513" and self._elsewhere:
            self._look_elsewhere(deadline)
        else:
            self._say("unknown", "region", "seen only when the credentials are taken")
            mark = "wrong" if refused else "unknown"
            why = cured(error, "ECOFLOW") if refused else "EcoFlow did not say"
            self._say(mark, "credentials", why)

    def _reach(self, deadline: Deadline) -> EcoflowApiException | None:
        """Look at name and certificate; return what a run would meet there."""
        if proxy_for(self._api_url, self._proxies):
            self._say("unknown", "DNS and TLS", "through a proxy, seen with the answer")
            return None
        parts = urlsplit(self._api_url)
        host, is_tls = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if is_tls else 80)

        def connect() -> None:
            with dial(host, port, deadline.left()) as sock:
                if is_tls:
                    self._tls.wrap_socket(sock, server_hostname=host).close()

        encrypted = "a trusted certificate" if is_tls else "not used, plain http"
        for step, work, good in (
            ("DNS", partial(socket.getaddrinfo, host, port), "the name is known"),
            ("TLS", connect, encrypted),
        ):
            try:
                done = within(deadline.share(0.5), work)
                reason = "" if done else "no complete answer in time"
            except (OSError, ValueError) as exc:
                reason = explain(exc)[0]
            if reason:
                late = "in time" in reason
                kind = ApiOutOfTime if late else EcoflowApiException
                error = kind(f"{self._host}: {reason}")
                self._say("wrong", step, cured(error, "ECOFLOW"))
                return error
            self._say("ok", step, good)
        return None

    def _collect(
        self, into: Collection, deadline: Deadline
    ) -> EcoflowApiException | None:
        # What EcoFlow asked for is kept. Keys that it refused are tried all the same,
        # once: somebody sits there and wants to know.
        if wait := self._state.pause_for(time.time()):
            return AskedToWait(f"asked us to wait, {wait:.0f} s more", wait)
        work = partial(collect, self._clients, self._outcome.named, into, deadline)
        if within(deadline, work):
            return None
        return ApiOutOfTime(f"{self._host}: no answer in time")

    def _check_clock(self, deadline: Deadline) -> None:
        if self._offset is None and self._remote_write:
            self._offset = self._remote_write.ask_the_time(deadline.share(0.5))
        if self._offset is None:
            self._say("unknown", "clock", "nobody said what time it is")
            return
        way = "ahead of" if self._offset > 0 else "behind"
        text = f"{abs(self._offset):.0f} s {way} the servers'"
        if abs(self._offset) > MOST_CLOCK_OFFSET_SECONDS:
            self._say("wrong", "clock", f"{text}: set the clock, and keep it with NTP")
        else:
            self._say("ok", "clock", text)

    def _look_elsewhere(self, deadline: Deadline) -> None:
        """Say where the key that is unknown here is known."""
        hosts = [self._host]
        for url, make in self._elsewhere.items():
            other = url.partition("://")[2]
            error = self._ask_elsewhere(make, deadline.share(0.5))
            # The service looks at the signature of keys that it knows.
            if error is None or error.code == "8521":
                found = f"the key is unknown at {self._host} and known at {other}"
                self._say("wrong", "region", f"{found}: set ECOFLOW_API_HOST={other}")
                mark = "wrong" if error else "ok"
                text = cured(error, "ECOFLOW") if error else f"accepted by {other}"
                self._say(mark, "credentials", text)
                return
            hosts += [other] * (error.code == "8513")
        self._say("unknown", "region", "no host that could be asked knows the key")
        text = f"code 8513: the access key is unknown at {', '.join(hosts)}"
        self._say("wrong", "credentials", f"{text}: check ECOFLOW_ACCESS_KEY")

    def _ask_elsewhere(
        self, make: Callable[[], EcoflowApiClient], deadline: Deadline
    ) -> EcoflowApiException | None:
        client = make()
        try:
            done = within(deadline, partial(client.get_devices, deadline))
        except EcoflowApiException as exc:
            return exc
        finally:
            client.close()
        return None if done else ApiOutOfTime("no answer in time")

    def _check_devices(self) -> None:
        found = self._outcome.collection
        error = found.error
        asked = {
            sn: reading
            for sn, reading in sorted(found.readings.items())
            if error is None or reading.error is not error
        }
        if str(error).startswith(NO_DEVICE):
            self._say("wrong", "devices", cured(error, "ECOFLOW"))
        elif not asked:
            self._say("unknown", "devices", "none was asked")
        for sn, reading in asked.items():
            facts = self._judge.describe(sn, reading, self._state.devices[sn])
            mark, text = _describe(reading)
            self._say(mark, "device", f"{short_sn(sn)} ({facts.product_name}), {text}")

    # -- sinks ----------------------------------------------------------------------

    def _check_sinks(self) -> None:
        sinks: list[tuple[str, str, Callable[[Deadline, list[str]], None]]] = []
        if self._pushgateway:
            push = partial(self._try_pushgateway, self._pushgateway)
            sinks.append(("pushgateway", "PUSHGATEWAY", push))
        if self._remote_write:
            write = partial(self._try_remote_write, self._remote_write)
            sinks.append(("remote-write", "REMOTE_WRITE", write))
        if self._textfile_path:
            sinks.append(("textfile", "TEXTFILE", self._try_textfile))
        if not sinks:
            cure = "set PUSHGATEWAY_URL, REMOTE_WRITE_URL or TEXTFILE_PATH"
            self._say("unknown", "sinks", f"none is set: {cure}")
        for place, (name, prefix, work) in enumerate(sinks):
            sink = self._outcome.sinks[name] = SinkOutcome()
            share = self._deadline.share(0.9 / (len(sinks) - place))
            notes: list[str] = []
            try:
                if not within(share, partial(work, share, notes)):
                    raise SinkDown(f"{name}: no answer in time")
            except SinkError as exc:
                sink.errors.append(exc)
                text = cured(exc, prefix).removeprefix(name).lstrip(": ")
                self._say("wrong", name, text)
            else:
                sink.delivered = 1
                good = "took the test, gone again"
                self._say(*(("unknown", name, notes[0]) if notes else ("ok", name, good)))
