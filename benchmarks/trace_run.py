"""What one run of push.py counts of itself; for measure.py, in any checkout.

    python benchmarks/trace_run.py registries | gateway | remote-write

A profile function looks on. A form of a value is a type that carries it where one room
(a folder of the package, or a module beside them) hands it to another, or gets it back.
"""

import os
import struct
import sys
import tempfile
import threading
from contextlib import ExitStack

import prometheus_client.core

import push
from ecoflow_push.simulator.cloud import SimulatedCloud, SimulatedDevice
from ecoflow_push.simulator.server import Answer, RecordingServer

MARK = 87.53125
MARKS = (str(MARK).encode(), struct.pack("<d", MARK))
SERIALS = ("R331ZFAKE0000001", "R331ZFAKE0000002", "R331ZFAKE0000003")
PACKAGE = os.path.join(os.getcwd(), "ecoflow_push")
DEEPEST = 6


def carries(value, level=0):
    """Return whether a value is the mark, or holds it."""
    if isinstance(value, float):
        return value == MARK
    if isinstance(value, (bytes, bytearray)):
        return any(mark in value for mark in MARKS)
    if isinstance(value, str):
        return str(MARK) in value
    # What a registry holds was never looked into: it, and who hands it on, is no form.
    if level > DEEPEST or isinstance(value, prometheus_client.core.CollectorRegistry):
        return False
    if isinstance(value, dict):
        value = value.values()
    elif type(value).__module__.startswith(("ecoflow_push", "prometheus_client")):
        if not isinstance(value, tuple):
            names = getattr(type(value), "__slots__", ())
            value = (
                [*vars(value).values()]
                if hasattr(value, "__dict__")
                else [getattr(value, name, None) for name in names]
            )
    elif not isinstance(value, (list, tuple, set)):
        return False
    return any(carries(each, level + 1) for each in value)


def room(path):
    """Return the folder of the package that a file is in, or its own name."""
    return os.path.relpath(path, PACKAGE).partition("/")[0]


class Look:
    """Counts registries, and the types that carry the mark."""

    def __init__(self):
        self.registries = 0
        self.forms = {}
        self._made = prometheus_client.core.CollectorRegistry.__init__.__code__

    def __call__(self, frame, event, argument):
        code = frame.f_code
        if event == "call" and code is self._made:
            self.registries += 1
        if not code.co_filename.startswith(PACKAGE) or "simulator" in code.co_filename:
            return
        if event == "call":
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            given = [frame.f_locals.get(name) for name in names if name != "self"]
        elif event == "return":
            given = [argument]
        else:
            return
        before = frame.f_back
        while before and not before.f_code.co_filename.startswith(PACKAGE):
            before = before.f_back
        if before is None or room(before.f_code.co_filename) == room(code.co_filename):
            return
        for value in given:
            if carries(value):
                place = os.path.relpath(code.co_filename, PACKAGE)
                self.forms.setdefault(self._form(value), place)

    def _form(self, value):
        if type(value) in (list, tuple, set) and value:
            # A row of them is the same form.
            return self._form(next(each for each in value if carries(each)))
        return type(value).__name__


class Receiver(RecordingServer):
    """Takes everything but what no receiver takes."""

    def answer(self, received):
        return Answer(400 if b"\xff" * 9 in received.body else 200)


def main(what):
    """Do the run, and print the count and what was counted."""
    sinks = {
        "registries": ("PUSHGATEWAY_URL", "REMOTE_WRITE_URL", "TEXTFILE_PATH"),
        "gateway": ("PUSHGATEWAY_URL",),
        "remote-write": ("REMOTE_WRITE_URL",),
    }[what]
    with ExitStack() as stack:
        serials = SERIALS if what == "registries" else SERIALS[:1]
        devices = [
            SimulatedDevice(sn, {"pd.odd": MARK}, "x", "DELTA 2") for sn in serials
        ]
        cloud = stack.enter_context(SimulatedCloud(devices))
        server = stack.enter_context(Receiver())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        places = {
            "PUSHGATEWAY_URL": server.url,
            "REMOTE_WRITE_URL": f"{server.url}/api/v1/write",
            "TEXTFILE_PATH": os.path.join(folder, "out.prom"),
        }
        environ = {
            **cloud.environ(),
            **{name: places[name] for name in sinks},
            "STATE_DIR": os.path.join(folder, "state"),
            "METRICS_SET": "raw",
        }
        push.main([], environ)  # imports
        look = Look()
        threading.setprofile(look)
        sys.setprofile(look)
        try:
            status = push.main([], environ)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    if status:
        sys.exit(f"status {status}")
    if what == "registries":
        print(look.registries)
    else:
        print(len(look.forms), ", ".join(f"{k} ({v})" for k, v in look.forms.items()))


if __name__ == "__main__":
    main(sys.argv[1])
    sys.stdout.flush()
    os._exit(0)
