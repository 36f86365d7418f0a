"""A map read by a plan is the map read by the rule; our text is the library's."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections import Counter
from collections.abc import Mapping

import pytest
from prometheus_client import generate_latest

from ecoflow_push.devices.normalized import normalized_samples
from ecoflow_push.metrics.exposition import Exposition, text_of
from ecoflow_push.metrics.frame import Part
from ecoflow_push.metrics.labels import Labels
from ecoflow_push.metrics.names import NAMINGS, raw_samples
from ecoflow_push.metrics.own import RESERVED_NAMES
from ecoflow_push.metrics.record import record_of
from ecoflow_push.metrics.registry import DeviceFacts, device_registry, part_of
from ecoflow_push.metrics.shapes import MOST_MISSED, MOST_PLANNED, Shapes
from ecoflow_push.sinks.wire import ENCODERS
from tests.receiver import decode
from tests.test_corpus import recorded_maps

AT_MS = 1_700_000_000_000
# Spellings that meet, places written out, names of ours, names that are none.
KEYS = (
    *("pd.soc", "pd.chgPowerAC", "pd.chgPowerAc", "pd", "soc", "online", "--", "ä"),
    *("a[0]", "a[0]b", "a[1][2].b", "ab[0]", "a", "a.b", "pushX", "invOutputWatts"),
    *("batteryChargeRatio", "solarInputEnergyWattHours", "20_1.x", "x" * 201),
)
NUMBERS = (0, 1, -3, 230579, 86.53, 1e6, 1234567.5, 1e16, 1e22, 1e-7, -0.0, True)
ODD = (float("nan"), float("inf"), 10**400)
OTHERS: tuple[object, ...] = (None, "1.0.2.15", "", [], {}, "{}")


def value_of(chance: random.Random, level: int = 0) -> object:
    kind = chance.random()
    if kind < 0.6 or level > 3:
        return chance.choice(ODD if chance.random() < 0.01 else NUMBERS)
    if kind < 0.8:
        return chance.choice(OTHERS)
    size = chance.randrange(5)
    if kind < 0.9:
        return [value_of(chance, level + 1) for _ in range(size)]
    return {key: value_of(chance, level + 1) for key in chance.sample(KEYS, size)}


def changed(quotas: dict[str, object], chance: random.Random) -> dict[str, object]:
    """Return the next map of a device: mostly other numbers, at times another shape."""
    after = {
        key: chance.choice(NUMBERS) if type(value) in (int, float, bool) else value
        for key, value in quotas.items()
    }
    if chance.random() < 0.4:
        after[chance.choice(KEYS)] = value_of(chance)
    if after and chance.random() < 0.2:
        del after[chance.choice(list(after))]
    if chance.random() < 0.1:
        after = dict(sorted(after.items(), key=lambda _: chance.random()))
    return after


def by_rule(
    quotas: Mapping[str, object], naming: str = NAMINGS[0]
) -> tuple[Part, Counter[str]]:
    samples, skipped = raw_samples(quotas, "ecoflow", RESERVED_NAMES, naming)
    return part_of(samples, "ecoflow"), skipped


def assert_alike(part: Part, quotas: Mapping[str, object]) -> None:
    """Text, exposition and message are what the official libraries make or read."""
    facts = DeviceFacts("SN1", 'G"\\\n', "DELTA 2", online=True, snapshot_at=1.5e9)
    labels = Labels("ecoflow", "test", "ecoflow", {"Site": "home"})
    base, _ = normalized_samples(quotas, "SN1", "DELTA 2", "ecoflow")
    registry = device_registry(labels, facts, [part, part_of(base, "ecoflow")])
    text = text_of(registry)
    assert text.splitlines() == generate_latest(registry).splitlines()
    exposition = Exposition()
    exposition.add(registry)
    assert b"".join(exposition.pieces()) == text

    record = record_of(registry, {"job": "ecoflow"}, AT_MS)
    assert len(set(zip(record.names, record.places, strict=True))) == record.size
    found, *_ = decode("1", ENCODERS["1"]([record]))
    wanted = [
        (
            tuple(sorted({**s.labels, "job": "ecoflow", "__name__": s.name}.items())),
            struct.pack("<d", s.value),
        )
        for metric in registry.collect()
        for s in metric.samples
    ]
    sent = [
        (tuple(sorted(sample.labels)), struct.pack("<d", sample.value))
        for sample in found
    ]
    empty = [tuple(pair for pair in labels if pair[1]) for labels, _ in wanted]
    assert sent == list(zip(empty, (bits for _, bits in wanted), strict=True))


@pytest.mark.drill("fuzz")
@pytest.mark.parametrize("naming", NAMINGS)
def test_no_sequence_of_shapes_gets_a_wrong_plan(drill, naming):
    """Keys come, go and change their kind: each map is read as the rule reads it."""
    chance = random.Random(drill.seed)
    shapes = Shapes()
    planned = 0
    for _ in range(drill.size(10, 250)):
        quotas = {key: value_of(chance) for key in chance.sample(KEYS, 12)}
        for number in range(20):
            wanted = by_rule(quotas, naming)

            (frame, values), skipped = shapes.part(quotas, "ecoflow", naming)

            assert ((frame, list(values)), skipped) == wanted
            assert list(map(str, values)) == list(map(str, wanted[0][1]))
            again = shapes.part(quotas, "ecoflow", naming)[0][0]
            planned += again is shapes.part(quotas, "ecoflow", naming)[0][0]
            if number % 4 == 0:
                assert_alike((frame, values), quotas)
            quotas = changed(quotas, chance)
    assert planned


@pytest.mark.recorded
def test_recorded_maps_by_plan_and_by_rule():
    """Each recorded map gives the same samples, text and message by both."""
    shapes = Shapes()
    for file, quotas in recorded_maps().items():
        wanted = by_rule(quotas)
        for _ in range(3):
            (frame, values), skipped = shapes.part(quotas, "ecoflow", NAMINGS[0])
            assert ((frame, list(values)), skipped) == wanted, file
        assert_alike((frame, values), quotas)


def test_the_third_map_of_a_shape_shares_the_frame_of_the_second():
    """What is alike is worked out once, whatever the numbers and whosoever they are."""
    shapes = Shapes()
    frames = [
        shapes.part({"a": n, "b": [n, 0.5], "c": "x"}, "p", "ecoflow")[0][0]
        for n in (1, 2.5, True)
    ]

    assert frames[1] is frames[2]


def test_a_tie_that_numbers_decide_is_never_planned():
    """Two keys that meet in name, place and spelling are decided by their values."""
    shapes = Shapes()
    for low, high in ((1, 2), (2, 1), (3, 4), (4, 3)):
        quotas = {"a[0]b": low, "ab[0]": high}

        (_, values), skipped = shapes.part(quotas, "p", "ecoflow")

        assert (list(values), skipped) == ([min(low, high)], {"collision": 1})


def test_shapes_without_end_take_bounded_room():
    """More shapes than there is room for go by the rule, until older ones are gone."""
    shapes = Shapes()

    def is_planned(key: str, size: int) -> bool:
        quotas = {f"{key}.{n}": n for n in range(size)}
        frames = [shapes.part(quotas, "p", "ecoflow")[0][0] for _ in range(3)]
        return frames[1] is frames[2]

    first = [is_planned(f"a{n}", 512) for n in range(MOST_PLANNED // 512)]
    later = [is_planned(f"b{n}", 1) for n in range(MOST_MISSED // 2)]

    assert all(first)
    # Each of these comes three times.
    assert not any(later[: MOST_MISSED // 3])
    assert any(later[MOST_MISSED // 3 :])


def test_keys_that_are_no_names_take_no_room():
    """Of maps with keys as long as no device has them none is remembered."""
    shapes = Shapes()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(20):
        for _ in range(2):
            shapes.part({f"{number}{'k' * 100_000}": 1}, "p", "ecoflow")
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert after - before < 200_000
