"""Losses per token of a set of rows, and paired differences between two models on the same rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t

from sweep.evaluation.rows import Array, Row, by_id, columns, influence, labels, matched, sums
from sweep.types import Score

CONFIDENCE = 0.95
# With fewer, neither an interval nor a p value of `paired_difference` is to be trusted.
FEWEST_CLUSTERS = 10
# Weights of so many numbers are drawn at a time: 32 MB.
CHUNK = 4_000_000


class Noise(NamedTuple):
    """What makes a difference uncertain beside its rows: a standard error, and its degrees of freedom."""

    error: float
    degrees: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Total per weight of the first less the second: of losses, negative where the first is better.

    low, high: 95% interval, infinite with a single cluster. p_value: two-sided, of no difference.
    clusters: how many independent groups the rows form.
    """

    value: float
    low: float
    high: float
    p_value: float
    rows: int
    clusters: int


def loss_score(rows: Sequence[Row]) -> Score:
    """Nats per token over all rows, or whatever total per weight, with the standard error of that ratio.

    The rows are the sample: their lengths vary too, which the linearised error counts. Infinite
    with a single row. Raises ValueError without rows or tokens.
    Source: Cochran 1977, Sampling Techniques, section 2.11.
    """
    total, weight = columns(by_id(rows))
    return Score(
        value=float(total.sum() / weight.sum()),
        standard_error=_error(influence(total, weight)),
        examples=len(total),
    )


def paired_error(first: Sequence[Row], second: Sequence[Row]) -> float:
    """Standard error of the difference of the two, rows matched by id and independent. Infinite with one row.

    Raises ValueError where the ids differ or repeat.
    """
    one, other = matched(first, second)
    return _error(influence(*columns(one)) - influence(*columns(other)))


def paired_difference(
    first: Sequence[Row],
    second: Sequence[Row],
    *,
    clusters: Mapping[str, int] | None,
    seed: int,
    resamples: int = 10_000,
    noise: Sequence[Noise] = (),
) -> Difference:
    """Difference of the two, each its rows' total per weight, rows matched by id, whole clusters resampled.

    clusters: row id -> cluster, for rows that are not independent; None: each row is its own. The
    interval is a percentile bootstrap, widened for few clusters; the p value flips first and second
    within random clusters and is at least 1 / (resamples + 1). Below FEWEST_CLUSTERS trust neither.
    noise: sources beside the rows; each draw of either gets one of Student's t times the error.
    Raises ValueError where the ids differ, repeat, or lack a cluster.
    Source: Hesterberg 2015, doi:10.1080/00031305.2015.1089789, section 5.2 (widening).
    """
    one, other = matched(first, second)
    totals = sums([*columns(one), *columns(other)], labels(one, clusters))
    value = float(_differences(totals.sum(axis=1)[:, None])[0])
    rng = np.random.default_rng(seed)
    low, high = _interval(totals, rng, resamples, noise)
    return Difference(
        value=value,
        low=low,
        high=high,
        p_value=_p_value(totals, rng, resamples, noise),
        rows=len(one),
        clusters=totals.shape[1],
    )


def _error(pulls: Array) -> float:
    count = len(pulls)
    return float(np.sqrt(count / (count - 1) * (pulls**2).sum())) if count > 1 else math.inf


def _differences(totals: Array) -> Array:
    """Ratio less ratio. totals: first's total and weight, second's total and weight, by resample."""
    with np.errstate(invalid="ignore"):  # a resample of rows without tokens has no ratio
        return np.asarray(totals[0] / totals[1] - totals[2] / totals[3])


def _interval(
    totals: Array, rng: np.random.Generator, resamples: int, noise: Sequence[Noise]
) -> tuple[float, float]:
    count = totals.shape[1]
    if count < 2 or not all(math.isfinite(source.error) for source in noise):
        return -math.inf, math.inf
    draws = []
    for size in _chunks(count, resamples):
        times = rng.multinomial(count, np.full(count, 1.0 / count), size=size)
        draws.append(_differences(totals @ times.T) + _drawn(noise, rng, size))
    # Percentiles alone are as narrow as a normal interval with variance / n: few clusters undercover.
    tail = norm.cdf(-math.sqrt(count / (count - 1)) * t.ppf(0.5 + CONFIDENCE / 2, count - 1))
    low, high = np.nanquantile(np.concatenate(draws), [tail, 1.0 - tail])
    return float(low), float(high)


def _p_value(totals: Array, rng: np.random.Generator, resamples: int, noise: Sequence[Noise]) -> float:
    count = totals.shape[1]
    value = float(_differences(totals.sum(axis=1)[:, None])[0])
    swapped = totals[[2, 3, 0, 1]] - totals
    extreme = 0
    for size in _chunks(count, resamples):
        flips = rng.integers(0, 2, size=(size, count))
        draws = _differences(totals.sum(axis=1)[:, None] + swapped @ flips.T) + _drawn(noise, rng, size)
        # Rounding must not tell a draw that repeats the observation from it.
        extreme += int((np.abs(draws) >= abs(value) * (1.0 - 1e-9) - 1e-12).sum())
    return (1 + extreme) / (1 + resamples)


def _drawn(noise: Sequence[Noise], rng: np.random.Generator, size: int) -> Array:
    drawn = np.zeros(size)
    for source in noise:
        drawn += source.error * rng.standard_t(source.degrees, size)
    return drawn


def _chunks(count: int, resamples: int) -> list[int]:
    size = max(1, CHUNK // count)
    return [min(size, resamples - start) for start in range(0, resamples, size)]
