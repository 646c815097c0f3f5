"""What measures of the driver share: an engine that trains nothing, and all who hear of a search."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from sweep.engines import synthetic
from sweep.reporting.live import Scoreboard
from sweep.search.study import Study
from sweep.tracking.mlflow import SweepRecord, Tracker, Tracking
from sweep.types import Backend, Capacity, Done, Job, Observer, Progress, Report, RowLoss, Source

RECORD = SweepRecord(
    name="driver",
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
    """So many steps and one report for each job, with a loss for each of so many rows; no checkpoint."""

    def __init__(self, *, steps: int, rows: int) -> None:
        self._steps = steps
        self._rows = rows

    def run(self, source: Source) -> Iterator[Progress | Report]:
        """Jobs as they come, one at a time."""
        while not isinstance(job := source.next(Capacity()), Done):
            assert isinstance(job, Job), "one slot never waits"
            yield from self._train(job)

    def close(self) -> None:
        """Nothing is held."""

    def _train(self, job: Job) -> Iterator[Progress | Report]:
        value = synthetic.loss(job.trial.recipe, job.stop)
        for step in range(1, self._steps + 1):
            yield Progress(
                job=job.id,
                trial=job.trial.id,
                examples_seen=job.stop - self._steps + step,
                train_loss=value,
                gradient_norm=1.0,
                learning_rate=job.trial.recipe.learning_rate,
                tokens=64,
            )
        yield Report(
            job=job.id,
            trial=job.trial.id,
            attempt=job.attempt,
            examples_seen=job.stop,
            state="reached",
            validation_loss=value,
            rows=tuple(RowLoss(f"row {row}", value * 8 + row / self._rows, 8) for row in range(self._rows)),
            seconds=1.0,
            tokens=64 * self._steps,
            ended_ms=time.time_ns() // 1_000_000,
        )


class Nowhere(io.StringIO):
    """Takes any text and keeps none: a terminal's scrollback is no memory of the driver."""

    def write(self, text: str) -> int:
        """As if all was written."""
        return len(text)


def board(study: Study) -> Scoreboard:
    """What prints a line per report, as where there is no terminal."""
    return Scoreboard(
        Console(file=Nowhere()),
        standings=study.standings,
        names=study.plan.space.names,
        trials=study.plan.trials,
        examples=study.expected_examples,
        seconds_left=lambda: math.inf,
        spent=lambda: "",
    )


def tracker(folder: Path, study: Study) -> Tracker:
    """What writes into the store of this folder."""
    return Tracker(tracking(folder), RECORD, study.standing, folder=folder)


def tracking(folder: Path) -> Tracking:
    """The tracking store in this folder."""
    return Tracking(uri=f"sqlite:///{folder}/mlflow.db", experiment=RECORD.name, register=False)


def reports_of(study: Study, backend: Backend, observers: Sequence[Observer]) -> Iterator[Report]:
    """Each report of a search, once it was recorded and all have heard of it."""
    for event in backend.run(study):
        heard = study.record(event)
        for observer in observers:
            observer.log(heard)
        if isinstance(event, Report):
            yield event
