"""Who sits at the terminal of --init: a real one, and hands that wait for a prompt."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from ecoflow_push.errors import ExitStatus
from ecoflow_push.simulator.cloud import ACCESS_KEY, ACCOUNT_PASSWORD, SECRET_KEY
from tests.support import PUSH, Run, push

# Makes the terminal the controlling one, as a login does: then Ctrl-C is a signal.
AT_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
PATIENCE = 60
PASSWORD = "s3cret-of-the-gateway"
WRONG = "SKwrongwrongwrong"
SECRETS = (ACCESS_KEY, SECRET_KEY, ACCOUNT_PASSWORD, PASSWORD, WRONG)
# What stands on the screen when an answer is due.
NUMBER = "Number [1]: "
ACCESS = "Access key (is not shown): "
SECRET = "Secret key (is not shown): "
GATEWAY = "Its address [http://localhost:9091]: "
ELSEWHERE = "Anywhere else too? [no]: "
IN_FILES = "Keep the secrets in files of their own, beside it? [no]: "
KEYS = [(NUMBER, ""), (ACCESS, ACCESS_KEY), (SECRET, SECRET_KEY)]
TO_GATEWAY = [
    (NUMBER, ""),
    (GATEWAY, ""),
    (NUMBER, ""),
    (ELSEWHERE, ""),
    (IN_FILES, ""),
]


class Typist:
    """Runs push.py --init on a pseudo-terminal, as a context manager.

    `screen` is all that was to be seen on it, what was echoed included.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *args: str,
        program: Path = PUSH,
        umask: int = -1,
    ) -> None:
        self.screen = ""
        self._seen = 0
        self.master, self.slave = os.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [sys.executable, "-c", AT_TERMINAL, program, "--init", *args],
            env={"PATH": os.environ.get("PATH", os.defpath), **environ},
            cwd="/",
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            umask=umask,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.wait()
        self.hang_up()
        os.close(self.slave)

    def answer(self, prompt: str, text: str = "", end: str = "\n") -> str:
        """Wait until the screen ends with `prompt`, and type; return what came."""
        came = self.wait_for(prompt)
        assert came.endswith(prompt), came
        self.type(text + end)
        return came

    def wait_for(self, text: str) -> str:
        """Return what came since the last answer, as soon as `text` is in it."""
        until = time.monotonic() + PATIENCE
        while text not in self.screen[self._seen :]:
            assert self._look(), f"no {text!r}: {self.screen[self._seen :]}"
            assert time.monotonic() < until, self.screen[self._seen :]
        came = self.screen[self._seen :]
        self._seen = len(self.screen)
        return came

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> int:
        """Return the status of the program when it has ended."""
        while self._look():
            pass
        return self.process.wait(PATIENCE)

    def hang_up(self) -> None:
        """Take the terminal away."""
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    @property
    def modes(self) -> object:
        """How the terminal is set now."""
        return termios.tcgetattr(self.slave)

    def _look(self) -> bool:
        """Read what is there; return whether anything can still come."""
        is_running = self.process.poll() is None
        if not select.select([self.master], [], [], 0.05)[0]:
            return is_running
        try:
            piece = os.read(self.master, 65536)
        except OSError:  # the other side is closed
            return False
        self.screen += piece.decode().replace("\r\n", "\n")
        return True


def settings_file(environ: Mapping[str, str]) -> Path:
    return Path(environ["HOME"], ".config", "ecoflow-push.env")


def left(environ: Mapping[str, str]) -> list[Path]:
    """Return what there is of a state, at home, and among the temporary files."""
    places = (environ["HOME"], environ["TMPDIR"], environ["STATE_DIR"])
    return [path for place in places for path in Path(place).rglob("*")]


@contextmanager
def typing(environ: Mapping[str, str], *args: str, **how: Any) -> Iterator[Typist]:
    """Sit down at a terminal; no secret is ever to be seen on it."""
    with Typist(environ, *args, **how) as typist:
        yield typist
        for secret in SECRETS:
            assert secret not in typist.screen
        assert "Traceback" not in typist.screen


def finish(typist: Typist) -> None:
    assert typist.end() == ExitStatus.OK, typist.screen
    assert typist.modes == typist.before


def by_gateway(url: str) -> list[tuple[str, str]]:
    """Return all prompts from keys to a Pushgateway, with the answers."""
    return [*KEYS, *TO_GATEWAY[:1], (GATEWAY, url), *TO_GATEWAY[2:]]


def as_cron(environ: Mapping[str, str], file: Path) -> Run:
    """Run as cron would: nothing but the file says anything."""
    return push({"HOME": environ["HOME"]}, "--env-file", str(file))
