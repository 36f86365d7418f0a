"""Runs for many accounts: what each costs the others, and what is told of them all."""

from __future__ import annotations

import os
import re
import socket
import time
from collections import Counter
from contextlib import suppress

import pytest

from ecoflow_push import DOCS
from ecoflow_push.errors import LockedError
from ecoflow_push.memory.files import release
from ecoflow_push.memory.lock import hold
from ecoflow_push.memory.state import State
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.accounts import AppUser, SimulatedAccount
from tests.fleets import Fleet, samples_of, totals_of
from tests.support import eventually, free_port, parse, push, push_anew
from tests.test_limits import limited
from tests.test_loop import lines, served, staying, until


@pytest.fixture
def fleet(cloud, environ, tmp_path):
    return Fleet(cloud, tmp_path / "accounts", environ)


@pytest.fixture
def pushed(fleet, pushgateway):
    """A fleet whose values go to the real Pushgateway."""
    fleet.environ["PUSHGATEWAY_URL"] = pushgateway.url
    return fleet


@pytest.fixture
def written(fleet, receiver):
    """A fleet whose values go to the receiver."""
    fleet.environ["REMOTE_WRITE_URL"] = receiver.write_url
    fleet.environ["ESTABLISH_ATTEMPTS"] = "2"
    return fleet


def said_of(run, name):
    """Return the lines that begin with an account's name."""
    lines = run.stderr.splitlines()
    return [line for line in lines if f" account {name}: " in line]


def value(series, name, **labels):
    """Return the one value of a metric with these labels among its own."""
    found = [
        value
        for (metric, own), value in series.items()
        if metric == name and labels.items() <= dict(own).items()
    ]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def values_of(receiver, name):
    """Return what was taken of a metric, by account, in the order in which it came."""
    found: dict[str, list[float]] = {}
    for sample in samples_of(receiver):
        if sample.name == name and not sample.is_stale:
            found.setdefault(sample.label("account"), []).append(sample.value)
    return found


def test_every_device_has_the_label_of_its_account(pushed, pushgateway):
    """All accounts are read in one run, and one group tells of it."""
    pushed.add("home", "barn", devices=2)
    pushed.add("mill")

    run = push(pushed.environ)

    assert run.status == 0
    assert len(run.stderr.splitlines()) == 1
    assert "accounts: 3 ok; devices: 5 ok; 10 samples; pushgateway: ok" in run.stderr
    groups = pushgateway.groups()
    accounts: Counter[str] = Counter()
    for series in pushgateway.devices().values():
        accounts[dict(next(iter(series))[1])["account"]] += 1
    assert accounts == {"home": 2, "barn": 2, "mill": 1}
    assert sum(each["job"] == "ecoflow_push" for each in groups.values()) == 1
    own = pushgateway.run()
    assert own["ecoflow_push_accounts ok"] == 3
    assert not any("shard" in name for name in own)


def test_each_shard_tells_of_itself(pushed, pushgateway):
    """The run's own series have the shard in their labels and in their group's key."""
    pushed.add("home", "barn", "mill", "farm")
    runs = []
    for index in ("0", "1", "2"):
        part = {"SHARD_COUNT": "3", "JOB_COMPLETION_INDEX": index}
        runs.append(push({**pushed.environ, **part}))

    assert [run.status for run in runs] == [0, 0, 0]
    series = pushgateway.series()
    each = [value(series, "ecoflow_push_shards", shard=i) for i in ("0", "1", "2")]
    assert each == [3, 3, 3]
    ok = [value(series, "ecoflow_push_accounts", shard=i, state="ok") for i in "012"]
    assert sum(ok) == 4
    assert len(pushgateway.devices()) == 4


def test_a_shard_without_accounts_ends_at_once(pushed, pushgateway, cloud):
    """It ends with 0, contacts nobody at EcoFlow, and tells of itself."""
    pushed.add("home")
    statuses = set()
    for index in range(4):
        part = {"SHARD_COUNT": "4", "SHARD_INDEX": str(index)}
        run = push({**pushed.environ, **part})
        statuses.add((run.status, "accounts: none" in run.stderr))

    assert statuses == {(0, True), (0, False)}
    assert pushed.accounts["home"].requests == 2
    series = pushgateway.series()
    assert all(value(series, "ecoflow_push_success", shard=i) == 1 for i in "0123")


def test_four_are_ill_among_fifty(written, receiver, tmp_path):
    """A hung, a refused, a broken and a locked account cost the others nothing."""
    written.add(*(f"good-{n}" for n in range(50)), "hung", "keys", "broken", "locked")
    written.accounts["hung"].fail("", faults.hang())
    written.accounts["keys"].fail("", faults.code("8513", "accessKey is invalid"))
    (written.folder / "broken.env").write_text("ECOFLOW_ACCESS_KEY\n")
    locks = hold(str(written.state("locked")))
    run = push({**written.environ, "RUN_DEADLINE": "12"})
    for each in locks:
        release(each)

    assert run.status == 1
    words = {
        "hung": "exit 75 TEMPFAIL",
        "keys": "exit 77 NOPERM",
        "broken": "exit 78 CONFIG: settings: broken.env line 1",
        "locked": "exit 75 TEMPFAIL: another run is still at work",
    }
    for name, text in words.items():
        (line,) = said_of(run, name)
        assert f"account {name}: {text}" in line
    assert len(run.stderr.splitlines()) == 5
    assert "accounts: 50 ok, 3 failed, 1 locked; devices: 50 ok" in run.stderr
    taken = values_of(receiver, "ecoflow_pd_soc")
    assert taken == {f"good-{n}": [n] for n in range(50)}
    own = {
        (sample.name, sample.label("state")): sample.value
        for sample in samples_of(receiver)
        if sample.label("job") == "ecoflow_push"
    }
    assert own["ecoflow_push_accounts", "ok"] == 50
    assert own["ecoflow_push_accounts", "failed"] == 3
    assert own["ecoflow_push_accounts", "locked"] == 1
    assert own["ecoflow_push_exit_status", ""] == 1


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (faults.code("8513", "accessKey is invalid"), 77),
        (faults.status(503), 69),
        (faults.hang(), 75),
    ],
)
def test_all_are_ill(fault, status, pushed, pushgateway):
    """Where all accounts end so, the run ends as one of them would."""
    pushed.add("home", "barn", "mill")
    for account in pushed.accounts.values():
        account.fail("", fault)

    run = push({**pushed.environ, "RUN_DEADLINE": "3", "ESTABLISH_ATTEMPTS": "1"})

    assert run.status == status
    assert pushgateway.run()["ecoflow_push_exit_status"] == status
    assert pushgateway.run()["ecoflow_push_accounts failed"] == 3


def test_what_a_run_can_help_is_told_before_what_it_cannot(written, receiver):
    """While the receiver is away it is 75, though an account's file is broken (78)."""
    written.add("home", "barn")
    (written.folder / "broken.env").write_text("ECOFLOW_ACCESS_KEY\n")
    receiver.fail("write", faults.status(503))

    assert push(written.environ).status == 75


def test_all_are_locked(pushed, pushgateway):
    """Where other runs hold all accounts, it is 75."""
    pushed.add("home", "barn")
    locks = [*hold(str(pushed.state("home"))), *hold(str(pushed.state("barn")))]
    run = push(pushed.environ)
    for each in locks:
        release(each)

    assert run.status == 75
    assert pushgateway.run()["ecoflow_push_accounts locked"] == 2
    assert pushgateway.devices() == {}


def test_two_runs_for_the_same_accounts(pushed, pushgateway):
    """While one is at work, a second one leaves, and tells nobody else."""
    pushed.add("home")
    first = push(pushed.environ)
    folder = next(
        path
        for path in (
            os.path.join(pushed.environ["STATE_DIR"], name)
            for name in os.listdir(pushed.environ["STATE_DIR"])
        )
        if os.path.isdir(path) and path != str(pushed.state("home"))
    )
    locks = hold(folder)
    before = pushgateway.series()
    second = push(pushed.environ)
    for each in locks:
        release(each)

    assert (first.status, second.status) == (0, 75)
    assert pushgateway.series() == before


def test_the_longest_unserved_come_first(written):
    """The order is that of the ends of their last turns, new accounts before all."""
    written.add("a", "b", "c", "d")
    environ = {**written.environ, "ACCOUNTS_AT_ONCE": "1"}
    assert push(environ).status == 0
    for age, name in enumerate(("c", "a", "d", "b")):
        at = time.time() - 1000 + age
        os.utime(written.state(name) / "state.json", (at, at))
    written.add("e")
    written.cloud.received.clear()
    assert push(environ).status == 0

    keys = {each.keys.access_key: n for n, each in written.accounts.items()}
    order = [keys[r.headers["accesskey"]] for r in written.cloud.received]
    assert list(dict.fromkeys(order)) == ["e", "c", "a", "d", "b"]


def test_a_hung_account_costs_its_own_share(written, receiver):
    """With one at a time, a hung one takes its part of the time, and leaves the rest.

    The next time it is the last one, and the one after that, though it was served
    before the others.
    """
    written.add("a-hung", "b", "c", "d")
    written.accounts["a-hung"].fail("", faults.hang())
    environ = {
        **written.environ,
        "ACCOUNTS_AT_ONCE": "1",
        "RUN_DEADLINE": "12",
    }
    first = push(environ)
    assert first.status == 1
    assert "accounts: 3 ok, 1 failed" in first.stderr
    assert set(values_of(receiver, "ecoflow_pd_soc")) == {"b", "c", "d"}
    for _ in range(2):
        written.cloud.received.clear()
        assert push(environ).status == 1
        last = written.cloud.received[-1].headers["accesskey"]
        assert last == written.accounts["a-hung"].keys.access_key
    written.accounts["a-hung"].heal()
    assert push(environ).status == 0
    assert push(environ).status == 0
    assert [path.read_text() for path in written.states("late")] == [""]


def test_there_is_no_time_for_all(written):
    """Those that were not begun are told in one line, and the run is 75."""
    written.add(*"abcdefgh")
    for account in written.accounts.values():
        account.fail("", faults.hang())
    environ = {**written.environ, "ACCOUNTS_AT_ONCE": "1", "RUN_DEADLINE": "1"}

    run = push(environ)

    assert run.status == 75
    (left,) = (line for line in run.stderr.splitlines() if "no time left" in line)
    assert re.search(r" accounts .*\bg, h: exit 75 TEMPFAIL: no time left", left)


def test_a_text_file_has_all_accounts(fleet, tmp_path):
    """One file has the devices of all accounts, and one run's own series."""
    fleet.add("home", "barn", "mill", devices=3)
    path = tmp_path / "all.prom"

    run = push(
        {
            **fleet.environ,
            "TEXTFILE_PATH": str(path),
            "SHARD_COUNT": "1",
            "SHARD_INDEX": "0",
        }
    )

    assert run.status == 0
    text = path.read_text()
    heads = Counter(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    assert set(heads.values()) == {1}
    series = parse(text)
    accounts = Counter(
        dict(labels)["account"] for name, labels in series if name == "ecoflow_online"
    )
    assert accounts == {"home": 3, "barn": 3, "mill": 3}
    assert value(series, "ecoflow_push_accounts", state="ok", shard="0") == 3
    assert value(series, "ecoflow_push_samples") == 18


def test_an_outage_loses_nothing(written, receiver):
    """What the receiver did not take waits per account, and goes out once."""
    written.add("home", "barn", "mill")
    receiver.fail("write", faults.status(503))
    down = push(written.environ)
    assert down.status == 75
    assert samples_of(receiver) == []
    for account in written.accounts.values():
        account.devices[0].quotas["pd.soc"] += 10
    receiver.heal()
    up = push(written.environ)

    assert up.status == 0
    expected = {"home": [0, 10], "barn": [1, 11], "mill": [2, 12]}
    assert values_of(receiver, "ecoflow_pd_soc") == expected
    totals = [
        s.value for s in samples_of(receiver) if s.name == "ecoflow_push_runs_total"
    ]
    assert totals == [2]


def test_a_receiver_that_hangs_takes_no_time_from_the_accounts(written, receiver):
    """Two wait for it in vain; all others are read, and what they have waits."""
    names = [f"a-{n}" for n in range(16)]
    written.add(*names)
    receiver.fail("write", faults.hang())
    environ = {**written.environ, "ACCOUNTS_AT_ONCE": "2", "RUN_DEADLINE": "12"}
    down = push(environ)

    assert down.status == 75
    assert "devices: 16 ok" in down.stderr
    assert samples_of(receiver) == []
    receiver.heal()
    assert push(environ).status == 0
    expected = {name: [float(n)] * 2 for n, name in enumerate(names)}
    assert values_of(receiver, "ecoflow_pd_soc") == expected


def test_what_is_lost_is_counted_once(written, receiver):
    """The total of a run's own series never falls, whichever accounts are locked."""
    written.add("home", "barn")
    environ = {**written.environ, "SPOOL_MAX_AGE": "0.1"}

    def lose() -> None:
        receiver.fail("write", faults.status(503))
        push(environ)
        receiver.heal()
        time.sleep(0.2)
        push(environ)

    lose()
    locks = hold(str(written.state("barn")))
    push(environ)
    lose()
    for each in locks:
        release(each)
    push(environ)

    assert totals_of(receiver) == [10, 10, 15, 15]


def test_two_that_hang_alone_cost_the_others_nothing(written, receiver):
    """Whoever comes after them tries again, and is taken in the same run."""
    written.add("a", "b", "c", "d", "e", "f")
    receiver.script = [faults.hang()] * 2

    run = push({**written.environ, "ACCOUNTS_AT_ONCE": "1", "RUN_DEADLINE": "10"})

    assert run.status == 1
    assert "accounts: 4 ok, 2 failed" in run.stderr
    assert set(values_of(receiver, "ecoflow_pd_soc")) == {"c", "d", "e", "f"}


def test_a_gateway_that_hangs_takes_no_time_from_the_accounts(pushed, pushgateway):
    """All devices are read, and each account is told what became of it."""
    pushed.add(*(f"a-{n}" for n in range(16)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        part = {"PUSHGATEWAY_URL": url, "ACCOUNTS_AT_ONCE": "2", "RUN_DEADLINE": "12"}
        run = push({**pushed.environ, **part})

    assert run.status == 74
    assert "devices: 16 ok" in run.stderr
    assert run.stderr.count("no complete answer in time") == 17


def test_an_account_keeps_its_memory_when_its_file_is_renamed(written, receiver):
    """Its series go on under the new name; the old ones are ended."""
    written.add("home")
    assert push(written.environ).status == 0
    (written.folder / "home.env").rename(written.folder / "house.env")
    assert push(written.environ).status == 0

    stale = {s.label("account") for s in samples_of(receiver) if s.is_stale}
    assert stale == {"home"}
    assert values_of(receiver, "ecoflow_pd_soc") == {"home": [0], "house": [0]}
    folders = [
        name
        for name in os.listdir(written.environ["STATE_DIR"])
        if os.path.isdir(os.path.join(written.environ["STATE_DIR"], name))
    ]
    assert len(folders) == 2


def test_logins_are_paced(pushed, cloud):
    """Of 25 new accounts of the app 20 log in in the first minute, and no other one."""
    for number in range(25):
        user = AppUser(
            f"u{number}@b.c", "a password", f"15000{number:04}", f"token-{number}"
        )
        cloud.add(account := SimulatedAccount([], None, user))
        pushed.accounts[f"app-{number}"] = account
        pushed.write(f"app-{number}", user.environ(cloud.url))

    environ = {**pushed.environ, "LOG_LEVEL": "DEBUG"}
    first = push(environ)
    logins = [account.logins for account in pushed.accounts.values()]
    second = push(environ)

    assert sorted(logins) == [0] * 5 + [1] * 20
    paced = "no login now, 20 a minute are the most of one STATE_DIR"
    assert first.stderr.count(paced) == 5
    assert paced in second.stderr
    assert sum(account.logins for account in pushed.accounts.values()) == 20


@pytest.mark.parametrize("option", ["--check", "--dry-run", "--list-devices"])
def test_one_can_look_at_all(option, pushed, pushgateway):
    """Each account is shown by its name, whatever is wrong with another."""
    pushed.add("home", "barn", "mill")
    pushed.accounts["mill"].fail("", faults.code("8513", "accessKey is invalid"))

    run = push(pushed.environ, option)

    assert run.status == 1
    shown = run.stdout if option == "--check" else run.stdout + run.stderr
    for name in ("home", "barn", "mill"):
        assert name in shown
    assert pushgateway.groups() == {}
    if option == "--dry-run":
        series = parse(run.stdout)
        assert value(series, "ecoflow_pd_soc", account="barn") == 1
        assert value(series, "ecoflow_push_accounts", state="failed") == 1
    if option == "--check":
        lines = run.stdout.splitlines()
        assert any(line.startswith("ok       account home, device: ") for line in lines)
        assert any(
            line.startswith("wrong    account mill, credential") for line in lines
        )
        assert lines[-1] == "a run would exit 1 PARTIAL"


def test_a_check_of_healthy_accounts_is_well(pushed):
    """It ends with 0 where a run would."""
    pushed.add("home", "barn")

    run = push(pushed.environ, "--check")

    assert run.status == 0
    assert "complete; 2 accounts" in run.stdout
    assert run.stdout.splitlines()[-1] == "a run would exit 0 OK"


def test_a_check_tells_what_is_wrong_with_a_file(pushed):
    """Each fault is told as those of the settings are, with its own cure or theirs."""
    pushed.add("home")
    pushed.write("barn", {"ECOFLOW_ACCESS_KEY": "AK1", "EXTRA_LABLES": "a=b"})
    pushed.write("mill", {"ECOFLOW_ACCESS_KEY": "AK2"})
    (pushed.folder / "farm.env.txt").write_text("")

    run = push(pushed.environ, "--check")

    assert run.status == 1
    marks = ("warning", "wrong")
    told = [line for line in run.stdout.splitlines() if line.startswith(marks)]
    aside, barn, mill = (line.partition("  ")[2].strip() for line in told)
    named = "the file of an account is called NAME.env"
    assert aside == f"accounts: not read: farm.env.txt: {named}"
    slip = "EXTRA_LABLES: no setting has this name: did you mean EXTRA_LABELS?"
    assert barn == f"account barn, settings: {slip}"
    half = "ECOFLOW_SECRET_KEY: missing, ECOFLOW_ACCESS_KEY is set: correct it, see "
    assert mill == f"account mill, settings: {half}{DOCS}/settings.md"


@pytest.mark.parametrize("shards", [{}, {"SHARD_INDEX": "0", "SHARD_COUNT": "1"}])
def test_a_name_that_is_no_text(shards, pushed):
    """A file whose name is of another encoding costs its own account alone."""
    pushed.add("home")
    (pushed.folder / os.fsdecode(b"M\xfcnchen.env")).write_text("no setting")

    run = push({**pushed.environ, **shards})

    assert run.status == 1
    assert len(said_of(run, "M?nchen")) == 1
    assert "accounts: 1 ok, 1 failed" in run.stderr


def test_a_state_that_cannot_be_written_is_told_once(pushed):
    """However many the accounts are, and the last line counts where a sink failed."""
    pushed.add("home", "barn", "mill")
    sink = {"PUSHGATEWAY_URL": "http://127.0.0.1:1", "ESTABLISH_ATTEMPTS": "1"}

    run = push({**pushed.environ, **sink, "STATE_DIR": "/proc/none"})

    assert run.status == 74
    (told,) = (line for line in run.stderr.splitlines() if " WARNING " in line)
    assert " WARNING cannot use the state folder /proc/none/" in told
    assert "nothing is remembered" in told
    last = run.stderr.splitlines()[-1]
    assert "; pushgateway: not well for 3 of 3 accounts; pushgateway 127" in last


def test_one_device_is_asked_for_with_the_file_of_its_account(pushed):
    """--device goes with one account; what to do instead is said, and works."""
    pushed.add("home")
    run = push(pushed.environ, "--device", "R331000000000000")
    assert run.status == 78
    assert "--device: set, and so is ECOFLOW_ACCOUNTS: run with the file" in run.stderr
    alone = {k: v for k, v in pushed.environ.items() if k != "ECOFLOW_ACCOUNTS"}
    file = str(pushed.folder / "home.env")

    run = push(alone, "--env-file", file, "--device", "R331000000000000")

    assert run.status == 0


def test_the_demo_is_one_account(pushed):
    """--demo has an account of its own, whatever folder is set."""
    pushed.add("home")
    part = {"SHARD_COUNT": "2", "SHARD_INDEX": "0"}

    run = push({**pushed.environ, **part}, "--demo")

    assert run.status == 0
    assert "accounts" not in run.stderr


def test_no_secret_of_an_account_is_told(pushed):
    """What the service echoes of one account's keys is masked, as with one account."""
    pushed.add("home", "barn")
    secret = pushed.accounts["barn"].keys.secret_key
    pushed.accounts["home"].fail("", faults.code("4711", f"bad {secret}"))

    run = push_anew({**pushed.environ, "LOG_LEVEL": "DEBUG"})

    assert run.status == 1
    assert "bad ***" in run.stderr
    assert secret not in run.stderr


def test_accounts_come_and_go_between_beats(fleet, tmp_path):
    """A schedule reads the folder anew; what it serves is that of all accounts.

    A locked account's devices stay as they were; those of one that is gone do not.
    """
    fleet.add("home", "barn", "mill")
    port = free_port()
    log = tmp_path / "log"

    def accounts() -> set[str]:
        series = served(port)
        return {dict(own)["account"] for name, own in series if "pd_soc" in name}

    environ = {**fleet.environ, "EXPORTER_PORT": str(port), "RUN_DEADLINE": "30"}
    with staying(environ, "1", log=log):
        until(lambda: lines(log, "accounts: 3 ok"))
        assert accounts() == {"home", "barn", "mill"}
        # Until the lock is free: a beat may be at it.
        with eventually(lambda: held(fleet.state("barn"))):
            (fleet.folder / "mill.env").unlink()
            fleet.add("farm")
            until(lambda: len(lines(log, "accounts: 2 ok, 1 locked")) >= 2)
            assert accounts() == {"home", "barn", "mill", "farm"}
        until(lambda: accounts() == {"home", "barn", "farm"})


def held(folder):
    """Return the state with its lock held, None while another one holds it."""
    with suppress(LockedError):
        return State.open(str(folder))


def test_a_schedule_slows_down_for_a_new_account_of_the_app(fleet, cloud, tmp_path):
    """From the beat on that finds it there, a run a minute is the most."""
    fleet.add("home")
    log = tmp_path / "log"
    user = AppUser("u@b.c", "a password", "150000001", "token-1")
    cloud.add(SimulatedAccount([], None, user))
    part = {"TEXTFILE_PATH": str(tmp_path / "all.prom"), "RUN_DEADLINE": "30"}

    with staying({**fleet.environ, **part}, "1", log=log):
        until(lambda: len(lines(log, "accounts: 1 ok")) >= 2)
        fleet.write("app", user.environ(cloud.url))
        until(lambda: lines(log, "accounts: 1 ok, 1 failed"))
        runs = len(lines(log, "accounts: "))
        time.sleep(2.5)

        assert len(lines(log, "accounts: ")) == runs
        assert len(lines(log, "with the app account a run every 60 s is the mo")) == 1


def test_a_device_of_two_accounts_is_served_as_both_s(fleet, tmp_path):
    """Neither hides the other, whichever is read last."""
    fleet.add("home", "barn")
    fleet.accounts["barn"].devices[:] = fleet.accounts["home"].devices
    port = free_port()
    log = tmp_path / "log"
    environ = {**fleet.environ, "EXPORTER_PORT": str(port), "RUN_DEADLINE": "30"}

    with staying(environ, "60", log=log):
        until(lambda: lines(log, "accounts: 2 ok"))
        series = served(port)

    whose = [dict(own)["account"] for name, own in series if name == "ecoflow_pd_soc"]
    assert sorted(whose) == ["barn", "home"]


def test_many_accounts_need_few_open_files(written, receiver):
    """What one account leaves open is closed before a hundred have done so."""
    written.add(*(f"a-{n}" for n in range(150)))

    run = limited(written.environ, ["prlimit", "--nofile=160:160"])

    assert run.status == 0
    assert "accounts: 150 ok" in run.stderr
