#!/usr/bin/env python3
"""Fetch the real servers for the tests, Prometheus' and Slurm's; install nothing.

The packages come from the archive that this Debian or Ubuntu uses itself, are checked
by its apt and unpacked into .servers/SUITE. It works without root, and writes nowhere
else. `find` tells the tests where the programs are.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent / ".servers"
# Each package, and the names of its program: Debian's, then upstream's.
SERVERS = {
    "prometheus-pushgateway": ("prometheus-pushgateway", "pushgateway"),
    "prometheus": ("prometheus",),
    "victoria-metrics": ("victoria-metrics",),
    "mosquitto": ("mosquitto",),
    "kubectl": ("kubectl",),
    "slurmctld": ("slurmctld-wlm", "slurmctld"),
    "slurmd": ("slurmd-wlm", "slurmd"),
    "slurm-client": ("sbatch",),
}
# A release whose databases and kubectl are not years old (remote-write 2.0, for one),
# for these programs alone.
NEWER = "forky"
FROM_NEWER = {"prometheus", "victoria-metrics", "kubectl"}
# These need libraries of their own release; the others run on any.
NEED_LIBRARIES = {"mosquitto", "slurmctld", "slurmd", "slurm-client"}
# A third party may use the same suite and component names, but has its own keyring.
KEYRINGS = ("debian-archive", "ubuntu-archive", "raspbian-archive")
# The hooks of an `apt-get update` work on the system's folders, whatever Dir says.
APT_CONF = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Check-Valid-Until "{dated}";
Acquire::Retries "3";
Dir::State "{apt}";
Dir::State::status "{apt}/status";
Dir::Cache "{apt}";
Dir::Etc::sourcelist "{apt}/archive.sources";
Dir::Etc::sourceparts "-";
"""


def release() -> str:
    """Return the code name of the archive that this machine uses."""
    file = Path("/etc/os-release")
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    fields = dict(re.findall(r'^(\w+)="?(.*?)"?$', text, re.MULTILINE))
    # A derivative names its own release first and the archive's apart.
    names = ("UBUNTU_CODENAME", "DEBIAN_CODENAME", "VERSION_CODENAME")
    return next((fields[name] for name in names if fields.get(name)), "")


def works(program: Path) -> bool:
    """Return whether the program is there and starts."""
    try:
        done = subprocess.run(
            [program, "--version"],
            capture_output=True,
            check=False,
            # Or sbatch asks the network where its controller is.
            env={**environ(program), "SLURM_CONF": os.devnull},
        )
    except OSError:
        return False
    # 127: a library is missing. Some know no such option, and say so.
    return done.returncode != 127


def environ(program: Path) -> dict[str, str]:
    """Return the environment in which a program finds the libraries beside it."""
    if not any(program.name in SERVERS[package] for package in NEED_LIBRARIES):
        return dict(os.environ)
    usr = program.parent.parent
    # Slurm's programs share a library that is among its plugins.
    folders = [*usr.glob("lib/*-linux-gnu*"), *usr.glob("lib/*-linux-gnu*/slurm-wlm")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, folders))}


def wanted(suite: str) -> set[str]:
    """Return the packages whose programs can run here."""
    here = suite in {"", release()}
    if suite == NEWER and not here:
        return FROM_NEWER
    return {
        name
        for name in SERVERS
        if name != "kubectl" and (here or name not in NEED_LIBRARIES)
    }


def find_one(package: str, suite: str = "") -> Path | None:
    """Return where a server is, that of `suite` if one is named; None without it."""
    names = SERVERS[package]
    tree = HOME / (suite or release()) / "usr"
    places = [tree / "bin" / names[0], tree / "sbin" / names[0]]
    if not suite:
        path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
        found_here = (shutil.which(name, path=path) for name in names)
        places += [Path(place) for place in found_here if place]
    return next(filter(works, places), None)


def find(suite: str = "") -> dict[str, Path]:
    """Return the servers that are here, those of `suite` alone if one is named."""
    found = ((package, find_one(package, suite)) for package in SERVERS)
    return {package: place for package, place in found if place}


def sources(text: str, *, deb822: bool) -> list[dict[str, str]]:
    """Return the entries of one of apt's source files, of either format."""
    if deb822:
        text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
        text = re.sub(r"\n[ \t]+(?=\S)", " ", text)  # a value may go on below
        field = re.compile(r"^([\w-]+):[ \t]*(.*)$", re.MULTILINE)
        stanzas = [dict(field.findall(part)) for part in re.split(r"\n\s*\n", text)]
        return [
            stanza
            for stanza in stanzas
            if "deb" in stanza.get("Types", "").split()
            and stanza.get("Enabled") != "no"
        ]
    line = re.compile(
        r"^deb\s+(?:\[(.*?)\]\s+)?(\S+)\s+(\S+)\s+([^#\n]+)", re.MULTILINE
    )
    entries = []
    for options, uris, suites, components in line.findall(text):
        entry = {"URIs": uris, "Suites": suites, "Components": components.strip()}
        if key := re.search(r"signed-by=(\S+)", options):
            entry["Signed-By"] = key[1]
        entries.append(entry)
    return entries


def archive(suite: str) -> str:
    """Return the machine's own archive as a source file for `suite`."""
    etc = Path("/etc/apt")
    files = [etc / "sources.list", *sorted(etc.glob("sources.list.d/*"))]
    stanzas = []
    for file in files:
        if file.suffix not in {".list", ".sources"} or not file.is_file():
            continue
        text = file.read_text(encoding="utf-8")
        for entry in sources(text, deb822=file.suffix == ".sources"):
            key = entry.get("Signed-By", "")
            own = not key or any(name in key for name in KEYRINGS)
            if own and release() in entry.get("Suites", "").split():
                kept = {"Types": "deb", **entry, "Suites": suite}
                wanted = ("Types", "URIs", "Suites", "Components", "Signed-By")
                lines = [f"{name}: {kept[name]}\n" for name in wanted if name in kept]
                stanzas.append("".join(lines))
    if not stanzas:
        sys.exit(f"No archive of {release() or 'this system'} in {etc}'s source files.")
    return "\n".join(stanzas)


def fetch(suite: str) -> None:
    """Download and unpack the servers of `suite`."""
    HOME.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME) as folder:
        apt, tree = Path(folder, "apt"), Path(folder, "tree")
        for part in ("lists/partial", "archives/partial"):
            (apt / part).mkdir(parents=True)
        (apt / "status").touch()
        (apt / "archive.sources").write_text(archive(suite), encoding="utf-8")
        # The index of a release in the making may be past its date on a mirror; its
        # signature is checked all the same.
        conf = APT_CONF.format(apt=apt, dated="false" if suite == NEWER else "true")
        (apt / "apt.conf").write_text(conf, encoding="utf-8")
        apt_get = ["apt-get", "-qq", "-c", str(apt / "apt.conf")]
        subprocess.run([*apt_get, "update"], check=True)
        packages = wanted(suite)
        if needy := packages & NEED_LIBRARIES:
            # Only the libraries that the system, by its own account, lacks.
            status = "Dir::State::status=/var/lib/dpkg/status"
            plan = ["--print-uris", "--no-install-recommends", "install"]
            lacking = subprocess.run(
                [*apt_get, "-o", status, *plan, *sorted(needy)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            packages |= set(re.findall(r"^'\S+' ([^_]+)_", lacking, re.MULTILINE))
        subprocess.run([*apt_get, "download", *sorted(packages)], check=True, cwd=apt)
        for package in apt.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, tree], check=True)
        shutil.rmtree(HOME / suite, ignore_errors=True)
        tree.rename(HOME / suite)


def main() -> int:
    """Make sure that the servers are here, and say where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--suite", default="", help="a release other than this one's")
    suite = parser.parse_args().suite
    # Each, however the others fared.
    return max([provide(each) for each in ([suite] if suite else ["", NEWER])])


def provide(suite: str) -> int:
    """Make sure that the servers of `suite` are here; return the exit status."""
    if not find(suite).keys() >= wanted(suite):
        if not shutil.which("apt-get"):
            names = " and ".join("/".join(names) for names in SERVERS.values())
            print(f"There is no apt-get here: put {names} on PATH.", file=sys.stderr)
            return 1
        try:
            fetch(suite or release())
        except subprocess.CalledProcessError:
            # Ubuntu's archive has none of Debian's suites, for one.
            names = ", ".join(sorted(wanted(suite) - find(suite).keys()))
            where = f"{suite or release()} in this system's archive"
            print(f"Could not fetch {names} of {where}, see above.", file=sys.stderr)
            return 1
    found = find(suite)
    for package, program in found.items():
        print(f"{package}: {os.path.relpath(program)}")
    return 0 if found.keys() >= wanted(suite) else 1


if __name__ == "__main__":
    sys.exit(main())
