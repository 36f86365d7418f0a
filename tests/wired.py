"""Servers that know their connections, and can hang up."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import partial
from typing import Any

from ecoflow_push.simulator.cloud import SimulatedCloud
from ecoflow_push.simulator.server import Handler, RecordingServer
from tests.receiver import Receiver
from tests.support import eventually


class Wire(Handler):
    """A connection of whose end one can be told."""

    server: Wired

    def setup(self) -> None:
        super().setup()
        self.server.wires.append(self.connection)


class Wired(RecordingServer):
    """A server that knows its connections, and can hang up."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: One for each connection that was made, whatever became of it.
        self.wires: list[socket.socket] = []
        super().__init__(*args, **kwargs)
        self.RequestHandlerClass = Wire

    def hang_up(self) -> None:
        """Close all connections, as a server does that restarts, or tires of them."""
        for number, wire in enumerate(self.wires):
            with suppress(OSError):
                socket.socket.shutdown(wire, socket.SHUT_RDWR)
            assert eventually(partial(self.is_over, number))

    def is_over(self, number: int) -> bool:
        """Return whether one of the connections was closed."""
        return self.wires[number].fileno() == -1


class Cloud(Wired, SimulatedCloud):
    """EcoFlow's."""


class Gateway(Wired, RecordingServer):
    """Takes what is pushed."""

    @property
    def pushed(self) -> int:
        """How many groups were pushed."""
        return sum(received.method == "PUT" for received in self.received)


class Watched(Wired, Receiver):
    """Takes what is written."""
