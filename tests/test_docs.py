"""The documents against the code: every setting, metric and status once."""

from __future__ import annotations

import re

import pytest

from ecoflow_push import __version__
from ecoflow_push.config.settings import Settings
from ecoflow_push.devices.normalized import REASONS
from ecoflow_push.errors import ExitStatus, SettingsError
from ecoflow_push.metrics.names import SKIP_REASONS, metric_name
from ecoflow_push.metrics.registry import DEVICE_METRICS, RUN_METRICS
from ecoflow_push.run.writer import LOSSES
from tests.support import ROOT, push
from tests.test_settings import BASE

DOCS = ROOT / "docs"


def table_rows(name: str) -> list[list[str]]:
    """Return the cells of every table row of a document, headers left out."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (DOCS / name).read_text().splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]


def setting_rows() -> dict[str, list[str]]:
    rows = [row for row in table_rows("settings.md") if row[0].startswith("`")]
    names = [row[0].strip("`") for row in rows]
    assert len(names) == len(set(names)), "a setting stands twice"
    return dict(zip(names, rows, strict=True))


class Asked(dict[str, str]):
    """An empty environment that remembers what was looked for in it."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
        self.names.add(name)
        return default


def read_names() -> set[str]:
    """Return the variables that the settings look for."""
    asked = Asked()
    with pytest.raises(SettingsError, match="no credentials"):
        Settings.from_environ(asked)
    files = {f"{name}_FILE" for name in asked.names}
    return {name for name in asked.names - files if name.isupper()}


def test_every_setting_is_documented_once():
    """docs/settings.md lists exactly the variables that are read."""
    assert set(setting_rows()) == read_names()


def test_the_documented_defaults_are_the_real_ones():
    """Setting a variable to its documented default changes nothing."""
    unset = {k: str(v) for k, v in vars(Settings.from_environ(BASE)).items()}
    checked = 0
    for name, row in setting_rows().items():
        if re.fullmatch(r"`[\w.-]+`", row[1]):
            given = Settings.from_environ({**BASE, name: row[1].strip("`")})
            assert {k: str(v) for k, v in vars(given).items()} == unset, name
            checked += 1
    assert checked == 16


def test_every_path_setting_is_marked_and_has_no_file_form(tmp_path):
    """A variable marked as a path is not read from X_FILE; every other one is."""
    value = tmp_path / "value"
    value.write_text("\n")
    for name, row in setting_rows().items():
        if "PROXY" in name or name.startswith(("KUBERNETES", "HOME", "XDG")):
            continue
        environ = {k: v for k, v in BASE.items() if k != name}
        environ[f"{name}_FILE"] = str(value)
        try:
            Settings.from_environ(environ, needs_sink=False)
            said = ""
        except Exception as exc:  # noqa: BLE001 - its words are looked at
            said = str(exc)
        assert (f"{name}_FILE: the file is empty" in said) != ("*path*" in row[2]), name


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
