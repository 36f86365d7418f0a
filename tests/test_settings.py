"""The environment, read from a dict."""

import subprocess
import sys

import pytest

from ecoflow_push.config.environ import Reader
from ecoflow_push.config.kinds import Secret
from ecoflow_push.config.plugs import SINKS, SOURCES, load
from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import CredentialsConflictError, SettingsError
from tests.plugs import EVERY_SINK
from tests.support import ROOT

KEYS = {"ECOFLOW_ACCESS_KEY": "AK1", "ECOFLOW_SECRET_KEY": "SK2"}
BASE = {**KEYS, "PUSHGATEWAY_URL": "http://gateway:9091", "HOME": "/home/me"}
ACCOUNT = {"ECOFLOW_ACCOUNT_USER": "me@example.org", "ECOFLOW_ACCOUNT_PASSWORD": "pw3"}


def test_the_defaults():
    """What is not set has the documented default."""
    settings = Settings.from_environ(BASE)

    assert list(settings.sources) == ["rest"]
    assert list(settings.sinks) == ["pushgateway"]
    assert settings.account == "AK1"
    assert settings.api_url == "https://api.ecoflow.com"
    assert settings.device_sns == ()
    assert settings.interval == 10
    assert settings.attempts == 5
    assert settings.longest_wait == 30
    assert settings.run_deadline == 50
    assert settings.stale_after == 300
    assert settings.job == "ecoflow"
    assert settings.prefix == "ecoflow"
    assert settings.log_level == "INFO"
    assert settings.log_format == "text"
    assert settings.state_dir == "/home/me/.local/state/ecoflow-push"
    assert settings.proxies == {}


def test_the_state_folder_follows_xdg():
    """XDG_STATE_HOME moves the state, STATE_DIR names it."""
    xdg = {**BASE, "XDG_STATE_HOME": "/state"}

    assert Settings.from_environ(xdg).state_dir == "/state/ecoflow-push"
    assert Settings.from_environ({**xdg, "STATE_DIR": "/mine"}).state_dir == "/mine"


def test_white_space_is_stripped_and_empty_is_unset():
    """Values are stripped, as pasted and mounted ones need, and empty ones ignored."""
    settings = Settings.from_environ(
        {**BASE, "ECOFLOW_ACCESS_KEY": " AK1\n", "PUSH_JOB": " ", "LOG_LEVEL": "debug"}
    )

    assert settings.account == "AK1"
    assert settings.job == "ecoflow"
    assert settings.log_level == "DEBUG"


@pytest.mark.case("K4")
def test_a_value_from_a_file(tmp_path):
    """X_FILE gives the value of X, a byte order mark and line ends left out."""
    file = tmp_path / "secret"
    file.write_bytes(b"\xef\xbb\xbfAK-from-file\r\n")
    environ = {**BASE, "ECOFLOW_ACCESS_KEY_FILE": str(file)}
    del environ["ECOFLOW_ACCESS_KEY"]

    assert Settings.from_environ(environ).account == "AK-from-file"


@pytest.mark.case("K6")
def test_a_secret_does_not_print():
    """Neither a secret nor what holds it prints it."""
    secret = Reader(BASE).header_secret("ECOFLOW_SECRET_KEY")

    assert secret
    assert secret.reveal() == "SK2"
    assert "SK2" not in f"{secret} {secret!r} {[secret]}"


@pytest.mark.case("K12")
@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("api-e.ecoflow.com", "https://api-e.ecoflow.com"),
        ("api-e.ecoflow.com:8443", "https://api-e.ecoflow.com:8443"),
        ("https://api-a.ecoflow.com/", "https://api-a.ecoflow.com"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost:1", "http://localhost:1"),
    ],
)
def test_the_api_host(given, url):
    """The API host may be a host, host:port or a URL; http only for loopback."""
    assert Settings.from_environ({**BASE, "ECOFLOW_API_HOST": given}).api_url == url


@pytest.mark.case("K12")
@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://gateway:9091", "http://gateway:9091"),
        ("https://gateway/prefix/", "https://gateway/prefix"),
        ("http://gateway:9091/metrics", "http://gateway:9091"),
        ("http://gateway:9091/a/metrics/", "http://gateway:9091/a"),
        ("http://user:w%40rd9@gateway:9091", "http://gateway:9091"),
    ],
)
def test_the_gateway_url(given, url):
    """A prefix stays, a trailing /metrics goes, credentials leave the URL."""
    settings = Settings.from_environ({**BASE, "PUSHGATEWAY_URL": given})

    server = settings.sinks["pushgateway"]
    assert server.url == url
    if "@" in given:
        assert server.username == "user"
        assert server.password.reveal() == "w@rd9"


def test_names_labels_and_proxies():
    """Maps are read, and the usual proxy variables in either case."""
    settings = Settings.from_environ(
        {
            **BASE,
            "ECOFLOW_DEVICE_SN": "R331A, R601B ,R331A,",
            "ECOFLOW_DEVICE_NAME": "R331A=Garage, R601B=The shed",
            "EXTRA_LABELS": "site=home,owner=me",
            "HTTPS_PROXY": "proxy:3128",
            "no_proxy": "gateway",
        }
    )

    assert settings.device_sns == ("R331A", "R601B")
    assert settings.device_names == {"R331A": "Garage", "R601B": "The shed"}
    assert settings.extra_labels == {"site": "home", "owner": "me"}
    assert settings.proxies == {
        "https": "http://proxy:3128",
        "https from": "HTTPS_PROXY",
        "no": "gateway",
    }


def test_a_plain_name_for_the_one_device():
    """A plain name belongs to the one serial that is named."""
    environ = {**BASE, "ECOFLOW_DEVICE_SN": "R331A", "ECOFLOW_DEVICE_NAME": "Garage"}

    assert Settings.from_environ(environ).device_names == {"R331A": "Garage"}


def test_the_instance_in_a_container():
    """In a pod, whose name changes, the job names the installation."""
    pod = {**BASE, "KUBERNETES_SERVICE_HOST": "10.0.0.1", "PUSH_JOB": "home"}

    assert Settings.from_environ(pod).instance == "home"
    assert Settings.from_environ({**pod, "PUSH_INSTANCE": "pi"}).instance == "pi"


def test_both_credential_pairs_conflict():
    """Both pairs at once are a conflict until ECOFLOW_SOURCE chooses."""
    with pytest.raises(CredentialsConflictError):
        Settings.from_environ({**BASE, **ACCOUNT})

    for source, sources in {
        "rest": ["rest"],
        "mqtt": ["mqtt"],
        "auto": ["rest", "mqtt"],
    }.items():
        chosen = Settings.from_environ({**BASE, **ACCOUNT, "ECOFLOW_SOURCE": source})
        assert list(chosen.sources) == sources
        # Whoever chooses another source keeps the memory.
        assert chosen.account == "AK1"


@pytest.mark.parametrize("name", SOURCES)
def test_each_source_says_whose_data_it_is(name):
    """It is what its first variable says, so that the lock can be looked at early."""
    read = Reader(dict.fromkeys(SOURCES[name], "somebody"))

    config = load("api", name).read(read)

    read.raise_faults()
    assert config.account == "somebody"
    assert load("api", name).LEAST_INTERVAL >= 0


def test_a_conflict_names_what_is_set():
    """The fault has all variables of each source, the cure all ways to choose."""
    with pytest.raises(CredentialsConflictError) as caught:
        Settings.from_environ({**BASE, **ACCOUNT})

    (fault,) = caught.value.faults
    assert fault.text == (
        "ECOFLOW_ACCESS_KEY, ECOFLOW_SECRET_KEY, ECOFLOW_ACCOUNT_USER and"
        " ECOFLOW_ACCOUNT_PASSWORD are set"
    )
    assert fault.cure.startswith("leave one of them")
    assert fault.cure.endswith(" or auto")


def test_an_app_account_alone_is_the_other_source():
    """Without developer keys the source is MQTT, and the account is its user."""
    settings = Settings.from_environ({**ACCOUNT, "TEXTFILE_PATH": "/tmp/x.prom"})

    assert list(settings.sources) == ["mqtt"]
    assert settings.account == "me@example.org"


def test_the_app_account_is_not_visited_more_often_than_it_bears():
    """The interval is raised to the longest that any source asks for."""
    account = {**ACCOUNT, "TEXTFILE_PATH": "/tmp/x.prom"}

    assert not Settings.from_environ(BASE, every=5).is_interval_raised
    assert Settings.from_environ(BASE, every=5).interval == 5
    assert Settings.from_environ(account, every=5).is_interval_raised
    assert Settings.from_environ(account, every=5).interval == 60


def test_sinks_in_the_order_of_their_table():
    """Sinks are there in the order in which they deliver; what stays, with --every."""
    environ = {**BASE, **EVERY_SINK}
    once = Settings.from_environ(environ)
    staying = Settings.from_environ(environ, every=0.0)

    assert list(once.sinks) == [name for name in SINKS if name != "exporter"]
    assert list(staying.sinks) == list(SINKS)


def test_a_sink_that_stays_is_none_for_one_run():
    """EXPORTER_PORT alone is a sink with --every, and none without."""
    environ = {**KEYS, "EXPORTER_PORT": "9100", "HOME": "/home/me"}

    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(environ)

    (fault,) = caught.value.faults
    assert fault.text == "no sink"
    assert fault.cure.startswith("set TEXTFILE_PATH, ")
    assert fault.cure.endswith(
        " or REMOTE_WRITE_URL (with --every, EXPORTER_PORT also is one),"
        " or use --dry-run"
    )
    assert Settings.from_environ(environ, every=0.0).has_sink
    assert not Settings.from_environ(environ, needs_sink=False).has_sink


def test_an_unset_plug_is_not_imported():
    """Only the sources and sinks that the environment speaks of are imported."""
    code = (
        "import sys; from ecoflow_push.config.settings import Settings;"
        f"Settings.from_environ({BASE!r}); print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()

    rooms = {"api": SOURCES, "sinks": SINKS}
    plugs = {f"ecoflow_push.{room}.{name}" for room in rooms for name in rooms[room]}
    assert plugs & set(loaded) == {
        "ecoflow_push.api.rest",
        "ecoflow_push.sinks.pushgateway",
    }


def test_a_fault_knows_its_variable():
    """Each fault has the variable, what is wrong and what to do apart."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ({**BASE, "LOG_LEVEL": "LOUD", "PUSHGATEWAY_URL": ""})

    assert [(each.variable, each.text) for each in caught.value.faults] == [
        ("LOG_LEVEL", "expected one of DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("", "no sink"),
    ]
    assert caught.value.faults[1].cure.startswith("set ")


FAULTS = [
    ({"ECOFLOW_ACCESS_KEY": ""}, "ECOFLOW_ACCESS_KEY: missing"),
    ({"ECOFLOW_SECRET_KEY": ""}, "ECOFLOW_SECRET_KEY: missing"),
    ({"ECOFLOW_ACCESS_KEY": "a b"}, "ECOFLOW_ACCESS_KEY: expected ASCII"),
    ({"ECOFLOW_SECRET_KEY": "a\x07b"}, "ECOFLOW_SECRET_KEY: expected one line"),
    ({"ECOFLOW_ACCESS_KEY": "", "ECOFLOW_SECRET_KEY": ""}, "no credentials"),
    (
        {"ECOFLOW_SOURCE": "mqtt"},
        "ECOFLOW_SOURCE: mqtt needs ECOFLOW_ACCOUNT_USER and ECOFLOW_ACCOUNT_PASSWORD",
    ),
    ({"ECOFLOW_SOURCE": "auto"}, "ECOFLOW_SOURCE: auto needs ECOFLOW_ACCOUNT_USER"),
    ({"ECOFLOW_SOURCE": "bluetooth"}, "ECOFLOW_SOURCE: expected one of rest, mqtt"),
    (
        {"ECOFLOW_API_HOST": "http://api.ecoflow.com"},
        "ECOFLOW_API_HOST: expected https",
    ),
    ({"ECOFLOW_API_HOST": "https://a/b"}, "ECOFLOW_API_HOST: expected a host"),
    ({"ECOFLOW_API_HOST": "ftp://a"}, "ECOFLOW_API_HOST: expected a host"),
    ({"ECOFLOW_CA_FILE": "/nonexistent/ca.pem"}, "ECOFLOW_CA_FILE: no such file"),
    ({"ECOFLOW_DEVICE_SN": "R331/../x"}, "ECOFLOW_DEVICE_SN: expected serial"),
    ({"ECOFLOW_DEVICE_NAME": "Garage"}, "ECOFLOW_DEVICE_NAME: a plain name"),
    ({"ECOFLOW_DEVICE_NAME": "R331A=x,R331A=y"}, "ECOFLOW_DEVICE_NAME: expected SN="),
    ({"ESTABLISH_ATTEMPTS": "0"}, "ESTABLISH_ATTEMPTS: expected a whole number from 1"),
    ({"ESTABLISH_ATTEMPTS": "2.5"}, "ESTABLISH_ATTEMPTS: expected a whole number"),
    ({"RETRY_TIMEOUT": "-1"}, "RETRY_TIMEOUT: expected seconds from 0"),
    ({"MQTT_TIMEOUT": "soon"}, "MQTT_TIMEOUT: expected seconds from 1"),
    ({"COLLECTING_INTERVAL": "0.5"}, "COLLECTING_INTERVAL: expected seconds from 1"),
    ({"EXPORTER_PORT": "70000"}, "EXPORTER_PORT: expected a whole number from 1 to"),
    ({"RUN_DEADLINE": "nan"}, "RUN_DEADLINE: expected seconds from 1"),
    ({"STALE_AFTER": "inf"}, "STALE_AFTER: expected seconds from 0"),
    ({"METRICS_PREFIX": "9x"}, "METRICS_PREFIX: expected letters"),
    ({"METRICS_SET": "raw,cooked"}, "METRICS_SET: expected raw or normalized"),
    ({"METRICS_NAMING": "x"}, "METRICS_NAMING: expected one of ecoflow, berezhinskiy"),
    ({"EXTRA_LABELS": "device=x"}, "EXTRA_LABELS: the label device is used"),
    ({"EXTRA_LABELS": "index_0=x"}, "EXTRA_LABELS: the label index_0 is used"),
    ({"EXTRA_LABELS": "__x=x"}, "EXTRA_LABELS: the label __x is used"),
    ({"EXTRA_LABELS": "a=1,a=2"}, "EXTRA_LABELS: expected name=value"),
    ({"EXTRA_LABELS": "a="}, "EXTRA_LABELS: expected name=value"),
    ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL: expected one of DEBUG, INFO"),
    ({"LOG_FORMAT": "xml"}, "LOG_FORMAT: expected one of text, json"),
    ({"PUSHGATEWAY_URL": "gateway:9091"}, "PUSHGATEWAY_URL: expected http(s)://host"),
    ({"PUSHGATEWAY_URL": "http://a/?x=1"}, "PUSHGATEWAY_URL: expected http(s)://host"),
    ({"PUSHGATEWAY_URL": "http://h:99999"}, "PUSHGATEWAY_URL: expected http(s)://host"),
    ({"PUSHGATEWAY_URL": ""}, "no sink"),
    (
        {"PUSHGATEWAY_URL": "http://g:9091/metrics/job/ecoflow"},
        "the gateway alone, http(s)://host:9091[/prefix]: leave /metrics/job... out",
    ),
    (
        {"PUSHGATEWAY_URL": "http://g/p/metrics/job@base64/eA==/a/b"},
        "PUSHGATEWAY_URL: expected the gateway alone",
    ),
    (
        {"PUSHGATEWAY_URL": "http://a..b:9091"},
        "PUSHGATEWAY_URL: no host can be called a..b",
    ),
    (
        {"PUSHGATEWAY_URL": f"http://{'a' * 64}.example"},
        "PUSHGATEWAY_URL: no host can be called aaa",
    ),
    (
        {"PUSHGATEWAY_URL": "http://b\u00fccher\u2713.example/x"},
        "PUSHGATEWAY_URL: no host can be called b\u00fccher\u2713.example",
    ),
    ({"ECOFLOW_API_HOST": "a..b"}, "ECOFLOW_API_HOST: no host can be called a..b"),
    ({"HTTP_PROXY": "a..b:3128"}, "HTTP_PROXY: no host can be called a..b"),
    ({"PUSHGATEWAY_USERNAME": "u"}, "PUSHGATEWAY_PASSWORD: missing"),
    ({"PUSHGATEWAY_KEY_FILE": __file__}, "PUSHGATEWAY_KEY_FILE: needs"),
    ({"TEXTFILE_PATH": "/tmp"}, "TEXTFILE_PATH: expected a file"),
    ({"https_proxy": "socks5://x:1"}, "https_proxy: expected http(s)://host:port"),
    ({"HTTPS_PROXY": "socks5://x:1"}, "HTTPS_PROXY: expected http(s)://host:port"),
    ({"ECOFLOW_SECRET_KEY_FILE": "/nonexistent"}, "set only one of them"),
    (
        {"HTTP_PROXY": "p:1", "NO_PROXY": "http://h:1/x"},
        "NO_PROXY: expected hosts, separated by commas",
    ),
    (
        {"HTTP_PROXY": "p:1", "NO_PROXY": "u:pw@h"},
        "NO_PROXY: expected hosts, separated by commas",
    ),
    (
        {"HTTP_PROXY": "p:1", "no_proxy": "a\u200b.example"},
        "no_proxy: holds a ZERO WIDTH SPACE",
    ),
    ({"STATE_DIR": "/tmp/a\u200b"}, "STATE_DIR: holds a ZERO WIDTH SPACE"),
    ({"HOME": "home", "STATE_DIR": ""}, "HOME: expected an absolute path"),
    ({"PUSHGATEWAY_URL": "http://u:12/3@g:9091"}, "write %2F for /, %3F for ?"),
    ({"PUSHGATEWAY_URL": "http://u:pw#1@g:9091"}, "%23 for # and %40 for @"),
    ({"HEALTHCHECK_URL": "http://u:12?3@g:9091"}, "write %2F for /, %3F for ?"),
]


def test_hosts_without_a_proxy():
    """NO_PROXY has hosts, domains, networks and ports, with commas or spaces."""
    hosts = ".b.example *.c,10.0.0.0/8 , [::1]:80, fe80::1%eth0, b\u00fccher.example"
    environ = {**BASE, "HTTP_PROXY": "p:1", "NO_PROXY": hosts}

    settings = Settings.from_environ(environ)

    said = ".b.example,*.c,10.0.0.0/8,[::1]:80,fe80::1%eth0,b\u00fccher.example"
    assert settings.proxies["no"] == said


def test_without_a_proxy_its_exceptions_say_nothing():
    """NO_PROXY in whatever form is no fault where no proxy is set."""
    settings = Settings.from_environ({**BASE, "NO_PROXY": "localhost;<local>"})

    assert settings.proxies == {}


ONE_CAUSE = {
    "half a pair": {"ECOFLOW_SECRET_KEY": ""},
    "half a pair of the source that is chosen": {
        "ECOFLOW_SOURCE": "rest",
        "ECOFLOW_SECRET_KEY": "",
    },
    "the only sink's address": {"PUSHGATEWAY_URL": "gateway"},
    "the only sink's file": {"PUSHGATEWAY_URL": "", "PUSHGATEWAY_URL_FILE": "/x"},
    "the only sink's path": {"PUSHGATEWAY_URL": "", "TEXTFILE_PATH": "/tmp"},
}


@pytest.mark.parametrize("cause", ONE_CAUSE)
def test_one_cause_is_one_fault(cause):
    """What follows from a fault, that nothing is read or pushed, is not another."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ({**BASE, **ONE_CAUSE[cause]})

    [fault] = caught.value.faults
    assert fault.variable


@pytest.mark.case("K5", "K12")
@pytest.mark.parametrize(("change", "words"), FAULTS, ids=lambda value: str(value)[:50])
def test_a_fault_is_named(change, words):
    """A faulty variable is named, with what was expected."""
    with pytest.raises(SettingsError, match=r"^settings: ") as caught:
        Settings.from_environ({**BASE, **change})

    assert words in str(caught.value)


def test_all_faults_come_together_without_any_secret():
    """All faults stand in one line, and no secret's value with them."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(
            {
                "ECOFLOW_SECRET_KEY": "tops3cret with spaces",
                "PUSHGATEWAY_BEARER_TOKEN": "t0ken",
                "PUSHGATEWAY_USERNAME": "u",
                "PUSHGATEWAY_PASSWORD": "passw0rd",
                "RUN_DEADLINE": "x",
                "LOG_LEVEL": "x",
            }
        )

    text = str(caught.value)
    for name in (
        "ECOFLOW_ACCESS_KEY",
        "ECOFLOW_SECRET_KEY",
        "RUN_DEADLINE",
        "LOG_LEVEL",
    ):
        assert name in text
    for name in ("PUSHGATEWAY_BEARER_TOKEN", "no sink"):
        assert name in text
    for secret in ("tops3cret", "t0ken", "passw0rd"):
        assert secret not in text
    assert "\n" not in text


@pytest.mark.case("K6")
def test_a_secret_is_not_its_text():
    """A secret cannot slip into a string by accident."""
    assert f"{Secret('x1y2')}" == "***"


@pytest.mark.case("K12")
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://B\u00dcCHER.example:9091/p", "http://xn--bcher-kva.example:9091/p"),
        ("http://stra\u00dfe.example", "http://xn--strae-oqa.example"),
        ("https://u:pw12@b\u00fccher.example", "https://xn--bcher-kva.example"),
        ("http://[fd00::1]:9091/", "http://[fd00::1]:9091"),
        ("http://gateway.:9091/metrics/", "http://gateway.:9091"),
        ("http://g/metrics/jobs", "http://g/metrics/jobs"),
    ],
)
def test_a_gateway_s_address_is_made_one(url, expected):
    """Names of other letters are written as DNS has them; literals keep brackets."""
    settings = Settings.from_environ({**BASE, "PUSHGATEWAY_URL": url})

    assert settings.sinks["pushgateway"].url == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h:8086?db=x", "http://h:8086/?db=x"),
        ("http://h:8086/?db=x", "http://h:8086/?db=x"),
        ("http://h/a?db=x", "http://h/a?db=x"),
        ("http://h", "http://h"),
        ("http://[::1]?db=x", "http://[::1]/?db=x"),
    ],
)
def test_a_query_stands_behind_a_path(url, expected):
    """An endpoint's address that has a query and no path is one of the root."""
    settings = Settings.from_environ({**BASE, "REMOTE_WRITE_URL": url})

    assert settings.sinks["remote_write"].server.url == expected


def test_other_hosts_of_other_letters_are_encoded_too():
    """EcoFlow's host and a proxy may have such names as well."""
    settings = Settings.from_environ(
        {
            **BASE,
            "ECOFLOW_API_HOST": "b\u00fccher.example",
            "HTTPS_PROXY": "http://u:pw12@b\u00fccher.example:3128",
        }
    )

    assert settings.api_url == "https://xn--bcher-kva.example"
    assert settings.proxies["https"] == "http://u:pw12@xn--bcher-kva.example:3128"
