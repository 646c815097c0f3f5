"""A recipe on its way to its end, in production: jobs, states found again, how it stands."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import asdict

from sweep.assembly import Assembly
from sweep.commands import interruptible
from sweep.engines import checkpoint
from sweep.errors import TrainingError
from sweep.reporting.console import Transcript
from sweep.search.length import Length, length_of
from sweep.search.loop import Jobs, run_jobs
from sweep.search.states import START_AGAIN, judged_broken
from sweep.tracking.mlflow import Tracker
from sweep.types import BestConfig, Job, Progress, Report, Split, Standing, Trial, TrialState, View

# A killed training loses at most one part.
_PARTS = 4


class Training:
    """One recipe on its way to its end: makes its jobs, keeps its standing, tells of each tenth step."""

    def __init__(self, trial: Trial, length: Length, assembly: Assembly, told: Transcript) -> None:
        self.trial = trial
        self.length = length
        self.assembly = assembly
        self.standing = Standing(trial=trial, state="running", reports=())
        self.tracker: Tracker | None = None
        # A pool of folds leaves no validation rows.
        self.watched: Split = "confirm" if assembly.data.folds else "validation"
        self._told = told
        self._steps = 0

    def run(self) -> None:
        """Train to the end, from the newest whole checkpoint on. Interrupted, the step that runs is kept.

        The one before it is kept on the way, in case it is found broken.
        """
        seen, state = self._newest_checkpoint()
        if seen:
            self._told.more(f"going on from {seen} of {self.length.stop} examples")
        for stop in parts(seen, self.length.stop, self.trial.recipe.batch_size):
            job = self._job(seen, stop, state, self.watched)
            jobs = Jobs([job])
            with interruptible(jobs.interrupt):
                reports = run_jobs(jobs, self.assembly.backend, [self])
            report = judged_broken(reports[job.id], job)
            if report.state == "broken":
                self._told.more(f"warning: {report.error}")
                self.run()
                return
            seen, state = stop, _reached(report, "training").checkpoint
            checkpoint.keep_newest(self._place, 1 if seen == self.length.stop else 2)

    def scored(self) -> tuple[Report, Report]:
        """The golden rows' losses with the adapter and without. Raises TrainingError."""
        end, trained = self.length.stop, self.standing.reports[-1].checkpoint
        jobs = [self._job(end, end, trained, "golden"), self._job(0, 0, None, "golden")]
        reports = run_jobs(jobs, self.assembly.backend)
        judged = (judged_broken(reports[job.id], job) for job in jobs)
        first, second = (_reached(report, "scoring the golden rows") for report in judged)
        return first, second

    def log(self, event: Progress | Report) -> None:
        if isinstance(event, Report):
            self._take(event)
            loss = event.validation_loss
            result = event.state if loss is None else f"{self.watched} loss {loss:.4f}"
            self._told.more(f"{event.examples_seen:>7} examples  {result}")
        else:
            self._steps += 1
            if self._steps % 10 == 0:
                self._told.more(f"{event.examples_seen:>7} examples  train loss {event.train_loss:.4f}")
        if self.tracker is not None:
            self.tracker.log(event)

    @property
    def _place(self) -> str:
        """Below which its states lie, by examples seen."""
        return f"{self.assembly.checkpoints}/{self.trial.id}"

    def _newest_checkpoint(self) -> tuple[int, str | None]:
        """Examples seen and place; 0 and None before the first."""
        return checkpoint.latest(self._place) or (0, None)

    def _job(self, start: int, stop: int, state: str | None, evaluation: Split) -> Job:
        """Scored on as many of the watched rows as a rung of the search is, or on every golden row."""
        rows = self.assembly.config.evaluation.rows if evaluation == self.watched else None
        return Job(
            id=f"{self.trial.id}@{stop}/{evaluation}",
            attempt=0,
            trial=self.trial,
            start=start,
            stop=stop,
            horizon=self.length.horizon,
            checkpoint=state,
            train=View("train"),
            evaluation=View(evaluation, rows),
        )

    def _take(self, report: Report) -> None:
        if report.state == "stopped" or report.state == "broken":
            return
        state: TrialState = "running"
        if report.state != "reached":
            state = report.state
        elif report.examples_seen >= self.length.stop:
            state = "complete"
        reports = (*self.standing.reports, dataclasses.replace(report, rows=()))
        self.standing = dataclasses.replace(self.standing, state=state, reports=reports, reason=report.error)


def training_of(assembly: Assembly, best: BestConfig | None, told: Transcript) -> Training:
    """The training of the recipe that was found, else of the configured one."""
    config = assembly.config
    recipe = best.recipe if best else config.recipe
    found = asdict(best) if best else config.best or {}
    length = length_of(recipe, found, rows=len(assembly.data.examples["train"]))
    given = [
        asdict(recipe),
        length,
        assembly.data.fingerprint,
        assembly.model.identity,
        dict(assembly.model_description),
        config.engine.cls.__name__,
        config.seed,
        config.data.max_tokens,
    ]
    key = hashlib.sha256(json.dumps(given).encode()).hexdigest()[:12]
    trial = Trial(
        id=f"train/{key}", number=None, recipe=recipe, seed=config.seed, base=assembly.model.identity
    )
    return Training(trial, length, assembly, told)


def parts(seen: int, end: int, batch_size: int) -> list[int]:
    """Where training pauses to keep a checkpoint, after whole steps; the last is the end.

    Begun at the end, it is all that is left: to be scored again.
    """
    steps = end // batch_size
    stops = {steps * part // _PARTS * batch_size for part in range(1, _PARTS)}
    return [*sorted(stop for stop in stops if seen < stop < end), end]


def _reached(report: Report, doing: str) -> Report:
    if report.state != "reached":
        again = f" {START_AGAIN}" if report.state == "broken" else ""
        raise TrainingError(
            f"{doing} ended as {report.state} at {report.examples_seen} examples: {report.error}{again}"
        )
    return report
