"""Servers that quote what they should not: places, and ways to put a text into answers.

A case is a place that answers, a way in which it does, and how push.py is started.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedCloud
from ecoflow_push.simulator.server import Fault, Handler, RecordingServer
from tests.conftest import DELTA
from tests.leaks import spellings, whole
from tests.receiver import PATH, Receiver
from tests.scripted_broker import Connection, ScriptedBroker
from tests.support import free_port

LOGIN, CERTIFICATION, APP_LIST = "/auth/login", "/certification", "/user/device"
LIST, QUOTA = "/device/list", "/quota/all"

# What is set. Of a password no part is looked for: it may be a word of any line.
ACCESS_KEY = "AK9f3c71e0b2d8465a"
SECRET_KEY = "SK/b7+e21d=94c6f0a38"
ACCOUNT_USER = "s0me.0ne+m41l@p0st.invalid"
ACCOUNT_PASSWORD = "p@s:s/w#r%d 'x\"y\\z ü!"
GATEWAY_PASSWORD = "g@te:w/a#y%2 'q\"r\\s ü?"
GATEWAY_TOKEN = "glc_eyJvIjoiNzQ1/Mz+A="
PATH_TOKEN = "t0k3n%2Fof-a%20path.77"
QUERY_TOKEN = "q7Vw+x/9Zr_t=K2m~uX5"
HEADER_TOKEN = "hdr-5Yb/0c+Ue4Wn=="
WRITE_TOKEN = "rw_9A8b7C6d/5E4f+3G2h1="
PING = "5f2c8e71-9a3b-4d60-b1c7-e08d94f6a235"
PROXY_PASSWORD = "pr@x:y/p#w%1 'k\"l\\m ü."
# What is earned.
TOKEN = 'eyJh/bGci+OiJI"UzI1.NiJ9_pr\\0be~42'
USER_ID = "1765432198076543210"
BROKER_USER = "app-93b1e0c7d2f84a65"
BROKER_PASSWORD = 'Zq7"x&w<2>k+L/m=9 v\\T4'
# What nobody knows before it is quoted.
FRESH_TOKEN = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


class Secrets(NamedTuple):
    """What is to be kept; a server may cut a token, a phrase it quotes as a whole."""

    tokens: tuple[str, ...]
    phrases: tuple[str, ...] = ()

    def __add__(self, other: Secrets) -> Secrets:  # type: ignore[override]
        return Secrets(self.tokens + other.tokens, self.phrases + other.phrases)

    def without(self, other: Secrets) -> Secrets:
        tokens = tuple(each for each in self.tokens if each not in other.tokens)
        phrases = tuple(each for each in self.phrases if each not in other.phrases)
        return Secrets(tokens, phrases)


KEYS = Secrets((ACCESS_KEY, SECRET_KEY))
ACCOUNT = Secrets((), (ACCOUNT_PASSWORD, ACCOUNT_USER))
#: What an account has once it is logged in.
LOGGED_IN = ACCOUNT + Secrets((TOKEN, USER_ID))
CERTIFIED = LOGGED_IN + Secrets((BROKER_USER, BROKER_PASSWORD))
FRESH = Secrets((FRESH_TOKEN,))
OF_GATEWAY = Secrets((GATEWAY_TOKEN, PATH_TOKEN), (GATEWAY_PASSWORD,))
OF_RECEIVER = Secrets((QUERY_TOKEN, HEADER_TOKEN, WRITE_TOKEN))
OF_MONITOR = Secrets((PING,))
OF_PROXY = Secrets((), (PROXY_PASSWORD,))
#: Who may hear what, by the server's name.
HEARS = {
    "cloud": KEYS + CERTIFIED + FRESH,
    "gateway": OF_GATEWAY,
    "receiver": OF_RECEIVER,
    "monitor": OF_MONITOR,
    "nobody": Secrets(()),
}
#: What is set in every run, beside the credentials of EcoFlow's.
OF_SINKS = Secrets((PATH_TOKEN,)) + OF_RECEIVER + OF_MONITOR
BASIC = OF_SINKS + Secrets((), (GATEWAY_PASSWORD,))

RUN, CHECK, DRY, TABLE = (), ("--check",), ("--dry-run",), ("--list-devices",)


class Scene:
    """All servers that a run may meet, each well until it is told to fail."""

    def __init__(self, stack: ExitStack) -> None:
        self.cloud = stack.enter_context(
            SimulatedCloud([DELTA], access_key=ACCESS_KEY, secret_key=SECRET_KEY)
        )
        self.others: dict[str, RecordingServer] = {
            name: stack.enter_context(RecordingServer())
            for name in ("gateway", "monitor", "proxy", "nobody")
        }
        self.others["receiver"] = stack.enter_context(Receiver())
        #: A broker that is well, and hears of no device.
        self.broker = stack.enter_context(ScriptedBroker())
        self.stack = stack

    @property
    def servers(self) -> dict[str, RecordingServer]:
        return {"cloud": self.cloud, **self.others}

    def heal(self) -> None:
        for server in self.servers.values():
            server.heal()
            server.received.clear()

    def environ(self, folder: Path) -> dict[str, str]:
        """Return settings that hold all that can be planted for a run by keys."""
        url = {name: server.url for name, server in self.servers.items()}
        password = quote(GATEWAY_PASSWORD, safe="")
        gateway = url["gateway"].replace("//", f"//user:{password}@")
        (folder / "bearer").write_text(f"{WRITE_TOKEN}\n")
        return {
            "ECOFLOW_API_HOST": url["cloud"],
            "ECOFLOW_ACCESS_KEY": ACCESS_KEY,
            "ECOFLOW_SECRET_KEY": SECRET_KEY,
            "PUSHGATEWAY_URL": f"{gateway}/{PATH_TOKEN}",
            "REMOTE_WRITE_URL": f"{url['receiver']}{PATH}?t={quote(QUERY_TOKEN)}",
            "REMOTE_WRITE_BEARER_TOKEN_FILE": str(folder / "bearer"),
            "REMOTE_WRITE_HEADERS": f"X-Api-Key: {HEADER_TOKEN}",
            "HEALTHCHECK_URL": f"{url['monitor']}/ping/{PING}",
            "TEXTFILE_PATH": str(folder / "text.prom"),
            "STATE_DIR": str(folder / "state"),
            "PUSH_INSTANCE": "test",
            "ESTABLISH_ATTEMPTS": "2",
            "RETRY_TIMEOUT": "0.01",
            "RUN_DEADLINE": "15",
        }


@contextmanager
def scene() -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(stack)


def quoting(secrets: Secrets, rng: random.Random) -> str:
    """Return all of them in every spelling, in any order: a cut is never the same."""
    forms = [form for token in secrets.tokens for form in spellings(token)]
    forms += [form for phrase in secrets.phrases for form in whole(phrase)]
    rng.shuffle(forms)
    return " ".join(forms)


# -- ways to answer -----------------------------------------------------------------

#: What is to be set, and to be taken away.
Changes = Mapping[str, str | None]
#: How an answer holds a text.
Way = Callable[[str], Fault]
CODES = ("5001", "1006", "1008", "8512", "8513", "8521", "401", "6012")
STATUSES = (400, 401, 403, 404, 407, 408, 409, 413, 415, 422, 429, 500, 502, 503)


def _status(number: int) -> Way:
    return lambda text: faults.status(number, text.encode())


def _code(number: str) -> Way:
    return lambda text: faults.code(number, text)


def _packed(text: str) -> Fault:
    packed = gzip.compress(text.encode(), mtime=0)
    return faults.status(500, packed, Content_Encoding="gzip")


def _bad_chunk(text: str) -> Fault:
    head = "HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n"
    return faults.raw(f"{head}5\r\nabcde\r\n{text}\r\n".encode())


def _reason(text: str) -> Fault:
    return faults.raw(f"HTTP/1.1 500 {text}\r\nContent-Length: 0\r\n\r\n".encode())


#: Of any server of HTTP.
HTTP: dict[str, Way] = {
    **{f"status {number}": _status(number) for number in STATUSES},
    "a redirect to a path": lambda text: faults.redirect(f"/x/{text}"),
    "a redirect to a host": lambda text: faults.redirect(f"https://h.example/{text}"),
    "a redirect to a user": lambda text: faults.redirect(f"//{text}@h.example/"),
    "a redirect to no address": faults.redirect,
    "a challenge": lambda text: faults.status(401, b"", WWW_Authenticate=text),
    "a time to wait": lambda text: faults.status(429, b"", Retry_After=text),
    "an odd date": lambda text: faults.status(500, b"", Date=text),
    "a type": lambda text: faults.body(b"{}", f"text/{text}"),
    "a page": lambda text: faults.body(f"<html>{text}".encode(), "text/html"),
    "JSON of another": lambda text: faults.body(json.dumps({"error": text}).encode()),
    "a text": lambda text: faults.body(text.encode(), "text/plain"),
    "UTF-16": lambda text: faults.status(500, text.encode("utf-16")),
    "Latin-1": lambda text: faults.status(500, text.encode("latin-1", "replace")),
    "gzip": _packed,
    "an odd compression": lambda text: faults.status(500, b"", Content_Encoding=text),
    "a body that is cut": lambda text: faults.cut(text.encode(), 1_000_000),
    "a chunk that is none": _bad_chunk,
    "the reason": _reason,
    "no HTTP": lambda text: faults.raw(text.encode()),
    "a header that is none": lambda text: faults.raw(
        f"HTTP/1.1 200 OK\r\n{text}\r\n\r\n".encode()
    ),
    "an endless header": lambda text: faults.raw(
        f"HTTP/1.1 200 OK\r\nX: {text * 8}\r\n\r\n".encode()
    ),
}


def envelope(**members: object) -> Fault:
    return faults.body(json.dumps({"code": "0", **members}).encode())


#: Of EcoFlow's alone.
ECOFLOW: dict[str, Way] = {
    **{f"code {number}": _code(number) for number in CODES},
    "a code that is a text": lambda text: envelope(code=text, message="no"),
    "a trace": lambda text: envelope(code="1", message="no", eagleEyeTraceId=text),
    "a message that is a list": lambda text: envelope(code="1", message=[text]),
    "data of a refusal": lambda text: envelope(code="1", message=text, data=text),
    "data that are a text": lambda text: envelope(data=text),
    "data that are a list": lambda text: envelope(data=[text]),
    "data of another kind": lambda text: envelope(data={"url": text, "sn": text}),
}


def logged_in() -> Fault:
    return envelope(data={"user": {"userId": USER_ID}, "token": TOKEN})


def handing_out(text: str) -> Fault:
    """Refuse, and hand out another token all the same."""
    data = {"user": {"userId": USER_ID}, "token": FRESH_TOKEN}
    return envelope(code="5001", message=f"token {text} is not valid", data=data)


def certified(port: int) -> Fault:
    return envelope(
        data={
            "url": "127.0.0.1",
            "port": str(port),
            "protocol": "mqtt",
            "certificateAccount": BROKER_USER,
            "certificatePassword": BROKER_PASSWORD,
        }
    )


# -- places -------------------------------------------------------------------------


class Place(NamedTuple):
    """Who answers: `plant` lets it, and returns what has to be set for that.

    What its `ways` make is a fault, or a broker with its script.
    """

    ways: Mapping[str, Callable[[str], Any]]
    modes: tuple[tuple[str, ...], ...]
    plant: Callable[[Scene, Any], Changes]
    #: All that is set, or earned before the answer is read.
    secrets: Secrets = BASIC + KEYS
    #: Whether a run was there before, and left its login behind.
    is_second: bool = False


def of_cloud(part: str) -> Any:
    def plant(scene: Scene, fault: Fault) -> Changes:
        scene.cloud.fail(part, fault)
        return {}

    # Its own keys, so that the list is answered.
    return plant


KEYLESS: Changes = {
    "ECOFLOW_ACCESS_KEY": None,
    "ECOFLOW_SECRET_KEY": None,
    "ECOFLOW_ACCOUNT_USER": ACCOUNT_USER,
    "ECOFLOW_ACCOUNT_PASSWORD": ACCOUNT_PASSWORD,
    "MQTT_TIMEOUT": "1",
}


def by_account(scene: Scene, port: int = 0) -> Changes:
    """Let the app account be served, by a broker that is not there unless named."""
    scene.cloud.fail(LOGIN, logged_in())
    scene.cloud.fail(CERTIFICATION, certified(port or free_port()))
    scene.cloud.fail(APP_LIST, envelope(data={"bound": {DELTA.sn: {"online": 1}}}))
    return KEYLESS


def of_account(part: str) -> Any:
    def plant(scene: Scene, fault: Fault) -> Changes:
        scene.cloud.fail(part, fault)
        return by_account(scene)

    return plant


def of_kept_login(scene: Scene, fault: Fault) -> Changes:
    scene.cloud.fail(APP_LIST, fault)
    return by_account(scene, scene.broker.port)


def of_server(name: str, part: str = "", **settings: str | None) -> Any:
    def plant(scene: Scene, fault: Fault) -> Changes:
        scene.others[name].fail(part, fault)
        return settings

    return plant


def of_proxy(variable: str) -> Any:
    """Let a proxy answer: for sinks in their stead, for EcoFlow to CONNECT."""

    def plant(scene: Scene, fault: Fault) -> Changes:
        proxy = scene.others["proxy"]
        proxy.fail("", fault)
        pair = f"user:{quote(PROXY_PASSWORD, safe='')}"
        settings: dict[str, str | None] = {
            variable: proxy.url.replace("//", f"//{pair}@")
        }
        if variable == "HTTPS_PROXY":
            settings["ECOFLOW_API_HOST"] = "https://localhost:1"
        return settings

    return plant


def by_broker(scene: Scene, script: ScriptedBroker) -> Changes:
    """Let a broker play its script behind an account that is well."""
    broker = scene.stack.enter_context(script)
    return by_account(scene, broker.port)


def _saying(payload: Callable[[str], bytes]) -> Callable[[str], ScriptedBroker]:
    def script(text: str) -> ScriptedBroker:
        def then(broker: ScriptedBroker, connection: Connection, topic: str) -> None:
            for name in (f"{topic}_reply", f"/app/device/property/{DELTA.sn}", topic):
                broker.publish(connection, name, payload(text))

        return ScriptedBroker(then=then)

    return script


BROKER: dict[str, Any] = {
    **{f"CONNACK {n}": lambda _, n=n: ScriptedBroker(connack=n) for n in (1, 2, 4, 5)},
    "a reset": lambda _: ScriptedBroker(hangs_up=True),
    "a refused subscription": lambda _: ScriptedBroker(suback=128),
    "no subscription": lambda _: ScriptedBroker(suback=None),
    "a text": _saying(str.encode),
    "JSON of another": _saying(lambda text: json.dumps({"error": text}).encode()),
    "a refusal": _saying(
        lambda text: json.dumps({"code": "5001", "message": text}).encode()
    ),
    "half of JSON": _saying(lambda text: json.dumps({"params": text}).encode()[:-1]),
    "a frame": _saying(lambda text: b"\x0a" + bytes([100]) + text.encode()[:100]),
}

AUTH = {"handing out": handing_out}
ALL_WAYS = {**HTTP, **ECOFLOW}
LOOKS = (RUN, CHECK, DRY, TABLE)
ASKS = (RUN, CHECK)
PLACES: dict[str, Place] = {
    "EcoFlow's list": Place(ALL_WAYS, LOOKS, of_cloud(LIST)),
    "EcoFlow's quotas": Place(ALL_WAYS, LOOKS, of_cloud(QUOTA)),
    "the login": Place(ALL_WAYS, LOOKS, of_account(LOGIN), BASIC + ACCOUNT),
    "the certification": Place(
        ALL_WAYS, LOOKS, of_account(CERTIFICATION), BASIC + LOGGED_IN
    ),
    "a login that is refused with a token": Place(
        AUTH, LOOKS, of_account(LOGIN), BASIC + LOGGED_IN + FRESH
    ),
    "a certification that is refused with a token": Place(
        AUTH, LOOKS, of_account(CERTIFICATION), BASIC + LOGGED_IN + FRESH
    ),
    "the app's list": Place(ALL_WAYS, LOOKS, of_account(APP_LIST), BASIC + CERTIFIED),
    "the app's list, with a kept login": Place(
        *(ALL_WAYS, ASKS, of_kept_login, BASIC + CERTIFIED), is_second=True
    ),
    "the broker": Place(BROKER, (RUN, CHECK, TABLE), by_broker, BASIC + CERTIFIED),
    "the gateway": Place(HTTP, ASKS, of_server("gateway")),
    "the gateway, with a token": Place(
        HTTP,
        ASKS,
        of_server("gateway", PUSHGATEWAY_BEARER_TOKEN=GATEWAY_TOKEN),
        OF_SINKS + KEYS + Secrets((GATEWAY_TOKEN,)),
    ),
    "the receiver": Place(HTTP, ASKS, of_server("receiver")),
    "the receiver, of version 2": Place(
        HTTP, ASKS, of_server("receiver", REMOTE_WRITE_VERSION="2")
    ),
    "the monitor": Place(HTTP, ASKS, of_server("monitor")),
    "a proxy of the sinks": Place(
        HTTP, ASKS, of_proxy("HTTP_PROXY"), BASIC + KEYS + OF_PROXY
    ),
    "a proxy of EcoFlow": Place(
        HTTP, (RUN, CHECK, TABLE), of_proxy("HTTPS_PROXY"), BASIC + KEYS + OF_PROXY
    ),
}


def watched(fault: Fault, reached: list[str]) -> Fault:
    """Return the same fault, which tells that it was met."""

    def met(handler: Handler) -> None:
        reached.append(handler.current.path)
        fault(handler)

    return met
