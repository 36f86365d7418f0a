"""What may be said of each device now: readings and memory in, facts out.

A value is said only if the device reported it in this run. What a device said before
is not repeated; that it is old, is. The table this follows is in docs/truth.md.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ecoflow_push.config.settings import Settings
from ecoflow_push.devices.normalized import (
    FAMILIES,
    NormalizedSample,
    family_of,
    firmware_of,
    normalized_samples,
)
from ecoflow_push.devices.products import product_name
from ecoflow_push.memory.state import DeviceRecord, State
from ecoflow_push.metrics.names import RawSample, raw_samples
from ecoflow_push.metrics.registry import RESERVED_NAMES, DeviceFacts
from ecoflow_push.run.collect import Collection, Reading

GONE_AFTER_LISTS = 2
TELL_REFUSED_SECONDS = 86_400.0


class Verdict(NamedTuple):
    """What becomes of one device's group.

    `facts` None means: delete it. `fresh` is False where the group is only being
    reduced because nothing was learnt. `if_there` forbids to make the group anew: of
    this device nothing was ever heard, perhaps its serial is mistyped. `at` is when it
    was learnt, in Unix seconds, None for just now.
    """

    sn: str
    facts: DeviceFacts | None
    fresh: bool = True
    if_there: bool = False
    at: float | None = None


class Truth:
    """The verdicts of a run, and what was counted on the way."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []
        self.samples = 0
        self.skipped: Counter[str] = Counter()
        #: Devices of which this run learnt nothing, though it should have.
        self.unread: list[str] = []
        #: Devices whose refusal the log told less than a day ago.
        self.told_before: set[str] = set()


class Judge(NamedTuple):
    """Turns a run's collection into verdicts and brings the state up to date.

    `named` are the serials of the settings, `only` those of this run alone (which
    change nothing that is remembered of others); `stale_after` is in seconds. `sets`
    are the kinds of metrics that are said, raw and normalized.
    """

    prefix: str
    named: Sequence[str]
    only: Sequence[str]
    device_names: Mapping[str, str]
    stale_after: float
    sets: Sequence[str] = ("raw", "normalized")
    naming: str = "ecoflow"

    def judge(self, collection: Collection, state: State) -> Truth:
        """Return what may be said; `state` learns what the run learnt."""
        truth = Truth()
        listed = {device.sn for device in collection.listed or ()}
        for sn in listed & state.devices.keys():
            state.devices[sn].missing = 0
            state.devices[sn].listed = True
        for sn, reading in collection.readings.items():
            record = state.devices.setdefault(sn, DeviceRecord())
            record.name = reading.device.name or record.name
            record.product_name = reading.device.product_name or record.product_name
            record.named = record.named or sn in self.named
            record.listed = record.listed or sn in listed
            record.source = reading.source or record.source
            if reading.state == "refused" and not _is_due(record):
                truth.told_before.add(sn)
            verdict = self._verdict(sn, reading, record, state, truth)
            if verdict:
                truth.verdicts.append(verdict)
        if collection.listed is not None and not self.only:
            self._look_for_gone(listed, state, truth)
        return truth

    def describe(self, sn: str, reading: Reading, record: DeviceRecord) -> DeviceFacts:
        """Return who a device is and whether it is online, without any value."""
        online = False if reading.state == "offline" else reading.device.online
        known = reading.state != "failed"
        return self._facts(sn, record, online=online if known else None)

    def _verdict(
        self,
        sn: str,
        reading: Reading,
        record: DeviceRecord,
        state: State,
        truth: Truth,
    ) -> Verdict | None:
        unheard_of = not record.listed and record.snapshot_at is None
        if reading.state == "failed" or (reading.state == "refused" and unheard_of):
            truth.unread.append(sn)
            return self._reduced(sn, record, state)
        samples: list[RawSample] = []
        normalized: list[NormalizedSample] = []
        said: list[RawSample | NormalizedSample] = []
        if reading.snapshot:
            # Also if they are not said: by them it is known whether anything changed.
            samples, skipped = raw_samples(
                reading.snapshot.quotas, self.prefix, RESERVED_NAMES, self.naming
            )
            truth.samples += len(samples)
            truth.skipped += skipped
            said = [*samples] if "raw" in self.sets else []
            normalized, left_out = self._normalized(sn, reading.snapshot.quotas, record)
            if "normalized" in self.sets:
                said += normalized
                truth.skipped += left_out
        if reading.snapshot and (samples or normalized):
            # Some devices say all in texts, of which there are no raw samples.
            text = json.dumps(samples or normalized)
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            if record.digest not in ("", digest):
                record.changed_at = reading.snapshot.collected_at
            record.digest = digest
            record.snapshot_at = reading.snapshot.collected_at
        facts = self.describe(sn, reading, record)
        timed = reading.state != "refused"
        facts = _with_values(facts, said, record if timed else None)
        at = reading.snapshot.collected_at if reading.snapshot else None
        return Verdict(sn, facts, at=at)

    def _normalized(
        self,
        sn: str,
        quotas: Mapping[str, object],
        record: DeviceRecord,
    ) -> tuple[list[NormalizedSample], Counter[str]]:
        """Return the samples in base units; the record learns what kind this is."""
        product = record.product_name or product_name(sn)
        family = family_of(sn, product, quotas)
        if family.name not in FAMILIES:
            # A partial map may lack the key by which it was told before.
            family = FAMILIES.get(record.family, family)
        record.family = family.name
        record.firmware = firmware_of(quotas, family) or record.firmware
        return normalized_samples(quotas, sn, product, self.prefix, family)

    def _reduced(self, sn: str, record: DeviceRecord, state: State) -> Verdict | None:
        """Return the group without values once they are too old to stand.

        What counts is how old those are that the group holds: a push may have failed.
        """
        at = record.held_at
        if at == 0:
            # Even "none" is not for ever: a run without memory may have pushed since.
            at = record.reduced_at
        # Without memory, or with a clock that went back, nobody knows how old they are.
        young = at is not None and 0 <= time.time() - at <= self.stale_after
        if young and not state.trouble:
            return None
        facts = _with_values(self._facts(sn, record, online=None), [], record)
        unheard_of = not record.listed and record.snapshot_at is None
        return Verdict(sn, facts, fresh=False, if_there=unheard_of)

    def _look_for_gone(self, listed: set[str], state: State, truth: Truth) -> None:
        for sn, record in list(state.devices.items()):
            if sn in listed or sn in self.named:
                continue
            if self.named or record.named:
                # Not wanted any more, which is no reason to delete anything.
                del state.devices[sn]
                continue
            record.missing += 1
            if record.missing >= GONE_AFTER_LISTS and record.listed:
                truth.verdicts.append(Verdict(sn, None))
                continue
            truth.unread.append(sn)
            if verdict := self._reduced(sn, record, state):
                truth.verdicts.append(verdict)

    def _facts(
        self, sn: str, record: DeviceRecord, *, online: bool | None
    ) -> DeviceFacts:
        product = record.product_name or product_name(sn)
        return DeviceFacts(
            sn=sn,
            name=self.device_names.get(sn) or record.name or sn,
            product_name=product,
            source=record.source,
            online=online,
            # One that was never read yet may still be told by its serial.
            family=record.family or family_of(sn, product).name,
            firmware=record.firmware,
        )


def create_judge(settings: Settings, only: Sequence[str]) -> Judge:
    """Return the judge of the settings; `only` narrows this run to some serials."""
    return Judge(
        prefix=settings.prefix,
        named=settings.device_sns,
        only=only,
        device_names=settings.device_names,
        stale_after=settings.stale_after,
        sets=settings.metrics_set,
        naming=settings.metrics_naming,
    )


def _is_due(record: DeviceRecord) -> bool:
    """Return whether a refusal is to be told, and note that it is: once a day."""
    now = time.time()
    told_at = record.told_at
    if told_at is not None and 0 <= now - told_at < TELL_REFUSED_SECONDS:
        return False
    record.told_at = now
    return True


def _with_values(
    facts: DeviceFacts,
    samples: Sequence[RawSample | NormalizedSample],
    record: DeviceRecord | None,
) -> DeviceFacts:
    return facts._replace(
        snapshot_at=record.snapshot_at if record else None,
        changed_at=record.changed_at if record else None,
        samples=samples,
    )
