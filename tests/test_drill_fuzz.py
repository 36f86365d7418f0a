"""Cases by the thousand at the borders: none of them raises, invents or breaks a thing.

`FUZZ_ONLY=KIND:FILE` runs the bytes of one case again, which a failure leaves there.
"""

from __future__ import annotations

import http.client
import json
import logging
import math
import os
import random
import shutil
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from ecoflow_push.api.account import Account
from ecoflow_push.api.broker import Broker
from ecoflow_push.api.developer import DeveloperApi
from ecoflow_push.api.models import DeviceInfo, Room, Snapshot
from ecoflow_push.api.visit import Visit
from ecoflow_push.config.env_file import over_files
from ecoflow_push.config.settings import Settings
from ecoflow_push.devices.metrics import metrics
from ecoflow_push.devices.normalized import normalized_samples
from ecoflow_push.errors import (
    EcoflowApiException,
    SettingsError,
    Unreachable,
    WriteError,
)
from ecoflow_push.memory.entry import Entry, entry_named, framed, unframed
from ecoflow_push.memory.login import Certification, LoginFile
from ecoflow_push.memory.notes import Notes
from ecoflow_push.memory.state import State
from ecoflow_push.metrics.exposition import text_of
from ecoflow_push.metrics.labels import Labels
from ecoflow_push.metrics.names import raw_samples
from ecoflow_push.metrics.own import RESERVED_NAMES
from ecoflow_push.metrics.record import LabelSet, Record, record_of
from ecoflow_push.metrics.registry import DeviceFacts, device_registry, part_of
from ecoflow_push.metrics.shapes import SHAPES
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.net.reply import Reply, read_body
from ecoflow_push.net.retry import Patience
from ecoflow_push.net.sockets import WithoutHints
from ecoflow_push.net.trust import Trust
from ecoflow_push.sinks.endpoint import RemoteWriteSink
from ecoflow_push.sinks.groups import Gateway, groups_in
from ecoflow_push.sinks.server import Connection, Server
from ecoflow_push.sinks.wire import ENCODERS, split
from tests.fuzz import (
    WATCHED,
    Canned,
    Case,
    Kind,
    Pipe,
    Sampled,
    Wire,
    forget_secrets,
    packets,
    reply_of,
)
from tests.hostile import groups
from tests.images import place_in_memory
from tests.receiver import decode
from tests.support import parse
from tests.test_normalized import GOLDEN
from tests.test_protobuf_hostile import GOOD

CASES = 4_000
DRILL_CASES = 1_000_000
LABELS = Labels("ecoflow", "fuzz", "ecoflow", {})
NOW_MS = 1_700_000_000_000
#: How many came so far: cases that fail at once prove little.
JUDGED: Counter[str] = Counter()
SN = "R331ZFAKE0000001"
SERVER = Server("REMOTE_WRITE", "http://127.0.0.1:1/w")
# Where a case goes that is to be looked at by the real gateway, and what brokers say.
GATEWAY: list[Sampled] = []
PIPES: list[Pipe] = []


def slices() -> Iterator[tuple[str, bytes]]:
    """Yield each device's map, whole, and in parts that are soon parsed."""
    for golden in GOLDEN.values():
        quotas = list(golden["quotas"].items())
        parts = [dict(quotas[at : at + 24]) for at in range(0, len(quotas), 24)]
        for part in [dict(quotas), *parts[:6]]:
            yield golden["sn"], json.dumps(part).encode()


MAPS = list(slices())


def numbers_in(value: object) -> Iterator[float]:
    """Yield all numbers of a map."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers_in(inner)
    elif isinstance(value, (int, float)):
        try:
            yield float(value)
        except OverflowError:
            yield math.inf


def judge(snapshot: Snapshot) -> None:
    """Take a snapshot down the road, and let the official parsers read what comes."""
    JUDGED["snapshots"] += 1
    quotas, sn = snapshot.quotas, snapshot.sn
    raw, skipped = raw_samples(quotas, "ecoflow", RESERVED_NAMES)
    assert all(count > 0 for count in skipped.values())
    assert {value for _, _, value in raw} <= set(numbers_in(dict(quotas)))
    base, _ = normalized_samples(quotas, sn, "", "ecoflow", at=snapshot.collected_at)
    for name, _, value in base:
        metric = metrics()[name.removeprefix("ecoflow_")]
        assert metric.low <= value <= metric.high
    facts = DeviceFacts(sn, "Garage", "", snapshot_at=snapshot.collected_at)
    # At the third time by a plan.
    (part, counts), *others = [
        SHAPES.part(quotas, "ecoflow", "ecoflow") for _ in range(3)
    ]
    assert all(other == (part, counts) for other in others)
    assert (part, counts) == (part_of(raw, "ecoflow"), skipped)
    registry = device_registry(LABELS, facts, [part, part_of(base, "ecoflow")])
    record = record_of(registry, {"job": "ecoflow"}, NOW_MS)
    text = text_of(registry)
    assert text == generate_latest(registry)
    read = parse(text.decode())
    assert len(read) == record.size == len(raw) + len(base) + 2
    assert sorted(read.values()) == sorted(record.values)
    written(record)
    for each in GATEWAY:
        each.take(lambda: text)


def written(record: Record) -> None:
    """See that the message of a record is one, and says the same, in both versions."""
    for version, encode in ENCODERS.items():
        for part in split(record, 2000):
            JUDGED["messages"] += 1
            samples, _, _ = decode(version, encode([part]))
            assert len(samples) == part.size
            assert {s.timestamp_ms for s in samples} <= {record.time_ms}
            values = [repr(s.value) for s in samples if not s.is_stale]
            assert sorted(values) == sorted(map(repr, part.values))


# -- the kinds of cases ---------------------------------------------------------------


def rest(case: Case) -> None:
    answer = Canned(Reply(200, {"Content-Type": "application/json"}, case.data))
    api = DeveloperApi("http://x", "key", "secret", answer, Patience(1, 0.0))
    try:
        snapshot = api.quotas(case.rng.choice(MAPS)[0], Deadline(5))
    except EcoflowApiException:
        return
    judge(snapshot)


def device_list(case: Case) -> None:
    answer = Canned(Reply(200, {}, case.data))
    api = DeveloperApi("http://x", "key", "secret", answer, Patience(1, 0.0))
    try:
        devices = api.devices(Deadline(5))
    except EcoflowApiException:
        return
    look_at(devices)


def look_at(devices: list[DeviceInfo]) -> None:
    JUDGED["device lists"] += 1
    assert len({device.sn for device in devices}) == len(devices)
    for text in (text for each in devices for text in (each.name, each.product_name)):
        assert len(text) <= 256
        assert len(text.splitlines()) <= 1
        assert "\0" not in text
        text.encode()


def account(case: Case) -> None:
    """An account whose answers are odd: to the login, of the broker, of devices."""
    good = {
        "login": b'{"code":"0","data":{"token":"tok","user":{"userId":"17"}}}',
        "certification": b'{"code":"0","data":{"url":"mqtt-e.ecoflow.com","port":8883,'
        b'"certificateAccount":"a","certificatePassword":"b","protocol":"mqtts"}}',
        "device": LISTED,
    }
    for name, body in good.items():
        if f'"{name}"'.encode() == case.data[: len(name) + 2]:
            good[name] = case.data[len(name) + 2 :]
        else:
            good[name] = body
    where = "https://api.ecoflow.com"
    user = Account(where, "u", "p", path=None, patience=Patience(1, 0.0))
    replies = {name: Reply(200, {}, body) for name, body in good.items()}
    user._opened = Canned(**replies)
    try:
        devices, _ = user.devices(Deadline(5))
        found = user.certification(Deadline(5))
    except EcoflowApiException:
        return
    JUDGED["accounts"] += 1
    assert found.is_usable()
    assert found.tls
    assert found.host.endswith(".ecoflow.com")
    assert 0 < found.port < 65536
    look_at(devices)


def message(case: Case) -> None:
    sn = case.rng.choice(SERIALS)
    visit = Visit(DeviceInfo(sn), "1", Room())
    visit.requests()
    for data in case.data.split(b"\n--\n"):
        visit.hear(case.rng.choice(visit.topics), data)
    reading = visit.reading("mqtt", 9.0, is_late=False)
    if reading.snapshot:
        judge(reading.snapshot)


def broker(case: Case) -> None:
    """Packets of a broker that is none."""
    (pipe,) = PIPES
    pipe.says = case.data
    connection = Broker(Trust())
    visit = Visit(DeviceInfo(SN), "1", Room())
    limit = Deadline(20)
    found = Certification("1", "t", "127.0.0.1", pipe.port, "u", "p", False, 0.0)
    try:
        connection.connect(found, "id", limit)
        codes = connection.subscribe(visit.topics, limit)
        assert all(0 <= code < 256 for code in codes)
        JUDGED["subscriptions"] += 1
        while True:
            for topic, payload in connection.listen(limit):
                JUDGED["packets"] += 1
                if topic in visit.topics:
                    visit.hear(topic, payload)
    except EcoflowApiException:
        pass
    finally:
        connection.close()
    if reading := visit.reading("mqtt", 9.0, is_late=False).snapshot:
        judge(reading)


def raw_http(case: Case) -> None:
    wire: Any = Wire(case.data)
    response = WithoutHints(wire)
    # What Transport takes for an answer that is none.
    try:
        response.begin()
        read_body(response.read, [], 1 << 20)
        JUDGED["answers"] += 1
    except (Unreachable, OSError, http.client.HTTPException, ValueError, LookupError):
        pass
    finally:
        response.close()


def headers(case: Case) -> None:
    reply = reply_of(case.data)
    asked = reply.retry_after()
    assert asked is None or asked >= 0
    reply.clock_offset(time.time())
    reply.is_page()
    assert reply.words().isascii()
    assert reply.leads_to().isascii()
    assert len(reply.content(4096)) <= 4096


def remote_write(case: Case) -> None:
    """An answer to what was written, whatever it may be."""
    reply = reply_of(case.data)
    sink = RemoteWriteSink(
        SERVER, version=case.rng.choice(["1", "2", "auto"]), attempts=1, longest_wait=0
    )
    sink._connection._transport._exchange = Canned(reply)
    sink.is_proven = case.rng.random() < 0.5
    for ask in (sink.prove, lambda deadline: sink.write([RECORD], deadline)):
        error = None
        try:
            ask(Deadline(5))
        except WriteError as exc:
            error = exc
        if error:
            assert 0 <= error.accepted <= RECORD.size
            assert error.retry_after >= 0
            assert str(error).isascii()
        else:
            assert ask == sink.prove or 200 <= reply.status < 300
            JUDGED["taken"] += 1


def pushgateway(case: Case) -> None:
    connection = Connection(SERVER, attempts=1, longest_wait=0)
    connection._transport._exchange = Canned(reply_of(case.data))
    gateway = Gateway(connection)
    group = {"job": "ecoflow", "device": "D1"}
    for ask in (gateway.has_group, gateway.delete):
        with suppress(WriteError):
            ask(group, Deadline(5))


def gateway_list(case: Case) -> None:
    try:
        found = list(groups_in(case.data))
    except (ValueError, RecursionError):
        return
    JUDGED["group lists"] += 1
    assert all(isinstance(value, str) for each in found for value in each.values())


def record(case: Case) -> None:
    """A record whose checksum is right: what is believed can be written."""
    try:
        found = Record.from_bytes(unframed(framed(case.data)))
    except ValueError:
        return
    JUDGED["records"] += 1
    assert found.size == len(found.names) + len(found.ended)
    assert Record.from_bytes(found.to_bytes()).to_bytes() == found.to_bytes()
    found.ending(RECORD.keys()).only("a")
    written(found)


def record_file(case: Case) -> None:
    """A file of the spool, and its name: damage is told, a foreign name left alone."""
    with suppress(ValueError):
        assert unframed(case.data) == RECORD.to_bytes()
    name = case.data[-40:].decode("utf-8", "surrogateescape")
    if entry := entry_named(name):
        assert Entry(entry.time_ms, entry.samples, entry.device).name == name


def summed(data: bytes) -> bytes:
    """Return what a file of ours would be, whose content is this."""
    return b'%b, "crc": %d}' % (data[:-1], zlib.crc32(data))


def state(case: Case) -> None:
    """A state file, whose checksum may be right."""
    (case.folder / "state.json").write_bytes(
        summed(case.data) if case.rng.random() < 0.7 else case.data
    )
    with State.open(str(case.folder)) as found:
        JUDGED["states"] += bool(found.devices)
        counts = [found.runs, *found.dropped.values(), *found.failures.values()]
        for each in found.endpoints.values():
            counts += [each.samples, each.size, each.aside, each.failing_runs]
            counts += [n for q in each.queues.values() for n in q.row()[:6]]  # type: ignore[misc]
        assert all(0 <= count <= 10**15 for count in counts)
        is_ours = not found.trouble
        found.pause_for("rest", time.time())
        found.refused_for("x", time.time())
        found.use_gateway("http://g")
        found.use_endpoint("spool-0123456789ab")
        found.endpoint.pause_for(time.time())
        found.save()
    with State.open(str(case.folder)) as again:
        assert not is_ours or again.devices.keys() == found.devices.keys()


def login(case: Case) -> None:
    path = case.folder / "login.json"
    path.write_bytes(summed(case.data) if case.rng.random() < 0.7 else case.data)
    path.chmod(0o600)
    kept = LoginFile(str(path), "host", "user", "p")
    kept.load()
    JUDGED["logins"] += kept.login is not None
    assert kept.login is None or kept.login.is_usable()
    assert kept.certification is None or kept.certification.is_usable()
    # What a refused password costs on purpose, it costs a few of these.
    if case.rng.random() < 0.02:
        assert 0 <= kept.refused_for() <= 3600
    kept.save()


def notes(case: Case) -> None:
    text = case.data.partition(b"\n")[0]
    (case.folder / "notes").write_bytes(b"%08x %b\n" % (zlib.crc32(text), text))
    found = Notes(str(case.folder))
    found.open()
    assert all(count >= 0 for count in found.dropped.values())
    assert found.replayed_until("spool-0123456789ab", 3) >= 0
    found.begin_replay("spool-0123456789ab", 4, 5)
    JUDGED["notes"] += bool(found.dropped)


def settings(case: Case) -> None:
    """Variables, one of which is odd; the name is what stands before the first =."""
    name, _, value = case.data.decode("utf-8", "surrogateescape").partition("=")
    if "\0" in name + value or not name:
        return
    lines = {**VARIABLES, name: value}
    with suppress(SettingsError):
        Settings.from_environ({**lines, "STATE_DIR": str(case.folder)})
        JUDGED["settings"] += 1


def env_file(case: Case) -> None:
    path = case.folder / "env"
    path.write_bytes(case.data)
    try:
        found = over_files([str(path)], {"STATE_DIR": str(case.folder)})
    except SettingsError:
        return
    JUDGED["env files"] += 1
    with suppress(SettingsError):
        Settings.from_environ(found)


# -- what they begin with -------------------------------------------------------------

LABELLED: list[LabelSet] = [(("device", SN), ("job", "j"))]
RECORD = Record(
    *(NOW_MS, LABELLED, (("gauge", "h"),), ("a", "b")),
    *((0, 0), (0, 0), [1.0, 2.5], [("c", 0)]),
)
SERIALS = sorted({sn for sn, _ in MAPS} | {sn for sn, _ in GOOD})
VARIABLES = {
    "ECOFLOW_ACCESS_KEY": "k" * 32,
    "ECOFLOW_SECRET_KEY": "s" * 32,
    "ECOFLOW_DEVICE_SN": "R331ZFAKE1,R331ZFAKE2",
    "ECOFLOW_DEVICE_NAME": "R331ZFAKE1=Garage",
    "ECOFLOW_API_HOST": "api-e.ecoflow.com",
    "PUSHGATEWAY_URL": "http://localhost:9091/x",
    "REMOTE_WRITE_URL": "https://u:p@localhost:9090/api/v1/write?a=b",
    "REMOTE_WRITE_HEADERS": "X-Scope-OrgID: tenant",
    "REMOTE_WRITE_VERSION": "auto",
    "REMOTE_WRITE_MAX_SAMPLES": "2000",
    "EXTRA_LABELS": "site=home,owner=me",
    "RUN_DEADLINE": "50",
    "SPOOL_MAX_AGE": "1h",
    "SPOOL_MAX_BYTES": "200000000",
    "METRICS_SET": "raw,normalized",
    "METRICS_PREFIX": "ecoflow",
    "HEALTHCHECK_URL": "https://hc-ping.com/x",
    "HTTPS_PROXY": "http://u:p@proxy:3128",
    "NO_PROXY": "localhost,.example,10.0.0.0/8",
    "STALE_AFTER": "300",
}
LISTED = (
    b'{"code":"0","data":{"bound":{"R331ZFAKE1":{"deviceName":"Garage","productName":'
    b'"DELTA 2","online":1}},"share":[{"sn":"BK11ZFAKE2","deviceName":"S"}]}}'
)
ROW = '{"sn":"R331ZFAKE%d","deviceName":"Garage","productName":"DELTA","online":1}'
NAMES = f'{{"version": 1, "bound": ["host", "user"], "names": {{"{SN}": {{"name": "G"'
ENVELOPE = b'{"code":"0","message":"Success","data":%b}'
MAPPED = [quotas for _, quotas in MAPS]
ANSWERS = [
    b"200\nDate: Wed, 21 Oct 2026 07:28:00 GMT\nAge: 12\n\n",
    b"204\nX-Prometheus-Remote-Write-Samples-Written: 3\n\n",
    b"429\nRetry-After: 120\n\ntoo many requests",
    b"503\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT\n\n",
    b"400\nContent-Type: text/plain; charset=utf-8\n\nout of order sample",
    b"200\nContent-Type: text/html\n\n<!DOCTYPE html><p>log in",
    b"302\nLocation: https://u:p@example.org/a;s=1?b#c\n\n",
    b"413\nContent-Encoding: gzip\n\n" + zlib.compress(b"too large" * 9, wbits=31),
    b"500\nContent-Encoding: deflate, gzip\n\n" + zlib.compress(b"out of bounds"),
    b"401\n\nno", b"415\n\nunsupported proto", b"422\n\n\xff\xfeo\0u\0t\0",
]  # fmt: skip
FIELDS = {
    "devices": {SN: {"name": "G", "digest": "x", "held_at": 5.0, "missing": 2}},
    "runs": 7,
    "dropped": {"age": 3},
    "pause_until": {"rest": time.time() + 60},
    "endpoints": [
        {"name": "spool-0123456789ab", "version": "2", "stamp": "1 2", "samples": 3}
        | {"queues": {SN: [1, 0, 0, 0, 5, 5, "a", "b", ""]}, "pause_until": 1.7e9}
    ],
    "refusals": 2,
    "refused_at": 1.7e9,
}
EARNED = {
    "bound": ["host", "user"],
    "login": ["17", "tok", time.time()],
    "certification": [
        *("17", "tok", "mqtt.ecoflow.com", 8883, "a", "b", True, time.time())
    ],
    "names": {SN: {"name": "G", "product_name": "DELTA 2"}},
    "refused": {"salt": "00", "hash": "11", "at": time.time()},
    "listed_at": time.time(),
}


def as_json(fields: object) -> bytes:
    return json.dumps({"version": 1, **dict(fields)}).encode()  # type: ignore[call-overload]


def kinds() -> list[Kind]:
    """Return all of them, whose corpora are as they begin."""
    rows = ",".join(ROW % n for n in range(3))
    told = [b'{"params":%b}', b'{"data":{"online":1,"quotaMap":%b}}']
    told = [form % quotas for form in told for quotas in MAPPED] + [m for _, m in GOOD]
    topic = f"/app/device/property/{SN}".encode()
    named = [f"{name}={value}".encode() for name, value in VARIABLES.items()]
    quoted = "".join(f"{k}='{v}'\n" for k, v in VARIABLES.items()).encode()
    plain = "\ufeff# all\r\nexport " + "\n".join(
        f"{k}={v}" for k, v in VARIABLES.items()
    )
    http = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nDate: x\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n0\r\n\n",
        b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.0 204 No\r\n\r\n",
    ]
    named_broker = (
        b'{"code":"0","data":{"url":"mqtt-e.ecoflow.com","port":"8883","protocol":'
        b'"mqtts","certificateAccount":"a","certificatePassword":"b"}}'
    )
    accounts = [
        b'"login"{"code":"0","data":{"token":"tok","user":{"userId":17}}}',
        b'"certification"' + named_broker,
        b'"device"' + LISTED,
    ]
    record_seeds = [RECORD.to_bytes(), json.dumps(RECORD._replace(ended=[])).encode()]
    file_seeds = [framed(RECORD.to_bytes()), b"001764057600123.312." + SN.encode()]
    list_seeds = [f'{{"code":"0","data":[{rows}]}}'.encode()]
    group_seeds = [b'{"data":[{"labels":%b}]}' % x for x in (b'{"job":"a"}', b"[]")]
    # How often each comes: the dear ones seldom, but what is heard of devices.
    found = [
        (4, Kind(record, record_seeds)),
        (3, Kind(headers, ANSWERS[:])),
        (3, Kind(raw_http, http)),
        (3, Kind(message, told)),
        (3, Kind(record_file, file_seeds)),
        (3, Kind(device_list, list_seeds)),
        (3, Kind(gateway_list, [groups(2), *group_seeds])),
        (3, Kind(account, accounts)),
        (2, Kind(notes, [b'[{"age":3},"spool-0123456789ab",5,3]'])),
        (2, Kind(remote_write, ANSWERS[:])),
        (2, Kind(pushgateway, [*ANSWERS, b"200\n\n" + groups(1)])),
        (2, Kind(state, [as_json(FIELDS)])),
        (2, Kind(rest, [ENVELOPE % quotas for quotas in MAPPED])),
        (1, Kind(login, [as_json(EARNED)])),
        (1, Kind(settings, named)),
        (1, Kind(env_file, [quoted, plain.encode()])),
        (1, Kind(broker, [packets(topic, each) for each in told[::9]])),
    ]
    return [kind for times, kind in found for _ in range(times)]


@pytest.fixture
def place(standing_gateway, drill, tmp_path) -> Iterator[Path]:
    """A folder in memory; a real gateway for one in a hundred, and a broker."""
    standing_gateway.wipe()
    every = 100 if drill.is_full else 50
    # A million of lines would be kept to be shown.
    logging.disable()
    with Pipe() as pipe, place_in_memory(tmp_path) as made:
        GATEWAY[:], PIPES[:] = [Sampled(standing_gateway.url, every)], [pipe]
        yield made
        for each in GATEWAY:
            print(f"a real Pushgateway took {each.taken}")
            each.close()
        GATEWAY[:], PIPES[:] = [], []
    logging.disable(logging.NOTSET)
    standing_gateway.wipe()


@pytest.mark.drill("fuzz")
@pytest.mark.case(
    "N13", "M6", "M11", "D1", "D3", "D6", "D7", "D9", "D15", "D16", "S14", "K15"
)
def test_drill_fuzz(tmp_path, drill, place):
    """No case raises what is not documented, and no value comes from nowhere."""
    cases, only = drill.size(CASES, DRILL_CASES), os.environ.get("FUZZ_ONLY")
    JUDGED.clear()
    all_kinds = kinds()
    if only:
        name, _, file = only.partition(":")
        data = Path(file).read_bytes()
        kind = next(kind for kind in all_kinds if kind.name == name)
        for number in range(200):
            kind.run(Case(data, random.Random(number), folder_for(place)))
        return
    begun = time.monotonic()
    for number in range(cases):
        kind = all_kinds[number % len(all_kinds)]
        rng = random.Random(f"{drill.seed} {number}")
        case = Case(kind.data(rng), rng, folder_for(place))
        if number % 50 == 0:
            forget_secrets()
        is_watched = drill.is_full and number // len(all_kinds) % WATCHED == 0
        try:
            (kind.watch if is_watched else kind.run)(case)
        except Exception as exc:
            left = tmp_path / "case"
            left.write_bytes(case.data)
            again = (
                f"DRILL_SEED={drill.seed} case {number}: FUZZ_ONLY={kind.name}:{left}"
            )
            raise AssertionError(again) from exc
    grown = {k.name: (len(k.reached), len(k.seeds)) for k in all_kinds if k.reached}
    print(f"{cases} cases in {time.monotonic() - begun:.0f} s: {dict(JUDGED)}")
    print(f"lines that were reached, and seeds: {grown}" if grown else "")
    assert JUDGED["snapshots"] > cases / 25


def folder_for(place: Path) -> Path:
    """Return a folder in which there is nothing."""
    for path in place.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return place
