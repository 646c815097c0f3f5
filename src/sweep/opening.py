"""How a sweep begins: its study, what that needs, and what was asked for."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from sweep.assembly import Assembly, at_once, disk_of, record_of
from sweep.config import Config
from sweep.evaluation.metrics import LOSS
from sweep.reporting.console import Transcript
from sweep.search.caps import capped, offer
from sweep.search.disk import Disk
from sweep.search.notes import Asked
from sweep.search.outage import Patient
from sweep.search.plan import Plan
from sweep.search.study import Study
from sweep.stages.room import in_words, needs_of, require_room
from sweep.stages.yardstick import Yardstick
from sweep.targets import built
from sweep.tracking.record import SweepRecord
from sweep.types import View


def open_study(
    assembly: Assembly, yardstick: Yardstick, storage: Patient, told: Transcript
) -> tuple[Study, Disk]:
    """The study that is asked for, as far as it has come, and what its trials have on disk."""
    config, data, folds = assembly.config, assembly.data, assembly.config.validation.folds
    train_rows = len(data.examples["train"])
    available = max(Counter(data.folds.values()).values()) if folds else len(data.examples["validation"])
    asked = capped(config.space, config.recipe, train_rows=train_rows, small=config.small_data)
    for note in asked.notes:
        told.more(f"warning: {note}")
    if folds is None and not yardstick.aims:
        for note in offer(config.experiment, train_rows=train_rows, small=config.small_data):
            told.more(note)
    plan = Plan(
        name=config.experiment,
        space=asked.space,
        defaults=asked.defaults,
        seed=config.seed,
        base=assembly.model.identity,
        trials=config.budget.trials,
        train_rows=train_rows,
        evaluation=View("validation", min(config.evaluation.rows or available, available)),
        least_rows=config.evaluation.least_rows,
        fingerprint=assembly.fingerprint,
        metrics=built(config.metrics),
        judged_by=str(config.objective.arguments.get("rung_metric", LOSS)),
        guards=config.guards,
        folds=folds,
        aimed_by=yardstick if yardstick.aims else None,
        bounds=config.budget.bounds,
    )
    disk = disk_of(assembly, plan)
    study = Study(
        plan,
        storage=storage,
        sampler=lambda seed: config.sampler.build(seed=seed),
        scheduler=config.scheduler.build(),
        disk=disk,
        devices=lambda: assembly.backend.devices,
    )
    return study, disk


def check_room(config: Config, study: Study, disk: Disk, told: Transcript) -> None:
    """Tell what the study needs on disk. Raises ConfigError where there is no room for it."""
    needs = needs_of(study, disk, config.confirm, at_once=at_once(config))
    require_room(needs, disk, disk_gb=config.budget.disk_gb)
    if needs.state_bytes:
        told.stage("disk", in_words(needs, disk))


def study_record(assembly: Assembly, study: Study) -> SweepRecord:
    """What the sweep's own run says."""
    config = assembly.config
    recipe = {f"recipe.{key}": value for key, value in asdict(config.recipe).items()}
    return record_of(
        assembly,
        name=config.experiment,
        fingerprint=study.fingerprint,
        params={**recipe, **_searched(study)},
    )


def asked_of(config: Config, record: SweepRecord) -> Asked:
    """What a person asked for, as the study keeps it."""
    return Asked(
        purpose=config.purpose,
        overrides=config.overrides,
        data=record.data_source,
        rows=record.rows_by_split,
        sampler=str(config.sampler),
        scheduler=str(config.scheduler),
        config=record.composed_config,
        git_commit=record.git_commit,
    )


def _searched(study: Study) -> dict[str, str]:
    return {f"space.{parameter.name}": str(parameter) for parameter in study.plan.space.parameters}
