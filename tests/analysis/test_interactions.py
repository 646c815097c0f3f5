import dataclasses
import re

import numpy as np
import pytest

from sweep.analysis.axes import Axis
from sweep.analysis.interactions import COLUMNS, describe, interactions, surface
from sweep.analysis.surrogate import fit

AXES = (
    Axis(name="learning_rate", scale="log", low=3e-5, high=3e-3),
    Axis(name="batch_size", scale="ordered", choices=(4, 8, 16, 32)),
    Axis(name="weight_decay", scale="linear", low=0.0, high=0.3),
)


def valley(x):
    """The best learning rate's position is 0.35 at batch size 4, 0.65 at batch size 32."""
    return 1.8 + (x[:, 0] - 0.35 - 0.3 * x[:, 1]) ** 2


@pytest.fixture(scope="module")
def fitted(trials_of):
    return fit(trials_of(valley, AXES, 48, noise=0.03), AXES, seed=0)


def test_a_polynomials_pair_shares_are_the_analytic_ones(trials_of, axes_for):
    def polynomial(x):
        return x[:, 0] + 2.0 * x[:, 1] + 3.0 * x[:, 2] * x[:, 3]

    total = 1 / 12 + 4 / 12 + 2 * 9 / 48 + 9 / 144
    table = interactions(trials_of(polynomial, axes_for(4), 64), axes_for(4), seed=0)
    assert tuple(table.iloc[0][["first", "second"]]) == ("x3", "x4")
    assert table["share"].iloc[0] == pytest.approx(9 / 144 / total, abs=0.02)
    assert table["share"].iloc[1:].max() < 0.01


def test_an_additive_loss_has_no_interactions(trials_of, axes_for):
    table = trials_of(lambda x: x[:, 0] ** 2 + np.sin(3 * x[:, 1]), axes_for(3), 48, noise=0.05)
    surrogate = fit(table, axes_for(3), seed=0)
    assert interactions(table, axes_for(3), seed=0, surrogate=surrogate)["share"].max() < 0.02
    assert describe(surrogate, "x1", "x2").startswith("X1 and x2 hardly act on each other")


def test_a_pure_product_is_all_in_its_pair(trials_of, axes_for):
    table = trials_of(lambda x: (x[:, 0] - 0.5) * (x[:, 2] - 0.5), axes_for(3), 48)
    row = interactions(table, axes_for(3), seed=0).iloc[0]
    assert (row["first"], row["second"]) == ("x1", "x3")
    assert row["share"] > 0.95


def test_the_interval_holds_the_truth_on_biased_low_rungs(trials_of, axes_for, rungs):
    def function(x):
        return x[:, 1] + 2.0 * (x[:, 1] - 0.5) * (x[:, 2] - 0.5)

    exact = (4 / 144) / (1 / 12 + 4 / 144)
    row = interactions(
        trials_of(function, axes_for(3), 64, noise=0.03, rungs=rungs), axes_for(3), seed=0
    ).iloc[0]
    assert (row["first"], row["second"]) == ("x2", "x3")
    assert row["low"] <= exact <= row["high"]


def test_too_few_trials_or_one_parameter_give_an_empty_table(trials_of, axes_for):
    few = interactions(trials_of(valley, AXES, 3), AXES, seed=0)
    alone = interactions(trials_of(lambda x: x[:, 0], axes_for(1), 8), axes_for(1), seed=0)
    for table in (few, alone):
        assert table.empty
        assert tuple(table.columns) == COLUMNS


def test_the_ridge_is_where_the_loss_is_lowest(fitted):
    table = surface(fitted, "batch_size", "learning_rate")
    best = table.groupby("batch_size")["best"].first()
    exact = [3e-5 * 100 ** (0.35 + 0.1 * step) for step in range(4)]
    # One step of the grid is a factor of 1.21.
    np.testing.assert_allclose(np.log(best), np.log(exact), atol=0.3)
    lowest = table.loc[table.groupby("batch_size")["loss"].idxmin()]
    assert (lowest["learning_rate"] == lowest["best"]).all()
    assert (table["low"] <= table["loss"]).all()
    assert (table["best_low"] <= table["best_high"]).all()


def test_the_surface_is_the_loss_averaged_over_the_others(fitted):
    loss = surface(fitted, "batch_size", "learning_rate")["loss"].to_numpy().reshape(4, 25)
    turned = surface(fitted, "learning_rate", "batch_size")["loss"].to_numpy().reshape(25, 4)
    np.testing.assert_allclose(loss, turned.T)
    decay = fitted.axis("weight_decay")
    at = [[fitted.axis("learning_rate").nodes[3], 1 / 3, node] for node in decay.nodes]
    assert loss[1, 3] == pytest.approx(fitted.predict(np.array(at)).mean(axis=0) @ decay.weights)


def test_a_shifting_optimum_is_read_out(fitted):
    reading = describe(fitted, "batch_size", "learning_rate")
    assert re.fullmatch(
        r"The best learning rate rises from \S+e-4 at batch size 4 to \S+e-\d at batch size 32 "
        r"\(\d+% of the variance, \d+% to \d+%\)\.",
        reading,
    )
    assert describe(fitted, "learning_rate", "batch_size") == reading


def test_a_category_that_moves_the_optimum_is_read_out(trials_of):
    axes = (AXES[0], Axis(name="schedule", scale="categorical", choices=("wsd", "linear", "cosine")))

    def function(x):
        return (x[:, 0] - np.where(x[:, 1] > 0.9, 0.8, 0.2)) ** 2

    surrogate = fit(trials_of(function, axes, 60), axes, seed=0)
    assert re.match(
        r"The best learning rate rises from \S+ at schedule (wsd|linear) to \S+ at schedule cosine",
        describe(surrogate, "learning_rate", "schedule"),
    )


def test_an_interaction_that_moves_no_optimum_says_so(trials_of, axes_for):
    table = trials_of(lambda x: (0.2 + x[:, 0]) * (0.2 + x[:, 1]), axes_for(2), 40)
    assert "neither's best value moves" in describe(fit(table, axes_for(2), seed=0), "x1", "x2")


def test_noise_reads_as_too_few_trials(trials_of, axes_for):
    table = trials_of(lambda x: np.ones(len(x)), axes_for(3), 24)
    table["loss"] = np.random.default_rng(1).standard_normal(24)
    surrogate = fit(table, axes_for(3), seed=0)
    assert describe(surrogate, "x1", "x2").startswith("Too few trials to tell")
    assert describe(None, "x1", "x2") == "Too few trials to tell how x1 and x2 act on each other."


def test_an_interval_from_nothing_to_something_reads_as_too_few_trials(fitted):
    pair = ("learning_rate", "batch_size")
    unsure = np.linspace(0.0, 1.0, len(fitted.level))[:, None, None] * fitted.pairs[pair]
    surrogate = dataclasses.replace(fitted, pairs={**fitted.pairs, pair: unsure})
    assert re.fullmatch(
        r"Too few trials to tell how learning rate and batch size act on each other: "
        r"between 0% and \d+% of the variance\.",
        describe(surrogate, *pair),
    )
