"""Fixtures: a cloud, a gateway, an environment, a certificate authority."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from ecoflow_push.simulator.cloud import SimulatedCloud, SimulatedDevice
from tests.support import Gateway, gateway

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
    parser.addoption("--drill", action="store_true", help="drills in full numbers")


@pytest.fixture
def drill(request: pytest.FixtureRequest) -> bool:
    """Whether a drill is to run in full numbers."""
    return bool(request.config.getoption("--drill"))


@pytest.fixture
def cloud() -> Iterator[SimulatedCloud]:
    """A cloud with one device that is online."""
    with SimulatedCloud([DELTA]) as cloud:
        yield cloud


@pytest.fixture
def pushgateway() -> Iterator[Gateway]:
    """A real Pushgateway."""
    with gateway() as running:
        yield running


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
