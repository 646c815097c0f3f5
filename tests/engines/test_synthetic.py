"""The closed form keeps every engine's promises, and is what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sweep.engines.inputs import Inputs
from sweep.engines.synthetic import Synthetic, loss
from sweep.evaluation.compare import paired_difference
from sweep.types import Engine, Recipe, View
from tests.contracts.engine import RECIPE, EngineContract, job, reports


class TestSynthetic(EngineContract):
    @staticmethod
    def make_engine(inputs: Inputs) -> Engine:
        return Synthetic(inputs=inputs, noise=0.01)


def rows_of(engine: Engine, recipe: Recipe = RECIPE) -> list[float]:
    """Loss per token of each row of the validation split."""
    whole = replace(job(0, 8, recipe=recipe), evaluation=View("validation"))
    (report,) = reports(engine, whole)
    return [row.nats / row.tokens for row in report.rows]


def test_rows_differ_and_are_hard_for_every_trial_alike(inputs: Inputs) -> None:
    engine = Synthetic(inputs=inputs, noise=0.0)
    first = rows_of(engine)
    other = rows_of(engine, replace(RECIPE, lora_rank=64))
    assert first == rows_of(Synthetic(inputs=inputs, noise=0.0))
    assert len(set(first)) == len(first) > 4
    assert min(first) > 0.0
    assert np.corrcoef(first, other)[0, 1] > 0.9
    differences = np.subtract(first, other)
    assert 0.01 < differences.std() < 0.1


def test_the_paired_difference_of_two_trials_is_that_of_their_losses(inputs: Inputs) -> None:
    engine = Synthetic(inputs=inputs, noise=0.0)
    wide = replace(RECIPE, lora_rank=64)
    whole = [replace(job(0, 8, recipe=recipe), evaluation=View("validation")) for recipe in (wide, RECIPE)]
    first, second = (reports(engine, one)[0].rows for one in whole)
    difference = paired_difference(first, second, clusters=None, seed=0)
    assert difference.value == pytest.approx(loss(wide, 8) - loss(RECIPE, 8))
    assert difference.low < difference.value < difference.high


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
