"""Which device is which: products.tsv.

EcoFlow publishes no such table: this holds what several sources or live accounts
agree on (protocol/prefixes.md#prefixes).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ecoflow_push.devices.tables import FOLDER, TableError, check_cells, lines

_PRODUCT, _FAMILY, _MESSAGES = range(3)
_CELLS = {"serial": 5, "name": 3, "key": 3}
_LONGEST_NAME = 64
# In front of what sources claim, and do not agree on.
_DOUBT = "? "


class Products:
    """The table: `serials` hold product, family and messages, each perhaps empty.

    `names`, beginnings of product names in small letters, and `keys` hold families.
    `families` and `messages` hold the place where each is first spoken of; `doubtful`
    holds what is claimed of serials without a product.
    """

    __slots__ = (
        *("doubtful", "families", "keys", "messages", "names", "serials"),
        "_kinds",
    )

    def __init__(self) -> None:
        self.serials: dict[str, tuple[str, str, str]] = {}
        self.doubtful: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self.families: dict[str, str] = {}
        self.messages: dict[str, str] = {}
        self._kinds: dict[str, dict[str, Any]] = {
            "serial": self.serials,
            "name": self.names,
            "key": self.keys,
        }

    def add(self, place: str, cells: list[str]) -> None:
        """Take in one line; raises TableError."""
        kind = cells[0]
        known = self._kinds.get(kind)
        if known is None:
            raise TableError(place, f"{kind!r} is neither serial, name nor key")
        check_cells(place, cells, _CELLS[kind])
        begins = cells[1]
        if begins in known:
            raise TableError(place, f"the {kind} {begins!r} stands here twice")
        if kind == "serial":
            family = self._add_serial(place, cells)
        else:
            family = cells[2]
            if not begins or not family:
                raise TableError(place, f"a {kind} needs a family")
            if kind == "name" and begins != begins.lower():
                raise TableError(place, f"{begins!r} is not in small letters")
            known[begins] = family
        if family and family not in self.families:
            self.families[family] = place

    def _add_serial(self, place: str, cells: list[str]) -> str:
        _, begins, product, family, messages = cells
        if not 2 <= len(begins) <= 4:
            raise TableError(place, f"{begins!r} has not 2 to 4 characters")
        if product[:2] == _DOUBT:
            self.doubtful[begins] = product.removeprefix(_DOUBT)
            product = ""
        elif bool(product) != bool(messages):
            raise TableError(place, "a product needs its messages, and they it")
        self.serials[begins] = (product, family, messages)
        if messages and messages not in self.messages:
            self.messages[messages] = place
        return family

    def of_serial(self, sn: str, column: int) -> str:
        """Return the cell of the longest beginning of a serial that has one."""
        for length in (4, 3, 2):
            row = self.serials.get(sn[:length])
            if row and row[column]:
                return row[column]
        return ""


def products(folder: str = FOLDER) -> Products:
    """Return the table; raises TableError."""
    return _products(folder)


@cache
def _products(folder: str) -> Products:
    table = Products()
    for place, cells in lines(folder, "products.tsv"):
        table.add(place, cells)
    return table


def product_name(sn: str) -> str:
    """Return the product of a serial number, `Unknown` if its prefix says nothing."""
    return products().of_serial(sn, _PRODUCT) or "Unknown"


def family_by_serial(sn: str) -> str:
    """Return the name of a serial number's family, empty if it says nothing."""
    return products().of_serial(sn, _FAMILY)


def messages_by_serial(sn: str) -> str:
    """Return which messages a serial number's device sends, empty if it is unknown."""
    return products().of_serial(sn, _MESSAGES)


def family_by_product(product: str) -> str:
    """Return the family by the longest known beginning of a product's name, or none."""
    product = product[:_LONGEST_NAME].lower()
    names = products().names
    known = [begins for begins in names if product.startswith(begins)]
    return names[max(known, key=len)] if known else ""
