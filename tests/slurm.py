"""A real Slurm of one node, for whoever runs the test: no root, munge or cgroups."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.fetch_servers import environ
from tests.support import PUSH, eventually, free_port, real_server

NODE = "here"
# More than any array has, whatever the machine has.
PROCESSORS, MEBIBYTES = 64, 64 * 1024
# Its own words for tasks of which more is to come, as COMPLETING is.
UNDER_WAY = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED"}
CONFIG = """\
ClusterName=test
SlurmctldHost=localhost
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# As many processors as are said, and not as there are.
SlurmdParameters=config_overrides
# A task begins at once.
SchedulerParameters=batch_sched_delay=0,sched_min_interval=1000,sched_interval=1
# A task's environment is what is said here, and not what a login makes.
GetEnvTimeout=0
TaskProlog={folder}/prolog
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={mem}
PartitionName=all Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""


class Task(NamedTuple):
    """How one task of an array is, in Slurm's words."""

    state: str
    #: What its script ended with, and which signal ended it.
    code: int
    signal: int
    restarts: int

    @property
    def status(self) -> int:
        """What a shell would call its end."""
        return 128 + self.signal if self.signal else self.code


class Slurm:
    """A running controller with its one node."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder = folder
        self._environ = environ

    def ask(
        self, program: str, *args: str | Path, cwd: Path | None = None, **more: str
    ) -> str:
        """Return what a command of Slurm's or the system's prints, seen to end with 0.

        `more` is what it finds in the environment, beside where its controller is.
        """
        where = {**self._environ, **more}
        done = subprocess.run(
            [shutil.which(program, path=where["PATH"]) or program, *args],
            cwd=cwd,
            env=where,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, script: Path, *options: str, cwd: Path, **more: str) -> int:
        """Submit an array, as an operator does in that folder; return its number."""
        return int(self.ask("sbatch", "--parsable", *options, script, cwd=cwd, **more))

    def tasks(self, job: int) -> dict[int, Task]:
        """Return each task of an array, by its index."""
        found: dict[int, Task] = {}
        for line in self.ask("scontrol", "show", "job", "-o", str(job)).splitlines():
            said = dict(re.findall(r"(\w+)=(\S+)", line))
            code, number = map(int, said["ExitCode"].split(":"))
            task = Task(said["JobState"], code, number, int(said["Restarts"]))
            # Those that have not begun are one line: 0-2,5 or 0-7%4.
            for part in said["ArrayTaskId"].partition("%")[0].split(","):
                first, _, last = part.partition("-")
                found |= dict.fromkeys(range(int(first), int(last or first) + 1), task)
        return found

    def wait(self, job: int) -> dict[int, int]:
        """Return what each task ended with, when all have."""

        assert eventually(lambda: not self.under_way(job), 180), self.tasks(job)
        return {index: task.status for index, task in sorted(self.tasks(job).items())}

    def under_way(self, job: int) -> set[int]:
        """Return the tasks of an array that have not ended."""
        tasks = self.tasks(job).items()
        return {index for index, task in tasks if task.state in UNDER_WAY}

    def await_start(self, job: int, index: int) -> None:
        """Wait until a task has begun."""
        assert eventually(lambda: self.tasks(job)[index].state != "PENDING")

    def kill(self, job: int, index: int) -> bool:
        """Kill a task with all its processes, as a lost machine would.

        Returns whether it had any.
        """
        numbers = re.findall(
            rf"JobId=(\d+) ArrayJobId={job} ArrayTaskId={index} ",
            self.ask("scontrol", "show", "job", "-o", str(job)),
        )
        # Of what has ended nothing is known, or not begun.
        if not numbers or index not in self.under_way(job):
            return False
        try:
            said = self.ask("scontrol", "listpids", *numbers)
        except AssertionError:
            return False
        pids = [int(line.split()[0]) for line in said.splitlines()[1:]]
        for pid in pids:
            # One ends when the other does.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(pids)

    def is_ready(self) -> bool:
        """Return whether the node waits for tasks."""
        with suppress(AssertionError):
            return "idle" in self.ask("sinfo", "-h", "-o", "%T")
        return False


def script_for_here(script: Path, shards: int) -> str:
    """Return the array's script for this machine, and for so many shards."""
    text = script.read_text()
    for old, new in (
        ("~/ecoflow-push/.venv/bin/python", sys.executable),
        ("~/ecoflow-push/push.py", str(PUSH)),
        ("--array=0-7\n", f"--array=0-{shards - 1}\n"),
        ("\nSHARD_COUNT=8\n", f"\nSHARD_COUNT={shards}\n"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Run slurmctld and slurmd with all that they write in `folder`."""
    if sys.platform != "linux":
        pytest.skip("Slurm is a program for Linux")
    controller, daemon = (real_server(name) for name in ("slurmctld", "slurmd"))
    sbatch = real_server("slurm-client")
    for part in ("state", "spool"):
        (folder / part).mkdir(parents=True)
    config = CONFIG.format(
        controller=free_port(),
        daemon=free_port(),
        user=getpass.getuser(),
        folder=folder,
        node=NODE,
        cpus=PROCESSORS,
        mem=MEBIBYTES,
    )
    # Unpacked, not installed: its parts are not where they were made to be.
    plugins = sorted(controller.parent.parent.glob("lib/*-linux-gnu*/slurm-wlm"))
    config += "".join(f"PluginDir={place}\n" for place in plugins[:1])
    (folder / "slurm.conf").write_text(config)
    where = {
        "HOME": str(folder),
        "PATH": f"{sbatch.parent}:/usr/bin:/bin",
        "LD_LIBRARY_PATH": environ(sbatch)["LD_LIBRARY_PATH"],
    }
    said_to_tasks = "".join(f"export {k}={value}\n" for k, value in where.items())
    where["SLURM_CONF"] = str(folder / "slurm.conf")
    (folder / "prolog").write_text(f"#!/bin/cat\n{said_to_tasks}")
    (folder / "prolog").chmod(0o755)
    stepd = controller.with_name(controller.name.replace("ctld", "stepd"))
    with ExitStack() as stack:
        said = stack.enter_context((folder / "said").open("w"))
        for command in ((controller, "-D"), (daemon, "-D", "-d", stepd)):
            process = subprocess.Popen(command, env=where, stdout=said, stderr=said)
            stack.callback(process.wait, timeout=30)
            stack.callback(process.terminate)
        running = Slurm(folder, where)
        assert eventually(running.is_ready), (folder / "said").read_text()
        try:
            yield running
        finally:
            # What is left of an array is not to outlive its Slurm.
            running.ask("scancel", "--user", getpass.getuser())
            assert eventually(lambda: not running.ask("squeue", "-h"))
