"""Which device is read first, when a run has too little time for all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from ecoflow_push.api.guard import Guard
from ecoflow_push.api.rest import RestApiClient
from ecoflow_push.memory.records import DeviceRecord
from ecoflow_push.memory.state import State
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.net.retry import Patience
from ecoflow_push.simulator.cloud import (
    ACCESS_KEY,
    SECRET_KEY,
    SimulatedCloud,
    SimulatedDevice,
)

QUOTA = "quota/all"
SERIALS = [f"R331ZFAKE000000{n}" for n in range(6)]
FIRST, SECOND, THIRD, FOURTH, FIFTH, LAST = SERIALS


@pytest.fixture
def state():
    return State()


@pytest.fixture
def fleet():
    with SimulatedCloud([SimulatedDevice(sn, {"pd.soc": 1}) for sn in SERIALS]) as it:
        yield it


def remember(state: State, ages: Mapping[str, float | None]) -> None:
    """Let each device have been read so many seconds ago, None for never."""
    for sn, age in ages.items():
        record = state.devices.setdefault(sn, DeviceRecord())
        record.snapshot_at = None if age is None else time.time() - age


def read(fleet: SimulatedCloud, state: State) -> list[str]:
    """Do a run; return the devices that were asked for, in that order."""
    before = len(fleet.received)
    client = RestApiClient(
        fleet.url, ACCESS_KEY, SECRET_KEY, Guard(state), patience=Patience(1, 0)
    )
    for reading in client.read([], Deadline(10)):
        if reading.snapshot:
            remember(state, {reading.device.sn: 0.0})
    client.close()
    paths = [each.path for each in fleet.received[before:]]
    return [path.partition("sn=")[2] for path in paths if QUOTA in path]


def test_devices_are_read_in_the_order_of_the_list(fleet, state):
    """As long as all are read in each run, nothing changes it."""
    assert read(fleet, state) == SERIALS

    remember(state, dict(zip(SERIALS, range(6), strict=True)))

    assert read(fleet, state) == SERIALS


@pytest.mark.case("D13")
def test_what_was_read_longest_ago_is_read_first(fleet, state):
    """After a run that was over too early, those it did not reach are the first."""
    remember(state, {FIRST: 5, SECOND: 4, THIRD: 3, FOURTH: 70, FIFTH: 69, LAST: 68})

    assert read(fleet, state) == [FOURTH, FIFTH, LAST, FIRST, SECOND, THIRD]
    assert read(fleet, state) == SERIALS


@pytest.mark.case("D13")
def test_what_was_never_reached_is_read_first(fleet, state):
    """So are those that no run has read yet, though nobody refused them."""
    remember(state, {FIRST: 5, SECOND: 4, THIRD: 3, FOURTH: None, FIFTH: None})

    assert read(fleet, state)[:2] == [FOURTH, FIFTH]


@pytest.mark.parametrize("kind", ["offline", "refused"])
def test_what_is_not_there_to_be_read_changes_no_order(kind, fleet, state):
    """A device that is offline, or not open to us, was not missed by any run."""
    remember(state, dict.fromkeys(SERIALS, 3.0))
    if kind == "offline":
        fleet.devices[3] = SimulatedDevice(FOURTH, online=0)
        remember(state, {FOURTH: 9999})
    else:
        remember(state, {FOURTH: None})
        state.devices[FOURTH].told_at = time.time()

    asked = read(fleet, state)

    assert asked == [sn for sn in SERIALS if kind == "refused" or sn != FOURTH]
