"""What every source keeps, what each that asks EcoFlow does, and what one alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice

import pytest

from ecoflow_push import redact
from ecoflow_push.api.base import EcoflowApiClient, Reading
from ecoflow_push.api.guard import Guard
from ecoflow_push.api.lanes import READ_AHEAD, Lanes
from ecoflow_push.api.models import DeviceInfo
from ecoflow_push.api.rest import RestApiClient
from ecoflow_push.config.plugs import SOURCES
from ecoflow_push.errors import (
    ApiOutOfTime,
    AskedToWait,
    EcoflowApiException,
    KeysRefused,
    NoDevices,
)
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import (
    ACCESS_KEY,
    SECRET_KEY,
    TOKEN,
    USER_ID,
    SimulatedCloud,
    SimulatedDevice,
)
from ecoflow_push.simulator.server import Fault, Handler
from tests.broker import BROKER_PASSWORD, BROKER_USER
from tests.conftest import DELTA, OFFLINE, STREAM
from tests.sources import QUOTA, SERVICES, STAGES, Mqtt, Rest, Service, Stage
from tests.support import eventually
from tests.test_faults import CLOUD_FAULTS
from tests.test_layers import imported_by

FLEET = [
    SimulatedDevice(f"R331ZFAKE00000{n:02d}", {"pd.soc": n}, f"Number {n}")
    for n in range(12)
]


@pytest.fixture(params=STAGES)
def stage(request, tmp_path) -> Iterator[Stage]:
    kind = STAGES[request.param]
    with ExitStack() as stack:
        yield kind(tmp_path, stack, *map(request.getfixturevalue, kind.needs))


@pytest.fixture(params=SERVICES)
def service(request, tmp_path) -> Iterator[Service]:
    """A source that asks EcoFlow, which can be told to misbehave."""
    kind = STAGES[request.param]
    with ExitStack() as stack:
        yield kind(tmp_path, stack, *map(request.getfixturevalue, kind.needs))


def test_every_source_is_held_to_the_contract():
    """What stands in the table of sources has a stage here, in the same order."""
    assert list(STAGES) == list(SOURCES)


# -- readings -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 12])
def test_every_device_of_the_account_is_read_once(count, stage):
    """Without names each listed device has one reading, whatever their number."""
    stage.devices[:] = FLEET[:count]
    client = stage.client()

    readings = list(client.read((), Deadline(20)))

    found = {reading.device.sn: reading for reading in readings}
    assert len(readings) == count
    assert found.keys() == {device.sn for device in FLEET[:count]}
    for device in FLEET[:count]:
        reading = found[device.sn]
        assert reading.state == "ok"
        assert reading.source == client.name
        assert reading.device.name == device.name * stage.knows_names
        assert reading.snapshot.quotas == device.quotas
    assert [device.sn for device in client.wanted] == [d.sn for d in FLEET[:count]]
    assert client.listed == client.wanted


@pytest.mark.parametrize("count", [3, 12])
def test_readings_are_a_stream(count, service):
    """All other readings are out before the last device has answered."""
    service.cloud.devices[:] = FLEET[:count]
    last = FLEET[count - 1].sn
    release = service.hold(last)

    readings = service.client().read((), Deadline(20))
    early = [reading.device.sn for reading in islice(readings, count - 1)]
    release()

    assert set(early) == {device.sn for device in FLEET[: count - 1]}
    assert [reading.device.sn for reading in readings] == [last]


def test_named_devices_have_the_names_of_the_list(stage):
    """Those named are read and no other, in their order, with the names of the list."""
    stage.devices[:] = FLEET[:4]
    named = (FLEET[2].sn, FLEET[1].sn)
    for _ in ("at first", "with what was kept"):
        client = stage.client()

        readings = list(client.read(named, Deadline(20)))

        assert [device.sn for device in client.wanted] == list(named)
        assert {r.device.sn: r.device.name for r in readings} == {
            named[0]: "Number 2" * stage.knows_names,
            named[1]: "Number 1" * stage.knows_names,
        }


@pytest.mark.case("N22")
@pytest.mark.parametrize("state", ["ok", "offline", "refused", "failed"])
def test_each_state_of_a_device(state, service):
    """Offline, refused and failed are told apart, each with what is to be done."""
    service.bring_about(state)
    client = service.client(
        **({"longest_visit": 1.0} if service.first[0] == "/" else {})
    )

    (reading,) = client.read((), Deadline(20))

    assert reading.state == state
    assert (reading.snapshot is not None) == (state == "ok")
    if state in ("refused", "failed"):
        assert reading.error.cure


def test_a_device_that_is_listed_offline_is_not_asked(service):
    """What the list calls offline has no snapshot, and costs no request."""
    service.cloud.devices[:] = [DELTA, OFFLINE]

    states = {r.device.sn: r.state for r in service.client().read((), Deadline(20))}

    assert states == {DELTA.sn: "ok", OFFLINE.sn: "offline"}
    assert not any(OFFLINE.sn in each.path for each in service.cloud.received)
    asked = getattr(service, "fleet", None)
    assert not asked or not any(OFFLINE.sn in topic for topic, _ in asked.asked)


def test_an_empty_list_is_told(stage):
    """An account without a device is an error of its own, and no list to judge by."""
    stage.devices[:] = []
    client = stage.client()

    with pytest.raises(NoDevices) as raised:
        list(client.read((), Deadline(20)))

    assert raised.value.cure
    assert client.listed is None


def test_an_account_without_a_device_may_be_the_wrong_one(service):
    """EcoFlow's empty list is told with the credentials that may be meant."""
    service.devices[:] = []

    with pytest.raises(NoDevices) as raised:
        list(service.client().read((), Deadline(20)))

    assert "lists no device" in raised.value.text
    assert raised.value.cure.startswith("use the credentials of the account")


def test_it_only_reads(service):
    """It sends GET, the login's POST and `get` topics, and nothing else."""
    service.cloud.devices[:] = [DELTA, STREAM, OFFLINE]
    list(service.client().read((), Deadline(20)))

    sent = {
        (each.method, each.path.partition("?")[0]) for each in service.cloud.received
    }
    assert all(method == "GET" or path == "/auth/login" for method, path in sent)
    fleet = getattr(service, "fleet", None)
    assert not fleet or {t.rsplit("/", 1)[1] for t, _ in fleet.asked} == {"get"}


def test_it_knows_how_wrong_our_clock_is(service):
    """Once EcoFlow answered, our clock is compared with its own; never before."""
    service.cloud.date_offset = 3600.0
    client = service.client()
    assert client.clock_offset() is None

    list(client.read((), Deadline(20)))

    assert client.clock_offset() == pytest.approx(-3600, abs=30)


# -- what goes wrong ----------------------------------------------------------------


@pytest.mark.parametrize("fault", CLOUD_FAULTS)
def test_a_fault_is_an_error_of_ours(fault, service):
    """Whatever the service does to the first request, one kind of error comes out."""
    misbehave, _, _, _ = CLOUD_FAULTS[fault]
    service.cloud.fail(service.first, misbehave)
    client = service.client()

    with pytest.raises(EcoflowApiException):
        list(client.read((), Deadline(1)))

    assert client.listed is None


@pytest.mark.parametrize("fault", CLOUD_FAULTS)
@pytest.mark.parametrize("where", ["device/list", QUOTA])
def test_a_fault_has_its_status_and_words(where, fault, cloud, tmp_path):
    """Each fault of the developer API says what it is, and what it means for a run."""
    misbehave, status, words, _ = CLOUD_FAULTS[fault]
    cloud.fail(where, misbehave)
    with ExitStack() as stack:
        client = Rest(tmp_path, stack, cloud).client()

        error = outcome(client, Deadline(1))

    assert error.status == status
    assert words in str(error)


def outcome(client: EcoflowApiClient, deadline: Deadline) -> EcoflowApiException:
    """Return what ended the reading, or the one reading's error."""
    try:
        (reading,) = client.read((), deadline)
    except EcoflowApiException as exc:
        return exc
    assert reading.error
    return reading.error


CURES: dict[str, tuple[Fault, str]] = {
    "a page": (faults.page(), "check for a login portal or proxy in the way"),
    "HTTP 500": (faults.status(500), "wait, the fault is on its side"),
    "HTTP 404": (faults.status(404), "check ECOFLOW_API_HOST"),
    "a redirect": (faults.redirect("http://127.0.0.1:1"), "check ECOFLOW_API_HOST"),
    "HTTP 429": (faults.status(429), "wait, and let the job run less often"),
    "too busy": (faults.code("9", "Server is too busy."), "wait, and let the job run"),
    "a reset": (faults.reset(), ""),
    "a hang": (faults.hang(), "look for a firewall in the way"),
}


@pytest.mark.parametrize("fault", CURES)
def test_a_fault_has_its_cure(fault, service):
    """Both services' faults are read by one reader, and have one cure."""
    misbehave, cure = CURES[fault]
    service.cloud.fail(service.first, misbehave)

    with pytest.raises(EcoflowApiException) as raised:
        list(service.client().read((), Deadline(1)))

    assert raised.value.cure.startswith(cure)


def test_words_within_a_message_decide_nothing(service):
    """Only the whole message "Server is too busy" asks to wait, not words in others."""
    service.cloud.fail(service.first, faults.code("9", "never too busy for you"))

    with pytest.raises(EcoflowApiException) as raised:
        list(service.client().read((), Deadline(5)))

    assert not isinstance(raised.value, AskedToWait)


@pytest.mark.case("N13")
def test_a_pause_is_kept_by_the_next_runs(service):
    """Once EcoFlow asked for a long pause, neither a run nor a probe asks it."""
    service.cloud.fail(service.first, faults.status(429, Retry_After="600"), times=1)
    with pytest.raises(AskedToWait):
        list(service.client().read((), Deadline(5)))
    asked = len(service.cloud.received)

    with pytest.raises(AskedToWait) as raised:
        list(service.client().read((), Deadline(5)))
    findings = list(service.client().probe(Deadline(5)))

    assert 590 < raised.value.seconds <= 600
    assert ("wrong", "EcoFlow") in [(each.mark, each.step) for each in findings]
    assert len(service.cloud.received) == asked


# -- leaving ------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "amid", "after"])
def test_it_can_be_left_at_any_time(when, stage):
    """Closing twice, before, amid or after reading, leaves no thread behind."""
    stage.devices[:] = FLEET
    threads = set(threading.enumerate())
    client = stage.client()
    readings = client.read((), Deadline(20))
    if when != "before":
        assert next(readings).state == "ok"
    if when == "after":
        assert len(list(readings)) == len(FLEET) - 1

    readings.close()
    client.close()
    client.close()

    assert eventually(lambda: not ours(threads)), ours(threads)


def ours(before: set[threading.Thread]) -> list[threading.Thread]:
    """Return the threads that are new and not of the simulated servers."""
    return [
        thread
        for thread in threading.enumerate()
        if thread not in before and "process_request_thread" not in thread.name
    ]


# -- the probe ----------------------------------------------------------------------


def test_a_probe_where_all_is_well(stage):
    """It finds nothing wrong, and reading goes on from there."""
    stage.devices[:] = FLEET[:3]
    client = stage.client()

    findings = list(client.probe(Deadline(20)))
    readings = list(client.read((), Deadline(20)))

    assert {each.mark for each in findings} == {"ok"}
    assert [reading.state for reading in readings] == ["ok"] * 3
    assert client.listed


def test_a_probe_of_a_healthy_service(service):
    """Each step is ok, and reading asks nothing twice."""
    service.devices[:] = FLEET[:3]
    client = service.client()

    findings = list(client.probe(Deadline(20)))
    list(client.read((), Deadline(20)))

    host = service.cloud.url.partition("://")[2]
    assert [(each.mark, each.step, each.text) for each in findings] == [
        ("ok", "DNS", "the name is known"),
        ("ok", "TLS", "not used, plain http"),
        ("ok", "EcoFlow", f"{host} answers"),
        ("ok", "region", f"{host} is the right one"),
        ("ok", "credentials", "accepted"),
    ]
    sent = [(each.method, each.path) for each in service.cloud.received]
    assert len(sent) == len(set(sent))


def test_what_a_probe_met_ends_the_reading(stage):
    """The error that a probe found, with its cure, is raised by `read`."""
    stage.spoil()
    client = stage.client()

    findings = list(client.probe(Deadline(5)))
    with pytest.raises(EcoflowApiException) as raised:
        list(client.read((), Deadline(5)))

    (wrong,) = [each for each in findings if each.mark == "wrong"]
    assert wrong.error is raised.value
    assert wrong.cure == raised.value.cure != ""
    assert client.listed is None


def test_what_a_probe_met_is_asked_for_once(service):
    """After a probe that failed, `read` sends nothing to EcoFlow."""
    service.spoil()
    client = service.client()

    findings = list(client.probe(Deadline(5)))
    asked = len(service.cloud.received)
    with pytest.raises(EcoflowApiException):
        list(client.read((), Deadline(5)))

    assert ("wrong", "EcoFlow") in [(each.mark, each.step) for each in findings]
    assert len(service.cloud.received) == asked


def test_a_probe_of_refused_credentials(service):
    """A refusal is an answer of EcoFlow's, and wrong credentials."""
    service.cloud.fail(service.first, faults.status(403))

    findings = list(service.client().probe(Deadline(5)))

    assert [(each.mark, each.step) for each in findings][2:] == [
        ("ok", "EcoFlow"),
        ("unknown", "region"),
        ("wrong", "credentials"),
    ]


# -- developer keys -----------------------------------------------------------------


@pytest.fixture
def rest(cloud, tmp_path) -> Iterator[Rest]:
    with ExitStack() as stack:
        yield Rest(tmp_path, stack, cloud)


def refuse_keys(rest: Rest) -> None:
    for _ in range(3):
        with pytest.raises(KeysRefused):
            list(rest.client().read((), Deadline(5)))


@pytest.mark.case("N15")
def test_refused_keys_rest(rest):
    """After three refusals in a row the keys are not tried; a probe tries them."""
    rest.cloud.fail("list", faults.code("8513", "accessKey is invalid"))
    refuse_keys(rest)
    asked = len(rest.cloud.received)

    with pytest.raises(KeysRefused) as raised:
        list(rest.client().read((), Deadline(5)))
    assert len(rest.cloud.received) == asked
    assert "not asked again" in raised.value.text

    findings = list(rest.client().probe(Deadline(5)))
    assert len(rest.cloud.received) == asked + 1
    assert findings[-1].mark == "wrong"


def test_a_probe_wakes_keys_that_rest(rest):
    """Keys that are accepted after all are used by the next runs, and it says so."""
    rest.cloud.fail("list", faults.code("7005"), times=3)
    refuse_keys(rest)

    findings = list(rest.client().probe(Deadline(5)))

    assert findings[-1].text == "accepted, again: the next runs use them"
    assert next(rest.client().read((), Deadline(5))).state == "ok"


def test_a_key_of_another_region(rest):
    """A key that is unknown here is looked for elsewhere, and found."""
    here = SimulatedCloud([DELTA], access_key="AKother0000000000000000000000009")
    rest.stack.enter_context(here)
    regions = (here.url, rest.cloud.url)
    guard = Guard(rest.state, "these keys")
    client = RestApiClient(here.url, ACCESS_KEY, SECRET_KEY, guard, regions=regions)

    *_, region, credentials = client.probe(Deadline(5))
    client.close()

    home = rest.cloud.url.partition("://")[2]
    assert (region.mark, region.cure) == ("wrong", f"set ECOFLOW_API_HOST={home}")
    assert (credentials.mark, credentials.text) == ("ok", f"accepted by {home}")
    assert isinstance(region.error, KeysRefused)
    assert region.error.code == "8513"


def test_a_key_that_is_known_nowhere(rest):
    """A key that no region knows is one line with all the hosts that were asked."""
    rest.cloud.fail("list", faults.code("8513", "accessKey is invalid"))
    other = rest.stack.enter_context(SimulatedCloud([], access_key="AKother"))
    client = rest.client(regions=(rest.cloud.url, other.url))

    *_, region, credentials = client.probe(Deadline(5))

    assert region.mark == "unknown"
    assert credentials.mark == "wrong"
    assert other.url.partition("://")[2] in credentials.text
    assert credentials.cure == "check ECOFLOW_ACCESS_KEY"


def test_nobody_at_the_host(rest):
    """Where nothing listens, the way is wrong and EcoFlow is not asked."""
    guard = Guard(rest.state)
    client = RestApiClient("http://127.0.0.1:1", ACCESS_KEY, SECRET_KEY, guard)

    findings = list(client.probe(Deadline(5)))

    assert [(each.mark, each.step) for each in findings] == [
        ("ok", "DNS"),
        ("wrong", "TLS"),
        ("unknown", "EcoFlow"),
        ("unknown", "region"),
        ("unknown", "credentials"),
    ]
    assert "the host and port in ECOFLOW_API_HOST" in findings[1].cure


def test_an_error_that_ends_it_comes_behind_what_was_read(rest):
    """Readings that were made are out before the service's last word is raised."""
    rest.cloud.devices[:] = FLEET[:4]
    rest.cloud.fail(f"{QUOTA}?sn={FLEET[2].sn}", faults.code("8513"))
    client = rest.client()
    readings = client.read((), Deadline(5))

    early = [reading.device.sn for reading in islice(readings, 2)]

    assert early == [FLEET[0].sn, FLEET[1].sn]
    with pytest.raises(KeysRefused):
        next(readings)
    assert client.listed
    assert not any(FLEET[3].sn in each.path for each in rest.cloud.received)


def test_a_throttled_service_is_asked_slowly(rest):
    """Many devices are asked four at once, and one by one once that was too fast."""
    rest.cloud.devices[:] = FLEET
    together = threading.Barrier(4)
    peaks = []

    def at_once(handler: Handler) -> None:
        together.wait(20)
        peaks.append(together.parties)
        handler.send(rest.cloud.answer(handler.current))

    rest.cloud.fail(QUOTA, at_once, times=12)
    assert len(list(rest.client().read((), Deadline(60)))) == 12
    assert len(peaks) == 12

    lock = threading.Lock()

    def alone(handler: Handler) -> None:
        assert lock.acquire(blocking=False)
        time.sleep(0.02)
        lock.release()
        handler.send(rest.cloud.answer(handler.current))

    rest.cloud.fail("list", faults.status(429, Retry_After="0"), times=1)
    rest.cloud.fail(QUOTA, alone)
    readings = list(rest.client().read((), Deadline(60)))
    assert [reading.state for reading in readings] == ["ok"] * 12


def test_one_hanging_device_does_not_starve_the_next(rest):
    """A device that hangs costs its own share of the time; the others are read."""
    rest.cloud.devices[:] = FLEET[:2]
    rest.cloud.fail(f"{QUOTA}?sn={FLEET[0].sn}", faults.hang())

    readings = list(rest.client().read((), Deadline(3)))

    assert [reading.state for reading in readings] == ["failed", "ok"]
    assert isinstance(readings[0].error, ApiOutOfTime)


def test_a_plain_run_does_without_requests(rest):
    """Reading with developer keys imports neither requests nor what is for MQTT."""
    code = (
        "import os, sys; from ecoflow_push.api.rest import RestApiClient;"
        "from ecoflow_push.api.guard import Guard;"
        "from ecoflow_push.memory.state import State;"
        "from ecoflow_push.net.deadline import Deadline;"
        "url, *keys = os.environ['KEYS'].split();"
        "client = RestApiClient(url, *keys, Guard(State()));"
        "assert [r.state for r in client.read((), Deadline(20))] == ['ok']"
    )

    loaded = imported_by(code, {"KEYS": f"{rest.cloud.url} {ACCESS_KEY} {SECRET_KEY}"})

    assert "http.client" in loaded
    assert not {"requests", "urllib3", "paho", "ecoflow_push.api.probe"} & loaded


@pytest.mark.parametrize("count", [3, 12])
def test_a_bug_in_a_lane_is_raised_to_who_reads(count):
    """What is no error of ours is not swallowed, in one lane or in several."""

    def read(device: DeviceInfo, deadline: Deadline) -> Reading:
        if device.sn == "2":
            raise ZeroDivisionError
        return Reading(device, "rest")

    devices = [DeviceInfo(str(n)) for n in range(count)]
    lanes = Lanes(devices, read, Deadline(20), lambda: False)

    with pytest.raises(ZeroDivisionError):
        list(lanes.readings())


def test_lanes_do_not_run_ahead(rest):
    """However slowly readings are taken, only a few are made before they are."""
    begun = []

    def read(device: DeviceInfo, deadline: Deadline) -> Reading:
        begun.append(device.sn)
        return Reading(device, "rest")

    devices = [DeviceInfo(str(n)) for n in range(1000)]
    readings = Lanes(devices, read, Deadline(20), lambda: False).readings()
    next(readings)

    assert eventually(lambda: len(begun) == READ_AHEAD + 1)
    time.sleep(0.1)
    assert len(begun) == READ_AHEAD + 1
    assert len(list(readings)) == 999


def test_a_1006_says_how_else_to_read_it(rest):
    """A model that is closed to developer keys is open to the app account."""
    rest.bring_about("refused")

    (reading,) = rest.client().read((), Deadline(5))

    assert reading.error.instead == "app account only"


# -- the app account ----------------------------------------------------------------


def test_what_an_account_earns_is_never_printed(fleet, cloud, tmp_path, ca_file):
    """Token, broker password, its user and the user's id are masked, once known."""
    with ExitStack() as stack:
        stage = Mqtt(tmp_path, stack, cloud, fleet, ca_file)
        list(stage.client().read((), Deadline(20)))

    said = f"{TOKEN} {BROKER_PASSWORD} {BROKER_USER} {USER_ID}"
    assert redact.redact(said) == "*** *** *** ***"


def test_a_slow_taker_is_not_silence(fleet, cloud, tmp_path, ca_file):
    """The time that whoever takes a reading needs is not taken from the devices."""
    cloud.devices[:] = FLEET[:2]
    with ExitStack() as stack:
        stage = Mqtt(tmp_path, stack, cloud, fleet, ca_file)
        release = stage.hold(FLEET[1].sn)
        readings = stage.client(longest_visit=1.0).read((), Deadline(20))
        assert next(readings).device.sn == FLEET[0].sn
        time.sleep(1.5)
        release()

        assert next(readings).state == "ok"
