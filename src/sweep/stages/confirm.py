"""The winner against the defaults, on rows that the search never saw."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

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

    record: a file that keeps the rows' losses, so that a repeated call with the same trials scores nothing.
    Source of the interval: paired bootstrap over groups of similar rows.
    """
    jobs = [_scoring_job(standing) for standing in (best, defaults)]
    rows = _recorded(jobs, record)
    if rows is None:
        reports = run_jobs(jobs, backend)
        rows = {job.id: reports[job.id].rows for job in jobs}
        _write(jobs, rows, record)
    first, second = (rows[job.id] for job in jobs)
    difference = paired_difference(first, second, clusters=groups, seed=seed)
    return Confirmation(
        best=loss_score(first),
        defaults=loss_score(second),
        difference=difference,
        verdict=_verdict(difference, same=best.trial.id == defaults.trial.id),
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


def _verdict(difference: Difference, *, same: bool) -> Verdict:
    passed = difference.high < 0
    message = (
        "the search found nothing better than the defaults"
        if same
        else f"the winner's loss is lower than the defaults' by {-difference.value:.4f} nats per token"
        if passed
        else "the difference to the defaults could be chance: more rows or more trials would tell"
    )
    return Verdict(
        check="beats_defaults",
        passed=passed,
        severity="warn",
        value=difference.value,
        limit=0.0,
        message=message,
    )


def _key(jobs: list[Job]) -> list[object]:
    return [[job.id, job.checkpoint, asdict(job.trial)] for job in jobs]


def _recorded(jobs: list[Job], record: Path) -> dict[str, tuple[RowLoss, ...]] | None:
    if not record.is_file():
        return None
    stored = json.loads(record.read_text())
    if stored["key"] != json.loads(json.dumps(_key(jobs))):
        return None
    return {job: tuple(RowLoss(*row) for row in rows) for job, rows in stored["rows"].items()}


def _write(jobs: list[Job], rows: Mapping[str, tuple[RowLoss, ...]], record: Path) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    aside = record.with_suffix(".tmp")
    aside.write_text(json.dumps({"key": _key(jobs), "rows": rows}))
    aside.replace(record)
