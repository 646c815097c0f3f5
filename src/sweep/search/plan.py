"""What is to be searched, and how far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sweep.evaluation.guards import Guards
from sweep.evaluation.metrics import LOSS
from sweep.evaluation.pareto import Aim
from sweep.search.allowance import Bound
from sweep.search.length import horizon_of
from sweep.search.space import Space
from sweep.types import Aimed, Asking, Metric, Probe, Recipe, Report, View


class AimedBy(Protocol):
    """What makes values by several aims of a trial's replies. Raises ConfigError where there are none."""

    @property
    def aims(self) -> tuple[Aim, ...]: ...

    def asking(self, view: View) -> Asking | None: ...

    def aimed(self, view: View, report: Report) -> tuple[Aimed, ...]:
        """A value for each aim, in their order, NaN where the replies give none."""
        ...


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be searched.

    trials: total, failed ones and earlier starts included. bounds: of what the sweep may spend in all, of
    which the search takes `SEARCH_SHARE`. train_rows: size of the train split. evaluation: the rows that
    the last rung is judged on; least_rows: how many of them any rung is, None for all. fingerprint:
    named parts; a study is only continued when all agree. metrics: measured on the same rows beside
    the loss; a study may go on with others. judged_by: what rungs compare in the loss's place, a metric whose
    lower values are better. guards: what keeps a trial from winning, None for nothing. folds: that the
    train split is dealt into, each with as many of its rows as `evaluation` has; None: it is not. aimed_by:
    what judges trials in the loss's place at their last rung, by several aims; None where the loss does.
    """

    name: str
    space: Space
    defaults: Recipe
    seed: int
    base: str
    trials: int
    train_rows: int
    evaluation: View
    fingerprint: Mapping[str, str]
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    least_rows: int | None = None
    judged_by: str = LOSS
    guards: Guards | None = None
    folds: int | None = None
    aimed_by: AimedBy | None = None
    bounds: tuple[Bound, ...] = ()

    @property
    def views(self) -> tuple[View, ...]:
        """The rows that a trial's loss is of, by fold where there are folds."""
        if self.folds is None:
            return (self.evaluation,)
        return tuple(self.evaluation._replace(fold=fold) for fold in range(self.folds))

    @property
    def probe(self) -> Probe | None:
        """What guards ask of a training on the whole train split, None where trials are not guarded."""
        if self.guards is None or self.guards.rows is None:
            return None
        # All rows of a cross-validation's folds are trained on then.
        held_out = View(self.evaluation.split if self.folds is None else "confirm", self.guards.rows)
        return Probe(
            train=View("train", self.guards.rows),
            held_out=held_out,
            continued=self.guards.continued,
        )

    @property
    def unit(self) -> int:
        """Examples of the largest batch: rungs are multiples of it."""
        return int(self.largest("batch_size"))

    def horizon(self, epochs: float, *, share: float = 1.0) -> int:
        """Examples seen after so many epochs of that share of the train rows."""
        return horizon_of(epochs * share, self.train_rows, unit=self.unit)

    def judged_on(self, examples: int, horizon: int) -> View:
        """The rows of a rung: the first ones, as many as its share of the way to the horizon.

        The same for all trials, and those of a lower rung are among those of a higher.
        """
        rows = self.evaluation.rows
        if rows is None or self.least_rows is None:
            return self.evaluation
        share = math.ceil(rows * examples / horizon)
        return View(self.evaluation.split, min(rows, max(self.least_rows, share)))

    def largest(self, name: str) -> float:
        """The largest value that a numeric field takes in this search, trial 0 included."""
        fixed = float(getattr(self.defaults, name))
        searched = next((p for p in self.space.parameters if p.name == name), None)
        if searched is None:
            return fixed
        largest = searched.choices[-1] if searched.choices else searched.distribution.high  # type: ignore[union-attr]
        return max(fixed, float(largest))  # type: ignore[arg-type]
