"""The servers of a benchmark, in a process of their own: clouds, a recorder, a gateway.

run.py starts it. Its first line of output says where they are; each line of input is
then answered by one more; it ends when the input ends. All lines are JSON.
"""

import gzip
import json
import os
import signal
import ssl
import subprocess
import sys
from contextlib import ExitStack
from functools import cache
from itertools import cycle, product
from pathlib import Path
from tempfile import TemporaryDirectory

import certifi
import trustme

from ecoflow_push.simulator.cloud import (
    SimulatedBroker,
    SimulatedCloud,
    SimulatedDevice,
)
from ecoflow_push.simulator.devices import SimulatedDevices
from ecoflow_push.simulator.server import Answer, Received, RecordingServer
from tests.broker import BROKER_PASSWORD, BROKER_USER, mosquitto
from tests.fetch_servers import find
from tests.support import gateway, parse, values

NEEDED = {"prometheus-pushgateway", "mosquitto"}
FETCH = "tests/fetch_servers.py"
ROOT = Path(__file__).parents[1]

PARTS = ("core", "inv", "solar", "pack_packStatus", "ems_emsParam", "20_1")
THINGS = ("in", "out", "cell", "fan", "usbC1", "acOut", "dcBus", "max", "f32Min", "cfg")
KINDS = ("Watts", "Vol", "Amp", "Temp", "SOC")
# In the mix of real maps: most are whole numbers, some are no numbers at all. Of one
# model all have the same keys, and texts under the same ones.
NUMBERS = (0, 1, 230579, 24, -3, 53355, 86.53, 1440, True, 0, 99, 213052, 7)
TEXT = "1.0.2.15"


# Under real names: what a DELTA 2 gives the normalized metrics.
REAL = json.loads(
    (ROOT / "tests" / "fixtures" / "normalized" / "delta2.json").read_text()
)["quotas"]


@cache
def quotas(start: int) -> dict[str, object]:
    """Return 306 quotas in the shapes of real ones, under invented names, and REAL."""
    numbers = cycle(NUMBERS[start:] + NUMBERS[:start])
    count = len(NUMBERS)
    keys = (
        f"{part}.{thing}{kind}" for part, thing, kind in product(PARTS, THINGS, KINDS)
    )
    return {
        key: TEXT if n % (count + 1) == count else next(numbers)
        for n, key in enumerate(keys)
    } | {
        "pack_packStatus.cellVols": [3320 + n for n in range(16)],
        "pack_packStatus.cellTemps": [20 + n for n in range(4)],
        "pack_kitInfo.kits": [{"sn": "", "curPower": 0, "f32Soc": 0.5}] * 2,
        "core.icoBytes": [],
        "20_134.task1": {"taskIndex": 0, "timeRange": {"isEnable": False}},
        "ems_emsParam.note": None,
        **REAL,
    }


def fleet(size: int) -> list[SimulatedDevice]:
    """Return devices that are online; all have the same keys."""
    return [
        SimulatedDevice(
            f"R331BENCH{n:07}", quotas(n % len(NUMBERS)), f"Device {n}", "DELTA 2"
        )
        for n in range(size)
    ]


class Recorder(RecordingServer):
    """Takes whatever is pushed, and what is written at /api/v1/write."""

    def answer(self, received: Received) -> Answer:
        """Answer as a Pushgateway and a remote-write receiver do."""
        if b"\xff" * 9 in received.body:
            # No receiver takes the proof (docs/protocol/remote-write.md).
            return Answer(400)
        return Answer(204 if received.method == "POST" else 200)


def main() -> None:
    """Serve until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # run.py hears it, and ends us
    if not find().keys() >= NEEDED:
        subprocess.run([sys.executable, FETCH], stdout=sys.stderr, check=False)
    if lacking := NEEDED - find().keys():
        sys.exit(f"{lacking} missing: run ./dev servers, or put them on PATH")
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="ecoflow-push-bench-"))
        # Who asks for ten devices at once is not to wait for a second try.
        SimulatedCloud.request_queue_size = 64
        authority = trustme.CA()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(tls)
        clouds = {
            name: stack.enter_context(SimulatedCloud(fleet(size), tls=context))
            for name, size, context in (
                ("https 1", 1, tls),
                ("https 3", 3, tls),
                ("https 10", 10, tls),
                ("http 1", 1, None),
                ("http 10", 10, None),
                ("http 30", 30, None),
                ("http 100", 100, None),
                ("http 1000", 1000, None),
                ("http 10000", 10000, None),
            )
        }
        recorder = stack.enter_context(Recorder())
        account, devices = app_account(stack, folder, authority, tls)
        places = {
            "clouds": {name: cloud.environ() for name, cloud in clouds.items()}
            | {"mqtt 1": account},
            "sinks": {
                "gateway": {"PUSHGATEWAY_URL": stack.enter_context(gateway()).url},
                "recorder": {"PUSHGATEWAY_URL": recorder.url},
                "receiver": {"REMOTE_WRITE_URL": f"{recorder.url}/api/v1/write"},
            },
            "ca_file": os.path.join(folder, "ca.pem"),
            "ca_bundle": os.path.join(folder, "bundle.pem"),
        }
        authority.cert_pem.write_to_path(places["ca_file"])
        authority.cert_pem.write_to_path(places["ca_bundle"])
        with open(places["ca_bundle"], "a", encoding="ascii") as file:
            file.write(certifi.contents())
        print(json.dumps(places), flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            if asked == "series":
                answer = series(recorder)
            elif asked == "answers":
                answer = {"answers": answers(clouds["http 1000"], folder)}
            elif asked == "times":
                answer = {"times": devices.times}
            else:
                answer = seen(clouds[asked])
            answer["gateway"] = [f"{r.method} {r.path}" for r in recorder.received]
            recorder.received.clear()
            print(json.dumps(answer), flush=True)


def app_account(
    stack: ExitStack, folder: str, authority: trustme.CA, tls: ssl.SSLContext
) -> tuple[dict[str, str], SimulatedDevices]:
    """Return the settings of a job with the app account, and the device that it reads.

    The broker is a real one, with Nagle's algorithm on, as it comes.
    """
    cloud = stack.enter_context(SimulatedCloud(fleet(1), tls=tls))
    broker = stack.enter_context(mosquitto(Path(folder, "broker"), authority))
    cloud.broker = SimulatedBroker(
        "localhost", broker.port, BROKER_USER, BROKER_PASSWORD
    )
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    devices = SimulatedDevices(
        cloud.devices,
        "localhost",
        broker.port,
        username="sim",
        password="sim",
        tls=trust,
    )
    stack.enter_context(devices)
    serial = {"ECOFLOW_DEVICE_SN": cloud.devices[0].sn, "PUSH_INSTANCE": "bench"}
    return cloud.account_environ() | serial, devices


def series(recorder: RecordingServer) -> dict[str, object]:
    """Return the quota series of the device that was pushed to the recorder."""
    (received,) = (r for r in recorder.received if "/device/" in r.path)
    body = received.body
    if received.headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    found = values(parse(body.decode())).items()
    return {"series": [repr((key, float(value))) for key, value in found]}


def answers(cloud: SimulatedCloud, folder: str) -> str:
    """Write what the cloud answers of each device, and return the folder."""
    place = Path(folder, "answers")
    place.mkdir(exist_ok=True)
    for device in cloud.devices:
        answer = {"code": "0", "message": "Success", "data": device.quotas}
        (place / device.sn).write_text(json.dumps(answer))
    return str(place)


def seen(cloud: SimulatedCloud) -> dict[str, object]:
    """Return what the cloud saw since it was asked last."""
    requests = [f"{r.method} {r.path}" for r in cloud.received]
    answer: dict[str, object] = {"handshakes": cloud.handshakes, "cloud": requests}
    cloud.handshakes = 0
    cloud.received.clear()
    return answer


if __name__ == "__main__":
    main()
