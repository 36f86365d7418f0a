"""The log's promises: one event, one line, no secret."""

import base64
import json
import logging

import pytest

from ecoflow_push import logs


@pytest.fixture
def log(capsys):
    """A function that logs and returns what reached stderr."""

    def write(message, *args, style="text", secrets=(), exc_info=False):
        logs.configure("DEBUG", style, secrets)
        logging.getLogger("ecoflow_push.test").warning(
            message, *args, exc_info=exc_info
        )
        return capsys.readouterr().err

    yield write
    logging.getLogger().handlers.clear()


NASTY = "p\"a's/s @\n+ü€"


@pytest.mark.parametrize(
    "spelling",
    [
        NASTY,
        repr(NASTY),
        json.dumps(NASTY),
        base64.b64encode(NASTY.encode()).decode(),
        NASTY.encode().hex(),
        "p%22a%27s%2Fs%20%40%0A%2B%C3%BC%E2%82%AC",
    ],
)
def test_a_secret_is_masked_in_every_spelling(spelling, log):
    """Raw, quoted, encoded or in base64: a secret becomes ***."""
    assert "***" in log("x %s y", spelling, secrets=[NASTY])


def test_a_traceback_is_masked_too(log):
    """A secret in an exception's text is masked in its traceback."""
    try:
        int("tops3cret")
    except ValueError:
        said = log("a bug", secrets=["tops3cret"], exc_info=True)

    assert "Traceback" in said
    assert "tops3cret" not in said


def test_one_event_is_one_line(log):
    """Line ends, escapes and lone surrogates of other people are spelled out."""
    said = log("name %s", "a\nb\x1b[31m\u2028\ud800")

    assert said.count("\n") == 1
    assert "a\\nb\\x1b[31m\\u2028\\ud800" in said


def test_json_lines(log):
    """LOG_FORMAT=json writes one object a line, redacted."""
    event = json.loads(
        log("say %s", "tops3cret\n", style="json", secrets=["tops3cret"])
    )

    assert event["level"] == "warning"
    assert event["message"] == "say ***\n"
    assert event["time"].endswith("Z")


def test_libraries_keep_quiet(capsys):
    """At DEBUG, libraries still say nothing: they would log URLs and headers."""
    logs.configure("DEBUG", "text", ())
    logging.getLogger("urllib3.connectionpool").debug("GET /?sn=R331ZFAKE0000001")

    assert capsys.readouterr().err == ""
    logging.getLogger().handlers.clear()
