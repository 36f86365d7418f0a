"""Facts to a registry, compared as exposition."""

from collections.abc import Sequence

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from ecoflow_push.devices.metrics import metrics
from ecoflow_push.devices.normalized import REASONS
from ecoflow_push.metrics.exposition import Exposition
from ecoflow_push.metrics.frame import Part, Row
from ecoflow_push.metrics.labels import Labels
from ecoflow_push.metrics.names import SKIP_REASONS, raw_samples
from ecoflow_push.metrics.own import RESERVED_NAMES
from ecoflow_push.metrics.registry import DeviceFacts, device_registry, part_of
from ecoflow_push.metrics.run_series import run_registry
from tests.support import Series, parse

LABELS = Labels("ecoflow", "test", "ecoflow", {})


def part(samples: Sequence[Row]) -> Part:
    return part_of(samples, "ecoflow")


def device(sn: str, **facts) -> DeviceFacts:
    return DeviceFacts(sn, "Garage", "DELTA 2", "rest", **facts)


def series_of(registry: CollectorRegistry) -> Series:
    return parse(generate_latest(registry).decode())


def test_one_family_per_name_over_devices():
    """In one exposition devices share each family, with one HELP and one TYPE line."""
    labels = Labels("ecoflow", "test", "ecoflow", {"site": "home"})
    samples = part([("ecoflow_a", (), 1), ("ecoflow_b", (0, 7), 2.5)])
    exposition = Exposition()
    for facts in (
        device("SN1", online=True, snapshot_at=1.5),
        device("SN2", online=False),
    ):
        exposition.add(device_registry(labels, facts, [samples]))

    text = b"".join(exposition.pieces()).decode()

    assert text.count("# TYPE ecoflow_a gauge\n") == 1
    own = 'device="SN1",device_name="Garage"'
    rest = 'product_name="DELTA 2",site="home"'
    assert f"ecoflow_a{{{own},{rest}}} 1.0\n" in text
    assert f'ecoflow_b{{{own},index_0="0",index_1="7",{rest}}} 2.5\n' in text
    assert f"ecoflow_snapshot_timestamp_seconds{{{own},{rest}}} 1.5\n" in text
    assert text.count("ecoflow_snapshot_timestamp_seconds{") == 1
    assert text.count("ecoflow_online{") == 2


def test_an_exposition_is_that_of_the_library():
    """Of one registry it is generate_latest's to the byte, whatever a text holds."""
    facts = device("SN1", online=True)._replace(name="x\n# HELP y\n# TYPE z")
    registry = device_registry(LABELS, facts, [part([("ecoflow_a", (), 1)])])
    exposition = Exposition()
    exposition.add(registry)

    assert b"".join(exposition.pieces()) == generate_latest(registry)


def test_a_normalized_name_has_its_help_and_its_type():
    """A normalized metric is told by its name: HELP, TYPE, and the label of a pack."""
    name = "battery_charge_energy_watt_hours_total"
    samples = [
        ("ecoflow_battery_charge_ratio", {}, 0.5),
        (f"ecoflow_{name}", {"pack": "1"}, 700.0),
    ]
    facts = device("SN1", family="X", firmware="1.2")

    text = generate_latest(device_registry(LABELS, facts, [part(samples)])).decode()

    assert f"# HELP ecoflow_{name} {metrics()[name].help}\n" in text
    assert f"# TYPE ecoflow_{name} counter\n" in text
    assert "# TYPE ecoflow_battery_charge_ratio gauge\n" in text
    assert 'pack="1",product_name="DELTA 2"} 700.0\n' in text
    assert 'family="X",firmware="1.2"' in text


def test_what_is_unknown_is_absent():
    """No online flag, no time and no last success appear where none is known."""
    registries = (
        device_registry(LABELS, device("SN1")),
        run_registry(LABELS, version="0"),
    )

    names = {name for each in registries for name, _ in series_of(each)}

    assert "ecoflow_online" not in names
    assert "ecoflow_snapshot_timestamp_seconds" not in names
    assert "ecoflow_push_last_success_timestamp_seconds" not in names


def test_every_skip_reason_is_always_there():
    """The reasons are a fixed set, so that a series does not come and go."""
    series = series_of(run_registry(LABELS, version="0", skipped={"null": 3}))

    counts = {dict(k[1])["reason"]: v for k, v in series.items() if "skipped" in k[0]}
    assert counts == dict.fromkeys((*SKIP_REASONS, *REASONS), 0.0) | {"null": 3}


def test_unknown_messages_are_a_bounded_number_of_series():
    """Of more kinds than 64 the rest is one series, and none is lost from the sum."""
    unread = {("Smart Plug", f"1/{n}"): n for n in range(1, 101)}

    series = series_of(run_registry(LABELS, version="0", unread=unread))

    counts = {dict(k[1])["message"]: v for k, v in series.items() if "unkn" in k[0]}
    assert len(counts) == 65
    assert counts["1/1"] == 1
    assert sum(counts.values()) == sum(unread.values())
    assert counts["other"] > max(unread.values())


@pytest.mark.case("D6", "K10")
def test_label_values_stay_one_label_value():
    """A name full of quotes, backslashes and newlines is read back as it was."""
    name = 'a"b\\c\nd} 1'
    facts = DeviceFacts("SN1", name, "", "rest", online=True)

    series = series_of(device_registry(LABELS, facts))

    assert {dict(labels)["device_name"] for _, labels in series} == {name}


def test_the_global_registry_stays_untouched():
    """Nothing of ours is in the process-wide registry."""
    device_registry(LABELS, device("SN1"))

    assert not [m.name for m in REGISTRY.collect() if m.name.startswith("ecoflow")]


@pytest.mark.case("D7")
@pytest.mark.parametrize("key", ["solarInputEnergyWattHours", "batteryChargeRatio"])
def test_no_quota_takes_a_name_of_ours(key):
    """A key that would be a normalized metric, or a counter's family, is skipped."""
    samples, skipped = raw_samples({key: 1}, "ecoflow", RESERVED_NAMES)

    assert (samples, dict(skipped)) == ([], {"reserved": 1})
