"""The closed form keeps every engine's promises, and is what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sweep.engines.inputs import Inputs
from sweep.engines.synthetic import Synthetic, loss
from sweep.evaluation.compare import paired_difference
from sweep.types import Asking, Engine, Probe, Prompt, Recipe, View
from tests.contracts.answers import AnswersContract
from tests.contracts.engine import RECIPE, EngineContract, job, reports


class TestSynthetic(EngineContract, AnswersContract):
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


def right(inputs: Inputs, recipe: Recipe, stop: int) -> set[str]:
    """The rows that are answered as their data answers them."""
    examples = [example for split in inputs.data.examples.values() for example in split]
    prompts = tuple(Prompt(example.id, (("user", example.prompt),)) for example in examples)
    asked = replace(job(0, stop, recipe=recipe), asked=Asking(prompts, 48))
    (report,) = reports(Synthetic(inputs=inputs, noise=0.0), asked)
    answers = {example.id: example.response for example in examples}
    return {reply.row for reply in report.replies if reply.text == answers[reply.row]}


def test_the_lower_the_loss_the_more_rows_are_answered_right(inputs: Inputs) -> None:
    better = replace(RECIPE, learning_rate=3e-4)
    found = [right(inputs, recipe, stop) for recipe, stop in ((RECIPE, 0), (RECIPE, 48), (better, 480))]
    assert found[0] < found[1] < found[2]
    losses = (loss(RECIPE, 0), loss(RECIPE, 48), loss(better, 480))
    for rows, expected in zip(found, losses, strict=True):
        assert abs(len(rows) / 120 - np.exp(1 - expected)) < 0.12


def test_a_reply_that_is_too_long_is_cut_and_has_not_ended(inputs: Inputs) -> None:
    asked = replace(job(0, 8), asked=Asking((Prompt("nobody's", (("user", "one two"),)),), 2))
    (report,) = reports(Synthetic(inputs=inputs, noise=0.0), asked)
    (reply,) = report.replies
    assert (reply.text, reply.prompt_tokens, reply.tokens, reply.ended) == ("I am", 2, 2, False)
    assert reply.seconds == pytest.approx(0.02)


def test_a_high_learning_rate_or_many_passes_learn_rows_by_heart(inputs: Inputs) -> None:
    probe = Probe(train=View("train", 48), held_out=View("validation"), continued=8)

    def separable(rate: float, epochs: float = 1.0) -> tuple[float, set[bool | None]]:
        """How often a trained row is more likely than another; what its continuation says."""
        recipe = replace(RECIPE, learning_rate=rate, epochs=epochs)
        asked = replace(job(0, 48, recipe=recipe), probe=probe)
        (report,) = reports(Synthetic(inputs=inputs, noise=0.0), asked)
        trained, other = (
            [row for row in report.probed if row.split == split] for split in ("train", "validation")
        )
        assert {row.verbatim for row in other[:8]} == {False}
        pairs = [a.min_k > b.min_k for a in trained for b in other]
        return sum(pairs) / len(pairs), {row.verbatim for row in trained[:8]}

    share, verbatim = separable(3e-3)
    assert abs(share - 0.5) < 0.15
    assert verbatim == {False}
    assert separable(0.015) == (1.0, {True})
    # Two thirds of the way: two passes, and a little more.
    assert separable(3e-3, epochs=3.0)[1] == {False}
    assert separable(3e-3, epochs=3.1) == (1.0, {True})
