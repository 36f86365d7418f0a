"""The way to EcoFlow, fault by fault: who answers badly, elsewhere, or not at all."""

from __future__ import annotations

import datetime as dt
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ecoflow_push.api.envelope import BUSY_SECONDS
from ecoflow_push.api.guard import Guard
from ecoflow_push.api.rest import RestApiClient
from ecoflow_push.errors import AskedToWait, EcoflowApiException, ExitStatus
from ecoflow_push.memory.records import LONGEST_PAUSE_SECONDS
from ecoflow_push.net.deadline import Deadline
from ecoflow_push.net.trust import Trust
from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import ACCESS_KEY, SECRET_KEY, SimulatedCloud
from ecoflow_push.simulator.server import Fault, Handler, RecordingServer
from tests.conftest import DELTA
from tests.hostile import MIB, MOST, push_watched
from tests.proxy import Proxy
from tests.sources import PATIENCE, QUOTA, Rest
from tests.support import LATE, free_port, push, values
from tests.test_faults import LIST, assert_decent
from tests.test_pushgateway import black_hole


@pytest.fixture
def rest(tmp_path, cloud) -> Iterator[Rest]:
    """The developer API in this process: two tries, and short pauses."""
    with ExitStack() as stack:
        yield Rest(tmp_path, stack, cloud)


def error_of(rest: Rest) -> EcoflowApiException:
    """Return what ends a reading of the one device, or what it ends with."""
    try:
        (reading,) = rest.client().read((), Deadline(5))
    except EcoflowApiException as exc:
        return exc
    assert reading.error
    return reading.error


def asked(cloud: SimulatedCloud, part: str) -> int:
    return sum(part in each.path for each in cloud.received)


@pytest.mark.case("N1")
def test_pauses_between_tries_grow(environ):
    """A closed port is tried as often as is set, after 0.5 s and 1 s, less some."""
    environ |= {
        "ECOFLOW_API_HOST": f"http://127.0.0.1:{free_port()}",
        "ESTABLISH_ATTEMPTS": "3",
        "RETRY_TIMEOUT": "30",
        "LOG_LEVEL": "DEBUG",
    }

    run = push(environ)

    assert run.status == 69, run.stderr
    pauses = re.findall(r"try (\d): connection refused.*; again in (\S+) s", run.stderr)
    assert [number for number, _ in pauses] == ["1", "2"]
    first, second = (float(pause) for _, pause in pauses)
    # Shown with one digit.
    assert 0.2 <= first <= 0.5 <= second <= 1.0
    assert run.seconds >= 0.75


@pytest.mark.case("N2")
def test_nobody_even_accepts(environ, pushgateway):
    """Where the first packet is lost, collecting ends in time; sinks have theirs."""
    with black_hole() as url:
        run = push({**environ, "ECOFLOW_API_HOST": url, "RUN_DEADLINE": "3"})

    assert_decent(run, 75)
    assert run.seconds < 3 + LATE
    assert pushgateway.run()["ecoflow_push_exit_status"] == 75


HEAD = b"HTTP/1.1 200 OK\r\n"
BODY = b'{"code":"0","data":{}}'
# All of these are of a server, or of something in its place, that breaks the protocol.
BROKEN = {
    "a length that is none": HEAD + b"Content-Length: x\r\n\r\n" + BODY[:-1],
    "a length below zero": HEAD + b"Content-Length: -5\r\n\r\n" + BODY[:-1],
    "a length of 30 digits": HEAD + b"Content-Length: %b\r\n\r\n" % (b"9" * 30) + BODY,
    "two lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 99\r\n\r\n" + BODY,
    "a chunk cut short": HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{}",
    "a chunk of a huge size": HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + b"f" * 20
    + b"\r\n{}",
    "a chunk below zero": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n{}\r\n",
    "a status of 5,000 digits": b"HTTP/1.1 " + b"2" * 5000 + b" OK\r\n\r\n" + BODY,
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n" + BODY,
    "no status": b"HTTP/1.1\r\n\r\n" + BODY,
    "a header of 1 MiB": HEAD + b"X: " + b"y" * MIB + b"\r\n\r\n" + BODY,
    "a status line of 1 MiB": b"HTTP/1.1 200 " + b"y" * MIB + b"\r\n\r\n" + BODY,
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a frame of HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00d",
    "another protocol": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x28",
}


@pytest.mark.case("N7", "N8")
@pytest.mark.parametrize("what", BROKEN)
def test_broken_http_is_no_answer(what, rest, cloud):
    """Whatever it breaks of HTTP, it is 69 with words of ours, and no error of ours."""
    cloud.fail(QUOTA, faults.raw(BROKEN[what]))

    error = error_of(rest)

    assert error.status == ExitStatus.UNAVAILABLE
    assert 0 < len(error.text) < 200
    assert asked(cloud, QUOTA) <= PATIENCE.attempts + 1


@pytest.mark.case("N7")
@pytest.mark.parametrize("what", BROKEN)
def test_broken_http_that_passes_is_an_answer_late(what, rest, cloud):
    """Where the next try gets an answer the device is read, or it was an answer."""
    cloud.fail(QUOTA, faults.raw(BROKEN[what]), times=1)

    (reading,) = rest.client().read((), Deadline(5))

    assert reading.snapshot or (
        reading.error and reading.error.status == ExitStatus.UNAVAILABLE
    )


def announced(size: int) -> Fault:
    """Announce a body of a size, and send it as fast as it goes."""

    def fault(handler: Handler) -> None:
        handler.wfile.write(handler.head(200, size))
        for _ in range(size // 65536):
            if handler.server.stopping.is_set():
                return
            handler.wfile.write(b" " * 65536)

    return fault


@pytest.mark.case("N9")
def test_2_gib_that_are_announced(environ, cloud, tmp_path):
    """A length beyond all devices' is not read to its end, nor held."""
    cloud.fail(QUOTA, announced(2 << 30))

    run, peak = push_watched(environ, tmp_path)

    assert_decent(run, 69)
    assert "answered with more than" in run.stderr
    assert peak <= MOST


@pytest.mark.case("N13")
@pytest.mark.parametrize("asked_for", ["3600", "Fri, 01 Jan 2999 00:00:00 GMT"])
def test_no_pause_is_longer_than_a_quarter_of_an_hour(asked_for, rest, cloud):
    """However long EcoFlow wants us to wait, the next runs ask again in 15 minutes."""
    cloud.fail(LIST, faults.status(429, Retry_After=asked_for))
    began = time.time()

    with pytest.raises(AskedToWait):
        list(rest.client().read((), Deadline(5)))
    with pytest.raises(AskedToWait):
        list(rest.client().read((), Deadline(5)))

    assert asked(cloud, LIST) == 1
    until = rest.state.pauses["rest"]
    assert abs(until - began - LONGEST_PAUSE_SECONDS) < 60


@pytest.mark.case("N13")
@pytest.mark.parametrize(
    "junk", ["abc", "-5", "1.5", "", "٤", "Fri, 99 Foo 2026", "0x9"]
)
def test_a_junk_retry_after_is_none(junk, rest, cloud):
    """What cannot be read as a time counts as none: as if EcoFlow said 429 alone."""
    header = f"Retry-After: {junk}\r\nContent-Length: 0\r\n\r\n".encode()
    cloud.fail(LIST, faults.raw(b"HTTP/1.1 429 No\r\n" + header))

    error = error_of(rest)

    assert error.status == ExitStatus.TEMPFAIL
    assert asked(cloud, LIST) == PATIENCE.attempts
    assert 0 < BUSY_SECONDS - rest.state.pause_for("rest", time.time()) < 60


@pytest.mark.case("N14")
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_each_try_is_signed_anew(status, rest, cloud):
    """What passes costs one more try, with a nonce and signature not used before."""
    for part in (LIST, QUOTA):
        cloud.fail(part, faults.status(status), times=1)

    (reading,) = rest.client().read((), Deadline(5))

    assert reading.snapshot
    nonces = [each.headers["nonce"] for each in cloud.received]
    signs = [each.headers["sign"] for each in cloud.received]
    assert len(set(nonces)) == len(set(signs)) == len(cloud.received) == 4


@pytest.mark.case("N16", "K11")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("part", [LIST, QUOTA])
def test_no_redirect_is_followed(status, part, rest, cloud):
    """To another host, another port, the same host or nowhere: nobody is asked."""
    with RecordingServer() as other:
        port = other.server_address[1]
        places = (
            f"{other.url}/iot-open/sign/{part}",
            f"//127.0.0.1:{port}/",
            f"http://localhost:{port}/",
            f"http://user:password@127.0.0.1:{port}/",
            "/iot-open/sign/device/list",
            "http://169.254.169.254/latest/meta-data/",
            "file:///etc/passwd",
            "",
        )
        for place in places:
            cloud.heal()
            cloud.received.clear()
            cloud.fail(part, faults.redirect(place, status))

            assert error_of(rest).status == ExitStatus.UNAVAILABLE

            # Only what was asked for anyway, and that once.
            assert len(cloud.received) == 1 + (part == QUOTA)
        assert other.received == []


@pytest.mark.case("N16")
def test_no_redirect_leads_out_of_tls(server_tls, ca_file, tmp_path):
    """A redirect from https to http is not followed: no key goes in plain text."""
    with (
        SimulatedCloud([DELTA], tls=server_tls) as cloud,
        RecordingServer() as plain,
        ExitStack() as stack,
    ):
        cloud.fail("", faults.redirect(plain.url))
        guard = Guard(Rest(tmp_path, stack, cloud).state, "these keys")
        client = RestApiClient(
            cloud.url, ACCESS_KEY, SECRET_KEY, guard, trust=Trust(ca_file)
        )
        stack.callback(client.close)

        with pytest.raises(EcoflowApiException):
            list(client.read((), Deadline(5)))

        assert plain.received == []
        assert len(cloud.received) == 1


@pytest.mark.case("N17")
def test_a_login_portal(environ, cloud):
    """A page in answer to everything is one line with the cure, and nothing of it."""
    cloud.fail("", faults.page())

    run = push({**environ, "LOG_LEVEL": "DEBUG"})

    assert run.status == 69
    assert "check for a login portal or proxy in the way" in run.stderr
    assert "log in to the network" not in run.stderr
    assert "<html" not in run.stderr
    assert len(cloud.received) == 1


def weak(folder: Path, authority: trustme.CA) -> ssl.SSLContext:
    """Return a server whose certificate is good in all but the size of its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    issuing = serialization.load_pem_private_key(
        authority.private_key_pem.bytes(), None
    )
    assert isinstance(issuing, ec.EllipticCurvePrivateKey)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False
        )
        .sign(issuing, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = folder / "server.pem"
    path.write_bytes(secret + leaf.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_cert_chain(path)
    return context


@pytest.mark.case("N18")
def test_a_weak_certificate(environ, authority, ca_file, tmp_path):
    """A certificate of a key that is too short is refused, whoever has signed it."""
    environ["ECOFLOW_CA_FILE"] = ca_file
    with SimulatedCloud([DELTA], tls=weak(tmp_path, authority)) as cloud:
        run = push({**environ, **cloud.environ()})

        assert_decent(run, 69)
        assert "certificate was refused" in run.stderr
        assert cloud.received == []


@pytest.mark.case("N19")
def test_a_netrc_says_nothing(environ, cloud, pushgateway, tmp_path):
    """With a `.netrc` for every host, and a proxy, what is shown is ours alone."""
    (tmp_path / ".netrc").write_text("default login someone password n3trc-pa55word\n")
    (tmp_path / ".netrc").chmod(0o600)
    with Proxy() as proxy, RecordingServer() as gateway:
        run = push(
            {
                **environ,
                "HOME": str(tmp_path),
                "NETRC": str(tmp_path / ".netrc"),
                "HTTP_PROXY": proxy.url,
                "PUSHGATEWAY_URL": gateway.url,
                "PUSHGATEWAY_BEARER_TOKEN": "t0ken-of-mine",
            }
        )

        assert_decent(run, 0)
        assert len(proxy.received) == len(cloud.received) + len(gateway.received) == 4
        shown = {each.headers.get("authorization") for each in gateway.received}
        assert shown == {"Bearer t0ken-of-mine"}
        assert not any("authorization" in each.headers for each in cloud.received)
    assert not values(pushgateway.device(DELTA.sn))


@pytest.mark.case("N19")
def test_no_proxy_is_kept(environ, cloud, pushgateway):
    """What NO_PROXY names is reached without the proxy, in a run as a whole."""
    with Proxy() as proxy:
        run = push(
            {**environ, "HTTP_PROXY": proxy.url, "NO_PROXY": "127.0.0.1,localhost"}
        )

        assert_decent(run, 0)
        assert proxy.received == []
    assert values(pushgateway.device(DELTA.sn))
    assert len(cloud.received) == 2
