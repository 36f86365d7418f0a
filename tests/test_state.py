"""The state folder."""

import os
import threading

import pytest

from ecoflow_push.errors import LockedError
from ecoflow_push.memory.files import replace_file
from ecoflow_push.memory.state import (
    MOST_REFUSALS,
    REFUSED_WAIT_SECONDS,
    DeviceRecord,
    State,
    state_folder,
)


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


def test_a_pause_ends_and_cannot_be_for_ever():
    """EcoFlow's pause is obeyed while it lasts, and never beyond its cap."""
    state = State()
    state.pause_until = 1600.0

    assert state.pause_for(1000.0) == 600
    assert state.pause_for(1600.0) == 0
    assert state.pause_for(100.0) == 0


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


def test_a_planted_link_is_not_followed(tmp_path):
    """A link in place of the temporary file or the lock leads nowhere."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".state.json.tmp").symlink_to(victim)
    (tmp_path / "lock").symlink_to(victim)

    with pytest.raises(OSError, match="symbolic links"):
        replace_file(str(tmp_path / "state.json"), b"x", 0o600)

    assert State.open(str(tmp_path)).trouble
    assert victim.read_text() == "precious"
