"""What the tests of the app account share."""

from __future__ import annotations

from ecoflow_push.simulator.cloud import (
    ACCOUNT_PASSWORD,
    TOKEN,
    SimulatedBroker,
    SimulatedCloud,
)
from tests.broker import BROKER_PASSWORD, BROKER_USER
from tests.scripted_broker import ScriptedBroker
from tests.support import Run

SECRETS = (ACCOUNT_PASSWORD, TOKEN, BROKER_PASSWORD)


def assert_decent(run: Run, status: int, *, lines: int = 1) -> None:
    assert run.status == status, run.stderr
    assert len(run.stderr.splitlines()) == lines, run.stderr
    assert "Traceback" not in run.stderr
    for secret in SECRETS:
        assert secret not in run.stderr + run.stdout


def paths(cloud: SimulatedCloud) -> list[str]:
    return [received.path.partition("?")[0] for received in cloud.received]


def use(cloud: SimulatedCloud, broker: ScriptedBroker) -> None:
    cloud.broker = SimulatedBroker(
        "127.0.0.1", broker.port, BROKER_USER, BROKER_PASSWORD, "mqtt"
    )
