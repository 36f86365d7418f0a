"""The state folder."""

import json
import os
import threading
from pathlib import Path

import pytest

from ecoflow_push.config.environ import Reader
from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import LockedError
from ecoflow_push.memory.files import NewerFile, read_json, replace_file, write_json
from ecoflow_push.memory.lock import is_held, state_folder
from ecoflow_push.memory.records import DeviceRecord
from ecoflow_push.memory.state import MOST_REFUSALS, REFUSED_WAIT_SECONDS, State
from ecoflow_push.start.lock_probe import _folder
from tests.test_settings import ACCOUNT, BASE


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "a" / "b")


def test_what_is_saved_comes_back(folder):
    """Names, times and refusals survive to the next run."""
    state = State.open(folder)
    record = state.devices["SN1"] = DeviceRecord()
    record.name, record.snapshot_at, record.named = "Garage", 1700000000.25, True
    state.last_success_at = 1700000001.5
    for _ in range(MOST_REFUSALS):
        state.refused("keys", 1000.0)
    state.save()
    state.close()

    again = State.open(folder)

    assert again.devices["SN1"].fields() == record.fields()
    assert again.last_success_at == 1700000001.5
    assert again.refused_for("keys", 1100.0) == REFUSED_WAIT_SECONDS - 100
    again.close()


def test_one_run_at_a_time(folder):
    """A second holder is refused until the first lets go."""
    first = State.open(folder)
    with pytest.raises(LockedError):
        State.open(folder)

    first.close()

    State.open(folder).close()


def test_looking_at_the_lock_makes_nothing(folder):
    """Whether a lock is held is seen without making a folder or taking the lock."""
    assert not is_held(folder)
    assert not os.path.exists(folder)

    with State.open(folder):
        assert is_held(folder)
        assert is_held(folder)

    assert not is_held(folder)


@pytest.mark.parametrize(
    "change",
    [
        {},
        ACCOUNT,
        {**ACCOUNT, "ECOFLOW_ACCESS_KEY": "", "ECOFLOW_SECRET_KEY": ""},
        {"ECOFLOW_API_HOST": "api-e.ecoflow.com"},
        {"ECOFLOW_API_HOST": "http://127.0.0.1:8080/"},
        {"PUSH_JOB": "cabin", "STATE_DIR": "/mine"},
    ],
    ids=str,
)
def test_the_probe_looks_where_a_run_locks(change):
    """The cheap look at the lock is at the folder that the settings lead to."""
    environ = {**BASE, "ECOFLOW_SOURCE": "mqtt" if change == ACCOUNT else "", **change}
    found = Settings.from_environ(environ)
    identity = (found.api_url, found.account, found.job)

    assert found.state_dir
    assert _folder(Reader(environ)) == state_folder(found.state_dir, *identity)


@pytest.mark.case("N15")
def test_the_breaker_opens_after_three_refusals_of_the_same_keys():
    """Three refusals in a row, of these very keys, not two and not of others."""
    state = State()
    for _ in range(MOST_REFUSALS - 1):
        state.refused("keys", 1000.0)
    assert state.refused_for("keys", 1000.0) == 0

    state.refused("keys", 1000.0)

    assert state.refused_for("keys", 1000.0) == REFUSED_WAIT_SECONDS
    assert state.refused_for("others", 1000.0) == 0
    assert state.refused_for("keys", 1000.0 + REFUSED_WAIT_SECONDS) == 0
    # A clock that went back must not silence us for as long as it likes.
    assert state.refused_for("keys", 500.0) == 0
    state.refused("others", 1000.0)
    assert state.refused_for("others", 1000.0) == 0
    state.accepted()
    assert state.refused_for("keys", 1000.0) == 0


@pytest.mark.case("N13")
def test_a_pause_ends_and_cannot_be_for_ever():
    """EcoFlow's pause is obeyed while it lasts, and never beyond its cap."""
    state = State()
    state.pauses["rest"] = 1600.0

    assert state.pause_for("rest", 1000.0) == 600
    assert state.pause_for("rest", 1600.0) == 0
    assert state.pause_for("rest", 100.0) == 0
    assert state.pause_for("mqtt", 1000.0) == 0


def test_accounts_and_jobs_have_folders_of_their_own():
    """The folder's name is 12 hex that differ by host, account and job."""
    names = {
        state_folder("/s", host, user, job)
        for host in ("h1", "h2")
        for user in ("u1", "u2")
        for job in ("j1", "j2")
    }

    assert len(names) == 8
    assert all(len(os.path.basename(name)) == 12 for name in names)


@pytest.mark.case("M12", "S6")
def test_a_reader_never_sees_half_a_file(tmp_path):
    """While a file is replaced again and again, a reader sees it whole each time."""
    path = str(tmp_path / "file")
    contents = {bytes([n]) * 100_000 for n in range(1, 5)}
    replace_file(path, min(contents), 0o600)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for content in contents:
                replace_file(path, content, 0o600)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            with open(path, "rb") as file:
                assert file.read() in contents
    finally:
        stop.set()
        writer.join()


@pytest.mark.case("L4")
def test_a_planted_link_is_not_followed(tmp_path):
    """A link in place of the temporary file or the lock leads nowhere."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".state.json.tmp").symlink_to(victim)
    (tmp_path / "lock").symlink_to(victim)

    replace_file(str(tmp_path / "state.json"), b"x", 0o600)

    assert State.open(str(tmp_path)).trouble
    assert victim.read_text() == "precious"


OLD = {
    "version": 1,
    "devices": {"SN1": {"name": "Garage", "snapshot_at": 1700000000.25, "named": True}},
    "last_success_at": 1700000001.5,
    "pause_until": None,
    "dropped": {"expired": 3},
    "runs": 7,
    "failures": {"push": 2},
    "endpoints": [{"name": "e1", "version": "2", "has_taken": True}],
    "gateway": "abc",
    "refusals": 0,
    "refused_at": None,
    "refused_keys": "",
}


def said_once(caplog: pytest.LogCaptureFixture) -> str:
    """Return the one warning of the log."""
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    caplog.clear()
    return record.getMessage()


@pytest.mark.case("S11")
def test_a_file_of_before_is_loaded(tmp_path, caplog):
    """A file that an older release wrote, without a sum, is believed as it was."""
    (tmp_path / "state.json").write_text(json.dumps(OLD))

    with State.open(str(tmp_path)) as state:
        assert state.runs == 7
        assert state.failures == {"push": 2}
        assert state.dropped == {"expired": 3}
        assert state.devices["SN1"].name == "Garage"
        assert state.devices["SN1"].snapshot_at == 1700000000.25
        state.use_endpoint("e1")
        assert state.endpoint.version == "2"
        state.save()

    written = json.loads((tmp_path / "state.json").read_text())
    assert written["version"] == OLD["version"]
    assert OLD.keys() < written.keys()
    assert not caplog.records


@pytest.mark.case("S14")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 512,
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"runs": 7}',
        b'{"version": 0}',
        b'{"version": true}',
        b'{"version": "1"}',
        b'{"version": 1, "runs": 7, "crc": 1}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
    ids=lambda content: repr(content[:40]),
)
def test_a_damaged_state_is_kept_aside(content, tmp_path, caplog):
    """What is no state is kept under another name, with one warning, and not lost."""
    file = tmp_path / "state.json"
    file.write_bytes(content)

    with State.open(str(tmp_path)) as state:
        assert state.trouble == ""
        assert (state.runs, state.devices) == (0, {})
        said = said_once(caplog)
        state.runs = 1
        state.save()

    assert str(file) in said
    assert "state.json.damaged" in said
    assert "totals" in said
    assert "nothing needs to be done" in said
    assert (tmp_path / "state.json.damaged").read_bytes() == content
    with State.open(str(tmp_path)) as again:
        assert again.runs == 1
    assert not caplog.records


@pytest.mark.case("S14")
def test_no_damage_goes_unsaid(tmp_path, caplog):
    """A file with any byte flipped, or cut anywhere, is told of, or tells the same."""
    whole = tmp_path / "whole"
    write_json(str(whole), 1, {"devices": {"SN1": {"name": "Garage"}}, "runs": 7})
    content = whole.read_bytes()
    meant = read_json(str(whole), 1, "all")
    assert meant
    flips = [(at, bit) for at in range(len(content)) for bit in range(8)]
    damaged = [content[:length] for length in range(len(content))]
    for at, bit in flips:
        damaged.append(bytearray(content))
        damaged[-1][at] ^= 1 << bit
    file = tmp_path / "file"
    aside = tmp_path / "file.damaged"
    believed = 0
    for each in damaged:
        file.write_bytes(each)
        try:
            found = read_json(str(file), 1, "all")
        except NewerFile:
            assert file.read_bytes() == each
            continue
        if found is None:
            assert aside.read_bytes() == each
            aside.unlink()
            said_once(caplog)
        else:
            # The sum's own name is damaged: all else is as it was written.
            believed += 1
            assert {name: found[name] for name in meant} == meant
    assert believed < len("crc") * 8


def test_a_newer_file_is_never_written(tmp_path, caplog):
    """A newer version's state stays as it is; the run goes on without a memory."""
    file = tmp_path / "state.json"
    file.write_text(json.dumps({**OLD, "version": 2, "wonder": []}))
    before = file.read_bytes()

    with State.open(str(tmp_path)) as state:
        assert "newer version" in state.trouble
        assert state.cure == "update this program, or let STATE_DIR name another folder"
        assert state.devices == {}
        state.save()
        state.save()
        # It still is one run at a time.
        with pytest.raises(LockedError):
            State.open(str(tmp_path))

    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "state.json"]
    assert not caplog.records


def test_a_state_that_cannot_be_read_is_not_written(tmp_path):
    """What stands under the name and is no file is trouble, and is left alone."""
    for make in (Path.mkdir, os.mkfifo, lambda path: path.symlink_to(tmp_path)):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        make(folder / "state.json")

        with State.open(str(folder)) as state:
            assert state.trouble.startswith("cannot read the state folder")
            state.save()

        assert {path.name for path in folder.iterdir()} == {"lock", "state.json"}


def test_damage_that_cannot_be_kept_aside_is_not_overwritten(tmp_path):
    """Where the damaged file cannot be renamed, it is trouble and stays."""
    (tmp_path / "state.json").write_bytes(b"{")
    (tmp_path / "state.json.damaged").mkdir()

    with State.open(str(tmp_path)) as state:
        assert state.trouble.startswith("cannot read the state folder")
        state.save()

    assert (tmp_path / "state.json").read_bytes() == b"{"


def test_content_may_come_in_pieces(tmp_path):
    """A file is written from pieces as from one, and not at all if they fail."""
    path = tmp_path / "file"
    replace_file(str(path), iter([b"a", b"", b"bc"]), 0o644)

    def failing():
        yield b"half"
        raise ValueError

    with pytest.raises(ValueError):
        replace_file(str(path), failing(), 0o644)

    assert path.read_bytes() == b"abc"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
