"""The energy of the running day, from records of a day's hours; pure.

DC Fit  watth_item.1.watth      [0, 0, 5, 7, ...]
        watth_item.1.timestamp  1786060800
                                ecoflow_energy_today_watt_hours{flow="solar"} 12.0

The day is the device's own: it begins at the record's stamp, which on some models is
00:00 UTC and on no model is known to be local midnight
(protocol/values.md#hourly-energy).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from ecoflow_push.devices.families import Hours
from ecoflow_push.devices.metrics import metrics

METRIC = "energy_today_watt_hours"
DAY = 86_400


def energies_today(
    values: Mapping[str, object], hours: Hours, at: float, left_out: Counter[str]
) -> Iterator[tuple[str, float]]:
    """Yield flow and watt hours of each record of the day that `at` (Unix, s) is in.

    A record of another day says nothing of this one. One that is not 24 possible
    numbers is left out and counted.
    """
    for kind, flow in hours.kinds.items():
        begin = values.get(f"{hours.prefix}{kind}.timestamp")
        energies = values.get(f"{hours.prefix}{kind}.watth")
        if type(begin) is not int or not begin <= at < begin + DAY or energies is None:
            continue
        if type(energies) is not list or any(
            type(each) is not int for each in energies
        ):
            left_out["not_a_number"] += 1
            continue
        total = sum(energies)
        if len(energies) != 24 or min(energies) < 0 or total > metrics()[METRIC].high:
            left_out["out_of_bounds"] += 1
            continue
        yield flow, float(total)
