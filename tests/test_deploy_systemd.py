"""deploy/systemd: understood by systemd, sealed, and accepted by the program."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from ecoflow_push.config.settings import Settings
from tests.deploy import (
    ALARM_SECONDS,
    SYSTEMD,
    accepted,
    assert_documented,
    program,
    read_unit,
    said_by,
    secrets_in,
)

# What `systemd-analyze security` may say, in tenths of its points from 0 to 10.
MOST_EXPOSURE = 11
SERVICE = SYSTEMD / "ecoflow-push.service"
TIMER = SYSTEMD / "ecoflow-push.timer"
# Of one shard of many: its number is what stands behind the @.
SHARD = SYSTEMD / "ecoflow-push@.service"
SHARD_TIMER = SYSTEMD / "ecoflow-push@.timer"
DROP_INS = sorted(SYSTEMD.glob("*.conf"))
BOTH = pytest.mark.parametrize("unit", [SERVICE, SHARD], ids=lambda unit: unit.name)


def verify(folder: Path, unit: Path, text: str) -> tuple[int, str]:
    """Let systemd read the units from `folder`, with a program that is there."""
    folder.mkdir()
    text, count = re.subn(
        r"^ExecStart=\S+", f"ExecStart={sys.executable}", text, flags=re.MULTILINE
    )
    assert count == 1
    (folder / unit.name).write_text(text)
    timer = unit.with_suffix(".timer")
    shutil.copy(timer, folder)
    (folder / f"{unit.name}.d").mkdir()
    for file in DROP_INS:
        shutil.copy(file, folder / f"{unit.name}.d")
    units = (folder / unit.name, folder / timer.name)
    return said_by(program("systemd-analyze"), "verify", "--man=no", *units)


@pytest.mark.case("L18")
@BOTH
def test_systemd_understands_the_units(unit, tmp_path):
    """systemd has nothing to say about the units and their drop-ins."""
    text = unit.read_text()

    assert verify(tmp_path / "right", unit, text) == (0, "")
    # It ends with 0 even so.
    _, said = verify(tmp_path / "wrong", unit, text.replace("UMask=", "Umask="))
    assert "Umask" in said


@pytest.mark.case("L18")
@BOTH
def test_the_service_is_sealed(unit):
    """systemd rates the service's exposure at 1.1 of 10 at most."""
    analyze = (program("systemd-analyze"), "security", "--offline=true", "--no-pager")

    status, said = said_by(*analyze, f"--threshold={MOST_EXPOSURE}", unit)
    assert status == 0, said
    assert "Overall exposure level" in said
    status, _ = said_by(*analyze, "--threshold=1", unit)
    assert status == 1


@pytest.mark.case("L18")
def test_the_service_ends_and_never_repeats_itself(tmp_path):
    """A run is bounded above its own limits, its status is kept, none is repeated."""
    service = read_unit(SERVICE, *DROP_INS)["Service"]
    deadline = unit_settings(tmp_path, "access-key", "secret-key").run_deadline

    assert service["Type"] == ["oneshot"]
    assert not service.keys() & {"Restart", "SuccessExitStatus", "ExecStartPost"}
    assert not service["ExecStart"][0].startswith("-")
    [timeout] = service["TimeoutStartSec"]
    assert deadline + ALARM_SECONDS < float(timeout) < 120


@pytest.mark.case("L18")
@BOTH
def test_the_service_may_do_nothing_it_need_not(unit):
    """The service has a user of its own, one folder to write to, and no privilege."""
    service = read_unit(unit, *DROP_INS)["Service"]

    for key in ("DynamicUser", "NoNewPrivileges", "PrivateTmp", "PrivateDevices"):
        assert service[key] == ["yes"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["ProtectHome"] == ["yes"]
    assert service["StateDirectory"] == ["ecoflow-push"]
    assert service["StateDirectoryMode"] == ["0700"]
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == []
    assert service["RestrictAddressFamilies"] == ["AF_INET AF_INET6 AF_UNIX"]
    assert service["SystemCallFilter"][0] == "@system-service"
    assert service["MemoryMax"]
    assert "ReadWritePaths" not in service


@pytest.mark.parametrize("unit", [TIMER, SHARD_TIMER], ids=lambda unit: unit.name)
def test_the_timer_beats_every_minute(unit):
    """Runs start within seconds of a minute; what was missed is not made up for."""
    timer = read_unit(unit)
    clock = timer["Timer"]

    assert clock["OnCalendar"] == ["minutely"]
    assert clock["AccuracySec"] == ["1s"]
    assert 0 < int(clock["RandomizedDelaySec"][0].removesuffix("s")) < 30
    assert clock["FixedRandomDelay"] == ["yes"]
    assert clock["Persistent"] == ["false"]
    assert timer["Install"] == {"WantedBy": ["timers.target"]}
    assert "Unit" not in clock  # that of the same name


def unit_settings(
    tmp_path: Path, *secrets: str, drop_ins: tuple[str, ...] = (), more: str = ""
) -> Settings:
    """Return the settings of the service with some of its drop-ins."""
    service = read_unit(SERVICE, *(SYSTEMD / name for name in drop_ins))["Service"]
    environ = dict(each.split("=", 1) for each in service["Environment"])
    assert environ["STATE_DIR"] == f"%S/{service['StateDirectory'][0]}"
    environ["STATE_DIR"] = "/var/lib/ecoflow-push"
    loaded = dict(each.split(":", 1) for each in service["LoadCredential"])
    assert sorted(loaded) == sorted(secrets)
    for name, path in loaded.items():
        assert path == f"/etc/ecoflow-push/{name}"
    [file] = service["EnvironmentFile"]
    text = (SYSTEMD / Path(file).name).read_text() + more
    environ |= dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    assert_documented(set(environ))
    for name in environ:
        assert not re.search(r"(KEY|PASSWORD|TOKEN)$", name), name
    return accepted(environ, secrets_in(tmp_path / "credentials", *secrets), "%d")


@pytest.mark.case("L18")
def test_the_services_settings_are_accepted(tmp_path):
    """The service as it stands reads by developer keys and pushes to a gateway."""
    settings = unit_settings(tmp_path, "access-key", "secret-key")

    assert settings.sources["rest"].access_key.reveal() == "content-of-access-key"
    assert "pushgateway" in settings.sinks


def test_the_drop_in_for_the_app_account(tmp_path):
    """With app-account.conf the keys' files are no longer needed."""
    settings = unit_settings(
        tmp_path,
        "account-password",
        drop_ins=("app-account.conf",),
        more="ECOFLOW_ACCOUNT_USER=you@example.org\n",
    )

    assert list(settings.sources) == ["mqtt"]
    assert settings.sources["mqtt"].password.reveal() == "content-of-account-password"


def test_the_drop_in_for_remote_write(tmp_path):
    """remote-write.conf adds a password to what is there."""
    settings = unit_settings(
        tmp_path,
        *("access-key", "secret-key", "remote-write-password"),
        drop_ins=("remote-write.conf",),
        more="REMOTE_WRITE_URL=https://mimir.example/push\nREMOTE_WRITE_USERNAME=me\n",
    )

    assert "remote_write" in settings.sinks
    assert "rest" in settings.sources


# --- one shard of many ------------------------------------------------------------


def seals(unit: Path) -> dict[str, list[str]]:
    """Return what a unit takes from its service, and how a run of it ends."""
    service = read_unit(unit)["Service"]
    first = list(service).index("DynamicUser")
    ends = ("Type", "ExecStart", "TimeoutStartSec", "TimeoutStopSec", "Nice")
    return {key: service[key] for key in (*list(service)[first:], *ends)}


@pytest.mark.case("L18")
def test_a_shard_is_sealed_as_the_service_is():
    """Both units run the same command within the same bounds of time and rights."""
    shard = read_unit(SHARD)["Service"]

    ours, theirs = seals(SHARD), seals(SERVICE)
    prefix = "/usr/bin/env SHARD_INDEX=%i "
    ours["ExecStart"] = [each.removeprefix(prefix) for each in ours["ExecStart"]]
    assert ours == theirs
    assert not shard.keys() & {"Restart", "SuccessExitStatus", "LoadCredential"}


def test_the_shards_share_a_user_and_a_state():
    """All shards are one user, whose state folder is that of the service for one."""
    shard, service = read_unit(SHARD)["Service"], read_unit(SERVICE)["Service"]

    # Without User= a dynamic user is called as its unit is: each shard another one.
    assert shard["User"] == [SERVICE.stem]
    for key in ("StateDirectory", "StateDirectoryMode"):
        assert shard[key] == service[key]
        assert "%" not in shard[key][0]


def test_a_shards_index_is_its_instances_whatever_the_file_says(tmp_path):
    """A SHARD_INDEX in the file of settings would make all shards one: it counts not.

    What systemd reads from a file is stronger than what stands in the unit.
    """
    shard = read_unit(SHARD)["Service"]
    environ = dict(each.split("=", 1) for each in shard["Environment"])
    environ["SHARD_INDEX"] = "0"
    python = "import os; print(os.environ['SHARD_INDEX'])"
    *before, _, _ = shard["ExecStart"][0].replace("%i", "2").split()

    status, said = said_by(
        *("env", *(f"{name}={value}" for name, value in environ.items())),
        *(*before, sys.executable, "-c", python),
    )

    assert (status, said) == (0, "2\n")


def test_a_shards_environment_is_its_own(tmp_path):
    """Accounts and state are the unit's; the count is in the file of settings."""
    shard = read_unit(SHARD)["Service"]
    environ = dict(each.split("=", 1) for each in shard["Environment"])
    assert "SHARD_INDEX" not in environ
    [file] = shard["EnvironmentFile"]
    text = (SYSTEMD / Path(file).name).read_text()
    held = dict(re.findall(r"^#?(\w+)=(.*)$", text, re.MULTILINE))

    # What it sets is stronger than what the unit does.
    assert not held.keys() & environ.keys()
    assert int(held["SHARD_COUNT"]) > 1
    [bound] = shard["BindReadOnlyPaths"]
    assert bound == f"/etc/ecoflow-push/accounts:{environ['ECOFLOW_ACCOUNTS']}"
    # As docs/fleet.md has it made.
    page = (SYSTEMD.parent.parent / "docs" / "fleet.md").read_text()
    assert f"groupadd --system {shard['SupplementaryGroups'][0]}" in page
    for unit in (SHARD, SHARD_TIMER):
        assert f"deploy/systemd/{unit.name}" in page
