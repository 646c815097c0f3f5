"""Finalists, the choice among them, and what seeds add to the noise of a difference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm, t

from sweep.evaluation.rows import RowValue
from sweep.evaluation.selection import choose, finalists, seed_mean, seeded_difference
from sweep.types import RowLoss

VALUES = {"0": 1.0, "1": 3.0, "2": 2.0, "3": 3.0, "4": 4.0}


@pytest.mark.parametrize(
    ("better", "count", "violations", "expected"),
    [
        ("higher", 2, {}, ("4", "1", "0")),
        ("lower", 2, {}, ("0", "2")),
        ("higher", 2, {"4": 0.1, "1": 0.0}, ("1", "3", "0")),
        ("lower", 1, {"0": 0.5}, ("2", "0")),
        ("higher", 9, {"2": 1.0}, ("4", "1", "3", "0")),
        ("higher", 0, {}, ("0",)),
    ],
)
def test_the_best_that_may_win_go_on_and_the_defaults_always_do(better, count, violations, expected):
    assert finalists(VALUES, violations, better=better, defaults="0", count=count) == expected


def seeds_of(values) -> dict[int, list[RowValue]]:
    """values: seeds, rows."""
    return {
        seed: [RowValue(str(row), float(value)) for row, value in enumerate(rows)]
        for seed, rows in enumerate(values)
    }


def test_seeds_are_averaged_row_by_row():
    seeds = {
        7: [RowLoss("a", 2.0, 4), RowLoss("b", 6.0, 1)],
        9: [RowLoss("b", 2.0, 1), RowLoss("a", 4.0, 4)],
    }
    assert seed_mean(seeds) == (RowValue("a", 3.0, 4.0), RowValue("b", 4.0, 1.0))


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ({}, "no seed has rows"),
        ({0: [RowValue("a", 1.0)], 1: [RowValue("b", 1.0)]}, "same rows"),
        ({0: [RowValue("a", 1.0), RowValue("a", 1.0)]}, "twice"),
    ],
)
def test_seeds_that_do_not_match_are_refused(seeds, message):
    with pytest.raises(ValueError, match=message):
        seed_mean(seeds)


def test_the_choice_is_by_the_mean_over_seeds_and_not_by_the_luckiest():
    candidates = {
        "lucky": seeds_of([[9.0, 9.0], [0.0, 0.0], [0.0, 0.0]]),
        "steady": seeds_of([[4.0, 4.0], [4.0, 4.0], [4.0, 4.0]]),
        "as steady": seeds_of([[4.0, 4.0], [4.0, 4.0]]),
    }
    assert choose(candidates, better="higher").trial == "steady"
    assert choose(candidates, better="lower").trial == "lucky"
    assert choose(dict(reversed(candidates.items())), better="higher").trial == "as steady"


@pytest.mark.parametrize(
    ("material", "better", "chosen", "as_good"),
    [
        (0.0, "higher", "best", 0),
        (0.09, "higher", "best", 0),
        (0.11, "higher", "near", 2),
        (0.11, "lower", "far", 0),
        (9.0, "higher", "far", 3),
    ],
)
def test_of_values_that_hardly_differ_the_lower_loss_is_chosen(material, better, chosen, as_good):
    values = {"best": 4.0, "near": 3.9, "as near": 3.9, "far": 3.0}
    losses = {"best": 2.0, "near": 1.0, "as near": 1.5, "far": 0.5}
    candidates = {trial: seeds_of([[value, value]] * 2) for trial, value in values.items()}
    found = choose(candidates, better=better, losses=losses, material=material)
    assert (found.trial, len(found.as_good)) == (chosen, as_good)


def test_losses_are_chosen_by_all_their_tokens():
    long = {0: [RowLoss("a", 10.0, 10), RowLoss("b", 3.0, 1)]}
    short = {0: [RowLoss("a", 14.0, 10), RowLoss("b", 1.0, 1)]}
    assert choose({"short": short, "long": long}, better="lower").trial == "long"


@pytest.mark.parametrize("candidates", [{}, {"a": seeds_of([[1.0]]), "b": seeds_of([[1.0, 2.0]])}])
def test_candidates_that_do_not_compare_are_refused(candidates):
    with pytest.raises(ValueError, match="same rows"):
        choose(candidates, better="lower")


def mean_squares(values) -> tuple[float, float]:
    """Of seeds and of what is left, in a two-way table of seeds and rows, by the textbook."""
    seeds, rows = values.shape
    left = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    between = rows * values.mean(axis=1).var(ddof=1)
    return between, (left**2).sum() / ((seeds - 1) * (rows - 1))


def half_width(rows_error: float, seeds_error: float, degrees: int) -> float:
    """Of the 95% interval of a normal deviation and a Student's one together, by quadrature."""

    def outside(width: float) -> float:
        def density(x: float) -> float:
            inside = norm.cdf((width - seeds_error * x) / rows_error)
            inside -= norm.cdf((-width - seeds_error * x) / rows_error)
            return float(inside * t.pdf(x, degrees))

        return quad(density, -60, 60, points=[0], limit=200)[0] - 0.95

    return float(brentq(outside, 1e-6, 50 * (rows_error + seeds_error)))


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.02), (3, 0.1), (2, 0.05), (5, 0.3)])
def test_a_balanced_design_has_the_interval_of_normal_theory(seeds, spread):
    rng = np.random.default_rng(seeds)
    count = 200
    first, second = (
        rng.normal(0.5, 0.6, count)
        + spread * rng.standard_normal((seeds, 1))
        + rng.normal(0, 0.4, (seeds, count))
        for _ in range(2)
    )
    found = seeded_difference(seeds_of(first), seeds_of(second), clusters=None, seed=0, resamples=20_000)
    squares = [mean_squares(side) for side in (first, second)]
    variance = np.mean([(between - left) / count for between, left in squares])
    assert variance > 0
    rows = (first.mean(axis=0) - second.mean(axis=0)).std(ddof=1) / math.sqrt(count)
    expected = half_width(rows, math.sqrt(variance * 2 / seeds), 2 * (seeds - 1))
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.06)
    assert (found.high + found.low) / 2 == pytest.approx(found.value, abs=0.06 * expected)


def test_clusters_count_like_rows_that_hold_their_means():
    rng = np.random.default_rng(0)
    # A seed is lucky with whole clusters, which must not pass for luck with all rows.
    luck = rng.normal(0, 1.0, (2, 3, 40)).repeat(5, axis=2) + rng.normal(0, 0.1, (2, 3, 200))
    clusters = {str(row): row // 5 for row in range(200)}
    of_rows = seeded_difference(*map(seeds_of, luck), clusters=clusters, seed=0)
    of_means = seeded_difference(
        *map(seeds_of, luck.reshape(2, 3, 40, 5).mean(axis=3)), clusters=None, seed=0
    )
    assert (of_rows.rows, of_rows.clusters) == (200, 40)
    assert of_rows.p_value == of_means.p_value
    assert (of_rows.value, of_rows.low, of_rows.high) == pytest.approx(
        (of_means.value, of_means.low, of_means.high)
    )


def test_seeds_that_agree_leave_the_rows_noise_alone():
    rng = np.random.default_rng(1)
    rows = rng.normal(0, 1.0, 300)
    difference = seeded_difference(
        seeds_of([rows] * 3), seeds_of([np.zeros(300)] * 2), clusters=None, seed=0, resamples=20_000
    )
    expected = t.ppf(0.975, 299) * rows.std(ddof=1) / math.sqrt(300)
    assert (difference.high - difference.low) / 2 == pytest.approx(expected, rel=0.03)


def test_a_baseline_has_no_seeds_and_a_lone_seed_borrows_its_rivals_noise():
    rng = np.random.default_rng(2)
    trained = 0.5 * rng.standard_normal((3, 1)) + rng.normal(0, 0.01, (3, 100))
    fixed = [RowValue(str(row), 0.0) for row in range(100)]
    spread = trained.mean(axis=1).std(ddof=1)
    against_fixed = seeded_difference(seeds_of(trained), fixed, clusters=None, seed=0, resamples=40_000)
    lone = seeded_difference(
        seeds_of(trained), seeds_of(np.zeros((1, 100))), clusters=None, seed=0, resamples=40_000
    )
    for found, shares in ((against_fixed, 1 / 3), (lone, 1 / 3 + 1)):
        expected = t.ppf(0.975, 2) * spread * math.sqrt(shares)
        assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("second", [seeds_of(np.zeros((1, 20))), seeds_of(np.zeros((1, 20)))[0]])
def test_one_seed_says_nothing_about_seeds(second):
    difference = seeded_difference(seeds_of(np.ones((1, 20))), second, clusters=None, seed=0)
    assert (difference.value, difference.low, difference.high) == (1.0, -math.inf, math.inf)
    assert difference.p_value == 1.0
