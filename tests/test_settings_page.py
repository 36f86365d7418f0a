"""The page of the settings against what is declared, and against what is read."""

from __future__ import annotations

import re

import pytest

from ecoflow_push.config import variables
from ecoflow_push.config.environ import Reader
from ecoflow_push.config.kinds import ENGINES, Secret, Variable
from ecoflow_push.config.settings import Settings
from ecoflow_push.errors import SettingsError
from tests.plugs import EVERY_SINK, EVERY_SOURCE
from tests.settings_page import PAGE, made, row, tables
from tests.test_settings import BASE

DECLARED = [variable for table in tables().values() for variable in table]
OWN = [each for each in DECLARED if each not in variables.SURROUNDINGS]
# Every source and every sink is asked for.
ALL = {
    **BASE,
    **EVERY_SOURCE,
    "ECOFLOW_SOURCE": "auto",
    **EVERY_SINK,
}


class Asked(dict[str, str]):
    """An environment that remembers what was looked for in it."""

    def __init__(self, environ: dict[str, str]) -> None:
        super().__init__(environ)
        self.names: set[str] = set()

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
        self.names.add(name)
        return super().get(name, default)


def plain(value: object) -> object:
    """Return what a setting amounts to, so that it can be compared."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(map(plain, value))
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Reader):
        return None
    names = getattr(value, "__slots__", None) or vars(value)
    return {name: plain(getattr(value, name)) for name in names}


def test_the_page_is_what_is_declared():
    """docs/settings.md is what `python -m tests.settings_page` makes of it."""
    page = PAGE.read_text()

    remade = made(page, tables())
    assert remade == page, "make it anew: python -m tests.settings_page"


def test_every_setting_is_declared_and_documented_once():
    """Each variable is declared by one owner, and has one row on the page."""
    names = [variable.name for variable in DECLARED]
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)

    assert len(set(names)) == len(names)
    assert sorted(rows) == sorted(names)


def test_what_is_declared_is_what_is_read(tmp_path):
    """The settings look for every variable that is declared, and for no other."""
    accounts = {name: text for name, text in ALL.items() if name not in EVERY_SOURCE}
    (tmp_path / "home.env").write_text("ECOFLOW_ACCESS_KEY=a-key\n")
    fleet = {**accounts, "ECOFLOW_ACCOUNTS": str(tmp_path), "SHARD_COUNT": "1"}
    asked = [Asked(ALL), *(Asked({**fleet, index: "0"}) for index, _ in ENGINES)]
    names = set()
    for environ in asked:
        Settings.from_environ(environ, every=0.0)
        names |= environ.names
    files = {f"{name}_FILE" for name in names}

    read = {name for name in names - files if name.isupper()}
    assert read == {variable.name for variable in DECLARED}


def test_the_documented_defaults_are_the_real_ones():
    """Setting a variable to its documented default changes nothing."""
    checked = 0
    for variable in OWN:
        if not re.fullmatch(r"[\w.,-]+", variable.default, re.ASCII):
            continue
        for base, every in ((BASE, None), (ALL, 0.0)):
            unset = plain(Settings.from_environ(base, every=every))
            given = {**base, variable.name: variable.default}
            changed = plain(Settings.from_environ(given, every=every))
            assert changed == unset, variable.name
        checked += 1
    assert checked >= 17


@pytest.mark.parametrize("variable", OWN, ids=lambda variable: variable.name)
def test_a_path_has_no_file_form_and_all_else_has(variable, tmp_path):
    """A variable marked as a path is not read from X_FILE; every other one is."""
    value = tmp_path / "value"
    value.write_text("\n")
    environ = {name: text for name, text in ALL.items() if name != variable.name}
    environ[f"{variable.name}_FILE"] = str(value)
    faults = []
    try:
        Settings.from_environ(environ, needs_sink=False)
    except SettingsError as exc:
        faults = [(fault.variable, fault.text) for fault in exc.faults]

    said = (f"{variable.name}_FILE", "the file is empty")
    assert (said in faults) != variable.is_path


def test_a_row():
    """A default of one word is shown as a value, words as words, a path as one."""
    assert row(Variable("X", "its words", "60")) == "| `X` | `60` | its words |"
    assert row(Variable("X", "w", "as is")) == "| `X` | as is | w |"
    assert row(Variable("X", "w", is_path=True)).endswith(" | w, *path* |")
    for variable in DECLARED:
        assert "*path*" not in variable.words, variable.name
        assert "|" not in variable.words + variable.default, variable.name
