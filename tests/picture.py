"""Draws the dashboard as Grafana's own libraries draw it and Prometheus answers.

    python -m tests.picture [FOLDER]

A day of simulated devices, a run every five minutes, goes by remote-write into a real
Prometheus, which is then asked the dashboard's own queries as Grafana would ask them.
tools/picture/page.jsx makes panels of the answers, Chromium a picture of the page.
Without FOLDER it makes the README's pictures; with it, there, the whole dashboard of
each scene: one device, some, twelve, and five installations.

Needs node, chromium, ./dev servers, and `npm ci` in tools/picture, which ./dev picture
does.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import math
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from ecoflow_push import logs
from ecoflow_push.api.base import EcoflowApiClient, Reading
from ecoflow_push.api.models import DeviceInfo, Snapshot
from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import EcoflowApiException
from ecoflow_push.memory.lock import state_folder
from tests.dashboard import DASHBOARD, filled_in
from tests.one_run import work
from tests.support import ROOT, Database, eventually, fetch, prometheus
from tests.test_energy import LATER, estimate

TOOL = ROOT / "tools" / "picture"
EVERY, DAY = 300, 86_400
# The hour at which every picture is taken, in the time zone in which it then is one.
HOUR = 17
THEMES = ("light", "dark")
# A small screen.
WIDE = 1280
# What the README shows: from the top to this panel.
LAST = "In"

# --- the devices ------------------------------------------------------------------


def day(minute: int, size: float = 1.0) -> dict[str, object]:
    """Return the quotas of a DELTA 2 in the sun, with a mains cut at noon."""
    hour = minute / 60
    sun = max(0.0, 380 * math.sin(math.pi * (hour - 6) / 14)) if hour < 20 else 0.0
    load = 120 + (170 if 18 <= hour < 22 else 0) + 20 * math.sin(hour * 5)
    sun, load = round(sun * size), round(load * size)
    charge = 60 + 30 * math.sin(math.pi * (hour - 9 - 2 * size) / 12)
    gains = sun > load
    return {
        "pd.wattsInSum": sun,
        "pd.wattsOutSum": load,
        "mppt.inWatts": sun,
        "inv.outputWatts": load,
        "inv.acInVol": 0 if 11.5 <= hour < 12.5 else 230_000 + 400 * (minute % 7),
        "bms_emsStatus.f32LcdShowSoc": round(charge, 2),
        "bms_emsStatus.chgRemainTime": round((100 - charge) * 6) if gains else 5939,
        "bms_emsStatus.dsgRemainTime": 5939 if gains else round(charge * 6),
        "bms_bmsStatus.maxCellTemp": round(24 + sun / 60 + load / 80),
        "bms_bmsStatus.vol": round(48_000 + 80 * charge),
        "bms_bmsStatus.amp": round((sun - load) * 20),
        "bms_bmsStatus.soh": 98,
        "bms_bmsStatus.cycles": 41,
    }


class Simulated(NamedTuple):
    """A device: a DELTA 2 of a size, or what a golden map of this name holds.

    It is offline or gone `ends` seconds before the picture is taken; `failed` it cannot
    be read in that time.
    """

    name: str
    map: str = ""
    size: float = 1.0
    offline: float = 0
    gone: float = 0
    failed: float = 0

    def facts(self) -> tuple[str, str, dict[str, object]]:
        """Return serial, product and quotas, empty if those are a day's."""
        if not self.map:
            return f"R331ZFAKE{sum(map(ord, self.name)):07}", "DELTA 2", {}
        file = ROOT / "tests/fixtures/normalized" / f"{self.map}.json"
        held = json.loads(file.read_text())
        return held["sn"], held["product"], held["quotas"]


ONE = {"home": [Simulated("Garage")]}
SOME = {
    "home": [
        Simulated("Balcony", size=0.9),
        Simulated("Boat", size=0.3),
        Simulated("Camper", size=0.7, offline=10_800),
        Simulated("Garage", size=1.4),
        Simulated("Garden house", size=0.5),
        Simulated("Kitchen", size=0.4),
        Simulated("Panel", "panel2"),
        Simulated("Roof", "powerstream"),
        Simulated("Shed", size=0.7, failed=3_600),
        Simulated("Workshop", size=2.2),
    ]
}
TWELVE = {
    "home": [
        Simulated("Garage"),
        Simulated("Kitchen", size=0.4),
        Simulated("Workshop", size=2.2),
        Simulated("Garden house", "delta2max"),
        Simulated("Cellar", "deltapro3"),
        Simulated("Camper", size=0.7, offline=10_800),
        Simulated("Roof", "powerstream"),
        Simulated("House", "powerocean"),
        Simulated("Panel", "panel2"),
        Simulated("Office", "wave3"),
        Simulated("Sold", size=0.6, gone=14_400),
        Simulated("Balcony", "stream_linked_leader"),
    ]
}
FIVE = {
    "home": [Simulated("Garage"), Simulated("Kitchen", size=0.4)],
    # Never all of it: when a run last had success is told by the real clock.
    "cabin-in-the-woods": [
        Simulated("Cabin", size=0.8, failed=3_600),
        Simulated("Sauna", failed=2 * DAY),
    ],
    "boat": [Simulated("Boat", size=0.3), Simulated("Dinghy", "river2pro")],
    "office.example.org": [Simulated("Office", "deltapro")],
    "raspberrypi": [Simulated("Shed", size=0.5), Simulated("Loft", failed=2 * DAY)],
}
# By installation, how long before the picture its last run was.
STOPPED = {"raspberrypi": 9_000}
SCENES = {"one": ONE, "some": SOME, "twelve": TWELVE, "five": FIVE}


class Station(EcoflowApiClient):
    """Devices that answer at once, so many seconds before the picture is taken."""

    name = "rest"
    title = "a day"

    def __init__(
        self, devices: Sequence[Simulated], at: float, left: float, minute: int
    ) -> None:
        super().__init__()
        self._devices = [each for each in devices if not left < each.gone]
        self._at = at
        self._left = left
        self._minute = minute

    def read(self, named, deadline):
        facts = [each.facts() for each in self._devices]
        self.wanted = self.listed = [
            DeviceInfo(sn, each.name, product, online=not self._left < each.offline)
            for each, (sn, product, _) in zip(self._devices, facts, strict=True)
        ]
        for each, device, (sn, _, quotas) in zip(
            self._devices, self.wanted, facts, strict=True
        ):
            if not device.online:
                yield Reading(device, self.name)
                continue
            if self._left < each.failed:
                error = EcoflowApiException("no answer")
                yield Reading(device, self.name, error=error)
                continue
            # A real one never says twice the same.
            found = {**quotas, "tick": self._minute} if quotas else {}
            found = found or day(self._minute, each.size)
            yield Reading(device, self.name, Snapshot(sn, found, self._at))

    def probe(self, deadline):
        yield from ()

    def close(self):
        pass


def fill(
    database: Database,
    scene: Mapping[str, Sequence[Simulated]],
    end: float,
    offset: float,
    folder: str,
) -> None:
    """Write a day of each installation."""
    for instance, devices in scene.items():
        place = Path(folder, instance)
        place.mkdir()
        settings = Settings.from_environ(
            {
                "ECOFLOW_ACCESS_KEY": "a",
                "ECOFLOW_SECRET_KEY": "s",
                "REMOTE_WRITE_URL": database.write_url,
                "STATE_DIR": str(place),
                "PUSH_INSTANCE": instance,
            }
        )
        state = state_folder(str(place), "picture")
        for left in range(DAY, -1, -EVERY):
            if left < STOPPED.get(instance, 0):
                break
            at = end - left
            minute = round((at + offset) % DAY / 60)
            work(Station(devices, at, left, minute), settings, state, at)
    name = "ecoflow_device_info"
    assert eventually(lambda: database.alive(name, end))
    estimate(database, end - DAY, end)


# --- what Grafana would ask -------------------------------------------------------


class Moment(NamedTuple):
    """When the picture is taken, in Unix seconds, and how far its zone is from UTC."""

    at: float
    offset: float

    def time_of(self, panel: Mapping[str, Any]) -> tuple[float, float]:
        """Return the panel's time: the dashboard's, or its own."""
        first = (self.at + self.offset) // DAY * DAY - self.offset
        if "timeShift" in panel:
            return first - DAY, first
        if panel.get("timeFrom") == "now/M":
            date = datetime.fromtimestamp(self.at + self.offset, UTC)
            return first - DAY * (date.day - 1), self.at
        if "timeFrom" in panel:
            return first, self.at
        return self.at - DAY, self.at


# As @grafana/data's roundInterval has it: below the first, the second is the step (s).
STEPS = {17.5: 15, 25: 20, 45: 30, 90: 60, 210: 120, 450: 300, 750: 600, 1050: 900}
STEPS |= {1500: 1200, 2700: 1800, 5400: 3600, 9000: 7200}


def step_of(seconds: float, points: float, least: int) -> int:
    """Return the seconds between two points of a graph with so many pixels."""
    exact = seconds / points
    return max(least, next(step for below, step in STEPS.items() if exact < below))


def seconds_of(text: str) -> int:
    """Return the seconds of 30s, 5m and the like."""
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


def answers(
    database: Database, panel: Mapping[str, Any], moment: Moment
) -> dict[str, Any]:
    """Return what Prometheus says to the panel's queries."""
    begin, end = moment.time_of(panel)
    found = []
    for target in panel.get("targets", ()):
        least = seconds_of(target.get("interval", "15s"))
        points = WIDE * panel["gridPos"]["w"] / 24
        step = step_of(end - begin, points, least)
        expr = filled_in(
            target["expr"],
            seconds=round(end - begin),
            rate=max(step + least, 4 * least),
        )
        path = f"query?query={quote(expr)}&time={end}"
        if target["range"]:
            first, last = begin // step * step, end // step * step
            path = f"query_range?query={quote(expr)}&step={step}"
            path += f"&start={first}&end={last}"
        result = json.loads(fetch(f"{database.url}/api/v1/{path}"))["data"]["result"]
        found.append({**target, "expr": expr, "step": step, "result": result})
    return {"panel": panel, "answers": found, "range": [begin * 1000, end * 1000]}


# --- the page ---------------------------------------------------------------------


def program(*names: str) -> str:
    """Return the first of these programs that is here."""
    found = next(filter(None, map(shutil.which, names)), None)
    if not found:
        sys.exit(f"{names[0]} is missing: sudo apt-get install {names[0]}")
    return found


def build(folder: Path) -> None:
    """Put what the page loads into the folder."""
    loaders = [f"--loader:.{ending}=dataurl" for ending in ("woff2", "woff", "ttf")]
    subprocess.run(
        [
            TOOL / "node_modules/.bin/esbuild",
            "page.jsx",
            "--bundle",
            "--minify",
            "--jsx=automatic",
            "--log-level=error",
            '--define:process.env.NODE_ENV="production"',
            f"--outfile={folder}/page.js",
            *loaders,
        ],
        check=True,
        cwd=TOOL,
    )
    icons = TOOL / "node_modules/@grafana/ui/dist/public/img/icons"
    place = folder / "public/build/img"
    place.mkdir(parents=True)
    (place / "icons").symlink_to(icons)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and hears from the page what went wrong there."""

    def __init__(self, *args: Any, failures: list[str], **kwargs: Any) -> None:
        self._failures = failures
        super().__init__(*args, **kwargs)

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self._failures.append(self.rfile.read(length).decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the folder on loopback, and return its address; fail if the page did."""
    failures: list[str] = []
    handler = functools.partial(Handler, directory=folder, failures=failures)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    if failures:
        sys.exit("The page could not be drawn: " + "\n".join(failures))


PAGE = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="page.css">
<body style="margin:0"><div id="page"></div>
<script>window.picture = %s; window.__grafana_public_path__ = "public/";</script>
<script src="page.js"></script>
"""


def shoot(
    folder: Path, theme: str, zone: str, drawn: Sequence[Any], file: Path
) -> None:
    """Have Chromium make a picture of the panels."""
    high = max(end(each["panel"]) for each in drawn) * (30 + 8) + 8
    told = {"theme": theme, "width": WIDE, "timeZone": zone, "panels": drawn}
    # A text of ours with this in it would end the script.
    text = json.dumps(told).replace("</", "<\\/")
    (folder / "index.html").write_text(PAGE % text, encoding="utf-8")
    with served(folder) as url:
        subprocess.run(
            [
                program("chromium", "chromium-browser", "google-chrome"),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--virtual-time-budget=20000",
                f"--user-data-dir={folder}/profile",
                f"--window-size={WIDE},{high}",
                f"--screenshot={file.resolve()}",
                f"{url}/index.html",
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )


def draw(folder: Path, name: str, panels: Sequence[Any], files: Sequence[Path]) -> None:
    """Make the pictures of a scene, one in each theme."""
    now = time.time() // 60 * 60
    # The zone in which it is now about that hour of the day.
    offset = (HOUR - now % DAY // 3600 + 12) % 24 * 3600 - 12 * 3600
    with (
        tempfile.TemporaryDirectory() as states,
        prometheus(Path(states, "server"), config=LATER) as database,
    ):
        fill(database, SCENES[name], now, offset, states)
        # Filling took its time: no run of it had success in the future.
        moment = Moment(math.ceil(time.time()), offset)
        drawn = [answers(database, panel, moment) for panel in panels]
    # POSIX counts them the other way round.
    zone = f"Etc/GMT{-offset // 3600:+.0f}"
    for theme, file in zip(THEMES, files, strict=True):
        shoot(folder, theme, zone, drawn, file)


def end(panel: Mapping[str, Any]) -> int:
    """Return the line of the grid below the panel."""
    return int(panel["gridPos"]["y"] + panel["gridPos"]["h"])


def shown(last: str = "") -> list[dict[str, Any]]:
    """Return the panels down to the one of this name, or all, with all rows open."""
    found: list[dict[str, Any]] = []
    below = 0
    for panel in deepcopy(DASHBOARD["panels"]):
        inside = panel.pop("panels", ())
        for each in (panel, *inside):
            each["gridPos"]["y"] += below
        found += [panel, *inside]
        if inside:
            below += max(map(end, inside)) - end(panel)
            panel["collapsed"] = False
    lowest = max(end(each) for each in found if not last or each["title"] == last)
    return [each for each in found if end(each) <= lowest]


def main() -> None:
    """Fill, ask, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--scene", choices=SCENES, action="append")
    given = parser.parse_args()
    logs.configure("CRITICAL", "text")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        build(folder)
        if not given.folder:
            files = [ROOT / f"docs/dashboard-{theme}.png" for theme in THEMES]
            draw(folder, "some", shown(LAST), files)
            return
        given.folder.mkdir(exist_ok=True, parents=True)
        for name in given.scene or SCENES:
            files = [given.folder / f"{name}-{theme}.png" for theme in THEMES]
            draw(folder, name, shown(), files)


if __name__ == "__main__":
    main()
