"""A release, made as far as it can be made here: nothing is published."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_string
from email.message import Message
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from readme_renderer.markdown import render
from trove_classifiers import classifiers

from ecoflow_push import __version__
from tests.deploy import said_by
from tests.manual import MAN, ROOT, SHARE, urls

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
WHEEL = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
HOME = urls()["Homepage"]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").iterdir())
BIN = Path(sys.executable).parent
TEXTS = {"", ".md", ".py", ".toml", ".yml", ".yaml", ".1", ".svg", ".json", ".tsv"}


def tracked() -> list[str]:
    """Return the names of all files that belong to the project."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        assert not os.environ.get("CI"), done.stderr
        pytest.skip("this is no clone")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).exists()]


class Dist(NamedTuple):
    """What `./dev dist` made of a copy of the project."""

    tree: Path
    sdist: Path
    wheel: Path

    def metadata(self) -> Message:
        with zipfile.ZipFile(self.wheel) as wheel:
            name = f"ecoflow_push-{__version__}.dist-info/METADATA"
            return message_from_string(wheel.read(name).decode())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of its own, with the environment that these tests run in."""
    folder = tmp_path_factory.mktemp("release") / "clone"
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    lock = Path(sys.prefix) / "requirements-dev.txt"
    pinned = (folder / lock.name).read_bytes()
    if not lock.is_file() or lock.read_bytes() != pinned:
        # ./dev would make that environment, from the network.
        assert not os.environ.get("CI"), "the environment is not the pinned one"
        pytest.skip("the environment is not the pinned one")
    return folder


@pytest.fixture(scope="module")
def dist(tree: Path) -> Dist:
    """Wheel and sdist, made by the release's own command."""
    status, said = said_by(tree / "dev", "dist", f"v{__version__}")
    assert status == 0, said
    assert said.count("PASSED") == 2, "twine check --strict"
    sdist, wheel = sorted((tree / "dist").iterdir(), key=lambda path: path.suffix)
    return Dist(tree, sdist, wheel)


# --- what is built ----------------------------------------------------------------


def test_a_tag_that_is_not_the_version_builds_nothing(tree):
    """A release whose tag and version differ ends before anything is built."""
    status, said = said_by(tree / "dev", "dist", "v99.0.0")

    assert status == 1
    assert (
        f"The tag is v99.0.0, and ecoflow_push/__init__.py says {__version__}" in said
    )


def test_the_sdist_is_the_whole_project(dist):
    """From the sdist everything can be packaged and tested that a clone has."""
    top = f"ecoflow_push-{__version__}/"
    with tarfile.open(dist.sdist) as tar:
        names = {member.name.removeprefix(top) for member in tar if member.isfile()}

    assert names == {*tracked(), "PKG-INFO"}
    assert {"crontab.example", "docs/settings.md", "SECURITY.md"} <= names
    assert "deploy/systemd/ecoflow-push.service" in names


def test_the_wheel_is_the_package_and_its_manual(dist):
    """The wheel, which is built from the sdist, has the program and share/ only."""
    info = f"ecoflow_push-{__version__}.dist-info/"
    data = f"ecoflow_push-{__version__}.data/data/"
    with zipfile.ZipFile(dist.wheel) as wheel:
        names = set(wheel.namelist())

    put = {**WHEEL["force-include"], "ecoflow_push": "ecoflow_push"}
    put |= {name: data + where for name, where in WHEEL["shared-data"].items()}
    assert {name for name in names if not name.startswith(info)} == {
        where + name.removeprefix(source)
        for source, where in put.items()
        for name in tracked()
        if f"{name}/".startswith(f"{source}/")
    }
    assert {"ecoflow_push/__main__.py", f"{data}share/man/man1/{MAN.name}"} <= names
    assert f"{info}licenses/LICENSE" in names


class Leads(HTMLParser):
    """Where a page leads to, and which pictures are in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "href":
                self.links.append(value or "")
            elif name == "src":
                self.pictures.append(value or "")


def test_the_long_description_leads_somewhere(dist):
    """Apart from the repository all links are absolute, to what this version has."""
    leads = Leads(render(str(dist.metadata().get_payload())) or "")
    written = Leads(render((ROOT / "README.md").read_text()) or "")
    ours = re.compile(rf"{HOME}/(blob|raw)/v{__version__}/([^#]+)")

    relative = [link for link in written.links if not re.match("https:|#", link)]
    found = [match for link in leads.links if (match := ours.match(link))]
    assert len(leads.links) == len(written.links)
    assert all(re.match("https:|#", link) for link in leads.links)
    assert len(found) == len(relative) > 10
    shown = [match for link in leads.pictures if (match := ours.match(link))]
    assert len(shown) == len(leads.pictures) > 0
    assert {match[1] for match in found} == {"blob"}
    assert {match[1] for match in shown} == {"raw"}
    for match in found + shown:
        assert (ROOT / match[2]).exists(), match[2]


def test_the_metadata(dist):
    """Addresses, licence, classifiers and the Pythons are those of the project."""
    metadata = dist.metadata()

    assert (metadata["Name"], metadata["Version"]) == ("ecoflow-push", __version__)
    assert metadata["License-Expression"] == "MIT"
    shown = metadata.get_all("Classifier", [])
    assert set(shown) <= classifiers
    # A licence is said once, as SPDX has it.
    assert not any(each.startswith("License ::") for each in shown)
    labels = [each.partition(", ")[0] for each in metadata.get_all("Project-URL", [])]
    assert labels == ["Homepage", "Documentation", "Source", "Issues", "Changelog"]
    pythons = re.findall(r":: (3\.\d+)$", "\n".join(shown), re.MULTILINE)
    assert pythons == jobs("ci")["check"]["strategy"]["matrix"]["python"]
    assert metadata["Requires-Python"] == f">={pythons[0]}"


def test_the_wheel_installed(dist, tmp_path):
    """The wheel gives a command that runs, its man page and its completions."""
    # To make a pip of its own takes most of the time.
    has_pip = bool(find_spec("pip"))
    venv.create(tmp_path, symlinks=True, with_pip=not has_pip)
    runner = sys.executable if has_pip else tmp_path / "bin" / "python"
    pip = (runner, "-m", "pip", "--python", tmp_path, "--disable-pip-version-check")
    options = ("--quiet", "--no-index", "--no-deps", "--root-user-action=ignore")
    assert said_by(*pip, "install", *options, dist.wheel) == (0, "")
    # What it depends on is here already.
    [packages] = tmp_path.glob("lib/python3*/site-packages")
    ours = Path(pytest.__file__).parents[1]
    (packages / "here.pth").write_text(f"{ours}\n")
    command = tmp_path / "bin" / "ecoflow-push"

    assert said_by(command, "--version") == (0, f"ecoflow-push {__version__}\n")
    status, said = said_by(command, "--demo", "--dry-run")
    assert status == 0
    assert "INFO exit 0 OK after " in said
    for file in SHARE.rglob("*"):
        if file.is_file():
            installed = tmp_path / file.relative_to(ROOT)
            assert installed.read_text() == file.read_text()


# --- what GitHub is to do ---------------------------------------------------------


def jobs(name: str) -> dict[str, Any]:
    """Return the jobs of a workflow."""
    text = (GITHUB / "workflows" / f"{name}.yml").read_text()
    return dict(yaml.safe_load(text)["jobs"])


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("github-workflows", "workflows/*.yml"),
        ("github-issue-forms", "ISSUE_TEMPLATE/bug.yml"),
        ("github-issue-config", "ISSUE_TEMPLATE/config.yml"),
        ("dependabot", "dependabot.yml"),
    ],
)
def test_the_forms_of_github(schema, pattern):
    """Each file has the shape that GitHub wants, by its published schema."""
    files = list(GITHUB.glob(pattern))
    check = (BIN / "check-jsonschema", "--builtin-schema", f"vendor.{schema}")

    assert files
    status, said = said_by(*check, *files)
    assert status == 0, said


@pytest.mark.case("K16")
def test_the_workflows_give_nothing_away(tmp_path):
    """zizmor finds no unpinned action, no excessive right and no other weakness."""
    audit = (BIN / "zizmor", "--offline", "--quiet")
    ci = (GITHUB / "workflows" / "ci.yml").read_text()
    (tmp_path / "ci.yml").write_text(re.sub(r"@[0-9a-f]{40}", "@v6", ci))

    status, said = said_by(*audit, GITHUB)
    assert status == 0, said
    assert "unpinned-uses" in said_by(*audit, tmp_path / "ci.yml")[1]


def test_each_action_is_one_commit_everywhere():
    """An action is pinned by the commit, and says the version that it was."""
    pins: dict[str, set[str]] = {}
    for file in WORKFLOWS:
        for use in re.findall(r"uses: (.*)$", file.read_text(), re.MULTILINE):
            if not use.startswith("./"):
                form = r"([\w./-]+)@[0-9a-f]{40} # v\d+\.\d+\.\d+"
                match = re.fullmatch(form, use)
                assert match, use
                pins.setdefault(match[1], set()).add(use)

    assert len(pins) > 5
    assert all(len(uses) == 1 for uses in pins.values())


def test_the_workflows_ask_for_what_is_there():
    """Jobs have limits and rights of their own, keep no key, run what there is."""
    usage = subprocess.run(
        [ROOT / "dev"], capture_output=True, text=True, check=False
    ).stderr
    for file in WORKFLOWS:
        assert yaml.safe_load(file.read_text())["permissions"] == {}
        for job in jobs(file.stem).values():
            assert "permissions" in job
            assert "uses" in job or job["timeout-minutes"] <= 90
            for step in job.get("steps", ()):
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False
                command = step.get("run", "bash .ci/run").split()
                if command[0] == "./dev":
                    assert f" {command[1]} " in usage
                elif command[0] == "apt-get":
                    assert "container" in job
                else:
                    assert command == ["bash", ".ci/run"]


def test_a_release_waits_for_the_tests():
    """Nothing is published before the tests passed and the tag was compared."""
    release = jobs("release")

    for name in ("pypi", "image"):
        assert release[name]["needs"] == ["tests", "dist"]
    [dist] = [step["run"] for step in release["dist"]["steps"] if "run" in step]
    assert dist == './dev dist "$GITHUB_REF_NAME"'
    assert release["pypi"]["permissions"] == {"id-token": "write"}
    assert release["pypi"]["steps"][-1]["with"] == {"attestations": True}
    built = release["image"]["steps"][-1]["with"]
    assert (built["provenance"], built["sbom"]) == ("mode=max", True)
    assert built["platforms"] == "linux/amd64,linux/arm64,linux/arm/v7"


def test_all_that_an_image_installs_has_wheels_for_it():
    """No package of requirements.txt has to be compiled where images are made for."""
    # Those with compiled parts; the others are one wheel for all.
    compiled = {"cramjam", "charset-normalizer", "protobuf"}
    text = (ROOT / "requirements.txt").read_text()

    names = set(re.findall(r"^([\w-]+)==", text, re.MULTILINE))
    pure = {"certifi", "idna", "paho-mqtt", "prometheus-client", "requests"}
    pure |= {"colorama", "schedule", "tqdm", "urllib3"}
    assert names == compiled | pure, "look for their wheels"


# --- what people are told ---------------------------------------------------------


def test_a_report_brings_the_check():
    """The form for a bug cannot be sent without the output of --check."""
    form = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / "bug.yml").read_text())
    [check] = [each for each in form["body"] if each.get("id") == "check"]

    assert "--check" in check["attributes"]["label"]
    assert check["validations"] == {"required": True}


@pytest.mark.case("K16")
def test_the_image_says_where_it_is_from():
    """The image stands on one base by digest, and has the project's labels."""
    text = (ROOT / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)(?: AS (\w+))?$", text, re.MULTILINE)
    labels = dict(re.findall(r'image\.(\w+)="([^"]*)"', text))

    assert re.fullmatch(r"python:3\.13-slim@sha256:[0-9a-f]{64}", bases[0][0])
    assert [base for base, _ in bases[1:]] == [bases[0][1]] * 2
    assert labels == {
        "title": PROJECT["name"],
        "description": PROJECT["description"],
        "url": HOME,
        "source": urls()["Source"],
        "documentation": urls()["Documentation"],
        "licenses": PROJECT["license"],
    }


def test_there_is_one_version():
    """Whatever names the program with a version names the one in the code."""
    named: dict[str, set[str]] = {}
    for name in tracked():
        if Path(name).suffix in {".md", ".yaml"} and name != "CHANGELOG.md":
            text = (ROOT / name).read_text()
            for found in re.findall(r"ecoflow-push[: ]v?(\d+\.\d+\.\d+)", text):
                named.setdefault(found, set()).add(name)

    assert named.keys() == {__version__}, named
    assert len(named[__version__]) > 1


def test_there_is_one_address():
    """Whatever names the project's address names the one of pyproject.toml."""
    owner = HOME.rpartition("/")[0]
    named = set()
    for name in tracked():
        file = ROOT / name
        if file.suffix in TEXTS and not name.startswith("tests/fixtures/"):
            named |= set(re.findall(rf"{owner}/[\w.-]+", file.read_text()))

    assert named == {HOME}
    assert all(url.startswith(HOME) for url in urls().values())
