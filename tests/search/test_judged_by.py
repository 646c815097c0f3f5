"""Rungs are compared by a metric where one is named in the loss's place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from sweep.backends.inline import Inline
from sweep.errors import StudyError
from sweep.evaluation.compare import loss_score
from sweep.evaluation.metrics import HardRows
from sweep.search.loop import search
from sweep.types import Progress, Report, RowLoss
from tests.studies import open_study, run_study, synthetic_engine


class Seen:
    """Every report as the engine gave it."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    def log(self, event: Progress | Report) -> None:
        if isinstance(event, Report):
            self.reports.append(event)


@dataclass(frozen=True)
class Opposite:
    """The lower, the worse a trial is by its loss."""

    def __call__(self, rows: Sequence[RowLoss]) -> float:
        return -loss_score(rows).value


def test_a_rung_holds_the_metric_and_keeps_the_loss_beside_it(tmp_path: Path) -> None:
    hard, seen = HardRows(share=0.25), Seen()
    study = open_study(metrics={"hard": hard}, judged_by="hard")
    run_study(study, synthetic_engine(tmp_path), seen)
    reported = {(report.trial, report.examples_seen): report for report in seen.reports}
    for standing in study.standings:
        for rung in standing.rungs:
            as_given = reported[standing.trial.id, rung.examples_seen]
            assert rung.validation_loss == pytest.approx(hard(as_given.rows))
            assert rung.metrics["loss"] == as_given.validation_loss


def test_the_winner_is_the_metrics(tmp_path: Path) -> None:
    by_loss = run_study(open_study(), synthetic_engine(tmp_path / "loss"))
    against = run_study(
        open_study(metrics={"opposite": Opposite()}, judged_by="opposite"),
        synthetic_engine(tmp_path / "other"),
    )
    assert by_loss.best is not None
    assert against.best is not None
    assert against.best.trial.number != by_loss.best.trial.number
    worst = max(against.standings, key=lambda one: one.reports[0].metrics.get("loss", 0.0))
    assert worst.state == "complete"


def test_a_metric_without_a_number_ends_the_search_at_trial_0(tmp_path: Path) -> None:
    study = open_study(metrics={"none": lambda rows: float("nan")}, judged_by="none")
    with pytest.raises(StudyError, match=r"objective\.rung_metric=none gave no number"):
        search(study, Inline(make_engine=lambda: synthetic_engine(tmp_path)), [])
