"""The stages of a sweep in their order, and what they print."""

from __future__ import annotations

import math
import shlex
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sweep.analysis.axes import title
from sweep.assembly import Assembly, assemble, git_commit, only_driver
from sweep.commands import interruptible
from sweep.config import Config, dump
from sweep.errors import ModelError
from sweep.reporting.live import Scoreboard, duration, parameters_of
from sweep.search.loop import run_jobs, search
from sweep.search.storage import open_storage
from sweep.search.study import Plan, Study, final_loss
from sweep.stages.analyse import Analysis, analyse
from sweep.stages.confirm import Confirmation, confirm
from sweep.stages.publish import Published, publish
from sweep.tracking.mlflow import SweepRecord, Tracker
from sweep.types import SPLITS, BestConfig, Job, Score, Standing, Trial, View

# Of the minutes given; the rest is for what follows the search.
_SEARCH_SHARE = 0.8
# Forward and backward through a frozen base, against forward alone.
_TRAINING_COST = 3.0


class Pipeline:
    """One sweep, from data to best configuration. Each stage finds what an earlier start has done."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._console = Console(highlight=False)
        self._begun = time.monotonic()

    def run(self) -> int:
        """All stages; the exit code."""
        config = self._config
        with interruptible(), only_driver(Path(config.output)):
            self._say(f"[bold]sweep[/bold]  {config.experiment}")
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
        self._stage("data", f"{total} rows of {self._config.data.path}: {sizes}")
        for note in assembly.data.notes:
            self._more(note)

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
        record = SweepRecord(
            name=config.experiment,
            fingerprint=study.fingerprint,
            params={**{f"recipe.{k}": v for k, v in asdict(config.recipe).items()}, **_searched(study)},
            composed_config=dump(config.composed),
            git_commit=git_commit(),
            data_name=Path(config.data.path).stem,
            data_source=config.data.path,
            data_fingerprint=assembly.data.fingerprint,
            rows_by_split={name: len(rows) for name, rows in assembly.data.examples.items()},
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
        self._stage(
            "base",
            f"{assembly.model.identity}: validation loss {report.validation_loss:.4f} before any training",
        )
        done = sum(max(s.values, default=0) for s in study.standings)
        per_example = report.seconds / len(report.rows)
        rungs = len(study.ladder)
        scoring = per_example * len(report.rows) * rungs * study.plan.trials / 2
        seconds = per_example * _TRAINING_COST * max(study.expected_examples - done, 0) + scoring
        limit = study.plan.seconds
        left = max(limit - study.seconds_spent, 0) if limit else 0
        bound = f"; budget.minutes stops it after {duration(left)}" if limit else ""
        went = f"{len(study.standings)} trials done before; " if study.standings else ""
        self._stage(
            "search",
            f"{went}{study.plan.trials} trials over {', '.join(_names(study))}, judged after "
            f"{', '.join(map(str, study.ladder))} examples; about {duration(seconds)} on this machine{bound}",
        )

    def _search(self, assembly: Assembly, study: Study, tracker: Tracker) -> None:
        board = Scoreboard(
            self._console,
            standings=lambda: study.standings,
            names=_names(study),
            examples=study.expected_examples,
            seconds_left=lambda: (study.plan.seconds or math.inf) - study.seconds_spent,
        )
        with interruptible(study.interrupt), board:
            search(study, assembly.backend, [tracker, board])
        tracker.sync(study.standings)

    def _conclude(self, assembly: Assembly, study: Study, tracker: Tracker) -> None:
        config, best, defaults = self._config, study.best, study.standing("0")
        if best is None:
            reasons = {s.reason.splitlines()[0] for s in study.standings if s.reason}
            self._stage(
                "result", "no trial came to its end: " + ("; ".join(sorted(reasons)) or "no reason known")
            )
            return
        confirmation = confirm(
            best,
            defaults,
            assembly.backend,
            groups=assembly.data.groups,
            seed=config.seed,
            record=assembly.folder / "confirm.json",
        )
        self._tell_confirmation(confirmation, best)
        analysis = analyse(study.standings, config.space, tracker, seed=config.seed)
        self._tell_analysis(analysis)
        path = Path("sweeps/best") / f"{config.experiment}.yaml"
        published = publish(
            self._best_config(assembly, study, best, confirmation, tracker),
            best,
            tracker,
            config.tracking,
            path=path,
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
        )

    # What is printed

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def _stage(self, name: str, text: str) -> None:
        self._console.print(f"[bold cyan]{name:<9}[/bold cyan]", end="")
        self._console.print(text, markup=False, soft_wrap=True)

    def _more(self, text: str) -> None:
        self._console.print(" " * 9 + text, markup=False, soft_wrap=True)

    def _tell_confirmation(self, confirmation: Confirmation, best: Standing) -> None:
        first, second, difference = confirmation.best, confirmation.defaults, confirmation.difference
        self._stage(
            "confirm",
            f"on {first.examples} rows that the search never saw: trial {best.trial.id} {_scored(first)}, "
            f"defaults {_scored(second)}",
        )
        interval = f"{difference.low:+.4f} to {difference.high:+.4f}"
        self._more(f"difference {difference.value:+.4f} (95%: {interval}); {confirmation.verdict.message}")

    def _tell_analysis(self, analysis: Analysis) -> None:
        table = analysis.importances
        named = zip(table["parameter"], table["total"], strict=True)
        shares = ", ".join(f"{title(name)} {share:.0%}" for name, share in named)
        said = f"share of the loss's variance, with interactions: {shares}" if shares else "no shares yet"
        self._stage("analyse", said)
        for reading in analysis.readings:
            self._more(reading)

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
        self._stage("publish", f"{published.path}{registered}")
        if published.notice:
            self._more(published.notice)
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("")
        table.add_column(f"best (trial {best.trial.id})", justify="right", style="green")
        table.add_column("defaults (trial 0)", justify="right")
        names = _names(study)
        ours, theirs = parameters_of(best, names), parameters_of(defaults, names)
        for name in names:
            table.add_row(name.replace("_", " "), ours[name], theirs[name])
        table.add_row("validation loss", f"{final_loss(best):.4f}", _final(defaults))
        table.add_row("confirm loss", f"{confirmation.best.value:.4f}", f"{confirmation.defaults.value:.4f}")
        self._console.print()
        self._console.print(table)
        self._console.print()
        name = shlex.quote(self._config.experiment)
        given = next(
            (o for o in self._config.overrides if o.startswith("+experiment=")), "+experiment=" + name
        )
        self._say(f"done in {duration(time.monotonic() - self._begun)}")
        self._say(f"look   {tracker.ui_command()}")
        self._say(f"next   python -m sweep.train {given} +best={published.path.stem}")


def _validation(standing: Standing) -> Score:
    metrics = standing.reports[-1].metrics
    return Score(
        value=final_loss(standing),
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
    return f"{final_loss(standing):.4f}" if standing.state == "complete" else standing.state
