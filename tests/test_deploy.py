"""What stands under deploy/, and crontab.example: valid, safe, and fit for the job."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from ecoflow_push import __version__
from ecoflow_push.config.environ import Secret
from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import ExitStatus
from ecoflow_push.start.options import parse_args
from tests.fetch_servers import HOME
from tests.support import PUSH, ROOT, eventually, gateway, prometheus, push
from tests.test_docs import setting_rows

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
SYSTEMD = DEPLOY / "systemd"
COMPOSE = DEPLOY / "compose"
WAYS = ("rest", "app-account", "remote-write")
IMAGE = f"ecoflow-push:{__version__}"
# Nothing of ours can end a run later than so long after its deadline (push.py).
ALARM_SECONDS = 10
# What `systemd-analyze security` may say, in tenths of its points from 0 to 10.
MOST_EXPOSURE = 11
MEBIBYTE = 1024 * 1024
# Kubernetes', systemd's and compose's spelling.
UNITS = {"Mi": MEBIBYTE, "M": MEBIBYTE, "m": MEBIBYTE}


def program(name: str) -> str:
    """Return where a program of the system is; without it the test is skipped."""
    folders = [os.environ.get("PATH", os.defpath), "/usr/sbin"]
    folders += map(str, HOME.glob("*/usr/bin"))
    found = shutil.which(name, path=os.pathsep.join(folders))
    if not found:
        # Where CI is set nothing may be missing.
        assert not os.environ.get("CI"), f"{name} is missing"
        pytest.skip(f"{name} is missing")
    return found


def said_by(*command: str | Path) -> tuple[int, str]:
    """Run a checker; return its status and all that it said."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


def assert_documented(names: set[str]) -> None:
    """Fail unless every variable is a row of docs/settings.md, or its _FILE form."""
    rows = setting_rows()
    assert names
    for name in names:
        bare = name.removesuffix("_FILE")
        has_file_form = bare in rows and "*path*" not in rows[bare][2]
        assert name in rows or (name != bare and has_file_form), name


def accepted(environ: Mapping[str, str], folder: Path, place: str) -> Settings:
    """Return the program's settings; `folder` stands for the secrets' `place`."""
    ours = {k: v.replace(place, str(folder)) for k, v in environ.items()}
    return Settings.from_environ(ours)


def secrets_in(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text(f"content-of-{name}\n")
    return folder


# --- Kubernetes -------------------------------------------------------------------


class Rendered:
    """A kustomization as `kubectl apply -k` would send it."""

    def __init__(self, way: str) -> None:
        status, text = said_by(program("kubectl"), "kustomize", KUBERNETES / way)
        assert status == 0, text
        self.documents: list[dict[str, Any]] = list(yaml.safe_load_all(text))
        self.cron = self.one("CronJob")["spec"]
        self.job = self.cron["jobTemplate"]["spec"]
        self.pod = self.job["template"]["spec"]
        [self.container] = self.pod["containers"]
        self.volumes = {each["name"]: each for each in self.pod["volumes"]}

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.documents if each["kind"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        [found] = self.all(kind)
        return found

    def environ(self) -> dict[str, str]:
        """Return the container's environment: that of the map, then its own."""
        maps = {
            each["metadata"]["name"]: each["data"] for each in self.all("ConfigMap")
        }
        environ: dict[str, str] = {}
        for source in self.container["envFrom"]:
            environ |= maps[source["configMapRef"]["name"]]
        return environ | {e["name"]: e["value"] for e in self.container["env"]}

    def mounts(self) -> dict[str, dict[str, Any]]:
        """Return the volumes by where they are mounted."""
        mounts = self.container["volumeMounts"]
        assert sorted(m["name"] for m in mounts) == sorted(self.volumes)
        return {m["mountPath"]: {**self.volumes[m["name"]], **m} for m in mounts}


@pytest.fixture(params=WAYS)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    """Each of the ways to deploy on Kubernetes."""
    return Rendered(request.param)


def supported() -> list[str]:
    """Return the oldest release that docs/deploy.md promises, and the newest known."""
    text = (ROOT / "docs" / "deploy.md").read_text()
    [oldest] = re.findall(r"Kubernetes (1\.\d+) or newer", text)
    return [oldest, kubernetes_validate.latest_version()]


def test_the_ways_are_all_there_is():
    """Every kustomization is a way, or a part of one: no way goes untested."""
    folders = {path.parent.name for path in KUBERNETES.glob("*/kustomization.yaml")}

    assert folders == {*WAYS, "base", "persistent-state"}


@pytest.mark.parametrize("version", supported())
def test_the_manifests_are_valid(rendered, version):
    """The oldest and the newest Kubernetes know every field, with its type."""
    assert [each["kind"] for each in rendered.documents].count("CronJob") == 1
    for document in rendered.documents:
        kubernetes_validate.validate(document, version, strict=True)

    wrong = copy.deepcopy(rendered.one("CronJob"))
    wrong["spec"]["jobTemplate"]["spec"]["template"]["spec"]["restartpolicy"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


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


def test_what_no_repetition_cures_fails_the_job(rendered):
    """A wrong option, refused credentials and wrong settings end a job at once."""
    [rule] = rendered.job["podFailurePolicy"]["rules"]

    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {
        "containerName": rendered.container["name"],
        "operator": "In",
        "values": [ExitStatus.USAGE, ExitStatus.NOPERM, ExitStatus.CONFIG],
    }


def test_a_pod_may_do_nothing_it_need_not(rendered):
    """The pod meets the restricted Pod Security Standard, and more."""
    pod, container = rendered.pod, rendered.container

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
    kinds = {(each.keys() - {"name"}).pop() for each in rendered.volumes.values()}
    assert kinds <= {"secret", "emptyDir", "persistentVolumeClaim"}


def test_a_pod_fits_the_image(rendered):
    """User, state folder and version are those of the Dockerfile and the program."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    security = rendered.pod["securityContext"]
    user, group = security["runAsUser"], security["runAsGroup"]

    assert f"\nUSER {user}:{group}\n" in dockerfile
    assert security["fsGroup"] == group
    state_dir = rendered.environ()["STATE_DIR"]
    assert f"STATE_DIR={state_dir}\n" in dockerfile
    assert state_dir in rendered.mounts()
    assert rendered.container["image"] == IMAGE
    assert not rendered.container.keys() & {"command", "args"}


def test_kubernetes_never_opens_the_state_to_others(rendered):
    """Kubernetes leaves the modes of stored files alone from the second run on.

    It would make account.json readable for the group, and a login that others can read
    is not used.
    """
    security = rendered.pod["securityContext"]

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
    found = {k for k, v in vars(settings).items() if isinstance(v, Secret)}
    assert found, "the settings hold no secret"
    assert bool(settings.remote_write) == (way == "remote-write")
    assert bool(settings.pushgateway) == (way != "remote-write")


def test_the_secret_is_read_only_and_closed(rendered):
    """The Secret is mounted as files that the program's group alone may read."""
    [mount] = [each for each in rendered.mounts().values() if "secret" in each]

    assert mount["readOnly"] is True
    assert mount["secret"]["defaultMode"] == 0o440
    assert not rendered.all("Secret"), "a secret's content is in the repository"


def test_names_are_looked_up_once(rendered):
    """A name with a dot is not tried in the cluster's own domains first."""
    assert rendered.pod["dnsConfig"]["options"] == [{"name": "ndots", "value": "1"}]


def size(text: str) -> int:
    """Return the bytes of 128Mi, 128m and the like."""
    number = text.rstrip("KMGim")
    return int(number) * UNITS[text.removeprefix(number)]


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


# --- systemd ----------------------------------------------------------------------

Unit = dict[str, dict[str, list[str]]]


def read_unit(*files: Path) -> Unit:
    """Return a unit with its drop-ins, all values of a key; an empty one resets it."""
    unit: Unit = {}
    for file in files:
        section = ""
        for line in file.read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif line and not line.startswith("#"):
                key, _, value = line.partition("=")
                values = unit.setdefault(section, {}).setdefault(key, [])
                if value:
                    values.append(value)
                elif key != "Environment":
                    values.clear()
    return unit


SERVICE = SYSTEMD / "ecoflow-push.service"
TIMER = SYSTEMD / "ecoflow-push.timer"
DROP_INS = sorted(SYSTEMD.glob("*.conf"))


def verify(folder: Path, service: str) -> tuple[int, str]:
    """Let systemd read the units from `folder`, with a program that is there."""
    folder.mkdir()
    text, count = re.subn(
        r"^ExecStart=\S+", f"ExecStart={sys.executable}", service, flags=re.MULTILINE
    )
    assert count == 1
    (folder / SERVICE.name).write_text(text)
    shutil.copy(TIMER, folder)
    (folder / f"{SERVICE.name}.d").mkdir()
    for file in DROP_INS:
        shutil.copy(file, folder / f"{SERVICE.name}.d")
    units = (folder / SERVICE.name, folder / TIMER.name)
    return said_by(program("systemd-analyze"), "verify", "--man=no", *units)


def test_systemd_understands_the_units(tmp_path):
    """systemd has nothing to say about the units and their drop-ins."""
    text = SERVICE.read_text()

    assert verify(tmp_path / "right", text) == (0, "")
    # It ends with 0 even so.
    _, said = verify(tmp_path / "wrong", text.replace("UMask=", "Umask="))
    assert "Umask" in said


def test_the_service_is_sealed():
    """systemd rates the service's exposure at 1.1 of 10 at most."""
    analyze = (program("systemd-analyze"), "security", "--offline=true", "--no-pager")

    status, said = said_by(*analyze, f"--threshold={MOST_EXPOSURE}", SERVICE)
    assert status == 0, said
    assert "Overall exposure level" in said
    status, _ = said_by(*analyze, "--threshold=1", SERVICE)
    assert status == 1


def test_the_service_ends_and_never_repeats_itself(tmp_path):
    """A run is bounded above its own limits, its status is kept, none is repeated."""
    service = read_unit(SERVICE, *DROP_INS)["Service"]
    deadline = unit_settings(tmp_path, "access-key", "secret-key").run_deadline

    assert service["Type"] == ["oneshot"]
    assert not service.keys() & {"Restart", "SuccessExitStatus", "ExecStartPost"}
    assert not service["ExecStart"][0].startswith("-")
    [timeout] = service["TimeoutStartSec"]
    assert deadline + ALARM_SECONDS < float(timeout) < 120


def test_the_service_may_do_nothing_it_need_not():
    """The service has a user of its own, one folder to write to, and no privilege."""
    service = read_unit(SERVICE, *DROP_INS)["Service"]

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


def test_the_timer_beats_every_minute():
    """Runs start within seconds of a minute; what was missed is not made up for."""
    timer = read_unit(TIMER)
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


def test_the_services_settings_are_accepted(tmp_path):
    """The service as it stands reads by developer keys and pushes to a gateway."""
    settings = unit_settings(tmp_path, "access-key", "secret-key")

    assert settings.access_key
    assert settings.access_key.reveal() == "content-of-access-key"
    assert settings.pushgateway


def test_the_drop_in_for_the_app_account(tmp_path):
    """With app-account.conf the keys' files are no longer needed."""
    settings = unit_settings(
        tmp_path,
        "account-password",
        drop_ins=("app-account.conf",),
        more="ECOFLOW_ACCOUNT_USER=you@example.org\n",
    )

    assert settings.access_key is None
    assert settings.account_password
    assert settings.account_password.reveal() == "content-of-account-password"


def test_the_drop_in_for_remote_write(tmp_path):
    """remote-write.conf adds a password to what is there."""
    settings = unit_settings(
        tmp_path,
        *("access-key", "secret-key", "remote-write-password"),
        drop_ins=("remote-write.conf",),
        more="REMOTE_WRITE_URL=https://mimir.example/push\nREMOTE_WRITE_USERNAME=me\n",
    )

    assert settings.remote_write
    assert settings.access_key


# --- compose ----------------------------------------------------------------------


def compose() -> dict[str, Any]:
    """Return the compose file."""
    return dict(yaml.safe_load((COMPOSE / "compose.yaml").read_text()))


def follows_the_schema(file: Path) -> bool:
    status, said = said_by(
        *(sys.executable, "-m", "check_jsonschema"),
        *("--builtin-schema", "vendor.compose-spec", file),
    )
    assert status in {0, 1}, said
    assert status == 0 or "Schema validation errors" in said, said
    return status == 0


def test_the_compose_file_follows_the_schema(tmp_path):
    """compose.yaml is what the compose specification knows."""
    wrong = compose()
    wrong["services"]["grafana"]["read_onyl"] = True
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(wrong))

    assert follows_the_schema(COMPOSE / "compose.yaml")
    assert not follows_the_schema(tmp_path / "compose.yaml")


def test_every_service_is_sealed():
    """No service writes to its image, has a capability, or is open to the network."""
    services = compose()["services"]

    assert set(services) == {"ecoflow-push", "pushgateway", "prometheus", "grafana"}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert size(service["mem_limit"]), name
        assert service["pids_limit"] > 0, name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        assert not service.keys() & {"privileged", "cap_add", "network_mode", "user"}
        # A whole version, no tag that moves.
        assert re.fullmatch(r"[\w/-]+:v?\d+\.\d+\.\d+", service["image"]), name


def test_what_compose_mounts_is_there():
    """Every file that is mounted exists, read-only; every volume is declared."""
    declared = compose()
    mounted = set()
    for service in declared["services"].values():
        for volume in service.get("volumes", []):
            source, _, target = volume.partition(":")
            if source.startswith("."):
                assert (COMPOSE / source).exists(), source
                assert target.endswith(":ro"), source
            else:
                mounted.add(source)
    assert mounted == set(declared["volumes"])


def test_the_composed_job_is_the_demo(tmp_path):
    """The job reads the simulated cloud, and its options and settings are known."""
    service = compose()["services"]["ecoflow-push"]
    environ = service["environment"]

    assert service["image"] == IMAGE
    assert (COMPOSE / service["build"] / "Dockerfile").is_file()
    assert parse_args(service["command"]).demo
    assert_documented(set(environ))
    settings = Settings.from_environ(
        {
            **environ,
            "ECOFLOW_ACCESS_KEY": "demo",
            "ECOFLOW_SECRET_KEY": "demo",
            "STATE_DIR": str(tmp_path),
        }
    )
    assert settings.pushgateway
    assert urlsplit(settings.pushgateway.url).hostname in service["depends_on"]


def test_grafana_finds_prometheus():
    """The provisioned data source is the Prometheus of the same file."""
    services = compose()["services"]
    folder = COMPOSE / "grafana"
    [source] = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    [provider] = yaml.safe_load((folder / "dashboards/ecoflow.yaml").read_text())[
        "providers"
    ]

    assert source["type"] == "prometheus"
    assert source["isDefault"] is True
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in services
    targets = [each.split(":")[1] for each in services["grafana"]["volumes"]]
    assert provider["options"]["path"] in targets
    environ = services["grafana"]["environment"]
    # Nobody can log in with a password that everyone knows.
    assert environ["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environ["GF_AUTH_ANONYMOUS_ORG_ROLE"] != "Admin"


def test_the_composed_prometheus_keeps_the_labels(tmp_path):
    """With compose's own configuration the demo's series come out as pushed."""
    config = (COMPOSE / "prometheus.yml").read_text()
    with gateway() as pushed:
        done = push({"PUSHGATEWAY_URL": pushed.url}, "--demo")
        assert done.status == 0, done.stderr
        # To Prometheus an empty label is none.
        wanted = {
            (name, tuple(pair for pair in labels if pair[1]))
            for name, labels in pushed.series()
        }
        target = pushed.url.removeprefix("http://")
        config = config.replace("pushgateway:9091", target).replace("15s", "1s")
        assert target in config
        with prometheus(tmp_path / "prometheus", config=config) as database:
            match = '{job=~"ecoflow_demo.*"}'
            scraped = eventually(lambda: database.alive(match), seconds=20)

    assert len(wanted) > 20
    assert scraped.keys() >= wanted
    flags = compose()["services"]["prometheus"]["command"]
    assert "--web.enable-remote-write-receiver" in flags


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
    wrong.write_text(CRONTAB.read_text().replace("* * * * * set", "* * * * set"))

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


def test_the_page_names_what_is_there():
    """docs/deploy.md names each way and unit, and no file that is not there."""
    text = PAGE.read_text()
    named = set(re.findall(r"deploy/[\w./-]+\w", text))

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
        # Grafana's settings, and socket families.
        named = {x for x in named if not x.startswith(("GF_", "AF_"))}
        if named:
            assert_documented(named)
