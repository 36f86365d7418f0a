"""What a cluster, or a fleet, would not take of an Indexed Job that its schema takes.

An API server's own rules first (the schemas know types and required fields, and neither
values nor what goes with what), then what the program needs of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import chain
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]

from ecoflow_push.errors import ExitStatus
from tests.deploy import ALARM_SECONDS
from tests.kubernetes import Documents, Rendered, supported

CONTROLLER = 10  # seconds between two looks of the CronJob's and before a second try
SLOT = 60
DEFAULT_DEADLINE = 50
ACTIONS = {"FailJob", "FailIndex", "Ignore", "Count"}
MOST_RULES, MOST_VALUES, MOST_TASKS = 20, 255, 100_000
LONGEST_CRON_NAME = 52
ACCESS = {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"}
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|[KMGTPE]i?)?")
DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
# What it becomes of a shard that ended so (docs/exit-statuses.md).
NEVER_AGAIN = (
    ExitStatus.PARTIAL,
    ExitStatus.USAGE,
    ExitStatus.SOFTWARE,
    ExitStatus.PROTOCOL,
    ExitStatus.NOPERM,
    ExitStatus.CONFIG,
)
ONCE_MORE = (ExitStatus.UNAVAILABLE, ExitStatus.IOERR, ExitStatus.TEMPFAIL)


def faults(documents: Documents) -> list[str]:
    """Return all that is wrong with a rendered fleet, each as a sentence."""
    broken = [
        f"{each.get('kind')} is not of the schema of {version}"
        for version in supported()
        for each in documents
        if not _is_valid(json.dumps(each), version)
    ]
    if broken:
        return broken
    rendered = Rendered.of(documents)
    return list(
        chain(
            _names(rendered),
            _cron(rendered),
            _indexed(rendered.job),
            _retries(rendered),
            _policy(rendered),
            _pod(rendered),
            _volumes(rendered),
            _claims(rendered),
            _shards(rendered),
            _state(rendered),
            _files(rendered),
            _secrets(rendered),
        )
    )


# Reading the schemas is most of it, and of broken fleets most documents are alike.
@cache
def _is_valid(document: str, version: str) -> bool:
    try:
        kubernetes_validate.validate(json.loads(document), version, strict=True)
    except kubernetes_validate.ValidationError:
        return False
    return True


# --- an API server's own rules ------------------------------------------------------


def _names(rendered: Rendered) -> Iterator[str]:
    for each in rendered.documents:
        name = each["metadata"]["name"]
        if not DNS_NAME.fullmatch(name):
            yield f"{name} is no name"
        if each["kind"] == "CronJob" and len(name) > LONGEST_CRON_NAME:
            yield "the CronJob's name leaves no room for its Jobs'"
    keys = [(each["kind"], each["metadata"]["name"]) for each in rendered.documents]
    if len(set(keys)) < len(keys):
        yield "two of a kind have one name"


def _cron(rendered: Rendered) -> Iterator[str]:
    cron = rendered.cron
    fields = cron["schedule"].split()
    if len(fields) != 5 or not all(map(_is_cron_field, fields, (59, 23, 31, 12, 7))):
        yield "the schedule is none"
    if cron.get("concurrencyPolicy") not in {"Allow", "Forbid", "Replace"}:
        yield "there is no such concurrencyPolicy"
    elif cron["concurrencyPolicy"] != "Forbid":
        yield "two Jobs may be at work on the same accounts"
    if cron.get("suspend") or rendered.job.get("suspend"):
        yield "it is suspended"
    if not CONTROLLER <= cron.get("startingDeadlineSeconds", 0) < SLOT:
        yield "a Job that comes late is not left out, or never comes"


def _is_cron_field(text: str, most: int) -> bool:
    found = re.fullmatch(r"\*(?:/(\d+))?|(\d+)", text)
    numbers = found.groups() if found else ()
    return bool(found) and all(int(n) <= most for n in numbers if n)


def _indexed(job: Mapping[str, Any]) -> Iterator[str]:
    if job.get("completionMode") != "Indexed":
        yield "no pod is told an index"
    if not 0 < job.get("completions", 0) <= MOST_TASKS:
        yield "there is no shard, or too many"
    if not 0 < job.get("parallelism", 1) <= MOST_TASKS:
        yield "no pod may run"
    if job.get("podReplacementPolicy", "Failed") != "Failed":
        yield "a podFailurePolicy needs podReplacementPolicy: Failed"


def _retries(rendered: Rendered) -> Iterator[str]:
    job = rendered.job
    if rendered.pod.get("restartPolicy") != "Never":
        yield "podFailurePolicy and backoffLimitPerIndex need restartPolicy: Never"
    if "backoffLimitPerIndex" not in job:
        yield "one shard's failures use up the tries of all"
        if "maxFailedIndexes" in job:
            yield "maxFailedIndexes needs backoffLimitPerIndex"
    elif not 0 <= job["backoffLimitPerIndex"] <= 2:
        yield "a shard is tried too often, or never"
    if "backoffLimit" in job:
        yield "backoffLimit ends the Job for all shards"
    most = job.get("maxFailedIndexes", job.get("completions"))
    if most > job.get("completions", 0):
        yield "maxFailedIndexes is more than there are"
    elif most < job.get("completions", 0):
        yield "shards that fail stop the others"
    waves = -(-job.get("completions", 0) // max(job.get("parallelism", 1), 1))
    deadline = float(_environ(rendered).get("RUN_DEADLINE", DEFAULT_DEADLINE))
    least = waves * (deadline + ALARM_SECONDS)
    # Two slots at most: more would be missed for one shard that hangs.
    if not least < job.get("activeDeadlineSeconds", 0) < 2 * SLOT:
        yield "the Job ends before its runs do, or long after the next is due"


def _policy(rendered: Rendered) -> Iterator[str]:
    rules = rendered.job.get("podFailurePolicy", {}).get("rules", [])
    if len(rules) > MOST_RULES:
        yield "more rules than Kubernetes takes"
    for rule in rules:
        yield from _rule(rule, rendered)
    for status in NEVER_AGAIN:
        if action_for(rendered, status) != "FailIndex":
            yield f"{status} is tried again, and ends the same way"
    for status in ONCE_MORE:
        if action_for(rendered, status) != "Count":
            yield f"{status} is not tried once more, or for ever"


def _rule(rule: Mapping[str, Any], rendered: Rendered) -> Iterator[str]:
    if rule["action"] not in ACTIONS:
        yield f"{rule['action']} is no action"
    if rule["action"] == "FailIndex" and ("backoffLimitPerIndex" not in rendered.job):
        yield "FailIndex needs backoffLimitPerIndex"
    if rule["action"] == "FailJob":
        yield "one shard ends the Job for all"
    if len({"onExitCodes", "onPodConditions"} & rule.keys()) != 1:
        yield "a rule has both conditions or none"
    yield from _codes(rule.get("onExitCodes"), rendered)
    for condition in rule.get("onPodConditions", ()):
        if condition.get("status", "True") not in {"True", "False", "Unknown"}:
            yield "a pod's condition has no such status"


def _codes(codes: Mapping[str, Any] | None, rendered: Rendered) -> Iterator[str]:
    if codes is None:
        return
    values = codes["values"]
    names = {each["name"] for each in rendered.pod["containers"]}
    if codes.get("containerName", rendered.container["name"]) not in names:
        yield "a rule is for a container that is not there"
    if codes["operator"] not in {"In", "NotIn"}:
        yield f"{codes['operator']} is no operator"
    if values != sorted(set(values)) or not 0 < len(values) <= MOST_VALUES:
        yield "exit codes must be in order, each once"
    if codes["operator"] == "In" and 0 in values:
        yield "0 is no failure"


def action_for(rendered: Rendered, status: int) -> str:
    """Return what becomes of a pod that ends with this status: the first rule's."""
    for rule in rendered.job.get("podFailurePolicy", {}).get("rules", []):
        codes = rule.get("onExitCodes")
        if codes and (status in codes["values"]) is (codes["operator"] == "In"):
            return str(rule["action"])
    return "Count"


def _pod(rendered: Rendered) -> Iterator[str]:
    names = [each["name"] for each in rendered.container.get("env", ())]
    if len(set(names)) < len(names):
        yield "a variable is set twice"
    maps = {each["metadata"]["name"] for each in rendered.all("ConfigMap")}
    for source in rendered.container.get("envFrom", ()):
        if source.get("configMapRef", {}).get("name") not in maps:
            yield "settings are to come from what is not there"
    amounts = rendered.container["resources"]
    for amount in chain(amounts["requests"].values(), amounts["limits"].values()):
        if not QUANTITY.fullmatch(str(amount)):
            yield f"{amount} is no quantity"


def _volumes(rendered: Rendered) -> Iterator[str]:
    names = [each["name"] for each in rendered.pod["volumes"]]
    mounts = rendered.container["volumeMounts"]
    places = [each["mountPath"] for each in mounts]
    if len(set(names)) < len(names):
        yield "two volumes have one name"
    if len(set(places)) < len(places):
        yield "two volumes are mounted in one place"
    for missing in {each["name"] for each in mounts} - set(names):
        yield f"{missing} is mounted, and is no volume"
    for idle in set(names) - {each["name"] for each in mounts}:
        yield f"{idle} is a volume, and not mounted"
    for each in rendered.pod["volumes"]:
        if len(each) != 2:
            yield f"{each['name']} is no volume, or several"
        mode = (each.get("secret") or each.get("projected") or {}).get("defaultMode", 0)
        if not 0 <= mode <= 0o777:
            yield f"{each['name']} has a mode that is none"


def _claims(rendered: Rendered) -> Iterator[str]:
    claimed = {
        each["persistentVolumeClaim"]["claimName"]
        for each in rendered.pod["volumes"]
        if "persistentVolumeClaim" in each
    }
    claims = {e["metadata"]["name"] for e in rendered.all("PersistentVolumeClaim")}
    if claimed != claims:
        yield "the claim that is mounted is not the one that is made"
    for claim in rendered.all("PersistentVolumeClaim"):
        if not set(claim["spec"]["accessModes"]) <= ACCESS:
            yield "there is no such access mode"
        if not QUANTITY.fullmatch(claim["spec"]["resources"]["requests"]["storage"]):
            yield "the claim's size is no quantity"


# --- what the program needs ---------------------------------------------------------


def _environ(rendered: Rendered) -> dict[str, str]:
    """Return what can be known of the environment, however broken it is."""
    found: dict[str, str] = {}
    for each in rendered.all("ConfigMap"):
        found |= each["data"]
    own = {e["name"]: e.get("value", "") for e in rendered.container.get("env", ())}
    return found | own


def _shards(rendered: Rendered) -> Iterator[str]:
    environ = _environ(rendered)
    if environ.get("SHARD_COUNT") != str(rendered.job.get("completions")):
        yield "SHARD_COUNT is not the number of completions"
    if "SHARD_INDEX" in environ or "JOB_COMPLETION_INDEX" in environ:
        yield "every pod would be the same shard"
    if not environ.get("PUSH_INSTANCE"):
        yield "PUSH_INSTANCE is not fixed"
    for name in ("ECOFLOW_ACCESS_KEY", "ECOFLOW_ACCOUNT_USER", "ECOFLOW_DEVICE_SN"):
        if name in environ or f"{name}_FILE" in environ:
            yield f"{name} is set beside the folder of accounts"
    if "REMOTE_WRITE_URL" not in environ:
        yield "there is nowhere to write to"


def _places(rendered: Rendered) -> dict[str, dict[str, Any]]:
    volumes = {each["name"]: each for each in rendered.pod["volumes"]}
    return {
        each["mountPath"]: {**volumes.get(each["name"], {}), **each}
        for each in rendered.container["volumeMounts"]
    }


def _state(rendered: Rendered) -> Iterator[str]:
    places, state = _places(rendered), _environ(rendered).get("STATE_DIR", "")
    claims = rendered.all("PersistentVolumeClaim")
    if state == "none":
        if claims:
            yield "there is a claim, and nothing is kept"
        return
    if "persistentVolumeClaim" not in places.get(state, {}):
        yield "STATE_DIR is not on the claim"
    elif places[state].get("readOnly"):
        yield "STATE_DIR cannot be written"
    for claim in claims:
        if "ReadWriteMany" not in claim["spec"]["accessModes"]:
            yield "one node alone can mount the state"


def _files(rendered: Rendered) -> Iterator[str]:
    environ, places = _environ(rendered), _places(rendered)
    folder = environ.get("ECOFLOW_ACCOUNTS", "")
    if "projected" not in places.get(folder, {}):
        yield "ECOFLOW_ACCOUNTS is not where the accounts are"
    for name, value in environ.items():
        place = value.rpartition("/")[0]
        if name.endswith("_FILE") and "secret" not in places.get(place, {}):
            yield f"{name} is no file of the Secret"


def _secrets(rendered: Rendered) -> Iterator[str]:
    places = _places(rendered)
    security = rendered.pod.get("securityContext", {})
    for place, mount in places.items():
        volume = mount.get("secret") or mount.get("projected")
        if volume is None:
            continue
        if not mount.get("readOnly"):
            yield f"{place} can be written"
        mode = volume.get("defaultMode", 0o644)
        if mode & 0o027 or not mode & 0o040:
            yield f"{place} is open to others, or closed to the program"
        if security.get("fsGroup") != security.get("runAsGroup"):
            yield f"{place} does not belong to the program's group"
    for each in rendered.pod["volumes"]:
        sources = each.get("projected", {}).get("sources", [])
        kept = [s["secret"]["name"] for s in sources if "secret" in s]
        if len(kept) < len(sources) or len(set(kept)) < len(kept):
            yield "accounts are to come from what is no Secret, or twice from one"
        if (
            "projected" in each
            and sources
            and sources[0].get("secret", {}).get("optional")
        ):
            yield "no account at all would do"
