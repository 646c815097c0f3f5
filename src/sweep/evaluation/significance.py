"""P values of several tests together, and a second opinion on a difference that assumes less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scipy.stats import wilcoxon

from sweep.evaluation.rows import Row, columns, labels, matched, sums


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """The p values, each raised so that all that lie below a level hold together at that level.

    Raises ValueError for a value outside 0 to 1.
    Source: Holm 1979, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6.
    """
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda pair: pair[1])):
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"{name}: p = {p}; a p value lies between 0 and 1. Pass one that a test gave.")
        highest = max(highest, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def signed_rank_p(
    first: Sequence[Row], second: Sequence[Row], *, clusters: Mapping[str, int] | None
) -> float:
    """P value of no difference, by the ranks of the clusters' differences: one huge cluster decides nothing.

    Two-sided. A cluster's difference is that of its totals per weight; clusters without weight or difference
    say nothing, and 1 is what is left without any other. clusters and
    errors: as in `paired_difference`.
    Source: Wilcoxon 1945, doi:10.2307/3001968.
    """
    one, other = matched(first, second)
    totals = sums([*columns(one), *columns(other)], labels(one, clusters))
    total, weight, rival, width = totals[:, (totals[1] > 0) & (totals[3] > 0)]
    differences = total / weight - rival / width
    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0
