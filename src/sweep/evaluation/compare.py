"""What a set of rows comes to, and paired differences between two models on the same rows.

A row is a total over a weight, so that losses per token and any value that a row has are one thing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from sweep.types import Score, Verdict

Array = NDArray[np.float64]
# A row's id, its total, its weight: a `RowLoss` or a `RowValue`.
Row = tuple[str, float, float]

CONFIDENCE = 0.95
# With fewer, neither an interval nor a p value of `paired_difference` is to be trusted.
FEWEST_CLUSTERS = 10
# Weights of so many numbers are drawn at a time: 32 MB.
CHUNK = 4_000_000


class RowValue(NamedTuple):
    """What a row comes to, such as its net value: like a `RowLoss`, of weight 1 unless said otherwise."""

    row: str
    total: float
    weight: float = 1.0


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


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """The winner, the trial of that id, and the defaults on the confirm split.

    defaults, difference (the winner's loss minus theirs, row by row): None where the defaults did
    not come to their end.
    """

    trial: str
    best: Score
    defaults: Score | None
    difference: Difference | None
    verdict: Verdict


def loss_score(rows: Sequence[Row]) -> Score:
    """Nats per token over all rows, or whatever total per weight, with the standard error of that ratio.

    The rows are the sample: their lengths vary too, which the linearised error counts. Infinite
    with a single row. Raises ValueError without rows or tokens.
    Source: Cochran 1977, Sampling Techniques, section 2.11.
    """
    total, weight = _columns(_by_id(rows))
    return Score(
        value=float(total.sum() / weight.sum()),
        standard_error=_error(_influence(total, weight)),
        examples=len(total),
    )


def paired_error(first: Sequence[Row], second: Sequence[Row]) -> float:
    """Standard error of the difference of the two, rows matched by id and independent. Infinite with one row.

    Raises ValueError where the ids differ or repeat.
    """
    one, other = _matched(first, second)
    return _error(_influence(*_columns(one)) - _influence(*_columns(other)))


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
    one, other = _matched(first, second)
    sums = np.stack([*_columns(one), *_columns(other)])
    labels = np.arange(len(one)) if clusters is None else _labels(list(one), clusters)
    sums = np.stack([np.bincount(labels, column) for column in sums])
    value = float(_differences(sums.sum(axis=1)[:, None])[0])
    rng = np.random.default_rng(seed)
    low, high = _interval(sums, rng, resamples, noise)
    return Difference(
        value=value,
        low=low,
        high=high,
        p_value=_p_value(sums, rng, resamples, noise),
        rows=len(one),
        clusters=sums.shape[1],
    )


def _matched(first: Sequence[Row], second: Sequence[Row]) -> tuple[dict[str, Row], dict[str, Row]]:
    one, other = _by_id(first), _by_id(second)
    if odd := sorted(one.keys() ^ other.keys()):
        raise ValueError(
            f"{len(odd)} rows are in one of the two only, such as {odd[0]!r}; both must hold the same rows. "
            "Evaluate both on one view."
        )
    return one, {row: other[row] for row in one}


def _by_id(rows: Sequence[Row]) -> dict[str, Row]:
    by_id = {row[0]: row for row in rows}
    if len(by_id) < len(rows):
        twice = Counter(row[0] for row in rows).most_common(1)[0][0]
        raise ValueError(f"row {twice!r} occurs twice; each row must occur once. Drop the duplicates.")
    if not sum(weight for _, _, weight in rows) > 0:
        raise ValueError(
            f"{len(rows)} rows with no token between them; at least one must have a response token."
        )
    return by_id


def _columns(rows: Mapping[str, Row]) -> tuple[Array, Array]:
    """The rows' totals, and their weights."""
    _, total, weight = zip(*rows.values(), strict=True)
    return np.array(total, dtype=float), np.array(weight, dtype=float)


def _influence(total: Array, weight: Array) -> Array:
    """How far each row pulls the ratio of the sums from where it is."""
    return np.asarray((total - total.sum() / weight.sum() * weight) / weight.sum())


def _error(influence: Array) -> float:
    count = len(influence)
    return float(np.sqrt(count / (count - 1) * (influence**2).sum())) if count > 1 else math.inf


def _labels(rows: Sequence[str], clusters: Mapping[str, int]) -> NDArray[np.intp]:
    if lost := [row for row in rows if row not in clusters]:
        raise ValueError(
            f"{len(lost)} rows have no cluster, such as {lost[0]!r}; every row needs one. "
            "Pass the clusters of the split that the rows come from."
        )
    return np.unique([clusters[row] for row in rows], return_inverse=True)[1]


def _differences(sums: Array) -> Array:
    """Ratio less ratio. sums: first's nats and tokens, second's nats and tokens, by resample."""
    with np.errstate(invalid="ignore"):  # a resample of rows without tokens has no ratio
        return np.asarray(sums[0] / sums[1] - sums[2] / sums[3])


def _interval(
    sums: Array, rng: np.random.Generator, resamples: int, noise: Sequence[Noise]
) -> tuple[float, float]:
    count = sums.shape[1]
    if count < 2 or not all(math.isfinite(source.error) for source in noise):
        return -math.inf, math.inf
    draws = []
    for size in _chunks(count, resamples):
        times = rng.multinomial(count, np.full(count, 1.0 / count), size=size)
        draws.append(_differences(sums @ times.T) + _drawn(noise, rng, size))
    # Percentiles alone are as narrow as a normal interval with variance / n: few clusters undercover.
    tail = norm.cdf(-math.sqrt(count / (count - 1)) * t.ppf(0.5 + CONFIDENCE / 2, count - 1))
    low, high = np.nanquantile(np.concatenate(draws), [tail, 1.0 - tail])
    return float(low), float(high)


def _p_value(sums: Array, rng: np.random.Generator, resamples: int, noise: Sequence[Noise]) -> float:
    count = sums.shape[1]
    value = float(_differences(sums.sum(axis=1)[:, None])[0])
    swapped = sums[[2, 3, 0, 1]] - sums
    extreme = 0
    for size in _chunks(count, resamples):
        flips = rng.integers(0, 2, size=(size, count))
        draws = _differences(sums.sum(axis=1)[:, None] + swapped @ flips.T) + _drawn(noise, rng, size)
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
