"""No stale value survives as fresh, whatever failed before."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedDevice
from ecoflow_push.simulator.server import Answer, RecordingServer
from tests.conftest import DELTA
from tests.support import PUSH, gateway, push, push_anew, values

LIST = "device/list"
QUOTA = "quota/all"
# Of no known family.
SN = "ZZ99ZFAKE0000001"


def offline(cloud):
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, DELTA.quotas, online=0)]


def test_a_reduction_that_failed_is_made_up_for(environ, cloud, pushgateway):
    """Values known to be stale go as soon as the gateway is back, list or no list."""
    assert push_anew(environ).status == 0
    offline(cloud)
    with RecordingServer() as down:
        down.fail("", faults.status(503))
        # The same gateway, as far as the state can tell.
        assert (
            push({**environ, "HTTP_PROXY": down.url, "NO_PROXY": "127.0.0.1"}).status
            == 74
        )
    cloud.fail(LIST, faults.status(500))

    assert push(environ).status == 69

    assert not values(pushgateway.device(DELTA.sn))


def test_staleness_counts_from_what_the_group_holds(environ, cloud, pushgateway):
    """Good snapshots that never reached the gateway do not make its values younger."""
    environ["STALE_AFTER"] = "2"
    assert push(environ).status == 0
    with RecordingServer() as down:
        down.fail("", faults.status(503))
        import time

        until = time.monotonic() + 2.2
        while time.monotonic() < until:
            assert (
                push(
                    {**environ, "HTTP_PROXY": down.url, "NO_PROXY": "127.0.0.1"}
                ).status
                == 74
            )
    cloud.fail(LIST, faults.status(500))

    push(environ)

    assert not values(pushgateway.device(DELTA.sn))


def test_another_gateway_is_not_trusted_to_be_young(environ, cloud, pushgateway):
    """What another gateway holds is not known: a failure reduces it at once."""
    assert push(environ).status == 0
    with gateway() as other:
        assert push({**environ, "PUSHGATEWAY_URL": other.url}).status == 0
        cloud.fail(LIST, faults.status(500))

        push(environ)

    assert not values(pushgateway.device(DELTA.sn))


def test_state_lost_and_device_closed(environ, cloud, pushgateway, tmp_path):
    """A named device, refused and unlisted, loses what an earlier state pushed."""
    environ["ECOFLOW_DEVICE_SN"] = DELTA.sn
    assert push(environ).status == 0
    cloud.devices[:] = [SimulatedDevice("R331ZFAKE0000099", {})]

    push({**environ, "STATE_DIR": str(tmp_path / "another")})

    assert not values(pushgateway.device(DELTA.sn))


@pytest.mark.parametrize("named_by", ["setting", "option"])
def test_a_mistyped_serial_leaves_no_group_in_an_outage(
    named_by, environ, cloud, pushgateway
):
    """A serial nobody ever heard of gets no group, even when the list fails."""
    typo = "R331ZFAKE0000009"
    args = ("--device", typo) if named_by == "option" else ()
    if named_by == "setting":
        environ["ECOFLOW_DEVICE_SN"] = typo
    cloud.fail(LIST, faults.status(500))

    assert push(environ, *args).status == 69

    assert set(pushgateway.groups()) == {"ecoflow_push"}


def test_only_what_was_listed_can_be_gone(environ, cloud, pushgateway):
    """A device read by name alone, never listed, is not deleted when lists lack it."""
    from ecoflow_push.simulator.server import Answer

    def unlisted(handler):
        body = b'{"code":"0","data":{"pd.soc":1}}'
        handler.send(Answer(200, body))

    shared = "R331ZFAKE0000077"
    cloud.fail(f"{QUOTA}?sn={shared}", unlisted)
    assert push(environ, "--device", shared).status == 0

    for _ in range(3):
        assert push(environ).status == 0

    assert shared in pushgateway.groups()


@pytest.mark.parametrize("flag", [0, 0.0, "0", "0.0", False, "false", "offline"])
def test_every_way_to_say_offline(flag, environ, cloud, pushgateway):
    """Whatever type the list's flag has, a device that is offline keeps its values."""
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, DELTA.quotas, online=flag)]

    assert push(environ).status == 0

    assert pushgateway.device(DELTA.sn)["ecoflow_online", ()] == 0
    assert not values(pushgateway.device(DELTA.sn))


@pytest.mark.parametrize("flag", [2, -1, "", [], {}, "maybe", None])
def test_no_flag_is_no_word(flag, environ, cloud, pushgateway):
    """A flag that says nothing leaves `ecoflow_online` out."""
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, DELTA.quotas, online=flag)]

    assert push(environ).status == 0

    assert ("ecoflow_online", ()) not in pushgateway.device(DELTA.sn)


class LosesAnswers(RecordingServer):
    """A proxy that passes a push on, and answers 503 all the same."""

    def answer(self, received):
        request = urllib.request.Request(
            received.path,
            data=received.body,
            method=received.method,
            headers={"Content-Encoding": "gzip"},
        )
        urllib.request.urlopen(request, timeout=30).close()
        return Answer(503)


def test_a_push_whose_answer_was_lost_is_not_forgotten(environ, cloud, pushgateway):
    """Values that arrived although the push failed go when they are too old."""
    environ |= {"STALE_AFTER": "0", "ESTABLISH_ATTEMPTS": "1"}
    online = list(cloud.devices)
    offline(cloud)
    assert push(environ).status == 0
    cloud.devices[:] = online
    with LosesAnswers() as lossy:
        through = {**environ, "HTTP_PROXY": lossy.url, "NO_PROXY": "127.0.0.1"}
        assert push(through).status == 74
    assert values(pushgateway.device(DELTA.sn))
    cloud.fail(LIST, faults.status(500))

    assert push(environ).status == 69

    assert not values(pushgateway.device(DELTA.sn))


def test_a_run_killed_behind_its_push_is_not_forgotten(environ, cloud, pushgateway):
    """Values that a killed run left behind go when they are too old."""
    environ["STALE_AFTER"] = "0"
    online = list(cloud.devices)
    offline(cloud)
    assert push(environ).status == 0
    cloud.devices[:] = online

    class Kills(LosesAnswers):
        def answer(self, received):
            super().answer(received)
            process.kill()
            return Answer(200)

    with Kills() as killer:
        through = {**environ, "HTTP_PROXY": killer.url, "NO_PROXY": "127.0.0.1"}
        process = subprocess.Popen([sys.executable, PUSH], env=through)
        assert process.wait(timeout=60) == -9
    assert values(pushgateway.device(DELTA.sn))
    cloud.fail(LIST, faults.status(500))

    assert push(environ).status == 69

    assert not values(pushgateway.device(DELTA.sn))


def test_a_device_that_says_all_in_texts_has_its_times(environ, cloud, pushgateway):
    """Normalized values alone make a snapshot, which stands until STALE_AFTER."""
    del environ["METRICS_SET"]
    pack = json.dumps({"M102ZFAKE00000B2": {"soc": 89, "vol": 52000}})
    cloud.devices[:] = [SimulatedDevice(SN, {"bp2000": pack}, "Van", "Power Kits")]
    assert push(environ).status == 0
    device = pushgateway.device(SN)
    assert ("ecoflow_snapshot_timestamp_seconds", ()) in device
    cloud.fail(QUOTA, faults.code("1", "whatever"))

    assert push(environ).status == 69

    assert pushgateway.device(SN) == device


def test_a_partial_map_changes_no_family(environ, cloud, pushgateway):
    """What told the family once is remembered where a later map lacks it."""
    del environ["METRICS_SET"]
    for quotas in ({"cmsBattSoc": 50}, {"powGetAcIn": 7}):
        cloud.devices[:] = [SimulatedDevice(SN, quotas)]
        assert push(environ).status == 0

    device = pushgateway.device(SN)
    assert device["ecoflow_ac_input_power_watts", ()] == 7
    (info,) = [dict(k) for n, k in device if n == "ecoflow_device_info"]
    assert info["family"] == "third generation"
