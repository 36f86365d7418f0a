"""A reader of the documents, who types what is in their blocks.

The reader has a home folder, a root folder that stands for /opt and /etc, and servers
that stand for the hosts of the examples. Commands run for real, in a shell; those that
cannot run here are written down, and tests/test_docs_commands.py looks at what they
were to do.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support import ROOT

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<kind>\S*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


# Of the repository, in the pages.
ADDRESS = "https://github.com/ecoflow-push/ecoflow-push"


class Block(NamedTuple):
    """A fenced block: where it stands, what kind it says that it is, and its text."""

    page: str
    section: str
    line: int
    kind: str
    text: str


def pages() -> list[Path]:
    """Return the README and all pages that users read, and those beside them."""
    docs = ROOT / "docs"
    inside = docs / "internals"
    return [
        ROOT / "README.md",
        *sorted(docs.glob("*.md")),
        *sorted(inside.glob("*.md")),
    ]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page, in order."""
    text = page.read_text()
    # An odd fence would turn all blocks behind it inside out.
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) % 2 == 0, page.name
    for found in FENCE.finditer(text):
        before = text[: found.start()]
        sections = re.findall(r"^## (.*)$", before, re.MULTILINE)
        yield Block(
            page.name,
            sections[-1] if sections else "",
            before.count("\n") + 1,
            found["kind"],
            textwrap.dedent(found["text"]),
        )


# Commands that cannot run here, or must not: each is written down with its folder. pip
# and pipx make what the next line of a page needs.
WRITTEN_DOWN = """\
#!/bin/sh
"{python}" -c 'import json, os, sys; print(json.dumps(sys.argv[1:] + [os.getcwd()]))' \\
    "${{0##*/}}" "$@" >>"{log}"
"""
MADE_BY_PIP = """\
case "$*" in *git+*|*/ecoflow-push) ;; *) exit 0 ;; esac
folder="{folder}"
mkdir -p "$folder"
printf '#!/bin/sh\\nexec "{python}" "{root}/push.py" "$@"\\n' >"$folder/ecoflow-push"
chmod 755 "$folder/ecoflow-push"
"""
# Takes what a reader pastes for a key by the name of the file that it goes to.
CAT = """\
#!/bin/sh
[ $# -eq 0 ] || exec /bin/cat "$@"
file=$(readlink /proc/$$/fd/1)
exec /bin/cat "{pasted}/${{file##*/}}"
"""
PYTHON3 = """\
#!/bin/sh
[ "$1 $2" = "-m venv" ] || exec "{python}" "$@"
mkdir -p "$3/bin"
printf '#!/bin/sh\\nexec "{python}" "$@"\\n' >"$3/bin/python"
cp "{bin}/pip" "$3/bin/pip"
chmod 755 "$3/bin/python" "$3/bin/pip"
"""
SUDO = '#!/bin/sh\nexec "$@"\n'
CHOWN = WRITTEN_DOWN + '[ "$(id -u)" -ne 0 ] || exec /bin/chown "$@"\n'
# Of a group that a page makes there is none here.
CHGRP = """\
#!/bin/sh
case " $* " in *" ecoflow-accounts "*) exec "${{0%/*}}/groupadd" "$@" ;; esac
exec /bin/chgrp "$@"
"""
CRONTAB = """\
#!/bin/sh
[ "$1" = - ] || exec /bin/cat "{home}/crontab"
# Whole, before the old one goes, which is being read.
table=$(/bin/cat) && printf '%s\n' "$table" >"{home}/crontab"
"""
# Without a cluster kubectl still tells what it would send.
KUBECTL = (
    WRITTEN_DOWN
    + """\
case "$*" in
    *" secret "*|*" namespace "*) exec "{kubectl}" "$@" --dry-run=client -o yaml ;;
    *" apply -k "*) for folder; do :; done; exec "{kubectl}" kustomize "$folder" ;;
esac
"""
)
STEP = """\
set -eu
cd "{home}"
. "{home}/.exported"
cd "$(/bin/cat "{home}/.folder")"
{text}
pwd >"{home}/.folder"
export -p >"{home}/.exported"
"""
# A path of the machine's own, which no block may name unless it was replaced.
OUTSIDE = re.compile(r"(?<![\w/.:~$-])/(?:opt|etc|usr|var|srv|root|home)\b")


class Reader:
    """Someone at a machine of their own; what was written down is in `typed()`."""

    def __init__(
        self,
        folder: Path,
        repository: Path,
        *,
        kubectl: str = "",
        names: Mapping[str, str],
        pasted: Mapping[str, str],
        environ: Mapping[str, str],
    ) -> None:
        self.root = folder / "machine"
        self.home = folder / "home"
        self._bin = folder / "bin"
        self._log = folder / "typed"
        self._repository = repository
        self._names = {**names, ADDRESS: f"file://{repository}"}
        self.environ = {
            "HOME": str(self.home),
            "PATH": f"{self._bin}:/usr/bin:/bin",
            **environ,
        }
        for made in (self.root, self.home, self._bin, folder / "pasted"):
            made.mkdir(parents=True)
        (self.root / "opt").mkdir()
        (self.root / "var/lib/prometheus/node-exporter").mkdir(parents=True)
        (self.root / "etc/systemd/system").mkdir(parents=True)
        for name, content in pasted.items():
            (folder / "pasted" / name).write_text(f"{content}\n")
        (self.home / ".folder").write_text(f"{self.home}\n")
        (self.home / ".exported").write_text("")
        self._log.write_text("")
        self._stand_ins(folder, kubectl)

    def _stand_ins(self, folder: Path, kubectl: str) -> None:
        words = {
            "python": sys.executable,
            "log": self._log,
            "root": ROOT,
            "bin": self._bin,
            "home": self.home,
            "pasted": folder / "pasted",
            "kubectl": kubectl,
        }
        programs = dict.fromkeys(
            ("apt-get", "docker", "groupadd", "journalctl", "sbatch", "systemctl"),
            WRITTEN_DOWN,
        )
        programs |= {
            "pip": WRITTEN_DOWN + MADE_BY_PIP,
            "pipx": WRITTEN_DOWN + MADE_BY_PIP,
            "cat": CAT,
            "chgrp": CHGRP,
            "chown": CHOWN,
            "crontab": CRONTAB,
            "kubectl": KUBECTL,
            "python3": PYTHON3,
            "sudo": SUDO,
        }
        for name, text in programs.items():
            made_in = self.home / ".local/bin" if name == "pipx" else "${0%/*}"
            (self._bin / name).write_text(text.format(**words, folder=made_in))
            (self._bin / name).chmod(0o755)

    def path(self, text: str) -> Path:
        """Return where a path of the documents is here."""
        text = self.replaced(text).replace("~/", f"{self.home}/", 1)
        return Path((self.home / ".folder").read_text().strip()) / text

    def replaced(self, text: str) -> str:
        """Return a text with our servers, keys and folders for the examples'."""
        for theirs, ours in self._names.items():
            text = text.replace(theirs, ours)
        folders = (
            r"(?:opt|etc|var/lib|var/lib/private)/ecoflow-push"
            r"|etc/systemd/system|var/lib/prometheus"
        )
        # Behind a colon it is a container's.
        return re.sub(rf"(?<![\w/.:])/(?:{folders})\b", rf"{self.root}\g<0>", text)

    def types(self, text: str) -> subprocess.CompletedProcess[str]:
        """Let the reader type a block into a shell, which goes on with the next one."""
        ours = self.replaced(text)
        assert not OUTSIDE.search(ours.replace(str(self.root.parent), "")), ours
        done = subprocess.run(
            ["sh", "-c", STEP.format(home=self.home, text=ours)],
            env=self.environ,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode != 127, done.stderr
        return done

    def typed(self) -> list[list[str]]:
        """Return what was written down since last asked: command, words and folder."""
        lines = self._log.read_text().splitlines()
        self._log.write_text("")
        return [json.loads(line) for line in lines]

    def clone(self, folder: Path) -> None:
        """Put the program where a page expects it, its .venv beside it."""
        subprocess.run(["git", "clone", "-q", self._repository, folder], check=True)
        subprocess.run(
            ["python3", "-m", "venv", folder / ".venv"], check=True, env=self.environ
        )
        # The same files, with what Python has made of them since.
        package = "ecoflow_push"
        shutil.copytree(ROOT / package, folder / package, dirs_exist_ok=True)


def repository(folder: Path) -> Path:
    """Return a repository whose one commit is this tree as it stands."""
    bare = folder / "repository"
    # It is read more often than it is kept.
    git = ["git", "-c", "core.compression=0"]
    git += ["--git-dir", str(bare), "--work-tree", str(ROOT)]
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
        **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "A reader"),
        **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "a@example.org"),
    }
    assert shutil.which("git")
    for words in (
        ["init", "-q", "--initial-branch=main"],
        ["add", "--all"],
        ["commit", "-q", "-m", "All of it"],
    ):
        subprocess.run([*git, *words], check=True, env=environ, cwd=ROOT)
    return bare
