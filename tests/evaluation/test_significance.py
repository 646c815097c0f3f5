from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import wilcoxon

from sweep.evaluation.rows import RowValue
from sweep.evaluation.significance import holm, signed_rank_p
from sweep.types import RowLoss


def closed_testing(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's definition: the worst Bonferroni p value of all sets of hypotheses that hold this one."""
    names = list(p_values)
    sets = [chosen for size in range(1, len(names) + 1) for chosen in combinations(names, size)]
    return {
        name: max(
            min(1.0, len(chosen) * min(p_values[other] for other in chosen))
            for chosen in sets
            if name in chosen
        )
        for name in names
    }


def test_holm_on_values_worked_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({"alone": 0.2}) == {"alone": 0.2}
    assert holm({}) == {}


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_the_closure_of_bonferronis_test(seed):
    rng = np.random.default_rng(seed)
    drawn = {str(name): float(p) for name, p in enumerate(rng.choice([0.001, 0.01, 0.2, rng.random()], 6))}
    assert holm(drawn) == pytest.approx(closed_testing(drawn))
    assert list(holm(drawn)) == list(drawn)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_what_is_no_p_value_is_refused(p):
    with pytest.raises(ValueError, match="b: p = "):
        holm({"a": 0.1, "b": p})


def test_signed_ranks_are_scipys_over_the_clusters_losses_per_token():
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 50, 60)
    nats = tokens * rng.gamma(4.0, 0.5, (2, 60))
    clusters = {str(row): row // 3 for row in range(60)}
    first, second = ([RowLoss(str(i), n[i], int(tokens[i])) for i in range(60)] for n in nats)
    means = nats.reshape(2, 20, 3).sum(axis=2) / tokens.reshape(20, 3).sum(axis=1)
    expected = wilcoxon(means[0], means[1]).pvalue
    assert signed_rank_p(first, second[::-1], clusters=clusters) == pytest.approx(expected)
    alone = wilcoxon(*(nats / tokens)).pvalue
    assert signed_rank_p(first, second, clusters=None) == pytest.approx(alone)
    assert abs(alone - expected) > 0.01


def test_one_huge_difference_does_not_decide_the_ranks():
    gains = [-0.1] * 11 + [90.0]
    first = [RowValue(str(i), gain) for i, gain in enumerate(gains)]
    level = [RowValue(str(i), 0.0) for i in range(12)]
    assert signed_rank_p(first, level, clusters=None) < 0.05


def test_rows_without_difference_say_nothing():
    rows = [RowValue(str(i), float(i)) for i in range(20)]
    assert signed_rank_p(rows, rows, clusters=None) == 1.0
    empty = [RowLoss("a", 0.0, 0), RowLoss("b", 2.0, 1)]
    assert signed_rank_p(empty, empty, clusters=None) == 1.0
