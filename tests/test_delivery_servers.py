"""The proof of an address, with real servers: right ones pass, wrong paths never do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecoflow_push.simulator.server import Answer, Received, RecordingServer
from tests.fetch_servers import NEWER
from tests.receiver import NO_MESSAGE
from tests.remote_write import spool_files, state
from tests.support import (
    Database,
    prometheus,
    push,
    push_anew,
    victoria_metrics,
    vmagent,
    vmauth,
)

TOKEN = "a-token-of-the-gate"


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[dict[str, Database]]:
    folder = tmp_path_factory.mktemp("servers")
    with (
        prometheus(folder / "p") as first,
        prometheus(folder / "q", suite=NEWER) as newer,
        victoria_metrics(folder / "v") as second,
        victoria_metrics(folder / "w", suite=NEWER) as newer_second,
        vmagent(folder / "a", second.write_url) as agent,
        vmagent(folder / "b", newer_second.write_url, suite=NEWER) as newer_agent,
        vmauth(folder / "g", second.url, TOKEN) as gate,
    ):
        yield {
            "prometheus": first,
            "newer": newer,
            "victoria": second,
            "newer victoria": newer_second,
            "vmagent": agent,
            "newer vmagent": newer_agent,
            "vmauth": gate,
        }


def settings(environ: dict[str, str], url: str, token: str = TOKEN) -> dict[str, str]:
    """Return the settings of a run that knows the token of the gate."""
    kept = {k: v for k, v in environ.items() if k != "PUSHGATEWAY_URL"}
    return {**kept, "REMOTE_WRITE_URL": url, "REMOTE_WRITE_BEARER_TOKEN": token}


OF_VERSION_1 = (
    *("prometheus", "victoria", "newer victoria"),
    *("vmagent", "newer vmagent", "vmauth"),
)
RIGHT = [
    *((name, way) for name in OF_VERSION_1 for way in ("1", "auto")),
    *(("newer", way) for way in ("1", "2", "auto")),
]


@pytest.mark.parametrize(("name", "version"), RIGHT)
def test_the_right_endpoint_passes(name, version, environ, servers):
    """A run and a check find it good, the run in its first request to it."""
    written = settings(environ, servers[name].write_url)
    written |= {"REMOTE_WRITE_VERSION": version}

    done = push(written)

    assert done.status == 0, done.stderr
    assert spool_files(written) == []
    assert "ok       remote-write" in push(written, "--check").stdout


WRONG = [
    *(("victoria", path) for path in ("/health", "/metrics", "/write", "/-/reload")),
    *(("victoria", f"/{path}") for path in ("influx/write", "api/v2/write")),
    ("victoria", "/api/v1/import"),
    ("victoria", "/api/v1/import/prometheus"),
    ("victoria", "/api/v1/labels"),
    ("victoria", "/no/such/path"),
    ("prometheus", "/api/v1/labels"),
    ("prometheus", "/api/v1/query?query=1"),
    ("prometheus", "/"),
    ("newer", "/api/v1/labels"),
    ("newer", "/api/v1/query?query=1"),
    *(("newer victoria", path) for path in ("/health", "/metrics", "/write")),
    *(("newer victoria", f"/{path}") for path in ("influx/write", "api/v2/write")),
    *(
        ("newer victoria", f"/api/v1/import{path}")
        for path in ("", "/prometheus", "/prometheus/metrics/job/x", "/csv", "/native")
    ),
    ("newer victoria", "/zabbixconnector/api/v1/history"),
    ("vmagent", "/write"),
    ("newer vmagent", "/write"),
    ("newer vmagent", "/api/v1/import"),
    ("vmauth", "/no/route"),
]


@pytest.mark.parametrize(("name", "path"), WRONG)
def test_a_wrong_path_is_never_ok(name, path, environ, servers):
    """Nothing is lost there, a run says what is wrong, and so does a check."""
    written = settings(environ, servers[name].url + path)

    for _ in range(2):
        done = push(written)
        assert done.status == 76, done.stderr
    check = push(written, "--check")

    assert len(spool_files(written)) == 2
    assert state(written)["dropped"] == {}
    assert "wrong    remote-write" in check.stdout
    assert "REMOTE_WRITE_URL" in check.stdout


def test_a_token_that_is_refused_by_400_costs_nothing(environ, servers):
    """vmauth 1.79 answers so: what waits is delivered when the token is right again."""
    url = servers["vmauth"].write_url
    assert push(settings(environ, url)).status == 0
    for _ in range(4):
        done = push(settings(environ, url, "another-token"))
        assert done.status == 76, done.stderr
        assert "cannot find the provided auth token" in done.stderr
        assert "another-token" not in done.stderr
    written = settings(environ, url)
    assert len(spool_files(written)) == 4

    done = push_anew(written)

    assert done.status == 0, done.stderr
    assert spool_files(written) == []
    assert state(written)["dropped"] == {}


class Like(RecordingServer):
    """Answers as a receiver does that cannot be had here."""

    def __init__(self, path: str, taken: Answer, unread: Answer) -> None:
        super().__init__()
        self.path = path
        self._taken = taken
        self._unread = unread

    def answer(self, received: Received) -> Answer:
        if received.path != self.path:
            return Answer(404, b"404 page not found\n")
        is_unread = received.body.startswith(NO_MESSAGE)
        return self._unread if is_unread else self._taken


GO = (
    ("Content-Type", "text/plain; charset=utf-8"),
    ("X-Content-Type-Options", "nosniff"),
)
ILLEGAL = b"proto: WriteRequest: illegal tag -1 (wire type 18446744073709551615)\n"
AMAZON = (
    ("x-amzn-RequestId", "12345678-abcd-4442-b8c5-262b45e9b535"),
    ("Content-Type", "application/json"),
    ("Server", "amazon"),
    ("vary", "Origin"),
)
# By the sources of Mimir's distributor and of Thanos' receive handler (net/http's
# Error), and by Amazon's reference of the call; of its refusals that gives the status.
LIKE = {
    "mimir": (
        "/api/v1/push",
        Answer(200, headers=(("Server-Timing", "artificial_delay;dur=0"),)),
        Answer(400, ILLEGAL, headers=GO),
    ),
    "mimir, a second replica": (
        "/api/v1/push",
        Answer(202, b"replicas did not match, rejecting sample\n", headers=GO),
        Answer(400, ILLEGAL, headers=GO),
    ),
    "thanos": (
        "/api/v1/receive",
        Answer(200),
        Answer(400, ILLEGAL, headers=GO),
    ),
    "amazon": (
        "/workspaces/ws-b226cc2a-a446-46a9-933a-ac50479a5568/api/v1/remote_write",
        Answer(200, headers=AMAZON),
        Answer(400, b'{"message":"invalid request"}', headers=AMAZON),
    ),
}


@pytest.mark.parametrize("name", LIKE)
def test_what_answers_as_others_do_passes(name, environ):
    """The statuses and bodies of receivers that cannot be had here."""
    with Like(*LIKE[name]) as server:
        written = settings(environ, server.url + server.path)

        done = push(written)

        assert done.status == 0, done.stderr
        assert spool_files(written) == []
        assert "ok       remote-write" in push(written, "--check").stdout
