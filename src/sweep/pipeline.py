"""The stages of a sweep in their order, and what they print."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from sweep.analysis.axes import title
from sweep.assembly import Assembly, assemble, git_commit, only_driver, record_of
from sweep.commands import interruptible
from sweep.config import Config
from sweep.errors import ModelError, TrainingError
from sweep.reporting.console import Transcript
from sweep.reporting.live import Scoreboard, duration, parameters_of
from sweep.search.loop import run_jobs, search
from sweep.search.storage import open_storage
from sweep.search.study import Plan, Study
from sweep.stages.analyse import Analysis, analyse
from sweep.stages.confirm import Confirmation, Record, confirm
from sweep.stages.publish import Published, publish
from sweep.tracking.best import training_command
from sweep.tracking.mlflow import Tracker
from sweep.types import SPLITS, BestConfig, Job, Score, Standing, Trial, View

# Of the minutes given; the rest is for what follows the search.
_SEARCH_SHARE = 0.8
# A trained example against a scored one on two cores, each job's start and checkpoint included.
_TRAINING_COST = 4.5


class Pipeline:
    """One sweep, from data to best configuration. Each stage finds what an earlier start has done."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._told = Transcript()
        self._begun = time.monotonic()

    def run(self) -> int:
        """All stages; the exit code."""
        config = self._config
        with interruptible(), only_driver(Path(config.output)):
            self._told.title("sweep", config.experiment)
            assembly = assemble(config)
            self._tell_data(assembly)
            study = self._open_study(assembly)
            tracker = self._open_tracker(assembly, study)
            with closing(assembly.backend), tracker:
                self._tell_expectation(assembly, study)
                self._search(assembly, study, tracker)
                self._conclude(assembly, study, tracker)
        return 0

    # Stages

    def _tell_data(self, assembly: Assembly) -> None:
        rows = assembly.data.examples
        sizes = "  ".join(f"{name} {len(rows[name])}" for name in SPLITS)
        total = sum(len(rows[name]) for name in SPLITS)
        self._told.stage("data", f"{total} rows of {self._config.data.path}: {sizes}")
        for note in assembly.data.notes:
            self._told.more(note)

    def _open_study(self, assembly: Assembly) -> Study:
        config = self._config
        minutes = config.budget.minutes
        plan = Plan(
            name=config.experiment,
            space=config.space,
            defaults=config.recipe,
            seed=config.seed,
            base=assembly.model.identity,
            trials=config.budget.trials,
            seconds=minutes * 60 * _SEARCH_SHARE if minutes else None,
            train_rows=len(assembly.data.examples["train"]),
            evaluation=View("validation", config.evaluation.rows),
            fingerprint=assembly.fingerprint,
        )
        return Study(
            plan,
            storage=open_storage(config.storage),
            sampler=lambda seed: config.sampler.build(seed=seed),
            scheduler=config.scheduler.build(),
        )

    def _open_tracker(self, assembly: Assembly, study: Study) -> Tracker:
        config = self._config
        recipe = {f"recipe.{key}": value for key, value in asdict(config.recipe).items()}
        record = record_of(
            assembly,
            name=config.experiment,
            fingerprint=study.fingerprint,
            params={**recipe, **_searched(study)},
        )
        tracker = Tracker(config.tracking, record, study.standing)
        tracker.sync(study.standings)
        return tracker

    def _tell_expectation(self, assembly: Assembly, study: Study) -> None:
        """Score the base model as it is: where training starts from, and how fast this machine is."""
        job = _base_job(study)
        (report,) = run_jobs([job], assembly.backend).values()
        if report.state != "reached" or report.validation_loss is None:
            raise ModelError(
                f"model: {assembly.model.identity} could not be scored on validation rows, so it can't be "
                f"trained: {report.error}"
            )
        self._told.stage(
            "base",
            f"{assembly.model.identity}: validation loss {report.validation_loss:.4f} before any training",
        )
        done = sum(s.reached for s in study.standings)
        per_example = report.seconds / len(report.rows)
        rungs = len(study.ladder)
        scoring = per_example * len(report.rows) * rungs * study.plan.trials / 2
        seconds = per_example * _TRAINING_COST * max(study.expected_examples - done, 0) + scoring
        limit = study.plan.seconds
        left = max(limit - study.seconds_spent, 0) if limit else 0
        bound = f"; budget.minutes stops it after {duration(left)}" if limit else ""
        went = f"{len(study.standings)} trials done before; " if study.standings else ""
        self._told.stage(
            "search",
            f"{went}{study.plan.trials} trials over {', '.join(_names(study))}, judged after "
            f"{', '.join(map(str, study.ladder))} examples; about {duration(seconds)} on this machine{bound}",
        )

    def _search(self, assembly: Assembly, study: Study, tracker: Tracker) -> None:
        board = Scoreboard(
            self._told.console,
            standings=lambda: study.standings,
            names=_names(study),
            examples=study.expected_examples,
            seconds_left=lambda: (study.plan.seconds or math.inf) - study.seconds_spent,
        )
        with interruptible(study.interrupt), board:
            search(study, assembly.backend, [tracker, board])
        tracker.sync(study.standings)

    def _conclude(self, assembly: Assembly, study: Study, tracker: Tracker) -> None:
        config, best = self._config, study.best
        if best is None:
            raise TrainingError(_no_result(study))
        defaults = study.standing("0")
        confirmation = confirm(
            best,
            defaults,
            assembly.backend,
            groups=assembly.data.groups,
            seed=config.seed,
            record=Record(path=assembly.folder / "confirm.json", study=study.fingerprint),
        )
        self._tell_confirmation(confirmation, best)
        analysis = analyse(study.standings, config.space, tracker, seed=config.seed)
        self._tell_analysis(analysis)
        published = publish(
            self._best_config(assembly, study, best, confirmation, tracker),
            best,
            tracker,
            config.tracking,
            folder=assembly.folder,
            system_prompt=config.data.system_prompt,
        )
        self._tell_end(study, best, defaults, confirmation, published, tracker)

    def _best_config(
        self, assembly: Assembly, study: Study, best: Standing, confirmation: Confirmation, tracker: Tracker
    ) -> BestConfig:
        assert best.trial.number is not None
        return BestConfig(
            recipe=best.trial.recipe,
            model=assembly.model_description,
            experiment=self._config.experiment,
            study=study.plan.name,
            trial=best.trial.number,
            horizon=study.rungs(best.trial.recipe)[-1],
            seed=self._config.seed,
            data_fingerprint=assembly.data.fingerprint,
            fingerprint=study.fingerprint,
            validation=_validation(best),
            confirm=confirmation.best,
            default_confirm=confirmation.defaults,
            verdicts=(confirmation.verdict,),
            git_commit=git_commit(),
            mlflow_run=tracker.parent_run_id,
            overrides=self._config.overrides,
        )

    # What is printed

    def _tell_confirmation(self, confirmation: Confirmation, best: Standing) -> None:
        first, second, difference = confirmation.best, confirmation.defaults, confirmation.difference
        beside = f", defaults {_scored(second)}" if second else ""
        self._told.stage(
            "confirm",
            f"on {first.examples} rows that the search never saw: trial {best.trial.id} "
            f"{_scored(first)}{beside}",
        )
        message = confirmation.verdict.message
        if difference:
            interval = f"{difference.low:+.4f} to {difference.high:+.4f}"
            message = f"difference {difference.value:+.4f} (95%: {interval}); {message}"
        self._told.more(message)

    def _tell_analysis(self, analysis: Analysis) -> None:
        table = analysis.importances
        named = zip(table["parameter"], table["total"], strict=True)
        shares = ", ".join(f"{title(name)} {share:.0%}" for name, share in named)
        said = f"share of the loss's variance, with interactions: {shares}" if shares else "no shares yet"
        self._told.stage("analyse", said)
        for reading in analysis.readings:
            self._told.more(reading)

    def _tell_end(
        self,
        study: Study,
        best: Standing,
        defaults: Standing,
        confirmation: Confirmation,
        published: Published,
        tracker: Tracker,
    ) -> None:
        adapter = published.adapter
        registered = f" and {adapter.uri} ({adapter.alias})" if adapter else ""
        self._told.stage("publish", f"{published.path}{registered}")
        if published.notice:
            self._told.more(published.notice)
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("")
        table.add_column(f"best (trial {best.trial.id})", justify="right", style="green")
        table.add_column("defaults (trial 0)", justify="right")
        names = _names(study)
        ours, theirs = parameters_of(best, names), parameters_of(defaults, names)
        for name in names:
            table.add_row(name.replace("_", " "), ours[name], theirs[name])
        table.add_row("validation loss", f"{best.loss:.4f}", _final(defaults))
        theirs_confirmed = f"{confirmation.defaults.value:.4f}" if confirmation.defaults else "-"
        table.add_row("confirm loss", f"{confirmation.best.value:.4f}", theirs_confirmed)
        self._told.console.print()
        self._told.console.print(table)
        self._told.console.print()
        self._told.say(f"done in {duration(time.monotonic() - self._begun)}")
        self._told.say(f"look   {tracker.ui_command()}")
        self._told.say(f"next   {training_command(self._config.overrides, published.path.stem)}")


def _no_result(study: Study) -> str:
    reasons = sorted({f"{s.state}: {s.reason.splitlines()[0]}" for s in study.standings if s.reason})
    name = study.plan.name
    return "\n".join(
        [
            f"None of the {len(study.standings)} trials of study {name!r} came to its end.",
            *(f"  {reason}" for reason in reasons),
            "Mend the cause, then search anew beside it with "
            f"name={name}_2, or go on with more trials (budget.trials, now {study.plan.trials}) and, if time "
            "ran out, more minutes (budget.minutes).",
        ]
    )


def _validation(standing: Standing) -> Score:
    metrics = standing.reports[-1].metrics
    return Score(
        value=standing.loss,
        standard_error=metrics["validation_loss_error"],
        examples=int(metrics["validation_rows"]),
    )


def _base_job(study: Study) -> Job:
    plan = study.plan
    trial = Trial(id="base", number=None, recipe=plan.defaults, seed=plan.seed, base=plan.base)
    return Job(
        id="base",
        attempt=0,
        trial=trial,
        start=0,
        stop=0,
        horizon=study.ladder[-1],
        checkpoint=None,
        train=View("train"),
        evaluation=plan.evaluation,
    )


def _names(study: Study) -> list[str]:
    return [parameter.name for parameter in study.plan.space.parameters]


def _searched(study: Study) -> dict[str, str]:
    return {f"space.{parameter.name}": str(parameter) for parameter in study.plan.space.parameters}


def _scored(score: Score) -> str:
    return f"{score.value:.4f} ± {score.standard_error:.4f}"


def _final(standing: Standing) -> str:
    return f"{standing.loss:.4f}" if standing.state == "complete" else standing.state
