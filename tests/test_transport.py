"""Exchanges end in time by themselves, whoever waits for them."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from ecoflow_push.errors import OutOfTime, Unreachable
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.net.exchange import open_exchange, proxy_for
from ecoflow_push.net.plain import PlainExchange
from ecoflow_push.net.requests_exchange import RequestsExchange
from ecoflow_push.net.retry import Request, Transport
from ecoflow_push.net.trust import Trust
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.server import Answer, RecordingServer
from tests.proxy import Proxy as Tunnels
from tests.support import free_port

EXCHANGES = [RequestsExchange, PlainExchange]
VARIABLES = ("THE_URL", "THE_CA_FILE")
LANES = {RequestsExchange: {"lanes": 3}}


def transport(exchange, **limits):
    limits = {"attempts": 3, "longest_wait": 0.05, **limits}
    return Transport(exchange, variables=VARIABLES, **limits)


@pytest.fixture(params=["http", "https"])
def server(request, server_tls):
    with RecordingServer(server_tls if request.param == "https" else None) as running:
        yield running


@pytest.mark.case("N4", "N5", "N6")
@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize(
    "fault",
    [faults.hang, faults.drip_headers, faults.drip_body, faults.continue_for_ever],
)
def test_a_dripping_server_gains_no_time(exchange, fault, server, ca_file):
    """However a server drips, an exchange ends at its deadline, not one read later."""
    server.fail("", fault(pause=0.05) if fault is not faults.hang else fault())
    sender = transport(exchange(server.url, trust=Trust(ca_file)))
    began = time.monotonic()

    with pytest.raises(OutOfTime):
        sender.send(lambda: Request("GET", server.url + "/", {}), Deadline(1))

    assert 0.9 < time.monotonic() - began < 2
    sender.close()


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_server_that_never_reads_gains_no_time(exchange):
    """An upload that nobody takes ends at the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        sender = transport(exchange(url))
        began = time.monotonic()

        with pytest.raises(OutOfTime):
            sender.send(lambda: Request("PUT", url, {}, b"x" * 50_000_000), Deadline(1))

        assert time.monotonic() - began < 2
        sender.close()


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_one_connection_serves_many_requests(exchange, server_tls, ca_file):
    """Requests in a row share a connection and its one handshake."""
    with RecordingServer(server_tls) as server:
        sender = transport(exchange(server.url, trust=Trust(ca_file)))

        for _ in range(3):
            reply = sender.send(
                lambda: Request("GET", server.url + "/x", {"X-Own": "1"}), Deadline(5)
            )
            assert reply.status == 200

        assert server.handshakes == 1
        assert [r.headers["x-own"] for r in server.received] == ["1", "1", "1"]
        assert {r.headers["accept-encoding"] for r in server.received} == {"identity"}
        sender.close()


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_connection_that_died_in_between_is_replaced(exchange):
    """A kept connection that the server has closed costs one more try."""
    with RecordingServer() as server:
        sender = transport(exchange(server.url))
        build = lambda: Request("GET", server.url + "/", {})  # noqa: E731
        server.fail("", faults.status(200, Connection="close"), times=1)

        assert sender.send(build, Deadline(5)).status == 200
        assert sender.send(build, Deadline(5)).status == 200
        sender.close()


class Proxy(RecordingServer):
    """A proxy for plain requests: answers them itself, and notes what it was asked."""

    def answer(self, received):
        return Answer(200, b"", (("X-Proxy", "yes"),))


@pytest.mark.case("N19")
def test_a_proxy_is_used_unless_bypassed():
    """Plain requests go to the proxy with the whole URL and its password."""
    with Proxy() as proxy, RecordingServer() as server:
        address = proxy.url.replace("//", "//user:p%40ss@")
        bypassing = {"http": address, "no": "127.0.0.1"}
        through = transport(open_exchange(server.url, proxies={"http": address}))
        around = transport(open_exchange(server.url, proxies=bypassing))
        body = b"\x00 of ours"
        build = lambda: Request("PUT", f"{server.url}/a?b=c", {}, body)  # noqa: E731

        assert through.send(build, Deadline(5)).headers.get("X-Proxy") == "yes"
        assert around.send(build, Deadline(5)).headers.get("X-Proxy") is None

        (seen,) = proxy.received
        assert (seen.path, seen.body) == (f"{server.url}/a?b=c", body)
        assert seen.headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"
        assert [r.path for r in server.received] == ["/a?b=c"]
        through.close()
        around.close()


REFUSALS = {
    403: (
        "does not let this through",
        "let the proxy allow it, or check {} and NO_PROXY",
    ),
    407: (
        "wants a user and a password",
        "set {} to http://user:password@host:port, or check those in it",
    ),
    418: ("refused", "check {} and NO_PROXY"),
    503: (
        "did not reach the server behind it",
        "look into the proxy's log, or check {} and NO_PROXY",
    ),
}


@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize("variable", ["", "https_proxy"])
def test_a_proxy_that_refuses_a_tunnel(status, variable, ca_file):
    """Its answer is told in words, with its variable, and without its password."""
    with Tunnels(answers=status) as proxy:
        url = "https://localhost:1"
        proxies = {"https": proxy.url.replace("//", "//user:tops3cret@")}
        proxies |= {"https from": variable} if variable else {}
        sender = transport(open_exchange(url, trust=Trust(ca_file), proxies=proxies))

        with pytest.raises(Unreachable) as caught:
            sender.send(lambda: Request("GET", url + "/", {}), Deadline(5))

        says, cure = REFUSALS[status]
        assert caught.value.text == f"the proxy {proxy.place} {says} (HTTP {status})"
        assert caught.value.cure == cure.format(variable or "HTTPS_PROXY")
        assert "tops3cret" not in str(caught.value)
        # What it does not allow it will not allow the next time.
        assert (len(proxy.received) == 1) == (status < 500)
        sender.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there(scheme, ca_file):
    """Where nobody listens as the proxy, it is named, and its variable with it."""
    url, variable = f"{scheme}://localhost:1", f"{scheme.upper()}_PROXY"
    address = f"127.0.0.1:{free_port()}"
    proxies = {scheme: f"http://user:tops3cret@{address}"}
    sender = transport(open_exchange(url, trust=Trust(ca_file), proxies=proxies))

    with pytest.raises(Unreachable) as caught:
        sender.send(lambda: Request("GET", url + "/", {}), Deadline(5))

    assert str(caught.value) == (
        f"the proxy {address}: connection refused: check that it runs, and the host and"
        f" port in {variable}"
    )
    sender.close()


IPV6 = {
    "https://[fd00::1]:8443/x": "CONNECT [fd00::1]:8443",
    "https://[fd00::1]/x": "CONNECT [fd00::1]:443",
    "http://[fd00::1]:9091/x": "GET http://[fd00::1]:9091/x",
}


@pytest.mark.parametrize("url", IPV6)
def test_an_ipv6_literal_has_its_brackets_at_a_proxy(url):
    """For a tunnel and for plain requests it can be told from the port behind it."""
    asked = []

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with server.accept()[0] as peer:
                asked.append(peer.recv(65536).decode())
                peer.sendall(b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
        exchange = open_exchange(url, proxies={url.partition(":")[0]: proxy})
        with suppress(OSError):
            exchange(Request("GET", url, {}), 5)
        thread.join(10)
        exchange.close()

    (head,) = asked
    assert head.startswith(f"{IPV6[url]} HTTP/")
    assert url.startswith("https") or "\r\nHost: [fd00::1]:9091\r\n" in head


@pytest.mark.parametrize("name", ["fd00::1", "[fd00::1]", "a.example, fd00::1"])
def test_an_ipv6_literal_can_be_excepted(name):
    """NO_PROXY names it with brackets or without."""
    proxies = {"http": "http://x:1", "no": name}

    assert proxy_for("http://[fd00::1]:9091/x", proxies) is None
    assert proxy_for("http://[fd00::2]:9091/x", proxies) == "http://x:1"


def test_an_ipv6_literal_is_dialled_and_named():
    """Without a proxy the address is dialled as it is, and named with brackets."""
    asked = []

    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:

        def serve():
            with server.accept()[0] as peer:
                asked.append(peer.recv(65536).decode())
                peer.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        host = f"[::1]:{server.getsockname()[1]}"
        exchange = open_exchange(f"http://{host}")
        assert exchange(Request("GET", f"http://{host}/x", {}), 5).status == 204
        thread.join(10)
        exchange.close()

    assert f"\r\nHost: {host}\r\n" in asked[0]


@pytest.mark.parametrize(
    ("choice", "library"),
    [
        ({}, PlainExchange),
        ({"is_rare": True}, RequestsExchange),
        ({"proxies": {"http": "http://127.0.0.1:1"}}, RequestsExchange),
        ({"proxies": {"http": "http://x:1", "no": "127.0.0.1"}}, PlainExchange),
        ({"proxies": {"http": "http://x:1", "no": "127.0.0.2"}}, RequestsExchange),
    ],
)
def test_what_is_rare_or_not_straight_goes_by_requests(choice, library):
    """The straight way of every minute goes by http.client, all others by requests."""
    exchange = open_exchange("http://127.0.0.1:1", **choice)

    assert type(exchange) is library
    exchange.close()


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_each_thread_has_a_connection(exchange):
    """Threads that send at once do so over connections of their own, which are kept."""
    inside = threading.Barrier(3)

    def together(handler):
        inside.wait(10)
        handler.send(Answer(200))

    with RecordingServer() as server:
        sender = transport(exchange(server.url, **LANES.get(exchange, {})))
        build = lambda: Request("GET", server.url + "/", {})  # noqa: E731
        server.fail("", together)
        with ThreadPoolExecutor(3) as pool:
            for _ in range(2):
                replies = pool.map(lambda _: sender.send(build, Deadline(20)), range(3))
                assert [reply.status for reply in replies] == [200] * 3
        sender.close()

    assert len(server.received) == 6


@pytest.mark.case("N18")
@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("wrong", ["expired", "other name", "old TLS"])
@pytest.mark.filterwarnings("ignore:ssl.OP_NO:DeprecationWarning")
def test_a_certificate_must_be_right(exchange, wrong, authority, ca_file):
    """An expired certificate, another name and TLS 1.1 are refused, and not retried."""
    import datetime as dt

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC) if wrong == "expired" else None
    name = "elsewhere.example" if wrong == "other name" else "localhost"
    authority.issue_cert(name, not_after=past).configure_cert(context)
    if wrong == "old TLS":
        context.options |= ssl.OP_NO_TLSv1_2 | ssl.OP_NO_TLSv1_3
    with RecordingServer(context) as server:
        sender = transport(exchange(server.url, trust=Trust(ca_file)))

        with pytest.raises(Unreachable, match="TLS"):
            sender.send(lambda: Request("GET", server.url + "/", {}), Deadline(5))

        assert server.received == []
        sender.close()


def test_jitter_spreads_the_tries():
    """Two senders do not wait equally long: no thundering herd after an outage."""
    waits = []
    with RecordingServer() as server:
        server.fail("", faults.status(503))
        for _ in range(6):
            exchange = PlainExchange(server.url)
            sender = transport(exchange, attempts=2, longest_wait=0.2)
            began = time.monotonic()
            sender.send(lambda: Request("GET", server.url + "/", {}), Deadline(5))
            waits.append(time.monotonic() - began)
            sender.close()

    assert max(waits) - min(waits) > 0.005


@pytest.mark.parametrize("library", EXCHANGES)
def test_who_was_given_up_sends_nothing_more(library):
    """After close, a request that is still under way to being sent is not sent."""
    with RecordingServer() as server:
        exchange = library(server.url)
        request = Request("GET", server.url, {}, b"")
        assert exchange(request, 5).status == 200
        exchange.close()

        with pytest.raises(ConnectionError):
            exchange(request, 5)

    assert len(server.received) == 1


def test_a_name_in_another_alphabet_is_found(server, ca_file):
    """A host that is not of ASCII letters is looked up, asked and held to its name."""
    url = server.url.replace("127.0.0.1", "localhost").replace("local", "ｌｏｃａｌ")  # noqa: RUF001 - wide letters are the point
    exchange = PlainExchange(url, trust=Trust(ca_file))

    assert exchange(Request("GET", f"{url}/x", {}), 5).status == 200

    assert server.received[0].headers["host"].startswith("localhost:")
    exchange.close()
