"""Fixtures: a cloud, a gateway, an environment, a certificate authority."""

from __future__ import annotations

import importlib
import ssl
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from hypothesis import settings

from ecoflow_push.simulator.cloud import (
    SimulatedBroker,
    SimulatedCloud,
    SimulatedDevice,
)
from ecoflow_push.simulator.devices import SimulatedDevices
from ecoflow_push.simulator.server import RecordingServer
from tests.broker import BROKER_PASSWORD, BROKER_USER, Mosquitto, mosquitto
from tests.compliance import Bench
from tests.drill import CAMPAIGNS, Drill, drill_of
from tests.receiver import Receiver
from tests.support import NO_SERVERS, SHARED, Gateway, gateway

DELTA = SimulatedDevice(
    "R331ZFAKE0000001",
    {"pd.soc": 87, "inv.acInVol": 230579, "bms_bmsStatus.cellVol": [3321, 3322]},
    "Garage",
    "DELTA 2",
)
STREAM = SimulatedDevice("BK11ZFAKE0000002", {"cmsBattSoc": 66.5, "relay2Onoff": True})
OFFLINE = SimulatedDevice(
    "R601ZFAKE0000003", {"pd.soc": 12}, "Camper", "RIVER 2", online=0
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--drill", action="store_true", help="campaigns in full numbers")
    parser.addoption(
        "--campaign", action="append", choices=CAMPAIGNS, help="nothing but this one"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Let Hypothesis try more in the drill."""
    most = 1000 if config.getoption("--drill") else 100
    settings.register_profile("ours", settings(), max_examples=most, deadline=None)
    settings.load_profile("ours")


def pytest_collection(session: pytest.Session) -> None:
    """Of all tests let each worker compile some, which the others find compiled."""
    workers = getattr(session.config, "workerinput", None)
    if workers and session.config.args == session.config.getini("testpaths"):
        number = int(workers["workerid"].removeprefix("gw"))
        files = sorted(Path(__file__).parent.glob("test_*.py"))
        for file in files[number :: workers["workercount"]]:
            with suppress(Exception):  # it is told when that file's turn has come
                importlib.import_module(file.stem)


@pytest.hookimpl(trylast=True)  # after -k and -m
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave late rows to the drill; of all that needs what is absent skip only one.

    That one skipped test stands for all that reads what is beside the project.
    """
    stray = [e for e in items if e.get_closest_marker("late") and not campaign_of(e)]
    # Neither `make test` nor `./dev drill` would ever run it.
    assert not stray, f"late, but in no campaign: {stray[0].nodeid}"
    if not config.getoption("--drill"):
        _keep(config, items, lambda item: not item.get_closest_marker("late"))
    if names := config.getoption("--campaign"):
        _keep(config, items, lambda item: campaign_of(item) in names)
    needy = [item for item in items if item.get_closest_marker("recorded")]
    if SHARED.is_dir() or not needy:
        return
    reason = f"{len(needy)} tests read recordings that are not beside the project"
    needy[0].add_marker(pytest.mark.skip(reason))
    config.hook.pytest_deselected(items=needy[1:])
    items[:] = [item for item in items if item not in needy[1:]]


def _keep(
    config: pytest.Config,
    items: list[pytest.Item],
    is_kept: Callable[[pytest.Item], bool],
) -> None:
    others = [item for item in items if not is_kept(item)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if is_kept(item)]


def campaign_of(item: pytest.Item) -> str:
    """Return the name of the campaign that a test is part of, "" for none."""
    marker = item.get_closest_marker("drill")
    name = str(marker.args[0]) if marker else ""
    assert name in ("", *CAMPAIGNS), f"tests/drill.py knows no campaign {name}"
    return name


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[
    None, pytest.TestReport, pytest.TestReport
]:
    """Let all that lack the real servers be skipped at one place: one line tells it."""
    report = yield
    if isinstance(report.longrepr, tuple) and report.longrepr[2].endswith(NO_SERVERS):
        report.longrepr = (__file__, 0, report.longrepr[2])
    return report


@pytest.fixture
def drill(request: pytest.FixtureRequest) -> Drill:
    """How the campaign is to run that the test is marked with."""
    is_full = bool(request.config.getoption("--drill"))
    return drill_of(campaign_of(request.node), is_full=is_full)


@pytest.fixture
def cloud() -> Iterator[SimulatedCloud]:
    """A cloud with one device that is online."""
    with SimulatedCloud([DELTA]) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def standing_gateway() -> Iterator[Gateway]:
    """A real Pushgateway for all tests, of which each gets it empty."""
    with gateway("--web.enable-admin-api") as running:
        yield running


@pytest.fixture
def pushgateway(standing_gateway: Gateway) -> Gateway:
    """A real Pushgateway without a group."""
    standing_gateway.wipe()
    return standing_gateway


@pytest.fixture
def environ(
    cloud: SimulatedCloud, pushgateway: Gateway, tmp_path: Path
) -> dict[str, str]:
    """The settings of a job that reads the cloud and pushes to the gateway."""
    return {
        **cloud.environ(),
        "PUSHGATEWAY_URL": pushgateway.url,
        "STATE_DIR": str(tmp_path / "state"),
        "PUSH_INSTANCE": "test",
        "RETRY_TIMEOUT": "0.05",
        # These tests count raw samples; test_push.py has one of both kinds.
        "METRICS_SET": "raw",
    }


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture(scope="session")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def receiver():
    with Receiver() as running:
        yield running
        assert running.outrages == []


@pytest.fixture
def written(environ, receiver):
    """The settings of a job that writes to the receiver alone."""
    return {
        **{k: v for k, v in environ.items() if k != "PUSHGATEWAY_URL"},
        "REMOTE_WRITE_URL": receiver.write_url,
        "ESTABLISH_ATTEMPTS": "2",
    }


@pytest.fixture
def broker(tmp_path, authority) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path / "broker", authority) as running:
        yield running


@pytest.fixture
def fleet(cloud, broker, ca_file) -> Iterator[SimulatedDevices]:
    """Devices behind the broker, whose credentials the cloud hands out."""
    cloud.devices[:] = [DELTA]
    cloud.broker = SimulatedBroker(
        "localhost", broker.port, BROKER_USER, BROKER_PASSWORD
    )
    with SimulatedDevices(
        cloud.devices,
        "localhost",
        broker.port,
        username="sim",
        password="sim",
        tls=ssl.create_default_context(cafile=ca_file),
    ) as devices:
        yield devices


@pytest.fixture
def account(environ, cloud: SimulatedCloud, ca_file) -> dict[str, str]:
    """The settings of a job that uses the app account."""
    kept = {k: v for k, v in environ.items() if not k.startswith("ECOFLOW_")}
    return {**kept, **cloud.account_environ(), "ECOFLOW_CA_FILE": ca_file}


class World(NamedTuple):
    """What a finding may need."""

    cloud: SimulatedCloud
    gateway: Gateway
    #: A server that answers 200 to everything, until it is told to fail.
    faulty: RecordingServer
    #: A server of a certificate that nobody trusts.
    untrusted: RecordingServer
    receiver: Receiver
    folder: Path
    stack: ExitStack
    authority: trustme.CA
    #: What a server of that authority presents, and what trusts in it.
    tls: ssl.SSLContext
    ca_file: str


@pytest.fixture
def world(
    cloud, pushgateway, authority, server_tls, ca_file, tmp_path
) -> Iterator[World]:
    with ExitStack() as stack:
        faulty = stack.enter_context(RecordingServer())
        untrusted = stack.enter_context(RecordingServer(server_tls))
        receiver = stack.enter_context(Receiver())
        yield World(
            *(cloud, pushgateway, faulty, untrusted, receiver, tmp_path, stack),
            *(authority, server_tls, ca_file),
        )


@pytest.fixture
def bench(cloud, tmp_path):
    with Receiver() as receiver:
        environ = {
            **cloud.environ(),
            "REMOTE_WRITE_URL": receiver.write_url,
            "STATE_DIR": str(tmp_path),
            "PUSH_INSTANCE": "test",
            "ESTABLISH_ATTEMPTS": "2",
            "RETRY_TIMEOUT": "0.05",
        }
        yield Bench(receiver, environ, cloud)
        assert receiver.outrages == []


@pytest.fixture
def home(tmp_path, cloud: SimulatedCloud) -> dict[str, str]:
    """The environment of a newcomer, who reaches no cloud but ours."""
    for folder in ("home", "tmp"):
        (tmp_path / folder).mkdir()
    return {
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "ECOFLOW_API_HOST": cloud.url,
        "STATE_DIR": str(tmp_path / "state"),
        "RETRY_TIMEOUT": "0.05",
        "PUSH_INSTANCE": "test",
    }
