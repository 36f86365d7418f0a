"""What a remote-write receiver's answers mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecoflow_push.errors import WriteError
from ecoflow_push.sinks.server import PORTAL_CURE

if TYPE_CHECKING:
    from ecoflow_push.net.retry import Reply
    from ecoflow_push.sinks.server import Connection

WRITTEN = tuple(
    f"X-Prometheus-Remote-Write-{what}-Written"
    for what in ("Samples", "Histograms", "Exemplars")
)
# The receiver never saw the content, or cannot read its kind: the settings are wrong.
NOT_ABOUT_CONTENT = frozenset((404, 405, 415, 421, 426))
LATER = frozenset((408, 425, 429))
#: Of what stands in between: what the receiver said nobody heard.
OF_GATEWAYS = frozenset((502, 504))
TOO_LARGE, PROXY_REFUSES_US = 413, 407
#: What a receiver says to what it cannot read.
PROOFS = frozenset((400, 422))
PATHS = (
    "let REMOTE_WRITE_URL end in /api/v1/write for Prometheus and VictoriaMetrics,"
    " /api/v1/push for Mimir, /api/v1/receive for Thanos"
)


def refusal(reply: Reply, version: str, connection: Connection) -> WriteError:
    """Return what an answer means that is no success."""
    status, error = reply.status, connection.fault(reply)
    text, cure = error.text, error.cure
    if written := written_of(reply, version):
        return WriteError(text, cure, bad="content", answered=status, accepted=written)
    if status == PROXY_REFUSES_US:
        return WriteError(text, cure, bad="credentials", answered=status)
    if 300 <= status < 400:
        return WriteError(text, cure, bad="address", answered=status)
    if status in NOT_ABOUT_CONTENT or (error.bad == "content" and reply.is_page()):
        cure = (
            "check REMOTE_WRITE_URL and _VERSION, and whether the server takes"
            " remote-write"
        )
        return WriteError(text, cure, bad="address", answered=status)
    wait = reply.retry_after() if error.bad == "server" else None
    if wait:
        text += f", asks to wait {wait:.0f} s"
        return WriteError(text, cure, answered=status, retry_after=wait)
    return error


def doubt(
    reply: Reply, version: str, size: int, *, is_proven: bool, what: str
) -> WriteError | None:
    """Return why a 2xx to `size` samples is no success, None if it is one."""
    status = reply.status
    is_page = reply.is_page()
    if is_page or (reply.body and not is_proven):
        said = "a web page" if is_page else repr(reply.words())
        text = f"{what}: HTTP {status} with {said}"
        text += ", not the answer of a remote-write receiver"
        cure = PORTAL_CURE.format(url="REMOTE_WRITE_URL") if is_page else PATHS
        return WriteError(text, cure, bad="address", answered=status)
    written = written_of(reply, version)
    if written is None or written >= size:
        return None
    text = f"{what}: HTTP {status}, {written} of {size} samples written"
    cure = "its own log may say more"
    return WriteError(text, cure, bad="content", answered=status, accepted=written)


def written_of(reply: Reply, version: str) -> int | None:
    """Return how many samples of a request were written, None if it is not said.

    To 1.0, newer servers say 0 where they wrote all
    (protocol/remote-write.md#written).
    """
    text = reply.headers.get(WRITTEN[0], "") if version == "2" else ""
    return int(text[:9]) if text.isdecimal() and text.isascii() else None


def is_later(reply: Reply, version: str) -> bool:
    """Return whether this is to be sent again: 408, 425, 429 and 5xx.

    What was taken in part is not sent again, whatever the status.
    """
    may_be = reply.status in LATER or 500 <= reply.status < 600
    return may_be and not written_of(reply, version)
