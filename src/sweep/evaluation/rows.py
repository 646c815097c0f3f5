"""Rows as columns of numbers: each a total over a weight, matched by id, in clusters that hang together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# A row's id, its total, its weight: a `RowLoss` or a `RowValue`.
Row = tuple[str, float, float]


class RowValue(NamedTuple):
    """What a row comes to, such as its net value: like a `RowLoss`, of weight 1 unless said otherwise."""

    row: str
    total: float
    weight: float = 1.0


def by_id(rows: Sequence[Row]) -> dict[str, Row]:
    """The rows by their ids. Raises ValueError where an id repeats or there is no weight at all."""
    named = {row[0]: row for row in rows}
    if len(named) < len(rows):
        twice = Counter(row[0] for row in rows).most_common(1)[0][0]
        raise ValueError(f"row {twice!r} occurs twice; each row must occur once. Drop the duplicates.")
    if not sum(weight for _, _, weight in rows) > 0:
        raise ValueError(
            f"{len(rows)} rows with no token between them; at least one must have a response token."
        )
    return named


def matched(first: Sequence[Row], *others: Sequence[Row]) -> list[dict[str, Row]]:
    """Each set of rows by id, in the order of the first. Raises ValueError where ids differ or repeat."""
    one = by_id(first)
    sets = [one]
    for rows in others:
        other = by_id(rows)
        if odd := sorted(one.keys() ^ other.keys()):
            raise ValueError(
                f"{len(odd)} rows are in one of the two only, such as {odd[0]!r}; both must hold the same "
                "rows. Evaluate both on one view."
            )
        sets.append({row: other[row] for row in one})
    return sets


def columns(rows: Mapping[str, Row]) -> tuple[Array, Array]:
    """The rows' totals, and their weights."""
    _, total, weight = zip(*rows.values(), strict=True)
    return np.array(total, dtype=float), np.array(weight, dtype=float)


def labels(rows: Iterable[str], clusters: Mapping[str, int] | None) -> NDArray[np.intp]:
    """Each row's cluster, counted from 0; None: each row is its own. Raises ValueError for a row without."""
    names = list(rows)
    if clusters is None:
        return np.arange(len(names))
    if lost := [row for row in names if row not in clusters]:
        raise ValueError(
            f"{len(lost)} rows have no cluster, such as {lost[0]!r}; every row needs one. "
            "Pass the clusters of the split that the rows come from."
        )
    return np.unique([clusters[row] for row in names], return_inverse=True)[1]


def sums(columns: Sequence[Array], of: NDArray[np.intp]) -> Array:
    """The columns summed within clusters: columns, clusters. of: as from `labels`."""
    return np.stack([np.bincount(of, column).astype(np.float64) for column in columns])


def influence(total: Array, weight: Array) -> Array:
    """How far each row pulls the ratio of the sums from where it is: its square summed is the variance.

    Source: Cochran 1977, Sampling Techniques, section 2.11.
    """
    return np.asarray((total - total.sum() / weight.sum() * weight) / weight.sum())
