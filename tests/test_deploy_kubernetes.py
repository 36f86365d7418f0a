"""deploy/kubernetes: valid, sealed, and accepted by the program."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import ExitStatus
from tests.deploy import (
    ALARM_SECONDS,
    IMAGE,
    MEBIBYTE,
    SYSTEMD,
    WAYS,
    accepted,
    assert_documented,
    compose,
    read_unit,
    secrets_in,
    size,
)
from tests.kubernetes import FLEETS, KUBERNETES, Rendered, supported
from tests.support import PUSH, ROOT


@pytest.fixture(params=WAYS)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    """Each of the ways to deploy one account on Kubernetes."""
    return Rendered(request.param)


@pytest.fixture(params=(*WAYS, *FLEETS))
def any_way(request: pytest.FixtureRequest) -> Rendered:
    """Each of the ways to deploy on Kubernetes."""
    return Rendered(request.param)


def test_the_ways_are_all_there_is():
    """Every kustomization is a way, or a part of one: no way goes untested."""
    folders = {path.parent.name for path in KUBERNETES.glob("*/kustomization.yaml")}

    assert folders == {*WAYS, *FLEETS, "base", "persistent-state"}


@pytest.mark.parametrize("version", supported())
def test_the_manifests_are_valid(any_way, version):
    """The oldest and the newest Kubernetes know every field, with its type."""
    assert [each["kind"] for each in any_way.documents].count("CronJob") == 1
    for document in any_way.documents:
        kubernetes_validate.validate(document, version, strict=True)

    wrong = copy.deepcopy(any_way.one("CronJob"))
    wrong["spec"]["jobTemplate"]["spec"]["template"]["spec"]["restartpolicy"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


@pytest.mark.case("L17")
def test_a_cronjobs_runs_never_pile_up(rendered, tmp_path):
    """Runs start every minute, one at a time, are bounded, and are never repeated."""
    cron, job = rendered.cron, rendered.job
    deadline = settings_of(rendered, tmp_path).run_deadline

    assert cron["schedule"] == "* * * * *"
    assert "timeZone" not in cron
    assert cron["concurrencyPolicy"] == "Forbid"
    # The controller looks every 10 s; after 60 s the next slot is due.
    assert 10 <= cron["startingDeadlineSeconds"] < 60
    assert 0 < cron["successfulJobsHistoryLimit"] <= 3
    assert 0 < cron["failedJobsHistoryLimit"] <= 3
    # A pod that hangs must not cost more than the slot after its own.
    assert deadline + ALARM_SECONDS < job["activeDeadlineSeconds"] < 120
    assert job["backoffLimit"] == 0
    assert rendered.pod["restartPolicy"] == "Never"
    # A run that is told to stop does so within 2 s.
    assert 2 < rendered.pod["terminationGracePeriodSeconds"] <= 30


@pytest.mark.case("L17")
def test_what_no_repetition_cures_fails_the_job(rendered):
    """A wrong option, refused credentials and wrong settings end a job at once."""
    [rule] = rendered.job["podFailurePolicy"]["rules"]

    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {
        "containerName": rendered.container["name"],
        "operator": "In",
        "values": [ExitStatus.USAGE, ExitStatus.NOPERM, ExitStatus.CONFIG],
    }


@pytest.mark.case("K16")
def test_a_pod_may_do_nothing_it_need_not(any_way):
    """The pod meets the restricted Pod Security Standard, and more."""
    pod, container = any_way.pod, any_way.container

    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    for name in ("hostNetwork", "hostPID", "hostIPC", "serviceAccountName"):
        assert name not in pod
    assert not pod.keys() & {"initContainers", "ephemeralContainers"}
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "ports" not in container
    kinds = {(each.keys() - {"name"}).pop() for each in any_way.volumes.values()}
    assert kinds <= {"secret", "projected", "emptyDir", "persistentVolumeClaim"}


def test_a_pod_fits_the_image(any_way):
    """User, state folder and version are those of the Dockerfile and the program."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    security = any_way.pod["securityContext"]
    user, group = security["runAsUser"], security["runAsGroup"]

    assert f"\nUSER {user}:{group}\n" in dockerfile
    assert security["fsGroup"] == group
    state_dir = any_way.environ()["STATE_DIR"]
    if state_dir != "none":
        assert f"STATE_DIR={state_dir}\n" in dockerfile
        assert state_dir in any_way.mounts()
    assert any_way.container["image"] == IMAGE
    assert not any_way.container.keys() & {"command", "args"}


def test_kubernetes_never_opens_the_state_to_others(any_way):
    """Kubernetes leaves the modes of stored files alone from the second run on.

    It would make account.json readable for the group, and a login that others can read
    is not used.
    """
    security = any_way.pod["securityContext"]

    assert security["fsGroupChangePolicy"] == "OnRootMismatch"


def test_the_state_outlives_the_pod_where_it_must():
    """The app account's login and the spool are on a claim that is there."""
    for way in WAYS:
        rendered = Rendered(way)
        state = rendered.mounts()[rendered.environ()["STATE_DIR"]]
        claims = {e["metadata"]["name"] for e in rendered.all("PersistentVolumeClaim")}
        assert not state.get("readOnly")
        if way == "rest":
            assert state["emptyDir"]["sizeLimit"]
            assert not claims
        else:
            assert claims == {state["persistentVolumeClaim"]["claimName"]}
            assert "emptyDir" not in state


def settings_of(rendered: Rendered, tmp_path: Path) -> Settings:
    """Return a pod's settings, with the Secret that the file's own words make."""
    [(place, _)] = [(at, m) for at, m in rendered.mounts().items() if "secret" in m]
    environ = rendered.environ()
    # kubectl create secret generic ecoflow-push --from-file=...
    names = [v.removeprefix(place + "/") for v in environ.values() if place in v]
    return accepted(environ, secrets_in(tmp_path / "secrets", *names), place)


@pytest.mark.parametrize("way", WAYS)
def test_a_pods_settings_are_accepted(way, tmp_path):
    """With the Secret that the way's first lines make the settings have no fault."""
    rendered = Rendered(way)
    settings = settings_of(rendered, tmp_path)
    environ = rendered.environ()
    text = (KUBERNETES / way / "kustomization.yaml").read_text()
    made = re.findall(r"--from-file=([\w-]+)", text)

    assert_documented(set(environ))
    secret = rendered.volumes["secrets"]["secret"]["secretName"]
    assert f"create secret generic {secret} " in text
    assert sorted(made) == sorted(p.name for p in (tmp_path / "secrets").iterdir())
    assert settings.instance == "kubernetes"
    for name, value in environ.items():
        # What must not be read by whoever may read a ConfigMap.
        assert not re.search(r"(KEY|PASSWORD|TOKEN)$", name), name
        assert "valueFrom" not in str(value)
    assert settings.account, "the settings hold no credentials"
    assert ("remote_write" in settings.sinks) == (way == "remote-write")
    assert ("pushgateway" in settings.sinks) == (way != "remote-write")


def test_the_secret_is_read_only_and_closed(any_way):
    """Secrets are mounted as files that the program's group alone may read."""
    for place in any_way.secrets():
        mount = any_way.mounts()[place]
        volume = mount.get("secret") or mount["projected"]
        assert mount["readOnly"] is True
        assert volume["defaultMode"] == 0o440
    assert any_way.secrets()
    assert not any_way.all("Secret"), "a secret's content is in the repository"


def test_names_are_looked_up_once(any_way):
    """A name with a dot is not tried in the cluster's own domains first."""
    assert any_way.pod["dnsConfig"]["options"] == [{"name": "ndots", "value": "1"}]


@pytest.mark.skipif(sys.platform != "linux", reason="other units of memory elsewhere")
def test_a_run_fits_its_memory(rendered):
    """The demo's run peaks below what is requested, which every limit is twice."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, sys.executable, str(PUSH), "--demo"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    peak = int(done.stdout) * 1024
    resources = rendered.container["resources"]
    unit = read_unit(SYSTEMD / "ecoflow-push.service")["Service"]

    assert 10 * MEBIBYTE < peak < size(resources["requests"]["memory"])
    limits = [
        resources["limits"]["memory"],
        unit["MemoryMax"][-1],
        compose()["services"]["ecoflow-push"]["mem_limit"],
    ]
    for limit in limits:
        assert size(limit) >= 2 * size(resources["requests"]["memory"])
