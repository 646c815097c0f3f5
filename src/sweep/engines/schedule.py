"""The learning rate over a job's steps, by transformers' own schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from transformers import get_scheduler

from sweep.types import Job

_NAMES = {
    "constant": "constant_with_warmup",
    "linear": "linear",
    "cosine": "cosine",
    "wsd": "warmup_stable_decay",
}
_DECAY_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What transformers calls a schedule: name, steps in all, steps of warm-up, and what only it takes."""

    name: str
    steps: int
    warmup_steps: int
    specific: dict[str, Any] = field(default_factory=dict)

    def factor(self) -> Callable[[int], float]:
        """The share of the peak at each step, counted from 0."""
        unused = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
        scheduler = get_scheduler(
            self.name,
            unused,
            num_warmup_steps=self.warmup_steps,
            num_training_steps=self.steps,
            scheduler_specific_kwargs=self.specific,
        )
        (factor,) = scheduler.lr_lambdas
        return cast(Callable[[int], float], factor)


def schedule_of(job: Job) -> Schedule:
    """That of a job's recipe up to its horizon, wherever the job stops."""
    recipe, total = job.trial.recipe, steps(job, job.horizon)
    return Schedule(
        name=_NAMES[recipe.schedule],
        steps=total,
        warmup_steps=round(recipe.warmup_fraction * total),
        specific={"num_decay_steps": round(_DECAY_SHARE * total)} if recipe.schedule == "wsd" else {},
    )


def steps(job: Job, examples: int) -> int:
    """Optimiser steps after which at least `examples` were seen."""
    return math.ceil(examples / job.trial.recipe.batch_size)


def whole_steps(job: Job, examples: int) -> int:
    """Examples that those steps take: a rung may lie within the last one."""
    return steps(job, examples) * job.trial.recipe.batch_size
