"""A tiny random Llama, 120 short rows, and jobs on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweep.data.example import Example, Message
from sweep.data.split import DataSet
from sweep.engines.inputs import Inputs
from sweep.engines.model import RandomLlama

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


def tiny_inputs(folder: Path) -> Inputs:
    """The rows and the model; checkpoints go to a folder in this one."""
    rows = tuple(example(number) for number in range(120))
    splits = {"train": rows[:72], "validation": rows[72:96], "confirm": rows[96:104], "test": rows[104:112]}
    data = DataSet(
        examples={**splits, "golden": rows[112:]},  # type: ignore[arg-type]
        groups={row.id: i for i, row in enumerate(rows)},
        fingerprint="tiny",
        notes=(),
    )
    return Inputs(model=TINY, data=data, max_tokens=96, folder=folder / "checkpoints")


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return tiny_inputs(tmp_path)
