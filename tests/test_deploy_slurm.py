"""deploy/slurm: an array that a real Slurm runs, and settings that are known."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedCloud
from tests.deploy import (
    ALARM_SECONDS,
    DEPLOY,
    accepted,
    assert_documented,
    program,
    said_by,
)
from tests.many_accounts import Fleet, key_accounts, write_files
from tests.slurm import Slurm, Task, script_for_here, slurm
from tests.support import ROOT, eventually

SLURM = DEPLOY / "slurm"
SCRIPT = SLURM / "ecoflow-push.sh"
# Where the files say that all of a fleet is.
PLACE = "~/ecoflow-fleet"
# What a task's run ends with, by its index; three of them may go well later, the last
# one too, whose number in Slurm is the array's.
STATUSES = (0, 1, 64, 69, 74, 77, 78, 75)
LATER = {69, 74, 75}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Slurm]:
    with slurm(tmp_path_factory.mktemp("slurm") / "slurm") as running:
        yield running


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """The array with a program that only ends, of its index's status."""
    python = tmp_path / "python"
    cases = "".join(f"{n}) exit {status};; " for n, status in enumerate(STATUSES))
    python.write_text(f"#!/bin/sh\ncase $SLURM_ARRAY_TASK_ID in {cases}esac\n")
    python.chmod(0o755)
    script = tmp_path / SCRIPT.name
    text = script_for_here(SCRIPT, len(STATUSES))
    script.write_text(text.replace(sys.executable, str(python)))
    return script


def options() -> dict[str, str]:
    """Return what the script asks Slurm for."""
    found = {}
    for line in SCRIPT.read_text().splitlines():
        if line.startswith("#SBATCH "):
            name, _, value = line.removeprefix("#SBATCH --").partition("=")
            found[name] = value
    return found


def test_bash_understands_the_script():
    """bash has nothing to say about the array's script."""
    assert said_by(program("bash"), "-n", SCRIPT) == (0, "")


def test_the_array_has_as_many_tasks_as_there_are_shards():
    """The range of the array and the count of the shards are said of one number."""
    count = re.findall(r"^SHARD_COUNT=(\d+)$", SCRIPT.read_text(), re.MULTILINE)

    assert options()["array"] == f"0-{int(count[0]) - 1}"
    assert len(count) == 1


def test_a_task_s_index_is_slurm_s_whatever_the_file_says(tmp_path):
    """Index and count are in the environment, which is stronger than fleet.env."""
    python = tmp_path / "ecoflow-push" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$SHARD_INDEX of $SHARD_COUNT"\n')
    python.chmod(0o755)
    environ = f"HOME={tmp_path}", "SLURM_ARRAY_TASK_ID=3"

    assert said_by("env", *environ, "bash", SCRIPT) == (0, "3 of 8\n")


def test_the_settings_are_the_program_s(tmp_path):
    """The program takes the settings as they are, and they name no others."""
    write_files(tmp_path / "accounts", key_accounts(2, 1, Fleet(1)), "http://127.0.0.1")
    lines = (SLURM / "fleet.env").read_text().splitlines()
    environ = dict(
        line.removeprefix("#").split("=", 1)
        for line in lines
        if re.match(r"#?[A-Z_]+=", line)
    )
    assert_documented({*environ})
    (tmp_path / "token").write_text("a-token")

    settings = accepted(environ, tmp_path, PLACE)

    assert settings.accounts
    assert len(settings.accounts.ours) == 2
    assert settings.instance == "fleet"


def test_a_task_has_more_time_than_its_run(tmp_path):
    """Slurm ends no run, and begins none that the next array has taken over."""
    write_files(tmp_path / "accounts", key_accounts(1, 1, Fleet(1)), "http://127.0.0.1")
    environ = {"ECOFLOW_ACCOUNTS": PLACE + "/accounts", "REMOTE_WRITE_URL": "http://x"}
    run = accepted(environ, tmp_path, PLACE).run_deadline
    asked = options()
    minutes = int(asked["time"])
    latest_end = int(asked["deadline"].removeprefix("now+").removesuffix("minutes"))

    assert run + ALARM_SECONDS < minutes * 60
    assert latest_end - minutes == 1


def ends(cluster: Slurm, job: int) -> dict[int, Task]:
    """Return the tasks of an array when all have ended, or wait to be run again."""

    def known() -> dict[int, Task]:
        tasks = cluster.tasks(job)
        over = {"COMPLETED", "FAILED"}
        waits = [t.state == "PENDING" and t.restarts for t in tasks.values()]
        ended = [t.state in over for t in tasks.values()]
        return tasks if all(map(max, waits, ended)) else {}

    found = eventually(known)
    assert found, cluster.tasks(job)
    return found


def test_each_task_keeps_its_status(cluster, stub):
    """As it is delivered no task is run again, and each ends with its run's status."""
    job = cluster.submit(stub, cwd=stub.parent)

    assert cluster.wait(job) == dict(enumerate(STATUSES))


def test_those_are_run_again_that_may_go_well_later(cluster, stub):
    """With REQUEUES a task is held for another try if its status says so, it alone."""
    text = stub.read_text()
    assert text.count("\nREQUEUES=0\n") == 1
    stub.write_text(text.replace("\nREQUEUES=0\n", "\nREQUEUES=1\n"))

    job = cluster.submit(stub, cwd=stub.parent)

    for index, task in ends(cluster, job).items():
        if STATUSES[index] in LATER:
            assert (task.state, task.restarts) == ("PENDING", 1), index
        else:
            assert (task.status, task.restarts) == (STATUSES[index], 0), index
    cluster.ask("scancel", str(job))


@pytest.mark.late
@pytest.mark.drill("slurm")
def test_a_second_try_is_the_last(cluster, stub):
    """After as many tries as REQUEUES says a task ends with its run's status.

    Slurm holds it back for more than a minute, so an array each minute is sooner.
    """
    text = stub.read_text().replace("\nREQUEUES=0\n", "\nREQUEUES=1\n")
    stub.write_text(text.replace("--deadline=now+3minutes", "--deadline=now+9minutes"))

    job = cluster.submit(stub, cwd=stub.parent)

    first = ends(cluster, job)
    assert sum(task.restarts for task in first.values()) == len(LATER)
    assert not eventually(lambda: ends(cluster, job) != first, 60)
    assert cluster.wait(job) == dict(enumerate(STATUSES))
    restarts = {index: task.restarts for index, task in cluster.tasks(job).items()}
    assert restarts == {n: int(s in LATER) for n, s in enumerate(STATUSES)}


@pytest.mark.late
@pytest.mark.drill("slurm")
def test_what_cannot_begin_in_time_is_not_begun(cluster, stub):
    """While no node is free, arrays do not heap up: each is gone within two minutes."""
    node = ("update", "nodename=here")
    cluster.ask("scontrol", *node, "state=drain", "reason=test")
    try:
        job = cluster.submit(stub, cwd=stub.parent)
        assert {task.state for task in cluster.tasks(job).values()} == {"PENDING"}

        assert cluster.wait(job).keys() == set(range(len(STATUSES)))
    finally:
        cluster.ask("scontrol", *node, "state=resume")
    assert {task.state for task in cluster.tasks(job).values()} == {"DEADLINE"}
    assert not list(stub.parent.glob("ecoflow-push-*.log"))


@pytest.fixture
def array(tmp_path: Path, cloud: SimulatedCloud) -> Path:
    """The array of one account and one shard, which writes a text file."""
    accounts = key_accounts(1, 1, Fleet(20))
    for account in accounts.values():
        cloud.add(account)
    write_files(tmp_path / "accounts", accounts, cloud.url)
    (tmp_path / "fleet.env").write_text(
        f"ECOFLOW_ACCOUNTS={tmp_path}/accounts\n"
        f"STATE_DIR={tmp_path}/state\n"
        f"TEXTFILE_PATH={tmp_path}/out.prom\n"
        "PUSH_INSTANCE=fleet\n"
    )
    script = tmp_path / SCRIPT.name
    script.write_text(script_for_here(SCRIPT, 1))
    return script


def test_a_cancelled_task_ends_its_run(cluster, cloud, array):
    """scancel ends a run as SIGTERM does, which has the time to say so."""
    cloud.fail("", faults.hang())
    job = cluster.submit(array, cwd=array.parent)
    assert eventually(lambda: cloud.received)

    cluster.ask("scancel", str(job))

    cluster.wait(job)
    assert "exit 143 TERMINATED" in (array.parent / "ecoflow-push-0.log").read_text()


def test_a_run_that_is_ended_has_the_time_it_takes(cluster, stub):
    """After scancel a task is over when its run is, though bash was told to end too."""
    ends = "trap 'sleep 1; echo at last; exit 143' TERM; echo begun"
    (stub.parent / "python").write_text(
        f"#!/bin/sh\n{ends}\nwhile :; do sleep 0.1; done"
    )
    log = stub.parent / "ecoflow-push-0.log"
    job = cluster.submit(stub, "--array=0", cwd=stub.parent)
    assert eventually(lambda: log.exists() and "begun" in log.read_text())

    cluster.ask("scancel", str(job))

    cluster.wait(job)
    # Or Slurm kills what is left, where it has the means to.
    assert "at last" in log.read_text()


def test_what_is_wrong_with_the_settings_is_in_the_log(cluster, array):
    """A task whose settings are wrong ends with 78, and its log says what to mend."""
    shutil.rmtree(array.parent / "accounts")

    job = cluster.submit(array, cwd=array.parent)

    assert cluster.wait(job) == {0: 78}
    said = (array.parent / "ecoflow-push-0.log").read_text()
    assert "ECOFLOW_ACCOUNTS" in said
    assert "Traceback" not in said


def test_slurm_is_told_no_secret(cluster, array):
    """Of what whoever submits has in the environment Slurm keeps nothing."""
    secret = "SK-of-the-one-who-submits"
    environ = {"ECOFLOW_SECRET_KEY": secret, "ECOFLOW_ACCESS_KEY": "AK"}
    with_all = array.with_name("with-all.sh")
    with_all.write_text(array.read_text().replace("--export=NONE", "--export=ALL"))

    jobs = [
        cluster.submit(script, "--hold", cwd=array.parent, **environ)
        for script in (array, with_all)
    ]

    kept = [
        {
            file.name
            for file in (cluster.folder / "state").rglob(f"job.{job}/*")
            if secret.encode() in file.read_bytes()
        }
        for job in jobs
    ]
    cluster.ask("scancel", *map(str, jobs))
    # Nor would it be overlooked.
    assert kept == [set(), {"environment"}]


def test_cron_submits_the_array_without_a_word(cluster, stub, tmp_path):
    """The page's line for cron is one, and submits the array; no mail comes of it."""
    text = (ROOT / "docs" / "fleet.md").read_text()
    [line] = re.findall(r"`(\* \* \* \* \* .*sbatch.*)`", text)
    table = tmp_path / "table"
    table.write_text(f"{line}\n")
    assert said_by(program("crontab"), "-n", table)[0] == 0
    (tmp_path / "ecoflow-fleet").mkdir()
    stub.rename(tmp_path / "ecoflow-fleet" / stub.name)
    *_, command = line.split(" ", 5)

    assert cluster.ask("sh", "-c", command, HOME=str(tmp_path)) == ""

    [job] = set(cluster.ask("squeue", "-h", "-o", "%F").split())
    assert cluster.wait(int(job)).keys() == set(range(len(STATUSES)))


def test_the_command_of_a_run_has_no_secret():
    """What other users see of a run names a file of settings, and nothing in it."""
    [line] = [x for x in SCRIPT.read_text().splitlines() if "/bin/python " in x]

    assert shlex.split(line)[2:] == ["--env-file", "fleet.env"]
