"""Remote-write, the whole road: push.py, a simulated cloud, a recording receiver."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedDevice
from ecoflow_push.simulator.server import Answer, RecordingServer
from tests.conftest import DELTA, OFFLINE, STREAM
from tests.receiver import Receiver
from tests.remote_write import ended, of_devices, of_run, spool_files
from tests.support import push, push_anew

QUOTA = "quota/all"

# All that DELTA says but one.
FEWER = SimulatedDevice(
    DELTA.sn,
    {k: v for k, v in (DELTA.quotas or {}).items() if k != "pd.soc"},
    "Garage",
    "DELTA 2",
)


def test_one_snapshot_is_one_request_with_one_time(written, cloud, receiver):
    """Each device is one request: its labels, its values, one time in milliseconds."""
    cloud.devices[:] = [DELTA, STREAM]
    before = time.time() * 1000

    run = push_anew({**written, "EXTRA_LABELS": "site=home,Zone=a"})

    assert run.status == 0, run.stderr
    # Collected within one millisecond they go out by name.
    by_device = {
        samples[0].label("device"): samples for samples in of_devices(receiver)
    }
    assert by_device.keys() == {DELTA.sn, STREAM.sn}
    for device, samples in by_device.items():
        assert {s.label("device") for s in samples} == {device}
        (at,) = {s.timestamp_ms for s in samples}
        assert before - 1 <= at <= time.time() * 1000
        for sample in samples:
            names = [name for name, _ in sample.labels]
            assert names == sorted(set(names))
            assert sample.label("job") == "ecoflow"
            assert (sample.label("site"), sample.label("Zone")) == ("home", "a")
    values = {s.labels: s.value for s in by_device[DELTA.sn] if "pd_soc" in s.name}
    assert values == {
        (
            ("Zone", "a"),
            ("__name__", "ecoflow_pd_soc"),
            ("device", DELTA.sn),
            ("device_name", "Garage"),
            ("job", "ecoflow"),
            ("product_name", "DELTA 2"),
            ("site", "home"),
        ): 87
    }


def test_the_runs_own_series_come_last(written, receiver):
    """The run's series are written last, with their instance, and tell of the spool."""
    assert push(written).status == 0

    (own,) = of_run(receiver)
    assert receiver.requests[-1].samples[0].label("job") == "ecoflow_push"
    assert receiver.requests[-1].samples[0].label("instance") == "test"
    assert own["ecoflow_push_success"] == 1
    assert own["ecoflow_push_spool_samples"] == 0
    assert "ecoflow_push_spool_oldest_timestamp_seconds" not in own
    assert own["ecoflow_push_dropped_samples_total refused"] == 0


def test_timestamps_of_a_device_grow(written, receiver):
    """Over several runs each series' times grow strictly, and nothing is refused."""
    for _ in range(3):
        assert push(written).status == 0

    assert len(receiver.requests) == 6
    for points in receiver.stored.values():
        times = [at for at, _ in points]
        assert times == sorted(set(times))
        assert len(times) == 3


@pytest.mark.case("D11")
def test_a_key_that_is_gone_ends(written, cloud, receiver):
    """A series that was there last time and is not now gets one marker, then none."""
    assert push(written).status == 0
    cloud.devices[:] = [FEWER]

    assert push(written).status == 0
    assert push(written).status == 0

    first, second, third = of_devices(receiver)
    assert [ended(samples) for samples in (first, second, third)] == [
        set(),
        {"ecoflow_pd_soc"},
        set(),
    ]
    (marker,) = (s for s in second if s.is_stale)
    (before,) = (s for s in first if s.name == "ecoflow_pd_soc")
    assert marker.labels == before.labels
    assert marker.timestamp_ms == second[0].timestamp_ms > before.timestamp_ms


def say_more_unsaved(environ, cloud, mode="write-ahead"):
    """Let a run say one series more, and leave the state as before it."""
    cloud.devices[:] = [FEWER]
    assert push(environ).status == 0
    (path,) = Path(environ["STATE_DIR"]).glob("*/state.json")
    state = path.read_bytes()
    cloud.devices[:] = [DELTA]
    assert push({**environ, "SPOOL_MODE": mode}).status == 0
    path.write_bytes(state)
    cloud.devices[:] = [FEWER]


@pytest.mark.case("D11")
@pytest.mark.parametrize("mode", ["write-ahead", "on-failure"])
def test_what_a_killed_run_said_ends(mode, written, cloud, receiver):
    """Where a run could not save what it said, the next one ends it all the same."""
    say_more_unsaved(written, cloud, mode)

    assert push(written).status == 0

    assert "ecoflow_pd_soc" in ended(of_devices(receiver)[-1])


@pytest.mark.case("D11")
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_what_a_killed_run_said_ends_later(is_elsewhere, written, cloud, receiver):
    """So it does after a run that heard nothing of the device, here or elsewhere."""
    say_more_unsaved(written, cloud)
    cloud.fail(QUOTA, faults.status(500))
    with Receiver() as other:
        url = other.write_url if is_elsewhere else receiver.write_url
        assert push({**written, "REMOTE_WRITE_URL": url}).status == 69
    cloud.heal()

    assert push(written).status == 0

    assert "ecoflow_pd_soc" in ended(of_devices(receiver)[-1])


def test_an_offline_device_is_online_0_and_nothing_else(written, cloud, receiver):
    """Of an offline device only `ecoflow_online` 0 is left, once with markers."""
    assert push(written).status == 0
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, DELTA.quotas, "Garage", "DELTA 2", 0)]

    assert push(written).status == 0
    assert push(written).status == 0

    first, second, third = of_devices(receiver)
    assert {(s.name, s.value) for s in second if not s.is_stale} == {
        ("ecoflow_online", 0)
    }
    assert ended(second) == {s.name for s in first} - {"ecoflow_online"}
    assert [(s.name, s.value) for s in third] == [("ecoflow_online", 0)]


def test_an_unreadable_device_ends_after_stale_after(written, cloud, receiver):
    """A device that failed says nothing; past STALE_AFTER all its series end, once."""
    assert push(written).status == 0
    cloud.fail(QUOTA, faults.code("1", "whatever"))

    assert push(written).status == 69
    assert len(of_devices(receiver)) == 1
    assert push({**written, "STALE_AFTER": "0"}).status == 69
    assert push({**written, "STALE_AFTER": "0"}).status == 69

    first, second = of_devices(receiver)
    assert ended(second) == {s.name for s in first} == {s.name for s in second}
    assert [own["ecoflow_push_exit_status"] for own in of_run(receiver)] == [
        0,
        *[69] * 3,
    ]


def test_a_device_that_left_ends(written, cloud, receiver):
    """All series of a device that left the account end after the second list."""
    cloud.devices[:] = [DELTA, STREAM]
    assert push(written).status == 0
    cloud.devices[:] = [DELTA]

    for _ in range(3):
        assert push(written).status == 0

    of_stream = [s for s in of_devices(receiver) if s[0].label("device") == STREAM.sn]
    assert len(of_stream) == 2
    assert ended(of_stream[1]) == {s.name for s in of_stream[0]}
    assert [f.name for f in spool_files(written, "spool-*/last/*")] == [
        "@run",
        DELTA.sn,
    ]


def test_a_renamed_device_ends_under_its_old_name(written, receiver):
    """Series whose labels changed end under the old ones."""
    assert push(written).status == 0

    assert push({**written, "ECOFLOW_DEVICE_NAME": f"{DELTA.sn}=Shed"}).status == 0

    _, second = of_devices(receiver)
    assert {s.label("device_name") for s in second if s.is_stale} == {"Garage"}
    assert {s.label("device_name") for s in second if not s.is_stale} == {"Shed"}


def test_a_lost_state_leaves_no_marker(written, cloud, receiver):
    """Without its memory a run marks nothing, and does no harm."""
    assert push(written).status == 0
    shutil.rmtree(written["STATE_DIR"])
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, {"pd.wattsOut": 1})]

    assert push(written).status == 0

    assert not any(ended(samples) for samples in of_devices(receiver))


def test_markers_wait_with_their_record(written, cloud, receiver):
    """Markers of a snapshot that waited arrive with it, or with the one after it."""
    assert push(written).status == 0
    cloud.devices[:] = [
        SimulatedDevice(DELTA.sn, {"pd.wattsOut": 1}, "Garage", "DELTA 2")
    ]
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    receiver.heal()
    receiver.script = [Answer(400, b"too old")]

    assert push(written).status == 1

    third = of_devices(receiver)[-1]
    assert "ecoflow_pd_soc" in ended(third)


# -- together with a Pushgateway ----------------------------------------------------


def test_both_sinks_get_the_same_series(environ, receiver, pushgateway, cloud):
    """Pushgateway and remote-write hold the same series with the same values."""
    cloud.devices[:] = [DELTA, STREAM, OFFLINE]

    run = push({**environ, "REMOTE_WRITE_URL": receiver.write_url})

    assert run.status == 0, run.stderr
    assert "pushgateway: ok; remote-write: ok" in run.stderr
    pushed = {
        (name, tuple((k, v) for k, v in labels if v)): value
        for (name, labels), value in pushgateway.series().items()
        if "_push_" not in name and dict(labels)["device"] != OFFLINE.sn
    }
    sent = {
        (s.name, tuple(pair for pair in s.labels if pair[0] != "__name__")): s.value
        for samples in of_devices(receiver)
        for s in samples
        if s.label("device") != OFFLINE.sn
    }
    assert sent == pushed


@pytest.mark.case("W16")
@pytest.mark.parametrize(
    ("gateway_answer", "receiver_answer", "status"),
    [
        (None, None, 0),
        (None, Answer(500), 75),
        (None, Answer(400), 1),
        (None, Answer(401), 1),
        (None, Answer(302), 1),
        (faults.status(500), None, 1),
        (faults.status(400), None, 1),
        (faults.status(401), None, 1),
        (faults.status(500), Answer(500), 75),
        (faults.status(400), Answer(500), 75),
        (faults.status(401), Answer(401), 75),
        (faults.status(400), Answer(400), 76),
        (faults.status(500), Answer(400), 75),
    ],
)
def test_two_sinks_and_one_status(
    gateway_answer, receiver_answer, status, environ, receiver
):
    """Each sink has its own outcome, and the status is that of both together."""
    with RecordingServer() as gateway:
        if gateway_answer:
            gateway.fail("", gateway_answer)
        if receiver_answer:
            receiver.script = [receiver_answer] * 20
        environ |= {
            "PUSHGATEWAY_URL": gateway.url,
            "REMOTE_WRITE_URL": receiver.write_url,
            "ESTABLISH_ATTEMPTS": "1",
        }

        run = push(environ)

        assert run.status == status, run.stderr
