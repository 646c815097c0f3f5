"""The closed form keeps every engine's promises, and is what it says."""

from __future__ import annotations

from dataclasses import replace

from sweep.engines.inputs import Inputs
from sweep.engines.synthetic import Synthetic, loss
from sweep.types import Engine
from tests.contracts.engine import RECIPE, EngineContract, job, reports


class TestSynthetic(EngineContract):
    @staticmethod
    def make_engine(inputs: Inputs) -> Engine:
        return Synthetic(inputs=inputs, noise=0.01)


def test_more_examples_are_better_and_the_best_rate_grows_with_the_batch() -> None:
    curve = [loss(RECIPE, examples) for examples in (0, 32, 96, 288)]
    assert curve == sorted(curve, reverse=True)

    def best(batch_size: int) -> float:
        rates = [10 ** (-4.5 + i / 100) for i in range(200)]
        return min(rates, key=lambda r: loss(replace(RECIPE, learning_rate=r, batch_size=batch_size), 96))

    assert abs(best(32) / best(8) - 2.0) < 0.1


def test_the_noise_stays_within_its_bound_and_differs_between_trials(inputs: Inputs) -> None:
    engine = Synthetic(inputs=inputs, noise=0.05)
    found = []
    for rank in (4, 8, 16):
        recipe = replace(RECIPE, lora_rank=rank)
        (report,) = reports(engine, job(0, 48, recipe=recipe))
        found.append((report.validation_loss or 0.0) - loss(recipe, 48))
    assert all(abs(noise) <= 0.05 for noise in found)
    assert len(set(found)) == 3
