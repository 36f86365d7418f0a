"""--check: each finding, and each fault that is known, has its cure, and it cures."""

from __future__ import annotations

import re

import pytest

from ecoflow_push.api.envelope import DEVELOPER
from ecoflow_push.simulator.cloud import ACCESS_KEY, SECRET_KEY
from tests.check import (
    INSTANCE,
    LIST,
    another_region,
    assert_decent,
    check,
    push_in,
    status_of_a_run,
)
from tests.planted import FINDINGS, heal, laid
from tests.support import ROOT, eventually
from tests.test_docs import table_rows
from tests.test_faults import CLOUD_FAULTS, SINK_FAULTS

# What a cure begins with.
VERBS = (
    "ask",
    "check",
    "give",
    "keep",
    "let",
    "look",
    "raise",
    "set",
    "switch",
    "the",
    "try",
    "use",
    "wait",
    "wake",
)


# Without a sink there is a check, but no run.
NO_RUN = {"no sink is set"}


def cure_of(finding: str) -> str:
    ((_, cure),) = [row for row in table_rows("check.md") if row[0] == finding]
    return cure.replace("`", "")


def test_every_finding_is_documented_once():
    """docs/check.md has exactly the findings that are brought about here, in order."""
    rows = [row[0] for row in table_rows("check.md") if row[0] != "finding"]

    assert rows == list(FINDINGS)


def test_the_example_is_what_is_printed(world):
    """The example in docs/check.md is a real output but for hosts and versions."""
    text = (ROOT / "docs" / "check.md").read_text()
    asked, *example = text.split("```text\n")[1].split("\n```")[0].splitlines()
    assert asked == "$ push.py --check --env-file /etc/ecoflow-push.env"
    here, home = (another_region(world)["regions"] or "").split()
    text_file = f"{world.folder}/ecoflow.prom"
    file = world.folder / "ecoflow-push.env"
    file.write_text(
        f"ECOFLOW_ACCESS_KEY={ACCESS_KEY}\nECOFLOW_SECRET_KEY={SECRET_KEY}\n"
        f"ECOFLOW_API_HOST={here}\n\nPUSHGATEWAY_URL={world.gateway.url}\n"
        f"TEXTFILE_PATH={text_file}\nHEALTHCHECK_URL={world.faulty.url}/8d7b6c5a\n"
    )
    file.chmod(0o600)
    environ = {"STATE_DIR": str(world.folder / "state")}

    run = check(environ, str(file), here, home)

    said = run.stdout
    for ours, theirs in (
        (str(file), "/etc/ecoflow-push.env"),
        (here, here.partition("//")[2]),
        (here.partition("//")[2], "api.ecoflow.com"),
        (home.partition("//")[2], "api-e.ecoflow.com"),
        (world.gateway.url, "http://localhost:9091"),
        (world.faulty.url, "https://hc-ping.com"),
        (text_file, "/var/lib/prometheus/node-exporter/ecoflow.prom"),
        (environ["STATE_DIR"], "/var/lib/ecoflow-push"),
        ("not used, plain http", "a trusted certificate"),
    ):
        said = said.replace(ours, theirs)
    said = re.sub(r"[+-]\d s", "+0 s", said)
    assert said.splitlines()[1:] == example[1:]


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_has_its_cure(finding, environ, world):
    """One line ends in the documented cure, with a run's status; followed, it cures."""
    planted = FINDINGS[finding]
    base = {**environ, "PUSH_INSTANCE": INSTANCE, "RUN_DEADLINE": "10"}
    changes = planted.setup(world)
    environ, regions = laid(base, changes)
    hardships = planted.hardships(world)

    run = check(environ, *regions, hardships=hardships)

    assert_decent(run)
    assert (run.status == 0) == planted.survived, run.stdout
    trouble = re.findall("^(?:wrong|warning|unknown) .*", run.stdout, re.MULTILINE)
    assert [line for line in trouble if cure_of(finding) in line], run.stdout
    # A gateway answers before it has deleted.
    assert eventually(lambda: not world.gateway.groups()), world.gateway.groups()
    if finding not in NO_RUN:
        assert push_in(environ, hardships) == status_of_a_run(run), run.stdout

    heal(world)
    environ, regions = laid(base, planted.cure(world, run.stdout, changes))
    run = check(environ, *regions)

    assert_decent(run)
    assert run.status == 0, run.stdout
    assert not re.findall("^wrong .*", run.stdout, re.MULTILINE)


def test_every_code_is_documented():
    """Each code of EcoFlow's that a quota request can meet stands in the table."""
    rows = [row[0] for row in table_rows("check.md")]
    codes = {key for key in DEVELOPER if len(key) == 4 and key.isdecimal()}

    for code in codes - {"6012", "6042", "7005", "7015"}:
        assert any(row.startswith(code) for row in rows), code


@pytest.mark.parametrize("fault", CLOUD_FAULTS)
def test_a_fault_of_the_cloud_has_a_cure(fault, environ, cloud):
    """Whatever EcoFlow answers, a line says wrong and ends in one cure, as in a run."""
    cloud.fail(LIST, CLOUD_FAULTS[fault][0])

    run = check({**environ, "RUN_DEADLINE": "2"}, cloud.url)

    assert_decent(run)
    assert run.status == CLOUD_FAULTS[fault][1]
    wrong = [line for line in run.stdout.splitlines() if line.startswith("wrong")]
    assert len(wrong) == 1
    assert wrong[0].rpartition(": ")[2].startswith(VERBS), wrong
    assert "ok       pushgateway: " in run.stdout


@pytest.mark.parametrize("fault", SINK_FAULTS)
def test_a_fault_of_the_gateway_has_a_cure(fault, environ, world):
    """Whatever a gateway answers, the status is a run's, and the deadline holds."""
    world.faulty.fail("", SINK_FAULTS[fault][0])

    run = check({**environ, "PUSHGATEWAY_URL": world.faulty.url, "RUN_DEADLINE": "2"})

    assert_decent(run)
    assert run.status == SINK_FAULTS[fault][1]
