"""The alert on missing shards, over every way in which a count can change and end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest
import yaml

from tests.dashboard import rules
from tests.deploy import program, said_by

END = 150  # minutes
FIRING = 'ALERTS{alertname="EcoflowShardsMissing",alertstate="firing"}'
# The time of a run (min) and the count that it knows.
Runs = Mapping[int, int]


def runs(begin: int, end: int, count: int, every: int = 1) -> Runs:
    """Return the runs of a shard from `begin` until `end`."""
    return dict.fromkeys(range(begin, end, every), count)


def shards(indexes: Sequence[int], *parts: Runs) -> dict[int, Runs]:
    """Return what all these shards do, one part after the other."""
    together = {at: count for part in parts for at, count in part.items()}
    return dict.fromkeys(indexes, together)


class Scene(NamedTuple):
    """What the shards do, and from when on the alert fires, if it ever does."""

    life: Mapping[int, Runs]
    fires: int | None = None


FIRST, LAST = range(5), range(5, 8)
BEFORE, AFTER = runs(0, 60, 8), runs(60, END, 5)
SCENES = {
    "all are well": Scene(shards(range(8), runs(0, END, 8))),
    "one was never heard of": Scene(shards(range(7), runs(0, END, 8)), 10),
    "one is dead": Scene(
        shards(range(7), runs(0, END, 8)) | shards([7], runs(0, 40, 8)), 64
    ),
    "one was dead for an hour": Scene(
        shards(range(7), runs(0, END, 8))
        | shards([7], runs(0, 20, 8), runs(40, END, 8)),
    ),
    "all are dead, which others tell": Scene(shards(range(8), runs(0, 60, 8))),
    "eight become five": Scene(
        shards(FIRST, BEFORE, AFTER) | shards(LAST, BEFORE),
    ),
    "five become eight": Scene(
        shards(FIRST, runs(0, 60, 5), runs(60, END, 8))
        | shards(LAST, runs(60, END, 8)),
    ),
    "eight become five, every five minutes": Scene(
        shards(FIRST, runs(0, 60, 8, 5), runs(60, END, 5, 5))
        | shards(LAST, runs(0, 60, 8, 5)),
    ),
    "eight become five one after the other": Scene(
        {i: {**runs(0, 60 + i, 8), **runs(60 + i, END, 5)} for i in FIRST}
        | shards(LAST, runs(0, 63, 8)),
    ),
    "of five that were eight one is dead": Scene(
        shards(range(4), BEFORE, AFTER)
        | shards([4], BEFORE, runs(60, 90, 5))
        | shards(LAST, BEFORE),
        114,
    ),
    "one of the five is dead while the count changes": Scene(
        shards(range(4), BEFORE, AFTER)
        | shards([4], runs(0, 40, 8))
        | shards(LAST, BEFORE),
        64,
    ),
    "one that goes away is dead before": Scene(
        shards(FIRST, BEFORE, AFTER)
        | shards([5], runs(0, 50, 8))
        | shards([6, 7], BEFORE),
    ),
    "eight again, of which three do not come": Scene(
        shards(FIRST, BEFORE, runs(60, 100, 5), runs(100, END, 8))
        | shards(LAST, BEFORE),
        110,
    ),
}


def series(way: str, life: Mapping[int, Runs]) -> Iterator[dict[str, str]]:
    """Yield what a Prometheus holds of the shards, at each minute."""
    for index, at_work in life.items():
        labels = f'job="ecoflow_push",instance="fleet",shard="{index}"'
        values: dict[str, list[str]] = {
            "ecoflow_push_build_info": [],
            "ecoflow_push_shards": [],
            "ecoflow_push_last_success_timestamp_seconds": [],
            "push_time_seconds": [],
        }
        last: int | None = None
        for minute in range(END + 1):
            last = minute if minute in at_work else last
            # A gateway goes on with what it was last told.
            is_told = last is not None if way == "gateway" else minute in at_work
            at = last or 0
            told = ("1", str(at_work.get(at)), str(at * 60), str(at * 60))
            for listed, value in zip(values.values(), told, strict=True):
                listed.append(value if is_told else "_")
        if way != "gateway":
            del values["push_time_seconds"]
        for name, listed in values.items():
            yield {"series": f"{name}{{{labels}}}", "values": " ".join(listed)}


def look(minute: int, fires: int | None) -> dict[str, Any]:
    """Return what promtool is to find at a minute."""
    labels = f'{FIRING[:-1]},severity="critical",job="ecoflow_push",instance="fleet"}}'
    is_firing = fires is not None and minute >= fires
    found = [{"labels": labels, "value": 1}] if is_firing else []
    return {"expr": FIRING, "eval_time": f"{minute}m", "exp_samples": found}


@pytest.mark.parametrize("way", ["gateway", "remote-write"])
@pytest.mark.parametrize("name", SCENES)
def test_a_missing_shard_is_told_and_no_other(name, way, tmp_path):
    """The alert fires for shards that there should be; none of another count counts."""
    life, fires = SCENES[name]
    # By remote-write Prometheus goes on for five minutes with what ended.
    minutes = [m for m in range(3, END, 3) if fires is None or not 0 <= m - fires < 6]
    test = {
        "interval": "1m",
        "input_series": list(series(way, life)),
        "promql_expr_test": [look(minute, fires) for minute in minutes],
    }
    file = tmp_path / "test.yml"
    # The others look back a day, at every minute.
    ours = [
        r for r in rules() if "shards" in str(r) or "running" in r.get("record", "")
    ]
    only = tmp_path / "rules.yml"
    only.write_text(yaml.safe_dump({"groups": [{"name": "fleet", "rules": ours}]}))
    whole = {"rule_files": [only.name], "evaluation_interval": "1m", "tests": [test]}
    file.write_text(yaml.safe_dump(whole))

    status, said = said_by(program("promtool"), "test", "rules", file)
    assert status == 0, said
