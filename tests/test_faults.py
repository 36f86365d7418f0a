"""What the world can do to a run: each fault has its status, one line, no secret."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from ecoflow_push.simulator import faults
from ecoflow_push.simulator.cloud import ACCESS_KEY, SECRET_KEY, SimulatedCloud
from ecoflow_push.simulator.server import RecordingServer
from tests.conftest import DELTA, STREAM
from tests.support import LATE, Run, free_port, gateway, push, push_anew, values

LIST = "device/list"
QUOTA = "quota/all"
DEADLINE = 2.0
NESTED = b'{"code":"0","data":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
ODD_NUMBERS = (
    b'{"code":"0","data":{"a":NaN,"b":Infinity,"c":' + b"9" * 400 + b',"d":'
    b"1" + b"0" * 5000 + b',"e":1e999,"f":-Infinity,"pd.soc":87}}'
)

# Each row of the error table, and each of the ways in which a server can fail:
# the fault, the status, what the line must say, and how often the list is asked for.
CLOUD_FAULTS = {
    "8521": (faults.code("8521", "signature is wrong"), 77, "ECOFLOW_SECRET_KEY", 3),
    "8513": (faults.code("8513", "accessKey is invalid"), 77, "api-e.ecoflow.com", 1),
    "8512": (faults.code("8512", "no permission"), 77, "main device", 1),
    "1006": (faults.code("1006", "not allowed"), 77, "app account", 1),
    "1008": (faults.code("1008", "check your params"), 69, "ECOFLOW_DEVICE_SN", 1),
    "no permission": (faults.code("9", "no permission to do it"), 77, "permission", 1),
    "too busy": (faults.code("9", "Server is too busy"), 75, "too busy", 1),
    "401": (faults.code("401", "unauthorized"), 77, "code 401", 1),
    "7005": (faults.code("7005", "whatever"), 77, "code 7005", 1),
    "unknown code": (
        faults.code("4711", "never seen"),
        69,
        "never seen (trace ea1a)",
        1,
    ),
    "HTTP 401": (faults.status(401), 77, "HTTP 401", 1),
    "HTTP 403": (faults.status(403), 77, "blocks noisy clients", 1),
    "HTTP 404": (faults.status(404), 69, "HTTP 404", 1),
    "HTTP 429": (faults.status(429), 75, "asked us to wait", 5),
    "HTTP 429 an hour": (faults.status(429, Retry_After="3600"), 75, "3600 s", 1),
    "HTTP 500": (faults.status(500), 69, "HTTP 500", 5),
    "HTTP 502": (faults.status(502, faults.PAGE), 69, "HTTP 502", 5),
    "HTTP 503 junk": (faults.status(503, Retry_After="soon"), 69, "HTTP 503", 5),
    "HTTP 504": (faults.status(504), 69, "HTTP 504", 5),
    "hang": (faults.hang(), 75, "in time", None),
    "drip of headers": (faults.drip_headers(), 75, "in time", None),
    "drip of the body": (faults.drip_body(), 75, "in time", None),
    "100 Continue for ever": (faults.continue_for_ever(), 75, "in time", None),
    "endless body": (faults.endless_body(), 69, "answered with more than", 1),
    "compressed": (
        faults.status(200, b"x", Content_Encoding="br"),
        69,
        "not EcoFlow's JSON",
        1,
    ),
    "reset": (faults.reset(), 69, "reset", 5),
    "cut short": (faults.cut(), 69, "cut short", 5),
    "HTML": (faults.page(), 69, "text/html, not EcoFlow's JSON", 1),
    "empty": (faults.body(b""), 69, "not EcoFlow's JSON", 1),
    "truncated JSON": (
        faults.body(b'{"code":"0","data":{"pd.'),
        69,
        "not EcoFlow's",
        1,
    ),
    "not UTF-8": (faults.body(b'{"code":"0\xff"}'), 69, "not EcoFlow's JSON", 1),
    "200,000 brackets": (faults.body(NESTED), 69, "far more than", 1),
    "a list": (faults.body(b"[]"), 69, "not EcoFlow's JSON", 1),
    "no code": (faults.body(b'{"data":{}}'), 69, "not EcoFlow's JSON", 1),
    "data of another type": (faults.body(b'{"code":0,"data":"x"}'), 69, " not a ", 1),
    "HTTP/0.9": (faults.raw(b"hello\r\n"), 69, "broken HTTP", 5),
    "bad chunks": (
        faults.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        69,
        "",
        5,
    ),
    "no answer": (faults.raw(b""), 69, "without an answer", 5),
    "200 headers": (
        faults.raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"),
        69,
        "",
        5,
    ),
}


def assert_decent(run: Run, status: int, *, lines: int = 1) -> None:
    """A run ended in time with its status, one line, no traceback and no secret."""
    assert run.status == status, run.stderr
    assert len(run.stderr.splitlines()) == lines, run.stderr
    assert "Traceback" not in run.stderr
    for secret in (ACCESS_KEY, SECRET_KEY):
        assert secret not in run.stderr + run.stdout


@pytest.mark.case(
    "N3", "N4", "N5", "N6", "N7", "N8", "N9", "N10", "N13", "N15", "N17", "D1", "D5"
)
@pytest.mark.parametrize("where", [LIST, QUOTA])
@pytest.mark.parametrize("fault", CLOUD_FAULTS)
def test_a_fault_of_the_cloud(fault, where, environ, cloud, pushgateway):
    """A fault of the cloud ends in its status, in time, and the run metrics say so."""
    misbehave, status, words, requests = CLOUD_FAULTS[fault]
    cloud.fail(where, misbehave)
    environ |= {"RUN_DEADLINE": str(DEADLINE), "LOG_LEVEL": "INFO"}

    run = push(environ)

    assert_decent(run, status)
    assert words in run.stderr
    assert run.seconds < DEADLINE + LATE
    own = pushgateway.run()
    assert own["ecoflow_push_exit_status"] == status
    assert own["ecoflow_push_success"] == 0
    assert not values(pushgateway.device(DELTA.sn))
    if requests:
        asked = [received for received in cloud.received if where in received.path]
        # It was dialled ahead, or kept; one that is closed is dialled again at once.
        assert len(asked) == requests + (fault in ("reset", "no answer"))


@pytest.mark.case("N7", "N14")
@pytest.mark.parametrize("fault", ["HTTP 500", "reset", "cut short", "8521"])
def test_a_passing_fault_is_tried_again(fault, environ, cloud, pushgateway):
    """A fault that passes costs another try, each with a fresh nonce and signature."""
    # A kept connection that is closed costs no try.
    times = 3 if fault == "reset" else 2
    cloud.fail(QUOTA, CLOUD_FAULTS[fault][0], times=times)

    assert_decent(push(environ), 0)

    signs = [each.headers["sign"] for each in cloud.received if QUOTA in each.path]
    nonces = [each.headers["nonce"] for each in cloud.received if QUOTA in each.path]
    assert len(set(signs)) == len(set(nonces)) == times + 1
    assert values(pushgateway.device(DELTA.sn))


@pytest.mark.case("N13")
def test_a_short_retry_after_is_obeyed(environ, cloud):
    """A Retry-After that fits is waited for."""
    cloud.fail(LIST, faults.status(503, Retry_After="1"), times=1)

    run = push({**environ, "RETRY_TIMEOUT": "5"})

    assert_decent(run, 0)
    assert run.seconds >= 1


@pytest.mark.case("N13")
def test_a_long_retry_after_silences_the_next_runs(environ, cloud, pushgateway):
    """After a Retry-After too long for the run, the next runs do not ask at all."""
    cloud.fail(LIST, faults.status(429, Retry_After="600"), times=1)
    assert_decent(push(environ), 75)
    asked = len(cloud.received)

    run = push(environ)

    assert_decent(run, 75)
    assert len(cloud.received) == asked
    assert pushgateway.run()["ecoflow_push_exit_status"] == 75


@pytest.mark.case("N15")
def test_refused_keys_are_not_tried_every_minute(environ, cloud, pushgateway):
    """After three refusals in a row the keys rest for 5 minutes, or until changed."""
    cloud.fail(LIST, faults.code("8513", "accessKey is invalid"))
    for _ in range(3):
        assert_decent(push(environ), 77)
    asked = len(cloud.received)

    assert_decent(push(environ), 77)
    assert len(cloud.received) == asked
    assert pushgateway.run()["ecoflow_push_exit_status"] == 77
    assert_decent(push({**environ, "ECOFLOW_SECRET_KEY": "another"}), 77)
    assert len(cloud.received) == asked + 1


@pytest.mark.case("D3")
def test_odd_numbers_are_left_out(environ, cloud, pushgateway):
    """NaN, infinities and 400- and 5000-digit numbers are counted, never pushed."""
    cloud.fail(QUOTA, faults.body(ODD_NUMBERS))

    assert_decent(push_anew(environ), 0)

    assert values(pushgateway.device(DELTA.sn)) == {("ecoflow_pd_soc", ()): 87}
    assert pushgateway.run()["ecoflow_push_skipped_values non_finite"] == 6


@pytest.mark.case("N22")
def test_one_hanging_device_does_not_starve_the_next(environ, cloud, pushgateway):
    """A device whose quotas hang costs its own share; the other one is read."""
    cloud.devices.append(STREAM)
    cloud.fail(f"{QUOTA}?sn={DELTA.sn}", faults.hang())

    run = push({**environ, "RUN_DEADLINE": "4"})

    assert_decent(run, 1)
    assert values(pushgateway.device(STREAM.sn))


@pytest.mark.case("N16", "K11")
def test_a_redirect_is_not_followed(environ, cloud, pushgateway):
    """A redirect by EcoFlow is 69, and the other host never sees the keys."""
    with RecordingServer() as other:
        cloud.fail(LIST, faults.redirect(other.url))

        assert_decent(push(environ), 69)

        assert other.received == []
        assert len(cloud.received) == 1


@pytest.mark.case("N1", "N11")
def test_a_refused_connection_and_a_dead_name(environ, pushgateway):
    """A closed port and a name that does not resolve are 69, with plain words."""
    environ["ECOFLOW_API_HOST"] = f"http://127.0.0.1:{free_port()}"
    run = push(environ)
    assert_decent(run, 69)
    assert "connection refused" in run.stderr

    environ["ECOFLOW_API_HOST"] = "api.ecoflow.invalid"
    run = push(environ)
    assert_decent(run, 69)
    assert "could not be resolved" in run.stderr
    assert pushgateway.run()["ecoflow_push_exit_status"] == 69


@pytest.mark.case("N18")
def test_a_certificate_nobody_trusts(environ, server_tls, tmp_path):
    """A certificate of an unknown authority is 69, tried once, never in plain text."""
    with SimulatedCloud([DELTA], tls=server_tls) as cloud:
        run = push({**environ, **cloud.environ()})

        assert_decent(run, 69)
        assert "certificate was refused" in run.stderr
        assert cloud.received == []


@pytest.mark.case("N18")
def test_a_silent_handshake_ends_in_time(environ):
    """A server that accepts and never speaks TLS is 75 within the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        environ["ECOFLOW_API_HOST"] = f"https://127.0.0.1:{port}"

        run = push({**environ, "RUN_DEADLINE": "2"})

    assert_decent(run, 75)
    assert run.seconds < 2 + LATE


# -- sinks ------------------------------------------------------------------------

SINK_FAULTS = {
    "400": (
        faults.status(400, b"pushed metrics are inconsistent"),
        76,
        "inconsistent",
        2,
    ),
    "401": (faults.status(401, b"Unauthorized"), 77, "PUSHGATEWAY_USERNAME", 1),
    "403": (faults.status(403), 77, "HTTP 403", 1),
    "302": (faults.redirect("http://127.0.0.1:1/"), 76, "PUSHGATEWAY_URL", 1),
    "500": (faults.status(500, b"write queue is full"), 74, "queue is full", None),
    "429": (faults.status(429), 74, "HTTP 429", None),
    "page": (faults.page(), 74, "web page", None),
    "hang": (faults.hang(), 74, "in time", None),
    "drip": (faults.drip_headers(), 74, "in time", None),
    "drip of the body": (faults.drip_body(), 74, "in time", None),
    "reset": (faults.reset(), 74, "reset", None),
}


@pytest.mark.case("P1", "P2", "P4", "K11")
@pytest.mark.parametrize("fault", SINK_FAULTS)
@pytest.mark.parametrize("beside", ["alone", "beside a textfile"])
def test_a_fault_of_the_gateway(fault, beside, environ, tmp_path):
    """A gateway's fault has its status alone, and is partial beside a sink that works.

    A 400, a 401 or a redirect is not tried twice.
    """
    misbehave, status, words, requests = SINK_FAULTS[fault]
    textfile = tmp_path / "ecoflow.prom"
    environ["RUN_DEADLINE"] = "2"
    if beside != "alone":
        environ["TEXTFILE_PATH"] = str(textfile)
        status = 1
    with RecordingServer() as faulty:
        faulty.fail("", misbehave)
        environ["PUSHGATEWAY_URL"] = faulty.url

        run = push(environ)

        assert_decent(run, status)
        assert words in run.stderr
        assert run.seconds < 2 + LATE
        if requests:
            assert len(faulty.received) == requests
    if beside != "alone":
        assert "ecoflow_pd_soc{" in textfile.read_text()
        assert f"ecoflow_push_exit_status {status}.0" in textfile.read_text()


@pytest.mark.case("P1")
def test_a_gateway_that_is_not_there(environ):
    """A closed port is 74: nothing was delivered, and nothing can be stored for it."""
    environ["PUSHGATEWAY_URL"] = f"http://127.0.0.1:{free_port()}"

    run = push(environ)

    assert_decent(run, 74)
    assert "connection refused" in run.stderr


def test_a_passing_fault_of_the_gateway_is_tried_again(environ):
    """A gateway's 503 that passes costs another try."""
    with RecordingServer() as flaky:
        flaky.fail("", faults.status(503), times=2)

        assert_decent(push({**environ, "PUSHGATEWAY_URL": flaky.url}), 0)

        assert len(flaky.received) == 4


@pytest.mark.case("P8")
def test_one_refused_device_does_not_stop_the_others(environ, cloud, pushgateway):
    """A real gateway's 400 for one device is partial, quoted, and the rest arrives."""
    cloud.devices.append(STREAM)
    import urllib.request

    # Another job holds the same name with another type.
    clash = b"# TYPE ecoflow_cms_batt_soc counter\necoflow_cms_batt_soc 1\n"
    urllib.request.urlopen(
        urllib.request.Request(
            f"{pushgateway.url}/metrics/job/other", data=clash, method="PUT"
        ),
        timeout=30,
    ).close()

    run = push(environ)

    assert_decent(run, 1)
    # Pushgateway 1.11.0 crashes over its own log line here and hangs up.
    explained = "HTTP 400" in run.stderr and "ecoflow_cms_batt_soc" in run.stderr
    assert explained or "closed without an answer" in run.stderr
    assert values(pushgateway.device(DELTA.sn))
    assert pushgateway.run()["ecoflow_push_exit_status"] == 1


def test_cloud_and_gateway_both_down(environ):
    """With nothing collected, a gateway that is down changes nothing about the 69."""
    closed = f"http://127.0.0.1:{free_port()}"

    run = push({**environ, "ECOFLOW_API_HOST": closed, "PUSHGATEWAY_URL": closed})

    assert_decent(run, 69)


# -- the machine --------------------------------------------------------------------


@pytest.mark.case("S1")
def test_a_state_folder_that_cannot_be_made(environ, pushgateway, tmp_path):
    """Without a usable state folder the run works, warns, and remembers nothing."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    environ["STATE_DIR"] = str(blocked / "state")

    run = push(environ)

    assert_decent(run, 0, lines=2)
    assert "nothing is remembered" in run.stderr
    assert values(pushgateway.device(DELTA.sn))


def test_without_state_a_failed_device_is_reduced_at_once(
    environ, cloud, pushgateway, tmp_path
):
    """Without memory nobody knows how old a group is: a failure reduces it at once."""
    assert push(environ).status == 0
    blocked = tmp_path / "file"
    blocked.write_text("")
    cloud.fail(QUOTA, faults.status(500))

    assert push({**environ, "STATE_DIR": str(blocked / "state")}).status == 69

    assert not values(pushgateway.device(DELTA.sn))


@pytest.mark.case("S14")
@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000],
)
def test_a_damaged_state_file_is_told_and_kept_aside(
    damage, environ, pushgateway, tmp_path
):
    """A damaged state costs the memory alone: one warning, and the file beside."""
    assert push(environ).status == 0
    (file,) = tmp_path.rglob("state.json")
    file.write_bytes(damage)

    told, after = push(environ), push(environ)

    assert told.status == 0
    warning, line = told.stderr.splitlines()
    assert " WARNING " in warning
    assert "state.json.damaged" in warning
    assert " INFO exit 0 OK " in line
    assert (file.parent / "state.json.damaged").read_bytes() == damage
    assert_decent(after, 0)
    assert values(pushgateway.device(DELTA.sn))


@pytest.mark.parametrize("option", ["--dry-run", "--list-devices", "--check"])
def test_who_only_looks_leaves_a_damaged_state_file(option, environ, tmp_path):
    """What is not a run says that the state is damaged, and leaves it to the next."""
    assert push(environ).status == 0
    (file,) = tmp_path.rglob("state.json")
    file.write_bytes(b"{")

    looked = push(environ, option)

    assert looked.status == 0
    assert "will be kept as state.json.damaged" in looked.stderr
    assert file.read_bytes() == b"{"
    assert "was kept as state.json.damaged" in push(environ).stderr


@pytest.mark.case("S14")
@pytest.mark.parametrize(
    "hostile",
    [
        b'{"version": 1, "devices": [1], "refusals": "x", "dropped": [1e400]}',
        b'{"version": 1, "pause_until": {"rest": 1e400, "mqtt": "never"}}',
        b'{"version": 1, "devices": {"R331ZFAKE0000001": {"snapshot_at": NaN}}}',
        b'{"version": 1, "devices": {"R331ZFAKE0000001": {"name": 7, "missing": -9}}}',
    ],
)
def test_a_hostile_state_file_is_no_obstacle(hostile, environ, pushgateway, tmp_path):
    """Of a state file whose values are none that we write, none is believed."""
    assert push(environ).status == 0
    (file,) = tmp_path.rglob("state.json")
    file.write_bytes(hostile)

    assert_decent(push(environ), 0)

    assert json.loads(file.read_text())["version"] == 1
    assert values(pushgateway.device(DELTA.sn))


@pytest.mark.case("S11")
def test_a_newer_state_file_is_never_overwritten(environ, pushgateway, tmp_path):
    """With a newer version's state a run does without a memory, and says the cure."""
    assert push(environ).status == 0
    (file,) = tmp_path.rglob("state.json")
    newer = b'{"version": 99}'
    file.write_bytes(newer)

    run = push(environ)

    assert run.status == 0
    assert "newer version" in run.stderr
    assert "update this program, or let STATE_DIR name another folder" in run.stderr
    assert file.read_bytes() == newer
    assert values(pushgateway.device(DELTA.sn))


@pytest.mark.case("K14")
def test_state_files_are_private(environ, tmp_path):
    """The state folder is 0700, its files 0600, and nothing gives a key away."""
    assert push(environ).status == 0

    (file,) = tmp_path.rglob("state.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert {path.name for path in file.parent.iterdir()} == {"lock", "state.json"}
    content = file.read_text()
    assert len(file.parent.name) == 12
    assert ACCESS_KEY not in content
    assert SECRET_KEY not in content


def test_a_textfile_that_cannot_be_written(environ, tmp_path):
    """A missing folder of the textfile is 74 alone, 1 beside a gateway that works."""
    environ["TEXTFILE_PATH"] = str(tmp_path / "missing" / "ecoflow.prom")
    run = push(environ)
    assert_decent(run, 1)
    assert "No such file" in run.stderr

    del environ["PUSHGATEWAY_URL"]
    assert_decent(push(environ), 74)


@pytest.mark.case("S2")
def test_a_full_disk(environ, pushgateway, tmp_path):
    """On a full disk the old textfile stays whole, the gateway is served, no litter."""
    textfile = tmp_path / "ecoflow.prom"
    textfile.write_text("old\n")
    environ["TEXTFILE_PATH"] = str(textfile)

    # RLIMIT_FSIZE: no file of this process may grow beyond a few bytes.
    limited = push_limited(environ, file_bytes=16)

    assert limited.status == 1, limited.stderr
    assert "Traceback" not in limited.stderr
    assert textfile.read_text() == "old\n"
    assert values(pushgateway.device(DELTA.sn))
    litter = [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    assert litter == []


def push_limited(environ: dict[str, str], file_bytes: int) -> Run:
    import subprocess
    import sys

    from tests.support import PUSH

    code = (
        "import resource, signal, runpy, sys;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({file_bytes}, {file_bytes}));"
        f"sys.argv = ['push.py']; runpy.run_path({str(PUSH)!r}, run_name='__main__')"
    )
    done = subprocess.run(
        # -B, or an import leaves a module that is cut short.
        [sys.executable, "-B", "-c", code],
        env={"PATH": os.defpath, "PYTHONPATH": str(PUSH.parent), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)


@pytest.mark.case("L8")
def test_a_full_stdout(environ):
    """--dry-run into a full device is 74 with one line."""
    import subprocess
    import sys

    from tests.support import PUSH

    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, PUSH, "--dry-run"],
            env=environ,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )

    assert_decent(Run(done.returncode, "", done.stderr), 74)


@pytest.mark.case("L8")
def test_closed_streams_change_nothing(environ, pushgateway):
    """A run whose stdout and stderr are closed delivers and exits as ever."""
    import subprocess
    import sys

    from tests.support import PUSH

    line = f'exec "{sys.executable}" "{PUSH}" >&- 2>&-'
    done = subprocess.run(["sh", "-c", line], env=environ, timeout=60, check=False)

    assert done.returncode == 0
    assert values(pushgateway.device(DELTA.sn))


@pytest.mark.case("K4")
def test_a_secret_file_that_cannot_be_read(environ, tmp_path):
    """A missing secret file, a folder and a FIFO are 78, and nothing is contacted."""
    del environ["ECOFLOW_SECRET_KEY"]
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path / "missing", tmp_path, fifo):
        run = push({**environ, "ECOFLOW_SECRET_KEY_FILE": str(path)})
        assert_decent(run, 78)
        assert "ECOFLOW_SECRET_KEY_FILE" in run.stderr


@pytest.mark.case("L11")
def test_the_bare_environment_of_cron(cloud, tmp_path):
    """Without HOME, under LC_ALL=C and in /, a run works."""
    run = push(
        {
            **cloud.environ(),
            "TEXTFILE_PATH": str(tmp_path / "ecoflow.prom"),
            "STATE_DIR": str(tmp_path / "state"),
            "LC_ALL": "C",
            "HOME": "",
        }
    )

    assert_decent(run, 0)


# -- a gateway behind TLS and passwords ---------------------------------------------


def web_config(folder: Path, *lines: str) -> str:
    path = folder / "web.yml"
    path.write_text("\n".join(lines) + "\n")
    return f"--web.config.file={path}"


@pytest.mark.case("P10", "K13")
def test_a_remote_gateway_with_basic_auth_and_a_private_ca(
    environ, authority, ca_file, tmp_path
):
    """TLS by a private CA, basic auth and a client certificate work together."""
    import bcrypt

    server = authority.issue_cert("localhost")
    server.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    client = authority.issue_cert("client@example.org")
    client.private_key_pem.write_to_path(str(tmp_path / "client.key"))
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "client.pem"))
    hashed = bcrypt.hashpw("pä:ss".encode(), bcrypt.gensalt(4)).decode()
    config = web_config(
        tmp_path,
        "tls_server_config:",
        "  cert_file: server.pem",
        "  key_file: server.pem",
        "  client_auth_type: RequireAndVerifyClientCert",
        f"  client_ca_file: {ca_file}",
        "basic_auth_users:",
        f"  user: {hashed}",
    )
    with gateway(config, scheme="https") as remote:
        environ |= {
            "PUSHGATEWAY_URL": remote.url,
            "PUSHGATEWAY_CA_FILE": ca_file,
            "PUSHGATEWAY_USERNAME": "user",
            "PUSHGATEWAY_PASSWORD": "pä:ss",
            "PUSHGATEWAY_CERT_FILE": str(tmp_path / "client.pem"),
            "PUSHGATEWAY_KEY_FILE": str(tmp_path / "client.key"),
        }
        assert_decent(push(environ), 0)

        wrong = push({**environ, "PUSHGATEWAY_PASSWORD": "wrong"})
        assert_decent(wrong, 77)
        assert "wrong" not in wrong.stderr.replace("is wrong", "")

        url = remote.url.replace("//", "//user:p%C3%A4%3Ass@")
        in_url = {
            name: value
            for name, value in environ.items()
            if name not in ("PUSHGATEWAY_USERNAME", "PUSHGATEWAY_PASSWORD")
        }
        assert_decent(push({**in_url, "PUSHGATEWAY_URL": url}), 0)

        del environ["PUSHGATEWAY_CA_FILE"]
        assert_decent(push(environ), 74)
