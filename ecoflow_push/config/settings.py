"""The settings: the environment, read once, all faults in one message.

What belongs to a source or a sink, its module reads; no one of them is named here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ecoflow_push.config.environ import Reader
from ecoflow_push.config.kinds import DEFAULT_API_HOST, Secret
from ecoflow_push.config.plugs import SINKS, SOURCES, load, spoken_of
from ecoflow_push.errors import Fault

if TYPE_CHECKING:
    from ecoflow_push.config.accounts import Accounts

NO_MEMORY_CURE = "let it name a folder that lasts, or use developer keys alone"
KEPT_CURE = "let it name the folder that the job keeps"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class Settings:
    """Everything the environment decides, checked; durations are seconds."""

    #: What each source that is to be read says of itself, in their order.
    sources: dict[str, Any]
    #: The same of each sink, in the order in which they deliver.
    sinks: dict[str, Any]
    #: Whose data it is: names the memory, together with the host and the job.
    account: str
    #: All accounts of a folder, None where there is the one of `sources`.
    accounts: Accounts | None = None
    #: The account is one of a folder.
    is_one_of_many = False
    api_url: str
    api_ca_file: str | None
    device_sns: tuple[str, ...]
    device_names: dict[str, str]
    attempts: int
    longest_wait: float
    interval: float
    #: One process for many runs.
    stays: bool
    #: The interval is longer than what was asked for.
    is_interval_raised: bool
    healthcheck_url: Secret | None
    run_deadline: float
    stale_after: float
    job: str
    instance: str
    prefix: str
    #: raw, normalized or both.
    metrics_set: tuple[str, ...]
    metrics_naming: str
    extra_labels: dict[str, str]
    #: None where nothing is to be remembered.
    state_dir: str | None
    log_level: str
    log_format: str
    proxies: dict[str, str]
    #: What is no fault, and yet not as it should be.
    notes: tuple[Fault, ...]
    #: Who read all this, and knows how it was said.
    reader: Reader

    @classmethod
    def from_environ(
        cls,
        environ: Mapping[str, str],
        *,
        needs_sink: bool = True,
        every: float | None = None,
    ) -> Settings:
        """Return the settings that `environ` describes.

        `every` is what --every says: seconds, 0 for COLLECTING_INTERVAL, None where
        there is but one run. What they hold of secrets is masked from now on.

        Raises SettingsError that names every fault, or its subclass
        CredentialsConflictError when the credentials of two sources compete.
        """
        read = Reader(environ)
        self = cls()
        self.stays = every is not None
        found = self._read_sources(read, environ)
        self._read_ecoflow(read)
        self._read_run(read, every)
        self._read_names(read)
        self.sinks = self._read_sinks(read, environ)
        self.proxies = read.proxies()
        asked = (variable for variables in SINKS.values() for variable in variables)
        # One that is set and faulty has its fault already.
        if needs_sink and not self.has_sink and not read.is_faulty(*asked):
            read.fault("", "no sink", how_to_set_a_sink())
        read.look_around()
        read.raise_faults()
        self.notes = tuple(read.notes)
        self.reader = read
        # Chosen or not: whoever chooses another source keeps the memory.
        self.account = next((each.account for each in found.values() if each), "")
        return self

    @classmethod
    def of_sink(cls, environ: Mapping[str, str], name: str) -> Settings:
        """Return what delivering what waits for one sink needs of the settings.

        No account is looked at, and no other sink. `name` is that of SINKS.

        Raises SettingsError that names every fault.
        """
        read = Reader(environ)
        self = cls()
        self.stays, self.sources, self.account = False, {}, ""
        self._read_run(read, None)
        self._read_names(read)
        config = load("sinks", name).read(read)
        self.sinks = {name: config}
        self.proxies = read.proxies()
        variable = SINKS[name][0]
        if not config and not read.is_faulty(variable):
            read.fault(variable, "missing", "it says where to deliver what waits")
        if self.state_dir is None:
            read.fault("STATE_DIR", "none, where nothing can wait", KEPT_CURE)
        elif not (read.is_faulty("STATE_DIR") or os.path.isdir(self.state_dir)):
            read.fault("STATE_DIR", f"no folder {self.state_dir}", KEPT_CURE)
        read.look_around()
        read.raise_faults()
        self.notes = tuple(read.notes)
        self.reader = read
        return self

    @property
    def has_sink(self) -> bool:
        """Whether what is collected goes anywhere but to the screen."""
        return bool(self.sinks)

    def _read_sources(self, read: Reader, environ: Mapping[str, str]) -> dict[str, Any]:
        """Find out what is to be read: all accounts of a folder, or one account."""
        self.sources = {}
        at_once = read.count("ACCOUNTS_AT_ONCE", 8, 1, 64) or 8
        folder = read.path("ECOFLOW_ACCOUNTS")
        if folder or read.is_faulty("ECOFLOW_ACCOUNTS"):
            from ecoflow_push.config.accounts import read_accounts

            if folder:
                self.accounts = read_accounts(read, folder, environ, at_once)
            return {}
        for name in ("SHARD_COUNT", "SHARD_INDEX"):
            if read.text(name):
                cure = "what is shared out are the accounts of a folder"
                read.fault(name, "set, and no ECOFLOW_ACCOUNTS", cure)
        found = {
            name: load("api", name).read(read) for name in spoken_of(SOURCES, environ)
        }
        chosen = _chosen(read)
        self.sources = {name: found[name] for name in chosen if found.get(name)}
        return found

    def _least_interval(self) -> float:
        names = list(self.sources)
        if self.accounts:
            names = [name for name in SOURCES if self.accounts.speak_of(name)]
        least = [load("api", name).LEAST_INTERVAL for name in names]
        return float(max(least, default=0.0))

    def _read_ecoflow(self, read: Reader) -> None:
        self.api_url = read.api_url("ECOFLOW_API_HOST", DEFAULT_API_HOST)
        self.api_ca_file = read.existing_file("ECOFLOW_CA_FILE")
        self.device_sns = read.serials("ECOFLOW_DEVICE_SN")
        self.device_names = read.names("ECOFLOW_DEVICE_NAME", self.device_sns)

    def _read_run(self, read: Reader, every: float | None) -> None:
        self.attempts = read.count("ESTABLISH_ATTEMPTS", 5, 1, 100) or 5
        self.longest_wait = read.seconds("RETRY_TIMEOUT", 30, 0)
        asked = read.seconds("COLLECTING_INTERVAL", 10, 1)
        asked = every or asked
        self.interval = max(asked, self._least_interval())
        self.is_interval_raised = self.interval > asked
        # Some time before the next beat, or a run that hangs would cost that one too.
        spare = max(0.5, self.interval / 10)
        deadline = min(50.0, self.interval - spare) if self.stays else 50.0
        self.run_deadline = read.seconds("RUN_DEADLINE", deadline, 1)
        self.healthcheck_url = read.whole_url("HEALTHCHECK_URL")
        self.stale_after = read.seconds("STALE_AFTER", 300, 0)
        self.state_dir = read.state_dir("STATE_DIR")
        needs = [why for each in self.sources.values() if (why := each.needs_memory)]
        if needs and self.state_dir is None:
            read.fault("STATE_DIR", f"none, and {needs[0]}", NO_MEMORY_CURE)
        self.log_level = read.choice("LOG_LEVEL", LOG_LEVELS, warn="WARNING") or "INFO"
        self.log_format = read.choice("LOG_FORMAT", ("text", "json")) or "text"

    def _read_names(self, read: Reader) -> None:
        self.job = read.text("PUSH_JOB") or "ecoflow"
        self.instance = read.text("PUSH_INSTANCE") or read.instance(self.job)
        self.prefix = read.prefix("METRICS_PREFIX", "ecoflow")
        self.metrics_set = read.choices("METRICS_SET", ("raw", "normalized"))
        namings = ("ecoflow", "berezhinskiy")
        self.metrics_naming = read.choice("METRICS_NAMING", namings) or namings[0]
        self.extra_labels = read.labels("EXTRA_LABELS")
        if self.accounts:
            self.accounts.reserve_labels(read, self.extra_labels)

    def _read_sinks(self, read: Reader, environ: Mapping[str, str]) -> dict[str, Any]:
        found = {}
        for name in spoken_of(SINKS, environ):
            module = load("sinks", name)
            config = module.read(read)
            # One run is over before anybody could look at what stays.
            if config and (self.stays or not _stays(module)):
                found[name] = config
        return found


def _chosen(read: Reader) -> tuple[str, ...]:
    """Return which sources are to be read, in their order."""
    asked_for = tuple(
        name for name, keys in SOURCES.items() if all(map(read.wants, keys))
    )
    ways = (*SOURCES, "auto")
    source = read.choice("ECOFLOW_SOURCE", ways)
    if not source:
        if not asked_for and not any(read.wants(*keys) for keys in SOURCES.values()):
            first = " and ".join(next(iter(SOURCES.values())))
            read.fault("", "no credentials", f"set {first}")
        elif len(asked_for) > 1 and not read.is_faulty("ECOFLOW_SOURCE"):
            names = [each for name in asked_for for each in SOURCES[name]]
            read.conflict(
                f"{_listed(names, 'and')} are set",
                "leave one of them, with what belongs to it, or set ECOFLOW_SOURCE to"
                f" {_listed(ways, 'or')}",
            )
        return asked_for
    if source == "auto":
        # Of one alone there is nothing to be filled up.
        chosen = asked_for
        others = [name for name in SOURCES if name not in asked_for]
        needed = others[: max(0, 2 - len(asked_for))]
    else:
        chosen, needed = (source,), [source]
    for name in needed:
        # Of a pair that lacks one, its source has said so.
        if not read.wants(*SOURCES[name]):
            needs = f"{source} needs {' and '.join(SOURCES[name])}"
            read.fault("ECOFLOW_SOURCE", needs, "set them, or choose another")
    return chosen


def how_to_set_a_sink() -> str:
    """Return what to do for a sink; `--every` first makes one of some."""
    ways: dict[bool, list[str]] = {False: [], True: []}
    for name, variables in SINKS.items():
        ways[_stays(load("sinks", name))].append(variables[0])
    stays = _listed(ways[True], "or")
    also = f" (with --every, {stays} also is one)" if stays else ""
    return f"set {_listed(ways[False], 'or')}{also}, or use --dry-run"


def _listed(names: Sequence[str], word: str) -> str:
    return f" {word} ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _stays(module: Any) -> bool:
    """Return whether a sink lives from run to run, and only there."""
    return bool(getattr(module, "STAYS", False))
