"""A tiny random Llama, 120 short rows, and jobs on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweep.data.example import Example, Message
from sweep.data.split import DataSet
from sweep.engines.inputs import Inputs
from sweep.engines.model import RandomLlama
from sweep.types import Job, Recipe, Trial, View

TINY = RandomLlama(hidden_size=32, layers=2, heads=2, seed=0, dtype="float32")


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def example(number: int) -> Example:
    turns = (
        Message(role="user", content=f"how long is {number} " + "very " * (number % 5) + "long?"),
        Message(role="assistant", content=f"about {number * 3} steps"),
    )
    return Example(id=f"row-{number}", messages=turns, intent=None, required=(), forbidden=(), slices={})


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    rows = tuple(example(number) for number in range(120))
    splits = {"train": rows[:72], "validation": rows[72:96], "confirm": rows[96:104], "test": rows[104:112]}
    data = DataSet(
        examples={**splits, "golden": rows[112:]},  # type: ignore[arg-type]
        groups={row.id: i for i, row in enumerate(rows)},
        fingerprint="tiny",
        notes=(),
    )
    return Inputs(model=TINY, data=data, max_tokens=96, folder=tmp_path / "checkpoints")


def recipe(**changes: Any) -> Recipe:
    return Recipe(
        **{
            "learning_rate": 3e-3,
            "batch_size": 8,
            "weight_decay": 0.1,
            "lora_rank": 4,
            "lora_alpha": 8.0,
            "lora_dropout": 0.1,
            "target_modules": "all-linear",
            "rslora": False,
            "warmup_fraction": 0.1,
            "schedule": "linear",
            "epochs": 1.0,
            "max_gradient_norm": 1.0,
            **changes,
        }
    )


def job(
    start: int = 0, stop: int = 48, *, checkpoint: str | None = None, trial: str = "0", **changes: Any
) -> Job:
    return Job(
        id=f"{trial}@{stop}",
        attempt=0,
        trial=Trial(id=trial, number=0, recipe=recipe(**changes), seed=7, base=TINY.identity),
        start=start,
        stop=stop,
        horizon=72,
        checkpoint=checkpoint,
        train=View("train"),
        evaluation=View("validation", 16),
    )


MakeJob = Callable[..., Job]
