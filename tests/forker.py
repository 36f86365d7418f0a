"""Runs of push.py whose interpreter, and all it imports of others, is there already.

A process that has imported the packages forks one child for each run, which begins
where a new interpreter would be by then: with the arguments, the environment, the
folder and the streams of that run, and nothing imported but those. Such a run costs a
third; what an interpreter itself makes of its surroundings needs a new one
(`is_enough`).

    python tests/forker.py DESCRIPTOR MODULE...

is that process. It ends with the socket that its descriptor is one end of.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from types import CodeType, ModuleType

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# What runs import that is not ours, and takes its time.
OTHERS = (
    *("argparse", "cramjam", "google.protobuf.message_factory", "http.server"),
    *("logging", "paho.mqtt.client", "prometheus_client.core", "requests"),
    *("secrets", "ssl", "tempfile", "urllib.request", "urllib3"),
)
# What an interpreter, or a package as it is imported, reads of its environment.
READ_AT_THE_START = (
    *("GLIBC_", "LANG", "LC_", "LD_", "MALLOC_", "OPENSSL_", "PROMETHEUS_"),
    *("PROTOCOL_BUFFERS_", "PYTHON", "TZ"),
)
# What cron gives a run at least.
BARE = {"PATH": os.defpath, "HOME": "/nonexistent"}
#: The name of a function of tests/hardship.py, and what it is given.
Hardship = tuple[str, str]
#: Of a child on whom no hardship could be brought.
IMPOSSIBLE = 99


def is_enough(environ: Mapping[str, str]) -> bool:
    """Return whether a run in this environment would be the same from a new process."""
    # Elsewhere a process that has libraries loaded may not fork without a new start.
    return sys.platform == "linux" and not any(
        name.upper().startswith(READ_AT_THE_START) for name in environ
    )


class Forker:
    """A process that forks; one child at a time."""

    def __init__(self, modules: Sequence[str]) -> None:
        """Start it; it imports these modules."""
        self._socket, end = socket.socketpair()
        with end:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(end.fileno()), *modules],
                env=BARE,
                cwd="/",
                pass_fds=[end.fileno()],
            )

    def run(
        self,
        file: str,
        argv: Sequence[str],
        environ: Mapping[str, str],
        *,
        hardships: Sequence[Hardship] = (),
        timeout: float = 120,
    ) -> tuple[int, bytes, bytes]:
        """Return the status of a program, and what it printed.

        Raises subprocess.TimeoutExpired after so many seconds, with the child killed.
        """
        request = json.dumps([file, argv, dict(environ), hardships]).encode() + b"\n"
        pipes = [os.pipe(), os.pipe()]
        theirs = [write for _, write in pipes]
        try:
            socket.send_fds(self._socket, [b"\n"], theirs)
            self._socket.sendall(request)
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        out, err = (os.fdopen(read, "rb", buffering=0) for read, _ in pipes)
        with out, err:
            return self._hear(out.fileno(), err.fileno(), timeout)

    def _hear(self, out: int, err: int, timeout: float) -> tuple[int, bytes, bytes]:
        until = time.monotonic() + timeout
        us = self._socket.fileno()
        said = {us: b"", out: b"", err: b""}
        waiting, late = set(said), False
        while waiting:
            left = None if late else max(0.0, until - time.monotonic())
            ready = select.select([*waiting], [], [], left)[0]
            if not ready:
                late = True
                os.kill(int(said[us].partition(b"\n")[0]), signal.SIGKILL)
            for each in ready:
                part = os.read(each, 1 << 16)
                said[each] += part
                if each == us:
                    assert part, "the forker has ended"
                if not part or (each == us and said[us].count(b"\n") == 2):
                    waiting.remove(each)
        if late:
            raise subprocess.TimeoutExpired("push.py", timeout, said[out], said[err])
        return int(said[us].split()[1]), said[out], said[err]

    def close(self) -> None:
        """Let it end."""
        self._socket.close()
        self._process.wait(10)


_idle: dict[Sequence[str], list[Forker]] = {}


@contextmanager
def forker(modules: Sequence[str] = OTHERS) -> Iterator[Forker]:
    """Lend a forker that nobody else uses; all end with this process."""
    idle = _idle.setdefault(modules, [])
    try:
        lent = idle.pop()
    except IndexError:
        lent = Forker(modules)
        atexit.register(lent.close)
    yield lent
    # Not after an exception: it may still be in the middle of that run.
    idle.append(lent)


# -- in the forker ------------------------------------------------------------------


@cache
def _compiled(file: str) -> CodeType:
    with open(file, encoding="utf-8") as text:
        return compile(text.read(), file, "exec")


def serve(control: socket.socket) -> None:
    """Fork a child for each request, and tell its number and then its status.

    Returns in the child when its program has ended, and in the forker at the end.
    """
    # What the interpreter has put there by itself.
    own = {name: os.environ[name] for name in os.environ if name not in BARE}
    lines = control.makefile("rb")
    while True:
        _, descriptors, *_ = socket.recv_fds(control, 1, 2)
        if not descriptors:
            return
        file, argv, environ, hardships = json.loads(lines.readline())
        code = _compiled(file)
        child = os.fork()
        if not child:
            break
        for descriptor in descriptors:
            os.close(descriptor)
        control.sendall(b"%d\n" % child)
        _, status = os.waitpid(child, 0)
        control.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    lines.close()
    control.close()
    for number, descriptor in enumerate(descriptors, 1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if hardships:
        _endure(hardships)
    os.environ.clear()
    os.environ.update(own | environ)
    sys.argv = [file, *argv]
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__file__ = file
    exec(code, main.__dict__)


def _endure(hardships: Sequence[Sequence[str]]) -> None:
    from tests.hardship import endure

    try:
        endure(hardships)
    except OSError as exc:
        sys.stderr.write(f"no such hardship here: {exc}")
        sys.stderr.flush()
        os._exit(IMPOSSIBLE)


if __name__ == "__main__":
    sys.path[0] = ROOT
    for module in sys.argv[2:]:
        # One that is missing is for the run that needs it.
        with suppress(ImportError):
            importlib.import_module(module)
    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
