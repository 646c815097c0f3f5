"""The winner against the defaults, on rows that the search never saw."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from sweep.errors import CheckpointError
from sweep.evaluation.compare import Difference, loss_score, paired_difference
from sweep.search.loop import run_jobs
from sweep.types import Backend, Job, RowLoss, Score, Standing, Verdict, View

_CONFIRM = View("confirm")


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """Scores on the confirm split. difference: the winner's loss minus the defaults', row by row."""

    best: Score
    defaults: Score
    difference: Difference
    verdict: Verdict


def confirm(
    best: Standing,
    defaults: Standing,
    backend: Backend,
    *,
    groups: Mapping[str, int],
    seed: int,
    record: Path,
) -> Confirmation:
    """Both trials as they were trained in the search, scored on the confirm split.

    Where the defaults did not come to their end, the winner is compared with itself, and the verdict
    says so. record: a file that keeps the rows' losses, so that a repeated call with the same trials
    scores nothing. Source of the interval: paired bootstrap over groups of similar rows.
    """
    reference = defaults if defaults.state == "complete" else best
    jobs = {standing.trial.id: _scoring_job(standing) for standing in (best, reference)}
    rows = _recorded(jobs, record)
    if rows is None:
        reports = run_jobs(list(jobs.values()), backend)
        if failed := [report for report in reports.values() if report.state != "reached"]:
            raise CheckpointError(f"trial {failed[0].trial} could not be scored again: {failed[0].error}")
        rows = {trial: reports[job.id].rows for trial, job in jobs.items()}
        _write(jobs, rows, record)
    first, second = rows[best.trial.id], rows[reference.trial.id]
    difference = paired_difference(first, second, clusters=groups, seed=seed)
    return Confirmation(
        best=loss_score(first),
        defaults=loss_score(second),
        difference=difference,
        verdict=_verdict(difference, best=best, defaults=defaults),
    )


def _scoring_job(standing: Standing) -> Job:
    last = standing.reports[-1]
    return Job(
        id=f"confirm/{standing.trial.id}",
        attempt=0,
        trial=standing.trial,
        start=last.examples_seen,
        stop=last.examples_seen,
        horizon=last.examples_seen,
        checkpoint=last.checkpoint,
        train=View("train"),
        evaluation=_CONFIRM,
    )


def _verdict(difference: Difference, *, best: Standing, defaults: Standing) -> Verdict:
    passed = difference.high < 0
    if defaults.state != "complete":
        message = f"the defaults ended as {defaults.state}, so there is nothing to compare with"
    elif best.trial.id == defaults.trial.id:
        message = "the search found nothing better than the defaults"
    elif passed:
        message = f"the winner's loss is lower than the defaults' by {-difference.value:.4f} nats per token"
    else:
        message = "the difference to the defaults could be chance: more rows or more trials would tell"
    return Verdict(
        check="beats_defaults",
        passed=passed,
        severity="warn",
        value=difference.value,
        limit=0.0,
        message=message,
    )


def _key(jobs: Mapping[str, Job]) -> list[object]:
    return [[job.checkpoint, asdict(job.trial)] for job in jobs.values()]


def _recorded(jobs: Mapping[str, Job], record: Path) -> dict[str, tuple[RowLoss, ...]] | None:
    if not record.is_file():
        return None
    stored = json.loads(record.read_text())
    if stored["key"] != json.loads(json.dumps(_key(jobs))):
        return None
    return {trial: tuple(RowLoss(*row) for row in rows) for trial, rows in stored["rows"].items()}


def _write(jobs: Mapping[str, Job], rows: Mapping[str, tuple[RowLoss, ...]], record: Path) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    aside = record.with_suffix(".tmp")
    aside.write_text(json.dumps({"key": _key(jobs), "rows": rows}))
    aside.replace(record)
