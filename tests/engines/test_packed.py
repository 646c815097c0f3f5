"""The packed engine: what each trial gets is what it would get alone, whoever trains beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from sweep.engines.inputs import Inputs
from sweep.engines.model import Base, RandomLlama
from sweep.engines.packed import Packed
from sweep.engines.solo import Solo
from sweep.search.loop import Jobs
from sweep.types import Engine, Job, Progress, Recipe
from tests.contracts.engine import RECIPE, EngineContract, job, reports

from .conftest import TINY

STILL = replace(RECIPE, lora_dropout=0.0)


class TestOneSlot(EngineContract):
    @staticmethod
    def make_engine(inputs: Inputs) -> Engine:
        return Packed(inputs=inputs, slots=1, tokens=512)


class TestSeveralSlots(EngineContract):
    beside_others = 1e-5

    @staticmethod
    def make_engine(inputs: Inputs) -> Engine:
        return Packed(inputs=inputs, slots=3, tokens=256)


class TestAsManySlotsAsFit(EngineContract):
    beside_others = 1e-5

    @staticmethod
    def make_engine(inputs: Inputs) -> Engine:
        return Packed(inputs=inputs, slots=None, tokens=1024)


@dataclass(frozen=True, kw_only=True)
class Double(RandomLlama):
    """The same model in fp64."""

    def load(self) -> Base:
        model, tokenizer = super().load()
        return Base(model.double(), tokenizer)


TARGETS: tuple[Any, ...] = ("all-linear", ("q_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj"))


def mixed() -> list[Recipe]:
    """16 recipes of mixed rank, batch and layers, for 104 steps of the smallest batch."""
    ranks, batches, rates = (4, 8, 16, 64), (4, 8, 16, 32), (3e-4, 1e-3, 3e-3, 1e-4)
    return [
        replace(
            STILL,
            lora_rank=ranks[i % 4],
            batch_size=batches[(i // 4 + i) % 4],
            learning_rate=rates[i // 4],
            weight_decay=0.1 * (i % 3),
            target_modules=TARGETS[i % 3],
            rslora=i % 5 == 0,
            schedule=("linear", "cosine", "constant", "wsd")[i % 4],  # type: ignore[arg-type]
        )
        for i in range(16)
    ]


def jobs_of(recipes: list[Recipe], prefix: str, steps: int) -> list[Job]:
    """Each recipe for so many steps."""
    return [
        job(0, steps * r.batch_size, trial=f"{prefix}{i}", recipe=r, horizon=steps * r.batch_size)
        for i, r in enumerate(recipes)
    ]


def test_sixteen_mixed_trials_in_fp64_end_as_each_alone_on_the_reference(inputs: Inputs) -> None:
    double = replace(inputs, model=Double(**vars(TINY)))
    solo, packed = Solo(inputs=double, micro_batch=32), Packed(inputs=double, slots=16, tokens=4096)
    steps = 104
    alone = reports(solo, *jobs_of(mixed(), "alone", steps))
    together = reports(packed, *jobs_of(mixed(), "packed", steps))
    for reference, found in zip(alone, together, strict=True):
        assert found.state == reference.state == "reached"
        assert found.validation_loss == pytest.approx(reference.validation_loss, abs=1e-6)
        assert found.train_loss == pytest.approx(reference.train_loss, abs=1e-6)
        assert found.tokens == reference.tokens


def test_in_fp32_the_first_gradients_agree(inputs: Inputs) -> None:
    def first_steps(engine: Engine, prefix: str) -> dict[str, Progress]:
        events = engine.run(Jobs(jobs_of(mixed(), prefix, 1)))
        return {e.trial.removeprefix(prefix): e for e in events if isinstance(e, Progress)}

    alone = first_steps(Solo(inputs=inputs, micro_batch=32), "alone")
    packed = first_steps(Packed(inputs=inputs, slots=16, tokens=4096), "packed")
    assert alone.keys() == packed.keys()
    for name, reference in alone.items():
        assert packed[name].train_loss == pytest.approx(reference.train_loss, rel=1e-5)
        assert packed[name].gradient_norm == pytest.approx(reference.gradient_norm, rel=1e-5)
