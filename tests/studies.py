"""A study on closed-form curves, small enough to run hundreds of trials in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage

from sweep.backends.inline import Inline
from sweep.backends.metered import Metered
from sweep.data.split import DataSet
from sweep.engines.inputs import Inputs
from sweep.engines.model import RandomLlama
from sweep.engines.synthetic import Synthetic
from sweep.search.allowance import Bound, Budget
from sweep.search.disk import Disk
from sweep.search.loop import search
from sweep.search.plan import Plan
from sweep.search.scheduler import Asha, Scheduler
from sweep.search.space import Space
from sweep.search.study import Study
from sweep.types import Capacity, Job, Observer, Report, Standing, Trial, TrialState, View
from tests.recipes import DEFAULTS

SPACE = Space.from_mapping(
    {
        "learning_rate": {"low": 3e-5, "high": 3e-3, "log": True},
        "batch_size": {"choices": [4, 8, 16, 32]},
        "lora_rank": {"choices": [4, 8, 16, 32, 64]},
    }
)
PLAN = Plan(
    name="closed_form",
    space=SPACE,
    defaults=DEFAULTS,
    seed=0,
    base="none",
    trials=12,
    train_rows=288,
    evaluation=View("validation", 32),
    fingerprint={"data": "a"},
)


def minutes(most: float) -> tuple[Bound, ...]:
    """The bounds of a budget of so many."""
    return budget(minutes=most).bounds


def budget(**given: Any) -> Budget:
    """One without limits but those given."""
    unlimited = dict.fromkeys(("minutes", "gpu_hours", "cost", "price_per_device_hour", "disk_gb"))
    return Budget(**{"trials": 12, **unlimited, "currency": "EUR", **given})


def random_sampler(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def open_study(
    storage: BaseStorage | None = None,
    scheduler: Scheduler | None = None,
    sampler: Callable[[int], optuna.samplers.BaseSampler] = random_sampler,
    clock: Callable[[], float] = time.monotonic,
    devices: Sequence[int] = (1,),
    disk: Disk | None = None,
    **plan: Any,
) -> Study:
    return Study(
        replace(PLAN, **plan),
        storage=storage or InMemoryStorage(),
        sampler=sampler,
        scheduler=scheduler or Asha(eta=3, rungs=3),
        clock=clock,
        devices=lambda: devices,
        disk=disk,
    )


def synthetic_inputs(folder: Path) -> Inputs:
    """Of an engine that needs neither rows nor a model; its checkpoints lie below the folder."""
    return Inputs(
        model=RandomLlama(hidden_size=8, layers=1, heads=1, seed=0, dtype="float32"),
        data=DataSet(examples={}, groups={}, fingerprint="a", notes=()),
        max_tokens=32,
        folder=folder / "checkpoints",
    )


def synthetic_engine(folder: Path) -> Synthetic:
    """Closed-form curves whose checkpoints lie below the folder."""
    return Synthetic(inputs=synthetic_inputs(folder), noise=0.01)


def run_study(study: Study, engine: Synthetic, *observers: Observer) -> Study:
    """Search to the study's end, or until an observer raises."""
    search(study, Metered(Inline(make_engine=lambda: engine), study.keep_spent), observers)
    return study


def handed_out(study: Study) -> Job:
    """The study's next job."""
    job = study.next(Capacity())
    assert isinstance(job, Job)
    return job


def reached(job: Job, loss: float, **fields: Any) -> Report:
    """That the job came to its stop with this loss, unless the fields say otherwise."""
    report = Report(
        job=job.id,
        trial=job.trial.id,
        attempt=job.attempt,
        examples_seen=job.stop,
        state="reached",
        validation_loss=loss,
    )
    return replace(report, **fields)


def standing(
    number: int, values: dict[int, float], state: TrialState = "paused", *, seconds: float = 0.0
) -> Standing:
    """A trial with these losses by examples seen; the seconds are those of its last report."""
    reports = tuple(
        Report(
            job="",
            trial=str(number),
            attempt=0,
            examples_seen=rung,
            state="reached",
            validation_loss=loss,
            seconds=seconds if rung == max(values) else 0.0,
        )
        for rung, loss in values.items()
    )
    trial = Trial(id=str(number), number=number, recipe=DEFAULTS, seed=0, base="none")
    return Standing(trial=trial, state=state, reports=reports)
