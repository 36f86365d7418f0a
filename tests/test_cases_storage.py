"""Cases of the catalogue about what is stored: folders and disks of all kinds."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from ecoflow_push.memory.entry import MAGIC
from ecoflow_push.memory.spool import Spool
from ecoflow_push.simulator import faults
from tests.conftest import DELTA
from tests.forker import Hardship
from tests.hostile import MOST, Body, push_watched
from tests.remote_write import of_devices, spool_files, state
from tests.support import PUSH, Run, push, values
from tests.test_delivery_disk import multiply

SAYS_WHY = 99


def push_on(environ: dict[str, str], hardships: Sequence[Hardship]) -> Run:
    """Run push.py under hardships; where they cannot be had the test is skipped."""
    code = (
        "import os, sys, json\n"
        "from tests.hardship import endure\n"
        "try:\n"
        "    endure(json.loads(sys.argv[1]))\n"
        "except OSError as exc:\n"
        f"    print(exc), sys.stdout.flush(), os._exit({SAYS_WHY})\n"
        f"os.execv({sys.executable!r}, [{sys.executable!r}, {str(PUSH)!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(hardships)],
        env={"PATH": os.defpath, "PYTHONPATH": str(PUSH.parent), **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode == SAYS_WHY:
        pytest.skip(f"no such hardship here: {done.stdout}")
    return Run(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def both(environ, receiver):
    """The settings of a job with a gateway and remote-write."""
    return environ | {"REMOTE_WRITE_URL": receiver.write_url, "ESTABLISH_ATTEMPTS": "2"}


HARD: dict[str, str] = {
    "read_only": "Read-only file system",
    "full": "No space left on device",
}


@pytest.mark.case("S2", "S4")
@pytest.mark.parametrize("is_up", [True, False])
@pytest.mark.parametrize("kind", HARD)
def test_a_disk_that_takes_nothing(kind, is_up, both, receiver, pushgateway):
    """What is collected is delivered; what is lost is said: 1, or 74 if it is alone."""
    if not is_up:
        receiver.fail("", faults.status(503))

    run = push_on(both, [(kind, both["STATE_DIR"])])

    # The gateway has it: with remote-write alone it would be 74.
    assert run.status == (0 if is_up else 1), run.stderr
    assert HARD[kind] in run.stderr
    assert "Traceback" not in run.stderr
    assert len(run.stderr.splitlines()) <= 4
    assert values(pushgateway.device(DELTA.sn))
    assert len(of_devices(receiver)) == is_up
    if not is_up:
        alone = {k: v for k, v in both.items() if k != "PUSHGATEWAY_URL"}
        assert push_on(alone, [(kind, both["STATE_DIR"])]).status == 74


@pytest.mark.case("S16")
@pytest.mark.parametrize("inodes", range(2, 14, 2))
def test_a_disk_without_a_name_left(inodes, both, receiver, pushgateway, tmp_path):
    """Where no file can be made, all is delivered, and no half of a file counts."""
    place = tmp_path / "small"
    place.mkdir()
    both["STATE_DIR"] = str(place / "state")
    mount = f"mount -t tmpfs -o nr_inodes={inodes} none {place}"
    space = ["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-m", "sh", "-ec"]
    if subprocess.run([*space, mount], check=False, capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a disk")
    line = f'{mount}; "{sys.executable}" "{PUSH}"; cp -r {place} {tmp_path}/kept'

    done = subprocess.run(
        [*space, line],
        env={"PATH": os.environ["PATH"], **both},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert " exit 0 OK " in done.stderr
    assert ("No space left on device" in done.stderr) == (inodes < 12)
    assert values(pushgateway.device(DELTA.sn))
    assert len(of_devices(receiver)) == 1
    left = [path.name for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert not [name for name in left if name.endswith(".tmp")]


KINDS_OF_FOLDER = {
    "a file": lambda path: path.write_text("precious"),
    "a link to a file": lambda path: path.symlink_to("/etc/hostname"),
    "a dangling link": lambda path: path.symlink_to("/nowhere/at/all"),
    "a loop": lambda path: path.symlink_to(path),
    "a FIFO": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/null"),
}


@pytest.mark.case("S1")
@pytest.mark.parametrize("kind", KINDS_OF_FOLDER)
def test_a_state_folder_that_is_none(kind, both, receiver, pushgateway):
    """What is no folder is told with its cause, and left; all is delivered: 0."""
    path = Path(both["STATE_DIR"])
    KINDS_OF_FOLDER[kind](path)
    before = os.lstat(path)

    run = push(both)

    assert run.status == 0, run.stderr
    assert "cannot use the state folder" in run.stderr
    assert values(pushgateway.device(DELTA.sn))
    assert len(of_devices(receiver)) == 1
    after = os.lstat(path)
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)


@pytest.mark.case("S1", "S15")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_a_folder_that_is_closed_to_us(both, receiver, pushgateway):
    """A second user, to whom the folder is closed, has no memory, and delivers."""
    assert push(both).status == 0
    receiver.requests.clear()
    files = [Path(both["STATE_DIR"]), *Path(both["STATE_DIR"]).rglob("*")]
    for path in files:
        os.chown(path, 20_001, 20_001)
    before = [path.stat() for path in files]

    run = push_on(both, [("ordinary", "")])

    assert run.status == 0, run.stderr
    assert "cannot use the state folder" in run.stderr
    assert "Permission denied" in run.stderr
    assert len(of_devices(receiver)) == 1
    assert [path.stat() for path in files] == before


@pytest.mark.case("S1")
def test_a_folder_is_made_private_all_the_way(both, tmp_path):
    """What is missing of the path is made 0700, whatever the umask and however deep."""
    both["STATE_DIR"] = str(tmp_path / "a" / "b" / "c")
    line = f'umask 000; exec "{sys.executable}" "{PUSH}"'

    subprocess.run(["sh", "-c", line], env=both, check=True, timeout=60)

    made = [tmp_path / "a", *(tmp_path / "a").rglob("*")]
    assert len(made) > 6
    for path in made:
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


@pytest.mark.case("S11")
@pytest.mark.parametrize("version", [b"2", b"0"])
def test_a_record_of_another_version(version, written, receiver):
    """It is set aside with a word, and not lost; the others arrive."""
    receiver.fail("", faults.status(503))
    for _ in range(2):
        assert push(written).status == 75
    first, _ = spool_files(written)
    content = first.read_bytes().replace(MAGIC, MAGIC[:-2] + version + b"\n")
    first.write_bytes(content)
    receiver.heal()

    run = push(written)

    assert run.status == 1, run.stderr
    assert "their file in the spool was damaged" in run.stderr
    (aside,) = spool_files(written, "spool-*/bad/*")
    assert aside.read_bytes() == content
    assert spool_files(written) == []
    assert len(of_devices(receiver)) in (1, 2)


@pytest.mark.case("S12")
@pytest.mark.drill("spool")
def test_drill_a_spool_that_is_full_of_files(written, receiver, tmp_path, drill):
    """However many files wait, a run begins soon and holds little; the bound holds."""
    count = drill.size(2_000, 100_000)
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    multiply(written, count)
    one = spool_files(written)[-1]
    spool = Spool(str(one.parent))
    began = time.process_time()
    spool.open()
    assert len(spool.entries) == count
    assert time.process_time() - began < 2
    size = one.stat().st_size
    written["SPOOL_MAX_BYTES"] = str(100 * size + 1)

    runs = 0
    while runs == 0 or (len(spool_files(written)) > 100 and runs < 3):
        run, peak = push_watched(written, tmp_path)
        runs += 1

        assert run.status == 75, run.stderr
        assert "hung" not in run.stderr
        assert peak <= MOST
        print(f"{count} files: {run.seconds:.1f} s, {peak >> 20} MiB")
    left = len(spool_files(written))
    assert left >= 95
    assert left <= 100 or runs == 3
    # Each is counted once, however many runs it took.
    assert sum(state(written)["dropped"].values()) == 7 * (count + runs - left)


def nested(size: int) -> bytes:
    return b'{"version": 1, "devices": {"a": ' + b"[" * size + b"]" * size + b"}}"


HUGE: dict[str, Body] = {
    "empty lists": lambda: (
        b'{"version": 1, "devices": [' + b"[]," * 5_000_000 + b"[]]}"
    ),
    "keys": lambda: (
        b'{"version": 1, "devices": {'
        + b",".join(b'"%d":{}' % n for n in range(1_000_000))
        + b"}}"
    ),
    "brackets": lambda: nested(8_000_000),
    "zeros": lambda: bytes(40_000_000),
    "a number": lambda: b'{"version": 1, "runs": ' + b"9" * 30_000_000 + b"}",
    "a text": lambda: b'{"version": 1, "gateway": "' + b"x" * 30_000_000 + b'"}',
}


@pytest.mark.drill("memory")
@pytest.mark.case("S14")
@pytest.mark.parametrize(
    "what",
    ["empty lists", *(pytest.param(e, marks=pytest.mark.late) for e in list(HUGE)[1:])],
)
@pytest.mark.parametrize("name", ["state.json", "account.json"])
def test_a_huge_file_in_place_of_ours(
    name, what, account, environ, fleet, cloud, tmp_path
):
    """It is told and kept aside, and its size does not become our memory."""
    settings = environ if name == "state.json" else account
    assert push(settings).status == 0
    (file,) = Path(settings["STATE_DIR"]).rglob(name)
    file.write_bytes(HUGE[what]())

    run, peak = push_watched(settings, tmp_path)

    assert run.status == 0, run.stderr
    assert peak <= MOST, f"{peak >> 20} MiB"
    assert f"{name}.damaged" in run.stderr
    assert push(settings).stderr.count("\n") == 1
