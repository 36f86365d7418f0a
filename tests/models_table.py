"""The tables in docs/models.md, from the tables of devices/ and what was recorded.

python -m tests.models_table
"""

from __future__ import annotations

from pathlib import Path

from ecoflow_push.devices.messages import messages_of, tables
from ecoflow_push.devices.products import products
from tests.models_given import given

DOCUMENT = Path(__file__).parent.parent / "docs" / "models.md"
BEGIN = "<!-- made by python -m tests.models_table -->\n"

WITHOUT = {"JSON": "none: it speaks JSON", "not public": "none that is read as yet"}
# Recorded frames, by product; test_protobuf_recorded.py decodes them all.
RECORDED = {
    "Alternator Charger": ["alternator/alternator-frames.hex"],
    "DELTA 3": ["delta3/delta3-p231-frame.hex"],
    "DELTA 3 Max Plus": ["delta3/delta3maxplus-pdata.hex"],
    "DELTA Pro 3": [
        "deltapro3/deltapro3-property-frames.hex",
        "deltapro3/deltapro3-set-frames.hex",
        "deltapro3/deltapro3-set_reply-frames.hex",
    ],
    "DELTA Pro Ultra": ["deltaproultra/dpu-pdata.hex"],
    "PowerOcean": [
        "powerocean/powerocean-hj31-pdata.hex",
        "powerocean/powerocean-j327-frames.hex",
    ],
    "PowerOcean Plus": ["powerocean/powerocean-r374-get_all.hex"],
    # Of a C101.
    "PowerPulse": ["wallbox/powerpulseev-pdata.hex"],
    "PowerStream": ["powerstream/powerstream-short-frame.hex"],
    "STREAM 5000": [
        "stream5000/es21-frames.hex",
        "stream5000/es21-pv-frames.hex",
        "stream5000/es21-write-frames.hex",
    ],
    "STREAM AC 5000": [
        "stream5000/es22-push-frames.hex",
        "stream5000/es22-task-frames.hex",
        "stream5000/es22-two-units-pdata.hex",
    ],
    "STREAM Microinverter": ["stream/stream_microinverter-bk01-frames.hex"],
    "Smart Home Panel 2": ["shp2/shp2-pdata.hex"],
    # RIVER 3 Plus, whose prefixes no two sources agree on.
    "Unknown": [
        "river3/river3plus-bms-pdata.hex",
        "river3/river3plus-cms-pdata.hex",
    ],
}
# Of these recordings no message, or not the main one, is in the schema.
UNREAD = {
    "PowerOcean": "minutes past and hours",
    "STREAM 5000": "254/40 is not read",
    "STREAM AC 5000": "254/40 is not read",
}
# What peers decoded from each product: its names are compared with ours.
DECODED = {
    "Alternator Charger": ["alternator/alternator-decoded.json"],
    "DELTA 3": ["delta3/delta3-decoded.json", "delta3/delta3-decoded-b.json"],
    "DELTA 3 Classic": ["delta3/delta3classic-decoded.json"],
    "DELTA 3 Max Plus": ["delta3/delta3maxplus-decoded.json"],
    "DELTA 3 Plus": ["delta3/delta3plus-decoded.json"],
    "DELTA Pro 3": ["deltapro3/deltapro3-decoded.json"],
    "DELTA Pro Ultra": ["deltaproultra/deltaproultra-decoded.json"],
    "GLACIER Classic": ["glacier/glacier_classic-decoded.json"],
    "PowerOcean": ["powerocean/powerocean-decoded.json"],
    "PowerOcean DC Fit": ["powerocean/poweroceandcfit-decoded.json"],
    "PowerOcean Plus": ["powerocean/poweroceanplus-decoded.json"],
    "PowerStream": [
        "powerstream/powerstream-decoded-b.json",
        "powerstream/powerstream800-decoded.json",
    ],
    "RAPID Pro Desktop Charger": ["charger/rapidpro320-decoded.json"],
    "STREAM AC": ["stream/stream_ac-decoded.json"],
    "STREAM AC Pro": ["stream/stream_ac_pro-decoded.json"],
    "STREAM Microinverter": ["stream/stream_microinverter-decoded.json"],
    "STREAM Ultra": ["stream/stream_ultra-decoded.json"],
    "STREAM Ultra X": ["stream/stream_ultra_x-decoded.json"],
    "Smart Home Panel 2": ["shp2/shp2-decoded.json"],
    "Smart Meter": ["smartmeter/smartmeter-decoded.json"],
    "Smart Plug": ["smartplug/smartplug-decoded.json"],
    "RIVER 3": ["river3/river3-decoded.json"],
    "Unknown": [
        "river3/river3plus-cms-decoded.json",
        "river3/river3plus-decoded.json",
    ],
    "WAVE 3": ["wave/wave3-decoded.json"],
}


def table() -> str:
    """Return the tables: a line for each product, and for each model, by name."""
    prefixes: dict[str, list[str]] = {}
    groups = {"Unknown": ""}
    for prefix, (product, _, group) in products().serials.items():
        if product:
            prefixes.setdefault(product, []).append(f"`{prefix}`")
            groups[product] = group
    lines = [
        "| product | serial begins with | binary messages | tested with recorded |",
        "|---|---|---|---|",
    ]
    for product in [*sorted(prefixes), "Unknown"]:
        group = groups[product]
        sent = tables().get(group) or messages_of(group)
        messages = WITHOUT.get(group) or ", ".join(
            f"{func}/{number}"
            for (func, number), route in sorted(sent.items())
            if route
        )
        tested = [
            what + (f" ({UNREAD[product]})" if product in UNREAD and part else "")
            for part, what, listed in ((1, "frames", RECORDED), (0, "names", DECODED))
            if product in listed
        ]
        cells = [
            product if product in prefixes else "any other, RIVER 3 Plus among them",
            " ".join(prefixes.get(product, ["-"])),
            messages,
            ", ".join(tested) or "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n" + given()


if __name__ == "__main__":
    text = DOCUMENT.read_text()
    DOCUMENT.write_text(text[: text.index(BEGIN)] + BEGIN + table())
