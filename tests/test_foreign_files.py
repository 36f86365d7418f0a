"""What somebody else put where our files are: it hangs nothing, and is not written."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ecoflow_push.memory.files import release, replace_file
from ecoflow_push.memory.lock import hold, is_held
from ecoflow_push.memory.state import State
from tests.conftest import DELTA
from tests.support import Run, push

PRECIOUS = b"precious, and not the program's\n" * 40
#: How something foreign is made under a name, given what it must not touch.
KINDS: dict[str, Callable[[Path, Path], object]] = {
    "FIFO": lambda path, _: os.mkfifo(path, 0o600),
    "symbolic link": lambda path, victim: path.symlink_to(victim),
    "dangling link": lambda path, victim: path.symlink_to(victim.parent / "nowhere"),
    "hard link": lambda path, victim: path.hardlink_to(victim),
    "folder": lambda path, _: path.mkdir(),
}
SPOOL, SN = "spool-*", DELTA.sn
#: Where: of the state folder, of an endpoint's spool in it, beside the text file.
PLACES = (
    *("lock", "state.json", ".state.json.tmp", "notes"),
    *(f"{SPOOL}/last/{SN}", f"{SPOOL}/last/.{SN}.tmp", f"{SPOOL}/bad/.x.tmp"),
    *(f"{SPOOL}/001764057600123.4.{SN}", f"{SPOOL}/.001764057600123.4.{SN}.tmp"),
    *("../../text.prom", "../../.text.prom.tmp"),
)


@pytest.fixture
def victim(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    file = folder / "victim"
    file.write_bytes(PRECIOUS)
    file.chmod(0o644)
    yield file
    assert file.read_bytes() == PRECIOUS
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    # A link that leads nowhere leads nowhere still.
    assert os.listdir(folder) == ["victim"]


def plant(kind: str, folder: Path, place: str, victim: Path) -> Path:
    """Put something foreign where a file of ours is, or may come to be."""
    parent, _, name = place.rpartition("/")
    (found,) = folder.glob(parent) if parent else (folder,)
    path = found / name
    path.unlink(missing_ok=True)
    KINDS[kind](path, victim)
    return path


def assert_decent(run: Run) -> None:
    assert run.status in (0, 1, 74, 75), run
    assert run.stderr.count(" exit ") == 1, run.stderr
    assert "bug" not in run.stderr


@pytest.mark.case("S1", "S10", "L4")
@pytest.mark.parametrize(
    ("place", "kind"),
    # A folder in the text file's place is a fault of the settings.
    sorted({*product(PLACES, KINDS)} - {("../../text.prom", "folder")}),
)
def test_what_is_planted_hangs_nothing(place, kind, written, receiver, victim):
    """Under each name, nothing foreign hangs a run, is written to or leads away."""
    text = Path(written["STATE_DIR"]).parent / "text.prom"
    written |= {"TEXTFILE_PATH": str(text), "RUN_DEADLINE": "10"}
    assert push(written, timeout=30).status == 0
    (folder,) = Path(written["STATE_DIR"]).iterdir()
    path = plant(kind, folder, place, victim)

    runs = [push(written, timeout=30) for _ in range(2)]

    for run in runs:
        assert_decent(run)
    assert "remote-write: ok" in runs[-1].stderr
    # What was collected was delivered, whatever is remembered of it.
    assert receiver.requests
    if place.endswith(".tmp") and kind != "folder":
        assert [run.status for run in runs] == [0, 0]
        assert not os.path.lexists(path)


@pytest.mark.case("M13")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["account.json", ".account.json.tmp"])
def test_what_is_planted_for_the_login(name, kind, account, fleet, victim):
    """A login is neither read from what is foreign, nor written into it."""
    assert push(account).status == 0
    (folder,) = Path(account["STATE_DIR"]).iterdir()
    path = plant(kind, folder, name, victim)

    run = push(account)

    assert run.status == 0, run
    assert_decent(run)
    if name == "account.json":
        assert not path.is_symlink()


@pytest.mark.parametrize("kind", ["symbolic link", "dangling link"])
def test_a_text_file_that_is_a_link(kind, environ, victim, tmp_path):
    """It is refused with what to do, by a run and by --check, and stays as it is."""
    link = tmp_path / "text.prom"
    KINDS[kind](link, victim)
    environ["TEXTFILE_PATH"] = str(link)
    del environ["PUSHGATEWAY_URL"]

    run, check = push(environ), push(environ, "--check")

    assert (run.status, check.status) == (74, 74)
    for said in (run.stderr, check.stdout):
        assert "a symbolic link: let TEXTFILE_PATH name the file" in said
    assert link.is_symlink()


def test_the_look_at_the_lock_does_not_hang(tmp_path):
    """The early look, which nothing bounds, passes by what is no file."""
    os.mkfifo(tmp_path / "lock", 0o600)

    assert not is_held(str(tmp_path))
    with pytest.raises(OSError, match="not a regular file"):
        hold(str(tmp_path))


def test_a_temporary_file_that_cannot_be_removed(tmp_path, victim):
    """Beside what stays under its temporary name, a file is written all the same."""
    path = tmp_path / "file"
    (tmp_path / ".file.tmp" / "full").mkdir(parents=True)

    replace_file(str(path), b"new", 0o600)

    assert path.read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == [".file.tmp", "elsewhere", "file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else")
def test_the_file_is_looked_at_where_the_folder_cannot_be():
    """Who cannot lock the folder sees by its file that another run is at work."""
    with TemporaryDirectory() as folder:
        for descriptor in hold(folder):
            release(descriptor)
        lock = Path(folder, "lock")
        lock.chmod(0o644)
        lock.parent.chmod(0o711)
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            child = os.fork()
            if child == 0:
                os.setresuid(20_001, 20_001, 20_001)
                os._exit(is_held(folder))
            _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 1


@pytest.mark.case("K14")
@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702, 0o1777])
def test_a_folder_that_others_can_write_to(mode, tmp_path, caplog):
    """A state folder of ours is made private, with one warning."""
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(mode)

    with State.open(str(folder)) as state:
        state.save()
    State.open(str(folder)).close()

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (record,) = caplog.records
    assert f"{folder} could be written to by others" in record.getMessage()


@pytest.mark.case("S1", "S15")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_a_folder_of_somebody_else(tmp_path, caplog):
    """One that is not ours is told once a day, and stays as it is."""
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(0o770)
    os.chown(folder, 20_001, -1)

    for _ in range(3):
        with State.open(str(folder)) as state:
            assert state.trouble == ""
            state.save()

    assert stat.S_IMODE(folder.stat().st_mode) == 0o770
    (record,) = caplog.records
    assert "can be written to by others: let STATE_DIR name" in record.getMessage()


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o750])
def test_a_folder_that_others_can_only_read(mode, tmp_path, caplog):
    """Where nobody else can write, nothing is told or changed."""
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(mode)

    State.open(str(folder)).close()

    assert stat.S_IMODE(folder.stat().st_mode) == mode
    assert caplog.records == []


@pytest.mark.case("L4")
def test_a_lock_of_another_name_is_a_lock(tmp_path):
    """Of the lock nothing is written, so that a hard link to it harms nobody."""
    held = hold(str(tmp_path))
    (tmp_path / "other").hardlink_to(tmp_path / "lock")

    assert is_held(str(tmp_path))
    for descriptor in held:
        release(descriptor)
    assert not is_held(str(tmp_path))
