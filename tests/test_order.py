"""Whose turn it is where there is no time for all."""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest

from ecoflow_push.config.accounts import Account
from ecoflow_push.memory.lock import state_folder
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.run.members import Members
from ecoflow_push.run.order import Order, Turn

NAMES = [f"a{n:02}" for n in range(12)]


@pytest.fixture
def members(tmp_path):
    """Twelve accounts, of which four are worked at the same time."""
    return members_in(str(tmp_path))


def members_in(place):
    def folder_of(account):
        return place and state_folder(place, account.name)

    accounts = [Account(name) for name in NAMES]
    for account in accounts:
        if folder := folder_of(account):
            os.makedirs(folder)
    return Members(
        accounts,
        None,
        4,
        folder=place,
        folder_of=folder_of,
        settings_of=lambda _: pytest.fail("nobody asks for settings"),
    )


def run(members, turns, hung=()):
    """Return whose the turns of one run were; those that are hung use up their time."""
    order = Order(members, Deadline(60))
    served = []
    for _ in range(turns):
        turn = order.next()
        assert turn
        served.append(turn.account.name)
        if turn.account.name in hung:
            order.is_late(turn.account)
        if folder := members.folder_of(turn.account):
            touch(folder)
    order.rest()
    return served


def touch(folder, ahead=0.0):
    path = os.path.join(folder, "state.json")
    with open(path, "w", encoding="utf-8"):
        pass
    at = time.time() + ahead
    os.utime(path, (at, at))


def test_nobody_waits_for_ever(members):
    """Whoever used up his time is the last one, and yet has a turn again."""
    hung = {"a00", "a01", "a02"}
    runs = [run(members, 6, hung) for _ in range(8)]

    turns = Counter(name for served in runs for name in served)
    assert set(turns) == set(NAMES)
    assert all(turns[name] >= 3 for name in set(NAMES) - hung)
    assert all(turns[name] >= 2 for name in hung)
    # From the second run on, at most half of what is worked at once.
    assert max(len(hung & set(served)) for served in runs[1:]) <= 2


def test_who_has_a_turn_in_each_run_keeps_the_last_place(members):
    """While there is time for all, one that hangs comes after all others."""
    run(members, 12, {"a00"})

    assert [run(members, 12, {"a00"})[-1] for _ in range(3)] == ["a00"] * 3


def test_a_turn_that_the_run_cut_short_is_nobody_s_fault(members):
    """It used up what it had, which was less than its due."""
    found = []
    for is_cut in (True, False):
        order = Order(members, Deadline(60))
        turn = Turn(members.accounts[3], 0.02, is_cut=is_cut)
        time.sleep(0.03)
        order.end(turn)
        order.rest()
        found.append(run(members, 12)[-1])

    assert found == ["a11", "a03"]


def test_a_run_of_half_a_second_has_turns(members):
    """A schedule of a run a second leaves an account less than it should have."""
    order = Order(members, Deadline(0.45))

    assert order.next()
    time.sleep(0.4)
    assert order.next() is None


def test_a_clock_that_was_wrong_lets_nobody_wait(members):
    """Turns that are to come were not: who had one then is not always the last."""
    for account in members.accounts:
        touch(members.folder_of(account), ahead=1e6)

    runs = [run(members, 6) for _ in range(2)]

    assert runs == [NAMES[:6], NAMES[6:]]


def test_without_a_memory_chance_decides():
    """Nobody knows whose turn it is; it is not the same ones' each time."""
    members = members_in(None)
    runs = [run(members, 6) for _ in range(40)]

    assert {name for served in runs for name in served} == set(NAMES)
