"""Two models on the parts of the traffic: a mean over all hides who is served worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sweep.evaluation.compare import CONFIDENCE, FEWEST_CLUSTERS, Difference, paired_difference
from sweep.evaluation.rows import Row
from sweep.evaluation.selection import Better
from sweep.evaluation.significance import holm

# With fewer, a share moves by five points with one row.
FEWEST_ROWS = 20


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The first model less the second on the rows that have `value` in `column`.

    difference: its p value is adjusted for the number of slices. worse: it is not chance that the first is.
    """

    column: str
    value: str
    difference: Difference
    worse: bool


def compare_slices(
    first: Sequence[Row],
    second: Sequence[Row],
    parts: Mapping[str, Mapping[str, str]],
    *,
    clusters: Mapping[str, int] | None,
    seed: int,
    better: Better,
    least: int = FEWEST_ROWS,
) -> tuple[Slice, ...]:
    """Each slice of at least so many rows, by column and value. parts: row id to its slices."""
    found: dict[tuple[str, str], Difference] = {}
    for column, value in sorted({pair for slices in parts.values() for pair in slices.items()}):
        inside = {row for row, slices in parts.items() if slices.get(column) == value}
        one, other = ([row for row in rows if row[0] in inside] for rows in (first, second))
        if len(one) >= least:
            found[column, value] = paired_difference(one, other, clusters=clusters, seed=seed)
    adjusted = holm({f"{column}={value}": found[column, value].p_value for column, value in found})
    return tuple(
        Slice(
            column=column,
            value=value,
            difference=replace(difference, p_value=adjusted[f"{column}={value}"]),
            worse=_worse(difference, adjusted[f"{column}={value}"], better),
        )
        for (column, value), difference in found.items()
    )


def _worse(difference: Difference, p_value: float, better: Better) -> bool:
    behind = difference.low > 0 if better == "lower" else difference.high < 0
    return behind and p_value < 1 - CONFIDENCE and difference.clusters >= FEWEST_CLUSTERS
