"""docs/internals/compliance.md is the table of the cases."""

from __future__ import annotations

from tests import (
    test_compliance_answers,
    test_compliance_content,
    test_compliance_protocol,
)
from tests.test_docs import table_rows

PARTS = (test_compliance_protocol, test_compliance_content, test_compliance_answers)


def test_the_document_lists_every_case():
    """docs/internals/compliance.md has each case once, with what is asserted."""
    rows = [
        row for row in table_rows("internals/compliance.md") if row[0].startswith("`")
    ]
    cases = [case for part in PARTS for case in part.CASES.items()]
    assert rows == [[f"`{name}`", case.says] for name, case in cases]
