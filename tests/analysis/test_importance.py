import time

import numpy as np
import pytest
from scipy.stats import sobol_indices, uniform

from sweep.analysis.axes import Axis
from sweep.analysis.importance import COLUMNS, importances
from sweep.analysis.surrogate import fit


def ishigami(x):
    """x3 acts only through x1, x2 only alone. a = 5, b = 0.1."""
    z = np.pi * (2.0 * x - 1.0)
    return np.sin(z[:, 0]) + 5.0 * np.sin(z[:, 1]) ** 2 + 0.1 * z[:, 2] ** 4 * np.sin(z[:, 0])


def test_main_and_total_shares_agree_with_scipy_on_ishigami(trials_of, axes_for):
    exact = sobol_indices(func=lambda x: ishigami(x.T), n=2**13, dists=[uniform()] * 3, rng=0)
    table = importances(trials_of(ishigami, axes_for(3), 96), axes_for(3), seed=0).set_index("parameter")
    table = table.loc[["x1", "x2", "x3"]]
    np.testing.assert_allclose(table["main"], exact.first_order, atol=0.05)
    np.testing.assert_allclose(table["total"], exact.total_order, atol=0.05)


def test_effects_at_the_top_rung_are_found_though_low_rungs_are_biased(trials_of, axes_for, rungs):
    # Lower rungs add a bias that grows with x1 and so shows x1 as harmful; at the top it does nothing.
    def top(x):
        return (x[:, 1] - 0.6) ** 2 + 0.3 * x[:, 2]

    exact = np.array([0.0, 0.0080, 0.0075]) / 0.0155
    trials = trials_of(top, axes_for(3), 64, noise=0.05, rungs=rungs)
    table = importances(trials, axes_for(3), seed=0).set_index("parameter")
    np.testing.assert_allclose(table.loc[["x1", "x2", "x3"], "main"], exact, atol=0.15)
    # Taken for top losses, the lowest rung's say otherwise.
    naive = trials[trials["examples_seen"] == 256]
    assert importances(naive, axes_for(3), seed=0).set_index("parameter").loc["x1", "main"] > 0.3


def test_categories_ordered_choices_and_log_scales_get_their_shares(trials_of):
    axes = [
        Axis(name="learning_rate", scale="log", low=1e-5, high=1e-2),
        Axis(name="batch_size", scale="ordered", choices=(4, 8, 16, 32)),
        Axis(name="schedule", scale="categorical", choices=("constant", "cosine", "wsd")),
    ]
    levels = np.array([0.0, 0.8, 0.2])

    def function(x):
        return x[:, 0] + 0.5 * x[:, 1] + levels[np.rint(2 * x[:, 2]).astype(int)]

    variances = np.array([1 / 12, 0.25 * np.var([0, 1 / 3, 2 / 3, 1]), levels.var()])
    table = importances(trials_of(function, axes, 48), axes, seed=0).set_index("parameter")
    shares = table.loc[["learning_rate", "batch_size", "schedule"], "main"]
    np.testing.assert_allclose(shares, variances / variances.sum(), atol=0.05)
    assert table.loc["learning_rate", "spearman"] > 0.3
    assert np.isnan(table.loc["schedule", "spearman"])


def test_intervals_hold_the_truth_and_narrow_with_trials(trials_of, axes_for):
    def function(x):
        return x[:, 0] + 0.5 * x[:, 1]

    few, many = (
        importances(trials_of(function, axes_for(3), count, noise=0.2), axes_for(3), seed=0).iloc[0]
        for count in (10, 64)
    )
    for row in (few, many):
        assert row["parameter"] == "x1"
        assert row["low"] <= 0.8 <= row["high"]
    assert many["high"] - many["low"] < few["high"] - few["low"]


def test_the_better_half_has_its_own_shares(trials_of, axes_for):
    def cliff(x):
        return 5.0 * np.maximum(x[:, 0] - 0.5, 0.0) + x[:, 1]

    table = importances(trials_of(cliff, axes_for(2), 64), axes_for(2), seed=0).set_index("parameter")
    assert table.loc["x1", "main"] > 0.8
    # Exact by simulation of the function itself.
    x = np.random.default_rng(0).uniform(size=(200_000, 2))
    loss = cliff(x)
    kept = loss <= np.median(loss)
    bins = np.floor(x[kept, 1] * 16).astype(int)
    counts = np.bincount(bins)
    means = np.bincount(bins, loss[kept]) / counts
    exact = np.average((means - loss[kept].mean()) ** 2, weights=counts) / loss[kept].var()
    assert table.loc["x2", "main_top_half"] == pytest.approx(exact, abs=0.08)


def test_one_blown_up_trial_does_not_own_the_variance(trials_of, axes_for):
    table = trials_of(lambda x: x[:, 0] + 0.2 * x[:, 1], axes_for(3), 40)
    table.loc[7, "loss"] = 1e4
    assert importances(table, axes_for(3), seed=0).iloc[0]["parameter"] == "x1"


def test_too_few_trials_give_an_empty_table(trials_of, axes_for):
    table = importances(trials_of(lambda x: x[:, 0], axes_for(2), 3), axes_for(2), seed=0)
    assert table.empty
    assert tuple(table.columns) == COLUMNS


def test_six_parameters_and_three_full_rungs_take_seconds(trials_of, axes_for):
    rungs = ((256, 0.4, 1.0), (768, 0.15, 1.0), (2304, 0.0, 1.0))
    table = trials_of(lambda x: x[:, 0] + x[:, 1] * x[:, 2], axes_for(6), 64, noise=0.1, rungs=rungs)
    start = time.process_time()
    importances(table, axes_for(6), seed=0, surrogate=fit(table, axes_for(6), seed=0))
    # 3 s on an idle core.
    assert time.process_time() - start < 10.0
