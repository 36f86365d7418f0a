"""A real Pushgateway and the way to it: redirects, lost answers, other writers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ecoflow_push.errors import ExitStatus
from ecoflow_push.metrics.names import MOST_SAMPLES
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedDevice
from ecoflow_push.simulator.server import Answer, RecordingServer
from ecoflow_push.sinks.groups import Gateway as Groups
from ecoflow_push.sinks.groups import body_of
from ecoflow_push.sinks.server import Connection, Server
from tests.conftest import DELTA
from tests.relay import Relay
from tests.sinks import Kit, PushgatewayKit, end, kit_of, registry, say
from tests.support import (
    LATE,
    PUSH,
    ROOT,
    Gateway,
    fetch,
    free_port,
    gateway,
    push,
    running,
    values,
)
from tests.test_faults import assert_decent

A = "R331ZFAKE0000001"


@pytest.fixture
def kit(tmp_path) -> Iterator[Kit]:
    """A sink before a server that answers what it is told to."""
    with RecordingServer() as server, kit_of("pushgateway", tmp_path, server) as made:
        yield made


@pytest.mark.case("P3")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status, kit):
    """Neither a PUT nor a DELETE, and no password, goes where the gateway points to."""
    with RecordingServer() as other:
        kit.run(say(A))
        kit.server.fail("", faults.redirect(f"{other.url}/metrics/job/x", status))
        kit.server.received.clear()

        for update in (say(A), end(A)):
            (error,) = kit.run(update).delivery.errors
            assert error.status == ExitStatus.PROTOCOL
            assert f"to {other.url}" in error.text

        assert other.received == []
        assert [each.method for each in kit.server.received] == ["PUT", "DELETE"]


@pytest.mark.case("P4")
@pytest.mark.parametrize(
    ("answer", "is_taken"),
    [
        (Answer(200), True),
        (Answer(202), True),
        (Answer(204), True),
        (Answer(200, b"ok"), True),
        (Answer(200, faults.PAGE), False),
        (Answer(202, b"\xef\xbb\xbf  <HTML>"), False),
        (Answer(201), False),
        (Answer(203), False),
        (Answer(205), False),
        (Answer(206), False),
        (Answer(304), False),
        (Answer(299), False),
        (Answer(600), False),
    ],
    ids=str,
)
def test_what_counts_as_taken(answer, is_taken, kit):
    """200, 202 and 204 without a page; nothing else is said to be delivered."""
    kit.server.fail(
        "", faults.status(answer.status, answer.body, **dict(answer.headers))
    )

    delivery = kit.run(say(A)).delivery

    assert (delivery.delivered, delivery.lost) == ((1, 0) if is_taken else (0, 1))
    assert len(delivery.errors) == (not is_taken)


@pytest.mark.case("P4")
def test_a_promise_and_then_silence(environ):
    """`100 Continue` is no answer: without one the run ends in time, with 74."""
    with RecordingServer() as silent:

        def promise(handler) -> None:
            handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            faults.hang()(handler)

        silent.fail("", promise)

        run = push({**environ, "PUSHGATEWAY_URL": silent.url, "RUN_DEADLINE": "2"})

    assert_decent(run, 74)
    assert run.seconds < 2 + LATE


@pytest.mark.case("P5")
def test_a_gateway_that_forgets(environ):
    """Killed right behind its 200 it has nothing; the next run brings all back."""
    port = free_port()
    url = f"http://localhost:{port}"
    server = (
        "prometheus-pushgateway",
        f"--web.listen-address=127.0.0.1:{port}",
        "--persistence.file=",
    )
    environ["PUSHGATEWAY_URL"] = url
    with running(*server, ready="/-/ready", url=url) as process:
        assert_decent(push(environ), 0)
        before = Gateway(url).groups()
        process.send_signal(signal.SIGKILL)
        process.wait(30)

    with running(*server, ready="/-/ready", url=url):
        assert Gateway(url).groups() == {}

        assert_decent(push(environ), 0)

        assert Gateway(url).groups() == before
        assert values(Gateway(url).device(DELTA.sn))


ODD = {
    "a blank": "a b",
    "slashes": "//a//b/",
    "dots": "..",
    "a dot": ".",
    "percent": "%2F%",
    "signs": "?#&+@:=,;'\"\\",
    "afar": "Küche \u4e2d\u6587 \U0001f600",
    "4 KiB": "x/" * 2048,
    "blanks": " \t ",
    "lines": "a\nb",
}


@pytest.mark.case("P7")
def test_odd_groups_are_read_back(standing_gateway):
    """A group of any job and any label is one group, replaced and deleted as such."""
    standing_gateway.wipe()
    connection = Connection(
        Server("PUSHGATEWAY", standing_gateway.url), attempts=1, longest_wait=0
    )
    groups = [{"job": odd, "device": f"{odd}-"} for odd in ODD.values()]
    groups += [{"job": "empty", "device": ""}]

    for soc in (1.0, 2.0):
        for group in groups:
            said = registry("", {"ecoflow_pd_soc": soc})
            Groups(connection).push(body_of(said), group, Deadline(10))

    held = json.loads(fetch(f"{standing_gateway.url}/api/v1/metrics"))["data"]
    assert sorted(sorted(each["labels"].items()) for each in held) == sorted(
        sorted(each.items()) for each in groups
    )
    found = [v for k, v in standing_gateway.series().items() if k[0].endswith("_soc")]
    assert found == [2.0] * len(groups)
    seeing = Groups(connection)
    assert all(seeing.has_group(group, Deadline(10)) for group in groups)
    for group in groups:
        Groups(connection).delete(group, Deadline(10))
    assert json.loads(fetch(f"{standing_gateway.url}/api/v1/metrics"))["data"] == []
    connection.close()


@pytest.mark.case("P9")
def test_what_no_gateway_should_get(environ, cloud, pushgateway):
    """Of 9,000 series as many are pushed as a device may have; 20,000 are of none."""
    cloud.devices[:] = [SimulatedDevice(A, {f"pd.k{n}": n for n in range(9_000)})]

    run = push(environ)

    assert run.status == 0, run.stderr
    assert "beyond the most of a device" in run.stderr
    text = fetch(f"{pushgateway.url}/metrics").decode()
    first = [line for line in text.splitlines() if line.startswith("ecoflow_pd_k")]
    assert len(first) == MOST_SAMPLES
    skipped = re.findall(r'skipped_values\{.*reason="too_many"\} (\S+)', text)
    assert skipped == [str(9_000 - MOST_SAMPLES)]
    cloud.devices[:] = [SimulatedDevice(A, {f"pd.k{n}": n for n in range(20_000)})]
    run = push(environ)
    assert_decent(run, 69)
    assert "far more than any device or list has" in run.stderr


# Run push.py, and say at the end which names were looked up.
LOOKED_UP = """
import os, runpy, sys
asked = []
def hook(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        asked.append(os.fsdecode(args[0]))
sys.addaudithook(hook)
end = os._exit
def leave(status):
    print(*asked, flush=True)
    end(status)
os._exit = leave
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.case("P10", "K12")
@pytest.mark.parametrize("sink", ["PUSHGATEWAY", "REMOTE_WRITE"])
@pytest.mark.parametrize(
    "written", ["user:p%40ss-w0rd", "user:p@ss-w0rd", "t0ken-1234"]
)
def test_no_name_server_hears_a_password(sink, written, environ):
    """What stands before the host is a header; the host alone is looked up."""
    with RecordingServer() as server:
        address = server.url.replace("127.0.0.1", "localhost")
        address = address.replace("//", f"//{written}@") + "/api/v1/write"
        environ.pop("PUSHGATEWAY_URL")
        environ |= {f"{sink}_URL": address, "LOG_LEVEL": "DEBUG"}
        done = subprocess.run(
            [sys.executable, "-B", "-c", LOOKED_UP, PUSH],
            env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert set(done.stdout.split()) == {"127.0.0.1", "localhost"}
        shown = {each.headers["authorization"].split()[0] for each in server.received}
        assert shown == {"Basic"}
        assert not any("@" in each.headers["host"] for each in server.received)
        assert not any(part in done.stderr for part in ("w0rd", "t0ken", "p@ss"))


@pytest.mark.case("P11")
def test_two_that_push_one_device(environ, cloud, pushgateway, tmp_path):
    """The last one's values stand alone; none of both fails, nor deletes the other."""
    other = {**environ, "STATE_DIR": str(tmp_path / "2"), "PUSH_INSTANCE": "second"}
    assert_decent(push(environ), 0)
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, {"pd.other": 7})]

    assert_decent(push(other), 0)

    assert values(pushgateway.device(DELTA.sn)) == {("ecoflow_pd_other", ()): 7}
    cloud.devices[:] = [DELTA]
    assert_decent(push(environ), 0)
    assert ("ecoflow_pd_other", ()) not in pushgateway.device(DELTA.sn)
    text = fetch(f"{pushgateway.url}/metrics").decode()
    assert {f'instance="{name}"' in text for name in ("test", "second")} == {True}


@pytest.mark.case("P12")
def test_a_push_whose_answer_was_lost(environ, cloud):
    """It is pushed again, and what the gateway holds in the end is what was said."""
    with gateway() as real, Relay(real.url) as between:
        between.fail("", between.lose_the_answer(), times=2)

        run = push({**environ, "PUSHGATEWAY_URL": between.url})

        assert_decent(run, 0)
        assert [each.method for each in between.received] == ["PUT"] * 4
        assert between.statuses == [200] * 4
        assert len(values(real.device(DELTA.sn))) == 4
        assert real.run()["ecoflow_push_success"] == 1


@pytest.mark.case("P12")
def test_a_deletion_whose_answer_was_lost(tmp_path):
    """The group is gone, and to delete it once more is no error."""
    with (
        gateway() as real,
        Relay(real.url) as between,
        kit_of("pushgateway", tmp_path, between) as kit,
    ):
        assert isinstance(kit, PushgatewayKit)
        kit.run(say(A))
        assert A in real.groups()
        between.fail(A, between.lose_the_answer(), times=1)

        delivery = kit.run(end(A)).delivery

        assert delivery.errors == []
        assert A not in real.groups()
