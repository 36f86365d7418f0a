"""deploy/compose: follows the schema, is sealed, and ends in a picture."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from ecoflow_push.config.settings import Settings
from ecoflow_push.start.options import parse_args
from tests.deploy import COMPOSE, IMAGE, assert_documented, compose, said_by, size
from tests.support import eventually, gateway, prometheus, push_anew


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
    assert urlsplit(settings.sinks["pushgateway"].url).hostname in service["depends_on"]


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
        done = push_anew({"PUSHGATEWAY_URL": pushed.url}, "--demo")
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
            scraped = eventually(lambda: database.alive(match))

    assert len(wanted) > 20
    assert scraped.keys() >= wanted
    flags = compose()["services"]["prometheus"]["command"]
    assert "--web.enable-remote-write-receiver" in flags
