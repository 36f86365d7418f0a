"""A Pushgateway that is slow, hangs, or is not there, and what its neighbours get."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from ecoflow_push.net.deadline import Deadline
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import Answer, Fault, Handler, RecordingServer
from ecoflow_push.sinks.base import Sink, Update
from ecoflow_push.sinks.claims import Claims
from tests.remote_write import of_devices, of_run
from tests.sinks import (
    SOC,
    Kit,
    PushgatewayKit,
    end,
    kit_of,
    reduce,
    run_registry,
    say,
)
from tests.support import LATE, eventually, push, push_anew

A, B = "R331ZFAKE0000001", "BK11ZFAKE0000002"


@pytest.fixture
def pushed(tmp_path) -> Iterator[Kit]:
    with RecordingServer() as server, kit_of("pushgateway", tmp_path, server) as kit:
        yield kit


def slow(seconds: float) -> Fault:
    """Answer as a gateway that checks all it holds at every push."""

    def fault(handler: Handler) -> None:
        handler.server.stopping.wait(seconds)
        handler.send(Answer(200))

    return fault


def pushed_of(kit: Kit, *updates: Update, seconds: float) -> tuple[Sink, list[str]]:
    """Do a run whose groups have so much time; return them in the order of their turn.

    Those that were taken; the one at which time was over is not.
    """
    sink = kit.sink()
    kit.begin(sink, *updates)
    before = kit.heard()
    sink.deliver(Deadline(seconds))
    sink.settle(Deadline(5))
    sink.close()
    paths = [each.path.rpartition("/")[2] for each in kit.server.received[before:]]
    return sink, paths


@pytest.mark.case("D13")
@pytest.mark.drill("gateways")
def test_drill_each_group_has_its_turn(pushed, drill):
    """Those held longest ago are pushed first, and the error says how many were.

    In full numbers, 60 devices at a gateway that takes 0.6 s for each, and 20 s.
    """
    count, pause, seconds = (60, 0.6, 20.0) if drill.is_full else (12, 0.12, 1.2)
    pushed.server.fail("/", slow(pause))
    serials = [f"{n:016d}" for n in range(count)]
    reached: set[str] = set()

    for _ in range(3):
        sink, asked = pushed_of(pushed, *map(say, serials), seconds=seconds)
        done = sink.delivery.delivered
        assert 0 < done < count
        assert (sink.delivery.lost, sink.delivery.stored) == (count - done, 0)
        (error,) = sink.delivery.errors
        # Time may also be over between two pushes.
        assert error.text.endswith(f" time; {done} of {count} groups pushed") or (
            error.text.endswith(f" time left; {done} of {count} groups pushed")
        )
        assert "remote-write" in error.cure
        late = sorted(set(serials) - reached)
        assert asked[: len(late)] == late[: len(asked)]
        reached |= set(asked[:done])

    assert reached == set(serials)


def test_a_slow_gateway_gets_the_run_s_series_all_the_same(pushed):
    """Too slow for all groups is not down: its run's series have their time."""
    pushed.server.fail("/", slow(0.3))
    sink = pushed.sink()
    pushed.begin(sink, *(say(f"{n:016d}") for n in range(5)))
    sink.deliver(Deadline(1))
    pushed.server.heal()
    pushed.server.fail("/", slow(2.5))

    sink.deliver_run(run_registry(), Deadline(10))

    assert sink.delivery.run_errors == []
    sink.close()


def test_a_group_that_hangs_is_the_last_one_next_time(pushed):
    """From the second run on it costs the others nothing, until it is taken again."""
    serials = [f"{n:016d}" for n in range(4)]
    pushed.server.fail(serials[0], faults.hang())

    first, asked = pushed_of(pushed, *map(say, serials), seconds=0.5)
    assert asked == serials[:1]
    assert (first.delivery.delivered, first.delivery.lost) == (0, 4)
    assert "groups pushed" not in first.delivery.errors[0].text

    second, asked = pushed_of(pushed, *map(say, serials), seconds=0.5)
    assert asked == [*serials[1:], serials[0]]
    assert second.delivery.delivered == 3
    assert second.delivery.errors[0].text.endswith("; 3 of 4 groups pushed")

    pushed.server.heal()
    pushed_of(pushed, *map(say, serials), seconds=5)
    _, asked = pushed_of(pushed, *map(say, serials), seconds=5)
    assert pushed.state.devices[serials[0]].hung_at is None
    assert asked == serials


def test_groups_that_hang_take_turns(pushed):
    """Of several groups that hang, the one that hung longest ago is tried first."""
    pushed.server.fail(A, faults.hang())
    pushed.server.fail(B, faults.hang())
    firsts = [pushed_of(pushed, say(A), say(B), seconds=0.3)[1][0] for _ in range(4)]

    assert firsts == [A, B, A, B]


def test_a_gateway_that_hung_gets_one_short_try_for_the_run(pushed):
    """The run's own series cost it 2 s and one request at most, all that is left."""
    pushed.server.fail("/", faults.hang())
    sink = pushed.sink()
    pushed.begin(sink, say(A))
    sink.deliver(Deadline(0.5))
    began = time.monotonic()

    sink.deliver_run(run_registry(), Deadline(20))

    assert 1.9 < time.monotonic() - began < 8
    assert pushed.heard() == 2
    assert [len(sink.delivery.errors), len(sink.delivery.run_errors)] == [1, 1]
    sink.close()


@pytest.mark.parametrize("taken", [end(A), reduce(A)], ids=lambda each: each.action)
def test_what_another_account_says_is_left_alone(taken, pushed):
    """It is not taken away, said yet or not; once it is said, the device is let go."""
    claims = Claims()
    left, came = pushed.sink(), pushed.sink()
    for sink, update in ((left, taken), (came, say(A))):
        sink.share(claims)
        pushed.begin(sink, update)

    left.deliver(Deadline(5))
    assert pushed.heard() == 0
    assert left.has_ended(A) == (taken.action != "end")
    assert left.verdict() is True
    came.deliver(Deadline(5))
    assert left.has_ended(A)

    assert [each.method for each in pushed.server.received] == ["PUT"]
    assert left.delivery.errors == came.delivery.errors == []


def test_what_another_account_takes_away_is_gone_before_it_is_said(pushed):
    """Of two at the same time the one who says it waits for the other."""
    is_said = threading.Event()
    order = []

    def deletes(handler: Handler) -> None:
        is_said.wait(0.3)
        order.append("deleted")
        handler.send(Answer(202))

    def puts(handler: Handler) -> None:
        is_said.set()
        order.append("pushed")
        handler.send(Answer(200))

    pushed.server.fail(A, deletes, times=1)
    pushed.server.fail(A, puts)
    claims = Claims()
    left, came = pushed.sink(), pushed.sink()
    left.share(claims)
    came.share(claims)
    pushed.begin(left, end(A))
    leaving = threading.Thread(target=left.deliver, args=(Deadline(5),))
    leaving.start()
    assert eventually(lambda: pushed.heard() == 1)
    pushed.begin(came, say(A))
    came.deliver(Deadline(5))
    leaving.join(30)

    assert order == ["deleted", "pushed"]


def test_the_run_s_series_are_no_snapshot(pushed):
    """What keeps them away stands for itself, beside what was delivered."""
    pushed.server.fail("/ecoflow_push", faults.status(503))

    sink = pushed.run(say(A), reduce(B))

    assert sink.delivery.errors == []
    assert len(sink.delivery.run_errors) == 1
    assert (sink.delivery.delivered, sink.delivery.lost) == (1, 0)


# -- beside others --------------------------------------------------------------------


@contextmanager
def hanging() -> Iterator[str]:
    """Yield the address of a gateway that accepts what is sent and never answers."""
    with RecordingServer() as server:
        server.fail("", faults.hang())
        yield server.url


@contextmanager
def black_hole() -> Iterator[str]:
    """Yield an address at which nobody even accepts a connection."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield f"http://127.0.0.1:{full.getsockname()[1]}"


@pytest.mark.case("P1", "W16")
@pytest.mark.parametrize("kind", [hanging, black_hole])
def test_a_gateway_that_hangs_costs_remote_write_nothing(kind, written, receiver):
    """Both get what is theirs: one its share of the time, the other all the data."""
    with kind() as url:
        run = push_anew({**written, "PUSHGATEWAY_URL": url, "RUN_DEADLINE": "6"})

    assert "pushgateway 127.0.0.1" in run.stderr
    assert "no complete answer in time" in run.stderr
    assert run.status == 1
    assert run.seconds < 6 + LATE
    assert len(of_devices(receiver)) == 1
    (own,) = of_run(receiver)
    assert own["ecoflow_push_success"] == 0
    assert "the run's own series: no answer" not in run.stderr


def test_a_gateway_that_hangs_for_the_run_alone(written, receiver):
    """What hangs only at the end leaves the others time for the same."""
    with RecordingServer() as server:
        server.fail("ecoflow_push", faults.hang())

        run = push({**written, "PUSHGATEWAY_URL": server.url, "RUN_DEADLINE": "6"})

    assert run.status == 1
    assert run.seconds < 6 + LATE
    assert len(of_run(receiver)) == 1


@pytest.mark.case("P2", "P8")
def test_a_type_conflict_is_told_to_its_end(tmp_path):
    """A real gateway's last words are the ones that say what is wrong."""
    with kit_of("pushgateway", tmp_path) as kit:
        assert isinstance(kit, PushgatewayKit)
        # Which of the two it calls wrong is chance, so both have long labels.
        long = "long " * 60
        text = f'# TYPE {SOC} counter\n{SOC}{{note="{long}"}} 1\n'.encode()
        path = f"{kit.url}/metrics/job/other"
        request = urllib.request.Request(path, data=text, method="PUT")
        urllib.request.urlopen(request, timeout=30).close()
        update = say(A)
        assert update.registry
        for metric in update.registry.collect():
            for sample in metric.samples:
                sample.labels["device_name"] = long

        sink = kit.run(update)

    (error,) = sink.delivery.errors
    # Pushgateway 1.11.0 crashes over its own log line here and hangs up.
    assert error.text.endswith(("COUNTER", "GAUGE", "without an answer"))
    assert len(error.text) > 400 or "without" in error.text


# -- in full numbers ------------------------------------------------------------------


@pytest.mark.drill("gateways")
def test_drill_a_gateway_that_takes_its_time(written, receiver, drill):
    """An answer after 18 s, in full numbers, is waited for, and nothing is sent twice.

    So it is with remote-write's.
    """
    seconds = 18.0 if drill.is_full else 0.8
    with RecordingServer() as server:
        server.fail("/device/", slow(seconds))
        receiver.fail("", slow(seconds))
        deadline = "75" if drill.is_full else "20"

        run = push({**written, "PUSHGATEWAY_URL": server.url, "RUN_DEADLINE": deadline})

        assert run.status == 0, run.stderr
        assert [each.method for each in server.received] == ["PUT", "PUT"]
        assert {each.method for each in receiver.received} == {"POST"}
        assert len(receiver.received) == 2
