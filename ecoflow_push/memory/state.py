"""The state folder: what one run tells the next, and the lock between them.

One folder per account and job. Losing it costs names, times and a little politeness,
never a run; everything read from it is checked, since disks lie. Imports stay light:
a run that finds the lock taken has paid for little more.
"""

from __future__ import annotations

import fcntl
import hashlib
import os

from ecoflow_push.errors import LockedError
from ecoflow_push.memory.files import replace_file

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_VERSION = 1
MAX_FILE_BYTES = 32 * 1024 * 1024
# Three refusals of the keys in a row: from then on at most one attempt in 5 minutes.
MOST_REFUSALS = 3
MOST_ENDPOINTS = 8
REFUSED_WAIT_SECONDS = 300.0
# However long a Retry-After says: a wrong one must not silence us for a day.
LONGEST_PAUSE_SECONDS = 900.0


class DeviceRecord:
    """What is remembered of one device; times in Unix seconds."""

    __slots__ = (
        "changed_at",
        "digest",
        "family",
        "firmware",
        "held_at",
        "listed",
        "missing",
        "name",
        "named",
        "product_name",
        "reduced_at",
        "snapshot_at",
        "source",
        "told_at",
    )

    def __init__(self, fields: Mapping[str, object] | None = None) -> None:
        fields = fields or {}
        self.name = _text(fields.get("name"))
        self.product_name = _text(fields.get("product_name"))
        #: How it was last read.
        self.source = _text(fields.get("source"))
        #: The user named it once: it is never taken for gone.
        self.named = fields.get("named") is True
        #: A device list had it once: only then it can be gone.
        self.listed = fields.get("listed") is True
        #: When the values that its group holds were collected: 0 if the group holds
        #: none, None if that is not known.
        self.held_at = _number(fields.get("held_at"))
        #: When its group was last emptied of values.
        self.reduced_at = _number(fields.get("reduced_at"))
        #: Good device lists in a row that lacked it.
        self.missing = int(_number(fields.get("missing")) or 0)
        self.snapshot_at = _number(fields.get("snapshot_at"))
        self.changed_at = _number(fields.get("changed_at"))
        self.digest = _text(fields.get("digest"))
        self.family = _text(fields.get("family"))
        self.firmware = _text(fields.get("firmware"))
        #: When the log last said that EcoFlow does not open it.
        self.told_at = _number(fields.get("told_at"))

    def fields(self) -> dict[str, object]:
        """Return what goes into the file."""
        return {name: getattr(self, name) for name in self.__slots__}


class EndpointRecord:
    """What is remembered of a remote-write endpoint; times in Unix seconds."""

    __slots__ = (
        "failing",
        "failing_runs",
        "has_taken",
        "name",
        "pause_until",
        "told_at",
        "version",
    )

    def __init__(self, fields: Mapping[str, object] | None = None) -> None:
        fields = fields or {}
        self.name = _text(fields.get("name"))
        #: The protocol's version that it turned out to take.
        version = fields.get("version")
        self.version = str(version) if version in ("1", "2") else ""
        #: It once took something: its address is right.
        self.has_taken = fields.get("has_taken") is True
        #: When the log last said that something waits for another one.
        self.told_at = _number(fields.get("told_at"))
        #: Until when it wants to be left alone.
        self.pause_until = _number(fields.get("pause_until"))
        #: The record that it answered with 5xx, and in how many runs in a row.
        self.failing = _text(fields.get("failing"))
        self.failing_runs = int(_number(fields.get("failing_runs")) or 0)

    def fields(self) -> dict[str, object]:
        """Return what goes into the file."""
        return {name: getattr(self, name) for name in self.__slots__}

    def pause_for(self, now: float) -> float:
        """Return for how many seconds it still wants to be left alone."""
        return _left(self.pause_until, now)


class State:
    """The memory of one account and job; `trouble` says why there is none."""

    def __init__(self) -> None:
        self.trouble = ""
        self.devices: dict[str, DeviceRecord] = {}
        self.last_success_at: float | None = None
        self.pause_until: float | None = None
        #: Samples that no timestamped sink will ever get, by reason, over all runs.
        self.dropped: dict[str, int] = {}
        #: Runs, and failures by stage, since the state was made.
        self.runs = 0
        self.failures: dict[str, int] = {}
        #: What is known of the remote-write endpoint of this run, and of others.
        self.endpoint = EndpointRecord()
        self._endpoints: dict[str, EndpointRecord] = {}
        self._gateway = ""
        self._refusals = 0
        self._refused_at: float | None = None
        self._refused_keys = ""
        self._is_full = False
        self._folder = ""
        self._lock = -1

    @classmethod
    def open(cls, folder: str) -> State:
        """Return the state of `folder`, which it creates (0700), with the lock held.

        The lock is the kernel's (flock): a killed holder leaves none behind. The file
        is never unlinked, or two runs could hold two files of one name.

        Raises LockedError when another run holds it.
        """
        state = cls()
        state._folder = folder
        try:
            _make_folders(folder)
            state._lock = _open_lock(os.path.join(folder, "lock"))
            fcntl.flock(state._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(state._lock)
            raise LockedError("another run is still at work; this one leaves") from exc
        except OSError as exc:
            state.trouble = f"cannot use the state folder {folder}: {exc.strerror}"
            return state
        state._load()
        return state

    def __enter__(self) -> State:  # noqa: PYI034 - typing.Self would import typing
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def save(self) -> None:
        """Write the state file, whole or not at all (0600); sets `trouble` if not."""
        if self.trouble and not self._is_full:
            return
        self._is_full, self.trouble = False, ""
        import json

        text = json.dumps(
            {
                "version": FILE_VERSION,
                # A copy: an abandoned push may still take a device out.
                "devices": {sn: r.fields() for sn, r in self.devices.copy().items()},
                "last_success_at": self.last_success_at,
                "pause_until": self.pause_until,
                "dropped": self.dropped,
                "runs": self.runs,
                "failures": self.failures,
                "endpoints": [each.fields() for each in self._endpoints.values()],
                "gateway": self._gateway,
                "refusals": self._refusals,
                "refused_at": self._refused_at,
                "refused_keys": self._refused_keys,
            }
        )
        try:
            replace_file(os.path.join(self._folder, "state.json"), text.encode(), 0o600)
        except OSError as exc:
            # Worth another try when something was removed meanwhile.
            self._is_full = True
            self.trouble = (
                f"cannot write the state folder {self._folder}: {exc.strerror}"
            )

    def use_gateway(self, url: str) -> None:
        """Note where groups are pushed; what another gateway holds is not known."""
        gateway = fingerprint(url)[:12]
        if gateway != self._gateway:
            self._gateway = gateway
            for record in self.devices.values():
                record.held_at = None

    def use_endpoint(self, name: str) -> None:
        """Note where records are written; each endpoint has its own memory."""
        known = self._endpoints.pop(name, None)
        self.endpoint = known or EndpointRecord({"name": name})
        # The one in use last, so that the oldest are forgotten.
        kept = list(self._endpoints.items())[1 - MOST_ENDPOINTS :]
        self._endpoints = {**dict(kept), name: self.endpoint}

    def accepted(self) -> None:
        """Note that EcoFlow took the keys."""
        self._refusals, self._refused_at, self._refused_keys = 0, None, ""

    def refused(self, keys: str, now: float) -> None:
        """Note that EcoFlow refused the keys with this fingerprint."""
        self._refusals = self._refusals + 1 if keys == self._refused_keys else 1
        self._refused_at, self._refused_keys = now, keys

    def refused_for(self, keys: str, now: float) -> float:
        """Return for how many seconds these keys must not be tried again."""
        if keys != self._refused_keys or self._refusals < MOST_REFUSALS:
            return 0.0
        return _wait(self._refused_at, now, REFUSED_WAIT_SECONDS)

    def pause_for(self, now: float) -> float:
        """Return for how many seconds EcoFlow still wants us to wait."""
        return _left(self.pause_until, now)

    def _load(self) -> None:
        import json

        try:
            path = os.path.join(self._folder, "state.json")
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                data = json.loads(file.read(MAX_FILE_BYTES))
        except (OSError, ValueError, RecursionError):
            return
        if not isinstance(data, dict) or data.get("version") != FILE_VERSION:
            return
        devices = data.get("devices")
        for sn, fields in (devices if isinstance(devices, dict) else {}).items():
            if isinstance(fields, dict) and _text(sn):
                self.devices[sn] = DeviceRecord(fields)
        self.last_success_at = _number(data.get("last_success_at"))
        self.pause_until = _number(data.get("pause_until"))
        self.dropped = _counts(data.get("dropped"))
        self.runs = int(_number(data.get("runs")) or 0)
        self.failures = _counts(data.get("failures"))
        endpoints = data.get("endpoints")
        for fields in endpoints if isinstance(endpoints, list) else ():
            if isinstance(fields, dict) and (name := _text(fields.get("name"))):
                self._endpoints[name] = EndpointRecord(fields)
        self._gateway = _text(data.get("gateway"))
        self._refusals = int(_number(data.get("refusals")) or 0)
        self._refused_at = _number(data.get("refused_at"))
        self._refused_keys = _text(data.get("refused_keys"))


def state_folder(state_dir: str, *identity: str) -> str:
    """Return the folder of one account and job: 12 hex of a hash, so no name leaks."""
    return os.path.join(state_dir, fingerprint(*identity)[:12])


def fingerprint(*texts: str) -> str:
    """Return a hash that tells texts apart without holding them."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _make_folders(folder: str) -> None:
    # A mode argument would be for the last folder alone.
    umask = os.umask(0o077)
    try:
        os.makedirs(folder, exist_ok=True)
    finally:
        os.umask(umask)


def _open_lock(path: str) -> int:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    except OSError:
        # A read-only file system still locks.
        return os.open(path, os.O_RDONLY | flags)


def _wait(since: float | None, now: float, seconds: float) -> float:
    """Return what is left of `seconds`; a clock that went back counts as over."""
    if since is None or not 0 <= now - since < seconds:
        return 0.0
    return seconds - (now - since)


def _counts(value: object) -> dict[str, int]:
    found = value if isinstance(value, dict) else {}
    return {key: int(_number(n) or 0) for key, n in found.items() if _text(key)}


def _left(until: float | None, now: float) -> float:
    """Return the seconds until a pause ends; one of impossible length is over."""
    left = 0.0 if until is None else until - now
    return left if 0 < left <= LONGEST_PAUSE_SECONDS else 0.0


def _number(value: object) -> float | None:
    # 1e12 s: any time and count we write; keeps infinities of a damaged file out.
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and 0 <= value < 1e12
    ):
        return float(value)
    return None


def _text(value: object) -> str:
    return value[:256] if isinstance(value, str) and value.isprintable() else ""
