"""What a person configured, as frozen, typed values: every key checked before a model loads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from sweep.agreement import check_agreement
from sweep.composition import compose_plain, groups, purpose
from sweep.errors import ConfigError, SpaceError
from sweep.found import with_found
from sweep.grammar import spell_out
from sweep.places import check_places
from sweep.schema import build, convert, nearest, require
from sweep.search.allowance import Budget
from sweep.targets import Target, read_target
from sweep.trust import check_remote_code, trusted_targets
from sweep.types import Backend, Engine, Recipe
from sweep.yardsticks import read_baselines, read_metrics, read_objective, read_scorers

if TYPE_CHECKING:
    from sweep.data.audit.audit import Audit
    from sweep.data.folds import Validation
    from sweep.data.source import DataSource
    from sweep.evaluation.guards import Guards
    from sweep.search.caps import SmallData
    from sweep.search.space import Space
    from sweep.stages.finalists import Confirm
    from sweep.tracking.mlflow import Tracking

_KEYS = (
    "name",
    "seed",
    "model",
    "data",
    "validation",
    "recipe",
    "space",
    "engine",
    "backend",
    "sampler",
    "scheduler",
    "budget",
    "storage",
    "storage_patience",
    "tracking",
    "evaluation",
    "confirm",
    "small_data",
    "metric",
    "scorer",
    "objective",
    "baseline",
    "audit",
    "guards",
    "output",
    "checkpoints",
    "trusted_targets",
    "best",
    "recipe_from",
)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """rows: of the validation split, scored at the last rung; None for all. least_rows: at any rung.

    reply_tokens: new ones of a reply, at most.
    """

    rows: int | None
    least_rows: int
    reply_tokens: int


@dataclass(frozen=True, kw_only=True)
class Config:
    """One sweep. `composed` and `overrides` are for saving: plain, resolved, without secrets.

    experiment: the `name` key. purpose: as the chosen experiment's file says it, empty where overrides
    may have made it untrue. best: where the recipe comes from with `+best`. recipe_from: see
    conf/config.yaml.
    """

    experiment: str
    purpose: str
    seed: int
    model: Target
    data: DataSource
    validation: Validation
    recipe: Recipe
    space: Space
    engine: Target
    backend: Target
    sampler: Target
    scheduler: Target
    budget: Budget
    storage: str = field(repr=False)
    storage_patience: float
    tracking: Tracking = field(repr=False)
    evaluation: Evaluation
    confirm: Confirm
    small_data: SmallData
    metrics: Mapping[str, Target]
    scorers: Mapping[str, Target]
    objective: Target
    baselines: Mapping[str, Target]
    audit: Audit
    guards: Guards
    output: str
    checkpoints: str
    trusted_targets: tuple[str, ...]
    best: Mapping[str, object] | None
    recipe_from: str | None
    composed: Mapping[str, Any]
    overrides: tuple[str, ...]

    def added(self, group: str) -> str | None:
        """The choice after `+group=` on the command line, if there is one."""
        return next((o.partition("=")[2] for o in self.overrides if o.startswith(f"+{group}=")), None)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a sweep's study and results are. study: its name."""

    study: str
    storage: str = field(repr=False)
    output: Path


def locate(overrides: Sequence[str], *, working_directory: Path | None = None) -> Place:
    """Where the sweep with these overrides keeps its results, for who only reads them.

    Nothing else is checked. Raises ConfigError for what can't be composed.
    """
    node = compose_plain(overrides, working_directory).plain
    study, storage, output = (convert(str, node.get(key), key) for key in ("name", "storage", "output"))
    return Place(study=study, storage=storage, output=Path(output))


def compose(overrides: Sequence[str], *, working_directory: Path | None = None) -> Config:
    """The configuration that these overrides ask for, checked.

    Files in `conf` and `sweeps` of the working directory win over the packaged ones. Raises
    ConfigError that names the config path, what was given, what must hold and what to do.
    """
    from optuna.samplers import BaseSampler

    from sweep.data.audit.audit import Audit
    from sweep.data.folds import Validation
    from sweep.data.source import DataSource
    from sweep.engines.model import ModelSource
    from sweep.evaluation.guards import Guards
    from sweep.search.caps import SmallData
    from sweep.search.ranges import validate_recipe
    from sweep.search.route import check_route
    from sweep.search.scheduler import Scheduler
    from sweep.stages.finalists import Confirm
    from sweep.tracking.mlflow import Tracking

    composition = compose_plain(overrides, working_directory)
    node = composition.plain
    _check_top(node)
    if missing := [key for key in _KEYS if key not in node]:
        raise ConfigError(f"{missing[0]}: was removed, but is needed. Drop the override ~{missing[0]}.")
    node = with_found(node)
    found = node["best"] is not None or "best" in composition.by_hand
    check_remote_code(
        node["model"], composition, found=found, overrides=overrides, working_directory=working_directory
    )
    trusted = trusted_targets(composition)

    def target(key: str, kind: type) -> Target:
        return read_target(node[key], key, kind=kind, trusted=trusted, strays=composition.strays)

    recipe = build(Recipe, node["recipe"], "recipe")
    validate_recipe(recipe)
    plain = _Plain(
        experiment=convert(str, node["name"], "name"),
        seed=convert(int, node["seed"], "seed"),
        data=build(DataSource, node["data"], "data"),
        budget=build(Budget, node["budget"], "budget"),
        evaluation=build(Evaluation, node["evaluation"], "evaluation"),
        output=convert(str, node["output"], "output"),
        storage_patience=convert(float, node["storage_patience"], "storage_patience"),
        checkpoints=convert(str, node["checkpoints"], "checkpoints"),
    )
    _check_ranges(plain)
    config = Config(
        **plain._asdict(),
        purpose=_purpose(overrides, working_directory),
        model=target("model", ModelSource),
        validation=build(Validation, node["validation"], "validation"),
        recipe=recipe,
        # A found recipe is trained, not searched: the space may be narrower by now.
        space=_space(node["space"], None if found else recipe, composition.by_hand),
        sampler=target("sampler", BaseSampler),
        scheduler=target("scheduler", Scheduler),
        storage=convert(str, node["storage"], "storage"),
        tracking=build(Tracking, node["tracking"], "tracking"),
        confirm=build(Confirm, node["confirm"], "confirm"),
        small_data=build(SmallData, node["small_data"], "small_data"),
        metrics=read_metrics(node["metric"], trusted),
        scorers=read_scorers(node["scorer"], trusted),
        objective=read_objective(node["objective"], trusted, composition.strays),
        baselines=read_baselines(node["baseline"], trusted),
        audit=build(Audit, node["audit"], "audit"),
        guards=build(Guards, node["guards"], "guards"),
        trusted_targets=trusted,
        best=convert(Mapping[str, object] | None, node["best"], "best"),
        recipe_from=convert(str | None, node["recipe_from"], "recipe_from"),
        composed=composition.redacted,
        overrides=composition.overrides,
        # Last, for an engine imports torch: what is wrong elsewhere is told seconds earlier.
        backend=target("backend", Backend),
        engine=target("engine", Engine),
    )
    check_agreement(config)
    if not found:
        check_route(config.scheduler.build(), config.validation.folds)
    return config


def describe(overrides: Sequence[str], *, working_directory: Path | None = None) -> str:
    """The composed configuration as YAML, without secrets and unchecked: no class is imported."""
    return dump(compose_plain(overrides, working_directory).redacted)


def dump(composed: Mapping[str, object]) -> str:
    """A composed configuration as YAML."""
    return yaml.safe_dump(dict(composed), sort_keys=False, allow_unicode=True)


def _purpose(overrides: Sequence[str], working_directory: Path | None) -> str:
    if len(overrides) != 1 or not overrides[0].startswith("+experiment="):
        return ""
    return purpose(groups(working_directory)["experiment"][overrides[0].partition("=")[2]])


def _space(node: object, defaults: Recipe | None, by_hand: frozenset[str]) -> Space:
    """The space. defaults: must lie inside, being trial 0; None: there will be no trials."""
    from sweep.search.space import Space

    if not isinstance(node, Mapping):
        raise SpaceError(f"space: recipe fields and what to search must stand here, got {node!r}.")
    space = Space.from_mapping({name: spell_out(str(name), value) for name, value in node.items()})
    for parameter in space.parameters:
        if f"recipe.{parameter.name}" in by_hand:
            raise SpaceError(
                f"recipe.{parameter.name}: is set on the command line, but space.{parameter.name} searches "
                f"it. Add ~space.{parameter.name} to fix the value, or drop the override to search it."
            )
    if defaults is not None:
        space.check(defaults)
    return space


class _Plain(NamedTuple):
    """The part of a `Config` that names no class."""

    experiment: str
    seed: int
    data: DataSource
    budget: Budget
    evaluation: Evaluation
    output: str
    storage_patience: float
    checkpoints: str


def _check_top(node: Mapping[str, object]) -> None:
    """Nothing, or ConfigError: a key that belongs nowhere, or further in."""
    inner = [f"{key}.{name}" for key, part in node.items() if isinstance(part, Mapping) for name in part]
    for key in node:
        if key not in _KEYS:
            near = nearest(key, [*_KEYS, *inner])[0]
            raise ConfigError(f"{key}: no such key. Did you mean `{near}`? --help lists what there is.")


def _check_ranges(config: _Plain) -> None:
    rows, least = config.evaluation.rows, config.evaluation.least_rows
    reply = config.evaluation.reply_tokens
    named = re.fullmatch(r"[A-Za-z0-9_.-]+", config.experiment) and config.experiment.strip(".")
    claims: list[tuple[str, object, object, str]] = [
        ("name", config.experiment, named, "letters, digits, `_`, `.` and `-` only"),
        ("seed", config.seed, config.seed >= 0, "at least 0"),
        ("evaluation.rows", rows, rows is None or rows >= 1, "at least 1, or null for all"),
        ("evaluation.least_rows", least, least >= 1, "at least 1"),
        ("evaluation.reply_tokens", reply, reply >= 1, "at least 1"),
        ("data.max_tokens", config.data.max_tokens, config.data.max_tokens >= 16, "at least 16"),
        ("storage_patience", config.storage_patience, config.storage_patience >= 0, "at least 0, in minutes"),
    ]
    for claimed in claims:
        require(*claimed)
    check_places(output=config.output, checkpoints=config.checkpoints)
