"""Faults that are planted for --check, and their cures as its lines say them."""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ecoflow_push.memory.lock import state_folder
from ecoflow_push.memory.spools import endpoint_folder
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import (
    ACCESS_KEY,
    SECRET_KEY,
    SimulatedBroker,
    SimulatedCloud,
    SimulatedDevice,
)
from ecoflow_push.simulator.devices import SimulatedDevices
from ecoflow_push.simulator.server import Answer, Fault, Handler
from tests.broker import BROKER_PASSWORD, BROKER_USER, mosquitto
from tests.check import LIST, NOWHERE, PASSWORD, Setup, another_region, textfile
from tests.conftest import DELTA, OFFLINE, STREAM, World
from tests.forker import Hardship
from tests.proxy import Proxy
from tests.receiver import PATH, Receiver
from tests.support import gateway

Changes = Mapping[str, str | None]
#: What is set once the cure was followed, given what was said and what was set; all
#: servers are well again, and all disks.
Cure = Callable[[World, str, Changes], Changes]
NAMELESS = "http://sink.invalid:9091"
USER = "a-user"


class Planted(NamedTuple):
    """A fault: how it comes about, how it is cured, and where the process has to live.

    `survived` says that nothing is wrong by it, and the check ends with 0.
    """

    setup: Setup
    cure: Cure
    hardships: Callable[[World], Sequence[Hardship]] = lambda _: ()
    survived: bool = False


def undo(_world: World, _said: str, _planted: Changes) -> Changes:
    """Nothing but what was set before: the cure of what was set wrongly."""
    return {}


def keep(_world: World, _said: str, planted: Changes) -> Changes:
    """All that was set: the cure is on the other side."""
    return planted


def also(**settings: str | None) -> Cure:
    return lambda _world, _said, planted: {**planted, **settings}


def heal(world: World) -> None:
    """Let every server be well again."""
    for server in (world.cloud, world.faulty, world.receiver):
        server.heal()
    world.cloud.date_offset = 0.0
    world.cloud.devices[:] = [DELTA]
    for proxy in Proxy.running.values():
        proxy.answers = 0


def laid(base: Mapping[str, str], changes: Changes) -> tuple[dict[str, str], list[str]]:
    """Return an environment with changes in it, and the regions that they name."""
    whole = {**base, **changes}
    regions = (whole.pop("regions", None) or "").split()
    return {k: v for k, v in whole.items() if v is not None}, regions


# -- EcoFlow ------------------------------------------------------------------------


def cloud_fails(fault: Fault) -> Setup:
    def setup(world: World) -> Changes:
        world.cloud.fail(LIST, fault)
        return {}

    return setup


def cloud_has(fault: Fault) -> Planted:
    return Planted(cloud_fails(fault), keep)


def devices(*fleet: SimulatedDevice, **settings: str) -> Setup:
    def setup(world: World) -> Changes:
        world.cloud.devices[:] = fleet
        return settings

    return setup


def device_answers(code: str) -> Setup:
    return devices(SimulatedDevice(DELTA.sn, code=code))


def with_settings(**settings: str | None) -> Setup:
    return lambda _: settings


def set_wrongly(**settings: str | None) -> Planted:
    return Planted(with_settings(**settings), undo)


def unknown_everywhere(world: World) -> Changes:
    world.cloud.fail(LIST, faults.code("8513", "accessKey is invalid"))
    return another_region(world)


def wrong_clock(world: World) -> Changes:
    world.cloud.date_offset = 3600.0
    return only_receiver(world.receiver.write_url)


def both_wrong(world: World) -> Changes:
    world.cloud.date_offset = 3600.0
    return {"ECOFLOW_SECRET_KEY": "SKwrong"}


def exchanged(world: World) -> Changes:
    regions = another_region(world)["regions"] or ""
    return {
        "ECOFLOW_ACCESS_KEY": SECRET_KEY,
        "ECOFLOW_SECRET_KEY": ACCESS_KEY,
        "regions": regions,
    }


def exchanged_elsewhere(world: World) -> Changes:
    # Its own host is the other one, which has come first.
    planted = exchanged(world)
    return {**planted, "ECOFLOW_API_HOST": (planted["regions"] or "").split()[0]}


def as_told(_world: World, said: str, planted: Changes) -> Changes:
    """Set the host that is named, and let the keys change places if that is said."""
    host = re.search(r"set ECOFLOW_API_HOST=(\S+)", said)
    keys = {"ECOFLOW_ACCESS_KEY": ACCESS_KEY, "ECOFLOW_SECRET_KEY": SECRET_KEY}
    changes = keys if "change places" in said else {}
    if host:
        changes |= {"ECOFLOW_API_HOST": f"http://{host[1]}"}
    return {"regions": planted.get("regions"), **changes}


def account(**settings: str) -> Setup:
    def setup(world: World) -> Changes:
        keys = {"ECOFLOW_ACCESS_KEY": None, "ECOFLOW_SECRET_KEY": None}
        return {**keys, **world.cloud.account_environ(), **settings}

    return setup


def with_broker(world: World) -> dict[str, str]:
    """Let the app account read the devices, by a real broker; return its settings."""
    broker = world.stack.enter_context(
        mosquitto(world.folder / "broker", world.authority)
    )
    place = ("localhost", broker.port)
    world.cloud.broker = SimulatedBroker(*place, BROKER_USER, BROKER_PASSWORD)
    trust = ssl.create_default_context(cafile=world.ca_file)
    fleet = SimulatedDevices(
        world.cloud.devices, *place, username="sim", password="sim", tls=trust
    )
    world.stack.enter_context(fleet)
    return {**world.cloud.account_environ(), "ECOFLOW_CA_FILE": world.ca_file}


def right_account(world: World, _said: str, planted: Changes) -> Changes:
    return {**planted, **with_broker(world)}


def by_the_account(world: World, _said: str, _planted: Changes) -> Changes:
    """Read what is closed to keys with the app account."""
    keys = {"ECOFLOW_ACCESS_KEY": None, "ECOFLOW_SECRET_KEY": None}
    return {**keys, **with_broker(world)}


def one_of_two(world: World) -> Changes:
    """Both ways are set, and the second one is refused."""
    wrong = {"ECOFLOW_SOURCE": "auto", "ECOFLOW_ACCOUNT_PASSWORD": "wr0ng-pass"}
    return {**with_broker(world), **wrong}


def right_password(world: World, _said: str, planted: Changes) -> Changes:
    return {**planted, **world.cloud.account_environ()}


def untrusted_cloud(world: World) -> Changes:
    cloud = SimulatedCloud([DELTA], tls=world.tls)
    return world.stack.enter_context(cloud).environ()


def trusting(variable: str) -> Cure:
    return lambda world, _said, planted: {**planted, variable: world.ca_file}


# -- proxies ------------------------------------------------------------------------


def _a_proxy(world: World, **kind: Any) -> str:
    return world.stack.enter_context(Proxy(**kind)).url


def tunnelled(variable: str = "HTTPS_PROXY", place: str = "", **kind: Any) -> Setup:
    """Reach EcoFlow through a proxy that opens tunnels, or does not."""

    def setup(world: World) -> Changes:
        url = place or _a_proxy(world, **kind)
        settings = {"ECOFLOW_CA_FILE": world.ca_file, variable: url}
        return {**untrusted_cloud(world), **settings}

    return setup


def proxied(variable: str = "HTTP_PROXY", place: str = "", **kind: Any) -> Setup:
    """Reach the Pushgateway, not EcoFlow, through a proxy."""

    def setup(world: World) -> Changes:
        url = place or _a_proxy(world, **kind)
        settings = {variable: url, "NO_PROXY": "127.0.0.1"}
        return {**settings, "PUSHGATEWAY_URL": world.gateway.url}

    return setup


def refused_behind(world: World) -> Changes:
    """Behind the proxy nobody listens, and the proxy says so in its own words."""
    return {**proxied()(world), "PUSHGATEWAY_URL": "http://localhost:1"}


def right_gateway(world: World, _said: str, planted: Changes) -> Changes:
    return {**planted, "PUSHGATEWAY_URL": world.gateway.url}


def no_proxy(_world: World, _said: str, planted: Changes) -> Changes:
    return {k: v for k, v in planted.items() if not k.lower().endswith("s_proxy")}


def past_it(_world: World, _said: str, planted: Changes) -> Changes:
    return {**planted, "NO_PROXY": "127.0.0.1,localhost"}


def with_password(variable: str) -> Cure:
    def cure(_world: World, _said: str, planted: Changes) -> Changes:
        url = (planted[variable] or "").replace("//", f"//{USER}:{PASSWORD}@")
        return {**planted, variable: url}

    return cure


# -- sinks --------------------------------------------------------------------------


def only_receiver(url: str) -> dict[str, str | None]:
    return {"PUSHGATEWAY_URL": None, "REMOTE_WRITE_URL": url}


def gateway_fails(fault: Fault, part: str = "") -> Setup:
    def setup(world: World) -> Changes:
        world.faulty.fail(part, fault)
        return {"PUSHGATEWAY_URL": world.faulty.url}

    return setup


def gateway_has(fault: Fault, part: str = "", **more: Any) -> Planted:
    return Planted(gateway_fails(fault, part), undo, **more)


def receiver_fails(fault: Fault) -> Setup:
    def setup(world: World) -> Changes:
        world.receiver.fail(PATH, fault)
        return only_receiver(world.receiver.write_url)

    return setup


def receiver_has(fault: Fault) -> Planted:
    return Planted(receiver_fails(fault), keep)


def right_receiver(world: World, _said: str, _planted: Changes) -> Changes:
    return only_receiver(world.receiver.write_url)


def receiver_at(url: str) -> Planted:
    return Planted(lambda _: only_receiver(url), right_receiver)


def locked(handler: Handler) -> None:
    """Answer only to who shows user and password, as the server would."""
    shown = handler.current.headers.get("authorization", "").startswith("Basic ")
    handler.send(handler.server.answer(handler.current) if shown else Answer(401))


def unlocked(prefix: str, fault: Setup) -> Cure:
    """Show them; the lock is still there."""

    def cure(world: World, _said: str, planted: Changes) -> Changes:
        fault(world)
        shown = {f"{prefix}_USERNAME": USER, f"{prefix}_PASSWORD": PASSWORD}
        return {**planted, **shown}

    return cure


def untrusted_gateway(world: World) -> Changes:
    key, chain = world.folder / "key.pem", world.folder / "chain.pem"
    certificate = world.authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(key))
    chain.write_bytes(b"".join(x.bytes() for x in certificate.cert_chain_pems))
    config = world.folder / "web.yml"
    config.write_text(f"tls_server_config: {{cert_file: {chain}, key_file: {key}}}\n")
    running = gateway(f"--web.config.file={config}", scheme="https")
    return {"PUSHGATEWAY_URL": world.stack.enter_context(running).url}


def untrusted_receiver(world: World) -> Changes:
    receiver = world.stack.enter_context(Receiver(tls=world.tls))
    return only_receiver(receiver.write_url)


def of_version_1(world: World) -> Changes:
    world.receiver.speaks = "1"
    return only_receiver(world.receiver.write_url) | {"REMOTE_WRITE_VERSION": "2"}


def only_put(handler: Handler) -> None:
    """Take a push, refuse the rest."""
    handler.send(Answer(200 if handler.current.method == "PUT" else 405))


def fifo(world: World) -> Changes:
    os.mkfifo(world.folder / "fifo.prom")
    return textfile("fifo.prom")(world)


# -- folders ------------------------------------------------------------------------


def blocked_state(world: World) -> Changes:
    (world.folder / "file").write_text("")
    return {"STATE_DIR": str(world.folder / "file" / "state")}


def folders_of_state(world: World) -> list[str]:
    """Return the folders of the check's own state, and of a run's."""
    place = str(world.folder / "state"), world.cloud.url
    return [state_folder(*place, who, "ecoflow") for who in ("x", ACCESS_KEY)]


def newer_state(world: World) -> Changes:
    for folder in folders_of_state(world):
        os.makedirs(folder)
        with open(os.path.join(folder, "state.json"), "w") as file:
            json.dump({"version": 99}, file)
    return {}


def closed(folder: str) -> None:
    os.makedirs(folder, exist_ok=True)
    os.chmod(folder, 0o500)


def closed_state(world: World) -> Changes:
    closed(str(world.folder / "state"))
    return {}


def opened(*parts: str) -> Cure:
    """Give the rights back."""

    def cure(world: World, _said: str, planted: Changes) -> Changes:
        world.folder.joinpath(*parts).chmod(0o700)
        return planted

    return cure


def spools(world: World) -> list[str]:
    url = world.receiver.write_url
    return [endpoint_folder(folder, url, "") for folder in folders_of_state(world)]


def closed_spool(world: World) -> Changes:
    for spool in spools(world):
        closed(spool)
    return only_receiver(world.receiver.write_url)


def open_spool(world: World, _said: str, planted: Changes) -> Changes:
    for spool in spools(world):
        os.chmod(spool, 0o700)
    return planted


def linked_spool(world: World) -> Changes:
    for spool in spools(world):
        os.makedirs(os.path.dirname(spool))
        os.symlink(world.folder, spool)
    return only_receiver(world.receiver.write_url)


def other_state(world: World, _said: str, planted: Changes) -> Changes:
    return {**planted, "STATE_DIR": str(world.folder / "another")}


def closed_folder(world: World) -> Changes:
    closed(str(world.folder / "text"))
    return textfile("text", "ecoflow.prom")(world)


def some_folder(world: World) -> Changes:
    (world.folder / "text").mkdir()
    return textfile("text", "ecoflow.prom")(world)


def make_it(world: World, _said: str, planted: Changes) -> Changes:
    (world.folder / "missing").mkdir()
    return planted


def ordinary(_world: World) -> list[Hardship]:
    return [("ordinary", "")]


def at(kind: str, *parts: str) -> Callable[[World], list[Hardship]]:
    return lambda world: [(kind, str(world.folder.joinpath(*parts)))]


def small_files(_world: World) -> list[Hardship]:
    # Room for what is printed, and not for a snapshot.
    return [("small_files", "16384")]


# -- the monitor --------------------------------------------------------------------


def monitor_fails(fault: Fault) -> Planted:
    def setup(world: World) -> Changes:
        world.faulty.fail("", fault)
        return {"HEALTHCHECK_URL": f"{world.faulty.url}/ping/8d7b6c5a"}

    return Planted(setup, keep)


def monitor_at(url: str) -> Planted:
    def cure(world: World, _said: str, _planted: Changes) -> Changes:
        return {"HEALTHCHECK_URL": f"{world.faulty.url}/ping/8d7b6c5a"}

    return Planted(with_settings(HEALTHCHECK_URL=url), cure)


def slow(planted: Planted) -> Planted:
    def setup(world: World) -> Changes:
        return {**planted.setup(world), "RUN_DEADLINE": "2"}

    return planted._replace(setup=setup)


# -- the table ----------------------------------------------------------------------

#: Each row of the table in docs/check.md.
FINDINGS: dict[str, Planted] = {
    "the settings have a fault": set_wrongly(COLLECTING_INTERVAL="soon"),
    "a value has quotes around it": set_wrongly(PUSH_JOB='"ecoflow"'),
    "a value has its own name in it": set_wrongly(PUSH_JOB="PUSH_JOB=ecoflow"),
    "a path is not absolute": set_wrongly(STATE_DIR="state"),
    "a file of settings cannot be read": Planted(
        lambda world: {
            "ECOFLOW_SECRET_KEY": None,
            "ECOFLOW_SECRET_KEY_FILE": str(world.folder / "missing"),
        },
        undo,
    ),
    "half a pair is set": set_wrongly(ECOFLOW_SECRET_KEY=None),
    "no credentials are set": set_wrongly(
        ECOFLOW_ACCESS_KEY=None, ECOFLOW_SECRET_KEY=None
    ),
    "two accounts are set": Planted(
        with_settings(ECOFLOW_ACCOUNT_USER="me", ECOFLOW_ACCOUNT_PASSWORD="w0rdsome"),
        also(ECOFLOW_SOURCE="rest"),
    ),
    "the text file's name ends otherwise": set_wrongly(TEXTFILE_PATH="/tmp/x.txt"),
    "no sink is set": Planted(
        with_settings(PUSHGATEWAY_URL=None),
        lambda world, _said, _planted: textfile("ecoflow.prom")(world),
    ),
    "the state folder cannot be used": Planted(blocked_state, undo),
    "the state folder is closed": Planted(closed_state, opened("state"), ordinary),
    "the state folder's disk is full": Planted(
        with_settings(), keep, at("full", "state")
    ),
    "the state folder's disk is read-only": Planted(
        with_settings(), keep, at("read_only", "state")
    ),
    "files may not be large": Planted(with_settings(), keep, small_files),
    "the state is of a newer version": Planted(newer_state, other_state),
    "EcoFlow's name does not resolve": set_wrongly(
        ECOFLOW_API_HOST="api.ecoflow.invalid"
    ),
    "EcoFlow's host refuses the connection": set_wrongly(ECOFLOW_API_HOST=NOWHERE),
    "EcoFlow's certificate is not trusted": Planted(
        untrusted_cloud, trusting("ECOFLOW_CA_FILE")
    ),
    "EcoFlow does not answer in time": slow(cloud_has(faults.hang())),
    "EcoFlow's host answers with a web page": cloud_has(faults.page()),
    "EcoFlow's host redirects": cloud_has(faults.redirect(NOWHERE)),
    "HTTP 5xx from EcoFlow": cloud_has(faults.status(503)),
    "HTTP 429 from EcoFlow": cloud_has(faults.status(429)),
    "HTTP 401 from EcoFlow": cloud_has(faults.status(401)),
    "HTTP 403 from EcoFlow": cloud_has(faults.status(403)),
    "Server is too busy": cloud_has(faults.code("9", "Server is too busy")),
    "the proxy is down": Planted(tunnelled(place=NOWHERE), no_proxy),
    "the proxy's name does not resolve": Planted(
        tunnelled("https_proxy", "http://proxy.invalid:3128"), no_proxy
    ),
    "the proxy wants a password": Planted(
        tunnelled(password=f"{USER}:{PASSWORD}"), with_password("HTTPS_PROXY")
    ),
    "the proxy does not let EcoFlow through": Planted(tunnelled(answers=403), past_it),
    "the proxy does not reach EcoFlow": Planted(
        tunnelled("https_proxy", answers=503), keep
    ),
    "the clock is wrong": Planted(wrong_clock, keep),
    "8513 accessKey is invalid, the key belongs to another region": Planted(
        another_region, as_told
    ),
    "8513 accessKey is invalid, in every region": Planted(unknown_everywhere, undo),
    "8513 accessKey is invalid, the two keys are exchanged": Planted(
        exchanged, as_told
    ),
    "8513 accessKey is invalid, exchanged and of another region": Planted(
        exchanged_elsewhere, as_told
    ),
    "8521 signature is wrong": set_wrongly(ECOFLOW_SECRET_KEY="SKwrong"),
    "8521 signature is wrong, with a wrong clock": Planted(both_wrong, undo),
    "a code that means refused credentials": cloud_has(faults.code("7005", "no")),
    "a code that nobody knows": cloud_has(faults.code("4711", "never seen")),
    "the app account was refused": Planted(
        account(ECOFLOW_ACCOUNT_PASSWORD="wr0ng-pass"), right_account
    ),
    "the second of two accounts was refused": Planted(one_of_two, right_password),
    "EcoFlow lists no device": Planted(devices(), keep),
    "a device is offline": Planted(devices(OFFLINE), keep, survived=True),
    "a device is not the account's": Planted(
        devices(DELTA, ECOFLOW_DEVICE_SN=f"{DELTA.sn},R331ZFAKE0000O01"),
        also(ECOFLOW_DEVICE_SN=DELTA.sn),
    ),
    "1006 not allowed: the device is not open to keys": Planted(
        device_answers("1006"), by_the_account
    ),
    "1006 not allowed, of one device among others": Planted(
        devices(DELTA, SimulatedDevice(STREAM.sn, code="1006")), keep, survived=True
    ),
    "8512 no permission": Planted(device_answers("8512"), keep),
    "1008 check your params": Planted(device_answers("1008"), keep),
    "the Pushgateway is down": set_wrongly(PUSHGATEWAY_URL=NOWHERE),
    "the Pushgateway's name does not resolve": set_wrongly(PUSHGATEWAY_URL=NAMELESS),
    "the Pushgateway's certificate is not trusted": Planted(
        untrusted_gateway, trusting("PUSHGATEWAY_CA_FILE")
    ),
    "the Pushgateway does not speak TLS": Planted(
        lambda world: {"PUSHGATEWAY_URL": world.faulty.url.replace("http:", "https:")},
        undo,
    ),
    "the Pushgateway answers 401": Planted(
        gateway_fails(locked), unlocked("PUSHGATEWAY", gateway_fails(locked))
    ),
    "the Pushgateway redirects": gateway_has(faults.redirect(NOWHERE)),
    "the Pushgateway answers 400": gateway_has(faults.status(400, b"not so")),
    "the Pushgateway answers 404": gateway_has(faults.status(404)),
    "the Pushgateway answers 5xx": gateway_has(faults.status(503)),
    "the Pushgateway is a web page": gateway_has(faults.page()),
    "the Pushgateway hangs": slow(gateway_has(faults.hang())),
    "the Pushgateway's test cannot be read back": gateway_has(
        faults.body(b'{"data": []}'), "/api/v1/metrics", survived=True
    ),
    "the Pushgateway's test cannot be deleted": gateway_has(only_put),
    "the Pushgateway's proxy is down": Planted(
        proxied("http_proxy", place=NOWHERE), past_it
    ),
    "the Pushgateway's proxy wants a password": Planted(
        proxied(password=f"{USER}:{PASSWORD}"), with_password("HTTP_PROXY")
    ),
    "the Pushgateway's proxy forbids it": Planted(proxied(answers=403), keep),
    "the Pushgateway's proxy does not reach it": Planted(refused_behind, right_gateway),
    "the receiver is down": receiver_at(NOWHERE),
    "the receiver's name does not resolve": receiver_at(NAMELESS),
    "the receiver's certificate is not trusted": Planted(
        untrusted_receiver, trusting("REMOTE_WRITE_CA_FILE")
    ),
    "the receiver answers 401": Planted(
        receiver_fails(locked), unlocked("REMOTE_WRITE", receiver_fails(locked))
    ),
    "the receiver redirects": receiver_has(faults.redirect(NOWHERE)),
    "the receiver answers 400": receiver_has(faults.status(400, b"not so")),
    "the receiver answers 404: remote-write is switched off there": receiver_has(
        faults.status(404, b"receiver is not enabled")
    ),
    "the receiver answers 5xx": receiver_has(faults.status(503)),
    "the receiver is a web page": receiver_has(faults.page()),
    "the receiver hangs": slow(receiver_has(faults.hang())),
    "the receiver does not speak version 2.0": Planted(
        of_version_1, also(REMOTE_WRITE_VERSION="auto")
    ),
    "the receiver takes anything": Planted(
        lambda world: only_receiver(world.faulty.url), right_receiver
    ),
    "the spool is closed": Planted(closed_spool, open_spool, ordinary),
    "the spool is a symbolic link": Planted(linked_spool, other_state),
    "the text file's folder cannot be written": Planted(
        textfile("missing", "ecoflow.prom"), make_it
    ),
    "the text file's folder is closed": Planted(
        closed_folder, opened("text"), ordinary
    ),
    "the text file's disk is full": Planted(some_folder, keep, at("full", "text")),
    "the text file's disk is read-only": Planted(
        some_folder, keep, at("read_only", "text")
    ),
    "the text file is something else": Planted(fifo, undo),
    "the monitor does not know the address": monitor_fails(faults.status(404)),
    "the monitor does not know the check": monitor_fails(
        faults.status(200, b"OK (not found)")
    ),
    "the monitor redirects": monitor_fails(
        faults.redirect("https://u:pw@elsewhere.example/a/b?key=open")
    ),
    "the monitor answers 5xx": monitor_fails(faults.status(502)),
    "the monitor hangs": slow(monitor_fails(faults.hang())),
    "the monitor is down": monitor_at(NOWHERE),
    "the monitor's certificate is not trusted": Planted(
        lambda world: {"HEALTHCHECK_URL": f"{world.untrusted.url}/ping/8d7b6c5a"},
        lambda world, _said, _planted: {"HEALTHCHECK_URL": world.faulty.url},
    ),
    "the monitor's name does not resolve": monitor_at("http://ping.invalid/8d7b6c5a"),
}
