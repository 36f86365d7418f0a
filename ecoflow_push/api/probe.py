"""What a probe of any source has in common: the way to EcoFlow, and its words."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ecoflow_push.api.envelope import TIME_CURE
from ecoflow_push.errors import (
    ApiOutOfTime,
    DeviceRefused,
    EcoflowApiException,
    Finding,
    KeysRefused,
    NoDevices,
)
from ecoflow_push.net.deadline import Deadline, limit_of, within
from ecoflow_push.net.exchange import proxy_for
from ecoflow_push.net.explain import explain
from ecoflow_push.net.sockets import dial
from ecoflow_push.net.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


def reach(
    api_url: str, trust: Trust, proxies: Mapping[str, str], deadline: Deadline
) -> Iterator[Finding]:
    """Look at name and certificate; where one is wrong, that finding is the last."""
    if proxy_for(api_url, proxies):
        text = "through a proxy, seen with the answer"
        yield Finding("unknown", "DNS and TLS", text)
        return
    parts = urlsplit(api_url)
    host, is_tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    tls = trust.context() if is_tls else None

    def connect() -> None:
        with dial(host, port, deadline.left()) as sock:
            if tls:
                tls.wrap_socket(sock, server_hostname=host).close()

    encrypted = "a trusted certificate" if is_tls else "not used, plain http"
    for step, work, good in (
        ("DNS", partial(socket.getaddrinfo, host, port), "the name is known"),
        ("TLS", connect, encrypted),
    ):
        error = _tried(parts.netloc, work, deadline.share(0.5))
        if error:
            yield Finding.of(step, error)
            return
        yield Finding("ok", step, good)


def met(
    host: str, deadline: Deadline, work: Callable[[], object]
) -> EcoflowApiException | None:
    """Do `work`, and return what a run would have met there; None if all is well."""
    try:
        done = within(deadline, work)
    except EcoflowApiException as exc:
        return exc
    return None if done else ApiOutOfTime(f"{host}: no answer in time", TIME_CURE)


def answer(host: str, error: EcoflowApiException | None) -> Finding:
    """Return whether EcoFlow answered at all; a refusal is an answer."""
    if error is None or isinstance(error, (KeysRefused, DeviceRefused, NoDevices)):
        return Finding("ok", "EcoFlow", f"{host} answers")
    return Finding.of("EcoFlow", error)


def standing(
    host: str, error: EcoflowApiException | None, *, accepted: str = "accepted"
) -> Iterator[Finding]:
    """Yield what is known of the region and the credentials."""
    if error is None or isinstance(error, NoDevices):
        yield Finding("ok", "region", f"{host} is the right one")
        yield Finding("ok", "credentials", accepted)
        return
    yield Finding("unknown", "region", "seen only when the credentials are taken")
    if isinstance(error, (KeysRefused, DeviceRefused)):
        yield Finding.of("credentials", error)
    else:
        yield Finding("unknown", "credentials", "EcoFlow did not say")


def _tried(
    host: str, work: Callable[[], object], deadline: Deadline
) -> EcoflowApiException | None:
    """Do `work` with a socket, and return what went wrong."""
    try:
        done = within(deadline, work)
    except TimeoutError:
        done = False
    except (OSError, ValueError) as exc:
        if limit := limit_of(exc):
            raise limit from exc
        cause = explain(exc)
        cure = cause.cure.format(url="ECOFLOW_API_HOST", ca="ECOFLOW_CA_FILE")
        return EcoflowApiException(f"{host}: {cause.text}", cure)
    if done:
        return None
    return ApiOutOfTime(f"{host}: no complete answer in time", TIME_CURE)
