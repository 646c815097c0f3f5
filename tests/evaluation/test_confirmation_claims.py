"""The benchmark of confirmation, in small: the product's functions on searches whose truth is known."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from benchmarks.confirmation_claims import Search, World, search

REPEATS = 80


@cache
def searches(gain: float, seed: float) -> list[Search]:
    return [search(World(gain=gain, seed=seed), seed=repeat, resamples=400) for repeat in range(REPEATS)]


def errors(found: list[Search]) -> np.ndarray:
    return np.array([one.tested.value - one.truth - one.luck for one in found if one.tested])


def test_intervals_hold_the_true_gain_and_are_no_wider_than_needed():
    for seed in (0.01, 0.05):
        found = [one for one in searches(0.2, seed) if one.tested]
        assert len(found) > 0.9 * REPEATS
        held = np.mean([one.tested.low <= one.truth <= one.tested.high for one in found])
        # Three standard errors of the binomial.
        assert held > 0.95 - 3 * math.sqrt(0.95 * 0.05 / len(found))
        width = np.mean([one.tested.high - one.tested.low for one in found])
        spread = np.std([one.tested.value - one.truth for one in found])
        assert 0.85 < width / (2 * 1.96 * spread) < 1.5


def test_validation_flatters_the_winner_and_the_test_split_does_not():
    for gain in (0.0, 0.2):
        found = searches(gain, 0.01)
        naive = np.array([one.naive for one in found])
        assert naive.mean() > 0.02
        assert naive.mean() > 5 * naive.std() / math.sqrt(len(naive))
        tested = errors(found)
        assert abs(tested.mean()) < 3 * tested.std() / math.sqrt(len(tested))


def test_nothing_better_is_rarely_shipped_and_a_clear_gain_mostly():
    shipped = {gain: np.mean([one.outcome == "ship" for one in searches(gain, 0.01)]) for gain in (0.0, 0.2)}
    assert shipped[0.0] < 0.05 + 3 * math.sqrt(0.05 * 0.95 / REPEATS)
    assert shipped[0.2] > 0.8
