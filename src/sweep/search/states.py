"""The states of trials on disk: which to go on from, which stay, what becomes of a broken one.

A trial that may go on keeps the newest state, from which it does; the one that would count if it were judged
now; and the one before, in case the newest is found broken. A complete one keeps the state that counts, as a
result. Whatever else there is goes once the report that makes it useless is stored, and with it the states of
paused trials that the scheduler can't choose any more. The one before and those of complete trials are spare:
where room is short they go as well. No state that is gone costs a trial: it goes on from an earlier one, or
begins again.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sweep.engines import checkpoint
from sweep.errors import CheckpointError, TrainingError
from sweep.types import Job, Report, Standing

# Who finds a state broken may be the one that reads it wrongly.
_WHOLE_HERE = "Here it is whole: `checkpoints` must be a place that every worker reads as this machine does."
# Who found a state broken tells this.
START_AGAIN = "Start the same command again, which trains up to it once more and keeps all else."

_logger = logging.getLogger("sweep.search")


class Needed(NamedTuple):
    """The states of a trial that stay. spare: as long as there is room."""

    kept: frozenset[str] = frozenset()
    spare: frozenset[str] = frozenset()


def places(reports: Iterable[Report]) -> frozenset[str]:
    """Of the states that these reports left."""
    return frozenset(report.checkpoint for report in reports if report.checkpoint)


def newest(standing: Standing, stopped: Mapping[str, Any] | None, *, most: int) -> tuple[int, str | None]:
    """Examples seen and checkpoint to go on from: the newest that is whole, else the beginning.

    stopped: the state in which a job was cut short, if one was. most: examples that it may have seen.
    """
    broken: CheckpointError | None = None
    found: tuple[int, str | None] = 0, None
    known = {report.examples_seen: report.checkpoint for report in standing.reports}
    if stopped:
        known[stopped["examples"]] = stopped["checkpoint"]
    for examples, state in sorted(known.items(), reverse=True):
        if state is None or examples > most:
            continue
        try:
            found = examples, checkpoint.whole(state)
            break
        except CheckpointError as error:
            broken = broken or error
    if broken:
        _logger.warning(
            "Trial %s goes on from an earlier state, %d examples: %s", standing.trial.id, found[0], broken
        )
    return found


def without_broken(report: Report, job: Job) -> Report:
    """The report of a job of the search; where its checkpoint was broken and went, the job stopped there."""
    report = judged_broken(report, job)
    if report.state != "broken":
        return report
    _logger.warning("Trial %s goes on from an earlier state: %s", job.trial.id, report.error)
    return dataclasses.replace(report, state="stopped", checkpoint=None)


def judged_broken(report: Report, job: Job) -> Report:
    """The report; one that says "broken" only where the job's checkpoint is, and that is removed then.

    Where its files are as they were written, its worker can't read them, and the job has failed.
    """
    if report.state != "broken":
        return report
    if job.checkpoint is None:
        return dataclasses.replace(report, state="failed")
    if not _remove_broken(job.checkpoint):
        return dataclasses.replace(report, state="failed", error=f"{report.error} {_WHOLE_HERE}")
    return report


def exported(state: str, target: Path) -> Path:
    """The state's adapter alone, in PEFT's layout, as the target.

    Raises TrainingError where the state is broken: it is removed, and the next start trains it again.
    """
    try:
        return checkpoint.export_adapter(state, target)
    except CheckpointError as error:
        if not _remove_broken(state):
            raise
        raise TrainingError(f"{error} {START_AGAIN}") from error


def _remove_broken(state: str) -> bool:
    """Whether it was broken, wherever it lies; what is whole here stays."""
    if not checkpoint.is_broken(state):
        return False
    checkpoint.remove(state)
    return True
