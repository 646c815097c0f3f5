"""What is to be searched, and how far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from sweep.evaluation.guards import Guards
from sweep.evaluation.metrics import LOSS
from sweep.search.length import horizon_of
from sweep.search.space import Space
from sweep.types import Metric, Probe, Recipe, View


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be searched.

    trials: total, failed ones and earlier starts included. seconds: of this study's driver, over
    all starts, None for no bound. train_rows: size of the train split. evaluation: the rows that
    the last rung is judged on; least_rows: how many of them any rung is, None for all. fingerprint:
    named parts; a study is only continued when all agree. metrics: measured on the same rows beside
    the loss; a study may go on with others. judged_by: what rungs compare in the loss's place, a metric whose
    lower values are better. guards: what keeps a trial from winning, None for nothing.
    """

    name: str
    space: Space
    defaults: Recipe
    seed: int
    base: str
    trials: int
    seconds: float | None
    train_rows: int
    evaluation: View
    fingerprint: Mapping[str, str]
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    least_rows: int | None = None
    judged_by: str = LOSS
    guards: Guards | None = None

    @property
    def probe(self) -> Probe | None:
        """What guards ask of a trial's state that counts, None where trials are not guarded."""
        if self.guards is None or self.guards.rows is None:
            return None
        return Probe(
            train=View("train", self.guards.rows),
            held_out=View(self.evaluation.split, self.guards.rows),
            continued=self.guards.continued,
        )

    @property
    def unit(self) -> int:
        """Examples of the largest batch: rungs are multiples of it."""
        return int(self.largest("batch_size"))

    def horizon(self, epochs: float) -> int:
        """Examples seen after so many epochs."""
        return horizon_of(epochs, self.train_rows, unit=self.unit)

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
