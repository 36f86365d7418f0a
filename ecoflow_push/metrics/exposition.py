"""Registries as text, family by family.

prometheus_client's generate_latest makes the same bytes, in twenty times the time: it
asks of each sample what all of a device have in common (tests/test_exposition.py).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ecoflow_push.metrics.frame import family_head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.metrics.frame import Frame

#: From here on Go writes exponents, and Python does not yet.
EXPONENT = 1e6


def text_of(registry: CollectorRegistry) -> bytes:
    """Return the text exposition of one registry."""
    from ecoflow_push.metrics.sheet import sheet_of

    out = []
    sheet = sheet_of(registry)
    for frame, values in sheet.parts:
        labels = _label_texts(sheet.labels, frame)
        # Column by column, which costs half of a loop over the samples.
        columns = [""] * (3 * len(values))
        columns[0::3] = frame.heads
        columns[1::3] = [labels[place] for place in frame.places]
        columns[2::3] = _numbers(values)
        out += columns
    out[:1] = [head[1:] for head in out[:1]]
    out.append("\n")
    return "".join(out).encode()


class Exposition:
    """Gathers registries into one text, each family once, in the order first seen.

    Of a sample it keeps the value alone, of a device its labels.
    """

    def __init__(self) -> None:
        self._devices: dict[Frame, list[tuple[list[str], Sequence[float]]]] = {}

    def add(self, registry: CollectorRegistry) -> None:
        """Add all samples of a registry, which is not kept."""
        from ecoflow_push.metrics.sheet import sheet_of

        sheet = sheet_of(registry)
        for frame, values in sheet.parts:
            of_all = self._devices.setdefault(frame, [])
            of_all.append((_label_texts(sheet.labels, frame), array("d", values)))

    def join(self, other: Exposition) -> None:
        """Add all that another one has gathered."""
        for frame, devices in other._devices.items():
            self._devices.setdefault(frame, []).extend(devices)

    def pieces(self) -> Iterator[bytes]:
        """Yield the exposition, piece by piece."""
        families: dict[str, list[tuple[Frame, slice]]] = {}
        for frame in self._devices:
            for name, part in _families(frame.names):
                families.setdefault(name, []).append((frame, part))
        for name, parts in families.items():
            frame, part = parts[0]
            yield family_head(name, frame.kinds[frame.metas[part.start]]).encode()
            for frame, part in parts:
                yield "".join(self._lines(name, frame, part)).encode()

    def _lines(self, name: str, frame: Frame, part: slice) -> list[str]:
        devices = self._devices[frame]
        lines = []
        for n in range(part.start, part.stop):
            place = frame.places[n]
            numbers = _numbers([values[n] for _, values in devices])
            lines += [
                f"{name}{labels[place]}{number}\n"
                for (labels, _), number in zip(devices, numbers, strict=True)
            ]
        return lines


def _families(names: Sequence[str]) -> Iterator[tuple[str, slice]]:
    start = 0
    for n in range(1, len(names) + 1):
        if n == len(names) or names[n] != names[start]:
            yield names[start], slice(start, n)
            start = n


def _label_texts(labels: Mapping[str, str], frame: Frame) -> list[str]:
    """Return the labels of each place, and the space behind them."""
    own = [(name, _label(name, value)) for name, value in labels.items()]
    found = []
    for extra in frame.extras:
        all_ = own
        if extra:
            more = [(name, _label(name, value)) for name, value in extra.items()]
            all_ = [each for each in own if each[0] not in extra] + more
        text = ",".join([label for _, label in sorted(all_)])
        found.append(f"{{{text}}} " if text else " ")
    return found


def _label(name: str, value: str) -> str:
    if "\\" in value or "\n" in value or '"' in value:
        value = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return f'{name}="{value}"'


def _numbers(values: Sequence[float]) -> list[str]:
    least = -math.inf
    return [
        repr(value) if least < value < EXPONENT else _as_in_go(value)
        for value in values
    ]


def _as_in_go(value: float) -> str:
    from prometheus_client.utils import floatToGoString

    return str(floatToGoString(value))  # type: ignore[no-untyped-call]
