"""A check or an --init that is told to end takes back first what it tried."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

import pytest

from ecoflow_push.leaving import MOST_SECONDS
from ecoflow_push.simulator.server import Handler
from tests.forker import BARE
from tests.proxy import Proxy
from tests.receiver import PATH, STALE
from tests.support import (
    LATE,
    MODULES,
    PUSH,
    Gateway,
    Run,
    eventually,
    forked,
    gateway,
)
from tests.typist import GATEWAY, KEYS, NUMBER, left, typing

WAITING = "WARNING told to end: what was tried is taken back first"
JOB = "ecoflow_check"
STOPPED = {
    signal.SIGINT: "exit 130 INTERRUPTED: stopped by signal 2",
    signal.SIGTERM: "exit 143 TERMINATED: stopped by signal 15",
}


@pytest.fixture
def gate():
    """What holds something up until it is set."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def pushgateway():
    """A gateway of this test alone: what was held up may come after the test."""
    with gateway() as running:
        yield running


@pytest.fixture
def slow(gate):
    """A proxy that keeps a PUT for itself until the gate opens."""
    with Proxy() as proxy:
        proxy.gates["PUT"] = gate
        yield proxy


def begun(environ: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, PUSH, "--check"],
        env={"PATH": os.defpath, "HOME": "/nonexistent", **environ},
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(child: subprocess.Popen[str]) -> str:
    """Return the next line that it says."""
    assert child.stderr
    return child.stderr.readline()


def has_asked(proxy: Proxy, method: str) -> bool:
    return any(line.startswith(f"{method} ") for line in proxy.received)


def holds_the_test(gateway: Gateway) -> bool:
    return JOB in gateway.groups()


@pytest.mark.parametrize("number", STOPPED)
def test_what_a_slow_gateway_takes_is_taken_back(number, gate, slow, environ, world):
    """A signal while the test is on its way ends the check when it is gone again."""
    with begun({**environ, "HTTP_PROXY": slow.url}) as child:
        assert eventually(lambda: has_asked(slow, "PUT"))
        child.send_signal(number)
        assert WAITING in told(child)
        gate.set()
        last = told(child)

    assert child.returncode == 128 + number
    assert last.endswith(f" {STOPPED[number]}\n")
    assert has_asked(slow, "DELETE")
    assert eventually(lambda: not holds_the_test(world.gateway))


def test_a_gateway_that_hangs_is_not_waited_for(slow, environ):
    """After some seconds the check ends all the same, and names what is left behind."""
    with begun({**environ, "HTTP_PROXY": slow.url}) as child:
        assert eventually(lambda: has_asked(slow, "PUT"))
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)

    assert time.monotonic() - began < MOST_SECONDS + LATE
    assert child.returncode == 130
    there = f"; left behind: the job {JOB} at the Pushgateway\n"
    assert said.endswith(STOPPED[signal.SIGINT] + there)


def test_who_is_impatient_is_not_kept(slow, environ):
    """A second signal ends it at once."""
    with begun({**environ, "HTTP_PROXY": slow.url}) as child:
        assert eventually(lambda: has_asked(slow, "PUT"))
        child.send_signal(signal.SIGINT)
        assert WAITING in told(child)
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)

    assert time.monotonic() - began < MOST_SECONDS / 2
    assert child.returncode == 130
    assert "left behind: " in said


def test_init_takes_its_test_back(gate, slow, home, pushgateway):
    """Ctrl-C of somebody impatient leaves nothing behind at a slow gateway, either."""
    with typing({**home, "HTTP_PROXY": slow.url}) as typist:
        for prompt, answer in (*KEYS, (NUMBER, ""), (GATEWAY, pushgateway.url)):
            typist.answer(prompt, answer)
        typist.answer(NUMBER)
        assert eventually(lambda: has_asked(slow, "PUT"))
        typist.type("\x03\x03")
        typist.wait_for(WAITING)
        gate.set()
        assert typist.end() == 130
        assert STOPPED[signal.SIGINT] in typist.screen
        assert "left behind" not in typist.screen
        assert typist.modes == typist.before

    assert has_asked(slow, "DELETE")
    assert eventually(lambda: not holds_the_test(pushgateway))
    assert left(home) == []


def test_a_sample_gets_its_end(gate, environ, world):
    """What a slow receiver took is ended before the check is."""
    has_taken = threading.Event()

    def hesitate(handler: Handler) -> None:
        answer = world.receiver.answer(handler.current)
        if answer.status < 300:
            has_taken.set()
            gate.wait(60)
        handler.send(answer)

    world.receiver.fail(PATH, hesitate)
    del environ["PUSHGATEWAY_URL"]
    with begun({**environ, "REMOTE_WRITE_URL": world.receiver.write_url}) as child:
        assert has_taken.wait(60)
        child.send_signal(signal.SIGTERM)
        assert WAITING in told(child)
        gate.set()

    assert child.returncode == 143
    (points,) = world.receiver.stored.values()
    assert [bits == STALE for _, bits in points] == [False, True]


# A signal at each step that Python tells of, one in each process.
TRYING = """
import os, signal, sys
from ecoflow_push.memory.spool import Spool
from ecoflow_push.memory.trial import try_file
from ecoflow_push.sinks.trial import probe_spool
from ecoflow_push.start.signals import leave_with_a_word

leave_with_a_word(stays=False)
folder, step = sys.argv[1], int(sys.argv[2])
steps = []

def hook(event, args):
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
        if args and folder in str(args[0]):
            steps.append(event)
            if len(steps) == step:
                os.kill(os.getpid(), signal.SIGTERM)

sys.addaudithook(hook)
WHAT
print(len(steps))
"""
TRIALS = {
    "text file": "try_file(f'{folder}/ecoflow.prom')",
    "spool": "probe_spool(Spool(f'{folder}/spool-0123456789ab'))",
}


@pytest.mark.parametrize("kind", TRIALS)
def test_no_file_of_a_trial_is_left(kind, tmp_path, tmp_path_factory):
    """Whenever it is told to end, a trial of a folder leaves the folder as it was."""

    program = tmp_path_factory.mktemp("program") / "trying.py"
    program.write_text(TRYING.replace("WHAT", TRIALS[kind]))

    def tried(step: int) -> Run:
        return forked(program, [str(tmp_path), str(step)], BARE, modules=MODULES)

    whole = tried(0)
    assert whole.status == 0, whole.stderr
    steps = int(whole.stdout)
    assert steps > 3

    for step in range(1, steps + 1):
        done = tried(step)
        assert done.status == 143, done.stderr
        assert list(tmp_path.iterdir()) == [], step
