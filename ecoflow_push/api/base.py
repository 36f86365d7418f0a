"""The seam between a run and EcoFlow: what every source can do.

A source yields readings, one device at a time. It only reads. Its lanes, waits, lists
and remembered refusals are its own affair.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from ecoflow_push.api.models import DeviceInfo, Snapshot
from ecoflow_push.errors import DeviceOffline, DeviceRefused, EcoflowApiException

if TYPE_CHECKING:
    from ecoflow_push.errors import Finding
    from ecoflow_push.net.deadline import Deadline

State = Literal["ok", "offline", "refused", "failed"]


class Reading:
    """What a source learnt of one device: a snapshot, or why there is none.

    Neither is there of a device that the list calls offline. `source` is the source's
    name, "" where none came to ask. `error` is a word on this device only if it was
    `asked` for: what ended all reading, be it a refusal, is none.
    """

    __slots__ = ("asked", "device", "error", "snapshot", "source")

    def __init__(
        self,
        device: DeviceInfo,
        source: str,
        snapshot: Snapshot | None = None,
        error: EcoflowApiException | None = None,
        *,
        asked: bool = True,
    ) -> None:
        self.device = device
        self.source = source
        self.snapshot = snapshot
        self.error = error
        self.asked = asked

    def of(self, device: DeviceInfo) -> Reading:
        """Return the same of a device of which more is known."""
        said = self.snapshot, self.error
        return Reading(device, self.source, *said, asked=self.asked)

    @property
    def is_unread(self) -> bool:
        """Whether the device answers, and nobody can read what it says."""
        snapshot = self.snapshot
        return snapshot is not None and bool(snapshot.unread and not snapshot.quotas)

    @property
    def state(self) -> State:
        """What it amounts to."""
        if self.snapshot:
            return "ok"
        if not self.asked:
            return "failed"
        if isinstance(self.error, DeviceRefused):
            return "refused"
        is_offline = self.error is None and self.device.online is False
        return (
            "offline"
            if is_offline or isinstance(self.error, DeviceOffline)
            else "failed"
        )


class EcoflowApiClient(ABC):
    """One way to read the devices of an account.

    Every method that talks raises EcoflowApiException, or one of its kinds, and
    nothing else for anything that the network or the service can do.
    """

    #: The way it reads: its module's name, and the label `source`.
    name: str
    #: The same for people.
    title: str

    def __init__(self) -> None:
        #: The devices to read, once they are known.
        self.wanted: list[DeviceInfo] = []
        #: The device list, once the service itself has answered it in this run.
        self.listed: list[DeviceInfo] | None = None
        #: How long (s) it took until something could be asked.
        self.connect_seconds = 0.0
        #: The other host that knows the credentials, once a probe has found it.
        self.known_at = ""

    def dial_ahead(self, seconds: float) -> None:  # noqa: B027 - what a source may do, not must
        """Begin the connection that `read` will need within `seconds`; returns at once.

        Only one that `read` would make in any case.
        """

    @abstractmethod
    def read(self, named: Sequence[str], deadline: Deadline) -> Iterator[Reading]:
        """Yield a reading of each device named, of each of the account if none is.

        Raises EcoflowApiException where asking on is in vain or impolite; of the
        wanted devices that were not yielded, nothing was learnt.
        """

    @abstractmethod
    def probe(self, deadline: Deadline) -> Iterator[Finding]:
        """Go the way to the service step by step, and yield what was found at each.

        `read` goes on from there: it asks nothing twice, and raises what was found.
        """

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of the service's (s), None if unknown."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Leave; safe to call twice, and whatever happened before."""
