"""What a report costs the storage does not grow with the search."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, event

from sweep.search.storage import open_storage
from sweep.types import Progress, Report
from tests.studies import open_study, run_study, synthetic_engine

TRIALS = 150


class Counted:
    """How many statements were sent to databases by the time of each report."""

    def __init__(self) -> None:
        self.by_report: list[int] = []
        self._sent = 0

    def hear(self, *_: object) -> None:
        """Of a statement."""
        self._sent += 1

    def log(self, told: Progress | Report) -> None:
        if isinstance(told, Report):
            self.by_report.append(self._sent)


def test_late_reports_send_no_more_statements_than_early_ones(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/sweep.db")
    counted = Counted()
    event.listen(Engine, "before_cursor_execute", counted.hear)
    try:
        run_study(open_study(storage, trials=TRIALS), synthetic_engine(tmp_path), counted)
    finally:
        event.remove(Engine, "before_cursor_execute", counted.hear)
    at = counted.by_report
    assert len(at) > TRIALS
    early, late = at[50] - at[20], at[-20] - at[-50]
    assert late <= early * 1.2
