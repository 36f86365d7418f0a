"""Remote-write, the whole road: push.py, a simulated cloud, a recording receiver."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ecoflow_push.memory.spool import Spool
from ecoflow_push.metrics.record import Record
from ecoflow_push.run.writer import MOST_FAILING_RUNS
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import SimulatedDevice
from ecoflow_push.simulator.server import Answer, RecordingServer
from tests.conftest import DELTA, OFFLINE, STREAM
from tests.receiver import Receiver, Sample
from tests.support import PUSH, ROOT, push

LIST = "device/list"
QUOTA = "quota/all"
Labels = tuple[tuple[str, str], ...]


@pytest.fixture
def receiver():
    with Receiver() as running:
        yield running
        assert running.outrages == []


@pytest.fixture
def written(environ, receiver):
    """The settings of a job that writes to the receiver alone."""
    return {
        **{k: v for k, v in environ.items() if k != "PUSHGATEWAY_URL"},
        "REMOTE_WRITE_URL": receiver.write_url,
        "ESTABLISH_ATTEMPTS": "2",
    }


def spool_files(environ: dict[str, str], pattern: str = "spool-*/0*") -> list[Path]:
    return sorted(Path(environ["STATE_DIR"]).glob(f"*/{pattern}"))


def state(environ: dict[str, str]) -> dict[str, dict[str, int]]:
    (path,) = Path(environ["STATE_DIR"]).glob("*/state.json")
    return json.loads(path.read_text())  # type: ignore[no-any-return]  # as it is made


def of_devices(receiver: Receiver) -> list[list[Sample]]:
    """Return the samples of each request that is about a device."""
    return [
        request.samples
        for request in receiver.requests
        if request.samples[0].label("device")
    ]


def of_run(receiver: Receiver) -> list[dict[str, float]]:
    """Return the run's own series of each request that holds them, by last label."""
    own = ("__name__", "instance", "job")
    return [
        {
            " ".join([s.name, *(v for k, v in s.labels if k not in own)]): s.value
            for s in request.samples
        }
        for request in receiver.requests
        if request.samples[0].label("job").endswith("_push")
    ]


def test_one_snapshot_is_one_request_with_one_time(written, cloud, receiver):
    """Each device is one request: its labels, its values, one time in milliseconds."""
    cloud.devices[:] = [DELTA, STREAM]
    before = time.time() * 1000

    run = push({**written, "EXTRA_LABELS": "site=home,Zone=a"})

    assert run.status == 0, run.stderr
    # Collected within one millisecond they go out by name.
    by_device = {
        samples[0].label("device"): samples for samples in of_devices(receiver)
    }
    assert by_device.keys() == {DELTA.sn, STREAM.sn}
    for device, samples in by_device.items():
        assert {s.label("device") for s in samples} == {device}
        (at,) = {s.timestamp_ms for s in samples}
        assert before - 1 <= at <= time.time() * 1000
        for sample in samples:
            names = [name for name, _ in sample.labels]
            assert names == sorted(set(names))
            assert sample.label("job") == "ecoflow"
            assert (sample.label("site"), sample.label("Zone")) == ("home", "a")
    values = {s.labels: s.value for s in by_device[DELTA.sn] if "pd_soc" in s.name}
    assert values == {
        (
            ("Zone", "a"),
            ("__name__", "ecoflow_pd_soc"),
            ("device", DELTA.sn),
            ("device_name", "Garage"),
            ("job", "ecoflow"),
            ("product_name", "DELTA 2"),
            ("site", "home"),
        ): 87
    }


def test_the_runs_own_series_come_last(written, receiver):
    """The run's series are written last, with their instance, and tell of the spool."""
    assert push(written).status == 0

    (own,) = of_run(receiver)
    assert receiver.requests[-1].samples[0].label("job") == "ecoflow_push"
    assert receiver.requests[-1].samples[0].label("instance") == "test"
    assert own["ecoflow_push_success"] == 1
    assert own["ecoflow_push_spool_samples"] == 0
    assert "ecoflow_push_spool_oldest_timestamp_seconds" not in own
    assert own["ecoflow_push_dropped_samples_total refused"] == 0


def test_timestamps_of_a_device_grow(written, receiver):
    """Over several runs each series' times grow strictly, and nothing is refused."""
    for _ in range(3):
        assert push(written).status == 0

    assert len(receiver.requests) == 6
    for points in receiver.stored.values():
        times = [at for at, _ in points]
        assert times == sorted(set(times))
        assert len(times) == 3


# -- what ends ----------------------------------------------------------------------


def ended(samples: list[Sample]) -> set[str]:
    return {sample.name for sample in samples if sample.is_stale}


def test_a_key_that_is_gone_ends(written, cloud, receiver):
    """A series that was there last time and is not now gets one marker, then none."""
    assert push(written).status == 0
    fewer = {k: v for k, v in (DELTA.quotas or {}).items() if k != "pd.soc"}
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, fewer, "Garage", "DELTA 2")]

    assert push(written).status == 0
    assert push(written).status == 0

    first, second, third = of_devices(receiver)
    assert [ended(samples) for samples in (first, second, third)] == [
        set(),
        {"ecoflow_pd_soc"},
        set(),
    ]
    (marker,) = (s for s in second if s.is_stale)
    (before,) = (s for s in first if s.name == "ecoflow_pd_soc")
    assert marker.labels == before.labels
    assert marker.timestamp_ms == second[0].timestamp_ms > before.timestamp_ms


def test_an_offline_device_is_online_0_and_nothing_else(written, cloud, receiver):
    """Of an offline device only `ecoflow_online` 0 is left, once with markers."""
    assert push(written).status == 0
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, DELTA.quotas, "Garage", "DELTA 2", 0)]

    assert push(written).status == 0
    assert push(written).status == 0

    first, second, third = of_devices(receiver)
    assert {(s.name, s.value) for s in second if not s.is_stale} == {
        ("ecoflow_online", 0)
    }
    assert ended(second) == {s.name for s in first} - {"ecoflow_online"}
    assert [(s.name, s.value) for s in third] == [("ecoflow_online", 0)]


def test_an_unreadable_device_ends_after_stale_after(written, cloud, receiver):
    """A device that failed says nothing; past STALE_AFTER all its series end, once."""
    assert push(written).status == 0
    cloud.fail(QUOTA, faults.code("1", "whatever"))

    assert push(written).status == 69
    assert len(of_devices(receiver)) == 1
    assert push({**written, "STALE_AFTER": "0"}).status == 69
    assert push({**written, "STALE_AFTER": "0"}).status == 69

    first, second = of_devices(receiver)
    assert ended(second) == {s.name for s in first} == {s.name for s in second}
    assert [own["ecoflow_push_exit_status"] for own in of_run(receiver)] == [
        0,
        *[69] * 3,
    ]


def test_a_device_that_left_ends(written, cloud, receiver):
    """All series of a device that left the account end after the second list."""
    cloud.devices[:] = [DELTA, STREAM]
    assert push(written).status == 0
    cloud.devices[:] = [DELTA]

    for _ in range(3):
        assert push(written).status == 0

    of_stream = [s for s in of_devices(receiver) if s[0].label("device") == STREAM.sn]
    assert len(of_stream) == 2
    assert ended(of_stream[1]) == {s.name for s in of_stream[0]}
    assert [f.name for f in spool_files(written, "spool-*/last/*")] == [
        "@run",
        DELTA.sn,
    ]


def test_a_renamed_device_ends_under_its_old_name(written, receiver):
    """Series whose labels changed end under the old ones."""
    assert push(written).status == 0

    assert push({**written, "ECOFLOW_DEVICE_NAME": f"{DELTA.sn}=Shed"}).status == 0

    _, second = of_devices(receiver)
    assert {s.label("device_name") for s in second if s.is_stale} == {"Garage"}
    assert {s.label("device_name") for s in second if not s.is_stale} == {"Shed"}


def test_a_lost_state_leaves_no_marker(written, cloud, receiver):
    """Without its memory a run marks nothing, and does no harm."""
    assert push(written).status == 0
    shutil.rmtree(written["STATE_DIR"])
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, {"pd.wattsOut": 1})]

    assert push(written).status == 0

    assert not any(ended(samples) for samples in of_devices(receiver))


def test_markers_wait_with_their_record(written, cloud, receiver):
    """Markers of a snapshot that waited arrive with it, or with the one after it."""
    assert push(written).status == 0
    cloud.devices[:] = [
        SimulatedDevice(DELTA.sn, {"pd.wattsOut": 1}, "Garage", "DELTA 2")
    ]
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    receiver.heal()
    receiver.script = [Answer(400, b"too old")]

    assert push(written).status == 1

    third = of_devices(receiver)[-1]
    assert "ecoflow_pd_soc" in ended(third)


# -- what an answer means -----------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status", "waits", "tries"),
    [
        (Answer(500, b"x"), 75, True, 2),
        (Answer(502), 75, True, 2),
        (Answer(503), 75, True, 2),
        (Answer(504), 75, True, 2),
        (Answer(507), 75, True, 2),
        (Answer(429), 75, True, 2),
        (Answer(429, b"", (("Retry-After", "600"),)), 75, True, 1),
        (Answer(999), 75, True, 1),
        (Answer(401), 77, True, 1),
        (Answer(403), 77, True, 1),
        (Answer(302, b"", (("Location", "http://127.0.0.1:1/"),)), 76, True, 1),
        (Answer(307, b"", (("Location", "http://127.0.0.1:1/"),)), 76, True, 1),
        (Answer(404), 76, True, 1),
        (Answer(405), 76, True, 1),
        (Answer(415), 76, True, 1),
        (Answer(400, b"out of order"), 76, False, 1),
        (Answer(408), 76, False, 1),
        (Answer(409), 76, False, 1),
        (Answer(413), 76, False, 1),
        (Answer(422), 76, False, 1),
        (Answer(425), 76, False, 1),
        (faults.page(), 75, True, 1),
        (faults.reset(), 75, True, 2),
        (faults.raw(b"\x00\x01\x02\r\n\r\n"), 75, True, 2),
    ],
    ids=lambda value: str(getattr(value, "status", "")) if value else "",
)
def test_what_an_answer_means(answer, status, waits, tries, written, receiver):
    """Each answer has its status, its number of tries, and waits or is dropped."""
    receiver.script = [answer] * 10
    if callable(answer):
        receiver.script.clear()
        receiver.fail("", answer)

    run = push(written)

    assert run.status == status, run.stderr
    about_devices = [r for r in receiver.received if r.method == "POST"]
    assert len(about_devices) - (not waits) == tries
    assert len(spool_files(written)) == waits
    assert len(run.stderr.splitlines()) == (1 if waits else 2), run.stderr
    dropped = sum(state(written)["dropped"].values())
    assert (dropped > 0) == (not waits)
    # What was refused never comes again, what waits does.
    receiver.script.clear()
    receiver.heal()
    forget_the_pause(written)
    assert push(written).status == 0
    of_soc = [p for k, p in receiver.stored.items() if "pd_soc" in dict(k)["__name__"]]
    assert [len(points) for points in of_soc] == [2 if waits else 1]


def forget_the_pause(environ: dict[str, str]) -> None:
    (path,) = Path(environ["STATE_DIR"]).glob("*/state.json")
    found = json.loads(path.read_text())
    found["endpoints"][0]["pause_until"] = None
    path.write_text(json.dumps(found))


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_a_partial_write_counts_what_was_lost(status, written, receiver):
    """Where a part was written the rest is counted, and nothing is sent again."""
    count = ("X-Prometheus-Remote-Write-Samples-Written", "3")
    receiver.script = [Answer(status, b"bad", (count,))]

    assert push({**written, "REMOTE_WRITE_VERSION": "2"}).status == 76

    (samples,) = of_devices(receiver)
    assert state(written)["dropped"] == {"partial": len(samples) - 3}


def test_a_count_is_no_word_in_version_1(written, receiver):
    """To a 1.0 message a count of written samples means nothing: it is tried again."""
    count = ("X-Prometheus-Remote-Write-Samples-Written", "3")
    receiver.script = [Answer(503, b"bad", (count,))]

    assert push(written).status == 0
    assert len(of_devices(receiver)) == 2


@pytest.mark.parametrize("status", [200, 400])
def test_only_the_status_of_an_odd_answer_counts(status, written, receiver):
    """A compressed body, or one cut short, keeps nobody from hearing the status."""
    packed = Answer(status, b"\x1f\x8b\x00", (("Content-Encoding", "gzip"),))
    receiver.script = [
        packed,
        faults.raw(b"HTTP/1.1 204 x\r\nContent-Length: 9\r\n\r\n"),
    ]

    assert push(written).status == (0 if status == 200 else 76)
    assert spool_files(written) == []


def test_a_retry_waits_as_long_as_it_is_told(written, receiver):
    """A Retry-After that fits is kept; the retry says that it is one."""
    receiver.script = [Answer(429, b"", (("Retry-After", "1"),))]

    run = push({**written, "RETRY_TIMEOUT": "5"})

    assert run.status == 0, run.stderr
    first, second, _ = receiver.requests
    assert second.at - first.at >= 1
    assert first.message == second.message
    assert "retry-attempt" not in first.headers
    assert second.headers["retry-attempt"] == "1"


def test_a_long_retry_after_is_kept_by_the_next_runs(written, receiver):
    """A Retry-After that is too long for the run keeps the next run quiet, too."""
    receiver.script = [Answer(503, b"", (("Retry-After", "600"),))]
    assert push(written).status == 75
    asked = len(receiver.received)

    run = push(written)

    assert run.status == 75
    assert "asked to wait" in run.stderr
    assert len(receiver.received) == asked
    assert len(spool_files(written)) == 2


@pytest.mark.parametrize("mode", ["write-ahead", "on-failure"])
def test_an_outage_is_made_up_for(mode, written, cloud, receiver):
    """What an outage held back arrives oldest first, before the fresh snapshot."""
    written["SPOOL_MODE"] = mode
    cloud.devices[:] = [DELTA, STREAM]
    receiver.fail("", faults.status(503))
    for _ in range(3):
        run = push(written)
        assert run.status == 75, run.stderr
        assert "wait in the spool" in run.stderr
    assert len(spool_files(written)) == 6
    receiver.heal()
    receiver.requests.clear()

    run = push(written)

    assert run.status == 0, run.stderr
    assert "remote-write: ok (6 snapshots from the spool)" in run.stderr
    times = [samples[0].timestamp_ms for samples in of_devices(receiver)]
    assert len(times) == 8
    assert times == sorted(times)
    assert all(
        len(points) == 4
        for key, points in receiver.stored.items()
        if "device" in dict(key)
    )
    assert spool_files(written) == []
    (own,) = of_run(receiver)
    assert own["ecoflow_push_spool_samples"] == 0


@pytest.mark.parametrize(("mode", "files"), [("write-ahead", 1), ("on-failure", 0)])
def test_when_a_snapshot_is_stored(mode, files, written, receiver):
    """A snapshot is stored before it is sent, or only when that failed."""
    seen = []

    def look(handler):
        seen.append(len(spool_files(written)))
        handler.send(receiver.answer(handler.current))

    receiver.script = [look]

    assert push({**written, "SPOOL_MODE": mode}).status == 0
    assert seen == [files]
    assert spool_files(written) == []


def test_a_lost_answer_stores_nothing_twice(written, receiver):
    """A snapshot whose answer got lost is sent again, and stored once."""
    receiver.script = [receiver.store_then_lose(), receiver.store_then_lose()]
    assert push(written).status == 75

    assert push(written).status == 0

    of_soc = [p for k, p in receiver.stored.items() if "pd_soc" in dict(k)["__name__"]]
    assert [len(points) for points in of_soc] == [2]


def test_a_server_that_is_not_there(written, receiver):
    """With the receiver gone, the snapshot waits and one line says why."""
    receiver.shutdown()
    receiver.server_close()

    run = push(written)

    assert run.status == 75
    assert "connection refused; 7 samples wait in the spool" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_a_server_that_hangs_cannot_outlast_the_run(written, receiver):
    """A receiver that never answers costs the run no more than its deadline."""
    receiver.fail("", faults.hang())

    run = push({**written, "RUN_DEADLINE": "2"})

    assert run.status == 75, run.stderr
    assert run.took < 3
    assert len(spool_files(written)) == 1


def test_a_record_that_fails_alone_is_set_aside(written, receiver):
    """After 10 runs of 5xx a newer record is tried; if taken, the old one goes."""
    written["ESTABLISH_ATTEMPTS"] = "1"
    receiver.fail("", faults.status(500))
    for _ in range(MOST_FAILING_RUNS - 1):
        assert push(written).status == 75
    assert len(spool_files(written)) == MOST_FAILING_RUNS - 1
    receiver.heal()
    bad = Answer(500, b"label name is not unique")
    receiver.script = [bad, None, bad]

    run = push(written)

    assert run.status == 1, run.stderr
    assert "the server fails on them alone" in run.stderr
    assert spool_files(written) == []
    assert len(spool_files(written, "spool-*/bad/*")) == 1
    assert state(written)["dropped"] == {"failing": 7}


def test_a_server_that_fails_on_all_loses_nothing(written, receiver):
    """As long as nothing newer is taken, nothing is set aside."""
    written["ESTABLISH_ATTEMPTS"] = "1"
    receiver.fail("", faults.status(500))

    for _ in range(MOST_FAILING_RUNS + 2):
        assert push(written).status == 75

    assert len(spool_files(written)) == MOST_FAILING_RUNS + 2
    assert state(written)["dropped"] == {}


# -- the versions -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("receiver_of", "setting", "sent"),
    [
        ({}, "1", "11"),
        ({}, "2", "22"),
        ({}, "auto", "22"),
        ({"speaks": "1"}, "auto", "211"),
        ({"old": True}, "auto", "211"),
        ({"refuses": True}, "auto", "211"),
    ],
)
def test_the_version_is_found_and_remembered(receiver_of, setting, sent, written):
    """`auto` falls back to 1.0 where 2.0 is not understood, and remembers it."""
    with Receiver(**receiver_of) as receiver:
        written |= {
            "REMOTE_WRITE_URL": receiver.write_url,
            "REMOTE_WRITE_VERSION": setting,
        }

        assert push(written).status == 0
        assert "".join(r.version for r in receiver.requests) == sent
        receiver.requests.clear()
        assert push(written).status == 0

        assert "".join(r.version for r in receiver.requests) == sent[-2:]
        assert receiver.outrages == []


@pytest.mark.parametrize("receiver_of", [{"speaks": "1"}, {"old": True}])
def test_version_2_alone_says_when_it_is_not_understood(receiver_of, written):
    """With 2 fixed, a receiver of 1.0 gets nothing, and nothing is lost: 76."""
    with Receiver(**receiver_of) as receiver:
        written |= {"REMOTE_WRITE_URL": receiver.write_url, "REMOTE_WRITE_VERSION": "2"}

        run = push(written)

        assert run.status == 76
        assert "set REMOTE_WRITE_VERSION to 1 or auto" in run.stderr
        assert len(receiver.requests) == 1
        assert len(spool_files(written)) == 1
        assert push({**written, "REMOTE_WRITE_VERSION": "auto"}).status == 0
        assert spool_files(written) == []


def test_content_that_both_versions_refuse_is_dropped(written, receiver):
    """A 400 to either message is about the content, and not about the version."""
    written["REMOTE_WRITE_VERSION"] = "auto"
    receiver.script = [Answer(400, b"bad"), Answer(400, b"bad")]

    assert push(written).status == 76
    assert push(written).status == 0

    assert "".join(r.version for r in receiver.requests) == "21222"


# -- headers, access ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"REMOTE_WRITE_USERNAME": "me", "REMOTE_WRITE_PASSWORD": "pa55word"},
            "Basic bWU6cGE1NXdvcmQ=",
        ),
        ({"REMOTE_WRITE_BEARER_TOKEN": "t0ken-123"}, "Bearer t0ken-123"),
        (
            {"REMOTE_WRITE_HEADERS": "Authorization: Bearer t0ken-456"},
            "Bearer t0ken-456",
        ),
    ],
)
def test_credentials_reach_the_receiver_alone(given, expected, written, receiver):
    """The receiver sees the credentials; log, spool and series do not."""
    receiver.script = [Answer(500, expected.encode())] * 2
    run = push({**written, **given, "LOG_LEVEL": "DEBUG"})

    assert run.status == 75
    assert receiver.requests[0].headers["authorization"] == expected
    secret = expected.rpartition(" ")[2]
    assert secret not in run.stderr
    stored = b"".join(
        p.read_bytes() for p in Path(written["STATE_DIR"]).rglob("*") if p.is_file()
    )
    assert secret.encode() not in stored
    assert b"pa55word" not in stored


def test_credentials_in_the_address_are_used_and_not_shown(written, receiver):
    """`user:password@` in REMOTE_WRITE_URL is used as basic authentication."""
    url = receiver.write_url.replace("://", "://me:pa55word@")

    run = push({**written, "REMOTE_WRITE_URL": url})

    assert run.status == 0, run.stderr
    assert receiver.requests[0].headers["authorization"] == "Basic bWU6cGE1NXdvcmQ="


def test_further_headers_and_the_query_go_along(written, receiver):
    """Headers of the settings go along, in lines or with semicolons, and the query."""
    headers = "X-Scope-OrgID: home\nX-Other: a b; X-Third: 3"

    run = push(
        {
            **written,
            "REMOTE_WRITE_URL": f"{receiver.write_url}?extra_label=a%3Db",
            "REMOTE_WRITE_HEADERS": headers,
        }
    )

    assert run.status == 0, run.stderr
    sent = receiver.requests[0].headers
    assert (sent["x-scope-orgid"], sent["x-other"], sent["x-third"]) == (
        "home",
        "a b",
        "3",
    )
    assert receiver.received[-1].path == "/api/v1/write?extra_label=a%3Db"


@pytest.mark.parametrize(
    "header",
    [
        "Content-Type: text/plain",
        "content-encoding: gzip",
        "X-Prometheus-Remote-Write-Version: 9",
        "USER-AGENT: me",
        "Host: other",
        "Content-Length: 1",
    ],
)
def test_reserved_headers_are_protected(header, written, receiver):
    """A header that the protocol or the program sets is a fault of the settings."""
    run = push({**written, "REMOTE_WRITE_HEADERS": header})

    assert run.status == 78
    name = header.partition(":")[0]
    assert f"the program itself sets the header {name}" in run.stderr
    assert receiver.received == []


@pytest.mark.parametrize(
    "faulty",
    [
        {"REMOTE_WRITE_URL": "receiver:9090"},
        {"REMOTE_WRITE_URL": "http://receiver/write#x"},
        {"REMOTE_WRITE_VERSION": "3"},
        {"REMOTE_WRITE_HEADERS": "no colon"},
        {"REMOTE_WRITE_HEADERS": "Näme: x"},
        {"REMOTE_WRITE_HEADERS": "Name: ü"},
        {"REMOTE_WRITE_HEADERS": "Authorization: x", "REMOTE_WRITE_BEARER_TOKEN": "y"},
        {"REMOTE_WRITE_USERNAME": "me"},
        {"SPOOL_MODE": "never"},
        {"SPOOL_MAX_AGE": "-1"},
        {"SPOOL_MAX_BYTES": "20 MiB"},
    ],
    ids=str,
)
def test_faulty_settings_are_named(faulty, written, receiver):
    """A faulty setting is named before anything is contacted."""
    run = push({**written, **faulty})

    assert run.status == 78
    assert any(name in run.stderr for name in faulty)
    assert len(run.stderr.splitlines()) == 1
    assert receiver.received == []


# -- together with a Pushgateway ----------------------------------------------------


def test_both_sinks_get_the_same_series(environ, receiver, pushgateway, cloud):
    """Pushgateway and remote-write hold the same series with the same values."""
    cloud.devices[:] = [DELTA, STREAM, OFFLINE]

    run = push({**environ, "REMOTE_WRITE_URL": receiver.write_url})

    assert run.status == 0, run.stderr
    assert "pushgateway: ok; remote-write: ok" in run.stderr
    pushed = {
        (name, tuple((k, v) for k, v in labels if v)): value
        for (name, labels), value in pushgateway.series().items()
        if "_push_" not in name and dict(labels)["device"] != OFFLINE.sn
    }
    sent = {
        (s.name, tuple(pair for pair in s.labels if pair[0] != "__name__")): s.value
        for samples in of_devices(receiver)
        for s in samples
        if s.label("device") != OFFLINE.sn
    }
    assert sent == pushed


@pytest.mark.parametrize(
    ("gateway_answer", "receiver_answer", "status"),
    [
        (None, None, 0),
        (None, Answer(500), 75),
        (None, Answer(400), 1),
        (None, Answer(401), 1),
        (None, Answer(302), 1),
        (faults.status(500), None, 1),
        (faults.status(400), None, 1),
        (faults.status(401), None, 1),
        (faults.status(500), Answer(500), 75),
        (faults.status(400), Answer(500), 75),
        (faults.status(401), Answer(401), 77),
        (faults.status(400), Answer(400), 76),
        (faults.status(500), Answer(400), 74),
    ],
)
def test_two_sinks_and_one_status(
    gateway_answer, receiver_answer, status, environ, receiver
):
    """Each sink has its own outcome, and the status is that of both together."""
    with RecordingServer() as gateway:
        if gateway_answer:
            gateway.fail("", gateway_answer)
        if receiver_answer:
            receiver.script = [receiver_answer] * 20
        environ |= {
            "PUSHGATEWAY_URL": gateway.url,
            "REMOTE_WRITE_URL": receiver.write_url,
            "ESTABLISH_ATTEMPTS": "1",
        }

        run = push(environ)

        assert run.status == status, run.stderr


# -- storage ------------------------------------------------------------------------


def test_what_is_too_old_is_dropped(written, receiver):
    """What waited longer than SPOOL_MAX_AGE is dropped and counted, not sent."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    receiver.heal()
    receiver.requests.clear()
    time.sleep(0.3)

    run = push({**written, "SPOOL_MAX_AGE": "0.25"})

    assert run.status == 1, run.stderr
    assert "7 samples that waited are lost" in run.stderr
    assert "7 samples dropped: they waited longer than SPOOL_MAX_AGE" in run.stderr
    assert len(of_devices(receiver)) == 1
    (own,) = of_run(receiver)
    assert own["ecoflow_push_dropped_samples_total age"] == 7


def test_what_does_not_fit_is_dropped_oldest_first(written, receiver):
    """Beyond SPOOL_MAX_BYTES the oldest are dropped, after all was tried."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    (first,) = spool_files(written)
    size = first.stat().st_size

    run = push({**written, "SPOOL_MAX_BYTES": str(size + 20)})

    assert run.status == 75
    assert "7 samples dropped: the spool is larger than SPOOL_MAX_BYTES" in run.stderr
    (second,) = spool_files(written)
    assert second.name > first.name
    assert state(written)["dropped"] == {"size": 7}


def test_a_snapshot_that_does_not_fit_is_lost(written, receiver):
    """If not even the fresh snapshot may wait, the status says so: 74."""
    receiver.fail("", faults.status(503))

    run = push({**written, "SPOOL_MAX_BYTES": "0"})

    assert run.status == 74
    assert "not stored either: SPOOL_MAX_BYTES is too small" in run.stderr
    assert spool_files(written) == []
    assert state(written)["dropped"] == {"size": 7}


def test_the_demo_stores_nothing(receiver):
    """A demo writes to the receiver; what that refuses is lost, and said to be."""
    environ = {"REMOTE_WRITE_URL": receiver.write_url}
    assert push(environ, "--demo").status == 0
    jobs = {s.label("job") for r in receiver.requests for s in r.samples}
    assert jobs == {"ecoflow_demo", "ecoflow_demo_push"}
    receiver.fail("", faults.status(503))

    assert push({**environ, "RETRY_TIMEOUT": "0.05"}, "--demo").status == 74


def test_damage_costs_itself_alone(written, receiver):
    """A damaged file is set aside, reported and counted; the others arrive."""
    receiver.fail("", faults.status(503))
    for _ in range(3):
        assert push(written).status == 75
    second = spool_files(written)[1]
    content = bytearray(second.read_bytes())
    content[-1] ^= 1
    second.write_bytes(content)
    receiver.heal()

    run = push(written)

    assert run.status == 1, run.stderr
    assert "7 samples dropped: their file in the spool was damaged" in run.stderr
    assert [p.name for p in spool_files(written, "spool-*/bad/*")] == [second.name]
    assert spool_files(written) == []
    of_soc = [p for k, p in receiver.stored.items() if "pd_soc" in dict(k)["__name__"]]
    assert [len(points) for points in of_soc] == [3]


def test_another_address_gets_its_own_spool(written, receiver):
    """What waits for one address is not sent to another one, and is not lost."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    with Receiver() as other:
        run = push({**written, "REMOTE_WRITE_URL": other.write_url})

        assert run.status == 0, run.stderr
        assert "7 samples wait for another address" in run.stderr
        assert len(of_devices(other)) == 1
        old = push(
            {**written, "REMOTE_WRITE_URL": other.write_url, "SPOOL_MAX_AGE": "0"}
        )
        assert "7 samples dropped: they waited for another endpoint" in old.stderr
        # Said once a day, and no fault of this endpoint.
        assert old.status == 0
        assert "wait for another address" not in old.stderr
    assert spool_files(written) == []


@pytest.mark.parametrize("is_up", [True, False])
def test_without_a_state_folder(is_up, written, receiver, tmp_path):
    """Where nothing can be stored, what can be delivered is; else it is lost: 74."""
    (tmp_path / "file").write_text("")
    written["STATE_DIR"] = str(tmp_path / "file" / "state")
    if not is_up:
        receiver.fail("", faults.status(503))

    run = push(written)

    assert run.status == (0 if is_up else 74), run.stderr
    assert "cannot use the state folder" in run.stderr, run.stderr
    assert ("7 samples dropped: they could be neither" in run.stderr) == (not is_up)
    assert len(of_devices(receiver)) == is_up
    assert "Traceback" not in run.stderr


def test_a_full_disk_still_delivers(written, receiver):
    """On a full disk the snapshot is sent unstored; what waited is sent before it."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    receiver.heal()

    done = subprocess.run(
        [sys.executable, PUSH],
        env={"PATH": os.defpath, **written},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )

    assert done.returncode == 0, done.stderr
    assert "cannot write the spool" in done.stderr
    times = [samples[0].timestamp_ms for samples in of_devices(receiver)]
    assert len(times) == 2
    assert times == sorted(times)
    assert spool_files(written) == []


def test_only_the_owner_can_read_what_waits(written, receiver):
    """Folders are 0700, files 0600, and a name tells the serial but no secret."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75

    for path in Path(written["STATE_DIR"]).rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


# -- the clock ----------------------------------------------------------------------


@pytest.mark.parametrize("offset", [400, -400])
def test_a_wrong_clock_writes_nothing(offset, environ, cloud, receiver, pushgateway):
    """More than 5 minutes from EcoFlow's time: nothing sent, nothing stored, 75."""
    environ["REMOTE_WRITE_URL"] = receiver.write_url
    cloud.date_offset = -offset

    run = push(environ)

    assert run.status == 75, run.stderr
    way = "ahead of" if offset > 0 else "behind"
    assert re.search(rf"the clock is (399|400|401) s {way}", run.stderr), run.stderr
    assert receiver.received == []
    assert spool_files(environ) == []
    assert state(environ)["dropped"] == {"clock": 7}
    # The Pushgateway goes on.
    assert pushgateway.device(DELTA.sn)
    assert pushgateway.run()["ecoflow_push_dropped_samples_total clock"] == 7


@pytest.mark.parametrize("offset", [0, 400])
def test_the_receiver_tells_the_time_if_nobody_did(offset, receiver, tmp_path):
    """Where no answer told the time, the receiver is asked before the first write."""
    environ = {
        "ECOFLOW_ACCESS_KEY": "AK",
        "ECOFLOW_SECRET_KEY": "SK",
        "REMOTE_WRITE_URL": receiver.write_url,
        "STATE_DIR": str(tmp_path),
        "DRILL_START": str(time.time() - 60),
    }
    receiver.date_offset = -offset

    done = subprocess.run(
        [sys.executable, "-m", "tests.one_run", "1"],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == (75 if offset else 0), done.stderr
    assert receiver.received[0].method == "GET"
    assert len(of_devices(receiver)) == (0 if offset else 3)
    assert spool_files(environ) == []


@pytest.mark.parametrize("offset", [400, -400])
def test_a_gateway_s_wrong_clock_is_its_own(offset, environ, receiver):
    """EcoFlow's time counts before that of a gateway, whose clock may be wrong."""
    with RecordingServer() as gateway:
        gateway.date_offset = offset
        environ |= {
            "PUSHGATEWAY_URL": gateway.url,
            "REMOTE_WRITE_URL": receiver.write_url,
        }

        assert push(environ).status == 0


def test_a_wrong_clock_leaves_what_waits_alone(written, cloud, receiver):
    """While the clock is wrong nothing in the spool grows old or is sent."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    before = spool_files(written)
    receiver.heal()
    cloud.date_offset = -400

    assert push({**written, "SPOOL_MAX_AGE": "0"}).status == 75

    assert spool_files(written) == before


def test_a_clock_that_went_back_writes_nothing(written, cloud, receiver):
    """A snapshot not after the last one, which nobody confirms, is not written: 75."""
    cloud.date_offset = receiver.date_offset = None
    assert push(written).status == 0
    (last,) = spool_files(written, f"spool-*/last/{DELTA.sn}")
    make_an_hour_younger(last)

    run = push(written)

    assert run.status == 75
    assert "the clock went back: the last snapshot is 3" in run.stderr
    assert len(of_devices(receiver)) == 1
    assert spool_files(written) == []
    assert state(written)["dropped"] == {"clock": 7}


def test_a_clock_that_was_put_right_goes_on(written, receiver):
    """Once a server confirms the clock, what it once stamped wrong stands in no way."""
    assert push(written).status == 0
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    (last,) = spool_files(written, f"spool-*/last/{DELTA.sn}")
    make_an_hour_younger(last)
    (waiting,) = spool_files(written)
    at, rest = waiting.name.split(".", 1)
    future = waiting.with_name(f"{int(at) + 3_600_000:015d}.{rest}")
    waiting.rename(future)
    receiver.heal()

    run = push(written)

    assert run.status == 0, run.stderr
    assert len(of_devices(receiver)) == 2
    assert state(written)["dropped"] == {"clock": 7}
    assert spool_files(written) == []


def test_a_clock_that_nobody_confirms_ages_nothing(written, cloud, receiver):
    """As long as no server tells the time, nothing that waits is too old."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75
    before = spool_files(written)
    receiver.date_offset = None
    cloud.fail(LIST, faults.reset())

    assert push({**written, "SPOOL_MAX_AGE": "0", "STALE_AFTER": "0"}).status == 69

    assert spool_files(written) == before


@pytest.mark.parametrize("seconds", [-7200, 7200])
def test_a_clock_that_is_set_during_a_run_writes_nothing(seconds, receiver, tmp_path):
    """A snapshot from outside of the run's own time is neither sent nor stored."""
    environ = {
        "PATH": os.defpath,
        "PYTHONPATH": str(ROOT),
        "ECOFLOW_ACCESS_KEY": "AK",
        "ECOFLOW_SECRET_KEY": "SK",
        "REMOTE_WRITE_URL": receiver.write_url,
        "STATE_DIR": str(tmp_path),
        "DRILL_START": str(time.time() - 60),
        "DRILL_STEP": str(seconds),
    }

    done = subprocess.run(
        [sys.executable, "-m", "tests.one_run", "1"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 75, done.stderr
    assert "the clock was set while the run was at work" in done.stderr
    assert of_devices(receiver) == []
    assert spool_files(environ) == []


def make_an_hour_younger(path: Path) -> None:
    spool = Spool(str(path.parent.parent))
    spool.open()
    body = spool.last(path.name)
    assert body
    record = Record.from_bytes(body)
    later = record._replace(time_ms=record.time_ms + 3_600_000)
    spool.remember(path.name, later.to_bytes())


# -- what an attack found -----------------------------------------------------------


def test_a_receiver_of_2_alone_refuses_one_record(written, receiver):
    """Where 1.0 is not understood at all, a 400 to 2.0 is about the content."""
    written["REMOTE_WRITE_VERSION"] = "auto"
    receiver.speaks = "2"
    receiver.script = [Answer(400, b"too old")]

    assert push(written).status == 76
    assert push(written).status == 0

    assert "".join(r.version for r in receiver.requests) == "21222"
    assert state(written)["dropped"] == {"refused": 7}


def test_a_state_from_elsewhere_is_no_crash(written, receiver):
    """A version that nobody knows is as good as none."""
    written["REMOTE_WRITE_VERSION"] = "auto"
    assert push(written).status == 0
    (path,) = Path(written["STATE_DIR"]).glob("*/state.json")
    found = json.loads(path.read_text())
    found["endpoints"][0]["version"] = "3"
    path.write_text(json.dumps(found))

    assert push(written).status == 0


def test_10_runs_means_in_a_row(written, receiver):
    """Any other trouble between them starts the count of 5xx anew."""
    written["ESTABLISH_ATTEMPTS"] = "1"
    for fault in [faults.status(500)] * 9 + [faults.reset()] + [faults.status(500)] * 2:
        receiver.heal()
        receiver.fail("", fault)
        assert push(written).status == 75
    receiver.heal()
    receiver.script = [Answer(500)]

    assert push(written).status == 75

    assert state(written)["dropped"] == {}


def test_another_device_is_asked_before_one_is_set_aside(written, cloud, receiver):
    """A server that had just recovered takes both: nothing is set aside."""
    written["ESTABLISH_ATTEMPTS"] = "1"
    cloud.devices[:] = [DELTA, STREAM]
    receiver.fail("", faults.status(503))
    for _ in range(MOST_FAILING_RUNS - 1):
        assert push(written).status == 75
    receiver.heal()
    receiver.script = [Answer(503)]

    assert push(written).status == 0

    assert state(written)["dropped"] == {}
    of_soc = [p for k, p in receiver.stored.items() if "pd_soc" in dict(k)["__name__"]]
    assert [len(points) for points in of_soc] == [MOST_FAILING_RUNS]


def test_a_device_that_left_under_a_wrong_clock_still_ends(written, cloud, receiver):
    """Markers that could not be written are owed until they can be."""
    cloud.devices[:] = [DELTA, STREAM]
    assert push(written).status == 0
    cloud.devices[:] = [DELTA]
    assert push(written).status == 0
    cloud.date_offset = 4000.0
    assert push(written).status == 75
    cloud.date_offset = 0.0

    assert push(written).status == 0

    of_stream = [s for s in of_devices(receiver) if s[0].label("device") == STREAM.sn]
    assert ended(of_stream[-1]) == {s.name for s in of_stream[0]}


def test_a_damaged_record_hides_no_series(written, cloud, receiver):
    """A key first seen in an outage ends, though the newest record is damaged."""
    assert push(written).status == 0
    receiver.fail("", faults.status(503))
    more = {**(DELTA.quotas or {}), "pd.newKey": 1}
    cloud.devices[:] = [SimulatedDevice(DELTA.sn, more, "Garage", "DELTA 2")]
    for _ in range(2):
        assert push(written).status == 75
    newest = spool_files(written)[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    receiver.heal()
    cloud.devices[:] = [DELTA]

    assert push(written).status == 1

    assert "ecoflow_pd_new_key" in ended(of_devices(receiver)[-1])


@pytest.mark.parametrize("secret", ["query", "user"])
def test_secrets_in_the_address_stay_secret(secret, written, receiver):
    """A token in the query, or in the user's place, never reaches the log."""
    url = receiver.write_url
    url = f"{url}?token=s3cr3t-t0ken" if secret == "query" else url
    url = url.replace("://", "://s3cr3t-t0ken@") if secret == "user" else url
    receiver.script = [Answer(500, b"POST /api/v1/write?token=s3cr3t-t0ken")] * 2

    run = push({**written, "REMOTE_WRITE_URL": url, "LOG_LEVEL": "DEBUG"})

    assert run.status == 75
    assert "HTTP 500" in run.stderr
    assert "s3cr3t" not in run.stderr


def test_junk_from_the_future_blocks_nothing(written, receiver):
    """A junk file with a name from the future is dropped; the rest goes on."""
    assert push(written).status == 0
    folder = spool_files(written, "spool-*")[0]
    (folder / f"999999999999999.1.{DELTA.sn}").write_text("junk")

    assert push(written).status == 0
    assert push(written).status == 0

    assert spool_files(written, "spool-*/9*") == []
    assert state(written)["dropped"] == {"clock": 1}


def test_the_bound_holds_for_all_endpoints_together(written, receiver):
    """What waits for other addresses counts, goes first, and leaves no folder."""
    receiver.fail("", faults.status(503))
    for number in range(4):
        url = f"{receiver.write_url}?n={number}"
        assert push({**written, "REMOTE_WRITE_URL": url}).status == 75
    size = max(path.stat().st_size for path in spool_files(written))

    run = push({**written, "SPOOL_MAX_BYTES": str(5 * size // 2)})

    assert run.status == 75, run.stderr
    assert sum(path.stat().st_size for path in spool_files(written)) <= 5 * size // 2
    assert state(written)["dropped"] == {"elsewhere": 21}
    receiver.heal()
    assert push({**written, "SPOOL_MAX_AGE": "0"}).status == 1
    assert len(spool_files(written, "spool-*")) == 1


def test_symbolic_links_are_not_followed(written, receiver, tmp_path):
    """A link in the state folder is left alone, and so is what it points to."""
    assert push(written).status == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious.tmp").write_text("x")
    (last,) = spool_files(written, "spool-*/last")
    shutil.rmtree(last)
    last.symlink_to(elsewhere)
    (last.parent.parent / "spool-other").symlink_to(elsewhere)

    run = push(written)

    assert run.status == 0
    assert "it is a symbolic link" in run.stderr
    assert [path.name for path in elsewhere.iterdir()] == ["precious.tmp"]


def test_a_dry_run_says_nothing_of_the_spool(written, receiver):
    """What waits is not looked at by --dry-run, and so not spoken of."""
    receiver.fail("", faults.status(503))
    assert push(written).status == 75

    run = push(written, "--dry-run")

    assert run.status == 0
    assert "push_spool_samples" not in run.stdout
    assert len(spool_files(written)) == 1
