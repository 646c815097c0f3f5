"""A model of the loss at the top rung as a sum of main effects and pair effects.

The prior is a Gaussian process whose covariance is one term per parameter plus one per pair. Each
term averages to zero over the search space, so the fitted terms are the functional ANOVA itself
and the shares of variance are read off without Monte Carlo. Terms have variances of their own and
those are sampled, not maximised: maximising sets most pairs to exactly zero and calls it certain.
A plain anisotropic Matern kernel spends its variance on every order at once; its pair shares err
about twice as much at 64 trials.
Sources: Lu, Boukouvalas, Hensman 2022, arXiv:2206.09861 (orthogonal additive kernels); Murray,
Adams, MacKay 2010, arXiv:1001.0175 (elliptical slice sampling).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from sweep.types import Standing

Array = NDArray[np.float64]
Scale = Literal["linear", "log", "ordered", "categorical"]

MIN_TRIALS = 4
NODES = 25
RANK = 8
WARM_UP = 300
SAMPLES = 32
THIN = 10
DRAWS_PER_SAMPLE = 4
LENGTHS = np.geomspace(0.12, 4.0, 24)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One searched parameter. low, high: of a linear or log scale. choices: of the other two."""

    name: str
    scale: Scale
    low: float = 0.0
    high: float = 1.0
    choices: tuple[Any, ...] = ()

    @property
    def discrete(self) -> bool:
        """Whether only `choices` occur."""
        return self.scale in ("ordered", "categorical")

    @property
    def nodes(self) -> Array:
        """Positions in [0, 1] at which effects are tabulated: every choice, or an even grid."""
        return np.linspace(0.0, 1.0, len(self.choices) if self.discrete else NODES)

    @property
    def weights(self) -> Array:
        """Share of the search space that each node stands for; sums to 1."""
        weights = np.ones(len(self.nodes))
        if not self.discrete:
            weights[[0, -1]] = 0.5
        return weights / weights.sum()

    @property
    def values(self) -> list[Any]:
        """The parameter's values at the nodes."""
        if self.discrete:
            return list(self.choices)
        if self.scale == "log":
            return list(np.geomspace(self.low, self.high, NODES))
        return list(np.linspace(self.low, self.high, NODES))

    def encode(self, values: Sequence[Any]) -> Array:
        """Positions in [0, 1]. Outside the range: the nearer end. An unknown category: NaN."""
        if self.scale == "categorical":
            places = {str(choice): node for choice, node in zip(self.choices, self.nodes, strict=True)}
            return np.array([places.get(str(value), np.nan) for value in values])
        numbers = np.asarray(values, dtype=float)
        if self.scale == "ordered":
            return np.interp(numbers, np.asarray(self.choices, dtype=float), self.nodes)
        if self.scale == "log":
            numbers = np.log(np.maximum(numbers, np.finfo(float).tiny))
            return np.interp(numbers, np.log([self.low, self.high]), [0.0, 1.0])
        return np.interp(numbers, [self.low, self.high], [0.0, 1.0])


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """Posterior draws of the loss at the top rung: level + main effects + pair effects, in nats per token.

    level_D; mains: axis -> effect_DQ; pairs: (axis, axis) -> effect_DQR. D: draws, Q and R: the
    axes' nodes. Every effect averages to zero along each of its axes. r_squared and spearman
    compare each loss with its prediction from all other trials: below about 0.3 the effects
    are guesses. Effects of third and higher order count as noise.
    """

    axes: tuple[Axis, ...]
    examples_seen: int
    trials: int
    level: Array
    mains: dict[str, Array]
    pairs: dict[tuple[str, str], Array]
    r_squared: float
    spearman: float

    def axis(self, name: str) -> Axis:
        """The axis of that name."""
        return next(axis for axis in self.axes if axis.name == name)

    def pair(self, first: str, second: str) -> Array:
        """The pair's effect, axes in the order asked for."""
        if (first, second) in self.pairs:
            return self.pairs[first, second]
        return np.swapaxes(self.pairs[second, first], 1, 2)

    def main_variances(self) -> Array:
        """Variance over the space of each main effect: draws, axes."""
        return np.stack([self.mains[axis.name] ** 2 @ axis.weights for axis in self.axes], axis=1)

    def pair_variances(self) -> Array:
        """Variance over the space of each pair effect: draws, pairs in the order of `pairs`."""
        columns = [
            np.einsum("dqr,q,r->d", effect**2, self.axis(first).weights, self.axis(second).weights)
            for (first, second), effect in self.pairs.items()
        ]
        return np.stack(columns, axis=1) if columns else np.zeros((len(self.level), 0))

    def predict(self, positions: Array) -> Array:
        """Loss at encoded positions, at the top rung. positions: points, axes. Result: draws, points."""
        where = {
            axis.name: _interpolation(axis, column)
            for axis, column in zip(self.axes, positions.T, strict=True)
        }
        loss = np.repeat(self.level[:, None], len(positions), axis=1)
        for name, effect in self.mains.items():
            loss += effect @ where[name].T
        for (first, second), effect in self.pairs.items():
            loss += np.einsum("dqr,pq,pr->dp", effect, where[first], where[second], optimize=True)
        return loss


def trials_table(standings: Sequence[Standing], names: Sequence[str]) -> pd.DataFrame:
    """One row per trial and rung: trial, state, examples_seen, loss and one column per name.

    A report without a finite loss is a row only where the trial diverged there; its loss is NaN.
    """
    rows = [
        {
            "trial": standing.trial.number,
            "state": standing.state,
            "examples_seen": report.examples_seen,
            "loss": _finite(report.validation_loss),
            **{name: getattr(standing.trial.recipe, name) for name in names},
        }
        for standing in standings
        for report in standing.reports
        if standing.trial.number is not None
        and (report.state == "diverged" or np.isfinite(_finite(report.validation_loss)))
    ]
    return pd.DataFrame(rows, columns=["trial", "state", "examples_seen", "loss", *names])


def fit(table: pd.DataFrame, axes: Sequence[Axis], *, seed: int) -> Surrogate | None:
    """The surrogate of a trials table, or None where it says nothing at all.

    None: fewer than four trials, a constant loss, or no axis that varies. Axes that do not vary
    are left out. Diverged trials enter at the worst finite loss of their rung. Beyond Tukey's
    upper fence (third quartile + 1.5 interquartile ranges, around the rung's median) losses
    count logarithmically: one blown-up trial would otherwise own all the variance.
    The same table and seed give the same surrogate.
    """
    rows, axes = _observed(table, axes)
    if not axes or rows["trial"].nunique() < MIN_TRIALS or rows["loss"].std() < 1e-12:
        return None
    centre, spread = rows["loss"].mean(), rows["loss"].std()
    prior = _Prior(rows, axes)
    target = ((rows["loss"] - centre) / spread).to_numpy()
    rng = np.random.default_rng(seed)
    levels, mains, pairs, left_out = [], [], [], []
    for state in _slice_sample(lambda state: prior.evidence(state, target), prior.size, rng):
        left_out.append(prior.leave_trials_out(state, target))
        for _ in range(DRAWS_PER_SAMPLE):
            level, main, pair = prior.draw(state, target, rng)
            levels.append(centre + spread * level)
            mains.append([spread * effect for effect in main])
            pairs.append([spread * effect for effect in pair])
    r_squared, spearman = _agreement(target, np.mean(left_out, axis=0), rows["examples_seen"])
    names = [axis.name for axis in axes]
    return Surrogate(
        axes=axes,
        examples_seen=int(rows["examples_seen"].max()),
        trials=int(rows["trial"].nunique()),
        level=np.array(levels),
        mains={name: np.stack(effects) for name, effects in zip(names, zip(*mains, strict=True), strict=True)},
        pairs={
            pair: np.stack(effects)
            for pair, effects in zip(combinations(names, 2), zip(*pairs, strict=True), strict=False)
        },
        r_squared=r_squared,
        spearman=spearman,
    )


def _finite(loss: float | None) -> float:
    return np.nan if loss is None or not np.isfinite(loss) else float(loss)


def _observed(table: pd.DataFrame, axes: Sequence[Axis]) -> tuple[pd.DataFrame, tuple[Axis, ...]]:
    """Rows with a loss to fit and encoded parameters, and the axes that vary among them."""
    rows = table.loc[:, ["trial", "state", "examples_seen"]].copy()
    rows["loss"] = table["loss"].where(np.isfinite(table["loss"].astype(float)))
    for axis in axes:
        rows[axis.name] = axis.encode(table[axis.name].tolist())
    rows = rows.dropna(subset=[axis.name for axis in axes])
    finite = rows["loss"].notna()
    rungs = np.sort(rows.loc[finite, "examples_seen"].unique())
    if not len(rungs):
        return rows.iloc[:0], ()
    # A trial diverges on its way to a rung: it belongs to the next one.
    lost = ~finite & (rows["state"] == "diverged")
    ahead = np.searchsorted(rungs, rows["examples_seen"]).clip(max=len(rungs) - 1)
    rows["examples_seen"] = np.where(lost, rungs[ahead], rows["examples_seen"])
    rows = rows[finite | lost]
    medians = rows.groupby("examples_seen")["loss"].transform("median")
    rows["loss"] = medians + _tamed(rows["loss"] - medians)
    rows["loss"] = rows["loss"].fillna(rows.groupby("examples_seen")["loss"].transform("max"))
    return rows.reset_index(drop=True), tuple(axis for axis in axes if rows[axis.name].nunique() > 1)


def _tamed(deviation: pd.Series) -> pd.Series:
    lower, upper = deviation.quantile([0.25, 0.75])
    spread = upper - lower
    if not spread > 0:
        return deviation
    excess = (deviation - upper - 1.5 * spread).clip(lower=0.0)
    return deviation - excess + spread * np.log1p(excess / spread)


def _interpolation(axis: Axis, positions: Array) -> Array:
    """Weights that turn values at the axis's nodes into values at positions: points, nodes."""
    return np.stack([np.interp(positions, axis.nodes, unit) for unit in np.eye(len(axis.nodes))], axis=1)


def _matern(distance: Array) -> Array:
    """Matern-5/2 correlation. distance: in length scales."""
    scaled = np.sqrt(5.0) * distance
    return np.asarray((1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled))


def _features(axis: Axis) -> Array:
    """Features at the nodes for each length scale: lengths, nodes, rank.

    Their products sum to a covariance that averages to zero along the axis and has mean variance 1.
    """
    distance = np.abs(axis.nodes[:, None] - axis.nodes[None, :])
    if axis.scale == "categorical":
        covariance = np.repeat(np.eye(len(distance))[None], len(LENGTHS), axis=0)
    else:
        covariance = _matern(distance[None] / LENGTHS[:, None, None])
    centring = np.eye(len(distance)) - axis.weights[None, :]
    root = np.sqrt(axis.weights)
    values, vectors = np.linalg.eigh(root[:, None] * (centring @ covariance @ centring.T) * root[None, :])
    rank = len(distance) - 1 if axis.discrete else RANK
    values = np.maximum(values[:, ::-1][:, :rank], 0.0)
    values /= values.sum(axis=1, keepdims=True)
    return np.asarray(vectors[:, :, ::-1][:, :, :rank] / root[None, :, None] * np.sqrt(values)[:, None, :])


class _Prior:
    """Covariance of the observed losses as a function of a standard normal `state`.

    state: log length scale and log variance per axis, log variance per pair, then the rungs'
    length scale, the trials' and the rows' noise, each in standard deviations from its median.
    """

    def __init__(self, rows: pd.DataFrame, axes: tuple[Axis, ...]) -> None:
        trials = rows.drop_duplicates("trial")
        self.trial = pd.Index(trials["trial"]).get_indexer(rows["trial"])
        rungs, self.rung = np.unique(rows["examples_seen"], return_inverse=True)
        log_rungs = np.log(np.maximum(rungs, 1))
        self.rung_distance = np.abs(log_rungs[:, None] - log_rungs[None, :])
        # The mean learning curve is left free: it says nothing about the parameters.
        self.curve = 4.0 * (1.0 + _matern(self.rung_distance / 2.0))
        self.features = [_features(axis) for axis in axes]
        self.placed = [
            _interpolation(axis, trials[axis.name].to_numpy()) @ features
            for axis, features in zip(axes, self.features, strict=True)
        ]
        self.grams = [placed @ np.swapaxes(placed, 1, 2) for placed in self.placed]
        self.pairs = list(combinations(range(len(axes)), 2))
        self.left, self.right = np.array(self.pairs, dtype=int).reshape(-1, 2).T
        self.same_trial = self.trial[:, None] == self.trial[None, :]
        self.size = 2 * len(axes) + len(self.pairs) + 3

    def _unpack(self, state: Array) -> tuple[NDArray[np.intp], Array, Array, Array, float, float]:
        """Index of the length scale per axis, main and pair variances, rung correlation, noises."""
        axes, pairs = len(self.features), len(self.pairs)
        lengths, mains, rest = np.split(state, [axes, 2 * axes])
        index = np.abs(np.log(LENGTHS)[None] - np.log(0.6) - 0.7 * lengths[:, None]).argmin(axis=1)
        rung_length, trial_noise, row_noise = rest[pairs:]
        return (
            index,
            0.5 / axes * np.exp(1.5 * mains),
            0.15 / max(pairs, 1) * np.exp(2.0 * rest[:pairs]),
            _matern(self.rung_distance / (4.0 * np.exp(rung_length))),
            float(0.02 * np.exp(1.5 * trial_noise)),
            float(0.02 * np.exp(1.5 * row_noise)),
        )

    def covariance(self, state: Array) -> Array:
        """Of the observed losses: rows, rows."""
        index, mains, pairs, rungs, trial_noise, row_noise = self._unpack(state)
        grams = np.stack([gram[i] for gram, i in zip(self.grams, index, strict=True)])
        effects = np.tensordot(mains, grams, axes=1)
        effects += np.tensordot(pairs, grams[self.left] * grams[self.right], axes=1)
        total = effects[np.ix_(self.trial, self.trial)] * rungs[np.ix_(self.rung, self.rung)]
        total += self.curve[np.ix_(self.rung, self.rung)] + trial_noise * self.same_trial
        total[np.diag_indices_from(total)] += row_noise + 1e-6
        return np.asarray(total)

    def evidence(self, state: Array, target: Array) -> float:
        """Log likelihood of the target, up to a constant."""
        factor = np.linalg.cholesky(self.covariance(state))
        whitened = np.linalg.solve(factor, target)
        return float(-0.5 * whitened @ whitened - np.log(np.diag(factor)).sum())

    def leave_trials_out(self, state: Array, target: Array) -> Array:
        """Each row's loss predicted from the other trials' rows, hyperparameters kept."""
        precision = np.linalg.inv(self.covariance(state))
        pull = precision @ target
        predicted = np.empty_like(target)
        for trial in np.unique(self.trial):
            own = np.flatnonzero(self.trial == trial)
            predicted[own] = target[own] - np.linalg.solve(precision[np.ix_(own, own)], pull[own])
        return predicted

    def draw(
        self, state: Array, target: Array, rng: np.random.Generator
    ) -> tuple[float, list[Array], list[Array]]:
        """One posterior draw at the top rung: level, main effects, pair effects at the nodes.

        A draw from the prior, corrected by the residual it leaves (Matheron's rule).
        """
        index, mains, pairs, rungs, trial_noise, row_noise = self._unpack(state)
        nodes = [features[i] for features, i in zip(self.features, index, strict=True)]
        placed = [placed[i] for placed, i in zip(self.placed, index, strict=True)]
        across = np.linalg.cholesky(rungs + 1e-9 * np.eye(len(rungs)))
        terms = [(np.sqrt(v) * at, np.ones((len(at), 1))) for v, at in zip(mains, placed, strict=True)]
        terms += [(np.sqrt(v) * placed[a], placed[b]) for v, (a, b) in zip(pairs, self.pairs, strict=True)]
        curve = np.linalg.cholesky(self.curve + 1e-9 * np.eye(len(rungs))) @ rng.standard_normal(len(rungs))
        prior = curve[self.rung]
        prior += np.sqrt(trial_noise) * rng.standard_normal(self.trial.max() + 1)[self.trial]
        prior += np.sqrt(row_noise + 1e-6) * rng.standard_normal(len(target))
        weights = []
        for left, right in terms:
            size = (len(rungs), left.shape[1] * right.shape[1])
            weight = (across @ rng.standard_normal(size)).reshape(len(rungs), left.shape[1], right.shape[1])
            prior += np.einsum("nkl,nk,nl->n", weight[self.rung], left[self.trial], right[self.trial])
            weights.append(weight[-1])
        pull = cho_solve(cho_factor(self.covariance(state)), target - prior)
        top = rungs[-1, self.rung] * pull
        level = curve[-1] + self.curve[-1, self.rung] @ pull
        effects = [
            weight + np.einsum("n,nk,nl->kl", top, left[self.trial], right[self.trial], optimize=True)
            for weight, (left, right) in zip(weights, terms, strict=True)
        ]
        main = [
            np.sqrt(v) * at @ weight[:, 0] for v, at, weight in zip(mains, nodes, effects, strict=False)
        ]
        pair = [
            np.sqrt(v) * nodes[a] @ weight @ nodes[b].T
            for v, (a, b), weight in zip(pairs, self.pairs, effects[len(mains) :], strict=True)
        ]
        return float(level), main, pair


def _slice_sample(
    evidence: Callable[[Array], float], size: int, rng: np.random.Generator
) -> Iterator[Array]:
    """States drawn from a standard normal prior times the likelihood, after a warm-up."""
    starts = [np.zeros(size), *rng.standard_normal((50, size))]
    state = max(starts, key=evidence)
    current = evidence(state)
    for step in range(WARM_UP + SAMPLES * THIN):
        other = rng.standard_normal(size)
        threshold = current + np.log(rng.uniform())
        angle = rng.uniform(0.0, 2.0 * np.pi)
        low, high = angle - 2.0 * np.pi, angle
        while True:
            candidate = state * np.cos(angle) + other * np.sin(angle)
            value = evidence(candidate)
            if value > threshold:
                break
            low, high = (angle, high) if angle < 0.0 else (low, angle)
            angle = rng.uniform(low, high)
        state, current = candidate, value
        if step >= WARM_UP and (step - WARM_UP) % THIN == THIN - 1:
            yield state


def _agreement(target: Array, predicted: Array, rungs: pd.Series) -> tuple[float, float]:
    """R squared and Spearman's correlation within rungs; rungs with one row say nothing."""
    frame = pd.DataFrame({"target": target, "predicted": predicted, "rung": rungs.to_numpy()})
    groups = frame.groupby("rung")
    frame = frame.assign(
        around=frame["target"] - groups["target"].transform("mean"),
        guess=frame["predicted"] - groups["target"].transform("mean"),
    )[groups["target"].transform("size") > 1]
    if len(frame) < 2 or frame["around"].std() < 1e-12 or frame["guess"].std() < 1e-12:
        return float("nan"), float("nan")
    error = ((frame["around"] - frame["guess"]) ** 2).sum()
    r_squared = 1.0 - error / (frame["around"] ** 2).sum()
    return float(r_squared), float(frame["around"].corr(frame["guess"], method="spearman"))
