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
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ecoflow_push import __version__
from ecoflow_push.api import create_client
from ecoflow_push.api.models import short_sn
from ecoflow_push.api.rest import ADVICE, REGIONAL_HOSTS
from ecoflow_push.config.settings import Settings
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
from ecoflow_push.memory.state import State, fingerprint
from ecoflow_push.net.deadline import Deadline, within
from ecoflow_push.net.explain import explain
from ecoflow_push.net.retry import proxy_for
from ecoflow_push.net.sockets import dial, tls_context
from ecoflow_push.run.collect import Collection, Reading, collect
from ecoflow_push.run.outcome import Outcome, SinkOutcome
from ecoflow_push.run.updates import Judge, create_judge
from ecoflow_push.run.writer import MOST_CLOCK_OFFSET_SECONDS, spool_folder
from ecoflow_push.sinks import create_pushgateway, create_remote_write

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
    ("certificate was refused", "check the host in {url}, or set ECOFLOW_CA_FILE"),
    ("TLS: ", "check that the port in {url} is one for https"),
    ("proxy refused", "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"),
    ("asked us to wait", "wait, and let the job run less often"),
    ("too many logins", "wait an hour, and keep STATE_DIR between runs"),
    # Before all that a server's own words could hold.
    ("HTTP 429", "wait, it has too much to do"),
    ("HTTP 4", "check {url}; its own words and log may say more"),
    ("HTTP 5", "wait, the fault is on its side"),
    ("too busy", "wait, and let the job run less often"),
    ("web page", PORTAL),
    ("not EcoFlow's JSON", PORTAL),
    ("no JSON of EcoFlow's", PORTAL),
    (NO_DEVICE, "use the credentials of the account that the devices are bound to"),
    ("not tried again", "correct ECOFLOW_ACCOUNT_USER and _PASSWORD, or wait"),
    ("client id", "give each job a PUSH_INSTANCE of its own"),
    ("no answer: asleep", "wake the device, and look for it in the app"),
    ("offline", "switch the device on, and look for its Wi-Fi in the app"),
    ("no permission", "use the credentials of the account that owns the device"),
    ("refused the subscription", "look for the device in the app of this account"),
    ("in time", "look for a firewall in the way, then raise RUN_DEADLINE"),
)
KEYS_CURE = "check ECOFLOW_ACCESS_KEY and ECOFLOW_SECRET_KEY"
OTHER_CURE = "try again; if it stays, report these lines"
READ_BY = {"rest": "developer keys", "mqtt": "app account", "": "nothing"}


def cured(error: EcoflowPushError, url: str) -> str:
    """Return an error's words with one cure behind them.

    `url` is the variable that says where the server is.
    """
    text = str(error)
    code = getattr(error, "code", "")
    has_cure = "check " in text or ": set " in text
    if has_cure or (code in ADVICE and code != "6012"):
        return text
    cure = next((cure for words, cure in CURES if words in text), OTHER_CURE)
    if cure == OTHER_CURE and isinstance(error, KeysRefused):
        cure = KEYS_CURE
    return f"{text}: {cure.format(url=url)}"


def show(mark: str, step: str, text: str) -> None:
    """Print one line without secrets; raises SinkError when nobody can read it."""
    line = str(redact(f"{mark:<8} {step}: {text}"))
    _print("".join(c if c.isprintable() else "?" for c in line))


def show_head() -> None:
    """Print what a bug report begins with; nothing of it names this host."""
    python = f"Python {platform.python_version()}"
    _print(f"ecoflow-push {__version__}, {python}, {platform.platform()}")


def show_faults(error: EcoflowPushError) -> ExitStatus:
    """Print each fault of the settings, and return the exit status."""
    show_head()
    # A fault may hold a semicolon of its own, with "else" behind it.
    for fault in re.split(r"; (?!else )", str(error).removeprefix("settings: ")):
        cure = "" if ": set " in fault else ": correct it, see docs/settings.md"
        show("wrong", "settings", fault + cure)
    return show_status(error.status)


def show_status(status: ExitStatus) -> ExitStatus:
    """Print the last line, and return the exit status."""
    _print(f"a run would exit {status:d} {status.name}")
    return status


@dataclass(kw_only=True)
class Check:
    """Goes through the steps of one run; one object, one check."""

    clients: Sequence[EcoflowApiClient]
    state: State
    judge: Judge
    api_url: str
    proxies: Mapping[str, str]
    tls: ssl.SSLContext
    #: Clients with the same keys for the other regions, by their URL.
    elsewhere: Mapping[str, Callable[[], EcoflowApiClient]]
    pushgateway: PushgatewaySink | None
    remote_write: RemoteWriteSink | None
    textfile_path: str | None
    #: The labels of the test series.
    group: Mapping[str, str]
    deadline: Deadline
    outcome: Outcome
    #: For how long (s) runs let these keys rest, which EcoFlow refused before.
    rest: float = 0.0
    has_sink: bool = True
    #: How far our clock is ahead (s), None as long as it is unknown.
    offset: float | None = None

    def run(self) -> ExitStatus:
        """Print what each step found, and return what a run would exit with."""
        show_head()
        try:
            self._check_settings()
            self._check_ecoflow()
            self._check_devices()
            self._check_sinks()
        finally:
            for each in (*self.clients, self.pushgateway, self.remote_write):
                if each:
                    each.close()
        # A run without a sink does not even begin.
        status = self.outcome.status() if self.has_sink else ExitStatus.CONFIG
        return show_status(status)

    @property
    def host(self) -> str:
        """Return the EcoFlow host that is to be asked."""
        return self.api_url.partition("://")[2]

    @property
    def proxy(self) -> str | None:
        """Return the proxy on the way to EcoFlow, None if there is none."""
        return proxy_for(self.api_url, self.proxies)

    def _cured(self, error: EcoflowApiException) -> str:
        return cured(error, "HTTPS_PROXY" if self.proxy else "ECOFLOW_API_HOST")

    def _say(self, mark: str, step: str, text: str) -> None:
        known = {*self.outcome.named, *self.outcome.collection.readings}
        for sn in sorted(known, key=len, reverse=True):
            text = text.replace(sn, short_sn(sn))
        # A server that quotes our series quotes this host's name with them.
        text = text.replace(f'"{self.group["instance"]}"', '"..."')
        show(mark, step, text)

    # -- EcoFlow --------------------------------------------------------------------

    def _check_settings(self) -> None:
        ways = " and ".join(READ_BY[client.source] for client in self.clients)
        self._say("ok", "settings", f"complete; devices are read by {ways}")
        if self.state.trouble:
            why = self.state.trouble.rpartition(": ")[2]
            cure = "let STATE_DIR name a folder that the job can write to"
            self._say("wrong", "state", f"nothing can be remembered, {why}: {cure}")

    def _check_ecoflow(self) -> None:
        deadline = self.deadline.share(ECOFLOW_SHARE)
        growing = Collection()
        error = self._reach(deadline)
        # The app account may need nothing but the broker.
        is_asked = error is None or self.clients[0].source != "rest"
        if is_asked:
            error = self._collect(growing, deadline)
        found = self.outcome.collection = growing.finished(error)
        self.outcome.truth = self.judge.judge(found, self.state)
        error = found.error
        offsets = [client.clock_offset() for client in self.clients]
        known = [offset for offset in offsets if offset is not None]
        self.offset = max(known, key=abs, default=None)
        listed = found.listed is not None or str(error).startswith(NO_DEVICE)
        refused = isinstance(error, (KeysRefused, DeviceRefused))
        if not is_asked:
            self._say("unknown", "EcoFlow", "not asked")
        elif error is None or refused or str(error).startswith(NO_DEVICE):
            self._say("ok", "EcoFlow", f"{self.host} answers")
        else:
            self._say("wrong", "EcoFlow", self._cured(error))
        self._check_clock(deadline)
        if error is None or listed:
            self._say("ok", "region", f"{self.host} is the right one")
            again = ", again: the next runs use them" if self.rest else ""
            self._say("ok", "credentials", f"accepted{again}")
            if self.rest:
                self.state.accepted()
                self.state.save()
        elif getattr(error, "code", "") == "8513" and self.elsewhere:
            self._look_elsewhere(deadline)
        else:
            self._say("unknown", "region", "seen only when the credentials are taken")
            mark = "wrong" if refused else "unknown"
            why = self._cured(error) if refused else "EcoFlow did not say"
            self._say(mark, "credentials", why)

    def _reach(self, deadline: Deadline) -> EcoflowApiException | None:
        """Look at name and certificate; return what a run would meet there."""
        if self.proxy:
            self._say("unknown", "DNS and TLS", "through a proxy, seen with the answer")
            return None
        parts = urlsplit(self.api_url)
        host, is_tls = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if is_tls else 80)

        def connect() -> None:
            with dial(host, port, deadline.left()) as sock:
                if is_tls:
                    self.tls.wrap_socket(sock, server_hostname=host).close()

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
                error = kind(f"{self.host}: {reason}")
                self._say("wrong", step, self._cured(error))
                return error
            self._say("ok", step, good)
        return None

    def _collect(
        self, into: Collection, deadline: Deadline
    ) -> EcoflowApiException | None:
        # What EcoFlow asked for is kept. Keys that it refused are tried all the same,
        # once: somebody sits there and wants to know.
        if wait := self.state.pause_for(time.time()):
            return AskedToWait(f"asked us to wait, {wait:.0f} s more", wait)
        work = partial(collect, self.clients, self.outcome.named, into, deadline)
        if within(deadline, work):
            return None
        return ApiOutOfTime(f"{self.host}: no answer in time")

    def _check_clock(self, deadline: Deadline) -> None:
        if self.offset is None and self.remote_write:
            ask, share = self.remote_write.ask_the_time, deadline.share(0.5)
            told: list[float | None] = []
            within(share, lambda: told.append(ask(share)))
            self.offset = next(iter(told), None)
        if self.offset is None:
            self._say("unknown", "clock", "nobody said what time it is")
            return
        text = f"{self.offset:+.0f} s from the service's"
        if abs(self.offset) > MOST_CLOCK_OFFSET_SECONDS:
            self._say("wrong", "clock", f"{text}: set the clock, and keep it with NTP")
        else:
            self._say("ok", "clock", text)

    def _look_elsewhere(self, deadline: Deadline) -> None:
        """Say where the key that is unknown here is known."""
        hosts = [self.host]
        for url, make in self.elsewhere.items():
            other = url.partition("://")[2]
            error = self._ask_elsewhere(make, deadline.share(0.5))
            # The service looks at the signature of keys that it knows.
            if error is None or error.code == "8521":
                found = f"the key is unknown at {self.host} and known at {other}"
                self._say("wrong", "region", f"{found}: set ECOFLOW_API_HOST={other}")
                mark = "wrong" if error else "ok"
                text = self._cured(error) if error else f"accepted by {other}"
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
        found = self.outcome.collection
        error = found.error
        asked = {
            sn: reading
            for sn, reading in sorted(found.readings.items())
            if error is None or reading.error is not error
        }
        if error and str(error).startswith(NO_DEVICE):
            self._say("wrong", "devices", self._cured(error))
        elif not asked:
            self._say("unknown", "devices", "none was asked")
        for sn, reading in asked.items():
            facts = self.judge.describe(sn, reading, self.state.devices[sn])
            mark, text = self._describe(reading)
            self._say(mark, "device", f"{short_sn(sn)} ({facts.product_name}), {text}")

    def _describe(self, reading: Reading) -> tuple[str, str]:
        """Return the mark and the words for what was learnt of a device."""
        way = READ_BY[reading.source]
        if reading.snapshot:
            count = len(reading.snapshot.quotas)
            return (
                "ok",
                f"read by {way}, {count} values" if count else f"{way}, no data",
            )
        if reading.state == "offline":
            return "unknown", self._cured(EcoflowApiException("offline, not asked"))
        error = reading.error or EcoflowApiException("not readable now")
        return "wrong", f"not read by {way}: {self._cured(error)}"

    # -- sinks ----------------------------------------------------------------------

    def _check_sinks(self) -> None:
        sinks: list[tuple[str, str, Callable[[Deadline, list[str]], None]]] = []
        if self.pushgateway:
            push = partial(self._try_pushgateway, self.pushgateway)
            sinks.append(("pushgateway", "PUSHGATEWAY_URL", push))
        if self.remote_write:
            write = partial(self._try_remote_write, self.remote_write)
            sinks.append(("remote-write", "REMOTE_WRITE_URL", write))
        if self.textfile_path:
            sinks.append(("textfile", "TEXTFILE_PATH", self._try_textfile))
        if not sinks:
            cure = "set PUSHGATEWAY_URL, REMOTE_WRITE_URL or TEXTFILE_PATH"
            self._say("wrong", "sinks", f"none is set, which a run does not do: {cure}")
            self.has_sink = False
        for place, (name, variable, work) in enumerate(sinks):
            sink = self.outcome.sinks[name] = SinkOutcome()
            share = self.deadline.share(0.9 / (len(sinks) - place))
            notes: list[str] = []
            try:
                if not within(share, partial(work, share, notes)):
                    raise SinkDown(f"{name}: no answer in time")
            except SinkError as exc:
                sink.errors.append(exc)
                text = cured(exc, variable).removeprefix(name).lstrip(": ")
                self._say("wrong", name, text)
            else:
                sink.delivered = 1
                good = "took the test, gone again"
                self._say(
                    *(("unknown", name, notes[-1]) if notes else ("ok", name, good))
                )

    def _test(self) -> CollectorRegistry:
        from prometheus_client import CollectorRegistry, Gauge

        registry = CollectorRegistry()
        name, text = f"{self.judge.prefix}_push_check", "A test, gone in a moment"
        Gauge(name, text, registry=registry).set(1)
        return registry

    def _try_pushgateway(
        self, gateway: PushgatewaySink, deadline: Deadline, notes: list[str]
    ) -> None:
        early = deadline.share(0.7)
        try:
            gateway.push(self._test(), self.group, early)
        except (SinkUnauthorized, SinkRedirected):
            raise
        except SinkError:
            # It may have been taken without our hearing of it.
            with contextlib.suppress(SinkError):
                gateway.delete(self.group, deadline, 1)
            raise
        held = False
        with contextlib.suppress(SinkError):
            held = gateway.has_group(self.group, early)
        if not held:
            cure = "check that GET reaches the same gateway as PUT"
            notes.append(f"took the test, which cannot be read back: {cure}")
        try:
            gateway.delete(self.group, deadline)
        except SinkError as exc:
            job = self.group["job"]
            cure = f"let DELETE through, and delete the job {job}"
            notes.append(f"took the test and keeps it ({exc}): {cure}")

    def _try_remote_write(
        self, sink: RemoteWriteSink, deadline: Deadline, _notes: list[str]
    ) -> None:
        from prometheus_client import CollectorRegistry

        from ecoflow_push.metrics.record import record_of

        if wait := self.state.endpoint.pause_for(time.time()):
            raise SinkDeferred(f"remote-write: asked to wait {wait:.0f} s more: wait")
        if abs(self.offset or 0.0) > MOST_CLOCK_OFFSET_SECONDS:
            raise SinkDeferred("nothing sent by a wrong clock: set it, see above")
        now_ms = round(time.time() * 1000)
        record = record_of(self._test(), self.group, now_ms)
        end = record_of(CollectorRegistry(), {}, now_ms + 1).ending(record.keys())
        try:
            sink.write(record, deadline.share(0.7))
        except SinkRejected:
            raise
        except (SinkUnauthorized, SinkRedirected) as exc:
            exc.is_stored = not self.state.trouble
            raise
        except SinkError as exc:
            # It may have been taken without our hearing of it.
            with contextlib.suppress(SinkError):
                sink.write(end, deadline, 1)
            nothing_new = not any(v.fresh for v in self.outcome.truth.verdicts)
            if self.state.trouble or nothing_new:
                raise
            # A run would have stored it.
            raise SinkDeferred(str(exc)) from exc
        sink.write(end, deadline)

    def _try_textfile(self, _deadline: Deadline, _notes: list[str]) -> None:
        path = self.textfile_path or ""
        cure = "check that the job can write into the folder of TEXTFILE_PATH"
        if os.path.lexists(path) and not os.path.isfile(path):
            raise SinkError("textfile: not a regular file: check TEXTFILE_PATH")
        try:
            with tempfile.TemporaryFile(dir=os.path.dirname(path) or ".") as file:
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
        except OSError as exc:
            raise SinkError(f"textfile: {exc.strerror}: {cure}") from exc


def _print(text: str) -> None:
    """Write a line to stdout; raises SinkError when it is full or closed."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError) as exc:  # None if closed at the start
        # What stays in the buffer would fail again, noisily, at the end.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - lives as long as we
        raise SinkError("stdout: cannot be written") from exc


def create_check(
    settings: Settings,
    state: State,
    folder: str,
    only: Sequence[str],
    regions: Sequence[str] = REGIONS,
) -> Check:
    """Return the check of the settings; `only` narrows it to some serials.

    `regions` are the URLs among which a key may be at home. Raises SettingsError for
    what cannot be built as they say.
    """

    def client_at(url: str) -> EcoflowApiClient:
        there = copy.copy(settings)
        there.api_url = url
        return create_client(there, "rest", None)

    judge = create_judge(settings, only)
    server = settings.remote_write
    if server:
        state.use_endpoint(os.path.basename(spool_folder(settings, server, folder)))
    others = [url for url in regions if url != settings.api_url]
    is_regional = settings.api_url in regions and settings.sources[0] == "rest"
    return Check(
        clients=[create_client(settings, each, folder) for each in settings.sources],
        state=state,
        judge=judge,
        api_url=settings.api_url,
        proxies=settings.proxies,
        tls=tls_context(settings.api_ca_file),
        elsewhere={url: partial(client_at, url) for url in others if is_regional},
        pushgateway=create_pushgateway(settings),
        remote_write=create_remote_write(settings, server, "") if server else None,
        textfile_path=settings.textfile_path,
        group={"job": f"{settings.job}_check", "instance": settings.instance},
        deadline=Deadline(settings.run_deadline),
        outcome=Outcome(only or settings.device_sns),
        rest=state.refused_for(fingerprint(*settings.keys), time.time()),
    )
