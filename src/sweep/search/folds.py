"""A trial as a cross-validation: each rung is a fold, trained from the beginning on all others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweep.engines.checkpoint import remove
from sweep.search.entries import STOPPED, next_attempt, probed_of, rung_entry, rung_key
from sweep.search.plan import Plan
from sweep.search.states import newest
from sweep.types import Job, Probe, Recipe, Report, RowProbe, Standing, Verdict, View


class Folds:
    """The route of a trial fold by fold; its loss is the folds' mean.

    A rung counts what all folds so far have trained on: the i-th stands at i times a fold's horizon. Guards
    judge when the last fold is done, by rows of all of them. No fold goes on from another, so a fold's state
    is removed once it was judged.
    """

    def __init__(self, plan: Plan, folds: int) -> None:
        self._plan = plan
        self._folds = folds
        self.ladder = self._rungs(plan.largest("epochs"))
        self.judged = plan.views

    def rungs(self, recipe: Recipe) -> tuple[int, ...]:
        return self._rungs(recipe.epochs)

    def next_stop(self, standing: Standing) -> int:
        rungs = self.rungs(standing.trial.recipe)
        return next((rung for rung in rungs if rung > standing.reached), standing.reached)

    def is_judged(self, standing: Standing) -> bool:
        return len(standing.values) == self._folds

    def next_job(self, standing: Standing, entries: Mapping[str, Any]) -> Job:
        recipe, stop = standing.trial.recipe, self.next_stop(standing)
        fold, horizon = len(standing.values), self.rungs(recipe)[0]
        stopped = entries.get(STOPPED)
        own = stopped if stopped and stopped["stop"] == stop else None
        seen, checkpoint = newest(replace(standing, reports=()), own, most=stop)
        return Job(
            id=f"{standing.trial.id}@{stop}",
            attempt=next_attempt(entries, stop),
            trial=standing.trial,
            start=seen - fold * horizon if checkpoint else 0,
            stop=horizon,
            horizon=horizon,
            checkpoint=checkpoint,
            train=View("train", fold=fold),
            evaluation=self._plan.views[fold],
            probe=self._probe(fold),
        )

    def probed(self, job: Job, report: Report, entries: Mapping[str, Any]) -> Sequence[RowProbe] | None:
        fold = job.train.fold
        if job.probe is None or fold != self._folds - 1:
            return None
        horizon = job.horizon
        earlier = [probed_of(entries[rung_key((i + 1) * horizon)]) for i in range(fold)]
        # A row is trained on in several folds, by another adapter each.
        return [
            row._replace(row=f"{row.row}/{fold}")
            for fold, rows in enumerate([*earlier, report.probed])
            for row in rows
        ]

    def kept(
        self,
        report: Report,
        stop: int,
        standing: Standing,
        entries: Mapping[str, Any],
        verdicts: Sequence[Verdict],
    ) -> tuple[str, str]:
        kept = rung_entry(
            report, stop, self._plan.metrics, before=None, verdicts=verdicts, probed=report.probed
        )
        return rung_key(stop), kept

    def whole(self, standing: Standing) -> tuple[int, int]:
        horizon = self._plan.horizon(standing.trial.recipe.epochs)
        return horizon, horizon

    def drop(self, standing: Standing, stopped: Mapping[str, Any] | None) -> None:
        paths = [report.checkpoint for report in standing.reports]
        if stopped and (standing.ended or stopped["stop"] <= standing.reached):
            paths.append(stopped["checkpoint"])
        for path in paths:
            if path:
                remove(Path(path))

    def _rungs(self, epochs: float) -> tuple[int, ...]:
        horizon = self._plan.horizon(epochs, share=1 - 1 / self._folds)
        return tuple(horizon * fold for fold in range(1, self._folds + 1))

    def _probe(self, fold: int) -> Probe | None:
        """A fold's share of the rows that guards judge by."""
        guards = self._plan.guards
        if guards is None or guards.rows is None:
            return None
        rows = math.ceil(guards.rows / self._folds)
        return Probe(
            train=View("train", rows, fold),
            held_out=View("validation", rows, fold),
            continued=math.ceil(guards.continued / self._folds),
        )
