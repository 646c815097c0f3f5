from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sweep.analysis import surrogate as module
from sweep.analysis.axes import Axis
from sweep.analysis.posterior import Observations, Process
from sweep.analysis.surrogate import fit, observed, trials_table
from sweep.types import Report, Standing, Trial
from tests.recipes import DEFAULTS

RECIPE = replace(DEFAULTS, warmup_fraction=0.03, schedule="constant")


def standing(number, state, *reports):
    trial = Trial(id=str(number), number=number, recipe=RECIPE, seed=0, base="tiny")
    return Standing(trial=trial, state=state, reports=reports)


def report(examples_seen, state="reached", loss=None):
    return Report(
        job="j", trial="t", attempt=0, examples_seen=examples_seen, state=state, validation_loss=loss
    )


def plane(x):
    return 2.0 + x[:, 0] + 0.3 * x[:, 1]


def test_the_table_has_a_row_per_rung_and_one_where_a_trial_diverged():
    table = trials_table(
        [
            standing(0, "complete", report(100, loss=2.0), report(300, loss=1.5)),
            standing(1, "diverged", report(100, loss=2.2), report(170, "diverged", float("nan"))),
            standing(2, "failed", report(100, "failed")),
            standing(None, "complete", report(100, loss=2.0)),
        ],
        ["learning_rate", "lora_rank"],
    )
    assert list(table.columns) == ["trial", "state", "examples_seen", "loss", "learning_rate", "lora_rank"]
    assert table["trial"].tolist() == [0, 0, 1, 1]
    assert table["examples_seen"].tolist() == [100, 300, 100, 170]
    assert table["loss"].isna().tolist() == [False, False, False, True]
    assert set(table["lora_rank"]) == {16}


def test_a_diverged_trial_enters_at_the_worst_loss_of_the_rung_ahead():
    table = pd.DataFrame(
        {
            "trial": [0, 1, 2, 0, 1, 2],
            "state": ["complete", "complete", "diverged"] * 2,
            "examples_seen": [100, 100, 100, 300, 300, 170],
            "loss": [3.0, 3.1, 3.2, 2.0, 2.3, np.nan],
            "x1": [0.1, 0.5, 0.9] * 2,
        }
    )
    row = observed(table, [Axis(name="x1", scale="linear")]).iloc[-1]
    assert (row["trial"], row["examples_seen"], row["loss"]) == (2, 300, 2.3)


def test_losses_keep_their_order_and_only_the_far_tail_is_drawn_in():
    losses = [1.0, 1.1, 1.2, 1.3, 1.4, 50.0, 5000.0]
    table = pd.DataFrame(
        {"trial": range(7), "state": "complete", "examples_seen": 100, "loss": losses, "x1": 0.5}
    )
    tamed = observed(table, [Axis(name="x1", scale="linear")])["loss"]
    assert tamed.is_monotonic_increasing
    assert tamed.iloc[:5].tolist() == pytest.approx(losses[:5])
    far = pd.concat([table] * 4, ignore_index=True).assign(trial=range(28))
    far["loss"] = [*np.linspace(1.0, 1.4, 27), 5000.0]
    assert observed(far, [Axis(name="x1", scale="linear")])["loss"].max() < 5.0


def test_effects_average_to_zero_and_the_sum_meets_the_observations(trials_of, axes_for):
    axes = axes_for(3)
    table = trials_of(lambda x: plane(x) + x[:, 1] * x[:, 2], axes, 40)
    surrogate = fit(table, axes, seed=0)
    for name, effect in surrogate.mains.items():
        np.testing.assert_allclose(effect @ surrogate.axis(name).weights, 0.0, atol=1e-9)
    for (first, second), effect in surrogate.pairs.items():
        inner = np.einsum("dqr,r->dq", effect, surrogate.axis(second).weights)
        outer = np.einsum("dqr,q->dr", effect, surrogate.axis(first).weights)
        np.testing.assert_allclose(np.concatenate([inner.ravel(), outer.ravel()]), 0.0, atol=1e-9)
    predicted = surrogate.predict(table[["x1", "x2", "x3"]].to_numpy())
    assert np.abs(predicted.mean(axis=0) - table["loss"]).max() < 0.02
    assert surrogate.r_squared > 0.98


def test_leaving_a_trial_out_equals_fitting_without_its_rows():
    rng = np.random.default_rng(0)
    axes = (Axis(name="x1", scale="linear"), Axis(name="x2", scale="linear"))
    trial = np.array([0, 1, 2, 3, 4, 0, 1])
    seen = Observations(
        loss=rng.standard_normal(7),
        trial=trial,
        examples=np.array([100.0] * 5 + [300.0] * 2),
        positions=rng.uniform(size=(5, 2)),
    )
    process = Process(seen, axes)
    state = rng.standard_normal(process.size)
    covariance = process._covariance(process._hyperparameters(state))
    predicted = process.leave_trials_out(state)
    for left_out in range(5):
        own, others = trial == left_out, trial != left_out
        weights = np.linalg.solve(covariance[np.ix_(others, others)], seen.loss[others])
        np.testing.assert_allclose(predicted[own], covariance[np.ix_(own, others)] @ weights, atol=1e-9)


def test_draws_have_the_mean_of_the_exact_posterior():
    rng = np.random.default_rng(1)
    axes = (Axis(name="x1", scale="linear"), Axis(name="x2", scale="categorical", choices=("a", "b")))
    positions = np.column_stack([axes[0].nodes[[2, 8, 15, 20]], [0.0, 1.0, 0.0, 1.0]])
    seen = Observations(
        loss=rng.standard_normal(4), trial=np.arange(4), examples=np.full(4, 100.0), positions=positions
    )
    process = Process(seen, axes)
    state = np.zeros(process.size)
    given = process._hyperparameters(state)
    covariance = process._covariance(given)
    noise = given.trial_noise + given.row_noise + 1e-6
    exact = (covariance - noise * np.eye(4)) @ np.linalg.solve(covariance, seen.loss)
    draws = [
        draw.level + draw.mains[0][[2, 8, 15, 20]] + draw.mains[1][[0, 1, 0, 1]]
        + draw.pairs[0][[2, 8, 15, 20], [0, 1, 0, 1]]
        for draw in process.draws(state, 4000, rng)
    ]  # fmt: skip
    np.testing.assert_allclose(np.mean(draws, axis=0), exact, atol=5 * np.std(draws) / np.sqrt(4000))


def test_the_same_seed_gives_the_same_surrogate(trials_of, axes_for):
    axes = axes_for(2)
    table = trials_of(plane, axes, 10, noise=0.1)
    one, other = fit(table, axes, seed=3), fit(table, axes, seed=3)
    np.testing.assert_array_equal(one.mains["x1"], other.mains["x1"])
    assert not np.array_equal(one.mains["x1"], fit(table, axes, seed=4).mains["x1"])


def test_noise_alone_is_not_trusted(trials_of, axes_for):
    table = trials_of(lambda x: np.ones(len(x)), axes_for(4), 40)
    table["loss"] = np.random.default_rng(0).standard_normal(40)
    assert fit(table, axes_for(4), seed=0).r_squared < 0.2


@pytest.mark.parametrize("loss", [[1.0, 2.0, 3.0], [1.0, 1.0, 1.0, 1.0], [np.nan] * 5, []])
def test_too_little_gives_no_surrogate(loss):
    table = pd.DataFrame(
        {
            "trial": range(len(loss)),
            "state": "complete",
            "examples_seen": 100,
            "loss": loss,
            "x1": np.linspace(0.0, 1.0, len(loss)),
        }
    )
    assert fit(table, [Axis(name="x1", scale="linear")], seed=0) is None


def test_a_parameter_that_does_not_vary_is_left_out(trials_of, axes_for):
    table = trials_of(plane, axes_for(3), 10)
    table["x2"] = 0.5
    assert [axis.name for axis in fit(table, axes_for(3), seed=0).axes] == ["x1", "x3"]


def test_many_rows_are_thinned_by_whole_trials(trials_of, axes_for, rungs, monkeypatch):
    monkeypatch.setattr(module, "MAX_ROWS", 30)
    table = trials_of(plane, axes_for(2), 40, rungs=rungs)
    kept = module._thinned(observed(table, axes_for(2)), np.random.default_rng(0))
    assert 25 <= len(kept) <= 30
    sizes = table["trial"].value_counts()
    assert all(size == sizes[trial] for trial, size in kept["trial"].value_counts().items())


def test_the_mean_is_the_mean_of_the_draws(trials_of, axes_for):
    surrogate = fit(trials_of(plane, axes_for(2), 10), axes_for(2), seed=0)
    points = np.random.default_rng(0).uniform(size=(5, 2))
    expected = surrogate.predict(points).mean(axis=0)
    np.testing.assert_allclose(surrogate.mean().predict(points)[0], expected)
