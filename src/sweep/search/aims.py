"""Several aims in a study: what its trials must answer, and what Optuna is told of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import optuna

from sweep.errors import StudyError
from sweep.search.plan import Plan
from sweep.types import Aimed, Asking, Report, Standing, View

Direction = Literal["minimize", "maximize"]


def directions(plan: Plan) -> list[Direction]:
    """Of the study, as Optuna names them."""
    if plan.aimed_by is None:
        return ["minimize"]
    return ["maximize" if aim.higher_is_better else "minimize" for aim in plan.aimed_by.aims]


def check_directions(study: optuna.Study, plan: Plan) -> None:
    """Nothing, or StudyError: the study was begun with other aims and has no trial that would say so."""
    begun = [direction.name.lower() for direction in study.directions]
    if begun != directions(plan):
        raise StudyError(
            f"The study {plan.name!r} was begun to {', '.join(begun)}, and must keep to that; now it is to "
            f"{', '.join(directions(plan))}. Restore objective.aims, or start a new study beside it with "
            f"name={plan.name}_2."
        )


def asked(plan: Plan, view: View, *, last: bool) -> Asking | None:
    """What a job that scores this view must answer; nothing before a trial's last rung, nor with one aim."""
    return plan.aimed_by.asking(view) if plan.aimed_by and last else None


def measured(report: Report, plan: Plan, view: View) -> tuple[Report, tuple[Aimed, ...]]:
    """The report with its value by each aim among the metrics, and these; failed where one has no number."""
    if plan.aimed_by is None or report.state != "reached":
        return report, ()
    found = plan.aimed_by.aimed(view, report)
    if missing := [one.aim for one in found if not math.isfinite(one.value)]:
        reason = (
            f"objective.aims: {', '.join(missing)} gave no number for its replies; mend the scorer, or "
            "choose other aims"
        )
        return dataclasses.replace(report, state="failed", validation_loss=None, error=reason), ()
    named = {f"aim/{one.aim}": one.value for one in found}
    return dataclasses.replace(report, metrics={**report.metrics, **named}), found


def told(standing: Standing) -> float | Sequence[float]:
    """What a complete trial is worth to Optuna."""
    return [one.value for one in standing.aims] or standing.loss
