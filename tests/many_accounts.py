"""A simulated EcoFlow cloud of many accounts, as a process of its own.

    python -m tests.many_accounts --accounts 1000 --devices 10 --quotas 300 --folder DIR

serves them on the loopback interface until SIGTERM or Ctrl-C, and writes DIR/NAME.env
for each, which push.py takes with --env-file, and all of them with ECOFLOW_ACCOUNTS.
The names are site-00001 and so on, with --app N also app-00001 and so on: accounts of
the app, behind a real mosquitto. When all is there, one line of JSON says where.

--fault NAME=KIND lets an account fail from the start; KIND:PART only where the path of
a request has PART in it. While it runs, lines on its standard input are heard:

    fault NAME KIND     from now on
    heal NAME           no more
    counts              one line of JSON: requests and logins by account
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count, cycle, islice, product
from pathlib import Path
from typing import Any

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.accounts import (
    AppUser,
    Keys,
    SimulatedAccount,
    SimulatedBroker,
    SimulatedDevice,
)
from ecoflow_push.simulator.cloud import SimulatedCloud
from ecoflow_push.simulator.devices import SimulatedDevices
from ecoflow_push.simulator.encoded import Encoded
from ecoflow_push.simulator.server import Fault
from tests.broker import mosquitto
from tests.support import ROOT

FAULTS: Mapping[str, Callable[[], Fault]] = {
    "hang": faults.hang,
    "slow": faults.drip_body,
    "keys": lambda: faults.code("8513", "accessKey is invalid"),
    "signature": lambda: faults.code("8521", "signature is wrong"),
    "login": lambda: faults.code("1002", "The password is wrong"),
    "busy": lambda: faults.status(429, Retry_After="600"),
    "down": lambda: faults.status(503),
    "page": faults.page,
    "cut": faults.cut,
    "reset": faults.reset,
}
# How many devices differ in their values; the others are like one of these.
KINDS = 8
MOVING = "core.moving"
# What a DELTA 2 reports under real names, for the normalized metrics.
REAL = json.loads(
    (ROOT / "tests" / "fixtures" / "normalized" / "delta2.json").read_text()
)["quotas"]
PARTS = ("core", "inv", "solar", "pack_packStatus", "ems_emsParam", "20_1")
THINGS = ("in", "out", "cell", "fan", "usbC1", "acOut", "dcBus", "max", "f32Min", "cfg")
UNITS = ("Watts", "Vol", "Amp", "Temp", "SOC")
NUMBERS = (0, 1, 230579, 24, -3, 53355, 86.53, 1440, True, 0, 99, 213052, 7)


def quotas(size: int, start: int = 0) -> dict[str, object]:
    """Return so many quotas, each a number: real ones first, then invented ones."""
    numbers = cycle(NUMBERS[start:] + NUMBERS[:start])
    real = (key for key, value in REAL.items() if isinstance(value, int | float))
    names = [*product(PARTS, THINGS, UNITS)]
    invented = (
        f"{part}{n or ''}.{thing}{unit}" for n in count() for part, thing, unit in names
    )
    found: dict[str, object] = {MOVING: 0}
    found |= {key: REAL[key] for key in islice(real, size - 1)}
    return found | dict(zip(islice(invented, size - len(found)), numbers, strict=False))


class Fleet:
    """Devices by the thousand, which share what they report."""

    def __init__(self, size: int) -> None:
        """Let each device report so many quotas, of which one moves."""
        self._kinds = [Encoded(quotas(size, n), {MOVING}) for n in range(KINDS)]
        self._made = 0

    def devices(self, number: int) -> list[SimulatedDevice]:
        """Return devices that nobody else has."""
        first, self._made = self._made, self._made + number
        return [
            SimulatedDevice(
                f"R331{n:012}",
                name=f"Device {n}",
                product_name="DELTA 2",
                encoded=self._kinds[n % KINDS],
            )
            for n in range(first, self._made)
        ]


def key_accounts(
    number: int, devices: int, fleet: Fleet
) -> dict[str, SimulatedAccount]:
    """Return accounts of developer keys, by name."""
    return {
        f"site-{n:05}": SimulatedAccount(
            fleet.devices(devices), Keys(f"AKmany{n:026}", f"SKmany{n:026}")
        )
        for n in range(1, number + 1)
    }


def app_accounts(
    number: int, devices: int, fleet: Fleet
) -> dict[str, SimulatedAccount]:
    """Return accounts of the app, by name; they lack a broker."""
    return {
        f"app-{n:05}": SimulatedAccount(
            fleet.devices(devices),
            user=AppUser(
                f"app-{n}@example.org",
                f"password {n}",
                f"{1600000000000000000 + n}",
                f"many.token.{n}",
            ),
        )
        for n in range(1, number + 1)
    }


@contextmanager
def behind_a_broker(
    accounts: Sequence[SimulatedAccount], folder: Path
) -> Iterator[SimulatedDevices]:
    """Run a broker that each account has credentials of its own for."""
    users = {
        f"app-{account.user.user_id}": (f"broker {n}", account.user.user_id)
        for n, account in enumerate(accounts)
        if account.user
    }
    with mosquitto(folder, None, users=users, log_type="error") as broker:
        where = "127.0.0.1", broker.port
        for account, (user, (password, _)) in zip(accounts, users.items(), strict=True):
            account.broker = SimulatedBroker(*where, user, password, "mqtt")
        devices = [device for account in accounts for device in account.devices]
        with SimulatedDevices(
            devices, *where, username="sim", password="sim", keeps=1000
        ) as running:
            yield running


def write_files(
    folder: Path, accounts: Mapping[str, SimulatedAccount], url: str
) -> None:
    """Write NAME.env for each account, as push.py takes it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, account in accounts.items():
        opened_by = account.keys or account.user
        assert opened_by
        lines = [f"{key}={value}\n" for key, value in opened_by.environ(url).items()]
        file = folder / f"{name}.env"
        file.touch(0o600)
        file.write_text("".join(lines))


def fail(account: SimulatedAccount, kind: str) -> None:
    """Let an account fail; raises KeyError for a kind that is not known."""
    name, _, part = kind.partition(":")
    account.fail(part, FAULTS[name]())


def obey(line: str, accounts: Mapping[str, SimulatedAccount]) -> dict[str, Any]:
    """Do what a line says and return what is to be told."""
    try:
        match line.split():
            case ["fault", name, kind]:
                fail(accounts[name], kind)
            case ["heal", name]:
                accounts[name].heal()
            case ["counts"]:
                return {
                    name: {"requests": account.requests, "logins": account.logins}
                    for name, account in accounts.items()
                }
            case _:
                return {"error": f"not understood: {line.strip()}"}
    except KeyError as exc:
        return {"error": f"not known: {exc}"}
    return {}


def listen(accounts: Mapping[str, SimulatedAccount]) -> None:
    """Obey the standard input to its end."""
    # Without a buffer, whose lock would be held when the program ends.
    with open(0, "rb", buffering=0, closefd=False) as lines:
        for line in lines:
            print(json.dumps(obey(line.decode(), accounts)), flush=True)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("accounts", 1), ("devices", 1), ("quotas", 300), ("app", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N")
    parser.add_argument("--port", type=int, default=0, metavar="P")
    parser.add_argument("--folder", type=Path, required=True, metavar="DIR")
    kinds = ", ".join(FAULTS)
    parser.add_argument(
        "--fault", action="append", default=[], metavar="NAME=KIND", help=kinds
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM."""
    arguments = parse(argv)
    is_over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: is_over.set())
    # Who is started in the background of a terminal is not to stop for its input.
    signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    fleet = Fleet(arguments.quotas)
    accounts = key_accounts(arguments.accounts, arguments.devices, fleet)
    of_app = app_accounts(arguments.app, arguments.devices, fleet)
    accounts |= of_app
    with ExitStack() as stack:
        cloud = stack.enter_context(SimulatedCloud([], keeps=1000, port=arguments.port))
        if of_app:
            place = stack.enter_context(tempfile.TemporaryDirectory())
            stack.enter_context(behind_a_broker([*of_app.values()], Path(place)))
        for account in accounts.values():
            cloud.add(account)
        for text in arguments.fault:
            name, _, kind = text.partition("=")
            if error := obey(f"fault {name} {kind}", accounts):
                sys.exit(f"--fault {text}: {error['error']}")
        write_files(arguments.folder, accounts, cloud.url)
        told = {"url": cloud.url, "folder": str(arguments.folder), "pid": os.getpid()}
        print(json.dumps(told), flush=True)
        threading.Thread(target=listen, args=(accounts,), daemon=True).start()
        is_over.wait()


class Process:
    """A cloud of many accounts in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        told = self._read()
        self.url: str = told["url"]
        self.pid: int = told["pid"]

    def ask(self, line: str) -> dict[str, Any]:
        """Return the answer to a line."""
        assert self._process.stdin
        print(line, file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def many_accounts(folder: Path, *args: str) -> Iterator[Process]:
    """Run the command, and end it."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.many_accounts", "--folder", str(folder), *args],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Process(process)
        finally:
            process.terminate()
            status = process.wait(60)
        assert status == 0


if __name__ == "__main__":
    main()
