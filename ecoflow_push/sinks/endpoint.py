"""RemoteWriteSink: records to a remote-write endpoint, version 1.0 or 2.0."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import cramjam

from ecoflow_push.errors import WriteError
from ecoflow_push.net.retry import Reply, Request
from ecoflow_push.sinks.base import TimestampedSink
from ecoflow_push.sinks.server import Connection, Server
from ecoflow_push.sinks.wire import ENCODERS, MOST_SAMPLES

if TYPE_CHECKING:
    from ecoflow_push.metrics.record import Record
    from ecoflow_push.net.deadline import Deadline

log = logging.getLogger(__name__)

# The specifications name both headers' values (protocol/remote-write.md#headers).
HEADERS = {
    "1": {
        "Content-Type": "application/x-protobuf",
        "X-Prometheus-Remote-Write-Version": "0.1.0",
    },
    "2": {
        "Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        "X-Prometheus-Remote-Write-Version": "2.0.0",
    },
}
WRITTEN = tuple(
    f"X-Prometheus-Remote-Write-{what}-Written"
    for what in ("Samples", "Histograms", "Exemplars")
)
# The receiver never saw the content, or cannot read its kind: the settings are wrong.
NOT_ABOUT_CONTENT = frozenset((404, 405, 407, 415, 421, 426))


class RemoteWriteSink(TimestampedSink):
    """Writes one record at a time; whoever calls keeps them in their order."""

    name = "remote-write"

    def __init__(
        self,
        server: Server,
        *,
        version: str,
        known_version: str = "",
        headers: Mapping[str, str] | None = None,
        proxies: Mapping[str, str] | None = None,
        attempts: int,
        longest_wait: float,
    ) -> None:
        """Store what is needed; nothing is contacted.

        `version` is 1, 2, or auto: 2 until the receiver turns out to know only 1.
        `known_version` is what an earlier run found out, "" if nothing.

        Raises SettingsError when a certificate or key file cannot be used.
        """
        self._may_change = version == "auto"
        #: What the receiver is known to take, "" as long as that is not known.
        self._known_version = version
        if self._may_change:
            self._know(known_version)
        self._connection = Connection(
            server,
            attempts=attempts,
            longest_wait=longest_wait,
            headers=headers,
            proxies=proxies,
            # What a 2xx says beside is to be ignored.
            needs_body=False,
            is_worth_a_retry=self._is_worth_a_retry,
        )
        #: The version of the message that is being sent.
        self._version = ""

    def write(
        self, record: Record, deadline: Deadline, tries: int | None = None
    ) -> None:
        """Write all of `record`, in one request for up to 2,000 samples.

        `tries` overrides how often. Raises WriteError: after one that is about the
        content the record is over, after all others it is to be written again, whole.
        """
        version = self._known_version or "2"
        try:
            self._write(record, version, deadline, tries)
        except _OtherVersion as exc:
            # Only what takes the other message shows that the message was the trouble.
            try:
                self._write(record, "1", deadline, tries)
            except WriteError as other:
                if other.bad != "address" or exc.plain is None:
                    raise
                # It knows 2.0 alone, and means what the message says.
                self._know("2")
                raise exc.plain from exc
            version = "1"
            log.info("%s: version 1.0 from now on", exc)
        self._know(version)

    def ask_the_time(self, deadline: Deadline) -> float | None:
        """Return how far our clock is ahead (s), after asking for nothing."""
        request = Request("GET", self._connection.url, self._connection.headers)
        try:
            self._connection.send(lambda: request, deadline, 1)
        except WriteError:
            return None
        return self._connection.clock_offset()

    def close(self) -> None:
        """Close the kept connection."""
        self._connection.close()

    def _know(self, version: str) -> None:
        self._known_version = version
        self.learnt = version if self._may_change else ""

    def _write(
        self, record: Record, version: str, deadline: Deadline, tries: int | None
    ) -> None:
        written = 0
        for message in ENCODERS[version](record):
            reply = self._send(message, version, deadline, tries)
            try:
                self._judge(reply, version)
            except WriteError as exc:
                # The record is over, whatever became of its other requests.
                exc.accepted += written if exc.bad == "content" else 0
                raise
            written += MOST_SAMPLES

    def _send(
        self, message: bytes, version: str, deadline: Deadline, tries: int | None
    ) -> Reply:
        body = bytes(cramjam.snappy.compress_raw(message))
        connection = self._connection
        headers = {"Content-Encoding": "snappy", **HEADERS[version]}
        headers = {**connection.headers, **headers}
        attempt = -1

        def build() -> Request:
            nonlocal attempt
            attempt += 1
            # As Prometheus says it; Mimir chooses its Retry-After by it.
            again = {"Retry-Attempt": str(attempt)} if attempt else {}
            return Request("POST", connection.url, {**headers, **again}, body)

        self._version = version
        return connection.send(build, deadline, tries)

    def _judge(self, reply: Reply, version: str) -> None:
        """Return if the receiver took the message, else raise what that means."""
        status, connection = reply.status, self._connection
        if version == "2" and self._is_older(reply):
            what = f"{connection.what}: HTTP {status}"
            says = what if status < 300 else f"{what}: {reply.words()}"
            if self._may_change:
                plain = connection.fault(reply) if status == 400 else None
                raise _OtherVersion(says, plain)
            text = f"{says}: does not speak version 2.0"
            cure = "set REMOTE_WRITE_VERSION to 1 or auto"
            raise WriteError(text, cure, bad="address", answered=status)
        if 200 <= status < 300:
            if reply.is_page():
                raise connection.page(f"HTTP {status} with")
        else:
            raise self._refusal(reply)

    def _refusal(self, reply: Reply) -> WriteError:
        """Return what an answer means that is no success."""
        status, error = reply.status, self._connection.fault(reply)
        if written := self._written(reply):
            text, cure = error.text, error.cure
            return WriteError(
                text, cure, bad="content", answered=status, accepted=written
            )
        if status in NOT_ABOUT_CONTENT:
            if self._may_change and status == 415:
                self._know("")
            cure = (
                "check REMOTE_WRITE_URL and _VERSION, and whether the server takes"
                " remote-write"
            )
            return WriteError(error.text, cure, bad="address", answered=status)
        if status in (408, 425):
            # What it will not have now it will never have, says the specification.
            text, cure = error.text, error.cure
            return WriteError(text, cure, bad="content", answered=status)
        if error.retry_after:
            says = f", asks to wait {error.retry_after:.0f} s"
            return self._connection.fault(reply, says=says)
        return error

    def _is_older(self, reply: Reply) -> bool:
        """Return whether an answer to a 2.0 message shows a receiver of 1.0 alone."""
        if 200 <= reply.status < 300:
            # It takes this message for an empty one (protocol/remote-write.md#written).
            return not any(name in reply.headers for name in WRITTEN)
        is_doubtful = self._may_change and not self._known_version
        is_doubtful &= not self._written(reply)
        return reply.status == 415 or (reply.status == 400 and is_doubtful)

    def _is_worth_a_retry(self, reply: Reply) -> bool:
        """Return whether the specification lets this be sent again: 429 and 5xx.

        What was taken in part is not sent again, whatever the status.
        """
        may_be = reply.status == 429 or 500 <= reply.status < 600
        return may_be and not self._written(reply)

    def _written(self, reply: Reply) -> int:
        """Return how many samples of a refused request were written all the same.

        To 1.0, newer servers say 0 where they wrote all
        (protocol/remote-write.md#written).
        """
        text = reply.headers.get(WRITTEN[0], "") if self._version == "2" else ""
        return int(text[:9]) if text.isdecimal() and text.isascii() else 0


class _OtherVersion(WriteError):
    """The receiver does not understand 2.0; or, with `plain`, it is that instead."""

    def __init__(self, says: str, plain: WriteError | None) -> None:
        super().__init__(f"{says}: does not speak version 2.0", bad="address")
        self.plain = plain
