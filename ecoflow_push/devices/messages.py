"""Which binary message says what: messages.tsv, by product first, then by its numbers.

One pair means different things in different products, so the product, known by the
serial prefix (products.tsv), comes first (protocol/binary.md#messages). The prefixes of
the keys are those of the REST API: the same device has the same names by either way.
"""

from __future__ import annotations

from functools import cache

from ecoflow_push.devices.products import messages_by_serial, products
from ecoflow_push.devices.questions import Pair, pair_of
from ecoflow_push.devices.tables import FOLDER, TableError, check_cells, lines

# What products.tsv says of those that have no messages here.
WITHOUT = ("JSON", "not public")
# Every product may send these.
_COMMON = "third generation"


class Route:
    """One message: its name in schema/, and what its quota keys begin with.

    Where it describes one unit out of many, `unit` is the field that tells them apart
    (of several, a blank apart, the first that is there) and `unit_prefix` holds its
    value; unit 0, or none, has the plain `prefix`. `items` is the list of units, empty
    where the message itself is one. `time` is the field with the time (s) of a report
    of which there may be several, where only the newest is the state now, and none that
    is older than `most_age` (s).
    """

    __slots__ = (
        *("items", "message", "most_age", "prefix", "time", "unit", "unit_prefix"),
    )

    def __init__(self, cells: list[str]) -> None:
        self.message, self.prefix, self.unit, self.unit_prefix, *rest = cells
        self.items, time = rest
        self.time, _, age = time.partition(" ")
        self.most_age = float(age or "inf")


#: A message without a route is known, and no state of the device now: settings,
#: acknowledgements, history.
Messages = dict[Pair, Route | None]


def tables(folder: str = FOLDER) -> dict[str, Messages]:
    """Return each group's messages; raises TableError."""
    return _tables(folder)


@cache
def _tables(folder: str) -> dict[str, Messages]:
    groups: dict[str, Messages] = {}
    for place, cells in lines(folder, "messages.tsv"):
        check_cells(place, cells, 8)
        group, pairs, *route = cells
        routes = groups.setdefault(group, {})
        for text in pairs.split(" "):
            pair = pair_of(place, text)
            if pair in routes:
                raise TableError(place, f"{text} of {group} stands here twice")
            routes[pair] = Route(route) if route[0] else None
    for group, place in products(folder).messages.items():
        if group not in groups and group not in WITHOUT:
            raise TableError(place, f"{group!r} is not in messages.tsv")
    return groups


def messages_of(group: str, folder: str = FOLDER) -> Messages:
    """Return what devices of a group may send, those of an unknown one if it is empty.

    Raises TableError.
    """
    return _messages(group, folder)


@cache
def _messages(group: str, folder: str) -> Messages:
    groups = tables(folder)
    common = groups[_COMMON]
    if group:
        return common | groups.get(group, {})
    # A new serial prefix may be of any group: only what two groups do not share.
    found: Messages = {}
    shared = set()
    for name, messages in groups.items():
        for pair, route in messages.items() if name != _COMMON else ():
            if found.setdefault(pair, route) != route:
                shared.add(pair)
    return {pair: found[pair] for pair in found if pair not in shared} | common


def messages_of_device(sn: str) -> Messages:
    """Return the messages that the device with this serial number may send."""
    return messages_of(messages_by_serial(sn))
