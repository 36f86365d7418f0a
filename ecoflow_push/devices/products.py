"""Product names by serial prefix, for devices that the cloud lists without one.

EcoFlow publishes no such table: this holds what several sources or live accounts
agree on (ecoflow-protocol.md 5.1); prefixes of doubtful meaning are left out.
"""

from __future__ import annotations

PRODUCTS = {
    "AC71": "WAVE 3",
    "BK01": "STREAM Microinverter",
    "BK11": "STREAM Ultra",
    "BK12": "STREAM Pro",
    "BK21": "Smart Meter",
    "BK31": "STREAM AC Pro",
    "BK41": "STREAM Max",
    "BK51": "STREAM AC",
    "BK61": "STREAM Ultra X",
    "BX1": "GLACIER",
    "C376": "PowerPulse",
    "D361": "DELTA 3 1500",
    "D3M1": "DELTA 3 Max Plus",
    "D3N1": "DELTA 3 Max",
    "DBAB": "DELTA mini",
    "DC": "DELTA Pro",
    "ES21": "STREAM 5000",
    "ES22": "STREAM AC 5000",
    "F371": "Alternator Charger",
    "HC31": "PowerOcean DC Fit",
    "HD3": "Smart Home Panel 2",
    "HF33": "PowerGlow",
    "HJ3": "PowerOcean",
    "HJ3C": "PowerOcean Plus",
    "HW51": "PowerStream",
    "HW52": "Smart Plug",
    "J32": "PowerOcean",
    "KT2": "WAVE 2",
    "M10": "Power Kits",
    "MR5": "DELTA Pro 3",
    "P101": "DELTA Pro Ultra X",
    "P231": "DELTA 3",
    "P351": "DELTA 3 Plus",
    "P521": "RAPID Pro Desktop Charger",
    "R33": "DELTA 2",
    "R35": "DELTA 2 Max",
    "R361": "DELTA 2 Max Smart Extra Battery",
    "R371": "PowerOcean Plus",
    "R372": "PowerOcean Plus",
    "R374": "PowerOcean Plus",
    "R60": "RIVER 2",
    "R61": "RIVER 2 Max",
    "R62": "RIVER 2 Pro",
    "RE11": "OCEAN 2",
    "RF45": "GLACIER Classic",
    "SP10": "Smart Home Panel",
    "Y71": "DELTA Pro Ultra",
}


def product_name(sn: str) -> str:
    """Return the product of a serial number, `Unknown` if its prefix says nothing."""
    for length in (4, 3, 2):
        name = PRODUCTS.get(sn[:length])
        if name:
            return name
    return "Unknown"
