"""The memory of one account and job: what one run tells the next.

One folder per account and job. Losing it costs names, times and a little politeness,
never a run. A damaged file is kept aside, with a word; one of a newer version of this
program is left alone.
"""

from __future__ import annotations

import logging
import os
import sys
import time

from ecoflow_push.logs import warn_once
from ecoflow_push.memory import lock
from ecoflow_push.memory.files import NewerFile, read_json, release, write_json
from ecoflow_push.memory.lock import fingerprint
from ecoflow_push.memory.records import (
    DeviceRecord,
    EndpointRecord,
    counts_of,
    left_until,
    number_of,
    text_of,
)

log = logging.getLogger(__name__)

FILE_VERSION = 1
NAME = "state.json"
# Three refusals of the keys in a row: from then on at most one attempt in 5 minutes.
MOST_REFUSALS = 3
MOST_ENDPOINTS = 8
REFUSED_WAIT_SECONDS = 300.0
TELL_SECONDS = 86_400.0
FOLDER_CURE = "let STATE_DIR name a folder that the job can write to"
NEWER_CURE = "update this program, or let STATE_DIR name another folder"
NONE = "STATE_DIR is none"
HOLDS = "the totals, and the names and times of devices,"


class State:
    """The memory of one account and job.

    `trouble` says why there is none, "" if there is; `reason` the same without the name
    of the folder, and `cure` what to do about it.
    """

    def __init__(self) -> None:
        self.trouble = self.reason = self.cure = ""
        #: Whether the lock is held, and all in the folder is of this version, as far as
        #: that is known: what waits in it may be touched, memory or not.
        self.is_ours = True
        #: Whether there is to be a memory.
        self.is_wanted = True
        self.devices: dict[str, DeviceRecord] = {}
        self.last_success_at: float | None = None
        #: Until when a source is to be left alone (Unix s), by its name.
        self.pauses: dict[str, float] = {}
        #: Samples that no timestamped sink will ever get, by reason, over all runs.
        self.dropped: dict[str, int] = {}
        #: Runs, and failures by stage, since the state was made.
        self.runs = 0
        self.failures: dict[str, int] = {}
        #: What is known of the remote-write endpoint of this run, and of others.
        self.endpoint = EndpointRecord()
        self.endpoints: dict[str, EndpointRecord] = {}
        #: In which run for many accounts it was open last, and what was lost before.
        self._run_for_all = ""
        self._dropped_before: dict[str, int] = {}
        self._gateway = ""
        self._refusals = 0
        self._refused_at: float | None = None
        self._refused_keys = ""
        self._open_told_at: float | None = None
        self._is_full = False
        self._folder = ""
        self._locks: list[int] = []

    @classmethod
    def open(cls, folder: str | None, *, looks: bool = False) -> State:
        """Return the state of `folder`, which it creates (0700), with the lock held.

        Of None it is one that touches nothing, and is not wanted either. Who only
        `looks` will not save it. Raises LockedError when another run holds it.
        """
        state = cls()
        if folder is None:
            state.is_ours = state.is_wanted = False
            state.trouble = state.reason = NONE
            return state
        state._folder = folder
        try:
            state._locks = _hold(folder)
        except OSError as exc:
            state.is_ours = False
            state._fail("cannot use the state folder", exc.strerror)
            return state
        try:
            state._load(looks=looks)
        except NewerFile:
            state.is_ours = False
            reason = "it was written by a newer version of this program"
            state._fail("cannot use the state folder", reason, NEWER_CURE)
            return state
        except OSError as exc:
            state._fail("cannot read the state folder", exc.strerror)
        except BaseException:  # passed on; else each later run would find it held
            state.close()
            raise
        state._tell_if_open()
        return state

    def __enter__(self) -> State:  # noqa: PYI034 - typing.Self would import typing
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock."""
        while self._locks:
            release(self._locks.pop())

    def save(self) -> None:
        """Write the state file, whole or not at all (0600); sets `trouble` if not."""
        if self.trouble and not self._is_full:
            return
        self._is_full, self.trouble = False, ""
        fields = {
            # A copy: an abandoned push may still take a device out.
            "devices": ((sn, r.fields()) for sn, r in self.devices.copy().items()),
            "last_success_at": self.last_success_at,
            "pause_until": self.pauses,
            "dropped": self.dropped,
            "runs": self.runs,
            "failures": self.failures,
            "endpoints": tuple(each.fields() for each in self.endpoints.values()),
            "run_for_all": self._run_for_all,
            "dropped_before": self._dropped_before,
            "gateway": self._gateway,
            "refusals": self._refusals,
            "refused_at": self._refused_at,
            "refused_keys": self._refused_keys,
            "open_told_at": self._open_told_at,
        }
        try:
            write_json(self._path, FILE_VERSION, fields)
        except OSError as exc:
            # Worth another try when something was removed meanwhile.
            self._is_full = True
            self._fail("cannot write the state folder", exc.strerror)

    def _tell_if_open(self) -> None:
        """Say once a day if others can write to the folder, and mend that."""
        try:
            said = lock.close_to_others(self._folder)
        except OSError:  # no look at it is worth a run's memory
            return
        if not said:
            return
        now, told_at = time.time(), self._open_told_at
        if told_at is None or not 0 <= now - told_at < TELL_SECONDS:
            self._open_told_at = now
            warn_once(log, said, "the state folder %s %s", self._folder, said)

    def _fail(self, what: str, reason: str | None, cure: str = FOLDER_CURE) -> None:
        self.reason, self.cure = reason or "unknown", cure
        self.trouble = f"{what} {self._folder}: {self.reason}"

    def use_gateway(self, url: str) -> None:
        """Note where groups are pushed; what another gateway holds is not known."""
        gateway = fingerprint(url)[:12]
        if gateway != self._gateway:
            self._gateway = gateway
            for record in self.devices.values():
                record.held_at = None

    def use_endpoint(self, name: str) -> None:
        """Note where records are written; each endpoint has its own memory."""
        known = self.endpoints.pop(name, None)
        self.endpoint = known or EndpointRecord({"name": name})
        # The one in use last, so that the oldest are forgotten.
        kept = list(self.endpoints.items())[1 - MOST_ENDPOINTS :]
        self.endpoints = {**dict(kept), name: self.endpoint}

    def dropped_before(self, whole: State) -> dict[str, int]:
        """Return what was lost before a run for many accounts; `whole` is its state.

        Of a run that was killed, whose number comes again, it is what was lost before
        that: nobody has told of what was lost in it.
        """
        run = f"{os.path.basename(whole._folder)} {whole.runs}"
        if run != self._run_for_all:
            self._run_for_all, self._dropped_before = run, self.dropped.copy()
        return self._dropped_before

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

    def pause_for(self, source: str, now: float) -> float:
        """Return for how many seconds EcoFlow still wants this source to wait."""
        return left_until(self.pauses.get(source), now)

    @property
    def _path(self) -> str:
        return os.path.join(self._folder, NAME)

    def _load(self, *, looks: bool) -> None:
        data = read_json(
            self._path, FILE_VERSION, HOLDS, looks=looks, hook=_as_a_record
        )
        if data is None:
            return
        devices = data.get("devices")
        for sn, each in (devices if isinstance(devices, dict) else {}).items():
            record = DeviceRecord(each) if isinstance(each, dict) else each
            if isinstance(record, DeviceRecord) and text_of(sn):
                # The same as that of the list that is to come: of thousands, once.
                self.devices[sys.intern(sn)] = record
        self.last_success_at = number_of(data.get("last_success_at"))
        pauses = data.get("pause_until")
        for name, until in (pauses if isinstance(pauses, dict) else {}).items():
            if text_of(name) and number_of(until):
                self.pauses[name] = until
        self.dropped = counts_of(data.get("dropped"))
        self.runs = int(number_of(data.get("runs")) or 0)
        self.failures = counts_of(data.get("failures"))
        endpoints = data.get("endpoints")
        for fields in endpoints if isinstance(endpoints, list) else ():
            if isinstance(fields, dict) and (name := text_of(fields.get("name"))):
                self.endpoints[name] = EndpointRecord(fields)
        self._run_for_all = text_of(data.get("run_for_all"))
        self._dropped_before = counts_of(data.get("dropped_before"))
        self._gateway = text_of(data.get("gateway"))
        self._refusals = int(number_of(data.get("refusals")) or 0)
        self._refused_at = number_of(data.get("refused_at"))
        self._refused_keys = text_of(data.get("refused_keys"))
        self._open_told_at = number_of(data.get("open_told_at"))


def _as_a_record(fields: dict[str, object]) -> object:
    """Return a device's record; of thousands not all need be there as dictionaries."""
    return DeviceRecord(fields) if "digest" in fields else fields


def _hold(folder: str) -> list[int]:
    """Return the locks; a disk that fails is asked once more: nothing lasts without."""
    try:
        return lock.hold(folder)
    except OSError:
        return lock.hold(folder)


def _wait(since: float | None, now: float, seconds: float) -> float:
    """Return what is left of `seconds`; a clock that went back counts as over."""
    if since is None or not 0 <= now - since < seconds:
        return 0.0
    return seconds - (now - since)
