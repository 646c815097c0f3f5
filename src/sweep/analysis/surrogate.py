"""A model of the loss at the top rung, fitted to a trials table and taken apart into effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from sweep.analysis.axes import Array, Axis
from sweep.analysis.posterior import Draw, Observations, Process
from sweep.evaluation.folds import mean_of_folds
from sweep.types import Report, Standing

MIN_TRIALS = 4
# Of trials left out: below, the effects are guesses.
MIN_R_SQUARED = 0.3
# Time grows with the third power of the rows: 1 s at 90, 3 s at 190, 6 s at 300 on one core.
MAX_ROWS = 300
DRAWS_PER_STATE = 4


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """Posterior draws of the loss at the top rung: level + main effects + pair effects, in nats per token.

    level_D; mains: axis -> effect_DQ; pairs: (axis, axis) -> effect_DQR. D: draws, Q and R: the
    axes' nodes. Every effect averages to zero along each of its axes. trials: how many it rests
    on. r_squared, spearman: each loss against its prediction from the other trials, within rungs;
    below an R squared of about 0.3 the effects are guesses. NaN where no rung has two rows.
    """

    axes: tuple[Axis, ...]
    examples_seen: int
    trials: int
    level: Array
    mains: dict[str, Array]
    pairs: dict[tuple[str, str], Array]
    r_squared: float
    spearman: float

    @property
    def trusted(self) -> bool:
        """Whether it predicts trials that it has not seen."""
        return self.r_squared >= MIN_R_SQUARED

    def axis(self, name: str) -> Axis:
        """The axis of that name. Raises KeyError where it was not searched or did not vary."""
        for axis in self.axes:
            if axis.name == name:
                return axis
        raise KeyError(name)

    def shares(self) -> tuple[Array, Array]:
        """Shares of the variance over the space: draws, axes; and draws, pairs in the order of `pairs`."""
        weights = {axis.name: axis.weights for axis in self.axes}
        mains = [effect**2 @ weights[name] for name, effect in self.mains.items()]
        pairs = [
            np.einsum("dqr,q,r->d", effect**2, weights[first], weights[second])
            for (first, second), effect in self.pairs.items()
        ]
        variances = np.stack([*mains, *pairs], axis=1)
        shares = variances / variances.sum(axis=1, keepdims=True)
        return shares[:, : len(mains)], shares[:, len(mains) :]

    def surface(self, first: str, second: str) -> Array:
        """Loss over the two axes' nodes, averaged over the others: draws, first's nodes, second's nodes."""
        effect = (
            self.pairs[first, second]
            if (first, second) in self.pairs
            else np.swapaxes(self.pairs[second, first], 1, 2)
        )
        alone = self.mains[first][:, :, None] + self.mains[second][:, None, :]
        return np.asarray(self.level[:, None, None] + alone + effect)

    def predict(self, positions: Array) -> Array:
        """Loss at encoded positions. positions: points, axes. Result: draws, points."""
        columns = zip(self.axes, positions.T, strict=True)
        at = {axis.name: axis.interpolation(column) for axis, column in columns}
        loss = np.repeat(self.level[:, None], len(positions), axis=1)
        for name, effect in self.mains.items():
            loss += effect @ at[name].T
        for (first, second), effect in self.pairs.items():
            loss += np.einsum("dpr,pr->dp", at[first] @ effect, at[second])
        return loss

    def mean(self) -> Surrogate:
        """One draw only: the mean of all."""
        return replace(
            self,
            level=self.level.mean(keepdims=True),
            mains={name: effect.mean(axis=0, keepdims=True) for name, effect in self.mains.items()},
            pairs={pair: effect.mean(axis=0, keepdims=True) for pair, effect in self.pairs.items()},
        )


def trials_table(standings: Sequence[Standing], names: Sequence[str]) -> pd.DataFrame:
    """One row per trial of the search and rung: trial, state, examples_seen, loss, and a column per name.

    A report without a finite loss is a row only where the trial diverged there; its loss is NaN. Of folds the
    loss is their mean so far, for they differ.
    """
    rows = [
        {
            "trial": standing.trial.number,
            "state": standing.state,
            "examples_seen": report.examples_seen,
            "loss": _finite_loss(report),
            **{name: getattr(standing.trial.recipe, name) for name in names},
        }
        for standing in standings
        for report in _curve(standing)
        if standing.trial.number is not None
        and (report.state == "diverged" or np.isfinite(_finite_loss(report)))
    ]
    return pd.DataFrame(rows, columns=["trial", "state", "examples_seen", "loss", *names])


def fit(table: pd.DataFrame, axes: Sequence[Axis], *, seed: int) -> Surrogate | None:
    """The surrogate of a trials table, or None where nothing can be said.

    None: fewer than four trials with a loss, a constant loss, or no axis that varies. Axes that
    don't vary are left out. Beyond 300 rows a random part of the trials stands for all. Which
    losses enter: see `observed`. The same table and seed give the same surrogate.
    """
    rng = np.random.default_rng(seed)
    rows = _thinned(observed(table, axes), rng)
    axes = tuple(axis for axis in axes if rows[axis.name].nunique() > 1)
    if not axes or rows["trial"].nunique() < MIN_TRIALS or not rows["loss"].std() > 1e-9:
        return None
    centre, spread = float(rows["loss"].mean()), float(rows["loss"].std())
    trials = rows.drop_duplicates("trial")
    seen = Observations(
        loss=((rows["loss"] - centre) / spread).to_numpy(),
        trial=pd.Index(trials["trial"]).get_indexer(rows["trial"]),
        examples=rows["examples_seen"].to_numpy(dtype=float),
        positions=trials[[axis.name for axis in axes]].to_numpy(),
    )
    process = Process(seen, axes)
    draws: list[Draw] = []
    left_out: list[Array] = []
    # The matrices are too small to share out: a second BLAS thread doubled the time.
    with threadpool_limits(1, user_api="blas"):
        for state in process.states(rng):
            left_out.append(process.leave_trials_out(state))
            draws.extend(process.draws(state, DRAWS_PER_STATE, rng))
    r_squared, spearman = _agreement(seen, np.mean(left_out, axis=0))
    names = [axis.name for axis in axes]
    return Surrogate(
        axes=axes,
        examples_seen=int(seen.examples.max()),
        trials=len(trials),
        level=centre + spread * np.array([draw.level for draw in draws]),
        mains={name: spread * np.stack([draw.mains[i] for draw in draws]) for i, name in enumerate(names)},
        pairs={
            pair: spread * np.stack([draw.pairs[i] for draw in draws])
            for i, pair in enumerate(combinations(names, 2))
        },
        r_squared=r_squared,
        spearman=spearman,
    )


def observed(table: pd.DataFrame, axes: Sequence[Axis]) -> pd.DataFrame:
    """Trial, examples_seen, loss to learn from and encoded parameters of the rows that can be placed.

    Diverged trials enter at the worst finite loss of the rung they were heading for. Beyond Tukey's
    upper fence (third quartile + 1.5 interquartile ranges, around the rung's median) losses count
    logarithmically: one blown-up trial would otherwise own all the variance.
    """
    rows = table.loc[:, ["trial", "examples_seen"]].copy()
    loss = table["loss"].astype(float)
    rows["loss"] = loss.where(np.isfinite(loss))
    for axis in axes:
        rows[axis.name] = axis.encode(table[axis.name].tolist())
    finite = rows["loss"].notna()
    diverged = ~finite & (table["state"] == "diverged")
    kept = (finite | diverged) & rows[[axis.name for axis in axes]].notna().all(axis=1)
    rungs = np.unique(rows.loc[finite & kept, "examples_seen"])
    if not len(rungs):
        return rows.iloc[:0]
    ahead = rungs[np.searchsorted(rungs, rows["examples_seen"]).clip(max=len(rungs) - 1)]
    rows["examples_seen"] = np.where(diverged, ahead, rows["examples_seen"])
    rows = rows[kept].reset_index(drop=True)
    rung = rows.groupby("examples_seen")["loss"]
    median = rung.transform("median")
    rows["loss"] = median + _tamed((rows["loss"] - median).to_numpy())
    rows["loss"] = rows["loss"].fillna(rows.groupby("examples_seen")["loss"].transform("max"))
    return rows


def _curve(standing: Standing) -> tuple[Report, ...]:
    """Its rungs, and how it ended if it ended badly."""
    rungs = standing.rungs
    if standing.folds is not None:
        rungs = tuple(mean_of_folds(rungs[:count]) for count in range(1, len(rungs) + 1))
    return (*rungs, *(report for report in standing.reports if report.validation_loss is None))


def _finite_loss(report: Report) -> float:
    loss = report.validation_loss
    return float("nan") if loss is None or not np.isfinite(loss) else loss


def _tamed(deviation: Array) -> Array:
    lower, upper = np.nanquantile(deviation, [0.25, 0.75])
    spread = upper - lower
    if not spread > 0:
        return deviation
    excess = np.maximum(deviation - upper - 1.5 * spread, 0.0)
    return np.asarray(deviation - excess + spread * np.log1p(excess / spread))


def _thinned(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    if len(rows) <= MAX_ROWS:
        return rows
    # Whole trials at random: leaving out the worst, or lower rungs only, would hide why trials stopped.
    order = rng.permutation(rows["trial"].unique())
    sizes = rows["trial"].value_counts().loc[order].cumsum()
    return rows[rows["trial"].isin(sizes.index[sizes <= MAX_ROWS])]


def _agreement(seen: Observations, predicted: Array) -> tuple[float, float]:
    """R squared and Spearman's correlation around each rung's mean; rungs with one row say nothing."""
    frame = pd.DataFrame({"loss": seen.loss, "guess": predicted, "rung": seen.examples})
    rung = frame.groupby("rung")["loss"]
    mean, size = rung.transform("mean"), rung.transform("size")
    around, guess = (frame["loss"] - mean)[size > 1], (frame["guess"] - mean)[size > 1]
    if not (around.std() > 1e-9 and guess.std() > 1e-9):
        return float("nan"), float("nan")
    r_squared = 1.0 - ((around - guess) ** 2).sum() / (around**2).sum()
    return float(r_squared), float(around.corr(guess, method="spearman"))
