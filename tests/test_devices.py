"""The tables of devices/: what they hold, and that a wrong line is told by place."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ecoflow_push.devices.families import family_named
from ecoflow_push.devices.messages import messages_of, tables
from ecoflow_push.devices.metrics import metrics
from ecoflow_push.devices.products import products
from ecoflow_push.devices.questions import questions
from ecoflow_push.devices.tables import FOLDER, TableError
from tests.conftest import DELTA
from tests.normalized_page import families
from tests.support import PUSH, ROOT, values

FILES = sorted(Path(FOLDER, "families").glob("*.tsv"))


def data_lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and line[0] != "#"]


# What they hold


def test_every_file_is_read_by_some_family():
    """Each file is a family that products.tsv speaks of, or a block of one."""
    named = {name.lower().replace(" ", "_") for name in products().families}
    used = set()
    for path in FILES:
        for line in data_lines(path):
            word, _, rest = line.partition("\t")
            if word in ("include", "packs"):
                used |= set(rest.rpartition("\t")[2].split(" "))

    assert {path.stem for path in FILES} == named | used
    assert len(families()) == len(named)
    assert all(name.startswith("_") for name in used)


def test_no_row_of_a_family_is_twice():
    """A family has each key of a metric once, apart for each kind of pack."""
    for family in families():
        for _, _, rows in (("", "", family.rows), *family.packs):
            assert rows
            assert len({(row.metric, row.keys) for row in rows}) == len(rows)


def test_no_open_key_has_a_row_for_what_is_open():
    """What internals/open.md lists is not answered by a row of the same family."""
    by_name = {family.name: family for family in families()}
    page = (ROOT / "docs" / "internals" / "open.md").read_text().splitlines()
    table = [line.strip("| ").split(" | ") for line in page if line.startswith("| ")]
    listed = 0
    for names, keys, wanted, _ in table[1:]:
        for name in names.split(", "):
            rows = by_name[name].rows if name in by_name else ()
            listed += len(rows)
            for row in rows:
                is_wanted = row.metric in wanted.split(", ")
                assert not (is_wanted and set(keys.split(", ")) & set(row.keys))
    assert listed


def test_names_tell_their_units():
    """A name ends in its unit as Prometheus wants it, a counter's in _total."""
    endings = {
        "ratio": "_ratio",
        "volts": "_volts",
        "amperes": "_amperes",
        "watts": "_watts",
        "celsius": "_celsius",
        "seconds": "_seconds",
        "1": "_cycles",
        "ampere hours": "_ampere_hours",
        "watt hours": "_watt_hours",
    }
    for name, metric in metrics().items():
        assert name.removesuffix("_total").endswith(endings[metric.unit])
        assert name.endswith("_total") == ("_energy_watt_hours_" in name)
        assert metric.low < metric.high
        assert metric.help.endswith(".")
        assert " From " in metric.help


@pytest.mark.parametrize(
    ("unit", "times", "over"),
    [("W", 1, 1), ("-W", -1, 1), ("0.1 W", 1, 10), ("-0.01 W", -1, 100)],
)
def test_a_unit_is_written_as_people_write_it(mine, unit, times, over):
    """A unit's sign and part of ten become what makes the base unit of it."""
    mine.append("products.tsv", "name\ttoaster\tToaster")
    mine.append("families/toaster.tsv", f"input_power_watts\tw\t{unit}\t-\tA\tseen")

    toaster = family_named("Toaster", mine.folder)

    assert toaster
    assert [(row.times, row.over) for row in toaster.rows] == [(times, over)]


# Wrong lines


class Tables:
    """A copy of the tables, to be spoilt."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.py"))
        self.folder = str(folder)

    def append(self, file: str, line: str) -> str:
        """Add a line at the end of a file, new or not, and return its place."""
        path = Path(self.folder, file)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(f"{text}{line}\n", encoding="utf-8")
        return f"{file}:{text.count(chr(10)) + 1}"

    def load(self) -> None:
        """Read everything."""
        metrics(self.folder)
        for name in products(self.folder).families:
            family_named(name, self.folder)
        for group in ("", *tables(self.folder)):
            messages_of(group, self.folder)
        questions(self.folder)


@pytest.fixture
def mine(tmp_path):
    return Tables(tmp_path / "devices")


ROW = "input_power_watts\tw\tW\t-\tA\tseen"
WRONG = [
    ("metrics.tsv", "a_watts\twatts\t0\t1", "4 cells where 5 belong"),
    ("metrics.tsv", "a_watts\twatts\tlow\t1\tA.", "'low' is no number"),
    (
        "metrics.tsv",
        "input_power_watts\twatts\t0\t1\tA.",
        "input_power_watts stands here twice",
    ),
    ("products.tsv", "serial\tZZ9\tToaster", "3 cells where 5 belong"),
    ("products.tsv", "serial", "1 cells where 5 belong"),
    ("products.tsv", "R33\tDELTA 2", "'R33' is neither serial, name nor key"),
    (
        "products.tsv",
        "serial\tR33\tDELTA 2\tDELTA 2\tJSON",
        "the serial 'R33' stands here twice",
    ),
    (
        "products.tsv",
        "serial\tR3311\tDELTA 2\tDELTA 2\tJSON",
        "'R3311' has not 2 to 4 characters",
    ),
    (
        "products.tsv",
        "serial\tZZ9\tToaster\tDELTA 2\t-",
        "a product needs its messages, and they it",
    ),
    ("products.tsv", "name\tdelta 2\tDELTA 2", "the name 'delta 2' stands here twice"),
    ("products.tsv", "name\tDelta 9\tDELTA 2", "'Delta 9' is not in small letters"),
    ("products.tsv", "name\tdelta 9\t-", "a name needs a family"),
    (
        "products.tsv",
        "key\tcmsBattSoc\tSTREAM",
        "the key 'cmsBattSoc' stands here twice",
    ),
    ("products.tsv", "key\tcrumbs\tToaster", "there is no families/toaster.tsv"),
    (
        "products.tsv",
        "serial\tZZ9\tToaster\tDELTA 2\tToaster",
        "'Toaster' is not in messages.tsv",
    ),
    ("messages.tsv", "Toaster\t1/1\ttoaster.Report", "3 cells where 8 belong"),
    (
        "messages.tsv",
        "Toaster\t1/1 1\ttoaster.Report\t-\t-\t-\t-\t-",
        "'1' is not cmd_func/cmd_id",
    ),
    (
        "messages.tsv",
        "Smart Plug\t2/1\t-\t-\t-\t-\t-\t-",
        "2/1 of Smart Plug stands here twice",
    ),
    ("questions.tsv", "ask\tSmart Plug", "2 cells where 3 belong"),
    ("questions.tsv", "ask\tToaster\t9/9", "'Toaster' is not in products.tsv"),
    ("questions.tsv", "ask\tSmart Plug\t9", "'9' is not cmd_func/cmd_id"),
    ("questions.tsv", "listen\tSmart Plug\t9/9", "3 cells where 4 belong"),
    ("questions.tsv", "listen\tSmart Plug\tlong\t9/9", "'long' is no number"),
    ("questions.tsv", "tell\tSmart Plug\t9/9", "'tell' is neither ask nor listen"),
    ("families/delta_2.tsv", ROW.removesuffix("\tseen"), "5 cells where 6 belong"),
    ("families/delta_2.tsv", ROW + "\tmore", "7 cells where 6 belong"),
    (
        "families/delta_2.tsv",
        ROW.replace("input_power", "crumb"),
        "'crumb_watts' is not in metrics.tsv",
    ),
    ("families/delta_2.tsv", ROW.replace("\tW", "\tkW"), "'kW' is no known unit"),
    ("families/delta_2.tsv", ROW.replace("\tW", "\tmV"), "mV is no unit of watts"),
    ("families/delta_2.tsv", ROW.replace("\t-", "\tnone"), "'none' is no number"),
    ("families/delta_2.tsv", ROW.replace("\tA", "\tD"), "'D' is not A, B or C"),
    (
        "families/delta_2.tsv",
        ROW.replace("\tw", "\t-"),
        "a row needs keys, one blank apart, and a source",
    ),
    (
        "families/delta_2.tsv",
        ROW.replace("\tw", "\tw  v"),
        "a row needs keys, one blank apart, and a source",
    ),
    (
        "families/delta_2.tsv",
        ROW.replace("seen", "-"),
        "a row needs keys, one blank apart, and a source",
    ),
    ("families/delta_2.tsv", "include\t_crumbs", "there is no families/_crumbs.tsv"),
    (
        "families/delta_2.tsv",
        "include\tdelta_pro",
        "'delta_pro' does not begin with _, as a block does",
    ),
    ("families/delta_2.tsv", "packs\tbms.\t_delta_2_slave", "3 cells where 4 belong"),
    (
        "families/delta_2.tsv",
        "packs\tbms.\t.\t_crumbs",
        "there is no families/_crumbs.tsv",
    ),
    ("families/delta_2.tsv", "firmware", "1 cells where 2 belong"),
    ("families/delta_2.tsv", "hours\tw.\t1=solar\tA", "4 cells where 5 belong"),
    *(
        (
            "families/delta_2.tsv",
            f"hours\tw.\t{kinds}\tA\tseen",
            "hours need kinds as 1=solar, one blank apart",
        )
        for kinds in ("1", "1=", "1=solar  2=home", "1=solar 1=home", "-")
    ),
    *(
        (
            "families/delta_2.tsv",
            f"hours\tw.\t1=solar\t{certainty}\t{source}",
            "hours need A, B or C and a source",
        )
        for certainty, source in (("D", "seen"), ("A", "-"))
    ),
    ("families/delta_2.tsv", "only_if\tpd.soc", "2 cells where 3 belong"),
    (
        "families/delta_2.tsv",
        "only_if\tpd.soc=full\tbattery_*",
        "'full' is no number",
    ),
    ("families/delta_2.tsv", "only_if\tpd.soc!=\tbattery_*", "'' is no number"),
    (
        "families/delta_2.tsv",
        "only_if\tpd.soc;  pd.a\tbattery_*",
        "a condition needs keys, one blank apart",
    ),
    (
        "families/delta_2.tsv",
        "only_if\t-\tbattery_*",
        "a condition needs keys, one blank apart",
    ),
    (
        "families/delta_2.tsv",
        "only_if\tpd.soc\tinput_power_watts pd.crumbs",
        "'pd.crumbs' is neither metric nor key of a row",
    ),
    (
        "families/delta_2.tsv",
        "only_if\tpd.soc\tcrumb_*",
        "'crumb_*' is neither metric nor key of a row",
    ),
    (
        "families/delta_2.tsv",
        "only_if\tpd.soc\t-",
        "'' is neither metric nor key of a row",
    ),
    (
        "families/_classic_sums.tsv",
        "include\t_delta_2",
        "a block holds rows only, and no include",
    ),
    (
        "families/_classic_sums.tsv",
        "only_if\tpd.soc\tinput_power_watts",
        "a block holds rows only, and no only_if",
    ),
    ("families/_delta_2_slave.tsv", "crumbs", "1 cells where 6 belong"),
]


@pytest.mark.parametrize(("file", "line", "what"), WRONG)
def test_a_wrong_line_is_told_by_file_and_line(mine, file, line, what):
    """What is wrong in a table is one error: the file, the line, and what it is."""
    place = mine.append(file, line)

    with pytest.raises(TableError) as caught:
        mine.load()

    assert caught.value.text == f"{place}: {what}"


def test_a_wrong_table_is_one_line_of_a_run(tmp_path, environ, pushgateway):
    """Raw values still go out; the run says which line is wrong, and exits with 70."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "ecoflow_push", copy / "ecoflow_push")
    shutil.copy(PUSH, copy)
    table = copy / "ecoflow_push" / "devices" / "families" / "delta_2.tsv"
    table.write_text(table.read_text() + "crumbs\n")
    number = len(table.read_text().splitlines())

    done = subprocess.run(
        [sys.executable, copy / "push.py"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 70
    (line,) = done.stderr.splitlines()
    assert f"families/delta_2.tsv:{number}: 1 cells where 6 belong: correct " in line
    assert values(pushgateway.device(DELTA.sn))
    assert pushgateway.run()["ecoflow_push_exit_status"] == 70


def test_a_wrong_family_troubles_no_other(mine):
    """A family's file is read only where a device of that family is met."""
    mine.append("families/delta_2.tsv", "crumbs")

    assert family_named("DELTA Pro", mine.folder)
    with pytest.raises(TableError):
        family_named("DELTA 2", mine.folder)


@pytest.mark.parametrize("name", ["", "unknown", "Toaster", "../products", "_delta_2"])
def test_a_family_that_no_line_speaks_of_is_none(name):
    """A remembered name opens a file only if products.tsv has it."""
    assert family_named(name) is None
