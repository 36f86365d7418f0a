"""--init where something is there already: it is offered, kept or named."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ecoflow_push.config.env_file import over_files
from ecoflow_push.simulator.cloud import ACCESS_KEY, SECRET_KEY
from tests.support import push_anew
from tests.typist import (
    ELSEWHERE,
    IN_FILES,
    KEYS,
    NUMBER,
    PASSWORD,
    Typist,
    as_cron,
    by_gateway,
    finish,
    settings_file,
    typing,
)

ANEW = "Write it anew, without comments, and offer what it says? [no]: "
# An address that is set, and no longer anybody's.
GONE = "http://gateway.invalid:9091"


def test_a_file_that_is_there_is_kept(home, pushgateway):
    """Another file is written unless the answer is yes."""
    file = settings_file(home)
    file.parent.mkdir()
    file.write_text("METRICS_SET=raw\n")
    other = file.with_name("other.env")
    with typing(home) as typist:
        came = typist.answer(ANEW)
        assert f"{file} is there.\n" in came
        typist.answer("Which file then? ", "/dev/null/where")
        came = typist.answer("Which file then? ", "~/.config/other.env")
        assert "wrong    /dev/null/where: nothing can be written in " in came
        for prompt, answer in by_gateway(pushgateway.url):
            typist.answer(prompt, answer)
        finish(typist)

    assert file.read_text() == "METRICS_SET=raw\n"
    assert f"PUSHGATEWAY_URL={pushgateway.url}\n" in other.read_text()
    assert "METRICS_SET" not in other.read_text()
    assert f"--env-file {other}\n" in typist.screen


def test_a_file_that_is_there_is_changed(home, pushgateway):
    """What it says is offered, what was not asked stays, and it is closed to others."""
    target = Path(home["HOME"], "elsewhere.env")
    lines = ["METRICS_SET=raw", "STALE_AFTER=nonsense", f"PUSHGATEWAY_URL={GONE}"]
    secret = Path(home["HOME"], "the secret")
    secret.write_text(SECRET_KEY)
    lines += [f"ECOFLOW_ACCESS_KEY={ACCESS_KEY}", f"ECOFLOW_SECRET_KEY_FILE={secret}"]
    target.write_text("\n".join([*lines, "NO_SETTING=x", ""]))
    target.chmod(0o644)
    settings_file(home).parent.mkdir()
    settings_file(home).symlink_to(target)
    with typing(home) as typist:
        typist.answer(ANEW, "y")
        came = typist.answer(NUMBER)
        assert "wrong    STALE_AFTER: expected seconds" in came
        assert "wrong    NO_SETTING: not one of the settings: it is left out" in came
        for prompt, _ in KEYS[1:]:
            typist.answer(prompt.replace(": ", " [as before]: "))
        typist.answer(NUMBER)
        typist.answer(f"Its address [{GONE}]: ", pushgateway.url)
        typist.answer(NUMBER)
        typist.answer(ELSEWHERE)
        typist.answer(IN_FILES)
        finish(typist)

    said = over_files([str(target)], {})
    assert said["METRICS_SET"] == "raw"
    assert said["PUSHGATEWAY_URL"] == pushgateway.url
    assert said["ECOFLOW_SECRET_KEY_FILE"] == str(secret)
    assert not said.keys() & {"STALE_AFTER", "NO_SETTING", "ECOFLOW_SECRET_KEY"}
    assert settings_file(home).is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert as_cron(home, target).status == 0


def take_what_is_offered(typist: Typist, gateway_url: str) -> None:
    """Press Enter, from the keys to the end."""
    for prompt, _ in KEYS[1:]:
        typist.answer(prompt.replace(": ", " [as before]: "))
    typist.answer(NUMBER)
    typist.answer(f"Its address [{gateway_url}]: ")
    for prompt in (NUMBER, ELSEWHERE, IN_FILES):
        typist.answer(prompt)
    finish(typist)


def test_what_the_environment_says_is_offered(home, cloud, pushgateway):
    """It is named, its secrets are not; Enter takes it, and a run needs it no more."""
    environ = {**home, **cloud.environ(), "PUSHGATEWAY_URL": pushgateway.url}
    with typing(environ) as typist:
        came = typist.answer(NUMBER)
        assert "environment: ECOFLOW_ACCESS_KEY, ECOFLOW_SECRET_KEY, ECOFLOW_" in came
        take_what_is_offered(typist, pushgateway.url)

    assert as_cron(home, settings_file(home)).status == 0


def test_of_two_accounts_in_the_environment_one_is_chosen(home, cloud, pushgateway):
    """A run from that environment, with the file, knows which one was meant."""
    environ = {**home, **cloud.environ(), **cloud.account_environ()}
    with typing({**environ, "PUSHGATEWAY_URL": pushgateway.url}) as typist:
        typist.answer(NUMBER)
        take_what_is_offered(typist, pushgateway.url)

    run = push_anew(environ, "--env-file", str(settings_file(home)))
    assert (run.status, "1 ok" in run.stderr) == (0, True)


@pytest.mark.parametrize("keeps", [False, True])
def test_what_is_left_out_is_named(keeps, home, cloud, pushgateway):
    """Settings of a way that is not taken any more are named before they are gone."""
    said = {**cloud.environ(), "PUSHGATEWAY_URL": pushgateway.url}
    token = Path(home["HOME"], "a-token")
    token.write_text(PASSWORD)
    gone = {
        "ECOFLOW_SOURCE": "rest",
        **{k: v for k, v in cloud.account_environ().items() if "ACCOUNT" in k},
        "REMOTE_WRITE_URL": GONE,
        "REMOTE_WRITE_BEARER_TOKEN_FILE": str(token),
        "SPOOL_MAX_AGE": "3600",
        "TEXTFILE_PATH": "/nowhere/ecoflow.prom",
    }
    file = settings_file(home)
    file.parent.mkdir()
    lines = {**said, **({} if keeps else gone)}.items()
    file.write_text("".join(f"{name}={value}\n" for name, value in lines))
    with typing(home) as typist:
        typist.answer(ANEW, "y")
        typist.answer(NUMBER)
        for prompt, _ in KEYS[1:]:
            typist.answer(prompt.replace(": ", " [as before]: "))
        typist.answer(NUMBER)
        typist.answer(f"Its address [{pushgateway.url}]: ")
        typist.answer(NUMBER)
        typist.answer(ELSEWHERE if keeps else ELSEWHERE.replace("no", "yes"), "n")
        came = typist.answer(IN_FILES)
        finish(typist)

    found = over_files([str(file)], {})
    left_out = [line for line in came.splitlines() if line.startswith("Left out: ")]
    assert not found.keys() & gone.keys()
    assert left_out == ([] if keeps else [f"Left out: {', '.join(sorted(gone))}."])


def test_a_secret_of_another_installation_is_kept(home, pushgateway):
    """A file with a secret that is there is replaced only if the answer is yes."""
    folder = settings_file(home).parent
    folder.mkdir()
    theirs = folder / "ecoflow-secret-key"
    theirs.write_text("theirs")
    with typing(home) as typist:
        for prompt, answer in by_gateway(pushgateway.url)[:-1]:
            typist.answer(prompt, answer)
        typist.answer(IN_FILES, "y")
        came = typist.answer("there already. Replace? [no]: ")
        assert f"{theirs}: there" in came
        finish(typist)

    assert theirs.read_text() == "theirs"
    assert not (folder / "ecoflow-access-key").exists()
    said = over_files([str(settings_file(home))], {})
    assert said["ECOFLOW_SECRET_KEY"] == SECRET_KEY


def test_a_place_that_is_gone_at_the_end(home, pushgateway):
    """Where the file cannot be written in the end, another one is asked for."""
    with typing(home) as typist:
        for prompt, answer in by_gateway(pushgateway.url)[:-1]:
            typist.answer(prompt, answer)
        settings_file(home).mkdir(parents=True)
        typist.answer(IN_FILES, "y")
        came = typist.answer("Which file then? ", "~/other.env")
        assert f"wrong    {settings_file(home)}: cannot be written (" in came
        finish(typist)

    assert list(settings_file(home).parent.iterdir()) == [settings_file(home)]
    assert Path(home["HOME"], "ecoflow-secret-key").read_text() == f"{SECRET_KEY}\n"
    assert as_cron(home, Path(home["HOME"], "other.env")).status == 0
