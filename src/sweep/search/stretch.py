"""The next stretch of a trial: where it begins and ends, and what is measured there.

A trial trains to its horizon, or until its loss has risen twice in a row. Then its best state counts. If that
is not the last one it is scored again as the last one would have been, on all rows and with its guards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweep.evaluation.course import best_rung, rose_twice
from sweep.search.aims import asked
from sweep.search.entries import JOB, STOPPED
from sweep.search.plan import Plan
from sweep.search.states import newest
from sweep.types import Job, Standing, View


def next_stop(standing: Standing, rungs: Sequence[int]) -> int:
    """Examples seen at its next rung or, once it trains no more, at the one whose state counts.

    rungs: of this trial, the last one its horizon.
    """
    if standing.reached < rungs[-1] and not rose_twice(standing.rungs):
        return next(rung for rung in rungs if rung > standing.reached)
    return best_rung(standing.rungs).examples_seen


def is_judged(standing: Standing, rungs: Sequence[int]) -> bool:
    """Whether the state that counts was scored as a last one: nothing is left to do."""
    return bool(standing.values) and standing.reports[-1].examples_seen == next_stop(standing, rungs)


def next_job(standing: Standing, attributes: Mapping[str, Any], plan: Plan, rungs: Sequence[int]) -> Job:
    """The job of its next stretch. attributes: the trial's entries."""
    stop, horizon = next_stop(standing, rungs), rungs[-1]
    start, checkpoint = newest(standing, attributes.get(STOPPED), most=stop)
    again = stop <= standing.reached
    judged_at = horizon if again else stop
    out = attributes.get(JOB)
    evaluation, last = plan.judged_on(judged_at, horizon), judged_at == horizon
    return Job(
        id=f"{standing.trial.id}@{stop}{'/again' if again else ''}",
        attempt=out["attempt"] + 1 if out and out["stop"] == stop else 0,
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
