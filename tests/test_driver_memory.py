"""What the driver keeps of a report is small and does not depend on how many rows were scored."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from benchmarks.driver import Instant, board, reports_of, tracker

from sweep.backends.simulated import Simulated
from sweep.search.study import Study
from sweep.tracking.mlflow import Tracker
from sweep.types import Engine, Report
from tests.studies import open_study

ROWS = 512
# What these rows take: more than 100 bytes each.
ROWS_BYTES = ROWS * 100


def searched(study: Study, folder: Path) -> tuple[Tracker, Iterator[Report]]:
    """A search by many workers, with all that a sweep has to hear of it; reports as they come."""

    def make_engine() -> Engine:
        return Instant(steps=1, rows=ROWS)

    backend = Simulated(make_engine=make_engine, workers=16, seconds=lambda job: 30.0)
    tracking = tracker(folder, study)
    return tracking, reports_of(study, backend, (tracking, board(study)))


def test_nobody_keeps_a_report_that_was_recorded(tmp_path: Path) -> None:
    study = open_study(trials=12)
    tracking, reports = searched(study, tmp_path)
    kept = [weakref.ref(report) for report in reports]
    gc.collect()
    assert len(kept) > 12
    assert [one for one in kept if one() is not None] == []
    assert all(not report.rows for standing in study.standings for report in standing.reports)
    tracking.close()


@pytest.mark.slow
def test_ten_thousand_reports_take_far_less_than_their_rows(tmp_path: Path) -> None:
    study = open_study(trials=6900)
    tracking, reports = searched(study, tmp_path)
    used: dict[int, int] = {}
    for number, _ in enumerate(reports, start=1):
        if number in (2000, 10_000):
            gc.collect()
            used[number] = psutil.Process().memory_info().rss
    tracking.close()
    assert used[10_000] - used[2000] < 8000 * ROWS_BYTES / 2
