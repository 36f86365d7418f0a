"""What may be said of each device now: readings and memory in, updates out.

A value is said only if the device reported it in this run. What a device said before
is not repeated; that it is old, is. The table this follows is in docs/truth.md.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ecoflow_push.devices.families import UNKNOWN, family_named
from ecoflow_push.devices.normalized import (
    NormalizedSample,
    family_of,
    firmware_of,
    normalized_samples,
)
from ecoflow_push.devices.products import (
    family_by_product,
    family_by_serial,
    product_name,
)
from ecoflow_push.devices.tables import TableError
from ecoflow_push.errors import EcoflowPushError
from ecoflow_push.memory.records import DeviceRecord
from ecoflow_push.metrics.labels import create_labels
from ecoflow_push.metrics.registry import DeviceFacts, device_registry, part_of
from ecoflow_push.run.wanted import Wanted, Wording, spelt
from ecoflow_push.sinks.base import Update

if TYPE_CHECKING:
    from prometheus_client.core import CollectorRegistry

    from ecoflow_push.api.base import Reading
    from ecoflow_push.config.settings import Settings
    from ecoflow_push.memory.state import State
    from ecoflow_push.metrics.frame import Part
    from ecoflow_push.metrics.labels import Labels
    from ecoflow_push.metrics.record import Record

GONE_AFTER_LISTS = 2
# What digests begin with, made as they are made now.
DIGEST = "2:"


class Updates:
    """Turns a run's readings into updates, and brings the state up to date."""

    def __init__(
        self,
        state: State,
        labels: Labels,
        wanted: Wanted,
        wording: Wording,
        stale_after: float,
    ) -> None:
        """Store what is needed; `stale_after` is in seconds."""
        self.wanted = wanted
        self.samples = 0
        self.skipped: Counter[str] = Counter()
        #: Tables that could not be read, by what is wrong with them.
        self.faults: dict[str, EcoflowPushError] = {}
        #: Something was learnt, of some device.
        self.has_news = False
        #: Messages of which nothing could be read, by family and message.
        self.unread: Counter[tuple[str, str]] = Counter()
        #: Devices of which the log told the same less than a day ago.
        self.told_before: set[str] = set()
        self._state = state
        self._labels = labels
        self.wording = wording
        self._stale_after = stale_after

    def of(self, reading: Reading, *, is_listed: bool) -> Update:
        """Return what becomes of a device; `is_listed` if the account's list has it."""
        device, state = reading.device, reading.state
        sn = device.sn
        record = self._state.devices.setdefault(sn, DeviceRecord())
        record.name = device.name or record.name
        record.product_name = device.product_name or record.product_name
        record.named = record.named or self.wanted.is_named(sn)
        record.listed = record.listed or is_listed
        record.source = reading.source or record.source
        is_told = state == "refused" or reading.is_unread
        if is_told and not record.is_to_be_told(time.time()):
            self.told_before.add(sn)
        if state == "failed" or (state == "refused" and _is_unheard_of(record)):
            return self._unread(sn, record)
        self.has_news = True
        said = self._read(sn, reading, record)
        online = False if state == "offline" else device.online
        facts = self._facts(sn, record, online=online)
        for message, count in reading.snapshot.unread if reading.snapshot else ():
            self.unread[facts.family, message] += count
        if state != "refused":
            facts = _timed(facts, record)
        at = reading.snapshot.collected_at if reading.snapshot else None
        has_values = any(values for _, values in said)
        registry = device_registry(self._labels, facts, said)
        return Update(
            sn,
            "say",
            registry=registry,
            make_record=partial(self._record, registry, at),
            at=at,
            held_at=(record.snapshot_at or 0.0) if has_values else 0.0,
            online=online,
        )

    def of_the_rest(self, listed: Container[str]) -> Iterator[Update]:
        """Yield what becomes of devices that a good list lacks, by their serials."""
        devices = self._state.devices
        for sn in [*devices]:
            record = devices[sn]
            if sn in listed:
                record.missing, record.listed = 0, True
                continue
            # As it was typed it goes, when the list spells it otherwise.
            is_named = self.wanted.is_named(sn) and sn.upper() not in listed
            if is_named or self.wanted.only:
                continue
            if self.wanted.named or record.named:
                # Not wanted any more, which is no reason to delete anything.
                del devices[sn]
                continue
            record.missing += 1
            if record.missing >= GONE_AFTER_LISTS and record.listed:
                self.has_news = True
                yield Update(sn, "end")
            else:
                yield self._unread(sn, record)

    def known(self, sn: str) -> DeviceFacts:
        """Return who a device is, without anything that was learnt of it."""
        return self._facts(sn, self._state.devices.get(sn) or DeviceRecord())

    def _read(self, sn: str, reading: Reading, record: DeviceRecord) -> list[Part]:
        """Return the samples to be said; the record learns when they changed."""
        if not reading.snapshot:
            return []
        quotas, sets = reading.snapshot.quotas, self.wording.sets
        # Also if they are not said: by them it is known whether anything changed.
        raw, skipped = self.wording.raw(quotas, self._labels.prefix)
        self.samples += len(raw[1])
        self.skipped += skipped
        if reading.snapshot.too_many:
            self.skipped["too_many"] += reading.snapshot.too_many
        samples: list[NormalizedSample] = []
        left_out: Counter[str] = Counter()
        try:
            at = reading.snapshot.collected_at
            samples, left_out = self._normalized(sn, quotas, record, at)
        except TableError as exc:
            # What is wrong with one family costs no raw value, and no other device.
            self.faults[str(exc)] = exc
        normalized = part_of(samples, self._labels.prefix)
        # Some devices say all in texts, of which there are no raw samples.
        frame, values = raw if raw[1] else normalized
        if values:
            digest = DIGEST + frame.digest(values)
            # Of another version's nothing can be said.
            if record.digest.startswith(DIGEST) and record.digest != digest:
                record.changed_at = reading.snapshot.collected_at
            record.digest = digest
            record.snapshot_at = reading.snapshot.collected_at
        said: list[Part] = []
        if "raw" in sets:
            said.append(raw)
        if "normalized" in sets:
            said.append(normalized)
            self.skipped += left_out
        return said

    def _normalized(
        self, sn: str, quotas: Mapping[str, object], record: DeviceRecord, at: float
    ) -> tuple[list[NormalizedSample], Counter[str]]:
        """Return the samples in base units; the record learns what kind this is."""
        product = record.product_name or product_name(sn)
        family = family_of(sn, product, quotas)
        if family is UNKNOWN:
            # A partial map may lack the key by which it was told before.
            family = family_named(record.family) or family
        record.family = family.name
        record.firmware = sys.intern(firmware_of(quotas, family) or record.firmware)
        prefix = self._labels.prefix
        return normalized_samples(quotas, sn, product, prefix, family, at=at)

    def _record(self, registry: CollectorRegistry, at: float | None) -> Record:
        # Only a timestamped sink asks for one.
        from ecoflow_push.metrics.record import record_of

        at_ms = round((at or 0.0) * 1000)
        return record_of(registry, {"job": self._labels.job}, at_ms)

    def _unread(self, sn: str, record: DeviceRecord) -> Update:
        """Return the update of a device of which nothing was learnt.

        What counts is how old the values are that its group holds: a push may have
        failed.
        """
        at = record.held_at
        if at == 0:
            # Even "none" is not for ever: a run without memory may have pushed since.
            at = record.reduced_at
        # Without memory, or with a clock that went back, nobody knows how old they are.
        young = at is not None and 0 <= time.time() - at <= self._stale_after
        if young and not self._state.trouble:
            return Update(sn, "unread")
        facts = _timed(self._facts(sn, record), record)
        return Update(
            sn,
            "reduce",
            registry=device_registry(self._labels, facts),
            if_there=_is_unheard_of(record),
        )

    def _facts(
        self, sn: str, record: DeviceRecord, *, online: bool | None = None
    ) -> DeviceFacts:
        product = record.product_name or product_name(sn)
        return DeviceFacts(
            sn=sn,
            name=self.wanted.name_of(sn) or record.name or sn,
            product_name=product,
            source=record.source,
            # One that was never read yet may still be told by its serial.
            family=record.family
            or family_by_serial(sn)
            or family_by_product(product)
            or UNKNOWN.name,
            firmware=record.firmware,
            online=online,
        )


def create_updates(settings: Settings, state: State, only: Sequence[str]) -> Updates:
    """Return the updates of the settings; `only` narrows this run to some serials."""
    return Updates(
        state,
        create_labels(settings),
        Wanted(
            [spelt(sn, state) for sn in settings.device_sns],
            [spelt(sn, state) for sn in only],
            settings.device_names,
        ),
        Wording(settings.metrics_set, settings.metrics_naming),
        settings.stale_after,
    )


def _is_unheard_of(record: DeviceRecord) -> bool:
    return not record.listed and record.snapshot_at is None


def _timed(facts: DeviceFacts, record: DeviceRecord) -> DeviceFacts:
    return facts._replace(snapshot_at=record.snapshot_at, changed_at=record.changed_at)
