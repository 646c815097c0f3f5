"""How a study and its trials are kept in Optuna: names and forms of the entries."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import cast

from optuna.trial import FrozenTrial, TrialState

from sweep.evaluation.compare import loss_score
from sweep.evaluation.metrics import measured
from sweep.types import Metric, Recipe, Report, Standing, Trial
from sweep.types import TrialState as State

# Of a study: what was planned, driver seconds over all starts, facts that stages keep.
OUTLINE = "outline"
SECONDS = "seconds"
NOTE = "note:"
# Of a trial: its recipe, the job that is out, a state between rungs, how it ended badly.
END = "end"
JOB = "job"
RECIPE = "recipe"
STOPPED = "stopped"

_RUNG = "rung:"
_STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def rung_key(examples: int) -> str:
    """The entry's name for the rung after so many examples."""
    return f"{_RUNG}{examples}"


def judgeable(report: Report) -> Report:
    """The report; one that reached its rung without a finite loss, which nothing can rank, as diverged."""
    loss = report.validation_loss
    if report.state != "reached" or (loss is not None and math.isfinite(loss)):
        return report
    reason = (
        f'The engine reported "reached" with validation_loss={loss}; it must be a finite number. Lower the '
        'learning rate, or let the engine report "diverged".'
    )
    return dataclasses.replace(
        report, state="diverged", validation_loss=None, bits_per_byte=None, error=reason
    )


def rung_entry(report: Report, rung: int, metrics: Mapping[str, Metric]) -> str:
    """The report as it is kept: its rows become a standard error and metrics, overshoot is left out."""
    found = {**report.metrics, **measured(report.rows, metrics)}
    if report.rows:
        score = loss_score(report.rows)
        found |= {"validation_loss_error": score.standard_error, "validation_rows": float(score.examples)}
    return entry(dataclasses.replace(report, examples_seen=rung, metrics=found))


def stopped_entry(report: Report, stop: int) -> dict[str, object]:
    """The state in which a stretch on the way to a rung was cut short, and what it cost."""
    return {
        "stop": stop,
        "examples": report.examples_seen,
        "checkpoint": report.checkpoint,
        "seconds": report.seconds,
        "tokens": report.tokens,
    }


def entry(report: Report) -> str:
    """The report without what it says of single rows, as JSON."""
    return json.dumps(asdict(dataclasses.replace(report, rows=(), replies=(), probed=())))


def standing_of(frozen: FrozenTrial, *, seed: int, base: str) -> Standing:
    """Where the trial stands by its entries; "paused" unless it has ended."""
    attributes = frozen.user_attrs
    recipe = _recipe(attributes[RECIPE])
    trial = Trial(id=str(frozen.number), number=frozen.number, recipe=recipe, seed=seed, base=base)
    rungs = sorted((int(key.removeprefix(_RUNG)), key) for key in attributes if key.startswith(_RUNG))
    reports = tuple(_report(attributes[key]) for _, key in rungs)
    if END in attributes:
        end = _report(attributes[END])
        state = cast("State", end.state)
        return Standing(trial=trial, state=state, reports=(*reports, end), reason=end.error)
    return Standing(trial=trial, state=_STATES.get(frozen.state, "paused"), reports=reports)


def _recipe(kept: Mapping[str, object]) -> Recipe:
    modules = kept["target_modules"]
    fixed = modules if isinstance(modules, str) else tuple(cast("list[str]", modules))
    return Recipe(**{**kept, "target_modules": fixed})  # type: ignore[arg-type]


def _report(kept: str) -> Report:
    return Report(**{**json.loads(kept), "rows": (), "replies": (), "probed": ()})
