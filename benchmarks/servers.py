"""The servers of a benchmark, in a process of their own: clouds, a recorder, a gateway.

run.py starts it. Its first line of output says where they are; each line of input is
then answered by one more; it ends when the input ends. All lines are JSON.
"""

import json
import os
import signal
import ssl
import subprocess
import sys
from contextlib import ExitStack
from itertools import cycle, product
from tempfile import TemporaryDirectory

import trustme

from ecoflow_push.simulator.cloud import SimulatedCloud, SimulatedDevice
from ecoflow_push.simulator.server import RecordingServer
from tests.fetch_servers import find
from tests.support import gateway, values

GATEWAY = "prometheus-pushgateway"
FETCH = "tests/fetch_servers.py"

PARTS = ("core", "inv", "solar", "pack_packStatus", "ems_emsParam", "20_1")
THINGS = ("in", "out", "cell", "fan", "usbC1", "acOut", "dcBus", "max", "f32Min", "cfg")
KINDS = ("Watts", "Vol", "Amp", "Temp", "SOC")
# In the mix of real maps: most are whole numbers, some are no numbers at all.
VALUES = (0, 1, 230579, 24, -3, 53355, 86.53, 1440, True, 0, 99, 213052, "1.0.2.15", 7)


def quotas(seed: int) -> dict[str, object]:
    """Return 306 quotas in the shapes of real ones, under invented names."""
    drawn = cycle(VALUES[seed % len(VALUES) :] + VALUES[: seed % len(VALUES)])
    keys = (
        f"{part}.{thing}{kind}" for part, thing, kind in product(PARTS, THINGS, KINDS)
    )
    return dict(zip(keys, drawn, strict=False)) | {
        "pack_packStatus.cellVols": [3320 + n for n in range(16)],
        "pack_packStatus.cellTemps": [20 + n for n in range(4)],
        "pack_kitInfo.kits": [{"sn": "", "curPower": 0, "f32Soc": 0.5}] * 2,
        "core.icoBytes": [],
        "20_134.task1": {"taskIndex": 0, "timeRange": {"isEnable": False}},
        "ems_emsParam.note": None,
    }


def fleet(size: int) -> list[SimulatedDevice]:
    """Return devices that are online."""
    return [
        SimulatedDevice(f"R331BENCH{n:07}", quotas(n), f"Device {n}", "DELTA 2")
        for n in range(size)
    ]


def main() -> None:
    """Serve until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # run.py hears it, and ends us
    if GATEWAY not in find():
        subprocess.run([sys.executable, FETCH], stdout=sys.stderr, check=False)
    if GATEWAY not in find():
        sys.exit(f"{GATEWAY} is missing: run ./dev servers, or put it on PATH")
    with ExitStack() as stack:
        authority = trustme.CA()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(tls)
        folder = stack.enter_context(TemporaryDirectory(prefix="ecoflow-push-bench-"))
        ca_file = os.path.join(folder, "ca.pem")
        authority.cert_pem.write_to_path(ca_file)
        clouds = {
            name: stack.enter_context(SimulatedCloud(fleet(size), tls=context))
            for name, size, context in (
                ("https 1", 1, tls),
                ("https 3", 3, tls),
                ("https 10", 10, tls),
                ("http 1", 1, None),
            )
        }
        recorder = stack.enter_context(RecordingServer())
        pushgateway = stack.enter_context(gateway())
        places = {
            "clouds": {name: cloud.environ() for name, cloud in clouds.items()},
            "ca_file": ca_file,
            "recorder": recorder.url,
            "gateway": pushgateway.url,
        }
        print(json.dumps(places), flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            if asked == "series":
                answer = sorted(map(repr, values(pushgateway.series()).items()))
            else:
                answer = counts(clouds[asked], recorder)
            print(json.dumps(answer), flush=True)


def counts(cloud: SimulatedCloud, recorder: RecordingServer) -> dict[str, object]:
    """Return what both servers saw since they were asked last."""
    seen = {
        "handshakes": cloud.handshakes,
        "cloud": sorted(f"{r.method} {r.path}" for r in cloud.received),
        "gateway": sorted(f"{r.method} {r.path}" for r in recorder.received),
    }
    cloud.handshakes = 0
    cloud.received.clear()
    recorder.received.clear()
    return seen


if __name__ == "__main__":
    main()
