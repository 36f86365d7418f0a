"""Compliance: retries, back-off, responses, fallback, both versions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ecoflow_push.errors import WriteError
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import Answer
from tests.compliance import (
    COUNTER,
    GAUGE,
    HISTOGRAM,
    MIXED,
    PB,
    VERSION_HEADER,
    WRITTEN,
    Bench,
    Cases,
    only,
)
from tests.support import LATE

CASES = Cases()
case = CASES.case

# -- main: retry, back-off ----------------------------------------------------------


def once(status: int, *, kept: bool) -> Callable[[Bench], None]:
    def check(bench: Bench) -> None:
        bench.receiver.script = [Answer(status)] * 5
        with pytest.raises(WriteError) as caught:
            bench.send(GAUGE, attempts=5)
        assert len(bench.receiver.received) == 1
        assert (caught.value.bad == "content") != kept

    return check


for _status, _kept in ((400, False), (401, True), (404, True), (413, False)):
    _what = "waits in the spool: not the content is refused"
    _what = _what if _kept else "waits until another one is taken, then goes"
    case(f"retry/no_retry_on_{_status}", says=f"exactly 1 request; {_what}")(
        once(_status, kept=_kept)
    )


def again(status: int) -> Callable[[Bench], None]:
    def check(bench: Bench) -> None:
        bench.receiver.script = [Answer(status)]
        first, second = bench.send(GAUGE)
        assert first.message == second.message
        assert second.headers["retry-attempt"] == "1"

    return check


for _status in (500, 502, 503, 504):
    case(f"retry/retry_on_{_status}", says="sent again, the same bytes")(again(_status))


@case(
    "retry/may_retry_on_429",
    says="sent again, not before the Retry-After of 1 s is over",
)
def _(bench):
    bench.receiver.script = [Answer(429, b"", (("Retry-After", "1"),))]
    first, second = bench.send(GAUGE)
    assert second.at - first.at >= 1


def backed_off(bench: Bench) -> list[float]:
    bench.receiver.script = [Answer(503)] * 2
    requests = bench.send(GAUGE, attempts=3)
    assert len(requests) == 3
    pairs = zip(requests[1:], requests[:-1], strict=True)
    return [later.at - earlier.at for later, earlier in pairs]


@case(
    "backoff/exponential_backoff_on_retries",
    "backoff/backoff_required",
    "backoff/backoff_max_delay",
    "backoff/backoff_with_jitter",
    says="0.25 to 0.5 s, then 0.5 to 1 s, jittered, never beyond RETRY_TIMEOUT",
)
def _(bench):
    first, second = backed_off(bench)
    assert 0.25 <= first < 0.75
    assert 0.5 <= second < 1.25


# -- main: responses, fallback, errors ----------------------------------------------


def taken(answer: Answer, version: str = "1") -> Callable[[Bench], None]:
    def check(bench: Bench) -> None:
        bench.receiver.script = [answer]
        assert len(bench.send(GAUGE, version)) == 1

    return check


WROTE = ((WRITTEN, "1"),)
case(
    "response/ignore_response_body_on_success",
    says="success where the address is proven, if it is no page",
)(taken(Answer(200, b"error: this body should be ignored")))
case("response/handle_204_no_content", says="success")(
    taken(Answer(204, b"", WROTE), "2")
)
case("response/handle_200_ok", says="success")(taken(Answer(200, b"OK", WROTE), "2"))
case(
    "response/process_written_count_headers",
    "response/ContentTypeNegotiation",
    "fallback/NoFallbackOn2xx",
    says="with a Written header 2.0 stays 2.0; 1.0 never looks at it",
)(taken(Answer(204, b"", WROTE), "auto"))


@case(
    "response/handle_partial_write_response",
    says="counted as written, the rest dropped, never sent again",
)
def _(bench):
    bench.receiver.script = [Answer(400, b"Rejected", ((WRITTEN, "2"),))] * 3
    with pytest.raises(WriteError) as caught:
        bench.send(MIXED, "2")
    assert caught.value.accepted == 2
    assert len(bench.receiver.received) == 1


@case(
    "response/handle_missing_written_headers",
    says="a refusal without them means that nothing was written",
)
def _(bench):
    bench.receiver.script = [Answer(400, b"Bad")]
    with pytest.raises(WriteError) as caught:
        bench.send(GAUGE, "2")
    assert caught.value.accepted == 0


@case("response/log_error_messages_verbatim", says="the log has the server's words")
def _(bench):
    bench.receiver.script = [Answer(400, b"Error: Invalid label name '__x__'")]
    assert "Error: Invalid label name '__x__'" in bench.run().stderr


@case(
    "response/handle_large_error_body",
    "error_handling/handle_large_error_response",
    says="1 MiB of error: one line, of 600 letters at most",
)
def _(bench):
    bench.receiver.script = [Answer(400, b"x" * (1 << 20))]
    run = bench.run()
    assert run.status == 76
    assert max(len(line) for line in run.stderr.splitlines()) < 1000
    assert "x" * 500 in run.stderr
    assert "x" * 600 not in run.stderr


@case(
    "fallback/fallback_on_415_unsupported_media_type",
    "fallback/retry_with_different_version",
    "fallback/fallback_header_changes",
    "fallback/accept_success_after_fallback",
    "fallback/persistent_fallback_choice",
    says="`auto`: after a 415 it goes out as 1.0, and so does the next run",
)
def _(bench):
    bench.receiver.speaks = "1"
    assert bench.run(REMOTE_WRITE_VERSION="auto").status == 0
    assert bench.run(REMOTE_WRITE_VERSION="auto").status == 0
    assert [r.version for r in bench.receiver.requests] == ["2", "1", "1", "1", "1"]
    assert bench.receiver.requests[1].headers["content-type"] == PB


@case(
    "error_handling/handle_connection_refused",
    says="stored, 75, one line; the next run delivers it",
)
def _(bench):
    bench.receiver.fail("", faults.reset())
    run = bench.run(REMOTE_WRITE_URL="http://127.0.0.1:1/api/v1/write")
    assert run.status == 75
    assert "connection refused" in run.stderr
    assert len(run.stderr.splitlines()) == 1


@case(
    "error_handling/handle_timeout",
    says="a hang ends with the run's deadline; stored, 75",
)
def _(bench):
    bench.receiver.fail("", faults.hang())
    run = bench.run(RUN_DEADLINE="2")
    assert run.status == 75
    assert run.seconds < 2 + LATE


@case(
    "error_handling/handle_partial_write",
    "error_handling/handle_empty_response",
    says="200 is success where the address is proven, a body or not",
)
def _(bench):
    bench.receiver.script = [Answer(200, b"partial"), Answer(200)]
    assert bench.run().status == 0


@case(
    "error_handling/handle_malformed_response",
    says="no HTTP: tried again, then stored, 75",
)
def _(bench):
    bench.receiver.fail("", faults.raw(b"Not valid response headers\r\n\r\n"))
    run = bench.run()
    assert run.status == 75
    assert "Traceback" not in run.stderr


@case(
    "error_handling/sender_continues_after_errors",
    says="stored while it fails, delivered by the run after it",
)
def _(bench):
    bench.receiver.fail("", faults.status(500))
    assert bench.run().status == 75
    bench.receiver.heal()
    assert bench.run().status == 0
    assert [len(points) for points in bench.soc()] == [2]


@case("error_handling/handle_invalid_status_code", says="999: stored, 75")
def _(bench):
    bench.receiver.script = [Answer(999)]
    assert bench.run().status == 75


@case(
    "error_handling/dns_resolution_failure",
    says="stored, 75, one line, within the deadline",
)
def _(bench):
    url = "http://nonexistent.invalid:9999/api/v1/write"
    run = bench.run(REMOTE_WRITE_URL=url, RUN_DEADLINE="5")
    assert run.status == 75
    assert run.seconds < 5 + LATE


@case(
    "error_handling/invalid_url_scheme",
    says="a fault of the settings: 78, nothing is contacted",
)
def _(bench):
    assert bench.run(REMOTE_WRITE_URL="invalid://localhost:9999").status == 78


# -- main: 1.0 beside 2.0; the new library ------------------------------------------


@case(
    "rw1_compat/rw1_version_header",
    "rw1_compat/rw1_content_type",
    "rw1_compat/Configuration",
    says="the default: `0.1.0`, the type without parameter",
)
def _(bench):
    assert bench.run().status == 0
    for request in bench.receiver.requests:
        assert request.headers[VERSION_HEADER] == "0.1.0"
        assert request.headers["content-type"] == PB


@case(
    "rw1_compat/rw1_samples_encoding",
    "rw1_compat/rw1_labels_encoding",
    "rw1_compat/rw1_no_start_timestamp",
    "rw1_compat/rw1_metadata_handling",
    "rw1_compat/rw1_symbol_table_not_used",
    says="the 1.0 schema knows every field: labels inline, value and time, no metadata",
)
def _(bench):
    (request,) = bench.send(MIXED)
    assert request.symbols == []
    assert len(request.samples) == request.series == 11
    assert {(s.type, s.help, s.start_timestamp) for s in request.samples} == {
        (0, "", 0)
    }


@case(
    "new/samples value",
    says="101.13 arrives bit for bit, each series with exactly one sample",
)
def _(bench):
    for samples in bench.both(COUNTER.replace("7", "101.13") + HISTOGRAM):
        assert only(samples, "c_total").value == 101.13
        assert len({s.labels for s in samples}) == len(samples)


@pytest.mark.parametrize("name", CASES.checks())
def test_sender_compliance(name, bench):
    """The cases of this check are met as compliance.md says."""
    CASES[name].check(bench)
