"""Binary messages to quota maps, by the schema in devices/schema; pure.

The only module that imports the `protobuf` package, itself imported only when a binary
frame has arrived: a run that meets none does not pay for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from ecoflow_push.devices.messages import Route
from ecoflow_push.devices.tables import SCHEMA

# A pool of our own: names in the default one belong to everybody in the process.
_POOL = DescriptorPool()
# A text that is a part of a key: no recorded serial is longer than 16 characters.
_LONGEST_UNIT = 32
# It goes field by field; the largest recorded payload has 3 kB.
MOST_SALVAGED = 1 << 16


@cache
def _load(package: str) -> None:
    with open(os.path.join(SCHEMA, f"{package}.binpb"), "rb") as file:
        _POOL.AddSerializedFile(file.read())


@cache
def message_class(name: str) -> Any:
    """Return the class of a message of the schema, such as `envelope.Header`."""
    _load(name.partition(".")[0])
    return GetMessageClass(_POOL.FindMessageTypeByName(f"ecoflow.{name}"))


def parse(name: str, data: bytes) -> Any:
    """Return the message of the schema that `data` holds, None if it holds none.

    A field that is not in the schema, or of another wire type, is no fault: it becomes
    an unknown field of the message.
    """
    try:
        return message_class(name).FromString(data)
    except DecodeError:
        return None


def salvage(name: str, data: bytes) -> Any:
    """Return what is sound of a message that `parse` cannot read, None if it is torn.

    A field whose bytes are not what the schema says is lost, not its neighbours.
    """
    if len(data) > MOST_SALVAGED:
        return None
    return _salvaged(message_class(name), data)


def quotas_of(
    message: Any, route: Route, known: Mapping[str, object], at: float | None = None
) -> dict[str, object]:
    """Return the quota map of a message: present fields only, by their REST keys.

    Sub-messages join with dots; lists stay lists, of numbers or of maps. A number that
    is not there is absent, unless the schema gives it a default: then that is what it
    is in a sub-message or an item of a list that is there. `known` is what earlier
    messages said: of reports with a time the newest counts, if it is not too old for
    the time `at` (Unix, s).
    """
    quotas: dict[str, object] = {}
    newest: dict[str, Any] = {}
    for unit in getattr(message, route.items) if route.items else [message]:
        prefix = _prefix(unit, route)
        if not route.time:
            _flatten(unit, prefix, quotas)
            if route.items:
                _fill(unit, prefix, quotas)
        elif getattr(unit, route.time) >= getattr(newest.get(prefix), route.time, 0):
            newest[prefix] = unit
    for prefix, unit in newest.items():
        if at is not None and abs(at - getattr(unit, route.time)) > route.most_age:
            continue
        key = prefix + unit.DESCRIPTOR.fields_by_name[route.time].json_name
        earlier = known.get(key)
        if not isinstance(earlier, int) or getattr(unit, route.time) >= earlier:
            _flatten(unit, prefix, quotas)
            _fill(unit, prefix, quotas)
    return quotas


def _prefix(unit: Any, route: Route) -> str:
    number = next(
        (value for name in route.unit.split() if (value := getattr(unit, name))), 0
    )
    if isinstance(number, bytes):
        number = _text(number)[:_LONGEST_UNIT]
    return route.unit_prefix.format(number) if number else route.prefix


def unknown_fields(message: Any) -> int:
    """Return how many fields, on all levels, the schema does not know."""
    count = len(UnknownFieldSet(message))
    for field, value in message.ListFields():
        if field.message_type is not None:
            inner = [value] if isinstance(value, Message) else value
            count += sum(map(unknown_fields, inner))
    return count


def _salvaged(kind: Any, data: bytes) -> Any:
    message = kind()
    place = 0
    while place < len(data):
        begin = place
        tag, place = _varint(data, place)
        size = {1: 8, 5: 4}.get(tag & 7, 0)
        if tag & 7 == 2:
            size, place = _varint(data, place)
        elif tag & 7 == 0:
            _, place = _varint(data, place)
        end = place + size
        if end > len(data) or tag & 7 not in (0, 1, 2, 5):
            return None
        try:
            message.MergeFrom(kind.FromString(data[begin:end]))
        except DecodeError:
            field = kind.DESCRIPTOR.fields_by_number.get(tag >> 3)
            if field and field.message_type and not field.is_repeated:
                inner = getattr(message, field.name)
                sound = _salvaged(type(inner), data[place:end])
                if sound is not None:
                    inner.MergeFrom(sound)
        place = end
    return message


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number and the place behind it, beyond the end if it is torn."""
    number = 0
    for count, byte in enumerate(data[place : place + 10]):
        number |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return number, place + count + 1
    return 0, len(data) + 1


def _flatten(message: Any, prefix: str, quotas: dict[str, object]) -> None:
    for field, value in message.ListFields():
        key = prefix + field.json_name
        if isinstance(value, Message):
            _flatten(value, f"{key}.", quotas)
            _fill(value, f"{key}.", quotas)
        else:
            quotas[key] = _plain(value)


def _fill(message: Any, prefix: str, quotas: dict[str, object]) -> None:
    """Add the fields that are not there and have a default."""
    absent = [
        field for field in _implied(message.DESCRIPTOR) if not message.HasField(field)
    ]
    if absent:
        # One that is there in another form than the schema's is not known.
        strange = {field.field_number for field in UnknownFieldSet(message)}
        for name in absent:
            field = message.DESCRIPTOR.fields_by_name[name]
            if field.number not in strange:
                quotas[prefix + field.json_name] = field.default_value


@cache
def _implied(descriptor: Any) -> tuple[str, ...]:
    """Return the fields of a message that have a default."""
    return tuple(field.name for field in descriptor.fields if field.has_default_value)


def _plain(value: Any) -> object:
    """Return a field's value as JSON would have it."""
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, Message):
        return {field.json_name: _plain(inner) for field, inner in value.ListFields()}
    return [_plain(item) for item in value]


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
