"""The energy of the running day, from records of its hours."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from ecoflow_push.devices.families import family_named
from ecoflow_push.devices.hours import METRIC
from ecoflow_push.devices.normalized import normalized_samples
from ecoflow_push.simulator.cloud import SimulatedDevice
from tests.frames import FIT, decode, header
from tests.mqtt import assert_decent
from tests.support import push_anew

HOURS = (254, 32)
DAY = 1786060800  # 00:00 UTC
KINDS = {
    1: "solar",
    16: "battery_charge",
    32: "battery_discharge",
    48: "grid_import",
    64: "grid_export",
    80: "home",
}
# Up to half past nine: the running hour has begun, and the rest is to come.
MORNING = [0, 0, 0, 0, 0, 0, 1, 40, 90, 30] + [0] * 14


def record(kind: int, energies: list[int], day: int = DAY, seq: int = 1) -> bytes:
    return header(HOURS, {1: 7, 2: {1: day, 2: kind, 3: bytes(energies)}}, seq=seq)


def today(
    frames: bytes, at: float | None, sn: str = FIT
) -> tuple[dict[str, float], Counter[str]]:
    """Return by flow what the frames say of the day that is running at this time."""
    quotas = decode(frames, sn).quotas
    samples, left_out = normalized_samples(quotas, sn, "", "ecoflow", at=at)
    found = {
        labels["flow"]: value
        for name, labels, value in samples
        if name == f"ecoflow_{METRIC}"
    }
    return found, left_out


def test_each_known_kind_is_a_flow():
    """The hours of a kind are added up under its flow; kind 128 is open, and none."""
    frames = b"".join(record(kind, [kind, *MORNING[1:]]) for kind in KINDS)

    found, left_out = today(frames + record(128, MORNING), DAY + 9.5 * 3600)

    assert found == {flow: 161 + kind for kind, flow in KINDS.items()}
    assert not left_out
    family = family_named("PowerOcean DC Fit")
    assert family
    assert family.hours
    assert family.hours.kinds == {str(kind): flow for kind, flow in KINDS.items()}


@pytest.mark.parametrize(
    ("at", "said"),
    [(-1, {}), (0, {"solar": 161}), (86_399, {"solar": 161}), (86_400, {})],
)
def test_only_the_running_day_counts(at, said):
    """A record is of the day that its own stamp begins: before and after it is none."""
    assert today(record(1, MORNING), DAY + at) == (said, Counter())


def test_a_day_that_begins_at_another_hour_is_taken_as_it_is_stamped():
    """A stamp of 22:00 UTC is a day until 22:00 UTC."""
    frame = record(1, MORNING, DAY - 7200)

    assert today(frame, DAY - 7200)[0] == {"solar": 161}
    assert today(frame, DAY + 79_199)[0] == {"solar": 161}
    assert today(frame, DAY + 79_200)[0] == {}


def test_a_day_without_any_energy_is_zero():
    """24 hours of 0 are 0; no record at all is nothing."""
    assert today(record(80, [0] * 24), DAY)[0] == {"home": 0}
    assert today(header(HOURS, {1: 7}), DAY)[0] == {}
    assert today(record(80, MORNING), None)[0] == {}


def test_other_families_have_no_such_energies():
    """The kinds of a PowerOcean are open: it has the raw hours, and no energy."""
    ocean = "HJ31ZFAKE0000001"

    assert "watth_item.64.watth" in decode(record(64, MORNING), ocean).quotas
    assert today(record(64, MORNING), DAY, ocean)[0] == {}


@pytest.mark.parametrize(
    ("hours", "reason"),
    [
        (MORNING[1:], "out_of_bounds"),
        ([*MORNING, 0], "out_of_bounds"),
        ([-1, *MORNING[1:]], "out_of_bounds"),
        ([2**31, *MORNING[1:]], "out_of_bounds"),
        ([True, *MORNING[1:]], "not_a_number"),
        (["1", *MORNING[1:]], "not_a_number"),
        ("0", "not_a_number"),
        ({}, "not_a_number"),
    ],
)
def test_what_is_no_record_of_a_day_is_left_out(hours, reason):
    """Hours that are not 24 possible numbers are counted, and no energy."""
    quotas = {"watth_item.1.timestamp": DAY, "watth_item.1.watth": hours}

    found = normalized_samples(quotas, FIT, "", "ecoflow", at=DAY)

    assert found == ([], Counter([reason]))


@pytest.mark.parametrize("stamp", [None, "1786060800", 1786060800.0, True])
def test_hours_without_a_stamp_are_of_no_day(stamp):
    """Without a stamp that is a whole number nothing is said of today."""
    quotas = {"watth_item.1.timestamp": stamp, "watth_item.1.watth": MORNING}

    assert normalized_samples(quotas, FIT, "", "ecoflow", at=DAY) == ([], Counter())


def test_the_day_reaches_the_gateway(account, fleet, cloud, pushgateway):
    """A device's record of today, through a broker, is there by flow."""
    began = int(time.time() // 86_400) * 86_400

    def frame(seq: int) -> bytes:
        yesterday = record(48, MORNING, began - 86_400, seq)
        return record(1, MORNING, began, seq) + yesterday

    cloud.devices[:] = [SimulatedDevice(FIT, frame=frame)]

    assert_decent(push_anew({**account, "METRICS_SET": "normalized"}), 0)

    found = {
        dict(labels)["flow"]: value
        for (name, labels), value in pushgateway.device(FIT).items()
        if name == f"ecoflow_{METRIC}"
    }
    # Midnight may have passed.
    ended = time.time() >= began + 86_400
    assert found == {"solar": 161} or (ended and not found)
