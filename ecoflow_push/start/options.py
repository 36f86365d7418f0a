"""The command line: a few switches; everything else is a setting."""

from __future__ import annotations

from collections.abc import Sequence

from ecoflow_push import __version__
from ecoflow_push.config.kinds import is_serial
from ecoflow_push.errors import ExitStatus


class Options:
    """What the arguments say; cron gives none."""

    def __init__(self) -> None:
        self.demo = False
        self.dry_run = False
        self.list_devices = False
        self.check = False
        #: Seconds, 0 for the interval of the settings, None for a single run.
        self.every: float | None = None
        self.devices: list[str] = []

    @property
    def looks(self) -> bool:
        """Whether it only prints, and needs nowhere to push to."""
        return self.dry_run or self.list_devices or self.check


def parse_args(argv: Sequence[str]) -> Options:
    """Return the options.

    A wrong one ends the process with 64; its value, perhaps a secret, is not echoed.
    """
    options = Options()
    if not argv:
        return options
    # Not at the top: the run that cron starts every minute does without.
    import argparse

    parser = argparse.ArgumentParser(
        prog="ecoflow-push",
        description="Take one snapshot of EcoFlow devices and push it to Prometheus.",
        epilog="Settings are environment variables: see docs/settings.md.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    switch = parser.add_argument
    switch(
        "--every",
        nargs="?",
        type=_interval,
        const=0.0,
        metavar="SECONDS",
        help="stay, and do so every SECONDS (default: COLLECTING_INTERVAL)",
    )
    switch("--dry-run", action="store_true", help="print what would be pushed")
    switch("--demo", action="store_true", help="read a simulated cloud")
    switch("--list-devices", action="store_true", help="print the account's devices")
    switch("--check", action="store_true", help="say what is wrong, and what to do")
    switch("--device", action="append", dest="devices", metavar="SN", default=[])
    switch("--version", action="version", version=__version__)
    try:
        _, unknown = parser.parse_known_args(argv, options)
    except argparse.ArgumentError as exc:
        unknown = [exc.argument_name or ""]
    wrong = [argument.partition("=")[0] for argument in unknown]
    wrong += ["--device" for sn in options.devices if not is_serial(sn)]
    wrong += ["--every"] if options.every is not None and options.looks else []
    if wrong:
        name = wrong[0] if wrong[0].startswith("--") else "an argument"
        parser.exit(ExitStatus.USAGE, f"ecoflow-push: {name} is wrong; see --help\n")
    return options


def _interval(text: str) -> float:
    """Return seconds, 1 to 1e6; raises ValueError."""
    seconds = float(text)
    if not 1 <= seconds <= 1e6:
        raise ValueError
    return seconds
