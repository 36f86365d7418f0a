"""The one reader of EcoFlow's answers: {code, message, data}, or whatever else came.

What an answer means stands in a table: the kind of error, what is wrong, the cure.
"""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING

from ecoflow_push.api.models import said
from ecoflow_push.errors import (
    ApiOutOfTime,
    AskedToWait,
    DeviceOffline,
    DeviceRefused,
    EcoflowApiException,
    KeysRefused,
    NoDevices,
    OutOfTime,
    Unreachable,
)
from ecoflow_push.memory.files import values_in
from ecoflow_push.redact import learn_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sized

    from ecoflow_push.net.deadline import Deadline
    from ecoflow_push.net.retry import Reply, Request, Transport

    #: The error to make, its text and its cure, in which `{words}`, `{trace}`,
    #: `{others}`, `{clock}` and `{set_clock}` stand for what is known of the answer.
    Meaning = tuple[Callable[..., EcoflowApiException], str, str]
    #: By EcoFlow's code, by "HTTP" and a status, or by a whole message, casefolded
    #: and without a full stop; "" is any other code.
    Meanings = Mapping[str, Meaning]

# A key is bound to the region of its developer account (protocol/rest.md#hosts).
REGIONAL_HOSTS = ("api.ecoflow.com", "api-e.ecoflow.com", "api-a.ecoflow.com")
# The members of answers that are secrets (protocol/account.md#login).
EARNED = ("token", "userId", "certificateAccount", "certificatePassword")
# Our clock this far from theirs is worth naming beside a refused signature.
CLOCK_SUSPECT_SECONDS = 300.0
# "Server is too busy" names no time (protocol/rest.md#codes).
BUSY_SECONDS = 120.0

# What the values of one answer may hold in memory, in bytes (`weight_of`): of a device,
# five times what the heaviest recorded one does; of a list, 10,000 devices and more.
MOST_WEIGHT = 4 << 20
LIST_WEIGHT = 32 << 20
# More than one account's, and what a run can remember in little memory.
MOST_DEVICES = 12_000
# The dearest that a comma or an opening bracket stands for: a map with one key.
VALUE_BYTES = 250
# A letter, of a text in which one is beyond the basic plane: 4 of the text that is
# read, 4 of what is found in it.
LETTER_BYTES = 8

FOREIGN_CURE = "look for another server or a proxy that answers instead"
KEYS_CURE = "check ECOFLOW_ACCESS_KEY and ECOFLOW_SECRET_KEY"
WAIT_CURE = "wait, and let the job run less often"
TIME_CURE = "look for a firewall in the way, then raise RUN_DEADLINE"
OFFLINE_CURE = "switch the device on, and look for its Wi-Fi in the app"

_UNKNOWN: Meaning = (EcoflowApiException, "{words} (trace {trace})", "")
_REFUSED: Meaning = (KeysRefused, "{words} (trace {trace})", KEYS_CURE)
_NOISY: Meaning = (
    KeysRefused,
    "refused; EcoFlow blocks noisy clients for a while",
    "ask less often and wait, or check the keys",
)
_BLOCKED: Meaning = (
    KeysRefused,
    "the login was refused, or is blocked for a while after too many logins",
    "wait an hour, and keep STATE_DIR between runs",
)
_MESSAGES: Meanings = {
    "server is too busy": (
        partial(AskedToWait, seconds=BUSY_SECONDS),
        "{words}",
        WAIT_CURE,
    ),
    "no permission to do it": (
        DeviceRefused,
        "{words} (trace {trace})",
        "use the credentials of the account that owns the device",
    ),
}

#: The developer API's answers (protocol/rest.md#codes).
DEVELOPER: Meanings = {
    **_MESSAGES,
    "HTTP 401": _NOISY,
    "HTTP 403": _NOISY,
    "8521": (
        KeysRefused,
        "the signature is wrong{clock}",
        "{set_clock}check ECOFLOW_SECRET_KEY",
    ),
    "8513": (
        KeysRefused,
        "the access key is unknown here: a key works in its own region only",
        "try ECOFLOW_API_HOST={others}, or check ECOFLOW_ACCESS_KEY",
    ),
    "1006": (
        partial(DeviceRefused, instead="app account only"),
        "this model is not open to developer keys, or not bound to their account",
        "the app account can read it",
    ),
    "8512": (
        DeviceRefused,
        "no permission: perhaps the serial of a battery inside another device",
        "use the main device's",
    ),
    "1008": (
        EcoflowApiException,
        "the request's parameters are wrong",
        "check ECOFLOW_DEVICE_SN",
    ),
    "6012": (DeviceOffline, "the device is offline", OFFLINE_CURE),
    # Codes that peers list as refused credentials; never seen by us.
    **dict.fromkeys(("400", "401", "6042", "7005", "7015"), _REFUSED),
}
#: What answers the app account's login: any code is refused credentials.
LOGIN: Meanings = {
    "HTTP 401": _BLOCKED,
    "HTTP 403": _BLOCKED,
    "server is too busy": _MESSAGES["server is too busy"],
    "": (
        KeysRefused,
        "the app account was refused",
        (
            "check ECOFLOW_ACCOUNT_USER and ECOFLOW_ACCOUNT_PASSWORD, and that"
            " ECOFLOW_API_HOST is the account's region"
        ),
    ),
}
#: What answers those who are logged in.
LOGGED_IN: Meanings = {
    **_MESSAGES,
    "HTTP 401": (EcoflowApiException, "the login is not taken, or no more", ""),
}


def ask(
    transport: Transport,
    build: Callable[[], Request],
    deadline: Deadline,
    host: str,
    meanings: Meanings,
    *,
    most_weight: int = MOST_WEIGHT,
) -> tuple[object, int]:
    """Send what `build` makes to `host`; return the answer's `data`, and its weight.

    Raises ApiOutOfTime, or what `meanings` say of the answer: EcoflowApiException or
    one of its kinds, with a `code` if it stands in the table or the envelope. What
    weighs more than `most_weight` (bytes) is not read.
    """
    try:
        reply = transport.send(build, deadline)
    except OutOfTime as exc:
        text = f"{host}: {exc.text} (out of time)"
        raise ApiOutOfTime(text, exc.cure or TIME_CURE) from exc
    except Unreachable as exc:
        raise EcoflowApiException(f"{host}: {exc.text}", exc.cure) from exc
    if reply.status != 200:
        raise _of_status(reply, host, meanings)
    content = reply.content(most_weight // LETTER_BYTES + 1)
    weight = weight_of(content)
    if weight > most_weight:
        text = f"{host}: answered far more than any device or list has"
        text = f"{text} ({values_in(content)} values)"
        raise EcoflowApiException(text, FOREIGN_CURE)
    envelope = decode(content)
    if not isinstance(envelope, dict) or "code" not in envelope:
        kind = said(reply.headers.get("Content-Type", "no type"), 60).partition(";")[0]
        raise EcoflowApiException(
            f"{host}: answered {len(reply.body)} bytes of {kind}, not EcoFlow's JSON",
            "check for a login portal or proxy in the way, and ECOFLOW_API_HOST",
        )
    if str(envelope["code"]) != "0":
        # What it hands out beside a refusal may stand in the refusal's words.
        _learn_earned(envelope)
        raise _of_code(envelope, reply, host, meanings)
    return envelope.get("data"), weight


def no_devices() -> NoDevices:
    """Return what an empty device list is."""
    return NoDevices(
        "EcoFlow lists no device: the credentials belong to another account than the"
        " devices, or the devices are only shared with it",
        "use the credentials of the account that the devices are bound to",
    )


def check_count(devices: Sized, host: str) -> None:
    """Raise EcoflowApiException for a list that is longer than any account's."""
    if len(devices) > MOST_DEVICES:
        text = f"{host}: lists {len(devices)} devices, more than {MOST_DEVICES}"
        raise EcoflowApiException(text, FOREIGN_CURE)


def _of_status(reply: Reply, host: str, meanings: Meanings) -> EcoflowApiException:
    code = f"HTTP {reply.status}"
    what = f"{host}: {code}"
    if code in meanings:
        kind, text, cure = meanings[code]
        return kind(f"{what}: {text}", cure, code=code)
    asked = reply.retry_after()
    if reply.status == 429 or asked is not None:
        asked = BUSY_SECONDS if asked is None else asked
        text = f"{what}: asked us to wait {asked:.0f} s"
        return AskedToWait(text, WAIT_CURE, seconds=asked)
    if 300 <= reply.status < 400:
        text = f"{what}: a redirect{reply.leads_to()}, not followed with credentials"
        return EcoflowApiException(text, "check ECOFLOW_API_HOST")
    if reply.status >= 500:
        return EcoflowApiException(what, "wait, the fault is on its side")
    cure = "check ECOFLOW_API_HOST; its own words and log may say more"
    if reply.status == 407:
        cure = "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
    return EcoflowApiException(what, cure)


def _of_code(
    envelope: Mapping[str, object], reply: Reply, host: str, meanings: Meanings
) -> EcoflowApiException:
    code = said(str(envelope["code"]), 20)
    words = said(envelope.get("message"), 100)
    whole = words.casefold().removesuffix(".")
    kind, text, cure = next(
        (meanings[key] for key in (code, whole, "") if key in meanings), _UNKNOWN
    )
    facts = {
        "words": words or "no text",
        "trace": said(envelope.get("eagleEyeTraceId"), 40) or "-",
        "others": " or ".join(each for each in REGIONAL_HOSTS if each != host),
        **_clock(reply),
    }
    text = f"{host}: code {code}: {text.format(**facts)}"
    return kind(text, cure.format(**facts), code=code)


def _learn_earned(found: object, depth: int = 4) -> None:
    """Mask what opens something in an answer, whatever it is an answer to."""
    if isinstance(found, dict) and depth:
        for name, value in found.items():
            if name in EARNED and isinstance(value, str | int):
                learn_tokens(str(value))
            _learn_earned(value, depth - 1)


def _clock(reply: Reply) -> dict[str, str]:
    """Return what a refused signature may owe to our clock, judged by their Date.

    What to do about that comes first: as long as it is wrong, no secret is right.
    """
    offset = reply.clock_offset(time.time()) or 0.0
    if abs(offset) < CLOCK_SUSPECT_SECONDS:
        return {"clock": "", "set_clock": ""}
    return {
        "clock": f", and this clock is {offset:+.0f} s from EcoFlow's",
        "set_clock": "set the clock and keep it with NTP, then ",
    }


def weight_of(body: bytes) -> int:
    """Return how many bytes the values of a JSON text can take in memory, at most.

    A million empty lists are 3 MB of text and 70 of values: to be known beforehand.
    """
    return LETTER_BYTES * len(body) + VALUE_BYTES * values_in(body)


def decode(body: bytes | str) -> object:
    """Return the JSON value of `body`, None where it has none; raises nothing.

    How much that may be is for who calls to judge (`weight_of`). A number that is none
    (NaN, 1e400, 5,000 digits) becomes one that is not finite.
    """
    # The second reading is for integers beyond Python's 4300 digits, as infinities.
    for parse_int in (None, float):
        try:
            return json.loads(body, parse_int=parse_int)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            return None
        except ValueError:
            continue
    return None
