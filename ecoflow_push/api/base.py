"""The seam between a run and EcoFlow: what every client can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecoflow_push.api.models import DeviceInfo, Snapshot
    from ecoflow_push.net.deadline import Deadline


class EcoflowApiClient(ABC):
    """One way to read the devices of an account. It only reads.

    Every method that talks raises EcoflowApiException, or one of its kinds, and
    nothing else for anything that the network or the service can do.
    """

    #: The way it reads, as `ecoflow_device_info` names it.
    source: str

    #: True if `ask` puts the question to all devices, and one wait serves them all.
    asks_at_once: bool = False
    #: True if the last `get_devices` was the service's own word, not a remembered one.
    lists_afresh: bool = True

    @property
    def throttled(self) -> bool:
        """Whether the service asked for a slower pace: one request at a time then."""
        return False

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of the service's (s), None if unknown."""
        return None

    @abstractmethod
    def connect(self, deadline: Deadline) -> None:
        """Prepare the connection; cheap, and nothing is asked yet."""

    @abstractmethod
    def get_devices(self, deadline: Deadline) -> list[DeviceInfo]:
        """Return the devices of the account, each serial once."""

    def get_device(self, sn: str, deadline: Deadline) -> DeviceInfo | None:
        """Return one device of the account, None if it is not listed."""
        return next((d for d in self.get_devices(deadline) if d.sn == sn), None)

    def ask(self, sns: Sequence[str], deadline: Deadline) -> None:  # noqa: B027
        """Announce which devices will be read; for clients that ask all at once."""

    @abstractmethod
    def get_device_quota(self, sn: str, deadline: Deadline) -> Snapshot:
        """Return all quotas of one device, as they are now."""

    @abstractmethod
    def close(self) -> None:
        """Leave; safe to call twice, and whatever happened before."""
