"""What one run of push.py costs beside importing its libraries, and beside others.

    python -m benchmarks.run [--rounds N]

Every round starts each command once, so that a busy minute of the machine hits all of
them alike; a figure is the median of its rounds, a ratio the median of the rounds' own
ratios. Only the ratios mean something elsewhere. The goals are in goals.py; those of
others are checked where a variable says where these are (rivals.py). Exits 1 if a goal
that could be checked is missed.
"""

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time

from benchmarks import rivals, wide
from benchmarks.goals import BENCH, Goals, quantile
from benchmarks.grind import imported
from benchmarks.process import (
    IMPORTS,
    PUSH,
    ROOT,
    Command,
    Cost,
    Servers,
    content,
    measure,
    ratios,
    start,
)
from ecoflow_push.memory.lock import state_folder
from ecoflow_push.memory.state import State

SHELL, TUNED = (
    ["/bin/sh", os.path.join(ROOT, "benchmarks", name)]
    for name in ("shell.sh", "shell_tuned.sh")
)
# What a run over REST cannot go below as long as it uses both libraries.
FLOOR = "import gc, os; gc.disable(); import requests, prometheus_client; os._exit(0)"
SHELL_PROGRAMS = ("curl", "openssl", "jq")
USED = ["prometheus_client"]
USED_BY_MQTT = ["paho", "prometheus_client"]
USED_BY_WRITE = ["cramjam", "prometheus_client"]
PACKAGES = ["cramjam", "google", "paho", "prometheus_client", "requests", "schedule"]
DAY = 24 * 60

# The rows that others are compared with begin with a letter, which names the column.
JOB = "push.py, 1 device"
TEN = "push.py, 10 devices"
VISIT = "push.py, 1 device over MQTT, cached login"
A = "a  import of three libraries, normal exit"
B = "b  shell.sh, 1 device, one CA"
SHELL_TEN = "   shell.sh, 10 devices, one CA"
RAW = "   push.py, 1 device, raw metrics alone"
BARE = "   python -c pass"
LOCKED = "   push.py, locked out"
FIRST = "   exporter to its first scrape, one CA"
GO = {1: "   one run in Go, 1 device", 10: "   one run in Go, 10 devices"}
# By the number of devices: the same run to a Pushgateway and over remote-write 1.0.
PUSHED = {1: JOB, 3: "   push.py, 3 devices"}
WRITTEN = {
    1: "   push.py, 1 device, remote-write",
    3: "   push.py, 3 devices, remote-write",
}


def print_table(costs: dict[str, list[Cost]]) -> None:
    """Print a row for each command."""
    columns = [(A, "cpu"), (A, "wall"), (A, "peak"), (B, "cpu"), (B, "wall")]
    columns = [(name, what) for name, what in columns if name in costs]
    heads = "".join(f"{what} /{name[0]}".rjust(9) for name, what in columns)
    print(f"{'':44}{'cpu ms':>8}{'wall ms':>9}{'peak MiB':>10}{heads}")
    for name, own in costs.items():
        cpu, wall, peak, _ = (quantile([*all_], 0.5) for all_ in zip(*own, strict=True))
        print(f"{name:44}{cpu * 1e3:8.1f}{wall * 1e3:9.1f}{peak / 2**20:10.1f}", end="")
        # What has rounds of its own has no others beside it.
        for other, what in columns if len(own) == len(costs[A]) else ():
            print(f"{quantile(ratios(own, costs[other], what), 0.5):9.2f}", end="")
        print()


def check_requests(goals: Goals, servers: Servers, size: int, stderr: str) -> None:
    """Check what a run says to the cloud and to a gateway that records it."""
    cloud = f"https {size}"
    servers.ask(cloud)  # from here on it counts
    start(Command(PUSH, servers.environ(cloud, "recorder")), stderr)
    seen = servers.ask(cloud)
    asked, pushed = seen["cloud"], seen["gateway"]
    lists = sum("/device/list" in request for request in asked)
    quotas = len({request for request in asked if "/quota/all?sn=" in request})
    groups = len({request for request in pushed if request.startswith("PUT ")})
    what = f"{size} device{'s' if size > 1 else ''}"
    goals.say(
        f"{what}: one TLS handshake",
        str(seen["handshakes"]),
        met=seen["handshakes"] == 1,
    )
    goals.say(
        f"{what}: list + {size} to the cloud, {size + 1} pushes, no more",
        f"{lists} + {quotas} of {len(asked)}, {groups} of {len(pushed)}",
        met=(lists, quotas, groups) == (1, size, size + 1)
        and (len(asked), len(pushed)) == (1 + size, size + 1),
    )


def check_writes(goals: Goals, servers: Servers, size: int, stderr: str) -> None:
    """Check that over remote-write all is taken, a device a request."""
    cloud = f"https {size}"
    servers.ask(cloud)
    start(Command(PUSH, servers.environ(cloud, "receiver")), stderr)
    sent = servers.ask(cloud)["gateway"]
    writes = sent.count("POST /api/v1/write")
    goals.say(
        f"remote-write {size}: {size + 1} writes, no more",
        f"{writes} of {len(sent)}",
        met=writes == len(sent) == size + 1,
    )


def check_visits(goals: Goals, servers: Servers, costs: list[Cost]) -> None:
    """Check that nothing stalls on the way out, nor between question and answer."""
    times = servers.ask("times")["times"]
    visits = times[-len(costs) :]
    leaving = [cost.ended - visit[1] for cost, visit in zip(costs, visits, strict=True)]
    goals.seconds("over MQTT: from answer to end", leaving, 0.05)


def check_imports(
    goals: Goals, what: str, environ: dict[str, str], used: list[str], stderr: str
) -> None:
    """Check which of the mandatory packages a run imports."""
    python, script = PUSH
    start(Command([python, "-X", "importtime", script], environ), stderr)
    modules = {name.partition(".")[0] for name in imported(content(stderr))}
    found = [package for package in PACKAGES if package in modules]
    goals.say(
        f"{what}: imports only {', '.join(used)}",
        ", ".join(found),
        met=found == used,
    )


def check_shell(goals: Goals, servers: Servers, stderr: str) -> None:
    """Check that all push the same series, or their costs would not compare."""
    found = []
    for argv in (PUSH, SHELL, TUNED):
        servers.ask("https 1")  # which also empties the recorder
        environ = servers.environ(sink="recorder") | {"METRICS_SET": "raw"}
        start(Command(argv, environ), stderr)
        found.append(set(servers.ask("series")["series"]))
    ours = found[0]
    for (_, script), theirs in zip((SHELL, TUNED), found[1:], strict=True):
        goals.say(
            f"{os.path.basename(script)} pushes the same quota series",
            f"{len(ours & theirs)} the same, {len(ours ^ theirs)} not",
            met=bool(ours) and ours == theirs,
        )


def commands_of(servers: Servers, folder: str) -> dict[str, Command]:
    """Return what is started in every round, by its row."""
    https, ten = servers.environ(), servers.environ("https 10")
    commands = {
        JOB: Command(PUSH, https),
        A: Command(IMPORTS, https),
        VISIT: Command(PUSH, servers.environ("mqtt 1")),
        TEN: Command(PUSH, ten),
        RAW: Command(PUSH, https | {"METRICS_SET": "raw"}),
    }
    if not lacking():
        bundle = servers.environ(ca="ca_bundle")
        commands |= {
            B: Command(SHELL, https),
            "   shell.sh, 1 device, all trusted CAs": Command(SHELL, bundle),
            "   shell_tuned.sh, 1 device, one CA": Command(TUNED, https),
            SHELL_TEN: Command(SHELL, ten),
            "   shell_tuned.sh, 10 devices, one CA": Command(TUNED, ten),
        }
    if go := rivals.go_command(folder):
        for size, name in GO.items():
            environ = servers.environ(f"https {size}")
            one_ca = {"SSL_CERT_FILE": environ["ECOFLOW_CA_FILE"]}
            commands[name] = Command(go, environ | one_ca)
    commands |= {
        "   push.py, 1 device, plain http": Command(PUSH, servers.environ("http 1")),
        WRITTEN[1]: Command(PUSH, servers.environ(sink="receiver")),
        PUSHED[3]: Command(PUSH, servers.environ("https 3")),
        WRITTEN[3]: Command(PUSH, servers.environ("https 3", "receiver")),
        "   import of two libraries, no gc, os._exit": Command(
            [sys.executable, "-c", FLOOR], https
        ),
        BARE: Command([sys.executable, "-c", "pass"], https),
        # Another account and job, whose lock this process holds.
        LOCKED: Command(PUSH, https | {"PUSH_JOB": "locked"}, status=75),
    }
    return commands


def lacking() -> list[str]:
    """Return the programs of the shell scripts that are not here."""
    return [program for program in SHELL_PROGRAMS if not shutil.which(program)]


def with_lock(commands: dict[str, Command], rounds: int, stderr: str):
    """Measure, while this process holds the lock that LOCKED meets."""
    locked = commands[LOCKED].environ
    account = locked["ECOFLOW_ACCESS_KEY"], "locked"
    folder = state_folder(locked["STATE_DIR"], locked["ECOFLOW_API_HOST"], *account)
    with State.open(folder):
        return measure(commands, rounds, stderr)


def judge(goals: Goals, costs: dict[str, list[Cost]]) -> None:
    """Demand the goals of the runs that every round has."""
    for size, ours in {"1 device": JOB, "10 devices": TEN}.items():
        floor = ratios(costs[ours], costs[A], "cpu")
        goals.ratios(f"REST, {size}: CPU / three imports", floor)
    peak = ratios(costs[JOB], costs[A], "peak")
    goals.ratios("REST, 1 device: peak / three imports", peak)
    visit = ratios(costs[VISIT], costs[A], "cpu")
    goals.ratios("MQTT, cached login: CPU / three imports", visit)
    for other, figure in (
        (B, "1 device: CPU / shell script, one CA"),
        (SHELL_TEN, "10 devices: CPU / shell script, one CA"),
        (FIRST, "1 device: CPU / exporter to its first scrape"),
        (GO[1], "1 device: CPU / one run in Go"),
        (GO[10], "10 devices: CPU / one run in Go"),
    ):
        if other in costs:
            ours = TEN if figure.startswith("10 ") else JOB
            goals.ratios(figure, ratios(costs[ours], costs[other], "cpu"))


def check_house(
    goals: Goals, servers: Servers, costs: dict[str, list[Cost]], stderr: str
) -> None:
    """Demand what is no goal of the table."""
    out = ratios(costs[LOCKED], costs[BARE], "cpu")
    goals.most("locked out: CPU / a bare interpreter", out, 2.0)
    raw = ratios(costs[JOB], costs[RAW], "cpu")
    goals.most("with normalized metrics: CPU / raw alone", raw, 1.1)
    for size in (1, 3):
        check_requests(goals, servers, size, stderr)
    check_imports(goals, "https 1", servers.environ(), USED, stderr)
    check_imports(goals, "mqtt 1", servers.environ("mqtt 1"), USED_BY_MQTT, stderr)
    for size, name in WRITTEN.items():
        found = ratios(costs[name], costs[PUSHED[size]], "cpu")
        goals.most(f"remote-write {size}: CPU / Pushgateway", found, 1.2)
        check_writes(goals, servers, size, stderr)
    write = servers.environ(sink="receiver")
    check_imports(goals, "write 1", write, USED_BY_WRITE, stderr)
    if not lacking():
        check_shell(goals, servers, stderr)


def print_day(beats: list[Cost], run: list[Cost], minute: dict) -> None:
    """Print what a day of one device costs, a value a minute."""
    rows = {
        "cron": (quantile([cost.cpu for cost in run], 0.5), run[0].peak),
        "--every 60": (quantile([cost.cpu for cost in beats], 0.5), beats[0].peak),
    }
    exporter = minute.pop("exporter", None)
    for name, agent in minute.items():
        both = [a + b for a, b in zip(exporter, agent, strict=True)]
        rows[f"exporter + {name}"] = tuple(both)
    print(f"\n{'a day of one device, a value a minute':44}{'CPU s':>8}{'MiB':>9}")
    for name, (cpu, memory) in rows.items():
        print(f"   {name:41}{cpu * DAY:8.0f}{memory / 2**20:9.1f}")
    print()


def compare(servers: Servers, rounds: int, folder: str) -> bool:
    """Print everything and return whether all goals are met."""
    began = time.monotonic()
    stderr = os.path.join(folder, "stderr")
    exporter = rivals.exporter_command(servers)
    commands = commands_of(servers, folder)
    costs = with_lock(commands, rounds, stderr)
    later: list[str] = []
    visits = Goals(later.append)
    check_visits(visits, servers, costs[VISIT])
    if exporter:
        costs[FIRST] = [rivals.first_scrape(exporter) for _ in range(rounds)]
    pairs = rivals.Pairs(exporter, servers, folder) if exporter else None
    try:
        beats = wide.beats(servers, max(1, rounds // 3), stderr)
        text, floor = wide.large(servers, max(1, rounds // 5), stderr)
        tenfold = wide.tenfold(servers, stderr)
        minute = pairs.minute() if pairs else {}
    finally:
        if pairs:
            pairs.end()
    least = start(Command([shutil.which("true") or "/bin/true"], {}), stderr).peak
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {rounds} rounds,"
        f" medians; a peak below {least / 2**20:.1f} MiB would not be seen."
    )
    print_table(costs | {wide.BEAT: beats, wide.TEXT: text, wide.JSON: floor})
    print_day(beats, costs[JOB], dict(minute))
    goals = Goals()
    judge(goals, costs)
    found = ratios(text, floor, "cpu")
    goals.ratios("1,000 devices to a text file: CPU / JSON alone", found)
    goals.ratios("10,000 devices by remote-write: peak", [tenfold.peak / 2**20])
    if "vmagent" in minute:
        both = minute["exporter"][0] + minute["vmagent"][0]
        for name, own in (("a beat of --every", beats), ("one run", costs[JOB])):
            found = [cost.cpu / both for cost in own]
            goals.ratios(f"{name}: CPU / a minute of exporter + agent", found)
    wide.check_wall(goals, servers, max(1, rounds // 3), stderr)
    why = {
        **dict.fromkeys(("G6", "G7"), "VPIKUS names no clone, or vmagent is not here"),
        "G8": f"not found: {', '.join(lacking())}",
        "G9": "VPIKUS names no clone",
        "G10": "GO_ONESHOT names no program",
        "G11": "benchmarks/wall.py is not here",
    }
    goals.unjudged(BENCH, why)
    print()
    print("\n".join(later))
    house = Goals()
    check_house(house, servers, costs, stderr)
    print(f"\n{time.monotonic() - began:.0f} s")
    return not (goals.missed or visits.missed or house.missed)


def main() -> int:
    """Compare, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, metavar="N")
    rounds = max(1, parser.parse_args().rounds)
    with tempfile.TemporaryDirectory(prefix="ecoflow-push-bench-") as folder:
        servers = Servers(folder)
        try:
            return 0 if compare(servers, rounds, folder) else 1
        finally:
            servers.close()


if __name__ == "__main__":
    sys.exit(main())
