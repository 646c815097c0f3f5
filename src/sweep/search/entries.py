"""How a study and its trials are kept in Optuna: names and forms of the entries."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from sweep.evaluation.compare import loss_score
from sweep.evaluation.course import changed, rose_twice
from sweep.evaluation.folds import ERROR, ROWS, mean_of_folds
from sweep.evaluation.guards import constraints
from sweep.evaluation.metrics import LOSS, measured
from sweep.types import Aimed, Metric, Recipe, Report, RowLoss, RowProbe, Standing, Trial, Verdict
from sweep.types import TrialState as State

# Of a study: what was planned; over all starts the search's seconds, and what the whole sweep spent; facts
# that stages keep.
OUTLINE = "outline"
SECONDS = "seconds"
SPENT = "spent"
NOTE = "note:"
# Of a trial: its recipe, the job that is out, a state between rungs, how it ended badly; what its guards
# found; its values by several aims; the state after an earlier rung, scored again because it is the one that
# counts.
AGAIN = "again"
AIMS = "aims"
END = "end"
GUARDS = "guards"
JOB = "job"
RECIPE = "recipe"
STOPPED = "stopped"

_RUNG = "rung:"
# Enough rows to tell a rise by, and few enough for any database's text column.
_ROWS_KEPT = 1024
_STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def rung_key(examples: int) -> str:
    """The entry's name for the rung after so many examples."""
    return f"{_RUNG}{examples}"


def next_attempt(entries: Mapping[str, Any], stop: int) -> int:
    """Of the trial's job to that stop: one more than that of the last that was handed out to it."""
    out = entries.get(JOB)
    return int(out["attempt"]) + 1 if out and out["stop"] == stop else 0


def on_its_way(entries: Mapping[str, Any], reached: int) -> bool:
    """Whether the trial was last handed out to get further than that, or never yet."""
    return JOB not in entries or bool(entries[JOB]["stop"] > reached)


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


def judged_by(report: Report, name: str, metrics: Mapping[str, Metric]) -> Report:
    """The report with that metric's value where the loss was, which then stands among the metrics.

    Failed where the metric gives no number.
    """
    if name == LOSS or report.state != "reached":
        return report
    value = measured(report.rows, {name: metrics[name]}).get(name)
    if value is None:
        reason = (
            f"objective.rung_metric={name} gave no number for its rows; mend metric.{name}, or choose loss"
        )
        return dataclasses.replace(report, state="failed", validation_loss=None, error=reason)
    beside = {LOSS: report.validation_loss} if report.validation_loss is not None else {}
    return dataclasses.replace(report, validation_loss=value, metrics={**report.metrics, **beside})


def rung_entry(
    report: Report,
    rung: int,
    metrics: Mapping[str, Metric],
    *,
    before: str | None,
    verdicts: Sequence[Verdict],
    probed: Sequence[RowProbe] = (),
) -> str:
    """The report as it is kept: its rows become a standard error and metrics, overshoot is left out.

    before: the entry of the rung before, for the change since. verdicts: of guards, whose values are metrics.
    probed: rows that guards have yet to judge.
    """
    found = {**report.metrics, **measured(report.rows, metrics)}
    if report.rows:
        score = loss_score(report.rows)
        found |= {ERROR: score.standard_error, ROWS: float(score.examples)}
    if before is not None:
        found |= changed(report.rows, _unpacked(json.loads(before)["rows"]))
    found |= {f"guard/{one.check}": one.value for one in verdicts if math.isfinite(one.value)}
    kept = dataclasses.replace(report, examples_seen=rung, metrics=found, rows=(), replies=(), probed=())
    return json.dumps({**asdict(kept), "rows": _packed(report.rows), "probed": probed})


def probed_of(entry: str) -> list[RowProbe]:
    """The rows that it was kept with."""
    return [RowProbe(*row) for row in json.loads(entry)["probed"]]


def guards_entry(verdicts: Sequence[Verdict]) -> str:
    """What the guards found, as JSON."""
    return json.dumps([asdict(verdict) for verdict in verdicts])


def aims_entry(aims: Sequence[Aimed]) -> str:
    """Values by several aims, each with what a reader must know of it, as JSON."""
    return json.dumps([one._asdict() for one in aims])


def stopped_entry(report: Report, stop: int) -> dict[str, object]:
    """The state in which a stretch on the way to a rung was cut short, and what it cost."""
    return {
        "stop": stop,
        "examples": report.examples_seen,
        "checkpoint": report.checkpoint,
        "seconds": report.seconds,
        "tokens": report.tokens,
    }


def with_stopped(report: Report, stop: int, entries: Mapping[str, Any]) -> Report:
    """The report with what earlier, stopped stretches of the trial on the way to the same rung cost."""
    before = entries.get(STOPPED)
    if before is None or before["stop"] != stop or rung_key(stop) in entries:
        return report
    seconds, tokens = report.seconds + before["seconds"], report.tokens + before["tokens"]
    return dataclasses.replace(report, seconds=seconds, tokens=tokens)


def entry(report: Report) -> str:
    """The report without what it says of single rows, as JSON."""
    return json.dumps(asdict(dataclasses.replace(report, rows=(), replies=(), probed=())))


def standing_of(frozen: FrozenTrial, *, seed: int, base: str, folds: int | None) -> Standing:
    """Where the trial stands by its entries; "paused" unless it has ended. folds: as in `Plan`."""
    attributes = frozen.user_attrs
    recipe = _recipe(attributes[RECIPE])
    trial = Trial(id=str(frozen.number), number=frozen.number, recipe=recipe, seed=seed, base=base)
    rungs = sorted((int(key.removeprefix(_RUNG)), key) for key in attributes if key.startswith(_RUNG))
    reports = tuple(_report(attributes[key]) for _, key in rungs)
    if folds and reports:
        reports = (*reports, mean_of_folds(reports))
    if END in attributes:
        end = _report(attributes[END])
        state = cast("State", end.state)
        return Standing(trial=trial, state=state, reports=(*reports, end), reason=end.error, folds=folds)
    if AGAIN in attributes:
        reports = (*reports, _report(attributes[AGAIN]))
    verdicts = tuple(Verdict(**verdict) for verdict in json.loads(attributes.get(GUARDS, "[]")))
    standing = Standing(
        trial=trial,
        state=_STATES.get(frozen.state, "paused"),
        reports=reports,
        verdicts=verdicts,
        violation=constraints(verdicts),
        folds=folds,
        # Without the report they are of a job that did not come to its end.
        aims=tuple(Aimed(**one) for one in json.loads(attributes.get(AIMS, "[]"))) if reports else (),
    )
    return dataclasses.replace(standing, reason=_reason(standing))


def _reason(standing: Standing) -> str | None:
    """What is to be said of a complete trial that can't win, or that its last state does not stand for."""
    if standing.state != "complete":
        return None
    told = [one.message for one in standing.verdicts if one.check in standing.broken]
    reasons = [f"fails guard {', '.join(standing.broken)}: {'; '.join(told)}"] if told else []
    counts, reached = standing.reports[-1].examples_seen, standing.reached
    if counts < reached:
        rose = "had risen twice in a row" if rose_twice(standing.rungs) else "was higher"
        reasons.append(f"judged by its state after {counts} examples: its loss {rose} after {reached}")
    return "; ".join(reasons) or None


def _recipe(kept: Mapping[str, object]) -> Recipe:
    modules = kept["target_modules"]
    fixed = modules if isinstance(modules, str) else tuple(cast("list[str]", modules))
    return Recipe(**{**kept, "target_modules": fixed})  # type: ignore[arg-type]


def _report(kept: str) -> Report:
    return Report(**{**json.loads(kept), "rows": (), "replies": (), "probed": ()})


def _packed(rows: Sequence[RowLoss]) -> str:
    """Nats of the first rows. Who they are the next report says: all rungs begin with the same rows."""
    nats = np.array([row.nats for row in rows[:_ROWS_KEPT]], dtype="<f8")
    return base64.b64encode(nats.tobytes()).decode()


def _unpacked(kept: str) -> list[float]:
    return list(np.frombuffer(base64.b64decode(kept), dtype="<f8").tolist())
