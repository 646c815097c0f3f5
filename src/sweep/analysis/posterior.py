"""A Gaussian process over sums of main effects and pair effects, with sampled hyperparameters.

Each parameter and each pair has a covariance term of its own that averages to zero over the search
space, so posterior draws of the terms are the functional ANOVA itself: shares of variance need no
Monte Carlo. The terms' variances are sampled, not maximised: maximising sets most pairs to exactly
zero and calls that certain.
Sources: Lu, Boukouvalas, Hensman 2022, arXiv:2206.09861 (orthogonal additive kernels); Murray,
Adams, MacKay 2010, arXiv:1001.0175 (elliptical slice sampling); Wilson et al. 2020,
arXiv:2002.09309 (Matheron's rule).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular

from sweep.analysis.axes import Array, Axis

RANK = 8
WARM_UP = 400
SAMPLES = 32
THIN = 12
STARTS = 50
LENGTHS = np.geomspace(0.12, 4.0, 24)
JITTER = 1e-6


@dataclass(frozen=True, kw_only=True)
class Observations:
    """Losses to learn from, standardised. N: rows. M: trials.

    loss_N; trial_N: index into `positions`; examples_N: examples seen; positions_MA: encoded
    parameters of each trial.
    """

    loss: Array
    trial: NDArray[np.intp]
    examples: Array
    positions: Array


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One posterior draw at the top rung: the space's mean loss and the effects at the axes' nodes."""

    level: float
    mains: list[Array]
    pairs: list[Array]


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """What a state stands for. lengths: index into LENGTHS per axis. mains, pairs: variances."""

    lengths: list[int]
    mains: Array
    pairs: Array
    rungs: Array
    trial_noise: float
    row_noise: float


class Process:
    """The process, given observations and axes; a `state` holds its hyperparameters.

    state: standard normal a priori. Log length scale and log variance per axis, log variance per
    pair, then the rungs' length scale, the trials' noise and the rows' noise, each in standard
    deviations from its median. Effects at different rungs are correlated, less the further the
    rungs lie apart in log examples; the mean learning curve is free. Effects of third and higher
    order count as noise of the trial.
    """

    def __init__(self, seen: Observations, axes: tuple[Axis, ...]) -> None:
        self.seen = seen
        rungs, self.rung = np.unique(seen.examples, return_inverse=True)
        log_rungs = np.log(np.maximum(rungs, 1.0))
        self.rung_distance = np.abs(log_rungs[:, None] - log_rungs[None, :])
        self.curve = 4.0 * (1.0 + _matern(self.rung_distance / 2.0))
        self.features = [_features(axis) for axis in axes]
        self.placed = [
            axis.interpolation(column) @ features
            for axis, column, features in zip(axes, seen.positions.T, self.features, strict=True)
        ]
        self.grams = [placed @ np.swapaxes(placed, 1, 2) for placed in self.placed]
        self.pairs = list(combinations(range(len(axes)), 2))
        self.left, self.right = np.array(self.pairs, dtype=int).reshape(-1, 2).T
        self.of_trial = np.ix_(seen.trial, seen.trial)
        self.of_rung = np.ix_(self.rung, self.rung)
        self.same_trial = seen.trial[:, None] == seen.trial[None, :]
        self.known = self.curve[self.of_rung] + JITTER * np.eye(len(seen.loss))
        self.size = 2 * len(axes) + len(self.pairs) + 3

    def states(self, rng: np.random.Generator) -> Iterator[Array]:
        """States from the posterior, after a warm-up that starts at the best of a few from the prior."""
        starts = [np.zeros(self.size), *rng.standard_normal((STARTS, self.size))]
        state = max(starts, key=self.log_likelihood)
        value = self.log_likelihood(state)
        for step in range(WARM_UP + SAMPLES * THIN):
            state, value = self._slice(state, value, rng)
            if step >= WARM_UP and (step - WARM_UP) % THIN == THIN - 1:
                yield state

    def log_likelihood(self, state: Array) -> float:
        """Of the losses, up to a constant."""
        factor = cholesky(self._covariance(self._hyperparameters(state)), lower=True, check_finite=False)
        whitened = solve_triangular(factor, self.seen.loss, lower=True, check_finite=False)
        return float(-0.5 * whitened @ whitened - np.log(np.diag(factor)).sum())

    def leave_trials_out(self, state: Array) -> Array:
        """Each row's loss predicted from the other trials' rows, at this state.

        Source: Rasmussen and Williams 2006, section 5.4.2, for blocks.
        """
        precision = np.linalg.inv(self._covariance(self._hyperparameters(state)))
        pull = precision @ self.seen.loss
        predicted = np.empty_like(pull)
        for trial in range(len(self.seen.positions)):
            own = np.flatnonzero(self.seen.trial == trial)
            predicted[own] = self.seen.loss[own] - np.linalg.solve(precision[np.ix_(own, own)], pull[own])
        return predicted

    def draws(self, state: Array, count: int, rng: np.random.Generator) -> Iterator[Draw]:
        """Posterior draws at the top rung: draws from the prior, corrected by the residual they leave."""
        given = self._hyperparameters(state)
        axes = len(self.features)
        placed = [placed[i] for placed, i in zip(self.placed, given.lengths, strict=True)]
        nodes = [features[i] for features, i in zip(self.features, given.lengths, strict=True)]
        deviations = np.sqrt([*given.mains, *given.pairs])
        alone = np.ones((len(self.seen.positions), 1))
        terms = [(at, alone) for at in placed] + [(placed[a], placed[b]) for a, b in self.pairs]
        terms = [(d * left, right) for d, (left, right) in zip(deviations, terms, strict=True)]
        terms = [(left[self.seen.trial], right[self.seen.trial]) for left, right in terms]
        factor = cholesky(self._covariance(given), lower=True)
        for _ in range(count):
            prior, curve, weights = self._from_prior(given, terms, rng)
            pull = cho_solve((factor, True), self.seen.loss - prior)
            top = given.rungs[-1, self.rung] * pull
            effects = [
                deviation * (weight + (left * top[:, None]).T @ right)
                for deviation, weight, (left, right) in zip(deviations, weights, terms, strict=True)
            ]
            yield Draw(
                level=float(curve[-1] + self.curve[-1, self.rung] @ pull),
                mains=[at @ weight[:, 0] for at, weight in zip(nodes, effects[:axes], strict=True)],
                pairs=[
                    nodes[a] @ weight @ nodes[b].T
                    for (a, b), weight in zip(self.pairs, effects[axes:], strict=True)
                ],
            )

    def _from_prior(
        self, given: Hyperparameters, terms: list[tuple[Array, Array]], rng: np.random.Generator
    ) -> tuple[Array, Array, list[Array]]:
        """Losses of the rows, learning curve by rung, and each term's feature weights at the top rung."""
        rungs = len(given.rungs)
        jitter = 1e-9 * np.eye(rungs)
        curve = cholesky(self.curve + jitter, lower=True) @ rng.standard_normal(rungs)
        across = cholesky(given.rungs + jitter, lower=True)
        loss = curve[self.rung]
        loss += np.sqrt(given.trial_noise) * rng.standard_normal(len(self.seen.positions))[self.seen.trial]
        loss += np.sqrt(given.row_noise + JITTER) * rng.standard_normal(len(loss))
        weights = []
        for left, right in terms:
            shape = (rungs, left.shape[1], right.shape[1])
            weight = np.tensordot(across, rng.standard_normal(shape), axes=1)
            loss += np.einsum("nkl,nk,nl->n", weight[self.rung], left, right)
            weights.append(weight[-1])
        return loss, curve, weights

    def _hyperparameters(self, state: Array) -> Hyperparameters:
        axes, pairs = len(self.features), len(self.pairs)
        lengths, mains, rest = np.split(state, [axes, 2 * axes])
        rung_length, trial_noise, row_noise = np.exp(rest[pairs:] * [1.0, 1.5, 1.5])
        wanted = np.log(0.6) + 0.7 * lengths
        return Hyperparameters(
            lengths=np.abs(np.log(LENGTHS)[None, :] - wanted[:, None]).argmin(axis=1).tolist(),
            mains=0.5 / axes * np.exp(1.5 * mains),
            pairs=0.15 / max(pairs, 1) * np.exp(2.0 * rest[:pairs]),
            rungs=_matern(self.rung_distance / (4.0 * rung_length)),
            trial_noise=float(0.02 * trial_noise),
            row_noise=float(0.02 * row_noise),
        )

    def _covariance(self, given: Hyperparameters) -> Array:
        grams = np.stack([gram[i] for gram, i in zip(self.grams, given.lengths, strict=True)])
        effects = np.tensordot(given.mains, grams, axes=1)
        effects += np.tensordot(given.pairs, grams[self.left] * grams[self.right], axes=1)
        total = effects[self.of_trial] * given.rungs[self.of_rung]
        total += self.known
        total += given.trial_noise * self.same_trial
        total[np.diag_indices_from(total)] += given.row_noise
        return np.asarray(total)

    def _slice(self, state: Array, value: float, rng: np.random.Generator) -> tuple[Array, float]:
        """One step of elliptical slice sampling: the next state and its log likelihood."""
        other = rng.standard_normal(self.size)
        threshold = value + np.log(rng.uniform())
        angle = rng.uniform(0.0, 2.0 * np.pi)
        low, high = angle - 2.0 * np.pi, angle
        while True:
            candidate = state * np.cos(angle) + other * np.sin(angle)
            likelihood = self.log_likelihood(candidate)
            if likelihood > threshold:
                return candidate, likelihood
            low, high = (angle, high) if angle < 0.0 else (low, angle)
            angle = rng.uniform(low, high)


def _matern(distance: Array) -> Array:
    """Matern-5/2 correlation. distance: in length scales."""
    scaled = np.sqrt(5.0) * distance
    return np.asarray((1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled))


def _features(axis: Axis) -> Array:
    """Features at the nodes for each of LENGTHS: lengths, nodes, rank.

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
    # A category is as far from one other as from the next: cutting the rank would favour some.
    rank = len(distance) - 1 if axis.discrete else RANK
    values = np.maximum(values[:, ::-1][:, :rank], 0.0)
    values /= values.sum(axis=1, keepdims=True)
    return np.asarray(vectors[:, :, ::-1][:, :, :rank] / root[None, :, None] * np.sqrt(values)[:, None, :])
