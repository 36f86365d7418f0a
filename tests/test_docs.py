"""The documents against the code: every metric, reason, status and option once."""

from __future__ import annotations

import re

import pytest

from ecoflow_push import __version__
from ecoflow_push.devices.normalized import REASONS
from ecoflow_push.errors import ExitStatus
from ecoflow_push.metrics.names import SKIP_REASONS, metric_name
from ecoflow_push.metrics.own import DEVICE_METRICS, RUN_METRICS
from ecoflow_push.sinks.losses import LOSSES
from tests.support import ROOT, push

DOCS = ROOT / "docs"


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
    options = set(re.findall(r"--[a-z-]+", push({}, "--help").stdout))

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


def test_links_lead_somewhere():
    """Every relative link of the documents points to a file that is there."""
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not target.startswith(("http:", "https:")):
                assert (document.parent / target).exists(), (document.name, target)


def test_the_changelog_has_this_version():
    """CHANGELOG.md speaks of the version in the code."""
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()
