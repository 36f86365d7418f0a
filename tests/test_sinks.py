"""The contract that every sink keeps, and what each alone promises."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ecoflow_push.config.plugs import SINKS
from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import ExitStatus, SinkError, WriteError
from ecoflow_push.memory.state import State
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import Answer, Handler, RecordingServer
from ecoflow_push.sinks import create_sinks, create_standing
from tests.plugs import EVERY_SINK, EVERY_SOURCE
from tests.receiver import Receiver
from tests.sinks import (
    INFO,
    NAMES,
    ONLINE,
    RUN,
    SOC,
    ExporterKit,
    Kit,
    TextfileKit,
    end,
    kit_of,
    offline,
    reduce,
    run_registry,
    say,
    unread,
)
from tests.support import eventually, free_port

A, B = "R331ZFAKE0000001", "BK11ZFAKE0000002"
#: Those whose counterpart may be down, hang, or refuse.
REMOTE = ("pushgateway", "remote-write")
ALL = {ONLINE: 1.0, INFO: 1.0, SOC: 87.0}


@pytest.fixture(params=NAMES)
def kit(request, tmp_path) -> Iterator[Kit]:
    with kit_of(request.param, tmp_path) as kit:
        yield kit


@pytest.fixture(params=REMOTE)
def remote(request, tmp_path) -> Iterator[Kit]:
    """A sink whose server can be told to misbehave."""
    kind = Receiver if request.param == "remote-write" else RecordingServer
    with kind() as server, kit_of(request.param, tmp_path, server) as kit:
        yield kit


# -- what every sink does ------------------------------------------------------------


def test_what_was_learnt_is_said(kit):
    """The values of each device that was read, and the run's own series, are there."""
    sink = kit.run(say(A), say(B, soc=12.0))

    assert kit.values() == {A: ALL, B: {**ALL, SOC: 12.0}, "": {RUN: 1.0}}
    assert sink.delivery.errors == []
    expected = {"textfile": 1, "exporter": 1, "pushgateway": 2, "remote-write": 2}
    assert sink.delivery.delivered == expected[kit.name]


GROUP = {ONLINE: 0.0, INFO: 1.0}
STANDS = ALL
# What a second run makes of what the first one said, as docs/truth.md has it.
TRUTH: dict[str, tuple[Any, dict[str, dict[str, float] | None]]] = {
    "offline": (
        offline,
        {
            "textfile": GROUP,
            "exporter": GROUP,
            "pushgateway": GROUP,
            "remote-write": {ONLINE: 0.0},
        },
    ),
    "reduce": (
        reduce,
        {
            "textfile": None,
            "exporter": STANDS,
            "pushgateway": {INFO: 1.0},
            "remote-write": None,
        },
    ),
    "unread": (
        unread,
        {
            "textfile": None,
            "exporter": STANDS,
            "pushgateway": STANDS,
            "remote-write": STANDS,
        },
    ),
    "end": (end, dict.fromkeys(NAMES)),
}


@pytest.mark.parametrize("action", TRUTH)
def test_each_update_has_the_effect_of_the_table(action, kit):
    """A device that is offline, too old, unread or gone is spoken of as documented."""
    make, expected = TRUTH[action]
    kit.run(say(A), say(B))
    if action == "reduce":
        kit.stale_after = 0.0

    sink = kit.run(make(A), say(B))

    assert kit.values().get(A) == expected[kit.name]
    assert kit.values()[B] == ALL
    assert sink.delivery.errors == []
    assert sink.has_ended(A)


def test_a_registry_is_let_go_of(kit):
    """No sink keeps the registry of an update, but the one that serves it."""
    update = say(A)
    held = weakref.ref(update.registry)
    sink = kit.sink()

    sink.take(update, Deadline(5))
    del update
    gc.collect()

    assert (held() is None) == (kit.name != "exporter")
    sink.close()


def test_nothing_leaves_before_everything_is_prepared(kit):
    """Until `deliver` nobody is sent anything, whatever was taken."""
    sink = kit.sink()

    kit.begin(sink, say(A), say(B))

    assert kit.heard() == 0
    if kit.name != "exporter":
        assert kit.values() == {}
    sink.close()


def test_a_sink_can_be_closed_twice(kit):
    """Closing again does nothing, and raises nothing."""
    sink = kit.run(say(A))

    sink.close()
    sink.close()

    assert sink.delivery.errors == []


def test_a_run_that_learnt_nothing_harms_nobody(kit):
    """Without any update a run says how it went, and nothing else."""
    kit.run(say(A))

    sink = kit.run()

    assert sink.delivery.errors == []
    assert kit.values()[""] == {RUN: 1.0}
    stays = A in kit.values()
    assert stays == (kit.name in REMOTE)


def test_a_probe_leaves_nothing_behind(kit):
    """What --check sends is taken back, and it finds that all is well."""
    sink = kit.sink()

    findings = list(sink.probe(Deadline(10)))

    expected = [("ok", kit.name, "took the test, gone again")]
    if kit.name == "remote-write":
        text = "a file was written, read back and removed"
        expected.append(("ok", "spool", text))
    if kit.name == "exporter":
        expected = [("ok", "exporter", f"listens on port {sink.port}")]
    found = [(f.mark, f.step, f.text) for f in findings]
    assert found == expected
    # A Pushgateway answers a DELETE before it has done it.
    assert eventually(lambda: kit.values() == {})
    assert {each.name for each in kit.folder.iterdir()} == {"state"}
    assert sink.delivery.errors == []
    sink.close()


# -- servers that misbehave ----------------------------------------------------------


def test_what_an_abandoned_thread_says_does_not_count(remote):
    """A server that answers too late leaves one error, and changes nothing more."""
    late = threading.Event()

    def answer_late(handler: Handler) -> None:
        late.wait()
        handler.send(Answer(204))

    remote.server.fail("/", answer_late)
    sink = remote.sink()
    remote.begin(sink, say(A), end(B))
    remote.state.devices[A].held_at = None
    thread = threading.Thread(target=sink.deliver, args=(Deadline(20),))
    thread.start()
    while not remote.heard():
        time.sleep(0.005)

    sink.abandon()
    late.set()
    thread.join(20)
    sink.settle(Deadline(5))

    (error,) = sink.delivery.errors
    assert error.text.startswith(f"{remote.name}: no answer in time")
    assert "firewall" in error.cure
    assert sink.delivery.delivered == 0
    assert remote.state.devices[A].held_at is None
    heard = remote.heard()
    sink.deliver_run(run_registry(), Deadline(5))
    assert remote.heard() == heard


def test_a_run_s_own_series_can_be_abandoned_too(remote):
    """The error says what was given up, and the devices' stay delivered."""
    sink = remote.sink()
    remote.begin(sink, say(A))
    sink.deliver(Deadline(5))
    sink.settle(Deadline(5))
    heard = remote.heard()
    remote.server.fail("/", faults.hang())
    thread = threading.Thread(
        target=sink.deliver_run, args=(run_registry(), Deadline(3))
    )
    thread.start()
    while remote.heard() == heard:
        time.sleep(0.005)

    sink.abandon()
    thread.join(20)

    (error,) = sink.delivery.run_errors
    assert error.text == "the run's own series: no answer in time"
    assert sink.delivery.delivered == 1


URL = {"pushgateway": "PUSHGATEWAY_URL", "remote-write": "REMOTE_WRITE_URL"}
# The answer, what is at fault, and the cure.
ANSWERS = {
    "400": (faults.status(400), "content", "check {url}; its own words and log may"),
    "401": (faults.status(401), "credentials", "_USERNAME and _PASSWORD, or _BEARER"),
    "403": (faults.status(403), "credentials", "_USERNAME and _PASSWORD, or _BEARER"),
    "302": (faults.redirect("http://x/"), "address", "{url}"),
    "429": (faults.status(429), "server", "wait, it has too much to do"),
    "503": (faults.status(503), "server", "wait, the fault is on its side"),
    "page": (faults.page(), "server", "login portal or proxy in the way, and {url}"),
    "reset": (faults.reset(), "server", ""),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_becomes_an_error_with_its_cure(answer, remote):
    """Whatever a server answers, a run and a check know what is at fault and why."""
    fault, bad, cure = ANSWERS[answer]
    if remote.name == "remote-write" and answer in ("400", "page"):
        # It is not known to be the content's fault, nor to be a receiver.
        bad = "address"
    cure = cure.format(url=URL[remote.name])
    remote.server.fail("/", fault)

    sink = remote.run(say(A))
    remote.state.endpoint.pause_until = None
    finding, *_ = remote.sink().probe(Deadline(5))

    for error in (sink.delivery.errors[0], finding.error):
        assert isinstance(error, SinkError)
        assert cure in error.cure
        assert error.status in meanings(remote.name, bad)
        refuses = isinstance(error, WriteError) and error.refuses_us
        assert refuses == (bad in ("address", "credentials"))
        # Whatever the server said, it waits in the spool.
        assert error.is_stored == (remote.name == "remote-write")
    assert (finding.mark, finding.step) == ("wrong", remote.name)
    assert not finding.text.startswith(remote.name)
    assert finding.cure == finding.error.cure
    assert sink.delivery.delivered == 0


def meanings(name: str, bad: str) -> set[ExitStatus]:
    if bad == "server":
        return {ExitStatus.TEMPFAIL if name == "remote-write" else ExitStatus.IOERR}
    return {ExitStatus.NOPERM if bad == "credentials" else ExitStatus.PROTOCOL}


@pytest.mark.parametrize("fault", [faults.status(401), faults.redirect("/")])
def test_a_refusal_is_the_last_request_of_a_run(fault, remote):
    """Who refuses us is not asked for another device, nor for the run's series."""
    remote.server.fail("/", fault)

    sink = remote.run(say(A), say(B))

    assert remote.heard() == 1
    assert sink.delivery.has_refused
    assert sink.delivery.is_closed


def test_what_is_not_there_ends_when_it_can(remote):
    """A device is done with when its end is delivered, or stored to be."""
    remote.run(say(A))
    remote.server.fail("/", faults.status(503))
    failed = remote.run(end(A))
    assert failed.has_ended(A) == (remote.name == "remote-write")
    remote.server.heal()

    assert remote.run(end(A)).has_ended(A)


def test_a_probe_tells_a_run_s_status_without_news(remote):
    """With nothing new to store, a server that fails is what a run would say."""
    remote.server.fail("/", faults.status(503))
    sink = remote.sink()
    sink.has_news = False

    finding, *_ = sink.probe(Deadline(5))

    assert finding.error.status == ExitStatus.IOERR


# -- the Pushgateway alone ------------------------------------------------------------


@pytest.fixture
def pushed(tmp_path) -> Iterator[Kit]:
    with RecordingServer() as server, kit_of("pushgateway", tmp_path, server) as kit:
        yield kit


def test_doubt_is_remembered_before_the_first_push(pushed):
    """A group that will hold something else is unknown until its push is taken."""
    pushed.run(say(A))
    held_at = pushed.state.devices[A].held_at
    assert held_at == pytest.approx(time.time(), abs=60)
    sink = pushed.sink()

    pushed.begin(sink, reduce(A))

    assert pushed.state.devices[A].held_at is None
    saved = (pushed.folder / "state" / "state.json").read_text()
    assert '"held_at": null' in saved
    sink.deliver(Deadline(5))
    assert pushed.state.devices[A].held_at == 0
    assert pushed.state.devices[A].reduced_at == pytest.approx(time.time(), abs=60)


def test_after_a_group_that_failed_each_other_has_one_try(pushed):
    """The first group is tried as often as is set, all others once."""
    pushed.server.fail("/", faults.status(503))

    sink = pushed.run(say(A), say(B))

    paths = [each.path.rpartition("/")[2] for each in pushed.server.received]
    assert (paths.count(A), paths.count(B)) == (2, 1)
    assert len(sink.delivery.errors) == 2
    assert len(sink.delivery.run_errors) == 1


def test_a_group_that_must_not_be_made_is_not_made(tmp_path):
    """What is reduced only where it is there is not pushed where it is not."""
    with kit_of("pushgateway", tmp_path) as kit:
        kit.run(reduce(A, if_there=True))
        assert A not in kit.values()

        kit.run(say(A))
        kit.run(reduce(A, if_there=True))

        assert kit.values()[A] == {INFO: 1.0}


def test_many_groups_are_advised_against(pushed, caplog):
    """Beyond 50 devices a run says, once, that remote-write is the better way."""
    pushed.run(*(say(f"{n:016d}") for n in range(50)), unread(B))
    assert caplog.messages == []

    pushed.run(*(say(f"{n:016d}") for n in range(51)))

    (message,) = caplog.messages
    assert message.startswith("51 devices on one Pushgateway")


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("GET", "took the test, which cannot be read back"),
        ("DELETE", "took the test and keeps it"),
    ],
)
def test_a_gateway_behind_half_a_proxy_is_found_out(method, text, pushed):
    """A test that cannot be read back, or deleted, is said with what to do."""
    groups = b'{"data": [{"labels": {"job": "ecoflow_check", "instance": "test"}}]}'

    def answer(handler: Handler) -> None:
        asked = handler.current.method
        body = groups if asked == "GET" else b""
        handler.send(Answer(404 if asked == method else 200, body))

    pushed.server.fail("/", answer)

    (finding,) = pushed.sink().probe(Deadline(5))

    assert finding.mark == ("unknown" if method == "GET" else "wrong")
    assert finding.text.startswith(text)
    assert ("GET" if method == "GET" else "ecoflow_check") in finding.cure
    assert finding.error is None


# -- the text file alone --------------------------------------------------------------


@pytest.fixture
def file(tmp_path) -> Iterator[TextfileKit]:
    with kit_of("textfile", tmp_path) as kit:
        assert isinstance(kit, TextfileKit)
        yield kit


def test_the_file_is_one_exposition(file):
    """Each family is there once, in the order in which it was first seen."""
    file.run(offline(A), say(B))

    lines = file.path.read_text().splitlines()

    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert names == [ONLINE, INFO, SOC, RUN]
    assert len(lines) == 2 * 4 + 2 + 2 + 1 + 1
    assert lines[2].startswith(ONLINE)
    assert file.path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("place", ["missing", "folder"])
def test_a_file_that_cannot_be_written_is_said(place, file):
    """The error names the file, the cure its setting; the probe says the same."""
    path = file.path
    if place == "folder":
        path.mkdir()
    else:
        file.folder = file.folder / "missing"
        path = file.path

    sink = file.run(say(A))
    (finding,) = file.sink().probe(Deadline(5))

    (error,) = sink.delivery.errors
    assert error.text.startswith(f"textfile: cannot write {path}: ")
    assert "TEXTFILE_PATH" in error.cure
    assert (sink.delivery.delivered, error.status) == (0, ExitStatus.IOERR)
    assert finding.mark == "wrong"
    assert "TEXTFILE_PATH" in finding.cure


# -- the exporter alone ----------------------------------------------------------------


@pytest.fixture
def served(tmp_path) -> Iterator[ExporterKit]:
    with kit_of("exporter", tmp_path) as kit:
        assert isinstance(kit, ExporterKit)
        yield kit


def test_what_grew_old_is_not_served(served):
    """After STALE_AFTER a device shows what stays true, and the run nothing."""
    served.run(say(A))
    served.now += 299
    assert served.values()[A] == ALL

    served.now += 2

    assert served.values() == {A: {INFO: 1.0}}


def test_age_counts_from_when_it_was_read(served):
    """A snapshot that is late already is served the shorter."""
    served.run(say(A, at=time.time() - 200), say(B))

    served.now += 150

    assert served.values()[A] == {INFO: 1.0}
    assert served.values()[B] == ALL


def test_who_is_not_spoken_of_any_more_is_forgotten(served):
    """A device of which a run has no word is not served; after a bug it still is."""
    served.run(say(A), say(B))
    sink = served.sink()
    # A run that a bug ended early: never prepared.
    sink.take(say(B, soc=5.0), Deadline(5))
    served.end(sink)
    assert served.values().keys() == {A, B, ""}

    served.run(say(B))

    assert served.values().keys() == {B, ""}


def test_a_run_that_never_spoke_is_not_served(served):
    """After a beat that ended before it could tell, the last run's word is gone."""
    served.run(say(A))
    assert served.standing.runs_told == 1

    served.standing.abandon()

    assert served.values() == {A: ALL}


# -- how they are made ---------------------------------------------------------------


def environment() -> dict[str, str]:
    asked = {**EVERY_SOURCE, "ECOFLOW_SOURCE": "rest", **EVERY_SINK}
    return {**asked, "EXPORTER_PORT": str(free_port())}


def test_every_sink_is_held_to_the_contract():
    """What stands in the table of sinks has a kit here, in the same order."""
    assert [name.replace("_", "-") for name in SINKS] == list(NAMES)


def test_sinks_come_in_the_order_in_which_they_deliver(tmp_path):
    """What stays is made once and has a new delivery in each run."""
    settings = Settings.from_environ(environment(), every=60.0)
    standing = create_standing(settings)
    with State.open(str(tmp_path)) as state, ExitStack() as stack:
        for sink in standing.values():
            stack.callback(sink.close)
        first = create_sinks(settings, state, str(tmp_path), standing)
        deliveries = [sink.delivery for sink in first]
        second = create_sinks(settings, state, str(tmp_path), standing)
        for sink in (*first, *second):
            stack.callback(sink.close)

        assert [sink.name for sink in first] == list(NAMES)
        assert [sink.name for sink in first if sink.stays] == ["exporter"]
        assert [a is b for a, b in zip(first, second, strict=True)] == [
            sink.stays for sink in first
        ]
        assert not {id(each.delivery) for each in second} & set(map(id, deliveries))


def test_one_run_has_no_sink_that_stays(tmp_path):
    """Without --every nothing listens."""
    settings = Settings.from_environ(environment())
    assert create_standing(settings) == {}

    with State.open(str(tmp_path)) as state:
        sinks = create_sinks(settings, state, str(tmp_path), {})

    assert [sink.name for sink in sinks] == [n for n in NAMES if n != "exporter"]
    for sink in sinks:
        sink.close()


def test_a_disk_that_hangs_is_given_up(file):
    """What the disk says after the run gave it up does not count."""
    sink = file.sink()
    file.begin(sink, say(A))
    sink.deliver(Deadline(5))

    sink.abandon()
    sink.deliver_run(run_registry(), Deadline(5))

    (error,) = sink.delivery.errors
    assert "did not answer in time" in error.text
    assert sink.delivery.delivered == 0
