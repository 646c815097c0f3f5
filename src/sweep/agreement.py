"""What in a configuration must go together, each part being right by itself."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from sweep.errors import ConfigError
from sweep.targets import named_in
from sweep.yardsticks import check_objective

if TYPE_CHECKING:
    from sweep.config import Config


def check_agreement(config: Config) -> None:
    """Nothing, or ConfigError: parts that exclude each other, or a class that refuses its arguments."""
    _check_together(config)
    _check_arguments(config)


def _check_together(config: Config) -> None:
    from optuna.samplers import BaseGASampler, BruteForceSampler, CmaEsSampler, GPSampler, GridSampler

    from sweep.backends.inline import Inline
    from sweep.evaluation.pareto import Pareto
    from sweep.search.scheduler import Full

    if config.checkpoints.startswith("memory://") and not issubclass(config.backend.cls, Inline):
        raise ConfigError(
            f"checkpoints={config.checkpoints}: what lies in memory is seen by one process alone, and "
            "backend=inline must be it. Write backend=inline, or name a folder."
        )
    sampler, scheduler = config.sampler.cls, config.scheduler.cls
    unfit = (BruteForceSampler, CmaEsSampler, GridSampler)
    if named := next((one for one in named_in(config.sampler) if issubclass(one.cls, unfit)), None):
        raise ConfigError(
            f"{named.path}: {named.cls.__name__} needs the trial that it draws in the storage, or unpickles "
            "what it finds there; here a trial is stored after it is drawn, and a storage may be anybody's. "
            "Write sampler=tpe, and for a small space name its values as choices."
        )
    full = issubclass(scheduler, Full)
    if issubclass(sampler, GPSampler | BaseGASampler) and not full:
        raise ConfigError(
            f"sampler: {sampler.__name__} learns from trials that ran to the end, and {scheduler.__name__} "
            "stops most before. Write scheduler=full, or sampler=tpe."
        )
    if issubclass(config.objective.cls, Pareto):
        if not full:
            raise ConfigError(
                "scheduler: objective=pareto judges trials by what they reply once they ran to the end, and "
                f"{scheduler.__name__} stops most before. Write scheduler=full."
            )
        if config.validation.folds is not None:
            raise ConfigError(
                f"validation.folds={config.validation.folds}: objective=pareto judges trials by what one "
                "model replies, and a cross-validation trains one for each fold; it must be null. Write "
                "validation=holdout, or objective=business."
            )
    _check_shared(config)
    if "epochs" in config.space.distributions() and not full and config.validation.folds is None:
        raise ConfigError(
            "space.epochs: warm-up and decay are shares of a trial's own length, so a short run is not the "
            f"beginning of a long one, and {scheduler.__name__} would compare them at the same rung. Write "
            "scheduler=full, or leave epochs out with ~space.epochs."
        )


def _check_shared(config: Config) -> None:
    """Nothing, or ConfigError: what can't be trained by devices that share a model."""
    devices = config.backend.arguments.get("devices_per_worker", 1)
    if not isinstance(devices, int) or devices <= 1:
        return
    from sweep.engines.solo import Solo

    if not issubclass(config.engine.cls, Solo):
        raise ConfigError(
            f"backend.devices_per_worker={devices}: only engine=solo trains one model on several devices, "
            f"and the engine is {config.engine.cls.__name__}. Write engine=solo, or "
            "backend.devices_per_worker=1."
        )
    if config.recipe.dora or "dora" in config.space.distributions():
        raise ConfigError(
            f"backend.devices_per_worker={devices}: DoRA measures whole weights, of which each device has a "
            "part; recipe.dora must be false and not searched. Write recipe.dora=false, ~space.dora where it "
            "is searched, or backend.devices_per_worker=1."
        )


def _check_arguments(config: Config) -> None:
    """Nothing, or what a class says against its arguments: now, not after the data is loaded."""
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import BaseGASampler

    judges = (*config.metrics.values(), *config.scorers.values(), config.objective)
    for target in (config.model, config.scheduler, *judges, *config.baselines.values()):
        target.build()
    config.backend.build(make_engine=config.engine.build)
    check_objective(config.objective, metrics=config.metrics, scorers=config.scorers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = config.sampler.build(seed=0)
    if isinstance(sampler, BaseGASampler) and (sampler.population_size or 0) >= config.budget.trials:
        raise ConfigError(
            f"sampler.population_size: must be below budget.trials={config.budget.trials}, for the first "
            f"generation is drawn at random; got {sampler.population_size}. Lower it, or raise budget.trials."
        )
