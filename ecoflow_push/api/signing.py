"""The signature of EcoFlow's REST developer API (protocol/rest.md#signature); pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping


def signature(
    params: Mapping[str, object],
    *,
    access_key: str,
    secret_key: str,
    nonce: str,
    timestamp_ms: str,
) -> str:
    """Return the lower-case hex HMAC-SHA256 that goes into the header `sign`.

    `params` are the query's parameters of a GET, the JSON body's of a POST or PUT.
    """
    pairs = sorted(_flatten(params))
    pairs += [("accessKey", access_key), ("nonce", nonce), ("timestamp", timestamp_ms)]
    message = "&".join(f"{key}={value}" for key, value in pairs)
    return hmac.new(secret_key.encode(), message.encode(), hashlib.sha256).hexdigest()


def signed_headers(
    params: Mapping[str, object],
    *,
    access_key: str,
    secret_key: str,
    nonce: str,
    timestamp_ms: str,
) -> dict[str, str]:
    """Return the four request headers; a pair of nonce and timestamp serves once."""
    return {
        "accessKey": access_key,
        "nonce": nonce,
        "timestamp": timestamp_ms,
        "sign": signature(
            params,
            access_key=access_key,
            secret_key=secret_key,
            nonce=nonce,
            timestamp_ms=timestamp_ms,
        ),
    }


def _flatten(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flatten(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _flatten(inner, f"{key}[{index}]")
    elif isinstance(value, bool):
        yield key, str(value).lower()
    else:
        yield key, str(value)
