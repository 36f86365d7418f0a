"""What makes cases of the fuzz: accidents, seeds, and which of them led somewhere new.

A kind of case is a function that is given bytes. They are one of its seeds after a few
accidents; in full numbers also of what reached a line of the program that none before
it had reached.
"""

from __future__ import annotations

import copy
import http.client
import io
import json
import random
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Self

from ecoflow_push import redact
from ecoflow_push.net.reply import Reply, Request
from tests.hostile import packet
from tests.support import ROOT, stop_listening

TOKENS = (
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\0", b"\xff", b"\xef\xbb\xbf"),
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-0", b"9" * 5000, b"0.1"),
    *(b'"a":', b'"online":0,', b'"\\ud800"', b'"__name__":1,', b'"pd.soc":1,', b"[[["),
    *(b"\r\n", b"\r\n\r\n", b"0\r\n", b": ", b"HTTP/1.1 ", b" 100 ", b"-1", b"chunked"),
    *(b"\x1f\x8b", b"%", b"=", b"$", b"'", b"#", b"\x1b[2J", b"9" * 19, b"1" * 30),
    *("\U0001f600".encode(), b"\xe2\x80\xa8", b"\xc2\xb2", b"[]", b"{}", b'""', b"1"),
)
OURS = f"{ROOT / 'ecoflow_push'}/"
#: Of so many cases one is watched, in full numbers.
WATCHED = 40
MOST_SEEDS = 400


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


#: What stands in JSON where something else was.
ODD: tuple[Any, ...] = (
    *(-1, 0, 1, 7, 2**31, 2**53, 2**63, 2**64, 10**15, -0.0, 1e308, float("inf")),
    *(
        float("nan"),
        True,
        False,
        None,
        "",
        "x",
        "1",
        "\ud800",
        "a\nb",
        "\0" * 9,
        "x" * 300,
    ),
    *([], {}, [[]], [[], {}], {"": {}}, [0] * 40, {"__name__": 1}),
)
LONGEST_JSON = 4_000


def reshaped(data: bytes, rng: random.Random) -> bytes:
    """Return JSON in which something is of another kind, or in another's place."""
    if len(data) > LONGEST_JSON or data[:1] not in (b"{", b"["):
        return data
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError):
        return data
    for _ in range(rng.choice((1, 1, 2))):
        holders = list(_holders(whole))
        if not holders:
            break
        inside = rng.choice(holders)
        key: Any = rng.choice(
            list(inside) if isinstance(inside, dict) else range(len(inside))
        )
        kind = rng.randrange(5)
        if kind == 0:
            del inside[key]
        elif kind == 1:
            other = rng.choice(holders)
            inside[key] = json.loads(json.dumps(other))
        else:
            inside[key] = copy.deepcopy(rng.choice(ODD))
    return json.dumps(whole).encode()


def _holders(value: object) -> Iterator[Any]:
    if isinstance(value, (dict, list)) and value:
        yield value
        for each in value.values() if isinstance(value, dict) else value:
            yield from _holders(each)


class Case(NamedTuple):
    """What a kind is given: bytes, luck of its own, and a folder."""

    data: bytes
    rng: random.Random
    folder: Path


class Kind:
    """A kind of cases; `seeds` grow by what leads somewhere new."""

    def __init__(self, run: Callable[[Case], None], seeds: list[bytes]) -> None:
        self.run = run
        self.name = run.__name__
        self.seeds = seeds
        self.reached: set[tuple[str, int]] = set()

    def data(self, rng: random.Random) -> bytes:
        data = rng.choice(self.seeds)
        return reshaped(data, rng) if rng.random() < 0.3 else mutated(data, rng)

    def watch(self, case: Case) -> None:
        """Run a case, and keep its bytes if it reached what none had reached."""
        lines: set[tuple[str, int]] = set()

        def line(frame: FrameType, event: str, arg: object) -> Any:
            lines.add((frame.f_code.co_filename, frame.f_lineno))
            return line

        def call(frame: FrameType, event: str, arg: object) -> Any:
            return line if frame.f_code.co_filename.startswith(OURS) else None

        before = sys.gettrace()
        sys.settrace(call)
        try:
            self.run(case)
        finally:
            sys.settrace(before)
            if lines - self.reached and len(self.seeds) < MOST_SEEDS:
                self.seeds.append(case.data[:100_000])
            self.reached |= lines


class Canned:
    """An exchange whose answers are there already, by what their URLs end with."""

    def __init__(self, *replies: Reply, **by_end: Reply) -> None:
        self._replies = replies
        self._by_end = by_end

    def __call__(self, request: Request, seconds: float) -> Reply:
        path = request.url.partition("?")[0]
        for end, reply in self._by_end.items():
            if path.endswith(end):
                return reply
        return self._replies[0]

    def dial_ahead(self, lanes: int, seconds: float) -> None:
        pass

    def close(self) -> None:
        pass


class Wire:
    """What http.client needs of a socket, to read bytes that are there already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def reply_of(data: bytes) -> Reply:
    """Return the answer that is written so: a status, headers, an empty line, a body.

    What http.client would not let through is not there.
    """
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.decode("latin-1").split("\n")
    headers = http.client.HTTPMessage()
    for each in lines:
        name, _, value = each.partition(":")
        if name.strip():
            headers[name.strip()] = value.strip().replace("\r", "")
    number = first.strip()
    is_status = number.isascii() and number.isdecimal() and len(number) == 3
    return Reply(int(number) if is_status else 200, headers, body)


class Pipe:
    """A broker that says the same to whoever connects, and hangs up."""

    def __init__(self) -> None:
        self.says = b""
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        stop_listening(self._server, self._thread)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.sendall(self.says)
                    connection.shutdown(socket.SHUT_WR)
                    connection.settimeout(5)
                    while connection.recv(65_536):
                        pass
                except OSError:
                    continue


def packets(topic: bytes, payload: bytes) -> bytes:
    """Return what a broker says to who connects, subscribes once and listens."""
    connack, suback = b"\x20\x02\x00\x00", b"\x90\x04" + struct.pack("!H", 1) + b"\1\1"
    told = packet(topic, payload), packet(topic, payload, 0x32, 7)
    return connack + suback + b"".join(told) + b"\xd0\x00"


class Sampled:
    """Takes every hundredth exposition to a real Pushgateway."""

    def __init__(self, url: str, every: int) -> None:
        self._every = every
        self._count = 0
        self._connection = http.client.HTTPConnection(url.partition("://")[2])
        self.taken = 0

    def take(self, exposition: Callable[[], bytes]) -> None:
        self._count += 1
        if self._count % self._every:
            return
        # So few groups that the gateway's own memory does not grow.
        path = f"/metrics/job/fuzz/case/{self.taken % 50}"
        self._connection.request("PUT", path, exposition())
        with self._connection.getresponse() as response:
            assert response.status == 200, response.read()
            response.read()
        self.taken += 1

    def close(self) -> None:
        self._connection.close()


def forget_secrets() -> None:
    """Let the redactor begin anew: one process earns no thousands of tokens."""
    for known in (redact._forms, redact._sorted, redact._tokens, redact._token_forms):
        known.clear()
    redact._pieces.clear()
