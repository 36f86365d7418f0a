"""The man page and the completions: what is declared, what the shells make of it."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.deploy import program, said_by
from tests.manual import BASH, MAN, ZSH, all_pages, options, roff, spec

TYPED = {
    # what is typed, Tab at its end: the arguments that come of it
    "--list": ["--list-devices"],
    "--demo --ver": ["--demo", "--version"],
    "--env-file my": ["--env-file", "my settings.env"],
    "--env-file=my": ["--env-file=my settings.env"],
    # Nobody knows which; files are no answer.
    "--device my": ["--device", "my"],
    # Its value may be left out.
    "--every --dry": ["--every", "--dry-run"],
    "--every 60 --dry": ["--every", "60", "--dry-run"],
    # An option is no value.
    "--every=": ["--every="],
    "--every=--dr": ["--every=--dr"],
}
# What begins, and what hears what is typed next. It tells its arguments and leaves.
BASH_RC = "source {file}\n"
ZSH_RC = "fpath=({folder} $fpath)\nautoload -Uz compinit && compinit -u -D\n"
COMMAND = "ecoflow-push() {{ printf '%s\\0' \"$@\" >{told}; exit; }}\n"


def completed(shell: str, typed: str, folder: Path) -> list[str]:
    """Return the arguments after Tab in a shell at a terminal, in a folder of files."""
    told = folder.parent / "told"
    (folder / "my settings.env").touch()
    rc = BASH_RC.format(file=shlex.quote(str(BASH)))
    if shell == "zsh":
        rc = ZSH_RC.format(folder=shlex.quote(str(ZSH.parent)))
    config = folder.parent / ".zshrc"
    config.write_text(rc + COMMAND.format(told=shlex.quote(str(told))))
    begin = {"bash": ["--noprofile", "--rcfile", str(config)], "zsh": []}[shell]
    ours, theirs = pty.openpty()
    # What is typed before the prompt waits for it.
    os.write(ours, f"ecoflow-push {typed}\t\n".encode())
    with subprocess.Popen(
        [program(shell), *begin, "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        cwd=folder,
        env={"PATH": os.defpath, "TERM": "dumb", "ZDOTDIR": str(folder.parent)},
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # so Linux says that nobody is there any more
            pass
        finally:
            os.close(ours)
        process.wait(30)
    assert told.exists(), shown.decode()
    return told.read_text().split("\0")[:-1]


@pytest.mark.parametrize("file", all_pages(), ids=lambda path: path.name)
def test_what_is_made_is_what_is_declared(file):
    """The man page and the completions are what `python -m tests.manual` makes."""
    assert file.read_text() == all_pages()[file], "make it anew: python -m tests.manual"


@pytest.mark.parametrize(
    "checker",
    ["mandoc -T lint -W warning", "groff -man -ww -z -T utf8"],
    ids=["mandoc", "groff"],
)
def test_the_man_page_is_well_formed(checker, tmp_path):
    """mandoc and groff find nothing in the man page, and a planted fault in another."""
    name, *args = checker.split()
    wrong = tmp_path / "ecoflow-push.1"
    wrong.write_text(MAN.read_text() + ".EE\n.nonsense\n\\[nonsense]\n")

    assert said_by(program(name), *args, MAN) == (0, "")
    assert "nonsense" in said_by(program(name), *args, wrong)[1]


def test_the_man_page_as_it_is_read():
    """What a reader sees has plain hyphens, each option, and no mark of Markdown."""
    status, page = said_by(program("mandoc"), "-T", "ascii", "-O", "width=500", MAN)
    page = page.replace("\b", "")

    assert status == 0
    assert "`" not in page
    assert "](" not in page
    for action in options():
        assert "-" in action.option_strings[-1]
        # Overstruck letter by letter, as a terminal's bold.
        bold = "".join(letter * 2 for letter in action.option_strings[-1])
        assert bold in page


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize("typed", TYPED)
def test_tab_completes(shell, typed, tmp_path):
    """In a real shell Tab completes options, and files where a file is asked for."""
    folder = tmp_path / "folder"
    folder.mkdir()

    assert completed(shell, typed, folder) == TYPED[typed]


def test_marks_of_the_shells_and_of_roff():
    """Quotes, brackets, dots and backslashes of a help text are told as they are."""
    [action] = [each for each in options() if "--demo" in each.option_strings]
    action.help = "what's [not]: so"

    assert spec(action) == r"'--demo[what'\''s \[not\]\: so]'"
    assert roff(".x") == r"\&.x"
    assert roff(r"[a\b](c) `d-e`") == r"a\eb \fBd\-e\fR"
