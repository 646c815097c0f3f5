"""Whether the validation loss, which the search follows, orders trials as the objective does."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.stats import spearmanr

from sweep.types import Verdict

LEAST_AGREEMENT = 0.5
FEWEST_TRIALS = 4


def proxy_agrees(losses: Sequence[float], values: Sequence[float], *, higher_is_better: bool) -> Verdict:
    """Spearman's rank correlation of both orders, 1 where the trial of the lowest loss has the best value.

    losses, values: of the same trials, in one order. It warns below 0.5, and where it can't tell, without a
    value: with fewer than 4 trials, or where all losses or all values are the same.
    Raises ValueError for lengths that differ.
    """
    if len(losses) != len(values):
        raise ValueError(f"{len(losses)} losses and {len(values)} values; there must be one each per trial.")
    if len(losses) < FEWEST_TRIALS:
        return _verdict(
            math.nan, f"{len(losses)} trials can't tell whether the loss agrees; at least {FEWEST_TRIALS} can"
        )
    if len(set(losses)) == 1 or len(set(values)) == 1:
        return _verdict(math.nan, "all trials are alike in loss or value, so their orders can't be compared")
    goodness = list(values) if higher_is_better else [-value for value in values]
    agreement = float(spearmanr([-loss for loss in losses], goodness).statistic)
    if agreement < LEAST_AGREEMENT:
        return _verdict(
            agreement,
            "the loss orders trials otherwise than the objective: choose among more finalists, or another "
            "objective.rung_metric",
        )
    return _verdict(agreement, "the loss orders trials much as the objective does")


def _verdict(agreement: float, message: str) -> Verdict:
    return Verdict(
        check="proxy_agrees",
        passed=agreement >= LEAST_AGREEMENT,
        severity="warn",
        value=agreement,
        limit=LEAST_AGREEMENT,
        message=message,
    )
