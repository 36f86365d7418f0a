"""Which binary message says what: by product first, then by (cmd_func, cmd_id).

One pair means different things in different products, so the product, known by the
serial prefix (products.py), comes first (ecoflow-protobuf.md 6). The prefixes of the
keys are those of the REST API: the same device has the same names by either way.
"""

from __future__ import annotations

from typing import NamedTuple

from ecoflow_push.devices.products import product_name


class Route(NamedTuple):
    """One message: its name in schema/, and what its quota keys begin with.

    Where it describes one unit out of many, `unit` is the field that tells them apart
    and `unit_prefix` holds its value; unit 0, or none, has the plain `prefix`. `items`
    is the list of units, empty where the message itself is one.
    """

    message: str
    prefix: str = ""
    unit: str = ""
    unit_prefix: str = ""
    items: str = ""


#: Known, and no state of the device now: settings, acknowledgements, history.
NO_TELEMETRY = None
Family = dict[tuple[int, int], Route | None]

# The main pack is number 0; only the others need to be told apart.
_THIRD_GENERATION: Family = {
    (254, 21): Route("display.DisplayPropertyUpload"),
    (254, 22): Route("runtime.RuntimePropertyUpload"),
    (32, 2): Route("battery.CMSHeartBeatReport"),
    (32, 50): Route("battery.BMSHeartBeatReport", "", "num", "bms[{}]."),
    **dict.fromkeys(
        ((254, n) for n in (16, 17, 18, 19, 20, 23, 24, 25, 26, 32, 37, 38)),
        NO_TELEMETRY,
    ),
    (32, 11): NO_TELEMETRY,
    (50, 98): NO_TELEMETRY,
}
_POWERSTREAM: Family = {
    (20, 1): Route("powerstream.InverterHeartbeat", "20_1."),
    (20, 4): Route("powerstream.InvHeartbeatType2", "20_4."),
    **dict.fromkeys(
        ((20, n) for n in (2, 129, 130, 132, 133, 134, 135, 136, 138, 143, 146)),
        NO_TELEMETRY,
    ),
}
_SMART_PLUG: Family = {
    (2, 1): Route("smartplug.PlugHeartbeat", "2_1."),
    **dict.fromkeys(((2, n) for n in (2, 129, 130, 133, 135, 137, 138)), NO_TELEMETRY),
}
_APPSHOW = "hs_yj751_pd_appshow_addr."
_BACKEND = "hs_yj751_pd_backend_addr."
_SETTINGS = "hs_yj751_pd_app_set_info_addr."
_PACKS = "hs_yj751_bms_slave_addr."
_DELTA_PRO_ULTRA: Family = {
    (2, 1): Route("deltaproultra.AppShowHeartbeatReport", _APPSHOW),
    (2, 2): Route("deltaproultra.BackendRecordHeartbeatReport", _BACKEND),
    (2, 3): Route("deltaproultra.APPParaHeartbeatReport", _SETTINGS),
    (2, 4): Route(
        "deltaproultra.BpInfoReport", _PACKS, "bp_no", _PACKS + "{}.", "bp_info"
    ),
    # Its REST map has the runtime keys under the backend's name.
    (254, 22): Route("runtime.RuntimePropertyUpload", _BACKEND),
}
_PANEL_2: Family = {
    (12, 1): Route("panel2.ProtoTime"),
    (12, 32): Route("panel2.ProtoPushAndSet", "pd303_mc."),
}
_CHANGES = Route("powerocean.EmsChangeReport", "ems_change_report.")
_POWEROCEAN: Family = {
    (96, 1): Route("powerocean.HeartbeatReport"),
    (96, 3): Route("powerocean.ErrorChangeReport", "error_code."),
    (96, 7): Route(
        "powerocean.BpHeartbeatReport",
        "bp_addr.",
        "bp_sn",
        "bp_addr.{}.",
        "bp_heart_beat",
    ),
    # One numbering in three parts. 16 is what the app's own REST of a Plus calls the
    # safety parameters: the 168 fields of the one recorded are exactly its keys.
    (96, 8): _CHANGES,
    (96, 16): _CHANGES,
    (96, 17): _CHANGES,
    (96, 13): Route("powerocean.EmsParamChangeReport", "ems_param_change_report."),
    (96, 33): Route("powerocean.EnergyStreamReport"),
}
_POWEROCEAN_FIT: Family = {
    (96, 1): Route("powerocean_fit.EMSHeartbeatReport"),
    (96, 33): Route("powerocean_fit.EnergyStreamItem"),
}

#: By product name; products that are not here are of the third generation.
FAMILIES: dict[str, Family] = {
    "DELTA Pro Ultra": _DELTA_PRO_ULTRA,
    "PowerOcean": _POWEROCEAN,
    "PowerOcean DC Fit": _POWEROCEAN_FIT,
    "PowerOcean Plus": _POWEROCEAN,
    "PowerStream": _POWERSTREAM,
    "Smart Home Panel 2": _PANEL_2,
    "Smart Plug": _SMART_PLUG,
}


def family_of(product: str) -> Family:
    """Return the messages that a product may send."""
    if product != "Unknown":
        return _THIRD_GENERATION | FAMILIES.get(product, {})
    # A new serial prefix may be of any family: only what two families do not share.
    common: Family = {}
    shared = set()
    for family in FAMILIES.values():
        for pair, route in family.items():
            if common.setdefault(pair, route) != route:
                shared.add(pair)
    return {
        pair: route for pair, route in common.items() if pair not in shared
    } | _THIRD_GENERATION


def family_of_device(sn: str) -> Family:
    """Return the messages that the device with this serial number may send."""
    return family_of(product_name(sn))
