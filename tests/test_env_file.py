"""--env-file: what a file may hold, what is stronger, and what is said of a bad one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ecoflow_push.config.env_file import files_alone, over_files
from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import SettingsError
from ecoflow_push.simulator import faults
from tests.conftest import DELTA
from tests.support import PUSH, eventually, forked, push, push_anew

LINES = {
    b"A=b": "b",
    b"  A=b  ": "b",
    b"export A=b": "b",
    b"export  A=b": "b",
    b"export\tA=b": "b",
    b"A= b": "b",
    b"A='b'": "b",
    b'A="b c"': "b c",
    b"A='\"b\"'": '"b"',
    b'A="it\'s"': "it's",
    b'A="a"b"': 'a"b',
    b'A=b"c"': 'b"c"',
    b"A=b # c": "b # c",
    b"A=$HOME/b": "$HOME/b",
    b"A='$HOME'": "$HOME",
    b"A=b\\n\\": "b\\n\\",
    b"A=b=c": "b=c",
    b"A=b\r\n": "b",
    b"\xef\xbb\xbfA=b": "b",
    b"\xef\xbb\xbf# c\n\n \t\n  # A=c\nA=b": "b",
    b"A=c\nA=b": "b",
    b"A=b\n#A=c": "b",
    "A=\u00e4\u2028\u0085b".encode(): "\u00e4\u2028\u0085b",
    b"_a1=x\nA=b": "b",
    b"export=x\nA=b": "b",
}


@pytest.mark.parametrize("content", LINES, ids=repr)
def test_what_a_line_says(content, tmp_path):
    """A line gives its value as it is, but for one pair of quotes around it."""
    file = tmp_path / "x.env"
    file.write_bytes(content)

    assert over_files([str(file)], {})["A"] == LINES[content]


SECRET = "tops3cret"
MALFORMED = {
    SECRET: "line 1: expected KEY=value: without spaces",
    f"A=b\n\n{SECRET}": "line 3: expected KEY=value",
    f"A = {SECRET}": "line 1: expected KEY=value",
    f"A ={SECRET}": "line 1: expected KEY=value",
    f"A: {SECRET}": "line 1: expected KEY=value",
    f"={SECRET}": "line 1: expected KEY=value",
    f"1A={SECRET}": "line 1: expected KEY=value",
    f"A-B={SECRET}": "line 1: expected KEY=value",
    f"\u00c4={SECRET}": "line 1: expected KEY=value",
    f"export\nA={SECRET}": "line 1: expected KEY=value",
    f"set A={SECRET}": "line 1: expected KEY=value",
    f"A='{SECRET}": "line 1: the line does not end with the quote",
    f'A="{SECRET}" # note': "line 1: the line does not end with the quote",
    f"A=\"{SECRET}'": "line 1: the line does not end with the quote",
    'A="': "line 1: the line does not end with the quote",
}


@pytest.mark.parametrize("content", MALFORMED, ids=repr)
def test_a_malformed_line(content, tmp_path):
    """It is 78 in one line that names file and line, and never its text."""
    file = tmp_path / "x.env"
    file.write_text(content)

    run = push({}, "--env-file", str(file))

    assert run.status == 78
    [line] = run.stderr.splitlines()
    assert f"settings: --env-file: {file} {MALFORMED[content]}" in line
    assert SECRET not in line


@pytest.mark.case("K4")
@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "bytes", "long", "nul"])
def test_a_file_that_cannot_be_read(kind, tmp_path):
    """It is 78 in one line, in a run and in every other mode."""
    file = tmp_path / "x.env"
    words = {
        "missing": ": cannot be read (No such file or directory)",
        "folder": ": cannot be read (Is a directory)",
        "fifo": ": expected a regular file",
        "bytes": " line 2: expected UTF-8 text",
        "long": ": longer than 65536 bytes",
        "nul": ": cannot be read (its name)",
    }[kind]
    if kind == "folder":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind == "bytes":
        file.write_bytes(b"A=b\nB=\xff")
    elif kind == "long":
        file.write_text("#" * 65_537)
    elif kind == "nul":
        with pytest.raises(SettingsError, match="its name"):
            over_files(["a\0b"], {})
        return

    for mode in ([], ["--every"], ["--dry-run"], ["--list-devices"], ["--demo"]):
        run = push({}, *mode, "--env-file", str(file))
        assert run.status == 78
        [line] = run.stderr.splitlines()
        assert f"--env-file: {file}{words}" in line
    run = push({}, "--check", "--env-file", str(file))
    assert run.status == 78
    assert f"{file}{words}" in run.stdout


def test_a_proxy_has_two_spellings(tmp_path):
    """The environment's own is stronger than the file's, whichever it is."""
    file = tmp_path / "1"
    file.write_text("http_proxy=1\nHTTPS_PROXY=1\nno_proxy=1\nNO_PROXY=1\n")

    whole = over_files([str(file)], {"HTTP_PROXY": "2", "https_proxy": "2"})

    assert whole == {
        "HTTP_PROXY": "2",
        "https_proxy": "2",
        "no_proxy": "1",
        "NO_PROXY": "1",
    }


@pytest.mark.case("K5")
def test_what_is_stronger(tmp_path):
    """The environment is over the files, a later file over an earlier one."""
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_text("A=1\nB=1\nC=1\nD=1\nX=1\nY_FILE=1\nZ=1\nZ_FILE=1\n")
    second.write_text("B=2\nC=2\nD=\nX_FILE=2\nQ=2\n")

    whole = over_files([str(first), str(second)], {"C": "3", "Y": "3", "Q": " "})

    assert whole == {
        "A": "1",
        "B": "2",
        "C": "3",
        "D": "1",
        "Q": "2",
        # The form is that of the stronger; one source that has both is at fault.
        "X_FILE": "2",
        "Y": "3",
        "Z": "1",
        "Z_FILE": "1",
    }
    assert whole.origins["A"] == f"{first}:1"
    assert whole.origins["B"] == f"{second}:1"
    assert "C" not in whole.origins


def test_arguments_that_are_files_alone():
    """Files of settings alone are told from all else without the parser."""
    assert files_alone(["--env-file", "a", "--env-file=b"]) == ["a", "b"]
    for others in (
        ["--check", "--env-file", "a"],
        ["--env-file", "a", "--check"],
        ["--env-file"],
        ["--env-file="],
        ["--env-file", "--check"],
        ["a"],
    ):
        assert files_alone(others) == []


def test_home_in_an_option(tmp_path):
    """A shell leaves `~/` behind an equals sign to us."""
    (tmp_path / "x.env").write_text("A=b")

    assert over_files(["~/x.env"], {"HOME": str(tmp_path)})["A"] == "b"


@pytest.mark.parametrize("args", [[], ["--every", "1h"], ["--dry-run"]])
def test_a_run_with_a_file_alone(args, environ, pushgateway, tmp_path):
    """All settings may be in a file; what is pushed and remembered is the same."""
    file = tmp_path / "all.env"
    file.write_text("".join(f"export {k}='{v}'\n" for k, v in environ.items()))
    file.chmod(0o600)
    command = [sys.executable, PUSH, *args, "--env-file", str(file)]

    child = subprocess.Popen(
        command,
        env={"HOME": str(tmp_path)},
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if "--every" in args:
        assert eventually(lambda: "ecoflow_push" in pushgateway.groups())
        child.send_signal(signal.SIGTERM)
    stdout, stderr = child.communicate(timeout=60)

    assert child.returncode == 0, stderr
    assert "WARNING" not in stderr
    if "--dry-run" in args:
        assert DELTA.sn in stdout
    else:
        assert DELTA.sn in pushgateway.devices()
        assert (tmp_path / "state").is_dir()
    assert not (tmp_path / ".local").exists()


def test_the_other_modes_take_a_file(environ, tmp_path):
    """--check, --list-devices and --demo read it; the demo reads no account of it."""
    file = tmp_path / "all.env"
    environ["ECOFLOW_DEVICE_SN"] = DELTA.sn
    file.write_text("".join(f"{k}={v}\n" for k, v in environ.items()))
    file.chmod(0o600)

    check = push({}, "--check", f"--env-file={file}")
    assert (check.status, "wrong" in check.stdout) == (0, False), check.stdout
    listed = push({}, "--env-file", str(file), "--list-devices")
    assert DELTA.sn in listed.stdout
    demo = push({}, "--env-file", str(file), "--demo", "--dry-run")
    assert demo.status == 0, demo.stderr
    assert DELTA.sn not in demo.stdout
    assert "pd_soc" in demo.stdout


def test_the_lock_is_that_of_the_file(environ, cloud, tmp_path):
    """A run whose settings are in a file finds the lock that such a run holds."""
    file = tmp_path / "all.env"
    file.write_text("".join(f"{k}={v}\n" for k, v in environ.items()))
    cloud.fail("device/list", faults.hang())
    first = subprocess.Popen(
        [sys.executable, PUSH], env=environ, stderr=subprocess.PIPE
    )
    try:
        assert eventually(lambda: cloud.received)
        for more in ([], ["--dry-run"]):
            second = push({}, "--env-file", str(file), *more)
            assert second.status == 75, second.stderr
            assert "another run" in second.stderr
        # The first look, not the last: nothing was imported that would warn.
        assert "WARNING" not in push({}, "--env-file", str(file)).stderr
        other = push({"PUSH_JOB": "x", "RUN_DEADLINE": "1"}, "--env-file", str(file))
        assert "another run" not in other.stderr
    finally:
        first.kill()
        first.communicate()


def test_a_json_log_from_a_file(tmp_path):
    """The form of the log is the file's also for what is wrong with the settings."""
    file = tmp_path / "x.env"
    file.write_text("LOG_FORMAT=json\n")

    run = push_anew({}, "--env-file", str(file))

    assert run.status == 78
    assert run.stderr.startswith("{")


KEYS = "ECOFLOW_ACCESS_KEY=AK1\nECOFLOW_SECRET_KEY=SK2\n"
EXPOSED = [
    (0o600, KEYS, False),
    (0o400, KEYS, False),
    (0o640, KEYS, True),
    (0o604, KEYS, True),
    (0o666, KEYS, True),
    (0o644, "ECOFLOW_ACCESS_KEY_FILE=/x\nECOFLOW_SECRET_KEY_FILE=/x\n", False),
    (0o644, "LOG_LEVEL=info\nPUSHGATEWAY_URL=http://g:9091\n", False),
    (0o644, "PUSHGATEWAY_URL=http://u:pw@g:9091\n", True),
    (0o644, "PUSHGATEWAY_USERNAME=u\nPUSHGATEWAY_PASSWORD=p\n", True),
    (0o644, "PUSHGATEWAY_BEARER_TOKEN=t\n", True),
    (0o644, "HEALTHCHECK_URL=https://hc.example/x\n", True),
    (0o644, "REMOTE_WRITE_HEADERS=X-Token: t\n", True),
    (0o644, "REMOTE_WRITE_HEADERS=X-Scope-OrgID: me\n", False),
]


@pytest.mark.case("K4")
@pytest.mark.parametrize(("mode", "content", "is_told"), EXPOSED)
def test_a_secret_that_others_can_read(mode, content, is_told, tmp_path):
    """It is one note on the file, however many secrets; none on what is no secret."""
    file = tmp_path / "x.env"
    file.write_text(content)
    file.chmod(mode)
    try:
        notes = Settings.from_environ(over_files([str(file)], {})).notes
    except SettingsError as exc:
        notes = exc.notes

    said = [str(note) for note in notes]
    cure = f"{file} holds a secret, and others can read it: chmod 600 {file}"
    assert said == [cure] * is_told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
@pytest.mark.parametrize(("mode", "is_told"), [(0o640, False), (0o644, True)])
def test_a_secret_that_our_group_alone_can_read(mode, is_told, tmp_path):
    """Who does not own the file needs its group, as with a Secret of Kubernetes."""
    file = tmp_path / "x.env"
    file.write_text("ECOFLOW_SECRET_KEY=s\n")
    file.chmod(mode)
    os.chown(file, 12_345, os.getegid())

    assert bool(over_files([str(file)], {}).exposed) is is_told


def test_a_secret_that_kubernetes_mounts_is_closed_where_it_is_mounted(tmp_path):
    """Its mode is the manifest's, and comes back whatever is done here."""
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..data").symlink_to("..2026")
    file = tmp_path / "x.env"
    file.symlink_to("..data/x.env")
    file.write_text(KEYS)
    file.chmod(0o444)

    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(over_files([str(file)], {}))

    cure = "mount the Secret with defaultMode: 0440, and give the pod an fsGroup"
    assert [note.cure for note in caught.value.notes] == [cure]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is another user, or mounts")
@pytest.mark.parametrize(
    ("hardship", "cure"),
    [
        ("ordinary", "chmod 600 {}"),
        (
            "another_user",
            "let its owner give it a group of this program, and chmod 440 {}",
        ),
        (
            "unchangeable",
            "where it is mounted from, give it mode 440 and a group of this program",
        ),
    ],
)
def test_a_secret_is_closed_by_who_can(hardship, cure, tmp_path):
    """chmod 600 is no advice where we may not, or could not read it any more."""
    file = tmp_path / "x.env"
    file.write_text(KEYS)
    file.chmod(0o644)
    args = "--env-file", str(file)
    argument = "12345" if hardship == "another_user" else str(tmp_path)

    run = forked(PUSH, args, {}, hardships=[(hardship, argument)])

    assert run.status == 78
    (said,) = (line for line in run.stderr.splitlines() if "others can read" in line)
    assert said.endswith(f"and others can read it: {cure.format(file)}")


def test_a_secret_of_the_environment_is_not_the_files(tmp_path):
    """A value that is put aside is not what the file is blamed for."""
    file = tmp_path / "x.env"
    file.write_text("PUSHGATEWAY_URL=http://u:pw@g:9091\n")
    environ = over_files([str(file)], {"PUSHGATEWAY_URL": "http://u:pw@g:9091"})

    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(environ)

    assert not caught.value.notes


def test_a_schedule_reads_the_file_anew(environ, pushgateway, tmp_path):
    """With --every a file that was changed counts from the next run on."""
    file = tmp_path / "all.env"
    environ["PUSH_JOB"] = "before"
    file.write_text("".join(f"{k}={v}\n" for k, v in environ.items()))
    child = subprocess.Popen(
        [sys.executable, PUSH, "--every", "1s", "--env-file", str(file)],
        env={"HOME": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    )
    try:
        assert eventually(lambda: "before_push" in pushgateway.groups())
        text = file.read_text().replace("before", "after")
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").replace(file)
        assert eventually(lambda: "after_push" in pushgateway.groups())
    finally:
        child.terminate()
        child.wait(timeout=60)
