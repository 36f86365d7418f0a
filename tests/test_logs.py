"""The log's promises: one event, one line, no secret."""

import json
import logging
import subprocess
import sys

import pytest

from ecoflow_push import logs
from ecoflow_push.redact import learn
from tests.support import ROOT


@pytest.fixture
def log(capfd):
    """A function that logs and returns what reached stderr."""

    def write(message, *args, style="text", exc_info=False):
        logs.configure("DEBUG", style)
        logging.getLogger("ecoflow_push.test").warning(
            message, *args, exc_info=exc_info
        )
        return capfd.readouterr().err

    yield write
    logging.getLogger().handlers.clear()


@pytest.mark.case("K6")
def test_a_traceback_is_masked_too(log):
    """A secret in an exception's text is masked in its traceback."""
    learn("tops3cret")
    said = {}
    try:
        int("tops3cret")
    except ValueError:
        for style in ("text", "json"):
            said[style] = log("a bug", style=style, exc_info=True)

    assert "\nTraceback" in said["text"]
    assert json.loads(said["json"])["traceback"].startswith("Traceback")
    assert "tops3cret" not in f"{said}"


@pytest.mark.case("K6")
def test_a_bug_in_a_thread_is_masked_too():
    """What ends a thread that nobody waits for is an event of the log."""
    code = (
        "import sys, threading; from ecoflow_push import logs, redact;"
        "redact.learn('tops3cret'); logs.configure('INFO', 'json');"
        "threading.Thread(target=int, args=('tops3cret',)).start()"
    )

    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stderr

    assert "ValueError" in json.loads(said)["traceback"]
    assert "tops3cret" not in said


@pytest.mark.case("D6", "K9")
def test_one_event_is_one_line(log):
    """Line ends, escapes and lone surrogates of other people are spelled out."""
    said = log("name %s", "a\nb\x1b[31m\u2028\ud800")

    assert said.count("\n") == 1
    assert "a\\nb\\x1b[31m\\u2028\\ud800" in said


def test_json_lines(log):
    """LOG_FORMAT=json writes one object a line, redacted."""
    learn("tops3cret")
    event = json.loads(log("say %s", "tops3cret\n", style="json"))

    assert event["level"] == "warning"
    assert event["message"] == "say ***\n"
    assert event["time"].endswith("Z")


def test_a_secret_learnt_late_is_masked(log):
    """What is learnt after a line was written is masked in what is kept of it."""
    assert "l4te-secret" in log("before l4te-secret")

    learn("l4te-secret")

    assert "l4te-secret" not in log("after l4te-secret")
    assert "WARNING before ***" in logs.recent()
    assert "l4te-secret" not in logs.recent()


def test_the_last_words_have_the_form_of_the_log(log, capfd):
    """What is written past the log is redacted, and in the form that was set."""
    learn("tops3cret")
    said = []
    for style in ("text", "json"):
        log("x", style=style)
        logs.last_words("exit 75 tops3cret\n")
        said += capfd.readouterr().err.splitlines()

    text, event = said
    assert text.endswith(" ERROR exit 75 ***\\n")
    assert json.loads(event)["message"] == "exit 75 ***\n"
    assert len(text.split()[0]) == len(json.loads(event)["time"])


@pytest.mark.case("K8")
def test_libraries_keep_quiet(capsys):
    """At DEBUG, libraries still say nothing: they would log URLs and headers."""
    logs.configure("DEBUG", "text")
    logging.getLogger("urllib3.connectionpool").debug("GET /?sn=R331ZFAKE0000001")

    assert capsys.readouterr().err == ""
    logging.getLogger().handlers.clear()
