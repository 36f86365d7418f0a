"""The most memory that a run holds, by how many devices it reads and where it writes.

    python -m benchmarks.memory [SIZE ...]

The peak is the kernel's, of the ended process; a row of 10,000 devices takes a minute
or more. `make bench` has the one that is a goal.
"""

import argparse
import os
import sys
import tempfile

from benchmarks.count import WAYS
from benchmarks.process import IMPORTS, PUSH, Command, Servers, start
from benchmarks.wide import PATIENT

SIZES = (1, 100, 1000, 10000)


def main() -> int:
    """Print a row for each size, a column for each way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, metavar="SIZE")
    sizes = parser.parse_args().sizes
    with tempfile.TemporaryDirectory(prefix="ecoflow-push-memory-") as folder:
        servers = Servers(folder)
        try:
            floor = start(Command(IMPORTS, servers.environ()), os.devnull)
            print(f"three imports: {floor.peak / 2**20:.1f} MiB; a run: MiB, CPU s")
            print(f"{'devices':>8}" + "".join(f"{way:>24}" for way in WAYS))
            for size in sizes:
                print(f"{size:8}", end="", flush=True)
                for sink in WAYS.values():
                    cloud = f"http {size}"
                    run = Command(PUSH, servers.environ(cloud, sink) | PATIENT)
                    cost = start(run, os.devnull)
                    servers.ask(cloud)  # which frees what the recorder holds
                    text = f"{cost.peak / 2**20:.1f}, {cost.cpu:.2f}"
                    print(f"{text:>24}", end="", flush=True)
                print()
        finally:
            servers.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
