"""Production training: one recipe to its end, judged on the golden split, exported and registered."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from sweep.assembly import Assembly, assemble, git_commit, only_driver
from sweep.commands import interruptible
from sweep.config import Config, dump
from sweep.engines import checkpoint
from sweep.engines.model import from_description
from sweep.errors import SweepError
from sweep.evaluation.compare import loss_score, paired_difference
from sweep.reporting.live import duration, short
from sweep.search.loop import run_jobs
from sweep.tracking.mlflow import SweepRecord, Tracker
from sweep.tracking.registry import Adapter, RegisteredAdapter, load_best, register_adapter
from sweep.types import BestConfig, Job, Progress, Recipe, Report, Standing, Trial, View

# A killed training loses at most one part.
_PARTS = 4


class TrainingError(SweepError):
    """Production training did not reach its end."""


class Production:
    """One training. Its checkpoints are found again by recipe, data, model and seed."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._console = Console(highlight=False)
        self._begun = time.monotonic()

    def run(self) -> int:
        """Train, score, export, register; the exit code."""
        with interruptible(), only_driver(Path(self._config.output)):
            best = self._registered_best()
            assembly = assemble(self._config, model=from_description(best.model) if best else None)
            recipe = best.recipe if best else self._config.recipe
            trial = _trial(recipe, assembly, self._config.seed)
            self._tell_start(assembly, recipe, best)
            told = _Told(self._console, trial)
            tracker = self._open_tracker(assembly, trial, told)
            told.tracker = tracker
            with closing(assembly.backend), tracker:
                trained = self._train(assembly, trial, _horizon(recipe, assembly), told)
                self._conclude(assembly, trial, trained, tracker)
        return 0

    def _registered_best(self) -> BestConfig | None:
        uri = self._config.recipe_from
        return load_best(uri, self._config.tracking) if uri else None

    def _train(self, assembly: Assembly, trial: Trial, horizon: int, told: _Told) -> Report:
        found = checkpoint.latest(assembly.checkpoints / trial.id)
        seen, state = (found[0], str(found[1])) if found else (0, None)
        if seen:
            self._more(f"going on from {seen} of {horizon} examples")
        report = None
        for stop in _parts(seen, horizon):
            job = _job(
                trial, start=seen, stop=stop, horizon=horizon, checkpoint=state, evaluation="validation"
            )
            (report,) = run_jobs([job], assembly.backend, [told]).values()
            if report.state != "reached":
                raise TrainingError(
                    f"training ended as {report.state} at {report.examples_seen} examples: {report.error}"
                )
            seen, state = stop, report.checkpoint
        scoring = _job(trial, start=seen, stop=seen, horizon=horizon, checkpoint=state, evaluation="golden")
        (golden,) = run_jobs([scoring], assembly.backend).values()
        return golden

    def _conclude(self, assembly: Assembly, trial: Trial, golden: Report, tracker: Tracker) -> None:
        base = _job(
            trial, start=0, stop=0, horizon=golden.examples_seen, checkpoint=None, evaluation="golden"
        )
        (before,) = run_jobs([base], assembly.backend).values()
        score = loss_score(golden.rows)
        gain = paired_difference(
            golden.rows, before.rows, clusters=assembly.data.groups, seed=self._config.seed
        )
        self._stage(
            "golden",
            f"{score.examples} rows: loss {score.value:.4f} ± {score.standard_error:.4f}, the base model "
            f"{before.validation_loss:.4f}; difference {gain.value:+.4f} "
            f"(95%: {gain.low:+.4f} to {gain.high:+.4f})",
        )
        metrics = {"golden_loss": score.value, "golden_loss_error": score.standard_error}
        tracker.log_metrics({**metrics, "base/golden_loss": before.validation_loss or 0.0})
        exported = checkpoint.export_adapter(Path(golden.checkpoint or ""), assembly.folder / "adapter")
        self._stage("adapter", f"{exported} (PEFT)")
        if self._config.tracking.register:
            adapter = self._register(assembly, exported, metrics, tracker)
            self._stage("registry", f"{adapter.uri} as {adapter.alias}")
        self._console.print(f"\ndone in {duration(time.monotonic() - self._begun)}")
        self._console.print(f"look   {tracker.ui_command()}", soft_wrap=True)

    def _register(
        self, assembly: Assembly, exported: Path, metrics: Mapping[str, float], tracker: Tracker
    ) -> RegisteredAdapter:
        adapter = Adapter(
            folder=exported,
            base=assembly.model_description,
            system_prompt=self._config.data.system_prompt,
            best_yaml=self._best_yaml(),
        )
        return register_adapter(
            self._config.tracking,
            adapter,
            run_id=tracker.parent_run_id,
            name=self._config.experiment,
            metrics=metrics,
            alias="auto",
        )

    def _best_yaml(self) -> Path | None:
        given = next((o for o in self._config.overrides if o.startswith("+best=")), None)
        path = Path("sweeps/best") / f"{given.partition('=')[2]}.yaml" if given else None
        return path if path and path.is_file() else None

    def _open_tracker(self, assembly: Assembly, trial: Trial, told: _Told) -> Tracker:
        config = self._config
        record = SweepRecord(
            name=f"{config.experiment}/train",
            fingerprint=trial.id.rpartition("/")[2],
            params={f"recipe.{key}": value for key, value in asdict(trial.recipe).items()},
            composed_config=dump(config.composed),
            git_commit=git_commit(),
            data_name=Path(config.data.path).stem,
            data_source=config.data.path,
            data_fingerprint=assembly.data.fingerprint,
            rows_by_split={name: len(rows) for name, rows in assembly.data.examples.items()},
        )
        return Tracker(config.tracking, record, lambda _: told.standing)

    def _tell_start(self, assembly: Assembly, recipe: Recipe, best: BestConfig | None) -> None:
        config = self._config
        source = config.recipe_from or next((o for o in config.overrides if o.startswith("+best=")), None)
        self._console.print(f"[bold]train[/bold]  {config.experiment}")
        rows = assembly.data.examples
        self._stage(
            "data", f"{len(rows['train'])} rows to train on, {len(rows['golden'])} golden rows to judge by"
        )
        values = "  ".join(f"{key}={short(value)}" for key, value in asdict(recipe).items())
        self._stage("recipe", f"from {source or 'the defaults: no +best and no recipe_from was given'}")
        self._more(values)
        searched = best.data_fingerprint if best else (config.best or {}).get("data_fingerprint")
        if searched not in (None, assembly.data.fingerprint):
            self._more(
                "the recipe was found on other data or other splits; look at the golden loss with care"
            )

    def _stage(self, name: str, text: str) -> None:
        self._console.print(f"[bold cyan]{name:<9}[/bold cyan]", end="")
        self._console.print(text, markup=False, soft_wrap=True)

    def _more(self, text: str) -> None:
        self._console.print(" " * 9 + text, markup=False, soft_wrap=True)


class _Told:
    """Follows the training: keeps its standing, passes events to the tracker, prints each tenth."""

    def __init__(self, console: Console, trial: Trial) -> None:
        self._console = console
        self.standing = Standing(trial=trial, state="running", reports=())
        self.tracker: Tracker | None = None
        self._steps = 0

    def log(self, event: Progress | Report) -> None:
        if isinstance(event, Report):
            reports = (*self.standing.reports, dataclasses.replace(event, rows=()))
            self.standing = dataclasses.replace(self.standing, reports=reports)
            loss = f"{event.validation_loss:.4f}" if event.validation_loss is not None else event.state
            self._print(f"{event.examples_seen:>7} examples  validation loss {loss}")
        else:
            self._steps += 1
            if self._steps % 10 == 0:
                self._print(f"{event.examples_seen:>7} examples  train loss {event.train_loss:.4f}")
        if self.tracker is not None:
            self.tracker.log(event)

    def _print(self, text: str) -> None:
        self._console.print(" " * 9 + text, markup=False, highlight=False)


def _trial(recipe: Recipe, assembly: Assembly, seed: int) -> Trial:
    given = [
        asdict(recipe),
        assembly.data.fingerprint,
        assembly.model.identity,
        seed,
        assembly.config.data.max_tokens,
    ]
    key = hashlib.sha256(json.dumps(given).encode()).hexdigest()[:12]
    return Trial(id=f"train/{key}", number=None, recipe=recipe, seed=seed, base=assembly.model.identity)


def _horizon(recipe: Recipe, assembly: Assembly) -> int:
    steps = max(1, round(recipe.epochs * len(assembly.data.examples["train"]) / recipe.batch_size))
    return steps * recipe.batch_size


def _parts(seen: int, horizon: int) -> list[int]:
    """Where the training pauses to keep a checkpoint, the last one the horizon."""
    stops = [horizon * part // _PARTS for part in range(1, _PARTS)]
    return [*(stop for stop in stops if stop > seen), *([horizon] if horizon > seen else [])]


def _job(
    trial: Trial, *, start: int, stop: int, horizon: int, checkpoint: str | None, evaluation: str
) -> Job:
    return Job(
        id=f"{trial.id}@{stop}/{evaluation}",
        attempt=0,
        trial=trial,
        start=start,
        stop=stop,
        horizon=horizon,
        checkpoint=checkpoint,
        train=View("train"),
        evaluation=View(evaluation),  # type: ignore[arg-type]
    )
