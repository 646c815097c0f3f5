"""A trial as one training, stretch by stretch: where the next begins and ends, and what is measured there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweep.evaluation.course import best_rung, rose_twice
from sweep.search.aims import asked
from sweep.search.entries import AGAIN, STOPPED, next_attempt, rung_entry, rung_key
from sweep.search.plan import Plan
from sweep.search.scheduler import Scheduler
from sweep.search.states import Needed, newest, places
from sweep.types import Job, Recipe, Report, RowProbe, Standing, Verdict, View


class Stretches:
    """The route of a trial that trains to its horizon, or until its loss has risen twice in a row.

    Then its best state counts. If that is not the last one it is scored again as the last one would have
    been, on all rows and with its guards.
    """

    def __init__(self, plan: Plan, scheduler: Scheduler) -> None:
        self._plan = plan
        self.ladder = scheduler.ladder(plan.horizon(plan.largest("epochs")), plan.unit)
        self.judged = tuple(plan.judged_on(rung, self.ladder[-1]) for rung in self.ladder)

    def rungs(self, recipe: Recipe) -> tuple[int, ...]:
        horizon = self._plan.horizon(recipe.epochs)
        return (*(rung for rung in self.ladder if rung < horizon), horizon)

    def next_stop(self, standing: Standing) -> int:
        rungs = self.rungs(standing.trial.recipe)
        if standing.reached < rungs[-1] and not rose_twice(standing.rungs):
            return next(rung for rung in rungs if rung > standing.reached)
        return best_rung(standing.rungs).examples_seen

    def is_judged(self, standing: Standing) -> bool:
        return bool(standing.values) and standing.reports[-1].examples_seen == self.next_stop(standing)

    def next_job(self, standing: Standing, entries: Mapping[str, Any]) -> Job:
        plan, stop, horizon = self._plan, self.next_stop(standing), self.rungs(standing.trial.recipe)[-1]
        start, checkpoint = newest(standing, entries.get(STOPPED), most=stop)
        again = stop <= standing.reached
        judged_at = horizon if again else stop
        evaluation, last = plan.judged_on(judged_at, horizon), judged_at == horizon
        return Job(
            id=f"{standing.trial.id}@{stop}{'/again' if again else ''}",
            attempt=next_attempt(entries, stop),
            trial=standing.trial,
            start=start,
            stop=stop,
            horizon=horizon,
            checkpoint=checkpoint,
            train=View("train"),
            evaluation=evaluation,
            asked=asked(plan, evaluation, last=last),
            probe=plan.probe if last else None,
        )

    def probed(self, job: Job, report: Report, entries: Mapping[str, Any]) -> Sequence[RowProbe] | None:
        return report.probed if job.probe else None

    def kept(
        self,
        report: Report,
        stop: int,
        standing: Standing,
        entries: Mapping[str, Any],
        verdicts: Sequence[Verdict],
    ) -> tuple[str, str]:
        again = stop <= standing.reached
        before = None if again else entries.get(rung_key(standing.reached))
        kept = rung_entry(report, stop, self._plan.metrics, before=before, verdicts=verdicts)
        return AGAIN if again else rung_key(stop), kept

    def whole(self, standing: Standing) -> tuple[int, int]:
        horizon = self.rungs(standing.trial.recipe)[-1]
        # As far as to the state that counts, where a trial got worse after it.
        return standing.reports[-1].examples_seen if standing.state == "complete" else horizon, horizon

    def needed(self, standing: Standing, stopped: Mapping[str, Any] | None) -> Needed:
        if standing.ended:
            counts = standing.reports[-1:] if standing.state == "complete" else ()
            return Needed(spare=places(counts))
        rungs = standing.rungs
        kept = places((rungs[-1], best_rung(rungs))) if rungs else frozenset()
        if stopped and stopped["stop"] == self.next_stop(standing) and stopped["checkpoint"]:
            kept |= {stopped["checkpoint"]}
        return Needed(kept, spare=places(rungs[-2:-1]))
