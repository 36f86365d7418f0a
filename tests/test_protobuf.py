"""Binary frames: golden ones written by hand, hostile ones, and recorded ones.

The recorded frames are third-party data beside the project, read from there; the
golden ones were written from the field tables and always run.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import re
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given, settings
from hypothesis import strategies as st

from ecoflow_push.api import protobuf
from ecoflow_push.api.frames import (
    MOST_BYTES,
    MOST_HEADERS,
    Frame,
    decode_frame,
    get_all_request,
)
from ecoflow_push.devices.families import FAMILIES, Route, family_of
from ecoflow_push.devices.products import PRODUCTS
from ecoflow_push.metrics.names import metric_name, raw_samples
from tests import models_table
from tests.compile_schema import SCHEMA
from tests.support import ROOT

SHARED = ROOT.parent / "shared"
RECORDED = SHARED / "payloads"
DELTA_3 = "P231ZFAKE0000001"
POWERSTREAM = "HW51ZFAKE0000001"
PLUG = "HW52ZFAKE0000001"
ULTRA = "Y711ZFAKE0000001"
PANEL = "HD31ZFAKE0000001"
OCEAN = "HJ31ZFAKE0000001"
FIT = "HC31ZFAKE0000001"
NEW = "ZZ99ZFAKE0000001"

DISPLAY = (254, 21)
RUNTIME = (254, 22)
PACK = (32, 50)
MANAGER = (32, 2)


# The wire format, written apart from the program's.


def varint(number: int) -> bytes:
    number %= 1 << 64
    low = number % 128
    return bytes([low]) if number < 128 else bytes([low + 128]) + varint(number // 128)


def field(number: int, value: object) -> bytes:
    """Return one field: an int as varint, a float as fixed32, the rest by length."""
    if isinstance(value, int):
        return varint(number * 8) + varint(value)
    if isinstance(value, float):
        return varint(number * 8 + 5) + struct.pack("<f", value)
    if isinstance(value, Mapping):
        value = fields(value)
    elif isinstance(value, str):
        value = value.encode()
    assert isinstance(value, bytes)
    return varint(number * 8 + 2) + varint(len(value)) + value


def fields(values: Mapping[int, object]) -> bytes:
    return b"".join(field(number, value) for number, value in values.items())


def header(pair: tuple[int, int], pdata: object = b"", **more: object) -> bytes:
    """Return an envelope of one header; several joined are one of several headers."""
    numbers = {"src": 2, "enc_type": 6, "data_len": 10, "seq": 14, "code": 22}
    content = fields(pdata) if isinstance(pdata, Mapping) else pdata
    return field(
        1,
        {1: content, 8: pair[0], 9: pair[1]}
        | {numbers[name]: value for name, value in more.items()},
    )


def decode(payload: bytes, sn: str = DELTA_3) -> Frame:
    return decode_frame(payload, sn)


def said_nothing(seqs=(), *, offline: bool = False, damaged: int = 0) -> Frame:
    return Frame({}, False, offline, frozenset(seqs), Counter(), Counter(), damaged)


# Asking


def test_the_request_for_everything_has_the_recorded_bytes():
    """The bytes are those of ecoflow-protobuf.md 5 and ecoflow-protocol.md 3.8."""
    assert get_all_request(1140944105, "ios", DELTA_3) == bytes.fromhex(
        "0a10 1020 1820 70e9d985a004 ba0103696f73"
    )
    assert get_all_request(123456789, "Android", OCEAN) == bytes.fromhex(
        "0a13 1020 1820 70959aef3a ba0107416e64726f6964"
    )
    assert (
        get_all_request(999912345, "HomeAssistant", POWERSTREAM)
        == bytes.fromhex("0a33 1020 1820 4014 4801 5000 7099e7e5dc03 ba010d")
        + b"HomeAssistant"
        + bytes.fromhex("ca0110")
        + POWERSTREAM.encode()
    )


def test_a_negative_seq_is_asked_in_ten_bytes_and_read_back():
    """A negative seq survives the way out and the way back."""
    request = get_all_request(-2, "ecoflow_push", NEW)

    assert bytes.fromhex("70 feffffffffffffffff01") in request
    assert decode(request) == said_nothing(seqs={-2})


# Envelope


def test_a_display_report_becomes_rest_keys():
    """Fields of 254/21 have the camelCase names, and the values, of the REST API."""
    # powInSumW 107.0, energyBackupEn true, plugInInfo5p8Detail 65535, utcTimezone -400
    pdata = bytes.fromhex("1d0000d642 3801 8804ffff03 a808f0fcffffffffffffff01")

    frame = decode(header(DISPLAY, pdata, seq=7))

    assert frame.quotas == {
        "powInSumW": 107.0,
        "energyBackupEn": True,
        "plugInInfo5p8Detail": 65535,
        "utcTimezone": -400,
    }
    assert frame.has_data
    assert not frame.offline
    assert frame.seqs == {7}
    assert frame.damaged == 0
    assert not frame.unknown_messages
    assert not frame.unknown_fields


@pytest.mark.parametrize(
    ("enc_type", "src", "xored"),
    [(1, 2, True), (1, 32, False), (0, 2, False), (None, 2, False)],
)
@pytest.mark.parametrize("seq", [0x12345A, -91, 256])
def test_pdata_is_xored_by_the_rule(enc_type, src, xored, seq):
    """XOR with the low byte of seq when enc_type is 1, unless an app sent it."""
    pdata = fields({3: 107.0, 4: 21.5})
    sent = bytes(byte ^ (seq & 255) for byte in pdata) if xored else pdata
    declared = {} if enc_type is None else {"enc_type": enc_type}

    frame = decode(
        header(DISPLAY, sent, src=src, seq=seq, data_len=len(sent), **declared)
    )

    assert frame.quotas == {"powInSumW": 107.0, "powOutSumW": 21.5}


def test_each_header_is_decided_by_itself():
    """One payload may hold a XORed header, a clear one and an empty one."""
    clear = fields({3: 1.0})
    payload = (
        header(DISPLAY, bytes(byte ^ 5 for byte in clear), enc_type=1, seq=5)
        + header(RUNTIME, {26: 40.5}, seq=6)
        + header(MANAGER, b"", seq=-7)
    )

    frame = decode(payload)

    assert frame.quotas == {"powInSumW": 1.0, "tempPcsDc": 40.5}
    assert frame.seqs == {5, 6, -7}
    assert frame.damaged == 0


def test_a_later_header_wins_key_by_key():
    """A later report replaces what it repeats and leaves the rest."""
    payload = header(DISPLAY, {3: 1.0, 4: 2.0}) + header(DISPLAY, {4: 0.0})

    assert decode(payload).quotas == {"powInSumW": 1.0, "powOutSumW": 0.0}


def test_offline_is_the_clouds_own_word():
    """Code -2 says offline; any other code does not."""
    assert decode(field(1, {14: 9, 22: "-2"})) == said_nothing(seqs={9}, offline=True)
    assert not decode(field(1, {14: 9, 22: "0"})).offline


def test_base64_payloads_are_unwrapped():
    """A payload in base64 says what it says in clear."""
    payload = header(DISPLAY, {3: 107.0}, seq=3)

    assert decode(base64.b64encode(payload)) == decode(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00",
        b'{"code":"0"}',
        b"not base64 at all!",
        base64.b64encode(b"garbage that is no envelope"),
        b"AAAA",
        b"CgM=====",
        b"\x0a",
        b"\x0a\x7f\x01",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        header(DISPLAY, {3: 107.0})[:-2],
        b"\x0a" + bytes(MOST_BYTES),
        "текст".encode(),
    ],
    ids=lambda payload: payload[:12].hex() or "empty",
)
def test_garbage_is_counted_and_says_nothing(payload):
    """What is no envelope is damaged, and that is all that is said."""
    assert decode(payload) == said_nothing(damaged=1)


def test_a_damaged_message_does_not_spoil_its_neighbours():
    """A header with the wrong length or a torn message is left out, and counted."""
    payload = (
        header(DISPLAY, {3: 1.0}, data_len=4)
        + header(DISPLAY, fields({4: 2.0})[:-1])
        + header(RUNTIME, {26: 40.5})
    )

    frame = decode(payload)

    assert frame.quotas == {"tempPcsDc": 40.5}
    assert frame.damaged == 2


def test_no_more_headers_are_read_than_the_bound():
    """Headers beyond the bound are counted as damaged."""
    frame = decode(header(DISPLAY, {3: 1.0}) * (MOST_HEADERS + 5) + header(MANAGER))

    assert frame.damaged == 6
    assert frame.quotas == {"powInSumW": 1.0}


# Messages


def test_unknown_messages_and_fields_are_counted_by_pair():
    """What the schema does not know is counted by (cmd_func, cmd_id), on all levels."""
    payload = (
        header((254, 39), {1: 5})
        + header((254, 39), {1: 5})
        + header((1, 1), b"\xff\xff")
        + header(DISPLAY, {3: 1.0, 9999: 1, 9998: "x"})
        + header(MANAGER, {1: {7: 100, 60: 1}, 3: 1})
        + header((254, 18), {1: 1})
    )

    frame = decode(payload)

    assert frame.unknown_messages == {(254, 39): 2, (1, 1): 1}
    assert frame.unknown_fields == {DISPLAY: 2, MANAGER: 2}
    assert frame.quotas == {"powInSumW": 1.0, "v1p0.maxChargeSoc": 100}
    assert frame.damaged == 0


def test_a_wrong_wire_type_is_one_unknown_field():
    """A field of another wire type than the table's is skipped; its message is not."""
    # powOutSumW as varint, as text; field 75 as the 12 V switch that some models have.
    frame = decode(
        header(DISPLAY, field(4, 5) + field(4, "x") + fields({75: 1, 3: 1.0}))
    )

    assert frame.quotas == {"powInSumW": 1.0}
    assert frame.unknown_fields == {DISPLAY: 3}


def test_absent_is_absent_and_zero_is_zero():
    """A zero on the wire is a value; a field that is not there has no key."""
    frame = decode(header(DISPLAY, {3: 0.0, 7: 0, 134: ""}))

    assert frame.quotas == {
        "powInSumW": 0.0,
        "energyBackupEn": False,
        "utcTimezoneId": "",
    }
    assert decode(header(DISPLAY, b"\x9a\x03\x00")).quotas == {}


def test_packed_and_unpacked_lists_are_the_same():
    """Cell voltages read alike in one piece, one by one, and mixed."""
    one_by_one = b"".join(field(33, n) for n in (3321, 3322, 3320))
    packed = field(33, b"".join(map(varint, (3321, 3322, 3320))))
    mixed = field(33, 3321) + field(33, varint(3322) + varint(3320))

    for pdata in (one_by_one, packed, mixed):
        assert decode(header(PACK, pdata)).quotas == {"cellVol": [3321, 3322, 3320]}


def test_packs_are_told_apart_by_num():
    """Pack 0, or a pack without number, has bare keys; the others have their own."""
    payload = (
        header(PACK, {1: 0, 6: 35, 33: 3321})
        + header(PACK, {1: 1, 6: 33, 33: 3300})
        + header(PACK, {1: 2, 6: 32})
        + header(PACK, {9: 21})
    )

    quotas = decode(payload).quotas

    assert quotas == {
        "num": 0,
        "soc": 35,
        "cellVol": [3321],
        "temp": 21,
        "bms[1].num": 1,
        "bms[1].soc": 33,
        "bms[1].cellVol": [3300],
        "bms[2].num": 2,
        "bms[2].soc": 32,
    }
    samples, _ = raw_samples(quotas, "ecoflow", frozenset())
    assert ("ecoflow_soc", (), 35.0) in samples
    assert ("ecoflow_bms_soc", (1,), 33.0) in samples
    assert ("ecoflow_bms_cell_vol", (1, 0), 3300.0) in samples


PACKS = "hs_yj751_bms_slave_addr"


@pytest.mark.parametrize(
    ("sn", "pair", "pdata", "quotas"),
    [
        # Negative int32; a name that the app spells pv1_vol_in_tag.
        (
            POWERSTREAM,
            (20, 1),
            {17: 2836, 106: -9},
            {"20_1.pv1OpVolt": 2836, "20_1.staIpAddr": -9},
        ),
        (POWERSTREAM, (20, 4), {7: 100}, {"20_4.upperLimit": 100}),
        # The same pair in three products.
        (PLUG, (2, 1), {10: 3050, 11: 1}, {"2_1.watts": 3050, "2_1.switchSta": True}),
        # Zigzag: 3 on the wire is -2.
        (
            ULTRA,
            (2, 1),
            {21: 55, 10: 3},
            {
                "hs_yj751_pd_appshow_addr.soc": 55,
                "hs_yj751_pd_appshow_addr.wireless4gOn": -2,
            },
        ),
        (DELTA_3, (2, 1), {10: 3050}, {}),
        (ULTRA, (2, 2), {64: 20.0}, {"hs_yj751_pd_backend_addr.bmsOutputWatts": 20.0}),
        (ULTRA, (2, 3), {9: 90}, {"hs_yj751_pd_app_set_info_addr.chgMaxSoc": 90}),
        (
            ULTRA,
            (2, 4),
            field(1, {1: 1, 3: 34}) + field(1, {1: 2, 3: 45}),
            {
                f"{PACKS}.1.bpNo": 1,
                f"{PACKS}.1.bpSoc": 34,
                f"{PACKS}.2.bpNo": 2,
                f"{PACKS}.2.bpSoc": 45,
            },
        ),
        (
            ULTRA,
            RUNTIME,
            {293: 120000},
            {"hs_yj751_pd_backend_addr.displayPropertyFullUploadPeriod": 120000},
        ),
        (
            PANEL,
            (12, 1),
            {4: {1: 4657.0, 11: struct.pack("<3f", 0, 1, 2)}},
            {"wattInfo.gridWatt": 4657.0, "wattInfo.chWatt": [0.0, 1.0, 2.0]},
        ),
        (
            PANEL,
            (12, 32),
            {1: 120, 80: {3: 46}},
            {"pd303_mc.gridVol": 120, "pd303_mc.backupIncreInfo.backupBatPer": 46},
        ),
        (
            OCEAN,
            (96, 1),
            {12: {1: 241.5}, 31: {1: {3: 870.5}}},
            {"pcsAPhase.vol": 241.5, "mpptHeartBeat": [{"mpptPv": [{"pwr": 870.5}]}]},
        ),
        (
            OCEAN,
            (96, 3),
            {1: {1: "HJ31", 2: 523}},
            {
                "error_code.emsErrCode.moduleSn": "HJ31",
                "error_code.emsErrCode.errCode": [523],
            },
        ),
        (
            OCEAN,
            (96, 7),
            field(1, {16: "A", 2: 5}) + field(1, {16: "B", 2: 6}),
            {
                "bp_addr.A.bpSoc": 5,
                "bp_addr.A.bpSn": "A",
                "bp_addr.B.bpSoc": 6,
                "bp_addr.B.bpSn": "B",
            },
        ),
        (
            OCEAN,
            (96, 17),
            {13: 3363161, 188: 1},
            {
                "ems_change_report.bpTotalChgEnergy": 3363161,
                "ems_change_report.iot4gPdp": -1,
            },
        ),
        (OCEAN, (96, 13), {1: 1}, {"ems_param_change_report.smartCtrl": True}),
        # The same pair in two kinds of PowerOcean.
        (OCEAN, (96, 33), {2: -3770.0}, {"sysGridPwr": -3770.0}),
        (FIT, (96, 33), {1: -555.5}, {"gridPwr": -555.5}),
        (FIT, (96, 1), {4: 29}, {"bpSoc": 29}),
        # Wrapped lists of numbers, and of pairs whose zero is not sent.
        (
            DELTA_3,
            DISPLAY,
            {972: {1: struct.pack("<2f", 1, 2)}},
            {"powGetAcOutList.powGetAcOutItem": [1.0, 2.0]},
        ),
        (
            DELTA_3,
            DISPLAY,
            {463: field(1, {1: 2, 2: 900}) + field(1, {1: 3})},
            {
                "displayStatisticsSum.listInfo": [
                    {"statisticsObject": 2, "statisticsContent": 900},
                    {"statisticsObject": 3},
                ]
            },
        ),
        # A new product: what only one family has, and no guess for the rest.
        (NEW, DISPLAY, {262: 88.5}, {"cmsBattSoc": 88.5}),
        (NEW, (20, 1), {31: 47}, {"20_1.batSoc": 47}),
        (NEW, (12, 1), {4: {1: 1.0}}, {"wattInfo.gridWatt": 1.0}),
        (NEW, (2, 1), {10: 3050}, {}),
        (NEW, (96, 33), {1: 1.0}, {}),
    ],
    ids=lambda value: None if isinstance(value, (dict, bytes)) else str(value),
)
def test_each_family_has_its_messages_and_prefixes(sn, pair, pdata, quotas):
    """A pair is read by the product's table, under the REST API's prefix, or not."""
    frame = decode(header(pair, pdata), sn)

    assert frame.quotas == quotas
    assert frame.unknown_messages == ({} if quotas else {pair: 1})
    assert not frame.unknown_fields


def test_values_pass_as_they_are():
    """Denormals, infinities, 32-bit limits and texts that are no UTF-8 are kept."""
    tiny = struct.unpack("<f", b"\x01\0\0\0")[0]

    quotas = decode(
        header(
            DISPLAY,
            {3: tiny, 4: float("inf"), 65: 2**32 - 1, 133: -(2**31), 134: b"\xff"},
        )
    ).quotas

    assert quotas == {
        "powInSumW": tiny,
        "powOutSumW": float("inf"),
        "plugInInfo5p8Detail": 2**32 - 1,
        "utcTimezone": -(2**31),
        "utcTimezoneId": "\ufffd",
    }


@pytest.mark.parametrize(
    ("payload", "has_data"),
    [
        (header(RUNTIME, {293: 120000, 294: 2000, 295: 300000, 296: 60000}), False),
        (header(RUNTIME, {293: 120000, 26: 40.0}), True),
        (header((254, 17), {1: 1}), False),
        (header((254, 32), {1: 1}), False),
        (header((254, 39), {1: 1}), False),
        (header(DISPLAY, b""), False),
        (header(DISPLAY, {9999: 1}), False),
    ],
    ids=["plan", "plan and data", "setting", "history", "unknown", "empty", "no field"],
)
def test_only_values_beyond_the_reporting_plan_are_data(payload, has_data):
    """Config frames, acknowledgements and unknown messages are not data."""
    assert decode(payload).has_data == has_data


# Hostile input


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
]
SERIALS = st.sampled_from(
    [DELTA_3, POWERSTREAM, PLUG, ULTRA, PANEL, OCEAN, FIT, NEW, ""]
)
PAIRS = st.sampled_from(sorted({p for f in FAMILIES for p in family_of(f)}))


def check(payload: bytes, sn: str) -> None:
    frame = decode(payload, sn)

    assert size(frame.quotas) <= len(payload)
    assert len(frame.quotas) <= len(payload)
    assert frame.unknown_messages.total() <= len(payload)
    assert frame.unknown_fields.total() <= len(payload)
    raw_samples(frame.quotas, "ecoflow", frozenset())


@given(st.binary(max_size=400), SERIALS)
def test_no_bytes_raise(payload, sn):
    """Any bytes are decoded without an exception, to no more than they are."""
    check(payload, sn)
    check(base64.b64encode(payload), sn)
    check(b"\x0a" + payload, sn)


@given(st.binary(max_size=400), SERIALS, PAIRS, st.integers(-(2**31), 2**31 - 1))
def test_no_message_raises(pdata, sn, pair, seq):
    """Any bytes as any product's message are decoded without an exception."""
    check(header(pair, pdata, seq=seq, enc_type=seq & 1), sn)


@given(st.sampled_from(GOOD), st.integers(0), st.integers(0, 255), st.booleans())
@settings(max_examples=500)
def test_no_mutation_raises(good, place, byte, cut):
    """A good frame with any byte changed, or cut anywhere, raises nothing."""
    sn, payload = good
    place %= len(payload)
    rest = b"" if cut else payload[place + 1 :]
    check(payload[:place] + bytes([byte]) + rest, sn)


def test_the_largest_payload_is_bounded():
    """A payload of the greatest size, all one list or all unknown, is bounded."""
    for pdata in (field(33, b"\x01" * (MOST_BYTES - 50)), b"\xf8\x7f\x01" * 300_000):
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
        "from ecoflow_push.api.frames import decode_frame, get_all_request\n"
        "get_all_request(1, 'x', 'y'); print('google.protobuf' in sys.modules)\n"
        "decode_frame(b'', 'y'); print('google.protobuf' in sys.modules)"
    )

    assert run(code).split() == ["False", "True"]


# The schema


def declared(text: str) -> list[tuple[str, ...]]:
    """Return what a .proto file declares, line by line."""
    found: list[tuple[str, ...]] = []
    for line in text.splitlines():
        if line.startswith("message "):
            found.append((line.split()[1],))
        elif line.startswith("  "):
            found.append(tuple(re.findall(r"\w+", line)))
    return found


def described(file: FileDescriptorProto) -> list[tuple[str, ...]]:
    """Return what a descriptor declares, in the same form."""
    found: list[tuple[str, ...]] = []
    for message in file.message_type:
        found.append((message.name,))
        for entry in message.field:
            kind = (
                entry.type_name.rpartition(".")[2]
                or entry.Type.Name(entry.type)[5:].lower()
            )
            label = entry.Label.Name(entry.label)[6:].lower()
            found.append((label, kind, entry.name, str(entry.number)))
    return found


@pytest.mark.parametrize("path", sorted(SCHEMA.glob("*.proto")), ids=lambda p: p.stem)
def test_the_descriptors_are_those_of_the_proto_files(path):
    """Each committed descriptor declares what the .proto file beside it says."""
    file = FileDescriptorProto.FromString(path.with_suffix(".binpb").read_bytes())

    assert described(file) == declared(path.read_text())


# Which field table each message comes from, by its part of the file's name.
TABLES = {
    "envelope.Header": "Header",
    "display.DisplayPropertyUpload": "DisplayPropertyUpload",
    "runtime.RuntimePropertyUpload": "RuntimePropertyUpload",
    "battery.BMSHeartBeatReport": "BMSHeartBeatReport",
    "battery.Ems_heartbeat_pack_v1p0_t": "CMSHeartBeatReport.v1p0",
    "battery.Ems_heartbeat_pack_v1p3_t": "CMSHeartBeatReport.v1p3",
    "powerstream.InverterHeartbeat": "powerstream_inverter_heartbeat",
    "powerstream.InvHeartbeatType2": "powerstream_inv_heartbeat_type2",
    "smartplug.PlugHeartbeat": "smart_plug_heartbeat",
    "deltaproultra.AppShowHeartbeatReport": "dpu_AppShowHeartbeatReport",
    "deltaproultra.BackendRecordHeartbeatReport": "dpu_BackendRecordHeartbeatReport",
    "deltaproultra.APPParaHeartbeatReport": "dpu_APPParaHeartbeatReport",
    "panel2.ProtoPushAndSet": "shp2_ProtoPushAndSet",
    "powerocean.HeartbeatReport": "powerocean_ems_heartbeat",
    "powerocean.ErrorChangeReport": "powerocean_ErrorChangeReport",
    "powerocean.BpStaReport": "powerocean_BpStaReport",
    "powerocean.EmsChangeReport": "powerocean_EmsChangeReport",
    "powerocean.EmsParamChangeReport": "powerocean_EmsParamChangeReport",
    "powerocean.EnergyStreamReport": "powerocean_EnergyStreamReport",
    "powerocean_fit.EMSHeartbeatReport": "poweroceanfit_EMSHeartbeatReport",
}
# The REST API's names of what the app's table calls pv1_vol_in_tag and pv2_vol_in_tag.
RENAMED = {"pv1VolInTag": "pv1OpVolt", "pv2VolInTag": "pv2OpVolt"}


@pytest.mark.parametrize("name", TABLES)
def test_the_schema_says_what_the_field_tables_say(name):
    """Each row of a field table is a field with that number, kind and REST key."""
    path = SHARED / "ecoflow-fields" / f"{TABLES[name]}.tsv"
    if not path.exists():
        pytest.skip("no field tables beside the project (../shared/ecoflow-fields)")
    kinds = {"string": "bytes", "enum": "int32", "message": "message"}
    lines = path.read_text().splitlines()
    rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    wanted = {}
    for row in rows:
        kind = row["type"].partition(":")[0]
        key = RENAMED.get(row["json_key"], row["json_key"])
        wanted[int(row["field_no"])] = (key, kinds.get(kind, kind), row["repeated"])

    fields_of = protobuf.message_class(name).DESCRIPTOR.fields
    types = FileDescriptorProto.DESCRIPTOR.file.message_types_by_name[
        "FieldDescriptorProto"
    ]
    kind_names = types.enum_types_by_name["Type"].values_by_number

    assert {
        entry.number: (
            entry.json_name,
            kind_names[entry.type].name[5:].lower(),
            "yes" if entry.is_repeated else "no",
        )
        for entry in fields_of
    } == wanted


def routes() -> set[Route]:
    return {
        route
        for name in [*FAMILIES, "Unknown"]
        for route in family_of(name).values()
        if route
    }


def test_every_route_leads_to_a_message():
    """Each message, list and unit that the tables name is in the schema."""
    for route in routes():
        message = protobuf.message_class(route.message)()
        if route.items:
            message = getattr(message, route.items).add()
        if route.unit:
            assert "{}" in route.unit_prefix
            assert route.unit in message.DESCRIPTOR.fields_by_name
    assert set(FAMILIES) <= set(PRODUCTS.values())


def test_the_models_table_is_up_to_date():
    """docs/models.md holds the table that tests/models_table.py makes."""
    text = models_table.DOCUMENT.read_text()

    assert text.partition(models_table.BEGIN)[2] == models_table.table()
    listed = {*models_table.RECORDED, *models_table.DECODED} - {"Unknown"}
    assert listed | models_table.JSON_ONLY <= set(PRODUCTS.values())


# Recorded frames

# Messages recorded without their envelope: the pair of each line.
BARE = {
    "delta3/delta3maxplus-pdata.hex": [DISPLAY] * 3,
    "deltaproultra/dpu-pdata.hex": [(2, 4), (254, 16), (2, 3)],
    "powerocean/powerocean-hj31-pdata.hex": [(96, 34), (96, 34), (212, 33), (212, 99)],
    "river3/river3plus-bms-pdata.hex": [PACK],
    "river3/river3plus-cms-pdata.hex": [MANAGER],
    "shp2/shp2-pdata.hex": [(12, 1)] + [(12, 32)] * 6,
    "stream5000/es22-two-units-pdata.hex": [(254, 39)] * 6,
    "wallbox/powerpulseev-pdata.hex": [(2, 33)] * 3,
}
# Recorded frames hold fields, and messages, that no public table has.
AHEAD = {(96, 1): 8, (96, 8): 30, (96, 17): 4}
# Where each expected value is; all of them are what the last line leaves.
EXPECTED = {
    "delta3/delta3maxplus-pdata": {
        "battery_level": "cmsBattSoc",
        "ac_charging_speed": "plugInInfoAcInChgPowMax",
        "cell_temperature": "bmsMaxCellTemp",
        "ac_charging_power_max": "plugInInfoAcInChgHalPowMax",
        "battery_charge_limit_min": "cmsMinDsgSoc",
        "battery_charge_limit_max": "cmsMaxChgSoc",
        "remaining_time_charging": "cmsChgRemTime",
        "remaining_time_discharging": "cmsDsgRemTime",
        "energy_backup_battery_level": "energyBackupStartSoc",
        "input_power": "powInSumW",
        "output_power": "powOutSumW",
    },
    "deltaproultra/dpu-pdata": {
        f"battery_{n}_{theirs}": f"{PACKS}.{n}.{ours}"
        for n in (1, 2, 3)
        for theirs, ours in (("battery_level", "bpSoc"), ("cell_temperature", "bpTemp"))
    },
    "shp2/shp2-pdata": {
        "battery_level": "pd303_mc.backupIncreInfo.backupBatPer",
        "in_use_power": "wattInfo.allHallWatt",
        "channel_power_2": "wattInfo.chWatt 1",
        "channel_power_3": "wattInfo.chWatt 2",
        "circuit_power_2": "loadInfo.hall1Watt 1",
        "circuit_power_12": "loadInfo.hall1Watt 11",
        "circuit_current_1": "loadInfo.hall1Curr 0",
        "circuit_current_2": "loadInfo.hall1Curr 1",
        "circuit_current_12": "loadInfo.hall1Curr 11",
    },
    # Not read: 2/33 of the PowerPulse charger is in no public field table.
    "wallbox/powerpulseev-pdata": {},
}
# Their author rounded these to two and four digits.
ROUNDED = {"channel_power_2": 2, "channel_power_3": 2} | {
    f"circuit_current_{n}": 4 for n in (1, 2, 12)
}


def recorded(file: str) -> Any:
    path = RECORDED / file
    if not path.exists():
        pytest.skip("no recorded payloads beside the project (../shared/payloads)")
    return json.loads(path.read_text()) if path.suffix == ".json" else path.read_text()


def serial(product: str) -> str:
    """Return an invented serial number of a product."""
    prefix = next((p for p, name in PRODUCTS.items() if name == product), "ZZ99")
    return f"{prefix}ZFAKE0000001"[:16]


def recorded_frames(file: str, product: str) -> list[Frame]:
    payloads = [bytes.fromhex(line) for line in recorded(file).splitlines()]
    if file in BARE:
        payloads = [header(p, d) for p, d in zip(BARE[file], payloads, strict=True)]
    return [decode(payload, serial(product)) for payload in payloads]


def products_of(listing: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    return [(file, product) for product, files in listing.items() for file in files]


def test_all_recorded_frames_are_listed():
    """The tables of docs/models.md know every recorded file of frames and names."""
    if not RECORDED.exists():
        pytest.skip("no recorded payloads beside the project (../shared/payloads)")
    for listing, pattern in (
        (models_table.RECORDED, "*/*.hex"),
        (models_table.DECODED, "*/*-decoded*.json"),
    ):
        listed = {file for file, _ in products_of(listing)}
        assert listed == {str(p.relative_to(RECORDED)) for p in RECORDED.glob(pattern)}


@pytest.mark.parametrize(("file", "product"), products_of(models_table.RECORDED))
def test_recorded_frames_decode(file, product):
    """No recorded frame is damaged, and only known gaps of the schema are counted."""
    frames = recorded_frames(file, product)

    assert not any(frame.damaged or frame.offline for frame in frames)
    unknown = sum((frame.unknown_fields for frame in frames), Counter())
    assert unknown == (AHEAD if "r374" in file else {})
    messages = sum((frame.unknown_messages for frame in frames), Counter())
    values = sum(len(frame.quotas) for frame in frames)
    print(f"{file}: {len(frames)} frames, {values} values, not known: {dict(messages)}")


@pytest.mark.parametrize("name", EXPECTED)
def test_expected_values_match_in_full(name):
    """Each value that a peer asserts for a recorded file is the one decoded."""
    expected = recorded(f"{name}-expected.json")
    product = dict(products_of(models_table.RECORDED))[f"{name}.hex"]
    quotas: dict[str, Any] = {}
    for frame in recorded_frames(f"{name}.hex", product):
        quotas |= frame.quotas

    got = {}
    for theirs, place in EXPECTED[name].items():
        key, _, index = place.partition(" ")
        value = quotas[key][int(index)] if index else quotas[key]
        got[theirs] = round(value, ROUNDED[theirs]) if theirs in ROUNDED else value

    print(f"{name}: {len(got)} of {len(expected)} expected values")
    assert got == (expected if EXPECTED[name] else {})


def test_the_expected_manager_report_matches_in_full():
    """The peer's decode of a recorded 32/2 equals ours, value by value."""
    expected = recorded("river3/river3plus-cms-decoded.json")
    (frame,) = recorded_frames("river3/river3plus-cms-pdata.hex", "Unknown")

    assert frame.quotas == {
        f"{part}.{key}": value
        for part, values in expected.items()
        for key, value in values.items()
    }


# Names


def numbers(value: object, key: str = "") -> Iterator[str]:
    """Yield the key of every number and boolean; places in lists are left out."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from numbers(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner, key)
    elif isinstance(value, (bool, int, float)):
        yield key


def message_keys(descriptor: Any, prefix: str) -> Iterator[str]:
    """Yield every key that a message may have."""
    for entry in descriptor.fields:
        if entry.message_type is None:
            yield prefix + entry.json_name
        else:
            yield from message_keys(entry.message_type, f"{prefix}{entry.json_name}.")


def our_keys(product: str, *, prefixed: bool) -> set[str]:
    """Return every key that a product's messages may have."""
    found = set()
    for route in filter(None, family_of(product).values()):
        descriptor = protobuf.message_class(route.message).DESCRIPTOR
        if prefixed and route.items:
            descriptor = descriptor.fields_by_name[route.items].message_type
        prefixes = {route.prefix, route.unit_prefix.format(1)} if prefixed else {""}
        for prefix in prefixes:
            found |= set(message_keys(descriptor, prefix))
    return found


def bare(key: str) -> str:
    """Return a key without what programs spell differently."""
    return re.sub("[^a-z0-9]", "", key.lower())


# Messages that peers decode and we do not: tasks, history, accessories, and a second
# PowerStream heartbeat whose fields its peer had to number.
UNREAD = {
    "time_task_config_post",
    "InverterHeartbeat2",
    "ModuleClusterInfo",
    "EmsEcologyDevReport",
    "JTS1_ERROR_CODE_MASK_REPORT",
    "ParallelEnergyStreamReport",
    "ParallelDevList",
    "ParallelEnergyStreamDetail",
    "EDevPriorityListReport",
    "EDevParamReport",
    "EVChargingParamReport",
    "EnergyStreamDetail",
    "HRChargingParamReport",
    "HeatingRodEnergyStreamShow",
    "HeatingRodTimerTaskReport",
    "EcologyDevBindListReport",
    "BPChangeReport",
    "DcChangeReport",
    "DcStaReport2",
    "ErrorChangeReport",
}
# The least share in percent of a peer's names that are ours, where it is not 96: peers
# had named these fields before the app's schema was known.
LEAST = {
    "Alternator Charger": 5,
    "GLACIER Classic": 86,
    "PowerOcean": 96,
    "PowerStream": 80,
    "Smart Home Panel 2": 85,
    "Smart Meter": 20,
    "Smart Plug": 80,
}


@pytest.mark.parametrize(("file", "product"), products_of(models_table.DECODED))
def test_names_agree_with_those_that_peers_decoded(file, product):
    """What a peer decoded of a product has our names, as far as it knew them."""
    decoded = recorded(file)
    if isinstance(decoded, dict):
        decoded = [v for k, v in decoded.items() if k not in UNREAD]
    theirs = {bare(key.removeprefix("bpSta.")) for o in decoded for key in numbers(o)}
    theirs = {key.removeprefix("v1p0").removeprefix("v1p3") for key in theirs}
    ours = {bare(key) for key in our_keys(product, prefixed=False)}
    ours |= {key.removeprefix("v1p0").removeprefix("v1p3") for key in ours}
    ours |= {key.removeprefix("bpheartbeat") for key in ours}

    share = 100 * len(theirs & ours) / len(theirs)

    print(f"{file}: {len(theirs & ours)} of {len(theirs)} names, {share:.0f} %")
    assert share >= LEAST.get(product, 96), sorted(theirs - ours)


POWEROCEAN_REPORTS = {
    "ENERGY_STREAM_REPORT": "",
    "EMS_HEARTBEAT": "",
    "EMS_CHANGE_REPORT": "ems_change_report.",
    "EMS_STATE_CHANGE_REPORT": "ems_change_report.",
    "EMS_SAFETY_PARAM_REPORT": "ems_change_report.",
    "EMS_PARAM_CHANGE_REPORT": "ems_param_change_report.",
    "BP_STA_REPORT": "bp_addr.",
}


def rest_map(file: str) -> dict[str, Any]:
    """Return a recorded quota map; the app's own, by report, as the developers' one."""
    data = recorded(file)
    data = data.get("data", data.get("params", data))
    if "quota" not in data:
        return {k: v for k, v in data.items() if not k.startswith(("20_134", "2_2"))}
    found = {}
    for report, values in data["quota"].items():
        prefix = POWEROCEAN_REPORTS.get(report.partition("_")[2])
        if prefix is None:
            continue
        for key, value in values.items():
            # Packs are maps, or JSON in strings, by serial; some again in a list.
            if key == "bpHeartBeat":
                continue
            is_json = isinstance(value, str) and value.startswith("{")
            inner = json.loads(value) if is_json else value
            is_pack = prefix == "bp_addr." and isinstance(inner, dict)
            found[f"{prefix}{1 if is_pack else key}"] = inner
    return found


@pytest.mark.parametrize(
    ("file", "product", "missing"),
    [
        ("powerstream/powerstream-quota-all.json", "PowerStream", 0),
        ("powerstream/powerstream-open-params.json", "PowerStream", 0),
        ("smartplug/smartplug-quota-all.json", "Smart Plug", 0),
        ("smartplug/smartplug-quota-subset.json", "Smart Plug", 0),
        ("delta3/delta3-params-flat-b.json", "DELTA 3", 0),
        # The pack's own report, 3/28, has no public table.
        ("deltaproultra/deltaproultra-quota-excerpt.json", "DELTA Pro Ultra", 10),
        # One spelling that its source garbled.
        ("powerocean/powerocean-app-detail.json", "PowerOcean", 1),
        ("powerocean/powerocean-dual-app-detail.json", "PowerOcean", 0),
        ("powerocean/poweroceandcfit-app-detail.json", "PowerOcean DC Fit", 0),
        # Fields of a firmware that is ahead of the public tables.
        ("powerocean/poweroceanplus-app-detail.json", "PowerOcean Plus", 32),
        ("powerocean/poweroceanplus-app-detail-b.json", "PowerOcean Plus", 26),
    ],
)
def test_names_are_those_of_the_rest_api(file, product, missing):
    """Each number of a recorded REST map, tasks apart, has the name of one of ours."""
    rest = {metric_name(key) for key in numbers(rest_map(file))}
    ours = {metric_name(key) for key in our_keys(product, prefixed=True)}

    print(f"{file}: {len(rest & ours)} of {len(rest)} names")
    assert len(rest - ours) == missing, sorted(rest - ours)
