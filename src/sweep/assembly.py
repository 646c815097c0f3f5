"""What every command builds from a configuration before it starts."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from sweep.backends.devices import visible_gpus
from sweep.backends.ray import Ray, room_here
from sweep.config import Config, dump
from sweep.data.audit.finding import Audited
from sweep.data.folds import pooled
from sweep.data.general import general_examples
from sweep.data.load import load
from sweep.data.split import DataSet, split
from sweep.engines.checkpoint import clear_leftovers
from sweep.engines.inputs import Inputs
from sweep.engines.model import ModelSource, describe
from sweep.engines.remote import is_url
from sweep.evaluation.metrics import LOSS
from sweep.evaluation.outcomes import Judge
from sweep.evaluation.pareto import Pareto
from sweep.evaluation.scorers import FACTS
from sweep.redaction import hidden
from sweep.search.disk import Disk
from sweep.search.plan import Plan
from sweep.stages.audit import audit_data
from sweep.stages.baselines import Baselines
from sweep.stages.yardstick import Yardstick
from sweep.targets import built
from sweep.tracking.record import SweepRecord
from sweep.types import Backend, Recipe, Trial

# Guards that no trial of a search is held to, only who is confirmed.
_AFTERWARDS = ("overlap", "forgetting")
# Keys of an objective that no value depends on.
_LIMITS = ("goal", "success", "hard_limits", "rung_metric", "material", "currency")


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """A configuration's parts, built. folder: where this experiment keeps checkpoints and results."""

    config: Config
    data: DataSet
    model: ModelSource
    backend: Backend
    folder: Path

    @property
    def checkpoints(self) -> str:
        """The folder or URL where engines keep them, by trial id and examples seen."""
        return _checkpoints(self.config)

    def clear_leftovers(self) -> None:
        """Remove what killed processes left unfinished; only for who holds the experiment's folder."""
        clear_leftovers(self.folder, deep=False)
        if not is_url(self.checkpoints):
            clear_leftovers(Path(self.checkpoints))

    @property
    def model_description(self) -> Mapping[str, object]:
        """The base model as a best config stores it: without secrets."""
        return cast("Mapping[str, object]", hidden(describe(self.model)))

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """What a study's results depend on, by configuration path. Ladder and space are the study's."""
        config = self.config
        recipe = {f"recipe.{key}": json.dumps(value) for key, value in asdict(config.recipe).items()}
        space = {f"space.{key}": json.dumps(form) for key, form in config.space.to_mapping().items()}
        model = {f"model.{key}": json.dumps(value) for key, value in self.model_description.items()}
        limits = asdict(config.guards).items()
        guards = {f"guards.{key}": json.dumps(value) for key, value in limits if key not in _AFTERWARDS}
        folds = config.validation.folds
        return {
            **recipe,
            **space,
            **model,
            **guards,
            **({} if folds is None else {"validation.folds": str(folds)}),
            "objective.rung_metric": str(config.objective.arguments.get("rung_metric", LOSS)),
            "seed": str(config.seed),
            "evaluation.rows": str(config.evaluation.rows),
            "evaluation.least_rows": str(config.evaluation.least_rows),
            "data (rows and splits)": self.data.fingerprint,
            "data.max_tokens": str(config.data.max_tokens),
            "model": self.model.identity,
            "engine": config.engine.cls.__name__,
            **_aims(config),
        }


def _aims(config: Config) -> dict[str, str]:
    """What values by several aims depend on, beside all that a loss does."""
    objective = config.objective.build()
    if not isinstance(objective, Pareto):
        return {}
    weighed = asdict(objective).items()
    judges = {FACTS, objective.proxy, *(aim.metric for aim in objective.searched)}
    return {
        **{f"objective.{key}": json.dumps(value) for key, value in weighed if key not in _LIMITS},
        **{f"scorer.{name}": str(scorer) for name, scorer in config.scorers.items() if name in judges},
        "evaluation.reply_tokens": str(config.evaluation.reply_tokens),
    }


def assemble(config: Config, *, model: ModelSource | None = None) -> Assembly:
    """Load and split the data, describe the model, prepare the backend; no model is loaded yet.

    model: in place of the configured one.
    """
    data = split(load(config.data), config.data.split, seed=config.seed)
    if config.validation.folds is not None:
        data = pooled(data, folds=config.validation.folds, seed=config.seed)
    source: ModelSource = model or config.model.build()
    folder = Path(config.output)
    # What a model forgets is measured on text that the data knows nothing of.
    rows = dataclasses.replace(data, examples={**data.examples, "general": general_examples()})
    place = _checkpoints(config)
    inputs = Inputs(
        model=source,
        data=rows,
        max_tokens=config.data.max_tokens,
        folder=folder.resolve() / "checkpoints" if is_url(place) else Path(place),
        place=place if is_url(place) else None,
    )
    make_engine = functools.partial(config.engine.build, inputs=inputs)
    backend: Backend = config.backend.build(make_engine=make_engine)
    return Assembly(config=config, data=data, model=source, backend=backend, folder=folder)


def _checkpoints(config: Config) -> str:
    """Whole: workers elsewhere have another working directory."""
    place = config.checkpoints.rstrip("/")
    return place if is_url(place) else str(Path(place).resolve())


def disk_of(assembly: Assembly, plan: Plan) -> Disk:
    """What lies below the checkpoints' place, and how much more may, by the largest recipe of the plan."""
    config = assembly.config
    gigabytes = config.budget.disk_gb
    return Disk(
        assembly.checkpoints,
        most_bytes=None if gigabytes is None else gigabytes * 1e9,
        state_bytes=_state_bytes(assembly, plan),
    )


def _state_bytes(assembly: Assembly, plan: Plan) -> int:
    """Of the largest recipe, 0 where the engine can't say."""
    cls = assembly.config.engine.cls
    tell: Callable[[ModelSource, Recipe], int | None] | None = getattr(cls, "state_bytes", None)
    if tell is None:
        return 0
    searched = next((p.choices or () for p in plan.space.parameters if p.name == "target_modules"), ())
    recipes = [
        dataclasses.replace(plan.defaults, lora_rank=int(plan.largest("lora_rank")), target_modules=modules)
        for modules in (plan.defaults.target_modules, *cast("tuple[tuple[str, ...] | str, ...]", searched))
    ]
    return max(tell(assembly.model, recipe) or 0 for recipe in recipes)


def at_once(config: Config) -> int:
    """Trials in training at once, at most: all, on a cluster with as many workers as it has room for."""
    backend, given = config.backend.cls, config.backend.arguments
    slots = config.engine.arguments.get("slots", 1)
    if slots is None:
        # It brings what trains, which not every engine needs.
        from sweep.engines.packed import MOST_SLOTS

        slots = MOST_SLOTS
    workers = given.get("workers", 1)
    if workers is None and issubclass(backend, Ray):
        if given["address"] is not None:
            return config.budget.trials
        gpus, cpus = cast("tuple[float, float]", (given["gpus_per_worker"], given["cpus_per_worker"]))
        workers = room_here(None, gpus=gpus, cpus=cpus)
    each = cast("int", given.get("devices_per_worker", 1))
    workers = workers or max(1, len(visible_gpus()) // each)
    return cast("int", slots) * cast("int", workers)


def yardstick_of(assembly: Assembly) -> Yardstick:
    """What models are measured by on this data."""
    config, data = assembly.config, assembly.data
    objective = config.objective.build()
    judge = None
    if objective.needs_replies:
        known = data.examples["train" if data.folds else "validation"]
        judge = Judge(objective, built(config.scorers), known)
    return Yardstick(
        objective=objective,
        judge=judge,
        data=data,
        reply_tokens=config.evaluation.reply_tokens,
        metrics=built(config.metrics),
    )


def baselines_of(assembly: Assembly, yardstick: Yardstick) -> Baselines:
    """The simpler ways, to be asked of the base model."""
    config = assembly.config
    return Baselines(
        ways=built(config.baselines),
        yardstick=yardstick,
        backend=assembly.backend,
        base=Trial(
            id="base", number=None, recipe=config.recipe, seed=config.seed, base=assembly.model.identity
        ),
        path=assembly.folder / "baselines.json",
    )


def audited(assembly: Assembly) -> Audited:
    """What every check of the data found."""
    config = assembly.config
    return audit_data(
        assembly.data,
        config.audit,
        assembly.model,
        max_tokens=config.data.max_tokens,
        seed=config.seed,
        folder=assembly.folder,
    )


def record_of(
    assembly: Assembly, *, name: str, fingerprint: str, params: Mapping[str, object]
) -> SweepRecord:
    """What the run of a whole command says: these params, the configuration, the commit and the data."""
    config, data = assembly.config, assembly.data
    return SweepRecord(
        name=name,
        fingerprint=fingerprint,
        params=params,
        composed_config=dump(config.composed),
        git_commit=git_commit(),
        data_name=Path(config.data.path).stem,
        data_source=config.data.path,
        data_fingerprint=data.fingerprint,
        rows_by_split={split: len(rows) for split, rows in data.examples.items()},
    )


def git_commit() -> str | None:
    """The working directory's commit, with "+changes" where files differ from it; None outside git."""
    try:
        commit = _git("rev-parse", "HEAD")
        return f"{commit}+changes" if _git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return result.stdout.strip()
