"""When a winner may be said to beat the defaults."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.evaluation.compare import Confirmation
from sweep.stages.confirm import Record, confirm
from sweep.types import Capacity, Job, Report, RowLoss, Source, Standing, Trial
from tests.recipes import DEFAULTS

TOO_FEW = (
    " independent groups of rows are too few to tell: at least 10 must be there; give more data or a larger "
    "data.split.confirm"
)


class Scored:
    """A backend that knows the rows of each trial."""

    def __init__(self, losses: Mapping[str, list[float]]) -> None:
        self._losses = losses

    def run(self, source: Source) -> Iterator[Report]:
        while isinstance(job := source.next(Capacity()), Job):
            rows = tuple(
                RowLoss(str(row), 10 * loss, 10) for row, loss in enumerate(self._losses[job.trial.id])
            )
            yield Report(
                job=job.id, trial=job.trial.id, attempt=0, examples_seen=job.stop, state="reached", rows=rows
            )

    def close(self) -> None:
        """Nothing is held."""


def standing(trial: str) -> Standing:
    report = Report(
        job=f"{trial}@32",
        trial=trial,
        attempt=0,
        examples_seen=32,
        state="reached",
        validation_loss=2.0,
        checkpoint="somewhere",
    )
    return Standing(
        trial=Trial(id=trial, number=int(trial), recipe=DEFAULTS, seed=0, base="none"),
        state="complete",
        reports=(report,),
    )


def confirmed(folder: Path, best: list[float], *, rows_per_group: int = 1, winner: str = "1") -> Confirmation:
    """Of a winner with these losses against defaults with 2.0 on each row."""
    defaults = [2.0] * len(best)
    return confirm(
        standing(winner),
        standing("0"),
        Scored({"0": defaults, winner: best}),
        groups={str(row): row // rows_per_group for row in range(len(best))},
        seed=0,
        metrics={},
        record=Record(path=folder / "rows.json", study="s"),
    )


@pytest.mark.parametrize(
    ("rows", "rows_per_group", "clusters"), [(2, 1, 2), (4, 1, 4), (9, 1, 9), (40, 5, 8)]
)
def test_few_groups_that_all_favour_the_winner_say_nothing(
    rows: int, rows_per_group: int, clusters: int, tmp_path: Path
) -> None:
    best = [1.5 + 0.01 * row for row in range(rows)]
    confirmation = confirmed(tmp_path, best, rows_per_group=rows_per_group)
    assert confirmation.difference is not None
    assert confirmation.difference.high < 0
    assert confirmation.difference.clusters == clusters
    assert not confirmation.verdict.passed
    assert confirmation.verdict.message == f"{clusters}{TOO_FEW}"


def test_ten_groups_that_all_favour_the_winner_are_enough(tmp_path: Path) -> None:
    confirmation = confirmed(tmp_path, [1.5 + 0.01 * row for row in range(10)])
    assert confirmation.verdict.passed
    assert "lower than the defaults' by 0.4550 nats per token" in confirmation.verdict.message


def test_the_interval_alone_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = confirmed(tmp_path, [1.5 + 0.01 * row for row in range(10)]).difference
    assert both is not None
    monkeypatch.setattr(
        "sweep.stages.confirm.paired_difference", lambda *rows, **options: replace(both, p_value=0.06)
    )
    verdict = confirmed(tmp_path, [1.5 + 0.01 * row for row in range(10)]).verdict
    assert not verdict.passed
    assert "could be chance" in verdict.message


def test_defaults_that_won_are_told_so_however_few_the_rows(tmp_path: Path) -> None:
    verdict = confirmed(tmp_path, [2.0, 2.0], winner="0").verdict
    assert not verdict.passed
    assert verdict.message == "the search found nothing better than the defaults"


def test_defaults_that_did_not_end_leave_nothing_to_compare_with(tmp_path: Path) -> None:
    confirmation = confirm(
        standing("1"),
        replace(standing("0"), state="diverged"),
        Scored({"1": [1.0, 2.0]}),
        groups={},
        seed=0,
        metrics={},
        record=Record(path=tmp_path / "rows.json", study="s"),
    )
    assert confirmation.difference is None
    assert math.isnan(confirmation.verdict.value)
    assert "nothing to compare with" in confirmation.verdict.message
