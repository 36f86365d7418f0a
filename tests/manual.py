"""Write the man page and the shells' completions, from what the code declares.

    python -m tests.manual

Options come from the parser, settings from the variables' declarations, statuses from
docs/exit-statuses.md, the date from CHANGELOG.md, addresses from pyproject.toml. They
lie in share/ as a wheel installs them.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path

from ecoflow_push import __version__
from ecoflow_push.config.kinds import Variable
from ecoflow_push.start.options import create_parser
from tests.settings_page import tables

ROOT = Path(__file__).resolve().parent.parent
SHARE = ROOT / "share"
MAN = SHARE / "man" / "man1" / "ecoflow-push.1"
BASH = SHARE / "bash-completion" / "completions" / "ecoflow-push"
ZSH = SHARE / "zsh" / "site-functions" / "_ecoflow-push"
#: Their values are names of files.
FILES = {"FILE"}
NONE = "–"  # noqa: RUF001 - the dash that the tables show for no default
ROFF = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "~": r"\(ti", NONE: r"\(en"}


def options() -> list[argparse.Action]:
    """Return the options in the order of --help."""
    return create_parser()[0]._actions


def urls() -> dict[str, str]:
    """Return the project's addresses by their labels."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return dict(project["urls"])


# --- man(7) -----------------------------------------------------------------------

MAN_PAGE = r"""
.\" Made by python -m tests.manual: change what it is made from.
.TH ECOFLOW\-PUSH 1 {date} "ecoflow\-push {version}" "User Commands"
.SH NAME
ecoflow\-push \- push one snapshot of EcoFlow devices to Prometheus
.SH SYNOPSIS
.B ecoflow\-push
[\fIOPTION\fR]...
.SH DESCRIPTION
Takes one snapshot of all EcoFlow devices of an account, pushes it to a Pushgateway, by
remote\-write or into a text file for node_exporter, and exits with a status that says
what became of it. It only reads: nothing is ever written to a device.
.PP
Settings are environment variables; \fB\-\-env\-file\fR reads them from a file. Whatever
fails, \fB\-\-check\fR says what is wrong, and what to do.
.SH OPTIONS
{options}
.SH ENVIRONMENT
Each of these but paths, and those from the surroundings, can be given as
\fIX\fR\fB_FILE\fR too: a file whose content is the value.
{variables}
.SH EXIT STATUS
{statuses}
.SH FILES
.TP
.I \(ti/.config/ecoflow\-push.env
the customary place for settings; read only where \fB\-\-env\-file\fR names it
.TP
.I \(ti/.local/state/ecoflow\-push
what one run tells the next; see \fBSTATE_DIR\fR
.SH EXAMPLES
Look at what would be pushed, then try each thing that is set:
.PP
.EX
ecoflow\-push \-\-env\-file \(ti/.config/ecoflow\-push.env \-\-dry\-run
ecoflow\-push \-\-env\-file \(ti/.config/ecoflow\-push.env \-\-check
.EE
.PP
Without an account, from a simulated cloud:
.PP
.EX
ecoflow\-push \-\-demo
.EE
.SH REPORTING BUGS
.I {issues}
.br
A report is of use with the output of \fB\-\-check\fR, in which secrets are masked.
.SH SEE ALSO
.I {documentation}
""".lstrip()


def roff(text: str) -> str:
    """Return Markdown's words for man(7): code in bold, of a link only its text."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    parts = re.split(r"`([^`]*)`", text)
    parts[::2] = map(escaped, parts[::2])
    parts[1::2] = [rf"\fB{escaped(part)}\fR" for part in parts[1::2]]
    words = "".join(parts)
    return rf"\&{words}" if words.startswith(".") else words


def escaped(text: str) -> str:
    """Return a text in which roff finds no command but a dot at its beginning."""
    return "".join(ROFF.get(letter, letter) for letter in text)


def of_option(action: argparse.Action) -> list[str]:
    """Return the entry of an option."""
    name = ", ".join(rf"\fB{escaped(each)}\fR" for each in action.option_strings)
    if action.metavar:
        value = rf"\fI{action.metavar}\fR"
        name += f" [{value}]" if action.nargs == "?" else f" {value}"
    return [".TP", name, roff(action.help or "")]


def of_variable(variable: Variable) -> list[str]:
    """Return the entry of a setting."""
    words = variable.words
    if variable.default != NONE:
        words += f" (default: {variable.default})"
    path = r" \fIpath\fR" if variable.is_path else ""
    return [".TP", rf"\fB{variable.name}\fR{path}", roff(words)]


def variables() -> list[str]:
    """Return all settings, under their headings."""
    lines = []
    for heading, table in tables().items():
        lines.append(f".SS {heading}")
        lines += [line for each in table for line in of_variable(each)]
    return lines


def statuses() -> list[str]:
    """Return the entries of the exit statuses."""
    page = (ROOT / "docs" / "exit-statuses.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (.*?) \|", page, re.MULTILINE)
    entries = [[".TP", rf"\fB{number}\fR {name}", roff(w)] for number, name, w in rows]
    return [line for entry in entries for line in entry]


def released() -> str:
    """Return the day of this version."""
    heading = rf"^## \[{re.escape(__version__)}\] - (\S+)$"
    found = re.search(heading, (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert found, f"CHANGELOG.md does not have {__version__} and its day"
    return found[1]


def man_page() -> str:
    """Return the man page."""
    return MAN_PAGE.format(
        date=released(),
        version=escaped(__version__),
        options="\n".join(line for each in options() for line in of_option(each)),
        variables="\n".join(variables()),
        statuses="\n".join(statuses()),
        issues=escaped(urls()["Issues"]),
        documentation=escaped(urls()["Documentation"]),
    )


# --- shells -----------------------------------------------------------------------

BASH_SCRIPT = """\
# Made by python -m tests.manual: change what it is made from.
_ecoflow_push() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}}
    # Of --option=value, bash makes three words.
    local behind=""
    if [ "$word" = "=" ]; then
        behind="=" word=""
    elif [ "$before" = "=" ]; then
        behind="=" before=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi
    COMPREPLY=()
    case $before in
        {files})
            # Nothing of ours: the shell's own completion, of files.
            compopt -o default
            ;;
        {values}) ;;
        *)
            # shellcheck disable=SC2207
            [ "$behind" ] || COMPREPLY=($(compgen -W "{names}" -- "$word"))
            ;;
    esac
}}
complete -F _ecoflow_push ecoflow-push
"""
ZSH_SCRIPT = """\
#compdef ecoflow-push
# Made by python -m tests.manual: change what it is made from.
_arguments \\
    {specs}
"""


def named(actions: list[argparse.Action], separator: str = "|") -> str:
    """Return all the names of options."""
    return separator.join(name for each in actions for name in each.option_strings)


def takes_value(action: argparse.Action) -> bool:
    """Return whether what follows is a value: not so where it may be left out."""
    return bool(action.metavar) and action.nargs != "?"


def bash() -> str:
    """Return what completes for bash."""
    valued = list(filter(takes_value, options()))
    return BASH_SCRIPT.format(
        files=named([each for each in valued if each.metavar in FILES]),
        values=named([each for each in valued if each.metavar not in FILES]),
        names=named(options(), " "),
    )


def spec(action: argparse.Action) -> str:
    """Return an option as zsh's _arguments takes it."""
    *short, name = action.option_strings
    # What --help and --version say is all that is said; what appends may come again.
    ends = (argparse._HelpAction, argparse._VersionAction)
    before = "(- *)" if isinstance(action, ends) else ""
    before = "*" if isinstance(action, argparse._AppendAction) else before
    words = "".join(rf"\{x}" if x in "[]:" else x for x in action.help or "")
    value = ""
    if takes_value(action):
        name += "="
        how = "_files" if action.metavar in FILES else " "
        value = f":{action.metavar}:{how}"
    if short:
        # Braces are for the shell to expand, outside of the quotes.
        name = f"'{{{','.join([*short, name])}}}'"
    words = words.replace("'", r"'\''")
    return f"'{before}{name}[{words}]{value}'"


def zsh() -> str:
    """Return what completes for zsh."""
    # Last a word alone, of which nothing is known: what an option may be without.
    specs = [*map(spec, options()), "':: :()'"]
    return ZSH_SCRIPT.format(specs=" \\\n    ".join(specs))


def all_pages() -> dict[Path, str]:
    """Return every file that is made, and its text."""
    return {MAN: man_page(), BASH: bash(), ZSH: zsh()}


if __name__ == "__main__":
    for file, text in all_pages().items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
