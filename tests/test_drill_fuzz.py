"""Cases by the thousand at the borders: none of them raises, invents or breaks a thing.

A case is made by the seed and its number alone: `FUZZ_ONLY=4711` runs that one.
"""

from __future__ import annotations

import http.client
import io
import json
import math
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from ecoflow_push.api.developer import DeveloperApi
from ecoflow_push.api.models import DeviceInfo, Room, Snapshot
from ecoflow_push.api.visit import Visit
from ecoflow_push.config.env_file import over_files
from ecoflow_push.config.settings import Settings
from ecoflow_push.devices.metrics import metrics
from ecoflow_push.devices.normalized import normalized_samples
from ecoflow_push.errors import EcoflowApiException, SettingsError, Unreachable
from ecoflow_push.memory.files import NewerFile, read_json
from ecoflow_push.metrics.labels import Labels
from ecoflow_push.metrics.names import raw_samples
from ecoflow_push.metrics.own import RESERVED_NAMES
from ecoflow_push.metrics.record import LabelSet, Record, record_of
from ecoflow_push.metrics.registry import DeviceFacts, device_registry
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.net.reply import Reply, Request, read_body
from ecoflow_push.net.retry import Patience
from ecoflow_push.net.sockets import WithoutHints
from ecoflow_push.sinks.groups import groups_in
from ecoflow_push.sinks.wire import ENCODERS
from tests.hostile import groups
from tests.receiver import decode
from tests.support import parse
from tests.test_normalized import GOLDEN
from tests.test_protobuf_hostile import GOOD

CASES = 20_000
DRILL_CASES = 1_000_000
# Of those that come to values, one in so many goes through the slow parsers.
PARSED = 25
LABELS = Labels("ecoflow", "fuzz", "ecoflow", {})
#: How many came so far: cases that fail at once prove little.
JUDGED: Counter[str] = Counter()
MAPS = [
    (golden["sn"], json.dumps(golden["quotas"]).encode()) for golden in GOLDEN.values()
]
TOKENS = (
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\0", b"\xff", b"\xef\xbb\xbf"),
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-0", b"9" * 5000, b"0.1"),
    *(b'"a":', b'"online":0,', b'"\\ud800"', b'"__name__":1,', b'"pd.soc":1,', b"[[["),
    *(b"\r\n", b"\r\n\r\n", b"0\r\n", b": ", b"HTTP/1.1 ", b" 100 ", b"-1", b"chunked"),
    *(
        b"\x1f\x8b",
        b"%",
        b"=",
        b"$",
        b"'",
        b"#",
        "\U0001f600".encode(),
        b"\xe2\x80\xa8",
    ),
)


class Canned:
    """An exchange whose answer is there already."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def __call__(self, request: Request, seconds: float) -> Reply:
        return self._reply

    def close(self) -> None:
        pass


class Wire:
    """What http.client needs of a socket, to read bytes that are there already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes after a few accidents."""
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 3, 8))):
        place = rng.randrange(len(data) + 1)
        end = min(len(data), place + rng.choice((1, 1, 2, 8, 64)))
        kind = rng.randrange(6)
        if kind == 0:
            data = data[:place] + rng.choice(TOKENS) + data[place:]
        elif kind == 1:
            data = data[:place] + data[end:]
        elif kind == 2:
            data = data[:place] + rng.choice(TOKENS) + data[end:]
        elif kind == 3:
            data = data[:end] + data[place:]
        elif kind == 4:
            data = data[:place] + rng.randbytes(end - place) + data[end:]
        else:
            data = data[:place] if rng.random() < 0.2 else data[place:] + data[:place]
    return data


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


def judge(snapshot: Snapshot, rng: random.Random) -> None:
    """Take a snapshot down the road, and look at what comes out."""
    JUDGED["snapshots"] += 1
    quotas, sn = snapshot.quotas, snapshot.sn
    raw, skipped = raw_samples(quotas, "ecoflow", RESERVED_NAMES)
    assert all(count > 0 for count in skipped.values())
    assert {sample.value for sample in raw} <= set(numbers_in(dict(quotas)))
    base, _ = normalized_samples(quotas, sn, "", "ecoflow", at=snapshot.collected_at)
    for sample in base:
        metric = metrics()[sample.name.removeprefix("ecoflow_")]
        assert metric.low <= sample.value <= metric.high
    if rng.randrange(PARSED):
        return
    JUDGED["expositions"] += 1
    facts = DeviceFacts(sn, "Garage", "", snapshot_at=snapshot.collected_at)
    registry = device_registry(LABELS, facts, [*raw, *base])
    record = record_of(registry, {"job": "ecoflow"}, 1_700_000_000_000)
    text = parse(generate_latest(registry).decode())
    assert len(text) == record.size == len(raw) + len(base) + 2
    assert sorted(text.values()) == sorted(record.values)
    for version, encode in ENCODERS.items():
        samples, _, _ = decode(version, encode([record]))
        assert sorted(s.value for s in samples) == sorted(record.values)


# -- the kinds of cases ---------------------------------------------------------------


def rest(rng: random.Random, folder: Path) -> None:
    sn, quotas = rng.choice(MAPS)
    body = mutated(b'{"code":"0","message":"Success","data":' + quotas + b"}", rng)
    reply = Reply(200, {"Content-Type": "application/json"}, body)
    api = DeveloperApi("http://x", "key", "secret", Canned(reply), Patience(1, 0.0))
    try:
        judge(api.quotas(sn, Deadline(5)), rng)
    except EcoflowApiException:
        return


def device_list(rng: random.Random, folder: Path) -> None:
    row = '{"sn":"R331ZFAKE%d","deviceName":"Garage","productName":"DELTA","online":1}'
    rows = ",".join(row % n for n in range(3))
    body = mutated(f'{{"code":"0","data":[{rows}]}}'.encode(), rng)
    api = DeveloperApi(
        "http://x", "key", "secret", Canned(Reply(200, {}, body)), Patience(1, 0.0)
    )
    try:
        devices = api.devices(Deadline(5))
    except EcoflowApiException:
        return
    assert len({device.sn for device in devices}) == len(devices)
    assert all(len(device.name.splitlines()) <= 1 for device in devices)
    assert all(
        len(device.name) <= 256 and "\0" not in device.name for device in devices
    )


def mqtt(rng: random.Random, folder: Path) -> None:
    if rng.random() < 0.5:
        sn, quotas = rng.choice(MAPS)
        payload = rng.choice((b'{"params":%b}', b'{"data":{"online":1,"quotaMap":%b}}'))
        payload %= quotas
    else:
        sn, payload = rng.choice(GOOD)
    visit = Visit(DeviceInfo(sn), "1", Room())
    visit.requests()
    for _ in range(rng.choice((1, 2))):
        visit.hear(rng.choice(visit.topics), mutated(payload, rng))
    reading = visit.reading("mqtt", 9.0, is_late=False)
    if reading.snapshot:
        judge(reading.snapshot, rng)


def raw_http(rng: random.Random, folder: Path) -> None:
    data = rng.choice(
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nDate: x\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n0\r\n\n",
            b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.0 204 No\r\n\r\n",
        )
    )
    wire: Any = Wire(mutated(data, rng))
    response = WithoutHints(wire)
    # What Transport takes for an answer that is none.
    try:
        response.begin()
        read_body(response.read, [], 1 << 20)
    except (Unreachable, OSError, http.client.HTTPException, ValueError, LookupError):
        pass
    finally:
        response.close()


def headers(rng: random.Random, folder: Path) -> None:
    given = {
        "Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT" if rng.random() < 0.5 else "120",
        "Date": "Wed, 21 Oct 2026 07:28:00 GMT",
        "Age": "12",
        "Content-Type": "text/html; charset=utf-8",
        "Content-Encoding": rng.choice(("gzip", "deflate", "identity", "gzip, gzip")),
    }
    odd = {k: mutated(v.encode(), rng).decode("latin-1") for k, v in given.items()}
    body = mutated(b"<!DOCTYPE html><p>out of order sample", rng)
    reply = Reply(200, odd, body)
    asked = reply.retry_after()
    assert asked is None or asked >= 0
    reply.clock_offset(time.time())
    reply.is_page()
    assert reply.words().isascii()


def stored(rng: random.Random, folder: Path) -> None:
    labels: list[LabelSet] = [(("job", "j"),)]
    kinds = [("gauge", "h")]
    record = Record(
        1, labels, kinds, ["a", "b"], [0, 0], [0, 0], [1.0, 2.5], [("c", 0)]
    )
    try:
        found = Record.from_bytes(mutated(record.to_bytes(), rng))
    except ValueError:
        return
    assert found.size == len(found.names) + len(found.ended)


def state(rng: random.Random, folder: Path) -> None:
    path = folder / "state.json"
    fields = {"devices": {"R331ZFAKE1": {"name": "G", "digest": "x"}}, "runs": 7}
    path.write_bytes(mutated(json.dumps({"version": 1, **fields}).encode(), rng))
    with suppress(NewerFile):
        read_json(str(path), 1, "totals", looks=True)


def settings(rng: random.Random, folder: Path) -> None:
    lines = {
        "ECOFLOW_DEVICE_SN": "R331ZFAKE1,R331ZFAKE2",
        "PUSHGATEWAY_URL": "http://localhost:9091/x",
        "REMOTE_WRITE_VERSION": "auto",
        "EXTRA_LABELS": "site=home,owner=me",
        "RUN_DEADLINE": "50",
        "SPOOL_MAX_AGE": "1h",
        "METRICS_SET": "raw,normalized",
        "ECOFLOW_DEVICE_NAME": "R331ZFAKE1=Garage",
    }
    name = rng.choice(list(lines))
    lines[name] = mutated(lines[name].encode(), rng).decode("utf-8", "replace")
    keys = {"ECOFLOW_ACCESS_KEY": "k" * 32, "ECOFLOW_SECRET_KEY": "s" * 32}
    try:
        Settings.from_environ({**keys, "STATE_DIR": str(folder), **lines})
        text = "".join(f"{key}='{value}'\n" for key, value in lines.items())
        path = folder / "env"
        path.write_bytes(mutated(text.encode("utf-8", "replace"), rng))
        over_files([str(path)], {})
    except SettingsError:
        return


def gateway_list(rng: random.Random, folder: Path) -> None:
    try:
        found = list(groups_in(mutated(groups(2), rng)))
    except (ValueError, RecursionError):
        return
    assert all(isinstance(value, str) for each in found for value in each.values())


KINDS: list[Callable[[random.Random, Path], None]] = [
    *(rest, mqtt, raw_http, headers, stored, device_list, gateway_list),
    *(rest, mqtt, state, settings),
]


@pytest.mark.drill("fuzz")
def test_drill_fuzz(tmp_path, drill):
    """No case raises what is not documented, and no value comes from nowhere."""
    cases = drill.size(CASES, DRILL_CASES)
    only = os.environ.get("FUZZ_ONLY")
    JUDGED.clear()
    for number in [int(only)] if only else range(cases):
        kind = KINDS[number % len(KINDS)]
        try:
            kind(random.Random(f"{drill.seed} {number}"), tmp_path)
        except Exception as exc:
            again = f"DRILL_SEED={drill.seed} FUZZ_ONLY={number}"
            raise AssertionError(f"{kind.__name__}: again by {again}") from exc
    print(dict(JUDGED))
    assert only or JUDGED["snapshots"] > cases / 20
