"""Serials as people type them: in lower case, or of a device that is not listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedDevice
from ecoflow_push.simulator.server import Fault
from tests.conftest import DELTA, STREAM
from tests.support import push, push_anew, values

LIST, QUOTA = "device/list", "quota/all"
TYPED = DELTA.sn.lower()


def remembered(environ) -> set[str]:
    """Return the serials that the state has."""
    (file,) = Path(environ["STATE_DIR"]).glob("*/state.json")
    return set(json.loads(file.read_text())["devices"])


def asked(cloud) -> list[str]:
    """Return the serials whose quotas were asked for."""
    paths = [each.path for each in cloud.received if QUOTA in each.path]
    return [path.rpartition("=")[2] for path in paths]


def lists(*serials: str) -> Fault:
    """Return the answer of a list with these serials alone."""
    rows = [{"sn": sn, "online": 1} for sn in serials]
    return faults.body(json.dumps({"code": "0", "data": rows}).encode())


@pytest.mark.case("D14")
@pytest.mark.parametrize("how", ["setting", "option", "both spellings"])
def test_lower_case_just_works(how, environ, cloud, pushgateway):
    """A serial in lower case is the device that is listed in upper case."""
    cloud.devices.append(STREAM)
    environ["ECOFLOW_DEVICE_NAME"] = f"{TYPED}=Shed"
    args = ["--device", TYPED] if how == "option" else []
    if how != "option":
        both = how == "both spellings"
        environ["ECOFLOW_DEVICE_SN"] = f"{TYPED},{DELTA.sn}" if both else TYPED

    run = push(environ, *args)

    assert run.status == 0, run.stderr
    assert asked(cloud) == [DELTA.sn]
    assert set(pushgateway.devices()) == {DELTA.sn}
    assert pushgateway.groups()[DELTA.sn]["device"] == DELTA.sn
    names = {
        dict(labels)["device_name"]
        for _, labels in pushgateway.series()
        if "device_name" in dict(labels)
    }
    assert names == {"Shed"}
    assert remembered(environ) == {DELTA.sn}


def test_lower_case_when_the_list_fails(environ, cloud, pushgateway):
    """What is remembered of the device serves; nothing is kept of a spelling."""
    environ["ECOFLOW_DEVICE_SN"] = TYPED
    cloud.fail(LIST, faults.status(500))
    assert push({**environ, "ESTABLISH_ATTEMPTS": "1"}).status == 69
    assert not pushgateway.devices()

    cloud.heal()
    assert push(environ).status == 0
    assert remembered(environ) == {DELTA.sn}

    cloud.fail(LIST, faults.status(500))
    assert push({**environ, "ESTABLISH_ATTEMPTS": "1"}).status == 69
    assert set(pushgateway.devices()) == remembered(environ) == {DELTA.sn}


def test_a_list_in_lower_case(environ, cloud, pushgateway):
    """A serial that the list has as it was typed is that one."""
    cloud.devices[:] = [SimulatedDevice(TYPED, {"pd.soc": 1}), DELTA]
    environ["ECOFLOW_DEVICE_SN"] = TYPED

    for _ in range(2):
        assert push(environ).status == 0
    assert set(pushgateway.devices()) == {TYPED}


def test_a_refusal_of_what_was_named_in_lower_case(environ, cloud):
    """It is named: the run says so every time, and is partial."""
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, code="1006"), STREAM]
    environ["ECOFLOW_DEVICE_SN"] = f"{TYPED},{STREAM.sn}"

    for _ in range(2):
        run = push(environ)
        assert run.status == 1
        assert "R331…0001: " in run.stderr


def test_what_is_not_listed_may_be_readable(environ, cloud, pushgateway):
    """A device that answers is read, whatever the list has."""
    cloud.fail(LIST, lists(STREAM.sn))
    environ["ECOFLOW_DEVICE_SN"] = DELTA.sn

    run = push_anew(environ)

    assert run.status == 0, run.stderr
    assert "list" not in run.stderr
    assert values(pushgateway.device(DELTA.sn))


NO_WORD_ON_IT = {
    "HTTP 500": faults.status(500),
    "too busy": faults.code("9", "Server is too busy"),
    "HTTP 403": faults.status(403),
    "8521": faults.code("8521", "signature is wrong"),
    "reset": faults.reset(),
    "page": faults.page(),
}


@pytest.mark.parametrize("fault", NO_WORD_ON_IT)
def test_what_befalls_a_request_is_no_word_on_the_serial(fault, environ, cloud):
    """Only where EcoFlow spoke of the device is its serial doubted."""
    cloud.fail(LIST, lists(STREAM.sn))
    cloud.fail(QUOTA, NO_WORD_ON_IT[fault])
    environ |= {"ECOFLOW_DEVICE_SN": DELTA.sn, "ESTABLISH_ATTEMPTS": "1"}

    run = push(environ)

    assert run.status != 0
    assert "account's list" not in run.stderr


def test_the_app_account_knows_it_in_upper_case(
    account, environ, cloud, fleet, pushgateway
):
    """What the keys' list lacks, the other source finds, however it was typed."""
    cloud.fail(LIST, lists(STREAM.sn))
    environ |= account | {"ECOFLOW_SOURCE": "auto", "ECOFLOW_DEVICE_SN": TYPED}

    run = push(environ)

    assert run.status == 0, run.stderr
    assert set(pushgateway.devices()) == {DELTA.sn}
    assert remembered(environ) == {DELTA.sn}


def test_the_app_account_in_lower_case(account, cloud, fleet, pushgateway):
    """The app account's list is looked up in upper case, too."""
    account["ECOFLOW_DEVICE_SN"] = TYPED

    run = push(account)

    assert run.status == 0, run.stderr
    assert set(pushgateway.devices()) == {DELTA.sn}
