"""Which binary message says what: messages.tsv, by product first, then by its numbers.

One pair means different things in different products, so the product, known by the
serial prefix (products.tsv), comes first (protocol/binary.md#messages). The prefixes of
the keys are those of the REST API: the same device has the same names by either way.
"""

from __future__ import annotations

from functools import cache

from ecoflow_push.devices.products import messages_by_serial, products
from ecoflow_push.devices.tables import FOLDER, TableError, check_cells, lines

#: (cmd_func, cmd_id).
Pair = tuple[int, int]
# What products.tsv says of those that have no messages here.
WITHOUT = ("JSON", "not public")
# Every product may send these.
_COMMON = "third generation"


class Route:
    """One message: its name in schema/, and what its quota keys begin with.

    Where it describes one unit out of many, `unit` is the field that tells them apart
    and `unit_prefix` holds its value; unit 0, or none, has the plain `prefix`. `items`
    is the list of units, empty where the message itself is one.
    """

    __slots__ = ("items", "message", "prefix", "unit", "unit_prefix")

    def __init__(
        self,
        message: str,
        prefix: str = "",
        unit: str = "",
        unit_prefix: str = "",
        items: str = "",
    ) -> None:
        self.message = message
        self.prefix = prefix
        self.unit = unit
        self.unit_prefix = unit_prefix
        self.items = items


#: A message without a route is known, and no state of the device now: settings,
#: acknowledgements, history.
Messages = dict[Pair, Route | None]


def tables(folder: str = FOLDER) -> tuple[dict[str, Messages], dict[str, Pair]]:
    """Return each group's messages, and the one that a request must name, if any.

    Raises TableError.
    """
    return _tables(folder)


@cache
def _tables(folder: str) -> tuple[dict[str, Messages], dict[str, Pair]]:
    groups: dict[str, Messages] = {}
    asked: dict[str, Pair] = {}
    for place, cells in lines(folder, "messages.tsv"):
        if cells[0] == "ask":
            check_cells(place, cells, 3)
            _, group, text = cells
            pair = _pair(place, text)
            if pair not in groups.get(group, {}):
                raise TableError(place, f"{group} has no message {text}")
            asked[group] = pair
            continue
        check_cells(place, cells, 7)
        group, pairs, message, *rest = cells
        routes = groups.setdefault(group, {})
        for text in pairs.split(" "):
            pair = _pair(place, text)
            if pair in routes:
                raise TableError(place, f"{text} of {group} stands here twice")
            routes[pair] = Route(message, *rest) if message else None
    for group, place in products(folder).messages.items():
        if group not in groups and group not in WITHOUT:
            raise TableError(place, f"{group!r} is not in messages.tsv")
    return groups, asked


def messages_of(group: str, folder: str = FOLDER) -> Messages:
    """Return what devices of a group may send, those of an unknown one if it is empty.

    Raises TableError.
    """
    return _messages(group, folder)


@cache
def _messages(group: str, folder: str) -> Messages:
    groups, _ = tables(folder)
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


def asked_by_name(sn: str) -> Pair | None:
    """Return the message that a request for everything names, None if it names none."""
    _, asked = tables()
    return asked.get(messages_by_serial(sn))


def _pair(place: str, text: str) -> Pair:
    func, _, number = text.partition("/")
    if not (func.isdecimal() and number.isdecimal()):
        raise TableError(place, f"{text!r} is not cmd_func/cmd_id")
    return int(func), int(number)
