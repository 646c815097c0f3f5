"""Trials trained again with fresh seeds, and what is asked of them: each job once, through the backend."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple, cast

from sweep.errors import TrainingError
from sweep.evaluation.compare import FEWEST_CLUSTERS
from sweep.evaluation.learning_curve import PARTS
from sweep.schema import require
from sweep.search.study import Study
from sweep.stages.kept import drop_states, missing, run_kept
from sweep.stages.yardstick import Measured, Yardstick
from sweep.types import Asking, Backend, Job, Probe, Report, RowLoss, RowProbe, Standing, Trial, View

_logger = logging.getLogger("sweep.stages")


@dataclass(frozen=True, kw_only=True)
class Confirm:
    """How much confirmation does.

    top_k: trials trained again, the recipe's own values beside them. seeds: fresh ones for each. rows: of the
    confirm and of the test split, None for all.
    """

    top_k: int
    seeds: int
    rows: int | None

    def __post_init__(self) -> None:
        require("confirm.top_k", self.top_k, self.top_k >= 1, "at least 1")
        require("confirm.seeds", self.seeds, self.seeds >= 2, "at least 2: one can't tell luck from merit")
        enough = self.rows is None or self.rows >= FEWEST_CLUSTERS
        require("confirm.rows", self.rows, enough, f"at least {FEWEST_CLUSTERS}, or null for all")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trial of the search, trained again: by seed its job, its report, and what it is worth."""

    standing: Standing
    jobs: Mapping[int, Job]
    reports: Mapping[int, Report]
    measured: Mapping[int, Measured]

    @property
    def loss(self) -> float:
        """On the rows that chose, the mean of the seeds."""
        return fmean(cast("float", report.validation_loss) for report in self.reports.values())

    @property
    def runs(self) -> tuple[Standing, ...]:
        """Each training as a standing of its own."""
        return tuple(
            Standing(trial=self.jobs[seed].trial, state="complete", reports=(report,))
            for seed, report in self.reports.items()
        )


class SideEffects(NamedTuple):
    """Rows probed for what was learnt by heart; losses on unrelated text, of the base model and after."""

    probed: Sequence[RowProbe]
    general_before: Sequence[RowLoss]
    general_after: Sequence[RowLoss]


@dataclass(frozen=True, kw_only=True)
class Finalists:
    """The finalists' jobs. probe: of the winner, for what it learnt by heart. folder: for reports."""

    study: Study
    yardstick: Yardstick
    backend: Backend
    asked: Confirm
    probe: Probe | None
    folder: Path

    def trained(self, trials: Sequence[str]) -> dict[str, Trained]:
        """Those that came to their end with every seed, in this order, measured on the confirm split.

        The others are left out with a warning. Raises TrainingError where none does.
        """
        view = self.view("confirm")
        jobs = self._trainings(trials)
        reports = self._run([job for of_trial in jobs.values() for job in of_trial.values()])
        found = {}
        for trial, of_trial in jobs.items():
            mine = {seed: reports[job.id] for seed, job in of_trial.items()}
            if bad := [report for report in mine.values() if report.state != "reached"]:
                _logger.warning("Trial %s is no finalist: %s with a fresh seed: %s", trial, *_end(bad[0]))
                continue
            found[trial] = Trained(
                standing=self.study.standing(trial),
                jobs=of_trial,
                reports=mine,
                measured={seed: self.yardstick.of_report(view, report) for seed, report in mine.items()},
            )
        if not found:
            reasons = sorted({": ".join(_end(report)) for report in reports.values()})
            raise TrainingError(
                "None of the finalists came to its end with fresh seeds.\n  " + "\n  ".join(reasons)
            )
        return found

    def untrained(self, trials: Sequence[str]) -> int:
        """How many trainings `trained` would run, each of which leaves a state."""
        jobs = [job for of_trial in self._trainings(trials).values() for job in of_trial.values()]
        return len(missing(jobs, path=self._kept, key=self._key))

    def tested(self, trained: Trained) -> dict[int, Measured]:
        """The same seeds on the test split. Raises TrainingError where one can't be scored."""
        view = self.view("test")
        reports = self._scored(trained, view, asked=self.yardstick.asking(view))
        return {seed: self.yardstick.of_report(view, report) for seed, report in reports.items()}

    def replies(self, trained: Trained) -> list[str]:
        """What the seeds answered to the confirm split's rows; nothing where they were not asked."""
        return [reply.text for report in trained.reports.values() for reply in report.replies]

    def side_effects(self, trained: Trained) -> SideEffects:
        """What training did to the trial's model beside its purpose, all seeds together."""
        view = View("general")
        base = self._job("general/base", next(iter(trained.jobs.values())), view, checkpoint=None)
        before = self._reached([base])["general/base"].rows
        after = self._scored(trained, view, probe=self.probe)
        return SideEffects(
            probed=[
                row._replace(row=f"{row.row}/{seed}")
                for seed, report in after.items()
                for row in report.probed
            ],
            general_before=before,
            general_after=[
                row._replace(row=f"{row.row}/{seed}") for seed, report in after.items() for row in report.rows
            ],
        )

    def losses_by_rows(self, trained: Trained) -> dict[float, float] | None:
        """Loss on the confirm split by share of the train split, after the same number of epochs each.

        None where a run of the recipe does not see all rows.
        """
        (seed, like), *_ = trained.jobs.items()
        rows, view = self.study.plan.train_rows, self.view("confirm")
        if like.horizon < rows:
            return None
        jobs = {
            share: dataclasses.replace(
                self._training(trained.standing.trial.id, seed, view),
                id=f"curve/{like.trial.id}/{share:g}",
                trial=dataclasses.replace(like.trial, id=f"{like.trial.id}/rows{share:g}"),
                stop=math.ceil(share * like.horizon),
                horizon=math.ceil(share * like.horizon),
                train=View("train", math.ceil(share * rows)),
                asked=None,
            )
            for share in PARTS
        }
        reports = self._run(list(jobs.values()))
        drop_states(list(jobs.values()), path=self._kept, key=self._key)
        losses = {share: reports[job.id].validation_loss for share, job in jobs.items()}
        found = {share: loss for share, loss in losses.items() if loss is not None}
        whole = trained.reports[seed].validation_loss
        return {**found, 1.0: whole} if whole is not None and len(found) == len(PARTS) else None

    def view(self, split: str) -> View:
        """The rows of the confirm or the test split that confirmation looks at."""
        assert split in ("confirm", "test")
        return View("confirm" if split == "confirm" else "test", self.asked.rows)

    def _trainings(self, trials: Sequence[str]) -> dict[str, dict[int, Job]]:
        view, seeds = self.view("confirm"), range(1, self.asked.seeds + 1)
        return {trial: {seed: self._training(trial, seed, view) for seed in seeds} for trial in trials}

    def _training(self, trial: str, seed: int, view: View) -> Job:
        standing = self.study.standing(trial)
        searched = standing.trial
        stop, horizon = self.study.route.whole(standing)
        return Job(
            id=f"confirm/{trial}/{seed}",
            attempt=0,
            trial=Trial(
                id=f"{trial}/seed{seed}",
                number=None,
                recipe=searched.recipe,
                seed=_fresh(self.study.plan.seed, seed),
                base=searched.base,
            ),
            start=0,
            stop=stop,
            horizon=horizon,
            checkpoint=None,
            train=View("train"),
            evaluation=view,
            asked=self.yardstick.asking(view),
        )

    def _scored(
        self, trained: Trained, view: View, *, asked: Asking | None = None, probe: Probe | None = None
    ) -> dict[int, Report]:
        jobs = {}
        for seed, job in trained.jobs.items():
            scores = self._job(
                f"{view.split}/{job.trial.id}", job, view, checkpoint=trained.reports[seed].checkpoint
            )
            jobs[seed] = dataclasses.replace(scores, asked=asked, probe=probe)
        reports = self._reached(list(jobs.values()))
        return {seed: reports[job.id] for seed, job in jobs.items()}

    def _job(self, name: str, like: Job, view: View, *, checkpoint: str | None) -> Job:
        """Scores, and trains nothing. Without a checkpoint that is the base model."""
        stop = like.stop if checkpoint else 0
        return Job(
            id=name,
            attempt=0,
            trial=like.trial,
            start=stop,
            stop=stop,
            horizon=like.horizon,
            checkpoint=checkpoint,
            train=like.train,
            evaluation=view,
        )

    def _reached(self, jobs: Sequence[Job]) -> dict[str, Report]:
        reports = self._run(jobs)
        if bad := [report for report in reports.values() if report.state != "reached"]:
            raise TrainingError(
                f"{bad[0].job} could not be scored; {': '.join(_end(bad[0]))}. Mend the cause and start the "
                "same command again: what was trained is kept."
            )
        return reports

    def _run(self, jobs: Sequence[Job]) -> dict[str, Report]:
        return run_kept(jobs, self.backend, path=self._kept, key=self._key)

    @property
    def _kept(self) -> Path:
        return self.folder / "confirm.json"

    @property
    def _key(self) -> list[str]:
        return [self.study.fingerprint, self.yardstick.data.fingerprint]


def _end(report: Report) -> tuple[str, str]:
    return report.state, report.error or "no reason was given"


def _fresh(seed: int, number: int) -> int:
    """A seed that no trial of the search has, the same for all finalists: they see the same rows in turn."""
    return int.from_bytes(hashlib.sha256(f"{seed}/confirm/{number}".encode()).digest()[:4], "big")
