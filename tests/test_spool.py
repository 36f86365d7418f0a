"""The spool: what is stored is there, whatever happened; damage costs itself alone."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from ecoflow_push.memory.entry import HEADER, MAGIC, Entry, framed, unframed
from ecoflow_push.memory.records import EndpointRecord
from ecoflow_push.memory.spool import Spool
from ecoflow_push.memory.spools import endpoint_folder, other_spools
from ecoflow_push.metrics.record import LabelSet, Record
from tests.support import ROOT

SN = "R331ZFAKE0000001"
START_MS = 1_764_057_600_000


def record(number: int, value: float = 1.5) -> Record:
    """Return a small record; each number is a minute later."""
    labels: list[LabelSet] = [(("device", SN), ("job", "ecoflow"))]
    return Record(
        START_MS + number * 60_000,
        labels,
        (("gauge", "A quota."),),
        ("ecoflow_pd_soc",),
        (0,),
        (0,),
        [value],
        [("ecoflow_old", 0)],
    )


def entry(number: int) -> Entry:
    one = record(number)
    return Entry(one.time_ms, len(one.names), SN, one.to_bytes())


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "spool-0")


def opened(folder: str) -> Spool:
    spool = Spool(folder)
    spool.open()
    return spool


def store(spool: Spool, *entries: Entry) -> None:
    for each in entries:
        spool.write(each)
    spool.commit()


def files(folder: str) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, names in os.walk(folder)
        for name in names
    )


def test_what_is_stored_is_read_back_oldest_first(folder):
    """A later process reads what was stored, oldest first, byte for byte."""
    store(opened(folder), entry(2), entry(0), entry(1))

    spool = opened(folder)

    assert [e.time_ms for e in spool.entries] == [record(n).time_ms for n in range(3)]
    assert [Record.from_bytes(spool.read(e)) for e in spool.entries] == [
        record(n) for n in range(3)
    ]
    assert all(e.samples == 1 and e.is_stored for e in spool.entries)


def test_what_was_delivered_is_the_last_one(folder):
    """A delivered record leaves the queue and is remembered as the device's last."""
    spool = opened(folder)
    store(spool, entry(0), entry(1))

    spool.delivered(spool.entries[0])

    later = opened(folder)
    assert [e.time_ms for e in later.entries] == [record(1).time_ms]
    assert later.files.last(SN) == record(0).to_bytes()
    assert later.files.last("R331ZFAKE0000009") is None


@pytest.mark.case("K14")
def test_only_the_owner_can_look_inside(folder):
    """Folders are 0700 and files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        spool = opened(folder)
        store(spool, entry(0), entry(1))
        spool.delivered(spool.entries[0])
    finally:
        os.umask(before)

    for place, _, names in os.walk(folder):
        assert stat.S_IMODE(os.stat(place).st_mode) == 0o700
        for name in names:
            mode = os.stat(os.path.join(place, name)).st_mode
            assert stat.S_IMODE(mode) == 0o600


@pytest.mark.case("S10")
def test_litter_goes_and_foreign_files_stay_out_of_the_way(folder, tmp_path):
    """Leftovers of a killed run are removed; what is not ours is left alone."""
    store(opened(folder), entry(0))
    name = opened(folder).entries[0].name
    foreign = ["notes.txt", "1.1.x", f"{name}~", "00x.1.y", "000000000000001.1."]
    for litter in (f".{name}.tmp", f"last/.{SN}.tmp", "bad/.x.tmp", *foreign):
        (tmp_path / "spool-0" / litter).write_bytes(b"x")
    os.mkfifo(os.path.join(folder, "000000000000001.1.fifo"))
    os.symlink("/etc/passwd", os.path.join(folder, "000000000000002.1.link"))

    spool = opened(folder)

    assert [e.name for e in spool.entries] == [name]
    assert not any(".tmp" in file for file in files(folder))
    assert set(foreign) < set(files(folder))


@pytest.mark.case("S9")
@pytest.mark.drill("spool")
def test_a_drill_of_every_damage(folder):
    """Whatever byte of a file is flipped or cut off, no wrong record comes out."""
    store(opened(folder), entry(0))
    path = os.path.join(folder, opened(folder).entries[0].name)
    with open(path, "rb") as file:
        whole = file.read()
    damaged = [whole[:cut] for cut in range(len(whole))] + [whole + b"x"]
    for place in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            damaged.append(bytes(flipped))
    assert len(damaged) > 1000

    for content in damaged:
        with open(path, "wb") as file:
            file.write(content)
        spool = opened(folder)
        with pytest.raises(ValueError, match=r"damaged|version|larger"):
            spool.read(spool.entries[0])


@pytest.mark.case("K15")
def test_a_bomb_is_not_inflated(folder):
    """A file that would inflate to gigabytes is refused before it does."""
    import zlib

    from ecoflow_push.memory.entry import HEADER, MAGIC

    packer = zlib.compressobj(9)
    content = b"".join(packer.compress(bytes(1 << 20)) for _ in range(100))
    content += packer.flush()
    spool = opened(folder)
    name = entry(0).name
    with open(os.path.join(folder, name), "wb") as file:
        file.write(MAGIC + HEADER.pack(len(content), zlib.crc32(content)) + content)

    spool = opened(folder)

    with pytest.raises(ValueError, match="larger"):
        spool.read(spool.entries[0])


@pytest.mark.case("K15")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"[1,[],[],[],[],[],[]]",
        b"[-1,[],[],[],[],[],[],[]]",
        b"[1.5,[],[],[],[],[],[],[]]",
        b'["1",[],[],[],[],[],[],[]]',
        b'[1,[[["a"]]],[],[],[],[],[],[]]',
        b'[1,[[["a",2]]],[],[],[],[],[],[]]',
        b'[1,[],[["gauge",null]],[],[],[],[],[]]',
        b'[1,[],[["gauge","h"]],["n"],[0],[0],[1.0],[]]',
        b'[1,[[]],[["gauge","h"]],["n"],[0],[1],[1.0],[]]',
        b'[1,[[]],[["gauge","h"]],["n"],[0],[-1],[1.0],[]]',
        b'[1,[[]],[["gauge","h"]],["n"],[-1],[0],[1.0],[]]',
        b'[1,[[]],[["gauge","h"]],["n"],[0],[0],[],[]]',
        b'[1,[[]],[["gauge","h"]],["n"],[0],[],[1.0],[]]',
        b'[1,[[]],[["gauge","h"]],["n"],[true],[0],[1.0],[]]',
        b'[1,[[]],[["gauge","h"]],[7],[0],[0],[1.0],[]]',
        b'[1,[[]],[["gauge","h"]],["n"],[0],[0],["x"],[]]',
        b'[1,[[]],[["gauge","h"]],["n"],[0],[0],[null],[]]',
        b'[1,[[]],[],[],[],[],[],[["n",1]]]',
        b'[true,[[]],[["gauge","h"]],["n"],[0],[0],[1.0],[]]',
        b'[9223372036854775808,[[]],[["gauge","h"]],["n"],[0],[0],[1.0],[]]',
        b"[1,[[]],[],[],[],[],[],[[3,0]]]",
        b"[" * 100_000,
        b'{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8}',
        b"\xff",
    ],
)
def test_only_a_record_is_a_record(content):
    """JSON that is no record is refused, whatever is wrong with it."""
    with pytest.raises(ValueError):
        Record.from_bytes(content)


@pytest.mark.case("S13")
@pytest.mark.parametrize("count", [0, 1, 300, 1_500, 60_000])
def test_a_record_in_pieces_is_the_same_record(count):
    """Whatever was compressed before, the file holds it as any zlib reads it."""
    names = tuple(f"ecoflow_cell_{n}_volt" for n in range(count))
    sets = [(("device", SN),), (("device", SN), ("pack", "1"))]
    places, metas = (0, 1) * (count // 2) + (0,) * (count % 2), (0,) * count
    for values in ([1.5] * count, [float("nan"), 1e300, -0.1] * (count // 3 + 1)):
        made = Record(
            *(1_764_057_600_123, sets, (("gauge", "Volts."),), names, places, metas),
            *(values[:count], [("ecoflow_gone", 1)]),
        )
        content = framed(made.pieces())
        assert unframed(content) == made.to_bytes()
        assert zlib.decompress(content[len(MAGIC) + HEADER.size :]) == made.to_bytes()
        assert repr(Record.from_bytes(unframed(content))) == repr(made)
        assert len(content) < 1.1 * len(framed(made.to_bytes())) + 100


def test_the_oldest_go_first(folder):
    """What does not fit is named oldest first, after what was set aside is gone."""
    spool = opened(folder)
    store(spool, *[entry(n) for n in range(5)])
    spool.discard(spool.entries[0], keep=True)
    size = spool.entries[0].size
    assert len(files(os.path.join(folder, "bad"))) == 1

    spool.keep.max_bytes = 2 * size + 1
    over = spool.too_many()

    assert [e.time_ms for e in over] == [record(1).time_ms, record(2).time_ms]
    assert files(os.path.join(folder, "bad")) == []
    spool.keep.max_bytes = 4 * size
    assert spool.too_many() == []


@pytest.mark.case("S3")
def test_only_what_was_committed_counts_as_stored(folder):
    """A file alone is not enough: a power cut may still take its name."""
    spool = opened(folder)
    one = entry(0)

    spool.write(one)

    assert (one.has_file, one.is_stored, one.content) == (True, False, None)
    spool.commit()
    assert one.is_stored


def test_a_disk_that_used_up_its_time_is_left_alone(folder):
    """When the disk had its share of the run nothing more is stored, and it is said."""
    spool = opened(folder)
    spool.files.seconds = 1e-9

    store(spool, entry(0), entry(1))

    assert [e.time_ms for e in spool.entries] == [record(0).time_ms]
    assert "too slow" in spool.trouble


def test_last_records_of_forgotten_devices_go(folder):
    """Of devices that are no longer known nothing is kept."""
    spool = opened(folder)
    for device in ("a", "b"):
        spool.files.remember(device, record(0).to_bytes())

    spool.files.forget(["b"])

    assert files(folder) == ["last/b"]


def test_each_endpoint_has_its_own(tmp_path):
    """Another address, user or tenant is another folder, and is found beside it."""
    folders = [
        endpoint_folder(str(tmp_path), *endpoint)
        for endpoint in (("http://a", ""), ("http://b", ""), ("http://a", "me"))
    ]
    assert len(set(folders)) == 3
    for folder in folders:
        store(opened(folder), entry(0))

    others = other_spools(folders[0])

    assert sorted(spool.folder for spool in others) == sorted(folders[1:])
    assert all(len(spool.entries) == 1 for spool in others)


def limited(folder: str, most_bytes: int) -> subprocess.CompletedProcess[str]:
    """Store two records in a process that may write no file larger than this."""
    code = (
        "import sys; from tests.test_spool import entry, opened, store\n"
        "spool = opened(sys.argv[1]); entries = [entry(1), entry(2)]\n"
        "store(spool, *entries)\n"
        "print([e.is_stored for e in entries], spool.trouble)"
    )
    return subprocess.run(
        # -B, or an import leaves a module that is cut short.
        [sys.executable, "-B", "-c", code, folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_FSIZE, (most_bytes, most_bytes)
        ),
    )


@pytest.mark.case("S2", "S5")
def test_a_full_disk_leaves_what_was_there(folder):
    """What does not fit is not stored, leaves no torn file, and harms no other."""
    store(opened(folder), entry(0))

    done = limited(folder, 64)

    assert done.stdout.startswith("[False, False] cannot write the spool"), done
    spool = opened(folder)
    assert files(folder) == [spool.entries[0].name]
    assert spool.read(spool.entries[0]) == record(0).to_bytes()


@pytest.mark.case("S1")
def test_a_folder_that_cannot_be_used_is_no_crash(tmp_path):
    """Where a file stands in the way nothing is stored, and `trouble` says so."""
    (tmp_path / "spool-0").write_text("")

    spool = opened(str(tmp_path / "spool-0"))
    one = entry(0)
    store(spool, one)

    assert "cannot use the spool" in spool.trouble
    assert not one.is_stored
    assert spool.files.last(SN) is None


def test_a_file_that_cannot_go_is_found_by_the_next_run(folder):
    """What stays against our will is not forgotten: the next run looks for it."""
    spool = opened(folder)
    store(spool, entry(0), entry(1))
    known = EndpointRecord({})
    stuck = Path(folder, entry(0).name)
    stuck.unlink()
    # Nobody can unlink a folder.
    stuck.mkdir()
    spool.discard(spool.entries[0])
    spool.note(known)
    assert known.stamp == ""
    stuck.rmdir()
    stuck.write_bytes(entry(0).content or b"")
    later = Spool(folder)

    later.open(known)

    assert [each.name for each in later.entries] == [entry(0).name, entry(1).name]
    assert later.trouble == ""
