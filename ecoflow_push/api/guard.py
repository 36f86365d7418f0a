"""Guard: what runs before learnt of asking EcoFlow, so that none asks in vain."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ecoflow_push.api.envelope import WAIT_CURE
from ecoflow_push.errors import AskedToWait, EcoflowApiException, KeysRefused
from ecoflow_push.memory.records import LONGEST_PAUSE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ecoflow_push.api.base import EcoflowApiClient, Reading
    from ecoflow_push.api.models import DeviceInfo
    from ecoflow_push.memory.state import State

# With a wrong clock no signature is right.
REST_CURE = "check the clock, then ECOFLOW_ACCESS_KEY and ECOFLOW_SECRET_KEY"


class Guard:
    """Remembers refused keys and pauses in the state, which others save."""

    def __init__(self, state: State, keys: str = "") -> None:
        """`keys` is the fingerprint of the keys that rest when they are refused.

        It is empty for credentials whose refusals are remembered elsewhere.
        """
        self._state = state
        self._keys = keys

    def over(
        self, source: EcoflowApiClient, readings: Iterator[Reading]
    ) -> Iterator[Reading]:
        """Yield the readings if EcoFlow may be asked now, and remember what ends them.

        Raises KeysRefused or AskedToWait if it may not.
        """
        self._check(source)
        error: EcoflowApiException | None = None
        try:
            yield from readings
        except EcoflowApiException as exc:
            error = exc
            raise
        finally:
            self._note(source, error)

    def check_pause(self, source: EcoflowApiClient) -> None:
        """Raise AskedToWait while the pause lasts that EcoFlow asked `source` for."""
        if wait := self._state.pause_for(source.name, time.time()):
            text = f"EcoFlow asked us to wait {wait:.0f} s more"
            raise AskedToWait(text, WAIT_CURE, seconds=wait)

    def allows(self, source: EcoflowApiClient) -> bool:
        """Return whether `over` would let EcoFlow be asked now."""
        return not (self._rest() or self._state.pause_for(source.name, time.time()))

    def known(self) -> int:
        """Return how many devices the last run knew."""
        return len(self._state.devices)

    def wake(self) -> bool:
        """Let keys that were accepted be used again; return whether they rested."""
        if not self._rest():
            return False
        self._state.accepted()
        self._state.save()
        return True

    def in_turn(
        self, devices: Sequence[DeviceInfo], seconds: float
    ) -> Sequence[DeviceInfo]:
        """Return the devices in the order in which they are to be read.

        It is theirs as long as runs come to their end. Where one was read more than
        `seconds` before another, which is what a run has for all, or never yet, a run
        was over too early: now those come first that were read longest ago.
        """
        read_at: dict[str, float] = {}
        for device in devices:
            record = self._state.devices.get(device.sn)
            # Who is offline or refused is not read, and lags for that.
            if record and device.online is not False:
                if record.snapshot_at is not None:
                    read_at[device.sn] = record.snapshot_at
                elif record.told_at is None:
                    read_at[device.sn] = 0.0
        times = read_at.values()
        if not times or max(times) - min(times) <= seconds:
            return devices
        return sorted(devices, key=lambda device: read_at.get(device.sn, 0.0))

    def _check(self, source: EcoflowApiClient) -> None:
        if wait := self._rest():
            raise KeysRefused(
                "EcoFlow refused these keys several times: not asked again for"
                f" {wait:.0f} s, or until they change",
                REST_CURE,
            )
        self.check_pause(source)

    def _note(
        self, source: EcoflowApiClient, error: EcoflowApiException | None
    ) -> None:
        """Remember what ended a reading; with a list the keys were good before."""
        state, now = self._state, time.time()
        if self._keys and isinstance(error, KeysRefused) and error.code:
            state.refused(self._keys, now)
        elif self._keys and source.listed is not None:
            state.accepted()
        if isinstance(error, AskedToWait) and not state.pause_for(source.name, now):
            # Its own: what the account was asked does not bind the keys.
            seconds = min(error.seconds, LONGEST_PAUSE_SECONDS)
            state.pauses[source.name] = now + seconds

    def _rest(self) -> float:
        """Return for how many seconds (s) these keys still rest."""
        return self._state.refused_for(self._keys, time.time()) if self._keys else 0.0
