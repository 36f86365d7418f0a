"""The simulated cloud of many accounts: whose devices they are, and who fails alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.accounts import Keys, Shelf, SimulatedAccount
from ecoflow_push.simulator.cloud import SimulatedCloud, SimulatedDevice
from ecoflow_push.simulator.encoded import Encoded
from tests.conftest import DELTA
from tests.many_accounts import Fleet, key_accounts, many_accounts, quotas
from tests.support import ROOT, parse, push


@pytest.fixture
def sites(cloud):
    """Three accounts of two devices beside the cloud's own one, by name."""
    accounts = key_accounts(3, 2, Fleet(20))
    for account in accounts.values():
        cloud.add(account)
    return accounts


@pytest.fixture
def read(cloud, tmp_path):
    """Reads an account into a text file; returns the status and the serials."""

    def read(account, **settings):
        file = tmp_path / "out.prom"
        file.unlink(missing_ok=True)
        environ = account.keys.environ(cloud.url) | settings
        files = {"TEXTFILE_PATH": str(file), "STATE_DIR": str(tmp_path / "state")}
        status = push(environ | files).status
        return status, serials(file)

    return read


def serials(file):
    series = parse(file.read_text())
    return {dict(labels)["device"] for name, labels in series if name.endswith("_soc")}


def test_keys_open_the_devices_of_their_own_account(sites, read):
    """Each key pair reads all devices of its account, and no others."""
    for account in sites.values():
        own = {device.sn for device in account.devices}
        assert len(own) == 2

        assert read(account) == (0, own)


def test_another_account_s_device_is_refused(sites, read):
    """A serial of another account is answered with 1006."""
    mine, other, _ = sites.values()

    status, found = read(mine, ECOFLOW_DEVICE_SN=other.devices[0].sn)

    assert (status, found) == (77, set())


def test_keys_of_two_accounts_do_not_go_together(cloud, sites, read):
    """An access key with another account's secret key is answered with 8521."""
    mine, other, _ = sites.values()
    mixed = Keys(mine.keys.access_key, other.keys.secret_key)

    assert read(SimulatedAccount([], mixed)) == (77, set())
    assert (mine.requests, other.requests) == (3, 0)


def test_a_fault_is_one_account_s_until_it_is_healed(cloud, sites, read):
    """While an account fails others are served, and it is when its fault is gone."""
    ill, well, _ = sites.values()
    identity = ill.keys.access_key
    cloud.account(identity).fail("", faults.status(404))

    assert read(ill) == (69, set())
    assert read(well)[0] == 0
    cloud.account(identity).heal()
    assert read(ill)[0] == 0


def test_a_fault_of_an_account_may_be_of_one_path_and_of_some_times(sites, read):
    """A fault of one device's answer, once, costs that device of that run."""
    account, *_ = sites.values()
    bad, good = (device.sn for device in account.devices)
    account.fail(f"quota/all?sn={bad}", faults.code("1008"), times=1)

    assert read(account) == (1, {good})
    assert read(account) == (0, {bad, good})


def test_requests_are_counted_by_account(cloud, sites, read):
    """A run of two devices is three requests of its account, and none of others."""
    first, *others = sites.values()

    read(first)

    assert (first.requests, first.logins) == (3, 0)
    assert [account.requests for account in others] == [0, 0]
    assert cloud.account("someone@example.org").requests == 0


def test_what_is_asked_of_nobody_is_refused(cloud, read):
    """Keys that no account has are answered with 8513, in a cloud of many too."""
    stranger = SimulatedAccount([DELTA], Keys("AKnobody", "SKnobody"))

    assert read(stranger) == (77, set())
    with pytest.raises(KeyError):
        cloud.account("AKnobody")


def test_a_device_is_found_after_the_list_has_changed():
    """The list of devices may change in any way: what it holds is found, no more."""
    devices = [SimulatedDevice(f"SN{n}") for n in range(5)]
    shelf = Shelf(devices)
    assert shelf.find("SN3") is devices[3]
    assert shelf.find("SN9") is shelf.find(None) is None

    devices[0], devices[3] = devices[3], devices[0]
    assert shelf.find("SN3") is devices[0]
    assert shelf.find("SN0") is devices[3]
    del devices[1:]
    assert shelf.find("SN0") is None
    devices[:] = [SimulatedDevice("SN9")]
    assert shelf.find("SN9") is devices[0]
    assert shelf.find("SN3") is None


def test_what_is_encoded_is_what_was_given():
    """Quotas that were written out once read as they were, the moving ones apart."""
    given = {"a%": 1, "b\0": [1, {"c": "moving"}], "d": None}
    still, moving = Encoded(given), Encoded({"x": 0, **given, "y": 0}, {"x", "y"})

    assert json.loads(still()) == given
    assert still() is still()
    first, second = json.loads(moving()), json.loads(moving())
    assert {k: v for k, v in first.items() if k not in "xy"} == given
    assert first["x"] == first["y"] != second["x"] == second["y"]


@pytest.mark.parametrize("size", [1, 30, 60, 300, 900])
def test_a_device_has_as_many_quotas_as_asked_for(size):
    """So many quotas are so many different numbers on the way."""
    assert len(quotas(size)) == size
    assert all(isinstance(value, int | float) for value in quotas(size).values())


def test_the_command_s_files_are_those_of_the_program(tmp_path):
    """What it writes for each account is all that push.py needs to read it."""
    folder = tmp_path / "accounts"
    size = "--accounts=2", "--app=2", "--devices=3", "--quotas=20"
    with many_accounts(folder, *size, "--fault=site-00002=keys") as cloud:
        names = sorted(file.name for file in folder.iterdir())
        statuses = {}
        for name in names:
            assert (folder / name).stat().st_mode & 0o777 == 0o600
            place = tmp_path / f"{name}.prom"
            run = push(
                {"TEXTFILE_PATH": str(place), "STATE_DIR": str(tmp_path / "state")},
                f"--env-file={folder / name}",
            )
            statuses[name] = run.status, len(serials(place))
        counts = cloud.ask("counts")

    assert statuses == {
        "app-00001.env": (0, 3),
        "app-00002.env": (0, 3),
        "site-00001.env": (0, 3),
        "site-00002.env": (77, 0),
    }
    assert counts["app-00002"]["logins"] == 1
    assert counts["site-00001"] == {"requests": 4, "logins": 0}
    assert counts["site-00002"] == {"requests": 1, "logins": 0}


def test_the_command_s_faults_come_and_go(tmp_path):
    """A line on its standard input lets an account fail, and heals it."""
    folder = tmp_path / "accounts"
    state = {"STATE_DIR": str(tmp_path / "state"), "ESTABLISH_ATTEMPTS": "1"}
    file = f"--env-file={folder}/site-00001.env"
    with many_accounts(folder, "--quotas=5") as cloud:
        assert cloud.ask("fault site-00001 down:device/list") == {}
        assert push(state, file, "--dry-run").status == 69
        assert cloud.ask("heal site-00001") == {}
        assert push(state, file, "--dry-run").status == 0
        assert cloud.ask("fault nobody hang") == {"error": "not known: 'nobody'"}
        assert cloud.ask("dance") == {"error": "not understood: dance"}


def test_the_command_refuses_a_fault_that_it_does_not_know(tmp_path):
    """A slip in --fault ends it with a line that names it."""
    options = f"--folder={tmp_path}", "--fault=site-00001=hnag"
    done = subprocess.run(
        [sys.executable, "-m", "tests.many_accounts", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr == "--fault site-00001=hnag: not known: 'hnag'\n"


def test_the_command_serves_until_it_is_told_to_end(tmp_path):
    """Without a standard input it stays, and SIGTERM ends it with 0."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.many_accounts", f"--folder={tmp_path}"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        told = json.loads(process.stdout.readline())
        environ = {"STATE_DIR": str(tmp_path / "state")}
        file = f"--env-file={tmp_path}/site-00001.env"
        assert push(environ, file, "--dry-run").status == 0
        os.kill(told["pid"], signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_port_that_is_asked_for_is_taken(tmp_path):
    """With --port the address is known before it starts."""
    with SimulatedCloud([]) as other:
        port = other.server_address[1]
    with many_accounts(tmp_path, f"--port={port}") as cloud:
        assert cloud.url == f"http://127.0.0.1:{port}"
