"""Draws docs/dashboard.svg: panels of the dashboard, as a real Prometheus answers them.

    python -m tests.picture

A day of a simulated DELTA 2, a run every five minutes, goes by remote-write into a
Prometheus, which is then asked the dashboard's own queries. Grafana is not needed, and
draws it in its own way.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import escape

from ecoflow_push import logs
from ecoflow_push.api.base import EcoflowApiClient, Reading
from ecoflow_push.api.models import DeviceInfo, Snapshot
from ecoflow_push.config.settings import Settings
from ecoflow_push.memory.lock import state_folder
from tests.dashboard import EXPRESSIONS, PANELS, filled_in
from tests.one_run import work
from tests.support import ROOT, Database, eventually, fetch, prometheus

SN = "R331ZFAKE0000001"
MINUTES = range(0, 24 * 60, 5)
PICTURE = ROOT / "docs" / "dashboard.svg"
# The panel's title, what its numbers are, and what they are drawn times.
DRAWN = (
    ("Charge", "%", 100.0),
    ("In and out", "W", 1.0),
    ("Solar", "W", 1.0),
    ("Batteries", "°C", 1.0),
    ("Time left", "h", 1 / 3600),
    ("Mains", "V", 1.0),
)
COLOURS = ("#3b7dd8", "#e0752d")
WIDE, HIGH, LEFT, TOP = 440, 150, 44, 30


def day(minute: int) -> dict[str, object]:
    """Return the quotas of a DELTA 2 in the sun, with a mains cut at noon."""
    hour = minute / 60
    sun = round(max(0.0, 380 * math.sin(math.pi * (hour - 6) / 14)) if hour < 20 else 0)
    load = 120 + (170 if 18 <= hour < 22 else 0) + round(20 * math.sin(hour * 5))
    charge = 60 + 30 * math.sin(math.pi * (hour - 9) / 12)
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
    }


class Station(EcoflowApiClient):
    """One device that answers at once, at a minute of the day."""

    name = "rest"
    title = "a day"

    def __init__(self, minute: int, at: float) -> None:
        super().__init__()
        self._minute = minute
        self._at = at

    def read(self, named, deadline):
        self.wanted = self.listed = [DeviceInfo(SN, "Garage", "DELTA 2", online=True)]
        snapshot = Snapshot(SN, day(self._minute), self._at)
        yield Reading(self.wanted[0], self.name, snapshot)

    def probe(self, deadline):
        yield from ()

    def close(self):
        pass


class Line(NamedTuple):
    """What one series was, at the seconds of the day."""

    name: str
    points: list[tuple[float, float]]


def lines(database: Database, title: str, begin: float) -> list[Line]:
    """Return what a panel shows of that day."""
    [panel] = [each for each in PANELS if each["title"] == title]
    found = []
    for target in panel["targets"]:
        query = quote(filled_in(EXPRESSIONS[f"{title} {target['refId']}"]))
        path = f"/api/v1/query_range?query={query}&start={begin}&end={begin + 86_400}"
        answer: Any = json.loads(fetch(f"{database.url}{path}&step=300"))
        name = target["legendFormat"].partition(" ")[2].replace("{{pack}}", "")
        found += [
            Line(name, [(float(at) - begin, float(v)) for at, v in series["values"]])
            for series in answer["data"]["result"]
        ]
    return found


def drawn(title: str, unit: str, times: float, shown: list[Line]) -> str:
    """Return a panel as SVG."""
    values = [value * times for line in shown for _, value in line.points]
    low, top = min(0.0, *values), max(values)
    step = 10 ** math.floor(math.log10(top - low))
    sizes = (step / 2, step, 2 * step, 5 * step)
    step = next(size for size in sizes if (top - low) / size <= 4.5)
    first, last = math.floor(low / step), math.ceil(top / step)
    high = HIGH / (last - first) / step

    def height(value: float) -> float:
        return float(TOP + high * (last * step - value))

    parts = [f'<text x="{LEFT}" y="18" class="title">{escape(title)}</text>']
    for n in range(first, last + 1):
        y = height(n * step)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}h{WIDE - LEFT}"/>')
        text = f"{n * step:g} {unit}"
        parts.append(f'<text x="{LEFT - 5}" y="{y + 3:.1f}" class="end">{text}</text>')
    for hour in range(0, 25, 6):
        x = LEFT + (WIDE - LEFT) * hour / 24
        place = f'x="{x:.0f}" y="{TOP + HIGH + 14}" class="mid"'
        parts.append(f"<text {place}>{hour:02}:00</text>")
    for n, line in enumerate(shown):
        path, before = [], -1e9
        for at, value in line.points:
            x = LEFT + (WIDE - LEFT) * at / 86_400
            y = height(value * times)
            # A hole in the data stays one.
            path.append(f"{'L' if at - before <= 300 else 'M'}{x:.1f} {y:.1f}")
            before = at
        colour = COLOURS[n % len(COLOURS)]
        parts.append(f'<path class="line" stroke="{colour}" d="{"".join(path)}"/>')
        if line.name.strip():
            x = WIDE - 60 * (len(shown) - n - 1)
            text = f'<text x="{x}" y="18" class="end" style="fill:{colour}">'
            parts.append(f"{text}{escape(line.name.strip())}</text>")
    return "".join(parts)


def picture(database: Database, begin: float) -> str:
    """Return all panels as one SVG."""
    across, down = WIDE + 30, HIGH + TOP + 26
    panels = []
    for n, (title, unit, times) in enumerate(DRAWN):
        inner = drawn(title, unit, times, lines(database, title, begin))
        place = f"translate({n % 2 * across + 8} {n // 2 * down + 4})"
        panels.append(f'<g transform="{place}">{inner}</g>')
    size = f'width="{2 * across}" height="{math.ceil(len(DRAWN) / 2) * down}"'
    style = (
        "text{font:11px sans-serif;fill:#555}.title{font-weight:bold;fill:#222}"
        ".end{text-anchor:end}.mid{text-anchor:middle}.grid{stroke:#ddd}"
        ".line{fill:none;stroke-width:1.6}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(panels)}</svg>\n'
    )


def main() -> None:
    """Fill, ask, draw."""
    begin = (time.time() // 86_400 - 1) * 86_400
    with (
        tempfile.TemporaryDirectory() as folder,
        prometheus(Path(folder, "server")) as database,
    ):
        settings = Settings.from_environ(
            {
                "ECOFLOW_ACCESS_KEY": "a",
                "ECOFLOW_SECRET_KEY": "s",
                "REMOTE_WRITE_URL": database.write_url,
                "STATE_DIR": folder,
            }
        )
        logs.configure("WARNING", "text")
        state = state_folder(folder, "picture")
        for minute in MINUTES:
            at = begin + 60 * minute
            assert work(Station(minute, at), settings, state, at) == 0
        assert eventually(lambda: lines(database, "Charge", begin))
        PICTURE.write_text(picture(database, begin), encoding="utf-8")


if __name__ == "__main__":
    main()
