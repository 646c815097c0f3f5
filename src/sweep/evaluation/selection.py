"""Who goes on to confirmation, who is chosen there, and by how much it is better: on rows and fresh seeds.

The best of many trials looks better on the rows that it was picked by than it is. So finalists are trained
again with fresh seeds and chosen among on other rows, and the difference is measured on rows that had no
part in either (`benchmarks/confirmation_claims.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from sweep.evaluation.compare import Difference, Noise, loss_score, paired_difference
from sweep.evaluation.rows import Array, Row, RowValue, columns, influence, labels, matched, sums

# Rows of the same trial, trained with each of several seeds.
Seeds = Mapping[int, Sequence[Row]]
Better = Literal["lower", "higher"]


class Choice(NamedTuple):
    """Who was chosen. as_good: the others whose values hardly differ, so that the loss chose among them."""

    trial: str
    as_good: tuple[str, ...]


def finalists(
    values: Mapping[str, float],
    violations: Mapping[str, float],
    *,
    better: Better,
    defaults: str,
    count: int,
) -> tuple[str, ...]:
    """The `count` best trials that may win, best first, and the defaults, whether they may or not.

    violations: as `constraints` gives them, by trial; trials without one were not measured and may win.
    Equal values stand in the order in which they were given.
    """
    feasible = [trial for trial in values if violations.get(trial, 0.0) <= 0.0]
    best = sorted(feasible, key=lambda trial: badness(values[trial], better))[:count]
    return tuple(dict.fromkeys([*best, defaults]))


def seed_mean(seeds: Seeds) -> tuple[RowValue, ...]:
    """Each row's total and weight, averaged over seeds.

    Raises ValueError without a seed, or where seeds hold other rows.
    """
    if not seeds:
        raise ValueError("no seed has rows, and one at least must. Leave the trial out.")
    sets = matched(*seeds.values())
    total, weight = np.mean([columns(rows) for rows in sets], axis=0)
    return tuple(map(RowValue, sets[0], total.tolist(), weight.tolist()))


def choose(
    candidates: Mapping[str, Seeds],
    *,
    better: Better,
    losses: Mapping[str, float] | None = None,
    material: float = 0.0,
) -> Choice:
    """The candidate whose seeds are best on average; among those at most `material` behind, the lowest loss.

    losses: by candidate; without them, or where they are equal too, it is the earliest. Raises ValueError
    without a candidate, and where candidates hold other rows than one another: their means would not compare.
    """
    means = {trial: seed_mean(seeds) for trial, seeds in candidates.items()}
    if not means or len({frozenset(row for row, _, _ in rows) for rows in means.values()}) > 1:
        raise ValueError(
            f"{len(means)} candidates; one at least must be there, and all must hold the same rows. Score "
            "them on one view."
        )
    worse = {trial: badness(loss_score(rows).value, better) for trial, rows in means.items()}
    as_good = [trial for trial, value in worse.items() if value <= min(worse.values()) + material]
    chosen = min(as_good, key=lambda trial: losses[trial] if losses else worse[trial])
    return Choice(chosen, tuple(trial for trial in as_good if trial != chosen))


def seeded_difference(
    first: Seeds,
    second: Seeds | Sequence[Row],
    *,
    clusters: Mapping[str, int] | None,
    seed: int,
    resamples: int = 10_000,
) -> Difference:
    """Difference of two recipes, each the mean of its seeds, with the noise of rows and of seeds.

    second: without seeds, rows of what is not trained, such as a baseline. The interval is for the mean over
    all seeds and all rows like these: another training of the recipe lies beside it by its own seed's luck.
    Seeds that the choice was made by keep the luck that made it.

    Clusters are resampled. Seeds are not, for two or three hold no more than their own extremes, and
    intervals would be too narrow. The variance between seeds, beyond what their rows explain, is pooled over
    both sides and enters by Student's t, with one degree of freedom less than seeds for each side: seeds
    are taken to matter as much to one recipe as to the other. With no more than one seed each it is
    infinite. How often such intervals hold: `benchmarks/confirmation_claims.py`.
    """
    sides = [first, second] if isinstance(second, Mapping) else [first]
    return paired_difference(
        seed_mean(first),
        seed_mean(second) if isinstance(second, Mapping) else second,
        clusters=clusters,
        seed=seed,
        resamples=resamples,
        noise=[_seed_noise(sides, clusters)],
    )


def _seed_noise(sides: Sequence[Seeds], clusters: Mapping[str, int] | None) -> Noise:
    degrees = sum(len(side) - 1 for side in sides)
    if degrees == 0:
        return Noise(error=math.inf, degrees=1)
    squares = sum((len(side) - 1) * _seed_variance(side, clusters) for side in sides if len(side) > 1)
    # Below 0 where rows explain more than there is.
    variance = max(0.0, squares / degrees) * sum(1 / len(side) for side in sides)
    return Noise(error=math.sqrt(variance), degrees=degrees)


def _seed_variance(seeds: Seeds, clusters: Mapping[str, int] | None) -> float:
    """Between seeds' ratios, less what equally good seeds show for their rows' sake; may be negative."""
    sets = matched(*seeds.values())
    # Seeds, clusters.
    pulls = sums([influence(*columns(rows)) for rows in sets], labels(sets[0], clusters))
    count = pulls.shape[1]
    from_rows = pulls.var(axis=0, ddof=1).sum() * count / max(1, count - 1)
    return float(np.var([_ratio(*columns(rows)) for rows in sets], ddof=1) - from_rows)


def _ratio(total: Array, weight: Array) -> float:
    return float(total.sum() / weight.sum())


def badness(value: float, better: Better) -> float:
    """The value, so turned that the lowest is the best."""
    return value if better == "lower" else -value
