"""The command line: a few switches; everything else is a setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ecoflow_push import DOCS, __version__
from ecoflow_push.config.kinds import duration, is_serial
from ecoflow_push.errors import ExitStatus

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    import argparse
    from typing import Any

# Of what has a value, or does not go with all others, what --help does not say.
WANTED = {
    "--env-file": "it takes a file; ",
    "--every": (
        "it takes 1 or more seconds, or 90s, 1m, 1h, and does not go with --dry-run "
        "or --list-devices; "
    ),
    "--init": "it goes with one --env-file and nothing else; ",
    "--device": "it takes a serial number; ",
    "--drain": "it goes with --env-file and nothing else; ",
}


class Options:
    """What the arguments say; cron gives none."""

    def __init__(self) -> None:
        self.demo = False
        self.dry_run = False
        self.list_devices = False
        self.check = False
        self.init = False
        self.drain = False
        #: Seconds, 0 for the interval of the settings, None for a single run.
        self.every: float | None = None
        self.devices: list[str] = []
        #: Files with settings, later ones stronger.
        self.env_files: list[str] = []

    def whole(self, environ: Mapping[str, str]) -> Mapping[str, str]:
        """Return the environment, laid over the files of settings if there are any.

        Raises SettingsError for a file that cannot be read or has a malformed line.
        """
        if not self.env_files:
            return environ
        from ecoflow_push.config.env_file import over_files

        return over_files(self.env_files, environ)

    @property
    def looks(self) -> bool:
        """Whether it only prints, and needs nowhere to push to."""
        return self.dry_run or self.list_devices or self.check

    @property
    def asks(self) -> bool:
        """Whether it asks for the settings, and nothing else is wanted of it."""
        is_alone = not (self.runs or self.drain)
        return self.init and is_alone and len(self.env_files) <= 1

    @property
    def runs(self) -> bool:
        """Whether anything is said that is of a run, or of one that only looks."""
        others = (self.looks, self.demo, self.every is not None, self.devices)
        return any(others)


def create_parser() -> tuple[argparse.ArgumentParser, list[str]]:
    """Return what reads the options and explains them, and their names."""
    import argparse

    from ecoflow_push.config.env_file import OPTION

    parser = argparse.ArgumentParser(
        prog="ecoflow-push",
        description="Take one snapshot of EcoFlow devices and push it to Prometheus.",
        epilog=f"Settings are environment variables:\nsee {DOCS}/settings.md",
        # Or an address would be broken in two.
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        exit_on_error=False,
    )
    known = []

    def switch(name: str, **words: Any) -> None:
        known.append(name)
        parser.add_argument(name, **words)

    switch(
        OPTION,
        action="append",
        dest="env_files",
        metavar="FILE",
        default=[],
        help="read settings from FILE, under those of the environment; repeatable",
    )
    switch(
        "--every",
        nargs="?",
        type=_interval,
        const=0.0,
        metavar="SECONDS",
        help="stay, and do so every SECONDS, or 1m, 1h (default: COLLECTING_INTERVAL)",
    )
    switch("--dry-run", action="store_true", help="print what would be pushed")
    switch("--demo", action="store_true", help="read a simulated cloud")
    switch(
        "--list-devices",
        action="store_true",
        help="print the account's devices, and what they say now",
    )
    switch("--check", action="store_true", help="say what is wrong, and what to do")
    switch("--init", action="store_true", help="ask for the settings, and write a file")
    switch(
        "--drain",
        action="store_true",
        help="deliver what waits for remote-write, of all accounts; collect nothing",
    )
    switch(
        "--device",
        action="append",
        dest="devices",
        metavar="SN",
        default=[],
        help="only this device, in this run; repeatable",
    )
    switch("--version", action="version", version=f"ecoflow-push {__version__}")
    return parser, known


def parse_args(argv: Sequence[str]) -> Options:
    """Return the options.

    A wrong one ends the process with 64; its value, perhaps a secret, is not echoed.
    """
    options = Options()
    if not argv:
        return options
    from ecoflow_push.config.env_file import files_alone

    options.env_files = files_alone(argv)
    if options.env_files:
        return options
    # Not at the top: the run that cron starts every minute does without.
    import argparse

    parser, known = create_parser()
    try:
        _, unknown = parser.parse_known_args(argv, options)
    except argparse.ArgumentError as exc:
        unknown = [exc.argument_name or ""]
    wrong = [argument.partition("=")[0] for argument in unknown]
    wrong += ["--device" for sn in options.devices if not is_serial(sn)]
    shows = options.dry_run or options.list_devices
    wrong += ["--every"] if options.every is not None and shows else []
    wrong += ["--init"] if options.init and not options.asks else []
    wrong += ["--drain"] if options.drain and options.runs else []
    if wrong:
        name = wrong[0] if _is_option(wrong[0]) else "an argument"
        near = _nearest(wrong[0], known)
        hint = f"did you mean {near}? See" if near else f"{WANTED.get(name, '')}see"
        text = f"ecoflow-push: {name} is wrong; {hint} --help\n"
        parser.exit(ExitStatus.USAGE, text)
    return options


def _is_option(text: str) -> bool:
    """Return whether it can be shown: an option may be called so, a secret is not."""
    name = text.removeprefix("--")
    letters = name.replace("-", "").replace("_", "")
    return name != text and letters.isalpha() and letters.islower()


def _interval(text: str) -> float:
    """Return seconds, 1 to 1e6; raises ValueError."""
    seconds = duration(text)
    if not 1 <= seconds <= 1e6:
        raise ValueError
    return seconds


def _nearest(wrong: str, known: Sequence[str]) -> str:
    """Return the option that somebody may have meant, "" if none is like it."""
    if wrong in known:
        return ""
    from difflib import get_close_matches

    return next(iter(get_close_matches(wrong, known, 1)), "")
