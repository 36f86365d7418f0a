"""Broker: one connection to EcoFlow's MQTT broker, over paho, step by step."""

from __future__ import annotations

import gc
import logging
import socket
import struct
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ecoflow_push.api.envelope import TIME_CURE
from ecoflow_push.errors import ApiOutOfTime, EcoflowApiException, KeysRefused
from ecoflow_push.net.deadline import Deadline, limit_of
from ecoflow_push.net.sockets import dial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from paho.mqtt.client import Client

    from ecoflow_push.memory.login import Certification
    from ecoflow_push.net.trust import Trust

log = logging.getLogger(__name__)

# What a visit may take, in seconds (protocol/mqtt.md#completeness).
CONNECT_SECONDS = 10.0
SUBSCRIBE_SECONDS = 5.0
KEEPALIVE_SECONDS = 60
QOS = 1
# The largest message that is read, and its topic; brokers take 1 MiB and no more.
MOST_PACKET = (1 << 20) + (1 << 16)
# What one step takes in, and all of them until paho's cycles are looked for.
STEP_BYTES = 1 << 17
SWEEP_BYTES = 1 << 18
# CONNACK: 4 bad user name or password, 5 not authorised; 134 and 135 as MQTT 5 and
# paho's second callback interface call them (protocol/mqtt.md#connection).
REFUSAL_CODES = frozenset((4, 5, 134, 135))
FLOOD_CURE = "look for another broker or a proxy that answers instead"
CLIENT_ID_CURE = "give each job a PUSH_INSTANCE of its own"


class Broker:
    """A connection that is used by one thread, which also drives it."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._client: Client | None = None
        #: What callbacks saw: its kind, and what goes with it.
        self._events: deque[tuple[str, Any]] = deque()
        self._messages: deque[tuple[str, bytes]] = deque()
        #: The broker's answers to subscriptions.
        self._granted: deque[tuple[int, ...]] = deque()
        #: How many bytes this step may take in, how many came since the last sweep, and
        #: what a refused packet claimed.
        self._allowed = 0
        self._received = 0
        self._claimed = 0

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to be used."""
        return self._client is not None

    def connect(
        self, certification: Certification, client_id: str, deadline: Deadline
    ) -> None:
        """Connect, with these credentials.

        Raises KeysRefused, ApiOutOfTime or EcoflowApiException.
        """
        # Half of a run's imports, and none of a run's that reads by REST.
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        host, port = certification.host, certification.port
        where = f"broker {host}:{port}"
        limit = Deadline(min(CONNECT_SECONDS, deadline.left()))
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            reconnect_on_failure=False,
        )
        client.username_pw_set(certification.username, certification.password)
        if certification.tls:
            client.tls_set_context(self._trust.context(obedient=False))
        # paho bounds nothing that it receives, and has no door to do so.
        receive = partial(self._receive, client._sock_recv)  # noqa: SLF001 - as above
        client._sock_recv = receive  # type: ignore[method-assign]  # noqa: SLF001
        # Nor does it leave time for a second address after one that is dead.
        dialled = partial(_dial, host, port, limit)
        client._create_socket_connection = dialled  # type: ignore[method-assign]  # noqa: SLF001
        client.connect_timeout = max(0.1, limit.left())
        self._listen(client)
        try:
            client.connect(host, port, KEEPALIVE_SECONDS)
        except (OSError, ValueError, OverflowError, struct.error) as exc:
            if lacking := limit_of(exc):
                raise lacking from exc
            # A good run has nothing to explain.
            from ecoflow_push.net.explain import explain

            cause = explain(exc)
            cure = cause.cure.format(url="ECOFLOW_API_HOST", ca="ECOFLOW_CA_FILE")
            raise EcoflowApiException(f"{where}: {cause.text}", cure) from exc
        self._client = client
        while not client.is_connected():
            if limit.left() <= 0:
                raise ApiOutOfTime(f"{where}: no CONNACK in time", TIME_CURE)
            try:
                self._step(limit)
            except EcoflowApiException as exc:
                text = f"{where}: {exc.text}"
                raise type(exc)(text, exc.cure, code=exc.code) from exc

    def subscribe(self, topics: Iterable[str], deadline: Deadline) -> tuple[int, ...]:
        """Return the broker's code for each topic, 128 and above for a refusal.

        Raises EcoflowApiException or ApiOutOfTime.
        """
        self._granted.clear()
        wanted = [(topic, QOS) for topic in topics]
        self._do(lambda client: client.subscribe(wanted))
        limit = Deadline(min(SUBSCRIBE_SECONDS, deadline.left()))
        while not self._granted:
            if limit.left() <= 0:
                text = "the broker did not confirm the subscription"
                raise ApiOutOfTime(text, TIME_CURE)
            self._step(limit)
        return self._granted.popleft()

    def publish(self, topic: str, payload: str | bytes) -> None:
        """Send a message with the next steps; raises EcoflowApiException."""
        self._do(lambda client: client.publish(topic, payload, QOS))

    def listen(self, limit: Deadline) -> Iterator[tuple[str, bytes]]:
        """Let the network do one step, and yield the messages that it brought.

        Raises EcoflowApiException, when all that came before was yielded.
        """
        error: EcoflowApiException | None = None
        try:
            self._step(limit)
        except EcoflowApiException as exc:
            error = exc
        while self._messages:
            yield self._messages.popleft()
        if error:
            raise error

    def close(self) -> None:
        """Leave at once; safe to call twice."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(OSError):
                client.disconnect()
            sock = client.socket()
            if sock is not None:
                sock.close()
            # Whoever tells of a failed connection still holds the client.
            client._reset_sockets(sockpair_only=True)  # noqa: SLF001 - as above
        self._events.clear()
        self._messages.clear()

    def _listen(self, client: Client) -> None:
        """Let callbacks carry and not think: an exception in one would be lost."""
        events = self._events

        def on_connect(_c: Any, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
            events.append(("connected", int(reason.value)))

        def on_disconnect(_c: Any, _u: Any, _f: Any, _reason: Any, _p: Any) -> None:
            events.append(("disconnected", None))

        def on_subscribe(_c: Any, _u: Any, _mid: Any, reasons: Any, _p: Any) -> None:
            events.append(("subscribed", tuple(int(r.value) for r in reasons)))

        def on_message(_c: Any, _u: Any, message: Any) -> None:
            # A retained message is as old as it likes, and no part of this snapshot.
            if not message.retain:
                events.append(("message", (message.topic, message.payload)))

        client.on_connect = on_connect
        client.on_disconnect = on_disconnect
        client.on_subscribe = on_subscribe
        client.on_message = on_message

    def _do(self, work: Callable[[Client], Any]) -> Any:
        """Use the connection; what the host has against that ends the session."""
        client = self._connected()
        try:
            return work(client)
        except OSError as exc:
            if lacking := limit_of(exc):
                raise lacking from exc
            from ecoflow_push.net.explain import explain

            text = f"the connection to the broker ended: {explain(exc).text}"
            raise EcoflowApiException(text) from exc

    def _step(self, limit: Deadline) -> None:
        """Let the network do one step, and take in what it brought."""
        client = self._connected()
        _quick_acknowledge(client)
        self._allowed = STEP_BYTES
        try:
            status = self._do(lambda _: client.loop(min(limit.left(), 1.0)))
        except (ValueError, struct.error) as exc:
            # What paho raises for a packet that is none.
            raise EcoflowApiException("the broker sent a broken packet") from exc
        if self._claimed:
            text = f"the broker sent a packet of {self._claimed >> 20} MiB, not read"
            raise EcoflowApiException(text, FLOOD_CURE)
        # QoS 2 is not for who subscribes with 1: paho keeps it until it is released.
        if client._in_messages:  # noqa: SLF001 - no door
            text = "the broker sent a message with QoS 2, not asked for"
            raise EcoflowApiException(text, FLOOD_CURE)
        while self._events:
            self._take(*self._events.popleft())
        if status != 0:
            raise EcoflowApiException("the connection was lost")

    def _receive(self, receive: Callable[[int], bytes], size: int) -> bytes:
        """Read for paho, which would keep a packet of any length that it claims.

        And in one step as many packets as it has sent itself.
        """
        if size > MOST_PACKET:
            self._claimed = size
            raise ConnectionError
        if self._allowed <= 0:
            raise BlockingIOError
        data = receive(size)
        self._allowed -= len(data)
        self._received += len(data)
        if self._received > SWEEP_BYTES:
            # Each message leaves a cycle with its topic's levels, and push.py looks for
            # none: a run for which that would pay hears a few messages.
            self._received = 0
            gc.collect(0)
        return data

    def _take(self, kind: str, what: Any) -> None:
        if kind == "message":
            self._messages.append(what)
        elif kind == "subscribed":
            self._granted.append(what)
        elif kind == "connected" and what in REFUSAL_CODES:
            text = (
                f"refused the credentials (code {what}): out of date, or this client"
                " id is in use, or one too many today"
            )
            raise KeysRefused(text, CLIENT_ID_CURE, code=f"CONNACK {what}")
        elif kind == "connected" and what != 0:
            raise EcoflowApiException(f"refused the connection (code {what})")
        elif kind == "disconnected":
            text = (
                "the broker ended the connection (another session with this client id?)"
            )
            raise EcoflowApiException(text, CLIENT_ID_CURE)

    def _connected(self) -> Client:
        if self._client is None:
            raise EcoflowApiException("not connected to the broker")
        return self._client


def _dial(host: str, port: int, limit: Deadline) -> socket.socket:
    sock = dial(host, port, limit.left())
    # From here on paho does the waiting.
    sock.settimeout(None)
    return sock


def _quick_acknowledge(client: Client) -> None:
    """Ask for acknowledgements without delay, where the system can (Linux).

    A broker with Nagle's algorithm on waits for them: 40 ms per exchange.
    """
    sock = client.socket()
    option = getattr(socket, "TCP_QUICKACK", None)
    if isinstance(sock, socket.socket) and option is not None:
        with suppress(OSError):  # a courtesy
            sock.setsockopt(socket.IPPROTO_TCP, option, 1)
