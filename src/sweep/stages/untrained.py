"""The base model as it is: where training starts from, and how fast this machine is."""

from __future__ import annotations

from dataclasses import replace

from sweep.analysis.axes import title
from sweep.errors import ModelError
from sweep.evaluation.folds import mean_of_folds
from sweep.reporting.live import duration
from sweep.search.allowance import first_reached
from sweep.search.budget import spread
from sweep.search.loop import run_jobs
from sweep.search.study import Study
from sweep.types import Backend, Job, Report, Trial, View

# A trained example against a scored one on two cores, each job's start and checkpoint included.
_TRAINING_COST = 4.5


def score_base(study: Study, backend: Backend) -> Report:
    """The untrained model's report on the rows that judge trials. Raises ModelError if it can't be scored."""
    reports = list(run_jobs([_job(study, view) for view in study.plan.views], backend).values())
    for report in reports:
        if report.state != "reached" or report.validation_loss is None:
            raise ModelError(
                f"model: {study.plan.base} could not be scored on validation rows, so it can't be trained: "
                f"{report.error}"
            )
    if len(reports) == 1:
        return reports[0]
    return replace(mean_of_folds(reports), seconds=sum(report.seconds for report in reports))


def expectation(study: Study, base: Report) -> str:
    """What is to be searched, and how long that takes on a machine that scored the base model so fast."""
    begun, trials = len(study.standings), study.plan.trials
    over = ", ".join(study.plan.space.names)
    waits = any(standing.state == "paused" for standing in study.standings)
    if begun >= trials and not waits:
        return f"all {begun} trials over {over} were done before"
    trained = sum(standing.reached for standing in study.standings)
    left = 1 - min(trained / study.expected_examples, 1)
    # On average a trial is scored at half of the rungs.
    scored = sum(view.rows or len(base.rows) for view in study.route.judged) * trials / 2
    rows = (study.expected_examples * _TRAINING_COST + scored) * left
    longest = study.ladder[-1] * _TRAINING_COST + sum(
        view.rows or len(base.rows) for view in study.route.judged
    )
    workers = len(study.devices)
    seconds = spread(rows, min(rows, longest), workers=workers) * base.seconds / len(base.rows)
    first = first_reached(study.plan.bounds, study.spent, devices=sum(study.devices))
    bound = f"; budget.{first.key} stops it after {duration(max(study.seconds_left, 0))}" if first else ""
    if study.plan.aimed_by:
        aims = ", ".join(title(aim.name) for aim in study.plan.aimed_by.aims)
        bound = f", and what each takes to answer {len(base.rows)} rows for its {aims}{bound}"
    before = f"{begun} trials done before; " if begun else ""
    judged = f"after {', '.join(map(str, study.ladder))} examples"
    if study.plan.folds:
        judged = f"on {study.plan.folds} folds, after {study.ladder[0]} examples each"
    return (
        f"{before}{trials} trials over {over}, judged {judged}; "
        f"about {duration(seconds)} {f'with {workers} workers' if workers > 1 else 'on this machine'}{bound}"
    )


def _job(study: Study, view: View) -> Job:
    plan = study.plan
    trial = Trial(id="base", number=None, recipe=plan.defaults, seed=plan.seed, base=plan.base)
    return Job(
        id="base" if view.fold is None else f"base/fold{view.fold}",
        attempt=0,
        trial=trial,
        start=0,
        stop=0,
        horizon=study.ladder[-1],
        checkpoint=None,
        train=View("train"),
        evaluation=view,
    )
