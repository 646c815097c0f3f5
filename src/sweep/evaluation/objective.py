"""What a sweep is for, as one number for each row: the protocol, the loss, and the mean of a scorer.

`business.py` holds the third, money. Each class is one file of `conf/objective/`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, TypeVar

import numpy as np

from sweep.errors import ConfigError
from sweep.evaluation.compare import loss_score
from sweep.evaluation.outcomes import Outcome, Rules
from sweep.types import RowLoss, Score, Verdict

# What every score of outcomes says besides, so that no scorer may be called so.
TAKEN = frozenset(
    {
        "resolved",
        "escalated",
        "wrong",
        "uncalibrated",
        "pii_leak",
        "p95_seconds",
        "prompt_tokens",
        "tokens",
        "value_resolved",
        "cost_escalated",
        "cost_wrong",
        "cost_serving",
        "cost_latency",
        "cost_one_off",
    }
)

Row = TypeVar("Row", contravariant=True)


class Objective(Protocol[Row]):
    """By what finalists, baselines, the test set and live traffic are judged.

    Its rows are outcomes where it needs replies, and it is a `Rules`, by which a `Judge` makes them; else
    they are the rows' losses. trained: whether the model had to be trained, or is a baseline that costs
    nothing beforehand. A score of no rows raises ValueError.
    """

    @property
    def name(self) -> str:
        """What the value is called."""
        ...

    @property
    def unit(self) -> str:
        """What it is counted in."""
        ...

    @property
    def rung_metric(self) -> str:
        """What the search's rungs are judged by meanwhile: "loss", or a metric's name."""
        ...

    @property
    def higher_is_better(self) -> bool: ...

    @property
    def material(self) -> float:
        """How far values must be apart to matter: of finalists nearer to the best the lower loss wins."""
        ...

    @property
    def needs_replies(self) -> bool: ...

    def score(self, rows: Sequence[Row], *, trained: bool = True) -> Score:
        """The value, its standard error, and under `metrics` what it is made of."""
        ...

    def row_values(self, rows: Sequence[Row], *, trained: bool = True) -> dict[str, float]:
        """A value for each row id, whose mean is the score's value: what paired tests compare."""
        ...

    def verdicts(self, score: Score) -> tuple[Verdict, ...]:
        """One for each limit that was set beforehand; none where there is no limit."""
        ...


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Nats per token of the reference answers: needs no replies and says nothing about money."""

    rung_metric: str

    name: ClassVar[str] = "loss"
    unit: ClassVar[str] = "nats per token"
    higher_is_better: ClassVar[bool] = False
    material: ClassVar[float] = 0.0
    needs_replies: ClassVar[bool] = False

    def score(self, rows: Sequence[RowLoss], *, trained: bool = True) -> Score:
        return loss_score(rows)

    def row_values(self, rows: Sequence[RowLoss], *, trained: bool = True) -> dict[str, float]:
        """Each row's share of the loss: its nats over the mean number of tokens."""
        per_row = sum(row.tokens for row in rows) / _counted(rows)
        return {row.row: row.nats / per_row for row in rows}

    def verdicts(self, score: Score) -> tuple[Verdict, ...]:
        return ()


@dataclass(frozen=True, kw_only=True)
class MetricObjective(Rules):
    """The mean of the scorer named `metric`, 0 to 1, over the rows that it can score."""

    metric: str
    rung_metric: str

    higher_is_better: ClassVar[bool] = True
    material: ClassVar[float] = 0.0
    needs_replies: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return self.metric

    @property
    def unit(self) -> str:
        return "from 0 to 1"

    def score(self, rows: Sequence[Outcome], *, trained: bool = True) -> Score:
        return replace(mean_score(self.row_values(rows)), metrics=measured(rows))

    def row_values(self, rows: Sequence[Outcome], *, trained: bool = True) -> dict[str, float]:
        """The scorer's value at each row that has one. Raises ConfigError where none has."""
        _counted(rows)
        values = {row.row: row.scores[self.metric] for row in rows if self.metric in row.scores}
        if not values:
            raise ConfigError(
                f"objective.metric={self.metric}: gave no number for any of {len(rows)} rows; it must score "
                "some. Mend the scorer, or choose another objective.metric."
            )
        return values

    def verdicts(self, score: Score) -> tuple[Verdict, ...]:
        return ()


def succeeds(verdicts: Sequence[Verdict]) -> bool:
    """Whether limits were set and each that could be checked holds: one that could not has no value."""
    return bool(verdicts) and all(verdict.passed or math.isnan(verdict.value) for verdict in verdicts)


def mean_score(values: Mapping[str, float]) -> Score:
    """Mean of the rows' values and its standard error, infinite with a single row."""
    column = np.array(list(values.values()), dtype=float)
    count = len(column)
    error = float(column.std(ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    return Score(value=float(column.mean()), standard_error=error, examples=count)


def measured(rows: Sequence[Outcome]) -> dict[str, float]:
    """What outcomes say under any objective.

    Shares resolved, escalated, wrong, uncalibrated and pii_leak; the 95th percentile of the seconds; mean
    tokens read and written; each scorer's mean over the rows that it could score.
    """
    _counted(rows)
    means: dict[str, list[float]] = {
        "resolved": [row.resolved for row in rows],
        "escalated": [row.escalated for row in rows],
        "wrong": [row.wrong for row in rows],
        "uncalibrated": [not row.calibrated for row in rows],
        "pii_leak": [row.leaks for row in rows],
        "prompt_tokens": [row.prompt_tokens for row in rows],
        "tokens": [row.tokens for row in rows],
    }
    for name in dict.fromkeys(name for row in rows for name in row.scores):
        means[name] = [row.scores[name] for row in rows if name in row.scores]
    slowest = float(np.percentile([row.seconds for row in rows], 95))
    return {**{name: float(np.mean(column)) for name, column in means.items()}, "p95_seconds": slowest}


def _counted(rows: Sequence[object]) -> int:
    if not rows:
        raise ValueError("no rows; at least one must be there. Evaluate on a split that has some.")
    return len(rows)
