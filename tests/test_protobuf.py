"""Binary frames, golden ones written by hand: asking, the envelope, each message."""

from __future__ import annotations

import base64
import struct

import pytest

from ecoflow_push.api.frames import MOST_BYTES, MOST_HEADERS
from ecoflow_push.api.question import get_all_request
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
    RUNTIME,
    ULTRA,
    decode,
    field,
    fields,
    header,
    said_nothing,
    varint,
)

# Asking


def test_the_request_for_everything_has_the_recorded_bytes():
    """The bytes are those of protocol/binary.md#get-all."""
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
