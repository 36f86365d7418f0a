"""Every source in the same clothes, with the world that it reads."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ecoflow_push.api.account import Account
from ecoflow_push.api.base import EcoflowApiClient
from ecoflow_push.api.guard import Guard
from ecoflow_push.api.mqtt import MqttApiClient
from ecoflow_push.api.rest import RestApiClient
from ecoflow_push.memory.state import State
from ecoflow_push.net.retry import Patience
from ecoflow_push.net.trust import Trust
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import (
    ACCESS_KEY,
    ACCOUNT_PASSWORD,
    ACCOUNT_USER,
    SECRET_KEY,
    USER_ID,
    SimulatedBroker,
    SimulatedCloud,
    SimulatedDevice,
)
from ecoflow_push.simulator.devices import SimulatedDevices
from ecoflow_push.simulator.server import Handler
from tests.conftest import DELTA
from tests.scripted_broker import ScriptedBroker

PATIENCE = Patience(2, 0.05)
QUOTA = "quota/all"


class Stage:
    """A source, and the world that it reads."""

    #: The fixtures of pytest that it is made of.
    needs: tuple[str, ...] = ()
    #: Whether it learns what the devices are called.
    knows_names = True

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.stack = stack
        #: What there is to be read.
        self.devices: list[SimulatedDevice] = []
        self.state = State.open(str(folder / "state"))
        stack.callback(self.state.close)

    def new(self, **changes: object) -> EcoflowApiClient:
        raise NotImplementedError

    def client(self, **changes: object) -> EcoflowApiClient:
        """Return a client as a new run would have it."""
        client = self.new(**changes)
        self.stack.callback(client.close)
        return client

    def spoil(self) -> None:
        """Let whoever reads from now on learn nothing at all."""
        raise NotImplementedError


class Service(Stage):
    """A source that asks EcoFlow: the cloud, and what stands behind it."""

    needs: tuple[str, ...] = ("cloud",)
    #: What its first request of a run is.
    first: str
    #: What makes it give up soon on a device that stays silent.
    hasty: Mapping[str, float] = MappingProxyType({})

    def __init__(self, folder: Path, stack: ExitStack, cloud: SimulatedCloud) -> None:
        super().__init__(folder, stack)
        self.cloud = cloud
        self.devices = cloud.devices

    def spoil(self) -> None:
        self.cloud.fail(self.first, faults.page())

    def hold(self, sn: str) -> Callable[[], object]:
        """Let a device not answer until the returned function is called."""
        raise NotImplementedError

    def bring_about(self, state: str) -> None:
        """Let the one device be read with this state."""
        raise NotImplementedError


class Rest(Service):
    first = "device/list"

    def new(self, **changes):
        guard = Guard(self.state, "these keys")
        plan = {"patience": PATIENCE, **changes}
        return RestApiClient(self.cloud.url, ACCESS_KEY, SECRET_KEY, guard, **plan)

    def hold(self, sn):
        gate = threading.Event()

        def fault(handler: Handler) -> None:
            assert gate.wait(20)
            handler.send(self.cloud.answer(handler.current))

        self.cloud.fail(f"{QUOTA}?sn={sn}", fault, times=1)
        return gate.set

    def bring_about(self, state):
        codes = {"refused": "1006", "failed": "1008"}
        code = codes.get(state, "0")
        online = 0 if state == "offline" else 1
        self.cloud.devices[:] = [SimulatedDevice(DELTA.sn, code=code, online=online)]


class Mqtt(Service):
    needs = ("cloud", "fleet", "ca_file")
    first = "/auth/login"
    hasty = MappingProxyType({"longest_visit": 1.0})

    def __init__(self, folder, stack, cloud, fleet, ca_file):
        super().__init__(folder, stack, cloud)
        self._path = str(folder / "account.json")
        self._ca_file = ca_file
        self.fleet: SimulatedDevices = fleet

    def new(self, **changes):
        account = Account(
            self.cloud.url,
            ACCOUNT_USER,
            ACCOUNT_PASSWORD,
            path=self._path,
            trust=Trust(self._ca_file),
            patience=PATIENCE,
        )
        plan = {"instance": "test", **changes}
        return MqttApiClient(account, Guard(self.state), **plan)

    def hold(self, sn):
        (device,) = [each for each in self.cloud.devices if each.sn == sn]
        place = self.cloud.devices.index(device)
        self.cloud.devices[place] = SimulatedDevice(sn, name=device.name, deaf_to=99)
        topic = f"/app/{USER_ID}/{sn}/thing/property/get_reply"
        data = {"online": 1, "quotaMap": device.quotas}
        return lambda: self.fleet.say(topic, json.dumps({"data": data}).encode())

    def bring_about(self, state):
        self.cloud.devices[:] = [
            SimulatedDevice(DELTA.sn, DELTA.quotas, online=int(state != "offline"))
        ]
        if state in ("refused", "failed"):
            broker = ScriptedBroker(suback=128 if state == "refused" else 1)
            port = self.stack.enter_context(broker).port
            self.cloud.broker = SimulatedBroker("127.0.0.1", port, "u", "p", "mqtt")


STAGES: dict[str, Any] = {"rest": Rest, "mqtt": Mqtt}
#: Those that ask EcoFlow.
SERVICES = ("rest", "mqtt")
