"""The catalogue of cases, the tests that automate them, and the page of both."""

from __future__ import annotations

import pytest

from tests.cases_page import GROUPS, PAGE, Case, Marked, catalogue, marked, marks, page


def test_the_catalogue_is_whole():
    """Each group has its cases, numbered without a gap, each in words for a table."""
    cases = catalogue()
    assert list(cases) == [
        f"{letter}{number}"
        for letter, (_, count) in GROUPS.items()
        for number in range(1, count + 1)
    ]
    assert len(cases) == 142
    for name, case in cases.items():
        for words in case:
            assert not set(words) & set("|\n"), name
        assert case.fault, name
        assert case.held, name


def test_every_case_is_automated():
    """Each case has a test, or says what lacks; no test names an unknown one."""
    cases = catalogue()
    named = {name for each in marks() for name in each.names}

    assert named <= set(cases), sorted(named - set(cases))
    missing = [c for c in cases if c not in named and not cases[c].lacking]
    assert not missing, f"{len(missing)} without a test: {' '.join(missing)}"


def test_no_mark_is_twice():
    """A test names a case once."""
    for each in marks():
        assert len(set(each.names)) == len(each.names), str(each)


def test_the_page_is_what_is_marked():
    """docs/internals/cases.md is what `python -m tests.cases_page` makes of it."""
    remade = page(catalogue(), marks())
    assert PAGE.read_text() == remade, "make it anew: python -m tests.cases_page"


MARKS = """
pytestmark = [pytest.mark.drill("x"), pytest.mark.case("N1")]

@pytest.mark.case("N2", "N3")
@pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.case("N4"))])
def test_one(x): ...

def test_two(): ...

def helper(): ...
"""


def test_marks_are_found():
    """On a test, on a row of its table and on its module, a mark is of that test."""
    assert list(marked(MARKS, "test_x.py")) == [
        Marked("test_x.py", "test_one", ("N1", "N2", "N3", "N4")),
        Marked("test_x.py", "test_two", ("N1",)),
    ]


@pytest.mark.parametrize(
    "source",
    [
        'ROW = pytest.param(1, marks=pytest.mark.case("N1"))',
        'case = pytest.mark.case\n\n@case("N1")\ndef test_one(): ...',
        '@pytest.mark.case("N1")\ndef helper(): ...',
        "@pytest.mark.case\ndef test_one(): ...",
        "@pytest.mark.case()\ndef test_one(): ...",
    ],
)
def test_a_mark_that_nobody_would_see_is_an_error(source):
    """A mark that is on no test, or has no name, does not stay unseen."""
    with pytest.raises(ValueError, match="case"):
        list(marked(source, "test_x.py"))


def test_a_row():
    """Tests stand below each other, and behind them what lacks."""
    cases = {"N1": Case("no answer", "69", "a modem; a pipe runs")}
    tests = [Marked("test_a.py", "test_b", ("N1",)), Marked("c.py", "d", ("N1",))]
    row = "| N1 | no answer | 69 | `test_a.py: test_b`<br>`c.py: d`<br>*lacking:* a mod"

    assert row in page(cases, tests)
