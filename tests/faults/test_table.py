"""The page on reliability shows what was found."""

from __future__ import annotations

import json

from benchmarks import faults


def test_the_page_holds_the_table_of_the_results() -> None:
    rows = json.loads(faults.RESULT.read_text())["rows"]
    page = faults.PAGE.read_text()
    assert f"{faults.BEGINS}{faults.table(rows)}{faults.ENDS}" in page
    assert {row["held"] for row in rows} == {"held"}
    assert [row["fault"] for row in rows] == [row.fault for row in faults.ROWS]
    assert {row[name] for row in rows for name in ("lost", "doubled", "runs_lost", "runs_doubled")} <= {
        0,
        None,
    }
