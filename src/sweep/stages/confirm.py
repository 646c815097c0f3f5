"""The winner against the defaults, on rows that the search never saw."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from sweep.errors import CheckpointError
from sweep.evaluation.compare import CONFIDENCE, FEWEST_CLUSTERS, Confirmation, Difference, paired_difference
from sweep.evaluation.metrics import score
from sweep.paths import write_whole
from sweep.search.loop import run_jobs
from sweep.types import Backend, Job, Metric, RowLoss, Standing, Verdict, View

_CONFIRM = View("confirm")


@dataclass(frozen=True, kw_only=True)
class Record:
    """A file that keeps the rows' losses, so that the same trials of the same study are scored once."""

    path: Path
    study: str

    def read(self, jobs: Mapping[str, Job]) -> dict[str, tuple[RowLoss, ...]] | None:
        """The losses by trial, None where the file holds other ones."""
        if not self.path.is_file():
            return None
        stored = json.loads(self.path.read_text())
        if stored["key"] != json.loads(json.dumps(self._key(jobs))):
            return None
        return {trial: tuple(RowLoss(*row) for row in rows) for trial, rows in stored["rows"].items()}

    def write(self, jobs: Mapping[str, Job], rows: Mapping[str, tuple[RowLoss, ...]]) -> None:
        write_whole(self.path, json.dumps({"key": self._key(jobs), "rows": rows}))

    def _key(self, jobs: Mapping[str, Job]) -> list[object]:
        return [self.study, *([job.checkpoint, asdict(job.trial)] for job in jobs.values())]


def confirm(
    best: Standing,
    defaults: Standing,
    backend: Backend,
    *,
    groups: Mapping[str, int],
    seed: int,
    metrics: Mapping[str, Metric],
    record: Record,
) -> Confirmation:
    """Both trials as they were trained in the search, scored on the confirm split.

    Where the defaults did not come to their end, the winner is scored alone, and the verdict says so.
    Source of the interval: paired bootstrap over groups of similar rows.
    """
    compared = [best, defaults] if defaults.state == "complete" else [best]
    jobs = {standing.trial.id: _scoring_job(standing) for standing in compared}
    rows = record.read(jobs)
    if rows is None:
        reports = run_jobs(list(jobs.values()), backend)
        if failed := [report for report in reports.values() if report.state != "reached"]:
            raise CheckpointError(f"trial {failed[0].trial} could not be scored again: {failed[0].error}")
        rows = {trial: reports[job.id].rows for trial, job in jobs.items()}
        record.write(jobs, rows)
    first, second = rows[best.trial.id], rows.get(defaults.trial.id)
    difference = paired_difference(first, second, clusters=groups, seed=seed) if second else None
    return Confirmation(
        trial=best.trial.id,
        best=score(first, metrics),
        defaults=score(second, metrics) if second else None,
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


def _verdict(difference: Difference | None, *, best: Standing, defaults: Standing) -> Verdict:
    # Few groups that all favour one side make an interval without zero, whatever the truth.
    passed = (
        difference is not None
        and difference.clusters >= FEWEST_CLUSTERS
        and difference.high < 0
        and difference.p_value < 1 - CONFIDENCE
    )
    if difference is None:
        message = f"the defaults ended as {defaults.state}, so there is nothing to compare with"
    elif best.trial.id == defaults.trial.id:
        message = "the search found nothing better than the defaults"
    elif difference.clusters < FEWEST_CLUSTERS:
        message = (
            f"{difference.clusters} independent groups of rows are too few to tell: at least "
            f"{FEWEST_CLUSTERS} must be there; give more data or a larger data.split.confirm"
        )
    elif passed:
        message = f"the winner's loss is lower than the defaults' by {-difference.value:.4f} nats per token"
    else:
        message = "the difference to the defaults could be chance: more rows or more trials would tell"
    return Verdict(
        check="beats_defaults",
        passed=passed,
        severity="warn",
        value=difference.value if difference else math.nan,
        limit=0.0,
        message=message,
    )
