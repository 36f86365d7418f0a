"""What the world does to a run for many accounts as a whole."""

from __future__ import annotations

import os
import re
import time

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import RecordingServer
from tests.fleets import Fleet, samples_of, totals_of
from tests.support import PUSH, forked, push


@pytest.fixture
def fleet(cloud, environ, tmp_path):
    return Fleet(cloud, tmp_path / "accounts", environ)


@pytest.fixture
def written(fleet, receiver):
    """A fleet whose values go to the receiver."""
    fleet.environ["REMOTE_WRITE_URL"] = receiver.write_url
    fleet.environ["ESTABLISH_ATTEMPTS"] = "2"
    return fleet


def test_a_device_that_moves_to_another_account_keeps_its_group(fleet, pushgateway):
    """Whoever had it takes nothing away that another account says in the same run."""
    fleet.environ["PUSHGATEWAY_URL"] = pushgateway.url
    fleet.add("home", "barn", devices=2)
    environ = {**fleet.environ, "ACCOUNTS_AT_ONCE": "1", "STALE_AFTER": "0.1"}
    push(environ)
    moved = fleet.accounts["home"].devices.pop()
    fleet.accounts["barn"].devices.append(moved)
    # In the first run it is missing, in the second one gone.
    for _ in range(2):
        for age, name in enumerate(("barn", "home")):
            at = time.time() - 1000 + age
            os.utime(fleet.state(name) / "state.json", (at, at))
        assert push(environ).status == 0
        group = pushgateway.devices()[moved.sn]
        whose = {dict(own)["account"] for name, own in group if name.endswith("_soc")}
        assert whose == {"barn"}

    assert moved.sn not in (fleet.state("home") / "state.json").read_text()


def test_a_device_that_moves_ends_under_its_old_account_alone(written, receiver):
    """By remote-write its series are the account's: no marker meets the new ones."""
    written.add("home", "barn", devices=2)
    environ = {**written.environ, "ACCOUNTS_AT_ONCE": "1"}
    push(environ)
    moved = written.accounts["home"].devices.pop()
    written.accounts["barn"].devices.append(moved)
    for _ in range(2):
        assert push(environ).status == 0

    of_it = [s for s in samples_of(receiver) if s.label("device") == moved.sn]
    values = [s for s in of_it if s.name == "ecoflow_pd_soc" and not s.is_stale]
    assert [s.label("account") for s in values] == ["home", "barn", "barn"]
    assert {s.label("account") for s in of_it if s.is_stale} == {"home"}


def test_what_was_lost_before_a_kill_is_counted_by_the_next_run(written, receiver):
    """It is once in the total, though the run that lost it never told of it."""
    written.add("home", "barn")
    environ = {**written.environ, "SPOOL_MAX_AGE": "0.1"}
    push(environ)
    own = {path.parent for path in written.states("state.json")}
    (whole,) = own - {written.state("home"), written.state("barn")}
    receiver.fail("write", faults.status(503))
    push(environ)
    before = (whole / "state.json").read_bytes()
    receiver.heal()
    time.sleep(0.2)
    push(environ)
    # As a kill leaves it, whose run has come as far as its last account.
    (whole / "state.json").write_bytes(before)
    push(environ)
    push(environ)

    assert totals_of(receiver) == [0, 10, 10, 10]


@pytest.mark.parametrize("is_up", [True, False])
def test_a_disk_that_fills_is_told_once(is_up, written, receiver):
    """Of each kind there is one line of one account, and one that counts the others."""
    written.add("home", "barn", "mill")
    if not is_up:
        receiver.fail("write", faults.status(503))

    place = written.environ["STATE_DIR"]
    run = forked(PUSH, (), written.environ, hardships=[("full", place)])

    assert run.status == (0 if is_up else 74)
    warnings = [line for line in run.stderr.splitlines() if " WARNING " in line]
    assert len(warnings) == (4 if is_up else 6)
    assert sum("nothing is remembered" in line for line in warnings) == 1
    assert sum("cannot write the spool" in line for line in warnings) == 1
    # The run's own memory is one more.
    full = "No space left on device"
    counted = [f"no memory of this run, {full}: so for 3 more; "]
    counted += ["remote-write: no spool can be written: so for 2 more; "]
    if not is_up:
        lost = "they could be neither delivered nor stored: so for 2 more; "
        counted.append(f"remote-write: samples dropped: {lost}")
    for text in counted:
        assert sum(f" WARNING {text}" in line for line in warnings) == 1, text


def test_a_gateway_that_failed_has_one_short_try_for_the_run(fleet):
    """What it did to the accounts is known: the run's own series cost it 2 s more."""
    fleet.add("home", "barn", "mill")
    with RecordingServer() as server:
        server.fail("ecoflow_push", faults.hang())
        server.fail("", faults.status(503))
        sink = {"PUSHGATEWAY_URL": server.url, "ESTABLISH_ATTEMPTS": "1"}
        run = push({**fleet.environ, **sink, "RUN_DEADLINE": "20"})

        assert "ecoflow_push" in server.received[-1].path
    assert run.status == 74
    (seconds,) = re.findall(r"exit 74 IOERR after (\S+) s; accounts: 3", run.stderr)
    assert float(seconds) < 10


@pytest.mark.parametrize(("fault", "end"), [(None, ""), (faults.status(404), "/fail")])
def test_the_monitor_hears_of_one_run(fault, end, written):
    """However many the accounts are: that it began, and how it ended for them all."""
    written.add("home", "barn", "mill")
    if fault:
        written.accounts["barn"].fail("", fault)
    with RecordingServer() as monitor:
        part = {"HEALTHCHECK_URL": f"{monitor.url}/ping"}

        run = push({**written.environ, **part})

        paths = [each.path for each in monitor.received]
    assert run.status == (1 if fault else 0)
    assert paths == ["/ping/start", f"/ping{end}"]
    assert monitor.received[-1].body.startswith(b"exit %d " % run.status)
