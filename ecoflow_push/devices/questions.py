"""How a device is asked, and whether it must be listened to: questions.tsv.

Apart from messages.tsv, which only a run that hears binary messages reads.
"""

from __future__ import annotations

from functools import cache

from ecoflow_push.devices.products import messages_by_serial, products
from ecoflow_push.devices.tables import FOLDER, TableError, check_cells, lines, number

#: (cmd_func, cmd_id).
Pair = tuple[int, int]


class Question:
    """How devices of one group are asked.

    `named` is the message that a request for everything must name, None if none.
    `listen` is how long (s) to wait for one of the `awaited` messages, which a device
    that answers nothing sends by itself; 0 where it answers.
    """

    __slots__ = ("awaited", "listen", "named")

    def __init__(self) -> None:
        self.named: Pair | None = None
        self.listen = 0.0
        self.awaited: frozenset[Pair] = frozenset()


_USUAL = Question()


def questions(folder: str = FOLDER) -> dict[str, Question]:
    """Return what is particular about some groups; raises TableError."""
    return _questions(folder)


@cache
def _questions(folder: str) -> dict[str, Question]:
    found: dict[str, Question] = {}
    for place, cells in lines(folder, "questions.tsv"):
        kind = cells[0]
        if kind not in ("ask", "listen"):
            raise TableError(place, f"{kind!r} is neither ask nor listen")
        check_cells(place, cells, 3 if kind == "ask" else 4)
        group = cells[1]
        if group not in products(folder).messages:
            raise TableError(place, f"{group!r} is not in products.tsv")
        question = found.setdefault(group, Question())
        pairs = [pair_of(place, text) for text in cells[-1].split(" ")]
        if kind == "ask":
            question.named = pairs[0]
        else:
            question.listen = number(place, cells[2])
            question.awaited = frozenset(pairs)
    return found


def question_of(sn: str) -> Question:
    """Return how the device with this serial number is asked."""
    return questions().get(messages_by_serial(sn), _USUAL)


def pair_of(place: str, text: str) -> Pair:
    """Return a cell's cmd_func/cmd_id; raises TableError where it holds none."""
    func, _, cmd_id = text.partition("/")
    if not (func.isdecimal() and cmd_id.isdecimal()):
        raise TableError(place, f"{text!r} is not cmd_func/cmd_id")
    return int(func), int(cmd_id)
