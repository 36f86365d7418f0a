"""deploy/kubernetes/fleet: what an Indexed Job must be, and that each fault is seen."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

import pytest

from tests.deploy import assert_documented
from tests.indexed_faults import faults
from tests.kubernetes import FLEETS, KUBERNETES, Documents, Rendered
from tests.support import ROOT

GONE = object()
ACCOUNTS = "/run/secrets/ecoflow-accounts"


def changed(way: str, part: str, path: str, value: Any) -> Documents:
    """Return a fleet in which one value is another, or is gone.

    `part` is what `path` begins at: a property of Rendered, or a kind of document. A
    path's numbers are places in a list, and "+" one behind its end.
    """
    documents = deepcopy(Rendered(way).documents)
    rendered = Rendered.of(documents)
    place: Any = getattr(rendered, part, None) or rendered.one(part)
    *steps, last = path.split("/")
    for step in steps:
        place = place[int(step) if step.isdigit() else step]
    if last == "+":
        place.append(value)
    elif value is GONE:
        del place[int(last) if last.isdigit() else last]
    else:
        place[int(last) if last.isdigit() else last] = value
    return documents


@pytest.mark.parametrize("way", FLEETS)
def test_a_fleet_has_no_fault(way):
    """The oldest and the newest Kubernetes would take it, and so would the program."""
    assert faults(Rendered(way).documents) == []


RULES = "podFailurePolicy/rules"
CODES = "podFailurePolicy/rules/1/onExitCodes"
CLAIM = "PersistentVolumeClaim"
VALID = "is not of the schema"
# Part, path, value, and words of what is said of it.
MUTATIONS: list[tuple[str, str, Any, str]] = [
    # What an API server refuses, and the schema knows.
    ("job", "completionmode", "Indexed", VALID),
    ("job", "completions", "8", VALID),
    ("job", f"{CODES}/values", ["64"], VALID),
    ("job", f"{RULES}/0/action", GONE, VALID),
    ("pod", "volumes/0/projected/sources/0/secrets", {"name": "x"}, VALID),
    ("cron", "schedule", GONE, VALID),
    # What it refuses, and the schema does not know.
    ("CronJob", "metadata/name", "ecoflow_push", "is no name"),
    ("CronJob", "metadata/name", "ecoflow-push-" * 4 + "x", "leaves no room"),
    ("cron", "schedule", "61 * * * *", "schedule is none"),
    ("cron", "schedule", "* * * *", "schedule is none"),
    ("cron", "concurrencyPolicy", "forbid", "no such concurrencyPolicy"),
    ("job", "completionMode", "indexed", "no pod is told an index"),
    ("job", "podReplacementPolicy", "TerminatingOrFailed", "podReplacementPolicy"),
    ("pod", "restartPolicy", "OnFailure", "need restartPolicy: Never"),
    ("pod", "restartPolicy", "Always", "need restartPolicy: Never"),
    ("job", "backoffLimitPerIndex", GONE, "FailIndex needs backoffLimitPerIndex"),
    ("job", "maxFailedIndexes", 9, "more than there are"),
    ("job", f"{RULES}/1/action", "failIndex", "is no action"),
    ("job", f"{CODES}/operator", "Is", "is no operator"),
    ("job", f"{CODES}/values", [78, 77, 64], "in order"),
    ("job", f"{CODES}/values", [64, 77, 77, 78], "in order"),
    ("job", f"{CODES}/values", [], "in order"),
    ("job", f"{CODES}/values", [0, 64, 77, 78], "0 is no failure"),
    ("job", f"{CODES}/containerName", "push", "not there"),
    ("job", f"{RULES}/0/onPodConditions/0/status", "true", "no such status"),
    ("job", f"{RULES}/0/onPodConditions", GONE, "both conditions or none"),
    ("container", "env/+", {"name": "SHARD_COUNT", "value": "8"}, "set twice"),
    ("container", "envFrom/0/configMapRef/name", "push", "not there"),
    ("container", "resources/limits/memory", "256MB", "no quantity"),
    ("container", "volumeMounts/0/name", "account", "is no volume"),
    ("container", "volumeMounts/1/mountPath", ACCOUNTS, "in one place"),
    ("pod", "volumes/0/secret", {"secretName": "x"}, "or several"),
    ("pod", "volumes/0/projected/defaultMode", 1440, "a mode that is none"),
    (CLAIM, "spec/accessModes", ["ReadWriteAll"], "no such access mode"),
    (CLAIM, "spec/resources/requests/storage", "20GB", "size is no quantity"),
    (CLAIM, "metadata/name", "push", "not the one that is made"),
    # What it takes, and a fleet must not have.
    ("cron", "concurrencyPolicy", "Allow", "two Jobs"),
    ("cron", "concurrencyPolicy", "Replace", "two Jobs"),
    ("cron", "suspend", True, "suspended"),
    ("job", "suspend", True, "suspended"),
    ("cron", "startingDeadlineSeconds", 5, "never comes"),
    ("cron", "startingDeadlineSeconds", 60, "not left out"),
    ("job", "completionMode", "NonIndexed", "no pod is told an index"),
    ("job", "completions", 0, "there is no shard"),
    ("job", "completions", 16, "SHARD_COUNT is not"),
    ("job", "parallelism", 0, "no pod may run"),
    ("job", "parallelism", 4, "ends before its runs do"),
    ("job", "activeDeadlineSeconds", 55, "ends before its runs do"),
    ("job", "activeDeadlineSeconds", 300, "long after the next is due"),
    ("ConfigMap", "data/RUN_DEADLINE", "110", "ends before its runs do"),
    ("job", "backoffLimit", 0, "ends the Job for all shards"),
    ("job", "backoffLimitPerIndex", 6, "too often"),
    ("job", "maxFailedIndexes", 0, "stop the others"),
    ("job", "podFailurePolicy", GONE, "78 is tried again"),
    ("job", f"{RULES}/1/action", "FailJob", "ends the Job for all"),
    ("job", f"{RULES}/1/action", "Ignore", "77 is tried again"),
    ("job", f"{CODES}/operator", "NotIn", "69 is not tried once more"),
    ("job", f"{CODES}/values", [64, 78], "77 is tried again"),
    ("job", f"{RULES}/2", GONE, "1 is tried again"),
    ("job", f"{RULES}/3/action", "Ignore", "for ever"),
    ("job", f"{RULES}/3/action", "FailIndex", "75 is not tried once more"),
    ("container", "env/0/value", "7", "SHARD_COUNT is not"),
    ("container", "env/0", GONE, "SHARD_COUNT is not"),
    ("container", "env/+", {"name": "SHARD_INDEX", "value": "0"}, "the same shard"),
    ("container", "env/1", GONE, "PUSH_INSTANCE is not fixed"),
    (
        "container",
        "env/1",
        {
            "name": "PUSH_INSTANCE",
            "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
        },
        "PUSH_INSTANCE is not fixed",
    ),
    ("ConfigMap", "data/ECOFLOW_ACCESS_KEY_FILE", "/x", "beside the folder"),
    ("ConfigMap", "data/REMOTE_WRITE_URL", GONE, "nowhere to write"),
    ("ConfigMap", "data/ECOFLOW_ACCOUNTS", "/run/accounts", "not where the accounts"),
    ("ConfigMap", "data/REMOTE_WRITE_PASSWORD_FILE", "/run/p", "no file of the Secret"),
    ("container", "volumeMounts/0/mountPath", "/accounts", "not where the accounts"),
    ("container", "volumeMounts/0/readOnly", GONE, "can be written"),
    ("container", "volumeMounts/0", GONE, "not mounted"),
    ("container", "volumeMounts/2/mountPath", "/state", "not on the claim"),
    ("container", "volumeMounts/2/readOnly", True, "cannot be written"),
    ("container", "env/2/value", "none", "nothing is kept"),
    ("pod", "volumes/0/projected/defaultMode", 0o444, "open to others"),
    ("pod", "volumes/0/projected/defaultMode", 0o400, "closed to the program"),
    ("pod", "securityContext/fsGroup", 0, "the program's group"),
    ("pod", "volumes/0/projected/sources/1/secret/name", "ecoflow-accounts", "twice"),
    ("pod", "volumes/0/projected/sources/0/secret/optional", True, "no account at all"),
    ("pod", "volumes/0/projected/sources/0", {"configMap": {"name": "x"}}, "no Secret"),
    (CLAIM, "spec/accessModes", ["ReadWriteOnce"], "one node alone"),
]


@pytest.mark.parametrize(
    ("part", "path", "value", "words"),
    MUTATIONS,
    ids=[f"{number} {each[1]}" for number, each in enumerate(MUTATIONS)],
)
def test_a_broken_fleet_is_seen(part, path, value, words):
    """What a cluster would refuse, or a fleet must not have, is told for what it is."""
    found = faults(changed("fleet", part, path, value))

    assert any(words in fault for fault in found), found


def test_the_mutations_break_what_stands():
    """Without a change the parts that the mutations begin at have no fault."""
    same = changed("fleet", "job", "completions", 8)

    assert faults(same) == []
    assert len(MUTATIONS) > 80
    assert len({(part, path, str(value)) for part, path, value, _ in MUTATIONS}) == len(
        MUTATIONS
    )


@pytest.mark.parametrize("way", FLEETS)
def test_the_first_lines_make_what_is_mounted(way):
    """Each Secret that must be there is made by a command at the top of the file."""
    rendered = Rendered(way)
    text = (KUBERNETES / "fleet" / "kustomization.yaml").read_text()
    made = set(re.findall(r"create secret generic (\S+) ", text))
    optional = {
        source["secret"]["name"]
        for volume in rendered.pod["volumes"]
        for source in volume.get("projected", {}).get("sources", ())
        if source["secret"].get("optional")
    }

    assert set.union(*rendered.secrets().values()) - optional == made
    assert optional == {"ecoflow-accounts-2"}
    assert_documented(set(rendered.environ()))
    for name in rendered.environ():
        assert not re.search(r"(KEY|PASSWORD|TOKEN)$", name), name


def test_a_secret_holds_the_accounts_that_the_page_says():
    """Key pairs, as many as docs/fleet.md says, are less than a Secret may hold."""
    text = (ROOT / "docs" / "fleet.md").read_text()
    [told] = re.findall(r"1 MiB.{0,40}about ([\d,]+) key pairs", text)
    file = (
        f"ECOFLOW_ACCESS_KEY={'a' * 32}\nECOFLOW_SECRET_KEY={'s' * 32}\n"
        "ECOFLOW_API_HOST=api-e.ecoflow.com\nEXTRA_LABELS=site=street-and-number\n"
    )

    assert 1024 * 1024 / 1.5 < len(file) * int(told.replace(",", "")) < 1024 * 1024
