"""Accounts from a folder: a file of settings for each, read by who runs them all.

What is wrong with a file is its account's trouble alone.
"""

from __future__ import annotations

import os

from ecoflow_push.config.env_file import Environ, over_files
from ecoflow_push.config.environ import Reader
from ecoflow_push.config.kinds import DEFAULT_API_HOST, is_made_of
from ecoflow_push.config.plugs import SOURCES, load
from ecoflow_push.config.shards import read_shard
from ecoflow_push.config.variables import ECOFLOW, SURROUNDINGS
from ecoflow_push.errors import Fault, SettingsError

TYPE_CHECKING = False  # typing's would import typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ecoflow_push.config.shards import Shard

SUFFIX = ".env"
LONGEST_NAME = 63
#: The label that says whose device it is.
LABEL = "account"
#: The label of the run's own series that says which part of the accounts it worked.
SHARD_LABEL = "shard"
NOT_FOR_ALL = ("ECOFLOW_DEVICE_SN",)
#: What one account is not to see.
FOR_MANY = (
    *("ECOFLOW_ACCOUNTS", "ACCOUNTS_AT_ONCE", "SHARD_COUNT", "SHARD_INDEX"),
    "HEALTHCHECK_URL",
)
MARKS = "-_."
#: What a file may set, beside what a source declares for itself.
FOR_ONE = frozenset(
    (
        *({each.name for each in ECOFLOW} - {*FOR_MANY}),
        *(key for keys in SOURCES.values() for key in keys),
        "EXTRA_LABELS",
    )
)
# More would not be read.
MOST_TOLD = 8


class Account:
    """One file: whose it is, and what it says over what is said for all.

    `identity` are API host and access key or user, None where the file does not say
    it; `credentials` are all of both that it can be read with. `faults` is what is
    wrong with the file, None if nothing is at first sight.
    """

    __slots__ = ("credentials", "environ", "exposed", "faults", "identity", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.environ: Environ = Environ()
        #: The file, if it holds a secret that others than its owner can read.
        self.exposed = ""
        self.identity: tuple[str, str] | None = None
        self.credentials: list[str] = []
        self.faults: SettingsError | None = None

    @property
    def label(self) -> str:
        """Its name as it can be printed."""
        text = self.name[:LONGEST_NAME]
        return "".join(c if c.isprintable() else "?" for c in text)

    def refuse(self, text: str, cure: str = "") -> None:
        """Note what is wrong, if nothing is known yet."""
        self.faults = self.faults or SettingsError([Fault("", text, cure)])


class Accounts:
    """All accounts of a folder, and which of them are ours."""

    def __init__(
        self,
        folder: str,
        found: Sequence[Account],
        aside: Iterable[str],
        shard: Shard | None,
        at_once: int,
    ) -> None:
        """Store what was found; `at_once` are worked at the same time.

        `aside` are the names of what else is there.
        """
        named = {
            os.path.basename(value)
            for each in found
            for variable, value in each.environ.items()
            if variable.endswith("_FILE")
        }
        self.folder = folder
        #: What no account's file names, and may have been meant as one.
        self.aside = sorted({*aside} - named)
        self.shard = shard
        self.at_once = at_once
        self.ours = [each for each in found if _is_ours(each, shard)]

    def reserve_labels(self, read: Reader, labels: Mapping[str, str]) -> None:
        """Note a fault where a label is set that is our own here."""
        own = (LABEL, SHARD_LABEL) if self.shard else (LABEL,)
        for label in own:
            if label in labels:
                text = f"the label {label} is used by the program itself"
                read.fault("EXTRA_LABELS", text)

    def speak_of(self, source: str) -> bool:
        """Return whether any of ours is read by this source."""
        keys = SOURCES[source]
        return any(
            each.environ.get(key) or each.environ.get(f"{key}_FILE")
            for each in self.ours
            for key in keys
        )


def read_accounts(
    read: Reader, folder: str, environ: Mapping[str, str], at_once: int
) -> Accounts | None:
    """Return the accounts of `folder`, each over what `environ` says for all.

    `at_once` are worked at the same time.
    None, and a fault, where it has none or all are broken.
    """
    keys = (key for keys in SOURCES.values() for key in keys)
    for name in (*keys, *NOT_FOR_ALL):
        if read.wants(name):
            text = "set, and so is ECOFLOW_ACCOUNTS"
            read.fault(name, text, "it belongs into the file of its account")
    shard = read_shard(read)
    try:
        listed = {name for name in os.listdir(folder) if not name.startswith(".")}
    except OSError as exc:
        read.fault("ECOFLOW_ACCOUNTS", f"cannot be read ({exc.strerror})")
        return None
    names = sorted(name for name in listed if name.endswith(SUFFIX))
    if not names:
        cure = "put a file NAME.env into it for each account"
        read.fault("ECOFLOW_ACCOUNTS", "no account in it", cure)
        return None
    common = _said_for_all(environ)
    found = [_account(folder, name, common) for name in names]
    _refuse_doubles(found)
    if all(each.faults for each in found):
        _tell_all(read, found)
        return None
    if exposed := [each.exposed for each in found if each.exposed]:
        from ecoflow_push.config.exposed import note_on

        note = note_on(exposed[0], f"{folder}/*{SUFFIX}", len(exposed) - 1)
        read.notes.append(Fault("", *note))
    return Accounts(folder, found, listed.difference(names), shard, at_once)


def _said_for_all(environ: Mapping[str, str]) -> Environ:
    """Return what all accounts see of the environment: of thousands, laid once."""
    common = Environ()
    common.lay(environ)
    common.origins |= getattr(environ, "origins", {})
    for variable in FOR_MANY:
        common.pop(variable, None)
        common.pop(f"{variable}_FILE", None)
    return common


def _account(folder: str, name: str, common: Environ) -> Account:
    account = Account(name.removesuffix(SUFFIX))
    path = os.path.join(folder, name)
    try:
        own = over_files([path], {})
    except SettingsError as exc:
        text = exc.faults[0].text.replace(path, name)
        account.refuse(text, exc.faults[0].cure)
        return account
    if not (is_made_of(account.name, MARKS) and len(account.name) <= LONGEST_NAME):
        cure = f"ASCII letters, digits, - _ and . alone, at most {LONGEST_NAME}"
        account.refuse("no name for an account", cure)
    for variable in own:
        if not _is_for_one(variable):
            account.refuse(*_why_not(variable, own.origins[variable]))
    for variable, value in own.items():
        if variable.endswith("_FILE") and not value.startswith(("/", "~/", "$HOME/")):
            own[variable] = os.path.join(folder, value)
    whole = account.environ
    whole.update(common)
    whole.origins |= common.origins
    whole.lay(own)
    whole.origins |= own.origins
    account.exposed = next(iter(own.exposed.values()), "")
    _identify(account)
    return account


def _shown(variable: str, origin: str) -> str:
    """Return a variable's name, or its line: a pasted key may end with =, too."""
    from ecoflow_push.config.slips import SETTINGS, meant_by

    known = (*SETTINGS, *(each.name for each in SURROUNDINGS))
    if variable.removesuffix("_FILE") in known or meant_by(variable):
        return variable
    return f"what line {origin.rpartition(':')[2]} sets"


def _identify(account: Account) -> None:
    read = Reader(account.environ)
    url = read.api_url("ECOFLOW_API_HOST", DEFAULT_API_HOST)
    said = {keys: name for keys in SOURCES.values() if (name := read.text(keys[0]))}
    if url and said:
        account.identity = url, next(iter(said.values()))
    whole = [name for keys, name in said.items() if read.wants(keys[1])]
    # Half a pair opens nothing, and of two somebody must have said that they go.
    if len(whole) == 1 or read.wants("ECOFLOW_SOURCE"):
        account.credentials = whole


def _is_for_one(variable: str) -> bool:
    name = variable.removesuffix("_FILE")
    if not FOR_ONE.isdisjoint((variable, name)):
        return True
    sources = (each for each in SOURCES if name.startswith(f"{each.upper()}_"))
    return any(
        name == each.name
        for source in sources
        for each in load("api", source).VARIABLES
    )


def _why_not(variable: str, origin: str) -> tuple[str, str]:
    """Return what is wrong with a variable that no file may set, and what to do."""
    from ecoflow_push.config.strangers import notes

    for note in notes([variable], {variable: "x"}):
        return f"{variable}: {note.text}", note.cure
    cure = "set it for all accounts, outside of the folder"
    return f"{_shown(variable, origin)} is not for one account", cure


def _is_ours(account: Account, shard: Shard | None) -> bool:
    # Of what cannot be read, somebody must tell, and one is enough.
    return shard is None or shard.has(*(account.identity or (account.label,)))


def _refuse_doubles(found: Sequence[Account]) -> None:
    known: dict[str, Account] = {}
    for each in found:
        # One that is broken is nobody's double: it would cost a good one its turn.
        if each.faults:
            continue
        first = next((known[name] for name in each.credentials if name in known), None)
        if first:
            cure = "an account is one file; remove one of them"
            each.refuse(f"the same credentials as {first.label}", cure)
        else:
            known.update(dict.fromkeys(each.credentials, each))


def _tell_all(read: Reader, found: Sequence[Account]) -> None:
    for each in found[:MOST_TOLD]:
        fault = each.faults.faults[0] if each.faults else Fault("", "")
        read.fault("ECOFLOW_ACCOUNTS", f"{each.label}: {fault.text}", fault.cure)
    if (more := len(found) - MOST_TOLD) > 0:
        read.fault("ECOFLOW_ACCOUNTS", f"and {more} more are broken")
