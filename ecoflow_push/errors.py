"""Every error raised on purpose, and the exit status that each one means.

EcoflowPushError
├── SettingsError               78  the settings do not describe a runnable job
│   └── CredentialsConflictError    both credential pairs, and no ECOFLOW_SOURCE
├── LockedError                 75  another run holds the state folder
├── Unreachable                     a server did not answer properly, or at all;
│   └── OutOfTime                   both become one of those below
├── EcoflowApiException         69  EcoFlow gave no usable answer
│   ├── KeysRefused             77  EcoFlow refused the credentials
│   ├── DeviceRefused           77  EcoFlow does not open this device to these keys
│   ├── DeviceOffline            0  EcoFlow's own word that the device is offline
│   ├── AskedToWait             75  EcoFlow asked for a pause longer than we have
│   └── ApiOutOfTime            75  collecting used up its share of the deadline
└── SinkError                   74  a sink did not take what was collected
    ├── SinkDown                74  ... because it is not there at all
    ├── SinkFailing             74  ... and blames itself (HTTP 5xx)
    ├── SinkDeferred            75  ... so it was stored, or must wait
    ├── SinkLoss                 1  ... in time: what waited for it is lost
    ├── SinkRejected            76  ... and never will take this content
    ├── SinkRedirected          76  ... because the address is another one
    └── SinkUnauthorized        77  ... because it refused our credentials

Messages are for people: one line, no secret, no serial in full, no response body
(a sink's own explanation excepted, cut and cleaned by its reader).
"""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """The numbers of sysexits.h where they fit (docs/exit-statuses.md)."""

    OK = 0
    PARTIAL = 1
    USAGE = 64
    UNAVAILABLE = 69
    SOFTWARE = 70
    IOERR = 74
    TEMPFAIL = 75
    PROTOCOL = 76
    NOPERM = 77
    CONFIG = 78
    INTERRUPTED = 130
    TERMINATED = 143


class EcoflowPushError(Exception):
    """What a run may meet in the world; never a bug."""

    status = ExitStatus.SOFTWARE


class SettingsError(EcoflowPushError):
    """The settings do not describe a runnable job; names every fault at once."""

    status = ExitStatus.CONFIG


class CredentialsConflictError(SettingsError):
    """Both credential pairs are set and ECOFLOW_SOURCE does not choose."""


class LockedError(EcoflowPushError):
    """Another run holds the lock of this state folder."""

    status = ExitStatus.TEMPFAIL


class Unreachable(EcoflowPushError):
    """A server could not be reached or broke the protocol.

    `lasting` is true where another try in this run cannot help (a bad certificate),
    `down` where no other request to this server can fare better.
    """

    def __init__(
        self, reason: str, *, lasting: bool = False, down: bool = False
    ) -> None:
        super().__init__(reason)
        self.lasting = lasting
        self.down = down


class OutOfTime(Unreachable):
    """The deadline passed before the server had answered in full."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, lasting=True, down=True)


class EcoflowApiException(EcoflowPushError):
    """EcoFlow gave no usable answer; `code` is its own error code, if any."""

    status = ExitStatus.UNAVAILABLE

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class KeysRefused(EcoflowApiException):
    """EcoFlow refused the credentials themselves."""

    status = ExitStatus.NOPERM


class DeviceRefused(EcoflowApiException):
    """EcoFlow does not open this device to these credentials."""

    status = ExitStatus.NOPERM


class DeviceOffline(EcoflowApiException):
    """EcoFlow says that the device is offline: knowledge, not a failure."""

    status = ExitStatus.OK


class AskedToWait(EcoflowApiException):
    """EcoFlow wants a pause of `seconds` before the next request."""

    status = ExitStatus.TEMPFAIL

    def __init__(self, message: str, seconds: float, code: str = "") -> None:
        super().__init__(message, code)
        self.seconds = seconds


class ApiOutOfTime(EcoflowApiException):
    """Collecting used up its share of the run's deadline."""

    status = ExitStatus.TEMPFAIL


class SinkError(EcoflowPushError):
    """A sink did not take what was collected; `is_stored` if it may get it later."""

    status = ExitStatus.IOERR
    is_stored = False


class SinkDown(SinkError):
    """A sink is not there: nothing else that is sent to it will fare better."""


class SinkFailing(SinkError):
    """A sink answers HTTP 5xx: by its own fault, or by one piece of content."""


class SinkDeferred(SinkError):
    """What a sink did not take now is stored, or was not to be sent at all."""

    status = ExitStatus.TEMPFAIL


class SinkLoss(SinkError):
    """What waited for a sink is lost; what is new may fare better."""

    status = ExitStatus.PARTIAL


class SinkRejected(SinkError):
    """A sink refused this content for good; other content it may take.

    `written` samples of it were taken all the same.
    """

    status = ExitStatus.PROTOCOL

    def __init__(self, message: str, written: int = 0) -> None:
        super().__init__(message)
        self.written = written


class SinkRedirected(SinkError):
    """A sink pointed to another address, which must not see our credentials."""

    status = ExitStatus.PROTOCOL


class SinkUnauthorized(SinkError):
    """A sink refused its credentials."""

    status = ExitStatus.NOPERM
