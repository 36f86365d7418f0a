"""The devices of the demo: invented values in the shapes of the real ones."""

from __future__ import annotations

from ecoflow_push.simulator.cloud import SimulatedDevice

DELTA_2 = {
    "pd.soc": 87,
    "pd.wattsInSum": 170,
    "pd.wattsOutSum": 112,
    "pd.remainTime": 1440,
    "pd.chgPowerAC": 213052,
    "pd.icoBytes": [0, 0, 132],
    "inv.acInVol": 230579,
    "inv.acInAmp": 729,
    "inv.cfgAcEnabled": 1,
    "mppt.inWatts": 58,
    "bms_bmsStatus.f32ShowSoc": 86.53,
    "bms_bmsStatus.vol": 53355,
    "bms_bmsStatus.temp": 24,
    "bms_bmsStatus.cycles": 41,
    "bms_bmsStatus.soh": 99,
    "bms_bmsStatus.cellVol": [3321, 3322, 3320],
    "bms_bmsStatus.cellTemp": [],
    "bms_bmsStatus.packSn": "0000000000000000",
    "bms_kitInfo.watts": [{"sn": "", "soc": 0, "curPower": 0, "f32Soc": 0.0}],
}
POWERSTREAM = {
    "20_1.pv1InputWatts": 1234,
    "20_1.pv2InputWatts": 876,
    "20_1.batSoc": 54,
    "20_1.invOutputWatts": 2100,
    "20_1.updateTime": "2026-01-02 03:04:05",
    "20_134.task1": {"taskIndex": 0, "timeRange": {"isEnable": False}},
    "20_134": {},
}
RIVER_2 = {"pd.soc": 12, "inv.acInVol": 229876}


def demo_fleet() -> list[SimulatedDevice]:
    """Return a power station, a microinverter and one that is offline."""
    return [
        SimulatedDevice("R331DEMO00000001", DELTA_2, "Garage", "DELTA 2"),
        SimulatedDevice("HW51DEMO00000002", POWERSTREAM, "Balcony", "PowerStream"),
        SimulatedDevice("R601DEMO00000003", RIVER_2, "Camper", "RIVER 2", online=0),
    ]
