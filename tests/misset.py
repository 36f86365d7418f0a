"""Secrets that are set wrongly: in each variable, in each way, and in the wrong place.

Each value is made of two tokens, HEAD and TAIL; whatever is said, no part of them is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

HEAD, TAIL = "h3Ad-5eC7rX1q", "t4iL-9wK2zP8v"
WHOLE = f"{HEAD}{TAIL}"
#: What is set, and the variables that are taken away for it.
Settings = dict[str, str | None]
Wrong = Callable[[Path], Settings]

# With what stands around the secret in a right value.
PLAIN = {
    **dict.fromkeys(("ECOFLOW_ACCESS_KEY", "ECOFLOW_SECRET_KEY"), "{}"),
    **dict.fromkeys(("ECOFLOW_ACCOUNT_USER", "ECOFLOW_ACCOUNT_PASSWORD"), "{}"),
    **dict.fromkeys(("PUSHGATEWAY_PASSWORD", "REMOTE_WRITE_PASSWORD"), "{}"),
    **dict.fromkeys(("PUSHGATEWAY_BEARER_TOKEN", "REMOTE_WRITE_BEARER_TOKEN"), "{}"),
    "REMOTE_WRITE_HEADERS": "X-Api-Key: {}",
    "HEALTHCHECK_URL": "http://127.0.0.1:1/ping/{}",
}
ADDRESSES = (
    *("PUSHGATEWAY_URL", "REMOTE_WRITE_URL", "HEALTHCHECK_URL", "ECOFLOW_API_HOST"),
    *("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "NO_PROXY"),
)
# Where no secret belongs; whoever mixes up two lines puts one there.
ELSEWHERE = (
    *("ECOFLOW_SOURCE", "ECOFLOW_DEVICE_SN", "ESTABLISH_ATTEMPTS", "RETRY_TIMEOUT"),
    *("ECOFLOW_CA_FILE", "PUSHGATEWAY_CERT_FILE", "PUSHGATEWAY_KEY_FILE", "STATE_DIR"),
    *("RUN_DEADLINE", "STALE_AFTER", "COLLECTING_INTERVAL", "LOG_LEVEL", "LOG_FORMAT"),
    *("METRICS_PREFIX", "METRICS_SET", "METRICS_NAMING", "EXTRA_LABELS"),
    *("TEXTFILE_PATH", "EXPORTER_PORT", "REMOTE_WRITE_VERSION", "SPOOL_MODE"),
    *("REMOTE_WRITE_MAX_SAMPLES", "SPOOL_MAX_AGE", "SPOOL_MAX_BYTES", "MQTT_TIMEOUT"),
    *("XDG_STATE_HOME", "HOME", "NO_PROXY", "no_proxy", "KUBERNETES_SERVICE_HOST"),
    *("ECOFLOW_SECRETKEY", "ECOFLOW_PASSWORD", "MQTT_PASSWORD", "PUSHGATEWAY_TOKEN"),
)
# What a password has in the middle that an address cannot have as it is.
MARKS = "@:/#%? '\"\\[]<>ü\u200b\u00a0&=+;,$"


def value_of(name: str, **extra: str) -> Callable[[str], Wrong]:
    """Return how to set a variable to some text, with what else it needs."""
    return lambda text: lambda _: {name: text, **extra}


def _forms(name: str, form: str) -> dict[str, Wrong]:
    right = form.format(WHOLE)

    def texts(*found: tuple[str, str]) -> dict[str, Wrong]:
        return {f"{name}: {what}": value_of(name)(text) for what, text in found}

    def content(raw: bytes) -> Wrong:
        def write(folder: Path) -> Settings:
            (folder / "value").write_bytes(raw)
            return {name: None, f"{name}_FILE": str(folder / "value")}

        return write

    def fifo(folder: Path) -> Settings:
        os.mkfifo(folder / "fifo")
        return {name: right, f"{name}_FILE": str(folder / "fifo")}

    bare, file = right.encode(), f"{name}_FILE"
    return {
        **texts(
            ("quotes", f'"{right}"'),
            ("one quote", f"'{right}"),
            ("its own name", f"{name}={right}"),
            ("an export", f"export {name}={right}"),
            ("a space within", form.format(f"{HEAD} {TAIL}")),
            ("a line within", form.format(f"{HEAD}\n{TAIL}")),
            ("a control within", form.format(f"{HEAD}\x1b{TAIL}")),
            ("nothing that is seen within", form.format(f"{HEAD}\u200b{TAIL}")),
            ("a byte order mark", f"\ufeff{right}"),
            ("a surrogate", form.format(f"{HEAD}\udce4{TAIL}")),
            ("an umlaut", form.format(f"{HEAD}ü{TAIL}")),
            ("as it is", right),
        ),
        f"{name}: twice": lambda _: {name: right, file: "/nonexistent"},
        f"{name}: for its file's path": lambda _: {name: None, file: right},
        f"{name}: in its file's path": lambda _: {name: None, file: f"/{WHOLE}"},
        f"{name}: a FIFO": fifo,
        f"{name}: no UTF-8": content(bare + b"\xff"),
        f"{name}: quotes in the file": content(b'"' + bare + b'"'),
        f"{name}: its own name in the file": content(name.encode() + b"=" + bare),
        f"{name}: two lines in the file": content(bare + b"\n" + bare),
        f"{name}: a large file": content(bare * 5000),
        f"{name}: a file of UTF-16": content(right.encode("utf-16")),
    }


def _addresses(name: str) -> dict[str, Wrong]:
    value = value_of(name)
    scheme = "https" if name.endswith("API_HOST") else "http"
    pair = f"user:{HEAD}{{}}{TAIL}@127.0.0.1:1"
    found = {
        f"{name}: {mark!r} in the password": value(
            f"{scheme}://{pair.format(mark)}/api/v1/write"
        )
        for mark in MARKS
    }
    others = {
        "digits before a slash": f"{scheme}://user:12/{WHOLE}@127.0.0.1:1/a",
        "a slash in a token": f"{scheme}://h/{WHOLE}@127.0.0.1:1/a",
        "a question in a token": f"{scheme}://h?{WHOLE}@127.0.0.1:1/a",
        "no scheme": f"user:{WHOLE}@127.0.0.1:1",
        "an odd scheme": f"ftp://user:{WHOLE}@127.0.0.1:1/",
        "half a scheme": f"{scheme}:/user:{WHOLE}@127.0.0.1:1/",
        "no host": f"{scheme}://user:{WHOLE}@/",
        "an odd port": f"{scheme}://user:{WHOLE}@127.0.0.1:port/",
        "an odd host": f"{scheme}://user:{WHOLE}@..//",
        "a host beyond ASCII": f"{scheme}://user:{WHOLE}@h\u00fc\u2044st/",
        "an open bracket": f"{scheme}://user:{WHOLE}@[::1/",
        "a fragment": f"{scheme}://127.0.0.1:1/#{WHOLE}",
        "a query": f"{scheme}://127.0.0.1:1/?t={WHOLE}",
        "a path": f"{scheme}://127.0.0.1:1/{WHOLE}/x",
        # Alone it could be the name of a host.
        "only the secret": f"{HEAD}={TAIL}",
    }
    return {
        **found,
        **{f"{name}: {what}": value(text) for what, text in others.items()},
    }


def _file_of_settings(line: str) -> Wrong:
    """Let the settings stand in a file with that line in it."""

    def write(folder: Path) -> Settings:
        (folder / "settings.env").write_text(f"LOG_LEVEL=INFO\n{line}\n")
        (folder / "settings.env").chmod(0o644)
        return {}

    return write


LINES = (
    f"ECOFLOW_SECRET_KEY {WHOLE}",
    f"ECOFLOW_SECRET_KEY = {WHOLE}",
    f"ECOFLOW_SECRET_KEY: {WHOLE}",
    f'ECOFLOW_SECRET_KEY="{WHOLE}',
    f"ECOFLOW SECRET_KEY={WHOLE}",
    f"ECOFLOW_SECRET_KEY='{HEAD}' '{TAIL}'",
    f"{WHOLE}=1",
    WHOLE,
    f"ECOFLOW_SECRET_KEY={HEAD}\\\n{TAIL}",
    f"ECOFLOW_SECRET_KEY={HEAD}\0{TAIL}",
    f"set ECOFLOW_SECRET_KEY={WHOLE}",
)
#: What is set wrongly, by what that is.
WRONG: Mapping[str, Wrong] = {
    **{k: v for name, form in PLAIN.items() for k, v in _forms(name, form).items()},
    **{k: v for name in ADDRESSES for k, v in _addresses(name).items()},
    # Without the mark it could be a serial number, or a host's name.
    **{f"{name}: a secret": value_of(name)(f"{HEAD}={TAIL}") for name in ELSEWHERE},
    **{
        f"{name}: an address": value_of(name)(f"https://u:{WHOLE}@h")
        for name in ELSEWHERE
    },
    **{f"line {n}": _file_of_settings(line) for n, line in enumerate(LINES)},
}
#: Of the command line, where no secret is taken.
ARGUMENTS = (
    (f"--secret-key={WHOLE}",),
    ("--secret-key", WHOLE),
    (WHOLE,),
    (f"ECOFLOW_SECRET_KEY={WHOLE}",),
    (f"--device={HEAD} {TAIL}",),
    ("--device", f"https://u:{WHOLE}@h"),
    ("--every", WHOLE),
    (f"--every={WHOLE}",),
    (f"--check={WHOLE}",),
    (f"-{WHOLE}",),
    (f"--{WHOLE}",),
    ("--env-file", f"ECOFLOW_SECRET_KEY={WHOLE}"),
    (f"--env-file=ECOFLOW_SECRET_KEY={WHOLE}", "--check"),
    ("--init", WHOLE),
    (f"--dry-run{WHOLE}",),
)
