"""crontab.example and docs/deploy.md: valid, and of settings that are known."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ecoflow_push.errors import ExitStatus
from tests.deploy import DEPLOY, SYSTEMD, WAYS, assert_documented, program, said_by
from tests.support import PUSH, ROOT

# --- cron -------------------------------------------------------------------------

CRONTAB = ROOT / "crontab.example"


def table() -> tuple[dict[str, str], str]:
    """Return the variables and the one command of crontab.example, as cron reads it."""
    lines = [x for x in CRONTAB.read_text().splitlines() if x and x[0] != "#"]
    variables = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
    [job] = [line for line in lines if not re.match(r"\w+=", line)]
    minute, command = job.split(" * * * * ")
    assert minute == "*"
    # To cron it is the end of the line.
    assert "%" not in command
    return variables, command


@pytest.mark.skipif(sys.platform != "linux", reason="-n is an option of Debian's cron")
def test_cron_understands_the_table(tmp_path):
    """cron accepts crontab.example, and refuses it with one field less."""
    crontab = program("crontab")
    wrong = tmp_path / "crontab"
    wrong.write_text(CRONTAB.read_text().replace("* * * * * exec", "* * * * exec"))

    assert said_by(crontab, "-n", CRONTAB)[0] == 0
    assert said_by(crontab, "-n", wrong)[0] != 0


def test_the_tables_variables_are_settings():
    """What crontab.example names is cron's own or a documented setting."""
    variables, _ = table()
    named = set(re.findall(r"^#\s+(\w+)=", CRONTAB.read_text(), re.MULTILINE))

    assert len(named) >= 3
    assert_documented((variables.keys() | named) - {"SHELL", "PATH"})


def as_cron(home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the table's command as cron would, with the program of this tree."""
    variables, command = table()
    for theirs, ours in (
        ("/opt/ecoflow-push/.venv/bin/python", sys.executable),
        ("/opt/ecoflow-push/push.py", str(PUSH)),
    ):
        assert command.count(theirs) == 1
        command = command.replace(theirs, ours)
    return subprocess.run(
        [variables["SHELL"], "-c", command],
        env={"HOME": str(home), "LOGNAME": "you", **variables, **more},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="timeout is one of GNU's programs")
def test_the_tables_command_mails_failures_only(tmp_path, environ, pushgateway):
    """The crontab's line pushes without a word, and says why when it cannot."""
    config = tmp_path / ".config"
    config.mkdir()
    secrets = {k: environ.pop(k) for k in ("ECOFLOW_ACCESS_KEY", "ECOFLOW_SECRET_KEY")}
    for variable, name in (
        ("ECOFLOW_ACCESS_KEY", "ecoflow-access-key"),
        ("ECOFLOW_SECRET_KEY", "ecoflow-secret-key"),
    ):
        (config / name).write_text(secrets[variable])
        # As the table's own comment has it.
        line = f"{variable}_FILE=$HOME/.config/{name}"
        assert f"#   {line}\n" in CRONTAB.read_text()
        environ[f"{variable}_FILE"] = f"$HOME/.config/{name}"
    settings = config / "ecoflow-push.env"
    settings.write_text("".join(f"{k}={v}\n" for k, v in environ.items()))

    done = as_cron(tmp_path)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert pushgateway.devices()

    settings.write_text("PUSHGATEWAY_URL=nonsense\n")
    done = as_cron(tmp_path)
    assert done.returncode == ExitStatus.CONFIG
    assert "PUSHGATEWAY_URL" in done.stderr


# --- the page ---------------------------------------------------------------------

PAGE = ROOT / "docs" / "deploy.md"


def test_the_pages_name_what_is_there():
    """docs/deploy.md and fleet.md name each way and unit, and no file that is not."""
    text = PAGE.read_text() + PAGE.with_name("fleet.md").read_text()
    named = set(re.findall(r"deploy/[\w./@-]+\w", text))

    assert len(named) > 5
    for path in named:
        assert (ROOT / path).exists(), path
    for way in WAYS:
        assert f"deploy/kubernetes/{way}" in named
    for file in SYSTEMD.iterdir():
        assert file.name in text


def test_the_page_names_settings_only():
    """Every variable in docs/deploy.md is a documented setting."""
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", PAGE.read_text()))
    assert_documented(named - {"X_FILE"})
    # Those that only look like settings are caught as well.
    with pytest.raises(AssertionError):
        assert_documented({"ECOFLOW_CA_FILE_FILE"})


def test_no_other_variable_is_named():
    """Every variable that a file under deploy/ names is a setting, or Grafana's own."""
    for file in DEPLOY.rglob("*.*"):
        if not file.is_file():
            continue
        named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", file.read_text()))
        # Grafana's settings, socket families, and what Slurm says.
        named = {x for x in named if not x.startswith(("GF_", "AF_", "SLURM_"))}
        if named:
            assert_documented(named)
