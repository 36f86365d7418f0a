"""What code, tables and documents cite, followed: every source can be opened."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support import ROOT

DOCS = ROOT / "docs"
FACTS = DOCS / "protocol"
PARTS = ("ecoflow_push", "tests", "benchmarks", "docs", "deploy")
TEXTS = (".json", ".md", ".proto", ".py", ".sh", ".tsv", ".yaml", ".yml")
# As in protocol/rest.md#signature, the path below docs/.
CITATION = re.compile(r"\bprotocol/([a-z-]+\.md)#([a-z0-9-]*)")
DOCUMENT = re.compile(r"(?<![\w./-])[\w./-]*\w\.md\b")
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
SOURCES = re.compile(rf"{CITATION.pattern}(?:; {CITATION.pattern})*")


@cache
def texts() -> dict[Path, str]:
    """Return the text files of the project, by path."""
    paths = [path for path in ROOT.iterdir() if path.suffix in TEXTS]
    for part in PARTS:
        paths += [path for path in (ROOT / part).rglob("*") if path.suffix in TEXTS]
    return {path: path.read_text() for path in sorted(paths)}


@cache
def sections(page: Path) -> list[str]:
    """Return the anchors of a page's headings, the title left out."""
    found = re.findall(r"^##+ (.*)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in found]


def citations() -> Iterator[tuple[str, Path, str]]:
    """Yield who cites, and the page and the section that are cited."""
    for path, text in texts().items():
        for page, section in CITATION.findall(text):
            yield path.name, FACTS / page, section


def links() -> Iterator[tuple[Path, Path, str]]:
    """Yield each link between pages: its page, and where it leads."""
    for page in FACTS.glob("*.md"):
        for target, section in LINK.findall(page.read_text()):
            yield page, (page.parent / target).resolve() if target else page, section


def test_every_citation_leads_to_a_section():
    """What is cited is a section of docs/protocol that is there."""
    cited = list(citations())

    assert len(cited) > 100
    for where, page, section in cited:
        assert page.exists(), (where, page.name)
        assert section in sections(page), (where, page.name, section)


def test_links_between_the_facts_lead_somewhere():
    """Every link of docs/protocol leads to a file, and to a section of it."""
    for page, target, section in links():
        assert target.exists(), (page.name, target)
        assert not section or section in sections(target), (page.name, section)


def test_every_source_of_a_value_is_a_citation():
    """The last column of keys.md's tables has citations alone."""
    text = (DOCS / "internals" / "keys.md").read_text()
    tables = re.findall(
        r"^\| keys \|.*\| source \|\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE
    )
    sources = [
        re.sub(
            r"\[[^]]*\]\(\.\./([^)]*)\)", r"\1", row.rpartition(" | ")[2].rstrip(" |")
        )
        for table in tables
        for row in table.splitlines()
    ]

    assert len(sources) > 100
    assert [source for source in sources if not SOURCES.fullmatch(source)] == []


def test_no_file_names_a_document_that_is_not_there():
    """Each name of a document is one of the repository's, from wherever it is read."""
    for path, text in texts().items():
        without_addresses = re.sub(r"https?://[^\s)\"']+", "", text)
        for name in set(DOCUMENT.findall(without_addresses)):
            homes = (path.parent, ROOT, DOCS, FACTS, DOCS / "internals")
            found = any((home / name.lstrip("/")).exists() for home in homes)
            assert found or not name.strip("/."), (str(path), name)


def test_every_section_is_relied_on():
    """A section is cited, or another page leads to it: facts for nobody go stale."""
    used = {(page, section) for _, page, section in citations()}
    used |= {(target, section) for page, target, section in links() if page != target}
    index = FACTS / "README.md"

    for page in FACTS.glob("*.md"):
        names = sections(page)
        assert len(names) == len(set(names)), page.name
        if page != index:
            unused = {name for name in names if (page, name) not in used}
            assert not unused, (page.name, unused)
