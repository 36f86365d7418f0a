"""What a server says, however it says it: compressed, cut, in pieces, or as a page."""

from __future__ import annotations

import email.utils
import gzip
import threading
import time
import zlib

import pytest

from ecoflow_push.errors import Unreachable
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.net.exchange import open_exchange
from ecoflow_push.net.plain import PlainExchange
from ecoflow_push.net.reply import LOOK_BYTES, Reply, Request
from ecoflow_push.net.requests_exchange import RequestsExchange
from ecoflow_push.net.retry import Transport
from ecoflow_push.net.trust import Trust
from ecoflow_push.redact import learn
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import Answer, Handler, RecordingServer
from tests.conftest import DELTA
from tests.support import push_anew, values

EXCHANGES = [RequestsExchange, PlainExchange]
VARIABLES = ("THE_URL", "THE_CA_FILE")
PAGE = b"<!DOCTYPE HTML>\n<title>Log in</title>"


def sender(server, exchange=PlainExchange, **limits):
    limits = {"attempts": 1, "longest_wait": 5.0, **limits}
    more = {key: limits.pop(key) for key in ("needs_body",) if key in limits}
    made = exchange(server.url, **more)
    return Transport(made, variables=VARIABLES, **limits)


def ask(server, transport, seconds=20):
    request = Request("POST", f"{server.url}/x", {}, b"data")
    return transport.send(lambda: request, Deadline(seconds))


def reply(body, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(200, named, body)


@pytest.fixture
def server():
    with RecordingServer() as running:
        yield running


# -- connections ----------------------------------------------------------------------


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_server_that_closes_after_each_answer_costs_no_try(exchange, server):
    """300 requests to one that closes without a word are 300 answers at the first try.

    A back-off would take a quarter of a second at least, so that they would not fit.
    """
    server.fail("", faults.raw(b"HTTP/1.1 204 No Content\r\n\r\n"))
    transport = sender(server, exchange)

    replies = [ask(server, transport).status for _ in range(300)]

    assert replies == [204] * 300
    assert len(server.received) == 300
    transport.close()


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("end", [faults.raw(b""), faults.reset()], ids=["fin", "rst"])
def test_a_kept_connection_that_ends_with_the_request_is_dialled_again(
    end, exchange, server
):
    """Where closing and the next request cross each other, it is sent once more."""
    transport = sender(server, exchange)
    assert ask(server, transport).status == 200
    server.fail("", end, times=1)

    assert ask(server, transport).status == 200
    assert len(server.received) == 3
    transport.close()


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("end", [faults.raw(b""), faults.reset()], ids=["fin", "rst"])
def test_it_is_dialled_again_once(end, exchange, server):
    """The new connection's failure is one, as that of any other try."""
    transport = sender(server, exchange)
    assert ask(server, transport).status == 200
    server.fail("", end)

    with pytest.raises(Unreachable):
        ask(server, transport)

    assert len(server.received) == 3
    transport.close()


STRAY = {
    "a success": b"HTTP/1.1 204 No Content\r\n\r\n",
    "an idle one's end": b"HTTP/1.0 408 Request Time-out\r\nConnection: close\r\n\r\n",
    "a refusal": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "a body of a 204": b"OK",
}


@pytest.mark.case("N7", "W1")
@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("what", STRAY)
def test_an_answer_to_nothing_is_not_the_next_one(
    what, tls, exchange, server_tls, ca_file
):
    """What a server says on an idle connection answers no request that comes later."""
    heard, is_said = threading.Event(), threading.Event()

    def say_more(handler: Handler) -> None:
        handler.send(Answer(204))
        assert heard.wait(10)
        handler.wfile.write(STRAY[what])
        is_said.set()

    with RecordingServer(server_tls if tls else None) as server:
        made = exchange(server.url, trust=Trust(ca_file))
        transport = Transport(made, variables=VARIABLES, attempts=1, longest_wait=0)
        server.fail("", say_more, times=1)
        assert ask(server, transport).status == 204
        server.fail("", faults.status(503))
        heard.set()
        assert is_said.wait(10)

        assert ask(server, transport).status == 503
        assert len(server.received) == 2
        transport.close()


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_an_answer_that_had_begun_is_not_asked_for_again(exchange, server):
    """A status line cut short on a kept connection is a failure and costs the try."""
    transport = sender(server, exchange)
    assert ask(server, transport).status == 200
    server.fail("", faults.raw(b"HTTP/1.1 2"))

    with pytest.raises(Unreachable):
        ask(server, transport)

    assert len(server.received) == 2
    transport.close()


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_what_is_said_before_the_answer_is_skipped(exchange, server):
    """Early hints and other 1xx are no answers; the one behind them is."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n"
    processing = b"HTTP/1.1 102 Processing\r\n\r\n"
    going_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    last = b"HTTP/1.1 204 No Content\r\nX-It: is\r\n\r\n"
    server.fail("", faults.raw(hints + going_on + processing + hints + last))
    transport = sender(server, exchange)

    got = ask(server, transport)

    assert (got.status, got.headers["X-It"]) == (204, "is")
    assert "Link" not in got.headers
    transport.close()


@pytest.mark.case("N13")
@pytest.mark.parametrize("asked", ["0", "Thu, 01 Jan 2026 00:00:00 GMT"])
def test_retry_after_does_not_switch_the_pause_off(asked, server):
    """Asked to come back at once, a sender still waits as long as it would."""
    server.fail("", faults.status(503, Retry_After=asked))
    transport = sender(server, attempts=3)
    began = time.monotonic()

    assert ask(server, transport).status == 503

    # Half of 0.5 s and half of 1 s, at least.
    assert time.monotonic() - began >= 0.75
    transport.close()


@pytest.mark.parametrize("seconds", [0.6, 0.2])
def test_a_try_lasts_as_long_as_its_sink_allows(seconds, server):
    """What a receiver takes for an answer is waited for, and no longer than that."""

    def slow(handler):
        time.sleep(0.4)
        handler.send(Answer(204))

    server.fail("", slow)
    transport = sender(server, longest_try=seconds)

    if seconds > 0.4:
        assert ask(server, transport).status == 204
    else:
        with pytest.raises(Unreachable, match="no complete answer in time"):
            ask(server, transport)
    transport.close()


@pytest.mark.parametrize("path", ["?db=x", "/?db=x", ""])
def test_a_url_without_a_path_is_asked_for_its_root(path, server):
    """What stands behind the host alone is a query of `/`."""
    exchange = open_exchange(server.url)

    assert exchange(Request("GET", server.url + path, {}), 5).status == 200

    (received,) = server.received
    assert received.path == (path if path.startswith("/") else f"/{path}")
    exchange.close()


# -- bodies ---------------------------------------------------------------------------


def deflated(data, frame):
    packer = zlib.compressobj(wbits=frame)
    return packer.compress(data) + packer.flush()


PACKED = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "zlib": ("deflate", lambda data: deflated(data, 15)),
    "raw": ("deflate", lambda data: deflated(data, -15)),
    "twice": ("deflate, gzip", lambda data: gzip.compress(deflated(data, 15))),
    "cut": ("gzip", lambda data: gzip.compress(data + b"." * 9999)[:-9]),
    "said": ("gzip", lambda data: data),
    "unsaid": ("", gzip.compress),
}


@pytest.mark.parametrize("how", PACKED)
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_compressed_answer_is_read(how, exchange, server):
    """Words and pages are found in it, unasked for as its compression is."""
    encoding, packed = PACKED[how]
    headers = (("Content-Encoding", encoding),) if encoding else ()
    transport = sender(server, exchange)

    server.fail("", lambda handler: handler.send(Answer(400, packed(PAGE), headers)))
    got = ask(server, transport)
    assert got.words().startswith("<!DOCTYPE HTML> <title>Log in</title>")
    assert got.is_page()

    server.heal()
    text = packed(b"out of order sample")
    server.fail("", lambda handler: handler.send(Answer(400, text, headers)))
    got = ask(server, transport)
    assert got.words().startswith("out of order sample")
    assert not got.is_page()
    transport.close()


@pytest.mark.case("N10")
def test_a_bomb_is_not_inflated():
    """Of what inflates to a gigabyte, 64 KiB are looked at."""
    bomb = reply(gzip.compress(b" " * 2**24), Content_Encoding="gzip")

    assert len(bomb.content()) == LOOK_BYTES
    assert not bomb.is_page()
    assert bomb.words() == "no explanation"


@pytest.mark.parametrize(
    "body", [b"\x1f\x8b\x08\x00junk", b"\x1f\x8b", b"\x00", b"", b"\xff\xfe<"]
)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x, ,gzip"])
def test_a_damaged_answer_is_an_answer(body, encoding):
    """Whatever is wrong with a body, looking at it raises nothing."""
    got = reply(body, Content_Encoding=encoding)

    assert not got.is_page()
    assert got.words()


PAGES = {
    "doctype": b"\n <!DoCtYpE html PUBLIC>",
    "html": b"<HTML lang=en>",
    "head": b"<head><meta charset=utf-8>",
    "script": b"<script>location='/login'</script>",
    "comment": b"<!-- portal --><p>Log in</p>",
    "body": b"<body onload=x>",
    "xhtml": b'<?xml version="1.0"?>\n<!DOCTYPE html>',
    "BOM": b"\xef\xbb\xbf<html>",
    "UTF-16": "<html>".encode("utf-16"),
    "UTF-16 BE": b"\xfe\xff" + "<html>".encode("utf-16-be"),
    "UTF-16 bare": " <html>".encode("utf-16-le"),
    "UTF-16 BE bare": "<html>".encode("utf-16-be"),
}
NO_PAGES = {
    "JSON": b'{"status":"success","html":"<html>"}',
    "text": b"error: <html> is no sample",
    "XML": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "empty": b"",
    "UTF-16": '{"a":1}'.encode("utf-16"),
}


@pytest.mark.parametrize("kind", PAGES)
def test_what_begins_like_a_page_is_one(kind):
    """HTML is known by its beginning, in any letters and encoding it has."""
    assert reply(PAGES[kind]).is_page()
    assert reply(gzip.compress(PAGES[kind]), Content_Encoding="gzip").is_page()


@pytest.mark.parametrize("kind", NO_PAGES)
def test_what_only_speaks_of_pages_is_none(kind):
    """JSON, texts and other XML are no pages, unless their type says so."""
    assert not reply(NO_PAGES[kind]).is_page()
    assert reply(NO_PAGES[kind], Content_Type="Text/HTML; charset=x").is_page()


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_page_cut_short_is_a_page(exchange, server):
    """Where the status is what counts, what came of the body still is looked at."""
    head = b"HTTP/1.1 200 OK\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n40\r\n<html><body>Log in"
    announced = head + b"Content-Length: 999\r\n\r\n<html><body>Log in"
    transport = sender(server, exchange, needs_body=False)
    for answer in (chunked, announced):
        server.heal()
        server.fail("", faults.raw(answer))

        got = ask(server, transport)

        assert (got.status, got.is_page()) == (200, True)
    transport.close()


def test_words_keep_head_and_tail():
    """Of a long explanation its beginning and its end are told, up to 600 letters."""
    short, long = "a" * 600, "begins " + "b" * 5000 + " ends"

    assert reply(short.encode()).words() == short
    words = reply(long.encode()).words()
    assert len(words) == 600
    assert words.startswith("begins bbb")
    assert words.endswith("bbb ends")
    assert " ... " in words


def test_words_show_no_part_of_a_secret():
    """A secret is masked before anything is cut, wherever it would be cut."""
    secret = "tOpSeCrEt" * 3
    learn(secret)
    for before in range(360, 440):
        words = reply(f"{'a' * before}{secret}{'b' * 700}".encode()).words()
        assert "tOp" not in words
        assert "rEt" not in words
    for before in range(LOOK_BYTES - 30, LOOK_BYTES):
        assert "tOp" not in reply(f"{'a' * before}{secret}".encode()).words()


@pytest.mark.parametrize(("age", "ahead"), [("600", 0.0), ("", 600.0), ("x", 600.0)])
def test_a_date_is_as_old_as_a_cache_says(age, ahead):
    """A cached answer's Date is corrected by its Age; our clock is not to blame."""
    now = 1_760_000_000
    date = email.utils.formatdate(now - 600, usegmt=True)

    assert reply(b"", Date=date, Age=age).clock_offset(now) == ahead


def test_ecoflow_s_json_may_be_compressed(environ, cloud, pushgateway):
    """What a proxy on the way compressed, unasked, is read as if it had not."""

    def packed(handler: Handler) -> None:
        answer = cloud.answer(handler.current)
        headers = (("Content-Encoding", "gzip"), *answer.headers)
        handler.send(Answer(answer.status, gzip.compress(answer.body), headers))

    cloud.fail("", packed)

    run = push_anew(environ)

    assert run.status == 0, run.stderr
    assert values(pushgateway.device(DELTA.sn))


REDIRECTS = {
    "https://gateway.example/": " to https://gateway.example/",
    "https://gateway.example:8443/a/b?c=d#e": " to https://gateway.example:8443/a/b",
    "https://me:s3cret@gateway.example/a": " to https://gateway.example/a",
    "//gateway.example/a": " to //gateway.example/a",
    "/login?next=%2F": " to /login",
    "login": " to login",
    "/a;jsessionid=0123": " to /a",
    "https:me:s3cret@gateway.example": "",
    "mailto:me@gateway.example": "",
    "http://[::1": "",
    "https://gateway.example/\x1b[31mred": " to https://gateway.example/?[31mred",
    "https://gateway.example/\u00e9": " to https://gateway.example/?",
    "https://gateway.example/very-s3cret-key/x": " to https://gateway.example/***/x",
    "https://gateway.example/" + "a" * 500: " to https://gateway.example/" + "a" * 176,
    "": "",
}


@pytest.mark.parametrize("location", REDIRECTS)
def test_where_a_redirect_leads(location):
    """Scheme, host and path are told; no query, no user, no secret, no control."""
    learn("very-s3cret-key")

    assert Reply(302, {"Location": location}, b"").leads_to() == REDIRECTS[location]
    assert Reply(302, {}, b"").leads_to() == ""
