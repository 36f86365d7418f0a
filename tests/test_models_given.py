"""What docs/models.md says that each model gives, against tables and recordings."""

from __future__ import annotations

import pytest

from ecoflow_push.devices.metrics import metrics
from ecoflow_push.devices.normalized import family_of
from ecoflow_push.devices.products import products
from tests.models_given import (
    RECORDED,
    WAYS,
    energy_of,
    flows,
    given,
    models,
    rows_of,
    seen,
)
from tests.recordings import MODELS, recorded_lines


def test_every_named_model_is_listed_once():
    """Each product of the serials, and each recorded model, has a line of its own."""
    lines = [line for line in given().splitlines() if line.startswith("| ")][1:]
    named = [line.split(" | ")[0].strip("| ") for line in lines]

    assert named == sorted(set(named))
    products_of = {product for product, _, _ in products().serials.values()} - {""}
    assert set(named) == products_of | MODELS.keys()


def test_every_power_of_a_model_becomes_energy():
    """A model with any power of the device counts its energy, or it is estimated."""
    silent = set()
    for model, serial in models().items():
        family = family_of(f"{serial or 'ZZ99'}ZFAKE0000001"[:16], model)
        powers = [r for r in family.rows if r.metric.endswith("_power_watts")]
        counters = [r for r in rows_of(family) if r.metric.endswith("_total")]
        assert (energy_of(family) == "none") == (not powers and not counters)
        if energy_of(family) == "none":
            silent.add(model)
    # These report no power that is understood, or are no such device.
    print(f"without energy: {', '.join(sorted(silent))}")
    known = {name for pair in flows().values() for name in pair if name}
    counted = {name for name in metrics() if name.endswith(("_total", "_power_watts"))}
    assert counted <= known


def test_what_was_recorded_is_known_to_the_tables():
    """The list of recordings holds known metrics, and a recording in each line."""
    assert seen()
    for (model, way), each in seen().items():
        assert way in WAYS
        assert each.recordings > 0
        assert each.normalized <= metrics().keys(), model
        family = family_of(f"{each.serial or 'ZZ99'}ZFAKE0000001"[:16], model)
        assert each.normalized <= {row.metric for row in rows_of(family)}, model


@pytest.mark.recorded
def test_the_list_of_recordings_is_up_to_date():
    """tests/fixtures/recorded.tsv says what the recordings beside the project have."""
    made = recorded_lines()

    assert RECORDED.read_text() == made, "make it anew: python -m tests.models_given"
