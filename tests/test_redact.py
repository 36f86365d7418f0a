"""The redactor: what is read of secrets is masked from that moment on."""

import base64
import html
import json
import time
from urllib.parse import quote

import pytest

from ecoflow_push.config.environ import Reader
from ecoflow_push.config.kinds import TENANT_HEADERS
from ecoflow_push.net.retry import Reply
from ecoflow_push.redact import learn, learn_tokens, redact
from tests.fuzz import forget_secrets

NASTY = "p\"a's/s @\n+ü€"


@pytest.mark.case("K2")
@pytest.mark.parametrize(
    "spelling",
    [
        NASTY,
        repr(NASTY),
        json.dumps(NASTY),
        base64.b64encode(NASTY.encode()).decode(),
        base64.urlsafe_b64encode(NASTY.encode()).decode(),
        NASTY.encode().hex(),
        NASTY.encode().hex().upper(),
        "p%22a%27s%2Fs%20%40%0A%2B%C3%BC%E2%82%AC",
        "p%22a%27s%2fs%20%40%0a%2b%c3%bc%e2%82%ac",
        "p%22a%27s/s%20%40%0A%2B%C3%BC%E2%82%AC",
        "p%22a%27s%2Fs+%40%0A%2B%C3%BC%E2%82%AC",
        quote(base64.b64encode(NASTY.encode()).decode().rstrip("="), safe=""),
        json.dumps(NASTY, ensure_ascii=False),
        json.dumps(NASTY).replace("/", "\\/"),
        html.escape(NASTY),
        html.escape(NASTY, quote=False),
        html.escape(NASTY).replace("&quot;", "&#34;").replace("&#x27;", "&#39;"),
        repr(NASTY.encode()),
        NASTY.encode().decode("latin-1"),
        json.dumps(json.dumps(NASTY)),
        json.dumps(html.escape(NASTY)),
        NASTY.encode("latin-1", "replace").decode("utf-8", "replace"),
        NASTY.encode("ascii", "replace").decode(),
        json.dumps(NASTY, ensure_ascii=False).encode().decode("latin-1"),
    ],
)
def test_a_secret_is_masked_in_every_spelling(spelling):
    """Raw, quoted, encoded or in base64: a secret becomes ***."""
    learn(NASTY)

    said = redact(f"x {spelling} y")

    assert "***" in said
    assert spelling not in said


@pytest.mark.parametrize("mark", "&<>")
def test_a_secret_as_go_writes_json(mark):
    """Go escapes in JSON what a web page could take for its own."""
    learn(f"g0-s3cret{mark}x")

    assert redact(f"g0-s3cret\\u{ord(mark):04x}x") == "***"


@pytest.mark.parametrize(
    "url",
    [
        "http://h/?t=w3q-Tok%2B7e9nX2",
        "http://w3q-Tok%2B7e9nX2@h/",
        "http://h/w3q-Tok%2B7e9nX2/write",
    ],
)
def test_parts_of_a_token_in_a_url(url):
    """Of a token in an address any part is masked: servers quote them cut."""
    Reader({"X": url}).url("X", query=True)

    assert redact("say w3q-Tok+7...") == "say ***..."


def test_a_secret_within_another_one():
    """Of two secrets, one within the other, nothing of the longer one stays."""
    learn("inner-s3cret", "outer-inner-s3cret-outer")

    assert redact("<outer-inner-s3cret-outer>") == "<***>"


def test_a_server_s_words_are_masked_before_they_are_cut():
    """However far behind it stands in an answer, of a secret no half is said."""
    learn("f4r-behind-s3cret")
    body = b" " * 7_995 + b"f4r-behind-s3cret" + b"." * 200

    assert Reply(400, {}, body).words() == "***" + "." * 200


def test_what_is_short_is_not_masked():
    """What has fewer than four characters would garble every line."""
    learn("", "a", "xyz")

    assert redact("a lazy xyz") == "a lazy xyz"


KINDS = {
    "a secret": (
        lambda read: read.secret("X"),
        {"X": "k1nd-secret"},
        ["k1nd-secret"],
    ),
    "a secret for a header, though faulty": (
        lambda read: read.header_secret("X"),
        {"X": "k1nd with spaces"},
        ["k1nd with spaces"],
    ),
    "a pair, in one piece": (
        lambda read: read.pair("U", "P"),
        {"U": "k1nd-user", "P": "x"},
        ["k1nd-user:x", base64.b64encode(b"k1nd-user:x").decode().rstrip("=")],
    ),
    "the password in a URL": (
        lambda read: read.url("X"),
        {"X": "http://k2nd:zq%409x-in-url@host"},
        ["zq@9x-in-url", "k2nd:zq@9x-in-url"],
    ),
    "a token in the user's place": (
        lambda read: read.url("X"),
        {"X": "http://k3nd-token@host"},
        [
            "k3nd-token",
            base64.b64encode(b"k3nd-token:").decode().rstrip("="),
        ],
    ),
    "the values of a query": (
        lambda read: read.url("X", query=True),
        {"X": "http://host/?a=k4nd%2Fone&b=k4nd+two"},
        ["k4nd/one", "k4nd+two", "k4nd two", "a=k4nd%2Fone&b=k4nd+two"],
    ),
    "a whole URL": (
        lambda read: read.whole_url("X"),
        {"X": "https://host/k5nd-uuid"},
        ["https://host/k5nd-uuid", "/k5nd-uuid"],
    ),
    "a header": (
        lambda read: read.headers("X"),
        {"X": "Authorization: Bearer k6nd-bearer; X-Key: k6nd-key"},
        ["Bearer k6nd-bearer", "k6nd-bearer", "k6nd-key"],
    ),
    "a proxy's password": (
        lambda read: read.proxies(),
        {"https_proxy": "me:k7nd-password@proxy:3128"},
        ["k7nd-password", "me:k7nd-password"],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_secret_is_masked_once_it_is_read(kind):
    """Each kind of secret registers itself when it is read, and not before."""
    # Another test's token may have a part in common with these.
    forget_secrets()
    work, environ, secrets = KINDS[kind]
    assert [redact(secret) for secret in secrets] == secrets

    work(Reader(environ))

    assert [redact(secret) for secret in secrets] == ["***"] * len(secrets)


def test_a_secret_from_a_file_is_masked(tmp_path):
    """A mounted secret registers itself as one of a variable does."""
    file = tmp_path / "secret"
    file.write_text("k8nd-mounted\n")

    Reader({"X_FILE": str(file)}).secret("X")

    assert redact("say k8nd-mounted") == "say ***"


def test_what_is_no_secret_is_not_masked():
    """Tenants, users with a password, hosts and plain texts may be said."""
    read = Reader(
        {
            "H": "; ".join(f"{name}: k9nd-tenant" for name in TENANT_HEADERS),
            "U": "http://k9nd-user:p4ssword@k9nd-host/k9nd-path",
            "T": "k9nd-text",
        }
    )

    assert read.headers("H")
    assert read.url("U")
    assert read.text("T")

    said = "k9nd-tenant k9nd-user k9nd-host k9nd-path k9nd-text"
    assert redact(said) == said


@pytest.mark.parametrize(
    "path",
    [
        "prometheus-remote-write",
        "remote-write-v2",
        "pushgateway1",
        "streams/Acme-PrometheusMetrics/write?api-version=2023-04-24",
    ],
)
def test_a_route_of_words_leaves_our_lines_readable(path):
    """Words in an address take none from what the program itself says."""
    assert Reader({"U": f"http://a-host/{path}"}).url("U", query=True)

    said = "remote-write: ok, pushgateway: ok; Prometheus keeps the order"
    assert redact(said) == said


@pytest.mark.parametrize("token", ["tk-9f3c71e0b2d8", "qwertzuiopasdfghjklyx"])
def test_of_a_token_in_a_path_any_part_is_masked(token):
    """What no word is called is a token, and is known when it is quoted cut."""
    assert Reader({"U": f"http://a-host/{token}/write"}).url("U")

    assert redact(f"say {token[3:]} and {token[:-2]}") == "say *** and ***"


def test_a_token_of_one_letter_takes_no_time():
    """A server that repeats itself as token and text does not hold the process up."""
    for unit in ("9", "98", "abcd-"):
        learn_tokens(unit * 900)
        began = time.process_time()
        redact((unit * 800 + " ") * 4)
        assert time.process_time() - began < 1
