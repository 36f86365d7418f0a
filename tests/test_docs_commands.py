"""What a reader can type: every fenced block of the README and of docs/, done."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from ecoflow_push.devices.metrics import metrics
from ecoflow_push.metrics.own import DEVICE_METRICS, RUN_METRICS
from ecoflow_push.simulator.cloud import (
    ACCESS_KEY,
    ACCOUNT_PASSWORD,
    ACCOUNT_USER,
    SECRET_KEY,
    SimulatedCloud,
)
from ecoflow_push.simulator.server import Answer, Received, RecordingServer
from ecoflow_push.start.options import parse_args
from tests.conftest import DELTA
from tests.deploy import IMAGE, SYSTEMD, WAYS, program, read_unit, said_by
from tests.kubernetes import FLEETS
from tests.reader import ADDRESS, Block, Reader, blocks, pages, repository
from tests.support import (
    ROOT,
    Database,
    Gateway,
    eventually,
    prometheus,
    push_anew,
)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the pages speak of Debian's programs"
)
SETTINGS = "~/.config/ecoflow-push.env"
RUN = f".venv/bin/python push.py --env-file {SETTINGS}"

# What there must be before a reader comes to a section; a page that is not here is read
# from its top to its end by someone who has done what the README says.
NOTHING, CLONE, MACHINE, PUSHED = "nothing", "clone", "machine", "pushed"
BEGINS = {
    "README.md": NOTHING,
    "install.md For the whole machine": NOTHING,
    "install.md As a command": NOTHING,
    "install.md Upgrade": PUSHED,
    "install.md Uninstall": PUSHED,
    "deploy.md cron": MACHINE,
    "deploy.md systemd": MACHINE,
    "deploy.md A text file for node_exporter": CLONE,
    "deploy.md Kubernetes": CLONE,
    "deploy.md Docker": CLONE,
    "deploy.md Compose, to look at it": CLONE,
    "app-account.md": CLONE,
    "check.md": CLONE,
    "fleet.md A folder of accounts": CLONE,
    "fleet.md Shards on one machine": MACHINE,
    "fleet.md Kubernetes": CLONE,
    "fleet.md Slurm": CLONE,
    "metrics.md": CLONE,
    "normalized.md": CLONE,
    "remote-write.md": CLONE,
    "settings.md": CLONE,
    "troubleshooting.md": PUSHED,
}
# A command that asks on a terminal refuses without one.
ASKS = ".venv/bin/python push.py --init"


def read_as(block: Block) -> str:
    """Return the name of what is read in one go: a page, or a section of it."""
    section = f"{block.page} {block.section}"
    return section if section in BEGINS else block.page


BLOCKS = [block for page in pages() for block in blocks(page)]
READINGS: dict[str, list[Block]] = {}
for _block in BLOCKS:
    READINGS.setdefault(read_as(_block), []).append(_block)


# --- what cannot run here ---------------------------------------------------------


class Scene:
    """A reader, and the servers in place of the examples' hosts.

    `host` is the setting that stands for EcoFlow's own host.
    """

    def __init__(
        self,
        reader: Reader,
        host: dict[str, str],
        pushed: Gateway,
        database: Database,
        folder: Path,
        stack: ExitStack,
    ) -> None:
        self.reader = reader
        self.host = host
        self.gateway = pushed
        self.database = database
        self.folder = folder
        self.stack = stack

    def settings(self) -> Path:
        """Return where the reader's settings are, if there are any."""
        return self.reader.path(SETTINGS)


# Debian's packages that may be asked for: seen to be installed by Debian 12 and 13.
DEBIAN = {"cron", "curl", "git", "pipx", "python3-venv"}


def apt_get(_scene: Scene, _folder: Path, words: list[str]) -> None:
    """Packages are those that are known to be Debian's, and needed."""
    assert words[0] == "install"
    assert set(words[1:]) <= DEBIAN


def pip(scene: Scene, folder: Path, words: list[str]) -> None:
    """What is required is pinned as it is installed here; else it is our repository."""
    assert words.pop(0) == "install"
    if words[0] == "--require-hashes":
        assert words[1:] == ["-r", "requirements.txt"]
        pins = re.findall(
            # What has a marker is for other systems.
            r"^([\w-]+)==(\S+) \\$",
            (folder / words[2]).read_text(),
            re.MULTILINE,
        )
        assert len(pins) > 5
        assert all(version(name) == pinned for name, pinned in pins)
    else:
        assert words == [f"git+{scene.reader.replaced(ADDRESS)}"]


def pipx(scene: Scene, _folder: Path, words: list[str]) -> None:
    """What is installed is a clone that makes the command."""
    assert words == ["install", str(scene.reader.home / "ecoflow-push")]
    text = (Path(words[1]) / "pyproject.toml").read_text()
    assert "\necoflow-push = " in text


def docker(scene: Scene, folder: Path, words: list[str]) -> None:
    """An image is built from the Dockerfile; a run is done here, as it is mounted."""
    match words:
        case ["build", "-t", image, "."]:
            assert image == IMAGE
            assert (folder / "Dockerfile").is_file()
        case ["volume", "create", "ecoflow-push"]:
            pass
        case ["compose", "-f", file, "up"]:
            assert (folder / file).is_file()
        case ["run", *options, image]:
            assert image == IMAGE
            contained(scene, folder, options)
        case _:
            pytest.fail(f"docker {words} is not known")


def contained(scene: Scene, folder: Path, options: list[str]) -> None:
    """Run the program with what a container's options give it."""
    known = {"--rm", "--read-only", "--cap-drop", "--security-opt", "--memory"}
    typed = {each for each in options if each.startswith("-")}
    assert typed <= known | {"--volume", "--env-file"}
    given = dict(pairwise(options))
    mounted = [words for option, words in pairwise(options) if option == "--volume"]
    places = {each.split(":")[1]: each.split(":")[0] for each in mounted}
    assert places["/var/lib/ecoflow-push"] == "ecoflow-push"
    secrets = Path(places["/run/secrets"])
    # Docker takes a line as it is.
    lines = (folder / given["--env-file"]).read_text().splitlines()
    environ = dict(line.split("=", 1) for line in lines if line and line[0] != "#")
    ours = {k: v.replace("/run/secrets", str(secrets)) for k, v in environ.items()}
    run = push_anew({**scene.host, **ours, "STATE_DIR": str(scene.folder)})
    assert run.status == 0, run.stderr
    if os.getuid() == 0:
        for path in (secrets, *secrets.iterdir()):
            assert (path.stat().st_uid, path.stat().st_gid) == (10001, 10001)
            assert path.stat().st_mode & 0o077 == 0


def kubectl(_scene: Scene, folder: Path, words: list[str]) -> None:
    """What needs no cluster was told by kubectl; the rest names what is there."""
    told = " ".join(words)
    if " apply " in told:
        assert words[-1] in {f"deploy/kubernetes/{way}" for way in (*WAYS, *FLEETS)}
    elif " job " in told:
        text = (folder / "deploy/kubernetes/base/cronjob.yaml").read_text()
        name = yaml.safe_load(text)["metadata"]["name"]
        assert f"--from=cronjob/{name}" in words
    else:
        logs = r" logs -f job/try$| logs -l batch\.kubernetes\.io/job-name=try "
        assert re.search(rf" secret |{logs}|^create namespace ", told), told


def systemctl(scene: Scene, _folder: Path, words: list[str]) -> None:
    """What is started is run as its unit says; the others name units that are there."""
    units = scene.reader.root / "etc/systemd/system"
    match words:
        case ["daemon-reload"]:
            pass
        case ["start", "ecoflow-push.service" | "ecoflow-push@0.service" as name]:
            as_a_service(scene, units / name)
        case ["enable", "--now", name]:
            assert template(units / name).is_file()
        case ["disable", "--now", "ecoflow-push.timer"]:
            pass
        case _:
            pytest.fail(f"systemctl {words} is not known")


def template(unit: Path) -> Path:
    """Return the file of a unit, or the one that its instances have in common."""
    return unit.with_name(re.sub(r"@\w+\.", "@.", unit.name))


def as_a_service(scene: Scene, unit: Path) -> None:
    """Run a unit's command with the files and secrets that it names."""
    root = scene.reader.root
    service = read_unit(template(unit))["Service"]
    places = {"%d": str(root / "secrets"), "%i": unit.stem.rpartition("@")[2]}
    for each in service.get("BindReadOnlyPaths", []):
        bound, place = each.split(":")
        places[place] = str(scene.reader.path(bound))
    environ = dict(each.split("=", 1) for each in service["Environment"])
    command = scene.reader.replaced(service["ExecStart"][0])
    for place, ours in places.items():
        environ = {k: v.replace(place, ours) for k, v in environ.items()}
        command = command.replace(place, ours)
    environ["STATE_DIR"] = str(scene.folder / "state")
    (root / "secrets").mkdir()
    for each in service.get("LoadCredential", []):
        name, path = each.split(":")
        file = scene.reader.path(path)
        assert file.stat().st_mode & 0o777 == 0o600
        (root / "secrets" / name).write_bytes(file.read_bytes())
    [file] = map(scene.reader.path, service["EnvironmentFile"])
    lines = scene.reader.replaced(file.read_text()).splitlines()
    environ |= dict(line.split("=", 1) for line in lines if line and line[0] != "#")
    done = subprocess.run(
        shlex.split(command),
        env={**scene.host, "PATH": os.defpath, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def journalctl(scene: Scene, _folder: Path, words: list[str]) -> None:
    """What is read is the log of a unit that is there."""
    assert words[0] == "-u"
    units = scene.reader.root / "etc/systemd/system"
    assert list(units.glob(f"{words[1]}.service"))


def chown(_scene: Scene, _folder: Path, words: list[str]) -> None:
    """The owner is the one that the image runs as."""
    assert words[:2] == ["-R", "10001:10001"]
    assert "USER 10001:10001" in (ROOT / "Dockerfile").read_text()


def groupadd(_scene: Scene, _folder: Path, words: list[str]) -> None:
    """The group is made, and the accounts are given to it that the service is in."""
    [group] = read_unit(SYSTEMD / "ecoflow-push@.service")["Service"][
        "SupplementaryGroups"
    ]
    match words:
        case ["--system", name] | ["-R", name, _]:
            assert name == group
        case _:
            pytest.fail(f"groupadd {words} is not known")


def sbatch(_scene: Scene, folder: Path, words: list[str]) -> None:
    """The array has an index for each shard that the script counts."""
    [file] = words
    text = (folder / file).read_text()
    [count] = re.findall(r"^SHARD_COUNT=(\d+)$", text, re.MULTILINE)
    assert f"\n#SBATCH --array=0-{int(count) - 1}\n" in text
    assert (folder / "fleet.env").stat().st_mode & 0o777 == 0o600


CANNOT_RUN: dict[str, Callable[[Scene, Path, list[str]], None]] = {
    "apt-get": apt_get,
    "chown": chown,
    "docker": docker,
    "groupadd": groupadd,
    "journalctl": journalctl,
    "kubectl": kubectl,
    "pip": pip,
    "pipx": pipx,
    "sbatch": sbatch,
    "systemctl": systemctl,
}


# --- the kinds of blocks ----------------------------------------------------------


def shell(scene: Scene, block: Block) -> None:
    """Commands end with 0, and a query of Prometheus has an answer."""
    reader = scene.reader
    asks = ASKS in block.text
    status = 64 if asks else 0

    def done() -> subprocess.CompletedProcess[str] | None:
        ran = reader.types(block.text)
        assert ran.returncode == status, (block.page, block.line, ran.stderr)
        # Until it has scraped the gateway Prometheus has nothing.
        is_empty = "/api/v1/query" in block.text and '"value":[' not in ran.stdout
        return None if is_empty else ran

    assert eventually(done), (block.page, block.line)
    for name, *words, folder in reader.typed():
        CANNOT_RUN[name](scene, Path(folder), words)


def settings(scene: Scene, block: Block) -> None:
    """A file of settings is written where its first line says, or is added to one."""
    lines = scene.reader.replaced(block.text)
    head = re.match(r"# (\S+)\n", block.text)
    file = scene.reader.path(head[1]) if head else scene.settings()
    if head:
        assert file.parent.is_dir()
        file.write_text(lines)
    else:
        names = {line.partition("=")[0] for line in lines.splitlines()}
        kept = [
            line
            for line in file.read_text().splitlines(keepends=True)
            if line.partition("=")[0] not in names
            and not (line.startswith("PUSHGATEWAY_") and "REMOTE_WRITE_URL" in names)
        ]
        file.write_text("".join(kept) + lines)
        run = scene.reader.types(f"cd ~/ecoflow-push\n{RUN}")
        assert run.returncode == 0, run.stderr


def crontab(scene: Scene, block: Block) -> None:
    """cron understands the line, and runs it without a word and with 0."""
    table = scene.folder / "crontab"
    text = (ROOT / "crontab.example").read_text()
    # A line of the example has the table's variables, another one its own.
    known = block.text in f"{text}\n"
    variables = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)) if known else {}
    table.write_text(block.text)
    assert said_by(program("crontab"), "-n", table)[0] == 0
    *_, command = block.text.strip().split(" ", 5)
    assert "%" not in command
    before = {k: dict(v) for k, v in scene.gateway.devices().items()}
    done = subprocess.run(
        ["/bin/sh", "-c", scene.reader.replaced(command)],
        env={
            "HOME": str(scene.reader.home),
            "PATH": "/usr/bin:/bin",
            **scene.host,
            **variables,
        },
        cwd=scene.reader.home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, ""), block
    assert scene.gateway.devices() != before


def configuration(scene: Scene, block: Block) -> None:
    """promtool understands it; a scrape is started for what comes next."""
    text = scene.reader.replaced(block.text)
    file = scene.folder / "prometheus.yml"
    file.write_text(text)
    status, said = said_by(program("promtool"), "check", "config", file)
    assert status == 0, said
    wanted = yaml.safe_load(text)
    assert wanted.keys() <= {"scrape_configs", "storage"}
    if "scrape_configs" in wanted:
        port = int(scene.database.url.rpartition(":")[2])
        scene.database.process.terminate()
        scene.database.process.wait()
        # What is written later than it was scraped has its place too.
        config = (
            "global: {scrape_interval: 1s}\n"
            f"storage: {{tsdb: {{out_of_order_time_window: 1h}}}}\n{text}"
        )
        scene.stack.enter_context(
            prometheus(scene.folder / "scraping", config=config, port=port)
        )


def queries(scene: Scene, block: Block) -> None:
    """promtool understands each line as a rule, and names are of our metrics."""
    rules = [
        {"record": f"r:{number}", "expr": line}
        for number, line in enumerate(block.text.splitlines())
    ]
    file = scene.folder / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "page", "rules": rules}]}))
    status, said = said_by(program("promtool"), "check", "rules", file)
    assert status == 0, said
    known = {f"ecoflow_{name}" for name in (*metrics(), *DEVICE_METRICS, *RUN_METRICS)}
    known.add("ecoflow_energy_watt_hours")
    assert set(re.findall(r"\becoflow_\w+", block.text)) <= known


def output(_scene: Scene, block: Block) -> None:
    """What was typed above an output has options that are known."""
    [typed] = re.findall(r"^\$ (.*)$", block.text, re.MULTILINE)
    command, *options = shlex.split(typed)
    assert command.endswith("push.py")
    parse_args(options)


KINDS: dict[str, Callable[[Scene, Block], None]] = {
    "crontab": crontab,
    "ini": settings,
    "promql": queries,
    "sh": shell,
    "text": output,
    "yaml": configuration,
}


class TextfileCollector(RecordingServer):
    """Shows the text files of a folder, as node_exporter does, which is not fetched."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def answer(self, received: Received) -> Answer:
        assert received.path == "/metrics"
        texts = [path.read_bytes() for path in self._folder.glob("*.prom")]
        return Answer(200, b"".join(texts))


# --- the readings -----------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of this tree."""
    program("git")
    program("curl")
    return repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture
def scene(
    source: Path, tmp_path: Path, cloud: SimulatedCloud, pushgateway: Gateway
) -> Iterator[Scene]:
    host = {"ECOFLOW_API_HOST": cloud.url}
    environ = dict(host)
    if any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv"))):
        # The pages speak of a host, where this is the default.
        environ["PUSH_INSTANCE"] = os.uname().nodename
    with ExitStack() as stack:
        database = stack.enter_context(prometheus(tmp_path / "database"))
        collector = stack.enter_context(
            TextfileCollector(
                tmp_path / "reader/machine/var/lib/prometheus/node-exporter"
            )
        )
        reader = Reader(
            tmp_path / "reader",
            source,
            kubectl=program("kubectl"),
            names={
                "pushgateway.example:9091": pushgateway.url.removeprefix("http://"),
                "prometheus.example:9090": database.url.removeprefix("http://"),
                "localhost:9100": collector.url.removeprefix("http://"),
                "ACCESS_KEY=...": f"ACCESS_KEY={ACCESS_KEY}",
                "SECRET_KEY=...": f"SECRET_KEY={SECRET_KEY}",
                "you@example.org": ACCOUNT_USER,
                "device/SERIAL": f"device/{DELTA.sn}",
            },
            pasted={
                "access-key": ACCESS_KEY,
                "secret-key": SECRET_KEY,
                "ecoflow-password": ACCOUNT_PASSWORD,
                "remote-write-password": "a password",
            },
            environ=environ,
        )
        yield Scene(reader, host, pushgateway, database, tmp_path, stack)


def begin(scene: Scene, wanted: str) -> None:
    """Bring about what a section takes for granted."""
    reader = scene.reader
    if wanted == MACHINE:
        reader.clone(reader.root / "opt/ecoflow-push")
    if wanted in {CLONE, PUSHED}:
        reader.clone(reader.home / "ecoflow-push")
        reader.types("cd ~/ecoflow-push && mkdir ~/.config")
        (reader.home / ".config/ecoflow-secret-key").write_text(SECRET_KEY)
    if wanted == PUSHED:
        scene.settings().write_text(
            f"ECOFLOW_ACCESS_KEY={ACCESS_KEY}\nECOFLOW_SECRET_KEY={SECRET_KEY}\n"
            f"PUSHGATEWAY_URL={scene.gateway.url}\n"
        )
        done = reader.types(f"{RUN}\ncd")
        assert done.returncode == 0, done.stderr
        (reader.home / "crontab").write_text(
            "0 0 * * * true\n* * * * * ~/ecoflow-push\n"
        )


def nothing_of_the_demo(scene: Scene) -> None:
    """The README's last commands take the demo's groups away, and no other."""
    jobs = {labels["job"] for labels in scene.gateway.groups().values()}
    assert jobs == {"ecoflow", "ecoflow_push"}


def everything_gone(scene: Scene) -> None:
    """What install.md removes is all that a run has left."""
    home = scene.reader.home
    left = {path for path in home.rglob("*") if path.is_file()}
    assert left == {home / name for name in ("crontab", ".folder", ".exported")}
    assert (home / "crontab").read_text() == "0 0 * * * true\n"
    assert scene.gateway.groups() == {}


def compiled(scene: Scene) -> None:
    """A program that was compiled for others is compiled whole."""
    package = scene.reader.root / "opt/ecoflow-push/ecoflow_push"
    sources = {path.stem for path in package.rglob("*.py")}
    made = {path.name.partition(".")[0] for path in package.rglob("*.pyc")}
    assert sources == made


ENDS: dict[str, Callable[[Scene], None]] = {
    "README.md": nothing_of_the_demo,
    "install.md Uninstall": everything_gone,
    "install.md For the whole machine": compiled,
}


@pytest.mark.parametrize("reading", READINGS)
def test_what_can_be_typed_works(reading, scene, request):
    """Every block of a page does what it says, typed from the top to the end."""
    begin(scene, BEGINS[reading])
    if reading == "app-account.md":
        request.getfixturevalue("fleet")
        scene.reader.environ["ECOFLOW_CA_FILE"] = request.getfixturevalue("ca_file")

    for block in READINGS[reading]:
        KINDS[block.kind](scene, block)

    if (scene.reader.home / "ecoflow-push").exists() and scene.settings().exists():
        done = scene.reader.types(f"cd ~/ecoflow-push\n{RUN}")
        assert done.returncode == 0, done.stderr
    ENDS.get(reading, lambda _: None)(scene)


def test_a_block_that_nobody_knows_is_told():
    """Each block is of a kind that is known, and of a section that is."""
    assert {block.kind for block in BLOCKS} <= KINDS.keys()
    assert READINGS.keys() == BEGINS.keys()
    assert len(BLOCKS) > 30


def test_a_command_that_fails_is_told(scene):
    """A block with a wrong command, option or address does not pass."""
    begin(scene, PUSHED)
    for text in (
        "no-such-command",
        "true\n.venv/bin/python push.py --no-such-option",
        "curl -s http://pushgateway.example:9091/metrics | grep ^no_such_metric",
        "sudo apt-get install no-such-package",
        "docker run --rm ecoflow-push:0.0.0",
    ):
        with pytest.raises((AssertionError, pytest.fail.Exception, KeyError)):
            shell(scene, Block("README.md", "", 1, "sh", text))
