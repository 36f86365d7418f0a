"""--drain: its time, what a kill leaves, and the runs that come after it."""

from __future__ import annotations

import json
import os
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from ecoflow_push.memory.notes import Notes
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedDevice
from tests.conftest import DELTA, STREAM
from tests.drained import (
    JOBS,
    bare,
    draining,
    folder_of,
    said,
    slow,
    spoil,
    stored,
    time_of,
    waiting,
)
from tests.receiver import Receiver
from tests.remote_write import ended, of_devices, of_run
from tests.support import (
    eventually,
    free_port,
    prometheus,
    push,
    victoria_metrics,
)

# -- time ---------------------------------------------------------------------------


def test_folders_share_the_time(written, receiver):
    """A large folder costs no other one its turn, and has what they leave over.

    What the deadline cuts short the next drain goes on with.
    """
    spoil(written, receiver, JOBS[:1], 24)
    spoil(written, receiver, JOBS[1:2], 2)
    # One record is one request.
    environ = {**bare(written), "REMOTE_WRITE_MAX_SAMPLES": "7"}
    receiver.fail("", slow(0.5))

    first = push({**environ, "RUN_DEADLINE": "12"}, "--drain")

    assert first.status == 1, first.stderr
    assert first.seconds < 12
    assert "folders: 1 drained, 1 waiting; " in said(first)
    jobs = [samples[0].label("job") for samples in of_devices(receiver)]
    assert [job for job, _ in groupby(jobs)] == ["attic", "barn", "attic"]
    assert len(stored(receiver)["barn"]) == 2
    receiver.heal()
    assert push(environ, "--drain").status == 0
    assert len(stored(receiver)["attic"]) == 24
    assert waiting(written) == []


def test_a_receiver_that_hangs_costs_the_deadline_at_most(written, receiver):
    """Nothing is lost, and it is 75."""
    names = spoil(written, receiver)
    receiver.fail("", faults.hang())

    run = push({**bare(written), "RUN_DEADLINE": "2"}, "--drain")

    assert run.status == 75, run.stderr
    assert run.seconds < 3
    assert waiting(written) == names


def test_a_device_that_hangs_costs_no_other_its_turn(written, cloud, receiver):
    """Also in a drain after one in which each had its turn, and no run between."""
    cloud.devices[:] = [DELTA, STREAM]
    spoil(written, receiver, JOBS[:1], 1)
    receiver.fail("", faults.status(500))
    assert push(bare(written), "--drain").status == 75
    receiver.heal()
    receiver.script = [faults.hang()]

    assert push({**bare(written), "RUN_DEADLINE": "5"}, "--drain").status == 75

    (held,) = waiting(written)
    assert held.endswith(DELTA.sn)


def test_who_was_in_vain_comes_last_the_next_time(written, receiver):
    """Folders of which nothing is taken keep others waiting for one drain at most."""
    spoil(written, receiver, runs=1)

    def picky(handler) -> None:
        answer = receiver.answer(handler.current)
        if handler.current.method == "POST":
            jobs = {sample.label("job") for sample in receiver.requests[-1].samples}
            if "cabin" not in jobs:
                answer = answer._replace(status=400)
        handler.send(answer)

    for job in reversed(JOBS):
        os.utime(folder_of(written, job) / "state.json", (0, JOBS.index(job)))
    receiver.fail("", picky)

    first = push(bare(written), "--drain")

    assert first.status == 76
    assert "folders: 1 not reached, 2 waiting; " in said(first)

    second = push(bare(written), "--drain")

    assert second.status == 1, second.stderr
    assert "folders: 1 drained, 2 waiting; 7 samples of 1 snapshots" in said(second)


# -- kills, and what comes after ----------------------------------------------------


def test_a_kill_in_the_middle_loses_nothing(written, receiver):
    """Killed at any instant, it is done again: each sample once, in order."""
    names = spoil(written, receiver, JOBS[:2], 6)
    environ = {**bare(written), "REMOTE_WRITE_MAX_SAMPLES": "7"}
    receiver.fail("", slow(0.05))
    for count in (1, 3, 6, 8):
        with draining(environ) as process:
            assert eventually(partial(_has_heard, receiver, count))
            process.kill()
        there = [at for ats in stored(receiver).values() for at in ats]
        # What is gone here is there, and perhaps the one that was just taken.
        assert {*there, *map(time_of, waiting(written))} == set(map(time_of, names))
    receiver.heal()

    assert push(environ, "--drain").status == 0

    assert waiting(written) == []
    assert sum(map(len, stored(receiver).values())) == 12
    for ats in stored(receiver).values():
        assert all(first < second for first, second in pairwise(ats))


def _has_heard(receiver: Receiver, count: int) -> bool:
    return len(of_devices(receiver)) >= count


def test_a_run_goes_on_where_a_drain_ended(written, receiver, cloud):
    """What a device says no more ends in the next run, and nothing else does.

    Also where the folder's memory of its devices got lost, which the run then has
    anew.
    """
    attic = {**written, "PUSH_JOB": "attic"}
    assert push(attic).status == 0
    spoil(written, receiver, JOBS[:1])
    (path,) = Path(written["STATE_DIR"]).glob("*/state.json")
    fields = json.loads(path.read_text())
    fields.pop("crc")
    path.write_text(json.dumps({**fields, "devices": {}}))

    assert push(bare(written), "--drain").status == 0

    fewer = dict(DELTA.quotas or {})
    del fewer["pd.soc"]
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, fewer, DELTA.name, "DELTA 2")]
    receiver.requests.clear()
    run = push(attic)

    assert run.status == 0, run.stderr
    (samples,) = of_devices(receiver)
    assert ended(samples) == {"ecoflow_pd_soc"}
    (own,) = of_run(receiver)
    assert own["ecoflow_push_runs_total"] == fields["runs"] + 1
    assert own["ecoflow_push_spool_samples"] == 0


def test_what_was_learnt_of_the_endpoint_is_kept(written, receiver):
    """Its proof and its version are not asked for again by the next run."""
    spoil(written, receiver, JOBS[:1])
    (path,) = Path(written["STATE_DIR"]).glob("*/state.json")
    fields = json.loads(path.read_text())
    fields.pop("crc")
    path.write_text(json.dumps({**fields, "endpoints": []}))
    written["REMOTE_WRITE_VERSION"] = "auto"
    receiver.speaks = "1"
    proofs = len(receiver.proofs)

    assert push(bare(written), "--drain").status == 0

    assert {request.version for request in receiver.requests} == {"1", "2"}
    assert len(receiver.proofs) == proofs + 1
    receiver.requests.clear()
    assert push({**written, "PUSH_JOB": "attic"}).status == 0
    assert len(receiver.proofs) == proofs + 1
    assert {request.version for request in receiver.requests} == {"1"}


def test_a_drain_leaves_no_doubt_behind(written, receiver):
    """That something was on its way is forgotten when its end is known."""
    spoil(written, receiver, JOBS[:1], 6)
    environ = {**bare(written), "REMOTE_WRITE_MAX_SAMPLES": "7"}

    assert push(environ, "--drain").status == 0

    notes = Notes(str(next(Path(written["STATE_DIR"]).iterdir())))
    notes.open()
    assert notes.replaying == ("", 0, 0)


def test_a_doubt_about_another_address_stays(written, receiver):
    """That a replay to another one was cut short is for the runs to that one."""
    spoil(written, receiver, JOBS[:1], 1)
    notes = Notes(str(next(Path(written["STATE_DIR"]).iterdir())))
    notes.begin_replay("spool-of-another", 5, 9)

    assert push(bare(written), "--drain").status == 0

    notes.open()
    assert notes.replaying == ("spool-of-another", 5, 9)


def test_connections_are_shared_by_folders(written, server_tls, ca_file):
    """Folders of one receiver need one handshake, and one question for the time."""
    with Receiver(tls=server_tls) as receiver:
        written |= {
            "REMOTE_WRITE_URL": receiver.write_url,
            "REMOTE_WRITE_CA_FILE": ca_file,
        }
        spoil(written, receiver)
        heard, shaken = len(receiver.received), receiver.handshakes

        assert push(bare(written), "--drain").status == 0

        assert receiver.handshakes == shaken + 1
        asked = [r for r in receiver.received[heard:] if r.method != "POST"]
        assert len(asked) == 1


# -- real servers -------------------------------------------------------------------


@pytest.mark.parametrize("start", [prometheus, victoria_metrics])
def test_a_real_server_has_everything_once(start, written, tmp_path):
    """Down while it was collected, it has each sample in order after one drain."""
    port = free_port()
    written["REMOTE_WRITE_URL"] = f"http://127.0.0.1:{port}/api/v1/write"
    written |= {"ESTABLISH_ATTEMPTS": "1"}
    for _ in range(4):
        for job in JOBS[:2]:
            assert push({**written, "PUSH_JOB": job}).status == 75
    names = waiting(written)
    assert len(names) == 8
    with start(tmp_path / "data", port=port) as database:
        assert push(bare(written), "--drain").status == 0

        def look():
            found = database.points('{__name__="ecoflow_pd_soc"}')
            return found if sum(map(len, found.values())) == 8 else {}

        found = eventually(look, 10)
        jobs = {dict(labels)["job"] for _, labels in found}
        times = [at for points in found.values() for at, _ in points]
        own = database.points('{job=~".+_push"}')
        assert push({**written, "PUSH_JOB": "attic"}).status == 0
    assert jobs == set(JOBS[:2])
    assert sorted(times) == sorted(map(time_of, names))
    assert own == {}
