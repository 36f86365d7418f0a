"""Binary frames: hostile ones, and the two implementations of protobuf."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecoflow_push.api.frames import MOST_BYTES
from ecoflow_push.devices.messages import messages_of, tables
from ecoflow_push.metrics.names import raw_samples
from tests.frames import (
    DELTA_3,
    DISPLAY,
    FIT,
    MANAGER,
    NEW,
    OCEAN,
    PACK,
    PANEL,
    PLUG,
    POWERSTREAM,
    ULTRA,
    decode,
    field,
    fields,
    header,
)
from tests.support import ROOT


def size(value: object) -> int:
    """Return how much a quota map holds: values, and characters of texts."""
    if isinstance(value, Mapping):
        return sum(map(size, value.values()))
    if isinstance(value, list):
        return sum(map(size, value))
    return len(value) if isinstance(value, str) else 1


GOOD = [
    (
        DELTA_3,
        header(
            DISPLAY, {3: 107.0, 7: 1, 134: "UTC", 463: field(1, {1: 2, 2: 9})}, seq=5
        ),
    ),
    (
        DELTA_3,
        header(PACK, {1: 1, 6: 35, 33: 3321, 81: "SN"}) + header(MANAGER, {1: {7: 9}}),
    ),
    (OCEAN, header((96, 7), field(1, {16: "A", 2: 5}), seq=-1, enc_type=1, src=96)),
    (ULTRA, header((2, 4), field(1, {1: 1, 3: 34})) + header((2, 1), {10: 3})),
    ("ES21ZFAKE0000001", header((254, 39), {11: {1: 9}, 12: {4: 7}, 54: {1: {2: 5}}})),
    ("RE11ZFAKE0000001", header((254, 46), {5: {15: 1, 37: 5, 9: 16.5}})),
    (OCEAN, header((96, 34), {1: {1: 5.0, 5: 60}}) + header((254, 32), {2: {3: b"1"}})),
]
PUBLIC = [
    f"{begins}ZFAKE0000001" for begins in ("ES21", "RE11", "C376", "HZ31", "HR51")
]
SERIALS = st.sampled_from(
    [DELTA_3, POWERSTREAM, PLUG, ULTRA, PANEL, OCEAN, FIT, NEW, *PUBLIC, ""]
)
PAIRS = st.sampled_from(sorted({p for group in tables() for p in messages_of(group)}))


def check(payload: bytes, sn: str) -> None:
    frame = decode(payload, sn)

    # An empty group of a STREAM 5000 stands for up to eight zeros.
    assert size(frame.quotas) <= len(payload) + 20
    assert len(frame.quotas) <= len(payload) + 20
    assert frame.unknown_messages.total() <= len(payload)
    assert frame.unknown_fields.total() <= len(payload)
    raw_samples(frame.quotas, "ecoflow", frozenset())


@pytest.mark.case("D16")
@pytest.mark.drill("fuzz")
@given(st.binary(max_size=400), SERIALS)
def test_no_bytes_raise(payload, sn):
    """Any bytes are decoded without an exception, to no more than they are."""
    check(payload, sn)
    check(base64.b64encode(payload), sn)
    check(b"\x0a" + payload, sn)


@pytest.mark.case("D16")
@pytest.mark.drill("fuzz")
@given(st.binary(max_size=400), SERIALS, PAIRS, st.integers(-(2**31), 2**31 - 1))
def test_no_message_raises(pdata, sn, pair, seq):
    """Any bytes as any product's message are decoded without an exception."""
    check(header(pair, pdata, seq=seq, enc_type=seq & 1), sn)


@pytest.mark.case("D16")
@pytest.mark.drill("fuzz")
@given(st.sampled_from(GOOD), st.integers(0), st.integers(0, 255), st.booleans())
def test_no_mutation_raises(good, place, byte, cut):
    """A good frame with any byte changed, or cut anywhere, raises nothing."""
    sn, payload = good
    place %= len(payload)
    rest = b"" if cut else payload[place + 1 :]
    check(payload[:place] + bytes([byte]) + rest, sn)


def test_many_reports_of_many_units_take_no_time():
    """A payload of the greatest size, all reports with a time, is read in seconds."""
    items = b"".join(field(2, {1: n, 2: n}) for n in range(20_000))
    begun = time.monotonic()

    frame = decode(header((254, 32), items), OCEAN)

    assert len(frame.quotas) > 30_000
    assert time.monotonic() - begun < 30


def test_the_largest_payload_is_bounded():
    """A payload of the greatest size, all one list or all unknown, is bounded."""
    torn = b"\xf8\x7f\x01" * 300_000 + field(1, b"\xff")
    for pdata in (
        field(33, b"\x01" * (MOST_BYTES - 50)),
        b"\xf8\x7f\x01" * 300_000,
        torn,
    ):
        check(header(PACK, pdata), DELTA_3)


# The two implementations of protobuf, and when it is imported


def run(code: str, **environ: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def test_protobuf_in_pure_python_says_the_same():
    """Where there is no binary wheel of protobuf, frames decode alike."""
    payloads = [
        *GOOD,
        (DELTA_3, header(DISPLAY, fields({4: 5, 9999: 1, 134: b"\xff"}))),
        (DELTA_3, header(DISPLAY, fields({3: 1.0, 463: b"\xff\xff", 262: 5.0}))),
        (DELTA_3, header(MANAGER, {1: field(7, 9) + b"\x0b", 2: {1: 3}})),
    ]
    payloads += [(sn, payload[:-1]) for sn, payload in payloads]
    code = (
        "from ecoflow_push.api.frames import decode_frame\n"
        f"print([decode_frame(payload, sn) for sn, payload in {payloads!r}])"
    )

    pure = run(code, PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION="python")

    assert pure.strip() == str([decode(payload, sn) for sn, payload in payloads])


def test_asking_imports_no_protobuf():
    """The package is imported by the first binary answer, not before."""
    code = (
        "import sys\n"
        "from ecoflow_push.api.frames import decode_frame\n"
        "from ecoflow_push.api.question import get_all_request\n"
        "get_all_request(1, 'x', 'y'); print('google.protobuf' in sys.modules)\n"
        "decode_frame(b'', 'y'); print('google.protobuf' in sys.modules)"
    )

    assert run(code).split() == ["False", "True"]
