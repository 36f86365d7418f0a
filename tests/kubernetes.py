"""Kustomizations as a cluster would get them, and what it makes of a failed pod."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import yaml
from kubernetes_validate import utils

from tests.deploy import DEPLOY, program, said_by
from tests.support import ROOT

KUBERNETES = DEPLOY / "kubernetes"
# Those that share the accounts of a folder.
FLEETS = ("fleet", "fleet-stateless")

Documents = list[dict[str, Any]]

# It reads a megabyte of them for each document.
utils.schema_contents = cache(utils.schema_contents)


def supported() -> list[str]:
    """Return the oldest release that docs/deploy.md promises, and the newest known."""
    text = (ROOT / "docs" / "deploy.md").read_text()
    [oldest] = re.findall(r"Kubernetes (1\.\d+) or newer", text)
    return [oldest, kubernetes_validate.latest_version()]


@cache
def built(way: str) -> str:
    """Return what `kubectl apply -k` would send, as text."""
    status, text = said_by(program("kubectl"), "kustomize", KUBERNETES / way)
    assert status == 0, text
    return text


class Rendered:
    """A kustomization as `kubectl apply -k` would send it."""

    def __init__(self, way: str) -> None:
        self.read(list(yaml.load_all(built(way), yaml.CSafeLoader)))

    @classmethod
    def of(cls, documents: Documents) -> Rendered:
        """Return what these documents are."""
        made = cls.__new__(cls)
        made.read(documents)
        return made

    def read(self, documents: Documents) -> None:
        """Take the parts of the documents by name."""
        self.documents = documents
        self.cron = self.one("CronJob")["spec"]
        self.job = self.cron["jobTemplate"]["spec"]
        self.pod = self.job["template"]["spec"]
        [self.container] = self.pod["containers"]
        self.volumes = {each["name"]: each for each in self.pod["volumes"]}

    def all(self, kind: str) -> Documents:
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

    def secrets(self) -> dict[str, set[str]]:
        """Return the Secrets that are mounted, by where."""
        found: dict[str, set[str]] = {}
        for place, mount in self.mounts().items():
            if "secret" in mount:
                found[place] = {mount["secret"]["secretName"]}
            elif "projected" in mount:
                sources = mount["projected"]["sources"]
                found[place] = {each["secret"]["name"] for each in sources}
        return found


def moved(environ: Mapping[str, str], places: Mapping[str, Path]) -> dict[str, str]:
    """Return an environment in which these folders stand for a pod's places."""
    found = dict(environ)
    # The longest first: one may lie in another.
    for place in sorted(places, key=len, reverse=True):
        for name, value in found.items():
            if value == place or value.startswith(f"{place}/"):
                found[name] = str(places[place]) + value.removeprefix(place)
    return found
