"""RemoteWriteSink: records to a remote-write endpoint, version 1.0 or 2.0."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING

import cramjam

from ecoflow_push.errors import OutOfTime, WriteError
from ecoflow_push.net.retry import Reply, Request
from ecoflow_push.sinks.base import TimestampedSink
from ecoflow_push.sinks.server import Connection, Server
from ecoflow_push.sinks.verdicts import (
    OF_GATEWAYS,
    PATHS,
    PROOFS,
    TOO_LARGE,
    WRITTEN,
    doubt,
    is_later,
    refusal,
    written_of,
)
from ecoflow_push.sinks.wire import ENCODERS, split

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
# No remote-write receiver can take this: behind snappy (a length, and one literal) is
# no protobuf. Nor is it anything in the other protocols that some path of a server may
# read, packed or not (protocol/remote-write.md#proof).
NONSENSE = b"\x10\x3c" + b"\xff" * 9 + b"ecoflow"


class RemoteWriteSink(TimestampedSink):
    """Writes what it is given; whoever calls keeps the order."""

    name = "remote-write"
    most_in_flight = 4

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
        most_samples: int = 2000,
    ) -> None:
        """Store what is needed; nothing is contacted.

        `version` is 1, 2, or auto: 2 until the receiver turns out to know only 1.
        `known_version` is what an earlier run found out, "" if nothing. `most_samples`
        is the most that one request holds.

        Raises SettingsError when a certificate or key file cannot be used.
        """
        self.most_samples = most_samples
        self._may_change = version == "auto"
        #: What the receiver is known to take, "" as long as that is not known.
        self._known_version = version
        if self._may_change:
            self._know(known_version)
        self._connect = partial(
            Connection,
            server,
            attempts=attempts,
            longest_wait=longest_wait,
            headers=headers,
            proxies=proxies,
            # The status is an answer, whatever becomes of the rest.
            needs_body=False,
        )
        self.connect()
        #: The version of the message that is being sent, how often it was before, and
        #: how often the receiver itself answered.
        self._version = ""
        self._attempt = 0
        self._answers = 0

    def write(
        self, records: Sequence[Record], deadline: Deadline, tries: int | None = None
    ) -> None:
        """Write all of `records`, in one request, or a large one alone in several.

        `tries` overrides how often. Raises WriteError: after one that is about the
        content they are not taken, after all others they are to be written again.
        """
        version = self._known_version or "2"
        try:
            self._write(records, version, deadline, tries)
        except _OtherVersion as exc:
            # Only what takes the other message shows that the message was the trouble.
            try:
                self._write(records, "1", deadline, tries)
            except WriteError as other:
                if other.bad != "address" or exc.plain is None:
                    raise
                # It knows 2.0 alone, and means what the message says.
                self._know("2")
                raise exc.plain from exc
            version = "1"
            log.info("%s: version 1.0 from now on", exc)
        self._know(version)

    def prove(self, deadline: Deadline) -> None:
        """Ask for a refusal that only a remote-write receiver gives.

        `is_proven` says if it came. Raises WriteError for what keeps data from being
        written as well, and for an address that takes anything.
        """
        version = self._known_version or "2"
        reply = self._send(NONSENSE, version, deadline, None)
        status = reply.status
        if 200 <= status < 300:
            text = f"{self._connection.what}: HTTP {status} to what no receiver takes"
            text += f" ({reply.words()})" if reply.body else ""
            text += ": not a remote-write endpoint"
            raise WriteError(text, PATHS, bad="address", answered=status)
        error = self._refusal(reply)
        self.is_proven = status in PROOFS and error.bad == "content"
        # Another version may be taken; the rest of 4xx data will be told, too.
        if error.bad != "content" and not (self._may_change and status == 415):
            raise error

    def twin(self) -> RemoteWriteSink:
        """Return one with a connection of its own."""
        other = copy(self)
        other.connect()
        return other

    def connect(self) -> None:
        """Have a connection of its own; nothing is contacted."""
        self._connection = self._connect(is_worth_a_retry=self._is_later)

    def _is_later(self, reply: Reply) -> bool:
        self._answers += reply.status not in OF_GATEWAYS
        return is_later(reply, self._version)

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
        self,
        records: Sequence[Record],
        version: str,
        deadline: Deadline,
        tries: int | None,
    ) -> None:
        encode = ENCODERS[version]
        if len(records) > 1:
            size = sum(record.size for record in records)
            self._post(encode(records), size, version, deadline, tries)
            return
        parts = split(records[0], self.most_samples)[::-1]
        written, too_large = 0, None
        while parts:
            part = parts.pop()
            try:
                self._post(encode([part]), part.size, version, deadline, tries)
            except WriteError as exc:
                if exc.answered == TOO_LARGE and part.size > 1:
                    parts += split(part, (part.size + 1) // 2)[::-1]
                    continue
                if exc.answered == TOO_LARGE and written:
                    too_large = exc
                    continue
                exc.accepted += written if exc.accepted else 0
                exc.written = written
                raise
            written += part.size
        if too_large:
            too_large.accepted = written
            raise too_large

    def _post(
        self,
        message: bytes,
        size: int,
        version: str,
        deadline: Deadline,
        tries: int | None,
    ) -> None:
        """Send a message of `size` samples; raises WriteError unless it was taken."""
        if not size:
            return
        body = bytes(cramjam.snappy.compress_raw(message))
        try:
            self._judge(self._send(body, version, deadline, tries), version, size)
        finally:
            self.was_repeated = self._attempt > 0
            self.was_unheard = self._attempt >= self._answers

    def _send(
        self, body: bytes, version: str, deadline: Deadline, tries: int | None
    ) -> Reply:
        connection = self._connection
        headers = {"Content-Encoding": "snappy", **HEADERS[version]}
        headers = {**connection.headers, **headers}
        self._attempt = -1
        self._answers = 0

        def build() -> Request:
            self._attempt += 1
            # As Prometheus says it; Mimir chooses its Retry-After by it.
            again = {"Retry-Attempt": str(self._attempt)} if self._attempt else {}
            return Request("POST", connection.url, {**headers, **again}, body)

        self._version = version
        try:
            return connection.send(build, deadline, tries)
        except WriteError as exc:
            cause = exc.__cause__
            if isinstance(cause, OutOfTime) or isinstance(
                cause and cause.__cause__, TimeoutError
            ):
                # Perhaps over this content alone.
                exc.is_down = False
                exc.is_late = True
            raise

    def _judge(self, reply: Reply, version: str, size: int) -> None:
        """Return if the receiver took a message of `size` samples, else raise why."""
        status, connection = reply.status, self._connection
        if version == "2" and self._is_older(reply):
            what = f"{connection.what}: HTTP {status}"
            says = what if status < 300 else f"{what}: {reply.words()}"
            if self._may_change:
                plain = self._refusal(reply) if status == 400 else None
                raise _OtherVersion(says, plain)
            text = f"{says}: does not speak version 2.0"
            cure = "set REMOTE_WRITE_VERSION to 1 or auto"
            raise WriteError(text, cure, bad="address", answered=status)
        if not 200 <= status < 300:
            raise self._refusal(reply)
        what, is_proven = connection.what, self.is_proven
        if error := doubt(reply, version, size, is_proven=is_proven, what=what):
            raise error

    def _refusal(self, reply: Reply) -> WriteError:
        if self._may_change and reply.status == 415:
            self._know("")
        return refusal(reply, self._version, self._connection)

    def _is_older(self, reply: Reply) -> bool:
        """Return whether an answer to a 2.0 message shows a receiver of 1.0 alone."""
        if 200 <= reply.status < 300:
            # It takes this message for an empty one (protocol/remote-write.md#written).
            return not any(name in reply.headers for name in WRITTEN)
        is_doubtful = self._may_change and not self._known_version
        is_doubtful &= not written_of(reply, self._version)
        return reply.status == 415 or (reply.status == 400 and is_doubtful)


class _OtherVersion(WriteError):
    """The receiver does not understand 2.0; or, with `plain`, it is that instead."""

    def __init__(self, says: str, plain: WriteError | None) -> None:
        super().__init__(f"{says}: does not speak version 2.0", bad="address")
        self.plain = plain
