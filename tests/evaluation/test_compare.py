import math

import numpy as np
import pytest
from scipy.stats import t

from sweep.evaluation.compare import Noise, loss_score, paired_difference, paired_error
from sweep.evaluation.rows import RowValue
from sweep.types import RowLoss


def rows_of(nats, tokens) -> list[RowLoss]:
    return [
        RowLoss(str(i), float(n), int(count)) for i, (n, count) in enumerate(zip(nats, tokens, strict=True))
    ]


def test_the_score_of_equally_long_rows_is_the_mean_with_its_standard_error():
    nats = np.random.default_rng(0).gamma(2.0, 10.0, size=40)
    score = loss_score(rows_of(nats, [20] * 40))
    assert score.value == pytest.approx(nats.mean() / 20)
    assert score.standard_error == pytest.approx(nats.std(ddof=1) / math.sqrt(40) / 20)
    assert score.examples == 40


def test_the_standard_error_is_the_spread_over_samples_of_uneven_rows():
    rng = np.random.default_rng(1)
    tokens = rng.integers(5, 80, size=(400, 60))
    nats = tokens * rng.gamma(4.0, 0.5, size=tokens.shape)
    scores = [loss_score(rows_of(*sample)) for sample in zip(nats, tokens, strict=True)]
    spread = np.std([score.value for score in scores])
    assert np.mean([score.standard_error for score in scores]) == pytest.approx(spread, rel=0.1)


def test_one_row_says_nothing_about_its_error():
    assert loss_score(rows_of([3.0], [2])).standard_error == math.inf
    difference = paired_difference(rows_of([3.0], [2]), rows_of([4.0], [2]), clusters=None, seed=0)
    assert (difference.value, difference.low, difference.high) == (-0.5, -math.inf, math.inf)
    assert difference.p_value == 1.0


def test_identical_losses_differ_by_nothing():
    rows = rows_of([1.0, 5.0, 2.5], [3, 4, 5])
    difference = paired_difference(rows, rows, clusters=None, seed=0)
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)
    assert (difference.p_value, difference.rows) == (1.0, 3)


def test_rows_are_matched_by_id_in_whatever_order():
    rng = np.random.default_rng(2)
    first, second = (rows_of(rng.gamma(2.0, 5.0, 30), np.arange(30) + 1) for _ in range(2))
    straight = paired_difference(first, second, clusters=None, seed=0)
    assert straight == paired_difference(first, second[::-1], clusters=None, seed=0)
    tokens = sum(row.tokens for row in first)
    nats = sum(one.nats - other.nats for one, other in zip(first, second, strict=True))
    assert straight.value == pytest.approx(nats / tokens)


def test_a_clear_difference_is_found_and_its_sign_kept():
    rng = np.random.default_rng(3)
    tokens = rng.integers(10, 50, 60)
    loss = rng.gamma(4.0, 0.5, 60)
    better = rows_of(tokens * (loss - 0.1 + 0.05 * rng.standard_normal(60)), tokens)
    difference = paired_difference(better, rows_of(tokens * loss, tokens), clusters=None, seed=0)
    assert difference.low < -0.1 < difference.high < 0.0
    assert difference.p_value == pytest.approx(1 / 10_001)


def simulate(clusters: int, repeats: int, *, clustered: bool):
    """How often the interval holds zero and how often p < 0.05, two rows per cluster, no true difference."""
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(clusters), 2)
    labels = {str(i): int(group) for i, group in enumerate(groups)}
    size = (repeats, len(groups))
    tokens = rng.integers(5, 60, size)
    loss = rng.gamma(4.0, 0.5, size)
    # Rows of one cluster share most of their difference.
    shift = 0.3 * rng.standard_normal((repeats, clusters))[:, groups] + 0.05 * rng.standard_normal(size)
    differences = [
        paired_difference(
            rows_of(one, count),
            rows_of(other, count),
            clusters=labels if clustered else None,
            seed=seed,
            resamples=999,
        )
        for seed, (one, other, count) in enumerate(
            zip(tokens * (loss + shift), tokens * loss, tokens, strict=True)
        )
    ]
    held = np.mean([difference.low <= 0.0 <= difference.high for difference in differences])
    found = np.mean([difference.p_value < 0.05 for difference in differences])
    return held, found


@pytest.mark.parametrize("clusters", [10, 40])
def test_intervals_hold_the_truth_as_often_as_they_say(clusters):
    repeats = 400
    held, found = simulate(clusters, repeats, clustered=True)
    # Three standard errors of the binomial, and a percent for the bootstrap's own approximation.
    tolerance = 3.0 * math.sqrt(0.95 * 0.05 / repeats) + 0.01
    assert abs(held - 0.95) < tolerance
    assert found - 0.05 < tolerance


def test_ignoring_clusters_would_claim_too_much():
    held, found = simulate(40, 200, clustered=False)
    assert held < 0.9
    assert found > 0.1


def test_a_row_without_tokens_counts_its_cluster_only():
    rows = rows_of([0.0, 4.0, 6.0], [0, 2, 3])
    assert loss_score(rows).value == 2.0
    assert paired_difference(rows, rows, clusters=None, seed=0).value == 0.0


def test_any_value_of_a_row_is_compared_like_a_loss_over_one_token():
    rng = np.random.default_rng(5)
    first, second = rng.normal(size=(2, 50))
    of_values, of_losses = (
        paired_difference(kind(first), kind(second), clusters=None, seed=0)
        for kind in (
            lambda values: [RowValue(str(i), float(value)) for i, value in enumerate(values)],
            lambda values: rows_of(values, [1] * 50),
        )
    )
    assert of_values == of_losses
    assert of_values.value == pytest.approx((first - second).mean())


def test_the_paired_error_is_that_of_the_mean_difference():
    rng = np.random.default_rng(6)
    first, second = rng.gamma(2.0, 5.0, (2, 40))
    error = paired_error(rows_of(first, [4] * 40), rows_of(second, [4] * 40)[::-1])
    assert error == pytest.approx((first - second).std(ddof=1) / math.sqrt(40) / 4)
    assert paired_error(rows_of([1.0], [1]), rows_of([2.0], [1])) == math.inf


def test_the_paired_error_is_the_spread_over_samples_of_uneven_rows():
    rng = np.random.default_rng(7)
    tokens = rng.integers(5, 80, size=(300, 60))
    first, second = tokens * rng.gamma(4.0, 0.5, size=(2, *tokens.shape))
    pairs = [
        (rows_of(one, count), rows_of(other, count))
        for one, other, count in zip(first, second, tokens, strict=True)
    ]
    spread = np.std([loss_score(one).value - loss_score(other).value for one, other in pairs])
    assert np.mean([paired_error(*pair) for pair in pairs]) == pytest.approx(spread, rel=0.1)


def test_noise_beside_the_rows_widens_by_students_t():
    rows = rows_of([1.0] * 100, [1] * 100)
    better = rows_of([0.0] * 100, [1] * 100)
    noise = [Noise(error=0.3, degrees=4)]
    difference = paired_difference(better, rows, clusters=None, seed=0, resamples=40_000, noise=noise)
    # The rows agree, so only the noise is left; 2.776 is Student's 97.5% point at 4 degrees.
    assert difference.high - difference.value == pytest.approx(2.776 * 0.3, rel=0.05)
    assert difference.value - difference.low == pytest.approx(2.776 * 0.3, rel=0.05)
    noisy = [Noise(error=math.inf, degrees=1)]
    unknown = paired_difference(better, rows, clusters=None, seed=0, noise=noisy)
    assert (unknown.low, unknown.high, unknown.p_value) == (-math.inf, math.inf, 1.0)


@pytest.mark.parametrize("error", [0.1, 1 / 2.776, 1.0])
def test_noise_beside_the_rows_enters_the_p_value(error):
    rng = np.random.default_rng(8)
    # Rows that say as good as nothing: what is left is the test of 0.5 against the noise.
    rows = rows_of([2.0] * 400, [1] * 400)
    better = rows_of(1.0 + 1e-6 * rng.standard_normal(400), [1] * 400)
    found = paired_difference(
        better, rows, clusters=None, seed=0, resamples=20_000, noise=[Noise(error=error, degrees=4)]
    )
    # Flipped rows leave a mean of no difference with a spread of 1 / sqrt(400).
    expected = 2 * t.sf(1.0 / error, 4)
    assert found.p_value == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("first", "second", "clusters", "message"),
    [
        ([("a", 1.0, 1)], [("b", 1.0, 1)], None, "same rows"),
        ([("a", 1.0, 1), ("a", 1.0, 1)], [("a", 1.0, 1)], None, "twice"),
        ([], [], None, "no token"),
        ([("a", 0.0, 0)], [("a", 0.0, 0)], None, "no token"),
        ([("a", 1.0, 1)], [("a", 1.0, 1)], {"b": 0}, "no cluster"),
    ],
)
def test_rows_that_do_not_pair_are_refused(first, second, clusters, message):
    with pytest.raises(ValueError, match=message):
        paired_difference(
            [RowLoss(*row) for row in first], [RowLoss(*row) for row in second], clusters=clusters, seed=0
        )
