"""The session of --init: from the first question to what comes next."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from urllib.parse import urlsplit

from ecoflow_push import DOCS, leaving, logs
from ecoflow_push.config.env_file import over_files
from ecoflow_push.errors import ExitStatus, Fault, SettingsError, SinkError
from ecoflow_push.init import after, files
from ecoflow_push.init.draft import Draft, names
from ecoflow_push.init.questions import (
    CA_FILE,
    LOGINS,
    PUSHING,
    READING,
    Question,
    Way,
    everything,
)
from ecoflow_push.init.terminal import Terminal
from ecoflow_push.init.trials import Trials, show_faults
from ecoflow_push.redact import redact
from ecoflow_push.run.show import say

DEFAULT_FILE = ".config/ecoflow-push.env"
HOST = "ECOFLOW_API_HOST"
TEXTFILE = "TEXTFILE_PATH"
# What a text becomes that is all secret.
MASK = "***"
NONE = "none"
TEMPORARY_CURE = "make room on the disk, or let TMPDIR name a folder to write in"
UNKNOWN = ("not one of the settings", "it is left out")
ANEW = "Write it anew, without comments, and offer what it says?"
MANY = "ECOFLOW_ACCOUNTS"
NOT_MANY = (
    "set, and --init asks for one account",
    f"take it out, or write a file for each account into that folder, {DOCS}/fleet.md",
)
AGAIN = "\nOnce more; Enter keeps what was said before.\n"


def start(paths: Sequence[str], environ: Mapping[str, str]) -> ExitStatus:
    """Ask, try, write and say what comes next; `paths` is the file, if it is named.

    Raises Unanswered where there is no terminal, or no longer one.
    """
    logs.configure("WARNING", environ.get("LOG_FORMAT", "").strip().lower())
    with Terminal() as terminal:
        with leaving.undisturbed("a folder in TMPDIR"):
            state_dir = _make_folder()
            terminal.undo.append(partial(shutil.rmtree, state_dir, ignore_errors=True))
        home = environ.get("HOME") or os.path.expanduser("~")
        session = Session(terminal, environ, Draft(home), Trials(state_dir))
        return session.run(*paths or [os.path.join(home, DEFAULT_FILE)])


def _make_folder() -> str:
    """Return a new folder for what is tried; raises SinkError if there can be none."""
    try:
        return tempfile.mkdtemp(prefix="ecoflow-push-init-")
    except OSError as exc:
        text = f"no folder for what is only tried: {exc.strerror}"
        raise SinkError(text, TEMPORARY_CURE) from exc


class Session:
    """One conversation."""

    def __init__(
        self,
        terminal: Terminal,
        environ: Mapping[str, str],
        draft: Draft,
        trials: Trials,
    ) -> None:
        """Begin with an empty `draft`."""
        self._terminal = terminal
        self._environ = environ
        self._draft = draft
        self._trials = trials
        #: What was set before anything was asked.
        self._offered: list[str] = []

    def run(self, path: str) -> ExitStatus:
        """Ask everything, and end with a file."""
        say(
            "Every answer is tried at once. Enter takes what stands in [brackets].\n"
            "Ctrl-C leaves, and nothing has been written then.\n\n"
        )
        path = self._choose_file(path)
        self._take_over(path)
        while not self._read():
            say(AGAIN)
        self._push()
        path = self._write(path)
        textfile = self._draft.path(TEXTFILE)
        reached = [os.path.dirname(textfile)] if textfile else []
        after.tell(path, reached, has_level=bool(self._draft.said("LOG_LEVEL")))
        return ExitStatus.OK

    # -- the file -------------------------------------------------------------------

    def _choose_file(self, path: str) -> str:
        """Return the path of a file that is not there, or that may be changed."""
        while True:
            path = files.whole(path, self._environ)
            if trouble := files.trouble(path):
                show_faults([Fault(path, trouble, "name another one")])
            elif not os.path.lexists(path):
                say(f"The settings will be in {path}\n\n")
                return path
            else:
                words = f"{path} is there.\n{ANEW}"
                if self._terminal.confirm(words, default=False):
                    return os.path.realpath(path)
            path = self._terminal.needed("Which file then? ")

    def _take_over(self, path: str) -> None:
        """Begin with what the file and the environment say."""
        draft, environ = self._draft, self._environ
        if os.path.lexists(path):
            try:
                environ = over_files([path], environ)
                unknown = over_files([path], {}).keys() - names()
                show_faults(Fault(name, *UNKNOWN) for name in sorted(unknown))
            except SettingsError as exc:
                show_faults(exc.faults)
        if environ.get(MANY, "").strip():
            raise SettingsError([Fault(MANY, *NOT_MANY)])
        show_faults(draft.take(environ))
        self._offered = sorted(draft)
        if of_here := [name for name in draft if self._environ.get(name)]:
            say(
                f"Set in this environment: {', '.join(of_here)}.\n"
                "Jobs of cron and systemd do not see it, so it is offered, and goes"
                " into the file.\nIn this environment it stays stronger than the"
                " file.\n\n"
            )

    def _write(self, path: str) -> str:
        """Write the file, and return where it is."""
        say("\n")
        # A value may have become that of a file, or the other way round.
        said, offered = self._draft.said, self._offered
        if gone := [name for name in offered if not said(name.removesuffix("_FILE"))]:
            say(f"Left out: {', '.join(gone)}.\n\n")
        secrets = [q.name for q in everything() if q.hidden and q.name in self._draft]
        words = "Keep the secrets in files of their own, beside it?"
        if not secrets or not self._terminal.confirm(words, default=False):
            secrets = []
        while True:
            contents = self._contents(path, secrets)
            there = [each for each in contents if each != path]
            there = [each for each in there if os.path.lexists(each)]
            words = f"{', '.join(there)}: there already. Replace?"
            if there and not self._terminal.confirm(words, default=False):
                say("Then the secrets stay in the file of the settings.\n")
                secrets = []
                continue
            try:
                with leaving.undisturbed("a part of the settings"):
                    files.write(contents)
            except OSError as exc:
                text = f"cannot be written ({exc.strerror})"
                show_faults([Fault(path, text, "name another one")])
                path = self._choose_file(self._terminal.needed("Which file then? "))
                continue
            return path

    def _contents(self, path: str, secrets: Iterable[str]) -> dict[str, str]:
        """Return the text of each file, that of the settings last."""
        contents = {}
        draft = self._draft.twin()
        for name in secrets:
            place = files.beside(path, name)
            contents[place] = f"{draft[name]}\n"
            draft.move(name, place)
        return {**contents, path: draft.text()}

    # -- asking ---------------------------------------------------------------------

    def _ask(self, question: Question) -> None:
        """Ask until the answer has the right shape, and put it into the draft."""
        draft, name = self._draft, question.name
        while True:
            known = draft.said(name) or question.default
            is_secret = question.hidden or redact(known) == MASK
            shown = "as before" if is_secret else known
            offer = f" [{shown}]" if known else ""
            if question.optional:
                offer = f" [{shown}, or {NONE}]" if known else f" [{NONE}]"
            unseen = " (is not shown)" if question.hidden else ""
            answer = self._terminal.ask(
                f"{question.words}{unseen}{offer}: ", hidden=question.hidden
            )
            if not answer and (draft.said(name) or question.optional):
                return
            if question.optional and answer == NONE:
                draft.drop([name])
                return
            answer = answer or question.default
            if not answer:
                say("It cannot be left out.\n")
                continue
            before = draft.twin()
            draft.put(name, answer)
            faults = draft.faults(name)
            if not faults:
                return
            show_faults(faults)
            draft.become(before)

    def _read(self) -> bool:
        """Ask how the devices are read, and return whether they can be."""
        draft = self._draft
        name = self._choose("How are the devices to be read?", READING)
        for question in READING[name].questions:
            self._ask(question)
        say("\n")
        others = [other for other in READING if other != name]
        tried = draft.without(others, "api")
        tried.drop(["ECOFLOW_SOURCE"])
        asked = (question for other in others for question in READING[other].questions)
        if any(self._environ.get(question.name) for question in asked):
            # A run from this environment would find both, and not know which is meant.
            tried.put("ECOFLOW_SOURCE", name)
        status = self._trials.read(tried, name)
        if status is None and (host := self._trials.known_at):
            say(f"\nFrom now on {HOST}={host} is used.\n\n")
            tried.put(HOST, host)
            status = self._trials.read(tried, name)
        if status is None:
            return False
        if status not in (ExitStatus.OK, ExitStatus.PARTIAL):
            words = "A run would end so. Take it all the same?"
            if not self._terminal.confirm(words, default=False):
                return False
        draft.become(tried)
        return True

    def _push(self) -> None:
        """Ask for one sink after the other, until each works."""
        left = dict(PUSHING)
        while True:
            say("\n")
            name = self._choose("Where are the values to go?", left)
            way = left.pop(name)
            self._ask_about(way)
            while not self._trials.push(self._draft, name):
                say(AGAIN)
                self._ask_about(way)
            more = any(map(self._is_known, left.values()))
            words = "Anywhere else too?"
            if not left or not self._terminal.confirm(words, default=more):
                break
        self._draft.become(self._draft.without(left, "sinks"))

    def _ask_about(self, way: Way) -> None:
        """Ask what a way needs, and of a server how it is to know us."""
        for question in way.questions:
            self._ask(question)
        if not way.server:
            return
        url = urlsplit(self._draft.said(way.questions[0].name))
        if url.username is None:
            for question in LOGINS[self._login(way.server)].questions:
                self._ask(question.at(way.server))
        if url.scheme == "https":
            self._ask(CA_FILE.at(way.server))
        say("\n")

    def _login(self, server: str) -> str:
        """Return the login that is chosen; of the others nothing is left."""
        logins = {
            name: way._replace(questions=tuple(q.at(server) for q in way.questions))
            for name, way in LOGINS.items()
        }
        chosen = self._choose("Does it ask for a login?", logins)
        for name, way in logins.items():
            if name != chosen:
                self._draft.drop(question.name for question in way.questions)
        return chosen

    def _choose(self, words: str, ways: Mapping[str, Way]) -> str:
        """Return which way is chosen; offered is the first of which anything is set."""
        known = (name for name, way in ways.items() if self._is_known(way))
        choices = {name: way.words for name, way in ways.items()}
        offered = next(known, next(iter(ways)))
        return self._terminal.choose(words, choices, offered)

    def _is_known(self, way: Way) -> bool:
        return any(self._draft.said(question.name) for question in way.questions)
