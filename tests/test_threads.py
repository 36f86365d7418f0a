"""What all threads of a run for many accounts share, and none may spoil."""

from __future__ import annotations

import os
import stat
import sys
import threading
import tracemalloc

import pytest

from ecoflow_push.memory.files import release
from ecoflow_push.memory.lock import hold
from ecoflow_push.memory.spool import Spool
from ecoflow_push.metrics.record import Record

THREADS = 8


@pytest.fixture
def eager():
    """Threads that take turns as often as Python lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(work):
    """Do it in some threads at the same time; raise what one of them raises."""
    raised = []

    def task(number):
        try:
            work(number)
        except Exception as exc:  # noqa: BLE001 - carried to who waits
            raised.append(exc)

    threads = [threading.Thread(target=task, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


@pytest.mark.usefixtures("eager")
def test_folders_that_are_made_at_once_are_private(tmp_path):
    """Each is 0700, whatever the umask, and the process keeps the one it had."""

    def make(number):
        for turn in range(40):
            folder = str(tmp_path / f"state-{turn}" / f"{number:012}")
            for each in hold(folder):
                release(each)
            Spool(os.path.join(folder, "spool-0")).files.make()

    before = os.umask(0o002)
    try:
        together(make)
        after = os.umask(0o002)
    finally:
        os.umask(before)

    assert after == 0o002
    modes = {
        stat.S_IMODE(os.stat(os.path.join(place, name)).st_mode)
        for place, names, _ in os.walk(tmp_path)
        for name in names
    }
    assert modes == {0o700}


@pytest.mark.usefixtures("eager")
def test_shapes_that_come_at_once_take_bounded_room():
    """However many shapes of records come from how many threads, few are kept."""

    def encode(number):
        for turn in range(100):
            names = tuple(f"m_{number}_{turn}_{n}" for n in range(50))
            nothing = (0,) * 50
            sets = [(("device", "R331"),)]
            kinds = (("gauge", ""),)
            Record(1, sets, kinds, names, nothing, nothing, nothing, ()).to_bytes()

    tracemalloc.start()
    try:
        together(encode)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # A shape takes 6 kB or so, and there were 800 of them.
    assert taken < 2_000_000
