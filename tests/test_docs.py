"""The documents against the code: every metric, reason, status and option once."""

from __future__ import annotations

import ast
import re

import pytest

from ecoflow_push import DOCS as PAGES
from ecoflow_push import __version__
from ecoflow_push.devices.normalized import REASONS
from ecoflow_push.errors import ExitStatus
from ecoflow_push.metrics.names import SKIP_REASONS, metric_name
from ecoflow_push.metrics.own import DEVICE_METRICS, RUN_METRICS
from ecoflow_push.sinks.losses import LOSSES
from tests.drill import CAMPAIGNS
from tests.settings_page import tables
from tests.support import ROOT, push, push_anew
from tests.test_citations import LINK, sections

DOCS = ROOT / "docs"
VARIABLE = re.compile(r"(?<![A-Z_])[A-Z]+(?:_[A-Z]+)+\b")


def table_rows(name: str) -> list[list[str]]:
    """Return the cells of every table row of a document, headers left out."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (DOCS / name).read_text().splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]


def test_every_metric_is_documented_once_with_its_help():
    """docs/metrics.md lists exactly our own metrics, with their HELP texts."""
    rows = [row for row in table_rows("metrics.md") if len(row) == 2]
    documented = [
        (row[0].strip("`"), row[1])
        for row in rows
        if re.fullmatch(r"`ecoflow_\w+`", row[0])
    ]

    own = {**DEVICE_METRICS, **RUN_METRICS}
    assert sorted(documented) == sorted((f"ecoflow_{k}", v) for k, v in own.items())


def test_the_examples_of_names_are_right():
    """The names in docs/metrics.md are what the keys beside them become."""
    rows = [r for r in table_rows("metrics.md") if r[1].startswith("`ecoflow_")]
    assert len(rows) > 4
    for key, series in rows:
        bare = re.sub(r"\[\d+\]", "", key.strip("`"))
        assert series.strip("`").partition("{")[0] == f"ecoflow_{metric_name(bare)}"


def test_every_reason_is_documented():
    """docs/metrics.md explains each reason to skip or drop, in the code's order."""
    reasons = [row[0].strip("`") for row in table_rows("metrics.md")]
    start = reasons.index("string")
    skipped = (*SKIP_REASONS, *REASONS)
    end = start + len(skipped)

    assert tuple(reasons[start:end]) == skipped
    assert reasons[end + 1 : end + 1 + len(LOSSES)] == list(LOSSES)


@pytest.mark.parametrize("document", ["exit-statuses.md", "../README.md"])
def test_every_exit_status_is_documented_once(document):
    """The tables list exactly the statuses of the code, by number and name."""
    listed = [
        (int(row[0]), row[1])
        for row in table_rows(document)
        if len(row) > 1 and row[0].isdigit()
    ]

    assert listed == [(status.value, status.name) for status in ExitStatus]


def test_every_option_is_in_the_readme():
    """The README names every option that --help lists."""
    readme = (ROOT / "README.md").read_text()
    options = set(re.findall(r"--[a-z-]+", push_anew({}, "--help").stdout))

    assert options >= {
        "--check",
        "--every",
        "--dry-run",
        "--demo",
        "--device",
        "--env-file",
        "--list-devices",
        "--version",
    }
    for option in options:
        assert f"`{option}" in readme, option


def test_every_variable_that_is_named_is_a_setting():
    """What a page calls by a variable's name is a setting, or said to be none."""
    declared = {each.name for table in tables().values() for each in table}
    none = {"X", "REQUESTS_CA_BUNDLE", "SSL_CERT", "STATE_DRI", "ALL_PROXY"}
    none |= {"DRILL_SEED", "DRILL_SIZE"}
    for page in [ROOT / "README.md", *DOCS.glob("*.md")]:
        # That one has the variables of others.
        if page.name != "coming-from.md":
            names = set(VARIABLE.findall(page.read_text()))
            bare = {name.removesuffix("_FILE") for name in names - declared}
            assert bare <= declared | none, page.name


def test_each_campaign_is_told():
    """The page on reliability has a row for each campaign, and for nothing else."""
    page = (DOCS / "reliability.md").read_text()
    page = page.partition("## The hall")[2].partition("\n## ")[0]

    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(CAMPAIGNS)


def test_links_lead_somewhere():
    """Every relative link leads to a file that is there, and to a section of it."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    for page in [*pages, *DOCS.glob("*.md"), *(DOCS / "internals").glob("*.md")]:
        for target, section in LINK.findall(page.read_text()):
            leads = (page.parent / target).resolve() if target else page
            assert leads.exists(), (page.name, target)
            assert not section or section in sections(leads), (page.name, section)


def test_every_page_is_reached_from_the_readme():
    """The README has a link to each page."""
    readme = (ROOT / "README.md").read_text()
    linked = {target for target, _ in LINK.findall(readme)}

    pages = [
        *DOCS.glob("*.md"),
        *DOCS.glob("internals/*.md"),
        *DOCS.glob("*/README.md"),
    ]
    assert linked >= {str(page.relative_to(ROOT)) for page in pages}


def test_the_changelog_has_this_version():
    """CHANGELOG.md speaks of the version in the code."""
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_program_points_to_the_web():
    """What it says of a page is an address; the page, and its place in it, are here."""
    help_text = " ".join(push({}, "--help").stdout.split())
    assert f"see {PAGES}/settings.md" in help_text

    for path in (ROOT / "ecoflow_push").rglob("*.py"):
        tree = ast.parse(path.read_text())
        prose = {
            node.body[0].value
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) else ""
            if node in prose or not isinstance(text, str):
                continue
            assert not re.search(r"docs/\w+\.md", text), (path, text)
            for page, anchor in re.findall(r"^/([\w-]+\.md)(?:#([\w-]+))?", text):
                content = (DOCS / page).read_text()
                heads = re.findall(r"^#+ (.*)", content, re.MULTILINE)
                anchors = {"", *(head.lower().replace(" ", "-") for head in heads)}
                assert anchor in anchors, (path, text)
