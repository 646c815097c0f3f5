"""Production training: one recipe to its end, judged on the golden split, exported and registered."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sweep.analysis.axes import shown
from sweep.assembly import Assembly, assemble, record_of
from sweep.commands import interruptible
from sweep.composition import groups
from sweep.config import Config
from sweep.data.folds import Validation
from sweep.driver import only_driver
from sweep.engines.model import from_description
from sweep.errors import ConfigError, TrainingError
from sweep.evaluation.compare import paired_difference
from sweep.evaluation.metrics import score
from sweep.reporting.console import Transcript
from sweep.reporting.live import duration
from sweep.search.ranges import validate_recipe
from sweep.search.states import exported
from sweep.targets import built
from sweep.tracking.best import save_best
from sweep.tracking.mlflow import Tracker
from sweep.tracking.registry import Adapter, RegisteredAdapter, load_best, register_adapter
from sweep.training import Training, training_of
from sweep.types import BestConfig

# An override of what a registered configuration brings.
_SETS_RECIPE = re.compile(r"[+~]*(recipe|model)[.=@]")


class Production:
    """One training. Its checkpoints are found again by recipe, data, model and seed."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._told = Transcript()
        self._begun = time.monotonic()

    def run(self) -> int:
        """Train, score, export, register; the exit code."""
        with interruptible(), only_driver(Path(self._config.output)):
            best = self._registered_best()
            if best is not None:
                self._config = dataclasses.replace(self._config, validation=Validation(folds=best.folds))
            assembly = assemble(self._config, model=from_description(best.model) if best else None)
            assembly.clear_leftovers()
            training = training_of(assembly, best, self._told)
            self._tell_start(training, best)
            with closing(assembly.backend), self._open_tracker(training) as tracker:
                training.tracker = tracker
                training.run()
                tracker.sync([training.standing])
                self._conclude(training, best, tracker)
        return 0

    def _objection(self, best: BestConfig | None) -> str | None:
        """What the sweep held against its own winner; None where it would ship it, or found none."""
        found = asdict(best) if best else self._config.best
        decision = "ship" if found is None else found.get("decision", "no_evidence")
        if found is None or decision == "ship":
            return None
        verdicts: Any = found.get("verdicts") or ()
        why = next((f": {one['message']}" for one in verdicts if one["check"] == "ship"), "")
        return f"{decision}{why}"

    def _registered_best(self) -> BestConfig | None:
        uri = self._config.recipe_from
        if not uri:
            return None
        if both := next((o for o in self._config.overrides if _SETS_RECIPE.match(o)), None):
            raise ConfigError(
                f"recipe_from={uri} and {both} exclude each other: the registered configuration brings the "
                "recipe and the model as they were found. Drop one of them."
            )
        best = load_best(uri, self._config.tracking)
        validate_recipe(best.recipe, f"{uri}: recipe")
        return best

    def _conclude(self, training: Training, best: BestConfig | None, tracker: Tracker) -> None:
        assembly = training.assembly
        trained, base = training.scored()
        wanted = built(self._config.metrics)
        golden, before = score(trained.rows, wanted), score(base.rows, wanted)
        gain = paired_difference(
            trained.rows, base.rows, clusters=assembly.data.groups, seed=self._config.seed
        )
        self._told.stage(
            "golden",
            f"{golden.examples} rows: loss {golden.value:.4f} ± {golden.standard_error:.4f}, the base model "
            f"{before.value:.4f}; difference {gain.value:+.4f} (95%: {gain.low:+.4f} to {gain.high:+.4f})",
        )
        metrics = {"golden_loss": golden.value, "golden_loss_error": golden.standard_error}
        metrics |= {f"golden_{name}": value for name, value in golden.metrics.items()}
        measured = {f"base/golden_{name}": value for name, value in before.metrics.items()}
        tracker.log_metrics({**metrics, **measured, "base/golden_loss": before.value})
        if trained.checkpoint is None:
            raise TrainingError(
                f"engine: {self._config.engine.cls.__name__} came to the end and left no checkpoint, so "
                "there is no adapter. Its last report must name one."
            )
        adapter_folder = exported(trained.checkpoint, assembly.folder / "adapter")
        self._told.stage("adapter", f"{adapter_folder} (PEFT)")
        if self._config.tracking.register:
            adapter = Adapter(
                folder=adapter_folder,
                base=assembly.model_description,
                system_prompt=self._config.data.system_prompt,
                best_yaml=self._best_yaml(best, assembly),
            )
            registered = self._register(adapter, metrics, tracker, ships=self._objection(best) is None)
            self._told.stage("registry", f"{registered.uri} as {registered.alias}")
        self._told.say(f"\ndone in {duration(time.monotonic() - self._begun)}")
        self._told.say(f"look   {tracker.ui_command()}")

    def _register(
        self, adapter: Adapter, metrics: Mapping[str, float], tracker: Tracker, *, ships: bool
    ) -> RegisteredAdapter:
        return register_adapter(
            self._config.tracking,
            adapter,
            run_id=tracker.parent_run_id,
            name=self._config.experiment,
            metrics=metrics,
            # What the sweep would not ship takes nobody's place, not even an empty one.
            alias="auto" if ships else "challenger",
        )

    def _best_yaml(self, best: BestConfig | None, assembly: Assembly) -> Path | None:
        """The configuration to register, so that the next training can take it from there."""
        if best is not None:
            return save_best(best, assembly.folder / "best.yaml")
        return groups()["best"].get(self._config.added("best") or "")

    def _open_tracker(self, training: Training) -> Tracker:
        trial = training.trial
        record = record_of(
            training.assembly,
            name=f"{self._config.experiment}/train",
            fingerprint=trial.id.rpartition("/")[2],
            params={f"recipe.{key}": value for key, value in asdict(trial.recipe).items()},
        )
        folder = training.assembly.folder
        return Tracker(self._config.tracking, record, lambda _: training.standing, folder=folder)

    def _tell_start(self, training: Training, best: BestConfig | None) -> None:
        config, data = self._config, training.assembly.data
        self._told.title("train", config.experiment)
        sizes = {name: len(rows) for name, rows in data.examples.items()}
        self._told.stage(
            "data", f"{sizes['train']} rows to train on, {sizes['golden']} golden rows to judge by"
        )
        found = config.added("best")
        source = config.recipe_from or (f"+best={found}" if found else None)
        self._told.stage("recipe", f"from {source or 'the defaults: no +best and no recipe_from was given'}")
        values = asdict(training.trial.recipe).items()
        self._told.more("  ".join(f"{key}={shown(value)}" for key, value in values))
        horizon, stop = training.length
        if stop < horizon:
            self._told.more(
                f"stops after {stop} of the schedule's {horizon} examples, as the confirmed finalists did: "
                "from there on the loss rose in the search"
            )
        if objection := self._objection(best):
            self._told.more(f"the sweep's verdict was {objection}; what is trained becomes a challenger only")
        searched = best.data_fingerprint if best else (config.best or {}).get("data_fingerprint")
        if searched not in (None, data.fingerprint):
            self._told.more(
                "the recipe was found on other data or other splits; look at the golden loss with care"
            )
