"""Binary messages to quota maps, by the schema in devices/schema; pure.

The only module that imports the `protobuf` package, itself imported only when a binary
frame has arrived: a run that meets none does not pay for it.
"""

from __future__ import annotations

import os
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


def quotas_of(message: Any, route: Route) -> dict[str, object]:
    """Return the quota map of a message: present fields only, by their REST keys.

    Sub-messages join with dots; lists stay lists, of numbers or of maps.
    """
    quotas: dict[str, object] = {}
    units = getattr(message, route.items) if route.items else [message]
    for unit in units:
        number = getattr(unit, route.unit) if route.unit else 0
        if isinstance(number, bytes):
            number = _text(number)[:_LONGEST_UNIT]
        _flatten(
            unit, route.unit_prefix.format(number) if number else route.prefix, quotas
        )
    return quotas


def unknown_fields(message: Any) -> int:
    """Return how many fields, on all levels, the schema does not know."""
    count = len(UnknownFieldSet(message))
    for field, value in message.ListFields():
        if field.message_type is not None:
            inner = [value] if isinstance(value, Message) else value
            count += sum(map(unknown_fields, inner))
    return count


def _flatten(message: Any, prefix: str, quotas: dict[str, object]) -> None:
    for field, value in message.ListFields():
        key = prefix + field.json_name
        if isinstance(value, Message):
            _flatten(value, f"{key}.", quotas)
        else:
            quotas[key] = _plain(value)


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
