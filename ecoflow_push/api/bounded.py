"""paho's client, with an end to what a broker may make it hold.

It reads a packet of any length that the packet itself claims, 256 MiB at most, and
copies it twice; and in one step as many packets as it has sent itself.
"""

from __future__ import annotations

from paho.mqtt.client import Client

# The largest message that is read, and its topic.
MOST_PACKET = (1 << 20) + (1 << 16)
# Acknowledgements that the broker does not take.
MOST_UNSENT = 20_000


class BoundedClient(Client):
    """Refuses what no broker of EcoFlow's ever sent."""

    #: How many bytes this step may still take in.
    allowed = 0
    #: The length that a refused packet claimed.
    claimed = 0

    @property
    def is_overfed(self) -> bool:
        """Whether the broker lets pile up what cannot be let go.

        It may send no QoS 2 to who subscribes with 1: those are kept until it says so.
        """
        return bool(self._in_messages) or len(self._out_packet) > MOST_UNSENT

    def _sock_recv(self, bufsize: int) -> bytes:
        if bufsize > MOST_PACKET:
            self.claimed = bufsize
            raise ConnectionError
        if self.allowed <= 0:
            raise BlockingIOError
        data = super()._sock_recv(bufsize)
        self.allowed -= len(data)
        return data
