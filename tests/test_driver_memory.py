"""What the driver keeps of a report is small and does not depend on how many rows were scored."""

from __future__ import annotations

import gc
import io
import math
import weakref
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from sweep.backends.simulated import Simulated
from sweep.reporting.live import Scoreboard
from sweep.search.study import Study
from sweep.tracking.mlflow import SweepRecord, Tracker, Tracking
from sweep.types import Capacity, Done, Engine, Job, Observer, Progress, Report, RowLoss, Source
from tests.studies import open_study

ROWS = 512
# What these rows take: more than 100 bytes each.
ROWS_BYTES = ROWS * 100
RECORD = SweepRecord(
    name="memory",
    fingerprint="a",
    params={},
    composed_config="",
    git_commit=None,
    data_name="none",
    data_source="none",
    data_fingerprint="a",
    rows_by_split={"train": 288},
)


class Instant:
    """One step and a report for each job, no checkpoint; a loss that falls with the rung and by trial."""

    def run(self, source: Source) -> Iterator[Progress | Report]:
        while not isinstance(job := source.next(Capacity()), Done):
            assert isinstance(job, Job)
            yield Progress(
                job=job.id,
                trial=job.trial.id,
                examples_seen=job.stop,
                train_loss=1.0,
                gradient_norm=1.0,
                learning_rate=job.trial.recipe.learning_rate,
                tokens=64,
            )
            loss = 1 + 10 * job.trial.recipe.learning_rate + 10 / job.stop
            yield Report(
                job=job.id,
                trial=job.trial.id,
                attempt=job.attempt,
                examples_seen=job.stop,
                state="reached",
                validation_loss=loss,
                rows=tuple(RowLoss(f"row {row}", loss * 8 + row / ROWS, 8) for row in range(ROWS)),
                seconds=1.0,
                tokens=64,
                ended_ms=1,
            )

    def close(self) -> None:
        """Nothing is held."""


def observers(study: Study, folder: Path) -> tuple[Tracker, Scoreboard]:
    """All that a sweep has; as where there is no terminal, a line is printed for each report."""
    tracking = Tracking(uri=f"sqlite:///{folder}/mlflow.db", experiment="memory", register=False)
    board = Scoreboard(
        # A terminal's scrollback is no memory of the driver.
        Console(file=Nowhere()),
        standings=study.standings,
        names=study.plan.space.names,
        trials=study.plan.trials,
        examples=study.expected_examples,
        seconds_left=lambda: math.inf,
        spent=lambda: "",
    )
    return Tracker(tracking, RECORD, study.standing, folder=folder), board


class Nowhere(io.StringIO):
    """Takes any text and keeps none."""

    def write(self, text: str) -> int:
        return len(text)


def reports_of(study: Study, hearing: tuple[Observer, ...]) -> Iterator[Report]:
    """Each report of a search by many workers, once all have heard of it."""

    def make_engine() -> Engine:
        return Instant()

    backend = Simulated(make_engine=make_engine, workers=16, seconds=lambda job: 30.0)
    for event in backend.run(study):
        heard = study.record(event)
        for observer in hearing:
            observer.log(heard)
        if isinstance(event, Report):
            yield event


def test_nobody_keeps_a_report_that_was_recorded(tmp_path: Path) -> None:
    study = open_study(trials=12)
    tracker, board = observers(study, tmp_path)
    kept = [weakref.ref(report) for report in reports_of(study, (tracker, board))]
    gc.collect()
    assert len(kept) > 12
    assert [one for one in kept if one() is not None] == []
    assert all(not report.rows for standing in study.standings for report in standing.reports)
    tracker.close()


@pytest.mark.slow
def test_ten_thousand_reports_take_far_less_than_their_rows(tmp_path: Path) -> None:
    study = open_study(trials=6900)
    tracker, board = observers(study, tmp_path)
    used: dict[int, int] = {}
    for number, _ in enumerate(reports_of(study, (tracker, board)), start=1):
        if number in (2000, 10_000):
            gc.collect()
            used[number] = psutil.Process().memory_info().rss
    tracker.close()
    assert used[10_000] - used[2000] < 8000 * ROWS_BYTES / 2
