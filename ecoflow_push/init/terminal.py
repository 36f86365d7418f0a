"""The terminal: what is asked on it, and how it is left, whatever ends that."""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Self

from ecoflow_push import leaving
from ecoflow_push.errors import ExitStatus, Unanswered
from ecoflow_push.run.show import say

# A terminal that goes away, and Ctrl-\, which would leave it without echo.
AS = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGQUIT: signal.SIGINT,
    signal.SIGHUP: signal.SIGTERM,
}
LOCAL_MODES = 3
CHARACTERS = 6
STDIN, STDOUT = 0, 1
# A terminal gives a line at once, and none is longer.
LONGEST_LINE = 4096


class Terminal:
    """Asks on stdin and stdout, as a context manager.

    It echoes only while something is asked that may be seen: what is typed ahead may
    be a secret. Signals undo what stands in `undo`, and end the process as they would,
    all that would leave it without echo included.
    """

    def __init__(self) -> None:
        """Look at the terminal; raises Unanswered (64) where there is none."""
        if not all(stream and stream.isatty() for stream in (sys.stdin, sys.stdout)):
            error = Unanswered("--init asks questions", "start it on a terminal")
            error.status = ExitStatus.USAGE
            raise error
        #: What is to be done when it is left, in whatever way.
        self.undo: list[Callable[[], object]] = []
        self._modes: list[Any] = termios.tcgetattr(STDIN)
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._handlers = {number: signal.getsignal(number) for number in AS}
        for number, stands_for in AS.items():
            hear = partial(self._handlers[stands_for], stands_for, None)
            signal.signal(number, lambda *_, hear=hear: hear())
        leaving.before.append(self._leave)
        self._echo(on=False)
        return self

    def __exit__(self, *exc_info: object) -> None:
        with suppress(ValueError):  # it is being left
            leaving.before.remove(self._leave)
        self._restore()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def ask(self, prompt: str, *, hidden: bool = False) -> str:
        """Return the line that is typed, without white space around it.

        Raises Unanswered (130) when there will be none.
        """
        self._echo(on=not hidden)
        say(prompt)
        line = b""
        while not line.endswith(b"\n"):
            try:
                piece = os.read(STDIN, LONGEST_LINE)
            except OSError:  # it hung up
                piece = b""
            if not piece:
                say("\n")
                raise Unanswered("the input ended, nothing was written")
            line += piece
        self._echo(on=False)
        if hidden:
            say("\n")
        return line.decode(errors="surrogateescape").strip()

    def needed(self, prompt: str) -> str:
        """Return a line that is not empty."""
        while not (answer := self.ask(prompt)):
            pass
        return answer

    def confirm(self, words: str, *, default: bool) -> bool:
        """Return whether yes is the answer."""
        while True:
            answer = self.ask(f"{words} [{'yes' if default else 'no'}]: ").lower()
            if not answer:
                return default
            if "yes".startswith(answer) or "no".startswith(answer):
                return answer[0] == "y"
            say("yes or no?\n")

    def choose(self, words: str, choices: Mapping[str, str], default: str) -> str:
        """Return the key of one of `choices`, which are the words for each."""
        keys = list(choices)
        say(f"{words}\n")
        for number, key in enumerate(keys, 1):
            say(f"  {number}  {choices[key]}\n")
        offered = str(keys.index(default) + 1)
        while True:
            answer = self.ask(f"Number [{offered}]: ") or offered
            if answer in map(str, range(1, len(keys) + 1)):
                return keys[int(answer) - 1]
            say(f"A number from 1 to {len(keys)}, please.\n")

    def _leave(self) -> None:
        with suppress(OSError):
            os.write(STDOUT, b"\n")
        self._restore()

    def _restore(self) -> None:
        """Leave the terminal as it was; what was typed ahead is not for the shell."""
        with suppress(termios.error):
            termios.tcflush(STDIN, termios.TCIFLUSH)
            termios.tcsetattr(STDIN, termios.TCSANOW, self._modes)
        while self.undo:
            self.undo.pop()()

    def _echo(self, *, on: bool) -> None:
        modes = [*self._modes]
        if not on:
            modes[LOCAL_MODES] &= ~termios.ECHO
            # Stopped now, it would hand its terminal to the shell as it is.
            modes[CHARACTERS] = [*modes[CHARACTERS]]
            modes[CHARACTERS][termios.VSUSP] = b"\0"
        with suppress(termios.error):
            termios.tcsetattr(STDIN, termios.TCSANOW, modes)
