"""The draft: the settings as they will stand in the file, and their faults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ecoflow_push import DOCS
from ecoflow_push.config import variables
from ecoflow_push.config.environ import Reader
from ecoflow_push.config.plugs import SINKS, SOURCES, load
from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import Fault, SettingsError

# What a job of cron has of its own, and what is known of a pod alone.
THEIRS = ("HOME", "KUBERNETES_SERVICE_HOST")
HEAD = f"# Written by ecoflow-push --init; what else it may hold: {DOCS}/settings.md"


class Draft(dict[str, str]):
    """Variables by their names; one has a value or the _FILE form, never both."""

    def __init__(self, home: str) -> None:
        """Begin with nothing; `home` is the home folder."""
        super().__init__()
        self._home = home

    def take(self, environ: Mapping[str, str]) -> list[Fault]:
        """Take over what of an environment is a setting; return what is faulty.

        That is left out.
        """
        for name in names():
            if value := environ.get(name, "").strip():
                self[name] = value
        return [fault for fault in self.faults() if self._leave_out(fault)]

    def put(self, name: str, value: str) -> None:
        """Set a variable; "" takes it away."""
        self.drop([name])
        if value:
            self[name] = value

    def drop(self, gone: Iterable[str]) -> None:
        """Take variables away, in either form."""
        for name in gone:
            self.pop(name, None)
            self.pop(f"{name}_FILE", None)

    def said(self, name: str) -> str:
        """Return the variable as it stands, its file if it is given so, "" if unset."""
        return self.get(name) or self.get(f"{name}_FILE", "")

    def move(self, name: str, place: str) -> None:
        """Let a variable be read from the file `place`, which is to hold it."""
        self.drop([name])
        self[f"{name}_FILE"] = place

    def path(self, name: str) -> str:
        """Return a path as it is meant, "" if there is none."""
        return Reader({**self, "HOME": self._home}).path(name) or ""

    def twin(self) -> Draft:
        """Return a copy."""
        other = Draft(self._home)
        other.update(self)
        return other

    def become(self, other: Draft) -> None:
        """Say what another one says."""
        said = dict(other)
        self.clear()
        self.update(said)

    def without(self, plugs: Iterable[str], room: str) -> Draft:
        """Return a copy that says nothing of some plugs; `room` is api or sinks."""
        other = self.twin()
        for plug in plugs:
            other.drop(each.name for each in load(room, plug).VARIABLES)
        return other

    def settings(self) -> Settings:
        """Return what a job of cron makes of it; raises SettingsError."""
        # Somebody waits: of what does not answer two tries tell enough.
        environ = {**self, "HOME": self._home, "ESTABLISH_ATTEMPTS": "2"}
        environ.pop("ESTABLISH_ATTEMPTS_FILE", None)
        return Settings.from_environ(environ, needs_sink=False)

    def faults(self, *of: str) -> list[Fault]:
        """Return what is wrong, with some variables or with any."""
        environ = {**self, "HOME": self._home}
        try:
            Settings.from_environ(environ, needs_sink=False)
        except SettingsError as exc:
            wanted = {form for name in of for form in (name, f"{name}_FILE")}
            return [
                fault
                for fault in exc.faults
                if not of or not wanted.isdisjoint(_named(fault))
            ]
        return []

    def text(self) -> str:
        """Return the file's content, which `--env-file` reads as it is here."""
        lines = [HEAD]
        for name in filter(self.get, names()):
            value = self[name]
            # One pair of quotes is taken off.
            quote = ("'" if value[0] == '"' else '"') if value[0] in "\"'" else ""
            lines.append(f"{name}={quote}{value}{quote}")
        return "\n".join([*lines, ""])

    def _leave_out(self, fault: Fault) -> bool:
        """Return whether the fault is one of what is here, which then goes."""
        found = [name for name in _named(fault) if name in self]
        for name in found:
            del self[name]
        return bool(found)


def names() -> list[str]:
    """Return every variable that the file may hold, in the order that it has."""
    plugs = {
        room: [each for plug in table for each in load(room, plug).VARIABLES]
        for room, table in (("api", SOURCES), ("sinks", SINKS))
    }
    declared = [*plugs["api"], *variables.ECOFLOW, *plugs["sinks"]]
    declared += [*variables.RUN, *variables.NAMES]
    found = []
    for each in declared:
        found += [each.name] if each.is_path else [each.name, f"{each.name}_FILE"]
    for each in variables.SURROUNDINGS:
        if each.name not in THEIRS:
            found += [each.name, each.name.lower()]
    return found


def _named(fault: Fault) -> list[str]:
    return fault.variable.split(" and ")
