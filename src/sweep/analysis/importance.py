"""How much of the loss's variance each searched parameter explains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import qmc

from sweep.analysis.axes import Array, Axis
from sweep.analysis.surrogate import Surrogate, fit, observed

COLUMNS = (
    "parameter",
    "main",
    "total",
    "low",
    "high",
    "total_low",
    "total_high",
    "leads",
    "main_top_half",
    "spearman",
)
QUANTILES = (0.05, 0.5, 0.95)


def importances(
    table: pd.DataFrame, axes: Sequence[Axis], *, seed: int, surrogate: Surrogate | None = None
) -> pd.DataFrame:
    """One row per parameter that varies, the most important first. Empty where nothing can be said.

    main: share of the variance at the top rung that the parameter explains on its own. total: with
    its pairs. Both are medians over the surrogate's draws; low, high, total_low, total_high bound
    90% of them. leads: share of the draws in which its total is the largest. main_top_half: `main`
    within the better half of the space, which is where a search ends. spearman: rank correlation
    with the observed loss at each trial's first rung, negative where more is better; NaN for
    categories. surrogate: of this very table, if fitted already.

    Distrust the shares where the surrogate's R squared is below about 0.3, where low and high lie
    far apart, or where few values of a parameter were tried: they are shares of what the surrogate
    explains, and of losses whose upper tail counts logarithmically (`observed`).
    """
    surrogate = surrogate or fit(table, axes, seed=seed)
    if surrogate is None:
        return pd.DataFrame(columns=list(COLUMNS))
    mains, pairs = surrogate.shares()
    totals = mains.copy()
    for column, (first, second) in enumerate(surrogate.pairs):
        for axis, parameter in enumerate(surrogate.axes):
            if parameter.name in (first, second):
                totals[:, axis] += pairs[:, column]
    low, main, high = np.quantile(mains, QUANTILES, axis=0)
    total_low, total, total_high = np.quantile(totals, QUANTILES, axis=0)
    result = pd.DataFrame(
        {
            "parameter": [axis.name for axis in surrogate.axes],
            "main": main,
            "total": total,
            "low": low,
            "high": high,
            "total_low": total_low,
            "total_high": total_high,
            "leads": np.bincount(totals.argmax(axis=1), minlength=totals.shape[1]) / len(totals),
            "main_top_half": _top_half(surrogate.mean(), seed),
            "spearman": _rank_correlations(table, surrogate.axes),
        },
        columns=list(COLUMNS),
    )
    return result.sort_values("total", ascending=False, ignore_index=True)


def _rank_correlations(table: pd.DataFrame, axes: Sequence[Axis]) -> list[float]:
    rows = observed(table, axes).sort_values("examples_seen").drop_duplicates("trial")
    ranks = rows.groupby("examples_seen")["loss"].rank(pct=True)
    nothing = float("nan")
    if ranks.nunique() < 2:
        return [nothing for _ in axes]
    varied = [axis.scale != "categorical" and rows[axis.name].nunique() > 1 for axis in axes]
    return [
        float(rows[axis.name].corr(ranks, method="spearman")) if varies else nothing
        for axis, varies in zip(axes, varied, strict=True)
    ]


def _top_half(surrogate: Surrogate, seed: int) -> list[float]:
    points = qmc.Sobol(len(surrogate.axes), rng=seed).random_base2(13)
    for column, axis in enumerate(surrogate.axes):
        if axis.discrete:
            count = len(axis.choices)
            points[:, column] = axis.nodes[np.minimum((points[:, column] * count).astype(int), count - 1)]
    loss = surrogate.predict(points)[0]
    better = loss <= np.median(loss)
    return [
        _explained(loss[better], _bins(axis, points[better, column]))
        for column, axis in enumerate(surrogate.axes)
    ]


def _bins(axis: Axis, positions: Array) -> Array:
    return np.rint(positions * (len(axis.choices) - 1)) if axis.discrete else np.floor(positions * 16)


def _explained(loss: Array, bins: Array) -> float:
    """Share of the variance between bins, less what as many random bins would explain."""
    groups = pd.Series(loss).groupby(bins)
    within = ((loss - groups.transform("mean")) ** 2).sum() / (len(loss) - groups.ngroups)
    return float(max(0.0, 1.0 - within / loss.var(ddof=1)))
