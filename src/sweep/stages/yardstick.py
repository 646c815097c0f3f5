"""What finalists and simpler ways are measured by: the objective, on the rows of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sweep.data.baselines import question
from sweep.data.split import DataSet
from sweep.errors import ConfigError
from sweep.evaluation.compare import loss_score
from sweep.evaluation.goal import Goal, goal_of
from sweep.evaluation.metrics import measured
from sweep.evaluation.objective import Objective
from sweep.evaluation.outcomes import Judge
from sweep.evaluation.pareto import Aim, Pareto
from sweep.evaluation.rows import Row, RowValue
from sweep.evaluation.selection import Better, seed_mean
from sweep.types import Aimed, Asking, Metric, Reply, Report, Score, View


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A model on the rows of a view: its score, and its rows for paired comparisons."""

    score: Score
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """The objective on this data. judge: None where the objective needs no replies.

    reply_tokens: new ones of a reply at most. metrics: of the rows' losses, shown beside the objective's own.
    """

    objective: Objective[Any]
    judge: Judge | None
    data: DataSet
    reply_tokens: int
    metrics: Mapping[str, Metric]

    @property
    def goal(self) -> Goal:
        """The objective as people are told of it."""
        return goal_of(self.objective)

    @property
    def better(self) -> Better:
        """Which way is up."""
        return self.goal.better

    @property
    def aims(self) -> tuple[Aim, ...]:
        """What a search trades, each against the others; none where it follows the loss."""
        return self.objective.searched if isinstance(self.objective, Pareto) else ()

    def aimed(self, view: View, report: Report) -> tuple[Aimed, ...]:
        """A trained model's value by each aim, NaN where its replies give none."""
        score = self.of_report(view, report).score
        return tuple(aim.of(score) for aim in self.aims)

    def asking(self, view: View) -> Asking | None:
        """What a job must answer to be measured; None where its losses are enough."""
        if self.judge is None:
            return None
        prompts = tuple(question(row) for row in self.data.rows(view))
        return Asking(prompts, self.reply_tokens)

    def of_report(self, view: View, report: Report) -> Measured:
        """A trained model, by its answers or its losses, which are shown in any case.

        Raises ConfigError where answers are needed and the engine gave none.
        """
        beside = measured(report.rows, self.metrics)
        if self.judge is None:
            score = replace(self.objective.score(report.rows), metrics=beside)
            return Measured(score=score, rows=report.rows)
        if not report.replies:
            raise ConfigError(
                f"objective: {self.objective.name} is judged by replies, and the engine gave none for "
                f"{report.job}. Choose an engine that answers, such as engine=packed, or objective=loss."
            )
        found = self.of_replies(view, report.replies, trained=True)
        shown = {**found.score.metrics, "loss": loss_score(report.rows).value, **beside}
        return replace(found, score=replace(found.score, metrics=shown))

    def of_replies(self, view: View, replies: Sequence[Reply], *, trained: bool) -> Measured:
        """Whatever answered the view's rows. trained: whether that had a price."""
        assert self.judge is not None
        outcomes = self.judge.outcomes(self.data.rows(view), replies)
        values = self.objective.row_values(outcomes, trained=trained)
        return Measured(
            score=self.objective.score(outcomes, trained=trained),
            rows=tuple(RowValue(row, value) for row, value in values.items()),
        )


def as_metrics(score: Score, prefix: str = "") -> dict[str, float]:
    """A score as tracked runs show it, those of baselines and finalists alike."""
    told = {"objective": score.value, "objective_error": score.standard_error, **score.metrics}
    return {f"{prefix}{name}": value for name, value in told.items()}


def mean_of(seeds: Mapping[int, Measured]) -> Measured:
    """The mean of a recipe's seeds: of each row, and of each number of the score."""
    rows = seed_mean({seed: found.rows for seed, found in seeds.items()})
    scores = [found.score for found in seeds.values()]
    names = dict.fromkeys(name for score in scores for name in score.metrics)
    metrics = {
        name: float(np.mean([score.metrics[name] for score in scores if name in score.metrics]))
        for name in names
    }
    return Measured(score=replace(loss_score(rows), metrics=metrics), rows=rows)
