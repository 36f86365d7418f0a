"""Networks that fail: each in a namespace of the test's own, with TLS as in the world.

Whatever the road does, a run ends in time with a documented status, what was stored
arrives in the end, and keys are shown to nobody else.
"""

from __future__ import annotations

import random
import re
import signal
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ecoflow_push.errors import ExitStatus
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import (
    ACCESS_KEY,
    SECRET_KEY,
    SimulatedBroker,
    SimulatedCloud,
)
from ecoflow_push.simulator.devices import SimulatedDevices
from ecoflow_push.simulator.server import RecordingServer
from tests.broker import BROKER_PASSWORD, BROKER_USER, mosquitto
from tests.conftest import DELTA
from tests.namespace import ACK, FAR_V6, RESOLVER, SYN, TCP, Packet, Road, Zone, lacks
from tests.proxy import Proxy
from tests.receiver import Receiver
from tests.remote_write import of_devices, spool_files
from tests.support import Run

pytestmark = [
    pytest.mark.drill("networks"),
    pytest.mark.skipif(bool(lacks()), reason=lacks()),
]

API, RECEIVER, BROKER, EMPTY, OTHER = (f"10.9.0.{n}" for n in range(1, 6))
# Beyond the road, where nobody is to say that there is nothing.
DEAD, DEAD_TOO, DEAD_THREE = (f"10.66.0.{n}" for n in (1, 2, 3))
NAMES = ("api.test", "receiver.test", "mqtt.ecoflow.com", "localhost", FAR_V6)
TOKEN = "a-token-for-the-receiver"
SECRETS = (ACCESS_KEY, SECRET_KEY, TOKEN)
late = pytest.mark.late


class Town(NamedTuple):
    """Who lives at both ends of a road."""

    road: Road
    zone: Zone
    cloud: SimulatedCloud
    receiver: Receiver
    environ: dict[str, str]

    def push(self, *args: str, **more: str) -> Run:
        """Do a run, and see that it kept what every run is to keep."""
        environ = {**self.environ, **more}
        run = self.road.push(environ, *args)
        assert_kept(run, float(environ["RUN_DEADLINE"]))
        return run

    def stored(self) -> set[int]:
        """Return the times (ms) of what waits."""
        return {int(each.name.partition(".")[0]) for each in spool_files(self.environ)}

    def arrived(self) -> set[int]:
        """Return the times (ms) of the snapshots that the receiver has."""
        return {
            at
            for labels, points in self.receiver.stored.items()
            if dict(labels)["__name__"] == "ecoflow_pd_soc"
            for at, _ in points
        }


def assert_kept(run: Run, deadline: float) -> None:
    assert "Traceback" not in run.stderr, run.stderr
    said = re.findall(r"exit (\d+) ([A-Z]+) after (\d+\.\d) s", run.stderr)
    assert len(said) == 1, run.stderr
    status, name, seconds = said[0]
    assert ExitStatus(int(status)).name == name
    assert int(status) == run.status
    assert float(seconds) <= deadline + 5
    assert not any(secret in run.stderr + run.stdout for secret in SECRETS)


@contextmanager
def town(folder: Path, authority, seed: int = 1) -> Iterator[Town]:
    folder.mkdir(exist_ok=True)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*NAMES).configure_cert(tls)
    with (
        SimulatedCloud([DELTA], tls=tls) as cloud,
        Receiver(tls=tls) as receiver,
        Road(folder, seed) as road,
    ):
        zone = Zone({"api.test": [API], "receiver.test": [RECEIVER]})
        road.resolver(zone)
        road.door(API, 443, cloud.server_address[1])
        road.door(RECEIVER, 443, receiver.server_address[1])
        environ = {
            **cloud.environ(),
            "ECOFLOW_API_HOST": "https://api.test",
            "ECOFLOW_CA_FILE": str(folder / "ca.pem"),
            "REMOTE_WRITE_URL": "https://receiver.test/api/v1/write",
            "REMOTE_WRITE_CA_FILE": str(folder / "ca.pem"),
            "REMOTE_WRITE_BEARER_TOKEN": TOKEN,
            "STATE_DIR": str(folder / "state"),
            "PUSH_INSTANCE": "test",
            "METRICS_SET": "raw",
            "RUN_DEADLINE": "3",
        }
        yield Town(road, zone, cloud, receiver, environ)
        assert receiver.outrages == []


@pytest.fixture
def here(tmp_path, authority) -> Iterator[Town]:
    with town(tmp_path / "town", authority) as found:
        yield found


def told(road: Road) -> set[str]:
    """Return to whom the program sent anything but questions for names."""
    return {address for address, port in road.sent if port != 53}


# Not reached, or not in time.
LOST = {69, 75}
# What the resolver does, what a run may end with, and whom it may then talk to.
NAMING: dict[str, tuple[Callable[[Town], object], set[int], set[str] | None]] = {
    "is silent": (lambda t: setattr(t.zone, "instead", ""), LOST, set()),
    "three are silent": (
        lambda t: t.road.resolvers(DEAD, DEAD_TOO, DEAD_THREE),
        LOST,
        set(),
    ),
    "the first of two is silent": (
        lambda t: t.road.resolvers(DEAD, RESOLVER),
        {0},
        {API, RECEIVER},
    ),
    "knows no such name": (lambda t: t.zone.names.clear(), LOST, set()),
    "fails": (lambda t: setattr(t.zone, "instead", 2), LOST, set()),
    "refuses": (lambda t: setattr(t.zone, "instead", 5), LOST, set()),
    "has no address": (lambda t: t.zone.names.update({"api.test": []}), LOST, set()),
    "says rubbish": (lambda t: setattr(t.zone, "instead", b"\xff" * 40), LOST, None),
    "is cut short": (lambda t: setattr(t.zone, "instead", b"\x83\x80"), LOST, None),
    "is late": (lambda t: setattr(t.zone, "delay", 1.0), {0}, {API, RECEIVER}),
    "names nobody": (
        lambda t: t.zone.names.update({"api.test": [EMPTY]}),
        LOST,
        {EMPTY},
    ),
    "names this host": (
        lambda t: t.zone.names.update({"api.test": ["127.0.0.1"]}),
        LOST,
        set(),
    ),
    "names no host": (
        lambda t: t.zone.names.update({"api.test": ["0.0.0.0", "::"]}),
        LOST,
        set(),
    ),
    "names the receiver": (
        lambda t: t.zone.names.update({"api.test": [OTHER]}),
        LOST,
        {OTHER},
    ),
}
SOON = ("is silent", "names the receiver")


@pytest.mark.case("N11")
@pytest.mark.parametrize(
    "kind",
    [each if each in SOON else pytest.param(each, marks=late) for each in NAMING],
)
def test_a_resolver_that_fails(kind, here, authority):
    """A dead, wrong or lying resolver costs no more than the deadline, and no key."""
    spoil, statuses, addresses = NAMING[kind]
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.test").configure_cert(tls)
    with RecordingServer(tls=tls) as other:
        here.road.door(OTHER, 443, other.server_address[1])
        spoil(here)

        run = here.push(RUN_DEADLINE="30" if "first of two" in kind else "3")

        assert run.status in statuses, run.stderr
        assert other.received == []
    if addresses is not None:
        assert told(here.road) <= addresses | {RECEIVER}
    assert len(of_devices(here.receiver)) == (run.status == 0)


@pytest.mark.case("N11", "N12")
def test_a_name_that_changes(here):
    """Each new try asks anew: a name that is mended during a run is enough."""
    here.zone.names["api.test"] = [EMPTY]
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(here.push, RUN_DEADLINE="20")
        while EMPTY not in told(here.road) and not run.done():
            time.sleep(0.01)
        here.zone.names["api.test"] = [API]
        assert run.result().status == 0


ROADS = {
    "the first address is dead": {"api.test": [DEAD, API]},
    "the first address refuses": {"api.test": [EMPTY, API]},
    "IPv6 alone": {"api.test": [FAR_V6]},
    "IPv6 is dead": {"api.test": ["fd66::1", API]},
    "two of three are dead": {"receiver.test": [DEAD, DEAD_TOO, RECEIVER]},
}


@pytest.mark.case("N12")
@pytest.mark.parametrize(
    "kind", ["the first address is dead", *(pytest.param(x, marks=late) for x in ROADS)]
)
def test_an_address_that_is_dead(kind, here):
    """One address that answers is enough, whatever stands before it."""
    here.road.door(FAR_V6, 443, here.cloud.server_address[1])
    here.zone.names.update(ROADS[kind])
    # The shorter the deadline, the less each address may take of it.
    run = here.push(RUN_DEADLINE="8")

    assert run.status == 0, run.stderr


@pytest.mark.late
@pytest.mark.case("N12")
def test_a_broker_whose_first_address_is_dead(here, authority, tmp_path):
    """The broker's second address is tried while there is time for it."""
    environ = {k: v for k, v in here.environ.items() if not k.startswith("ECOFLOW_")}
    environ |= {
        **here.cloud.account_environ(),
        "ECOFLOW_API_HOST": "https://api.test",
        "ECOFLOW_CA_FILE": here.environ["ECOFLOW_CA_FILE"],
        "RUN_DEADLINE": "40",
    }
    here.zone.names["mqtt.ecoflow.com"] = [DEAD, BROKER]
    with mosquitto(tmp_path / "broker", authority) as broker:
        port = broker.port
        here.road.door(BROKER, port, port)
        here.cloud.broker = SimulatedBroker(
            "mqtt.ecoflow.com", port, BROKER_USER, BROKER_PASSWORD
        )
        tls = ssl.create_default_context(cafile=str(tmp_path / "broker" / "ca.pem"))
        with SimulatedDevices(
            here.cloud.devices,
            "localhost",
            port,
            username="sim",
            password="sim",
            tls=tls,
        ):
            run = here.road.push(environ)

    assert_kept(run, 40)
    assert run.status == 0, run.stderr


def is_first(packet: Packet) -> bool:
    return packet.protocol == TCP and packet.flags & (SYN | ACK) == SYN


# What the road stops, and what a run may end with.
HOLES: dict[str, tuple[Callable[[Packet], bool], set[int]]] = {
    "no connection to EcoFlow": (lambda p: is_first(p) and p.to == API, LOST),
    "no connection at all": (is_first, LOST),
    "no connection to the receiver": (
        lambda p: is_first(p) and p.to == RECEIVER,
        {75},
    ),
    "nothing large comes in": (lambda p: not p.is_out and p.size > 600, LOST),
    "nothing large goes out": (lambda p: p.is_out and p.size > 900, {75}),
    "no answer from the receiver": (
        lambda p: p.to == RECEIVER and not is_first(p),
        {75},
    ),
    "nothing at all": (lambda _: True, LOST),
}


@pytest.mark.case("N2")
@pytest.mark.parametrize(
    "kind", ["nothing large goes out", *(pytest.param(x, marks=late) for x in HOLES)]
)
def test_a_hole_in_the_road(kind, here):
    """What the road swallows is waited for until the deadline, and is lost for none."""
    # As many as do not fit into one packet, and do not shrink.
    chance = random.Random(1)
    values = {f"pd.k{n}": chance.random() for n in range(200)}
    here.cloud.devices[:] = [replace(DELTA, quotas={**(DELTA.quotas or {}), **values})]
    here.road.stops, statuses = HOLES[kind]

    run = here.push()

    assert run.status in statuses, run.stderr
    assert not here.arrived()
    waiting = here.stored()
    assert len(waiting) == (run.status == 75 and statuses == {75})
    here.road.stops = lambda _: False
    assert here.push(RUN_DEADLINE="20").status == 0
    assert waiting < here.arrived()
    assert not here.stored()


@pytest.mark.case("N17")
def test_a_captive_portal(here):
    """A portal that answers for every name is shown no key, and given nothing."""
    with RecordingServer() as portal:
        portal.fail("", faults.page())
        for port in (80, 443):
            here.road.door(OTHER, port, portal.server_address[1])
        here.zone.names |= {"api.test": [OTHER], "receiver.test": [OTHER]}

        run = here.push()

        assert portal.received == []
    assert run.status in LOST, run.stderr
    assert told(here.road) == {OTHER}


@pytest.mark.late
@pytest.mark.case("N17", "P4")
@pytest.mark.parametrize(
    "fault", [faults.page(), faults.redirect("http://portal.test/login")]
)
def test_a_captive_portal_before_sinks_without_tls(fault, here):
    """A page is no answer of a sink's: what was read is kept, and arrives later."""
    with Receiver() as receiver, RecordingServer() as gateway:
        here.road.door(RECEIVER, 80, receiver.server_address[1])
        here.road.door(OTHER, 80, gateway.server_address[1])
        here.zone.names["gateway.test"] = [OTHER]
        here.environ.update(
            REMOTE_WRITE_URL="http://receiver.test/api/v1/write",
            PUSHGATEWAY_URL="http://gateway.test",
            REMOTE_WRITE_BEARER_TOKEN="",
        )
        for each in (receiver, gateway):
            each.fail("", fault)

        run = here.push()

        assert run.status in (75, 76), run.stderr
        assert "log in" not in run.stderr
        assert len(here.stored()) == 1
        for each in (receiver, gateway):
            each.heal()
        assert here.push().status == 0
        assert len(of_devices(receiver)) == 2
        assert receiver.outrages == []


NETRC = "the-password-of-netrc"


@pytest.mark.case("N19")
@pytest.mark.parametrize(
    "kind",
    [
        "one",
        *(
            pytest.param(x, marks=late)
            for x in ("chain", "by IPv6", "wants a password", "second address")
        ),
        *(pytest.param(x, marks=late) for x in ("dead", "parent is dead", "refuses")),
    ],
)
def test_proxies(kind, here, tmp_path):
    """Through a proxy nobody else is asked anything, no name and no server.

    A .netrc changes nothing of what is sent.
    """
    (tmp_path / ".netrc").write_text(f"default login me password {NETRC}\n")
    (tmp_path / ".netrc").chmod(0o600)
    ports = {
        "api.test": here.cloud.server_address[1],
        "receiver.test": here.receiver.server_address[1],
    }
    password = "me:s%40crt" if "password" in kind else ""
    with ExitStack() as stack:
        last = stack.enter_context(
            Proxy(
                knows=ports,
                password=password.replace("%40", "@"),
                answers=403 if kind == "refuses" else 0,
            )
        )
        first = last
        if kind in ("chain", "parent is dead"):
            parent = last.place if kind == "chain" else "127.0.0.1:1"
            first = stack.enter_context(Proxy(parent=parent))
        place = FAR_V6 if kind == "by IPv6" else OTHER
        if kind != "dead":
            here.road.door(place, 3128, int(first.place.partition(":")[2]))
        place = f"[{place}]" if ":" in place else place
        user = f"{password}@" if password else ""

        named = place
        if kind == "second address":
            named = "proxy.test"
            here.zone.names[named] = [DEAD, place]

        run = here.push(
            HTTPS_PROXY=f"http://{user}{named}:3128",
            HOME=str(tmp_path),
            RUN_DEADLINE="10",
        )

        wanted = {"CONNECT api.test:443", "CONNECT receiver.test:443"}
        asked = {each.rpartition(" ")[0] for each in last.received}
    assert told(here.road) - {DEAD} == {place.strip("[]")}
    assert set(here.zone.asked) <= {"proxy.test"}
    assert "s%40crt" not in run.stderr
    assert "s@crt" not in run.stderr
    if kind in ("dead", "parent is dead", "refuses"):
        assert run.status in LOST, run.stderr
        assert "proxy" in run.stderr
        assert here.cloud.received == []
        return
    assert run.status == 0, run.stderr
    assert asked == wanted
    for each in here.cloud.received:
        assert "authorization" not in each.headers
    for request in here.receiver.requests:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.late
@pytest.mark.case("N19")
def test_what_no_proxy_names(here):
    """NO_PROXY is obeyed by the name, and the other server still has its proxy."""
    with Proxy(knows={"api.test": here.cloud.server_address[1]}) as proxy:
        here.road.door(OTHER, 3128, int(proxy.place.partition(":")[2]))

        run = here.push(HTTPS_PROXY=f"http://{OTHER}:3128", NO_PROXY="receiver.test")

        assert {each.split()[1] for each in proxy.received} == {"api.test:443"}
    assert run.status == 0, run.stderr
    assert told(here.road) == {OTHER, RECEIVER}
    assert set(here.zone.asked) == {"receiver.test"}


Work = Callable[[Town, random.Random, range], list[Any]]


def each_in(
    towns: int, rounds: int, folder: Path, authority, seed: int, work: Work
) -> list[Any]:
    """Let several towns do their part of the rounds at once; return what they found."""

    def live(number: int) -> list[Any]:
        with town(folder / f"town{number}", authority, seed + number) as found:
            chance = random.Random(seed + number)
            return work(found, chance, range(number, rounds, towns))

    with ThreadPoolExecutor(towns) as pool:
        return [one for some in pool.map(live, range(towns)) for one in some]


@pytest.mark.case("N20")
def test_a_drill_of_the_edge_of_lte(tmp_path, authority, drill):
    """With 10 % loss, 600 ms and 64 kbit/s nearly all runs deliver, and none loses."""
    rounds = drill.size(1, 100)
    # In the short form a road that is bad, and not the worst.
    worst = (0.1, 0.3, 64_000.0)
    loses, delay, rate = worst if drill.is_full else (0.03, 0.1, 128_000.0)

    def work(found: Town, chance: random.Random, numbers: range) -> list[Any]:
        found.environ["RUN_DEADLINE"] = "50"
        found.environ["LOG_LEVEL"] = "INFO"
        stored: set[int] = set()
        ends = []
        for _ in numbers:
            found.road.loses, found.road.delay, found.road.rate = loses, delay, rate
            run = found.push()
            ends.append((run.status, run.seconds))
            stored |= found.stored()
        found.road.loses = found.road.delay = found.road.rate = 0.0
        assert found.push().status == 0
        assert stored <= found.arrived()
        assert not found.stored()
        return ends

    towns = min(rounds, 8)
    ends = each_in(towns, rounds, tmp_path, authority, drill.seed, work)
    statuses = Counter(status for status, _ in ends)
    seconds = sorted(seconds for _, seconds in ends)
    print(f"statuses {dict(statuses)}, median {seconds[len(seconds) // 2]} s,", end=" ")
    print(f"longest {seconds[-1]} s")
    assert statuses[0] >= 0.95 * rounds


@pytest.mark.case("N21")
def test_a_drill_of_partitions(tmp_path, authority, drill):
    """A road that breaks at any moment of a run loses nothing that was stored."""
    rounds = drill.size(2, 300)

    def work(found: Town, chance: random.Random, numbers: range) -> list[Any]:
        stored: set[int] = set()
        statuses = []
        for _ in numbers:
            left = chance.randrange(60)
            whom = chance.choice(["", API, RECEIVER])
            heals = chance.random() < 0.3

            def stops(packet: Packet, whom: str = whom) -> bool:
                nonlocal left
                left -= 1
                return left < 0 and (not whom or not packet.is_out or packet.to == whom)

            found.road.stops = stops
            with ThreadPoolExecutor(1) as pool:
                run = pool.submit(found.push)
                if heals:
                    while left >= 0 and not run.done():
                        time.sleep(0.01)
                    time.sleep(chance.random())
                    found.road.stops = lambda _: False
                statuses.append(run.result().status)
            assert statuses[-1] in (0, 1, 69, 75), run.result().stderr
            stored |= found.stored()
        found.road.stops = lambda _: False
        assert found.push().status == 0
        assert stored <= found.arrived()
        assert not found.stored()
        print(f"{len(found.arrived())} arrived, {len(stored)} had waited")
        return statuses

    towns = min(rounds, 6)
    ends = each_in(towns, rounds, tmp_path, authority, drill.seed, work)
    print("statuses", dict(Counter(ends)))


@pytest.mark.case("N21")
def test_a_link_that_is_down_for_long(here, drill):
    """What is read while the receiver cannot be reached arrives whole, in order."""
    rounds = drill.size(2, 30)
    here.road.stops = lambda packet: packet.to == RECEIVER
    for _ in range(rounds):
        assert here.push().status == 75
    waiting = here.stored()
    assert len(waiting) == rounds
    here.road.stops = lambda _: False

    assert here.push(RUN_DEADLINE="20").status == 0

    assert waiting < here.arrived()
    assert len(here.arrived()) == rounds + 1
    for points in here.receiver.stored.values():
        assert [at for at, _ in points] == sorted(at for at, _ in points)


@pytest.mark.late
@pytest.mark.case("N21", "L12")
def test_a_road_that_flaps_under_a_schedule(here):
    """A process that stays goes on by itself whenever the road is there again."""
    process = here.road.start(
        {**here.environ, "RUN_DEADLINE": "1", "COLLECTING_INTERVAL": "1"}, "--every"
    )
    threads, kept = [], set[int]()
    for _ in range(5):
        for is_down in (True, False):
            here.road.stops = lambda _, is_down=is_down: is_down
            time.sleep(3)
            kept |= here.stored()
        status = Path(f"/proc/{process.pid}/status").read_text()
        threads.append(int(re.findall(r"Threads:\s+(\d+)", status)[0]))
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)

    assert process.returncode == 0
    statuses = re.findall(r"exit (\d+) [A-Z]+ after", said)
    assert {"0"} < set(statuses) <= {"0", "69", "75"}, said
    assert kept <= here.arrived() | here.stored()
    for points in here.receiver.stored.values():
        times = [at for at, _ in points]
        assert times == sorted(set(times))
    assert max(threads) <= threads[0] + 2


def test_a_firewall_that_forgets_under_a_schedule(here):
    """What its connections carry no more goes over new ones, in the same beat."""
    known: set[int] = set()
    forgotten: set[int] = set()

    def stops(packet: Packet) -> bool:
        if packet.is_out or packet.protocol != TCP:
            return False
        known.add(packet.port)
        return packet.port in forgotten

    here.road.stops = stops
    more = {"RUN_DEADLINE": "10", "ESTABLISH_ATTEMPTS": "1"}
    schedule = here.road.start(here.environ, "--every", "1", **more)
    assert schedule.stderr
    beats = (line for line in schedule.stderr if "exit" in line)
    try:
        assert "exit 0 OK" in next(beats)
        forgotten |= known
        assert "exit 0 OK" in next(beats)
    finally:
        schedule.terminate()
        schedule.communicate(timeout=60)

    assert len(here.arrived()) == 2
