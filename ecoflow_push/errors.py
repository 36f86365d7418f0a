"""Every error raised on purpose, and the exit status that each one means.

EcoflowPushError
├── SettingsError               78  the settings do not describe a runnable job
│   └── CredentialsConflictError    more than one source, and no ECOFLOW_SOURCE
├── HostLimit                   71  the host lacks threads, memory, descriptors, disk
├── InstallationError           78  a package is missing, or of a version not for us
├── Unanswered                      --init has nobody to ask (64), or no more (130)
├── LockedError                 75  another run holds the state folder
├── Unreachable, OutOfTime          no proper answer; becomes one of those below
├── EcoflowApiException         69  EcoFlow gave no usable answer
│   ├── NoDevices               69  EcoFlow lists no device for these credentials
│   ├── KeysRefused             77  EcoFlow refused the credentials
│   ├── DeviceRefused           77  EcoFlow does not open this device to these keys
│   ├── DeviceOffline            0  EcoFlow's own word that the device is offline
│   ├── AskedToWait             75  EcoFlow asked for a pause longer than we have
│   └── ApiOutOfTime            75  collecting used up its share of the deadline
└── SinkError                   74  a sink does not have what was collected; `status`
    │                               is what that means for the run
    └── WriteError                  by the fault of the server (74), the content or the
                                    address (76), or the credentials (77)

Each carries what is wrong and perhaps the cure, for a run's line and --check alike: no
secret, no serial in full, no response body (but a sink's own words, cut and cleaned).
"""

from __future__ import annotations

from enum import IntEnum

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    Bad = Literal["server", "content", "address", "credentials"]
    Mark = Literal["ok", "warning", "wrong", "unknown", "set", "default"]


class ExitStatus(IntEnum):
    """The numbers of sysexits.h where they fit (docs/exit-statuses.md)."""

    OK = 0
    PARTIAL = 1
    USAGE = 64
    UNAVAILABLE = 69
    SOFTWARE = 70
    OSERR = 71
    IOERR = 74
    TEMPFAIL = 75
    PROTOCOL = 76
    NOPERM = 77
    CONFIG = 78
    INTERRUPTED = 130
    TERMINATED = 143


class EcoflowPushError(Exception):
    """What a run may meet in the world; never a bug.

    `text` says what is wrong, `cure` what to do about it, "" where nothing is known.
    """

    status = ExitStatus.SOFTWARE
    #: What else is not as it should be, and may have to do with it.
    notes: tuple[Fault, ...] = ()

    def __init__(self, text: str, cure: str = "") -> None:
        super().__init__(text, cure)
        self.text = text
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.text}: {self.cure}" if self.cure else self.text


class HostLimit(EcoflowPushError):
    """The host lacks threads, memory, open files or disk (limits.py)."""

    status = ExitStatus.OSERR


class Fault:
    """What is wrong with one variable, and what to do; `variable` may be empty."""

    __slots__ = ("cure", "text", "variable")

    def __init__(self, variable: str, text: str, cure: str = "") -> None:
        self.variable = variable
        self.text = text
        self.cure = cure

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.variable, self.text, self.cure)))


class SettingsError(EcoflowPushError):
    """The settings do not describe a runnable job; holds every fault at once."""

    status = ExitStatus.CONFIG
    #: Who read them, if anybody got that far (config.environ.Reader).
    reader: object = None

    def __init__(self, faults: Iterable[Fault], notes: Iterable[Fault] = ()) -> None:
        self.faults = tuple(faults)
        self.notes = tuple(notes)
        super().__init__("settings: " + "; ".join(map(str, self.faults)))


class CredentialsConflictError(SettingsError):
    """Credentials for more than one source, and ECOFLOW_SOURCE does not choose."""


class InstallationError(EcoflowPushError):
    """A package that we need is missing, or of a version that does not fit."""

    status = ExitStatus.CONFIG


class Unanswered(EcoflowPushError):
    """Nobody can be asked (64), or who was asked has gone."""

    status = ExitStatus.INTERRUPTED


class LockedError(EcoflowPushError):
    """Another run holds the lock of this state folder."""

    status = ExitStatus.TEMPFAIL


class Unreachable(EcoflowPushError):
    """A server could not be reached or broke the protocol.

    `lasting` is true where another try in this run cannot help (a bad certificate),
    `down` where no other request to this server can fare better. `cure` speaks of
    `{url}` and `{ca}`, for which whoever knows them puts the variables.
    """

    def __init__(
        self, text: str, cure: str = "", *, lasting: bool = False, down: bool = False
    ) -> None:
        super().__init__(text, cure)
        self.lasting = lasting
        self.down = down


class OutOfTime(Unreachable):
    """The deadline passed before the server had answered in full."""

    def __init__(self, text: str, cure: str = "") -> None:
        super().__init__(text, cure, lasting=True, down=True)


class EcoflowApiException(EcoflowPushError):
    """EcoFlow gave no usable answer; `code` is its own error code, if any."""

    status = ExitStatus.UNAVAILABLE

    def __init__(self, text: str, cure: str = "", *, code: str = "") -> None:
        super().__init__(text, cure)
        self.code = code


class NoDevices(EcoflowApiException):
    """EcoFlow answers, and lists no device for these credentials."""


class KeysRefused(EcoflowApiException):
    """EcoFlow refused the credentials themselves."""

    status = ExitStatus.NOPERM


class DeviceRefused(EcoflowApiException):
    """EcoFlow does not open this device to these credentials.

    `instead` names the way by which it can be read, "" if none is known.
    """

    status = ExitStatus.NOPERM

    def __init__(
        self, text: str, cure: str = "", *, code: str = "", instead: str = ""
    ) -> None:
        super().__init__(text, cure, code=code)
        self.instead = instead


class DeviceOffline(EcoflowApiException):
    """EcoFlow says that the device is offline: knowledge, not a failure."""

    status = ExitStatus.OK


class AskedToWait(EcoflowApiException):
    """EcoFlow wants a pause of `seconds` before the next request."""

    status = ExitStatus.TEMPFAIL

    def __init__(
        self, text: str, cure: str = "", *, seconds: float, code: str = ""
    ) -> None:
        super().__init__(text, cure, code=code)
        self.seconds = seconds


class ApiOutOfTime(EcoflowApiException):
    """Collecting used up its share of the run's deadline."""

    status = ExitStatus.TEMPFAIL


class SinkError(EcoflowPushError):
    """A sink does not have what was collected.

    `status` is what that means for the run: TEMPFAIL where it is stored or must wait,
    PARTIAL where only what had waited is lost. `is_stored` if it may get it later.
    """

    def __init__(
        self,
        text: str,
        cure: str = "",
        *,
        status: ExitStatus = ExitStatus.IOERR,
        is_stored: bool = False,
    ) -> None:
        super().__init__(text, cure)
        self.status = status
        self.is_stored = is_stored


class WriteError(SinkError):
    """One write did not succeed; the facts of it.

    `bad` is what is at fault: the server, the content (other content may be taken),
    the address, or the credentials. `answered` is the status of its HTTP answer, 0 if
    it gave none. `is_down`: nothing else that is sent there now will fare better.
    `retry_after` is the pause in seconds that was asked for. `accepted` samples of what
    was refused were taken all the same.
    """

    is_late = False  #: It took all the time that it was given.
    written = 0  #: Samples of the same record taken in requests before this one.

    def __init__(
        self,
        text: str,
        cure: str = "",
        *,
        bad: Bad = "server",
        answered: int = 0,
        is_down: bool = False,
        retry_after: float = 0.0,
        accepted: int = 0,
    ) -> None:
        super().__init__(text, cure, status=_MEANING.get(bad, ExitStatus.PROTOCOL))
        self.bad = bad
        self.answered = answered
        self.is_down = is_down
        self.retry_after = retry_after
        self.accepted = accepted

    @property
    def refuses_us(self) -> bool:
        """Whether asking again, even later in this run, would be impolite."""
        return self.bad in ("address", "credentials")


_MEANING = {"server": ExitStatus.IOERR, "credentials": ExitStatus.NOPERM}


class Finding:
    """What a probe found at one step; `error` is what a run would have met there.

    The mark: "ok"; "warning", odd, and no reason to fail; "wrong", which --check never
    ends with 0; "unknown", nobody could see. "set" and "default" are of settings.
    """

    __slots__ = ("cure", "error", "mark", "step", "text")

    def __init__(
        self,
        mark: Mark,
        step: str,
        text: str,
        cure: str = "",
        error: EcoflowPushError | None = None,
    ) -> None:
        self.mark = mark
        self.step = step
        self.text = text
        self.cure = cure
        self.error = error

    @classmethod
    def of(cls, step: str, error: EcoflowPushError) -> Finding:
        """Return the finding that an error is."""
        return cls("wrong", step, error.text, error.cure, error)
