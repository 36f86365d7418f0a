"""What a schedule keeps over its beats: connections and TLS contexts, and when not."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trustme

from ecoflow_push.api.lanes import MOST_LANES
from ecoflow_push.config.settings import Settings
from ecoflow_push.memory.state import State
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.net.kept import KEPT, LIFE_SECONDS, MOST, REST_SECONDS, Kept
from ecoflow_push.net.plain import PlainExchange
from ecoflow_push.net.retry import Request, Transport
from ecoflow_push.net.trust import Trust
from ecoflow_push.run.begin import create_worker
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedDevice
from ecoflow_push.simulator.server import Handler
from tests.conftest import DELTA, STREAM
from tests.support import eventually
from tests.test_loop import lines, staying, until
from tests.test_transport import Proxy
from tests.wired import Cloud, Gateway, Watched


@pytest.fixture
def beat():
    """One beat of a schedule, which gives its status."""

    def beat(environ: dict[str, str]) -> int:
        settings = Settings.from_environ(environ, every=60)
        with State.open(settings.state_dir) as state:
            status = create_worker(settings, state, settings.state_dir, [], {}).run()
        KEPT.turn()
        return status

    with KEPT:
        yield beat


@pytest.fixture
def cloud(server_tls):
    with Cloud([DELTA], tls=server_tls) as running:
        yield running


@pytest.fixture
def gateway(server_tls):
    with Gateway(server_tls) as running:
        yield running


@pytest.fixture
def environ(cloud, gateway, ca_file, tmp_path):
    """The settings of a job whose CA file is its own."""
    own = tmp_path / "ca.pem"
    own.write_bytes(Path(ca_file).read_bytes())
    return {
        **cloud.environ(),
        "ECOFLOW_CA_FILE": str(own),
        "PUSHGATEWAY_URL": gateway.url,
        "PUSHGATEWAY_CA_FILE": str(own),
        "STATE_DIR": str(tmp_path / "state"),
        "PUSH_INSTANCE": "test",
        "ESTABLISH_ATTEMPTS": "1",
    }


def test_beats_share_their_connections(beat, cloud, gateway, environ):
    """Five beats shake hands once with each server, and ask and push as five do."""
    assert [beat(environ) for _ in range(5)] == [0] * 5

    assert cloud.handshakes == gateway.handshakes == 1
    assert len(cloud.received) == 2 * 5
    assert gateway.pushed == 2 * 5


def test_a_run_alone_keeps_nothing(cloud, gateway, environ, tmp_path):
    """Without a schedule each run makes its connections, and closes them at its end."""
    settings = Settings.from_environ(environ)
    for number in range(2):
        with State.open(settings.state_dir) as state:
            worker = create_worker(settings, state, settings.state_dir, [], {})
            assert worker.run() == 0
        assert eventually(lambda: cloud.is_over(number))  # noqa: B023 - called at once
        assert eventually(lambda: gateway.is_over(number))  # noqa: B023 - as above

    assert cloud.handshakes == gateway.handshakes == 2


def test_lanes_are_kept_too(beat, cloud, environ):
    """What reads at once in one beat does so over the same connections in the next."""
    cloud.devices[:] = [
        SimulatedDevice(f"R331ZLANE{n:07}", {"a": n}) for n in range(12)
    ]
    all_lanes = threading.Barrier(MOST_LANES)

    def answer_together(handler: Handler) -> None:
        all_lanes.wait(20)
        handler.send(cloud.answer(handler.current))

    cloud.fail("quota/all", answer_together, times=4 * 12)
    for _ in range(4):
        assert beat(environ) == 0

    assert cloud.handshakes == MOST_LANES
    assert len(cloud.received) == 4 * 13


def test_lanes_die_together(beat, cloud, environ):
    """Where one kept connection is dead the others are not tried one by one."""
    cloud.devices[:] = [
        SimulatedDevice(f"R331ZLANE{n:07}", {"a": n}) for n in range(12)
    ]
    assert beat(environ) == 0
    lanes = len(cloud.wires)
    assert lanes > 1
    cloud.fail("list", faults.reset(), times=1)

    assert beat(environ) == 0

    assert all(eventually(partial(cloud.is_over, each), 20) for each in range(lanes))
    assert len(cloud.received) == 2 * 13 + 1


def test_what_a_silent_way_has_lost_is_not_tried_one_by_one(gateway, ca_file):
    """Where a kept connection stays mute the next try is over a new one.

    A router that begins anew says nothing of what it has forgotten.
    """
    trust = Trust(ca_file)
    request = Request("PUT", gateway.url + "/", {})
    with KEPT:
        first, second = (PlainExchange(gateway.url, trust=trust) for _ in range(2))
        for exchange in (first, second):
            assert exchange(request, 10).status == 200
        first.close()
        second.close()
        gateway.fail("", faults.hang(), times=1)
        exchange = PlainExchange(gateway.url, trust=trust)
        transport = Transport(
            exchange, attempts=2, longest_wait=0, longest_try=0.5, variables=("A", "B")
        )

        assert transport.send(lambda: request, Deadline(10)).status == 200

        assert gateway.handshakes == 3
        assert eventually(lambda: gateway.is_over(0))
        exchange.close()


def test_who_closes_idle_connections_loses_nothing(beat, cloud, gateway, environ):
    """Servers that hang up between two beats are dialled again, and asked once."""
    for number in range(1, 4):
        assert beat(environ) == 0
        assert cloud.handshakes == gateway.handshakes == number
        cloud.hang_up()
        gateway.hang_up()

    assert len(cloud.received) == 2 * 3
    assert gateway.pushed == 2 * 3


@pytest.mark.parametrize("fault", [faults.reset, lambda: faults.raw(b"")])
def test_a_kept_connection_that_ends_without_an_answer_is_no_fault(
    fault, beat, cloud, gateway, environ
):
    """What a connection of an earlier beat loses is sent once more, even if but once.

    Over a new connection that is a failure as ever.
    """
    assert beat(environ) == 0
    cloud.fail("list", fault(), times=1)
    gateway.fail("device", fault(), times=1)

    assert beat(environ) == 0

    asked = [received.headers["nonce"] for received in cloud.received]
    assert len(asked) == len(set(asked)) == 2 + 3
    assert gateway.pushed == 2 + 3
    cloud.fail("list", fault(), times=2)
    assert beat(environ) != 0
    assert len(cloud.received) == 2 + 3 + 2


def test_a_sample_that_a_kept_connection_lost_is_counted_once(beat, environ):
    """A write that no byte answered goes out again as a second try, and is one."""
    del environ["PUSHGATEWAY_URL"], environ["PUSHGATEWAY_CA_FILE"]
    with Watched() as receiver:
        environ |= {"REMOTE_WRITE_URL": receiver.write_url}
        assert beat(environ) == 0
        before = len(receiver.received)
        receiver.fail("write", faults.reset(), times=1)

        assert beat(environ) == 0

        first, again, *_ = receiver.received[before:]
        assert again.body == first.body
        assert "retry-attempt" not in first.headers
        assert again.headers["retry-attempt"] == "1"
        assert receiver.outrages == []
        assert len(receiver.wires) == 2


def rewritten(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def replaced(path: Path, content: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(content)
    new.replace(path)


def mounted(path: Path, content: bytes) -> None:
    """As Kubernetes does: the file is a link, what it leads to another one now."""
    folder = path.with_name(os.urandom(4).hex())
    folder.mkdir()
    (folder / path.name).write_bytes(content)
    link = path.with_name("link")
    link.symlink_to(folder / path.name)
    link.replace(path)


def kept_times(path: Path, content: bytes) -> None:
    """As who restores a backup: in place, as large as before, and as old."""
    before = path.stat()
    path.write_bytes(content.ljust(before.st_size, b"\n")[: before.st_size])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [rewritten, replaced, mounted, kept_times])
def test_a_changed_ca_file_is_trusted_at_the_next_beat(
    change: Callable[[Path, bytes], None], beat, cloud, gateway, environ
):
    """Neither context nor connection of the file that was there is used again."""
    path = Path(environ["ECOFLOW_CA_FILE"])
    right = path.read_bytes()
    wrong = trustme.CA(organization_name="Another").cert_pem.bytes()
    assert beat(environ) == 0

    change(path, wrong)
    assert beat(environ) != 0

    assert len(cloud.received) == 2
    assert gateway.pushed == 2
    change(path, right)
    assert beat(environ) == 0
    assert len(cloud.received) == 4


def test_a_changed_key_has_a_connection_of_its_own(beat, cloud, environ):
    """What was opened for other keys is closed at the end of the beat, unused."""
    assert beat(environ) == 0

    assert beat(environ | {"ECOFLOW_SECRET_KEY": "SKchanged"}) != 0

    assert len(cloud.wires) == 2
    assert eventually(lambda: cloud.is_over(0))
    assert not cloud.is_over(1)


@pytest.mark.parametrize(
    "change",
    [
        {"PUSHGATEWAY_USERNAME": "u", "PUSHGATEWAY_PASSWORD": "another one"},
        {"PUSHGATEWAY_BEARER_TOKEN": "a-token-of-somebody"},
    ],
)
def test_changed_credentials_have_a_connection_of_their_own(
    change, beat, gateway, environ
):
    """So it is with a gateway's."""
    assert beat(environ) == 0

    assert beat(environ | change) == 0

    assert len(gateway.wires) == 2
    assert eventually(lambda: gateway.is_over(0))


def test_a_changed_host_is_dialled(beat, cloud, environ, server_tls):
    """A beat whose settings name another host leaves the first one alone."""
    with Cloud([DELTA], tls=server_tls) as other:
        assert beat(environ) == 0

        assert beat(environ | {"ECOFLOW_API_HOST": other.url}) == 0

        assert len(cloud.received) == len(other.received) == 2
        assert eventually(lambda: cloud.is_over(0))
        # The same server by another name, which its certificate is to show.
        by_number = other.url.replace("localhost", "127.0.0.1")
        assert beat(environ | {"ECOFLOW_API_HOST": by_number}) == 0
        assert other.handshakes == 2


def test_a_proxy_that_is_set_later_is_gone_through(beat, environ, tmp_path):
    """As soon as a proxy is set, nobody goes past it over what was open before."""
    with Cloud([DELTA]) as cloud, Gateway() as gateway, Proxy() as proxy:
        plain = environ | cloud.environ() | {"PUSHGATEWAY_URL": gateway.url}
        assert beat(plain) == 0
        before = len(cloud.received), gateway.pushed

        beat(plain | {"HTTP_PROXY": proxy.url})

        assert (len(cloud.received), gateway.pushed) == before
        assert proxy.received
        assert eventually(lambda: cloud.is_over(0) and gateway.is_over(0))


def test_a_beat_that_fails_early_leaves_nothing_open(beat, cloud, environ):
    """What a beat did not take up, since it asked nobody, is closed at its end."""
    assert beat(environ) == 0

    KEPT.turn()

    assert eventually(lambda: cloud.is_over(0))


def test_what_was_given_up_is_not_kept(beat, cloud, gateway, environ):
    """A connection whose answer nobody waited for is no later beat's."""
    assert beat(environ) == 0
    gateway.fail("device", faults.hang(), times=1)
    assert beat(environ | {"RUN_DEADLINE": "2"}) != 0
    # Only now the server looks whether somebody is there.
    gateway.stopping.set()
    assert eventually(lambda: gateway.is_over(0))

    assert beat(environ) == 0

    assert len(gateway.wires) > 1


def test_a_signal_closes_them(cloud, environ, tmp_path):
    """A schedule that is stopped leaves no connection behind."""
    log = tmp_path / "log"
    with staying(environ, "1", log=log) as process:
        until(lambda: len(lines(log, "exit 0 OK after")) >= 2)
        assert len(cloud.wires) == 1
        assert not cloud.is_over(0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0

    assert eventually(lambda: cloud.is_over(0))


def test_threads_and_descriptors_stay_over_many_beats(beat, cloud, environ):
    """Whatever servers do to kept connections, fifty beats hold no more than few."""
    chance, held = random.Random(1), []
    cloud.devices[:] = [DELTA, STREAM]
    with Watched() as receiver:
        environ |= {"REMOTE_WRITE_URL": receiver.write_url}
        for number in range(50):
            for server in (cloud, receiver):
                server.heal()
                kind = chance.random()
                if kind < 0.2:
                    server.hang_up()
                elif kind < 0.4:
                    server.fail("", faults.reset(), times=1)
            beat(environ)
            if number > 10:
                held.append(len(os.listdir("/proc/self/fd")))
        threads = threading.active_count()
    print(sorted(set(held)), threads)
    # In this process the servers have an end of each connection too.
    assert max(held) - min(held) <= 12, held
    assert receiver.outrages == []


# -- Kept alone -------------------------------------------------------------------


class Rope:
    """Something that can be closed."""

    def __init__(self, opened_at: float = 0.0) -> None:
        self.opened_at = opened_at
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def test_nothing_rests_for_too_long():
    """What has rested longer than any network remembers is closed, not taken."""
    now = [1000.0]
    with Kept(lambda: now[0]) as kept:
        young, old = Rope(1000), Rope(1000)
        kept.give("a", old)
        now[0] += REST_SECONDS - 1
        kept.give("a", young)
        now[0] += 2

        assert kept.take("a") is young
        assert kept.take("a") is None
        assert old.is_closed
        assert not young.is_closed


def test_nothing_lives_for_too_long():
    """What was opened an hour ago is not kept again: names and certificates change."""
    now = [1000.0]
    with Kept(lambda: now[0]) as kept:
        rope = Rope(1000)
        for _ in range(int(LIFE_SECONDS / 60)):
            kept.give("a", rope)
            kept.turn()
            assert kept.take("a") is rope
            now[0] += 60

        kept.give("a", rope)

        assert rope.is_closed
        assert kept.take("a") is None


def test_no_more_than_some_rest_at_the_same_time():
    """Of a thousand accounts' connections those stay that were needed last."""
    with Kept(lambda: 0) as kept:
        sink, *ropes = [Rope() for _ in range(1000)]
        kept.give("sink", sink)
        for number, rope in enumerate(ropes):
            assert kept.take("sink") is sink
            kept.give(f"account {number}", rope)
            kept.give("sink", sink)

        are_open = [not rope.is_closed for rope in ropes]

    assert are_open == [False] * (1000 - MOST) + [True] * (MOST - 1)


def test_nothing_outlives_the_schedule():
    """At its end all that rests is closed, and nothing rests from then on."""
    kept, ropes = Kept(lambda: 0), [Rope(), Rope(), Rope()]
    kept.give("a", ropes[0])
    with kept:
        kept.give("a", ropes[1])
        assert not ropes[1].is_closed
    kept.give("a", ropes[2])

    assert [rope.is_closed for rope in ropes] == [True] * 3


def test_a_context_is_made_once_for_the_same_files(ca_file, tmp_path):
    """Trust in the same files shares a context, of each kind of socket one."""
    copy = tmp_path / "ca.pem"
    copy.write_bytes(Path(ca_file).read_bytes())
    first = Trust(str(copy)).context()

    assert Trust(str(copy), prefix="OTHER").context() is first
    assert Trust(str(copy)).context(obedient=False) is not first
    assert Trust(ca_file).context() is not first
    copy.touch()
    assert Trust(str(copy)).context() is not first
