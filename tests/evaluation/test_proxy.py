from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import rankdata

from sweep.evaluation.proxy import proxy_agrees

LOSSES = [1.0, 1.1, 1.3, 1.7, 2.5]


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_sign_follows_what_is_better(higher_is_better: bool) -> None:
    best_first = [9.0, 8.0, 3.0, 2.0, 1.0]
    values = best_first if higher_is_better else [-value for value in best_first]
    found = proxy_agrees(LOSSES, values, higher_is_better=higher_is_better)
    assert (found.check, found.passed, found.value) == ("proxy_agrees", True, pytest.approx(1))
    turned = proxy_agrees(LOSSES, values[::-1], higher_is_better=higher_is_better)
    assert (turned.passed, turned.severity, turned.value) == (False, "warn", pytest.approx(-1))


def test_it_is_the_correlation_of_ranks_ties_included() -> None:
    rng = np.random.default_rng(0)
    losses, values = rng.integers(0, 6, size=30), rng.integers(0, 6, size=30)
    expected = -np.corrcoef(rankdata(losses), rankdata(values))[0, 1]
    found = proxy_agrees(losses.tolist(), values.tolist(), higher_is_better=True)
    assert found.value == pytest.approx(expected)


@pytest.mark.parametrize(("ranks", "squares"), [((1, 4, 2, 3, 5), 6), ((2, 3, 4, 1, 5), 12)])
def test_it_warns_below_a_half(ranks: tuple[int, ...], squares: int) -> None:
    """By hand: 1 less 6 times the squared differences of ranks over n(n^2 - 1) = 120."""
    found = proxy_agrees(LOSSES, [-rank for rank in ranks], higher_is_better=True)
    assert found.value == pytest.approx(1 - 6 * squares / 120)
    assert found.passed == (found.value > 0.5)
    assert ("orders trials otherwise" in found.message) == (squares == 12)


@pytest.mark.parametrize(
    ("losses", "values"), [(LOSSES[:3], [3.0, 2.0, 1.0]), ([], []), (LOSSES, [1.0] * 5), ([1.0] * 5, LOSSES)]
)
def test_where_it_cannot_tell_it_says_so(losses: list[float], values: list[float]) -> None:
    found = proxy_agrees(losses, values, higher_is_better=True)
    assert not found.passed
    assert math.isnan(found.value)
    assert "can't" in found.message


def test_each_trial_needs_both() -> None:
    with pytest.raises(ValueError, match="5 losses and 1 values"):
        proxy_agrees(LOSSES, [1.0], higher_is_better=True)
