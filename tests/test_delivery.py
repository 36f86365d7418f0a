"""Delivered means delivered: whose fault it is is told by contrast, and told right."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from threading import Event, Thread

import pytest

from ecoflow_push.errors import ExitStatus, WriteError
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import Answer, Received, RecordingServer
from ecoflow_push.sinks.failing import MOST_FAILING_RUNS
from ecoflow_push.sinks.turns import MOST_RUNS_HELD
from tests.delivery import (
    DOWN,
    MANY,
    A,
    B,
    has_device,
    judge,
    make_old,
    run,
    shut_after_an_hour,
    stored,
    wait_in_spool,
    waiting,
)
from tests.receiver import NO_MESSAGE, PATH
from tests.sinks import ONLINE, RUN, SOC, RemoteWriteKit, kit_of, say
from tests.support import eventually


@pytest.fixture
def job(tmp_path) -> Iterator[RemoteWriteKit]:
    with kit_of("remote-write", tmp_path) as kit:
        assert isinstance(kit, RemoteWriteKit)
        yield kit
        assert kit.server.outrages == []


# -- one device, and the others -----------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(500),
        faults.status(429),
        faults.status(429, Retry_After="600"),
        faults.reset(),
        faults.hang(),
    ],
    ids=["500", "429", "asked to wait", "reset", "hang"],
)
def test_a_device_that_fails_costs_the_others_nothing(fault, job):
    """Whatever it fails with: others and the run's series arrive in every run."""
    judge(job, has_device(A), fault)
    # One that hangs takes what a run has.
    seconds, runs = 2.0, MOST_FAILING_RUNS - 1

    for _ in range(runs):
        sink = run(job, say(A), say(B), seconds=seconds)
        (error,) = sink.delivery.errors
        assert (error.status, error.is_stored) == (ExitStatus.TEMPFAIL, True)
        assert (sink.delivery.delivered, sink.delivery.stored) == (1, 1)
        backlog = sink.backlog()
        assert backlog
        assert backlog.resting == 1

    found = [finding.text for finding in job.sink().probe(Deadline(5))]
    assert any(text.startswith("takes nothing of R331...0001 in") for text in found)
    assert len(stored(job, B)) == len(stored(job, "", RUN)) == runs
    assert job.state.dropped == {}
    job.server.heal()
    assert run(job, say(A), say(B)).delivery.errors == []
    assert len(stored(job, A)) == runs + 1


@pytest.mark.case("W6")
def test_a_device_that_fails_long_enough_loses_one_record_a_run(job):
    """After 10 runs its oldest goes, one a run, until one is taken."""
    judge(job, has_device(A), faults.status(500))
    for _ in range(MOST_FAILING_RUNS + 2):
        run(job, say(A), say(B))

    assert job.state.dropped == {"failing": 9}
    job.server.heal()
    assert run(job, say(A), say(B)).delivery.errors == []
    assert len(stored(job, A)) == MOST_FAILING_RUNS
    assert job.state.dropped == {"failing": 9}


def test_who_failed_is_tried_last_and_once(job):
    """From its second run on a device that failed waits for the others."""
    judge(job, has_device(A), faults.status(500))
    run(job, say(A), say(B))
    job.server.requests.clear()
    heard = job.heard()

    run(job, say(A), say(B))

    # B, A once, the run's own series.
    assert job.heard() - heard == 3
    assert [r.samples[0].label("device") for r in job.server.requests] == [B, ""]


@pytest.mark.case("W2")
def test_a_server_that_fails_on_two_is_down(job):
    """Nobody else is asked, nothing is lost, and what is said is 75."""
    job.server.fail(PATH, DOWN)

    sink = run(job, *map(say, MANY[:8]))

    # The first twice, the second once, then something that is nobody's.
    assert job.heard() == 4
    (error,) = sink.delivery.errors
    assert error.status == ExitStatus.TEMPFAIL
    assert sink.delivery.stored == 8
    assert job.state.endpoint.queues[MANY[0]].failing == 0


def test_a_fresh_snapshot_goes_before_any_backlog(job):
    """A device of which nothing waits does not wait behind one of which much does."""
    wait_in_spool(job, 3, A)
    job.server.requests.clear()

    run(job, say(A), say(B))

    first = [r.samples[0].label("device") for r in job.server.requests]
    assert first[:2] == [B, A]


def test_every_device_has_its_turn(job):
    """Where a run has time for some alone, the next begins with the others."""
    wait_in_spool(job, 2, *MANY[:6])

    def slow(handler) -> None:
        time.sleep(0.2)
        handler.send(job.server.answer(handler.current))

    job.server.fail(PATH, slow)
    for _ in range(3):
        run(job, *map(say, MANY[:6]), seconds=1.0)

    assert all(stored(job, sn) for sn in MANY[:6])


# -- several in a request -----------------------------------------------------------


def test_many_devices_share_requests(job):
    """Above 8 devices a request carries several; below each has its own."""
    assert run(job, *map(say, MANY[:8])).delivery.delivered == 8
    assert job.heard() == 8 + 1

    assert run(job, *map(say, MANY)).delivery.delivered == 12
    assert job.heard() == 8 + 1 + 1 + 1


@pytest.mark.case("W4")
@pytest.mark.parametrize("fault", [faults.status(400), faults.status(500)])
def test_a_bad_record_costs_itself_alone(fault, job):
    """A request of many devices is halved until the bad one is alone."""
    judge(job, has_device(MANY[5]), fault)

    sink = run(job, *map(say, MANY))

    assert sink.delivery.delivered == 11
    assert [sn for sn in MANY if not stored(job, sn)] == [MANY[5]]


@pytest.mark.case("N21")
def test_a_backlog_goes_out_in_few_requests(job):
    """Of one device up to 2,000 samples go together, of a series oldest first."""
    wait_in_spool(job, 40, A)
    job.server.requests.clear()

    run(job, say(A))

    assert len(stored(job, A)) == 41
    # One alone, as many as are then known to go well, the run's.
    assert len(job.server.requests) <= 6


@pytest.mark.case("W5")
def test_a_request_that_is_too_large_is_halved(job):
    """A 413 costs nothing as long as there is more than one series to send."""
    judge(job, lambda samples: len(samples) > 1, faults.status(413))

    sink = run(job, say(A))

    assert sink.delivery.errors == []
    assert all(stored(job, A, name) for name in (SOC, ONLINE))


@pytest.mark.case("W1")
def test_a_lost_answer_to_several_is_no_loss(job):
    """A server that keeps the order refuses what it has; nothing of it is counted."""
    wait_in_spool(job, 5, A)
    job.server.script = [None, job.server.store_then_lose()]
    run(job, say(A))

    sink = run(job, say(A))

    assert sink.delivery.errors == []
    assert job.state.dropped == {}
    times = stored(job, A)
    assert (len(times), times) == (7, sorted(times))


@pytest.mark.case("W14")
def test_an_answer_that_nobody_waited_for_is_no_loss(job):
    """So it is where the run had to give up: it may have been taken."""
    wait_in_spool(job, 5, A)
    came, may_answer = Event(), Event()

    def answer(handler) -> None:
        job.server.answer(handler.current)
        came.set()
        may_answer.wait(10)
        faults.reset()(handler)

    job.server.script = [None, answer]
    sink = job.sink()
    job.begin(sink, say(A))
    thread = Thread(target=sink.deliver, args=(Deadline(10),))
    thread.start()
    assert came.wait(10)
    sink.abandon()
    sink.settle(Deadline(10))
    may_answer.set()
    thread.join()

    assert run(job, say(A)).delivery.errors == []
    assert job.state.dropped == {}
    times = stored(job, A)
    assert (len(times), times) == (7, sorted(times))


# -- refusals -----------------------------------------------------------------------

NGINX = b"<html>\r\n<head><title>400 %b</title></head>\r\n<body>\r\n</body>\r\n</html>"
DOORS = {
    "expired certificate": Answer(400, NGINX % b"The SSL certificate error"),
    "no certificate": Answer(400, NGINX % b"No required SSL certificate was sent"),
    "plain http": Answer(400, NGINX % b"The plain HTTP request was sent to HTTPS port"),
    "vmauth": Answer(400, b"cannot find the provided auth token in config"),
    "missing route": Answer(400, b"missing route for /api/v1/write"),
    "408": Answer(408),
    "425": Answer(425),
    "402": Answer(402),
    "410": Answer(410),
    "431": Answer(431),
    "451": Answer(451),
    "460": Answer(460),
    "page": Answer(400, faults.PAGE),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_door_that_is_shut_costs_nothing(door, job):
    """20 records wait, and then everything is refused: all arrive when it opens."""
    run(job, say(A))
    wait_in_spool(job, 20, A)
    job.server.script = [DOORS[door]] * 99

    sink = run(job, say(A))

    (error,) = sink.delivery.errors
    is_later = door in ("408", "425")
    assert error.status == (ExitStatus.TEMPFAIL if is_later else ExitStatus.PROTOCOL)
    assert error.is_stored
    assert job.state.dropped == {}
    assert len(job.server.script) > 80
    assert (sink.delivery.stored, sink.delivery.lost) == (1, 0)
    job.server.script.clear()
    assert run(job, say(A)).delivery.errors == []
    times = stored(job, A)
    assert (len(times), times) == (23, sorted(times))


def test_an_hour_old_queue_is_not_shut_out_by_another(job):
    """No queue is written far ahead of another, nor are the run's series."""
    now = time.time()
    wait_in_spool(job, 1, A, B)
    make_old(job, A, [now - 7000, now - 5000, now - 3000])
    make_old(job, B, [now - 6900, now - 4900, now - 2900])
    judge(job, *shut_after_an_hour())

    assert run(job, say(A), say(B)).delivery.errors == []
    assert len(stored(job, A)) == len(stored(job, B)) == 5


@pytest.mark.parametrize("failures", [1, MOST_RUNS_HELD - 1])
def test_a_queue_that_failed_is_not_shut_out_either(failures, job):
    """Whatever a bad line lets through first: what it kept is taken when it can be."""
    now = time.time()
    wait_in_spool(job, 1, A, B)
    make_old(job, A, [now - 7000, now - 5000, now - 3000])
    make_old(job, B, [now - 6900, now - 4900, now - 2900])
    shut = shut_after_an_hour()
    judge(job, has_device(A), faults.reset(), shut)
    for _ in range(failures):
        (error,) = run(job, say(A), say(B)).delivery.errors
        assert (error.status, error.is_stored) == (ExitStatus.TEMPFAIL, True)
    assert stored(job, B)
    judge(job, *shut)

    assert run(job, say(A), say(B)).delivery.errors == []
    assert job.state.dropped == {}
    assert len(stored(job, A)) == len(stored(job, B)) == 5 + failures


def test_a_queue_that_never_works_holds_nobody_back_for_ever(job):
    """What fails in 10 runs in a row is held against the device, however old it is."""
    wait_in_spool(job, 1, A, B)
    make_old(job, A, [time.time() - 7000])
    judge(job, has_device(A), faults.reset())
    for _ in range(MOST_RUNS_HELD):
        run(job, say(A), say(B))
    assert stored(job, B) == stored(job, "", RUN) == []

    run(job, say(A), say(B))

    assert len(stored(job, B)) == MOST_RUNS_HELD + 2
    assert len(stored(job, "", RUN)) == 1


def test_what_is_new_shuts_out_nothing_that_waits(job):
    """A device of which nothing waits lets what is older than 45 minutes go first."""
    wait_in_spool(job, 1, A)
    now = time.time()
    make_old(job, A, [now - 7000, now - 5000, now - 3000])
    judge(job, *shut_after_an_hour())

    assert run(job, say(A), say(B)).delivery.errors == []
    assert job.state.dropped == {}
    assert (len(stored(job, A)), len(stored(job, B))) == (5, 1)


def test_what_is_tried_shuts_out_nothing_that_waits(job):
    """Three refusals lead to a try of a time that is as old as they are."""
    wait_in_spool(job, 1, A)
    now = time.time()
    old = [now - 7200 + 60 * n for n in range(120)]
    make_old(job, A, old)
    bad = {round(at * 1000) for at in old[:4]}
    judge(
        job,
        lambda samples: any(s.name == SOC and s.timestamp_ms in bad for s in samples),
        faults.status(400, b"bad value"),
        shut_after_an_hour(),
    )

    run(job, say(A))

    assert job.state.dropped == {"refused": 4 * 3}
    assert len(stored(job, A)) == 120 - 4 + 2


def test_what_others_write_holds_nobody_back(job):
    """Where a server is far ahead already, what is too old for it goes, alone."""
    wait_in_spool(job, 1, A)
    now = time.time()
    make_old(job, A, [now - 7200 + 60 * n for n in range(10)])
    hour_ago_ms = round(now * 1000) - 3_600_000
    judge(
        job,
        lambda samples: any(s.timestamp_ms < hour_ago_ms for s in samples),
        faults.status(400, b"out of bounds"),
    )

    run(job, say(A), say(B))

    assert job.state.dropped == {"refused": 10 * 3}
    assert (len(stored(job, A)), len(stored(job, B))) == (2, 1)


@pytest.mark.parametrize("bad", [1, 10, 20, 21])
def test_what_is_really_refused_goes_alone(bad, job):
    """One snapshot of 21 that the server will not have: exactly it is dropped."""
    job.server.fail(PATH, DOWN)
    for number in range(1, 22):
        run(job, say(A, soc=float(number)))
    bits = float(bad)
    judge(
        job,
        lambda samples: any(s.name == SOC and s.value == bits for s in samples),
        faults.status(400, b"bad value"),
    )

    first = run(job, say(A))

    (error,) = first.delivery.errors
    assert error.text.endswith("bad value: dropped")
    assert job.state.dropped == {"refused": 3}
    times = stored(job, A)
    assert (len(times), times) == (21, sorted(times))


@pytest.mark.case("W3")
def test_several_that_are_too_old_stand_in_nobody_s_way(job):
    """However many in a row are refused: what is newer arrives, in order."""
    wait_in_spool(job, 20, A)
    receiver = job.server
    receiver.fail(PATH, DOWN)
    run(job, say(A))
    oldest = sorted(entry.time_ms for entry in waiting(job))
    judge(
        job,
        lambda samples: any(s.timestamp_ms <= oldest[6] for s in samples),
        faults.status(400, b"out of bounds"),
    )

    run(job, say(A))

    assert job.state.dropped == {"refused": 7 * 3}
    assert stored(job, A)[:-1] == oldest[7:]


def test_the_last_one_refused_waits_for_the_next_run(job):
    """Nothing newer was taken: what was refused last is kept, and tried again."""
    job.server.script = [None, Answer(400, b"no")]

    sink = run(job, say(A), say(B))

    (error,) = sink.delivery.errors
    assert error.text.endswith("kept until another one is taken")
    assert (sink.delivery.delivered, sink.delivery.stored) == (1, 1)
    assert run(job, say(A), say(B)).delivery.errors == []
    assert job.state.dropped == {}


def test_what_came_back_from_a_power_cut_is_no_loss(job):
    """A record that was delivered and is there again is refused, and nobody minds."""
    wait_in_spool(job, 4, A)
    import os
    import shutil

    saved = job.folder / "saved"
    shutil.copytree(job.spool, saved)
    assert run(job, say(A)).delivery.errors == []
    for name in os.listdir(saved):
        if name.startswith("0"):
            shutil.copy(saved / name, job.spool)

    sink = run(job, say(A))

    assert sink.delivery.errors == []
    assert job.state.dropped == {}
    assert waiting(job) == []
    assert len(stored(job, A)) == 6


# -- the proof of an address --------------------------------------------------------


class Other(RecordingServer):
    """Something else than a receiver, that answers everything alike."""

    def __init__(self, reply: Answer) -> None:
        super().__init__()
        self.reply = reply

    @property
    def write_url(self) -> str:
        return self.url + PATH

    def answer(self, received: Received) -> Answer:
        return self.reply


LOGIN = b"<head><title>Log in</title><body>Log in, please</body>"
OTHERS = {
    "204": Answer(204),
    "200": Answer(200),
    "health": Answer(200, b"OK"),
    "json": Answer(200, b'{"error": "login required"}'),
    "page": Answer(200, faults.PAGE),
    "packed page": Answer(200, gzip.compress(LOGIN), (("Content-Encoding", "gzip"),)),
    "labels": Answer(200, b'{"status":"success","data":[]}'),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_takes_anything_is_no_receiver(other, tmp_path):
    """Nothing but nonsense is sent there, everything waits, 76, and a check says it."""
    with (
        Other(OTHERS[other]) as server,
        kit_of("remote-write", tmp_path, server) as kit,
    ):
        assert isinstance(kit, RemoteWriteKit)
        sink = run(kit, say(A))
        finding, *_ = kit.sink().probe(Deadline(5))

    (error,) = sink.delivery.errors
    assert isinstance(error, WriteError)
    assert error.status == ExitStatus.PROTOCOL
    assert error.is_stored
    assert "/api/v1/write" in error.cure
    assert all(r.body.startswith(NO_MESSAGE) for r in server.received)
    assert (finding.mark, finding.cure) == ("wrong", error.cure)
    assert kit.state.dropped == {}


def test_an_address_is_proven_once(job):
    """The proof costs one request, in the first run alone; a check asks again."""
    run(job, say(A))
    run(job, say(A))
    assert len(job.server.proofs) == 1
    assert job.state.endpoint.is_proven

    assert next(iter(job.sink().probe(Deadline(5)))).mark == "ok"
    assert len(job.server.proofs) == 2


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Answer(401), ExitStatus.NOPERM),
        (Answer(404), ExitStatus.PROTOCOL),
        (Answer(400, faults.PAGE), ExitStatus.PROTOCOL),
        (Answer(503), ExitStatus.TEMPFAIL),
        (Answer(408), ExitStatus.TEMPFAIL),
    ],
)
def test_other_answers_prove_nothing(reply, status, tmp_path):
    """They mean what they mean to data, and the proof is tried again."""
    with Other(reply) as server, kit_of("remote-write", tmp_path, server) as kit:
        assert isinstance(kit, RemoteWriteKit)
        sink = run(kit, say(A))

    assert sink.delivery.errors[0].status == status
    assert not kit.state.endpoint.is_proven
    assert sink.delivery.stored == 1


def test_a_body_counts_only_where_the_address_is_proven(job):
    """A receiver may say what it likes beside 200, if it is not a web page."""
    run(job, say(A))
    job.server.script = [Answer(200, b"thank you"), Answer(200, faults.PAGE)]

    assert run(job, say(A), say(B)).delivery.delivered == 1
    assert run(job, say(A), say(B)).delivery.errors == []


# -- the run's own series -----------------------------------------------------------


def test_the_runs_series_wait_for_nobody(job):
    """They go out if anything was taken, and not if nothing was and something waits."""
    wait_in_spool(job, 1, A)
    assert stored(job, "", RUN) == []
    judge(job, has_device(A), faults.status(500))

    run(job, say(A), say(B))

    assert len(stored(job, "", RUN)) == 1
    assert all(entry.device != "@run" for entry in waiting(job))


def test_what_became_of_the_runs_series_is_no_snapshot_s(job):
    """A refusal of the run's series stands apart from the devices' errors."""
    judge(job, lambda samples: samples[0].name == RUN, faults.status(400, b"no"))

    delivery = run(job, say(A)).delivery

    assert delivery.errors == []
    assert [error.text[:19] for error in delivery.run_errors] == [
        "the run's own series"[:19]
    ]
    assert (delivery.delivered, delivery.stored, delivery.lost) == (1, 0, 0)
    assert eventually(lambda: stored(job, A))
