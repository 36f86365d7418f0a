"""RemoteWriteSink: records to a remote-write endpoint, version 1.0 or 2.0."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

import cramjam

from ecoflow_push.errors import (
    SinkDown,
    SinkError,
    SinkFailing,
    SinkRedirected,
    SinkRejected,
    SinkUnauthorized,
    Unreachable,
)
from ecoflow_push.net.plain import (
    PlainExchange,
    authorization,
    explained,
    is_web_page,
    words,
)
from ecoflow_push.net.retry import Reply, Request, Transport
from ecoflow_push.sinks.wire import ENCODERS, MOST_SAMPLES

if TYPE_CHECKING:
    from ecoflow_push.metrics.record import Record
    from ecoflow_push.net.deadline import Deadline

log = logging.getLogger(__name__)

# The specifications name both headers' values (push-protocols.md 3.2, 3.3).
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


class RemoteWriteSink:
    """Writes one record at a time; whoever calls keeps them in their order."""

    def __init__(
        self,
        url: str,
        *,
        version: str,
        known_version: str = "",
        headers: Mapping[str, str] | None = None,
        username: str | None = None,
        password: str | None = None,
        bearer_token: str | None = None,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        proxies: Mapping[str, str] | None = None,
        attempts: int,
        longest_wait: float,
    ) -> None:
        """Store what is needed; nothing is contacted.

        `version` is 1, 2, or auto: 2 until the receiver turns out to know only 1.
        `known_version` is what an earlier run found out, "" if nothing.

        Raises SettingsError when a certificate or key file cannot be used.
        """
        self._url = url
        self._what = f"remote-write {url.partition('://')[2].partition('/')[0]}"
        self._may_change = version == "auto"
        #: What the receiver is known to take, "" as long as that is not known.
        self.known_version = known_version if self._may_change else version
        self._headers = {
            **(headers or {}),
            **authorization(username, password, bearer_token),
        }
        self._transport = Transport(
            PlainExchange(
                url,
                ca_file=ca_file,
                cert_file=cert_file,
                key_file=key_file,
                proxies=proxies,
                # What a 2xx says beside is to be ignored.
                needs_body=False,
            ),
            attempts=attempts,
            longest_wait=longest_wait,
            is_worth_a_retry=self._is_worth_a_retry,
        )
        #: The version of the message that is being sent.
        self._version = ""
        #: How long the receiver asked us to stay away when it was asked last (s).
        self.asked_to_wait = 0.0

    def write(
        self, record: Record, deadline: Deadline, tries: int | None = None
    ) -> None:
        """Write all of `record`, in one request for up to 2,000 samples.

        `tries` overrides how often. Raises SinkRejected when the receiver will never
        take it, SinkFailing for a 5xx, SinkUnauthorized, SinkRedirected, SinkDown, else
        SinkError; all but the first leave the record to be written again, whole.
        """
        version = self.known_version or "2"
        try:
            self._write(record, version, deadline, tries)
        except _OtherVersion as exc:
            # Only what takes the other message shows that the message was the trouble.
            try:
                self._write(record, "1", deadline, tries)
            except SinkRedirected:
                if not exc.may_be_content:
                    raise
                # It knows 2.0 alone, and means what the message says.
                self.known_version = "2"
                raise SinkRejected(exc.reason) from exc
            version = "1"
            log.info("%s: version 1.0 from now on", exc)
        self.known_version = version

    @property
    def learnt_version(self) -> str:
        """What was found out of the receiver, "" if that was left to the settings."""
        return self.known_version if self._may_change else ""

    def clock_offset(self) -> float | None:
        """Return how far our clock is ahead of the receiver's last answer, in s."""
        return self._transport.clock_offset()

    def ask_the_time(self, deadline: Deadline) -> float | None:
        """Return as `clock_offset` does, after a request that writes nothing."""
        request = Request("GET", self._url, self._headers)
        try:
            self._transport.send(lambda: request, deadline, 1)
        except Unreachable:
            return None
        return self.clock_offset()

    def close(self) -> None:
        """Close the kept connection."""
        self._transport.close()

    def _write(
        self, record: Record, version: str, deadline: Deadline, tries: int | None
    ) -> None:
        written = 0
        for message in ENCODERS[version](record):
            reply = self._send(message, version, deadline, tries)
            try:
                self._judge(reply, version)
            except SinkRejected as exc:
                # The record is over, whatever became of its other requests.
                exc.written += written
                raise
            written += MOST_SAMPLES

    def _send(
        self, message: bytes, version: str, deadline: Deadline, tries: int | None
    ) -> Reply:
        body = bytes(cramjam.snappy.compress_raw(message))
        headers = {**self._headers, "Content-Encoding": "snappy", **HEADERS[version]}
        attempt = -1

        def build() -> Request:
            nonlocal attempt
            attempt += 1
            # As Prometheus says it; Mimir chooses its Retry-After by it.
            again = {"Retry-Attempt": str(attempt)} if attempt else {}
            return Request("POST", self._url, {**headers, **again}, body)

        self.asked_to_wait = 0.0
        self._version = version
        try:
            return self._transport.send(build, deadline, tries)
        except Unreachable as exc:
            kind = SinkDown if exc.down else SinkError
            raise kind(f"{self._what}: {explained(exc, 'REMOTE_WRITE')}") from exc

    def _judge(self, reply: Reply, version: str) -> None:
        """Return if the receiver took the message, else raise what that means."""
        status, what = reply.status, f"{self._what}: HTTP {reply.status}"
        if version == "2" and self._is_older(reply):
            says = what if status < 300 else f"{what}: {words(reply)}"
            if self._may_change:
                raise _OtherVersion(says, may_be_content=status == 400)
            cure = "does not speak version 2.0: set REMOTE_WRITE_VERSION to 1 or auto"
            raise SinkRedirected(f"{says}: {cure}")
        if 200 <= status < 300:
            if is_web_page(reply):
                raise SinkError(f"{what} with a web page (a login portal?)")
        else:
            self._refuse(reply, what)

    def _refuse(self, reply: Reply, what: str) -> NoReturn:
        """Raise what an answer means that is no success."""
        status = reply.status
        if written := self._written(reply):
            raise SinkRejected(f"{what}: {words(reply)}", written)
        if 300 <= status < 400:
            raise SinkRedirected(
                f"{what}, a redirect, not followed: check REMOTE_WRITE_URL"
            )
        if status in (401, 403):
            raise SinkUnauthorized(
                f"{what}, credentials refused: check REMOTE_WRITE_USERNAME and"
                f" _PASSWORD, or _BEARER_TOKEN: {words(reply)}"
            )
        if status in NOT_ABOUT_CONTENT:
            if self._may_change and status == 415:
                self.known_version = ""
            raise SinkRedirected(
                f"{what}: check REMOTE_WRITE_URL and _VERSION, and whether the server"
                f" takes remote-write: {words(reply)}"
            )
        if 400 <= status < 500 and status != 429:
            raise SinkRejected(f"{what}: {words(reply)}")
        self.asked_to_wait = wait = reply.retry_after() or 0.0
        asks = f", asks to wait {wait:.0f} s" if wait else ""
        kind = SinkFailing if 500 <= status < 600 else SinkError
        raise kind(f"{what}{asks}: {words(reply)}")

    def _is_older(self, reply: Reply) -> bool:
        """Return whether an answer to a 2.0 message shows a receiver of 1.0 alone."""
        if 200 <= reply.status < 300:
            # It takes this message for an empty one (push-protocols.md 3.3).
            return not any(name in reply.headers for name in WRITTEN)
        is_doubtful = self._may_change and not self.known_version
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

        To 1.0, newer servers say 0 where they wrote all (push-protocols.md 3.3).
        """
        text = reply.headers.get(WRITTEN[0], "") if self._version == "2" else ""
        return int(text[:9]) if text.isdecimal() and text.isascii() else 0


class _OtherVersion(SinkError):
    """The receiver does not understand 2.0, or `may_be_content`: not this message."""

    def __init__(self, reason: str, *, may_be_content: bool) -> None:
        super().__init__(f"{reason}: does not speak version 2.0")
        self.reason = reason
        self.may_be_content = may_be_content
