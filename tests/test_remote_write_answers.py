"""Remote-write: what an answer means, the versions, access."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import Answer
from ecoflow_push.sinks.failing import MOST_FAILING_RUNS
from tests.conftest import DELTA, STREAM
from tests.receiver import Receiver
from tests.remote_write import of_devices, of_run, spool_files, state
from tests.support import LATE, push, push_anew

# -- what an answer means -----------------------------------------------------------


@pytest.mark.case("W5", "W8", "W11")
@pytest.mark.parametrize(
    ("answer", "status", "tries"),
    [
        (Answer(500, b"x"), 75, 2),
        (Answer(502), 75, 2),
        (Answer(503), 75, 2),
        (Answer(504), 75, 2),
        (Answer(507), 75, 2),
        (Answer(429), 75, 2),
        (Answer(429, b"", (("Retry-After", "600"),)), 75, 1),
        (Answer(999), 75, 1),
        (Answer(401), 77, 1),
        (Answer(403), 77, 1),
        (Answer(302, b"", (("Location", "http://127.0.0.1:1/"),)), 76, 1),
        (Answer(307, b"", (("Location", "http://127.0.0.1:1/"),)), 76, 1),
        (Answer(404), 76, 1),
        (Answer(405), 76, 1),
        (Answer(415), 76, 1),
        (Answer(407), 77, 1),
        (Answer(400, b"out of order"), 76, 1),
        (Answer(408), 75, 2),
        (Answer(409), 76, 1),
        # One with all seven series, with four, with two, with one.
        (Answer(413), 76, 4),
        (Answer(422), 76, 1),
        (Answer(425), 75, 2),
        (Answer(451), 76, 1),
        (Answer(400, faults.PAGE), 76, 1),
        (faults.page(), 76, 1),
        # The connection that carried the proof is dialled again, which is no try.
        (faults.reset(), 75, 3),
        (faults.raw(b"\x00\x01\x02\r\n\r\n"), 75, 2),
    ],
    ids=lambda value: str(getattr(value, "status", "")) if value else "",
)
def test_what_an_answer_means(answer, status, tries, written, receiver):
    """Each answer has its status and its number of tries, and what it met waits."""
    receiver.script = [answer] * 10
    if callable(answer):
        receiver.script.clear()
        receiver.fail("", answer)

    run = push(written)

    assert run.status == status, run.stderr
    about_devices = [r for r in receiver.received if r.method == "POST"]
    assert len(about_devices) == tries
    assert len(spool_files(written)) == 1
    assert len(run.stderr.splitlines()) == 1, run.stderr
    assert state(written)["dropped"] == {}
    receiver.script.clear()
    receiver.heal()
    forget_the_pause(written)
    assert push(written).status == 0
    of_soc = [p for k, p in receiver.stored.items() if "pd_soc" in dict(k)["__name__"]]
    assert [len(points) for points in of_soc] == [2]


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

    assert push({**written, "REMOTE_WRITE_VERSION": "2"}).status == 1

    (samples,) = of_devices(receiver)
    assert state(written)["dropped"] == {"partial": len(samples) - 3}


def test_a_count_is_no_word_in_version_1(written, receiver):
    """To a 1.0 message a count of written samples means nothing: it is tried again."""
    count = ("X-Prometheus-Remote-Write-Samples-Written", "3")
    receiver.script = [Answer(503, b"bad", (count,))]

    assert push_anew(written).status == 0
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
    assert len(spool_files(written)) == (status != 200)


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


@pytest.mark.case("N21")
@pytest.mark.parametrize("mode", ["write-ahead", "on-failure"])
def test_an_outage_is_made_up_for(mode, written, cloud, receiver):
    """What an outage held back arrives oldest first, several in a request."""
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
    # Of each device the oldest alone, then all others.
    assert len(of_devices(receiver)) == 4
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


@pytest.mark.case("W1")
def test_a_lost_answer_stores_nothing_twice(written, receiver):
    """A snapshot whose answer got lost is sent again, and stored once."""
    # Two tries, and one more for the connection that was kept.
    receiver.script = [receiver.store_then_lose()] * 3
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
    assert run.seconds < 2 + LATE
    assert len(spool_files(written)) == 1


@pytest.mark.case("W6")
def test_a_record_that_fails_alone_is_set_aside(written, receiver):
    """After 10 runs of 5xx a newer record is tried; if taken, the old one goes."""
    written["ESTABLISH_ATTEMPTS"] = "1"
    receiver.fail("", faults.status(500))
    for _ in range(MOST_FAILING_RUNS - 1):
        assert push(written).status == 75
    assert len(spool_files(written)) == MOST_FAILING_RUNS - 1
    receiver.heal()
    # The oldest, the next one, the oldest again.
    bad = Answer(500, b"label name is not unique")
    receiver.script = [bad, None, bad]

    run = push(written)

    assert run.status == 1, run.stderr
    assert "the server fails on them alone" in run.stderr
    assert spool_files(written) == []
    assert len(spool_files(written, "spool-*/bad/*")) == 1
    assert state(written)["dropped"] == {"failing": 7}


@pytest.mark.case("W7")
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


@pytest.mark.case("W11")
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
    receiver.script = [Answer(400, b"bad")] * 4

    assert push(written).status == 76
    assert push(written).status == 1

    assert "".join(r.version for r in receiver.requests) == "212122"
    assert state(written)["dropped"] == {"refused": 7}


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


def test_a_receiver_of_2_alone_refuses_one_record(written, receiver):
    """Where 1.0 is not understood at all, a 400 to 2.0 is about the content."""
    written["REMOTE_WRITE_VERSION"] = "auto"
    receiver.speaks = "2"
    receiver.script = [Answer(400, b"too old"), None, Answer(400, b"too old")]

    assert push(written).status == 76
    assert push(written).status == 1

    assert "".join(r.version for r in receiver.requests) == "21222"
    assert state(written)["dropped"] == {"refused": 7}


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
